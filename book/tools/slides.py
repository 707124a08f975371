"""Slides for a lecture from each chapter, by one rule; reveal.js and MathJax come with the book.

usage: slides.py [NN ...]      (after executing what changed; writes _build/slides)

The rule. A heading of level two starts a new column of slides, one of level three a new slide. A slide shows
its heading, the first sentences of the text below it, lists, numbered equations with the sentence that leads
to each (two on a slide, if they have at most three rows), figures with the first sentence of their caption,
`lib`'s source where the chapter shows it, and explorable figures, which work as on the page, under the
question of their run sheet. All other words go into the speaker's notes (press S). Exercises, notation and
references are left out.

Where the rule is wrong, a tag on the cell decides: `slide` puts a Markdown cell on a slide of its own, whole;
`no-slide` leaves a cell out.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
from pathlib import Path

from build import BUILD, EXECUTED, alone, run_chapters
from deck import Deck, inline, markdown, plain
from notebooks import ROOT, chapters, read, source, tags
from sheets import sheets

OUT = ROOT / "_build" / "slides"
OWN = ROOT / "book" / "slides"
LARGE = ROOT / "book" / "demos" / "page" / "static" / "large.css"


def pictures(cell: dict) -> list[str]:
    """The pictures that a cell has drawn, as HTML."""
    alt = html.escape(cell["metadata"].get("alt", ""), quote=True)
    found = [o["data"]["image/png"] for o in cell["outputs"] if "image/png" in o.get("data", {})]
    return [f'<img alt="{alt}" src="data:image/png;base64,{"".join(p).strip()}">' for p in found]


def output(cell: dict, mime: str) -> str:
    """The first output of that kind, or nothing."""
    found = [o["data"][mime] for o in cell["outputs"] if mime in o.get("data", {})]
    return "".join(found[0]) if found else ""


def deck(path: Path) -> Deck:
    """The slides of one chapter, from its prose and from what its cells drew when they last ran."""
    nb, ran = read(path), read(EXECUTED / path.stem / "notebook.ipynb")
    done = iter(c for c in ran["cells"] if c["cell_type"] == "code")
    asks = {e["name"]: e for e in sheets(path)}
    out = Deck()
    first, *rest = nb["cells"]
    title, promise, about = re.match(r"# (.+?)\n+(.+?)\n\n(.*)", source(first), re.S).groups()
    opening = out.slide(f"{int(path.name[:2])}\\. {title}", column=True, kind="opening")
    opening.body.append(markdown(promise))
    goal = re.search(r"\*\*You will be able to\*\*(.+?)\n>\s*\n", about + "\n>\n", re.S)
    aims = out.slide("You will be able to")
    aims.body += ["<ul>", *(f"<li>{inline(a)}</li>" for a in goals(goal[1])), "</ul>"]
    aims.notes.append(re.sub(r"^>\s?", "", about, flags=re.M))
    for cell, after in zip(rest, [*rest[1:], None], strict=True):
        caption = (
            plain(source(after)).strip() if after is not None and "caption" in tags(after) else ""
        )
        if cell["cell_type"] == "code":
            cell = {**cell, "outputs": next(done)["outputs"]}
            if "no-slide" in tags(cell) or out.skipping:
                continue
            if "explorable" in tags(cell):
                name = re.search(r"figures\.(\w+)", source(cell))[1]
                about = f"{asks[name]['what_if']}\n\n{asks[name]['reset']}"
                shown = f'<div class="explore" data-large>{output(cell, "text/html")}</div>'
                out.figure(shown, caption, kind="live", ask=asks[name]["ask"], notes=about)
            elif pictures(cell) and caption:
                out.figure("".join(pictures(cell)), caption, kind="picture")
            elif output(cell, "text/markdown"):
                out.slide(out.section, kind="source").body.append(
                    markdown(output(cell, "text/markdown"))
                )
        elif "slide" in tags(cell):
            out.slide(out.section, kind="whole").body.append(markdown(source(cell)))
        elif not {"caption", "no-slide"} & set(tags(cell)):
            out.text(source(cell))
    return out


def goals(text: str) -> list[str]:
    """The aims of a chapter, one by one: they are separated by semicolons."""
    words = " ".join(re.sub(r"^>\s?", "", text, flags=re.M).split())
    return [g.strip().rstrip(".") for g in words.split(";") if g.strip()]


def write(paths: list[Path]) -> list[Path]:
    """Write the decks, an index of them, and all that they load. Returns the decks."""
    shutil.rmtree(OUT, ignore_errors=True)
    static = OUT / "static"
    shutil.copytree(ROOT / "book" / "static" / "vendor", static)
    for file in (*OWN.glob("slides.*"), LARGE, *(ROOT / "lib" / "teach" / "static").iterdir()):
        shutil.copy(file, static)
    frame = (OWN / "page.html").read_text("utf8")
    made, index = [], []
    for path in paths:
        chapter = deck(path)
        title = chapter.columns[0][0].title.replace("\\", "")
        body = "".join(
            f"<section>{''.join(s.html() for s in column)}</section>" for column in chapter.columns
        )
        made.append(OUT / f"{path.stem}.html")
        made[-1].write_text(
            frame.replace("@TITLE@", html.escape(title)).replace("@SLIDES@", body), "utf8"
        )
        count = sum(map(len, chapter.columns))
        index.append(
            f'<li><a href="{path.stem}.html">{html.escape(title)}</a>, {count} slides</li>'
        )
    page = (OWN / "index.html").read_text("utf8")
    (OUT / "index.html").write_text(page.replace("@DECKS@", "".join(index)), "utf8")
    return made


def main(only: list[str]) -> int:
    paths = [p for p in chapters() if not only or p.name[:2] in only]
    if not paths:
        print(f"no chapter {only}; there are {', '.join(p.name[:2] for p in chapters())}")
        return 1
    with alone(BUILD):
        if run_chapters(chapters()):
            return 1
        write(paths)
    print(f"the slides are at {(OUT / 'index.html').as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
