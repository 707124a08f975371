"""Runge-Kutta methods to read: four with a fixed step, and Dormand and Prince's, which chooses it.

A field is any `field(t, x) -> dx/dt` with t a tensor of no dimensions and x, like dx/dt, of any shape
but a single number's. Times are floats and may run either way. Everything is differentiable:
backpropagation through the solver goes through every step, and keeps them all in memory (`adjoint.py`
does not).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lib.ode.checks import SolverError, check_start, check_state, check_tolerance
from lib.utils import check_count

Field = Callable[[Tensor, Tensor], Tensor]


def euler_step(field, t: float, x: Tensor, h: float) -> Tensor:
    """x + h f: order 1.

    >>> euler_step(lambda t, x: x, 0.0, 1.0, 0.5)
    1.5
    """
    return x + h * field(t, x)


def midpoint_step(field, t: float, x: Tensor, h: float) -> Tensor:
    """The slope of half a step: order 2.

    >>> midpoint_step(lambda t, x: x, 0.0, 1.0, 0.5)
    1.625
    """
    return x + h * field(t + h / 2, x + h / 2 * field(t, x))


def heun_step(field, t: float, x: Tensor, h: float) -> Tensor:
    """The mean of both ends' slopes: order 2.

    >>> heun_step(lambda t, x: x, 0.0, 1.0, 0.5)
    1.625
    """
    k1 = field(t, x)
    k2 = field(t + h, x + h * k1)
    return x + h / 2 * (k1 + k2)


def rk4_step(field, t: float, x: Tensor, h: float) -> Tensor:
    """The classical method of four slopes: order 4.

    >>> rk4_step(lambda t, x: x, 0.0, 1.0, 0.5)  # e^0.5 = 1.64872
    1.6484375
    """
    k1 = field(t, x)
    k2 = field(t + h / 2, x + h / 2 * k1)
    k3 = field(t + h / 2, x + h / 2 * k2)
    k4 = field(t + h, x + h * k3)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


STEPS = {"euler": euler_step, "midpoint": midpoint_step, "heun": heun_step, "rk4": rk4_step}
ORDER = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "dopri5": 5}


def with_float_time(field: Field) -> Callable[[float, Tensor], Tensor]:
    """The field as a function of a float, for the steps above: it sees a tensor like x.

    >>> with_float_time(lambda t, x: t * x)(0.5, torch.ones(2))
    tensor([0.5000, 0.5000])
    """

    def run(t: float, x: Tensor) -> Tensor:
        v = field(x.new_full((), t), x)
        if v.shape != x.shape:  # broadcast, x would grow
            raise ValueError(
                f"the field returned shape {tuple(v.shape)} for a state of shape {tuple(x.shape)}"
            )
        return v

    return run


def grid(t0: float, t1: float, steps: int) -> list[float]:
    """steps + 1 equally spaced times that end at t1 to the bit.

    >>> grid(0.0, 1.0, 4)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return [t0 + (t1 - t0) * k / steps for k in range(steps)] + [t1]


def solve(
    field: Field,
    x: Tensor,
    t0: float,
    t1: float,
    steps: int = 20,
    method: str = "rk4",
    path: bool = False,
) -> Tensor:
    """Integrate dx/dt = field(t, x) from t0 to t1 in equal steps: (...) -> (...).

    With `path`, all states: (steps + 1, ...), from x(t0) to x(t1).

    Raises:
        SolverError: the state stopped being finite; names the time.
        ValueError, TypeError: an unknown method, no steps, or x is not a floating-point tensor.

    >>> solve(lambda t, x: x, torch.ones(1), 0.0, 1.0, steps=10)
    tensor([2.7183])
    """
    check_start(x, t0, t1)
    if method not in STEPS:
        raise ValueError(f"method is one of {', '.join(STEPS)}; got {method!r}")
    step, f = STEPS[method], with_float_time(field)
    times = grid(t0, t1, check_count(steps, "steps"))
    states = [x]
    for t, s in zip(times, times[1:], strict=False):
        x = step(f, t, x, s - t)
        check_state(x, s)
        if path:
            states.append(x)
    return torch.stack(states) if path else x


# Dormand and Prince (1980): where the stages are evaluated, what they are made of, and the
# difference between the solution of order 5 (the last row of A) and the embedded one of order 4
NODES = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def combine(x: Tensor, h: float, weights, slopes) -> Tensor:
    """x + h * sum of weight * slope.

    >>> combine(torch.ones(1), 0.5, (1.0, 2.0), (torch.ones(1), torch.ones(1)))
    tensor([2.5000])
    """
    for w, k in zip(weights, slopes, strict=False):
        if w:
            x = x.add(k, alpha=h * w)
    return x


