"""Checkers of chapter 6, "Planar flows". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..exercise import TYPED, Hint, call, close, exercise, known, number, require, seeded

F64 = torch.float64


def _pair(value: Any, what: str) -> tuple[Tensor, Tensor]:
    """Two numbers or tensors."""
    try:
        first, second = value
    except (TypeError, ValueError):
        raise Hint(f"two things were expected: {what}") from None
    return number(first), number(second)


@exercise("6.1")
def density(answer: Any) -> None:
    got = number(answer)
    known(
        got,
        {
            "that is the determinant; the density is divided by it": 0.2,
            "the determinant is 1 + w.u, and this is w.u": -0.8,
            "the density rises by 1 / (1 + w.u), not by 1 / |w.u|": 1.25,
            "a layer that squeezes makes the density larger: what is the sign of w.u?": 1 / 1.8,
            "the factor was asked for, not its logarithm": math.log(5),
        },
        rtol=TYPED,
    )
    close(got, 5.0, "z = 0 lies on the hyperplane, where h' = 1; what is det J there?")


@exercise("6.2")
def folds(answer: Any) -> None:
    low, high = _pair(answer, "the pair (low, high)")
    s = math.acosh(math.sqrt(1.8))
    edge = 1.2 * math.tanh(s) - s / 1.5
    got = torch.stack([low.reshape(()), high.reshape(())])
    require(not torch.allclose(got, torch.tensor([edge, -edge], dtype=F64), rtol=TYPED),
            "the right two numbers in the wrong order: low first")  # fmt: skip
    known(
        got,
        {
            "these are the folds in s = 1.5 z; which x belongs to them?": [-s, s],
            "these are the folds in z; which x belongs to them?": [-s / 1.5, s / 1.5],
            "these are values of 1.5 x; divide by 1.5": [-1.5 * edge, 1.5 * edge],
        },
        rtol=TYPED,
    )
    want = torch.tensor([-edge, edge], dtype=F64)
    close(got, want, "uw = -1.8; find s at the folds from (6.2), then x", rtol=2e-3)


@exercise("6.3")
def thin_logdet(answer: Any) -> None:
    d = torch.tensor([0.7, -1.9, 2.3, 0.4, -0.8], dtype=F64)
    u, v = seeded(0, 5), -seeded(1, 5)  # 1 + v.(u / d) < 0
    got = number(call(answer, d, u, v))
    want = torch.linalg.slogdet(torch.diag(d) + torch.outer(u, v))[1]
    one = (1 + (u * v / d).sum()).abs().log()
    require(not got.isnan().any(), "NaN: the logarithm of a negative number; where do the bars go?")
    known(
        got,
        {
            "log|det diag(d)| is missing": one,
            "A^-1 is missing between v and u": (1 + u @ v).abs().log() + d.abs().log().sum(),
            "that is the determinant; its logarithm is asked for": want.exp(),
            "the 1 of the lemma is missing": (u * v / d).sum().abs().log() + d.abs().log().sum(),
        },
    )
    close(got, want, "log|1 + v.(u / d)| plus the sum of log|d_i|")
    size = 100_000
    d = 2.0 + seeded(2, size).abs()
    u, v = seeded(3, size), 1e30 * seeded(4, size)  # or the lemma is lost in the sum
    got = number(call(answer, d, u, v))
    want = (1 + (u * v / d).sum()).abs().log() + d.log().sum()
    close(got, want, "right for D = 5 and not for D = 100,000: a product of many numbers overflows; "
          "add logarithms")  # fmt: skip


def _layer(seed: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """w, u with w.u = -0.7, b."""
    w, u = seeded(seed, dim), seeded(seed + 1, dim)
    u = u + (-0.7 - w @ u) * w / (w @ w)
    return w, u, torch.tensor(0.6, dtype=F64)


@exercise("6.4")
def planar_to_base(answer: Any) -> None:
    for seed, stretch in ((5, 1.0), (7, -2.0), (5, -7.0)):  # w.u = -0.7, 1.4, 4.9
        w, u, b = _layer(seed, 4)
        u, z = stretch * u, 1.5 * seeded(seed + 2, 30, 4)
        h = torch.tanh(z @ w + b)
        x, up = z + h[:, None] * u, torch.log1p((w @ u) * (1 - h**2))
        back, logabsdet = _pair(call(answer, x, w, u, b), "z and logabsdet")
        known(
            back,
            {
                "tanh is taken at w.x + b; it belongs at s, the root": x
                - torch.tanh(x @ w + b)[:, None] * u,
                "this goes from the base; the way asked for is back": x
                + torch.tanh(x @ w + b)[:, None] * u,
            },
        )
        root = (
            "z = x - u tanh(s), where s + (w.u) tanh(s) = w.x + b (plain Newton may miss the root)"
        )
        close(back, z, root, rtol=1e-6, atol=1e-8)
        require(logabsdet.shape == up.shape, f"logabsdet should have shape {tuple(up.shape)}, and it is {tuple(logabsdet.shape)}")  # fmt: skip
        far = torch.log1p((w @ u) * (1 - torch.tanh(x @ w + b) ** 2))
        known(
            logabsdet,
            {
                "logabsdet has the wrong sign: it belongs to the map to the base": up,
                "h' is taken at x; it belongs at the root": -far,
                "that is the determinant; its logarithm is asked for": (-up).exp(),
            },
        )
        close(
            logabsdet,
            -up,
            "minus log(1 + (w.u) (1 - tanh(s)^2)), at the root s",
            rtol=1e-6,
            atol=1e-8,
        )


@exercise("6.5")
def radial(answer: Any) -> None:
    for D, alpha, beta in ((5, 0.8, 1.7), (5, 1.3, -0.9), (3, 0.8, 1.7)):
        c, z = seeded(10, D), seeded(11, 12, D)
        x, logabsdet = _pair(call(answer, z, c, alpha, beta), "x and logabsdet")
        r = (z - c).norm(dim=1)
        want = z + (beta / (alpha + r))[:, None] * (z - c)
        close(x, want, "x = z + beta (z - c) / (alpha + r), with r = |z - c| for each example")
        grow = torch.log1p(beta / (alpha + r))
        along = torch.log1p(alpha * beta / (alpha + r) ** 2)
        known(
            logabsdet,
            {
                "the power D - 1 is missing: there are D - 1 directions along the sphere": grow
                + along,
                "the power is D - 1, not D": D * grow + along,
                "the direction along the radius is missing": (D - 1) * grow,
                "all D directions are treated as along the sphere": D * grow,
                "that is the determinant; its logarithm is asked for": (
                    (D - 1) * grow + along
                ).exp(),
                "the sign is that of the inverse map": -((D - 1) * grow + along),
            },
        )
        close(logabsdet, (D - 1) * grow + along, "(D - 1) log(1 + beta / (alpha + r)) plus the log of the slope along r")  # fmt: skip


@exercise("6.6")
def estimate(answer: Any) -> None:
    x = seeded(12, 400, 2)
    log_q = -0.5 * (x**2).sum(1) - math.log(2 * math.pi)
    for offset in (0.4, 1e4, -1e4):
        energy = lambda x, o=offset: 0.8 * (x**2).sum(1) + x[:, 0] + o  # noqa: E731
        log_z, effective = _pair(call(answer, x, log_q, energy), "log Z and the effective number")
        log_r = -energy(x) - log_q
        total = torch.logsumexp(log_r, 0)
        want = total - math.log(len(x))
        if offset == 0.4:
            known(
                log_z,
                {
                    "that is Z; its logarithm is asked for": want.exp(),
                    "the mean of the ratios, not their sum: subtract log N": total,
                    "the logarithm of the mean is not the mean of the logarithms": log_r.mean(),
                    "q belongs below: subtract log_q": torch.logsumexp(-energy(x) + log_q, 0)
                    - math.log(len(x)),
                },
            )
        hint = "right for a small energy, and not when it is 1e4 or -1e4: stay in logarithms"
        close(log_z, want, hint if abs(offset) > 1 else "log of the mean of exp(-U) / q")
        share = (log_r - total).exp()
        ess = 1 / (share**2).sum()
        known(effective, {"divide the square of the sum by the sum of squares": ess / len(x)})
        close(effective, ess, hint if abs(offset) > 1 else "(sum of r)^2 / sum of r^2")
