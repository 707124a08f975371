"""The book on a GPU: tests, chapters, speed; what was found is written to book/results, with the card.

usage: python -m tests.gpu [tests chapters bench limits rates] [--jobs 8]      (make gpu; default: all)

tests     every test of lib that takes a device, on CUDA
chapters  every chapter from the first cell to the last, in full mode
bench     beside the other libraries, where they are installed (bench_cuda.json)
limits    how near to the card's limits, and what speeds up the U-Net (limits.json)
rates     milliseconds for a step of each recipe that is made for a GPU, and its peak of memory

All but `bench` and `limits`, which have files of their own, go to gpu.json, each under its name.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch

from lib.paths import commit

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "book" / "results" / "gpu.json"
PARTS = ("tests", "chapters", "bench", "limits", "rates")
TESTED = "flows diffusion vae ode data train results weights".split()


def about() -> dict[str, object]:
    """The card, the versions, the date and the commit; no name of a host."""
    names = ("torch", "numpy")
    return {
        "card": torch.cuda.get_device_name(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in names},
        "cuda": torch.version.cuda,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


def store(part: str, found: object) -> None:
    """Write one part beside the others of the same card and versions, with each one's commit."""
    head, old = about(), {}
    if RESULTS.is_file():
        old = json.loads(RESULTS.read_text("utf8"))
        same = all(old.get(k) == head[k] for k in ("card", "versions"))
        old = (
            {k: v for k, v in old.items() if k in (*PARTS, "trainings", "commits")} if same else {}
        )
    RESULTS.parent.mkdir(exist_ok=True)
    old["commits"] = old.get("commits", {}) | {part: head["commit"]}
    RESULTS.write_text(json.dumps(head | old | {part: found}, indent=1) + "\n", "utf8")


def outcome(line: str) -> tuple[str, str] | None:
    """PASSED, FAILED, ... and the test's name, from a line of pytest -v -n; None of another line."""
    found = re.match(r"\[gw\d+\] \[ *\d+%\] (\w+) (\S+)", line)
    return (found[1], found[2]) if found else None


def tests(jobs: int) -> int:
    """Tests with "cuda" among their parameters, several files at a time."""
    where = [f"tests/{name}" for name in TESTED if (ROOT / "tests" / name).is_dir()]
    where += sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests").glob("test_*.py"))
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:benchmark", "--tb=short"]
    command += ["-n", str(jobs), "--dist", "loadfile", "-k", "cuda", *where]
    counts, failed = dict.fromkeys(("PASSED", "FAILED", "ERROR", "SKIPPED"), 0), []
    start = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as ran:
        for line in ran.stdout:
            found = outcome(line)
            if not found:
                print(line, end="", flush=True)
                continue
            counts[found[0]] = counts.get(found[0], 0) + 1
            if found[0] in ("FAILED", "ERROR"):
                failed.append(found[1])
                print(line, end="", flush=True)
            if sum(counts.values()) % 200 == 0:
                print(counts, f"{time.monotonic() - start:.0f} s", flush=True)
    counts = {k.lower(): v for k, v in counts.items()}
    store("tests", counts | {"seconds": round(time.monotonic() - start), "which failed": failed})
    return ran.returncode


def chapters(jobs: int) -> int:
    """Every chapter, as the book's build runs it, with a GPU at hand."""
    sys.path.insert(0, str(ROOT / "book" / "tools"))
    os.environ["BOOK_JOBS"] = str(jobs)
    from execute import Job, execute
    from gpu import on_the_card
    from notebooks import chapters as all_chapters
    from notebooks import read

    moved = [p.stem for p in all_chapters() if on_the_card(p)]
    jobs = [Job(p.stem, read(p), cell_seconds=300) for p in all_chapters()]
    execute(jobs, lambda job: print(f"{job.name}: {job.seconds:.0f} s {job.error}", flush=True))
    found = {}
    for job in jobs:
        cells = job.about.get("cells", {})
        slow = {k: s for k, s in sorted(cells.items(), key=lambda kv: -kv[1]) if s >= 3}
        found[job.name] = {"seconds": round(job.seconds, 1), "slow cells": slow}
        found[job.name]["on the card"] = job.name in moved
        if job.error:
            found[job.name]["error"] = job.error.splitlines()[-1]
    store("chapters", found)
    return sum(bool(job.error) for job in jobs)


def rates(steps: int = 60) -> int:
    """Milliseconds of a step, the median after the first third, for each recipe of a GPU."""
    from lib.recipe import settled
    from lib.train import fit
    from lib.train.catalogue import ENTRIES, GPU

    torch.set_float32_matmul_precision("high")  # as lib.recipe does
    found, failed = {}, 0
    args = argparse.Namespace(mode="full", batch_size=None, amp="auto")
    for name, entry in ENTRIES.items():
        if entry.machine != GPU:
            continue
        try:
            build = recipes(entry.module)[entry.own]
            recipe = settled(build(), args, torch.device("cuda"))
            planned, recipe.fit["steps"] = recipe.fit["steps"], steps
            how = recipe.fit | {"valid": None, "valid_every": None, "progress": False}
            torch.cuda.reset_peak_memory_stats()
            clock = [u.seconds for u in fit(recipe.model, recipe.train, **how)]
            gaps = [b - a for a, b in pairwise(clock[steps // 3 :])]
            found[name] = {
                "milliseconds": round(1e3 * statistics.median(gaps), 2),
                "batch": recipe.fit.get("batch_size", 256),
                "precision": "bfloat16" if recipe.fit.get("amp") else "float32, TF32",
                "peak MB": round(torch.cuda.max_memory_allocated() / 1e6),
                "steps of the recipe": planned,
            }
        except Exception as error:  # data that is not here, memory
            found[name], failed = {"error": f"{type(error).__name__}: {error}"[:200]}, failed + 1
        print(name, found[name], flush=True)
        store("rates", found)
        torch.cuda.empty_cache()
    return failed


def recipes(module: str) -> dict:
    """The functions of a module of recipes, by name, with those of chapters 5 and 6."""
    import importlib

    names = [module, "lib.flows.autoregressive_recipes", "lib.flows.posteriors"]
    return {
        k: v for name in reversed(names) for k, v in vars(importlib.import_module(name)).items()
    }


def main() -> int:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    # What stands for no words is checked against the choices as a whole.
    ask.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    ask.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    ask = ask.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU here that torch can use")
    run = lambda *words: subprocess.run([sys.executable, "-m", *words], cwd=ROOT).returncode
    parts = {
        "tests": lambda: tests(ask.jobs),
        "chapters": lambda: chapters(ask.jobs),
        "bench": lambda: run("tests.benchmarks", "--device", "cuda"),
        "limits": lambda: run("tests.benchmarks.limits"),
        "rates": rates,
    }
    failed = 0
    for part in ask.parts or PARTS:
        start = time.monotonic()
        failed += parts[part]() != 0  # below 0: killed by a signal
        print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
