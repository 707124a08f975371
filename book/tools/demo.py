"""Serve the chapters' explorable figures live, full screen, with Voila.

usage: demo.py [--prepare]      (--prepare only writes the notebooks into _build/demos)

Each demo is the chapter's own setup cell and its own explorable cells with their captions: nothing is
copied by hand, so a demo cannot fall behind its chapter.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from notebooks import ROOT, chapters, dump, read, source, tags

FIGURES = re.compile(r"^from lib\.teach\.figures import .+$", re.M)
DEMOS = ROOT / "_build" / "demos"


def demo(path: Path) -> dict | None:
    """The notebook of a chapter's demos, or None where a chapter has none."""
    nb = read(path)
    title = source(nb["cells"][0]).strip().splitlines()[0]
    cells = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": title}]
    cells += [next(c for c in nb["cells"] if c["cell_type"] == "code")]
    imports = "\n".join(sorted(set(FIGURES.findall("\n".join(map(source, nb["cells"]))))))
    cells += [{**cells[1], "id": "imports", "metadata": {}, "source": imports}]
    found = False
    for cell, after in zip(nb["cells"], nb["cells"][1:] + [None], strict=True):
        if "explorable" in tags(cell):
            found = True
            cells.append(cell)
            if after is not None and "caption" in tags(after):
                # links lead to the book, which Voila does not serve
                words = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", source(after))
                cells.append({**after, "source": words})
    for cell in cells:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return {**nb, "cells": cells} if found else None


def prepare() -> list[Path]:
    """Write one notebook per chapter that has explorable figures."""
    shutil.rmtree(DEMOS, ignore_errors=True)
    DEMOS.mkdir(parents=True)
    out = []
    for path in chapters():
        nb = demo(path)
        if nb is not None:
            out.append(DEMOS / path.name)
            out[-1].write_text(dump(nb), encoding="utf8")
    return out


def main(arguments: list[str]) -> int:
    if not prepare():
        print("no chapter has an explorable figure yet")
        return 1
    if "--prepare" in arguments:
        return 0
    command = [sys.executable, "-m", "voila", str(DEMOS), "--preheat_kernel=True", "--pool_size=1"]
    # So that an explorable figure comes as a widget; BOOK_BUILD would ask for the page's form.
    env = {k: v for k, v in os.environ.items() if k != "BOOK_BUILD"}
    print("stop with Ctrl-C", flush=True)
    try:
        return subprocess.call(command, cwd=ROOT, env=env)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
