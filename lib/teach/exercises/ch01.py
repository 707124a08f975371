"""Checkers of chapter 1, "Change of variables". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..exercise import TYPED, Hint, call, close, exercise, known, number, require

F64 = torch.float64
_known = partial(known, rtol=1e-5)


def _is(got: Tensor, wrong: Tensor) -> bool:
    return got.shape == wrong.shape and torch.allclose(got, wrong, rtol=1e-5)


@exercise("1.1")
def stretched(answer: Any) -> None:
    got = number(answer)
    _known(
        got,
        {
            "that is the density of z; the interval has become longer, so the density is lower": 0.5,
            "a density is not negative: what belongs to the length is |a|, not a": -0.25,
            "you multiplied by the stretch; a stretched density gets lower": 1.0,
        },
        rtol=TYPED,
    )
    close(got, 0.25, "over which interval is x spread, and how long is it?")


@exercise("1.2")
def distance(answer: Any) -> None:
    r = torch.tensor([0.3, 1.1, 2.6], dtype=F64)
    got = number(call(answer, r))
    gauss = torch.exp(-(r**2) / 2)
    _known(
        got,
        {
            "the factor |det J| is missing: a ring far out has more room than one close in": gauss,
            "that is the density of the darts at one point of the plane; multiply by |det J| and "
            "integrate over the angle": gauss / (2 * math.pi),
            "nearly: integrate over the angle, from 0 to 2 pi": r * gauss / (2 * math.pi),
            "you divided by |det J| = r; (r, phi) -> x stretches by r, and the way asked for is back": gauss
            / r,
            "r has one dimension, but the darts have two": 2 * gauss / math.sqrt(2 * math.pi),
        },
    )
    close(got, r * gauss, "the joint density of (r, phi) is p(x) |det J|; what is det J?")


@exercise("1.3")
def sinh(answer: Any) -> None:
    x = torch.tensor([[-7.0, 0.4], [1.3, 22.0]], dtype=F64)
    got, z = number(call(answer, x)), torch.asinh(x)
    base = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    slope = 0.5 * torch.log1p(x**2)  # log cosh z
    _known(
        got,
        {
            "the log-determinant is missing: this is log p_z(g(x)) alone": base,
            "the log-determinant has the wrong direction: sinh stretches, so the density falls": base
            + slope,
            "this is the density; its logarithm was asked for": torch.exp(base - slope),
            "the slope of arsinh at x is 1/sqrt(1 + x^2); you took it at another point": base
            - 0.5 * torch.log1p(z**2),
        },
    )
    close(got, base - slope, "log p(x) = log p_z(arsinh x) + log of the slope of arsinh at x")
    far = number(call(answer, torch.tensor([1e6, -1e6], dtype=torch.float32)))
    close(far, torch.full((2,), -0.5 * math.asinh(1e6) ** 2 - 0.5 * math.log(2 * math.pi) - 0.5 * math.log1p(1e12), dtype=F64),
          "right for moderate x, and not for x = 1e6 and -1e6 in float32: use torch.asinh, and take the "
          "logarithm term by term, before anything underflows", rtol=1e-4)  # fmt: skip


@exercise("1.4")
def folded(answer: Any) -> None:
    x = torch.tensor([0.2, 1.4, 3.1], dtype=F64)
    m, s = 0.9, 1.7
    got = number(call(answer, x, m, s))
    p = lambda z: torch.exp(-0.5 * ((z - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))  # noqa: E731
    _known(
        got,
        {
            "one of the two points is missing: -x has the same absolute value": p(x),
            "that is twice one point; -x does not have the density of x unless m = 0": 2 * p(x),
            "both points count in full, because |f'| = 1: no factor one half": 0.5 * (p(x) + p(-x)),
            "the density of N(m, s^2) has a factor 1/s": s * (p(x) + p(-x)),
        },
    )
    close(got, p(x) + p(-x), "sum p_z(z) / |f'(z)| over all z with |z| = x")


@exercise("1.5")
def leaky(answer: Any) -> None:
    make: Callable = answer
    require(isinstance(answer, type), "give the class itself: check('1.5', Leaky)")
    for s in (0.3, 2.0):
        _leaky(call(make, s), s)


def _leaky(transform: Any, s: float) -> None:
    z = torch.tensor([[0.7, -1.2, -0.4], [-2.0, 0.1, 1.5], [0.3, 0.8, 2.0]], dtype=F64)
    x_true = torch.where(z < 0, s * z, z)
    want = math.log(s) * (z < 0).sum(1).to(F64)
    x, up = _pair(transform, "from_base", z)
    _known(x, {"from_base and to_base are exchanged: from_base multiplies negative numbers by s": torch.where(z < 0, z / s, z)})  # fmt: skip
    close(x, x_true, "from_base: x = z where z >= 0, and x = s z elsewhere")
    _logabsdet(up, want, "from_base")
    back, down = _pair(transform, "to_base", x_true)
    close(back, z, "to_base must undo from_base: divide negative numbers by s")
    require(not _is(down, want), "the logabsdet of to_base belongs to the map x -> z: it has the other sign")  # fmt: skip
    _logabsdet(down, -want, "to_base")


def _pair(transform: Any, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The two things that a direction of a transform returns."""
    try:
        out = getattr(transform, name)(x.clone(), context=None)
    except NotImplementedError:
        raise Hint(f"no answer yet: {name} is not written") from None
    except Exception as error:  # the reader's code
        raise Hint(f"{name} raised {type(error).__name__}: {error}") from None
    require(isinstance(out, tuple) and len(out) == 2, f"{name} should return two things: the image and logabsdet")  # fmt: skip
    require(all(isinstance(v, Tensor) for v in out), f"{name} should return two tensors")
    return number(out[0]), number(out[1])


