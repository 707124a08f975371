"""The chain's posterior, and a bound that is one: by Bayes on a grid, by quadrature, by its definition."""

import math

import pytest
import torch

from lib.data.densities import GaussianMixture, anisotropic_gaussians
from lib.diffusion import VE, VP, Chain, Cosine, Denoiser, ExactDenoiser, SubVP
from lib.diffusion.elbo import (
    Bound,
    chain_elbo,
    chain_times,
    continuous_elbo,
    continuous_steps,
    last_step_log_prob,
    level_of,
    path_log_weight,
    posterior,
    transition,
)

F64 = torch.float64
SCHEDULES = [VP(), SubVP(), VE(0.02, 8.0), Cosine(), Chain.linear(20, 1e-3, 0.4)]
LINE = GaussianMixture([0.35, 0.65], [[-0.9], [0.7]], [[[0.04]], [[0.09]]])


def log_normal(x, mean, var):
    return -0.5 * ((x - mean) ** 2 / var + math.log(2 * math.pi * var))


def normal(x, mean, var):
    return log_normal(x, mean, var).exp()


def off(parts, truth):
    """Distance of a mean from the truth in standard errors."""
    return abs(parts.mean() - truth).item() / (parts.std().item() / len(parts) ** 0.5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("s", "t"), [(0.15, 0.2), (0.35, 0.8)])
