"""Checkers of chapter 9, "Denoising diffusion (DDPM)". Each names the mistake that it recognises."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..exercise import TYPED, call, close, exercise, known, number, require, seeded

F64 = torch.float64


@exercise("9.1")
def three_steps(answer: Any) -> None:
    got = number(answer)
    require(got.shape == (2,), "a pair was expected: alpha, then the variance sigma squared")
    rounded = abs(got[0] - 0.504**0.5) < 2e-3 and 2e-3 * 0.496 < abs(got[1] - 0.496) < 5e-3
    require(not rounded, "alpha is right; sigma^2 = 1 - alpha^2 is rounded: give three digits")
    known(
        got,
        {
            "that is alpha squared (DDPM's alpha-bar) in the first place: take the root": [
                0.504,
                0.496,
            ],
            "the variance was asked for in the second place, not its root": [
                0.504**0.5,
                0.496**0.5,
            ],
            "the product of the betas is not what is left: multiply 1 - beta": [
                0.006**0.5,
                0.994,
            ],
            "that is the product of 1 - beta squared: each step shrinks by a root": [
                0.504,
                1 - 0.504**2,
            ],
            "variances do not add up: each step shrinks the older noise": [0.504**0.5, 0.6],
        },
        rtol=TYPED,
    )
    close(got, [0.504**0.5, 0.496], "alpha is the root of 0.9 x 0.8 x 0.7", rtol=2e-3)


@exercise("9.2")
def one_step(answer: Any) -> None:
    got = number(answer)
    late, early = 0.36 / 0.64, 0.64 / 0.36
    known(
        got,
        {
            "the sign: the earlier time has the larger ratio, and a divergence is positive": (
                late - early
            )
            / 4,
            "the factor one half is missing": (early - late) / 2,
            "the signal-to-noise ratio is one of squares, alpha^2 / sigma^2": (
                0.8 / 0.6 - 0.6 / 0.8
            )
            / 4,
            "0.5 is the squared error already": (early - late) / 8,
            "the difference of the ratios, not of their logarithms": (
                torch.tensor(early / late).log() / 4
            ),
        },
        rtol=TYPED,
    )
    close(got, (early - late) / 4, "half the gain in SNR times the squared error", rtol=TYPED)


@exercise("9.3")
def q_sample(answer: Any) -> None:
    x, eps = seeded(0, 6, 3), seeded(1, 6, 3)
    betas = torch.tensor([0.02, 0.05, 0.11, 0.2, 0.37], dtype=F64)
    k = torch.tensor([1, 2, 3, 4, 5, 3])
    bar = torch.cat([torch.ones(1, dtype=F64), (1 - betas).cumprod(0)])[k][:, None]
    early = torch.cat([torch.ones(1, dtype=F64), (1 - betas).cumprod(0)])[k - 1][:, None]
    beta = betas[k - 1][:, None]
    got = number(call(answer, x, k, betas, eps))
    require(got.shape == (6, 3), f"shape (6, 3) was expected, not {tuple(got.shape)}")
    known(
        got,
        {
            "alpha is the root of the product: the product itself is alpha squared": bar * x
            + (1 - bar).sqrt() * eps,
            "the noise needs the root of 1 - alpha^2: a deviation, not a variance": bar.sqrt() * x
            + (1 - bar) * eps,
            "that is one step; after k steps the product of all 1 - beta counts": (1 - beta).sqrt()
            * x
            + beta.sqrt() * eps,
            "off by one: k = 1 has taken one step already": early.sqrt() * x
            + (1 - early).sqrt() * eps,
            "neither root is there": bar * x + (1 - bar) * eps,
        },
    )
    close(got, bar.sqrt() * x + (1 - bar).sqrt() * eps, "alpha x + sigma eps, by the products")
    zero = number(call(answer, x, 0 * k, betas, eps))
    close(zero, x, "right, except that k = 0 must give back x")


@exercise("9.4")
def step_back(answer: Any) -> None:
    x_t, x = seeded(2, 4, 3), seeded(3, 4, 3)
    at, st, as_, ss = 0.53, 1.4, 0.81, 0.62
    out = call(answer, x_t, x, at, st, as_, ss)
    require(
        isinstance(out, tuple | list) and len(out) == 2, "a pair was expected: mean and variance"
    )
    mean, var = number(out[0]), number(out[1])
    require(var.numel() == 1, "the variance should be one number")
    a = at / as_
    v = st**2 - a**2 * ss**2
    require(mean.shape == (4, 3), f"the mean should be (4, 3), and it is {tuple(mean.shape)}")
    known(
        var,
        {
            "that is a standard deviation; the variance was asked for": ss * v**0.5 / st,
            "that is the variance of the step forward: the clean x says more": v,
            "sigma_s^2 alone is the variance if only x is known": ss**2,
            "v is sigma_t^2 - a^2 sigma_s^2; here alpha^2 + sigma^2 is not 1": ss**2
            * (1 - a**2)
            / st**2,
        },
    )
    close(var.reshape(()), ss**2 * v / st**2, "the variance: sigma_s^2 v / sigma_t^2")
    want = a * ss**2 / st**2 * x_t + as_ * v / st**2 * x
    known(
        mean,
        {
            "the weights of x_t and x are exchanged": a * ss**2 / st**2 * x + as_ * v / st**2 * x_t,
            "the weight of x has alpha_s, not alpha_t": a * ss**2 / st**2 * x_t
            + at * v / st**2 * x,
            "the weight of x_t lacks the factor a": ss**2 / st**2 * x_t + as_ * v / st**2 * x,
        },
    )
    close(mean, want, "the variance is right; for the mean complete the square")


class _Toy:
    def alpha(self, t: Tensor) -> Tensor:
        return 1 - 0.7 * t

    def sigma(self, t: Tensor) -> Tensor:
        return 0.2 + t


@exercise("9.5")
def simple_loss(answer: Any) -> None:
    x, eps = seeded(4, 5, 2, 3, 3), seeded(5, 5, 2, 3, 3)
    t = torch.linspace(0.1, 0.9, 5, dtype=F64)
    toy = _Toy()

    def net(y: Tensor, s: Tensor) -> Tensor:
        if not isinstance(s, Tensor) or s.shape != (5,):
            raise ValueError("t should be passed on as it is, (B,)")
        return 0.4 * y + s.view(-1, 1, 1, 1)

    alpha, sigma = (f(t).view(-1, 1, 1, 1) for f in (toy.alpha, toy.sigma))
    x_t = alpha * x + sigma * eps
    error = eps - net(x_t, t)
    got = number(call(answer, net, toy, x, t, eps))
    want = error.square().mean((1, 2, 3))
    known(
        got,
        {
            "the mean over the batch is left to the caller: one loss for each example": want.mean(),
            "the mean over the dimensions, not their sum": error.square().sum((1, 2, 3)),
            "that compares the guess with x: the network guesses the noise": (x - net(x_t, t))
            .square()
            .mean((1, 2, 3)),
            "the root is too much": want.sqrt(),
            "the square is missing": error.abs().mean((1, 2, 3)),
            "the network must see the noisy alpha x + sigma eps, not the clean x": (eps - net(x, t))
            .square()
            .mean((1, 2, 3)),
        },
    )
    require(got.shape == (5,), f"shape (5,) was expected, not {tuple(got.shape)}")
    close(got, want, "the mean square of eps minus the guess at alpha x + sigma eps")


@exercise("9.6")
def sample_step(answer: Any) -> None:
    x_t, eps, z = seeded(6, 4, 3), seeded(7, 4, 3), seeded(8, 4, 3)
    at, st, as_, ss = 0.53, 1.4, 0.81, 0.62

    def step(eta: float, tau_of=lambda tau2: tau2**0.5, keep: float | None = None) -> Tensor:
        x_hat = (x_t - st * eps) / at
        v = st**2 - (at / as_) ** 2 * ss**2
        tau2 = eta**2 * ss**2 * v / st**2
        old = (ss**2 - tau2) ** 0.5 if keep is None else keep
        return as_ * x_hat + old * eps + tau_of(tau2) * z

    got = number(call(answer, x_t, eps, at, st, as_, ss, 0.0, z))
    require(got.shape == (4, 3), f"shape (4, 3) was expected, not {tuple(got.shape)}")
    require(
        not torch.allclose(got, as_ * (x_t - st * eps) / at + st * eps),
        "the noise is to have the size sigma_s, that of the earlier time, not sigma_t",
    )
    close(got, step(0.0), "for eta = 0: alpha_s x_hat + sigma_s eps_hat")
    for eta in (1.0, 0.6):
        got = number(call(answer, x_t, eps, at, st, as_, ss, eta, z))
        known(
            got,
            {
                "fresh noise was added, but no old noise taken away": step(eta, keep=ss),
                "tau is the root of the variance: z has the variance 1": step(eta, lambda u: u),
            },
        )
        if eta == 0.6:
            v = st**2 - (at / as_) ** 2 * ss**2
            once = 0.6 * ss**2 * v / st**2
            wrong = as_ * (x_t - st * eps) / at + (ss**2 - once) ** 0.5 * eps + once**0.5 * z
            require(
                not torch.allclose(got, wrong), "tau is eta times a root: eta enters tau^2 squared"
            )
        close(got, step(eta), f"right for eta = 0, and not for eta = {eta}")
