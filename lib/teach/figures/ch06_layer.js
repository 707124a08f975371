(p, data) => { // the twin of ch06.layer: same scene, computed in the browser
  const BOX = 5, N = 64, TOP = 1 / Math.PI, STEEP = 1e-6, HALF = Math.acosh(Math.SQRT2), { w1, w2, b, use } = p;
  const safe = (v) => Math.round(v * 1e9) / 1e9 + 0, f = (v, d = 2) => (Math.abs(v) < 0.5 * 10 ** -d ? 0 : v).toFixed(d);
  const even = (lo, hi, n) => Array.from({ length: n }, (_, i) => lo + ((hi - lo) * i) / (n - 1));
  const wu = safe(w1 * p.u1 + w2 * p.u2), l2 = w1 * w1 + w2 * w2, length = Math.sqrt(l2);
  let u1 = p.u1, u2 = p.u2;
  const changed = use !== "u";
  if (changed && length) { // only the part of u along w changes
    const hat = (1 - 1e-3) * (Math.log1p(Math.exp(wu + Math.log(Math.E - 1))) - 1);
    const a = (use.startsWith("u_hat") ? hat : use.endsWith("-0.8") ? -0.8 : 1.5) - wu;
    u1 += (a * w1) / l2; u2 += (a * w2) / l2;
  }
  const m = safe(w1 * u1 + w2 * u2), folds = m < -1, g = (s) => s + m * Math.tanh(s);
  const turn = folds ? Math.acosh(Math.sqrt(-m)) : 0, high = -g(turn);
  const moved = (zs, ys) => {
    const x = [], y = [];
    for (let i = 0; i < zs.length; i++) { const t = Math.tanh(w1 * zs[i] + w2 * ys[i] + b); x.push(zs[i] + u1 * t); y.push(ys[i] + u2 * t); }
    return { x, y };
  };
  const root = (c, low, up, sign) => {
    for (let k = 0; k < 24; k++) { const mid = 0.5 * (low + up); if (sign * (g(mid) - c) < 0) low = mid; else up = mid; }
    return 0.5 * (low + up);
  };
  const roots = (c) => {
    if (!folds) return [root(c, c - Math.abs(m), c + Math.abs(m), 1)];
    const out = [];
    if (c < high) out.push(root(c, Math.min(c, -turn) + 2 * m, -turn, 1));
    if (Math.abs(c) < high) out.push(root(c, -turn, turn, -1));
    if (c > -high) out.push(root(c, turn, Math.max(c, turn) - 2 * m, 1));
    return out;
  };
  const v = new Array(N * N), centre = (i) => ((i + 0.5) * 2 * BOX) / N - BOX;
  for (let i = 0; i < N; i++) for (let j = 0; j < N; j++) { // the sum over all z that reach x
    const x1 = centre(j), x2 = centre(i);
    let total = 0;
    for (const s of roots(w1 * x1 + w2 * x2 + b)) {
      const t = Math.tanh(s), z1 = x1 - u1 * t, z2 = x2 - u2 * t;
      total += Math.exp(-0.5 * (z1 * z1 + z2 * z2)) / (2 * Math.PI * Math.max(Math.abs(1 + m * (1 - t * t)), STEEP));
    }
    v[i * N + j] = total;
  }
  const full = Math.min(TOP, v.reduce((a, c) => Math.max(a, c), 0));
  for (let i = 0; i < v.length; i++) v[i] = Math.round(Math.min(1, v[i] / full) ** 0.7 * 235);
  const gx = [], gy = [], fine = even(-4, 4, 49);
  for (const at of even(-4, 4, 11)) {
    for (const s of fine) { gx.push(s); gy.push(at); }
    gx.push(NaN); gy.push(NaN);
    for (const s of fine) { gx.push(at); gy.push(s); }
    gx.push(NaN); gy.push(NaN);
  }
  const line = (s, x, y, dash, w, more) => ({ t: "line", s, x, y, dash, w, ...more });
  const arrow = (s, a, c, name) => ({ t: "arrows", s, x: [0], y: [0], u: [a], v: [c], w: 2.5, name });
  const angle = even(0, 2 * Math.PI, 61), circle = (k, more) => line(-1, angle.map((a) => k * Math.cos(a)), angle.map((a) => k * Math.sin(a)), 1, 1, { a: 0.6, ...more });
  const grid = moved(gx, gy), dots = moved(data[0], data[1]), hx = [], hy = [];
  const ax = -w2 / length, ay = w1 / length, fx = (-b * w1) / l2, fy = (-b * w2) / l2, ends = [[fx - 12 * ax, fx + 12 * ax], [fy - 12 * ay, fy + 12 * ay]];
  if (folds) {
    const low = (-high - b) / length, top = (high - b) / length;
    for (let k = -20; k <= 20; k++) {
      const s = k * 0.6, e = s + top - low;
      hx.push((low * w1) / length + s * ax, (top * w1) / length + e * ax, NaN); hy.push((low * w2) / length + s * ay, (top * w2) / length + e * ay, NaN);
    }
  }
  const left = [line(-1, grid.x, grid.y, 0, 1, { a: 0.4, name: "square grid, moved" }), { t: "points", s: 2, ...dots, r: 2.5, m: 2, name: "points, moved" }];
  const middle = [{ t: "heat", s: 0, v, shape: [N, N], extent: [-BOX, BOX, -BOX, BOX] }, circle(1, { name: "z: 1 and 2 standard deviations" }), circle(2)];
  if (length) { left.push(line(3, ...ends, 3, 2, { name: "the line w.z + b = 0 stays" })); middle.push(line(3, ...ends, 3, 1.5)); }
  if (length && !folds) { // |s| < HALF, moved
    const c = (HALF + m / Math.SQRT2) / l2, both = (q, d) => [q[0] + d, q[1] + d, NaN, q[0] - d, q[1] - d];
    const strip = [both(ends[0], c * w1), both(ends[1], c * w2)];
    left.push(line(3, ...strip, 0, 1, { name: "border of the strip: half the effect" })); middle.push(line(3, ...strip, 0, 1));
  }
  if (folds) { left.push(line(1, hx, hy, 0, 1.2, { a: 0.8, name: "folded: three z reach one x" })); middle.push(line(1, hx, hy, 0, 1, { a: 0.6 })); }
  left.push(arrow(0, w1, w2, "w, drag its tip"), arrow(1, p.u1, p.u2, "u, drag its tip"));
  if (changed) left.push(arrow(4, u1, u2, "u that the layer uses"));
  const word = (s, x, y, text) => ({ t: "text", s, x, y, text, align: "center", size: 1.2, halo: true });
  const far = Math.hypot(p.u1, p.u2), on = far ? 1 + 0.95 / far : 1; // its word stands beyond the tip
  left.push(word(0, w1, w2 + 0.9, "w"), word(1, on * p.u1, far ? on * p.u2 : -0.95, "u"));
  const reach = Math.max(6, Math.ceil(1.2 * -m)), along = even((-7 * reach) / 6, (7 * reach) / 6, 281), right = [ // all three roots are seen
    line(-1, [-reach, reach], [-reach, reach], 2, 1.2, { a: 0.8, name: "no move" }),
    line(0, along, along.map(g), 0, 2.5, { name: "t = s + (w.u) tanh s" }),
  ];
  if (folds) {
    const back = even(-turn, turn, 41);
    right.push(line(1, back, back.map(g), 2, 4.5, { name: "falls: turned over" }), line(1, [-reach, reach], [0, 0], 1, 1.2),
      { t: "points", s: 1, x: roots(0), y: [0, 0, 0], r: 4.5, m: 1, name: "three s, one t" });
  }
  const smallest = Math.min(1, 1 + m), plane = { xlim: [-BOX, BOX], ylim: [-BOX, BOX], xlabel: "x₁", ylabel: "x₂", equal: true, axes: true, aspect: 1, grow: 0.8 };
  let said = "Invertible; it shears space along the line w.z + b = 0 and keeps every area.";
  if (!length) said = "Invertible; w is zero, so the whole plane is moved by u tanh(b) and keeps every area.";
  else if (Math.max(Math.abs(u1), Math.abs(u2)) < 0.005) said = "Invertible; u is zero, so nothing moves.";
  else if (folds) said = `It folds over: three z reach every x with w.x between ${f(-high - b)} and ${f(high - b)}, the hatched strip, so it has no inverse.`;
  else if (m > 0.005) said = `Invertible; it stretches space ${f(1 + m, 3)} times across the line w.z + b = 0.`;
  else if (m < -0.005) said = `Invertible; it squeezes space to ${f(1 + m, 3)} of its width at the line w.z + b = 0.`;
  const used = changed ? ` The layer uses u = (${f(u1)}, ${f(u2)}) with w.u = ${f(m, 3)}.` : "";
  return {
    panels: [
      { ...plane, title: "the plane, moved", items: left },
      { ...plane, title: "density of x", items: middle },
      { xlim: [-reach, reach], ylim: [-reach, reach], title: folds ? "along w: folds back" : "along w: rises", xlabel: "s = w.z + b", ylabel: "t = w.x + b", equal: false, axes: true, aspect: 1, grow: 0.8, items: right },
    ],
    alt: `A planar layer with w = (${f(w1)}, ${f(w2)}), u = (${f(p.u1)}, ${f(p.u2)}), b = ${f(b)}: w.u = ${f(wu)}.${used} The smallest det is ${f(smallest, 3)}. ${said}`,
    readouts: { "w.u": f(wu), "w.u used": f(m, 3), "smallest det": f(smallest, 3), invertible: folds ? "no: folds over" : "yes" },
  };
}
