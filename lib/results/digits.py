"""The models of the book on 8 x 8 digits: the chapters' own recipes, and what they lack.

Each function trains one, with a seed, and returns a `Trained`. `share` is the share of its steps to
take, for tests. Pixels enter a flow dequantised and as logits; VAEs and diffusions see whole levels.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.data import images
from lib.data.images import LEVELS, dequantise, quantise
from lib.diffusion import Cosine, Denoiser, Diffusion, ancestral, dpm_solver_multi, euler_maruyama
from lib.diffusion import digits as ddpm
from lib.diffusion.digits import DECODE_AT, NO_LABEL, to_levels, to_unit
from lib.diffusion.elbo import chain_elbo, continuous_elbo
from lib.diffusion.likelihood import flow_bits
from lib.flows import Compose, Flow, Inverse, Logit, LULinear, Transform, autoregressive_recipes
from lib.flows import recipes as couplings
from lib.flows import recipes_ode as ode
from lib.flows.builders import iaf as iaf_layers
from lib.flows.builders import planar_flow, spline_coupling
from lib.flows.continuous import Continuous, set_solver
from lib.flows.linear import ActNorm
from lib.flows.recipes import Pixels
from lib.results.nets import VectorNet
from lib.results.prior import DiffusionPrior
from lib.results.protocol import Reading
from lib.results.training import Clock, Trained, average, counted, finish, train, weighted
from lib.vae.hierarchical import HierarchicalVAE, mlp_levels
from lib.vae.likelihoods import DiscretisedLogistic
from lib.vae.recipes import digits_vae
from lib.vae.vae import LatentModel

D, N = 64, LEVELS["digits"]
CHAIN = 200  # steps of the chain whose bound is measured and whose samples are drawn
QUICK = 20  # steps of the probability flow's sampler
LATENT = 20
TIGHT = 64  # draws of the noise in a flow's tighter bound


def flow_reading(flow: Flow, calls: int | Callable[[], int] = 1, draws: int = 8) -> Reading:
    """Levels are dequantised `draws` times: -log P(level) <= E[-log p(level + noise)] + D log 17.

    The tighter bound averages the densities of 64 draws before the logarithm, as importance sampling
    does with a VAE's latents.
    """

    def nats(levels: Tensor) -> Tensor:
        return flow(dequantise(levels.flatten(1), N)) + D * math.log(N)

    draw = lambda n: quantise(flow.sample(n), N).view(n, 1, 8, 8)
    count = calls if callable(calls) else lambda: calls
    return Reading(average(nats, draws), draw, count, "dequantised", weighted(nats, TIGHT))


def gaussian(seed: int, share: float = 1.0) -> Trained:
    """One Gaussian with a full covariance of the logits, in closed form: chapter 1's linear map."""
    torch.manual_seed(seed)
    pixels, logit, clock = Pixels("digits", flat=True), Logit(0.05), Clock()
    x = logit.to_base(pixels(max(1_000, round(share * 40_000))))[0]
    flow = Flow(Compose(logit, LULinear(D).init_from(x)), D)
    return finish(flow, {"gaussian": flow_reading(flow)}, clock.spent(0))


def _flow(name: str, recipe: couplings.Recipe, share: float, calls=1) -> Trained:
    spent = train(recipe.model, recipe.train, share, **recipe.fit)
    return finish(recipe.model, {name: flow_reading(recipe.model, calls)}, spent)


def realnvp(seed: int, share: float = 1.0) -> Trained:
    """Chapter 4: actnorm and eight affine couplings."""
    return _flow("realnvp", couplings.digits_realnvp(seed=seed), share)


