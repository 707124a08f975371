// Opened from a folder, a page may not fetch another one: search then shows titles without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// Formulas in the window are set first, so that reading can begin; the others follow in portions between which the page answers.
// Where drawing the page takes more than twice as long as setting a portion (WebKit: up to half a second), it doubles.
let portion = 40;

async function setInOrder() {
  const all = [...document.querySelectorAll(".bd-article .math")];
  let name = location.hash.slice(1), moved = false;
  try { name = decodeURIComponent(name); } catch { /* a lone % stands for itself */ }
  for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"])
    addEventListener(kind, () => { moved = true; }, { once: true, passive: true });
  const target = document.getElementById(name);
  const middle = target ? target.getBoundingClientRect().top : 0;
  const near = new Set(all.filter((e) => {
    const box = e.getBoundingClientRect();
    return e.getClientRects().length && box.bottom > middle - innerHeight && box.top < middle + 1.5 * innerHeight;
  }));
  const rest = all.filter((e) => !near.has(e));
  await MathJax.typesetPromise([...near]);
  performance.mark("formulas-in-window");
  fitPage();
  while (rest.length) {
    const start = performance.now();
    await new Promise((r) => setTimeout(r));
    const drawn = performance.now();
    await MathJax.typesetPromise(rest.splice(0, portion));
    if (drawn - start > 2 * (performance.now() - drawn)) portion *= 2;
  }
  await MathJax.startup.defaultPageReady(); // whatever else there is
  performance.mark("formulas");
  if (!moved) target?.scrollIntoView(); // formulas above it have grown
}
// A centred formula keeps the room of its number free on both sides. A phone has none to spare.
const centred = matchMedia("(min-width: 600px)").matches;
if (window.MathJax) {
  MathJax.startup = { ...MathJax.startup, pageReady: setInOrder };
  MathJax.chtml = { ...MathJax.chtml, displayAlign: centred ? "center" : "left" };
}

// A formula wider than its column is set smaller, down to a limit; what is still too wide scrolls, and looks like it.
const SMALLEST = 0.62;
const SCROLLING = 0.8;

function fitFormulas() {
  const wide = [];
  for (const box of document.querySelectorAll("div.math")) {
    const formula = box.querySelector('mjx-container[display="true"]');
    if (!formula) continue;
    formula.dataset.size ??= parseFloat(formula.style.fontSize) || 100;
    formula.style.fontSize = formula.dataset.size + "%";
    wide.push([box, formula]);
  }
  const ratios = wide.map(([box]) => box.clientWidth / box.scrollWidth); // read all, then write all
  wide.forEach(([, formula], k) => {
    const scale = ratios[k] >= 1 ? 1 : ratios[k] > SMALLEST ? 0.99 * ratios[k] : SCROLLING;
    formula.style.fontSize = formula.dataset.size * scale + "%";
  });
}

function markScrolling() {
  for (const box of document.querySelectorAll("div.math, div.cell_output, div.highlight pre, .bd-article table, .bench")) {
    box.classList.toggle("wide", box.scrollWidth - box.clientWidth > 4);
    const more = () => box.classList.toggle("scrolls", box.scrollWidth - box.clientWidth - box.scrollLeft > 4);
    if (!box.dataset.watched) box.addEventListener("scroll", more, { passive: true });
    box.dataset.watched = "yes";
    more();
    // what scrolls can be reached and scrolled with the keyboard
    if (box.scrollWidth - box.clientWidth > 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

function fitPage() {
  fitFormulas();
  markScrolling();
  document.documentElement.dataset.fitted = innerWidth;
}

addEventListener("load", () => {
  (window.MathJax?.startup?.promise ?? Promise.resolve()).then(fitPage);
  let wait, width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar changes the height alone
    width = innerWidth;
    clearTimeout(wait);
    wait = setTimeout(fitPage, 150);
  });
});

// On paper nothing scrolls: if the theme then looks for what does, it takes the keyboard's way to all of it.
matchMedia("print").addEventListener("change", (print) => { if (!print.matches) markScrolling(); });

// On paper all pictures and all that is folded away; afterwards the page is as it was.
let folded = [];
addEventListener("beforeprint", () => {
  for (const picture of document.querySelectorAll('img[loading="lazy"]')) picture.loading = "eager";
  document.querySelectorAll("ol.quiz").forEach((quiz) => (quiz.dataset.printing = "yes"));
  folded = [...document.querySelectorAll(".bd-article details:not([open], .hide)")];
  for (const fold of folded) fold.open = true;
});
addEventListener("afterprint", () => {
  for (const fold of folded) fold.open = false;
  setTimeout(() => document.querySelectorAll("ol.quiz").forEach((quiz) => delete quiz.dataset.printing), 0);
});
