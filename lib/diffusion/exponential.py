"""Samplers of second order for the probability flow, in the variables in which it is nearly straight.

With u = x / alpha and rho = sigma / alpha the flow is du / drho = eps_hat: one Euler step of it is
DDIM. `heun` is the trapezoidal rule in rho. In log rho the linear part of the flow is solved exactly
and only the network is approximated: exponential integrators, known as DPM-Solver.

No step draws noise, and all run both ways, from noise to data and back.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from lib.diffusion.denoiser import BaseDenoiser
from lib.diffusion.samplers import Step, check_noise


def heun(denoiser: BaseDenoiser, context: Tensor | None = None) -> Step:
    """A step of DDIM, then again with the mean of eps_hat at both ends: order 2, two evaluations.

    To sigma_s = 0 it is DDIM alone, for eps_hat cannot be had there. Karras et al. (2022), algorithm
    1, for any schedule: their variable is u.

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser, simulate
    >>> from torch import randn
    >>> model, ts = ExactDenoiser(two_gaussians(), VP()), VP().times(10)
    >>> len([*simulate(heun(model), randn(5, 2), ts)])
    10
    """

    @lru_cache(4096)
    def weights(t: float, s: float) -> tuple[float, float, float, float]:
        alpha, sigma = denoiser.schedule.alpha(s), denoiser.schedule.sigma(s)
        ratio = alpha / denoiser.schedule.alpha(t)
        sigma_t = denoiser.schedule.sigma(t)
        check_noise(t, sigma_t)
        return alpha, sigma, ratio, sigma - ratio * sigma_t

    def step(x_t: Tensor, t: float, s: float) -> Tensor:
        alpha, sigma, ratio, move = weights(t, s)
        x_s = denoiser.mix(x_t, t, alpha, sigma, context)  # = ratio x_t + move eps_hat
        if sigma == 0:
            return x_s
        # half of x_s and half of ratio x_t + move eps_hat(x_s)
        half = denoiser.mix(x_s, s, 0.5 * alpha, 0.5 * (sigma + move), context)
        return half.add_(x_t, alpha=0.5 * ratio)

    return step


def log_rho(denoiser: BaseDenoiser, t: float) -> float:
    """log sigma / alpha, minus half the log signal-to-noise ratio: minus the lambda of the papers.

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VE, ExactDenoiser
    >>> abs(log_rho(ExactDenoiser(two_gaussians(), VE(0.5, 2.0)), 0.5)) < 1e-12  # sigma = 1
    True
    """
    if not denoiser.schedule.sigma(t) > 0:
        raise ValueError(
            f"sigma is 0 at t = {t:.4g}, and log(sigma / alpha) is what these steps divide into "
            f"parts: end at a small t above 0 (schedule.times and log_snr_times do), then denoise"
        )
    return -0.5 * denoiser.schedule.log_snr(t)


def dpm_solver(denoiser: BaseDenoiser, context: Tensor | None = None) -> Step:
    """DPM-Solver-2: DDIM to the middle in log rho, eps_hat from there: order 2, two evaluations.

    Lu et al. (2022), algorithm 1 with r_1 = 1/2. DPM-Solver-1 is DDIM, `ancestral(eta=0)`.

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser, simulate
    >>> from torch import randn
    >>> model, ts = ExactDenoiser(two_gaussians(), VP()), VP().times(10)
    >>> len([*simulate(dpm_solver(model), randn(5, 2), ts)])
    10
    """

    @lru_cache(4096)
    def weights(t: float, s: float) -> tuple[float, ...]:
        schedule, h = denoiser.schedule, log_rho(denoiser, t) - log_rho(denoiser, s)
        m = schedule.time_of(-log_rho(denoiser, t) - log_rho(denoiser, s))
        ratio = schedule.alpha(s) / schedule.alpha(t)
        return (
            m,
            schedule.alpha(m),
            schedule.sigma(m),
            ratio,
            -schedule.sigma(s) * math.expm1(h),
        )

    def step(x_t: Tensor, t: float, s: float) -> Tensor:
        m, alpha_m, sigma_m, ratio, move = weights(t, s)
        x_m = denoiser.mix(x_t, t, alpha_m, sigma_m, context)
        return denoiser.mix(x_m, m, 0.0, move, context).add_(x_t, alpha=ratio)

    return step


class _Last(NamedTuple):
    x_s: Tensor  # the state that the step returned
    s: float  # its time
    version: int | Tensor  # how often it had been written into
    x_hat: Tensor  # of the state that it started from
    h: float  # its length in log rho

    def led_to(self, x_t: Tensor, t: float) -> bool:
        if self.x_s is not x_t or self.s != t:
            return False
        if isinstance(self.version, Tensor):
            return torch.equal(self.version, x_t)
        return self.version == x_t._version


def _version(x: Tensor) -> int | Tensor:
    return x.clone() if x.is_inference() else x._version  # inference tensors do not count


def dpm_solver_multi(denoiser: BaseDenoiser, context: Tensor | None = None) -> Step:
    """DPM-Solver++(2M): x_hat extrapolated from the last two states: order 2, one evaluation.

    Lu et al. (2022b), algorithm 2. The step remembers the state that it returned; given another
    one, or another time, or one that was written into, it starts afresh, with a step of DDIM: so it
    may be used for several runs.

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser, simulate
    >>> from torch import randn
    >>> model, ts = ExactDenoiser(two_gaussians(), VP()), VP().times(10)
    >>> len([*simulate(dpm_solver_multi(model), randn(5, 2), ts)])
    10
    """
    last: list[_Last] = []

    @lru_cache(4096)
    def weights(t: float, s: float) -> tuple[float, float, float]:
        h = log_rho(denoiser, t) - log_rho(denoiser, s)
        schedule = denoiser.schedule
        return schedule.sigma(s) / schedule.sigma(t), -schedule.alpha(s) * math.expm1(-h), h

    def step(x_t: Tensor, t: float, s: float) -> Tensor:
        ratio, move, h = weights(t, s)
        x_hat = denoiser.mix(x_t, t, 1.0, 0.0, context)
        slope = 0.5 * h / last[0].h if last and last[0].led_to(x_t, t) else 0.0
        x_s = (ratio * x_t).add_(x_hat, alpha=move * (1 + slope))
        if slope:
            x_s.add_(last[0].x_hat, alpha=-move * slope)
        last[:] = [_Last(x_s, s, _version(x_s), x_hat, h)]
        return x_s

    return step
