"""Recipes of chapter 5: which flow, which data, which settings of `fit`.

    recipe = digits_spline()
    for update in fit(recipe.model, recipe.train, **recipe.fit):
        ...
    bits, error = measure(recipe.model, recipe.train.part("test"))  # of lib.flows.recipes

Images get new dequantisation noise each time they are drawn, which together with dropout and the
averaged weights keeps 1,257 digits from being learnt by heart.
"""

from collections.abc import Callable

import torch

from lib.data.images import LEVELS, binarized_mnist, digits
from lib.data.toys import moons
from lib.flows.builders import iaf, maf, spline_maf
from lib.flows.elementwise import Affine, Logit
from lib.flows.flow import Flow
from lib.flows.recipes import Pixels
from lib.flows.transform import Compose, Transform
from lib.recipe import Recipe
from lib.train import Draws
from lib.vae.likelihoods import Bernoulli, DiscretisedLogistic
from lib.vae.nets import mlp_decoder, mlp_encoder
from lib.vae.vae import VAE


def _moons(build: Callable[[], Transform], seed: int, **settings) -> Recipe:
    """Endless draws of the two moons, whose entropy `moons().entropy()` is the best loss."""
    density = moons()
    draw = Draws(lambda n, generator: density.sample(n, generator=generator).float(), seed)
    valid = draw(4000)
    torch.manual_seed(seed)
    model = Flow(Compose(Affine(2).init_from(valid), build()), 2)
    return Recipe(model, draw, dict(lr=5e-3, ema=0.99, valid=valid, seed=seed, **settings))


def moons_maf(steps: int = 1500, seed: int = 0) -> Recipe:
    """Five affine maps: 5 s of one core."""
    return _moons(lambda: maf(2, 5, 64), seed, steps=steps, valid_every=100)


def moons_spline(steps: int = 1000, seed: int = 0) -> Recipe:
    """Two autoregressive splines: 5 s of one core, and within 0.02 nats of the entropy."""
    return _moons(lambda: spline_maf(2, 2, 64), seed, steps=steps, valid_every=100)


def _pixels(pixels: Pixels, alpha: float, build: Callable[[], Transform], seed: int, **settings):
    """Images as rows, in logit space, each pixel with mean 0 and variance 1 at the start."""
    torch.manual_seed(seed)
    logit, dim = Logit(alpha), pixels.train.shape[1]
    start = Affine(dim).init_from(logit.to_base(pixels(2000))[0])
    model = Flow(Compose(logit, start, build()), dim)
    held = pixels.held(copies=4 if pixels.name == "digits" else 1)
    return Recipe(model, pixels, dict(valid=held, seed=seed, **settings))


def digits_maf(steps: int = 1500, dropout: float = 0.1, seed: int = 0) -> Recipe:
    """8 x 8 digits as rows of 64: five affine maps. 12 s of one core; `dropout=0` overfits."""
    more = dict(steps=steps, batch_size=128, lr=2e-3, ema=0.995, valid_every=100)
    return _pixels(
        Pixels("digits", flat=True), 0.05, lambda: maf(64, 5, 128, dropout=dropout), seed, **more
    )


def digits_spline(steps: int = 1000, dropout: float = 0.1, seed: int = 0) -> Recipe:
    """8 x 8 digits as rows of 64: two autoregressive splines of 8 bins. 25 s of one core."""
    build = lambda: spline_maf(64, 2, 128, bins=8, dropout=dropout)
    more = dict(steps=steps, batch_size=128, lr=2e-3, ema=0.995, valid_every=100)
    return _pixels(Pixels("digits", flat=True), 0.05, build, seed, **more)


def mnist_maf(steps: int = 60_000, width: int = 1024, seed: int = 0) -> Recipe:
    """MNIST, for a GPU: MAF(5), to be compared with the 1.89 bits of Papamakarios et al. (2017)."""
    more = dict(steps=steps, lr=5e-4, clip=100.0, ema=0.9995, valid_every=1000)
    return _pixels(
        Pixels("mnist", flat=True), 1e-6, lambda: maf(784, 5, width, 1, dropout=0.2), seed, **more
    )


def digits_iaf(
    layers: int = 2, latent: int = 8, context: int = 32, steps: int = 1200, seed: int = 0
) -> Recipe:
    """A VAE of the digits whose posterior goes through IAF; layers=0 is its twin without.

    The encoder gives `context` features more, which every network of the flow sees.
    """
    torch.manual_seed(seed)
    shape, likelihood = (1, 8, 8), DiscretisedLogistic(LEVELS["digits"], components=3)
    decoder = mlp_decoder(latent, shape, likelihood.channels, 256, dropout=0.2)
    encoder = mlp_encoder(shape, 2 * latent + (context if layers else 0), 256)
    flow = iaf(latent, layers, 128, 1, context) if layers else None
    model = VAE(encoder, decoder, likelihood, latent, posterior_flow=flow)
    train, valid = (digits(split)[0].float() for split in ("train", "valid"))
    more = dict(steps=steps, batch_size=128, lr=2e-3, clip=50.0, ema=0.995, valid_every=100)
    return Recipe(model, train, dict(valid=valid, seed=seed, **more))


def mnist_iaf(steps: int = 100_000, layers: int = 4, width: int = 512, seed: int = 0) -> Recipe:
    """Static binarised MNIST, for a GPU: `mnist_plain` of chapter 3 with IAF behind its Gaussian.

    To be compared with the 84.20 +- 0.17 nats (minus the bound) in Grathwohl et al. (2019), table 3.
    """
    torch.manual_seed(seed)
    shape, latent, context = (1, 28, 28), 64, 64
    encoder = mlp_encoder(shape, 2 * latent + context, 512)
    decoder = mlp_decoder(latent, shape, 1, 512, dropout=0.1)
    flow = iaf(latent, layers, width, 1, context)
    model = VAE(encoder, decoder, Bernoulli(), latent, posterior_flow=flow)
    train, valid = (binarized_mnist(split).float() for split in ("train", "valid"))
    more = dict(batch_size=256, lr=1e-3, ema=0.9995, clip=200.0, valid_every=1000)
    return Recipe(model, train, dict(steps=steps, valid=valid[:2000], seed=seed, **more))
