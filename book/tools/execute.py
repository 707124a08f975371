"""Run notebooks with nbclient, as many at once as there are cores (at most two), one thread each."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from notebooks import ROOT

CELL_SECONDS = 120
ANSI = re.compile(r"\x1b\[[0-9;]*m")
PROBE = """\
import json as _j, platform as _p, sys as _s
_t = _s.modules.get("torch")
_v = {n: _s.modules[n].__version__ for n in ("torch", "numpy", "matplotlib") if n in _s.modules}
_d = _t.cuda.get_device_name(0) if _t is not None and _t.cuda.is_available() else _p.machine() + " CPU"
print(_j.dumps({"versions": {"python": _p.python_version(), **_v}, "device": _d}))
"""


@dataclass
class Job:
    """One notebook to run, and what came of it.

    `env` is added to the variables that every chapter gets; `alone`: it is all that there is. `python`
    runs the kernel.
    """

    name: str
    nb: dict
    env: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    alone: bool = False
    cell_seconds: int = CELL_SECONDS
    executed: nbformat.NotebookNode | None = None
    seconds: float = 0.0
    about: dict = field(default_factory=dict)
    error: str = ""


def jobs_at_once() -> int:
    """Two notebooks at a time, one on a single core; BOOK_JOBS overrides."""
    given = os.environ.get("BOOK_JOBS", "")
    if given and not (given.isdigit() and int(given)):
        sys.exit(f"BOOK_JOBS must be a positive whole number, not {given!r}")
    return int(given or min(2, os.cpu_count() or 1))


def environment(extra: dict[str, str]) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    env |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    return env | extra


def _where(job: Job, index: int) -> str:
    index = min(index, len(job.nb["cells"]) - 1)  # behind the last stands a probe of ours
    lines = job.nb["cells"][index]["source"].strip().splitlines()
    shown = "\n".join("    " + line for line in lines[:12])
    more = f"\n    ... ({len(lines) - 12} more lines)" if len(lines) > 12 else ""
    return f"{job.name}, cell {index + 1}:\n{shown}{more}"


async def _run(job: Job) -> None:
    nb = nbformat.from_dict(copy.deepcopy(job.nb))
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    probe = nbformat.v4.new_code_cell(PROBE, metadata={"tags": []})
    nb.cells.append(probe)
    at = 0

    def starting(cell, cell_index, **_) -> None:
        nonlocal at
        at = cell_index

    began = time.perf_counter()
    # An empty folder: a chapter that reads a relative path fails here, as it would in Colab.
    with tempfile.TemporaryDirectory(prefix="book-") as folder, tempfile.TemporaryFile() as log:
        client = NotebookClient(
            nb,
            timeout=job.cell_seconds,
            startup_timeout=120,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=True,
            store_widget_state=False,
            coalesce_streams=True,
            on_cell_start=starting,
        )
        # The kernel of that very environment, whatever kernelspecs the user has.
        client.create_kernel_manager()
        client.km.kernel_spec.argv[0] = job.python
        env = job.env if job.alone else environment(job.env)
        try:
            await client.async_execute(env=env, reset_kc=True, stderr=log)
        except CellExecutionError:
            job.error = "stopped"
        except CellTimeoutError:
            job.error = f"{_where(job, at)}\n  took more than {job.cell_seconds} s and was stopped"
        except DeadKernelError:
            log.seek(0)
            said = log.read().decode(errors="replace")[-2000:]
            job.error = f"{_where(job, at)}\n  the kernel died (out of memory?)\n{said}"
    job.seconds = time.perf_counter() - began
    if job.error not in ("", "stopped"):
        return
    nb.cells.pop()
    job.error = first_fault(job, nb) or job.error
    if job.error:
        return
    if probe.outputs:
        job.about = json.loads(probe.outputs[0].text)
    job.about["cells"] = _cell_seconds(nb)
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
    job.executed = nb


def first_fault(job: Job, nb) -> str:
    for k, cell in enumerate(nb.cells):
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        raised = False
        for out in cell.outputs:
            if out.output_type == "error":
                raised = True
                if "raises-exception" not in tags:
                    trace = "\n".join(out.traceback)
                    trace = trace if sys.stderr.isatty() else ANSI.sub("", trace)
                    return f"{_where(job, k)}\n{trace}"
            if out.output_type == "stream" and out.name == "stderr":
                return f"{_where(job, k)}\n  wrote to stderr, which no page may show:\n{out.text}"
        if "raises-exception" in tags and not raised:
            return f"{_where(job, k)}\n  is tagged raises-exception and raised nothing"
    return ""


def _cell_seconds(nb) -> dict[str, float]:
    from datetime import datetime

    out = {}
    for k, cell in enumerate(nb.cells):
        times = cell.metadata.get("execution", {})
        began, ended = times.get("iopub.execute_input"), times.get("shell.execute_reply")
        if began and ended:
            began, ended = (
                datetime.fromisoformat(t.replace("Z", "+00:00")) for t in (began, ended)
            )
            out[cell.get("id", str(k))] = round((ended - began).total_seconds(), 3)
    return out


def execute(jobs: list[Job], done: Callable[[Job], None] = lambda job: None) -> None:
    """Run the jobs; each job ends with `executed` or with `error` set, and is handed to `done`."""

    async def all_of_them() -> None:
        slots = asyncio.Semaphore(jobs_at_once())

        async def one(job: Job) -> None:
            async with slots:
                try:
                    await _run(job)
                except Exception as error:  # a kernel that does not start, for one
                    job.error = f"{job.name}: {type(error).__name__}: {error}"
                done(job)

        await asyncio.gather(*map(one, jobs))

    asyncio.run(all_of_them())


def relative(path: Path) -> str:
    """A path as a reader of messages wants it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