def spline(seed: int, share: float = 1.0) -> Trained:
    """Chapter 4: four couplings that bend by rational-quadratic splines of eight bins."""

    def build(pixels: Pixels) -> Transform:
        bends = spline_coupling(D, 4, 128, mask=couplings.chessboard, dropout=0.2)
        return Compose(ActNorm(D), bends)

    settings = dict(steps=1_000, batch_size=128, lr=2e-3, ema=0.99, valid_every=100)
    recipe = couplings._recipe(build, Pixels("digits", flat=True), seed, copies=4, **settings)
    return _flow("spline", recipe, share)


def maf(seed: int, share: float = 1.0) -> Trained:
    """Chapter 5: five affine autoregressive maps; a sample waits for each of its 64 numbers."""
    return _flow("maf", autoregressive_recipes.digits_maf(seed=seed), share, calls=D)


def maf_spline(seed: int, share: float = 1.0) -> Trained:
    """Chapter 5: two autoregressive splines."""
    return _flow("maf_spline", autoregressive_recipes.digits_spline(seed=seed), share, calls=D)


def iaf(seed: int, share: float = 1.0) -> Trained:
    """Chapter 5, turned round: samples in one pass, and a density that waits, in training too."""
    build = lambda: iaf_layers(D, 1, 128, dropout=0.1)
    return _flow("iaf", _logits(build, seed, steps=700, lr=2e-3), share)


def planar(seed: int, share: float = 1.0) -> Trained:
    """Chapter 6: 32 planar maps, turned round so that training needs no roots and sampling does."""
    build = lambda: Inverse(planar_flow(D, 32))
    return _flow("planar", _logits(build, seed, steps=2_500, lr=5e-3), share)


def _logits(build: Callable[[], Transform], seed: int, **more) -> couplings.Recipe:
    settings = dict(batch_size=128, ema=0.995, clip=50.0, valid_every=100)
    pixels = Pixels("digits", flat=True)
    return autoregressive_recipes._pixels(pixels, 0.05, build, seed, **settings | more)


def cnf(seed: int, share: float = 1.0) -> Trained:
    """Chapters 7 and 8: an ODE with the exact trace."""
    return _continuous("cnf", "exact", seed, share)


def ffjord(seed: int, share: float = 1.0) -> Trained:
    """Chapter 8: the same ODE, trained with Hutchinson's trace and measured with the exact one."""
    return _continuous("ffjord", "hutchinson", seed, share)


def _continuous(name: str, trace: str, seed: int, share: float) -> Trained:
    recipe = ode.digits(trace=trace, seed=seed)
    part = next(m for m in recipe.model.modules() if isinstance(m, Continuous))
    trained = _flow(name, recipe, share, calls=lambda: part.evaluations)
    set_solver(recipe.model, trace="exact", rtol=1e-4, atol=1e-4)
    return trained


def latent_reading(model: LatentModel, draws: int = 8, samples: int = 200) -> Reading:
    """The bound of a VAE of any kind, and importance sampling for a tighter one."""
    bound = average(lambda x: -model.elbo(x.float()).total, draws)
    tighter = lambda x: -model.estimate(x.float(), samples).log_prob
    return counted([model.decoder], bound, lambda n: model.sample(n).byte(), "bound", tighter)


def _vae(name: str, recipe: couplings.Recipe, share: float) -> Trained:
    spent = train(recipe.model, recipe.train, share, **recipe.fit)
    return finish(recipe.model, {name: latent_reading(recipe.model)}, spent)


def vae(seed: int, share: float = 1.0) -> Trained:
    """Chapter 3: 20 latent numbers."""
    return _vae("vae", digits_vae(LATENT, seed=seed), share)


def vae_iaf(seed: int, share: float = 1.0) -> Trained:
    """Chapter 5: the same with two IAF maps behind the posterior's Gaussian."""
    recipe = autoregressive_recipes.digits_iaf(layers=2, latent=LATENT, seed=seed)
    return _vae("vae_iaf", recipe, share)


