"""The ledger is long and not trivial, the exercises are complete, and the page of proof counts right."""

from __future__ import annotations

import ast
import importlib

import proof
import pytest
from notebooks import chapters
from policy import Chapter, exercise_labels, solutions, stubs

from lib.teach.exercise import labels

IDENTITIES, EXERCISES, WRONG = 200, 65, 2  # what the book promises
CHAPTERS = chapters()


def checks(path):
    """The calls of verify that must pass: (cell, call)."""
    for k, _, tree in Chapter.open(path).trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "verify":
                if not any(kw.arg == "expect_failure" for kw in node.keywords):
                    yield k, node


def trivial(call: ast.Call) -> bool:
    """Both sides are one expression, or neither is computed from anything."""
    sides = call.args[1:3]
    sides += [kw.value for kw in call.keywords if kw.arg in (None, "got", "expected", "stderr")]
    named = any(isinstance(n, ast.Name) for side in sides for n in ast.walk(side))
    return not named or (len(sides) > 1 and ast.dump(sides[0]) == ast.dump(sides[1]))


def test_the_ledger_has_at_least_200_identities():
    # That each numbered equation has a check or a reason is the rule `equations` of book/tools/policy.py.
    assert len({c.args[0].value for p in CHAPTERS for _, c in checks(p)}) >= IDENTITIES


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_no_check_is_trivial(path):
    assert not [(k, ast.unparse(c)) for k, c in checks(path) if trivial(c)]


@pytest.mark.parametrize("call", ['verify("1.1", f(x), f(x))', 'verify("1.1", 2 * 3, 6)'])
def test_trivial_checks_are_seen(call):
    assert trivial(ast.parse(call).body[0].value)


def test_there_are_at_least_65_exercises():
    assert sum(len(exercise_labels(Chapter.open(p))) for p in CHAPTERS) >= EXERCISES


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_exercises_are_complete(path):
    ch = Chapter.open(path)
    tested = importlib.import_module(f"tests.teach.test_ch{ch.number:02d}")
    wrong, counted = tested.WRONG, proof.answers(ch.number, "WRONG")
    assert list(stubs(ch)) == labels(ch.number) == list(wrong)  # a stub, a checker, wrong answers
    assert set(exercise_labels(ch)) == set(solutions(ch)) == set(proof.hints(ch))
    assert not [x for x, n in proof.hints(ch).items() if n < 2], "hints come in steps"
    assert {x: len(v) for x, v in wrong.items()} == counted, "the page counts the list literals"
    for label, rows in wrong.items():
        said = {h if isinstance(h, str) else h[0] for _, h in rows} - {"not yet", "raised"}
        assert len(said) >= WRONG, f"{label}: fewer than {WRONG} mistakes with a hint of their own"


def test_at_least_nine_faults_of_ten_are_caught_and_the_counts_add_up():
    found = proof.results("mutants.json")
    if found is None:
        pytest.skip("book/results/mutants.json is missing; make mutants writes it")
    assert list(found["chapters"]) == [p.stem for p in CHAPTERS]
    for rows in (found["lib"], found["chapters"]):
        for name, row in rows.items():
            parts = row["caught"] + row["equivalent"] + len(row["survived"])
            assert parts == row["sampled"] <= row["possible"], name
    caught = sum(r["caught"] for r in found["lib"].values())
    real = sum(r["sampled"] - r["equivalent"] for r in found["lib"].values())
    assert caught >= 0.9 * real


def test_a_chart_has_a_mark_for_each_row_and_says_it_in_words():
    rows = [
        {"case": "a < b", "task": "train", "peer": p, "ratio": r, "low": r / 2, "high": r * 2}
        for p, r in (("one", 0.1), ("two", 1.5))
    ]
    svg = proof.chart(rows, "Flows")
    assert "a &lt; b: train" in svg and "\n" not in svg
    assert svg.count('<g class="bench-0">') == svg.count('<g class="bench-1">') == 2  # and a legend
    assert "one: median 0.10, from 0.10 to 0.10, ours faster in 1 of 1; two: median 1.50" in svg
