"""Checkers of chapter 13, "All models, one table". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..exercise import TYPED, call, close, exercise, known, number, seeded

LN2 = math.log(2)


@exercise("13.1")
def bits_from_logits(answer: Any) -> None:
    got = number(answer)
    nats, change, n, D = 1204.0, 4620.0, 256, 784
    right = (nats - change) / (D * LN2) + math.log2(n)
    known(
        got,
        {
            "the change of variables is missing: y is a function of the pixels": nats / (D * LN2) + 8,
            "the sign: log p(x) = log p(y) + log|det dy/dx|, so it is taken from -log p(y)": (
                nats + change
            ) / (D * LN2) + 8,
            "a density on [0, 1] is not yet a probability of a level: log2 256 is missing": (
                nats - change
            ) / (D * LN2),
            "nats, not bits: divide by ln 2": (nats - change) / D + 8,
            "log2 256 is added, not subtracted: a level is a small cell": (nats - change)
            / (D * LN2) - 8,
            "per dimension: divide by 784": (nats - change) / LN2 + 8,
        }, rtol=TYPED)  # fmt: skip
    close(got, right, "(-log p(y) - log|det|) / (D ln 2) + log2 256", rtol=1e-3)


@exercise("13.2")
def gap_of_a_gaussian(answer: Any) -> None:
    got = number(answer)
    matched = 0.5 * math.log(4.25 / 0.25)  # of the entropies of a matched bell and of one component
    right = matched - LN2
    known(
        got,
        {
            "which component a point came from is one bit of the mixture's entropy: ln 2 nats": matched,
            "in nats, with the natural logarithm": right / LN2,
            "an entropy is the log of the deviation, half that of the variance": 2 * matched - LN2,
            "the variance of the mixture is that within plus that between: 0.25 + 4": 0.5
            * math.log(4.0 / 0.25)
            - LN2,
            "the variance within is 0.25, the square of 0.5": 0.5 * math.log(4.5 / 0.5) - LN2,
            "the other way round: the Gaussian has the larger entropy": -right,
        },
        rtol=TYPED,
    )
    what = "the entropy of the matched Gaussian minus that of the mixture"
    close(got, right, what, rtol=0, atol=5e-3)  # two decimals were asked for


@exercise("13.3")
def levels_bits(answer: Any) -> None:
    log_p = seeded(0, 4, 6) - 3.0
    got = number(call(answer, log_p, 64, 17))
    right = (-log_p.mean(0) / (64 * LN2)) + math.log2(17)
    known(
        got,
        {
            "that is one number: keep an entry for each image": right.mean(),
            "the draws come first: average over dimension 0": (-log_p.mean(1) / (64 * LN2))
            + math.log2(17),
            "log2 17 is missing: the cell of a level has the width 1/17": -log_p.mean(0)
            / (64 * LN2),
            "the sign of log p": log_p.mean(0) / (64 * LN2) + math.log2(17),
            "log2 17 is already per dimension": -log_p.mean(0) / (64 * LN2) + math.log2(17) / 64,
            "divide by ln 2 to get bits": -log_p.mean(0) / 64 + math.log2(17),
            "the mean of the densities is the importance-sampled estimate; the bound is the mean of "
            "their logarithms": -(log_p.logsumexp(0) - math.log(4)) / (64 * LN2) + math.log2(17),
        },
    )
    close(got, right, "minus the mean over draws, over D ln 2, plus log2 of the number of levels")


@exercise("13.4")
def one_dimensional_distance(answer: Any) -> None:
    x, y = seeded(1, 40), 1.7 * seeded(2, 40) + 0.4
    got = number(call(answer, x, y))
    diff = x.sort().values - y.sort().values
    known(
        got,
        {
            "sort both first: each quantile goes to the same quantile": (x - y)
            .square()
            .mean()
            .sqrt(),
            "that is of order 1; square the differences": diff.abs().mean(),
            "the root at the end": diff.square().mean(),
            "the mean of the squares, not their sum": diff.square().sum().sqrt(),
            "that compares the means only": (x.mean() - y.mean()).abs(),
        },
    )
    close(got, diff.square().mean().sqrt(), "sort both, the root of the mean squared difference")


@exercise("13.5")
def unbiased_mmd(answer: Any) -> None:
    x, y = seeded(3, 7, 2), seeded(4, 9, 2) + 1.0
    k = lambda a, b: 1.7 * torch.exp(-0.5 * torch.cdist(a, b) ** 2)  # k(x, x) is not 1
    kxx, kyy, kxy = k(x, x), k(y, y), k(x, y)
    got = number(call(answer, kxx, kyy, kxy))
    off = lambda m: (m.sum() - m.trace()) / (len(m) * (len(m) - 1))
    right = off(kxx) + off(kyy) - 2 * kxy.mean()
    known(
        got,
        {
            "with the diagonal it is biased upwards: a point is not compared with itself": kxx.mean()
            + kyy.mean()
            - 2 * kxy.mean(),
            "the cross term has the factor 2": off(kxx) + off(kyy) - kxy.mean(),
            "without the diagonal there are n (n - 1) pairs, not n^2": (kxx.sum() - kxx.trace())
            / 49
            + (kyy.sum() - kyy.trace()) / 81
            - 2 * kxy.mean(),
            "what a point has with itself is the diagonal's sum, which need not be n": (
                kxx.sum() - 7
            )
            / 42
            + (kyy.sum() - 9) / 72
            - 2 * kxy.mean(),
            "the cross term is subtracted": off(kxx) + off(kyy) + 2 * kxy.mean(),
        },
    )
    close(
        got, right, "the means within each set without the diagonal, minus twice the mean between"
    )


@exercise("13.6")
def is_it_better(answer: Any) -> None:
    a, b = seeded(5, 360) + 3.0, None
    b = a + 0.05 + 0.1 * seeded(6, 360)
    got = number(call(answer, a, b), (2,))
    d = b - a
    right = torch.stack([d.mean(), d.std() / 360**0.5])
    known(
        got,
        {
            "the images are the same: take the difference image by image before its spread": torch.stack(
                [d.mean(), (a.var() / 360 + b.var() / 360).sqrt()]
            ),
            "the standard error of the mean is the deviation over the root of n": torch.stack(
                [d.mean(), d.std()]
            ),
            "b minus a, so that a positive number says that b costs more": torch.stack(
                [-d.mean(), d.std() / 360**0.5]
            ),
            "over the root of n, not over n": torch.stack([d.mean(), d.std() / 360]),
        },
    )  # fmt: skip
    close(got, right, "the mean of b - a and its standard error, d.std() / sqrt(n)", rtol=3e-3)
