"""The chain as a latent variable model: its posterior, its bound in three parts, and bits.

The latents are the noisier versions x_{t_1}, ..., x_{t_T} of x, t_1 < ... < t_T. The encoder q
adds noise and learns nothing; the decoder p walks back with the denoiser. Ho et al. (2020),
section 3; for any alpha and sigma, Kingma et al. (2021), section 3 and appendix A.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lib.diffusion.denoiser import BaseDenoiser
from lib.diffusion.schedule import Schedule, Time
from lib.utils import check_batch, check_count, expand_as_batch, log_normal_interval, sum_dims

LOG_2PI = math.log(2 * math.pi)


def transition(schedule: Schedule, t: Time, s: Time) -> tuple[Time, Time]:
    """a and v of q(x_t | x_s) = N(a x_s, v I), s < t.

    a = alpha_t / alpha_s and v = sigma_t^2 - a^2 sigma_s^2: what the noise of x_s, shrunk by a,
    leaves to be added. In DDPM's chain and for neighbours, a^2 = 1 - beta and v = beta.

    >>> from lib.diffusion import VP
    >>> a, v = transition(VP(), 0.6, 0.4)
    >>> round(a**2 + v, 6)
    1.0
    """
    a = schedule.alpha(t) / schedule.alpha(s)
    return a, schedule.sigma(t) ** 2 - (a * schedule.sigma(s)) ** 2


def posterior(
    schedule: Schedule, x_t: Tensor, x_0: Tensor, t: Time, s: Time
) -> tuple[Tensor, Time]:
    """Mean (B, ...) and variance of q(x_s | x_t, x_0) for s < t, any schedule.

    mean = a sigma_s^2 / sigma_t^2 x_t + alpha_s v / sigma_t^2 x_0, variance = sigma_s^2 v /
    sigma_t^2, with a and v of `transition`. Ho et al. (2020), equations 6 and 7.

    Args:
        t, s: floats, or one of each for each example, (B,).

    >>> from lib.diffusion import VP
    >>> mean, variance = posterior(VP(), torch.ones(1, 2), torch.zeros(1, 2), 0.6, 0.4)
    >>> mean.shape, round(variance, 4)
    (torch.Size([1, 2]), 0.7154)
    """
    if not torch.all(torch.as_tensor(s) < torch.as_tensor(t)):
        raise ValueError("the posterior goes to a time with less noise: s < t is needed")
    a, v = transition(schedule, t, s)
    var_s, var_t = schedule.sigma(s) ** 2, schedule.sigma(t) ** 2
    old, new = a * var_s / var_t, schedule.alpha(s) * v / var_t
    return _like(old, x_t) * x_t + _like(new, x_t) * x_0, _like(var_s * v / var_t, x_t)


class Bound(NamedTuple):
    """-ELBO of each example in nats, in its three parts, (B,) each.

    >>> Bound(*torch.tensor([[0.1], [2.0], [0.7]])).total
    tensor([2.8000])
    """

    prior: Tensor  # KL(q(x_T | x) || p(x_T))
    steps: Tensor  # sum of E KL(q(x_s | x_t, x) || p(x_s | x_t)) over the chain
    reconstruction: Tensor  # E[-log p(x | x_1)]

    @property
    def total(self) -> Tensor:
        """-ELBO >= -log p(x), (B,)."""
        return self.prior + self.steps + self.reconstruction

    def bits(self, dim: int) -> "Bound":
        """The parts in bits per dimension, for data of `dim` numbers: nats / (dim ln 2).

        For integer levels that is the cost of storing them. For a density, `lib.data.images`
        knows what the width of a level adds.
        """
        return Bound(*(part / (dim * math.log(2)) for part in self))


@torch.no_grad()
def chain_elbo(
    denoiser: BaseDenoiser,
    x: Tensor,
    steps: int | Sequence[float],
    context: Tensor | None = None,
    levels: int | None = None,
    variance: str = "posterior",
    draws: int | None = None,
) -> Bound:
    """The bound of the chain whose steps back are N(posterior mean with x_hat for x, variance).

    Args:
        x: (B, ...).
        steps: T, for the times k / T, k = T ... 1 (DDPM); or these times themselves, falling.
        levels: x are that many integer levels spread evenly over [-1, 1], and the last step gives
            each level the probability of its bin under a Gaussian around x_hat, the outer bins
            reaching to infinity (Ho et al. 2020, section 3.3). Left out: a density.
        variance: of a step back, "posterior" (that of q(x_s | x_t, x), Ho et al.'s beta-tilde) or
            "forward" (that of q(x_t | x_s), their beta).
        draws: how many of the T - 1 middle terms to compute, drawn at random for each example and
            weighted to stay unbiased. Left out: all, one call of the network each.

    The prior is N(0, sigma(t_T)^2); the last step's Gaussian has the standard deviation
    sigma / alpha at t_1. Each expectation is one draw: unbiased, with a spread.

    >>> from lib.diffusion import VP, ExactDenoiser
    >>> from lib.data.densities import two_gaussians
    >>> p = two_gaussians()
    >>> bound = chain_elbo(ExactDenoiser(p, VP()), p.sample(500), steps=50)
    >>> bool(bound.total.mean() > p.entropy())
    True
    """
    check_batch(x, context=context)
    ts, schedule = chain_times(steps), denoiser.schedule
    if variance not in ("posterior", "forward"):
        raise ValueError(f'variance must be "posterior" or "forward", got {variance!r}')
    top, last = ts[0], ts[-1]
    prior = 0.5 * (schedule.alpha(top) / schedule.sigma(top)) ** 2 * sum_dims(x.square())

    total, n = torch.zeros_like(prior), len(ts) - 1
    if draws is None:
        for t, s in zip(ts, ts[1:], strict=False):
            total = total + _step_kl(denoiser, x, t, s, context, variance)
    elif n:
        times = torch.tensor(ts, dtype=torch.float64, device=x.device)
        for i in range(check_count(draws, "draws")):  # one of each 1 / draws of the chain
            u = (i + torch.rand(len(x), dtype=torch.float64, device=x.device)) / draws
            k = (u * n).long().clamp_max(n - 1)
            kl = _step_kl(denoiser, x, times[k], times[k + 1], context, variance)
            total = total + kl * (n / draws)

    x_hat = denoiser(_noised(schedule, x, last), last, context)
    std = schedule.sigma(last) / schedule.alpha(last)
    return Bound(prior, total, -last_step_log_prob(x, x_hat, std, levels))


def _step_kl(denoiser, x, t, s, context, variance) -> Tensor:
    """KL(q(x_s | x_t, x) || p(x_s | x_t)) at one draw of x_t: (B,).

    Both are Gaussians around the same formula, with x in the one and x_hat in the other.
    """
    schedule = denoiser.schedule
    error = sum_dims((x - denoiser(_noised(schedule, x, t), t, context)).square())
    if variance == "posterior":
        gain = _snr(schedule, s) - _snr(schedule, t)
        return 0.5 * (gain.to(x) if isinstance(gain, Tensor) else gain) * error
    _, v = transition(schedule, t, s)
    ratio = (schedule.sigma(s) / schedule.sigma(t)) ** 2  # of the two variances
    log = ratio.log() if isinstance(ratio, Tensor) else math.log(ratio)
    scale, spread = (schedule.alpha(s) / schedule.sigma(t) ** 2) ** 2 * v, ratio - 1 - log
    scale, spread = (a.to(x) if isinstance(a, Tensor) else a for a in (scale, spread))
    return 0.5 * (x.shape[1:].numel() * spread + scale * error)


def last_step_log_prob(x: Tensor, x_hat: Tensor, std: float, levels: int | None = None) -> Tensor:
    """log p(x | x_1) for a Gaussian of `std` around x_hat: a density, or that of a level: (B,).

    With `levels` n, x is 2 k / (n - 1) - 1 for a whole number k, and its bin is as wide as the
    levels are apart; below the first and above the last everything counts.

    >>> levels = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> last_step_log_prob(levels, torch.zeros(3, 1), 0.3, 3).exp().sum()
    tensor(1.)
    """
    if not std > 0:
        raise ValueError(f"std must be above 0, got {std}")
    if levels is None:
        return sum_dims(-0.5 * (((x - x_hat) / std).square() + LOG_2PI) - math.log(std))
    check_count(levels, "levels", 2)
    half = 1 / (levels - 1)
    k = ((x + 1) / (2 * half)).round()
    if ((k * 2 * half - 1 - x).abs() > 1e-3 * half).any() or (x.abs() > 1 + 1e-6).any():
        raise ValueError(
            f"x must be {levels} levels spread evenly over [-1, 1], as 2 k / (n-1) - 1"
        )
    low, high = (x - half - x_hat) / std, (x + half - x_hat) / std
    inner = log_normal_interval(low, high, 2 * half / std)
    first, last = torch.special.log_ndtr(high), torch.special.log_ndtr(-low)
    return sum_dims(torch.where(k == 0, first, torch.where(k == levels - 1, last, inner)))


@torch.no_grad()
def continuous_steps(
    denoiser: BaseDenoiser,
    x: Tensor,
    t_min: float,
    context: Tensor | None = None,
    draws: int = 32,
) -> Tensor:
    """The middle part in the limit of many steps between t_min and 1, in nats: (B,).

    1/2 of the integral of E |eps - eps_hat|^2 over the log signal-to-noise ratio (Kingma et al.
    2021, equations 14 to 18), by one point in each of `draws` equal parts of it: unbiased.

    >>> from lib.diffusion import VP, ExactDenoiser
    >>> from lib.data.densities import two_gaussians
    >>> continuous_steps(ExactDenoiser(two_gaussians(), VP()), torch.zeros(2, 2), 1e-3).shape
    torch.Size([2])
    """
    check_batch(x, context=context)
    schedule, n = denoiser.schedule, check_count(draws, "draws")
    low, high = schedule.log_snr(1.0), schedule.log_snr(t_min)
    total = x.new_zeros(len(x))
    for i in range(n):
        u = torch.rand((), device=x.device).item()
        t = schedule.time_of(low + (high - low) * (i + u) / n)
        eps = torch.randn_like(x)
        x_t = schedule.alpha(t) * x + schedule.sigma(t) * eps
        total = total + sum_dims((eps - denoiser.eps(x_t, t, context)).square())
    return 0.5 * (high - low) / n * total


@torch.no_grad()
def path_log_weight(
    denoiser: BaseDenoiser,
    x: Tensor,
    steps: int | Sequence[float],
    context: Tensor | None = None,
) -> Tensor:
    """log p(x, x_1 ... x_T) - log q(x_1 ... x_T | x) along one chain simulated for each row: (B,).

    Its mean is the ELBO by definition, with nothing simplified; the mean of its exponential is
    p(x), so that many draws give log p(x) by importance sampling. Density of x, posterior variance.

    >>> from lib.diffusion import VP, ExactDenoiser
    >>> from lib.data.densities import two_gaussians
    >>> path_log_weight(ExactDenoiser(two_gaussians(), VP()), torch.zeros(2, 2), steps=10).shape
    torch.Size([2])
    """
    check_batch(x, context=context)
    ts, schedule = chain_times(steps)[::-1], denoiser.schedule
    first = ts[0]
    std = schedule.sigma(first) / schedule.alpha(first)
    x_s = _noised(schedule, x, first)
    log_w = last_step_log_prob(x, denoiser(x_s, first, context), std)
    log_w = log_w - _normal(x_s, schedule.alpha(first) * x, schedule.sigma(first) ** 2)
    for s, t in zip(ts, ts[1:], strict=False):
        a, v = transition(schedule, t, s)
        x_t = a * x_s + v**0.5 * torch.randn_like(x)
        mean, var = posterior(schedule, x_t, denoiser(x_t, t, context), t, s)
        log_w = log_w + _normal(x_s, mean, var) - _normal(x_t, a * x_s, v)
        x_s = x_t
    return log_w + _normal(x_s, torch.zeros_like(x), schedule.sigma(ts[-1]) ** 2)


def chain_times(steps: int | Sequence[float]) -> list[float]:
    """T -> the times k / T from 1 down to 1 / T; a list of falling times is checked and returned.

    >>> chain_times(4)
    [1.0, 0.75, 0.5, 0.25]
    """
    if isinstance(steps, int):
        n = check_count(steps, "steps")
        return [k / n for k in range(n, 0, -1)]
    ts = [float(t) for t in steps]
    if not ts or not ts[-1] > 0 or not all(s < t for t, s in pairwise(ts)):
        raise ValueError("the chain's times must fall, from noise down to a time above 0")
    return ts


def _noised(schedule: Schedule, x: Tensor, t: Time) -> Tensor:
    """A draw of q(x_t | x)."""
    alpha, sigma = _like(schedule.alpha(t), x), _like(schedule.sigma(t), x)
    return alpha * x + sigma * torch.randn_like(x)


def _normal(x: Tensor, mean: Tensor, var: float) -> Tensor:
    return sum_dims(-0.5 * ((x - mean).square() / var + math.log(var) + LOG_2PI))


def _snr(schedule: Schedule, t: Time) -> Time:
    log = schedule.log_snr(t)
    return log.exp() if isinstance(log, Tensor) else math.exp(log)


def _like(a: Time, x: Tensor) -> Time:
    return expand_as_batch(a, x) if isinstance(a, Tensor) else a
