// Show the deck, and set what is too tall for its slide smaller, by as much as it needs.
(() => {
  "use strict";
  const WIDTH = 1280, HEIGHT = 720, MARGIN = 0.04, SMALLEST = 0.6;
  const room = HEIGHT * (1 - MARGIN);
  Reveal.initialize({
    width: WIDTH, height: HEIGHT, margin: MARGIN, center: false, hash: true, transition: "none", slideNumber: "c/t",
    controls: false, plugins: [RevealNotes],
    keyboardCondition: () => document.activeElement.tagName !== "SELECT", // arrows choose there
  });
  function fit(slide) {
    slide.style.zoom = "";
    for (const box of slide.querySelectorAll(".equation")) { // a formula wider than the slide
      box.style.zoom = "";
      if (box.scrollWidth > box.clientWidth) box.style.zoom = Math.max(SMALLEST, box.clientWidth / box.scrollWidth);
    }
    // The largest type that fits, by halving: smaller type also breaks its lines elsewhere, so no quotient tells it.
    // (offsetHeight is in the slide's own zoomed units.)
    const fits = (zoom) => { slide.style.zoom = zoom; return slide.offsetHeight * zoom <= room; };
    if (slide.offsetHeight <= room) return;
    let low = SMALLEST, high = 1;
    for (let k = 0; k < 6; k++) { const middle = (low + high) / 2; if (fits(middle)) low = middle; else high = middle; }
    slide.style.zoom = low;
  }
  const leaf = (s) => s && !s.querySelector("section") && fit(s);
  const ready = async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    leaf(Reveal.getCurrentSlide());
    document.body.dataset.ready = "1";
  };
  Reveal.on("slidechanged", (e) => leaf(e.currentSlide));
  Reveal.on("ready", () => { leaf(Reveal.getCurrentSlide()); });
  for (const f of document.querySelectorAll("figure.explorable")) f.setAttribute("data-prevent-swipe", "");
  addEventListener("load", ready);
})();
