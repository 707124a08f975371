(() => (p, data) => { // the twin of ch12.captions: the pictures were drawn beforehand
  const { names, draws, right } = data;
  let index = 0;
  for (const k in names) index = index * names[k].length + names[k].indexOf(p[k]);
  const text = `a ${p.size} ${p.colour} ${p.shape} at the ${p.position} on a ${p.background} background`;
  const tiles = Array.from({ length: draws }, (_, i) => draws * index + i), got = tiles.map((k) => Number(right[k]));
  const sum = got.reduce((a, b) => a + b, 0), whole = got.filter((r) => r === 5).length;
  return {
    panels: [{
      xlim: [0, draws], ylim: [0, 1], title: "", xlabel: "", ylabel: "", equal: true, axes: false, aspect: draws, grow: 1,
      items: tiles.map((k, i) => ({ t: "tile", s: 0, sheet: "ch12_captions", k, extent: [i + 0.03, i + 0.97, 0.03, 0.97] })),
    }],
    alt: `Three pictures for the caption: ${text}. Read off the pictures, ${sum} of ${5 * draws} attributes are as asked, all five in ${whole} of ${draws}.`,
    readouts: { caption: text, "attributes right": `${sum} of ${5 * draws}` },
  };
})()
