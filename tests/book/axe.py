"""axe-core, the checker of accessible pages: what it is told to read, and what it says."""

from __future__ import annotations

from notebooks import ROOT

AXE = (ROOT / "tests" / "vendor" / "axe.min.js").read_text(encoding="utf8")
# What a theme or a width can change: colours, sizes, what scrolls.
VISIBLE = ["color-contrast", "target-size", "scrollable-region-focusable", "link-in-text-block"]

# Four fifths of a chapter's elements are formulas, all made by MathJax in the same way and in the colour of the text.
# Where they need not be read, an empty box of the same size stands for each meanwhile. (To name them in axe's `exclude`
# takes twice as long.) Where they are, their MathML is: the glyphs are hidden from readers.
# Of the other elements many are the coloured words of code. A keyword has one colour in all cells: the first word of
# each kind speaks for them, in what was written, printed or folded. The others become plain text.
RUN = """async ([rules, formulas]) => {
  const seen = new Set();
  for (const word of document.querySelectorAll(".highlight span")) {
    const around = word.closest(".cell_input, .cell_output, .admonition, details");
    const kind = [word.className, word.closest("[class*=highlight-]")?.className, around?.className].join("|");
    if (seen.has(kind)) word.replaceWith(...word.childNodes);
    seen.add(kind);
  }
  const boxes = [...document.querySelectorAll(formulas ? "none" : "mjx-math")].map((glyphs) => {
    const { width, height } = glyphs.getBoundingClientRect(), box = document.createElement("span");
    box.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
    return [glyphs.parentNode, [...glyphs.parentNode.childNodes], box];
  });
  for (const [formula, , box] of boxes) formula.replaceChildren(box);
  const options = { resultTypes: ["violations"] };
  if (rules) options.runOnly = { type: "rule", values: rules };
  const found = await axe.run({ exclude: [["mjx-math"]] }, options);
  for (const [formula, nodes] of boxes) formula.replaceChildren(...nodes);
  return found.violations.map((v) =>
    `${v.id} (${v.nodes.length}): ` + v.nodes.slice(0, 3).map((n) => n.target.join(" ")).join("; "));
}"""


def violations(page, rules: list[str] | None = None, *, formulas: bool = False) -> list[str]:
    """What axe finds on the page as it stands, by these rules (default: all)."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    return page.evaluate(RUN, [rules, formulas])
