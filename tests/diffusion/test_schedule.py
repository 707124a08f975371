"""Schedules: closed forms of their SDEs, floats against tensors, the chain and its limit."""

import math

import pytest
import torch

from lib.diffusion import VE, VP, Chain, Cosine, Schedule, SubVP
from lib.diffusion.chain import posterior

F64 = torch.float64
SCHEDULES = [
    VP(0.2, 17.0),
    SubVP(0.2, 17.0),
    VE(0.03, 9.0),
    Cosine(12.0),
    Chain.linear(50, 1e-3, 0.2),
]
NAMES = [type(s).__name__ for s in SCHEDULES]
TIMES = [0.013, 0.2, 0.5, 0.777, 0.98]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
def test_floats_and_tensors_agree(schedule, device):
    t = torch.tensor(TIMES, dtype=F64, device=device)
    for name in ("alpha", "sigma", "log_snr", "log_snr_rate"):
        f = getattr(schedule, name)
        got = f(t)
        assert got.dtype == F64
        assert got.device.type == device.type
        assert all(isinstance(f(v), float) for v in TIMES)
        torch.testing.assert_close(got.cpu(), torch.tensor([f(v) for v in TIMES], dtype=F64))
    f, g2 = schedule.sde(t)
    pairs = torch.tensor([schedule.sde(v) for v in TIMES], dtype=F64)
    torch.testing.assert_close(torch.stack([f, g2], 1).cpu(), pairs)
    assert schedule.alpha(t[:, None].expand(5, 2)).shape == (5, 2)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
def test_signal_falls_and_the_sde_has_these_marginals(schedule):
    """d alpha/dt = f alpha and d sigma^2/dt = 2 f sigma^2 + g^2, by central differences."""
    h = 1e-5
    for t in (0.213, 0.507, 0.913):  # off the chain's corners
        f, g2 = schedule.sde(t)
        d_alpha = (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h)
        d_var = (schedule.sigma(t + h) ** 2 - schedule.sigma(t - h) ** 2) / (2 * h)
        assert d_alpha == pytest.approx(f * schedule.alpha(t), rel=1e-6, abs=1e-8)
        assert d_var == pytest.approx(2 * f * schedule.sigma(t) ** 2 + g2, rel=1e-6)
        rate = (schedule.log_snr(t + h) - schedule.log_snr(t - h)) / (2 * h)
        assert schedule.log_snr_rate(t) == pytest.approx(rate, rel=1e-6)
        assert rate < 0 < g2


def test_closed_forms():
    """Song et al. (2021), table of SDEs: drift, diffusion and both moments."""
    low, high, t = 0.3, 14.0, 0.37
    beta = low + t * (high - low)
    integral = low * t + 0.5 * t * t * (high - low)
    vp, sub = VP(low, high), SubVP(low, high)
    assert vp.alpha(t) == pytest.approx(math.exp(-integral / 2), rel=1e-12)
    assert vp.sigma(t) ** 2 == pytest.approx(1 - math.exp(-integral), rel=1e-12)
    assert vp.sde(t) == pytest.approx((-beta / 2, beta), rel=1e-10)
    assert sub.sigma(t) == pytest.approx(1 - math.exp(-integral), rel=1e-12)
    assert sub.sde(t) == pytest.approx((-beta / 2, beta * (1 - math.exp(-2 * integral))), rel=1e-10)
    ve = VE(0.02, 30.0)
    assert ve.sigma(t) == pytest.approx(0.02 * (30 / 0.02) ** t, rel=1e-12)
    assert ve.sde(t) == pytest.approx((0.0, 2 * math.log(1500) * ve.sigma(t) ** 2), rel=1e-10)


