"""Checkers of chapter 12, "Latent diffusion". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..exercise import TYPED, call, close, exercise, known, number, require, seeded

F64 = torch.float64


@exercise("12.1")
def bits_per_pixel(answer: Any) -> None:
    got = number(answer)
    known(
        got,
        {
            "that is the whole picture: divide by its 1,024 pixels": 576.0,
            "per place of the latents; per pixel was asked": 9.0,
            "512 codes take log2 512 = 9 bits, not 512": 32.0,
            "the three colours count as one pixel": 0.1875,
            "bits: the logarithm to base 2": 64 * math.log(512) / 1024,
        },
        rtol=TYPED,
    )
    close(got, 0.5625, "64 indices of log2 512 bits, over 1,024 pixels", rtol=1e-3)


@exercise("12.2")
def fill(answer: Any) -> None:
    got = number(answer, (2,))
    rate = lambda log: sum(0.5 * log(v / 0.5) for v in (4, 1))  # noqa: E731
    known(got[0], {
        "bits, so the logarithm to base 2": rate(math.log),
        "the factor 1/2: variances are squares of deviations": 4.0,
        "a part below the level gets no bits, and no negative ones": 2.0 + 0.5 * math.log2(0.5),
    }, rtol=TYPED)  # fmt: skip
    known(got[1], {
        "the part below the level is lost with its own variance, 1/4": 1.5,
        "the part below the level is lost, too": 1.0,
        "the order is (R, D)": 2.0,
    }, rtol=TYPED)  # fmt: skip
    close(
        got, [2.0, 1.25], "R adds half the log2 of variance over level; D adds min(level, variance)"
    )


@exercise("12.3")
def forgotten_scale(answer: Any) -> None:
    got = number(answer)
    known(
        got,
        {
            "the ratio is one of variances: twice the logarithm": math.log(5),
            "upwards: the signal is stronger than the schedule thinks": -2 * math.log(5),
            "the natural logarithm, as everywhere": 2 * math.log2(5),
            "that is the ratio itself; its logarithm was asked": 25.0,
        },
        rtol=TYPED,
    )
    close(got, 2 * math.log(5), "2 log of the factor", rtol=1e-3)


@exercise("12.4")
def quantise(answer: Any) -> None:
    z, weight, near = seeded(0, 9, 3).requires_grad_(), seeded(2, 9, 3), seeded(1, 5, 3)
    learned = torch.cat([near, 2 * near]).requires_grad_()  # not all of one length
    got, codes = call(answer, z, learned), learned.detach()
    k = torch.cdist(z.detach(), codes).argmin(1)
    value = number(got, (9, 3))
    far = torch.cdist(z.detach(), codes).argmax(1)
    known(value, {"that is z itself": z.detach(), "those are the farthest codes": codes[far]})
    close(value, codes[k], "each row is the code with the least distance")
    hint = "right codes, but no gradient reaches z: add z - z.detach()"
    require(isinstance(got, torch.Tensor) and got.requires_grad, hint)
    grad, other = torch.autograd.grad((got * weight).sum(), (z, learned), allow_unused=True)
    require(grad is not None, hint)
    close(grad, weight, "the gradient of z must be that of the result, unchanged")
    still = other is None or not other.any()
    require(still, "the codes get a gradient, too: detach what was chosen")


@exercise("12.5")
def follow(answer: Any) -> None:
    N, m, z = torch.tensor([2.0, 0.5, 3.0, 1.0], dtype=F64), seeded(0, 4, 2), seeded(1, 6, 2)
    k, decay = torch.tensor([0, 2, 2, 0, 1, 0]), 0.8  # nobody chooses the last
    got = call(answer, N, m, z, k, decay)
    ok = isinstance(got, tuple | list) and len(got) == 3
    require(ok, "return three things: the new N, the new m and the codes")
    one_hot = torch.nn.functional.one_hot(k, 4).to(F64)
    n, s = one_hot.sum(0), one_hot.T @ z
    counts, sums = decay * N + (1 - decay) * n, decay * m + (1 - decay) * s
    known(number(got[0], (4,)), {
        "decay weighs the old counts, 1 - decay the new": (1 - decay) * N + decay * n,
        "the new counts have the weight 1 - decay": decay * N + n,
        "that forgets the old counts": n,
    })  # fmt: skip
    close(got[0], counts, "N is decay N + (1 - decay) n")
    known(number(got[1], (4, 2)), {
        "s is the sum of the vectors of a code, not their mean":
            decay * m + (1 - decay) * s / n.clamp(min=1)[:, None],
        "the new sums have the weight 1 - decay": decay * m + s,
    })  # fmt: skip
    close(got[1], sums, "m is decay m + (1 - decay) s")
    known(number(got[2], (4, 2)), {"the codes are m / N, with the new N": sums / N[:, None]})
    close(got[2], sums / counts[:, None], "the codes are m / N, both new")


@exercise("12.6")
def cross_attention(answer: Any) -> None:
    q, k, v = seeded(0, 6, 5), seeded(1, 4, 5), seeded(2, 4, 3)
    got = number(call(answer, q, k, v), (6, 3))
    fit = q @ k.T / math.sqrt(5)
    known(
        got,
        {
            "the root of d is missing": (q @ k.T).softmax(1) @ v,
            "divide by the root of d, not by d": (q @ k.T / 5).softmax(1) @ v,
            "d is the size of a query, not the number of words": (q @ k.T / 2).softmax(1) @ v,
            "the softmax runs over the words, not over the places": fit.softmax(0) @ v,
            "the weights must sum to 1: a softmax is missing": fit @ v,
            "the exponentials are not divided by their sum": fit.exp() @ v,
        },
    )
    close(got, fit.softmax(1) @ v, "softmax(q k' / sqrt(d)) v")
