"""The chain that adds noise, step by step: its times, its steps, and a step back for a known x.

Ho et al. (2020), section 2; for any alpha and sigma, Kingma et al. (2021), appendix A.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from lib.diffusion.schedule import Schedule, Time
from lib.utils import check_count, expand_as_batch


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
    if ts[0] > 1:
        raise ValueError(f"times run in [0, 1], step k of T is at k / T; got {ts[0]:.6g}")
    return ts


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

    >>> import torch
    >>> from lib.diffusion import VP
    >>> mean, variance = posterior(VP(), torch.ones(1, 2), torch.zeros(1, 2), 0.6, 0.4)
    >>> mean.shape, round(variance, 4)
    (torch.Size([1, 2]), 0.7154)
    """
    earlier = s < t  # floats as floats: float32 does not tell all of the library's times apart
    if not (earlier.all() if isinstance(earlier, Tensor) else earlier):
        raise ValueError("the posterior goes to a time with less noise: s < t is needed")
    a, v = transition(schedule, t, s)
    var_s, var_t = schedule.sigma(s) ** 2, schedule.sigma(t) ** 2
    old, new = a * var_s / var_t, schedule.alpha(s) * v / var_t
    return _like(old, x_t) * x_t + _like(new, x_t) * x_0, _like(var_s * v / var_t, x_t)


def _like(a: Time, x: Tensor) -> Time:
    return expand_as_batch(a, x) if isinstance(a, Tensor) else a
