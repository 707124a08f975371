"""Checkers of chapter 2's exercises. They know the common wrong answers, and hint at each."""

import math
from typing import Any

import torch

from ..exercise import Hint, call, close, exercise, number, require


def _near(got: float, want: float, rtol: float) -> bool:
    return abs(got - want) <= rtol * abs(want)


def _number(answer: Any) -> float:
    value = number(answer)
    require(value.numel() == 1, "one number was expected")
    return float(value)


@exercise("2.1")
def kl_in_one_dimension(answer: Any) -> None:
    """KL(N(-0.4, 0.6^2) || N(0.9, 1.7^2))."""

    def kl(m1: float, s1: float, m2: float, s2: float) -> float:
        return math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5

    got, right = _number(answer), kl(-0.4, 0.6, 0.9, 1.7)
    swapped = kl(0.9, 1.7, -0.4, 0.6)
    hints = {
        swapped: "that is the divergence in the other direction: the first argument is averaged over",
        kl(
            -0.4, 0.6**0.5, 0.9, 1.7**0.5
        ): "0.6 and 1.7 are standard deviations; you used variances",
        right + 0.5: "the -1/2 is missing: the divergence of a density from itself must be 0",
        right / math.log(2): "that is in bits; nats were asked for",
    }
    for value, hint in hints.items():
        require(not _near(got, value, 2e-3), hint)
    require(got >= 0, "a divergence is never negative: look at the sign of the logarithm")
    require(_near(got, right, 2e-3), "not yet: compute the three terms of (2.16) one by one")


@exercise("2.2")
def samples_from_the_prior(answer: Any) -> None:
    """How many prior samples for a relative error of 0.1 in 20 dimensions, sigma 0.5, x_d^2 = 1.25."""
    growth = 1 / math.sqrt(0.2 * 1.8) * math.exp((1.25 / 1.25**2) / 1.8)
    got, right = _number(answer), (growth**20 - 1) / 0.1**2
    hints = {
        right
        * 0.1: "the variance, not the error, falls like 1/N: the error of 0.1 must be squared",
        right * 0.01: "that is the relative variance of one sample; divide by the error squared",
        20 * (growth - 1) / 0.1**2: "second moments of the coordinates multiply, they do not add",
        ((growth - 1) ** 20)
        / 0.1**2: "it is 1 + chi-squared that multiplies; subtract 1 at the end",
    }
    for value, hint in hints.items():
        require(not _near(got, value, 2e-2), hint)
    require(_near(got, right, 2e-2), "not yet: use (2.7) for one coordinate, then the power of D")


@exercise("2.3")
def bound_of_the_small_model(answer: Any) -> None:
    """bound(x, m, s, a, b, sigma): closed-form ELBO of z ~ N(0, 1), x = a z + b + sigma eps."""

    def right(x, m, s, a, b, sigma, spread=1.0, entropy=1.0):
        square = (x - a * m - b) ** 2 + spread * a**2 * s**2
        recon = -0.5 * square / sigma**2 - math.log(sigma) - 0.5 * math.log(2 * math.pi)
        return recon - 0.5 * (s**2 + m**2 - 1) + entropy * math.log(s)

    for args in ((1.4, 0.35, 0.62, 1.2, 0.3, 0.7), (-0.8, -0.9, 1.4, 0.6, -0.5, 1.3)):
        got, want = _number(call(answer, *args)), right(*args)
        hints = {
            right(
                *args, spread=0.0
            ): "the spread of q is missing: E(x - az - b)^2 also has a^2 s^2",
            right(*args, entropy=0.0): "the log s of the divergence, the entropy of q, is missing",
            right(*args, entropy=-1.0): "the sign of log s: a wider q has more entropy",
            right(
                *args[:2], args[2] ** 0.5, *args[3:]
            ): "is s a standard deviation? yours is right where s is the variance",
            want + 0.5 * math.log(2 * math.pi): "log p(x | z) has -log(2 pi)/2, which stays here",
        }
        for value, hint in hints.items():
            require(not _near(got, value, 1e-7), hint)
        require(_near(got, want, 1e-5), "not yet: write both terms of (2.12) and try q = posterior")


@exercise("2.4")
def log_of_the_mean_weight(answer: Any) -> None:
    """log_evidence(log_w): (K, B) -> (B,), log of the mean weight."""
    log_w = torch.tensor(
        [[-1.3, 0.4, -2.2], [-0.2, 1.1, -4.0], [-3.0, 0.9, 0.3], [0.5, -0.7, -1.1]],
        dtype=torch.float64,
    )
    want = torch.logsumexp(log_w, 0) - math.log(4)
    given = log_w.clone()
    got = call(answer, log_w, own=False)
    require(torch.equal(log_w, given), "your function changed its input")
    got = number(got)
    require(got.shape != (4,), "the samples are along the first dimension: reduce dimension 0")
    got = number(got, (3,))
    same = lambda a, b: torch.allclose(a, b, rtol=1e-5)
    require(not same(got, log_w.mean(0)), "that is the mean of the logs, the ELBO; average first")
    require(not same(got, log_w.logsumexp(0)), "that is the log of the sum: subtract log K")
    close(got, want, "not yet: the log of the mean of exp(log_w)")
    shift = torch.tensor([0.0, -1000.0, -2000.0])  # another one for each example
    far = number(call(answer, given + shift))
    require(
        torch.isfinite(far).all() and same(far, want + shift),
        "right, but at log-weights of -1000 it is not: exp underflows; use torch.logsumexp",
    )


@exercise("2.5")
def sweep_of_coordinate_ascent(answer: Any) -> None:
    """sweep(m, m_star, Lam): every coordinate to its best place, one after the other."""
    Lam = torch.tensor([[2.0, -1.1, 0.4], [-1.1, 1.7, 0.3], [0.4, 0.3, 1.2]], dtype=torch.float64)
    start, target = (
        torch.tensor(t, dtype=torch.float64) for t in ([-1.5, 0.8, 2.1], [0.5, -0.3, 0.9])
    )

    def sweep(P: torch.Tensor, fresh: bool = True, sign: float = 1.0) -> torch.Tensor:
        m = start.clone()
        for i in range(3):
            seen = m if fresh else start
            rest = P[i] @ (seen - target) - P[i, i] * (seen[i] - target[i])
            m[i] = target[i] - sign * rest / P[i, i]
        return m

    given = start.clone()
    got = call(answer, given, target.clone(), Lam.clone(), own=False)
    if torch.is_tensor(got) and got.shape == (3,):
        same = lambda value: torch.allclose(got.detach().to(torch.float64), value)
        require(not same(sweep(Lam, fresh=False)), "you updated all at once: use the newest values")
        require(not same(sweep(Lam.inverse())), "you used the covariance; Lam is the precision")
        require(not same(sweep(Lam, sign=-1.0)), "the sign of the correction: it is subtracted")
        require(not same(target), "that is where many sweeps end; do one, coordinate by coordinate")
    close(got, sweep(Lam), "not yet: check that the sum leaves out j = i, and divide by Lam[i, i]")
    if not torch.equal(given, start):
        raise Hint("right, but your function changed its input: work on m.clone()")
