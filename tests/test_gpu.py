"""The parts of tests/gpu.py that need no GPU: what it is asked, reads from pytest, keeps of older results."""

import json
import signal
from types import SimpleNamespace

import pytest
import torch

from lib.train.catalogue import ENTRIES, GPU
from tests import gpu


@pytest.mark.parametrize(
    "line, want",
    [
        (
            "[gw4] [ 47%] FAILED tests/a.py::T::t[cuda-0.9] \n",
            ("FAILED", "tests/a.py::T::t[cuda-0.9]"),
        ),
        ("[gw11] [100%] PASSED tests/b.py::t[cuda]\n", ("PASSED", "tests/b.py::t[cuda]")),
        ("tests/b.py::t[cuda] \n", None),
        ("E   assert (4.1 == 1)\n", None),
    ],
)
def test_outcomes_of_pytest(line, want):
    assert gpu.outcome(line) == want


def test_a_part_is_stored_beside_those_of_the_same_card_and_versions(tmp_path, monkeypatch):
    head = {"card": "A", "versions": {"torch": "1"}, "commit": "d"}
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "new" / "gpu.json")
    monkeypatch.setattr(gpu, "about", lambda: head)
    read = lambda: json.loads(gpu.RESULTS.read_text("utf8"))
    gpu.store("rates", {"x": 1})
    gpu.store("tests", {"passed": 2})
    head["commit"] = "e"
    gpu.store("rates", {"x": 3})
    commits = {"rates": "e", "tests": "d"}
    assert read() == head | {"rates": {"x": 3}, "tests": {"passed": 2}, "commits": commits}
    head["card"] = "B"
    gpu.store("chapters", {})
    assert read() == head | {"chapters": {}, "commits": {"chapters": "e"}}


def test_every_recipe_for_a_gpu_is_found_where_rates_looks_for_it():
    for entry in ENTRIES.values():
        if entry.machine == GPU:
            assert callable(gpu.recipes(entry.module)[entry.own])


@pytest.mark.parametrize(
    ("parts", "code", "said"),
    [
        ([], 0, 0),  # as `make gpu` gives it
        (["bench"], 0, 0),
        (["tests", "limits"], 1, 1),
        (["bench", "limits"], -signal.SIGSEGV, 1),
    ],
)
def test_the_parts_asked_for_run_and_one_that_was_killed_counts(monkeypatch, parts, code, said):
    ran = []
    for name in ("tests", "chapters"):
        monkeypatch.setattr(gpu, name, lambda jobs, name=name: ran.append(name) or 0)
    monkeypatch.setattr(gpu, "rates", lambda: ran.append("rates") or 0)
    start = lambda words, cwd: ran.append(words[2]) or SimpleNamespace(returncode=code)
    monkeypatch.setattr(gpu, "subprocess", SimpleNamespace(run=start))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("sys.argv", ["gpu", *parts])
    assert gpu.main() == said
    modules = {"bench": "tests.benchmarks", "limits": "tests.benchmarks.limits"}
    assert ran == [modules.get(part, part) for part in parts or gpu.PARTS]
