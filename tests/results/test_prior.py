"""A VAE with a diffusion prior: its bound against densities simulated, and against exact cases."""

import math

import pytest
import torch

from lib.data.densities import GaussianMixture
from lib.diffusion import VP, Denoiser, Diffusion, ExactDenoiser
from lib.diffusion.elbo import path_log_weight
from lib.flows.builders import iaf
from lib.results.nets import VectorNet
from lib.results.prior import DiffusionPrior
from lib.vae.likelihoods import Gaussian
from lib.vae.nets import mlp_decoder, mlp_encoder
from lib.vae.vae import VAE

F64, TIMES = torch.float64, [1.0, 0.6, 0.35, 0.15]


def small_vae(flow=None, context=0):
    encoder, decoder = mlp_encoder((3,), 4 + context, 16), mlp_decoder(2, (3,), 1, 16)
    return VAE(encoder, decoder, Gaussian(0.7), 2, posterior_flow=flow).double()


def model(denoiser=None):
    vae = small_vae()
    made = DiffusionPrior(vae, Diffusion(denoiser or guess(), 2)).double()
    with torch.no_grad():
        for p in vae.parameters():
            p.mul_(1.5)
        made.shift.copy_(torch.tensor([0.3, -0.2]))
        made.scale.copy_(torch.tensor([1.7, 2.3]))
    return made


def guess():
    return Denoiser(lambda u, t, c: 0.7 * torch.tanh(u.flip(1) + t[:, None]), VP(), "x")


def test_bound_is_the_mean_log_ratio_of_all_densities():
    made, x = model(), torch.randn(1, 3, dtype=F64).expand(100_000, 3)
    with torch.no_grad():
        bound, (z, log_q) = made.bound(x, TIMES).total, made.vae.posterior(x)
        u = (z - made.shift) / made.scale
        log_w = made.vae.likelihood.log_prob(x, made.vae.decode(z)) - log_q
        log_w += path_log_weight(made.diffusion.denoiser, u, TIMES) - made.scale.log().sum()
    error = ((bound.var() + log_w.var()) / len(x)).sqrt()
    assert abs(bound.mean() + log_w.mean()) < 4 * error < 0.03 * bound.mean()


def test_an_exact_diffusion_of_the_prior_costs_what_the_prior_costs():
    """If the scaled latents are N(0, I) under the prior, many steps of its exact denoiser give it."""
    law = GaussianMixture([1.0], torch.zeros(1, 2), torch.eye(2))
    made = model(ExactDenoiser(law, VP()))
    made.shift.zero_(), made.scale.fill_(1.0)
    x, losses = torch.randn(1, 3, dtype=F64).expand(4_000, 3), []
    for steps in (250, 1_000):
        times = VP().log_snr_times(steps, 1e-3)
        torch.manual_seed(5)  # the same draws of z for both, whose noise cancels
        chain = made.bound(x, times).total
        torch.manual_seed(5)
        losses.append((chain - made.standard_bound(x).total).mean().item())
    assert losses[0] == pytest.approx(4 * losses[1], rel=0.4), (
        "what steps cost falls like 1 / steps"
    )
    assert 0 < losses[1] < 0.15


def test_standard_bound_is_the_vaes_own():
    """Part by part: the same reconstruction, and a divergence whose mean over z is in closed form."""
    made, x = model(), torch.randn(1, 3, dtype=F64).expand(50_000, 3)
    with torch.no_grad():
        parts, kl = made.standard_bound(x), made.vae.elbo(x[:1]).kl
        torch.manual_seed(7)
        recon = made.standard_bound(x[:5]).reconstruction
        torch.manual_seed(7)
        torch.testing.assert_close(-recon, made.vae.elbo(x[:5]).recon)
    mine = parts.prior - parts.entropy
    error = mine.std() / len(x) ** 0.5
    assert abs(mine.mean() - kl[0]) < 4 * error < 0.1


def test_scale_is_that_of_the_latents():
    made = model()
    made.fit_scale(torch.randn(20_000, 3, dtype=F64))
    z = made.vae.posterior(torch.randn(20_000, 3, dtype=F64))[0]
    u = (z - made.shift) / made.scale
    assert u.mean(0).abs().max() < 0.03 and (u.std(0) - 1).abs().max() < 0.03


def test_a_scale_needs_two_examples():
    made = model()
    with pytest.raises(ValueError, match="at least 2 examples, got 1"):
        made.fit_scale(torch.randn(1, 3, dtype=F64))
    assert made.scale.isfinite().all()


def test_the_vae_is_not_trained_and_stays_in_eval_mode():
    made = DiffusionPrior(small_vae(), Diffusion(Denoiser(VectorNet(2).double(), VP(), "v"), 2))
    assert not made.vae.training  # before the first call of `train` as well
    made.train()
    made(torch.randn(5, 3, dtype=F64)).mean().backward()
    assert not made.vae.training and all(p.grad is None for p in made.vae.parameters())
    assert all(p.grad is not None for p in made.diffusion.parameters())


def test_samples_follow_the_decoder_of_an_exact_prior():
    law = GaussianMixture([1.0], torch.zeros(1, 2), torch.eye(2))
    made = model(ExactDenoiser(law, VP()))
    x = made.sample(20_000, VP().log_snr_times(100, 1e-3))
    z = torch.randn(20_000, 2, dtype=F64) * made.scale + made.shift
    want = made.vae.likelihood.sample(made.vae.decode(z))
    error = (x.var(0) + want.var(0)).sqrt() / math.sqrt(20_000)
    assert ((x.mean(0) - want.mean(0)).abs() < 4.5 * error).all()


def test_mistakes():
    with pytest.raises(ValueError, match="without a flow"):
        DiffusionPrior(small_vae(iaf(2, 1, 8, 1, 4), 4), Diffusion(guess(), 2))
    with pytest.raises(ValueError, match=r"of \(2,\), the latents, got \(3,\)"):
        DiffusionPrior(small_vae(), Diffusion(guess(), 3))
