"""Do the chapters' checks hold with any seed, or with a lucky one? Run each chapter with all its seeds moved.

usage: python -m tests.mutants.seeds [--only "04 13"] [--moved 1000 2000 3000 4000]

`torch.manual_seed(s)` seeds with s + moved. The random numbers of a generator of its own stay, which draws
data and figures. A run over all chapters writes book/results/seeds.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .cells import CHAPTER, Run, alone, chapters, read
from .forks import ROOT, fork, load, origin

RESULTS = ROOT / "book" / "results" / "seeds.json"


def moved(nb: dict, by: int) -> dict[str, Any]:
    """How many checks a chapter makes, and which go wrong, with its seeds moved. To be run in a fork."""
    import torch

    ledger, plain, red = importlib.import_module("lib.teach.ledger"), torch.manual_seed, []
    verify, count = ledger.verify, 0

    def check(label: str, *args: Any, **kwargs: Any) -> None:
        nonlocal count
        count += 1
        try:
            verify(label, *args, **kwargs)
        except (AssertionError, ValueError) as error:  # the cell goes on
            red.append(str(error))

    torch.manual_seed = torch.random.manual_seed = lambda seed: plain(int(seed) + by)
    ledger.verify = importlib.import_module("lib.teach").verify = check
    run = Run(nb)
    for k in range(1, len(run.cells) + 1):
        wrong = run.cell(k)
        if wrong and wrong["by"] != "print":  # other numbers print otherwise
            red.append(f"cell {k}: {wrong['said']}")
    return {"checks": count, "red": red}


def judge(path: Path, by: int) -> dict[str, Any]:
    """`moved` for a chapter's file, in a fork and in an empty folder."""

    def work():
        with alone():
            return moved(read(path), by)

    how, found = fork(work, CHAPTER)
    if how != "done":
        raise SystemExit(f"{path.stem}, seeds moved by {by}: {how}")
    print(
        f"{path.stem}, seeds moved by {by}: {found['checks']} checks", *found["red"], sep="\n    "
    )
    return found


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument("--only", default="", help="numbers of chapters")
    ask.add_argument("--moved", type=int, nargs="+", default=[1000, 2000, 3000, 4000])
    ask.add_argument("--jobs", type=int, default=os.cpu_count(), help="chapters at once")
    ask = ask.parse_args()
    some = [w.zfill(2) for w in ask.only.split()]
    paths = [p for p in chapters() if not some or p.stem[:2] in some]
    if not paths:
        sys.exit(f"no chapter matches {ask.only!r}")
    load()
    tasks = [(path, by) for path in paths for by in ask.moved]
    with ThreadPoolExecutor(ask.jobs) as pool:
        found = list(pool.map(lambda task: judge(*task), tasks))
    rows: dict[str, dict] = {}
    for (path, by), got in zip(tasks, found, strict=True):
        row = rows.setdefault(path.stem, {"checks": 0, "red": []})
        row["checks"] += got["checks"]
        row["red"] += [f"seeds moved by {by}: {said}" for said in got["red"]]
    if not some:
        text = json.dumps(
            origin("torch", "numpy") | {"moved": ask.moved, "chapters": rows}, indent=1
        )
        RESULTS.write_text(text + "\n", "utf8")
        print(f"written to {RESULTS.relative_to(ROOT)}")
    return 1 if any(row["red"] for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
