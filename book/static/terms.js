// Definitions of glossary terms: the style sheet shows them on hover and focus; this adds the tap, Escape, and the margin.
addEventListener("DOMContentLoaded", () => {
  for (const term of document.querySelectorAll(".term")) {
    const link = term.querySelector("a"), says = term.querySelector(".term-says");
    const place = () => {
      term.classList.remove("term-hushed");
      says.style.left = "";
      const box = says.getBoundingClientRect(), room = document.documentElement.clientWidth - 8;
      if (box.right > room) says.style.left = `${room - box.right}px`;
    };
    term.addEventListener("pointerenter", place);
    link.addEventListener("focus", place);
    // A first tap shows the definition, a second one follows the link.
    let tapped = 0;
    link.addEventListener("pointerdown", (e) => { tapped = e.pointerType === "mouse" ? 0 : document.activeElement === link ? 2 : 1; });
    link.addEventListener("click", (e) => {
      const first = tapped === 1;
      tapped = 0; // what comes without a pointer follows the link
      if (!first) return;
      e.preventDefault();
      link.focus();
      place();
    });
  }
  addEventListener("keydown", (e) => {
    if (e.key !== "Escape") return;
    for (const term of document.querySelectorAll(".term:hover, .term:focus-within")) term.classList.add("term-hushed");
  });
});
