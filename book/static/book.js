// Opened from a folder, a page may not fetch another one: search then shows titles without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

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
  for (const box of document.querySelectorAll("div.math, div.cell_output, div.highlight pre, .bd-article table")) {
    box.classList.toggle("wide", box.scrollWidth - box.clientWidth > 4);
    const more = () => box.classList.toggle("scrolls", box.scrollWidth - box.clientWidth - box.scrollLeft > 4);
    if (!box.dataset.watched) box.addEventListener("scroll", more, { passive: true });
    box.dataset.watched = "yes";
    more();
  }
}

function fitPage() {
  fitFormulas();
  markScrolling();
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
