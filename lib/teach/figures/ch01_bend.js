(p) => { // the twin of ch01.bend: same scene, computed in the browser
  const b = 1.5, a = (p.slope - 1) / b, n = 321;
  const EDGES = [-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816];
  const f = (z) => z + a * Math.tanh(b * (z - p.place));
  const df = (z) => 1 + (p.slope - 1) / Math.cosh(b * (z - p.place)) ** 2;
  const gauss = (z) => Math.exp(-0.5 * z * z) / Math.sqrt(2 * Math.PI), pushed = (z) => gauss(z) / df(z);
  const area = (x, y) => { let s = 0; for (let i = 1; i < x.length; i++) s += ((x[i] - x[i - 1]) * (y[i] + y[i - 1])) / 2; return s; };
  const even = (lo, hi, m) => Array.from({ length: m }, (_, i) => lo + ((hi - lo) * i) / (m - 1));
  const z = even(-4, 4, n), base = z.map(gauss), x = z.map(f), density = z.map(pushed), mass = area(x, density);
  const strip = Math.round(p.strip), low = EDGES[strip - 2], high = EDGES[strip - 1];
  const part = even(low, high, 41), xPart = part.map(f), dPart = part.map(pushed), bPart = part.map(gauss);
  const a0 = xPart[0], a1 = xPart[40], massZ = area(part, bPart), massX = area(xPart, dPart);
  const back = part.slice().reverse(), xBack = xPart.slice().reverse();
  const edges = EDGES.map(f), left = [], right = [];
  EDGES.forEach((e, k) => left.push({ t: "line", s: -1, x: [e, e, -4], y: [-6, edges[k], edges[k]], dash: 0, w: 1, a: 0.35, ...(k ? {} : { name: "edges of ten strips of equal mass" }) }));
  left.push({ t: "poly", s: 2, x: [low, high, ...back], y: [-6, -6, ...xBack], fill: 0.3, w: 0 });
  left.push({ t: "poly", s: 3, x: [-4, -4, ...back], y: [a0, a1, ...xBack], fill: 0.3, w: 0 });
  left.push({ t: "line", s: 0, x: z, y: x, dash: 0, w: 2.5, name: "map f" });
  edges.forEach((e, k) => right.push({ t: "line", s: -1, x: [e, e], y: [0, pushed(EDGES[k])], dash: 0, w: 1, a: 0.35 }));
  right.push({ t: "poly", s: 2, x: [low, ...part, high], y: [0, ...bPart, 0], fill: 0.3, w: 0, name: "the chosen strip, in z" });
  right.push({ t: "poly", s: 3, x: [a0, ...xPart, a1], y: [0, ...dPart, 0], fill: 0.45, w: 0, name: "the same strip, in x" });
  right.push({ t: "line", s: 2, x: z, y: base, dash: 2, w: 1.5, name: "density of z" });
  right.push({ t: "line", s: 1, x, y: density, dash: 0, w: 2.5, name: "density of x" });
  const wide = (high - low).toFixed(3), wideX = (a1 - a0).toFixed(3);
  return {
    panels: [
      { xlim: [-4, 4], ylim: [-6, 6], title: "the map x = f(z)", xlabel: "z", ylabel: "x", equal: false, axes: true, aspect: 1.15, grow: 1, items: left },
      { xlim: [-6, 6], ylim: [0, 1.05], title: "the density follows", xlabel: "z and x", ylabel: "density", equal: false, axes: true, aspect: 1.5, grow: 1.3, items: right },
    ],
    alt: `A map with slope ${p.slope.toFixed(2)} at z = ${p.place.toFixed(2)}. There the density of z is ${gauss(p.place).toFixed(3)} and the density of x is ${(gauss(p.place) / p.slope).toFixed(3)}. Strip ${strip} of ten is ${wide} wide in z and ${wideX} wide in x; its mass is ${massX.toFixed(3)} in both.`,
    readouts: { "total mass of x": mass.toFixed(3), "width of the strip, z": wide, "width, x": wideX, "mass of the strip, z": massZ.toFixed(3), "mass, x": massX.toFixed(3) },
  };
}
