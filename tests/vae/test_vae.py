"""The VAE against the linear-Gaussian model, where log p(x), the posterior and gradients are known."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from lib.flows import Affine, Compose, Inverse, LULinear, Monotone
from lib.flows.autoregressive import MaskedAutoregressive
from lib.flows.continuous import Continuous, FieldNet, set_solver
from lib.flows.planar import PlanarFlow
from lib.flows.radial import Radial
from lib.flows.sylvester import Sylvester
from lib.flows.transform import Transform
from lib.nets import Residual
from lib.train import fit
from lib.utils import std_normal_log_prob
from lib.vae import LinearGaussian, kl_full
from lib.vae.likelihoods import Bernoulli, Categorical, DiscretisedLogistic, Gaussian
from lib.vae.nets import conv_decoder, conv_encoder, mlp_decoder, mlp_encoder
from lib.vae.vae import VAE, bounded

F64 = torch.float64
STD = 0.6


def close_to(samples, want):
    """The mean over dim 0 is within 4 standard errors of `want`, and these are small."""
    stderr = samples.std(0) / len(samples) ** 0.5
    assert (stderr < 0.05 * (1 + want.abs())).all()
    assert ((samples.mean(0) - want).abs() < 4 * stderr).all(), (samples.mean(0), want, stderr)


def linear_vae(device, D=5, d=2, at_posterior=False, **kwargs):
    """A VAE of two linear maps, and the LinearGaussian with the same p(x, z)."""
    truth = LinearGaussian(D, d).to(device, F64)
    with torch.no_grad():
        truth.W.copy_(torch.linalg.qr(torch.randn(D, d, dtype=F64))[0] * torch.tensor([1.3, 0.7]))
        truth.mu.copy_(torch.randn(D))
        truth.log_sigma.fill_(math.log(STD))
    encoder, decoder = nn.Linear(D, 2 * d), nn.Linear(d, D)
    vae = VAE(encoder, decoder, Gaussian(STD), d, **kwargs).to(device, F64)
    with torch.no_grad():
        decoder.weight.copy_(truth.W)
        decoder.bias.copy_(truth.mu)
        encoder.weight[d:].mul_(0.3)
        if at_posterior:
            truth.set_posterior()
            encoder.weight.zero_()
            encoder.weight[:d].copy_(truth.A)
            encoder.bias[:d].copy_(truth.b)
            encoder.bias[d:].copy_(6 * torch.atanh(truth.log_std / 6))  # undoes `bounded`
    return vae, truth


# the bound


def test_bound_is_log_p_at_the_posterior_and_below_elsewhere(device):
    vae, truth = linear_vae(device, at_posterior=True)
    x = torch.randn(7, 5, dtype=F64, device=device)
    log_p = truth.log_prob(x)
    torch.testing.assert_close(vae.log_weights(x, 3), log_p.expand(3, 7))  # for every z
    close_to(vae.elbo(x.repeat(4000, 1)).total.view(-1, 7), log_p)
    torch.testing.assert_close(vae.log_prob(x, samples=2), log_p)
    vae, truth = linear_vae(device)
    mean, log_std = vae.encode(x)
    m, cov = truth.posterior(x)
    gap = kl_full(mean, (2 * log_std).exp().diag_embed(), m, cov)
    assert (gap > 0.01).all()
    close_to(vae.log_weights(x, 20_000), truth.log_prob(x) - gap)
    close_to(vae.elbo(x.repeat(6000, 1)).total.view(-1, 7), truth.log_prob(x) - gap)


def test_parts_of_the_bound_and_the_loss(device):
    vae, _ = linear_vae(device, kl_weight=0.3)
    x = torch.randn(6, 5, dtype=F64, device=device)
    mean, log_std = vae.encode(x)
    z, log_q = vae.posterior(x, 30_000)
    want = MultivariateNormal(mean, (2 * log_std).exp().diag_embed()).log_prob(z)
    torch.testing.assert_close(log_q, want)
    close_to(log_q - std_normal_log_prob(z.flatten(0, 1)).view(-1, 6), vae.elbo(x).kl)
    torch.testing.assert_close(vae.kl_dims(x).sum(1), vae.elbo(x).kl)
    z1, log_q1 = vae.posterior(x)
    assert z1.shape == (6, 2) and log_q1.shape == (6,)
    for seed in range(3):
        torch.manual_seed(seed)
        recon, kl = vae.elbo(x)
        torch.manual_seed(seed)
        torch.testing.assert_close(vae(x), -recon + 0.3 * kl)


def test_importance_bound_rises_to_log_p_and_its_error_is_honest(device):
    vae, truth = linear_vae(device)
    x = torch.randn(1, 5, dtype=F64).to(device)  # for some x the weights are heavy-tailed
    log_p = truth.log_prob(x).item()
    many, means, errors = x.expand(3000, -1), [], []
    for k in (1, 2, 5, 20, 100):
        bounds = vae.log_prob(many, samples=k)
        means.append(bounds.mean().item())
        errors.append((bounds.std() / 3000**0.5).item())
    assert all(b > a - 4 * e for a, b, e in zip(means, means[1:], errors[1:], strict=False))
    assert means[0] < means[1] < means[2] < log_p + 4 * errors[2]
    close_to(vae.log_prob(x.expand(4000, -1), samples=1)[:, None], vae.elbo(x, n=50_000).total)
    got = vae.estimate(many[:400], samples=2000)
    off = (got.log_prob - log_p) / got.stderr
    assert off.std().item() == pytest.approx(1, abs=0.25) and off.mean().abs() < 0.3
    assert (got.ess > 100).all() and (got.ess < 2000).all()


def test_importance_weighted_loss(device):
    vae, _ = linear_vae(device, samples=7)
    x = torch.randn(4, 5, dtype=F64, device=device)
    torch.manual_seed(1)
    loss = vae(x)
    torch.manual_seed(1)
    w = vae.log_weights(x, 7).exp()
    torch.testing.assert_close(loss, -w.mean(0).log())
    many = x.repeat(3000, 1)
    close_to(-vae(many).view(-1, 4), vae.log_prob(many, 7).view(-1, 4).mean(0))


@pytest.mark.parametrize("chunk", [1, 3, 7, 40, 10_000])
def test_chunks_change_no_weight(chunk, device):
    """At the posterior every weight is p(x): whatever the chunks, each cell must be filled."""
    vae, truth = linear_vae(device, at_posterior=True)
    x = torch.randn(5, 5, dtype=F64, device=device)
    got = vae.estimate(x, samples=10, chunk=chunk)
    torch.testing.assert_close(got.log_prob, truth.log_prob(x))
    torch.testing.assert_close(got.ess, torch.full_like(got.ess, 10))
    assert (got.stderr < 1e-10).all()
    assert vae.estimate(x, samples=1).stderr.isinf().all()


# gradients


def test_reparameterised_gradient_is_the_exact_one(device):
    """Of the negative bound, which is quadratic in the encoder's mean: closed form by autograd."""
    vae, truth = linear_vae(device)
    x = torch.randn(3, 5, dtype=F64, device=device)
    mean, log_std = vae.encode(x)
    spread = ((2 * log_std).exp() * truth.W.square().sum(0)).sum(1) / (2 * STD**2)
    exact = truth.log_likelihood(x, mean) - spread
    exact = exact - 0.5 * (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)
    params = [p for p in vae.parameters() if p.requires_grad]
    want = torch.autograd.grad(-exact.mean(), [*vae.encoder.parameters()])
    draws, many = [], x.repeat(200, 1)
    for _ in range(60):
        grads = torch.autograd.grad(vae(many).mean(), params)
        draws.append(torch.cat([g.flatten() for g in grads]))
    n = sum(g.numel() for g in want)
    close_to(torch.stack(draws)[:, :n], torch.cat([g.flatten() for g in want]))


