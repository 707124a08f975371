"""What a chapter gets only in the built book: cells that its notebook does not hold.

The notebook stays what Colab and JupyterLab open. The pages get more, each from one data file:
the quiz of a chapter (`book/quizzes/NN.yml`) in front of its recap, what it needs and where it is used
(`book/chapters.yml`) at its end, the learning paths and the glossary on pages of their own.
"""

from __future__ import annotations

import re

import book_terms
from course import Course
from notebooks import ROOT

QUIZ = """## Quiz

Open an option to see whether it is right, and why. Nothing is sent or stored.

```{{quiz}} {number}
```"""


def cell(name: str, text: str) -> dict:
    """A Markdown cell of the staged notebook."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def heading(nb: dict, title: str) -> int:
    """The index of the cell that starts with a heading of level two, or the number of cells."""
    for k, c in enumerate(nb["cells"]):
        if c["cell_type"] == "markdown" and re.match(rf"##\s+{title}\b", c["source"].strip()):
            return k
    return len(nb["cells"])


def join(nb: dict, stem: str, course: Course) -> dict:
    """The notebook with the book's own cells; the one given is not changed."""
    cells = list(nb["cells"])
    cells.insert(heading(nb, "Recap"), cell("quiz", QUIZ.format(number=stem[:2])))
    links = f"## Connections\n\n{course.connections(int(stem[:2]))}"
    return {**nb, "cells": [*cells, cell("connections", links)]}


def pages(files: dict[str, bytes], course: Course) -> dict[str, bytes]:
    """The staged pages that are made from data: learning paths and glossary."""
    entries = book_terms.read_terms(ROOT / "book" / "glossary.yml")

    def link(n: int) -> str | None:
        return course.link(n) if n in course.about else None

    paths = course.page(files["book/paths.md"].decode())
    terms = book_terms.page(files["book/glossary.md"].decode(), entries, link)
    return {"book/paths.md": paths.encode(), "book/glossary.md": terms.encode()}
