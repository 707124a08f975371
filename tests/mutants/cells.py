"""A fault in a formula of a chapter: does a check cell below it go red?

The chapter is executed here, cell by cell, without a kernel. At each cell that is to be changed the
process forks: the fork runs the changed cell and what follows, until something differs.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .faults import Fault, faults, planted
from .forks import ROOT, fork

sys.path.insert(0, str(ROOT / "book" / "tools"))
from notebooks import chapters, code, read, tags  # noqa: E402

CHAPTER, CHANGED = 1800, 240  # seconds of processor time, for a whole chapter and for a fork


def formula_cells(nb: dict) -> dict[int, str]:
    """The cells that hold a chapter's own mathematics: those with a `verify` or a definition.

    Not the setup, figures, exercises. Numbered from 1, as `policy.py` does.
    """
    out, first = {}, True
    for k, cell in enumerate(nb["cells"], 1):
        if cell["cell_type"] != "code":
            continue
        first, is_setup = False, first
        if is_setup or "alt" in cell["metadata"] or set(tags(cell)) & {"exercise", "explorable"}:
            continue
        text = code(cell)
        tree = ast.parse(text)
        defines = any(isinstance(n, ast.FunctionDef | ast.Lambda) for n in ast.walk(tree))
        if defines or "verify(" in text:
            out[k] = text
    return out


def chapter_faults(path: Path) -> list[Fault]:
    """Every fault of a chapter, in the order of its text."""
    return [
        f
        for k, text in formula_cells(read(path)).items()
        for f in faults(text, f"{path.stem}#{k}", parameters=False)
    ]


class Run:
    """A chapter being executed."""

    def __init__(self, nb: dict):
        self.cells, self.space = nb["cells"], {"__name__": "__main__"}
        self.space["display"] = lambda *a, **k: None
        self.error: Exception | None = None  # the last one, with its traceback
        self.prints: list[str] = []  # of each cell that ran

    def cell(self, k: int, changed: ast.Module | None = None) -> dict[str, Any] | None:
        """Execute cell k; say what went wrong, if something did."""
        cell = self.cells[k - 1]
        if cell["cell_type"] != "code" or "explorable" in tags(cell):
            return None
        tree = ast.parse(code(cell)) if changed is None else changed
        out, failed = io.StringIO(), None
        with contextlib.redirect_stdout(out):
            try:
                exec(compile(tree, f"<cell {k}>", "exec"), self.space)
            except Exception as error:
                failed, self.error = f"{type(error).__name__}: {error}", error
        self.prints.append(out.getvalue())
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
        if "raises-exception" in tags(cell):
            return None if failed else {"by": "error", "cell": k, "said": "raised nothing"}
        if failed:
            red = re.match(r"AssertionError: \(\d+\.\d+\w?\) ", failed)
            return {"by": "verify" if red else "error", "cell": k, "said": failed[:200]}
        if "nbval-check-output" in tags(cell):
            stored = "".join("".join(o["text"]) for o in cell["outputs"])
            if clean(stored) != clean(out.getvalue()):
                return {"by": "print", "cell": k, "said": difference(stored, out.getvalue())}
        return None

    def rest(self, k: int, tree: ast.Module) -> dict[str, Any] | None:
        """Cell k, changed, and all that follow, until something differs."""
        found = self.cell(k, tree)
        for later in range(k + 1, len(self.cells) + 1):
            found = found or self.cell(later)
        return found


def clean(text: str) -> str:
    """A print without what may differ between two runs (as tests/sanitize.cfg has it)."""
    return re.sub(r"0x[0-9a-f]{6,}", "0xADDR", text).strip()


def difference(a: str, b: str) -> str:
    """The first line of two prints that differs."""
    for one, other in zip(a.splitlines(), b.splitlines(), strict=False):
        if one != other:
            return f"{one!r} became {other!r}"[:200]
    return "more or fewer lines"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """An empty folder and no ledger, as the build has it; for a fork, which ends with it."""
    os.environ |= {"BOOK_BUILD": "1", "BOOK_LEDGER": os.devnull}
    with tempfile.TemporaryDirectory(prefix="book-") as folder:
        os.chdir(folder)
        yield


def judge_chapter(path: Path, chosen: list[Fault], say=lambda line: None) -> dict[str, Any]:
    """What the check cells say of each fault, and how many bugs of the gallery they caught."""

    def work():
        verdicts: dict[str, Any] = {}
        with alone():
            run = Run(read(path))
            texts = formula_cells(read(path))
            for k in range(1, len(run.cells) + 1):
                for fault in (f for f in chosen if f.name == f"{path.stem}#{k}"):
                    tree = planted(texts[k], fault, parameters=False)
                    how, found = fork(lambda k=k, tree=tree: run.rest(k, tree), CHANGED)
                    found = found if how == "done" else {"by": how, "cell": k, "said": ""}
                    verdicts[str(fault)] = found
                if wrong := run.cell(k):
                    return {"failed": f"cell {k} of {path.stem}, without a fault: {wrong['said']}"}
            records = sys.modules["lib.teach.ledger"].records
            gallery = [r["label"] for r in records if r["expect_failure"] and not r["passed"]]
            return {"verdicts": verdicts, "gallery": gallery, "checks": len(records) - len(gallery)}

    how, found = fork(work, CHAPTER)
    if how != "done" or "failed" in found:
        raise SystemExit(found["failed"] if how == "done" else f"{path.stem}: {how}")
    return found


__all__ = ["chapter_faults", "chapters", "formula_cells", "judge_chapter"]