def _logabsdet(got: Tensor, want: Tensor, name: str) -> None:
    require(got.shape != (3, 3), f"the logabsdet of {name} has one number for each coordinate: sum them for each example")  # fmt: skip
    require(got.shape == want.shape, f"the logabsdet of {name} should have shape (3,) here, one number for each example, not {tuple(got.shape)}")  # fmt: skip
    require(not _is(got, want.exp()) and not _is(got, (-want).exp()), f"{name} returns the determinant; its logarithm is asked for")  # fmt: skip
    close(got, want, f"the logabsdet of {name}: each negative coordinate contributes log s or -log s, the others 0")  # fmt: skip


@exercise("1.6")
def causal(answer: Any) -> None:
    mix = torch.tensor(
        [[0, 0, 0, 0], [0.8, 0, 0, 0], [-1.1, 0.5, 0, 0], [0.3, -0.7, 0.9, 0]], dtype=F64
    )
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=F64)
    f = lambda z: sign * z * torch.exp(mix @ z) + torch.sin(mix @ z)  # noqa: E731
    z = torch.tensor([0.4, -0.9, 1.3, 0.2], dtype=F64)
    diagonal = sign * torch.exp(mix @ z)
    got, want = number(call(answer, f, z)), diagonal.abs().log().sum()
    require(not got.isnan().any(), "NaN: the logarithm of a negative slope; where do the bars go?")
    _known(
        got,
        {
            "that is the determinant: the logarithm is asked for": diagonal.prod(),
            "that is |det J|: the logarithm is asked for": diagonal.prod().abs(),
            "that is the sum of the slopes, the trace; the determinant is their product": diagonal.sum(),
            "the logarithm of the sum is not the sum of the logarithms": diagonal.abs().sum().log(),
            "the sign is wrong: this is log|det| of the inverse map": -want,
            "one number for the whole map: sum over the diagonal": diagonal.abs().log(),
        },
    )
    close(got, want, "the product of the diagonal of the Jacobian, and then log|.|")
    g = lambda z: 1e-9 * z + (z.cumsum(0) - z) ** 2  # noqa: E731
    tiny = number(call(answer, g, torch.linspace(0.1, 1.0, 60, dtype=F64)))
    close(
        tiny,
        60 * math.log(1e-9),
        "with 60 slopes of 1e-9 the product underflows to 0: add logarithms instead",
    )
