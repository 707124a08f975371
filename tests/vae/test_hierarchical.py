"""The hierarchy against a linear-Gaussian one, where log p(x) and all posteriors are known."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from lib.vae.hierarchical import HierarchicalVAE, Level, diffusion_bound, mlp_levels
from lib.vae.likelihoods import Bernoulli, Categorical, Gaussian

F64 = torch.float64
A, B_STD, SIGMA = 0.8, 0.6, 0.5  # z2 ~ N(0, 1), z1 = A z2 + B_STD e, x = c z1 + mu + SIGMA e


def close_to(samples, want):
    stderr = samples.std(0) / len(samples) ** 0.5
    assert (stderr < 0.05 * (1 + want.abs())).all()
    assert ((samples.mean(0) - want).abs() < 4 * stderr).all(), (samples.mean(0), want, stderr)


def raw(std):
    """What `bounded` turns into log std."""
    return 6 * math.atanh(math.log(std) / 6)


class Take(nn.Module):
    """Columns of the input, as the state."""

    def __init__(self, *columns):
        super().__init__()
        self.columns = columns

    def forward(self, x):
        return x[:, list(self.columns)]


def affine(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight)).double()
    layer.weight.data = torch.tensor(weight, dtype=F64)
    layer.bias.data = torch.tensor(bias, dtype=F64)
    return layer


def linear_hierarchy(device, exact=True, **kwargs):
    """Two levels of one latent each, x in R^3, and log p(x)."""
    c, mu = torch.tensor([1.0, -0.5, 0.7], dtype=F64), torch.tensor([0.3, -0.2, 0.1], dtype=F64)
    var_x = torch.outer(c, c) * (A**2 + B_STD**2) + SIGMA**2 * torch.eye(3, dtype=F64)
    # q(z2 | x) by Bayes: cov(z2, x) = A c'
    gain2 = A * c @ torch.linalg.inv(var_x)
    std2 = (1 - A * gain2 @ c).sqrt().item()
    # q(z1 | x, z2): precision 1 / b^2 + c'c / sigma^2; relative to p = N(A z2, b^2)
    precision = 1 / B_STD**2 + (c @ c).item() / SIGMA**2
    k = c / SIGMA**2 / precision  # mean = A z2 + k (x - mu - c A z2)
    off = 0.0 if exact else 0.4
    state2 = [-(k @ c).item() * A / B_STD]  # of z2 in q1's shift
    # features: x itself; the top state is a zero that is ignored
    level2 = Level(
        affine([[0.0], [0.0]], [0.0, 0.0]),
        affine(
            [[0.0, *gain2.tolist()], [0.0] * 4],
            [-(gain2 @ mu).item() + off, raw(std2) + off],
        ),
        Take(1),
    )
    level1 = Level(
        affine([[A], [0.0]], [0.0, raw(B_STD)]),
        affine(
            [[*state2, *(k / B_STD).tolist()], [0.0] * 4],
            [-(k @ mu).item() / B_STD - off, raw(precision**-0.5 / B_STD) - off],
        ),
        Take(1),
    )
    decoder = affine([[v] for v in c.tolist()], mu.tolist())
    model = HierarchicalVAE(
        [nn.Identity(), nn.Identity()], [level2, level1], decoder, Gaussian(SIGMA), (1,), **kwargs
    ).to(device, F64)
    return model, MultivariateNormal(mu.to(device), var_x.to(device))


def test_bound_is_log_p_at_the_posterior_and_below_elsewhere(device):
    model, truth = linear_hierarchy(device)
    x = torch.randn(4, 3, dtype=F64).to(device)  # for some x the weights are heavy-tailed
    log_p = truth.log_prob(x)
    torch.testing.assert_close(model.log_weights(x, 3), log_p.expand(3, 4))
    close_to(model.elbo(x.repeat(8000, 1)).total.view(-1, 4), log_p)
    assert model.estimate(x, 5).stderr.max() < 1e-10
    loose, _ = linear_hierarchy(device, exact=False)
    many = loose.log_weights(x, 20_000)
    gap = log_p - many.mean(0)
    assert (gap > 0.05).all()
    # the gap: KL of q(z2) and, given z2, of q(z1), each off by 0.4 / std in mean and 0.4 in log std
    close_to(loose.elbo(x.repeat(8000, 1)).total.view(-1, 4), many.mean(0))
    got = loose.estimate(x, 20_000)
    assert ((got.log_prob - log_p).abs() < 4 * got.stderr).all() and (got.stderr < 0.05).all()


def test_divergence_of_each_level(device):
    """The bound's KLs are, in expectation, those of the log-weights, and the top's is exact."""
    model, _ = linear_hierarchy(device, exact=False)
    x = torch.randn(2, 3, dtype=F64, device=device)
    kls = model.kl_levels(x.repeat(20_000, 1))
    assert kls.shape == (40_000, 2) and (kls >= 0).all()
    m, log_scale = model.levels[0].q(x.new_zeros(2, 1), x)
    torch.testing.assert_close(
        kls[:2, 0], (0.5 * (m**2 + (2 * log_scale).exp() - 1) - log_scale)[:, 0]
    )
    features = [h.repeat(20_000, 1) for h in model.features(x)]
    state, zs, _, log_ratio = model.infer(features)
    close_to(-log_ratio.view(-1, 2), kls.sum(1).view(-1, 2).mean(0))
    assert [z.shape for z in zs] == [(40_000, 1)] * 2
    # log p / q by the densities themselves
    mean, log_std = model.levels[1].p(zs[0])
    shift, log_scale = model.levels[1].q(zs[0], features[1])
    p1 = torch.distributions.Normal(mean, log_std.exp())
    q1 = torch.distributions.Normal(mean + log_std.exp() * shift, (log_std + log_scale).exp())
    top_m, top_s = model.levels[0].q(x.new_zeros(40_000, 1), features[0])
    p2 = torch.distributions.Normal(0.0, 1.0)
    q2 = torch.distributions.Normal(top_m, top_s.exp())
    want = p2.log_prob(zs[0]) - q2.log_prob(zs[0]) + p1.log_prob(zs[1]) - q1.log_prob(zs[1])
    torch.testing.assert_close(log_ratio, want[:, 0])


def test_samples_have_the_moments(device):
    model, truth = linear_hierarchy(device)
    x = model.sample(40_000, generator=torch.Generator(device).manual_seed(1))
    close_to(x, truth.mean)
    torch.testing.assert_close(x.T.cov(), truth.covariance_matrix, atol=0.05, rtol=0)
    fixed = model.sample(7, zs=[torch.full((7, 1), 2.0, dtype=F64, device=device)], mean=True)
    assert fixed.std(0).min() > 0.05  # the lower level still varies
    both = [torch.full((7, 1), v, dtype=F64, device=device) for v in (2.0, 1.5)]
    fixed = model.sample(7, zs=both, mean=True)
    torch.testing.assert_close(fixed, model.decoder(both[1]))


def small(likelihood=None, latents=(2, 3), **kwargs):
    likelihood = likelihood or Bernoulli()
    up, levels = mlp_levels(16, latents, 8)
    out = nn.Sequential(nn.Linear(8, likelihood.channels * 16), nn.Unflatten(1, (-1, 4, 4)))
    return HierarchicalVAE(up, levels, out, likelihood, (8,), **kwargs)


@pytest.mark.parametrize("B", [0, 1, 3])
@pytest.mark.parametrize("latents", [(4,), (2, 3), (1, 2, 3)])
def test_shapes_and_gradients(B, latents, device):
    model = small(Categorical(5), latents).to(device)
    x = torch.randint(5, (B, 1, 4, 4), device=device).float()
    assert model(x).shape == model.log_prob(x, 4).shape == (B,)
    assert model.kl_levels(x).shape == (B, len(latents))
    assert model.reconstruct(x).shape == x.shape and model.sample(2).shape == (2, 1, 4, 4)
    if B:
        model(x).mean().backward()
        # at the top the state is one constant for all, and only the last update feeds the decoder
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_convolutional_levels(device):
    """Latents may be images: nothing but the batch and channel dimensions is assumed."""
    pool, grow = nn.AvgPool2d(2), nn.Upsample(scale_factor=2)
    conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1)  # noqa: E731
    levels = [
        Level(conv(4, 4), conv(8, 4), nn.Sequential(conv(6, 4), grow)),
        Level(conv(4, 4), conv(8, 4), nn.Sequential(conv(6, 4), grow)),
    ]
    up = [nn.Sequential(conv(1, 4), pool), nn.Sequential(nn.SiLU(), conv(4, 4), pool)]
    model = HierarchicalVAE(up, levels, conv(4, 1), Bernoulli(), (4, 2, 2)).to(device)
    x = torch.randint(2, (3, 1, 8, 8), device=device).float()
    state, zs, _, _ = model.infer(model.features(x))
    assert [tuple(z.shape) for z in zs] == [(3, 2, 2, 2), (3, 2, 4, 4)]
    assert model(x).shape == (3,) and model.sample(2).shape == (2, 1, 8, 8)
    assert model.log_weights(x, 5).shape == (5, 3)


def test_weights_free_bits_and_importance_loss(device):
    x = torch.randint(2, (6, 1, 4, 4), device=device).float()
    model = small(kl_weight=0.3).to(device)
    torch.manual_seed(1)
    recon, kls = model.bound(x)
    torch.manual_seed(1)
    torch.testing.assert_close(model(x), -recon + 0.3 * sum(kls))
    model.kl_weight, model.free_bits = 1.0, 50.0  # more than any level uses
    torch.manual_seed(1)
    torch.testing.assert_close(model(x).mean(), -recon.mean() + 100)
    model = small(samples=4).to(device)
    torch.manual_seed(1)
    loss = model(x)
    torch.manual_seed(1)
    torch.testing.assert_close(loss, -model.log_weights(x, 4).exp().mean(0).log())


# diffusion, the hierarchy with a fixed encoder


def schedule(T):
    """Equal steps of log SNR from 8 to -8, variance preserving."""
    log_snr = torch.linspace(8, -8, T, dtype=F64)
    return torch.sigmoid(log_snr).sqrt().tolist(), torch.sigmoid(-log_snr).sqrt().tolist()


def test_diffusion_levels_cost_the_error_of_the_guess(device):
    """KL_s = (SNR_s - SNR_t) / 2 |x - x_hat|^2, and none with the right guess."""
    alpha, sigma = schedule(6)
    x = torch.randn(3, 2, dtype=F64, device=device)
    seen = []

    def denoise(z, t):
        seen.append((t, torch.tanh(0.3 * z) + 0.1 * t))
        return seen[-1][1]

    _, kls = diffusion_bound(x, denoise, alpha, sigma)
    assert len(kls) == 6 and [t for t, _ in seen] == [6, 5, 4, 3, 2, 1]
    snr = [(a / s) ** 2 for a, s in zip(alpha, sigma, strict=True)]
    for kl, (t, x_hat) in zip(kls[1:], seen[:-1], strict=True):
        want = (snr[t - 2] - snr[t - 1]) / 2 * (x - x_hat).square().sum(1)
        torch.testing.assert_close(kl, want)
    _, kls = diffusion_bound(x, lambda z, t: x, alpha, sigma)
    assert max(kl.abs().max() for kl in kls[1:]) < 1e-12


def test_diffusion_bound_approaches_log_p(device):
    """x ~ N(0, 0.49) with its exact denoiser: below log p(x) and closer with more levels."""
    var = 0.49
    x = torch.linspace(-1.2, 1.2, 5, dtype=F64, device=device)[:, None]
    log_p = torch.distributions.Normal(0.0, var**0.5).log_prob(x)[:, 0]
    gaps = []
    for T in (5, 50, 500):
        alpha, sigma = schedule(T)
        exact = lambda z, t: alpha[t - 1] * var / (alpha[t - 1] ** 2 * var + sigma[t - 1] ** 2) * z  # noqa: B023
        recon, kls = diffusion_bound(x.repeat(2000, 1), exact, alpha, sigma)
        gaps.append((log_p - (recon - sum(kls)).view(-1, 5).mean(0)).mean().item())
    assert gaps[0] > 3 * gaps[1] > 15 * gaps[2] > -0.1 and gaps[2] < 0.1, gaps


def test_a_reconstruction_is_the_path_without_noise(monkeypatch):
    torch.manual_seed(1)
    model, x = small(latents=(2, 3)), torch.rand(4, 1, 4, 4).round()
    for level in model.levels:  # a prior and a posterior that are not at the origin
        for weight in level.parameters():
            nn.init.normal_(weight, std=0.6)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    state, *_ = model.infer(model.features(x))
    want = model.likelihood.mean(model.decoder(state))
    torch.testing.assert_close(model.reconstruct(x), want)


def test_errors_are_one_sentence():
    model, x = small(), torch.ones(3, 1, 4, 4)
    with pytest.raises(ValueError, match="HierarchicalVAE takes no context"):
        model(x, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="whole levels"):
        model(x * 0.5)
    with pytest.raises(TypeError, match="float32 parameters"):
        model(x.double())
    with pytest.raises(ValueError, match="NaN"):
        model(x * math.nan)
    with pytest.raises(ValueError, match="one network in `up` for each level, got 1 and 2"):
        HierarchicalVAE([nn.Identity()], list(model.levels), model.decoder, Bernoulli(), (8,))
    with pytest.raises(ValueError, match="samples=1 only"):
        small(free_bits=1.0, samples=2)
    with pytest.raises(ValueError, match="up to 2 tensors of 3 rows"):
        model.sample(3, zs=[torch.zeros(2, 2)])
    with pytest.raises(ValueError, match="n must be at least 1"):
        model.sample(0)
    with pytest.raises(ValueError, match="one per level"):
        diffusion_bound(x, lambda z, t: z, [0.9], [])
    with pytest.raises(ValueError, match="the noise must grow"):
        diffusion_bound(x, lambda z, t: z, [0.5, 0.9], [0.8, 0.4])


def test_divergences_under_autocast_are_sums_in_full_precision(device):
    up, levels = mlp_levels(6, (40, 40), width=16)
    model = HierarchicalVAE(up, levels, nn.Linear(16, 6), Bernoulli(), (16,)).to(device)
    x = torch.rand(8, 6, device=device).round()
    with torch.autocast(device.type, torch.bfloat16):
        kl = model.kl_levels(x)
        state, zs, _, _ = model.infer(model.features(x))
    assert kl.dtype == state.dtype == x.dtype and {z.dtype for z in zs} == {x.dtype}
