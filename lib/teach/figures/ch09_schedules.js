(p) => { // the twin of ch09.schedules: same scene, computed in the browser
  const f = (v, d) => v.toFixed(d), T = Math.round(p.steps), clip = (v) => Math.min(14, Math.max(-24, v));
  const B = (u) => 0.1 * u + 0.5 * (p.beta_max - 0.1) * u * u;
  const vpA = (u) => Math.exp(-B(u)), vpL = (u) => -B(u) - Math.log(-Math.expm1(-B(u)));
  const table = [0];
  for (let k = 0; k < T; k++) {
    const b = 0.1 / p.steps + ((p.beta_max / p.steps - 0.1 / p.steps) * k) / Math.max(T - 1, 1);
    table.push(table[k] - Math.log1p(-b));
  }
  const minus = (u) => { const at = u * T, k = Math.min(Math.floor(at + 1e-9), T - 1); return table[k] + (at - k) * (table[k + 1] - table[k]); };
  const chA = (u) => Math.exp(-minus(u)), chL = (u) => -minus(u) - Math.log(-Math.expm1(-minus(u)));
  const start = Math.atan(Math.exp(-0.5 * p.limit)), angle = (u) => start + (Math.PI / 2 - 2 * start) * u;
  const coA = (u) => Math.cos(angle(u)) ** 2, coL = (u) => -2 * Math.log(Math.tan(angle(u)));
  const times = [], inner = [], at = [];
  for (let i = 0; i <= 100; i++) { times.push(i / 100); if (i) inner.push(i / 100); }
  for (let i = 0; i <= 20; i++) {
    const v = 1 + ((p.steps - 1) * i) / 20, low = Math.floor(v), r = v - low;
    const k = r > 0.5 || (r === 0.5 && low % 2) ? low + 1 : low; // halves to even, as NumPy does
    if (!at.length || at[at.length - 1] !== k / p.steps) at.push(k / p.steps);
  }
  const end = Math.abs(-minus(1) + B(1)), vp = vpL(p.t), ch = chL(p.t), co = coL(p.t);
  const axes = { xlim: [0, 1], xlabel: "time t", equal: false, axes: true, aspect: 1.15, grow: 1 };
  const small = (v) => v.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");
  return {
    panels: [
      { ...axes, ylim: [0, 1], title: "signal that is left", ylabel: "α²", items: [
        { t: "line", s: 0, x: times, y: times.map(vpA), dash: 0, w: 2.2, name: "VP" },
        { t: "points", s: 1, x: at, y: at.map(chA), r: 3, m: 1, name: "DDPM's chain" },
        { t: "line", s: 2, x: times, y: times.map(coA), dash: 1, w: 2, name: "cosine" },
        { t: "line", s: -1, x: [p.t, p.t], y: [0, 1], dash: 0, w: 1, a: 0.7, name: "time t" },
      ] },
      { ...axes, ylim: [-24, 14], title: "log signal-to-noise ratio", ylabel: "λ", items: [
        { t: "line", s: 0, x: inner, y: inner.map((u) => clip(vpL(u))), dash: 0, w: 2.2, name: "VP" },
        { t: "points", s: 1, x: at, y: at.map((u) => clip(chL(u))), r: 3, m: 1, name: "DDPM's chain" },
        { t: "line", s: 2, x: times, y: times.map((u) => clip(coL(u))), dash: 1, w: 2, name: "cosine" },
        { t: "line", s: -1, x: [p.t, p.t], y: [-24, 14], dash: 0, w: 1, a: 0.7 },
      ] },
    ],
    alt: `At t = ${f(p.t, 2)} the log signal-to-noise ratio is ${f(vp, 2)} for VP up to beta ${f(p.beta_max, 0)}, ${f(ch, 2)} for its chain of ${f(p.steps, 0)} steps and ${f(co, 2)} for cosine within ${f(p.limit, 0)}. At t = 1 log alpha squared of the chain is ${f(end, 3)} below that of VP.`,
    readouts: { "λ of VP": f(vp, 2), "λ of its chain": f(ch, 2), "λ of cosine": f(co, 2), "signal left at t = 1, VP": small(vpA(1)), "log α² at t = 1, VP less chain": f(end, 3) },
  };
}
