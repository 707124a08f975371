(p) => { // the twin of ch01.columns: same scene, computed in the browser
  const { a, b, c, d } = p, det = Math.round((a * d - b * c) * 1e9) / 1e9 + 0, flat = det === 0, series = flat ? 2 : det > 0 ? 0 : 1;
  const fx = [0.3, 0.3, 0.75, 0.3, 0.3, 0.6], fy = [0.15, 0.85, 0.85, 0.85, 0.5, 0.5];
  const word = flat ? "flat" : det > 0 ? "kept" : "flipped", f = (v, k) => (v + 0).toFixed(k);
  const density = flat ? "none: no density" : f(1 / Math.abs(det), 3);
  const said = flat
    ? "The columns are collinear: the image has no area, and A has no inverse."
    : `Orientation is ${word}; a uniform density on the square becomes ${density} on the image.`;
  return {
    panels: [
      {
        xlim: [-2.6, 2.6], ylim: [-2.6, 2.6], title: "unit square, area 1", xlabel: "z₁", ylabel: "z₂", equal: true, axes: true, aspect: 1, grow: 1,
        items: [
          { t: "poly", s: 0, x: [0, 1, 1, 0], y: [0, 0, 1, 1], fill: 0.2, w: 2 },
          { t: "line", s: -1, x: fx, y: fy, dash: 0, w: 2, name: "a letter F, to see a flip" },
          { t: "arrows", s: 3, x: [0], y: [0], u: [1], v: [0], w: 2.5 },
          { t: "arrows", s: 4, x: [0], y: [0], u: [0], v: [1], w: 2.5 },
        ],
      },
      {
        xlim: [-2.6, 2.6], ylim: [-2.6, 2.6], title: "its image under A", xlabel: "x₁", ylabel: "x₂", equal: true, axes: true, aspect: 1, grow: 1,
        items: [
          { t: "line", s: -1, x: [-2.6, 2.6, null, 0, 0], y: [0, 0, null, -2.6, 2.6], dash: 0, w: 1, a: 0.25 },
          { t: "poly", s: series, x: [0, a, a + c, c], y: [0, b, b + d, d], fill: 0.3, w: 2 },
          { t: "line", s: -1, x: fx.map((v, i) => a * v + c * fy[i]), y: fx.map((v, i) => b * v + d * fy[i]), dash: 0, w: 2 },
          { t: "arrows", s: 3, x: [0], y: [0], u: [a], v: [b], w: 2.5, name: "e₁ and its image, column 1 (drag its tip)" },
          { t: "arrows", s: 4, x: [0], y: [0], u: [c], v: [d], w: 2.5, name: "e₂ and its image, column 2 (drag its tip)" },
        ],
      },
    ],
    alt: `Columns (${f(a, 2)}, ${f(b, 2)}) and (${f(c, 2)}, ${f(d, 2)}): signed area ${f(det, 4)}. ${said}`,
    readouts: { "det A": f(det, 4), "area of the image": f(Math.abs(det), 4), "density there": density, orientation: word },
  };
}
