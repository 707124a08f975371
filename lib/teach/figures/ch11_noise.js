(() => { // the twin of ch11.noise: Euler-Maruyama with the exact score, in the browser
  const W = [0.35, 0.65], M = [-1.4, 1], VAR = 0.09, STEPS = 100, POINTS = 400, SHOWN = 14, REACH = 3.4, BINS = 34;
  const alpha2 = (t) => Math.exp(-(0.1 * t + 9.95 * t * t));
  const law = (t, x, out) => { // density and score of p_t
    const a2 = alpha2(t), a = Math.sqrt(a2), v = a2 * VAR + 1 - a2;
    let total = 0, pull = 0;
    for (let i = 0; i < 2; i++) {
      const d = a * M[i] - x, p = W[i] * Math.exp((-0.5 * d * d) / v);
      total += p; pull += p * d;
    }
    out[0] = total / Math.sqrt(2 * Math.PI * v); out[1] = pull / (total * v);
    return out;
  };
  const out = [0, 0], memory = new Map(), paths = new Map();
  const normals = (seed) => {
    if (memory.has(seed)) return memory.get(seed);
    const n = (STEPS + 1) * POINTS, u = new Float64Array(n), z = new Float64Array(n);
    let state = 7919 * seed + 12345;
    for (let i = 0; i < n; i++) { state = (state * 1664525 + 1013904223) % 4294967296; u[i] = (state + 0.5) / 4294967296; }
    for (let i = 0; i < n / 2; i++) {
      const r = Math.sqrt(-2 * Math.log(u[i])), angle = 2 * Math.PI * u[n / 2 + i];
      z[i] = r * Math.cos(angle); z[n / 2 + i] = r * Math.sin(angle);
    }
    memory.set(seed, z);
    return z;
  };
  const run = (churn, seed, half) => {
    const key = `${churn} ${seed} ${half}`;
    if (paths.has(key)) return paths.get(key);
    if (paths.size > 40) paths.clear();
    const z = normals(seed), h = 1 / STEPS, x = new Float64Array((STEPS + 1) * POINTS);
    x.set(z.subarray(0, POINTS));
    for (let k = 0; k < STEPS; k++) {
      const t = 1 - k * h, beta = 0.1 + t * 19.9, push = (half ? 0.5 : 1) * (1 + churn * churn) * beta * h, fresh = churn * Math.sqrt(beta * h);
      for (let j = 0; j < POINTS; j++) {
        const q = x[k * POINTS + j], score = law(t, q, out)[1], next = q + 0.5 * beta * h * q + push * score + fresh * z[(k + 1) * POINTS + j];
        x[(k + 1) * POINTS + j] = Math.min(9, Math.max(-9, next));
      }
    }
    paths.set(key, x);
    return x;
  };
  let heat = null;
  return (p) => {
    if (!heat) {
      heat = [];
      for (let i = 0; i < 56; i++) for (let j = 0; j < 50; j++) {
        const v = law((j + 0.5) / 50, REACH * ((i + 0.5) / 28 - 1), out)[0];
        heat.push(Math.round(Math.min(1, v / 0.8) ** 0.7 * 235));
      }
    }
    const seed = Math.round(p.seed), x = run(p.churn, seed, p.half), k = STEPS - Math.round(p.t * STEPS);
    const times = [], left = [], ends = [];
    for (let i = 0; i <= k; i++) times.push(1 - i / STEPS);
    left.push({ t: "heat", s: 0, v: heat, shape: [56, 50], extent: [0, 1, -REACH, REACH] });
    for (let j = 0; j < SHOWN; j++) {
      const y = times.map((_, i) => x[i * POINTS + j]);
      left.push({ t: "line", s: 1, x: times, y, dash: 0, w: 1.1, m: 1, name: "paths" });
      ends.push(y[k]);
    }
    left.push({ t: "points", s: 1, x: ends.map(() => p.t), y: ends, r: 3, m: 1 });
    const width = (2 * REACH) / BINS, height = new Array(BINS).fill(0), centres = height.map((_, i) => -REACH + (i + 0.5) * width);
    let sum = 0, square = 0;
    for (let j = 0; j < POINTS; j++) {
      const v = x[k * POINTS + j], b = Math.floor((v + REACH) / width);
      if (b >= 0 && b < BINS) height[b] += 1 / (POINTS * width);
      sum += v; square += v * v;
    }
    const fine = Array.from({ length: 4 * BINS + 1 }, (_, i) => -REACH + (i * width) / 4);
    const density = centres.map((c) => law(p.t, c, out)[0]), sd = Math.sqrt(square / POINTS - (sum / POINTS) ** 2);
    const off = 0.5 * width * height.reduce((s, v, i) => s + Math.abs(v - density[i]), 0);
    const a2 = alpha2(p.t), mean = W[0] * M[0] + W[1] * M[1], second = W[0] * M[0] ** 2 + W[1] * M[1] ** 2;
    const exact = Math.sqrt(a2 * (second - mean * mean + VAR) + 1 - a2);
    const what = p.churn === 0 ? "no fresh noise, the probability flow" : `${p.churn.toFixed(1)} of the diffusion's fresh noise`;
    const lost = p.half ? "" : " The factor one half is left out.";
    const panel = (xlim, ylim, title, xlabel, ylabel, aspect, grow, items) => ({ xlim, ylim, title, xlabel, ylabel, equal: false, axes: true, aspect, grow, items });
    return {
      panels: [
        panel([0, 1], [-REACH, REACH], "paths from noise, at the right, to data", "time t", "x", 1.4, 1.3, left),
        panel([-REACH, REACH], [0, 1.3], "all 400 points, now", "x", "density", 1.2, 1, [
          { t: "bars", s: 1, x: centres, y: height.map((v) => Math.min(v, 1.3)), width, fill: 0.35, name: "points" },
          { t: "line", s: 0, x: fine, y: fine.map((v) => law(p.t, v, out)[0]), dash: 0, w: 2.4, name: "exact density" },
        ]),
      ],
      alt: `At t = ${p.t.toFixed(2)}, with ${what}: the points have standard deviation ${sd.toFixed(2)}, exact is ${exact.toFixed(2)}; ${off.toFixed(2)} of the histogram is misplaced.${lost}`,
      readouts: { deviation: sd.toFixed(2), exact: exact.toFixed(2), misplaced: off.toFixed(2) },
    };
  };
})()
