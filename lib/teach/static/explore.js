// The book's explorable figures. One description (see lib/teach/explorable.py), three hosts: a page without kernel,
// a live widget (anywidget), and a demo. Plain scripts (panel.js, then this one), no dependency, no request.
(() => {
  "use strict";
  const { DASH, MARKERS, theme, drawPanel } = globalThis.ExplorablePanel;
  const el = (tag, attrs = {}, ...kids) => {
    const n = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs)) k === "text" ? (n.textContent = v) : n.setAttribute(k, v);
    n.append(...kids);
    return n;
  };
  const decimals = (step) => [0, 1, 2, 3, 4, 5, 6].find((d) => d === 6 || Math.abs(step * 10 ** d - Math.round(step * 10 ** d)) < 1e-6);

  // ---- frames computed beforehand (figures whose Python cannot run in a browser) --------------------------------
  async function unpack(grid) { // every number is uint16 between its slot's bounds, differences along frames, deflated
    const raw = Uint8Array.from(atob(grid.data), (ch) => ch.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    const u = new Uint16Array(await new Response(stream).arrayBuffer()), n = grid.slots.reduce((s, [k]) => s + k, 0);
    const frames = u.length / n, out = new Float32Array(u.length);
    for (let i = 0; i < n; i++) for (let f = 1; f < frames; f++) u[f * n + i] += u[(f - 1) * n + i];
    for (let f = 0; f < frames; f++) {
      let i = f * n;
      for (const [k, lo, hi] of grid.slots) for (let j = 0; j < k; j++, i++) out[i] = u[i] === 65535 ? NaN : lo + (u[i] / 65534) * (hi - lo);
    }
    return (index) => {
      let at = index * n;
      const fill = (o) => {
        if (Array.isArray(o)) return o.map(fill);
        if (o && typeof o === "object") {
          if ("$n" in o) { const v = o.$n === 0 ? out[at] : out.subarray(at, at + o.$n); at += Math.max(1, o.$n); return v; }
          return Object.fromEntries(Object.entries(o).map(([k, v]) => [k, fill(v)]));
        }
        return o;
      };
      const scene = fill(grid.template);
      scene.alt = grid.alts[index]; scene.readouts = grid.readouts[index];
      return scene;
    };
  }

  // ---- the figure: controls, panels, readouts, text alternative ------------------------------------------------
  function mount(root, spec, host, failed = console.error) {
    const state = { ...spec.values, ...(host ? host.params() : {}) }, controls = spec.controls, inputs = {}, stops = [];
    const twin = spec.twin ? new Function(`"use strict"; return (${spec.twin});`)() : null;
    let frames = null, scene = spec.scene, maps = [], dirty = false, moved = false, speak = 0, timer = 0;
    const sheets = Object.fromEntries(Object.entries(spec.sheets || {}).map(([name, { src, side, columns }]) => {
      const img = new Image();
      img.onload = () => draw(); img.src = src;
      return [name, { img, side, columns }];
    }));
    root.replaceChildren(); root.classList.add("explorable");
    const panels = el("div", { class: "ex-panels", role: "img" }), canvases = [];
    const legend = el("ul", { class: "ex-legend", "aria-hidden": "true" }), read = el("dl", { class: "ex-readouts" });
    const bar = el("div", { class: "ex-controls", role: "group", "aria-label": spec.title + ", controls" });
    const alt = el("p", { class: "ex-alt", "aria-live": "polite" }), still = root.dataset.still;

    for (const c of controls) {
      if (c.kind === "slider") {
        const s = el("input", { type: "range", min: c.min, max: c.max, step: c.step, value: state[c.name], "data-name": c.name });
        const out = el("output", {}), row = el("div", { class: "ex-row" }, el("label", {}, el("span", { text: c.label }), s), out);
        s.addEventListener("input", () => { stops.forEach((f) => f()); set({ [c.name]: Number(s.value) }); });
        inputs[c.name] = (v) => {
          s.value = v; out.textContent = c.shown?.[Math.round((v - c.min) / c.step)] ?? Number(v).toFixed(decimals(c.step)).replace("-", "\u2212");
          s.setAttribute("aria-valuetext", `${c.label} ${out.textContent}`);
        };
        bar.append(row);
        if (c.play) {
          const b = el("button", { type: "button", text: "Play", "aria-pressed": "false" });
          const stop = () => { clearInterval(timer); timer = 0; b.textContent = "Play"; b.setAttribute("aria-pressed", "false"); };
          stops.push(stop);
          b.addEventListener("click", () => {
            const mine = b.getAttribute("aria-pressed") === "true";
            stops.forEach((f) => f());
            if (mine) return;
            b.textContent = "Pause"; b.setAttribute("aria-pressed", "true");
            const [first, last, way] = c.down ? [c.max, c.min, -1] : [c.min, c.max, 1];
            if (way * (state[c.name] - last) >= 0) set({ [c.name]: first });
            const inc = Math.max(c.step, (c.max - c.min) / 120), steps = (c.max - c.min) / inc;
            const pace = typeof c.play === "number" ? 1000 * c.play : Math.min(400, 4800 / steps);
            timer = setInterval(() => {
              const next = Number((state[c.name] + way * inc).toFixed(9)) + 0; // no 0.30000000000000004, no -0
              const v = Math.min(c.max, Math.max(c.min, next));
              set({ [c.name]: v });
              if (v === last) stop();
            }, pace);
          });
          row.append(b);
        }
      } else if (c.kind === "choice") {
        const s = el("select", { "data-name": c.name });
        c.options.forEach((o, i) => s.append(el("option", { value: i, text: o })));
        s.addEventListener("change", () => set({ [c.name]: c.options[Number(s.value)] }));
        inputs[c.name] = (v) => { s.value = c.options.indexOf(v); };
        bar.append(el("label", {}, el("span", { text: c.label }), s));
      } else {
        const s = el("input", { type: "checkbox", "data-name": c.name });
        s.addEventListener("change", () => set({ [c.name]: s.checked }));
        inputs[c.name] = (v) => { s.checked = v; };
        bar.append(el("label", { class: "ex-toggle" }, s, el("span", { text: c.label })));
      }
    }
    const reset = el("button", { type: "button", text: "Reset" }), full = el("button", { type: "button", text: "Full screen" });
    reset.addEventListener("click", () => { stops.forEach((f) => f()); set({ ...spec.values }); });
    full.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen && root.requestFullscreen()));
    bar.append(el("span", { class: "ex-buttons" }, reset, full));
    root.append(panels, legend, read, bar, alt);

    function set(change) {
      Object.assign(state, change);
      for (const k in change) inputs[k] && inputs[k](state[k]);
      if (host) host.push({ ...state });
      moved = true; later();
    }
    function gridIndex() { // nearest stop of every control, last control fastest
      return controls.reduce((i, c) => {
        const m = spec.grid.stops[c.name];
        let best = 0;
        m.forEach((v, k) => { if (typeof v === "number" ? Math.abs(v - state[c.name]) < Math.abs(m[best] - state[c.name]) : v === state[c.name]) best = k; });
        return i * m.length + best;
      }, 0);
    }
    function later() { if (!dirty) { dirty = true; requestAnimationFrame(frame); } }
    function frame() { // a change of size alone needs no new numbers; a moved control does, also when both come at once
      dirty = false;
      if (moved) paint(); else draw();
    }
    function paint() {
      moved = false;
      if (twin) scene = twin(state, spec.data);
      else if (host && host.scene) scene = host.scene() || scene;
      else if (frames) scene = frames(gridIndex());
      draw();
    }
    function draw() {
      const th = theme(root), big = (document.fullscreenElement === root || root.closest("[data-large]")) && Math.max(17, innerWidth / 75);
      if (canvases.length !== scene.panels.length) {
        panels.replaceChildren(); canvases.length = 0;
        scene.panels.forEach((p, i) => {
          const cv = el("canvas", { "aria-hidden": "true" });
          cv.style.flexGrow = p.grow ?? 1; cv.style.aspectRatio = String(p.aspect ?? 1.5);
          cv.style.flexBasis = `${Math.round(170 * (p.grow ?? 1) + 60)}px`;
          panels.append(cv); canvases.push(cv); observer.observe(cv); drag(cv, i);
        });
      }
      maps = scene.panels.map((p, i) => drawPanel(canvases[i], p, th, big, sheets));
      for (const d of spec.drag || []) { // a handle is drawn last, with a ring that shows on any ground
        const m = maps[d.panel];
        if (!m) continue;
        m.c.setLineDash([]); m.c.globalAlpha = 1; m.c.beginPath(); m.c.arc(m.X(state[d.x]), d.y ? m.Y(state[d.y]) : m.Y(d.at ?? 0), 8, 0, 7);
        m.c.fillStyle = th.series[d.colour]; m.c.globalAlpha = 0.5; m.c.fill(); m.c.globalAlpha = 1; m.c.lineWidth = 2.5; m.c.strokeStyle = th.ink; m.c.stroke();
      }
      const named = scene.panels.flatMap((p) => p.items.filter((i) => i.name)), seen = new Set(), key = JSON.stringify(named.map((i) => [i.name, i.s, i.dash, i.t, i.m])) + th.dark;
      if (legend.dataset.key !== key) {
        legend.dataset.key = key; legend.replaceChildren();
        for (const it of named) {
          if (seen.has(it.name)) continue;
          seen.add(it.name);
          const cv = el("canvas", { width: 68, height: 24 }), c = cv.getContext("2d");
          cv.style.width = "34px"; cv.style.height = "12px"; c.scale(2, 2);
          c.strokeStyle = c.fillStyle = it.s < 0 ? th.ink : th.series[(it.s ?? 0) % 6]; c.lineWidth = it.w > 4 ? it.w : 2; c.setLineDash(DASH[it.dash ?? 0] || []); // a broad one is broad here, too
          c.globalAlpha = Math.max(0.5, it.a ?? 1); c.beginPath();
          if (it.t === "points") { MARKERS[(it.m ?? it.s ?? 0) % MARKERS.length](c, 17, 6, it.r > 5 ? 4.5 : 3); c.fill(); }
          else if (it.t === "line" || it.t === "arrows") {
            c.moveTo(1, 6); c.lineTo(33, 6); c.stroke();
            if (it.t === "line" && it.m !== undefined) { c.beginPath(); MARKERS[it.m](c, 17, 6, 3.5); c.fill(); }
            if (it.t === "arrows") { c.beginPath(); c.moveTo(33, 6); c.lineTo(23, 1); c.lineTo(23, 11); c.fill(); }
          }
          else { c.globalAlpha = it.fill === 0 && it.s < 0 ? 0 : 0.4; c.fillRect(4, 1, 26, 10); c.globalAlpha = 1; c.lineWidth = 1; c.strokeRect(4, 1, 26, 10); }
          legend.append(el("li", {}, cv, el("span", { text: it.name })));
        }
      }
      const rows = Object.entries(scene.readouts || {});
      if (read.childElementCount !== rows.length) read.replaceChildren(...rows.map(() => el("div", {}, el("dt"), el("dd"))));
      rows.forEach(([k, v], i) => { read.children[i].firstChild.textContent = k; read.children[i].lastChild.textContent = String(v).replace("-", "\u2212"); });
      panels.setAttribute("aria-label", scene.alt);
      clearTimeout(speak); // the sentence for a screen reader: once the hand rests, not at every pixel
      if (!alt.textContent) alt.textContent = scene.alt; else speak = setTimeout(() => { alt.textContent = scene.alt; fit(); }, 250);
      fit();
      root.dataset.painted = Number(root.dataset.painted || 0) + 1;
    }
    function fit() { // full screen: panels give way until the words below them are seen, but stay side by side
      if (document.fullscreenElement !== root) { panels.style.width = panels.style.marginInline = ""; return; }
      const over = root.scrollHeight - root.clientHeight, high = panels.offsetHeight, wide = panels.offsetWidth;
      const least = scene.panels.reduce((sum, p) => sum + 170 * (p.grow ?? 1) + 68, 0);
      if (over <= 0 || wide <= least) return;
      panels.style.width = `${Math.max(least, wide * Math.max(0.4, 1 - over / high))}px`; panels.style.marginInline = "auto";
    }
    function drag(cv, i) {
      const handles = (spec.drag || []).filter((d) => d.panel === i);
      if (!handles.length) return;
      cv.style.touchAction = "none"; cv.style.cursor = "grab";
      let held = null;
      const at = (e) => { // in the canvas's own units: slides are scaled as a whole
        const r = cv.getBoundingClientRect(), k = cv.clientWidth / r.width;
        return [(e.clientX - r.left) * k, (e.clientY - r.top) * k];
      };
      const move = (e) => {
        const m = maps[i], [px, py] = at(e), change = {};
        const snap = (name, v) => { const c = controls.find((k) => k.name === name); return Math.min(c.max, Math.max(c.min, c.min + Math.round((v - c.min) / c.step) * c.step)); };
        change[held.x] = snap(held.x, m.invX(px));
        if (held.y) change[held.y] = snap(held.y, m.invY(py));
        set(change);
      };
      cv.addEventListener("pointerdown", (e) => {
        const m = maps[i], [px, py] = at(e);
        if (!m) return;
        const far = (d) => Math.hypot(m.X(state[d.x]) - px, d.y ? m.Y(state[d.y]) - py : 0);
        held = handles.reduce((a, b) => (far(b) < far(a) ? b : a)); cv.setPointerCapture(e.pointerId); move(e);
      });
      cv.addEventListener("pointermove", (e) => held && move(e));
      for (const end of ["pointerup", "pointercancel"]) cv.addEventListener(end, () => { held = null; });
    }
    const observer = new ResizeObserver(later);
    const themes = new MutationObserver(() => draw());
    for (const n of [document.documentElement, document.body]) themes.observe(n, { attributes: true, attributeFilter: ["data-theme", "data-jp-theme-light", "class"] });
    root.addEventListener("fullscreenchange", later);
    const quiet = matchMedia("(prefers-color-scheme: dark)"); quiet.addEventListener("change", draw);
    for (const k in inputs) inputs[k](state[k]);
    if (host && host.onScene) host.onScene(() => { scene = host.scene() || scene; draw(); });
    if (host && host.onParams) host.onParams((p) => { // from Python, or the echo of our own push
      if (Object.keys(p).every((k) => state[k] === p[k])) return;
      Object.assign(state, p);
      for (const k in p) inputs[k] && inputs[k](p[k]);
      if (twin) paint();
    });
    if (spec.grid && !host) unpack(spec.grid).then((f) => { frames = f; root.dataset.ready = "1"; paint(); }).catch(failed);
    else { paint(); root.dataset.ready = "1"; }
    root.explorable = { state, set, spec, scene: () => scene };
    return () => { observer.disconnect(); themes.disconnect(); clearInterval(timer); quiet.removeEventListener("change", draw); };
  }

  function mountAll() {
    for (const root of document.querySelectorAll("figure.explorable:not([data-ready]):not([data-mounting])")) {
      const spec = root.querySelector('script[type="application/json"]');
      if (!spec) continue;
      root.dataset.mounting = "1";
      const still = [...root.childNodes]; // stays where the figure cannot be drawn (an old browser, say)
      const failed = (e) => { console.error("explorable figure", e); root.replaceChildren(...still); };
      try { mount(root, JSON.parse(spec.textContent), null, failed); } catch (e) { failed(e); }
    }
  }
  // anywidget's entry point: the same figure, with its numbers shared with Python
  function render({ model, el: node }) {
    const root = el("figure", { class: "explorable" });
    node.append(root);
    const spec = model.get("spec"), parse = () => { const s = model.get("scene"); return s ? JSON.parse(s) : null; };
    const key = (p) => JSON.stringify(Object.entries(p).sort());
    let busy = false, next = null, known = key(model.get("params"));
    const ask = (p) => { // Python answers a change, and nothing to what it knows already
      if (key(p) === known) return;
      known = key(p); busy = !spec.twin; send(p);
    };
    const send = (p) => { model.set("params", p); model.save_changes(); };
    return mount(root, spec, {
      params: () => model.get("params"),
      push: (p) => { if (busy) next = p; else ask(p); }, // one request at a time, always the newest
      scene: spec.twin ? null : parse,
      onScene: (f) => model.on("change:scene", () => { busy = false; if (next) { const p = next; next = null; ask(p); } f(); }),
      onParams: (f) => model.on("change:params", () => { known = key(model.get("params")); f(model.get("params")); }),
    });
  }
  globalThis.Explorable = { mount, mountAll, render };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", mountAll);
  else mountAll();
})();
