"""Checkers of chapter 11, "The probability-flow ODE". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..exercise import TYPED, call, close, exercise, known, number, seeded

F64 = torch.float64


@exercise("11.1")
def code_of_a_point(answer: Any) -> None:
    got = number(answer)
    known(
        got,
        {
            "the deviation is stretched, and that is the square root of the variances' ratio": 1.5 * 25 / 9,
            "the wrong way round: to the noise the bell widens": 1.5 * 3 / 5,
            "variances add, deviations do not: sqrt(9 + 16), not 3 + 4": 1.5 * 7 / 3,
            "that divides by the deviation at t = 1 as well; the code has its own scale": 1.5 / 3,
            "the variance at t = 0 is 9, not 3": 1.5 * math.sqrt(19 / 3),
        }, rtol=TYPED)  # fmt: skip
    close(got, 2.5, "x(0) times the ratio of the standard deviations at both times", rtol=1e-3)


@exercise("11.2")
def lost_variance(answer: Any) -> None:
    got = number(answer)
    known(
        got,
        {
            "that is what is lost; the share that is left was asked for": 0.2,
            "that is the ratio of the deviations: square it": math.sqrt(0.8),
            "the difference of the two rho is squared": 0.9,
            "divide by both variances, c^2 + rho_s^2 and c^2 + rho_t^2": 0.6,
        },
        rtol=TYPED,
    )
    close(got, 0.8, "one minus c^2 (rho_t - rho_s)^2 over the product of both variances", rtol=1e-3)


@exercise("11.3")
def velocity(answer: Any) -> None:
    x, score = seeded(0, 5, 3), seeded(1, 5, 3)
    beta = 3.7
    got = number(call(answer, x, score, beta))
    known(
        got,
        {
            "that is the drift of the reversed SDE: the score has the factor g^2 / 2": -0.5
            * beta
            * x
            - beta * score,
            "the sign of the score: -g^2 / 2 times it": -0.5 * beta * x + 0.5 * beta * score,
            "f = -beta / 2": -beta * x - 0.5 * beta * score,
            "g^2 = beta; this squares beta": -0.5 * beta * x - 0.5 * beta**2 * score,
            "g^2 = beta; this takes its root": -0.5 * beta * x - 0.5 * math.sqrt(beta) * score,
            "that runs backwards: dx/dt, with t from data to noise": 0.5 * beta * (x + score),
        },
    )
    close(got, -0.5 * beta * (x + score), "f x - g^2 / 2 score with f = -beta / 2, g^2 = beta")


@exercise("11.4")
def ddim(answer: Any) -> None:
    x_t, eps = seeded(2, 5, 3), seeded(3, 5, 3)
    (a_t, s_t), (a_s, s_s) = (0.6, 0.8), (0.9, 0.43)
    got = number(call(answer, x_t, eps, a_t, s_t, a_s, s_s))
    x_hat = (x_t - s_t * eps) / a_t
    known(
        got,
        {
            "sigma_t where sigma_s belongs: the new state has the new noise level": a_s * x_hat
            + s_t * eps,
            "alpha_t where alpha_s belongs": a_t * x_hat + s_s * eps,
            "that is x_hat: add the noise of the new time": x_hat,
            "the noise of the new time is missing": a_s * x_hat,
            "x_hat is (x_t - sigma_t eps) / alpha_t: the division is missing": a_s
            * (x_t - s_t * eps)
            + s_s * eps,
            "that keeps x_t instead of x_hat": a_s * x_t + s_s * eps,
        },
    )
    close(
        got, a_s * x_hat + s_s * eps, "alpha_s x_hat + sigma_s eps_hat, x_hat from x_t and eps_hat"
    )


@exercise("11.5")
def churned(answer: Any) -> None:
    x, score, z = seeded(4, 5, 3), seeded(5, 5, 3), seeded(6, 5, 3)
    f, g2, h, lam = -1.3, 2.6, 0.01, 0.7
    got = number(call(answer, x, score, f, g2, h, lam, z))

    def step(c: float, fresh: float, way: float = 1.0) -> Tensor:
        return x - way * h * (f * x - c * g2 * score) + fresh * z

    half, fresh = (1 + lam**2) / 2, lam * math.sqrt(g2 * h)
    known(
        got,
        {
            "time runs backwards here: minus h times the drift": step(half, fresh, -1.0),
            "that has the score's weight of the full SDE whatever lam is: (1 + lam^2) / 2": step(1.0, fresh),
            "that has the score's weight of the ODE whatever lam is: (1 + lam^2) / 2": step(0.5, fresh),
            "lam is squared in the weight of the score": step((1 + lam) / 2, fresh),
            "(1 - lam^2) / 2 belongs to the equation forward in time": step((1 - lam**2) / 2, fresh),
            "the factor 1/2": step(1 + lam**2, fresh),
            "the fresh noise is scaled by the root of h": step(half, lam * math.sqrt(g2) * h),
            "g, not g^2, times the noise: its root is missing": step(half, lam * g2 * math.sqrt(h)),
            "the fresh noise is multiplied by lam": step(half, math.sqrt(g2 * h)),
            "lam, not lam^2, times the noise": step(half, lam**2 * math.sqrt(g2 * h)),
            "the fresh noise is missing": step(half, 0.0),
        },
    )  # fmt: skip
    want = step(half, fresh)
    close(got, want, "x - h (f x - (1 + lam^2) / 2 g2 score) + lam sqrt(g2 h) z")
