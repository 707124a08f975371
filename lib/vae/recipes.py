"""Trained in the book: which networks, which likelihood, which settings of `fit`.

    recipe = digits_vae()
    for update in fit(recipe.model, recipe.train, **recipe.fit):
        ...

From the command line, which keeps the weights; all but `mnist_small` and the digits are for a GPU:

    BOOK_DATA=... python -m lib.train mnist-conv --mode full
"""

from argparse import ArgumentTypeError

import torch
from torch import Tensor, nn

from lib.data.images import LEVELS, binarized_mnist, digits
from lib.nets import Linear
from lib.recipe import Recipe, store, train
from lib.utils import check_count, measuring
from lib.vae.hierarchical import HierarchicalVAE, mlp_levels
from lib.vae.likelihoods import Bernoulli, DiscretisedLogistic
from lib.vae.nets import conv_decoder, conv_encoder, mlp_decoder, mlp_encoder
from lib.vae.vae import VAE, LatentModel


def digits_vae(
    latent: int = 20,
    width: int = 256,
    steps: int = 1200,
    dropout: float = 0.2,
    samples: int = 1,
    seed: int = 0,
) -> Recipe:
    """8 x 8 digits, 17 levels: a mixture of three discretised logistics for each pixel.

    The decoder's dropout and the validation part, which picks the best averaged weights, are what
    keeps 1,257 images from being learnt by heart. 25 s of one core; samples=5, the
    importance-weighted loss, takes 45 s and is better by importance sampling, not by its bound.
    """
    torch.manual_seed(seed)
    shape, likelihood = (1, 8, 8), DiscretisedLogistic(LEVELS["digits"], components=3)
    model = VAE(
        mlp_encoder(shape, 2 * latent, width),
        mlp_decoder(latent, shape, likelihood.channels, width, dropout=dropout),
        likelihood,
        latent,
        samples=samples,
    )
    train, valid = (digits(split)[0].float() for split in ("train", "valid"))
    settings = dict(steps=steps, batch_size=128, lr=2e-3, clip=50.0, ema=0.995, valid=valid)
    return Recipe(model, train, settings | dict(valid_every=100, seed=seed))


def mnist_small_model(seed: int = 0) -> VAE:
    """The network of `mnist_small`, for the stored weights: `lib.weights.load("mnist_small", it)`."""
    shape = (1, 28, 28)
    torch.manual_seed(seed)
    return VAE(mlp_encoder(shape, 64, 320), mlp_decoder(32, shape, 1, 320), Bernoulli(), 32)


def mnist_small(steps: int = 40_000, seed: int = 0) -> Recipe:
    """Static binarised MNIST for one core, ten minutes: 0.74M parameters, 32 latents; the stored weights."""
    model = mnist_small_model(seed)
    return _mnist(model, steps, seed, batch_size=200, lr=2e-3, ema=0.999, valid_every=500)


def mnist_plain(steps: int = 100_000, seed: int = 0) -> Recipe:
    """Static binarised MNIST, for a GPU: two hidden layers of 512, 64 latents, dropout."""
    shape = (1, 28, 28)
    torch.manual_seed(seed)
    decoder = mlp_decoder(64, shape, 1, 512, dropout=0.1)
    model = VAE(mlp_encoder(shape, 128, 512), decoder, Bernoulli(), 64)
    return _mnist(model, steps, seed, batch_size=256, lr=1e-3, ema=0.9995, valid_every=1000)


def mnist_conv(steps: int = 60_000, seed: int = 0) -> Recipe:
    """Static binarised MNIST, for a GPU: residual convolutions and 32 latents."""
    shape = (1, 28, 28)
    torch.manual_seed(seed)
    encoder = conv_encoder(shape, 64, width=32, blocks=2, dropout=0.2)
    decoder = conv_decoder(32, shape, 1, width=32, blocks=2, dropout=0.2)
    model = VAE(encoder, decoder, Bernoulli(), 32)
    more = dict(weight_decay=1e-3, clip=200.0)
    return _mnist(model, steps, seed, batch_size=128, lr=1e-3, ema=0.9995, valid_every=1000, **more)