def test_linear_vae_reaches_the_optimum_of_pca(device):
    """Lucas et al. (2019): the best bound of a linear VAE is probabilistic PCA's maximum of log p."""
    scale = torch.tensor([2.0, 1.2, 0.4, 0.4], device=device)
    turn = torch.linalg.qr(torch.randn(4, 4))[0].to(device)
    x = torch.randn(500, 4).to(device) * scale @ turn + 1.0
    best = LinearGaussian(4, 2).to(device).fit_closed_form(x).log_prob(x).mean().item()
    vae = VAE(nn.Linear(4, 4), nn.Linear(2, 4), Gaussian("shared", floor=1e-3), 2).to(device)
    opt = torch.optim.Adam(vae.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 600)
    for _ in range(600):
        opt.zero_grad()
        vae(x).mean().backward()
        opt.step()
        schedule.step()
    got = vae.elbo(x, n=50).total.mean().item()
    assert best - 0.02 < got < best + 0.005
    basis = torch.linalg.qr(vae.decoder.weight.detach())[0]
    overlap = torch.linalg.svdvals(basis.T @ turn[:2].T)
    assert overlap.min() > 0.99


# free bits and collapse


def test_free_bits(device):
    x = torch.randn(6, 5, dtype=F64, device=device)
    vae, _ = linear_vae(device)
    kl = vae.kl_dims(x).mean(0)
    level = kl.mean().item()  # one dimension below it, one above
    free, _ = linear_vae(device, free_bits=level)
    free.load_state_dict(vae.state_dict())
    torch.manual_seed(1)
    recon, _ = vae.elbo(x)
    torch.manual_seed(1)
    loss = free(x).mean()
    want = -recon.mean() + kl.clamp(min=level).sum()
    torch.testing.assert_close(loss, want)
    got = torch.autograd.grad(loss, free.encoder.weight)[0]
    torch.manual_seed(1)
    recon, _ = vae.elbo(x)
    kl = vae.kl_dims(x).mean(0)
    want = torch.autograd.grad(-recon.mean() + kl.max(), vae.encoder.weight)[0]
    torch.testing.assert_close(got, want)  # no push on the dimension below the level
    torch.testing.assert_close(free.elbo(x).kl, vae.elbo(x).kl)  # the bound itself is unchanged


