"""The ledger is long and not trivial, the exercises are complete, and the page of proof counts right."""

from __future__ import annotations

import ast
import importlib
import re

import budget
import gpu
import proof
import pytest
from notebooks import ROOT, chapters
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
    assert found is not None, "book/results/mutants.json is missing; make mutants writes it"
    assert list(found["chapters"]) == [p.stem for p in CHAPTERS]
    for rows in (found["lib"], found["chapters"]):
        for name, row in rows.items():
            parts = row["caught"] + row["equivalent"] + len(row["survived"])
            assert parts == row["sampled"] <= row["possible"], name
    alive = {f for part in ("lib", "chapters") for r in found[part].values() for f in r["survived"]}
    for fault, test in found.get("since", {}).items():
        assert fault in alive
        file, name = test.split("[")[0].split("::", 1)
        assert f"def {name.split('::')[-1]}(" in (ROOT / file).read_text(encoding="utf8")
    caught = sum(r["caught"] for r in found["lib"].values())
    real = sum(r["sampled"] - r["equivalent"] for r in found["lib"].values())
    assert caught >= 0.9 * real


def test_a_check_that_went_red_with_other_seeds_is_shown(monkeypatch):
    found = proof.results("seeds.json")
    found["chapters"][CHAPTERS[3].stem]["red"].append("seeds moved by 1000: (4.7) fails")
    monkeypatch.setattr(proof, "results", lambda name: found)
    page = proof.seeds(CHAPTERS)
    assert (
        "exact ones included; 1 went red" in page
        and f"{proof.title(CHAPTERS[3])}: seeds moved by 1000: (4.7)" in page
    )


def test_seeds_are_those_of_all_chapters_and_what_went_red_is_shown():
    found = proof.results("seeds.json")
    assert found is not None, "book/results/seeds.json is missing; make seeds writes it"
    assert list(found["chapters"]) == [p.stem for p in CHAPTERS] and len(found["moved"]) >= 4
    page = proof.seeds(CHAPTERS)
    made = sum(r["checks"] for r in found["chapters"].values())
    assert f"{made:,} checks in all" in page and made >= 200 * len(found["moved"])
    assert all(said in page for r in found["chapters"].values() for said in r["red"])


def test_a_chart_has_a_mark_for_each_row_and_says_it_in_words():
    rows = [
        {"case": "a < b", "task": "train", "peer": p, "ratio": r, "low": r / 2, "high": r * 2}
        for p, r in (("one", 0.1), ("two", 1.5))
    ]
    svg = proof.chart(rows, "Flows")
    assert "a &lt; b: train" in svg and "\n" not in svg
    assert svg.count('<g class="bench-0">') == svg.count('<g class="bench-1">') == 2  # and a legend
    assert "one: median 0.10, from 0.10 to 0.10, ours faster in 1 of 1; two: median 1.50" in svg


# ---------------------------------------------------------------- on a GPU

GPU_PAGES = gpu.PAGES | budget.PAGES
ABOUT = {"card": "A", "versions": {"torch": "9"}, "commit": "c", "date": "d"}


def give(monkeypatch, found):
    """Every file of results is `found`."""
    for module in (proof, gpu, budget):
        monkeypatch.setattr(module, "results", lambda name: found)


def rows_of(text):
    """The cells of the tables in a text, without their heads."""
    cells = [
        [c.strip() for c in s.strip("|").split("|")] for s in text.splitlines() if s[:1] == "|"
    ]
    return [r for k, r in enumerate(cells) if k > 1 and r[0] != "---"]


@pytest.mark.parametrize("name", GPU_PAGES)
def test_a_page_has_room_for_each_part_and_says_when_it_was_not_measured(name, monkeypatch):
    page, part = GPU_PAGES[name]
    text = (ROOT / "book" / f"{page}.md").read_text(encoding="utf8")
    assert text.count(f"<!-- {name} -->") == 1
    give(monkeypatch, None)
    assert part(CHAPTERS).startswith("This copy of the book has no results")
    command = re.search(r"`make (\w+)", part(CHAPTERS))[1]
    assert f"\n{command}: " in (ROOT / "Makefile").read_text(encoding="utf8")


def test_both_machines_are_shown_by_the_same_code(monkeypatch):
    row = {
        "benchmark": "flows",
        "case": "MAF, D = 2",
        "task": "sample",
        "peer": "zuko",
        "ratio": 0.5,
    }
    row |= {"low": 0.4, "high": 0.6, "milliseconds": 3.0, "rounds": 5, "clock": "wall", "note": "n"}
    about = {"cpu": "X", "cores": 2, "load": [1], "seconds": 3, "busy": True, "quick": True}
    found = ABOUT | about | {"rows": [row]}
    give(monkeypatch, found)
    assert "### Flows on a GPU" in gpu.beside([]) and "What the card changed" not in gpu.beside([])
    cpu = {k: v for k, v in found.items() if k != "card"}
    give(monkeypatch, cpu)
    text = proof.benchmarks([])
    assert "## Flows\n" in text and "of which one thread" in text and "Other work ran" in text
    assert [r[3] for r in rows_of(text)] == ["0.50"] and "A, its calls" in proof.compared(found)
    give(
        monkeypatch,
        found | {"before": {"what": "w", "commit": "c", "rows": [row | {"ratio": 1.5}]}},
    )
    assert rows_of(gpu.beside([]))[-1] == ["MAF, sample", "zuko", "1.50 to 1.50", "0.50 to 0.50"]


