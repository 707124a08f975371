// One panel of an explorable figure: axes, then the items in the order given, on a canvas of any size and theme.
(() => {
  "use strict";
  const LIGHT = ["#0072b2", "#c44e00", "#00795a", "#a8457f", "#7a5a00", "#3f3f9f"];
  const DARK = ["#56b4e9", "#ff9b57", "#35d0a0", "#e8a6cb", "#f0e442", "#a9a9ff"];
  const DASH = [[], [7, 4], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2]];
  const rgb = (css) => (css.match(/[\d.]+/g) || [0, 0, 0]).slice(0, 3).map(Number);
  const theme = (root) => {
    const ink = rgb(getComputedStyle(root).color);
    const dark = ink[0] + ink[1] + ink[2] > 384;
    return { dark, ink: `rgb(${ink})`, series: dark ? DARK : LIGHT };
  };

  function ticks(lo, hi, want) {
    const raw = (hi - lo) / want, mag = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * mag).find((s) => s >= raw * 0.999), out = [];
    for (let k = Math.ceil(lo / step - 1e-9); k * step <= hi + step * 1e-9; k++) out.push(k * step);
    if (out.length < 3 && want < 12) return ticks(lo, hi, want * 1.5); // one number is no scale
    const d = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
    return out.map((v) => [v, v.toFixed(d).replace(/^-(0\.?0*)$/, "$1").replace("-", "\u2212")]);
  }

  // ---- one panel: axes, then the items in the order given -------------------------------------------------------
  const MARKERS = [
    (c, x, y, r) => c.arc(x, y, r, 0, 7),
    (c, x, y, r) => c.rect(x - r, y - r, 2 * r, 2 * r),
    (c, x, y, r) => { c.moveTo(x, y - r * 1.2); c.lineTo(x + r * 1.1, y + r); c.lineTo(x - r * 1.1, y + r); c.closePath(); },
    (c, x, y, r) => { c.moveTo(x - r, y); c.lineTo(x, y - r); c.lineTo(x + r, y); c.lineTo(x, y + r); c.closePath(); },
    (c, x, y, r) => { c.moveTo(x, y + r * 1.2); c.lineTo(x + r * 1.1, y - r); c.lineTo(x - r * 1.1, y - r); c.closePath(); },
  ];

  function drawPanel(cv, panel, th, big, sheets) {
    const ratio = window.devicePixelRatio || 1, W = cv.clientWidth, H = cv.clientHeight;
    if (!W || !H) return null;
    if (cv.width !== Math.round(W * ratio) || cv.height !== Math.round(H * ratio)) {
      cv.width = Math.round(W * ratio); cv.height = Math.round(H * ratio);
    }
    const c = cv.getContext("2d"), font = big || 12.5, axes = panel.axes !== false;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, W, H);
    let [x0, x1] = panel.xlim, [y0, y1] = panel.ylim;
    const T = panel.title ? font * 1.9 : 8, R = 10, B = axes ? font * 1.7 + (panel.xlabel ? font * 1.35 : 0) : 4;
    c.font = `${font}px system-ui, sans-serif`;
    const rows = axes ? panel.yticks || ticks(y0, y1, Math.max(3, Math.min(6, (H - T - B) / 42))) : [];
    const wide = Math.max(0, ...rows.map(([, t]) => c.measureText(t).width)); // the labels decide the margin
    const L = axes ? wide + 12 + (panel.ylabel ? font * 1.5 : 0) : 4;
    let w = W - L - R, h = H - T - B, ox = L, oy = T;
    if (panel.equal) { // same scale on both axes: shrink the plotting box
      const s = Math.min(w / (x1 - x0), h / (y1 - y0));
      ox += (w - s * (x1 - x0)) / 2; oy += (h - s * (y1 - y0)) / 2; w = s * (x1 - x0); h = s * (y1 - y0);
    }
    const X = (v) => ox + ((v - x0) / (x1 - x0)) * w, Y = (v) => oy + h - ((v - y0) / (y1 - y0)) * h;
    const colour = (s) => (s < 0 ? th.ink : th.series[s % th.series.length]);
    const text = (t, x, y, align, base, size = font, halo) => {
      c.font = `${size}px system-ui, sans-serif`; c.textAlign = align; c.textBaseline = base;
      if (halo) { c.strokeStyle = th.dark ? "#000" : "#fff"; c.lineWidth = 4; c.globalAlpha = 0.7; c.strokeText(t, x, y); c.globalAlpha = 1; }
      c.fillText(t, x, y);
    };
    c.fillStyle = th.ink; c.strokeStyle = th.ink;
    if (panel.title) text(panel.title, ox + w / 2, font * 1.35 + (oy - T), "center", "alphabetic", font * 1.05);
    if (axes) {
      c.lineWidth = 1; c.globalAlpha = 0.55; c.strokeRect(ox, oy, w, h); c.globalAlpha = 1;
      for (const [v, t] of panel.xticks || ticks(x0, x1, Math.max(3, Math.min(8, w / 62)))) {
        c.globalAlpha = 0.55; c.beginPath(); c.moveTo(X(v), oy + h); c.lineTo(X(v), oy + h + 4); c.stroke(); c.globalAlpha = 1;
        text(t, Math.min(X(v), W - c.measureText(t).width / 2 - 1), oy + h + 6, "center", "top"); // the last is not cut off
      }
      for (const [v, t] of rows) {
        c.globalAlpha = 0.55; c.beginPath(); c.moveTo(ox - 4, Y(v)); c.lineTo(ox, Y(v)); c.stroke(); c.globalAlpha = 1;
        text(t, ox - 7, Y(v), "right", "middle");
      }
      if (panel.xlabel) text(panel.xlabel, ox + w / 2, oy + h + font * 1.75, "center", "top");
      if (panel.ylabel) {
        c.save(); c.translate(ox - wide - 10 - font * 0.75, oy + h / 2); c.rotate(-Math.PI / 2); text(panel.ylabel, 0, 0, "center", "middle"); c.restore();
      }
    }
    c.save(); c.beginPath(); c.rect(ox, oy, w, h); c.clip();
    for (const it of panel.items) {
      const col = colour(it.s ?? 0), n = it.x ? it.x.length : 0;
      c.strokeStyle = c.fillStyle = col; c.lineWidth = (it.w ?? 2) * (big ? 1.5 : 1); c.globalAlpha = it.a ?? 1;
      c.setLineDash(DASH[it.dash ?? 0] || []); c.lineJoin = "round";
      if (it.t === "line" || it.t === "poly") {
        const trace = () => {
          c.beginPath(); let pen = false;
          for (let i = 0; i < n; i++) {
            if (!Number.isFinite(it.x[i]) || !Number.isFinite(it.y[i])) { pen = false; continue; }
            const px = X(it.x[i]), py = Math.max(-1e4, Math.min(1e4, Y(it.y[i])));
            pen ? c.lineTo(px, py) : c.moveTo(px, py); pen = true;
          }
        };
        if (it.fill && it.t === "line") { // area between the curve and zero
          trace(); c.lineTo(X(it.x[n - 1]), Y(0)); c.lineTo(X(it.x[0]), Y(0)); c.closePath(); c.globalAlpha = it.fill; c.fill(); c.globalAlpha = it.a ?? 1;
        }
        trace();
        if (it.t === "poly") { c.closePath(); c.globalAlpha = it.fill ?? 0.25; c.fill(); c.globalAlpha = it.a ?? 1; }
        if (c.lineWidth > 0 && it.w !== 0) c.stroke();
      } else if (it.t === "points") {
        const mark = MARKERS[(it.m ?? it.s ?? 0) % MARKERS.length] || MARKERS[0], r = (it.r ?? 2) * (big ? 1.4 : 1);
        for (let i = 0; i < n; i++) {
          if (!Number.isFinite(it.x[i]) || !Number.isFinite(it.y[i])) continue; // X(null) is X(0)
          c.beginPath(); mark(c, X(it.x[i]), Y(it.y[i]), r); c.fill();
        }
      } else if (it.t === "bars") {
        for (let i = 0; i < n; i++) {
          const a = X(it.x[i] - it.width / 2), b = X(it.x[i] + it.width / 2), top = Y(it.y[i]), zero = Y(0);
          c.globalAlpha = it.fill ?? 0.35; c.fillRect(a, Math.min(top, zero), b - a, Math.abs(zero - top));
          c.globalAlpha = it.a ?? 1; c.lineWidth = 1; c.strokeRect(a, Math.min(top, zero), b - a, Math.abs(zero - top));
        }
      } else if (it.t === "arrows") {
        for (let i = 0; i < n; i++) {
          const ax = X(it.x[i]), ay = Y(it.y[i]), bx = X(it.x[i] + it.u[i]), by = Y(it.y[i] + it.v[i]);
          const len = Math.hypot(bx - ax, by - ay), hd = Math.min(5 + 2 * c.lineWidth, len * 0.4), th2 = Math.atan2(by - ay, bx - ax);
          c.beginPath(); c.moveTo(ax, ay); c.lineTo(bx, by); c.stroke();
          c.beginPath(); c.moveTo(bx, by);
          c.lineTo(bx - hd * Math.cos(th2 - 0.45), by - hd * Math.sin(th2 - 0.45));
          c.lineTo(bx - hd * Math.cos(th2 + 0.45), by - hd * Math.sin(th2 + 0.45)); c.closePath(); c.fill();
        }
      } else if (it.t === "heat") {
        const [a0, a1, b0, b1] = it.extent, [hh, ww] = it.shape, img = new ImageData(ww, hh);
        const ink = it.gray ? [0, 0, 0] : rgb(hex(col));
        for (let k = 0; k < hh * ww; k++) { // row 0 is the lowest y, except for gray pictures (row 0 on top)
          const src = it.gray ? k : (hh - 1 - Math.floor(k / ww)) * ww + (k % ww), v = it.v[src];
          if (it.gray) { img.data[4 * k] = img.data[4 * k + 1] = img.data[4 * k + 2] = v; img.data[4 * k + 3] = 255; }
          else { img.data[4 * k] = ink[0]; img.data[4 * k + 1] = ink[1]; img.data[4 * k + 2] = ink[2]; img.data[4 * k + 3] = v; }
        }
        const tmp = document.createElement("canvas"); tmp.width = ww; tmp.height = hh;
        tmp.getContext("2d").putImageData(img, 0, 0);
        c.imageSmoothingEnabled = !it.gray;
        c.drawImage(tmp, X(a0), Y(b1), X(a1) - X(a0), Y(b0) - Y(b1));
      } else if (it.t === "tile") {
        const [a0, a1, b0, b1] = it.extent, { img, side, columns } = sheets[it.sheet];
        c.imageSmoothingEnabled = false;
        const box = [X(a0), Y(b1), X(a1) - X(a0), Y(b0) - Y(b1)];
        if (img.complete && img.naturalWidth) c.drawImage(img, (it.k % columns) * side, Math.floor(it.k / columns) * side, side, side, ...box);
        c.strokeStyle = th.ink; c.lineWidth = 1; c.globalAlpha = 0.4; c.strokeRect(...box); c.globalAlpha = 1; // a dark picture ends somewhere on a dark page
      } else if (it.t === "text") {
        c.fillStyle = colour(it.s ?? -1); text(it.text, X(it.x), Y(it.y), it.align || "center", "middle", font * (it.size ?? 1), it.halo);
      }
    }
    c.restore();
    return { X, Y, invX: (p) => x0 + ((p - ox) / w) * (x1 - x0), invY: (p) => y0 + ((oy + h - p) / h) * (y1 - y0), c, colour };
  }
  const hex = (s) => (s[0] === "#" ? `rgb(${parseInt(s.slice(1, 3), 16)},${parseInt(s.slice(3, 5), 16)},${parseInt(s.slice(5, 7), 16)})` : s);
  globalThis.ExplorablePanel = { DASH, MARKERS, theme, drawPanel };
})();