# a flow for the posterior


class Shear(Transform):
    """z1, z2 -> z1, z2 + c z1^2, with c from the context: volume 1, not Gaussian."""

    takes_context = True

    def from_base(self, z, context=None):
        self.check(z, context)
        z1, z2 = z.chunk(2, 1)
        return torch.cat([z1, z2 + context[:, :1] * z1**2], 1), z.new_zeros(len(z))

    def to_base(self, x, context=None):
        z1, z2 = x.chunk(2, 1)
        return torch.cat([z1, z2 - context[:, :1] * z1**2], 1), x.new_zeros(len(x))


def flow_vae(device, flow, extra=0):
    encoder, decoder = nn.Linear(5, 4 + extra), nn.Linear(2, 5)
    vae = VAE(encoder, decoder, Gaussian(STD), 2, posterior_flow=flow).to(device, F64)
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(0.3 * torch.randn(p.shape, dtype=F64))
        encoder.weight[4:] *= 0.3  # a context that bends, but not beyond what samples can see
        encoder.bias[4:] = 0.4
    return vae


@pytest.mark.parametrize("kind", ["linear", "monotone", "context"])
def test_flow_posterior_is_a_density(kind, device):
    """E_q[r(z) / q(z | x)] = 1 for a density r, and log q is what the flow's other way gives."""
    flow = {
        "linear": lambda: Compose(LULinear(2), Affine(2)),
        "monotone": lambda: Compose(LULinear(2), Monotone(2)),
        "context": lambda: Compose(Shear(), LULinear(2)),
    }[kind]()
    vae = flow_vae(device, flow, extra=1 if kind == "context" else 0)
    x = torch.randn(2, 5, dtype=F64, device=device)
    n = 4_000 if kind == "monotone" else 20_000
    z, log_q = vae.posterior(x, n)
    # a narrow density r in place of p: where q covers it, the ratio has a small variance
    mean, log_std, context = vae._encode(x)
    centre = flow.from_base(mean, context)[0]
    J = torch.autograd.functional.jacobian(lambda m: flow.from_base(m, context)[0].sum(0), mean)
    width = 0.3 * torch.linalg.svdvals(J.transpose(0, 1) * log_std.exp()[:, None]).amin(1)
    r = torch.distributions.Normal(centre, width[:, None]).log_prob(z).sum(-1)
    close_to((r - log_q).exp(), torch.ones(2, dtype=F64, device=device))
    # density of z by the way back
    mean, log_std = vae.encode(x)
    context = None
    if kind == "context":
        context = vae.encoder(x)[:, 4:].expand(n, 2, 1).flatten(0, 1)
    eps, logabsdet = flow.to_base(z.flatten(0, 1), context)
    base = torch.distributions.Normal(mean, log_std.exp())
    back = base.log_prob(eps.view(n, 2, 2)).sum(-1) + logabsdet.view(n, 2)
    torch.testing.assert_close(back, log_q)
    loss = vae(x)
    assert loss.shape == (2,)
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.encoder.parameters())
    assert vae.reconstruct(x).shape == x.shape