def test_posterior_is_bayes_rule_on_a_grid(schedule, s, t):
    """q(x_s | x_0) q(x_t | x_s), multiplied and normalised by quadrature."""
    x_0, x_t = 0.83, -0.41 * schedule.sigma(t) + 0.83 * schedule.alpha(t)
    a, v = transition(schedule, t, s)
    centre, std = schedule.alpha(s) * x_0, schedule.sigma(s)
    grid = torch.linspace(centre - 12 * std, centre + 12 * std, 60_001, dtype=F64)
    p = normal(grid, centre, std**2) * normal(torch.tensor(x_t, dtype=F64), a * grid, v)
    p = p / p.sum()
    want = (p @ grid).item()
    spread = (p @ (grid - want) ** 2).item()
    mean, var = posterior(schedule, torch.tensor([[x_t]]), torch.tensor([[x_0]]), t, s)
    assert mean.item() == pytest.approx(want, rel=1e-5, abs=1e-6)
    assert var == pytest.approx(spread, rel=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_simulated_chain_has_the_marginal_of_the_closed_form(schedule):
    x = torch.full((200_000, 1), 1.3, dtype=F64)
    ts = [0.05, 0.1, 0.3, 0.65, 0.9]
    x_s = schedule.alpha(ts[0]) * x + schedule.sigma(ts[0]) * torch.randn_like(x)
    for s, t in zip(ts, ts[1:], strict=False):
        a, v = transition(schedule, t, s)
        x_s = a * x_s + v**0.5 * torch.randn_like(x)
    mean, std = schedule.alpha(ts[-1]) * 1.3, schedule.sigma(ts[-1])
    assert off(x_s, mean) < 4
    assert off((x_s - mean) ** 2, std**2) < 4


def test_posterior_takes_times_for_each_example():
    x_t, x_0 = torch.randn(4, 3, dtype=F64), torch.randn(4, 3, dtype=F64)
    t = torch.tensor([0.9, 0.5, 0.4, 0.2], dtype=F64)
    s = torch.tensor([0.1, 0.3, 0.2, 0.15], dtype=F64)
    mean, var = posterior(VP(), x_t, x_0, t, s)
    for i in range(4):
        one, v = posterior(VP(), x_t[i : i + 1], x_0[i : i + 1], t[i].item(), s[i].item())
        torch.testing.assert_close(mean[i : i + 1], one)
        assert var[i].item() == pytest.approx(v)
    with pytest.raises(ValueError, match="less noise"):
        posterior(VP(), x_t, x_0, 0.3, 0.3)


def test_ddpm_s_formulas():
    """beta-tilde and the mean of Ho et al. (2020), equations 6 and 7, in their letters."""
    chain, k = Chain.linear(1000), 317
    betas = torch.tensor(chain.betas, dtype=F64)
    bar = (1 - betas).cumprod(0)  # bar[k - 1] is the paper's alpha-bar_k
    beta, before, now = betas[k - 1], bar[k - 2], bar[k - 1]
    x_t, x_0 = torch.randn(5, 2, dtype=F64), torch.randn(5, 2, dtype=F64)
    want = before.sqrt() * beta / (1 - now) * x_0
    want = want + (1 - beta).sqrt() * (1 - before) / (1 - now) * x_t
    mean, var = posterior(chain, x_t, x_0, k / 1000, (k - 1) / 1000)
    torch.testing.assert_close(mean, want, rtol=1e-9, atol=1e-12)
    assert var == pytest.approx(((1 - before) / (1 - now) * beta).item(), rel=1e-9)
    a, v = transition(chain, k / 1000, (k - 1) / 1000)
    assert (a**2, v) == pytest.approx(((1 - beta).item(), beta.item()), rel=1e-9)


@pytest.mark.parametrize("variance", ["posterior", "forward"])
@pytest.mark.parametrize("schedule", [VP(), VE(0.01, 20.0), SubVP()], ids=["VP", "VE", "subVP"])
def test_parts_are_divergences_by_quadrature(schedule, variance):
    """A chain of two states in 1-D, everything by hand on a grid."""
    x, ts = torch.tensor([[0.62]], dtype=F64), [0.7, 0.2]
    denoiser = ExactDenoiser(LINE, schedule)
    t, s = ts
    top, a0 = schedule.sigma(t), schedule.alpha(t)
    u = torch.linspace(-9, 9, 1_001, dtype=F64)  # eps
    w = normal(u, 0, 1) * (u[1] - u[0])
    x_t = a0 * x.item() + top * u
    x_hat = denoiser(x_t[:, None], t)[:, 0]
    mean, var = posterior(schedule, x_t, x.flatten(), t, s)
    mean_hat, _ = posterior(schedule, x_t, x_hat, t, s)
    var_hat = var if variance == "posterior" else transition(schedule, t, s)[1]
    y = mean[:, None] + var**0.5 * u  # draws of q(x_s | x_t, x), by quadrature again
    log_ratio = log_normal(y, mean[:, None], var) - log_normal(y, mean_hat[:, None], var_hat)
    want_steps = (w @ log_ratio @ w).item()
    log_ratio = log_normal(x_t, a0 * x.item(), top**2) - log_normal(x_t, 0, top**2)
    want_prior = (w @ log_ratio).item()
    x_s, std = schedule.alpha(s) * x.item() + schedule.sigma(s) * u, schedule.sigma(s)
    std = std / schedule.alpha(s)
    want_recon = -(w @ log_normal(x.item(), denoiser(x_s[:, None], s)[:, 0], std**2)).item()
    got = chain_elbo(denoiser, x.expand(40_000, 1), ts, variance=variance)
    assert got.prior[0].item() == pytest.approx(want_prior, rel=1e-6)
    assert off(got.steps, want_steps) < 4
    assert off(got.reconstruction, want_recon) < 4
    torch.testing.assert_close(got.total, got.prior + got.steps + got.reconstruction)


@pytest.mark.parametrize(("mixture", "n"), [(LINE, 4_000), (anisotropic_gaussians(), 2_000)])
def test_the_sum_is_a_bound_whose_gap_shrinks(mixture, n):
    """The truth is known: -ELBO + log p >= 0 on average, and less of it with more steps."""
    x = mixture.sample(n).double()
    log_p, gaps = mixture.log_prob(x), []
    denoiser = ExactDenoiser(mixture, VP())
    for T in (10, 40, 160):
        ts = VP().log_snr_times(T - 1, 1e-4)
        gap = chain_elbo(denoiser, x, ts).total + log_p
        assert gap.mean() > 4 * gap.std() / n**0.5  # a bound, and not by luck
        gaps.append(gap.mean().item())
    assert gaps[0] > 2.5 * gaps[1] > 2.5 * 2.5 * gaps[2]


@pytest.mark.parametrize("predict", ["eps", "x"])
def test_the_bound_is_the_mean_log_weight_of_simulated_paths(predict):
    """Any denoiser, right or wrong: the three parts sum to the definition."""
    schedule, ts = VP(), [0.9, 0.5, 0.3, 0.1]

    def net(x, t, c):
        return 0.4 * torch.tanh(1.3 * x + t[:, None])

    denoiser = Denoiser(net, schedule, predict)
    x = torch.tensor([[0.5, -0.8]], dtype=F64).expand(60_000, 2)
    parts, weight = chain_elbo(denoiser, x, ts).total, path_log_weight(denoiser, x, ts)
    error = ((parts.var() + weight.var()) / len(x)).sqrt()
    assert abs(parts.mean() + weight.mean()) < 4 * error < 0.1 * weight.mean().abs()


def test_importance_sampling_lies_between_bound_and_truth():
    """log mean exp of the weights estimates log p of this chain, which no bound can exceed.

    A long chain's p is the mixture's own: what is between them falls like 1 / T.
    """
    x = torch.tensor([[0.55]], dtype=F64).expand(20_000, 1)
    denoiser, found = ExactDenoiser(LINE, VP()), []
    for T in (50, 200):
        log_w = path_log_weight(denoiser, x, VP().log_snr_times(T - 1, 1e-5))
        found.append(log_w.logsumexp(0).item() - math.log(len(x)))
        assert found[-1] > log_w.mean() + 4 * log_w.std() / len(x) ** 0.5
    truth = LINE.log_prob(x[:1]).item()
    assert abs(found[0] - truth) > 0.05
    assert (4 * found[1] - found[0]) / 3 == pytest.approx(truth, abs=0.03)


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_some_terms_at_random_have_the_mean_of_all(variance):
    x = LINE.sample(6_000).double()
    denoiser = ExactDenoiser(LINE, VP())
    every = chain_elbo(denoiser, x, 25, variance=variance).steps
    some = chain_elbo(denoiser, x, 25, variance=variance, draws=3).steps
    assert off(some - every, 0.0) < 4
    assert some.std() > every.std()


def test_many_steps_tend_to_the_integral():
    """Kingma et al. (2021): the sum over the chain falls to the integral, at rate 1 / T."""
    x = LINE.sample(20_000).double()
    denoiser, t_min = ExactDenoiser(LINE, VP()), 1e-2
    torch.manual_seed(1)
    limit = continuous_steps(denoiser, x, t_min, draws=64)
    above = []
    for T in (16, 64):
        ts = VP().log_snr_times(T, t_min)
        diff = chain_elbo(denoiser, x, ts).steps - limit
        above.append(diff.mean().item())
        assert diff.mean() > 4 * diff.std() / len(x) ** 0.5
    assert above[0] / above[1] == pytest.approx(4, rel=0.3)


@pytest.mark.parametrize("schedule", [VP(), VE(0.02, 8.0), SubVP()], ids=["VP", "VE", "subVP"])
def test_the_limit_of_a_gaussian_in_closed_form(schedule):
    """Data N(0, v), SNR s: E(x - x_hat)^2 = v / (1 + s v), so all three parts are elementary."""
    v, t_min = 0.49, 2e-2
    law = GaussianMixture([1.0], [[0.0]], [[[v]]])
    x = law.sample(4_000).double()
    # the points in log SNR are the same for all x: many, so that their own error is a tenth of it
    got = continuous_elbo(ExactDenoiser(law, schedule), x, t_min, draws=256)
    low, high = (math.exp(schedule.log_snr(t)) for t in (1.0, t_min))
    torch.testing.assert_close(got.prior, 0.5 * low * x.square().sum(1))
    assert off(got.steps, 0.5 * math.log((1 + high * v) / (1 + low * v))) < 4
    within = high * v / (1 + high * v)  # squared error of the last guess, in its Gaussian's units
    assert off(got.reconstruction, 0.5 * (within + math.log(2 * math.pi / high))) < 4
    # and together -log p, but for what the ends cost: an x_1 that is not noise, a last step too wide
    ends = 0.5 * (low * v - math.log1p(low * v)) + 0.5 * (within + math.log1p(1 / (high * v)))
    assert off(got.total, law.entropy() - 0.5 + ends) < 4


def test_probabilities_of_levels_sum_to_one():
    n, std = 17, 0.11
    levels = torch.linspace(-1, 1, n, dtype=F64)[:, None]
    for centre in (-1.4, -0.98, 0.03, 1.2):
        log_p = last_step_log_prob(levels, torch.full_like(levels, centre), std, n)
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)
    inner = last_step_log_prob(levels[8:9], torch.full((1, 1), 0.03, dtype=F64), std, n).exp()
    cdf = torch.distributions.Normal(0.03, std).cdf
    want = cdf(torch.tensor(1 / 16, dtype=F64)) - cdf(torch.tensor(-1 / 16, dtype=F64))
    torch.testing.assert_close(inner, want[None], rtol=1e-6, atol=0)
    far = last_step_log_prob(levels, levels.flip(0), 1e-3, n)  # the far tail is finite
    assert far.isfinite().all()