def hvae(seed: int, share: float = 1.0) -> Trained:
    """Chapter 3: two levels of 8 and 16 latent numbers."""
    recipe, width = digits_vae(seed=seed), 128
    likelihood = DiscretisedLogistic(N, components=3)
    up, levels = mlp_levels(D, (8, 16), width)
    decoder = nn.Sequential(
        nn.SiLU(),
        nn.Dropout(0.2),
        nn.Linear(width, D * likelihood.channels),
        nn.Unflatten(1, (likelihood.channels, 8, 8)),
    )
    model = HierarchicalVAE(up, levels, decoder, likelihood, (width,))
    spent = train(model, recipe.train, share, warm_up=True, **recipe.fit)
    return finish(model, {"hvae": latent_reading(model)}, spent)


def diffusion(seed: int, share: float = 1.0) -> Trained:
    """Chapters 9 to 11: one network without labels, read in three ways."""
    recipe = ddpm.digits(seed=seed)
    recipe.model.drop = 1.0  # no label is ever shown
    held, labels = recipe.fit["valid"]
    settings = recipe.fit | {"valid": (held, torch.full_like(labels, NO_LABEL))}
    spent = train(recipe.model, recipe.train, share, **settings)
    return finish(recipe.model, diffusion_readings(recipe.model), spent)


def diffusion_readings(model: Diffusion) -> dict[str, Reading]:
    """A chain of 200 steps, the SDE it tends to, and its probability flow."""
    denoiser, schedule = model.denoiser, model.denoiser.schedule
    chain = schedule.log_snr_times(CHAIN - 1, DECODE_AT)
    few = schedule.log_snr_times(QUICK, DECODE_AT)

    def bound(levels: Tensor) -> Tensor:
        return chain_elbo(denoiser, to_unit(levels), chain, levels=N).total

    def limit(levels: Tensor) -> Tensor:
        return continuous_elbo(denoiser, to_unit(levels), DECODE_AT, levels=N, draws=CHAIN).total

    def exact(levels: Tensor) -> Tensor:
        how = dict(decode_at=DECODE_AT, trace="hutchinson", rtol=1e-3, atol=1e-3)
        return flow_bits(denoiser, to_unit(levels), N, **how) * (D * math.log(2))

    def read(nats, step, ts, kind) -> Reading:
        draw = lambda n: to_levels(model.sample(n, steps=ts, step=step))
        return counted([denoiser.net], nats, draw, kind)

    return {
        "ddpm": read(bound, ancestral(denoiser), chain, "bound"),
        "sde": read(limit, euler_maruyama(denoiser), chain, "bound"),
        "ode": read(exact, dpm_solver_multi(denoiser), few, "dequantised"),
    }


def latent(seed: int, share: float = 1.0) -> Trained:
    """Chapter 12: a VAE of 10 latent numbers, its divergence weighing half, and a diffusion of them.

    Large batches: what the prior's bound loses to the noise of training counts for each latent.
    """
    recipe = digits_vae(latent=10, steps=800, seed=seed)
    recipe.model.kl_weight = 0.5
    first = train(recipe.model, recipe.train, share, **recipe.fit)
    schedule = Cosine(10.0)
    net = Denoiser(VectorNet(10, 128, 3), schedule, "v")
    model = DiffusionPrior(recipe.model, Diffusion(net, 10, weight="v"))
    model.fit_scale(recipe.train)
    held = images.digits("valid")[0].float().repeat(4, 1, 1, 1)
    settings = dict(steps=2_500, batch_size=512, lr=1e-3, ema=0.998, valid=held, valid_every=100)
    second = train(model, recipe.train, share, **settings, seed=seed)
    times = schedule.log_snr_times(CHAIN - 1, 0.01)
    nats = average(lambda x: model.bound(x.float(), times).total, 4)
    plain = average(lambda x: model.standard_bound(x.float()).total, 4)
    reading = counted(
        [net.net, recipe.model.decoder], nats, lambda n: model.sample(n, times).byte(), "bound"
    )._replace(standard=plain)
    return finish(model, {"latent": reading}, first, second)
