(p, data) => { // the twin of ch13.family_map: one arrow in bold, and what it says
  const chosen = Math.round(p.arrow) - 1, items = [];
  data.arrows.forEach(([x, y, u, v], k) => {
    if (k !== chosen) items.push({ t: "arrows", s: -1, x: [x], y: [y], u: [u], v: [v], w: 1.2 });
  });
  const [x, y, u, v, , , from, to, eq, says] = data.arrows[chosen];
  items.push({ t: "arrows", s: 1, x: [x], y: [y], u: [u], v: [v], w: 2.5 });
  data.arrows.forEach(([, , , , nx, ny], k) =>
    items.push({ t: "text", s: -1, x: nx, y: ny, text: `${k + 1}`, align: "center", size: k === chosen ? 1.2 : 0.8 }));
  for (const [word, nx, ny, family] of data.nodes)
    items.push({ t: "text", s: family, x: nx, y: ny, text: word, align: "center", size: word === from || word === to ? 1.25 : 1 });
  return {
    panels: [{ xlim: [0, 10], ylim: [0, 5], title: "", xlabel: "", ylabel: "", equal: false, axes: false, aspect: 1.3, grow: 1, items }],
    alt: `The map of the book's models, arrow ${chosen + 1} of ${data.arrows.length} in bold: ${from} ${says}. The check is equation (${eq}).`,
    readouts: { from, to, equation: eq, it: says },
  };
}
