"""What the fuzz tests share: inputs described in a few words, and laws for what comes out.

Hypothesis draws a *description* of a batch (rows, precision, size of the numbers, layout in memory,
seed), which prints well and shrinks to the plainest case that fails; torch makes the numbers.

    FUZZ_EXAMPLES=300 python -m pytest tests/fuzz        a long run, from another seed each time
"""

import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import Tensor

import lib

LONG = os.environ.get("FUZZ_EXAMPLES")
settings.register_profile(
    "book",
    max_examples=int(LONG or 16),
    derandomize=LONG is None,  # the same examples in every run of the normal suite
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if LONG else [])],
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("book")
few = settings(max_examples=max(3, settings.default.max_examples // 5))  # where one case is slow

F32, F64 = torch.float32, torch.float64
LIB = Path(lib.__file__).resolve().parent
LAYOUTS = ("plain", "strided", "swapped", "offset")
# Sizes of the numbers: squares of the last ones underflow or overflow in float32.
MODEST = (1.0, 1e-3, 0.0, 3.0)
WIDE = (1.0, 1e12, 1e-30, 0.0, 1e6, 1e-6, 1e3)
HUGE = (*WIDE, 1e25)
CLEAR = (ValueError, TypeError, FloatingPointError, NotImplementedError, FileNotFoundError)


def covers(*what: Callable) -> Callable:
    """Mark a test as the one that fuzzes these; `conftest` checks that it really runs them."""

    def mark(test):
        test.covers = what
        return test

    return mark


def by_case(test: Callable) -> Callable:
    """Mark a test over cases, `case`, as the one that fuzzes what each case says it covers."""
    test.covers_case = True
    return test


@dataclass(frozen=True)
class Batch:
    """The description of a batch of numbers; `draw` makes tensors of it."""

    rows: int = 2
    dtype: torch.dtype = F64
    scale: float = 1.0
    layout: str = "plain"
    form: str = "normal"  # or "equal" rows, or "mixed": one number of that scale among small ones
    seed: int = 0

    def draw(self, *shape: int, salt: int = 0, rows: int | None = None) -> Tensor:
        """(rows, *shape)."""
        generator = torch.Generator().manual_seed(1000 * self.seed + salt)
        n = self.rows if rows is None else rows
        x = torch.randn(n, *shape, generator=generator, dtype=F64)
        if self.form == "equal" and n:
            x = x[:1].expand_as(x)
        if self.form == "mixed" and x.numel():
            x = 1e-3 * x
            x.view(-1)[self.seed % x.numel()] = self.scale
        else:
            x = x * self.scale
        return laid(x.to(self.dtype), self.layout)

    def uniform(self, *shape: int, salt: int = 0) -> Tensor:
        """(rows, *shape) in [0, 1), whatever the scale."""
        generator = torch.Generator().manual_seed(1000 * self.seed + salt)
        x = torch.rand(self.rows, *shape, generator=generator, dtype=F64)
        return laid(x.to(self.dtype), self.layout)

    def integers(self, high: int, *shape: int, low: int = 0, salt: int = 0) -> Tensor:
        """(rows, *shape) int64 in low .. high - 1."""
        generator = torch.Generator().manual_seed(1000 * self.seed + salt)
        return torch.randint(low, high, (self.rows, *shape), generator=generator)

    def like(self, **changes) -> "Batch":
        return replace(self, **changes)


def batches(scales: Sequence[float] = WIDE, most: int = 4, least: int = 0, dtypes=(F64, F32)):
    """Strategy: descriptions of batches of least .. most rows. The first choices are the plainest.

    Every other one is at an end: its largest or smallest numbers in its lowest precision.
    """
    rows = [n for n in (2, 0, 1, 3, 4, 5, 6, 7, 8) if least <= n <= most]
    ends = sorted({s for s in scales if s})
    return st.one_of(
        _batch(rows, dtypes, scales),
        _batch([n for n in rows if n] or rows, dtypes[-1:], (ends[-1], ends[0])),
    )


def _batch(rows, dtypes, scales):
    return st.builds(
        Batch,
        rows=st.sampled_from(rows),
        dtype=st.sampled_from(dtypes),
        scale=st.sampled_from(scales),
        layout=st.sampled_from(LAYOUTS),
        form=st.sampled_from(("normal", "normal", "equal", "mixed")),
        seed=st.integers(0, 10_000),
    )


def laid(x: Tensor, layout: str) -> Tensor:
    """The same numbers, elsewhere in memory."""
    if layout == "strided":
        return torch.stack([x, torch.full_like(x, float("nan"))], -1)[..., 0]
    if layout == "swapped" and x.ndim > 1:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "offset":
        return torch.cat([torch.full_like(x[:1], float("nan")), x])[len(x[:1]) :]
    return x.contiguous()


def loud(module: torch.nn.Module, seed: int, dtype: torch.dtype, by: float = 0.3):
    """The module in this precision, away from its start: fresh networks hide what is wrong."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return module.to(dtype)


# ---------------------------------------------------------------------- what may come out


def spoken(error: BaseException) -> bool:
    """Raised by a line of `lib` or of the caller's own code, in a sentence: not from inside torch."""
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    return LIB in last.parents and len(str(error)) > 20


def outcome(call: Callable):
    """What a call returns, or None where it refuses clearly. Any other error is a bug."""
    try:
        return call()
    except CLEAR as error:
        if not spoken(error):
            raise AssertionError(f"not a clear error: {error!r}") from error
        return None


def refused(call: Callable, *kinds: type[Exception]) -> None:
    """The call must refuse, clearly."""
    try:
        got = call()
    except CLEAR as error:
        assert isinstance(error, kinds or CLEAR) and spoken(error), f"not a clear error: {error!r}"
        return
    raise AssertionError(f"accepted, and returned {got!r}")


def tensors(value) -> list[Tensor]:
    """The tensors in a result: of a tuple, a list, a NamedTuple; None and numbers are left out."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [t for part in value for t in tensors(part)]
    return []


def finite(value, low: bool = False) -> None:
    """No NaN, no infinity; with `low`, -inf may stand for a log-density of zero."""
    for t in tensors(value):
        good = t.isfinite() | ((t == -torch.inf) if low else torch.zeros_like(t, dtype=torch.bool))
        assert good.all(), f"not finite, from finite input: {t}"


def tolerance(dtype: torch.dtype) -> float:
    return {F32: 5e-4, F64: 1e-9}.get(dtype, 0.1)


def same(got, want, slack: float = 1.0) -> None:
    """Equal to rounding, measured by the largest finite number of each tensor."""
    for a, b in zip(tensors(got), tensors(want), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape, a.dtype, b.dtype)
        size = b[b.isfinite()].abs().max().item() if b.isfinite().any() else 0.0
        tol = slack * tolerance(a.dtype)
        torch.testing.assert_close(a, b, rtol=tol, atol=tol * size + 1e-30, equal_nan=False)


def apart(f: Callable, *rows: Tensor | None, low: bool = False, slack: float = 1.0):
    """The law of batches: each example on its own, in any layout, and none at all.

    f(*rows) gives tensors with the batch first. Returns its value, or None where it refuses clearly.
    """
    pick = lambda index: [None if r is None else r[index] for r in rows]
    whole = outcome(lambda: f(*rows))
    if whole is None:
        return None
    n = next(len(r) for r in rows if r is not None)
    assert all(len(t) == n for t in tensors(whole)), [t.shape for t in tensors(whole)]
    finite(whole, low)
    same(f(*(None if r is None else r.contiguous() for r in rows)), whole, slack)
    for i in range(n):
        one = f(*pick(slice(i, i + 1)))
        same(one, [t[i : i + 1] for t in tensors(whole)], slack)
    none = f(*pick(slice(0, 0)))
    for got, want in zip(tensors(none), tensors(whole), strict=True):
        assert got.shape == (0, *want.shape[1:]) and got.dtype == want.dtype, (
            got.shape,
            want.shape,
        )
    return whole


def wrong_kind(f: Callable, x: Tensor) -> None:
    """Integers and numpy arrays in the place of a floating-point batch."""
    refused(lambda: f(x.long()), TypeError)
    refused(lambda: f(x.numpy()), TypeError)
