(p, data) => { // the twin of ch03.beta: nine measured models, and their pictures as bytes
  const { betas, names, rate, distortion, active, spread, shift } = data;
  const k = Math.round(p.log2_beta) + 5, b = betas[k], r = rate[k], d = distortion[k];
  const bytes = (text) => Array.from(atob(text), (c) => 255 - c.charCodeAt(0)); // ink on paper
  const ends = [-200, 200], slope = (s) => ends.map((x) => d - s * (x - r));
  const rows = [
    ["five test digits", bytes(data.digits)],
    ["their reconstructions", bytes(data.reconstructions[k])],
    ["decoded from five draws of the prior", bytes(data.samples[k])],
  ];
  const pictures = rows.flatMap(([title, v], row) => {
    const base = 2.8 - 1.4 * row;
    return [
      { t: "text", s: -1, x: 2.5, y: base + 1.2, text: title, align: "center", size: 1 },
      ...[0, 1, 2, 3, 4].map((i) => ({ t: "heat", s: 0, v: v.slice(64 * i, 64 * i + 64), shape: [8, 8], extent: [i + 0.04, i + 0.96, base + 0.04, base + 0.96], gray: 1 })),
    ];
  });
  const bound = (-(r + d)).toFixed(2);
  const said = spread[k] < 0.01 ? "the five reconstructions are the same blur: the posterior has collapsed" : `the reconstructions differ from each other, by ${spread[k].toFixed(2)} of the grey range on average`;
  return {
    panels: [
      {
        xlim: [-4, 70], ylim: [62, 116], title: `rate and distortion, beta = ${names[k]}`, xlabel: "rate: KL(q || prior), nats", ylabel: "distortion: \u2212log p(x | z), nats", equal: false, axes: true, aspect: 1.15, grow: 1.2,
        items: [
          { t: "line", s: 2, x: ends, y: slope(b), dash: 2, w: 1.5, name: "slope \u2212beta: equal loss" },
          { t: "line", s: -1, x: ends, y: slope(1), dash: 1, w: 1, a: 0.6, name: "slope \u22121: equal ELBO" },
          { t: "line", s: 0, x: rate, y: distortion, dash: 0, w: 2, m: 0, name: "nine models, measured on test digits" },
          { t: "points", s: 0, x: rate, y: distortion, r: 3, m: 0 },
          ...names.map((text, i) => ({ t: "text", s: 0, x: rate[i] + shift[i][0], y: distortion[i] + shift[i][1], text, align: "center", size: 0.9 })),
          { t: "points", s: 1, x: [r], y: [d], r: 6, m: 1, name: "this beta" },
        ],
      },
      { xlim: [0, 5], ylim: [0, 4.2], title: "", xlabel: "", ylabel: "", equal: true, axes: false, aspect: 1.19, grow: 1, items: pictures },
    ],
    alt: `Trained with beta ${names[k]}: the code costs ${r.toFixed(2)} nats and leaves ${d.toFixed(2)} nats of distortion, so the ELBO is ${bound}. ${active[k]} of 10 latent dimensions are used; ${said}.`,
    readouts: { beta: names[k], "rate, nats": r.toFixed(2), "distortion, nats": d.toFixed(2), "ELBO, nats": bound, "D + beta R, nats": (d + b * r).toFixed(2), "dimensions used": `${active[k]} of 10` },
  };
}