@pytest.mark.parametrize("n", [256, 16_384, 65_536])
def test_levels_are_found_in_float32(n):
    k = torch.cat([torch.arange(9.0), n - 1 - torch.arange(9.0), torch.randint(n, (99,)).float()])
    x = (2 * k.double() / (n - 1) - 1).float()
    assert (level_of(x, n) == k).all()
    with pytest.raises(ValueError, match="levels spread evenly"):
        level_of(x + 0.5 / (n - 1), n)


@pytest.mark.parametrize("n", [2, 17, 33, 34, 256, 65_536])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, F64])
def test_levels_are_found_or_refused_in_any_precision(dtype, n, device):
    """bfloat16 has fewer numbers near 1 than images have levels."""
    k = torch.arange(n, device=device)
    x = (2 * k.double() / (n - 1) - 1).to(dtype)
    if n > {torch.bfloat16: 33, torch.float16: 257}.get(dtype, n):
        with pytest.raises(ValueError, match=f"{dtype} does not tell {n} levels"):
            level_of(x, n)
        return
    assert (level_of(x, n) == k).all() and (level_of(2 * k.to(dtype) / (n - 1) - 1, n) == k).all()
    with pytest.raises(ValueError, match="levels spread evenly"):
        level_of(x[:-1] + 1 / (n - 1), n)


