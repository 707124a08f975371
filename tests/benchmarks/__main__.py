"""Every benchmark that has a peer, in one run, written to book/results/bench.json.

usage: python -m tests.benchmarks [--quick] [--rounds N] [--device cuda]       (make bench, make bench QUICK=1)

On a GPU the file is bench_cuda.json. `--quick` takes 3 rounds in place of each benchmark's own number. The file says so, and says whether
other work kept the machine busy. `shapes`, `pages` and `live` have no peer and stay on their own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
import traceback
from pathlib import Path

import torch

from lib.paths import commit

from . import diffusion, flows, ode, samplers
from .rounds import machine

RESULTS = Path(__file__).resolve().parents[2] / "book" / "results"
BENCHMARKS = {flows: 15, ode: 15, samplers: 15, diffusion: 9}  # rounds


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument("--quick", action="store_true", help="3 rounds")
    ask.add_argument("--rounds", type=int, help="for every benchmark")
    ask.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    ask = ask.parse_args()
    if ask.rounds is not None and ask.rounds < 2:
        sys.exit("--rounds: 2 or more, which the quartiles need")
    torch.set_default_device(ask.device)
    about = machine()
    if missing := [n for n, v in about["versions"].items() if v == "missing"]:
        sys.exit(f"{', '.join(missing)}: not installed (tests/peers.txt; 'make setup' does it)")
    torch.set_num_threads(1)
    start, loads, rows, failed = time.monotonic(), [os.getloadavg()[0]], [], []
    for benchmark, rounds in BENCHMARKS.items():
        try:
            for row in benchmark.rows(rounds=ask.rounds or (3 if ask.quick else rounds)):
                print(row, flush=True)
                rows.append(row.asdict())
        except Exception:  # what the others print is still worth their time
            traceback.print_exc()
            failed.append(benchmark.__name__.rsplit(".", 1)[1])
        loads.append(os.getloadavg()[0])
    if failed:  # a file without some of its rows would pass for a whole one
        print("broken off, so nothing was written:", *failed)
        return len(failed)
    about |= {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "threads": 1,
        "quick": ask.quick,
        "load": [round(x, 1) for x in loads],  # before, and after each benchmark; ours alone is 1
        "busy": max(loads[1:]) > 1.5,
        "seconds": round(time.monotonic() - start),
    }
    lines = ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in rows)
    head = json.dumps(about, indent=1, ensure_ascii=False)[:-2]
    file = RESULTS / ("bench.json" if ask.device == "cpu" else f"bench_{ask.device}.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'{head},\n "rows": [\n{lines}\n ]\n}}\n', "utf8")
    print(f"{len(rows)} comparisons in {about['seconds']} s, written to book/results/{file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
