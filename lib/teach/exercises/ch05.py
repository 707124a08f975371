"""Checkers of chapter 5, "Autoregressive flows". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..exercise import TYPED, Hint, call, close, exercise, known, number, require

F64 = torch.float64
_known = partial(known, rtol=1e-6)
LOG_2PI = math.log(2 * math.pi)


def _pair(value: Any, what: str) -> tuple[Tensor, Tensor]:
    """Two tensors as float64."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Hint(f"return a pair: {what}")
    return number(value[0]), number(value[1])


@exercise("5.1")
def by_hand(answer: Any) -> None:
    """-1/8 - e^2 / 8 - log 2 - (log 1.5 - 1) - log 2 pi, accepted to three digits."""
    got = number(answer)
    scales = math.log(2) + math.log(1.5) - 1
    squares = 0.5 * 0.5**2 + 0.5 * (math.e / 2) ** 2  # z_1 = 1/2, z_2 = e/2
    right = -squares - scales - LOG_2PI
    _known(
        got,
        {
            "the sign of the log-scales: where the map stretches, the density gets lower": right
            + 2 * scales,
            "the log-scales are missing: that is the density of z": right + scales,
            "each coordinate has its own -1/2 log 2 pi": right + LOG_2PI,
            "each coordinate has its own -1/2 log 2 pi; one of them is missing": right
            + LOG_2PI / 2,
            "each z enters as -z^2 / 2": right - squares,
            "z_2 is missing: x_2 = 3 is not at the conditional mean 2.25": right + math.e**2 / 8,
            "that is the density; its logarithm was asked for": math.exp(right),
            "that is the first coordinate alone": -0.125 - math.log(2) - LOG_2PI / 2,
            "the scale of x_2 is x_1 / e = 1.5 / e, not 1 / e": -0.125
            - (0.75 * math.e) ** 2 / 2
            - math.log(2)
            + 1
            - LOG_2PI,
        },
        rtol=TYPED,
    )
    close(got, right, "not yet: find z_1 and z_2, then use (5.5)", rtol=1e-3)


@exercise("5.2")
def weights(answer: Any) -> None:
    """12 in the first layer and 12 in the last."""
    got = number(answer)
    _known(
        got,
        {
            "that is the network without masks": 48,
            "that is one of the two layers": 12,
            "an output reads units of smaller degree only, or it sees its own input": 30,
            "a hidden unit of degree d may read x_d too: its degree is how far it may look": 18,
            "biases were not asked for": 34,
        },
    )
    close(got, 24, "not yet: count the ones in both masks")


