"""`verify`: two independent routes to one number, compared where the identity stands."""

from __future__ import annotations

import json
import math
import os
import re
import time
from typing import Any

import torch
from torch import Tensor

from .. import paths

LABEL = re.compile(r"^\d{1,2}\.\d{1,3}[a-z]?$")
records: list[dict[str, Any]] = []  # of this session, in order
_clock = time.perf_counter()


def start_clock() -> None:
    """Measure each check from the start of its cell (called by `setup`)."""
    try:
        from IPython import get_ipython

        shell = get_ipython()
    except ImportError:
        shell = None
    if shell is not None and not getattr(shell, "_book_clock", False):
        shell.events.register("pre_run_cell", _tick)
        shell._book_clock = True
    _tick()


def _tick(*_: object) -> None:
    global _clock
    _clock = time.perf_counter()


def verify(
    label: str,
    got: Any,
    expected: Any,
    *,
    routes: tuple[str, str],
    rtol: float = 1e-9,
    atol: float = 0.0,
    stderr: Any = None,
    power: float = 0.05,
    expect_failure: bool = False,
) -> None:
    """Check equation `label` by two independent routes; print one line; record the achieved error.

    `got`, `expected`: numbers or tensors of one shape. `routes`: what each of them is, for the
    ledger. Passes where |got - expected| <= atol + rtol |expected| everywhere.
    `stderr`: standard error of `got` when it is a Monte Carlo mean, one number or of its shape;
    the tolerance is then 4 standard errors, and rtol is not used. An error bar above `power` times the size of
    `expected` is refused: it could hide a factor.
    `expect_failure`: for bug galleries; prints that the check went red, raises if it did not.

    Raises `AssertionError` with both values, the error and the place, and `ValueError` for a
    malformed label, different shapes, or two routes that are one object.
    """
    if not isinstance(label, str) or not LABEL.match(label):
        raise ValueError(f"an equation label looks like '4.2', not {label!r}")
    if len(routes) != 2 or not all(routes) or routes[0] == routes[1]:
        raise ValueError(f"verify({label!r}) needs two different routes, not {routes!r}")
    if got is expected and not isinstance(got, int):  # Python keeps one 24, and one True
        raise ValueError(f"verify({label!r}): both routes are the same object, nothing is compared")
    a, b = _plain(label, "got", got), _plain(label, "expected", expected)
    if a.shape != b.shape:
        raise ValueError(
            f"verify({label!r}): shapes differ, got {tuple(a.shape)}, expected {tuple(b.shape)}"
        )
    if not a.numel():
        raise ValueError(f"verify({label!r}): nothing to compare, both are empty")
    size = b.abs().max().item()
    if stderr is None:
        tolerance = atol + rtol * b.abs()
        said = f"to {_sci(rtol)} relative" if rtol and not atol else f"to {_sci(atol)}"
        said = f"to {_sci(atol)} + {_sci(rtol)} relative" if rtol and atol else said
        if not torch.any(tolerance != 0):  # NaN is not 0: it fails below, as it should
            raise ValueError(
                f"verify({label!r}): the tolerance is 0 everywhere; give atol (rtol asks for nothing where expected is 0)"
            )
    else:
        bar = _plain(label, "stderr", stderr)
        try:
            bar = bar.expand_as(a)
        except RuntimeError:
            raise ValueError(
                f"verify({label!r}): stderr has the shape {tuple(bar.shape)}, the values {tuple(a.shape)}"
            ) from None
        if not bool((bar > 0).all()):
            raise ValueError(f"verify({label!r}): the standard error must be positive")
        if bar.max().item() > power * size:
            raise ValueError(
                f"verify({label!r}): an error bar of {bar.max().item():.2g} on {size:.2g} could hide a "
                f"factor; draw more samples (at most {power:g} of the size is allowed)"
            )
        tolerance, said = 4 * bar, "within 4 standard errors"
    error = (a - b).abs()
    good = bool(torch.isfinite(a).all() and torch.isfinite(b).all() and (error <= tolerance).all())
    worst = int(torch.nan_to_num(error - tolerance, nan=math.inf).flatten().argmax())
    _record(
        {
            "chapter": label.split(".")[0],
            "label": label,
            "routes": list(routes),
            "tol": said,
            "error": error.max().item(),
            "size": size,
            "stderr": None if stderr is None else bar.max().item(),
            "seconds": round(time.perf_counter() - _clock, 3),
            "expect_failure": expect_failure,
            "passed": good,
        }
    )
    values = (
        f"{routes[0]} gives {a.flatten()[worst].item():.10g}, {routes[1]} gives "
        f"{b.flatten()[worst].item():.10g}"
    )
    where = f" at index {worst} of {a.numel()}" if a.numel() > 1 else ""
    if expect_failure:
        if good:
            raise AssertionError(f"({label}) was expected to fail and holds: {values}{where}")
        print(f"✗ ({label}) goes red, as it should: {routes[0]} ≠ {routes[1]}")
        return
    if not good:
        raise AssertionError(
            f"({label}) fails{where}: {values}; they differ by {error.flatten()[worst].item():.3g}, "
            f"allowed {tolerance.expand_as(a).flatten()[worst].item():.3g}"
        )
    print(f"✓ ({label}) {routes[0]} = {routes[1]}, {said}")


def _sci(x: float) -> str:
    mantissa, exponent = f"{x:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _plain(label: str, name: str, x: Any) -> Tensor:
    try:
        if torch.is_complex(x if isinstance(x, Tensor) else torch.as_tensor(x)):
            raise TypeError("complex: compare the real and the imaginary part")
        if isinstance(x, Tensor):
            return x.detach().to("cpu", torch.float64)
        # a Python float must not pass through float32
        return torch.as_tensor(x, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"verify({label!r}): {name} must be a real number or a tensor of them, got {type(x).__name__}"
        ) from error


def _record(entry: dict[str, Any]) -> None:
    """Append to the ledger file: BOOK_LEDGER where the build sets it, else the last session's."""
    first, _ = not records, records.append(entry)
    try:
        file = os.environ.get("BOOK_LEDGER")
        target = paths.cache() / "last-session-ledger.jsonl" if file is None else file
        mode = "w" if first and file is None else "a"
        with open(target, mode, encoding="utf8") as out:
            out.write(json.dumps(entry, ensure_ascii=False) + "\n")
    except OSError as error:  # a read-only disk must not stop a reader; the build sets BOOK_LEDGER
        if os.environ.get("BOOK_LEDGER"):
            raise
        if first:
            print(f"(checks are not recorded: {error})")
