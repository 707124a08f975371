"""`setup()`: the one call that every chapter begins with."""

from __future__ import annotations

import os
import platform
import random
import sys
from typing import NamedTuple

import numpy as np
import torch

from ..paths import commit
from . import ledger, style

MODES = ("quick", "full")


class Session(NamedTuple):
    """Where and how this notebook runs."""

    device: torch.device
    mode: str
    seed: int

    @property
    def full(self) -> bool:
        """True in full mode: sizes and steps for a GPU."""
        return self.mode == "full"


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {name!r} cannot be used here; use 'cpu' or leave it out"
        ) from error
    return device


def setup(seed: int = 0, *, device: str | None = None, mode: str | None = None) -> Session:
    """Seed everything, choose device and mode, set the figure style, print one line of receipt.

    `device`: "cuda" where there is one, else "cpu", unless given here or as BOOK_DEVICE.
    `mode`: "quick" on a CPU and "full" on CUDA, unless given here or as BOOK_MODE.
    Raises `ValueError` for a device that does not answer or an unknown mode.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 -- Colab and old systems decide this, not our metadata
        raise RuntimeError(
            f"this book needs Python 3.11 or newer; this is {platform.python_version()}"
        )
    where = _device(device or os.environ.get("BOOK_DEVICE"))
    mode = mode or os.environ.get("BOOK_MODE") or ("full" if where.type == "cuda" else "quick")
    if mode not in MODES:
        raise ValueError(f"mode must be 'quick' or 'full', not {mode!r}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    style.apply()
    ledger.start_clock()
    torch.set_printoptions(precision=4, sci_mode=False)
    np.set_printoptions(precision=4, suppress=True)
    print(
        f"book {commit()} · Python {platform.python_version()} · torch {torch.__version__.split('+')[0]}"
        f" · {torch.cuda.get_device_name(where) if where.type == 'cuda' else where} · {mode} · seed {seed}"
    )
    return Session(where, mode, seed)
