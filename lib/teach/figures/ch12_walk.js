(() => (p, data) => { // the twin of ch12.walk
  const { pairs, stops: n, sure } = data, first = 2 * n * pairs.indexOf(p.pair), at = Math.round(p.share * (n - 1));
  const way = `${Math.round((100 * at) / (n - 1))}%`, x = Array.from({ length: n }, (_, i) => i / (n - 1));
  const panel = (j, how) => ({
    xlim: [0, 1], ylim: [0, 1], title: `${way}, by ${how}`, xlabel: "", ylabel: "", equal: true, axes: false, aspect: 1, grow: 0.6,
    items: [{ t: "tile", s: 0, sheet: "ch12_walk", k: first + j * n + at, extent: [0, 1, 0, 1] }],
  });
  const a = sure[first + at].toFixed(2), b = sure[first + n + at].toFixed(2);
  const curve = (j, name) => ({ t: "line", s: j, x, y: sure.slice(first + j * n, first + (j + 1) * n), dash: j, w: 2, name });
  return {
    panels: [panel(0, "latents"), panel(1, "pixels"), {
      xlim: [0, 1], ylim: [0, 1.05], title: "the reader's confidence", xlabel: "share of the way", ylabel: "explained by one drawing", equal: false, axes: true, aspect: 1.3, grow: 0.9,
      items: [curve(0, "latents"), curve(1, "pixels"), { t: "line", s: -1, x: [at / (n - 1), at / (n - 1)], y: [0, 1.05], dash: 2, w: 1, name: "the slider's share" }],
    }],
    alt: `The pair that differs in ${p.pair}, ${way} of the way: one drawing explains ${a} of what is seen on the way through latents, and ${b} on the way through pixels.`,
    readouts: { "by latents": a, "by pixels": b },
  };
})()
