(() => { // the twin of ch03.latent_plane: the decoder runs in the browser, on the stored float16 weights
  const TOP = 16;
  let layers = null;
  const half = (h) => {
    const e = (h >> 10) & 31, f = h & 1023;
    return (h >> 15 ? -1 : 1) * (e ? (1 + f / 1024) * 2 ** (e - 15) : f * 2 ** -24);
  };
  const prepare = (data) => {
    const raw = atob(data.weights);
    let at = 0;
    const take = (n) => Float64Array.from({ length: n }, () => half(raw.charCodeAt(at++) | (raw.charCodeAt(at++) << 8)));
    layers = data.sizes.slice(1).map((m, k) => ({ weight: take(m * data.sizes[k]), bias: take(m) }));
  };
  const decode = (z) => {
    let h = z;
    layers.forEach(({ weight, bias }, k) => {
      const n = h.length, last = k === layers.length - 1;
      h = Array.from(bias, (b, i) => {
        let s = 0;
        for (let j = 0; j < n; j++) s += weight[i * n + j] * h[j];
        s += b;
        return last ? s : s / (1 + Math.exp(-s));
      });
    });
    return h.slice(0, 64).map((m, i) => {
      const mean = 0.5 * (m + 1) * TOP, scale = Math.exp(Math.log((TOP + 1) / 8) + 7 * Math.tanh(h[64 + i] / 7));
      let total = 0;
      for (let j = 1; j <= TOP; j++) total += 1 / (1 + Math.exp(-(mean - j + 0.5) / scale));
      return total;
    });
  };
  return (p, data) => {
    if (!layers) prepare(data);
    const { z1, z2 } = p, { x, y, labels } = data, levels = decode([z1, z2]);
    let near = 0, away = Infinity;
    for (let i = 0; i < x.length; i++) {
      const d = Math.hypot(x[i] - z1, y[i] - z2);
      if (d < away) { away = d; near = i; }
    }
    const angle = Array.from({ length: 61 }, (_, i) => (2 * Math.PI * i) / 60);
    const circle = (r, name) => ({ t: "line", s: -1, x: angle.map((a) => r * Math.cos(a)), y: angle.map((a) => r * Math.sin(a)), dash: 1, w: 1, a: 0.5, ...name });
    const prior = (-0.5 * (z1 * z1 + z2 * z2) - Math.log(2 * Math.PI)).toFixed(3);
    const mean = (levels.reduce((a, b) => a + b, 0) / 64).toFixed(2), far = away.toFixed(3), digit = labels[near];
    return {
      panels: [
        {
          xlim: [-3.5, 3.5], ylim: [-3.5, 3.5], title: "150 test digits, at their means", xlabel: "z₁", ylabel: "z₂", equal: true, axes: true, aspect: 1.05, grow: 1.5,
          items: [
            circle(1, { name: "prior, 1 and 2 standard deviations" }), circle(2),
            ...x.map((v, i) => ({ t: "text", s: Number(labels[i]) % 6, x: v, y: y[i], text: labels[i], align: "center", size: 0.85 })),
            { t: "line", s: 1, x: [z1, x[near]], y: [z2, y[near]], dash: 0, w: 2, name: "to the nearest test digit" },
            { t: "points", s: 1, x: [z1], y: [z2], r: 3, m: 0, name: "your z, drag it" },
          ],
        },
        {
          xlim: [0, 1], ylim: [0, 1], title: "decoded there", xlabel: "", ylabel: "", equal: true, axes: false, aspect: 0.9, grow: 1,
          items: [
            { t: "heat", s: 0, v: levels.map((v) => Math.round((1 - Math.min(Math.max(v, 0), TOP) / TOP) * 255)), shape: [8, 8], extent: [0, 1, 0, 1], gray: 1 },
            { t: "line", s: -1, x: [0, 1, 1, 0, 0], y: [0, 0, 1, 1, 0], dash: 0, w: 2, a: 0.4 },
          ],
        },
      ],
      alt: `The decoder's picture at z = (${z1.toFixed(2)}, ${z2.toFixed(2)}), with mean grey level ${mean} of 16. The nearest of the 150 test digits marked in the plane is a ${digit}, ${far} away. The prior's log density there is ${prior} nats.`,
      readouts: { z1: z1.toFixed(2), z2: z2.toFixed(2), "nearest test digit": `a ${digit}`, "its distance": far, "log p(z), nats": prior, "mean grey level (0 to 16)": mean },
    };
  };
})()