def test_a_linear_flow_reaches_a_correlated_posterior(device):
    """A full covariance that no diagonal q has: the bound becomes log p(x)."""
    vae, truth = linear_vae(device)
    with torch.no_grad():
        truth.W.copy_(torch.randn(5, 2, dtype=F64))
        vae.decoder.weight.copy_(truth.W)
    x = torch.randn(4, 5, dtype=F64, device=device)
    mean, cov = truth.posterior(x)
    factor = torch.linalg.cholesky(cov)

    class Known(Transform):
        def from_base(self, z, context=None):
            return z @ factor.T, factor.diagonal().log().sum().expand(len(z))

    gain = truth._posterior_map()[0]
    inverse = torch.linalg.inv(factor)
    with torch.no_grad():
        vae.encoder.weight.zero_()
        vae.encoder.bias.zero_()
        vae.encoder.weight[:2].copy_(inverse @ gain)
        vae.encoder.bias[:2].copy_(-inverse @ gain @ truth.mu)
    vae.posterior_flow = Known()
    torch.testing.assert_close(vae.log_weights(x, 3), truth.log_prob(x).expand(3, 4))
    torch.testing.assert_close(vae.elbo(x).total, truth.log_prob(x))


# images, shapes, devices, mistakes


LIKELIHOODS = [
    Bernoulli,
    lambda: Gaussian("pixel"),
    lambda: DiscretisedLogistic(17, 3),
    Categorical,
]


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=["bernoulli", "gauss", "logistic", "cat"])
@pytest.mark.parametrize("B", [0, 1, 3])
def test_images_of_every_likelihood(likelihood, B, device):
    likelihood = likelihood()
    shape = (2, 8, 8)
    for enc, dec in (
        (mlp_encoder(shape, 6, 8), mlp_decoder(3, shape, likelihood.channels, 8)),
        (conv_encoder(shape, 6, 4), conv_decoder(3, shape, likelihood.channels, 4)),
    ):
        vae = VAE(enc, dec, likelihood, 3).to(device)
        x = torch.randint(2, (B, *shape), device=device).float()
        assert vae(x).shape == vae.log_prob(x, 3).shape == (B,)
        assert vae.reconstruct(x).shape == x.shape
        assert vae.elbo(x).recon.device.type == device.type
        sample = vae.sample(4)
        assert sample.shape == (4, *shape) and not sample.requires_grad
        vae.likelihood.check(sample)
        noise = torch.randn(4, 3, device=device)
        torch.testing.assert_close(
            vae.sample(4, noise=noise, mean=True), vae.likelihood.mean(vae.decode(noise))
        )
        one, two = (vae.sample(4, generator=torch.Generator(device).manual_seed(2)) for _ in "ab")
        assert (one == two).all()


