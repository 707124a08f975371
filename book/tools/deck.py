"""The rule by which a chapter's text becomes slides; `slides.py` says it in words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from nbconvert.filters.markdown_mistune import markdown2html_mistune

LEFT_OUT = re.compile(r"(Exercises|Notation of papers and lectures|References)\b")
EQUATIONS = 2
ROWS = 3  # of formulas, on one slide
WORDS = 45  # of running text under a heading
LIST = 140  # words of a list on one slide
SENTENCE = re.compile(r"[.!?][*\")”]*\s+(?=[A-Z*“\"$])")
ABBREVIATION = re.compile(r"(?:\b(?:al|e\.g|i\.e|cf|vs|Eq|Fig)\.|\b[A-Z]\.)$")


@dataclass
class Slide:
    """What is seen, and what is said."""

    title: str
    body: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    equations: int = 0
    rows: int = 0
    kind: str = ""

    def html(self) -> str:
        head = f"<h2>{inline(self.title)}</h2>"
        notes = "\n\n".join(self.notes).strip()
        aside = f'<aside class="notes">{markdown(notes)}</aside>' if notes else ""
        return f'<section class="{self.kind}">{head}{"".join(self.body)}{aside}</section>'


def plain(text: str) -> str:
    """Markdown whose links lead nowhere on a slide: their words stay."""
    text = re.sub(r'<a id="[^"]*"></a>\s*', "", text)
    return re.sub(
        r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])+)\]\([^()\s]*(?:\([^)]*\)[^()\s]*)?\)", r"\1", text
    )


def markdown(text: str) -> str:
    """Markdown to HTML; formulas stay as they are, for MathJax."""
    return markdown2html_mistune(plain(text))


def inline(text: str) -> str:
    """One line of Markdown without its paragraph."""
    return re.sub(r"^\s*<p>|</p>\s*$", "", markdown(text))


def sentences(text: str) -> list[str]:
    """Sentences of a paragraph; a full stop within a formula or an abbreviation ends none."""
    parts, start = [], 0
    for match in SENTENCE.finditer(text):
        part = text[start : match.end()].strip()
        if (
            part.count("$") % 2 == 0
            and part.count("**") % 2 == 0 == part.count("*") % 2
            and not ABBREVIATION.search(part)
        ):
            parts.append(part)
            start = match.end()
    return [*parts, text[start:].strip()] if text[start:].strip() else parts


def lead(text: str, words: int = WORDS) -> tuple[str, str]:
    """The first sentences of a paragraph, and the rest of it."""
    parts = sentences(" ".join(text.split()))
    n = 1
    while n < len(parts) and len(" ".join(parts[: n + 1]).split()) <= words:
        n += 1
    return " ".join(parts[:n]), " ".join(parts[n:])


def lead_in(text: str) -> str:
    """The words that lead to what follows: the last sentence, or two where the last is "So"."""
    words = ""
    for part in reversed(sentences(" ".join(text.split()))):
        longer = f"{part} {words}".strip()
        if len(longer.split()) > WORDS:
            break
        words = longer
        if len(words.split()) > 5:
            break
    return words


def blocks(text: str) -> Iterator[str]:
    """Paragraphs, lists, equations and fences of a Markdown cell; solutions and hints are not for slides."""
    text = re.sub(r"<details>.*?</details>", "", text, flags=re.S)
    text = re.sub(r'<a id="[^"]*"></a>\s*', "", text)
    for part in re.split(r"(^```.*?^```\s*$|^\$\$.*?\$\$\s*$)", text, flags=re.M | re.S):
        if part.startswith(("```", "$$")):
            yield part.strip()
        else:
            yield from (b.strip() for b in re.split(r"\n\s*\n", part) if b.strip())


class Deck:
    """The slides of a chapter, column by column."""

    def __init__(self) -> None:
        self.columns: list[list[Slide]] = []
        self.section = ""
        self.skipping = False
        self.open = (
            False  # whether the text last shown ends with a colon or comma: its formula follows
        )

    @property
    def now(self) -> Slide:
        return self.columns[-1][-1]

    def slide(self, title: str, *, column: bool = False, kind: str = "") -> Slide:
        if self.columns and self.now.kind == "fresh" and not self.now.body:
            self.columns[-1].pop()  # a heading with nothing below it but the next heading
            if not self.columns[-1]:
                self.columns.pop()
                column = True
        if column or not self.columns:
            self.columns.append([])
        self.columns[-1].append(Slide(title, kind=kind))
        return self.now

    def text(self, cell: str) -> None:
        """One Markdown cell, by the rule."""
        before = ""  # the paragraph that the next equation may need
        after = False  # whether an equation was just shown
        for block in blocks(cell):
            heading = re.match(r"(#{2,3})\s+(.+)", block)
            if heading:
                level, name = len(heading[1]), heading[2].strip()
                self.skipping = bool(LEFT_OUT.match(name))
                before, after = "", False
                if not self.skipping:
                    self.section = name
                    self.slide(name, column=level == 2, kind="fresh")
            elif self.skipping or not self.columns:
                continue
            elif block.startswith("$$"):
                if r"\tag" in block or self.open:
                    self.equation("" if self.open else before, block)
                    before, after, self.open = "", True, False
                else:
                    self.now.notes.append(block)
            elif re.match(r"(?:[-*]|\d+\.)\s", block.strip()):
                self.list(before, block)
                before, after = "", False
            elif block.startswith(("```", "|", ">", "<")):
                self.now.notes.append(block)
            else:
                self.open = False
                before, after = self.paragraph(block, after), False

    def paragraph(self, block: str, after: bool) -> str:
        """Running text: its first words under a heading, the words that belong to an equation; else notes."""
        now = self.now
        if now.kind == "fresh":
            now.kind = ""
            shown, rest = lead(block)
            now.body.append(markdown(shown))
            if rest:
                now.notes.append(rest)
            self.open = not rest and shown.endswith((":", ","))
            return rest
        if after and re.match(r"[a-z$]", block):  # "where ..." goes on with the formula's sentence
            shown, rest = lead(block, 30)
            if len(shown.split()) <= 40:
                now.body.append(markdown(shown))
                block = rest
        if block:
            now.notes.append(block)
        return block

    def equation(self, before: str, block: str) -> None:
        rows = 1 + block.count(r"\\")
        full = self.now.equations >= EQUATIONS or self.now.equations and self.now.rows + rows > ROWS
        if full or self.now.kind not in ("", "fresh"):
            self.slide(self.section)
        now = self.now
        now.rows += rows
        now.kind = ""
        words = lead_in(before)
        if words:
            now.body.append(markdown(words))
        now.body.append(f'<div class="equation">{html.escape(block, quote=False)}</div>')
        now.equations += 1

    def list(self, before: str, block: str) -> None:
        """A list, over several slides if it is long."""
        items = re.split(r"\n(?=(?:[-*]|\d+\.)\s)", block.strip())
        room = 0
        for k, item in enumerate(items):
            size = len(item.split())
            if (
                k == 0
                and (self.now.equations or self.now.kind not in ("", "fresh"))
                or k
                and size > room
            ):
                self.slide(self.section)
            if k == 0 or size > room:
                room = LIST
                words = lead_in(before) if k == 0 else ""
                if words.rstrip("*").endswith(":"):
                    self.now.body.append(markdown(words))
                self.now.body.append("")
            room -= size
            self.now.lists.append(item)
            self.now.body[-1] = markdown("\n".join(self.now.lists))
            self.now.kind = ""

    def figure(
        self, picture: str, caption: str, *, kind: str, ask: str = "", notes: str = ""
    ) -> None:
        """A figure with the first sentence of its caption, or, explorable, under its question."""
        words_alone = self.now.kind == "" and len(self.now.body) == 1 and not self.now.equations
        if words_alone and not self.now.lists and not ask and self.now.title == self.section:
            slide, kind = self.now, "picture words"
        else:
            slide = self.slide(self.section)
        if ask:
            slide.body.append(f"<p>{html.escape(' '.join(ask.split()))}</p>")
        slide.body.append(picture)
        number, rest = re.match(r"\*\*(Figure [^*]+)\.\*\*\s*(.*)", caption, re.S).groups()
        words = number if ask else f"{number}. {lead(rest, 30)[0]}"
        slide.body.append(f'<p class="caption">{inline(words)}</p>')
        slide.notes += [caption, notes]
        slide.kind = kind
