"""The same models on eight Gaussians in the plane, small enough for seconds of one core.

Each function trains one, with a seed, and returns a `Trained`; points are drawn afresh at each step,
so nothing can be learnt by heart, and what is missing is missing for want of form or of training.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.data.densities import eight_gaussians
from lib.diffusion import Cosine, Denoiser, Diffusion, ancestral, dpm_solver_multi, euler_maruyama
from lib.diffusion.elbo import chain_elbo, continuous_elbo
from lib.diffusion.likelihood import flow_log_prob
from lib.flows import Affine, Compose, Flow, Inverse, LULinear, Transform, recipes_ode
from lib.flows.builders import iaf as iaf_layers
from lib.flows.builders import maf as maf_layers
from lib.flows.builders import planar_flow, spline_coupling, spline_maf
from lib.flows.builders import realnvp as realnvp_layers
from lib.flows.continuous import Continuous, set_solver
from lib.results.nets import VectorNet
from lib.results.prior import DiffusionPrior
from lib.results.protocol import Reading
from lib.results.training import Clock, Trained, average, counted, finish, in_parts, train
from lib.vae.hierarchical import HierarchicalVAE, mlp_levels
from lib.vae.likelihoods import Gaussian
from lib.vae.nets import mlp_decoder, mlp_encoder
from lib.vae.vae import VAE, LatentModel

CHAIN, QUICK, LAST = 200, 20, 0.01  # LAST: where the chain ends and x_hat is taken
SETTINGS = dict(batch_size=512, lr=3e-3, ema=0.99, clip=10.0)


def points(seed: int) -> Callable[[int], Tensor]:
    """Fresh draws of the law, the same at each call with this seed."""
    law, noise = eight_gaussians(), torch.Generator().manual_seed(seed)
    return lambda n: law.sample(n, noise).float()


def flow_reading(flow: Flow, calls: int | Callable[[], int] = 1) -> Reading:
    """-log p of points, exact."""
    count = calls if callable(calls) else lambda: calls
    return Reading(in_parts(flow, 2_000), flow.sample, count, "exact")


def gaussian(seed: int, share: float = 1.0) -> Trained:
    """One Gaussian with a full covariance, in closed form."""
    clock = Clock()
    flow = Flow(Compose(LULinear(2).init_from(points(seed)(max(1_000, round(share * 40_000))))), 2)
    return finish(flow, {"gaussian": flow_reading(flow)}, clock.spent(0))


def _flow(name: str, build: Callable[[], Transform], seed: int, share: float, calls=1, **more):
    draw = points(seed)
    torch.manual_seed(seed)
    flow = Flow(Compose(Affine(2).init_from(draw(4_000)), build()), 2)
    spent = train(flow, draw, share, **SETTINGS | more, seed=seed)
    return finish(flow, {name: flow_reading(flow, calls)}, spent)


def realnvp(seed: int, share: float = 1.0) -> Trained:
    """Eight affine couplings."""
    return _flow("realnvp", lambda: realnvp_layers(2, 8, 64), seed, share, steps=1_200)


def spline(seed: int, share: float = 1.0) -> Trained:
    """Four spline couplings."""
    return _flow("spline", lambda: spline_coupling(2, 4, 64), seed, share, steps=900)


def maf(seed: int, share: float = 1.0) -> Trained:
    """Five affine autoregressive maps."""
    return _flow("maf", lambda: maf_layers(2, 5, 64), seed, share, calls=2, steps=1_200)


def maf_spline(seed: int, share: float = 1.0) -> Trained:
    """Two autoregressive splines."""
    return _flow("maf_spline", lambda: spline_maf(2, 2, 64), seed, share, calls=2, steps=900)


def iaf(seed: int, share: float = 1.0) -> Trained:
    """Five affine autoregressive maps the other way round."""
    return _flow("iaf", lambda: iaf_layers(2, 5, 64), seed, share, steps=1_000)


def planar(seed: int, share: float = 1.0) -> Trained:
    """32 planar maps, turned round."""
    build = lambda: Inverse(planar_flow(2, 32))
    return _flow("planar", build, seed, share, steps=2_500, lr=1e-2)


def cnf(seed: int, share: float = 1.0) -> Trained:
    """An ODE with the exact trace, chapter 8's recipe."""
    return _continuous("cnf", "exact", seed, share)


def ffjord(seed: int, share: float = 1.0) -> Trained:
    """The same ODE, trained with Hutchinson's trace and measured with the exact one."""
    return _continuous("ffjord", "hutchinson", seed, share)


def _continuous(name: str, trace: str, seed: int, share: float) -> Trained:
    recipe = recipes_ode.eight(seed=seed)
    set_solver(recipe.model, trace=trace)
    spent = train(recipe.model, points(seed), share, **recipe.fit)
    set_solver(recipe.model, trace="exact", rtol=1e-5, atol=1e-5)
    part = next(m for m in recipe.model.modules() if isinstance(m, Continuous))
    reading = flow_reading(recipe.model, lambda: part.evaluations)
    return finish(recipe.model, {name: reading}, spent)


