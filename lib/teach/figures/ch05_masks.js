(p) => { // the twin of ch05.masks: the same degrees, masks and paths, by MADE's rule
  const SHUFFLED = [3, 1, 5, 0, 4, 2], D = Math.round(p.dim), width = Math.round(p.width), depth = Math.round(p.depth);
  const range = (n) => Array.from({ length: n }, (_, i) => i), chosen = Math.min(Math.round(p.output), D) - 1;
  const drawn = { natural: range(D), reversed: range(D).reverse(), shuffled: SHUFFLED.filter((i) => i < D) }[p.order];
  const place = range(D).map((i) => drawn.indexOf(i) + 1), hidden = range(width).map((u) => Math.floor((u * (D - 1)) / width) + 1);
  const degrees = [place, ...range(depth).map(() => hidden), place];
  const kept = range(depth + 1).map((i) => degrees[i + 1].map((to) => degrees[i].map((of) => (i === depth ? to > of : to >= of))));
  const reach = range(depth + 2);
  reach[depth + 1] = range(D).map((i) => i === chosen);
  for (let i = depth; i >= 0; i--) reach[i] = degrees[i].map((_, of) => kept[i].some((row, to) => row[of] && reach[i + 1][to]));
  let paths = range(D).map((i) => range(D).map((j) => (i === j ? 1 : 0)));
  for (const mask of kept) paths = mask.map((row) => range(D).map((c) => row.reduce((sum, on, of) => sum + (on ? paths[of][c] : 0), 0)));
  const height = degrees.map((d) => d.map((_, i) => 1 - (i + 0.5) / d.length)), net = [], table = [];
  const text = (x, y, t, size) => ({ t: "text", s: -1, x, y, text: t, align: "center", size });
  for (const on of [false, true]) {
    const x = [], y = [];
    kept.forEach((mask, i) => mask.forEach((row, to) => row.forEach((there, of) => {
      if (there && (reach[i + 1][to] && reach[i][of]) === on) { const a = height[i][of], b = height[i + 1][to]; x.push(i + 0.1, i + 0.9, NaN); y.push(0.9 * a + 0.1 * b, 0.1 * a + 0.9 * b, NaN); }
    })));
    if (x.length) net.push(on ? { t: "line", s: 1, x, y, dash: 0, w: 2, name: "on a path to the chosen output" } : { t: "line", s: -1, x, y, dash: 2, w: 1, a: 0.45, name: "kept, on no such path" });
  }
  for (const on of [true, false]) {
    const at = degrees.flatMap((d, i) => d.map((_, k) => [i, k])).filter(([i, k]) => reach[i][k] === on);
    if (at.length) net.push({ t: "points", s: on ? 1 : 2, x: at.map(([i]) => i), y: at.map(([i, k]) => height[i][k]), r: 9, a: 0.3, m: on ? 1 : 0, name: on ? "reaches it (square)" : "does not (round)" });
  }
  degrees.forEach((d, i) => d.forEach((n, k) => net.push(text(i, height[i][k], String(n), 0.95))));
  for (let i = 0; i < D; i++) net.push(text(-0.3, height[0][i], `x${i + 1}`, 1), text(depth + 1.36, height[depth + 1][i], `out ${i + 1}`, 0.9));
  degrees.forEach((_, i) => net.push(text(i, -0.05, i === 0 ? "inputs" : i > depth ? "outputs" : "hidden", 0.9)));
  drawn.forEach((to, r) => table.push(text(-0.55, D - r - 0.5, `out ${to + 1}`, 0.95), text(r + 0.5, -0.4, `x${to + 1}`, 0.95)));
  for (const on of [true, false]) {
    let first = true;
    for (let r = 0; r < D; r++) for (let c = 0; c < D; c++) {
      const n = paths[drawn[r]][drawn[c]], y = D - r;
      if (n > 0 !== on) continue;
      table.push({ t: "poly", s: on ? 0 : -1, x: [c, c + 1, c + 1, c], y: [y - 1, y - 1, y, y], fill: on ? 0.3 : 0, w: 1, ...(first && on ? { name: "sees it: number of paths" } : {}) });
      first = false;
      if (on) table.push(text(c + 0.5, y - 0.5, String(n), 1));
    }
  }
  const row = D - drawn.indexOf(chosen), sum = (a) => a.reduce((x, y) => x + y, 0);
  table.push({ t: "line", s: -1, x: [0, D, D, 0, 0], y: [row - 1, row - 1, row, row, row - 1], dash: 0, w: 3, name: "the chosen output" });
  const listed = drawn.filter((i) => reach[0][i]).map((i) => `x${i + 1}`).join(", ") || "no input", order = drawn.map((i) => `x${i + 1}`);
  const count = `${sum(kept.map((mask) => sum(mask.map((r) => r.filter(Boolean).length))))} of ${sum(kept.map((mask) => mask.length * mask[0].length))}`;
  const narrow = drawn.some((to, r) => drawn.slice(0, r).some((of) => paths[to][of] === 0));
  return {
    panels: [
      { xlim: [-0.5, depth + 1.6], ylim: [-0.09, 1.04], title: `weights kept, paths to output ${chosen + 1}${p.output > D ? ", the last" : ""}`, xlabel: "", ylabel: "", equal: false, axes: false, aspect: 1.2, grow: 1.5, items: net },
      { xlim: [-1.2, D + 0.2], ylim: [-0.9, D + 0.4], title: "product of the masks: who sees whom", xlabel: "", ylabel: "", equal: true, axes: false, aspect: 1, grow: 1, items: table },
    ],
    alt: `A masked network with ${D} inputs, ${depth} hidden layer${depth > 1 ? "s" : ""} of ${width} units, ${p.order} order: ${order.join(", ")}. Output ${chosen + 1} sees ${listed}. ${count} weights are kept; a path exists only from inputs drawn earlier, so the table is strictly lower triangular in this order.${narrow ? " With so few units some earlier inputs are missed." : ""}`,
    readouts: { [`output ${chosen + 1} sees`]: listed, "its paths": String(sum(paths[chosen])), "weights kept": count, order: order.join(" ") },
  };
}
