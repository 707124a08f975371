"""What the tests of samplers share: schedules, samplers, and the exact law of a sampler's output."""

from functools import partial

import pytest
import torch

from lib.data.densities import GaussianMixture, anisotropic_gaussians
from lib.diffusion import (
    VE,
    VP,
    Cosine,
    ExactDenoiser,
    SubVP,
    ancestral,
    dpm_solver,
    dpm_solver_multi,
    euler_maruyama,
    heun,
    simulate,
)

T_MIN = 1e-3
N = 3000
SCHEDULES = {"vp": VP(), "ve": VE(0.2, 5.0), "subvp": SubVP(), "cosine": Cosine(12.0)}
STOCHASTIC = {
    "sde": euler_maruyama,
    "churn": partial(euler_maruyama, churn=0.6),
    "ddpm": ancestral,
    "large": partial(ancestral, large=True),
    "eta": partial(ancestral, eta=0.5),
}
DETERMINISTIC = {
    "euler": (partial(euler_maruyama, churn=0.0), 1),
    "ddim": (partial(ancestral, eta=0.0), 1),
    "heun": (heun, 2),
    "dpm-2": (dpm_solver, 2),
    "dpm-2m": (dpm_solver_multi, 2),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_stochastic = pytest.mark.parametrize("make", STOCHASTIC.values(), ids=STOCHASTIC)
every_deterministic = pytest.mark.parametrize(
    ("make", "order"), DETERMINISTIC.values(), ids=DETERMINISTIC
)
MEAN, VAR = 1.3, 0.36
GAUSSIAN = GaussianMixture([1.0], [[MEAN]], [[[VAR]]])
MIXTURE = anisotropic_gaussians()


def start(mixture, schedule, n):
    law = mixture.noised(schedule.alpha(1.0), schedule.sigma(1.0))
    return law.sample(n, dtype=torch.float64)


def law(make, schedule, steps):
    """Mean and variance of what a sampler makes of Gaussian data, exactly."""
    level = 0.0
    step = make(ExactDenoiser(GAUSSIAN, schedule), noise=lambda x: torch.full_like(x, level))
    ends, middle = (torch.tensor(x, dtype=torch.float64) for x in ([[0.0], [1.0]], [[0.0]]))
    ts = schedule.log_snr_times(steps, T_MIN)
    mean, var = (
        schedule.alpha(1.0) * MEAN,
        schedule.alpha(1.0) ** 2 * VAR + schedule.sigma(1.0) ** 2,
    )
    for t, s in zip(ts, ts[1:], strict=False):
        level = 0.0
        shift, end = step(ends, t, s).flatten().tolist()
        level = 1.0
        fresh = step(middle, t, s).item() - shift
        mean, var = shift + (end - shift) * mean, (end - shift) ** 2 * var + fresh**2
    return mean, var


def off(make, schedule, steps):
    """Error of that law: of its mean and of its variance, added."""
    alpha, sigma = schedule.alpha(T_MIN), schedule.sigma(T_MIN)
    mean, var = law(make, schedule, steps)
    return abs(mean - alpha * MEAN) + abs(var - alpha**2 * VAR - sigma**2)


def last(step, x, ts):
    *_, x = simulate(step, x, ts)
    return x
