(p, data) => { // the twin of ch13.compare: the results file, any two of its numbers
  const N = data.numbers, FAMILIES = data.families, PLACES = data.places, SCALES = data.scales;
  const limits = (at) => {
    const low = Math.min(...at.map((a) => a[1])), high = Math.max(...at.map((a) => a[2])), room = high - low || 1;
    return [low - 0.12 * room, high + 0.12 * room];
  };
  const ranks = (v) => v.map((a) => v.filter((b) => b < a).length + (v.filter((b) => b === a).length + 1) / 2);
  const spearman = (x, y) => {
    const a = ranks(x), b = ranks(y), mean = (a.length + 1) / 2;
    let cov = 0, va = 0, vb = 0;
    a.forEach((p, i) => { cov += (p - mean) * (b[i] - mean); va += (p - mean) ** 2; vb += (b[i] - mean) ** 2; });
    return a.length > 1 && va > 0 && vb > 0 ? cov / Math.sqrt(va * vb) : 0;
  };
  const led = (dy) => Math.abs(dy) > 1.5; // a line leads from the label to its mark
  const placed = (points, words, bars) => { // on nothing on a wide page; of such places, the best on a phone
    const marks = SCALES.map((k) => [...points.map(([x, y]) => [x - 0.012 * k, x + 0.012 * k, y - 0.01 - 0.01 * k, y + 0.01 + 0.01 * k]), ...bars]);
    const out = [];
    for (let n = 0; n < 3 * points.length; n++) { // the first labels do not know the last ones
      const i = n % points.length, [x, y] = points[i];
      const others = SCALES.map((_, at) => out.filter((_, j) => j !== i).map((o) => o[5][at]));
      let best = null;
      for (const [dx, dy] of PLACES) {
        const px = x + 0.024 * dx, py = y + (dx ? 0.04 : 0.055) * dy, far = Math.hypot(px - x, py - y) - 1e-9;
        const nearer = points.filter(([u, v]) => Math.hypot(px - u, py - v) < far).length; // it seems that one's
        let bad = 0;
        const boxes = SCALES.map((k, at) => {
          const wide = 0.0115 * k * [...words[i]].length, left = px - (wide * (1 - dx)) / 2;
          const a = [left, left + wide, py - 0.015 - 0.01 * k, py + 0.015 + 0.01 * k];
          const meet = (b) => a[0] < b[1] && a[1] > b[0] && a[2] < b[3] && a[3] > b[2];
          const on = marks[at].filter(meet).length + 4 * others[at].filter(meet).length + (led(dy) ? 1 + Math.min(nearer, 1) : nearer);
          bad = 100 * bad + on + 4 * (a[0] < 0 || a[1] > 1 || a[2] < 0 || a[3] > 1);
          return a;
        });
        if (!best || bad < best[0]) best = [bad, px, py, ["right", "center", "left"][dx + 1], dy, boxes];
      }
      out[i] = best;
    }
    return out.map((o) => o.slice(1, 5));
  };
  const here = N.data[p.data], ax = here.axes[p.x], ay = here.axes[p.y];
  const [x0, x1] = limits(ax.at), [y0, y1] = limits(ay.at), items = [];
  const keep = N.family.map((f, i) => i).filter((i) => p[`f${N.family[i]}`]);
  FAMILIES.forEach((name, f) => {
    const mine = keep.filter((i) => N.family[i] === f);
    if (!mine.length) return;
    if (p.spread) for (const i of mine) {
      const [mx, lx, hx] = ax.at[i], [my, ly, hy] = ay.at[i];
      items.push({ t: "line", s: f, x: [lx, hx, null, mx, mx], y: [my, my, null, ly, hy], dash: 0, w: 1.2 });
    }
    items.push({ t: "points", s: f, x: mine.map((i) => ax.at[i][0]), y: mine.map((i) => ay.at[i][0]), r: 4.5, m: f, name });
  });
  const unit = keep.map((i) => [(ax.at[i][0] - x0) / (x1 - x0), (ay.at[i][0] - y0) / (y1 - y0)]);
  const words = keep.map((i) => ((ax.cost || ay.cost) && here.bound[i] ? "\u2264 " : "") + N.names[i]);
  const bars = p.spread ? keep.flatMap((i, k) => {
    const [, left, right] = ax.at[i], [, low, high] = ay.at[i], [u, v] = unit[k];
    return [[(left - x0) / (x1 - x0), (right - x0) / (x1 - x0), v, v], [u, u, (low - y0) / (y1 - y0), (high - y0) / (y1 - y0)]];
  }) : [];
  const spots = placed(unit, words, bars), xs = [], ys = [];
  spots.forEach(([u, v, , dy], k) => {
    if (!led(dy)) return;
    const [a, b] = unit[k];
    xs.push(x0 + a * (x1 - x0), x0 + u * (x1 - x0), null); ys.push(y0 + b * (y1 - y0), y0 + (v - Math.sign(dy) * 0.02) * (y1 - y0), null);
  });
  if (xs.length) items.push({ t: "line", s: -1, x: xs, y: ys, dash: 0, w: 0.8, a: 0.55 });
  spots.forEach(([u, v, align], k) => items.push({
    t: "text", s: N.family[keep[k]], x: x0 + u * (x1 - x0), y: y0 + v * (y1 - y0), text: words[k], align, size: 0.85,
  }));
  const px = keep.map((i) => ax.at[i][0]), py = keep.map((i) => ay.at[i][0]), sign = (ax.better || -1) * (ay.better || -1);
  const rho = sign * spearman(px, py);
  const best = ay.better < 0 ? Math.min(...py) : Math.max(...py), first = keep.filter((_, k) => ay.better !== 0 && py[k] === best).map((i) => N.names[i]);
  const who = first.length > 2 ? `${first.length} alike` : first.join(" and ") || "none", said = keep.length < data.few ? "\u2013" : rho.toFixed(2).replace(/^-(0\.00)$/, "$1");
  return {
    panels: [{ xlim: [x0, x1], ylim: [y0, y1], title: "", xlabel: ax.label, ylabel: ay.label, equal: false, axes: true, aspect: 1.35, grow: 1, items }],
    alt: `${keep.length} models on ${p.data}: ${p.y} against ${p.x}. Agreement of the two orders of merit: ${said}; the best of those shown by the vertical axis: ${who}.`,
    readouts: { "models shown": `${keep.length}`, "agreement of ranks": said, "best vertically": who },
  };
}
