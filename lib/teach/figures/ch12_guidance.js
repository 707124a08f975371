(() => (p, data) => { // the twin of ch12.guidance
  const { names, texts, weights, each, right, shares, spreads } = data;
  let k = 0;
  weights.forEach((w, i) => { if (Math.abs(w - p.w) < Math.abs(weights[k] - p.w)) k = i; });
  const which = names.indexOf(p.text), first = each * (which * weights.length + k), mine = right.slice(first, first + each);
  const sum = (j) => mine.reduce((a, r) => a + r[j], 0), got = sum(0), asked = sum(1), w = weights[k];
  const share = shares[k].toFixed(2), spread = spreads[k].toFixed(2);
  const curve = (s, y, name) => [{ t: "line", s, x: weights, y, dash: s, w: 2, m: s, name }, { t: "points", s, x: weights, y, r: 3, m: s }];
  return {
    panels: [
      {
        xlim: [0, 3], ylim: [0, 2], title: `six pictures at w = ${w}`, xlabel: "", ylabel: "", equal: true, axes: false, aspect: 1.5, grow: 1.2,
        items: mine.map((_, i) => {
          const x = i % 3, y = 1 - Math.floor(i / 3);
          return { t: "tile", s: 0, sheet: "ch12_guidance", k: first + i, extent: [x + 0.03, x + 0.97, y + 0.03, y + 0.97] };
        }),
      },
      {
        xlim: [-0.3, 8.3], ylim: [0, 1.3], title: "over many captions", xlabel: "guidance weight w", ylabel: "share, or ratio", equal: false, axes: true, aspect: 1.3, grow: 1,
        items: [...curve(0, shares, "attributes right"), ...curve(1, spreads, "spread, 1 is the data's"), { t: "line", s: -1, x: [w, w], y: [0, 1.3], dash: 2, w: 1, name: "your weight" }],
      },
    ],
    alt: `Six pictures for ${texts[which]}, at guidance weight ${w}: ${got} of ${asked} attributes are as asked. Over many captions ${share} of the attributes are right, and the spread is ${spread} of the data's.`,
    readouts: { "attributes right, here": `${got} of ${asked}`, "right, many captions": share, spread },
  };
})()