def latent_reading(model: LatentModel, draws: int = 4, samples: int = 200) -> Reading:
    """The bound of a VAE of any kind, and importance sampling for a tighter one."""
    bound = average(lambda x: -model.elbo(x).total, draws)
    tighter = lambda x: -model.estimate(x, samples).log_prob
    return counted([model.decoder], bound, model.sample, "bound", tighter)


def plane_vae(latent: int = 2, layers: int = 0, width: int = 96) -> VAE:
    """A VAE of points whose likelihood is N(mean, std^2), both by the decoder; `layers` of IAF."""
    context, likelihood = 16 if layers else 0, Gaussian("pixel", floor=1e-2)
    return VAE(
        mlp_encoder((2,), 2 * latent + context, width),
        mlp_decoder(latent, (2,), likelihood.channels, width),
        likelihood,
        latent,
        posterior_flow=iaf_layers(latent, layers, 32, 1, context) if layers else None,
    )


def _vae(name: str, build: Callable[[], LatentModel], seed: int, share: float, **more) -> Trained:
    torch.manual_seed(seed)
    model = build()
    spent = train(model, points(seed), share, warm_up=True, **SETTINGS | more, seed=seed)
    return finish(model, {name: latent_reading(model)}, spent)


def vae(seed: int, share: float = 1.0) -> Trained:
    """Two latent numbers."""
    return _vae("vae", plane_vae, seed, share, steps=2_500)


def vae_iaf(seed: int, share: float = 1.0) -> Trained:
    """The same with two IAF maps behind the posterior's Gaussian."""
    return _vae("vae_iaf", lambda: plane_vae(layers=2), seed, share, steps=1_800)


def hvae(seed: int, share: float = 1.0) -> Trained:
    """Two levels of two latent numbers."""

    def build() -> HierarchicalVAE:
        up, levels = mlp_levels(2, (2, 2), 64)
        decoder = nn.Sequential(nn.SiLU(), nn.Linear(64, 4))
        return HierarchicalVAE(up, levels, decoder, Gaussian("pixel", floor=1e-2), (64,))

    return _vae("hvae", build, seed, share, steps=1_500)


def diffusion(seed: int, share: float = 1.0) -> Trained:
    """One network, read in three ways."""
    torch.manual_seed(seed)
    model = Diffusion(Denoiser(VectorNet(2), Cosine(12.0), "v"), 2, weight="v")
    spent = train(model, points(seed), share, **SETTINGS, steps=3_000, seed=seed)
    return finish(model, diffusion_readings(model), spent)


def diffusion_readings(model: Diffusion) -> dict[str, Reading]:
    """A chain of 200 steps, the SDE it tends to, and its probability flow, of points."""
    denoiser, schedule = model.denoiser, model.denoiser.schedule
    chain = schedule.log_snr_times(CHAIN - 1, LAST)
    few = schedule.log_snr_times(QUICK, LAST)

    exact = lambda x: -flow_log_prob(denoiser, x, t0=1e-3, rtol=1e-4, atol=1e-4)[0]
    bound = lambda x: chain_elbo(denoiser, x, chain).total
    limit = lambda x: continuous_elbo(denoiser, x, LAST, draws=CHAIN).total

    def read(nats, step, ts, kind) -> Reading:
        draw = lambda n: model.sample(n, steps=ts, step=step)
        return counted([denoiser.net], nats, draw, kind)

    return {
        "ddpm": read(bound, ancestral(denoiser), chain, "bound"),
        "sde": read(limit, euler_maruyama(denoiser), chain, "bound"),
        "ode": read(in_parts(exact, 2_000), dpm_solver_multi(denoiser), few, "exact"),
    }


def latent(seed: int, share: float = 1.0) -> Trained:
    """A VAE of the points, and a diffusion of its latents."""
    draw = points(seed)
    torch.manual_seed(seed)
    vae = plane_vae()
    first = train(vae, draw, share, warm_up=True, **SETTINGS, steps=1_500, seed=seed)
    schedule = Cosine(12.0)
    net = Denoiser(VectorNet(2), schedule, "v")
    model = DiffusionPrior(vae, Diffusion(net, 2, weight="v")).fit_scale(draw(4_000))
    second = train(model, draw, share, **SETTINGS, steps=2_000, seed=seed)
    times = schedule.log_snr_times(CHAIN - 1, LAST)
    nats = lambda x: model.bound(x, times).total
    plain = lambda x: model.standard_bound(x).total
    reading = counted([net.net, vae.decoder], nats, lambda n: model.sample(n, times), "bound")
    reading = reading._replace(standard=plain)
    return finish(model, {"latent": reading}, first, second)
