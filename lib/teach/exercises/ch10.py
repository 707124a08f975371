"""Checkers of chapter 10, "Score-based models and SDEs". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from ..exercise import TYPED, call, close, exercise, known, number, require, seeded

F64 = torch.float64
_known = partial(known, atol=1e-9)


@exercise("10.1")
def two_spins(answer: Any) -> None:
    got = number(answer, (2,))
    Z, up = 4 * math.cosh(0.8), math.exp(0.8)
    require(abs(got[0] - Z / 2) > 1e-3, "that counts each energy once: there are four states")
    require(abs(got[0] - 4 * math.cosh(0.4)) > 1e-3, "the energy as given has no factor 1/2")
    close(got[0], Z, "Z is the sum of exp(-E) over the four states", rtol=1e-3)
    require(abs(got[1] - math.exp(-0.8) / (up + math.exp(-0.8))) > 1e-3, "the sign: equal spins have the *lower* energy")  # fmt: skip
    require(abs(got[1] - up / Z) > 1e-3, "that is the probability of one of the two equal states")
    equal = 2 * up / Z
    require(not 1e-3 * equal < abs(got[1] - equal) < 5e-3, "Z is right; P is rounded too far: give three digits of it")  # fmt: skip
    close(got[1], equal, "two of the four states have equal spins", rtol=1e-3)


@exercise("10.2")
def edges(answer: Any) -> None:
    got = number(answer, (2,))
    _known(
        got,
        {
            "the right two numbers in the wrong order: implicit first": [0, 3],
            "inside the interval log p is constant: the true score is 0": [3, 3],
            "the sign: the model's score is -lambda x, and its slope -lambda": [-3, 0],
            "E[x^2] is 1/3 on [-1, 1]: minimise lambda^2 / 6 - lambda": [1, 0],
            "the second moment of a uniform law on [-1, 1] is 1/3, not 1/12": [12, 0],
        },
        rtol=TYPED,
    )
    hint = "minimise lambda^2 E[x^2] / 2 - lambda; and compare with a true score of 0"
    close(got, torch.tensor([3.0, 0.0], dtype=F64), hint, rtol=1e-3, atol=1e-6)


@exercise("10.3")
def step_sizes(answer: Any) -> None:
    got = number(answer, (3,))
    want = torch.tensor([1 / 0.97, 0.16, 0.08], dtype=F64)
    _known(
        got,
        {
            "those are standard deviations": [want[0] ** 0.5, 0.4, 0.08],
            "the factor 2 of (10.13): h / (2 c^2)": [1 / 0.94, 0.04 / (1 - 1.5), 0.08],
            "the limit is 2 c^2, with the smaller variance": [want[0], 0.16, 0.04],
            "the *narrow* axis decides where it diverges": [want[0], 0.16, 2.0],
            "the larger variance comes first": [0.16, want[0], 0.08],
        },
        rtol=TYPED,
    )
    close(
        got, want, "c^2 / (1 - h / (2 c^2)) for each axis, and 2 c^2 of the narrow one", rtol=1e-3
    )


@exercise("10.4")
def denoising(answer: Any) -> None:
    x, eps, W = seeded(0, 5, 3), seeded(1, 5, 3), seeded(2, 3, 3)
    sigma = torch.tensor([0.3, 0.7, 1.1, 1.6, 2.2], dtype=F64)
    score = lambda y: torch.tanh(y @ W)  # noqa: E731
    s = sigma[:, None]
    noisy = score(x + s * eps)
    got = number(call(answer, score, x, sigma, eps))
    want = 0.5 * (s * noisy + eps).square().sum(1)
    _known(
        got,
        {
            "the sign: the clean point lies at -eps, so the target is -eps / sigma": 0.5
            * (s * noisy - eps).square().sum(1),
            "the weight sigma^2 is missing": want / sigma**2,
            "the weight is sigma^2, not sigma": want / sigma,
            "the factor 1/2": 2 * want,
            "evaluate the score at the noisy point x + sigma eps, not at x": 0.5
            * (s * score(x) + eps).square().sum(1),
            "sigma multiplies the noise: x + sigma eps, not x + sigma^2 eps": 0.5
            * (s * score(x + s**2 * eps) + eps).square().sum(1),
            "the noisy point is x + sigma eps, not x + eps": 0.5
            * (s * score(x + eps) + eps).square().sum(1),
            "the sum over the coordinates, not the mean": want / 3,
            "one loss for each example, not their mean": want.mean(),
        },
    )
    number(got, (5,))
    close(got, want, "half of |sigma s(x + sigma eps) + eps|^2")


@exercise("10.5")
def reverse_step(answer: Any) -> None:
    x, z = seeded(3, 6, 2), seeded(4, 6, 2)
    f, g2 = lambda t: -0.4 - t, lambda t: 1.7 + 2 * t  # noqa: E731
    score = lambda x, t: torch.sin(x) - x * (1 + t)  # noqa: E731
    t, h = 0.6, 0.05
    s, kick = score(x, t), (g2(t) * h) ** 0.5 * z
    got = number(call(answer, x, t, h, f, g2, score, z))
    want = x - h * (f(t) * x - g2(t) * s) + kick
    _known(
        got,
        {
            "dt = -h: the whole bracket changes its sign": x + h * (f(t) * x - g2(t) * s) + kick,
            "the sign of the score in the bracket": x - h * (f(t) * x + g2(t) * s) + kick,
            "g2 is already the square: it multiplies the score as it is": x
            - h * (f(t) * x - g2(t) ** 0.5 * s)
            + kick,
            "g^2 stands before the score, not g^4: g2 is already the square": x
            - h * (f(t) * x - g2(t) ** 2 * s)
            + kick,
            "g^2 with the score, not g^2 / 2: that is the ODE of chapter 11": x
            - h * (f(t) * x - 0.5 * g2(t) * s)
            + kick,
            "the kick has variance g^2 h, so it is sqrt(g^2 h) z, not g^2 sqrt(h) z": x
            - h * (f(t) * x - g2(t) * s)
            + g2(t) * h**0.5 * z,
            "the kick has variance g^2 h: the square root of h is missing": x
            - h * (f(t) * x - g2(t) * s)
            + g2(t) ** 0.5 * h * z,
            "the kick is missing": want - kick,
            "the coefficients belong to the time t where the point is, not to t - h": x
            - h * (f(t - h) * x - g2(t - h) * score(x, t - h))
            + (g2(t - h) * h) ** 0.5 * z,
        },
        rtol=1e-7,
    )
    close(got, want, "x - h (f x - g^2 score) + sqrt(g^2 h) z")


@exercise("10.6")
def guide(answer: Any) -> None:
    free, given, x_t = seeded(5, 4, 3), seeded(6, 4, 3), seeded(7, 4, 3)
    alpha, sigma, w = 0.8, 0.55, 2.5
    pair = call(answer, free, given, x_t, alpha, sigma, w)
    require(
        isinstance(pair, tuple | list) and len(pair) == 2, "a pair (x_hat, eps_hat) was expected"
    )
    x_hat, eps_hat = number(pair[0], (4, 3)), number(pair[1], (4, 3))
    want = free + w * (given - free)
    _known(
        eps_hat,
        {
            "w = 1 should be the conditional model: this is the paper's count, (1 + w) given - w free": (
                1 + w
            )
            * given
            - w * free,
            "the two are exchanged: w = 0 is the unconditional model": given + w * (free - given),
            "that is a score: the noise is asked for": -want / sigma,
        },
    )
    close(eps_hat, want, "(1 - w) eps_free + w eps_given")
    _known(
        x_hat,
        {
            "divide by alpha: x_t = alpha x_hat + sigma eps_hat": x_t - sigma * want,
            "x_hat must belong to the *guided* noise, not to the conditional one": (
                x_t - sigma * given
            )
            / alpha,
            "the sign: the noise is taken away": (x_t + sigma * want) / alpha,
        },
    )
    close(x_hat, (x_t - sigma * want) / alpha, "solve x_t = alpha x_hat + sigma eps_hat for x_hat")
