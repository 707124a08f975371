"""The glossary: a page, and definitions that appear when a reader points at a term in a chapter.

``book/glossary.yml`` is the one source. In each chapter the first occurrence of a term in running text becomes a link
to the glossary with its definition beside it: shown on hover, on focus and on the first tap (``book/static/terms.js``),
read by a screen reader as the link's description, and left out of print. Titles, links, code, formulas, captions,
tables and the quiz stay as they are.
"""

from __future__ import annotations

import re
import unicodedata
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

PAGE = "book/glossary"
SKIP = (
    nodes.title,
    nodes.reference,
    nodes.literal,
    nodes.math,
    nodes.table,
    nodes.strong,
    nodes.raw,
)
SKIP += (nodes.caption, nodes.legend, nodes.literal_block, nodes.math_block, nodes.block_quote)


def read_terms(path: Path) -> list[dict]:
    """The entries, sorted by term. Raises ValueError for a missing key, a doubled form or a formula."""
    entries = yaml.safe_load(path.read_text(encoding="utf8"))
    seen: dict[str, str] = {}
    for e in entries:
        if set(e) - {"also", "in"} != {"term", "chapter", "says"}:
            raise ValueError(
                f"{path.name}: expected term, chapter, says (also, in), got {sorted(e)}"
            )
        e.setdefault("also", [])
        if "$" in e["says"] or "`" in e["says"]:
            raise ValueError(f"{path.name}: {e['term']}: a definition is plain text")
        for form in (e["term"], *e["also"]):
            if seen.setdefault(form.lower(), e["term"]) != e["term"]:
                raise ValueError(
                    f"{path.name}: {form!r} is in {seen[form.lower()]} and {e['term']}"
                )
    return sorted(entries, key=lambda e: e["term"].lower())


def anchor(term: str) -> str:
    """The target of a term on the glossary page."""
    plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", term.lower()))  # no accents
    return "term-" + re.sub(r"\W+", "-", plain).strip("-")


def pattern(entries: list[dict]) -> re.Pattern:
    """All forms as whole words, longest first; a form with capitals such as MAF only as written."""
    forms = sorted({f for e in entries for f in (e["term"], *e["also"])}, key=len, reverse=True)
    parts = []
    for form in forms:
        words = r"\s+".join(map(re.escape, form.split()))
        parts.append(words if re.search(r"[A-Z]", form) else f"(?i:{words})")
    return re.compile(rf"(?<![\w-])(?:{'|'.join(parts)})(?![\w-])")


def page(text: str, entries: list[dict], link) -> str:
    """`book/glossary.md` with its list; `link(chapter)` gives Markdown, or None for a chapter not there yet."""
    marker = "<!-- glossary -->"
    if marker not in text:
        raise ValueError(f"the glossary page has no line {marker}")
    rows = []
    for e in entries:
        other = f" Also: {', '.join(e['also'])}." if e["also"] else ""
        where = link(e["chapter"])
        rows += [f"({anchor(e['term'])})=", "", e["term"], f": {e['says']}{other}"]
        rows += [f"  {where}" if where else "", ""]
    return text.replace(marker, "\n".join(rows))


class Term(nodes.inline):
    """A term with its definition (`says`), the page's own number for it, and where the glossary has it."""


class Terms(SphinxPostTransform):
    """Mark the first occurrence of each term in a chapter."""

    default_priority = 900

    def run(self, **kwargs) -> None:
        if not self.env.docname.startswith("chapters/"):
            return
        entries = self.config.book_terms
        by_form = {f.lower(): e for e in entries for f in (e["term"], *e["also"])}
        form, done = pattern(entries), set()
        number = int(self.env.docname.split("/")[1][:2])
        for text in list(self.document.findall(nodes.Text)):
            if text.parent is None or not self.running(text):
                continue
            pieces, at, string = [], 0, text.astext()
            for match in form.finditer(string):
                entry = by_form[" ".join(match[0].split()).lower()]
                if entry["term"] in done or number not in entry.get("in", [number]):
                    continue
                done.add(entry["term"])
                pieces.append(nodes.Text(string[at : match.start()]))
                term = Term("", match[0], says=entry["says"], name=anchor(entry["term"]))
                pieces.append(term)
                at = match.end()
            if pieces:
                text.parent.replace(text, [*pieces, nodes.Text(string[at:])])

    def running(self, node: nodes.Node) -> bool:
        """Whether a text is a sentence of a paragraph, outside what has an appearance of its own."""
        paragraph = False
        while node.parent is not None:
            node = node.parent
            if isinstance(node, SKIP) or "quiz" in node.get("classes", ()):
                return False
            if isinstance(node, nodes.section) and {"references", "connections"} & set(node["ids"]):
                return False
            paragraph = paragraph or isinstance(node, nodes.paragraph)
        return paragraph


def visit(self, node: Term) -> None:
    where = self.builder.get_relative_uri(self.builder.current_docname, PAGE)
    self.body.append(
        f'<span class="term"><a href="{where}#{node["name"]}" aria-describedby="says-{node["name"]}">'
    )


def depart(self, node: Term) -> None:
    self.body.append(
        f'</a><span class="term-says" role="tooltip" id="says-{node["name"]}">{escape(node["says"])}</span></span>'
    )


def load(app) -> None:
    """Read the glossary before pages are resolved."""
    app.config.book_terms = read_terms(Path(app.srcdir) / "book" / "glossary.yml")


def setup(app) -> None:
    """Join the extension `book_ext`."""
    app.add_config_value("book_terms", [], "")
    app.connect("builder-inited", load)
    app.add_node(Term, html=(visit, depart))
    app.add_post_transform(Terms)