def dopri5_step(field, t: float, x: Tensor, h: float, k1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of order 5: x(t + h), an estimate of its error, and the slope there.

    The last stage is evaluated at x(t + h) and is the next step's `k1` ("first same as last"): six
    new evaluations for each step.

    >>> dopri5_step(lambda t, x: x, 0.0, torch.ones(1), 0.5, torch.ones(1))[0]
    tensor([1.6487])
    """
    k = [k1]
    for node, row in zip(NODES[1:], STAGES, strict=True):
        x_stage = combine(x, h, row, k)
        k.append(field(t + node * h, x_stage))
    return x_stage, combine(torch.zeros_like(x), h, ERROR, k), k[-1]


class Solution(NamedTuple):
    """What `solve_adaptive` returns.

    >>> solve_adaptive(lambda t, x: x, torch.ones(1), 0.0, 1.0).rejected
    0
    """

    x: Tensor  # the state at t1, (...)
    evaluations: int  # of the field
    times: list[float]  # t0, the end of each accepted step, ..., t1
    rejected: int  # steps that were tried again with a smaller h


def solve_adaptive(
    field: Field,
    x: Tensor,
    t0: float,
    t1: float,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 10_000,
    first_step: float | None = None,
    on_step: Callable[[float, Tensor], None] | None = None,
    parts: Sequence[int] | None = None,
) -> Solution:
    """Dormand-Prince 5(4): steps so long that each one's estimated error is below the tolerance.

    The error is the root mean square over all entries (the batch included: one step size for all)
    of error / (atol + rtol * |x|). A flat state of several quantities, `parts` entries of each, is
    as wrong as the worst of them: one mean over all would let the many hide the few. Steps end
    exactly at t1. No gradient flows through the choice of the steps. `on_step(t, x)` sees each
    accepted step's start, for checkpoints.

    Raises:
        SolverError: field not finite, steps too small for the precision, or more than max_steps.

    >>> solve_adaptive(lambda t, x: x, torch.ones(1), 0.0, 1.0).x.round(decimals=4)
    tensor([2.7183])
    """
    check_start(x, t0, t1)
    check_tolerance(rtol, atol)
    if x.numel() == 0:  # no entries, no error to measure
        return Solution(x, 0, [t0, t1], 0)
    f, t, way = with_float_time(field), t0, math.copysign(1.0, t1 - t0)
    k1 = f(t, x)
    norm = partial(error_ratio, rtol=rtol, atol=atol, parts=parts)
    h = way * (abs(first_step) if first_step else initial_step(f, t, x, k1, t1 - t0, norm))
    evaluations, times, rejected = 1 if first_step else 2, [t0], 0
    while t != t1:
        if evaluations > 6 * max_steps:
            raise SolverError(f"more than {max_steps} steps, at t = {t:.6g}: loosen the tolerance")
        last = way * (t + 1.01 * h - t1) >= 0  # within a hundredth of the end: go there
        h = t1 - t if last else h
        x_new, error, k_new = dopri5_step(f, t, x, h, k1)
        evaluations += 6
        size = norm(error, x, x_new)
        if size <= 1:
            if on_step:
                on_step(t, x)
            t, x, k1 = t1 if last else t + h, x_new, k_new
            check_state(x, t)  # beside an infinite state every error is small
            times.append(t)
        else:
            rejected += 1
        if t != t1:
            h *= step_factor(size, t, h, x)
    return Solution(x, evaluations, times, rejected)


@torch.no_grad()
def error_ratio(
    error: Tensor,
    x: Tensor,
    x_new: Tensor,
    rtol: float,
    atol: float,
    parts: Sequence[int] | None = None,
) -> float:
    """Root mean square of error / tolerance, the largest of those of `parts`; 1 is accepted.

    >>> error, x = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4)
    >>> error_ratio(error, x, x, 0.0, 1.0), error_ratio(error, x, x, 0.0, 1.0, parts=[1, 3])
    (0.5, 1.0)
    """
    wide = torch.promote_types(error.dtype, torch.float32)  # 1 / 1e-5, squared, overflows float16
    error, largest = error.to(wide), torch.maximum(x.abs(), x_new.abs()).to(wide)
    tolerance = atol + rtol * largest
    squares = (error / tolerance).square()
    pieces = [squares] if parts is None else squares.split(list(parts))
    return torch.stack([piece.mean() for piece in pieces if piece.numel()]).max().sqrt().item()


def step_factor(size: float, t: float, h: float, x: Tensor) -> float:
    """How much longer the next step is: the error of a step of order 5 grows as h^5.

    >>> step_factor(1.0, 0.0, 0.1, torch.ones(1)), step_factor(0.0, 0.0, 0.1, torch.ones(1))
    (0.9, 10.0)
    """
    if not math.isfinite(size):
        size = 1e10  # try a fifth of the step; a field that is not finite anywhere near ends below
    factor = min(10.0, max(0.2, 0.9 * size**-0.2)) if size > 0 else 10.0
    factor = min(1.0, factor) if size > 1 else factor
    if abs(h) * factor < 4 * torch.finfo(torch.float64).eps * max(1.0, abs(t)):
        check_state(x, t)
        raise SolverError(
            f"the step became {abs(h) * factor:.1e} at t = {t:.6g}, where the state has norm "
            f"{x.detach().norm().item():.3g}: the field is not finite near there, or too stiff for "
            f"this method and tolerance"
        )
    return factor


@torch.no_grad()
def initial_step(
    f, t: float, x: Tensor, k1: Tensor, span: float, norm: Callable[..., float]
) -> float:
    """A first step length from the size of the slope and of its change; one evaluation in `span`.

    Hairer, Norsett and Wanner (1993), Solving Ordinary Differential Equations I, section II.4.

    >>> norm = partial(error_ratio, rtol=1e-3, atol=1e-3)
    >>> 0 < initial_step(lambda t, x: x, 0.0, torch.ones(1), torch.ones(1), 1.0, norm) < 1
    True
    """
    size = lambda v: norm(v, x, x)
    d0, d1 = size(x), size(k1)
    if not (math.isfinite(d0) and math.isfinite(d1)):
        check_state(x, t)
    if not math.isfinite(d1):
        raise SolverError(
            f"the field is not finite at the start, t = {t:.6g}, where the state has norm "
            f"{x.norm().item():.3g}"
        )
    h0 = 0.01 * d0 / d1 if min(d0, d1) > 1e-5 else 1e-6
    h0, way = min(h0, abs(span)), math.copysign(1.0, span)  # the field may not exist past the end
    d2 = size(f(t + way * h0, x + way * h0 * k1) - k1) / h0
    h1 = (0.01 / max(d1, d2)) ** 0.2 if max(d1, d2) > 1e-15 else max(1e-6, 1e-3 * h0)
    return min(100 * h0, h1) if math.isfinite(h1) else h0