def mnist_hierarchical(steps: int = 100_000, seed: int = 0) -> Recipe:
    """Static binarised MNIST, for a GPU: three levels of 16, 24 and 32 latents, fully connected."""
    torch.manual_seed(seed)
    up, levels = mlp_levels(784, (16, 24, 32), width=512)
    decoder = nn.Sequential(nn.SiLU(), nn.Dropout(0.1), Linear(512, 784))
    decoder.append(nn.Unflatten(1, (1, 28, 28)))
    model = HierarchicalVAE(up, levels, decoder, Bernoulli(), (512,), free_bits=0.5)
    return _mnist(model, steps, seed, batch_size=256, lr=1e-3, ema=0.9995, valid_every=1000)


def _mnist(model: LatentModel, steps: int, seed: int, **settings) -> Recipe:
    train, valid = (binarized_mnist(split).float() for split in ("train", "valid"))
    return Recipe(model, train, dict(steps=steps, seed=seed, valid=valid[:2000], **settings))


RECIPES = {f.__name__: f for f in (mnist_small, mnist_plain, mnist_conv, mnist_hierarchical)}


def measure(model: LatentModel, x: Tensor, samples: int = 500, seed: int = 0) -> dict[str, float]:
    """Means over x, in nats: the bound and its parts, and -log p by importance sampling.

    >>> from lib.results.plane import plane_vae
    >>> measure(plane_vae(), torch.zeros(3, 2), samples=5)["examples"]
    3
    """
    with measuring(model, seed):
        found = _bound(model, x)
        got = model.estimate(x, samples)
    return found | {
        f"-log p, {samples} samples": -got.log_prob.double().mean().item(),
        "its standard error from the samples": got.stderr.square().sum().sqrt().item() / len(x),
        "smallest effective sample size": got.ess.min().item(),
        "examples": len(x),
    }


@torch.no_grad()
def measure_bound(model: LatentModel, x: Tensor, seed: int = 0, n: int = 8) -> dict[str, float]:
    """Means over x and n samples each, in nats: minus the bound, and its two parts.

    >>> from lib.results.plane import plane_vae
    >>> sorted(measure_bound(plane_vae(), torch.zeros(3, 2)))
    ['-elbo', '-recon', 'kl']
    """
    with measuring(model, seed):
        return _bound(model, x, n)


@torch.no_grad()
def _bound(model: LatentModel, x: Tensor, n: int = 8) -> dict[str, float]:
    check_count(len(x), "the number of examples")
    parts = [model.elbo(row) for row in x.split(500) for _ in range(n)]
    recon, kl = (torch.cat(part).double().mean().item() for part in zip(*parts, strict=True))
    return {"-elbo": kl - recon, "-recon": -recon, "kl": kl}


def _count(word: str) -> int:
    """A number of images on the command line: refused before the training, not after it."""
    try:
        return check_count(int(word), "the number")
    except ValueError as error:
        raise ArgumentTypeError(error) from error


def main(argv: list[str] | None = None) -> None:
    """Train one of the recipes, measure it on the test part, store weights and card."""
    from lib.flows.autoregressive_recipes import digits_iaf, mnist_iaf  # chapters 5 and 6: the same
    from lib.flows.posteriors import digits_planar, mnist_planar  # VAE with a flow behind it

    more = (digits_vae, digits_iaf, digits_planar, mnist_iaf, mnist_planar)
    recipes = RECIPES | {f.__name__: f for f in more}
    images = dict(type=_count, default=10_000, help="for log p, spread over the set")
    run = train(recipes, main.__doc__, argv, test_images=images)
    small = run.args.recipe.startswith("digits")
    test = (digits("test")[0] if small else binarized_mnist("test")).float().to(run.args.device)
    if run.quick:
        test = test[:: max(1, len(test) // 16)]
    some = test[:: -(-len(test) // run.args.test_images)]  # the set is sorted by class
    bound = {"-elbo of all": measure_bound(run.model, test)["-elbo"]}
    metrics = {"part": "test", "unit": "nats", **bound, **measure(run.model, some)}
    module = recipes[run.args.recipe].__module__.replace("__main__", "lib.vae.recipes")
    data = "digits" if small else "binarized_mnist (Larochelle and Murray 2011), static"
    store(run, module, data, metrics, {"wall": run.wall, "processor": run.processor})


if __name__ == "__main__":
    main()