def test_cosine_keeps_its_limits():
    for limit in (3.0, 20.0):
        schedule = Cosine(limit)
        assert (schedule.log_snr(0.0), schedule.log_snr(1.0)) == pytest.approx((limit, -limit))
        assert schedule.alpha(0.3) ** 2 + schedule.sigma(0.3) ** 2 == pytest.approx(1)
    # Nichol and Dhariwal's own is cos^2(pi t / 2), but for a shift of 0.008
    assert Cosine(60.0).alpha(0.3) == pytest.approx(math.cos(0.15 * math.pi), rel=1e-9)


def test_small_sigma_keeps_its_digits():
    """sigma^2 near t = 0 is beta_min t (1 + ...): 1 - exp would be rounded away."""
    for t in (1e-12, 1e-9):
        assert VP().sigma(t) == pytest.approx(math.sqrt(0.1 * t), rel=1e-6)
    t = torch.tensor([1e-7])
    torch.testing.assert_close(VP().sigma(t), torch.tensor([1e-4]), rtol=1e-4, atol=0)


def test_chain_is_the_product_of_its_betas():
    betas = [0.05, 0.21, 0.4, 0.13]
    chain, left = Chain(betas), 1.0
    for k, b in enumerate(betas, 1):
        left *= 1 - b
        assert chain.alpha(k / 4) ** 2 == pytest.approx(left, rel=1e-12)
        assert chain.sigma(k / 4) ** 2 == pytest.approx(1 - left, rel=1e-12)
    assert (chain.alpha(0.0), chain.sigma(0.0)) == (1.0, 0.0)
    t = torch.rand(20, dtype=F64)
    torch.testing.assert_close(chain.alpha(t) ** 2 + chain.sigma(t) ** 2, torch.ones_like(t))
    ddpm = Chain.linear()
    assert (ddpm.betas[0], ddpm.betas[-1], len(ddpm.betas)) == pytest.approx((1e-4, 0.02, 1000))
    assert ddpm.alpha(1.0) ** 2 == pytest.approx(4.0e-5, rel=0.02)  # what the paper starts from


@pytest.mark.parametrize("t", [0.25, 0.5, 1.0])
def test_ddpm_s_chain_tends_to_vp_at_rate_one_over_steps(t):
    """betas linear from beta_min / T to beta_max / T: log alpha-bar differs by O(1 / T)."""
    limit, errors = VP(0.1, 20.0), []
    for T in (100, 200, 400, 800):
        chain = Chain.linear(T, 0.1 / T, 20 / T)
        errors.append(abs(math.log(chain.alpha(t) / limit.alpha(t))))
    for a, b in zip(errors, errors[1:], strict=False):
        assert a / b == pytest.approx(2, rel=0.2)


def test_chain_of_a_schedule_visits_it():
    chain = Chain.of(VP(), 40)
    for k in (1, 7, 40):
        assert chain.alpha(k / 40) == pytest.approx(VP().alpha(k / 40), rel=1e-10)
        assert chain.sigma(k / 40) == pytest.approx(VP().sigma(k / 40), rel=1e-9)
    with pytest.raises(ValueError, match="VE is not variance preserving"):
        Chain.of(VE(), 10)
    with pytest.raises(ValueError, match="SubVP is not variance preserving"):
        Chain.of(SubVP(), 10)
    with pytest.raises(ValueError, match="SubVP is not variance preserving"):
        Chain.of(SubVP(1e-3, 20.0), 5_000)  # at first it is, nearly
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Chain.of(VP(), 0)


@pytest.mark.parametrize("schedule", [VP(), VE(), Cosine()], ids=["VP", "VE", "Cosine"])
def test_times(schedule):
    ts = schedule.times(10, 0.01)
    assert len(ts) == 11
    assert (ts[0], ts[-1]) == (1.0, 0.01)
    assert all(a - b == pytest.approx(0.099) for a, b in zip(ts, ts[1:], strict=False))
    ts = schedule.log_snr_times(8, 0.05, 0.9)
    assert (ts[0], ts[-1], len(ts)) == (0.9, 0.05, 9)
    values = [schedule.log_snr(t) for t in ts]
    gaps = [b - a for a, b in zip(values, values[1:], strict=False)]
    assert gaps == pytest.approx([gaps[0]] * 8, rel=1e-6)
    assert schedule.time_of(schedule.log_snr(0.314)) == pytest.approx(0.314, rel=1e-9)


