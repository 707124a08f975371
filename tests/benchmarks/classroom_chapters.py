"""What each chapter's kernel needs when a student runs it from top to bottom: memory at its peak, processor seconds.

usage: python tests/benchmarks/classroom_chapters.py [NN ...]      (one after another; 13 chapters: a quarter of an hour)

The class's memory limit has to hold the hungriest chapter, not only the first; see `book/tools/hub.py`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book" / "tools")]

from notebooks import chapters  # noqa: E402


def run(path: Path) -> tuple[float, float, float]:
    """Megabytes of the kernel at its peak, its processor seconds, seconds on the clock."""
    notebook, began = nbformat.read(path, as_version=4), time.perf_counter()
    client = NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}
    )
    with client.setup_kernel():
        for k, cell in enumerate(notebook.cells):
            client.execute_cell(cell, k)
        process = psutil.Process(client.km.provisioner.pid)
        peak = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
        return int(peak) * 1024 / 1e6, sum(process.cpu_times()[:2]), time.perf_counter() - began


def main(only: list[str]) -> None:
    os.environ.pop("BOOK_DATA", None)  # a student has what comes with the book
    os.environ["PYTHONPATH"] = str(ROOT)
    for path in chapters():
        if not only or path.name[:2] in only:
            peak, cpu, wall = run(path)
            print(f"{path.stem:28}{peak:6.0f} MB {cpu:6.0f} processor s {wall:6.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
