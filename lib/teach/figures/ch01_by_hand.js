(p, data) => { // the twin of ch01.by_hand: same scene, computed in the browser
  const { slope, middle, height, logdet } = p;
  const gauss = (z) => Math.exp(-0.5 * z * z) / Math.sqrt(2 * Math.PI);
  const g = (x) => {
    const l = Math.tanh(2 * (x - middle + 1.25)), r = Math.tanh(2 * (x - middle - 1.25));
    return [slope * (x - middle) + height * (l + r), slope + 2 * height * (1 - l * l + 1 - r * r)];
  };
  const even = (lo, hi, m) => Array.from({ length: m }, (_, i) => lo + ((hi - lo) * i) / (m - 1));
  const mean = (list) => list.reduce((s, v) => s + v, 0) / list.length;
  const claim = (x) => { const [z, dz] = g(x); return gauss(z) * (logdet ? dz : 1); };
  const at = data.map(g), fit = mean(at.map(([z]) => -0.5 * z * z - 0.5 * Math.log(2 * Math.PI))), volume = mean(at.map(([, d]) => Math.log(d)));
  const grid = even(-4, 4, 321), wide = even(-120, 120, 9601).map(claim), step = 240 / 9600;
  let area = 0;
  for (let i = 1; i < wide.length; i++) area += ((wide[i] + wide[i - 1]) / 2) * step;
  const low = -2.4, w = 5.6 / 14, counts = Array(14).fill(0);
  for (const x of data) counts[Math.min(13, Math.floor((x - low) / w))] += 1 / data.length / w;
  const score = (logdet ? fit + volume : fit).toFixed(3);
  return {
    panels: [
      {
        xlim: [-4, 4], ylim: [0, 1], title: "data and the curve you claim", xlabel: "x", ylabel: "density", equal: false, axes: true, aspect: 1.4, grow: 1.2,
        items: [
          { t: "bars", s: 2, x: counts.map((_, k) => low + (k + 0.5) * w), y: counts, width: w, fill: 0.35, name: "the 40 numbers, as a histogram" },
          { t: "line", s: 1, x: grid, y: grid.map(claim), dash: 0, w: 2.5, name: "the curve" },
        ],
      },
      {
        xlim: [-4, 4], ylim: [-4, 4], title: "where the data land in z", xlabel: "x", ylabel: "z", equal: false, axes: true, aspect: 1.15, grow: 1,
        items: [
          { t: "line", s: -1, x: [-4, 4, null, -4, 4], y: [1, 1, null, -1, -1], dash: 1, w: 1, a: 0.4, name: "z = 1 and z = -1" },
          { t: "line", s: 0, x: grid, y: grid.map((x) => g(x)[0]), dash: 0, w: 2, name: "map z = g(x)" },
          { t: "points", s: 3, x: data, y: at.map(([z]) => z), r: 3, m: 3, name: "data" },
        ],
      },
    ],
    alt: `Slope ${slope.toFixed(2)}, middle ${middle.toFixed(2)}, height ${height.toFixed(2)}. Mean log p(z) is ${fit.toFixed(3)}, mean log dz/dx is ${volume.toFixed(3)}; the score ${logdet ? "with" : "without"} the log-determinant is ${score}, and the curve has area ${area.toFixed(2)}.`,
    readouts: { "mean log p(z)": fit.toFixed(3), "mean log dz/dx": volume.toFixed(3), score, "area, beyond the frame too": area.toFixed(2) },
  };
}
