"""What the chapters' plain Markdown needs to become a book: a Sphinx extension.

* ``<a id="eq-1-4"></a>`` becomes a target that links can find, ``[(1.4)](#eq-1-4)`` on the same page and
  ``[(1.4)](01_change_of_variables.ipynb#eq-1-4)`` from another one; a link to nothing stays a warning.
* ``$$ ... \\tag{1.4} $$`` goes to MathJax as it is. Sphinx would wrap an equation of several lines into ``split``, where
  a tag is not allowed.
* A number keeps its sign or unit on its line: "30 %", "8 × 8", "0.16 ± 0.01".
"""

from __future__ import annotations

import re

import book_finish
import book_quiz
import book_terms
from docutils import nodes
from sphinx.transforms import SphinxTransform

OPEN = re.compile(r'\s*<a\s+(?:id|name)="([^"]+)"\s*>\s*(</a>)?\s*')
UNITS = r"(?:percent|nats?|bits?|seconds?|minutes?|ms|s|kHz|MB|GB|GiB|steps|updates|images|evaluations|layers|pixels|channels|examples|passes|dimensions)\b"
COUNTED = rf"(?={UNITS})"
UNIT = re.compile(
    rf"(?<=[\d½])\s(?:%|[×±]\s(?=[\d½])|{COUNTED})"
    r"|[±≤≥]\s(?=\d)"
    r"|\b(?:[Cc]hapter|[Ee]xercise|[Ff]igure|[Ss]ection|[Tt]able|[Tt]heorem)\s(?=\d)|\b[Aa]ppendix\s(?=[A-Z]\b)"
)
AFTER = re.compile(rf"\s({UNITS})")  # behind a formula
SHORT = 24  # characters of code that fit a line of a phone
IDS = re.compile(r'<[a-z]+\s[^>]*\bid="([^"]+)"')


class Anchors(SphinxTransform):
    """Turn HTML anchors into targets, and let links from other pages see every target."""

    default_priority = 870  # before MyST resolves `(#anchor)` at 879

    def apply(self, **kwargs) -> None:
        slugs = getattr(self.document, "myst_slugs", None) or {}
        for raw in list(self.document.findall(nodes.raw)):
            if "html" not in raw.get("format", "") or raw.parent is None:
                continue
            match = OPEN.fullmatch(raw.astext())
            if match:
                self.replace(raw, match)
            else:  # an id inside other HTML, such as <details id="solution-1-3">
                for name in IDS.findall(raw.astext()):
                    slugs.setdefault(name, (raw.line, name, ""))
        for node in list(self.document.findall(nodes.paragraph)):
            kids = [k for k in node if not (isinstance(k, nodes.Text) and not k.strip())]
            if kids and all(isinstance(k, nodes.target) for k in kids):
                node.replace_self(kids)
        for name, explicit in self.document.nametypes.items():
            if explicit and self.document.nameids.get(name):
                slugs.setdefault(name, (None, self.document.nameids[name], ""))
        self.document.myst_slugs = slugs
        self.env.metadata[self.env.docname]["myst_slugs"] = slugs

    def replace(self, raw: nodes.raw, match: re.Match) -> None:
        parent, at = raw.parent, raw.parent.index(raw)
        if not match.group(2) and at + 1 < len(parent):
            after = parent[at + 1]
            if isinstance(after, nodes.raw) and after.astext().strip() == "</a>":
                parent.remove(after)
        name = match.group(1)
        target = nodes.target("", "", ids=[name], names=[name.lower()])
        target.line = raw.line or parent.line
        raw.replace_self(target)
        self.document.note_explicit_target(target, target)


class TaggedEquations(SphinxTransform):
    """Hand an equation with its own number to MathJax untouched."""

    default_priority = 400

    def apply(self, **kwargs) -> None:
        for node in list(self.document.findall(nodes.math_block)):
            text = node.astext()
            if r"\tag" in text and not node.get("nowrap"):
                new = nodes.math_block("", rf"\[{text.strip()}\]", nowrap=True, number=None)
                new["classes"] = node["classes"]
                new.line, new.source = node.line, node.source
                node.replace_self(new)


class Units(SphinxTransform):
    """No-break spaces before units, around × and ±, before the number of a figure or chapter; short code on one line."""

    default_priority = 410
    code = (nodes.literal, nodes.FixedTextElement, nodes.math, nodes.raw)

    def apply(self, **kwargs) -> None:
        for node in list(self.document.findall(nodes.Text)):  # a line's end is a text of its own
            before = beside(node)[0]
            if type(before) is nodes.Text and type(node) is nodes.Text:
                parent = node.parent
                parent.remove(before)
                parent.replace(node, nodes.Text(before + node))
        for node in list(self.document.findall(nodes.Text)):
            if isinstance(node.parent, self.code):
                continue
            text = UNIT.sub(lambda found: re.sub(r"\s", "\u00a0", found[0]), node)
            before, after = beside(node)
            if isinstance(before, nodes.math) and (unit := AFTER.match(text)):
                # a line may end behind a formula even before a no-break space
                box = nodes.inline("", "", classes=["unit"])
                before.parent.replace(before, box)
                box += [before, nodes.Text(f"\u00a0{unit[1]}")]
                text = text[unit.end() :]
            if isinstance(after, nodes.math) and after.astext().strip() == r"\square":
                word = re.search(r"\S*\s*$", text)
                box = nodes.inline("", "", classes=["unit"])
                after.parent.replace(after, box)
                box += [nodes.Text(f"{word[0].rstrip()}\u00a0"), after]
                text = text[: word.start()]
            if text != node:
                node.parent.replace(node, nodes.Text(text))
        for node in self.document.findall(nodes.literal):
            if len(node.astext()) <= SHORT and not within(node, nodes.entry):
                node["classes"].append("short")


def beside(node: nodes.Node) -> tuple[nodes.Node | None, nodes.Node | None]:
    """The nodes before and after this one in its parent."""
    at, among = node.parent.index(node), node.parent.children
    return among[at - 1] if at else None, among[at + 1] if at + 1 < len(among) else None


def within(node: nodes.Node, kind: type[nodes.Node]) -> bool:
    """A node of a kind holds this one: in a table no column should be as wide as its code."""
    while node := node.parent:
        if isinstance(node, kind):
            return True
    return False


def own_numbers(app, config) -> None:
    """Captions carry their own numbers; some extension asks for Sphinx's too, whatever _config.yml says."""
    config.numfig = False


def setup(app):
    app.connect("config-inited", own_numbers, priority=900)
    app.add_transform(Anchors)
    app.add_transform(TaggedEquations)
    app.add_transform(Units)
    book_finish.setup(app)
    book_quiz.setup(app)
    book_terms.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
