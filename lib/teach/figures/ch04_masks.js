(p, picture) => { // the twin of ch04.masks: the same steps, by the rules of the multi-scale RealNVP
  const levels = Math.round(p.levels), range = (n) => Array.from({ length: n }, (_, i) => i), every = [];
  let at = range(64), C = 1, H = 8; // which pixel stands where, channel by channel, row by row
  const add = (kind, level, changed, gone = []) => every.push({ kind, level, at, C, H, changed, gone });
  for (let level = 1; level <= levels; level++) {
    const last = level === levels;
    for (let k = 0; k < (last ? 4 : 3); k++) add("checkerboard", level, at.map((_, i) => (Math.floor(i / H) + i) % 2 !== k % 2));
    if (last) break;
    const G = H / 2, old = at, wide = H;
    at = range(4 * C * G * G).map((n) => {
      const q = Math.floor(n / (G * G)), h = Math.floor((n % (G * G)) / G), w = n % G;
      return old[(q >> 2) * wide * wide + (2 * h + ((q >> 1) & 1)) * wide + 2 * w + (q & 1)];
    });
    C *= 4; H = G;
    add("squeeze", level, null);
    for (let k = 0; k < 3; k++) add("channels", level, at.map((_, i) => (i < at.length / 2) === (k % 2 === 0)));
    add("leave", level, null, at.slice(0, at.length / 2));
    at = at.slice(at.length / 2); C /= 2;
  }
  const n = Math.floor(p.way * every.length + 0.5), now = n ? every[n - 1] : { kind: "start", level: 1, at: range(64), C: 1, H: 8, changed: null, gone: [] };
  const count = new Array(64).fill(0), left = [];
  for (const s of every.slice(0, n)) { left.push(...s.gone); if (s.changed) s.at.forEach((pixel, i) => { if (s.changed[i]) count[pixel] += 1; }); }
  const place = (channels, size) => {
    const columns = { 1: 1, 2: 2, 4: 2, 8: 4 }[channels], block = 1 / columns, side = (0.94 * block) / size, top = 0.5 + 0.5 * (channels / columns) * block;
    return range(channels * size * size).map((i) => {
      const c = Math.floor(i / (size * size)), h = Math.floor((i % (size * size)) / size), w = i % size;
      return [((c % columns) + 0.03) * block + w * side, top - (Math.floor(c / columns) + 0.03) * block - (h + 1) * side, side];
    });
  };
  const N = now.H, cells = place(now.C, N), changed = now.changed || now.at.map(() => false), leaving = now.at.map((i) => now.gone.includes(i));
  const box = ([x, y, side], s, fill, name) => ({ t: "poly", s, x: [x, x + side, x + side, x], y: [y, y, y + side, y + side], fill, w: 1, ...(name ? { name } : {}) });
  const word = ([x, y, side], text) => ({ t: "text", s: -1, x: x + side / 2, y: y + side / 2, text, align: "center", size: 0.85 });
  const first = range(now.C).flatMap((c) => {
    const [x, y, side] = cells[c * N * N + N * (N - 1)], right = x + N * side, above = y + N * side;
    return [{ t: "heat", s: 0, v: now.at.slice(c * N * N, (c + 1) * N * N).map((i) => Math.round((1 - picture[i]) * 255)), shape: [N, N], extent: [x, right, y, above], gray: 1 },
      { t: "poly", s: -1, x: [x, right, right, x], y: [y, y, above, above], fill: 0, w: 1 }];
  });
  const second = [], third = [];
  for (const [rows, s, name, fill, text] of [
    [changed.map((v, i) => !v && !leaving[i]), -1, "passes", 0, ""], [changed, 1, "scaled and shifted", 0.35, "\u00b1"], [leaving, 3, "leaves for the base, z", 0.2, "z"],
  ]) {
    let title = name;
    rows.forEach((on, i) => { if (on) { second.push(box(cells[i], s, fill, title)); title = ""; if (text) second.push(word(cells[i], text)); } });
  }
  const named = new Set();
  place(1, 8).forEach((cell, i) => {
    const out = left.includes(i), name = out ? "has left, z" : "number of times so far";
    third.push(box(cell, out ? 3 : 0, out ? 0.2 : Math.min(0.08 * count[i], 0.6), named.has(name) ? "" : name), word(cell, out ? `${count[i]}z` : String(count[i])));
    named.add(name);
  });
  const what = {
    checkerboard: "a coupling with a checkerboard mask", channels: "a coupling with half of the channels as mask",
    squeeze: "squeeze: each 2 × 2 block becomes four channels", leave: "half of the channels leave for the base", start: "the image, before any layer",
  }[now.kind];
  const here = changed.filter(Boolean).length, size = `${now.C} × ${N} × ${N}`, few = Math.min(...count), most = Math.max(...count), often = few < most ? `${few} to ${most} times` : few === 1 ? "once" : `${few} times`;
  const panel = (title, items) => ({ xlim: [-0.02, 1.02], ylim: [-0.02, 1.02], title, xlabel: "", ylabel: "", equal: true, axes: false, aspect: 1, grow: 1, items });
  const acts = here ? ` ${changed.length - here} of the ${changed.length} numbers pass, ${here} are scaled and shifted.` : "";
  return {
    panels: [panel(`the pixels, as ${size}`, first), panel("who passes, who is changed", second), panel("how often each pixel was changed", third)],
    alt: `Step ${n} of ${every.length}, level ${now.level} of ${levels}: ${what}.${acts} The tensor is ${size}. So far each pixel was changed ${often}, and ${left.length} of 64 numbers have gone to the base early.`,
    readouts: {
      step: `${n} of ${every.length}`, what: now.kind, tensor: size, "changed now": `${here} of ${changed.length}`,
      "changed so far": often, "gone to the base early": `${left.length} of 64`,
    },
  };
}
