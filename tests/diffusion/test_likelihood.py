"""Likelihoods by the probability flow against the mixture's own, and what each choice costs."""

import itertools
import math

import pytest
import torch

from lib.data.densities import GaussianMixture, anisotropic_gaussians
from lib.diffusion import VE, VP, Cosine, Denoiser, ExactDenoiser, SubVP, ode_field
from lib.diffusion.likelihood import base_log_prob, flow_bits, flow_log_prob
from lib.flows.continuous import ode_log_prob
from lib.unet import UNet

MIXTURE = anisotropic_gaussians()
TIGHT = dict(rtol=1e-7, atol=1e-7)
SCHEDULES = {"vp": VP(), "subvp": SubVP(), "ve": VE(0.001, 50.0), "cosine": Cosine()}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def by_flow(schedule, x, t0=1e-5, field=None, **how):
    """Chapter 8's function, with the mixture's own law at t = 1 as the base."""
    base = MIXTURE.noised(schedule.alpha(1.0), schedule.sigma(1.0)).log_prob
    field = field or ode_field(ExactDenoiser(MIXTURE, schedule))
    return ode_log_prob(field, x, base, t0=t0, **TIGHT | how)[0]


@every_schedule
def test_log_prob_is_the_mixtures(schedule, device):
    x = MIXTURE.sample(100, device=device, dtype=torch.float64)
    torch.testing.assert_close(by_flow(schedule, x), MIXTURE.log_prob(x), rtol=0, atol=1e-4)


@every_schedule
def test_what_remains_is_the_blur_at_the_start(schedule):
    x, t0 = MIXTURE.sample(100, dtype=torch.float64), 1e-2
    there = MIXTURE.noised(schedule.alpha(t0), schedule.sigma(t0)).log_prob(x)
    torch.testing.assert_close(by_flow(schedule, x, t0), there, rtol=0, atol=2e-5)


def test_without_the_half_it_is_not():
    schedule = VP()
    field, x = ode_field(ExactDenoiser(MIXTURE, schedule)), MIXTURE.sample(50, dtype=torch.float64)
    wrong = lambda t, x: 2 * field(t, x) - schedule.sde(float(t))[0] * x
    got = by_flow(schedule, x, t0=1e-2, field=wrong, rtol=1e-5, atol=1e-5)
    assert (got - MIXTURE.log_prob(x)).abs().mean() > 0.5


@every_schedule
def test_the_base_that_sampling_starts_from(schedule):
    """N(0, sigma(1)^2) in place of the exact law at t = 1: wrong by about their distance."""
    x = MIXTURE.sample(100, dtype=torch.float64)
    log_p, z = flow_log_prob(ExactDenoiser(MIXTURE, schedule), x, **TIGHT)
    exact = MIXTURE.noised(schedule.alpha(1.0), schedule.sigma(1.0)).log_prob(z)
    gap = base_log_prob(schedule)(z) - exact
    torch.testing.assert_close(log_p - MIXTURE.log_prob(x), gap, rtol=0, atol=1e-4)
    assert 1e-4 < gap.abs().max() < 0.05


def test_hutchinson_is_unbiased_for_it():
    schedule, x = VP(), MIXTURE.sample(1, dtype=torch.float64).expand(400, 2)
    how = dict(rtol=1e-4, atol=1e-4)
    got = by_flow(schedule, x, trace="hutchinson", probe="gaussian", **how)
    want = MIXTURE.log_prob(x[:1])
    assert (got.mean() - want).abs() < 4 * got.std() / 20 + 2e-3
    assert 0.05 < got.std() < 2


def test_gradients_of_the_likelihood_are_the_score():
    schedule, x = VP(), MIXTURE.sample(5, dtype=torch.float64).requires_grad_()
    log_p = by_flow(schedule, x, rtol=1e-6, atol=1e-6)
    score = torch.autograd.grad(log_p.sum(), x)[0]
    torch.testing.assert_close(score, MIXTURE.score(x.detach()), rtol=1e-2, atol=1e-2)


