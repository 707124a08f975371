"""The faults are those that are named, and the verdicts on them are right."""

from __future__ import annotations

import ast
import json
import os
import time

import pytest
import yaml

from tests.mutants.cells import Run, chapter_faults, chapters, formula_cells
from tests.mutants.faults import faults, planted, sample
from tests.mutants.forks import ROOT, fork
from tests.mutants.seeds import moved

SAID = [
    ("a + b", {"a - b", "a", "b"}),
    ("a - b", {"a + b", "a"}),
    ("a / b", {"a * b", "a"}),
    ("a @ b", {"b @ a"}),
    ("-a", {"a"}),
    ("~a", {"a"}),
    ("a < b", {"a <= b", "a > b"}),
    ("a and b", {"a or b"}),
    ("a if c else b", {"b if c else a"}),
    ("x[1]", {"x[2]"}),
    ("x[a:]", {"x[:a]"}),
    ("0.5", {"1.0"}),
    ("f(a, b)", {"f(b, a)"}),
    ("f(a, a)", set()),
    ("torch.where(c, a, b)", {"torch.where(c, b, a)"}),
    ("x.sum(dim=d)", {"x.mean(dim=d)"}),
    ("x.square()", {"x"}),
    ("torch.exp(x)", {"torch.expm1(x)", "x"}),
    ("f(x, dtype=a + b)", set()),
    ("f'{a + b}'", set()),
    ("'a' + b", set()),
]


@pytest.mark.parametrize(("text", "wanted"), SAID)
def test_what_is_planted(text, wanted):
    source = f"def f(x):\n    return {text}\n"
    found = {ast.unparse(planted(source, k)).split("return ", 1)[1] for k in faults(source, "f")}
    assert found == wanted


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: A | B = 1 + 2) -> C | D:\n    '''1 + 2'''\n    return x\n",
        "def f(x):\n    if x < 1:\n        raise ValueError(x + 1)\n    return x\n",
        "def check_sizes(x):\n    return x + 1\n",
        "class A:\n    def __repr__(self):\n        return self.a + 1\n",
        "import a\n\n@f(1 + 2)\ndef g(x):\n    assert x > 1\n    return x\n",
    ],
    ids=["annotations, defaults, docstring", "raise", "checks", "repr", "decorator and assert"],
)
def test_what_is_left_alone(source):
    assert not faults(source, "f")


def test_equal_changes_are_told_apart_and_only_one_is_made():
    source = "def f(x):\n    y = x + 1\n    return y + 1\n"
    ones = [f for f in faults(source, "f") if (f.before, f.after) == ("1", "2")]
    assert [str(f) for f in ones] == ["f::f: 1 -> 2", "f::f: 1 -> 2 #1"]
    assert ast.unparse(planted(source, ones[1])).count("+ 2") == 1


def test_a_sample_depends_on_its_seed_alone():
    everything = faults((ROOT / "lib/utils.py").read_text(encoding="utf8"), "lib/utils.py")
    assert sample(everything, 9, 0, "a") == sample(everything, 9, 0, "a")
    assert sample(everything, 9, 0, "a") != sample(everything, 9, 1, "a")
    assert len(sample(everything, 10**6, 0, "a")) == len(everything)


def test_a_fork_answers_dies_or_is_stopped():
    assert fork(lambda: [1, "a"], 5) == ("done", [1, "a"])
    assert fork(lambda: os._exit(4), 5)[0] == "died"
    assert fork(lambda: time.sleep(60), 5, wall=0.2) == ("timeout", None)


def test_a_chapter_s_cell_goes_red_by_verify_by_print_and_by_error():
    from lib.teach import verify

    checked = {"tags": ["nbval-check-output"]}
    cell = lambda text, said="", meta=checked: {
        **{"cell_type": "code", "source": text, "metadata": meta},
        "outputs": [{"text": [said]}] if said else [],
    }
    line = "✓ (1.1) sum = product, to 1e-9 relative\n"
    check = 'verify("1.1", two(7.5), 15.0, routes=("sum", "product"))'
    cells = [cell("two = lambda x: x + x", meta={}), cell(check, line), cell("print(two(0))", "0")]
    for text, by in (
        ("two = lambda x: x - x", "verify"),
        ("two = lambda x: 2 * x or 1", "print"),
        ("two = lambda x: x / 0", "error"),
        ("two = lambda x: 2 * x", None),
    ):
        run = Run({"cells": cells})
        run.space["verify"] = verify
        found = run.rest(1, ast.parse(text))
        assert (found and found["by"]) == by, text


def test_a_check_that_holds_with_one_seed_only_is_found():
    cell = lambda text: {"cell_type": "code", "source": text, "metadata": {}, "outputs": []}
    lucky = """import torch
from lib.teach import verify
torch.manual_seed(3)
first = torch.randint(10**6, (1,))
verify("1.1", first.double(), {}, routes=("a draw", "a number"))
verify("1.2", first - first, [0], atol=1e-9, routes=("difference", "0"))"""
    draw = lambda: torch.randint(10**6, (1,), generator=torch.Generator().manual_seed(3)).item()
    import torch

    cells = [cell(lucky.format([float(draw())])), cell("assert False, 'no check'")]
    for by, red in ((0, ["cell 2"]), (1, ["(1.1) fails", "cell 2"])):
        how, found = fork(lambda by=by: moved({"cells": cells}, by), 60)
        assert how == "done" and found["checks"] == 2
        assert [said[: len(want)] for said, want in zip(found["red"], red, strict=True)] == red


def test_every_chapter_has_formulas_in_which_to_plant():
    for path in chapters():
        nb = json.loads(path.read_text(encoding="utf8"))
        assert formula_cells(nb) and len(chapter_faults(path)) >= 50, path.stem


def test_equivalent_faults_have_a_reason_and_exist():
    rows = yaml.safe_load((ROOT / "tests/mutants/equivalent.yml").read_text(encoding="utf8"))
    listed = [f for row in rows for f in row["faults"]]
    assert len(set(listed)) == len(listed) and all(len(row["reason"]) > 20 for row in rows)
    texts = {f.split("::")[0].split("#")[0] for f in listed}
    known = set()
    for name in texts:
        if name.endswith(".py"):
            known |= {str(f) for f in faults((ROOT / name).read_text("utf8"), name)}
        else:
            known |= {str(f) for f in chapter_faults(ROOT / "chapters" / f"{name}.ipynb")}
    assert not set(listed) - known