@pytest.mark.parametrize("shape, halvings", [((1, 28, 28), 2), ((3, 32, 32), 3), ((1, 8, 8), 1)])
def test_networks_keep_shapes(shape, halvings, device):
    enc = conv_encoder(shape, 10, 4, halvings, blocks=2).to(device)
    dec = conv_decoder(5, shape, 3, 4, halvings, blocks=2).to(device)
    assert enc(torch.randn(2, *shape, device=device)).shape == (2, 10)
    out = dec(torch.randn(2, 5, device=device))
    assert out.shape == (2, 3 * shape[0], *shape[1:])


def test_bounded_keeps_small_values():
    raw = torch.tensor([-100.0, -0.1, 0.0, 0.1, 100.0])
    torch.testing.assert_close(bounded(raw), torch.tensor([-6, -0.1, 0, 0.1, 6]), atol=1e-4, rtol=0)


def test_errors_are_one_sentence():
    vae, _ = linear_vae("cpu")
    assert not vae.takes_context
    x = torch.randn(3, 5, dtype=F64)
    for call in (vae, vae.elbo):
        with pytest.raises(ValueError, match="VAE takes no context"):
            call(x, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="VAE takes no context"):
        vae.sample(3, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="NaN or infinite"):
        vae(x * math.nan)
    with pytest.raises(TypeError, match="float64 parameters, its input is torch.float32"):
        vae(x.float())
    with pytest.raises(ValueError, match=r"z must have shape \(B, 2\), got \(3, 5\)"):
        vae.decode(x)
    with pytest.raises(ValueError, match="asked for 3 samples"):
        vae.sample(3, noise=torch.zeros(2, 2, dtype=F64))
    with pytest.raises(ValueError, match="n must be at least 1"):
        vae.sample(0)
    with pytest.raises(ValueError, match=r"encoder must give \(B, 6\), got \(3, 4\)"):
        VAE(nn.Linear(5, 4), nn.Linear(3, 5), Gaussian(1.0), 3).double()(x)
    with pytest.raises(ValueError, match=r"parameters for x of shape \(3, 4\)"):
        VAE(nn.Linear(5, 4), nn.Linear(2, 4), Gaussian(1.0), 2).double()(x)
    parts = nn.Linear(5, 4), nn.Linear(2, 5), Gaussian(1.0), 2
    with pytest.raises(TypeError, match="posterior_flow must be a Transform, not Linear"):
        VAE(*parts, posterior_flow=nn.Linear(2, 2))
    with pytest.raises(ValueError, match="0 or more"):
        VAE(*parts, kl_weight=-1.0)
    with pytest.raises(ValueError, match="free_bits needs the closed-form"):
        VAE(*parts, free_bits=0.1, samples=5)
    with pytest.raises(ValueError, match="kl_weight 1 only"):
        VAE(*parts, kl_weight=0.5, samples=5).double()(x)
    with pytest.raises(ValueError, match="more than 4"):
        VAE(*parts, posterior_flow=Shear()).double()(x)
    with pytest.raises(ValueError, match="whole levels"):
        VAE(nn.Linear(5, 4), nn.Linear(2, 5), Bernoulli(), 2).double()(x)
    with pytest.raises(ValueError, match="divisible by 8"):
        conv_encoder((1, 28, 28), 4, halvings=3)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_residual_blocks_stand_at_every_resolution(blocks):
    made = {"width": 4, "halvings": 2, "blocks": blocks}
    for net in (conv_encoder((1, 8, 8), 6, **made), conv_decoder(3, (1, 8, 8), **made)):
        assert sum(isinstance(m, Residual) for m in net.modules()) == 3 * blocks


