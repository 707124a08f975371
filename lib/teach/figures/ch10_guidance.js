(() => { // the twin of ch10.guidance_weight: same starting noise, same scene, computed in the browser
  const NAMES = ["left", "right", "top"], M = [[-1.2, -0.6], [1.2, -0.6], [0, 1.4]], V = 0.64, SPAN = 5, N = 48;
  const soft = (x, y, a, v) => { // p(k | x_t) and the unnormalised density
    const log = M.map((m) => -((x - a * m[0]) ** 2 + (y - a * m[1]) ** 2) / (2 * v)), top = Math.max(...log);
    const e = log.map((l) => Math.exp(l - top)), sum = e[0] + e[1] + e[2];
    return [e.map((q) => q / sum), top + Math.log(sum)];
  };
  return (p, data) => {
    const k = NAMES.indexOf(p.kind), w = p.w, pts = data.noise.map((z) => [z[0], z[1]]);
    for (let n = 0; n + 1 < data.alpha.length; n++) { // DDIM from t to s
      const a = data.alpha[n], s = data.sigma[n], b = data.alpha[n + 1], r = data.sigma[n + 1], v = a * a * V + s * s, gain = (a * V) / v;
      for (const q of pts) {
        const own = soft(q[0], q[1], a, v)[0];
        for (let i = 0; i < 2; i++) q[2 + i] = M[k][i] * w + (1 - w) * (own[0] * M[0][i] + own[1] * M[1][i] + own[2] * M[2][i]);
        for (let i = 0; i < 2; i++) {
          const hat = q[2 + i] + gain * (q[i] - a * q[2 + i]); // the posterior mean is linear in the mean
          q[i] = b * hat + (r * (q[i] - a * hat)) / s;
        }
      }
    }
    const norm = Math.hypot(...M[k]), unit = M[k].map((m) => m / norm), heat = [];
    let top = -Infinity;
    const log = [];
    for (let i = 0; i < N; i++) for (let j = 0; j < N; j++) {
      const x = ((j + 0.5) * 2 * SPAN) / N - SPAN, y = ((i + 0.5) * 2 * SPAN) / N - SPAN, c = M[k];
      const total = soft(x, y, 1, V)[1], l = total + w * (-((x - c[0]) ** 2 + (y - c[1]) ** 2) / (2 * V) - total);
      log.push([l, x * unit[0] + y * unit[1]]); if (l > top) top = l;
    }
    let mass = 0, promised = 0, square = 0;
    for (const [l, d] of log) { const q = Math.exp(l - top); mass += q; promised += q * d; square += q * d * d; heat.push(Math.round(Math.min(1, q) ** 0.7 * 235)); }
    promised /= mass;
    const meant = Math.sqrt(square / mass - promised * promised);
    const along = pts.map((q) => q[0] * unit[0] + q[1] * unit[1]), out = along.reduce((a, b) => a + b, 0) / along.length;
    const sd = Math.sqrt(along.reduce((a, b) => a + (b - out) ** 2, 0) / (along.length - 1));
    const what = w === 0 ? "no condition" : w === 1 ? "the conditional law, up to the sampler's error" : w > 1 ? "more than the condition" : "part of the condition";
    return {
      panels: [
        { xlim: [-SPAN, SPAN], ylim: [-SPAN, SPAN], title: "samples, and the law p(x) p(y|x)ʷ", xlabel: "x₁", ylabel: "x₂", equal: true, axes: true, aspect: 1, grow: 1, items: [
          { t: "heat", s: 0, v: heat, shape: [N, N], extent: [-SPAN, SPAN, -SPAN, SPAN], name: "the law" },
          { t: "points", s: 1, x: pts.map((q) => q[0]), y: pts.map((q) => q[1]), r: 1.4, a: 1, m: 1, name: "guided samples" },
          ...M.map((m, i) => ({ t: "text", s: -1, x: m[0], y: m[1], text: NAMES[i], align: "center", size: 1, halo: true })),
        ] },
        { xlim: [0, 8], ylim: [0, 6], title: "how far out, for y = top", xlabel: "guidance weight w", ylabel: "mean of x₂", equal: false, axes: true, aspect: 1, grow: 1, items: [
          { t: "line", s: 1, x: data.w, y: data.sampled, dash: 1, w: 2.2, name: "mean of the samples" },
          { t: "line", s: 0, x: data.w, y: data.tilted, dash: 0, w: 2.2, name: "mean of the law" },
          { t: "line", s: -1, x: [w, w], y: [0, 6], dash: 2, w: 1, name: "the slider's w" },
        ] },
      ],
      alt: `Weight ${w.toFixed(2)} towards ${p.kind}: ${what}. The samples lie ${out.toFixed(2)} out on average, with spread ${sd.toFixed(2)}; the law p(x) p(y|x)ʷ has its mean at ${promised.toFixed(2)}, spread ${meant.toFixed(2)}.`,
      readouts: { w: w.toFixed(2), "mean, samples": out.toFixed(2), "mean of the law": promised.toFixed(2), "spread, samples": sd.toFixed(2), "spread of the law": meant.toFixed(2) },
    };
  };
})()