def limit(work, task, ms, **more):
    row = {"work": work, "task": task, "milliseconds": ms, "teraflops": 81.0, "of the limit": 0.5}
    return row | {"gigabytes a second": 1600.0, "of the copy": 0.1, "peak MB": 7} | more


def test_a_t4_needs_the_longer_of_arithmetic_and_memory(monkeypatch):
    """8.1e12 operations are a second of a T4, 160e9 bytes half of one; the card was at half its limit."""
    rows = [limit(budget.PLAIN, "train, float32", 100.0)]
    rows += [limit("slow", "train, float32", 100.0, **{"of the limit": 0.01, "of the copy": 0.02})]
    rows += [
        limit("bytes", "train, float32", 100.0, teraflops=0.1, **{"gigabytes a second": 6400.0})
    ]
    give(monkeypatch, ABOUT | {"rows": rows})
    first, second = rows_of(budget.reckoned())
    assert first == [
        "`mnist-realnvp`: a step",
        "8.1",
        "160",
        "100",
        "50%",
        "1,000",
        "2,000",
        "60,000",
        "17 to 33",
    ]
    assert second[:3] == ["bytes: a step", "0.01", "640"]
    assert second[3:7] == ["100", "50%", "2,000", "4,000"]
    assert "reckoned, not measured" in budget.reckoned()


def test_a_step_without_a_measurement_is_three_passes(monkeypatch):
    unet = "U-Net, 35.8M parameters, batch 256"
    rows = [
        limit(budget.PLAIN, f"{t}, float32", ms) for t, ms in (("forward", 10.0), ("train", 50.0))
    ]
    give(monkeypatch, ABOUT | {"rows": [*rows, limit(unet, "forward, float32, contiguous", 100.0)]})
    step = rows_of(budget.reckoned())[-1]  # five passes, as for RealNVP here, of half the batch
    assert step[3] == "250 (reckoned)"
    assert step[0] == "`ddpm-cifar10`: a step" and float(step[1]) == pytest.approx(
        2.5 * 8.1, rel=0.02
    )


def test_bars_that_contain_one_are_counted_apart():
    rows = [{"ratio": r, "low": r - 0.05, "high": r + 0.05} for r in (0.5, 0.98, 1.01)]
    said = proof.words("zuko", rows)
    assert "ours faster in 2 of 3; too close to tell (the bar contains 1) in 2" in said
    assert "too close" not in proof.words("zuko", rows[:1])


def test_more_operations_with_tf32_are_said(monkeypatch):
    """The same rate in both precisions: twice the time is twice the operations."""
    work = "CNF, D = 64, 3 x 512, Hutchinson, batch 16384"
    rows = [limit(work, f"{t}, {how}", ms) for t, how, ms in (
        ("forward", "float32", 10.0), ("forward", "tf32", 20.0),
        ("train", "float32", 30.0), ("train", "tf32", 90.0),
    )]  # fmt: skip
    limits = {"bytes": 1e12, "float32": 1e12, "tf32": 1e12, "bfloat16": 1e12}
    give(monkeypatch, ABOUT | {"limits": limits, "rows": rows})
    text = gpu.shares([])
    assert "2.0 times as many operations in a forward pass" in text
    assert "3.0 times as many in a training step" in text and "is slower for it" in text
    give(monkeypatch, ABOUT | {"limits": limits, "rows": rows[:3]})
    assert "adaptive solver" not in gpu.shares([])


def test_rows_of_an_earlier_run_are_shown_with_its_limits(monkeypatch):
    old, new = (
        ABOUT
        | {"limits": dict.fromkeys(("bytes", "float32", "tf32", "bfloat16"), speed)}
        | {"commit": commit, "rows": [limit(work, "forward, float32", 1.0)]}
        for commit, speed, work in (("a", 1e12, "flow"), ("b", 2e12, "net"))
    )
    give(monkeypatch, new | {"earlier": [old | {"notes": ["Hot."]}]})
    text = gpu.shares([])
    assert [r[0] for r in rows_of(text)] == ["net", "flow"]
    said = (
        "Of an earlier run (flow): A; torch 9; commit a, d. Hot. The card's own limits, measured: "
    )
    assert said + "a copy moves 1.00 TB/s" in text and "2.00 TB/s" in text.split("Of an")[0]


