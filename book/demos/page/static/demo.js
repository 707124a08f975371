// A demo's page: which figure is shown, its run sheet, its kernel, and what to do when something fails.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id), names = [], KEPT = "demo-settings";
  const { kernel, base } = $("demos").dataset, models = {};
  const PATIENCE = 8000; // ms without an answer before the kernel is called stuck
  let current = null, gone = false, lost = false;

  const demos = () => names.map((n) => $(n));
  const figure = (demo) => (demo.querySelector("figure.explorable") || {}).explorable;
  const set = (demo, values) => figure(demo) && figure(demo).set({ ...figure(demo).spec.values, ...values });

  // ---- the kernel: a widget's traits, as Jupyter's comm messages over Voila's web socket
  const session = crypto.getRandomValues(new Uint32Array(4)).join("");
  let socket = null, unanswered = 0;
  function connect() {
    socket = new WebSocket(`${location.origin.replace("http", "ws")}${base}api/kernels/${kernel}/channels?session_id=${session}`);
    socket.onopen = () => { if (lost && !gone) $("notice").hidden = true; lost = false; Object.values(models).forEach((m) => m.flush()); };
    socket.onmessage = (e) => typeof e.data === "string" && receive(JSON.parse(e.data));
    socket.onclose = async () => {
      if (gone) return;
      const there = await fetch(`${base}api/kernels/${kernel}`).then((r) => r.ok, () => null);
      if (there === false) return died(); // the server answers, and has no such kernel
      lost = true;
      notice("The server does not answer. Is `make demo` still running?", reload);
      setTimeout(connect, 2000);
    };
  }
  function receive({ header, content }) {
    if (header.msg_type === "status" && /restarting|dead/.test(content.execution_state)) died();
    if (header.msg_type !== "comm_msg" || !models[content.comm_id]) return;
    if (content.data.method === "update") models[content.comm_id].receive(content.data.state);
  }
  function send(comm_id, state) {
    const header = { msg_id: crypto.getRandomValues(new Uint32Array(4)).join(""), msg_type: "comm_msg", session, username: "", version: "5.3", date: new Date().toISOString() };
    const content = { comm_id, data: { method: "update", state, buffer_paths: [] } };
    socket.send(JSON.stringify({ channel: "shell", header, parent_header: {}, metadata: {}, content }));
  }
  function model(id, spec) { // what anywidget hands to a renderer
    const state = { spec, params: spec.values, scene: "" }, handlers = {}, waiting = {};
    const flush = () => {
      if (!Object.keys(waiting).length || !socket || socket.readyState !== WebSocket.OPEN) return;
      send(id, { ...waiting });
      for (const k in waiting) delete waiting[k];
      if (!spec.twin) unanswered ||= setTimeout(() => notice("The kernel of this demo does not answer.", reload), PATIENCE);
    };
    return (models[id] = {
      flush,
      get: (name) => state[name],
      set: (name, value) => { state[name] = waiting[name] = value; },
      save_changes: flush,
      on: (event, f) => (handlers[event] ||= []).push(f),
      receive(change) {
        unanswered = clearTimeout(unanswered);
        Object.assign(state, change);
        for (const k in change) (handlers[`change:${k}`] || []).forEach((f) => f());
      },
    });
  }

  // ---- the figures
  function ready(name) { // the page has this figure's still; called as its cell arrives
    const demo = $(name), place = demo.querySelector(".ex-live");
    names.push(name);
    $("waiting").hidden = true;
    demo.addEventListener("click", (e) => click(e, demo));
    show(decodeURIComponent(location.hash.slice(1)));
    if (!place) return; // its cell failed, and says so
    const { model: id, spec } = JSON.parse(place.querySelector("script").textContent);
    const live = document.createElement("div");
    live.className = "live";
    try { Explorable.render({ model: model(id, spec), el: live }); } catch (e) {
      console.error("explorable figure", e);
      return notice("The live figure could not start. What you see is a still picture.", reload);
    }
    place.replaceWith(live);
    const kept = JSON.parse(sessionStorage.getItem(KEPT) || "null");
    if (kept && kept.at === location.pathname && kept[name]) set(demo, kept[name]);
  }
  function show(name) {
    if (!names.includes(name)) name = names[0];
    current = name;
    for (const demo of demos()) demo.hidden = demo.id !== name;
    const at = names.indexOf(name);
    $("which").textContent = `· Figure ${$(name).dataset.number}`;
    $("previous").disabled = at === 0;
    $("next").disabled = at === names.length - 1;
  }
  function go(step) {
    const name = names[names.indexOf(current) + step];
    if (name) location.hash = name;
  }
  function contrast() {
    const dark = document.documentElement.dataset.theme !== "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    $("contrast").setAttribute("aria-pressed", dark);
  }

  // ---- the run sheet, beside the figure or in a window for the other screen
  function sheet(on = $("sheet").getAttribute("aria-pressed") !== "true") {
    $("sheet").setAttribute("aria-pressed", on);
    for (const demo of demos()) demo.querySelector(".sheet").hidden = !on;
  }
  function detach(demo) {
    const other = window.open("", "run-sheet", "width=560,height=800");
    if (!other) return notice("The browser did not allow a second window.");
    other.document.title = "Run sheet";
    const style = other.document.createElement("style");
    style.textContent = "body{font:1.1rem/1.4 system-ui,sans-serif;margin:1rem}li{margin-bottom:.8em}button{font:inherit;text-align:start}[data-window]{display:none}";
    other.document.head.replaceChildren(style);
    other.document.body.innerHTML = demo.querySelector(".sheet").innerHTML;
    other.document.body.onclick = (e) => click(e, demo);
    sheet(false);
  }
  function click(event, demo) {
    const button = event.target.closest("button");
    if (button && button.dataset.set) set(demo, JSON.parse(button.dataset.set));
    else if (button && "window" in button.dataset) detach(demo);
  }

  // ---- faults
  function notice(text, action) {
    const box = $("notice");
    box.textContent = text + " ";
    box.hidden = false;
    if (!action) return;
    const button = document.createElement("button");
    button.type = "button"; button.textContent = "Reload"; button.addEventListener("click", action);
    box.append(button);
  }
  function reload() { // at the settings that the class has just seen
    const kept = { at: location.pathname };
    for (const demo of demos()) if (figure(demo)) kept[demo.id] = figure(demo).state;
    sessionStorage.setItem(KEPT, JSON.stringify(kept));
    location.reload();
  }
  function died() {
    if (gone) return;
    gone = true;
    notice("The kernel of this demo stopped. Another one takes its place, at the same settings.", reload);
    setTimeout(reload, 2000);
  }

  addEventListener("load", () => sessionStorage.removeItem(KEPT));
  addEventListener("pagehide", () => { // Voila's own front end does the same: the kernel has served
    gone = true;
    const form = new FormData(), cookie = document.cookie.match("\\b_xsrf=([^;]*)\\b");
    form.append("_xsrf", (cookie && cookie[1]) || "");
    navigator.sendBeacon(`${base}voila/api/shutdown/${kernel}`, form);
  });
  addEventListener("pageshow", (e) => e.persisted && location.reload()); // from the back button: its kernel is gone
  addEventListener("hashchange", () => names.length && show(decodeURIComponent(location.hash.slice(1))));
  addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.altKey || e.metaKey || /SELECT|TEXTAREA/.test(e.target.tagName)) return;
    const key = { r: () => sheet(), c: contrast, n: () => go(1), p: () => go(-1) }[e.key.toLowerCase()];
    if (key) key();
  });
  $("previous").addEventListener("click", () => go(-1));
  $("next").addEventListener("click", () => go(1));
  $("sheet").addEventListener("click", () => sheet());
  $("contrast").addEventListener("click", contrast);
  globalThis.Demo = { ready };
  // Once all cells have run, as Voila's own front end does: until then the kernel is busy with its own client.
  addEventListener("DOMContentLoaded", connect);
  // The gallery sets the cookie that a shutdown needs; a page opened by its own address would leave its kernel behind.
  if (!document.cookie.includes("_xsrf=")) fetch(base);
})();
