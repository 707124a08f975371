"""Samplers with the exact score converge at the rate that theory says.

For Gaussian data every step is an affine map of the state plus Gaussian noise, so the law of what a
sampler returns is known without a single draw, and so is its error.
"""

import math
from functools import partial

import pytest
import torch

from lib.diffusion import (
    ExactDenoiser,
    ancestral,
    ode_field,
)
from lib.ode import solve_adaptive
from tests.diffusion.laws import (
    GAUSSIAN,
    MEAN,
    MIXTURE,
    SCHEDULES,
    T_MIN,
    VAR,
    every_deterministic,
    every_schedule,
    every_stochastic,
    last,
    off,
    start,
)


@every_schedule
@every_stochastic
def test_stochastic_samplers_have_weak_order_one(make, schedule):
    coarse, fine = (off(make, schedule, n) for n in (150, 300))
    assert abs(math.log2(coarse / fine) - 1) < 0.15
    assert fine < 0.06


@pytest.fixture(scope="module")
def truth():
    """Points of each schedule's law at t = 1, and where the exact probability flow takes them."""
    torch.manual_seed(0)
    out = {}
    for schedule in SCHEDULES.values():
        x, field = start(MIXTURE, schedule, 20), ode_field(ExactDenoiser(MIXTURE, schedule))
        out[schedule] = x, solve_adaptive(field, x, 1.0, T_MIN, rtol=1e-10, atol=1e-10).x
    return out


GRIDS = [*(("log_snr_times", s) for s in SCHEDULES.values()), ("times", SCHEDULES["vp"])]


@pytest.mark.parametrize(("grid", "schedule"), GRIDS, ids=[*SCHEDULES, "vp, equal in t"])
@every_deterministic
def test_order_of_convergence_to_the_probability_flow(make, order, schedule, grid, truth):
    x, want = truth[schedule]
    step = make(ExactDenoiser(MIXTURE, schedule))
    ts = partial(getattr(schedule, grid), t_min=T_MIN)
    a, b = ((last(step, x, ts(n)) - want).square().mean().sqrt() for n in (160, 320))
    if grid == "times":  # equal in t the constants are not yet those of the limit: bounds only
        assert math.log2(a / b) > order - 0.2
    else:
        assert abs(math.log2(a / b) - order) < 0.15
    assert b < (0.02 if order == 1 else 2e-3)


@every_schedule
@every_deterministic
def test_deterministic_samplers_carry_the_law_of_gaussian_data(make, order, schedule):
    """An affine map: two points tell the mean and the variance."""
    sd = (schedule.alpha(1.0) ** 2 * VAR + schedule.sigma(1.0) ** 2) ** 0.5
    x = schedule.alpha(1.0) * MEAN + torch.tensor([[0.0], [sd]], dtype=torch.float64)
    alpha, sigma = schedule.alpha(T_MIN), schedule.sigma(T_MIN)
    errors = []
    for n in (200, 400):
        y = last(make(ExactDenoiser(GAUSSIAN, schedule)), x, schedule.log_snr_times(n, T_MIN))
        mean, var = y[0].item(), (y[1] - y[0]).item() ** 2
        errors.append(abs(mean - alpha * MEAN) + abs(var - alpha**2 * VAR - sigma**2))
    assert errors[1] < 0.03
    assert math.log2(errors[0] / errors[1]) > order - 0.15


def test_ddim_with_the_wrong_sigma_misses_the_law():
    """sigma_t where sigma_s belongs: the error no longer vanishes. In Heun, the order drops."""
    schedule = SCHEDULES["vp"]

    def wrong(denoiser, noise):
        def step(x_t, t, s):
            x_hat, eps_hat = denoiser.split(x_t, t)
            return schedule.alpha(s) * x_hat + schedule.sigma(t) * eps_hat

        return step

    right = lambda denoiser, noise: ancestral(denoiser, eta=0.0)
    assert off(wrong, schedule, 640) > 0.2 > 20 * off(right, schedule, 640)
