"""What the benchmarks against other libraries share: rounds, ratios with their spread, the machine.

Each library takes its turn in every round (A B C A B C ...), so that a busy machine slows all of them;
a ratio is our time over theirs in the same round, so below 1 ours is the faster.

Everything runs on torch's default device. On a GPU, which works on after a call has returned, the clock
is the wall's, and waits for it.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

PEERS = ("torch", "zuko", "nflows", "normflows", "torchdiffeq", "diffusers", "numpy")


@dataclass(frozen=True)
class Row:
    """One comparison: the median over rounds of our time / theirs, with the middle half of the rounds."""

    benchmark: str
    case: str
    task: str
    peer: str
    milliseconds: float  # ours, the median
    ratio: float  # ours / theirs, the median
    low: float  # the first quartile of the ratio
    high: float  # the third
    rounds: int
    clock: str  # "wall" or "processor"
    note: str = ""

    def __str__(self) -> str:
        about = f"{self.case}: {self.task}"
        return (
            f"{about:44} {self.milliseconds:10.3f} ms   / {self.peer:20} {self.ratio:5.2f} "
            f"({self.low:.2f} to {self.high:.2f})   {self.note}"
        )

    asdict = asdict


def on_gpu() -> bool:
    """Whether the benchmarks run on a GPU: `torch.set_default_device("cuda")`."""
    return torch.get_default_device().type == "cuda"


def finished() -> float:
    """The wall's clock in seconds, once the GPU has done all that it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def measure(
    runs: dict[str, Callable], rounds: int, clock: str = "wall", at_least: float = 0.0
) -> dict[str, list[float]]:
    """Seconds for one call in each round, library by library in turn.

    Each is called twice beforehand. Within a round it is repeated until about `at_least` seconds.
    """
    if on_gpu():
        now, at_least = finished, max(at_least, 0.01)
    else:
        now = CLOCKS[clock]
    repeats, times = {}, {name: [] for name in runs}
    for name, run in runs.items():
        run()
        start = now()
        run()
        repeats[name] = max(1, round(at_least / max(now() - start, 1e-9)))
    for _ in range(rounds):
        for name, run in runs.items():
            start = now()
            for _ in range(repeats[name]):
                run()
            times[name].append((now() - start) / repeats[name])
    return times


def row(
    about: tuple[str, str, str],
    peer: str,
    ours: list[float],
    theirs: list[float],
    clock: str,
    note: str = "",
) -> Row:
    """The row of `about` = (benchmark, case, task) from seconds per round of ours and theirs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    milliseconds = 1e3 * statistics.median(ours)
    numbers = (float(f"{x:.4g}") for x in (milliseconds, middle, low, high))
    clock = "wall" if on_gpu() else clock
    return Row(*about, peer, *numbers, len(ratios), clock, note)


def show(rows: Iterator[Row]) -> None:
    """Print rows as they come, and what they are."""
    about = machine()
    print(f"{about.get('card', about['cpu'])}, torch {version('torch')}, one thread")
    print("our milliseconds; our time / theirs, median of the rounds and their middle half\n")
    for one in rows:
        print(one, flush=True)


def processor() -> str:
    """Its name, as the system tells it."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def machine() -> dict:
    """The processor, the card if it is used, and the versions; no name of a host."""
    versions = {"python": platform.python_version()}
    for package in PEERS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    card = {"card": torch.cuda.get_device_name()} if on_gpu() else {}
    return {"cpu": processor(), "cores": os.cpu_count(), **card, "versions": versions}
