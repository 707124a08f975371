"""How long the cells of a chapter take, as recorded, and the comment with which a slow cell says so.

book/results/cells.json holds, for two machines, the seconds of every cell of more than 3 s by its id: `quick`, one core
of the machine of the last build, and `full`, a machine with a GPU in full mode (from gpu.json, which
`python -m tests.gpu chapters` writes). `record.py --seconds` brings the file up to date, `tidy.py` the comments.
A comment belongs to a cell that takes 5 s, on one core or, if it has other sizes there, in full mode.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
from pathlib import Path

from notebooks import ROOT, read, without_seconds

RECORD = ROOT / "book" / "results" / "cells.json"
RECORDED, SLOW = 3, 5  # seconds from which a cell is recorded, and says so
STEPS = (*range(1, 11), 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300)
NOISE = re.compile(r"\((?:R|TM)\)|@.*|\b(?:Intel|AMD|NVIDIA|CPU|Processor|\d+-Core)\b")
SIZES = re.compile(r"\bsession\.(?:full|mode)\b")


def record() -> dict:
    """What is recorded; nothing, where there is no file."""
    return json.loads(RECORD.read_text(encoding="utf8")) if RECORD.is_file() else {}


def short(name: str) -> str:
    """`Xeon` of `Intel(R) Xeon(R) Processor`, `H200` of `NVIDIA H200`."""
    return " ".join(NOISE.sub(" ", name).split()) or name


def about(seconds: float) -> int:
    """A rounded number, at most a sixth off from 3 to 350 s, that does not change with every run."""
    return min(STEPS, key=lambda n: abs(math.log(n / seconds)))


def comment(cell: dict, name: str, known: dict) -> str:
    """The line that a code cell of chapter `name` begins with, or nothing where it is quick."""
    one, all_ = (known[mode]["chapters"].get(name, {}).get("cells", {}) for mode in known)
    quick = one.get(cell["id"], 0)
    full = all_.get(cell["id"], 0) if SIZES.search(cell["source"]) else 0
    if max(quick, full) < SLOW:
        return ""
    amount = f"about {about(quick)}" if quick else f"less than {RECORDED}"
    line = f"# {amount} s on one core ({short(known['quick']['processor'])})"
    if full:
        card = short(known["full"]["card"])
        line += f", {about(full)} s in full mode (one core of the {card} machine)"
    return line + "\n"


def announce(nb: dict, name: str) -> dict:
    """The chapter whose slow cells, and no others, begin with their comment. Changes the one given."""
    known = record()
    if any(name in machine["chapters"] for machine in known.values()):
        for cell in nb["cells"]:
            if cell["cell_type"] == "code":
                text = without_seconds(cell["source"])
                cell["source"] = comment({**cell, "source": text}, name, known) + text
    return nb


# ---------------------------------------------------------------- recording


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _slow(cells: dict[str, float], path: Path) -> dict[str, float]:
    """The recorded cells that the chapter still has, in its order."""
    mine = [c["id"] for c in read(path)["cells"] if c["cell_type"] == "code"]
    return {k: round(cells[k], 1) for k in mine if cells.get(k, 0) >= RECORDED}


def refresh(paths: list[Path], executed: Path) -> str:
    """Write cells.json from the runs of the last build and from gpu.json. Returns what is wrong, or "".

    A chapter that was not built keeps its entry, as long as processor and versions are the same.
    """
    from execute import jobs_at_once

    old, runs, chapters = record().get("quick", {}), {}, {}
    for path in paths:
        file = executed / path.stem / "run.json"
        if file.is_file():
            runs[path.stem] = json.loads(file.read_text(encoding="utf8"))
    versions = next(iter(runs.values()))["versions"] if runs else old.get("versions")
    head = {k: old.get(k) for k in ("processor", "cores", "notebooks at once", "versions")}
    if runs:
        now = _processor(), os.cpu_count(), jobs_at_once(), versions
        head = dict(zip(head, now, strict=True))
    if any(run["versions"] != versions for run in runs.values()):
        return "chapters ran with different versions: run build.py --all first"
    same = all(old.get(k) == v for k, v in head.items())
    for path in paths:
        run = runs.get(path.stem) or (old["chapters"].get(path.stem) if same and old else None)
        if run is None:
            return f"{path.stem} has not been run here: run 'make book' first"
        chapters[path.stem] = {k: run[k] for k in ("seconds", "commit", "date")}
        chapters[path.stem]["cells"] = _slow(run["cells"], path)
    gpu = json.loads((RECORD.parent / "gpu.json").read_text(encoding="utf8"))
    full = {k: gpu[k] for k in ("card", "cores", "versions", "commit", "date")}
    full["chapters"] = {
        path.stem: {"seconds": found["seconds"], "cells": _slow(found["slow cells"], path)}
        for path in paths
        if (found := gpu["chapters"].get(path.stem))
    }
    known = {"quick": {**head, "chapters": chapters}, "full": full}
    RECORD.write_text(json.dumps(known, indent=1) + "\n", encoding="utf8")
    return ""


# ---------------------------------------------------------------- on the page


def totals(paths: list[Path]) -> str:
    """What book/status.md says about the two recorded machines."""
    known = record()
    if not known:
        return "No times are recorded in this copy of the book.\n"
    quick, full = known["quick"], known["full"]
    sums = [
        math.fsum(machine["chapters"].get(p.stem, {}).get("seconds", 0) for p in paths) / 60
        for machine in (quick, full)
    ]
    said = sum(
        bool(comment(cell, p.stem, known))
        for p in paths
        for cell in read(p)["cells"]
        if cell["cell_type"] == "code"
    )
    return (
        f"Times recorded in an earlier run, which the comments in the chapters come from; the table below has those of this page's own "
        f"run. One core for each chapter, all {len(paths)} added up: {sums[0]:.0f} minutes on "
        f"a {short(quick['processor'])} with {quick['cores']} cores in quick mode, {quick['notebooks at once']} "
        f"chapters at a time; {sums[1]:.0f} minutes on the machine with one {full['card']} and {full['cores']} "
        f"cores in full mode, several at a time. {said} cells take {SLOW} seconds or more and begin with a "
        "comment that says so.\n"
    )