def test_a_bound_of_levels_bounds_their_probabilities():
    """Three levels with known probabilities: the bits of the bound are above the entropy."""
    p = torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    narrow = GaussianMixture(p, [[-1.0], [0.0], [1.0]], [[1e-8]])
    x = torch.tensor([-1.0, 0.0, 1.0], dtype=F64)[p.multinomial(40_000, True)][:, None]
    entropy = -(p * p.log()).sum().item() / math.log(2)
    denoiser, above = ExactDenoiser(narrow, VP()), []
    for T in (20, 200):
        bound = chain_elbo(denoiser, x, VP().log_snr_times(T, 0.02), levels=3).bits(1)
        error = bound.total.std().item() / len(x) ** 0.5
        above.append(bound.total.mean().item() - entropy)
        assert above[-1] > -3 * error
    assert 3 * above[1] < above[0]
    limit = continuous_elbo(denoiser, x, 0.02, levels=3).bits(1).total
    error = limit.std().item() / len(x) ** 0.5
    assert -3 * error < limit.mean().item() - entropy < above[1]


def test_devices_and_precision(device):
    x = LINE.sample(8).float().to(device)
    for draws in (None, 2):
        bound = chain_elbo(ExactDenoiser(LINE, VP()), x, 5, draws=draws)
        assert all(part.dtype == x.dtype and part.device.type == device.type for part in bound)
    steps = continuous_steps(ExactDenoiser(LINE, VP()), x, 0.01, draws=4)
    assert steps.shape == (8,)
    assert steps.device.type == device.type
    bound = continuous_elbo(ExactDenoiser(LINE, VP()), x, 0.01, draws=4)
    assert all(part.dtype == x.dtype and part.device.type == device.type for part in bound)


def test_mistakes_are_explained():
    x, denoiser = torch.zeros(3, 1), ExactDenoiser(LINE, VP())
    with pytest.raises(ValueError, match='"posterior" or "forward"'):
        chain_elbo(denoiser, x, 5, variance="beta")
    with pytest.raises(ValueError, match="must fall"):
        chain_elbo(denoiser, x, [0.1, 0.5])
    with pytest.raises(ValueError, match="17 levels"):
        chain_elbo(denoiser, x + 0.03, 5, levels=17)
    with pytest.raises(ValueError, match="17 levels"):
        continuous_elbo(denoiser, x + 0.03, 0.1, levels=17)
    for late in ([1000, 750, 500, 250, 1], [1.01, 0.5], [math.inf, 0.5]):
        with pytest.raises(ValueError, match=r"times run in \[0, 1\].*k / T"):
            chain_elbo(denoiser, x, late)
    assert chain_times(4) == [1.0, 0.75, 0.5, 0.25]
    bound = Bound(*(torch.ones(2),) * 3).bits(4)
    torch.testing.assert_close(bound.total, torch.full((2,), 3 / (4 * math.log(2))))
