"""The autoencoder's bound against torch.distributions and sampling; its shapes and its errors."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from lib.vae.autoencoder import Autoencoder, KLAutoencoder


def small(**options):
    torch.manual_seed(3)
    model = KLAutoencoder(2, latent=3, width=8, **options).double()
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return model


def test_shapes_and_determinism(device):
    model = small().to(device)
    x = torch.rand(4, 2, 16, 8, dtype=torch.float64, device=device)
    z = model.latents(x)
    assert z.shape == (4, 3, 4, 2) and model.decode(z).shape == x.shape
    assert torch.equal(model.reconstruct(x), model.decode(z))
    assert model(x).shape == (4,)
    one_by_one = torch.func.vmap(lambda x: model.features(x[None])[0])(x)  # where no value is seen
    torch.testing.assert_close(one_by_one, model.features(x))


def test_the_bound_against_torch_distributions():
    model, x = small(noise=0.3), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    mean, log_std = model.encode(x)
    torch.manual_seed(0)
    got = model.elbo(x)
    torch.manual_seed(0)
    z = model.posterior(x)
    recon = Normal(model.decode(z), 0.3).log_prob(x).flatten(1).sum(1)
    kl = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(got.recon, recon)
    torch.testing.assert_close(got.kl, kl)
    for weight in (0.0, 0.7):
        model.kl_weight = weight
        torch.manual_seed(0)
        torch.testing.assert_close(model(x), weight * kl - recon)


def test_draws_have_the_posterior_s_mean_and_deviation():
    model, x = small(), torch.rand(1, 2, 8, 8, dtype=torch.float64)
    mean, log_std = (a.detach() for a in model.encode(x))
    z = model.posterior(x.expand(20_000, -1, -1, -1)).detach()
    stderr = log_std.exp()[0] / math.sqrt(20_000)
    assert ((z.mean(0) - mean[0]).abs() < 5 * stderr).all()
    torch.testing.assert_close(z.std(0), log_std.exp()[0], rtol=0.03, atol=0)


def test_errors_say_what_was_expected():
    model = small()
    with pytest.raises(ValueError, match=r"images must be \(B, 2, H, W\) with H and W multiples"):
        model(torch.rand(1, 2, 8, 6, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"latents must be \(B, 3, h, w\), got \(1, 2, 2, 2\)"):
        model.decode(torch.zeros(1, 2, 2, 2))
    with pytest.raises(ValueError, match="noise is above 0"):
        KLAutoencoder(noise=0.0)
    with pytest.raises(NotImplementedError, match="must define latents"):
        Autoencoder(1, 2, 4).latents(torch.zeros(1, 1, 4, 4))


def test_the_divergence_under_autocast_is_a_sum_in_full_precision(device):
    model = KLAutoencoder(1, latent=2, width=8).to(device)
    x = torch.rand(3, 1, 16, 16, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        kl, (mean, log_std) = model.elbo(x).kl, model.encode(x)
    want = kl_divergence(
        Normal(mean.double(), log_std.double().exp()),
        Normal(torch.zeros_like(mean).double(), 1.0),
    )
    torch.testing.assert_close(kl.double(), want.sum((1, 2, 3)), rtol=1e-5, atol=1e-6)