AUTOCAST = {
    "bernoulli": Bernoulli,
    "gaussian": lambda: Gaussian(0.5),
    "gaussian shared": Gaussian,
    "gaussian pixel": lambda: Gaussian("pixel"),
    "gaussian pixel, no floor": lambda: Gaussian("pixel", floor=0.0),
    "categorical": lambda: Categorical(2),
    "logistic": lambda: DiscretisedLogistic(2),
    "mixture": lambda: DiscretisedLogistic(17, 3),
}


@pytest.mark.parametrize("likelihood", AUTOCAST)
@pytest.mark.parametrize("kind", ["planar", "radial", "sylvester", "iaf", "none"])
def test_a_vae_trains_with_autocast_whatever_its_posterior(kind, likelihood, device):
    """The encoder's answer is coarse there; a flow takes float32, and its maps stay exact."""
    flow = {
        "planar": lambda: PlanarFlow(2, layers=2, context=3),
        "radial": lambda: Radial(2, context=3),
        "sylvester": lambda: Sylvester(2, columns=2, context=3),
        "iaf": lambda: Inverse(MaskedAutoregressive(2, width=8, context=3)),
        "none": lambda: None,
    }[kind]()
    width = 4 if flow is None else 7
    law = AUTOCAST[likelihood]()
    nets = nn.Linear(6, width), nn.Linear(2, 6 * law.channels)
    model = VAE(*nets, law, 2, posterior_flow=flow).to(device)
    x = torch.rand(16, 6).round().to(device)
    for update in fit(model, x, steps=2, batch_size=8, amp=torch.bfloat16, progress=False):
        assert math.isfinite(update.loss)


@pytest.mark.parametrize(("D", "d", "sigma"), [(64, 5, 0.01), (3, 1, 0.003)])
def test_the_linear_models_density_in_float32(D, d, sigma, device):
    """W W' + sigma^2 I is close to singular; and no bound may lie above log p."""
    W = torch.randn(D, d, dtype=torch.float64)
    x = torch.randn(500, d, dtype=torch.float64) @ W.T + sigma * torch.randn(500, D).double()
    model = LinearGaussian(D, d, full=True).double().fit_closed_form(x)
    truth = MultivariateNormal(model.mu, model.covariance()).log_prob(x)
    torch.testing.assert_close(model.log_prob(x), truth, rtol=1e-9, atol=1e-7)
    single = copy.deepcopy(model).float().to(device)
    got, bound = single.log_prob(x.float().to(device)), single.elbo(x.float().to(device)).total
    assert (got.cpu() - model.log_prob(x.float().double())).abs().max() < 5e-3
    assert (bound - got).max() < 5e-3


def test_a_small_sigma_in_float64_is_no_missing_direction():
    x = torch.randn(2000, 3, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0])
    x = torch.cat([x, torch.zeros(2000, 2)], 1) + 1e-3 * torch.randn(2000, 5)
    model = LinearGaussian(5, 3, full=True).double().fit_closed_form(x.double())
    assert model.log_sigma.exp().item() == pytest.approx(1e-3, rel=0.05)


def test_weights_with_noise_in_their_logarithm_are_refused():
    """E[exp(noise)] > 1: the estimate would not be a lower bound any more."""
    field = FieldNet(3, 8)
    vae = VAE(
        mlp_encoder((5,), 6), nn.Linear(3, 5), Bernoulli(), 3,
        posterior_flow=Continuous(field, trace="hutchinson", solver="rk4", steps=2),
    )  # fmt: skip
    x = torch.ones(2, 5)
    assert vae(x).isfinite().all()  # one sample: the mean of a logarithm, which noise leaves right
    with pytest.raises(ValueError, match="exact log-determinant"):
        vae.estimate(x, 4)
    assert set_solver(vae, trace="exact").estimate(x, 4).log_prob.isfinite().all()