class TestBits:
    """For D independent Gaussian coordinates the level's mass is a difference of two cdfs."""

    levels, mean, sd = 9, 0.2, 0.4

    def denoiser(self):
        law = GaussianMixture([1.0], [[self.mean]], [[[self.sd**2]]])
        exact = ExactDenoiser(law, VP())
        net = lambda x, t, c: exact(x.reshape(-1, 1), float(t[0])).reshape(x.shape)
        return Denoiser(net, VP(), "x")

    def test_by_quadrature(self):
        """The bound itself, E[-log2 p(x + u)] by quadrature, and above the bits of the level."""
        k = torch.arange(self.levels, dtype=torch.float64)
        x = 2 * k / (self.levels - 1) - 1
        generator = torch.Generator().manual_seed(0)
        rows = x.view(-1, 1, 1, 1).expand(-1, 1, 40, 40)  # images of one level
        got = flow_bits(self.denoiser(), rows, self.levels, generator=generator, trace="hutchinson",
                        rtol=1e-5, atol=1e-5, batch=3)  # fmt: skip
        width = 2 / (self.levels - 1)
        law = torch.distributions.Normal(self.mean, self.sd)
        u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 - 0.5
        log2 = law.log_prob(x[:, None] + width * u) / math.log(2)
        bound = -log2.mean(1) - math.log2(width)
        stderr = log2.std(1) / 40
        assert ((got - bound).abs() < 4 * stderr + 2e-3).all()
        exact = -(law.cdf(x + width / 2) - law.cdf(x - width / 2)).log2()
        assert (bound > exact).all()
        assert (bound - exact).max() < 0.5

    def test_decoded_levels_by_quadrature(self):
        """E[log q(x_t | x) - log p_t(x_t) - log P(x | x_t)] for the Gaussian law, where all is known."""
        t, denoiser = 0.1, self.denoiser()
        x = torch.tensor([-0.75, 0.0, 0.5], dtype=torch.float64)
        rows = x.view(-1, 1, 1, 1).expand(-1, 1, 40, 40)
        generator = torch.Generator().manual_seed(0)
        got = flow_bits(denoiser, rows, self.levels, decode_at=t, generator=generator,
                        trace="hutchinson", rtol=1e-5, atol=1e-5)  # fmt: skip
        alpha, sigma = VP().alpha(t), VP().sigma(t)
        z = torch.linspace(-6, 6, 4001, dtype=torch.float64)
        x_t = alpha * x[:, None] + sigma * z
        var = (alpha * self.sd) ** 2 + sigma**2
        p = torch.distributions.Normal(alpha * self.mean, var**0.5).log_prob(x_t)

        def mass(x, x_t):  # of x's level, an inner one, decoded from x_t
            x_hat = self.mean + alpha * self.sd**2 / var * (x_t - alpha * self.mean)
            bin_ = torch.distributions.Normal(x_hat, sigma / alpha)
            return bin_.cdf(x + half) - bin_.cdf(x - half)

        half, normal = 1 / (self.levels - 1), torch.distributions.Normal(0.0, 1.0).log_prob(z)
        terms = normal - math.log(sigma) - p - mass(x[:, None], x_t).log()
        want = torch.trapezoid(normal.exp() * terms, z) / math.log(2)
        torch.testing.assert_close(got, want, atol=0.05, rtol=0)
        line = torch.linspace(-4, 4, 8001, dtype=torch.float64)
        law = torch.distributions.Normal(alpha * self.mean, var**0.5).log_prob(line).exp()
        exact = -torch.trapezoid(law * mass(x[:, None], line), line).log2()
        assert (want > exact).all() and (want - exact).max() < 1

    @pytest.mark.parametrize("decode_at", [None, 0.02])
    @pytest.mark.parametrize("wrong", [lambda k: k / 8, lambda k: k, lambda k: k / 4 - 0.9])
    def test_what_are_no_levels(self, wrong, decode_at):
        k = torch.arange(self.levels, dtype=torch.float64)[:, None]
        with pytest.raises(ValueError, match="9 levels spread evenly"):
            flow_bits(self.denoiser(), wrong(k), self.levels, decode_at=decode_at, solver="euler")

    def test_same_seed_same_bits(self):
        x = torch.zeros(4, 2, dtype=torch.float64)
        one, two = (
            flow_bits(
                self.denoiser(), x, self.levels, generator=torch.Generator().manual_seed(1), draws=2
            )
            for _ in range(2)
        )
        assert torch.equal(one, two)
        assert one.std() > 0  # rows draw their own noise


def test_of_a_unet_by_every_trace(device):
    """Over all signs Hutchinson's mean is the trace, at each step of a fixed solver."""
    net = UNet(1, width=4, multipliers=(1, 2)).to(device, torch.float64)
    for p in net.parameters():  # a fresh network returns 0
        torch.nn.init.normal_(p, std=0.2)
    x = torch.randn(1, 1, 2, 2, dtype=torch.float64, device=device)
    signs = torch.tensor([*itertools.product((-1.0, 1.0), repeat=4)]).to(x).view(16, 1, 1, 2, 2)
    how = dict(solver="rk4", steps=2)
    want = flow_log_prob(Denoiser(net, VP()), x, trace="hutchinson", probes=signs, **how)[0]
    torch.testing.assert_close(flow_log_prob(Denoiser(net, VP()), x, **how)[0], want)
    with torch.inference_mode():
        got = flow_log_prob(Denoiser(net, VP()), x, trace="hutchinson", probes=signs, **how)[0]
    torch.testing.assert_close(got, want)


def test_probes_by_number_and_from_the_generator(device):
    denoiser = ExactDenoiser(MIXTURE, VP())
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 1.0]], device=device)
    how = dict(trace="hutchinson", solver="rk4", steps=10)
    assert flow_log_prob(denoiser, x, probes=4, **how)[0].shape == (3,)

    def bits(**more):
        generator = torch.Generator(device).manual_seed(3)
        return flow_bits(denoiser, x, 3, generator=generator, **how, **more)

    assert torch.equal(bits(), bits()) and torch.equal(bits(probes=2), bits(probes=2))
    assert not torch.equal(bits(), bits(probes=2))


def test_given_probes_are_shared_out_among_the_parts():
    """The first hundred of 150 images with their probes, alone and with the others."""
    x, probes = torch.randint(3, (150, 2)).double() - 1, torch.ones(1, 150, 2).double()
    how = dict(levels=3, trace="hutchinson", solver="rk4", steps=3)
    denoiser = ExactDenoiser(anisotropic_gaussians(), VP())
    seeded = lambda: torch.Generator().manual_seed(1)
    all_of_them = flow_bits(denoiser, x, probes=probes, generator=seeded(), **how)
    first = flow_bits(denoiser, x[:100], probes=probes[:, :100], generator=seeded(), **how)
    torch.testing.assert_close(all_of_them[:100], first)


@pytest.mark.parametrize("t0", [1.0, 10, -1e-3, math.nan])
def test_the_flow_ends_at_a_time_before_the_noise(t0):
    denoiser, x = ExactDenoiser(MIXTURE, VP()), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="0 <= t0 < 1"):
        flow_log_prob(denoiser, x, t0=t0)
    with pytest.raises(ValueError, match="0 <= t0 < 1"):
        flow_bits(denoiser, x, 3, t0=t0)
