"""Checkers of chapter 4, "Coupling flows". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..exercise import TYPED, Hint, call, close, exercise, known, number, require

F64 = torch.float64
_known = partial(known, rtol=1e-5)


@exercise("4.1")
def by_hand(answer: Any) -> None:
    """s = 0.8, t = 1.56, z = (1.6, 1.44 e^-0.8); accepted to three digits."""
    got = number(answer)
    log2pi = math.log(2 * math.pi)

    def log_p(z_b: float, logabsdet: float = -0.8, constant: float = log2pi) -> float:
        return -0.5 * (1.6**2 + z_b**2) - constant + logabsdet

    z_b = 1.44 * math.exp(-0.8)
    _known(
        got,
        {
            "the log-determinant of the way to the base is -s, and it is added": log_p(z_b, 0.8),
            "that is the density of z; the log-determinant is missing": log_p(z_b, 0),
            "first the shift is undone, then the scale: z_b = (x_b - t) e^-s": log_p(
                3 * math.exp(-0.8) - 1.56
            ),
            "that is the way from the base; x is given, and z is wanted: z_b = (x_b - t) e^-s": log_p(
                3 * math.exp(0.8) + 1.56
            ),
            "two normal numbers, so log 2 pi, not half of it": log_p(z_b, constant=log2pi / 2),
            "the constant of the normal density is missing": log_p(z_b, constant=0),
            "z_a contributes too: it has a normal density": -0.5 * z_b**2 - log2pi - 0.8,
            "that is the density; its logarithm was asked for": math.exp(log_p(z_b)),
            "that is in bits; nats were asked for": log_p(z_b) / math.log(2),
        },
        rtol=TYPED,
    )
    close(got, log_p(z_b), "not yet: s = 0.8, t = 1.56; what is z_b?", rtol=1e-3)


@exercise("4.2")
def floor(answer: Any) -> None:
    """(D / 2) log 2 pi at D = 64, accepted to three digits."""
    got, log2pi = number(answer), math.log(2 * math.pi)
    _known(
        got,
        {
            "that is the entropy of the model: the mean over its own draws. Data may be more probable "
            "than those": 32 * (log2pi + 1),
            "that is for one dimension; there are 64": log2pi / 2,
            "each dimension has half of log 2 pi": 64 * log2pi,
            "the sign: a density below 1 has a positive negative log": -32 * log2pi,
            "that is in bits; nats were asked for": 32 * log2pi / math.log(2),
            "a density is not a probability, but here it is bounded: look at the peak of the base": 0.0,
        },
        rtol=TYPED,
    )
    close(got, 32 * log2pi, "not yet: how high is the peak of N(0, I)?", rtol=1e-3)


def _pair(got: Any) -> tuple[Tensor, Tensor]:
    require(isinstance(got, tuple | list) and len(got) == 2, "return a pair: z and logabsdet")
    if any(g is None or g is ... for g in got):
        raise Hint("no answer yet: one of the two is not there")
    z, logabsdet = (number(g) for g in got)
    return z, logabsdet


@exercise("4.3")
def coupling(answer: Any) -> None:
    """Five coordinates, two of which steer; s and t are neither odd nor even, and see both."""
    generator = torch.Generator().manual_seed(43)
    x = torch.randn(4, 5, generator=generator, dtype=F64)
    P, Q = torch.randn(2, 2, 3, generator=generator, dtype=F64)

    def steer(a: Tensor) -> Tensor:
        if a.shape != (4, 2):
            raise ValueError(f"s and t read the first d coordinates, (B, d), not {tuple(a.shape)}")
        return a

    def s(a: Tensor) -> Tensor:
        return torch.sin(steer(a) @ P) - 0.3

    def t(a: Tensor) -> Tensor:
        return (steer(a) @ Q) ** 2 - 0.5

    z, logabsdet = _pair(call(answer, x, s, t, 2))
    a, b = x[:, :2], x[:, 2:]
    log_s, shift = s(a), t(a)
    join = lambda b: torch.cat([a, b], 1)  # noqa: E731
    want = join((b - shift) * torch.exp(-log_s))
    _known(
        z,
        {
            "that is the way from the base, f; g undoes it": join(b * torch.exp(log_s) + shift),
            "first the shift is undone, then the scale": join(b * torch.exp(-log_s) - shift),
            "s is the logarithm of the scale: divide by exp(s)": join((b - shift) / log_s),
            "the scale is undone by exp(-s)": join((b - shift) * torch.exp(log_s)),
            "the scale is missing": join(b - shift),
            "the shift is missing": join(b * torch.exp(-log_s)),
            "the halves have changed places: z has the steering half first, as x has": torch.cat(
                [want[:, 2:], a], 1
            ),
            "z has all D coordinates: the steering half is part of it": want[:, 2:],
        },
    )
    close(z, want, "z is not right yet: z_a = x_a, z_b = (x_b - t) exp(-s)")
    _known(
        logabsdet,
        {
            "z is right; the log-determinant of the way to the base has a minus sign": log_s.sum(1),
            "z is right; one number for each example: sum over the coordinates, not over the batch": -log_s.sum(),
            "z is right; that is one number for each coordinate: sum them": -log_s,
            "z is right; sum, do not average": -log_s.mean(1),
            "z is right; logabsdet has the shape (B,): no keepdim": -log_s.sum(1, keepdim=True),
            "z is right; that is the determinant, not its logarithm": torch.exp(-log_s.sum(1)),
        },
    )
    close(logabsdet, -log_s.sum(1), "z is right; logabsdet is minus the sum of s, shape (B,)")


@exercise("4.4")
def squeeze(answer: Any) -> None:
    """Different height and width, several channels, numbered pixels."""
    B, C, H, W = 2, 3, 4, 6
    x = torch.arange(B * C * H * W, dtype=F64).view(B, C, H, W)
    got = number(call(answer, x))
    cells = x.reshape(B, C, H // 2, 2, W // 2, 2)
    shape = (B, 4 * C, H // 2, W // 2)
    want = cells.permute(0, 1, 3, 5, 2, 4).reshape(shape)
    require(
        got.shape == shape,
        f"the shape should be (B, 4C, H/2, W/2), here {shape}, and it is {tuple(got.shape)}",
    )
    _known(
        got,
        {
            "reshape alone mixes distant pixels: the axes must be permuted first": x.reshape(shape),
            "the channel should be 4c + 2i + j: c slowest. Yours has the positions slowest": cells.permute(
                0, 3, 5, 1, 2, 4
            ).reshape(shape),
            "i (the row in the block) is slower than j (the column)": cells.permute(
                0, 1, 5, 3, 2, 4
            ).reshape(shape),
            "that cuts the image into quarters: take every second pixel instead": x.reshape(
                B, C, 2, H // 2, 2, W // 2
            )
            .permute(0, 1, 2, 4, 3, 5)
            .reshape(shape),
        },
    )
    close(got, want, "y[:, 4c + 2i + j, h, w] should be x[:, c, 2h + i, 2w + j]")


@exercise("4.5")
def mirrors(answer: Any) -> None:
    """Three mirrors that are not of unit length, in five dimensions."""
    generator = torch.Generator().manual_seed(45)
    z = torch.randn(4, 5, generator=generator, dtype=F64)
    V = 1.7 * torch.randn(3, 5, generator=generator, dtype=F64)
    got = number(call(answer, z, V))

    def apply(rows: Tensor, factor: float = 2.0, unit: bool = True, power: int = 1) -> Tensor:
        out = z
        for v in rows:
            length = (v @ v) ** (power if unit else 0)
            out = out - factor * (out @ v)[:, None] * v / length
        return out

    _known(
        got,
        {
            "the other way round: in H_1 H_2 z the mirror on the right acts first": apply(V),
            "that is a projection; a mirror goes twice as far": apply(V.flip(0), 1.0),
            "that is a projection; a mirror goes twice as far. And the last mirror acts first": apply(
                V, 1.0
            ),
            "divide by the squared length of v": apply(V.flip(0), unit=False),
            "divide by the squared length of v, and let the last mirror act first": apply(
                V, unit=False
            ),
            "the squared length, not the length": apply(V.flip(0), power=0.5),
            "the squared length, not the length; and the last mirror acts first": apply(
                V, power=0.5
            ),
            "that is one mirror; all rows of V are used": apply(V[:1]),
        },
    )
    close(got, apply(V.flip(0)), "z - 2 v (v . z) / |v|^2 for each v, beginning with the last")
