(() => { // the twin of ch10.score_field: same scene, computed in the browser
  const BOX = 6, N = 48, STD = 0.35, W = [0.2, 0.5, 0.3], M = [[-2.2, 0], [2.2, 0], [0, 2.4]];
  const range = (n, a, b) => Array.from({ length: n }, (_, i) => a + ((b - a) * i) / (n - 1));
  const law = (x, y, v) => { // density and score of the blurred bumps
    const log = M.map((m, k) => Math.log(W[k]) - ((x - m[0]) ** 2 + (y - m[1]) ** 2) / (2 * v)), top = Math.max(...log);
    let p = 0, u = 0, w = 0;
    log.forEach((l, k) => { const e = Math.exp(l - top); p += e; u += e * M[k][0]; w += e * M[k][1]; });
    return [(Math.exp(top) * p) / (2 * Math.PI * v), (u / p - x) / v, (w / p - y) / v];
  };
  return (p) => {
    const sigma = 10 ** p.level, v = STD * STD + sigma * sigma, width = Math.sqrt(v);
    const heat = [], ax = [], ay = [], au = [], av = [];
    let top = 0;
    for (let i = 0; i < N; i++) for (let j = 0; j < N; j++) {
      const q = law(((j + 0.5) * 2 * BOX) / N - BOX, ((i + 0.5) * 2 * BOX) / N - BOX, v)[0];
      heat.push(q); if (q > top) top = q;
    }
    const ticks = range(14, -5.2, 5.2);
    for (const x of ticks) for (const y of ticks) {
      const s = law(x, y, v), a = width * s[1], b = width * s[2], c = 0.45 / (1 + 0.5 * Math.hypot(a, b));
      ax.push(x); ay.push(y); au.push(c * a); av.push(c * b);
    }
    const line = range(241, -BOX, BOX), cut = line.map((x) => law(x, 0, v)), most = Math.max(...cut.map((c) => c[0]));
    const inner = cut.slice(80, 161).map((c) => c[0]), valley = Math.min(...inner) / most;
    const dip = inner.some((q, i) => i > 0 && i < 80 && q < inner[i - 1] && q < inner[i + 1]);
    const slope = ((cut[121][1] - cut[119][1]) / (line[121] - line[119])) * v;
    const where = valley < 0.05 ? "the bumps are apart, and the arrows between them flip" : dip ? "the bumps begin to touch" : "the line has no valley: one hill, and all arrows point to one place";
    return {
      panels: [
        { xlim: [-BOX, BOX], ylim: [-BOX, BOX], title: "blurred density and its score", xlabel: "x₁", ylabel: "x₂", equal: true, axes: true, aspect: 1, grow: 1, items: [
          { t: "heat", s: 0, v: heat.map((q) => Math.round(Math.min(1, q / top) ** 0.7 * 235)), shape: [N, N], extent: [-BOX, BOX, -BOX, BOX] },
          { t: "arrows", s: -1, x: ax, y: ay, u: au, v: av, w: 1.2, name: "score, long arrows shortened" },
          { t: "line", s: 1, x: [-BOX, BOX], y: [0, 0], dash: 1, w: 1 },
        ] },
        { xlim: [-BOX, BOX], ylim: [-7, 7], title: "along the dashed line", xlabel: "x₁", ylabel: "score times width of a bump", equal: false, axes: true, aspect: 1, grow: 1, items: [
          { t: "line", s: -1, x: [-BOX, BOX], y: [0, 0], dash: 0, w: 1, a: 0.5 },
          { t: "line", s: 1, x: line, y: cut.map((c) => width * c[1]), dash: 0, w: 2.2, name: "first component, times width" },
          { t: "line", s: 0, x: line, y: cut.map((c) => (5 * c[0]) / most - 7), dash: 2, w: 1.8, name: "density, scaled" },
        ] },
      ],
      alt: `At noise ${sigma.toFixed(3)} ${where}. The lowest density of the middle third is ${valley.toFixed(4)} of the highest on the line.`,
      readouts: { "noise σ": sigma.toFixed(3), "width of a bump": width.toFixed(3), "valley / top": dip ? valley.toFixed(4) : "no valley", "slope at 0, times width²": slope.toFixed(2) },
    };
  };
})()
