(p, data) => { // the twin of ch07.solver: same scene, computed in the browser
  const MU = 1.5, END = 9, FAR = 12, NAMES = ["Euler", "midpoint", "Heun", "RK4", "Dormand-Prince, adaptive"];
  const series = NAMES.indexOf(p.method), adaptive = series === 4, cost = [1, 2, 2, 4][series];
  const v = (z) => [z[1], MU * (1 - z[0] * z[0]) * z[1] - z[0]];
  const go = (z, h, k) => [z[0] + h * k[0], z[1] + h * k[1]];
  const step = [
    (z, h) => go(z, h, v(z)),
    (z, h) => go(z, h, v(go(z, h / 2, v(z)))),
    (z, h) => { const a = v(z), b = v(go(z, h, a)); return [0, 1].map((i) => z[i] + (h / 2) * (a[i] + b[i])); },
    (z, h) => {
      const a = v(z), b = v(go(z, h / 2, a)), c = v(go(z, h / 2, b)), d = v(go(z, h, c));
      return [0, 1].map((i) => z[i] + (h / 6) * (a[i] + 2 * b[i] + 2 * c[i] + d[i]));
    },
  ][series];
  const A = [
    [1 / 5], [3 / 40, 9 / 40], [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
  ];
  const E = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40];
  const mix = (z, h, w, k) => w.reduce((s, c, j) => go(s, h * c, k[j]), z);
  const tol = 10 ** p.tol, rms = (a, z) => Math.hypot(a[0] / (tol + tol * Math.abs(z[0])), a[1] / (tol + tol * Math.abs(z[1]))) / Math.SQRT2;
  let z = [0.4, 0.3], evaluations = 0, rejected = 0, lost = false;
  const times = [0], states = [z];
  if (adaptive) { // lib.ode.solve_adaptive
    let t = 0, k1 = v(z);
    const d0 = rms(z, z), d1 = rms(k1, z), h0 = Math.min(d0, d1) > 1e-5 ? (0.01 * d0) / d1 : 1e-6, kk = v(go(z, h0, k1));
    const d2 = rms([kk[0] - k1[0], kk[1] - k1[1]], z) / h0, top = Math.max(d1, d2);
    let h = Math.min(100 * h0, top > 1e-15 ? (0.01 / top) ** 0.2 : Math.max(1e-6, 1e-3 * h0));
    evaluations = 2;
    while (t !== END) {
      const last = t + 1.01 * h - END >= 0;
      if (last) h = END - t;
      const k = [k1];
      let zn = z;
      for (const row of A) { zn = mix(z, h, row, k); k.push(v(zn)); }
      const err = mix([0, 0], h, E, k), big = [0, 1].map((i) => Math.max(Math.abs(z[i]), Math.abs(zn[i]))), size = rms(err, big);
      evaluations += 6;
      if (size <= 1) { t = last ? END : t + h; z = zn; k1 = k[6]; times.push(t); states.push(z); } else rejected += 1;
      let f = size > 0 ? Math.min(10, Math.max(0.2, 0.9 * size ** -0.2)) : 10;
      if (size > 1) f = Math.min(1, f);
      h *= f;
    }
  } else {
    const n = Math.max(1, Math.round(END / p.h)), h = END / n;
    for (let k = 0; k < n && !lost; k++) {
      z = step(z, h); states.push(z); times.push((k + 1) * h);
      lost = Math.max(Math.abs(z[0]), Math.abs(z[1])) > FAR;
    }
    evaluations = cost * (states.length - 1);
  }
  const steps = times.length - 1, x = states.map((s) => s[0]), y = states.map((s) => s[1]), [tx, ty] = data.true;
  const ends = [tx[tx.length - 1], ty[ty.length - 1]], error = Math.log10(Math.max(1e-12, Math.hypot(z[0] - ends[0], z[1] - ends[1])));
  const ax = [], ay = [], au = [], av = [];
  for (let i = 0; i < 11; i++) for (let j = 0; j < 11; j++) {
    const at = [-3 + 0.6 * i, -4.5 + 0.9 * j], w = v(at), q = 0.45 / (1 + Math.hypot(w[0], w[1]));
    ax.push(at[0]); ay.push(at[1]); au.push(q * w[0]); av.push(q * w[1]);
  }
  const MIDPOINT = { dash: 0, a: 0.5 }; // Heun's errors lie on its own
  const line = (s, xs, ys, w, more) => ({ t: "line", s, x: xs, y: ys, dash: Math.max(s, 0) % 6, w, ...more });
  const dots = (s, xs, ys, r, more) => ({ t: "points", s, x: xs, y: ys, r, m: Math.max(s, 0) % 4, ...more });
  const left = [{ t: "arrows", s: -1, x: ax, y: ay, u: au, v: av, w: 0.8 }, line(-1, tx, ty, 1.2, { a: 0.7, name: "exact" }), line(series, x, y, series === 1 ? 5 : 2.2, { name: p.method, ...(series === 1 && MIDPOINT) })];
  if (steps <= 300) left.push(dots(series, x, y, 3));
  left.push(dots(-1, [ends[0]], [ends[1]], 6, { m: 3, name: "true end" }));
  if (!lost) left.push(dots(series, [z[0]], [z[1]], 6, { name: "the solver's end" }));
  const lengths = times.slice(1).map((t, i) => t - times[i]), logs = lengths.map(Math.log10), at = times.slice(0, -1);
  const middle = adaptive ? [dots(series, at, logs, 3)] : [];
  middle.push(line(series, at, logs, 1.5));
  const right = data.curves.map(([xs, ys], j) => line(j, xs, ys, j === 1 ? 5 : 1.6, { name: NAMES[j], ...(j === 1 && MIDPOINT) }));
  if (!lost) right.push(dots(-1, [Math.log10(evaluations)], [error], 6, { m: 1, name: "this setting" }));
  const compared = data.curves[4].map((part) => part[Math.round(-4 - 2 * p.tol)]);
  if (!adaptive) right.push(dots(4, [compared[0]], [compared[1]], 6, { name: "adaptive, at its tolerance" }));
  const panel = (xlim, ylim, title, xlabel, ylabel, grow, items) => ({ xlim, ylim, title, xlabel, ylabel, equal: false, axes: true, aspect: 1.1, grow, items });
  const tenth = (v) => (Math.round(v * 10) / 10 + 0).toFixed(1);
  const how = adaptive
    ? `${p.method}, at a tolerance of 10 to the power ${p.tol.toFixed(1)}, takes ${steps} steps and rejects ${rejected}`
    : `${p.method} takes ${steps} steps of ${(END / Math.max(1, Math.round(END / p.h))).toFixed(3)}`;
  const said = adaptive ? `They are between ${Math.min(...lengths).toFixed(3)} and ${Math.max(...lengths).toFixed(3)} long.` : `Dormand-Prince at a tolerance of 10 to the power ${p.tol.toFixed(1)} reaches 10 to the power ${tenth(compared[1])}, its evaluations 10 to the power ${compared[0].toFixed(2)}.`;
  const result = lost ? "The path leaves the picture: the step is too long for this field." : `The error at the end is 10 to the power ${tenth(error)}.`;
  return {
    panels: [
      panel([-3.2, 3.2], [-5, 5], "the path in the plane", "z₁", "z₂", 1.2, left),
      panel([0, END], [-2.5, 0.5], "length of the steps", "time t", "log₁₀ of the step", 1, middle),
      panel([1, 4.2], [-10.5, 1.5], "error and its price", "log₁₀ of the evaluations", "log₁₀ of the error", 1, right),
    ],
    alt: `${how}, with ${evaluations} evaluations of the field. ${result} ${said}`,
    readouts: { evaluations: `${evaluations}`, steps: `${steps}`, rejected: `${rejected}`, "log10 error": lost ? `lost after ${steps} steps` : tenth(error) },
  };
}
