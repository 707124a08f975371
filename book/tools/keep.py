"""A pytest plugin: what nbval has executed becomes the page, so that `make test` executes each chapter once.

usage: PYTHONPATH=book/tools python -m pytest -p keep --nbval-lax ... chapters

nbval's kernels get what the build's get: its variables and an empty folder. A chapter whose cells all pass
is stored as build.py stores one, and build.py then finds nothing to execute; of any other nothing is kept.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import time

import nbval.plugin as nbval
import pytest
from build import EXECUTED, alone, key_of, room, store
from execute import PROBE, Job, environment, first_fault

STARTED = nbval.RunningKernel
TIMEOUT = 120


def start(name: str, cwd: str, **options):
    """nbval's kernel, as a reader's: in an empty folder, where a relative path fails, and with a history,
    without which IPython shows what a semicolon at the end of a cell hides."""
    folder = tempfile.TemporaryDirectory(prefix="book-")
    kernel = STARTED(name, cwd=folder.name, **options)
    kernel.folder = folder  # goes when the kernel does
    run = kernel.kc.execute
    kernel.kc.execute = lambda code, **given: run(code, **given | {"store_history": True})
    return kernel


nbval.RunningKernel = start


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config):
    """No build meanwhile: this process holds the lock, for its workers too."""
    if hasattr(config, "workerinput"):
        return (yield)
    with alone(EXECUTED.parent):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item) -> None:
    """Before the first cell: the kernel inherits this process's variables."""
    if isinstance(item, nbval.IPyNbCell) and not hasattr(item.parent, "kept"):
        name = item.parent.path.stem
        os.environ.pop("PYTHONPATH", None)  # it leads to this plugin
        fresh = environment(room(EXECUTED, name))
        os.environ.clear()
        os.environ.update(fresh)
        item.parent.kept, item.parent.began = {}, time.perf_counter()
        # of what it finds, whatever is saved meanwhile
        item.parent.key = key_of(name, item.parent.nb)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    began = time.perf_counter()
    result = yield
    if isinstance(item, nbval.IPyNbCell):
        item.parent.kept[item.cell_num] = (item.test_outputs, time.perf_counter() - began)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """After the last cell, while its kernel lives; what is wrong is said when it has been stopped."""
    job = None
    if isinstance(item, nbval.IPyNbCell) and (nextitem is None or nextitem.parent != item.parent):
        job = finished(item.parent)
        store(EXECUTED, job, item.parent.key)
    yield
    if job and job.error not in ("", UNFINISHED):
        pytest.fail(job.error, pytrace=False)


UNFINISHED = "a cell failed, or was not run"


def finished(file: nbval.IPyNbFile) -> Job:
    """The chapter with the outputs of its cells, as `execute` would return it."""
    job = Job(file.path.stem, file.nb, seconds=time.perf_counter() - file.began)
    nb = copy.deepcopy(file.nb)
    cells = [c for c in nb.cells if c.cell_type == "code"]
    if len(file.kept) < len(cells):
        job.error = UNFINISHED
        return job
    for k, cell in enumerate(cells):
        cell.outputs, cell.execution_count = file.kept[k][0], k + 1
    job.error = first_fault(job, nb)
    said: list[str] = []
    client = file.kernel.kc
    client.execute_interactive(
        PROBE,
        timeout=TIMEOUT,
        output_hook=lambda m: said.append(m["content"].get("text", "")),
    )
    job.about = json.loads("".join(said))
    job.about["cells"] = {c.id: round(file.kept[k][1], 3) for k, c in enumerate(cells)}
    info = client.kernel_info(reply=True, timeout=TIMEOUT)["content"]
    nb.metadata["language_info"] = info["language_info"]
    nb.metadata.pop("widgets", None)
    job.executed = nb
    return job
