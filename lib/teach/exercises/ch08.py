"""Checkers of chapter 8, "Continuous normalizing flows and FFJORD". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..exercise import TYPED, call, close, exercise, known, number, require, seeded

F64 = torch.float64
LOG_2PI = math.log(2 * math.pi)


def _rows(got: Tensor, n: int) -> None:
    require(got.shape == (n,), f"one number for each row, ({n},), was expected; the shape is {tuple(got.shape)}")  # fmt: skip


@exercise("8.1")
def origin(answer: Any) -> None:
    got = number(answer)
    known(
        got,
        {
            "the sign: on the way to the noise the field spreads, so the data are denser": -0.7
            - LOG_2PI,
            "the base density is missing": 0.7,
            "the divergence is missing": -LOG_2PI,
            "the logarithm was asked for, not the density": math.exp(0.7) / (2 * math.pi),
            "the integral of tr A over unit time is tr A, not det A": 2.12 - LOG_2PI,
            "log det exp(A) is tr A, not log det A": math.log(2.12) - LOG_2PI,
            "D / 2 log 2 pi with D = 2": 0.7 - LOG_2PI / 2,
        },
        rtol=TYPED,
    )
    close(got, 0.7 - LOG_2PI, "tr A plus the log-density of the noise at 0", rtol=1e-3)


@exercise("8.2")
def variances(answer: Any) -> None:
    got = number(answer)
    require(got.shape == (2,), "a pair was expected: Gaussian, signs")
    known(
        got,
        {
            "symmetrise first: only S = (J + J') / 2 matters": [42, 32],
            "the right two numbers in the wrong order: Gaussian first": [16, 26],
            "the factor 2 is missing": [13, 8],
            "those are standard deviations": [26**0.5, 4],
        },
        rtol=TYPED,
    )
    want = torch.tensor([26.0, 16.0], dtype=F64)
    close(got, want, "twice the sum of squares of S, without its diagonal for signs", rtol=1e-3)


@exercise("8.3")
def estimate(answer: Any) -> None:
    W, V, calls = seeded(0, 4, 4), seeded(1, 4, 4), []

    def f(x: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.tanh(x @ W.T) @ V.T + 0.3 * x.square()

    x, e = seeded(2, 6, 4), seeded(3, 6, 4)
    J = torch.func.vmap(torch.func.jacrev(lambda row: f(row[None])[0]))(x)
    calls.clear()
    got = number(call(answer, f, x, e))
    want = torch.einsum("bi,bij,bj->b", e, J, e)
    known(
        got,
        {
            "that is (1'J) e: the vector for the backward pass is e, not ones": torch.einsum(
                "bij,bj->b", J, e
            ),
            "that is e'J 1: multiply by e before the sum": torch.einsum("bi,bij->b", e, J),
            "that is the exact trace; the estimate with the probes e was asked for": J.diagonal(
                dim1=1, dim2=2
            ).sum(1),
            "that is e'J, one row for each example: multiply by e and sum": torch.einsum(
                "bi,bij->bj", e, J
            ),
            "multiply e'J by e, then sum over the coordinates": torch.einsum("bi,bij->bj", e, J)
            * e,
            "sum over the coordinates, not over the batch too": want.sum(),
            "the sum over the coordinates, not the mean": want / 4,
        },
    )
    _rows(got, 6)
    close(got, want, "e'J by one backward pass, times e, summed over the coordinates")
    require(
        len(calls) == 1, f"right, but f was called {len(calls)} times: one pass serves all rows"
    )


def _field(t: float, x: Tensor) -> Tensor:
    return torch.stack(
        [torch.sin(x[:, 1]) + (1 + t) * x[:, 0] / 2, x[:, 0] * t + torch.tanh(x[:, 1])], 1
    )


def _divergence(t: float, x: Tensor) -> Tensor:
    return (1 + t) / 2 + 1 - torch.tanh(x[:, 1]) ** 2


def _solve(x: Tensor, t0: float, t1: float, n: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """End point, the integral of the divergence, and its value at the end; RK4."""
    h, total = (t1 - t0) / n, torch.zeros(len(x), dtype=x.dtype)
    for k in range(n):
        t = t0 + k * h
        k1 = _field(t, x)
        k2 = _field(t + h / 2, x + h / 2 * k1)
        middle = x + h / 2 * k2
        k3 = _field(t + h / 2, middle)
        k4 = _field(t + h, x + h * k3)
        total = total + h / 6 * (
            _divergence(t, x) + 4 * _divergence(t + h / 2, middle) + _divergence(t + h, x + h * k3)
        )
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x, total, _divergence(t1, x)


@exercise("8.4")
def log_density(answer: Any) -> None:
    x = seeded(4, 7, 2)
    base = lambda z: -0.5 * z.square().sum(1) - LOG_2PI  # noqa: E731
    z, total, last = _solve(x, 0.0, 1.0)
    back, minus, _ = _solve(x, 1.0, 0.0)
    n = 100
    got = number(call(answer, _field, _divergence, x, n))
    require(got.shape == (7,), f"shape (7,) was expected, one number for each row, not {tuple(got.shape)}")  # fmt: skip
    near = lambda wrong: torch.allclose(got, wrong, atol=1e-2)  # noqa: E731
    for hint, wrong in {
        "the sign of the divergence: data at 0, noise at 1, so it is added": base(z) - total,
        "the divergence is missing": base(z),
        "the divergence is overwritten at each step: add it up": base(z) + last / n,
        "the divergences are summed without the step length h": base(z) + n * total,
        "the wrong way: start at t = 0, where the data are": base(back) + minus,
        "the wrong way, and the sign with it: start at t = 0": base(back) - minus,
        "the base density belongs at the end of the path, not at x": base(x) + total,
    }.items():
        require(not near(wrong), hint)
    want = base(z) + total
    close(got, want, "log p_1 at the end of the path plus the sum of h div", atol=0.5)
    close(got, want, "nearly: the error is that of Euler's method; field and divergence belong to the middle of the step", atol=2e-3)  # fmt: skip
    x = seeded(13, 5, 3)
    got = number(call(answer, lambda t, x: 0 * x, lambda t, x: 0 * x[:, 0], x, 2))
    close(got, -0.5 * x.square().sum(1) - 1.5 * LOG_2PI, "right for D = 2 and not for D = 3")


class _Largest(TorchFunctionMode):
    """The most numbers of any result: what is too large at D = 20,000 is seen at D = 40."""

    numel = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


@exercise("8.5")
def divergence(answer: Any) -> None:
    W1, b, W2, x = seeded(5, 6, 4), seeded(6, 6), seeded(7, 4, 6), seeded(8, 5, 4)
    a = torch.tanh(x @ W1.T + b)
    diagonal = (W1 * W2.T).sum(1)
    got = number(call(answer, W1, b, W2, x))
    want = (1 - a**2) @ diagonal
    known(
        got,
        {
            "the derivative of tanh is 1 - a^2": a @ diagonal,
            "the slopes 1 - a^2 are missing": diagonal.sum().expand(5),
            "1 - a^2, with a = tanh; this is 1 - a": (1 - a) @ diagonal,
            "only the diagonal of W1 W2 counts, not all of its entries": (1 - a**2)
            @ (W1 @ W2).sum(1),
            "sum over the batch is too much": want.sum(),
        },
    )
    _rows(got, 5)
    close(got, want, "the sum over k of (1 - a_k^2) (W1 W2)_kk")
    with _Largest() as seen:
        call(answer, seeded(9, 2, 40), seeded(10, 2), seeded(11, 40, 2), seeded(12, 1, 40))
    require(seen.numel < 40 * 40, "right, but by way of a matrix of D x D numbers")
    D, H = 20_000, 30
    W1, b, W2, x = seeded(9, H, D) / D**0.5, seeded(10, H), seeded(11, D, H), seeded(12, 2, D)
    got = number(call(answer, W1, b, W2, x))
    want = (1 - torch.tanh(x @ W1.T + b) ** 2) @ (W1 * W2.T).sum(1)
    close(got, want, "right for D = 4 and not for D = 20,000", rtol=1e-4, atol=1e-4)
