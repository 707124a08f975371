(p) => { // the twin of ch01.parallelogram: same scene, computed in the browser
  const { u, v, strength: s, size: h } = p;
  const f = (a, b) => { const x = a + 0.6 * s * Math.sin(1.2 * b); return [x, b * Math.exp(0.5 * s * Math.sin(1.1 * x)) + 0.5 * s * Math.cos(x)]; };
  const even = (lo, hi, m) => Array.from({ length: m }, (_, i) => lo + ((hi - lo) * i) / (m - 1));
  const c = f(u, v), q = 0.72 * s * Math.cos(1.2 * v), e = Math.exp(0.5 * s * Math.sin(1.1 * c[0]));
  const r = v * e * 0.55 * s * Math.cos(1.1 * c[0]) - 0.5 * s * Math.sin(c[0]);
  const J = [[1, q], [r, r * q + e]], det = J[0][0] * J[1][1] - J[0][1] * J[1][0];
  const side = even(-0.5, 0.5, 51).slice(0, -1), ring = [];
  for (const t of side) ring.push([t, -0.5]);
  for (const t of side) ring.push([0.5, t]);
  for (const t of side) ring.push([-t, 0.5]);
  for (const t of side) ring.push([-0.5, -t]);
  const zs = ring.map(([a, b]) => [u + h * a, v + h * b]), xs = zs.map(([a, b]) => f(a, b)), n = xs.length;
  let area = 0;
  xs.forEach(([x, y], i) => { const [x2, y2] = xs[(i + 1) % n]; area += 0.5 * (x * y2 - x2 * y); });
  const corner = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]];
  const flat = corner.map(([a, b]) => [c[0] + h * (J[0][0] * a + J[0][1] * b), c[1] + h * (J[1][0] * a + J[1][1] * b)]);
  const wrong = (100 * Math.abs((det * h * h) / area - 1)).toFixed(3);
  const line = even(-2.4, 2.4, 13), fine = even(-2.4, 2.4, 49), zg = [[], []], xg = [[], []];
  for (const level of line) for (const across of [true, false]) {
    for (const t of fine) {
      const a = across ? t : level, b = across ? level : t, w = f(a, b);
      zg[0].push(a); zg[1].push(b); xg[0].push(w[0]); xg[1].push(w[1]);
    }
    for (const g of [zg, xg]) { g[0].push(null); g[1].push(null); }
  }
  const col = (list, k) => list.map((w) => w[k]);
  return {
    panels: [
      {
        xlim: [-4.5, 4.5], ylim: [-4.5, 4.5], title: "z, with a square of side h", xlabel: "z₁", ylabel: "z₂", equal: true, axes: true, aspect: 1, grow: 1,
        items: [
          { t: "line", s: -1, x: zg[0], y: zg[1], dash: 0, w: 1, a: 0.3 },
          { t: "poly", s: 0, x: col(zs, 0), y: col(zs, 1), fill: 0.35, w: 2, name: "square, and its true image" },
        ],
      },
      {
        xlim: [-4.5, 4.5], ylim: [-4.5, 4.5], title: "x = f(z)", xlabel: "x₁", ylabel: "x₂", equal: true, axes: true, aspect: 1, grow: 1,
        items: [
          { t: "line", s: -1, x: xg[0], y: xg[1], dash: 0, w: 1, a: 0.3 },
          { t: "poly", s: 0, x: col(xs, 0), y: col(xs, 1), fill: 0.35, w: 2 },
          { t: "line", s: 1, x: col(flat, 0), y: col(flat, 1), dash: 1, w: 2.5, name: "parallelogram of the Jacobian" },
        ],
      },
    ],
    alt: `At z = (${u.toFixed(2)}, ${v.toFixed(2)}) the determinant of the Jacobian is ${det.toFixed(3)}. A square of side ${h.toFixed(2)}, of area ${(h * h).toFixed(4)}, becomes a curved patch of area ${area.toFixed(4)}; the parallelogram has area ${(det * h * h).toFixed(4)}, wrong by ${wrong}%.`,
    readouts: { "|det J|": Math.abs(det).toFixed(4), "|det J| h²": (Math.abs(det) * h * h).toFixed(4), "true area": area.toFixed(4), "wrong by": `${wrong} %` },
  };
}