def test_minutes_of_a_recipe_and_what_exceeds_ten(monkeypatch):
    rate = {"batch": 1, "precision": "p", "peak MB": 1}
    rates = {
        "mnist_plain": rate | {"milliseconds": 6.0},
        "mnist_conv": rate | {"milliseconds": 10.1},
    }
    trained = {"mnist_maf": {"steps": 1000, "seconds": 20.0}}
    top = {"bfloat16": 4.05e14}  # 3 passes of half of 1.62e12 operations, 200,000 times: 1,200 s
    rows = [limit(budget.UNET, "forward, float32, contiguous", 20.0)]
    give(monkeypatch, ABOUT | {"rates": rates, "trainings": trained, "limits": top, "rows": rows})
    got = {r[0].strip("`"): r[2:5] for r in rows_of(budget.minutes())}
    assert got["mnist-plain"] == ["6.00", "10.0", "yes"]
    assert got["mnist-conv"] == ["10.10", "10.1", "**no**"]
    assert got["mnist-maf"] == ["20.00", "at most 20.0", "not known"]
    assert got["mnist-glow"] == ["", "", ""]
    assert got["ddpm-cifar10"] == ["", "at least 20", "**no**"]


def test_what_is_said_of_the_u_net_follows_the_numbers(monkeypatch):
    unet, low = "U-Net, 35.8M parameters, batch 256", {"of the limit": 0.003}
    tasks = (
        "float32, contiguous",
        "tf32, contiguous",
        "tf32, channels_last",
        "bfloat16, channels_last",
    )
    top = {"bytes": 1e12, "float32": 1e12, "tf32": 1e12, "bfloat16": 1e12}
    small = [limit("RealNVP, D = 64, batch 1024", "forward, float32", 2.0, **low)]
    small += [limit("RealNVP, D = 64, batch 262144", "forward, float32", 6.0)]

    def said(*times):
        rows = [limit(unet, f"forward, {t}", ms) for t, ms in zip(tasks, times, strict=False)]
        give(monkeypatch, ABOUT | {"limits": top, "rows": small + rows})
        return gpu.shares([])

    assert "makes it slower, 40.0 ms" in said(120.0, 30.0, 40.0, 60.0)
    assert "makes it faster, 20.0 ms" in said(120.0, 30.0, 20.0, 60.0)
    assert "2.00 times faster" in said(
        120.0, 30.0, 20.0, 60.0
    ) and "Not measured: compilation" in said(1, 1, 1, 1)
    assert "U-Net" not in said() and "3.0 times as long" in said() and "0.3% to 0.3%" in said()


def test_runs_may_have_any_of_their_parts(monkeypatch):
    give(monkeypatch, ABOUT)
    assert gpu.runs(CHAPTERS) == "A; torch 9; commit c, d.\n"
    give(monkeypatch, ABOUT | {"commits": {"tests": "c", "rates": "b+"}})
    assert gpu.runs(CHAPTERS).endswith("committed): rates b+.\n")
    chapters = {p.stem: {"seconds": 9.0, "slow cells": {"a": 3.2, "b": 8}} for p in CHAPTERS}
    chapters[CHAPTERS[0].stem] |= {"error": "KeyError: 1", "slow cells": {}}
    tests = {"passed": 1000, "failed": 1, "error": 1, "skipped": 0, "seconds": 5}
    give(
        monkeypatch,
        ABOUT | {"chapters": chapters, "tests": tests | {"which failed": ["tests/a::b"]}},
    )
    text = gpu.runs(CHAPTERS)
    assert "1,000 tests" in text and "2 failed" in text and "- `a::b`" in text
    assert f"{len(CHAPTERS) - 1} of {len(CHAPTERS)} ran" in text
    first, second, *_ = rows_of(text)
    assert first[1:] == ["9", "below 3", "KeyError: 1"] and second[1:] == ["9", "8", ""]


def test_the_page_says_which_chapters_computed_on_the_card(monkeypatch):
    now = [str(int(p.stem[:2])) for p in CHAPTERS if "session.device" in p.read_text("utf8")]
    assert {"9", "11", "12"} <= set(now)
    said = lambda moved: gpu._where(CHAPTERS, {p.stem: {"on the card": moved} for p in CHAPTERS})
    assert "No chapter moved its models to the card in this run" in said(False)
    assert f"By now chapters {', '.join(now)} do" in said(False)
    every = ", ".join(str(int(p.stem[:2])) for p in CHAPTERS)
    assert f"on images ({every}) did that on the card" in said(True) and "By now" not in said(True)


def test_the_shares_that_were_stored_are_rates_over_limits():
    found = proof.results("limits.json")
    if found is None:
        pytest.skip("book/results/limits.json is missing; make gpu PARTS=limits writes it")
    for run in (found, *found.get("earlier", [])):
        for r in run["rows"]:
            precision = r["task"].split(", ")[1]
            share = r["teraflops"] * 1e12 / run["limits"][precision]
            assert r["of the limit"] == pytest.approx(
                share, rel=0.05, abs=1e-4
            )  # starts differ by 3%
            moved = r["gigabytes a second"] * 1e9 / run["limits"]["bytes"]
            assert r["of the copy"] == pytest.approx(moved, rel=0.05, abs=1e-4)


def test_a_share_has_two_digits():
    shares = (0.0031, 0.017, 0.64, 0.995, 1.02)
    assert [gpu._percent(s) for s in shares] == ["0.31%", "1.7%", "64%", "100%", "100%"]