@pytest.mark.parametrize("schedule", [VP(), VE(), Cosine(10.0)], ids=["VP", "VE", "Cosine"])
def test_time_of_the_ends_themselves(schedule):
    """Also of their float32 neighbours, as a tensor of values between them has."""
    for t in (1.0, 1e-9):
        end = schedule.log_snr(t)
        values = torch.linspace(end, 0.0, 2, dtype=torch.float32)
        for value in (end, values[0].item()):
            assert schedule.time_of(value) == pytest.approx(t, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP(0.0, 3.0), "beta_min"),
        (lambda: VP(4.0, 3.0), "beta_min"),
        (lambda: VE(2.0, 1.0), "sigma_min"),
        (lambda: Cosine(0.0), "above 0"),
        (lambda: Chain([]), "at least one"),
        (lambda: Chain([0.1, 1.0]), "between 0 and 1"),
        (lambda: VP().times(0), "whole number from 1"),
        (lambda: VP().times(2.0), "whole number from 1"),
        (lambda: VP().times(5, 0.5, 0.4), "t_min below t_max"),
        (lambda: VP().log_snr_times(5, -0.1), "run in"),
        (lambda: VP().log_snr_times(5, 0.0), "sigma is 0 at t = 0"),
        (
            lambda: Cosine(10.0).time_of(11.0),
            "no time of this Cosine has log_snr = 11.*nearest.*10",
        ),
        (lambda: VP().time_of(-11.0), "the nearest has -10.0"),
        (lambda: VP().time_of(math.nan), "log_snr = nan"),
        (lambda: VP().time_of(math.inf), "log_snr = inf"),
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_must_say_what_it_is():
    with pytest.raises(NotImplementedError, match="Schedule must define alpha"):
        Schedule().alpha(0.5)
    with pytest.raises(NotImplementedError, match="Schedule must define sigma"):
        Schedule().sigma(0.5)


@pytest.mark.parametrize(
    "schedule", [VP(), SubVP(), VE(), Cosine(), Chain.linear(10)], ids=lambda s: type(s).__name__
)
def test_the_sde_at_the_data_is_the_limit(schedule, device):
    """VP's sigma has an infinite slope at 0, its square has none."""
    for at, near in zip(schedule.sde(0.0), schedule.sde(1e-7), strict=True):
        assert at == pytest.approx(near, rel=1e-4, abs=1e-6)
    t = torch.tensor([0.0, 0.5], dtype=F64, device=device)
    assert all(v.isfinite().all() for v in schedule.sde(t))
    assert schedule.variance(0.3) == pytest.approx(schedule.sigma(0.3) ** 2, rel=1e-12)


def test_vp_at_zero_is_beta():
    assert VP(0.1, 20.0).sde(0.0) == pytest.approx((-0.05, 0.1))


def test_a_schedule_is_fixed_once_it_is_made():
    """Samplers and `sde` remember its values by the time alone."""
    vp = VP()
    vp.sde(0.5)
    with pytest.raises(AttributeError, match="VP is fixed once it is made.*with this beta_max"):
        vp.beta_max = 2.0


def test_the_posterior_tells_times_apart_that_float32_does_not():
    schedule = Cosine(30.0)
    t, s = schedule.log_snr_times(1000)[:2]
    assert torch.tensor(s) == torch.tensor(t) and s < t
    x = torch.ones(3, 2, dtype=F64)
    assert posterior(schedule, x, 0 * x, t, s)[0].isfinite().all()
    with pytest.raises(ValueError, match="s < t is needed"):
        posterior(schedule, x, 0 * x, torch.tensor([t, s, t]), torch.tensor([s, s, s]))
