"""Plant faults in `lib` and in the chapters' formulas, and count how many the checks catch.

usage: python -m tests.mutants [--only "lib/flows/coupling.py 04"] [--sample N] [--cells N] [--seed N] [--jobs N]

A fault in `lib` is shown to the tests that enter its function: those of the module's own test file,
then others, the quick ones first, up to --budget seconds. A fault in a chapter is caught by a check
cell (`verify`, a stored print) or by an exception. What survives is printed; `equivalent.yml` lists
faults that change nothing that is promised, each with its reason. A run over everything writes
book/results/mutants.json. The first run notes which test enters which function (some minutes). Modules and
chapters are done in `--jobs` processes at once. What survived is read by a person: `--recount` plants nothing
and counts again, with the reasons that `equivalent.yml` has got since.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import yaml

from . import forks
from .cells import chapter_faults, chapters, judge_chapter
from .faults import Fault, faults, sample
from .forks import ROOT, fork, origin
from .suite import Suite, digest

TASK = 6 * 3600  # seconds of processor time for all faults of one module or chapter
BUILD, RESULTS = ROOT / "_build" / "mutants", ROOT / "book" / "results" / "mutants.json"
MATHEMATICS = ["lib/flows/*.py", "lib/vae/*.py", "lib/diffusion/*.py", "lib/ode/*.py"]
MATHEMATICS += [
    f"lib/{m}.py" for m in "attention metrics nets quality train/loop unet utils".split()
]
MATHEMATICS += [
    f"lib/data/{m}.py" for m in "base densities images mixture pinwheel rings toys".split()
]
# How a model is trained, on which data, drawn how: settings, in which a change is no mistake.
SETTINGS = ["*/__init__.py", "*recipes*.py", "*/moons.py", "*/sweep.py"]
SETTINGS += ["lib/diffusion/digits.py", "lib/diffusion/shapes.py"]


def modules() -> list[str]:
    """The files of `lib` that hold mathematics."""
    files = sorted(str(f.relative_to(ROOT)) for p in MATHEMATICS for f in ROOT.glob(p))
    return [f for f in files if not any(fnmatch(f, p) for p in SETTINGS)]


def equivalents() -> dict[str, str]:
    """Faults that change nothing that is promised, with the reason."""
    rows = yaml.safe_load((Path(__file__).parent / "equivalent.yml").read_text(encoding="utf8"))
    return {fault: row["reason"] for row in rows or [] for fault in row["faults"]}


class Verdicts:
    """Verdicts of earlier runs on one text, as long as `lib` and the tests that gave them are the same."""

    def __init__(self, suite: Suite, name: str):
        self.file, self.suite = BUILD / "verdicts" / f"{name.replace('/', '.')}.json", suite
        self.file.parent.mkdir(exist_ok=True)
        self.lib = digest(*sorted((ROOT / "lib").rglob("*.py")))
        self.known = json.loads(self.file.read_text()) if self.file.exists() else {}

    def of(self, fault: Fault, budget: float) -> dict:
        """The verdict on a fault, from an earlier run or from a new one."""
        old = self.known.get(str(fault))
        if old and old["lib"] == self.lib and old["stamp"] == self._stamp(fault, old, budget):
            return old
        new = self.suite.judge(fault, budget)
        new |= {"lib": self.lib, "stamp": self._stamp(fault, new, budget)}
        self.known[str(fault)] = new
        self.file.write_text(json.dumps(self.known))
        return new

    def _stamp(self, fault: Fault, verdict: dict, budget: float) -> str:
        first = verdict.get("by", "").split("::")[0]
        if first in self.suite.files:  # caught: the file that did it
            return self.suite.files[first]
        tests = self.suite.covering(fault, budget)
        files = sorted({self.suite.files[t.split("::")[0]] for t in tests})
        return " ".join([*files, str(len(tests))])


def row(possible: int, verdicts: dict[str, dict | None], reasons: dict[str, str]) -> dict:
    """The counts of one module or chapter."""
    caught = {f for f, v in verdicts.items() if v}
    equivalent = [f for f in verdicts if f in reasons and f not in caught]
    return {
        "possible": possible,
        "sampled": len(verdicts),
        "caught": len(caught),
        "equivalent": len(equivalent),
        "survived": [f for f in verdicts if f not in caught and f not in equivalent],
    }


def share(rows: dict[str, dict]) -> str:
    """Caught of those that are not equivalent, in words."""
    caught = sum(r["caught"] for r in rows.values())
    real = sum(r["sampled"] - r["equivalent"] for r in rows.values())
    return f"{caught} of {real} caught ({caught / max(1, real):.1%})"


def recount(rows: dict[str, dict], reasons: dict[str, str]) -> None:
    """Take what has a reason by now out of the survivors."""
    for counts in rows.values():
        excused = [f for f in counts["survived"] if f in reasons]
        counts["equivalent"] += len(excused)
        counts["survived"] = [f for f in counts["survived"] if f not in reasons]


def say(line: str) -> None:
    print(line, flush=True)


def plant_in_module(name: str, suite: Suite, ask: argparse.Namespace, reasons: dict) -> tuple:
    """Counts of one module, and what became of each fault."""
    start, all_of_them = time.monotonic(), faults((ROOT / name).read_text("utf8"), name)
    verdicts, found, every = Verdicts(suite, name), {}, {}
    for fault in sample(all_of_them, ask.sample, ask.seed, name):
        verdict = verdicts.of(fault, ask.budget)
        found[str(fault)] = verdict if verdict["verdict"] == "caught" else None
        every[str(fault)] = verdict.get("by", "")
    counts = row(len(all_of_them), found, reasons)
    report(name, counts, f"{time.monotonic() - start:.0f} s")
    return counts, every


def plant_in_chapter(path: Path, ask: argparse.Namespace, reasons: dict) -> tuple:
    """Counts of one chapter, and what became of each fault."""
    start, all_of_them = time.monotonic(), chapter_faults(path)
    judged = judge_chapter(path, sample(all_of_them, ask.cells, ask.seed, path.stem))
    found = judged["verdicts"]
    by = [v["by"] for v in found.values() if v]
    more = {"by": {k: by.count(k) for k in sorted(set(by))}, "gallery": len(judged["gallery"])}
    counts = row(len(all_of_them), found, reasons) | more
    seconds = f"{time.monotonic() - start:.0f} s"
    report(path.stem, counts, f"{more['gallery']} bugs of the gallery caught, {seconds}")
    return counts, {f: f"{v['by']}, cell {v['cell']}" if v else "" for f, v in found.items()}


def report(name: str, counts: dict, more: str) -> None:
    lines = [f"{name}: {share({name: counts})}, {more}"]
    say("\n".join([*lines, *[f"    survived: {fault}" for fault in counts["survived"]]]))


def at_once(tasks: dict[str, Callable[[], tuple]], jobs: int) -> dict[str, tuple]:
    """The result of each task; `jobs` of them at a time, each in a fork of this process."""
    with ThreadPoolExecutor(jobs) as pool:
        how = list(pool.map(lambda task: fork(task, TASK, 3 * TASK, loud=True), tasks.values()))
    if bad := [f"{name} ({h})" for name, (h, _) in zip(tasks, how, strict=True) if h != "done"]:
        raise SystemExit(f"not finished: {', '.join(bad)}")
    return {name: tuple(found) for name, (_, found) in zip(tasks, how, strict=True)}


def store(results: dict) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf8")
    say(f"written to {RESULTS.relative_to(ROOT)}")


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument("--only", default="", help="files of lib (patterns), numbers of chapters")
    ask.add_argument("--sample", type=int, default=12, help="faults for each module of lib")
    ask.add_argument("--cells", type=int, default=8, help="faults for each chapter")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="modules and chapters at once"
    )
    ask.add_argument("--budget", type=float, default=20.0, help="seconds of tests for a fault")
    ask.add_argument("--recount", action="store_true", help="only read equivalent.yml again")
    ask = ask.parse_args()
    if ask.recount:
        found = json.loads(RESULTS.read_text("utf8"))
        for part in ("lib", "chapters"):
            recount(found[part], equivalents())
            say(f"{part}: {share(found[part])}")
        store(found)
        return 0
    words = ask.only.split()
    names = [n for n in modules() if not words or any(fnmatch(n, w) for w in words)]
    some = [w.zfill(2) for w in words if w.isdigit()]
    paths = [p for p in chapters() if not words or p.stem[:2] in some]
    if words and not names and not paths:
        sys.exit(f"no module of lib's mathematics and no chapter matches {ask.only!r}")
    BUILD.mkdir(parents=True, exist_ok=True)
    reasons = equivalents()
    forks.load()
    suite = Suite(BUILD / "map", say) if names else None
    tasks = {p.stem: partial(plant_in_chapter, p, ask, reasons) for p in paths}
    tasks |= {n: partial(plant_in_module, n, suite, ask, reasons) for n in names}
    done = at_once(tasks, ask.jobs)
    in_lib, in_cells = {n: done[n][0] for n in names}, {p.stem: done[p.stem][0] for p in paths}
    if in_lib:
        say(f"lib: {share(in_lib)}")
    if in_cells:
        say(f"chapters: {share(in_cells)}")
    every = {fault: by for _, found in done.values() for fault, by in found.items()}
    for fault in [f for f in reasons if every.get(f)]:
        say(f"listed as equivalent and caught: {fault} ({every[fault]})")
    if not words:
        about = origin("torch", "numpy", "pytest")
        about |= {"seed": ask.seed, "sample": ask.sample, "cells": ask.cells, "budget": ask.budget}
        store(about | {"lib": in_lib, "chapters": in_cells, "faults": every})
    return 1 if any(r["survived"] for r in [*in_lib.values(), *in_cells.values()]) else 0


if __name__ == "__main__":
    sys.exit(main())
