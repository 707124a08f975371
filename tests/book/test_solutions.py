"""Each solution's code passes its exercise's check; each unfilled stub fails it."""

from __future__ import annotations

import ast
import builtins
import re

import matplotlib
import pytest
from notebooks import chapters, code
from policy import Chapter, solutions, stubs

matplotlib.use("agg")
CASES = [
    (path, label)
    for path in chapters()
    for label in sorted(stubs(Chapter.open(path)), key=lambda s: [*map(int, re.findall(r"\d+", s))])
]
BLOCK = re.compile(r"^```python[ \t]*\n(.*?)^```", re.M | re.S)


def _imports(path) -> str:
    """The chapter's own imports: a reader who answers an exercise has run them."""
    nodes = (n for _, _, tree in Chapter.open(path).trees for n in tree.body)
    return "\n".join(ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom))


def _run(path, blocks: list[str], monkeypatch) -> list[tuple[str, bool]]:
    """Execute code after the setup cell and the imports, in a name space of its own.

    Returns what `check` said of which exercise.
    """
    import lib.teach
    from lib.teach.setup_cell import SETUP_CELL

    said: list[tuple[str, bool]] = []
    real = lib.teach.check

    def check(label, answer):
        said.append((label, real(label, answer)))
        return said[-1][1]

    monkeypatch.setattr(lib.teach, "check", check)
    space: dict = {"__name__": "__solution__", "__builtins__": builtins}
    for text in [SETUP_CELL, _imports(path), *blocks]:
        exec(compile(code({"source": text}), "<solution>", "exec"), space)
    return said


@pytest.mark.parametrize(("path", "label"), CASES, ids=lambda v: getattr(v, "stem", v))
def test_solution_passes(path, label, monkeypatch):
    text = solutions(Chapter.open(path)).get(label, "")
    blocks = BLOCK.findall(text)
    assert blocks, f"solution {label} has no ```python block, though its stub asks for code"
    said = _run(path, blocks, monkeypatch)
    assert (label, True) in said, f'solution {label} does not end in check("{label}", ...)'
    assert all(right for _, right in said), said


@pytest.mark.parametrize(("path", "label"), CASES, ids=lambda v: getattr(v, "stem", v))
def test_stub_fails(path, label, monkeypatch):
    stub = stubs(Chapter.open(path))[label]
    said = _run(path, [stub["source"]], monkeypatch)
    assert said and not any(right for _, right in said), said
    printed = "".join(t for o in stub["outputs"] for t in o["text"])
    assert f"✗ Exercise {label}" in printed, "the stored print does not show the check failing"
