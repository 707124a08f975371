"""Train every model of the book on both data sets with three seeds, and write what they score.

    python -m lib.results                 all of it; half an hour of two idle cores
    python -m lib.results --only vae      these trainings again, the other rows stay (same code)
    python -m lib.results --data plane    all on these data; the other rows stay

The file is written after each training, and an unfinished one is continued if the code is the same.
"""

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from lib.results import protocol, store
from lib.results.models import MODELS, SEEDS, TRAININGS, trainer


def run(data: str, training: str, seed: int, share: float = 1.0) -> list[dict[str, Any]]:
    """One training, and a row for each reading of it."""
    torch.set_num_threads(1)
    trained = trainer(data, training)(seed, share)
    price = {
        "parameters": trained.parameters,
        "steps": trained.steps,
        "train_seconds": trained.seconds,
        "train_wall_seconds": trained.wall,
    }
    rows = []
    for name, reading in trained.readings.items():
        found = protocol.measure(data, reading, seed)
        rows.append({"model": name, "data": data, "seed": seed} | price | found)
    return [{k: rounded(v) for k, v in row.items()} for row in rows]


def rounded(value: Any) -> Any:
    """Floats to seven digits: more would only make the file longer.

    >>> rounded(1 / 3), rounded("text")
    (0.3333333, 'text')
    """
    return float(f"{value:.7g}") if isinstance(value, float) else value


def reference() -> list[dict[str, Any]]:
    """What real examples score in the place of a model's samples."""
    torch.set_num_threads(1)
    rows = []
    for data in protocol.DATA:
        for seed in SEEDS:
            found = protocol.sample_quality(data, protocol.real_samples(data, seed))
            rows.append({"data": data, "seed": seed, **{k: rounded(v) for k, v in found.items()}})
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("lib.results", description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=store.PATH, help="the results file")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", nargs="*", choices=TRAININGS, help="these trainings, again")
    parser.add_argument("--data", nargs="*", choices=protocol.DATA, default=protocol.DATA)
    parser.add_argument("--share", type=float, default=1.0, help="of the steps, for a rehearsal")
    args = parser.parse_args(argv)
    path = args.to
    results, todo = plan(path, args.only, args.data, args.share)
    print(f"{len(todo)} trainings to {path.name}", flush=True)
    os.environ["TQDM_DISABLE"] = "1"
    begun = time.perf_counter()
    if not results["reference"]:
        results |= {"reference": reference()}
    context, failed = multiprocessing.get_context("spawn"), []
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        jobs = {pool.submit(run, *job, args.share): job for job in todo}
        for done in as_completed(jobs):
            error = done.exception()
            if error is None:
                try:
                    results = store.add(results, done.result())
                except ValueError as refused:
                    error = refused
            if error is not None:  # the others go on: each is written when it is done
                failed.append(error)
                print(*jobs[done], f"failed: {error!r}", flush=True)
                continue
            store.write(results, path)
            print(*jobs[done], f"{time.perf_counter() - begun:.0f} s", flush=True)
    left = store.missing(results)
    print(f"{len(results['rows'])} rows, {len(left)} missing, {time.perf_counter() - begun:.0f} s")
    if failed:
        raise failed[0]


def plan(path: Path, only: list[str] | None, data: tuple[str, ...], share: float = 1.0):
    """The results to add to, and the trainings to do, the first seed of all before the second.

    Raises ValueError where the file was edited by hand, holds rows of another share of the steps, or
    some rows would be made anew by other code than the rest.
    """
    old = json.loads(path.read_text()) if path.is_file() else None
    fits = old is not None and old.get("schema") == store.SCHEMA
    old = store.read(path) if fits else None
    was = old["made"].get("share", 1.0) if fits else share
    if was != share:
        raise ValueError(
            f"{path} holds rows of {was:g} of the steps, not {share:g}: give another --to"
        )
    same = fits and old["made"]["code"] == store.fingerprint()
    unfinished = same and bool(store.missing(old))
    some = only is not None or set(data) != set(protocol.DATA)  # these again, the other rows stay
    if fits and some and not same:  # "made" says once of all rows which code they are of
        raise ValueError(
            f"{path} holds rows of other code: make all again, or give another --to for these"
        )
    results = old if fits and (some or unfinished) else store.blank()
    results["models"] = store.blank()["models"]
    if share != 1:
        results["made"]["share"] = share
    every = [(d, t, s) for s in SEEDS for d in data for t in TRAININGS]
    if only is not None:
        return results, [job for job in every if job[1] in only]
    if some and not unfinished:
        return results, every
    names = {(d, MODELS[m].training, s) for d, m, s in store.missing(results)}
    return results, [job for job in every if job in names]
