"""Run a function in a fork of this process, which has the slow imports behind it; and plant faults.

A fork shares torch and the other packages, already imported, and nothing else: `lib` and the tests
are imported in the child, from the text with the fault.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import importlib.abc
import importlib.util
import json
import os
import platform
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SLOW = """torch torch.fft torch.distributions torch.func torch.utils.data numpy matplotlib.pyplot scipy.stats
scipy.integrate scipy.optimize scipy.linalg sklearn.datasets torchdiffeq safetensors.torch pytest tqdm.auto
anywidget ipywidgets PIL.Image IPython zuko nflows.flows nflows.transforms normflows diffusers
torchvision""".split()
MEMORY = 16 * 2**30  # address space, so that a wrong index cannot take the machine


def load() -> None:
    """Import what every test needs and no fault is planted in."""
    import warnings

    os.environ.setdefault("MPLBACKEND", "agg")
    for name in SLOW:
        with contextlib.suppress(ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    loaded = [n for n in sys.modules if n == "lib" or n.startswith("lib.")]
    if loaded:
        raise RuntimeError(f"{loaded} must be imported in the forks, not before")


def origin(*packages: str) -> dict[str, Any]:
    """Where a file of results comes from. To be called last: it imports `lib`."""
    from lib.paths import commit

    versions = {name: sys.modules[name].__version__ for name in packages}
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions},
    }


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module of `lib` the code of a changed tree."""

    def __init__(self, file: Path, tree: Any):
        parts = list(file.relative_to(ROOT).with_suffix("").parts)
        self.package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.package else parts)
        self.file, self.code = file, compile(tree, str(file), "exec", dont_inherit=True)

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        where = [str(self.file.parent)] if self.package else None
        spec = importlib.util.spec_from_loader(name, self, origin=str(self.file))
        spec.submodule_search_locations, spec.has_location = where, True
        return spec

    def exec_module(self, module):
        module.__file__ = str(self.file)
        exec(self.code, module.__dict__)


def fork(
    work: Callable[[], Any], seconds: float, wall: float | None = None, loud: bool = False
) -> tuple[str, Any]:
    """What `work` returned, from a fork: ("done", value), ("died", status) or ("timeout", None).

    `seconds` of processor time, and three times that by the clock. The child is silent, unless `loud`.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(work, write, seconds, loud)
    os.close(write)
    end, parts, late = time.monotonic() + (wall or 3 * seconds + 10), [], False
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([read], [], [], left)[0]:
            late = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            break
        part = os.read(read, 1 << 16)
        if not part:
            break
        parts.append(part)
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        return "timeout", None
    try:
        return "done", json.loads(b"".join(parts))
    except ValueError:
        return "died", status


def _child(work: Callable[[], Any], write: int, seconds: float, loud: bool) -> None:
    """Never returns."""
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        name = os.environ.get("MUTANTS_LOG", os.devnull)
        log = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for stream in () if loud else (1, 2):
            os.dup2(log, stream)
        text = json.dumps(work()).encode()
        with os.fdopen(write, "wb") as out:
            out.write(text)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(3)
