"""What a chapter gets only in the built book: cells that its notebook does not hold.

The notebook stays what Colab and JupyterLab open. The pages get more, each from one data file:
the quiz of a chapter (`book/quizzes/NN.yml`), in front of its recap.
"""

from __future__ import annotations

import re

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


def join(nb: dict, stem: str) -> dict:
    """The notebook with the book's own cells; the one given is not changed."""
    number = stem[:2]
    cells = list(nb["cells"])
    cells.insert(heading(nb, "Recap"), cell("quiz", QUIZ.format(number=number)))
    return {**nb, "cells": cells}
