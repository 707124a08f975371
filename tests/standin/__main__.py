"""Chapters on the stand-in for a card: does every cell run, and does every check hold?

usage: python -m tests.standin [--modes quick full] [--seeds 0 1] [--verbose] 09 12 ...

`setup()` gives the stand-in as `session.device`. Random numbers drawn on it differ from the processor's
and from one seed to the next, as they do between two kinds of card: so stored prints are not compared.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
import traceback

from tests.mutants.cells import Run, chapters, read
from tests.mutants.forks import ROOT, fork

from . import OFFSET, install

HOURS = 4 * 3600  # seconds of processor time for one chapter


def chapter(path, mode: str, seed: int) -> tuple[str, str]:
    """What went wrong in a chapter ("" if nothing), and its prints."""
    os.environ |= {"BOOK_BUILD": "1", "BOOK_LEDGER": os.devnull, OFFSET: str(seed)}
    os.environ |= {"BOOK_DEVICE": install().type, "BOOK_MODE": mode}
    run = Run(read(path))
    with tempfile.TemporaryDirectory(prefix="book-") as folder, contextlib.chdir(folder):
        for k in range(1, len(run.cells) + 1):
            found = run.cell(k)
            if found and found["by"] != "print":
                where = "".join(traceback.format_exception(run.error)) if run.error else ""
                return f"cell {k}: {found['said']}\n{where}", "".join(run.prints)
    return "", "".join(run.prints)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("numbers", nargs="*", help="numbers of chapters; all if left out")
    parser.add_argument("--modes", nargs="+", default=["quick", "full"], choices=["quick", "full"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="streams of the card")
    parser.add_argument("--verbose", action="store_true", help="show what the cells print")
    args = parser.parse_args(argv)
    bad = 0
    for path in chapters():
        if args.numbers and path.name[:2] not in args.numbers:
            continue
        for mode in args.modes:
            for seed in args.seeds:
                begun = time.perf_counter()
                how, out = fork(lambda p=path, m=mode, s=seed: chapter(p, m, s), HOURS)
                wrong, prints = out if how == "done" else (how, "")
                took = time.perf_counter() - begun
                print(f"{path.stem}, {mode}, stream {seed}: {wrong or 'ok'} ({took:.0f} s)")
                print(prints, flush=True) if args.verbose else None
                bad += bool(wrong)
    return bool(bad)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
