(() => { // the twin of ch02.samples: same random numbers, same scene, computed in the browser
  const R = 200, LARGEST = 8, K = 1 << LARGEST, DIM = 10, SIGMA = 0.5;
  let square = null, plain = null;
  const uniform = (i) => { // a hash of a counter, 32 bits
    let h = (i + 0x9e3779b9) >>> 0;
    h = Math.imul(h ^ (h >>> 16), 0x21f0aaad) >>> 0;
    h = Math.imul(h ^ (h >>> 15), 0x735a2d97) >>> 0;
    return (((h ^ (h >>> 15)) >>> 0) + 0.5) / 4294967296;
  };
  const prepare = () => { // running sums over dimensions of eps^2 and eps
    const n = R * K;
    square = new Float64Array(n * DIM); plain = new Float64Array(n * DIM);
    for (let i = 0; i < n * DIM; i++) {
      const e = Math.sqrt(-2 * Math.log(uniform(2 * i))) * Math.cos(2 * Math.PI * uniform(2 * i + 1));
      square[i] = e * e + (i < n ? 0 : square[i - n]); plain[i] = e + (i < n ? 0 : plain[i - n]);
    }
  };
  return (p) => {
    if (!square) prepare();
    const D = Math.round(p.dim), j = Math.round(p.log2k), v = 1 + SIGMA * SIGMA, place = Math.sqrt(v);
    const m = (p.near * place) / v, s = 1 + p.near * (SIGMA / Math.sqrt(v) - 1);
    const constant = D * (Math.log(s) - Math.log(SIGMA) + (0.5 * place * place) / v + 0.5 * Math.log(v));
    const est = [], at = (D - 1) * R * K, lw = new Float64Array(K);
    for (let r = 0; r < R; r++) {
      let top = -Infinity;
      for (let k = 0; k < K; k++) {
        const q = square[at + r * K + k], e = plain[at + r * K + k];
        const z2 = D * m * m + 2 * m * s * e + s * s * q, zx = place * (D * m + s * e);
        lw[k] = -0.5 * z2 - (0.5 * (D * place * place - 2 * zx + z2)) / (SIGMA * SIGMA) + 0.5 * q + constant;
        if (lw[k] > top) top = lw[k];
      }
      const row = [];
      let sum = 0;
      for (let k = 0; k < K; k++) {
        sum += Math.exp(lw[k] - top);
        if (((k + 1) & k) === 0) row.push(Math.log(sum) - Math.log(k + 1) + top);
      }
      est.push(row);
    }
    const ks = [], mean = [], low = [], high = [];
    for (let k = 0; k <= LARGEST; k++) {
      const c = est.map((row) => row[k]).sort((a, b) => a - b);
      ks.push(k); mean.push(c.reduce((a, b) => a + b, 0) / R); low.push(c[Math.floor(R / 10)]); high.push(c[Math.floor((R * 9) / 10)]);
    }
    const floor = -5 * Math.max(1, Math.ceil(-0.26 * low[0]));
    const jitter = [], dots = [], centre = [], bar = 2 / 7, count = new Array(15).fill(0);
    let total = 0, below = 0, lost = 0;
    for (let r = 0; r < R; r++) {
      const ratio = Math.exp(est[r][j]);
      jitter.push(j + 0.36 * (r / (R - 1) - 0.5)); dots.push(Math.max(est[r][j], floor)); lost += est[r][j] < floor ? 1 : 0; total += ratio; below += ratio < 0.5 ? 1 : 0;
      count[Math.floor(Math.min(ratio, 4.2) / bar)] += 1;
    }
    for (let b = 0; b < 15; b++) { centre.push((b + 0.5) * bar); count[b] /= R; }
    const where = p.near === 0 ? "the prior" : p.near === 1 ? "the posterior" : `${p.near.toFixed(2)} of the way`;
    const percent = ((100 * below) / R).toFixed(1), off = (Math.abs(mean[j]) > 0.005 ? mean[j] : 0).toFixed(2);
    return {
      panels: [
        { xlim: [-0.3, LARGEST + 0.3], ylim: [floor, 7], title: "estimates of log p(x), minus log p(x)", xlabel: "log₂ K (K samples: 1, 2, 4, … 256)", ylabel: "nats", equal: false, axes: true, aspect: 1.35, grow: 1.4, items: [
          { t: "points", s: 0, x: jitter, y: dots, r: 1.6, a: 0.5, m: 0, name: "200 repeats at your K" + (lost ? ` (${lost} lower, on the edge)` : "") },
          { t: "line", s: -1, x: [-1, LARGEST + 1], y: [0, 0], dash: 1, w: 1.5, name: "truth" },
          { t: "line", s: 1, x: ks, y: mean, dash: 0, w: 2.5, name: "their mean: estimates the bound" },
          { t: "line", s: 2, x: ks, y: low, dash: 2, w: 1.5, name: "10% and 90%" },
          { t: "line", s: 2, x: ks, y: high, dash: 2, w: 1.5 },
        ] },
        { xlim: [0, 4.29], ylim: [0, 1], title: "the same, as a ratio", xlabel: "estimate / p(x), last bar: more", ylabel: "share of repeats", equal: false, axes: true, aspect: 1.1, grow: 1, items: [
          { t: "bars", s: 0, x: centre, y: count, width: bar, fill: 0.4, name: "share of repeats" },
          { t: "line", s: -1, x: [1, 1], y: [0, 1], dash: 1, w: 1.5, name: "truth" },
        ] },
      ],
      alt: `Dimension ${D}, K = ${1 << j}, q at ${where}. The mean log estimate is ${off} nats from log p(x); ${percent}% of the repeats give less than half of p(x).`,
      readouts: { K: String(1 << j), "mean of log estimate \u2212 log p(x)": off, "mean of estimate / p(x)": (total / R).toFixed(2), "repeats below half of p(x)": `${percent} %` },
    };
  };
})()
