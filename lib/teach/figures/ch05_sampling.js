(p) => { // the twin of ch05.sampling: same scene, computed in the browser
  const LOW = -4, HIGH = 4, N = 60, TOP = 0.35, R = Math.sqrt(2 * Math.PI), k = Math.round(p.step), z = [p.z1, p.z2, p.z3];
  const rules = (x1, x2) => [[0.4, 0.9 * Math.sin(1.5 * x1), 0.6 * x1 * x2 - 0.2], [-0.2, 0.4 * Math.tanh(x1) - 0.6, 0.5 * Math.cos(x2) - 0.3 * x1 - 0.4]];
  const normal = (x, s = 0, l = 0) => { const v = (x - s) * Math.exp(-l); return Math.exp(-0.5 * v * v - l) / R; };
  const num = (v, d = 2) => (Math.abs(v) < 0.5 * 10 ** -d ? 0 : v).toFixed(d);
  const even = (lo, hi, n) => Array.from({ length: n }, (_, i) => lo + ((hi - lo) * i) / (n - 1)), grid = even(LOW, HIGH, 201);
  const x = [0, 0, 0];
  for (const i of [0, 1, 2]) { const [s, l] = rules(x[0], x[1]); x[i] = s[i] + Math.exp(l[i]) * z[i]; }
  const [shift, logScale] = rules(x[0], x[1]), curve = (i) => grid.map((v) => normal(v, shift[i], logScale[i]));
  const top = k ? Math.max(1.15, (1.15 * Math.exp(-logScale[k - 1])) / R) : 1.15;
  let done = 0;
  for (let i = 0; i < k; i++) done += -0.5 * z[i] * z[i] - 0.5 * Math.log(2 * Math.PI) - logScale[i];
  const line = (s, xs, ys, dash, w, more) => ({ t: "line", s, x: xs, y: ys, dash, w, ...more });
  const text = (xs, ys, t, s = -1, size = 1) => ({ t: "text", s, x: xs, y: ys, text: t, align: "center", size });
  const left = [], slots = [line(-1, [0.4, 3.6], [0, 0], 0, 1, { a: 0.4 })], right = [];
  if (k) {
    const i = k - 1, tail = even(-4, z[i], 61), image = tail.map((v) => shift[i] + Math.exp(logScale[i]) * v);
    left.push(
      { t: "poly", s: 2, x: [-4, ...tail, z[i]], y: [0, ...tail.map((v) => normal(v)), 0], fill: 0.2, w: 0 },
      { t: "poly", s: 0, x: [image[0], ...image, x[i]], y: [0, ...image.map((v) => normal(v, shift[i], logScale[i])), 0], fill: 0.3, w: 0 },
      line(2, grid, grid.map((v) => normal(v)), 2, 1.8, { name: "z: standard normal" }),
      line(0, grid, curve(i), 0, 2.5, { name: "x: the conditional p(x | before)" }),
      { t: "arrows", s: -1, x: [z[i]], y: [0.94 * top], u: [x[i] - z[i]], v: [0], w: 1.5, name: "μ + exp(α) z" },
      line(2, [z[i], z[i]], [0, 0.94 * top], 2, 1.5), line(0, [x[i], x[i]], [0, 0.94 * top], 0, 1.5),
    );
  }
  else left.push(line(3, grid, curve(0), 3, 1.8, { name: "the first conditional" }));
  for (let i = 0; i < 3; i++) {
    if (i < k) slots.push({ t: "bars", s: 0, x: [i + 0.8], y: [x[i]], width: 0.5, fill: 0.35, ...(i ? {} : { name: "x, fixed" }) }, text(i + 0.8, x[i] + (x[i] >= 0 ? 0.35 : -0.35), num(x[i]), 0));
    else slots.push(text(i + 0.8, 0.45, "?", -1, 1.4));
  }
  slots.push({ t: "points", s: 2, x: [1.3, 2.3, 3.3], y: z, r: 4, m: 2, name: "z, the noise" });
  const low = k < 2 ? 0 : 1, [a, b] = low ? ["x₂", "x₃"] : ["x₁", "x₂"], v = [], centre = (i) => LOW + ((i + 0.5) * (HIGH - LOW)) / N;
  const columns = Array.from({ length: N }, (_, j) => {
    const c = centre(j), [s, l] = low ? rules(x[0], c) : rules(c, 0);
    return [low ? normal(c, shift[1], logScale[1]) : normal(c, s[0], l[0]), s[low + 1], l[low + 1]];
  });
  for (let i = 0; i < N; i++) for (const [front, s, l] of columns) v.push(Math.round(Math.min(1, (front * normal(centre(i), s, l)) / TOP) ** 0.7 * 235));
  right.push({ t: "heat", s: 0, v, shape: [N, N], extent: [LOW, HIGH, LOW, HIGH] });
  if (k) right.push(
    line(-1, [x[low], x[low]], [LOW, HIGH], 1, 1.2, { name: `${a} fixed` }),
    line(3, curve(low + 1).map((d) => x[low] + 1.6 * d), grid, 3, 1.8, { name: "the conditional along the line" }),
  );
  if (k >= low + 2) right.push({ t: "points", s: 1, x: [x[low]], y: [x[low + 1]], r: 5, m: 1, name: "the point drawn" });
  let said = "Nothing is fixed: three noises, and the first conditional.";
  if (k) {
    const i = k - 1, fixed = x.slice(0, k).map((value, j) => `x${j + 1} = ${num(value)}`).join(", ");
    said = `x${k} = ${num(shift[i])} + exp(${num(logScale[i])}) times z${k} = ${num(z[i])} gives ${num(x[i])}; as much mass lies left of it as left of z${k}. Fixed: ${fixed}; log density ${num(done, 3)} nats.`;
  }
  said += k < 3 ? ` Next: p(x${k + 1}${["", " | x1", " | x1, x2"][k]}) has mean ${num(shift[k])} and scale ${num(Math.exp(logScale[k]))}.` : " All three are drawn.";
  const shown = (i) => (i < k ? num(x[i], 3) : "?"), now = (value, rule = "") => (k ? rule + num(value, 3) : "none yet");
  const rule = [["", ""], ["0.9 sin(1.5 x1) = ", "0.4 tanh(x1) \u2212 0.6 = "], ["0.6 x1 x2 \u2212 0.2 = ", "0.5 cos(x2) \u2212 0.3 x1 \u2212 0.4 = "]][Math.max(k - 1, 0)];
  return {
    panels: [
      { xlim: [LOW, HIGH], ylim: [0, top], title: k ? `step ${k}: from z${"₀₁₂₃"[k]} to x${"₀₁₂₃"[k]}` : "step 0: only noise so far", xlabel: k ? `z${"₀₁₂₃"[k]} and x${"₀₁₂₃"[k]}` : "x₁", ylabel: "density", equal: false, axes: true, aspect: 1.1, grow: 1, items: left },
      { xlim: [0.4, 3.6], ylim: [LOW, HIGH], title: "x, from the left", xlabel: "coordinate", ylabel: "value", equal: false, axes: true, aspect: 0.72, grow: 0.55, items: slots },
      { xlim: [LOW, HIGH], ylim: [LOW, HIGH], title: low ? "p(x₂, x₃ | x₁)" : "p(x₁, x₂)", xlabel: a, ylabel: b, equal: true, axes: true, aspect: 1, grow: 0.9, items: right },
    ],
    alt: `Step ${k} of 3. ${said} Rules: mu 2 = 0.9 sin(1.5 x1), alpha 2 = 0.4 tanh(x1) \u2212 0.6; mu 3 = 0.6 x1 x2 \u2212 0.2, alpha 3 = 0.5 cos(x2) \u2212 0.3 x1 \u2212 0.4.`,
    readouts: { x1: shown(0), x2: shown(1), x3: shown(2), "μ of this step": now(shift[k - 1], rule[0]), "α": now(logScale[k - 1], rule[1]), "next: mean, scale": k < 3 ? `${num(shift[k])}, ${num(Math.exp(logScale[k]))}` : "all drawn", "log p so far, nats": now(done) },
  };
}
