"""Flows trained on images: which flow, which data, which settings of `fit`.

    recipe = digits_realnvp()
    for update in fit(recipe.model, recipe.train, **recipe.fit):
        ...
    bits = measure(recipe.model, recipe.train.part("test"))

From the command line, which keeps the weights; `mnist_...` and `cifar10_...` are for a GPU:

    BOOK_DATA=... python -m lib.train mnist-glow --mode full
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lib.data import images
from lib.data.images import LEVELS, bits_per_dim, dequantise
from lib.flows.builders import glow, realnvp, realnvp_images
from lib.flows.coupling import checkerboard
from lib.flows.elementwise import Logit
from lib.flows.flow import Flow
from lib.flows.linear import ActNorm, start
from lib.flows.transform import Compose, Transform
from lib.recipe import Recipe, store, train
from lib.utils import check_count, measuring


class Pixels:
    """Images in (0, 1) with fresh dequantisation noise at every draw: `pixels(B)`, (B, *shape).

    `name` is a function of `lib.data.images` and a key of LEVELS. `flat` gives vectors, `mirror`
    turns half of the images around. `part(split)` gives the integer levels of a split.

    >>> Pixels("digits")(5).shape
    torch.Size([5, 1, 8, 8])
    """

    def __init__(self, name: str, flat: bool = False, mirror: bool = False):
        if flat and mirror:
            raise ValueError("mirror turns images round, flat makes vectors of them: not both")
        self.name, self.flat, self.mirror, self.n_levels = name, flat, mirror, LEVELS[name]
        self.train = self.part("train")
        self.shape = tuple(self.train.shape[1:])

    def part(self, split: str) -> Tensor:
        levels = getattr(images, self.name)(split)[0]
        return levels.flatten(1) if self.flat else levels

    def to(self, device: torch.device | str) -> "Pixels":
        self.train = self.train.to(device)
        return self

    def __call__(self, n: int) -> Tensor:
        x = self.train[torch.randint(len(self.train), (n,)).to(self.train.device)]
        if self.mirror:
            turn = (torch.rand(n) < 0.5).to(x.device)
            x = torch.where(turn[:, None, None, None], x.flip(3), x)
        return dequantise(x, self.n_levels)

    def held(self, split: str = "valid", most: int = 2_000, copies: int = 1) -> Tensor:
        """A fixed draw of the noise for `copies` of the first `most` images of a split."""
        levels = self.part(split)[:most]
        noise = torch.Generator().manual_seed(0)
        return dequantise(levels.repeat(copies, *[1] * (levels.ndim - 1)), self.n_levels, noise)


def _recipe(
    build: Callable[[Pixels], Transform], pixels: Pixels, seed: int, copies: int = 1, **settings
) -> Recipe:
    torch.manual_seed(seed)
    flow = Flow(Compose(Logit(0.05), build(pixels)), *pixels.shape)
    start(flow.transform, pixels(min(1_000, len(pixels.train))))
    held = pixels.held(copies=copies)
    return Recipe(flow, pixels, dict(valid=held, clip=50.0, seed=seed) | settings)


def chessboard(dim: int = 64, flip: bool = False) -> Tensor:
    """The checkerboard of the 8 x 8 digits as a mask of vectors: bool (64,).

    >>> chessboard(16).view(2, 8).int()
    tensor([[1, 0, 1, 0, 1, 0, 1, 0],
            [0, 1, 0, 1, 0, 1, 0, 1]], dtype=torch.int32)
    """
    if dim % 8:
        raise ValueError(f"rows of 8 pixels make a multiple of 8, got {dim}")
    return checkerboard(1, dim // 8, 8, flip).flatten()


def digits_realnvp(steps: int = 1_400, width: int = 128, seed: int = 0) -> Recipe:
    """8 x 8 digits as vectors: actnorm and 8 couplings, checkerboards, dropout. 20 s of one core.

    Fresh noise at every step, dropout, averaged weights and the validation part are what keeps
    1,257 images from being learnt by heart.
    """

    def build(pixels):
        return Compose(ActNorm(64), realnvp(64, 8, width, mask=chessboard, dropout=0.2))

    settings = dict(steps=steps, batch_size=128, lr=2e-3, ema=0.99, valid_every=100)
    return _recipe(build, Pixels("digits", flat=True), seed, copies=4, **settings)


def digits_glow(steps: int = 900, width: int = 32, seed: int = 0) -> Recipe:
    """8 x 8 digits as images: two levels of two steps. 25 s of one core."""
    settings = dict(steps=steps, batch_size=64, lr=3e-3, ema=0.99, valid_every=100)
    build = lambda pixels: glow(pixels.shape, 2, 2, width, dropout=0.2)
    return _recipe(build, Pixels("digits"), seed, copies=4, **settings)


def mnist_realnvp(steps: int = 60_000, seed: int = 0) -> Recipe:
    """Dequantised MNIST, for a GPU: three levels, 64 channels, 4 residual blocks."""
    build = lambda pixels: realnvp_images(pixels.shape, 3, 64, 4, dropout=0.1)
    settings = dict(steps=steps, batch_size=256, lr=1e-3, ema=0.9995, weight_decay=1e-3)
    return _recipe(build, Pixels("mnist"), seed, valid_every=1_000, **settings)


def mnist_glow(steps: int = 60_000, seed: int = 0) -> Recipe:
    """Dequantised MNIST, for a GPU: two levels of 16 steps."""
    build = lambda pixels: glow(pixels.shape, 2, 16, 96, blocks=2, dropout=0.1)
    settings = dict(steps=steps, batch_size=256, lr=1e-3, ema=0.9995, weight_decay=1e-3)
    return _recipe(build, Pixels("mnist"), seed, valid_every=1_000, **settings)


def cifar10_realnvp(steps: int = 150_000, seed: int = 0) -> Recipe:
    """CIFAR-10, mirrored at random, for a GPU: two levels, 64 channels, 8 blocks, as published."""
    build = lambda pixels: realnvp_images(pixels.shape, 2, 64, 8)
    settings = dict(steps=steps, batch_size=64, lr=5e-4, ema=0.9998, weight_decay=5e-5)
    return _recipe(build, Pixels("cifar10", mirror=True), seed, valid_every=2_000, **settings)


RECIPES = {f.__name__: f for f in (mnist_realnvp, mnist_glow, cifar10_realnvp)}


@torch.no_grad()
def measure(
    model: Flow, levels: Tensor, n_levels: int = 17, draws: int = 8, seed: int = 0
) -> tuple[float, float]:
    """Bits per dimension of images, levels (N, *shape), and the standard error of their mean.

    An upper bound on the bits of the levels: the mean over `draws` of the dequantisation noise.

    >>> flow = Flow(ActNorm(64), 64)
    >>> bits, error = measure(flow, torch.full((2, 64), 8), draws=1)
    >>> bits > 4 and error < 0.1
    True
    """
    check_count(len(levels), "the number of images, for a standard error,", 2)
    check_count(draws, "draws")
    device = next(model.parameters(), torch.empty(0)).device
    total = torch.zeros(len(levels))
    with measuring(model, seed):  # Hutchinson's probes are random, too: one stream for both
        for _ in range(draws):
            for i in range(0, len(levels), 500):
                x = dequantise(levels[i : i + 500].cpu(), n_levels).to(device)
                total[i : i + 500] += model(x).cpu() / draws
    bits = bits_per_dim(total.double(), levels[0].numel(), n_levels)
    return bits.mean().item(), bits.std().item() / len(bits) ** 0.5


def main(argv: list[str] | None = None) -> None:
    """Train one of the recipes of images, measure it on the test part, store weights and card."""
    from lib.flows import autoregressive_recipes as more  # which imports from this file

    recipes = {f.__name__: f for f in (digits_realnvp, digits_glow)} | RECIPES
    recipes |= {f.__name__: f for f in (more.digits_maf, more.digits_spline, more.mnist_maf)}
    bits = lambda recipe, nats: bits_per_dim(
        nats, recipe.train.train[0].numel(), recipe.train.n_levels
    )
    run = train(recipes, main.__doc__, argv, unit=bits)
    pixels = run.recipe.train
    test = pixels.part("test")[: 32 if run.quick else None]
    mean, error = measure(run.model, test, pixels.n_levels, draws=4)
    module = recipes[run.args.recipe].__module__.replace("__main__", "lib.flows.recipes")
    data = f"{pixels.name}, {pixels.n_levels} levels, uniform dequantisation"
    metrics = {"part": "test", "unit": "bits per dimension", "bits": mean, "stderr": error}
    store(run, module, data, metrics, run.wall)


if __name__ == "__main__":
    main()
