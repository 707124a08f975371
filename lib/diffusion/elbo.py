"""The chain as a latent variable model: its bound in three parts, and bits.

The latents are the noisier versions x_{t_1}, ..., x_{t_T} of x, t_1 < ... < t_T. The encoder q
adds noise and learns nothing; the decoder p walks back with the denoiser. Ho et al. (2020),
section 3; for any alpha and sigma, Kingma et al. (2021), section 3 and appendix A.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lib.diffusion.chain import chain_times, posterior, transition
from lib.diffusion.denoiser import BaseDenoiser
from lib.diffusion.schedule import Schedule, Time
from lib.utils import check_batch, check_count, log_normal_interval, sum_dims

LOG_2PI = math.log(2 * math.pi)


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
    ts = chain_times(steps)
    if variance not in ("posterior", "forward"):
        raise ValueError(f'variance must be "posterior" or "forward", got {variance!r}')
    prior = _prior_kl(denoiser.schedule, x, ts[0])
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

    return Bound(prior, total, _last_step(denoiser, x, ts[-1], context, levels))


def _prior_kl(schedule: Schedule, x: Tensor, t: float) -> Tensor:
    """KL(q(x_t | x) || N(0, sigma_t^2)), whose variances are equal: (B,)."""
    return 0.5 * (schedule.alpha(t) / schedule.sigma(t)) ** 2 * sum_dims(x.square())


def _last_step(denoiser, x, t, context, levels) -> Tensor:
    """-log p(x | x_t) at one draw of x_t: (B,)."""
    x_hat = denoiser(_noised(denoiser, x, t), t, context)
    std = denoiser.schedule.sigma(t) / denoiser.schedule.alpha(t)
    return -last_step_log_prob(x, x_hat, std, levels)


def _step_kl(denoiser, x, t, s, context, variance) -> Tensor:
    """KL(q(x_s | x_t, x) || p(x_s | x_t)) at one draw of x_t: (B,).

    Both are Gaussians around the same formula, with x in the one and x_hat in the other.
    """
    schedule = denoiser.schedule
    error = sum_dims((x - denoiser(_noised(denoiser, x, t), t, context)).square())
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
    k, half = level_of(x, levels), 1 / (levels - 1)
    edge = lambda j: (j * half - 1 - x_hat) / std  # from k: in float32 neighbours then share it
    low, high = edge(2 * k - 1), edge(2 * k + 1)
    inner = log_normal_interval(low, high, 2 * half / std)
    first, last = torch.special.log_ndtr(high), torch.special.log_ndtr(-low)
    return sum_dims(torch.where(k == 0, first, torch.where(k == levels - 1, last, inner)))


def level_of(x: Tensor, levels: int) -> Tensor:
    """The whole number k of each value x = 2 k / (n - 1) - 1, as floats: (...) -> (...).

    Raises:
        ValueError: x holds other numbers than these levels, or its precision cannot tell.

    >>> level_of(torch.tensor([-1.0, 0.0, 1.0]), 3)
    tensor([0., 1., 2.])
    """
    half = 1 / (check_count(levels, "levels", 2) - 1)
    eps = torch.finfo(x.dtype).eps
    if 4 * eps > half:  # a level is off by up to 2 eps, and no more than half of the way may count
        raise ValueError(
            f"{x.dtype} does not tell {levels} levels of [-1, 1] from what is between them: "
            f"make x in a finer precision"
        )
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    k = ((x + 1) / (2 * half)).round()
    off = min(max(1e-3 * half, 4 * eps), 0.5 * half)
    if ((k * 2 * half - 1 - x).abs() > off).any() or (x.abs() > 1 + 1e-6).any():
        raise ValueError(
            f"x must be {levels} levels spread evenly over [-1, 1], as 2 k / (n-1) - 1"
        )
    return k


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
    2021, equations 14 to 18), by one point in each of `draws` equal parts of it: unbiased. The
    points are the same for all of x, so the spread over x does not show what they add to the error.

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
def continuous_elbo(
    denoiser: BaseDenoiser,
    x: Tensor,
    t_min: float,
    context: Tensor | None = None,
    levels: int | None = None,
    draws: int = 32,
) -> Bound:
    """What `chain_elbo` tends to with many steps between 1 and t_min: the bound of the SDE.

    Its middle part is `continuous_steps`, by `draws` calls of the network; the prior is N(0,
    sigma(1)^2), the last step starts from t_min, and `levels` are those of `chain_elbo`.

    >>> from lib.diffusion import VP, ExactDenoiser
    >>> from lib.data.densities import two_gaussians
    >>> p = two_gaussians()
    >>> bound = continuous_elbo(ExactDenoiser(p, VP()), p.sample(500), 1e-3)
    >>> bool((bound.total.mean() - p.entropy()).abs() < 0.2)
    True
    """
    check_batch(x, context=context)
    prior = _prior_kl(denoiser.schedule, x, 1.0)
    last = _last_step(denoiser, x, t_min, context, levels)
    return Bound(prior, continuous_steps(denoiser, x, t_min, context, draws), last)


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
    x_s = _noised(denoiser, x, first)
    log_w = last_step_log_prob(x, denoiser(x_s, first, context), std)
    log_w = log_w - _normal(x_s, schedule.alpha(first) * x, schedule.sigma(first) ** 2)
    for s, t in zip(ts, ts[1:], strict=False):
        a, v = transition(schedule, t, s)
        x_t = a * x_s + v**0.5 * torch.randn_like(x)
        mean, var = posterior(schedule, x_t, denoiser(x_t, t, context), t, s)
        log_w = log_w + _normal(x_s, mean, var) - _normal(x_t, a * x_s, v)
        x_s = x_t
    return log_w + _normal(x_s, torch.zeros_like(x), schedule.sigma(ts[-1]) ** 2)


def _noised(denoiser: BaseDenoiser, x: Tensor, t: Time) -> Tensor:
    """A draw of q(x_t | x)."""
    alpha, sigma = denoiser.scales(x, t)
    return alpha * x + sigma * torch.randn_like(x)


def _normal(x: Tensor, mean: Tensor, var: float) -> Tensor:
    return sum_dims(-0.5 * ((x - mean).square() / var + math.log(var) + LOG_2PI))


def _snr(schedule: Schedule, t: Time) -> Time:
    log = schedule.log_snr(t)
    return log.exp() if isinstance(log, Tensor) else math.exp(log)