@exercise("5.3")
def masks(answer: Any) -> None:
    """An order that is not its own inverse, and two hidden layers with degrees in no order."""
    order, hidden = [2, 0, 3, 1], [[1, 2, 3, 2, 1], [3, 1, 2, 3]]
    got = call(answer, order, hidden)
    require(isinstance(got, tuple | list), "return a list of masks, the first layer's at its start")
    require(len(got) == 3, f"two hidden layers have three weight matrices, not {len(got)}")
    got = [number(m) for m in got]

    def build(degree: list[int], loose: bool = True, last: bool = False) -> list[Tensor]:
        own = torch.tensor(degree)
        d = [own, *map(torch.tensor, hidden)]
        compare = torch.ge if loose else torch.gt
        out = [compare(b[:, None], a) for a, b in zip(d, d[1:], strict=False)]
        out.append((torch.ge if last else torch.gt)(own[:, None], d[-1]))
        return [m.to(F64) for m in out]

    right = build([2, 4, 1, 3])
    shapes = [tuple(m.shape) for m in right]
    if [tuple(m.shape) for m in got] == [s[::-1] for s in shapes]:
        raise Hint("the masks are transposed: a row for each unit of the layer, as in nn.Linear")
    if [tuple(m.shape) for m in got] != shapes:
        raise Hint(f"the shapes should be {shapes}, and they are {[tuple(m.shape) for m in got]}")

    def is_(other: list[Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(got, other, strict=True))

    mistakes = {
        "`order` is not used: that is right for the order 0, 1, 2, 3 only": build([1, 2, 3, 4]),
        "the degree of a variable is its place in `order`, not the entry of `order` at the variable": build(
            [3, 1, 4, 2]
        ),
        "> in the last mask: with >= an output sees its own input": build([2, 4, 1, 3], last=True),
        ">= in the hidden layers: with > a unit loses what it may know, and depth loses more": build(
            [2, 4, 1, 3], loose=False
        ),
        "degrees start at 1: the variable that comes first has degree 1": build([1, 3, 0, 2]),
    }
    for hint, wrong in mistakes.items():
        require(not is_(wrong), hint)
    require(is_(right), "not yet: compare the degrees of a layer with those of the layer before it")


def _predictor() -> Any:
    """A generic autoregressive model of four coordinates, and one point of it."""
    mean = torch.tensor([[0.0, 0, 0, 0], [0.9, 0, 0, 0], [-0.7, 1.1, 0, 0], [0.4, -0.8, 1.3, 0]])
    scale = torch.tensor([[0.0, 0, 0, 0], [-0.6, 0, 0, 0], [0.5, 0.7, 0, 0], [-0.9, 0.3, 0.6, 0]])
    shift = torch.tensor([0.3, -0.5, 0.2, 0.7], dtype=F64)

    def predict(x: Tensor) -> tuple[Tensor, Tensor]:
        h = x.to(F64)
        return (
            1.4 * torch.tanh(h @ mean.to(F64).T) + shift,
            0.8 * torch.sin(h @ scale.to(F64).T) - shift,
        )

    x = torch.tensor([[0.7, -1.3, 0.4, 1.9], [-0.2, 0.8, 1.6, -1.1]], dtype=F64)
    return predict, x


@exercise("5.4")
def inverse(answer: Any) -> None:
    """Round trip on a generic model; the usual slips are recognised."""
    predict, x = _predictor()
    m, a = predict(x)
    z = (x - m) * (-a).exp()
    got, ladj = _pair(call(answer, predict, z), "x and the log-det")

    def passes(n: int) -> Tensor:
        y = torch.zeros_like(z)
        for _ in range(n):
            mean, log_scale = predict(y)
            y = mean + log_scale.exp() * z
        return y

    at_z = predict(z)
    _known(
        got,
        {
            "one pass is exact for the first coordinate only": passes(1),
            "one pass short: the last coordinate was made with a wrong one before it": passes(3),
            "that is x -> z; the way asked for is z -> x": (z - at_z[0]) * (-at_z[1]).exp(),
            "mean and scale are functions of x, not of z: that is an IAF": at_z[0]
            + at_z[1].exp() * z,
        },
    )
    close(got, x, "x is not right: D passes of mean + exp(log_scale) z, from any start", rtol=1e-6)
    _known(
        ladj,
        {
            "the log-det is that of z -> x, the map just applied: the sign": -a.sum(1),
            "one number for each example: sum over the coordinates only": a.sum(),
            "sum the log-scales over the coordinates": a,
            "the sum, not the mean": a.mean(1),
            "the sum over the coordinates (dim 1), not over the batch": a.sum(0),
        },
    )
    close(ladj, a.sum(1), "x is right; the log-det is the sum of the log-scales at the final x")

    def longer(x: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.nn.functional.pad(x.to(F64).cumsum(1)[:, :-1], (1, 0))
        return torch.cos(2 * before), 0.5 * torch.sin(before)

    x = 1.3 * torch.sin(torch.arange(18.0, dtype=F64)).view(2, 9)
    m, a = longer(x)
    got, _ = _pair(call(answer, longer, (x - m) * (-a).exp()), "x and the log-det")
    close(got, x, "right for D = 4 and not for D = 9: how many passes does that need?", rtol=1e-6)


@exercise("5.5")
def gate(answer: Any) -> None:
    """Generic values, then a gate that is closed."""
    u = torch.tensor([[0.6, -1.4, 0.9], [2.1, 0.3, -0.7]], dtype=F64)
    raw = torch.tensor([[0.8, -0.5, 1.7], [-1.2, 0.4, 0.1]], dtype=F64)
    m = torch.tensor([[1.1, 0.2, -0.6], [0.5, -1.9, 0.7]], dtype=F64)
    z, ladj = _pair(call(answer, u, raw, m), "z and the log-det")
    s = torch.sigmoid(raw)
    _known(
        z,
        {
            "m has the weight 1 - sigma": s * u + m,
            "sigma and 1 - sigma are exchanged": (1 - s) * u + s * m,
            "sigma is the sigmoid of raw_gate": raw * u + (1 - raw) * m,
            "sigma is the sigmoid of raw_gate, not its exponential": raw.exp() * u
            + (1 - raw.exp()) * m,
        },
    )
    close(z, s * u + (1 - s) * m, "z is not right: sigma u + (1 - sigma) m")
    log = torch.nn.functional.logsigmoid(raw)
    _known(
        ladj,
        {
            "one number for each example: sum over the coordinates": log,
            "the logarithm of the absolute determinant was asked for, not the determinant": s.prod(
                1
            ),
            "the sign: sigma < 1 makes volumes smaller": -log.sum(1),
            "the derivative of z in u is sigma, not raw_gate": raw.sum(1),
            "sum over the coordinates only, not over the batch": log.sum(),
        },
    )
    close(ladj, log.sum(1), "z is right; the log-det is the sum of log sigma")
    shut = torch.tensor([[-200.0, -200.0, -200.0], [200.0, -200.0, 200.0]])
    z, ladj = _pair(call(answer, u.float(), shut, m.float()), "z and the log-det")
    close(z, torch.where(shut > 0, u, m), "right for moderate gates; at 200 z is u, at -200 it is m, "
          "but exp(200) is infinite in float32: use torch.sigmoid", rtol=1e-5)  # fmt: skip
    close(ladj, [-600.0, -200.0], "right for moderate gates, but sigmoid(-200) is 0 in float32, and "
          "exp(200) infinite: compute log sigmoid in one step", rtol=1e-5)  # fmt: skip


@exercise("5.6")
def mixture(answer: Any) -> None:
    """Three components at generic places."""
    x = torch.tensor([0.3, -1.1, 2.0], dtype=F64)
    log_w = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.25, 0.35, 0.4]], dtype=F64).log()
    mean = torch.tensor([[-1.0, 0.4, 1.7], [0.2, -0.8, 1.2], [1.5, -0.3, 2.6]], dtype=F64)
    log_s = torch.tensor([[-0.4, 0.3, 0.1], [0.2, -0.6, 0.4], [-0.1, 0.5, -0.3]], dtype=F64)
    z, slope = _pair(call(answer, x, log_w, mean, log_s), "z and log dz/dx")

    def parts(scale: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        normal = torch.distributions.Normal(mean, scale)
        F = (w * normal.cdf(x[:, None])).sum(1)
        return F, (w.log() + normal.log_prob(x[:, None])).logsumexp(1)

    F, log_p = parts(log_s.exp(), log_w.exp())
    right = torch.special.ndtri(F)
    average = (log_w.exp() * (x[:, None] - mean) * (-log_s).exp()).sum(1)
    _known(
        z,
        {
            "that is F(x), uniform on (0, 1); the quantile function of the normal comes after it": F,
            "that averages the components' own z; average their distribution functions": average,
            "the weights are exp(log_w)": torch.special.ndtri(
                torch.distributions.Normal(mean, log_s.exp()).cdf(x[:, None]).mean(1)
            ),
            "log_scale is the logarithm of a standard deviation, not of a variance": torch.special.ndtri(
                parts((log_s / 2).exp(), log_w.exp())[0]
            ),
        },
    )
    close(z, right, "z is not right: ndtri of the weighted sum of ndtr((x - mean) / scale)")
    base = -0.5 * right**2 - LOG_2PI / 2
    _known(
        slope,
        {
            "that is log p(x); the density of z has to be divided out": log_p,
            "the sign: dz/dx = p(x) / phi(z)": base - log_p,
            "the density of z is divided out, not multiplied": log_p + base,
            "that is dz/dx; its logarithm was asked for": (log_p - base).exp(),
        },
    )
    close(slope, log_p - base, "z is right; log dz/dx = log p(x) - log phi(z)")
