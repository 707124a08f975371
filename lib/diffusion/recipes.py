"""Diffusion models of images: which network, which schedule, which settings of `fit`.

    recipe = mnist()
    for update in fit(recipe.model, recipe.train, **recipe.fit):
        ...

From the command line, which keeps the weights; `mnist` and `fashion_mnist` are made for one core
that has bfloat16 (AMX), in a quarter of an hour, `cifar10` for a GPU:

    BOOK_DATA=... python -m lib.train ddpm-mnist --mode full
"""

import torch
from torch import Tensor

from lib.data import images
from lib.data.images import LEVELS, to_unit
from lib.diffusion.denoiser import Denoiser, Diffusion
from lib.diffusion.schedule import Cosine
from lib.recipe import Recipe, store, train
from lib.unet import UNet
from lib.utils import check_count


class LabelledPixels:
    """Images in [-1, 1] with fresh dequantisation noise, and labels: `pixels(B)`, (B, *shape) and (B,).

    Level k of n is 2 k / (n - 1) - 1, as in DDPM, and the noise is uniform and as wide as levels
    are apart: with it the data has a density, which a likelihood needs, and nobody sees it. `name`
    is a function of `lib.data.images` and a key of LEVELS; `mirror` turns half of the images around.
    """

    def __init__(self, name: str, mirror: bool = False):
        self.name, self.mirror, self.n_levels = name, mirror, LEVELS[name]
        self.train, self.labels = self.part("train")
        self.shape = tuple(self.train.shape[1:])

    def part(self, split: str) -> tuple[Tensor, Tensor]:
        """The integer levels and the labels of a split."""
        return getattr(images, self.name)(split)

    def to(self, device: torch.device | str) -> "LabelledPixels":
        self.train, self.labels = self.train.to(device), self.labels.to(device)
        return self

    def __call__(self, n: int) -> tuple[Tensor, Tensor]:
        i = torch.randint(len(self.train), (n,)).to(self.train.device)
        x = self.train[i]
        if self.mirror:
            turn = (torch.rand(n) < 0.5).to(x.device)
            x = torch.where(turn[:, None, None, None], x.flip(3), x)
        return to_unit(x, self.n_levels, torch.rand(x.shape).to(x.device)), self.labels[i]

    def held(self, split: str = "valid", most: int = 1_000) -> tuple[Tensor, Tensor]:
        """At most `most` images and labels from all of a split, with a fixed draw of the noise."""
        levels, labels = self.part(split)
        i = _spread(check_count(most, "most"), len(levels))
        u = torch.rand(levels[i].shape, generator=torch.Generator().manual_seed(0))
        return to_unit(levels[i], self.n_levels, u), labels[i]


def _spread(most: int, size: int) -> Tensor:
    """At most `most` indices below `size`, from end to end: every k-th where that is a whole number."""
    n = min(most, size)
    return torch.arange(n) * size // n


def small_model(seed: int = 0) -> Diffusion:
    """The network of the stored `ddpm_mnist` and `ddpm_fashion_mnist`: 1.1M parameters.

    `lib.weights.load("ddpm_mnist", small_model())`. It takes labels 0 to 9, and 10 for none: a
    seventh of the labels is withheld in training, so that the same weights know the images with
    and without. Images enter as 14 x 14 patches of 2 x 2 pixels, which halves the time. The sines
    and cosines magnify small differences near black and white: without them, noise below a tenth
    of the range was seen only after many times as many steps.
    """
    torch.manual_seed(seed)
    net = UNet(1, width=64, multipliers=(1, 1), classes=10, patch=2, fourier=(2, 4, 6))
    return _model(net, (1, 28, 28))


def _model(net: UNet, shape: tuple[int, ...]) -> Diffusion:
    """Cosine schedule, v-prediction with its own error as the loss, labels withheld with 0.15."""
    denoiser = Denoiser(net, Cosine(), predict="v")
    return Diffusion(denoiser, *shape, weight="v", t_min=1e-4, drop=0.15, null=net.null)


def mnist(steps: int = 9_000, seed: int = 0) -> Recipe:
    """MNIST for one core; the stored `ddpm_mnist`."""
    return _small("mnist", steps, seed)


def fashion_mnist(steps: int = 9_000, seed: int = 0) -> Recipe:
    """Fashion-MNIST for one core; the stored `ddpm_fashion_mnist`."""
    return _small("fashion_mnist", steps, seed)


def _small(name: str, steps: int, seed: int) -> Recipe:
    pixels = LabelledPixels(name)
    settings = dict(steps=steps, batch_size=32, lr=1e-3, ema=0.999, clip=1.0, seed=seed)
    settings |= dict(amp=torch.bfloat16, valid=pixels.held(), valid_every=1_000)
    return Recipe(small_model(seed), pixels, settings)


def cifar10_model(width: int = 128, seed: int = 0) -> Diffusion:
    """For CIFAR-10, 32 x 32: four resolutions, attention at 16 x 16, 35.8M parameters at width 128.

    Sines and cosines of the pixels show the network differences below one grey level, on which the
    last half bit of the likelihood depends (Kingma et al. 2021, appendix C).
    """
    torch.manual_seed(seed)
    net = UNet(
        3,
        width=width,
        multipliers=(1, 2, 2, 2),
        blocks=2,
        attention=(1,),
        classes=10,
        dropout=0.1,
        fourier=(7, 8),
    )
    return _model(net, (3, 32, 32))


def cifar10(steps: int = 200_000, width: int = 128, seed: int = 0) -> Recipe:
    """CIFAR-10, mirrored at random, for a GPU: DDPM's size, averaged weights, bfloat16."""
    pixels = LabelledPixels("cifar10", mirror=True)
    settings = dict(steps=steps, batch_size=128, lr=2e-4, ema=0.9999, clip=1.0, seed=seed)
    settings |= dict(amp=torch.bfloat16, valid=pixels.held(), valid_every=5_000)
    return Recipe(cifar10_model(width, seed), pixels, settings)


RECIPES = {f.__name__: f for f in (mnist, fashion_mnist, cifar10)}


def main(argv: list[str] | None = None) -> None:
    """Train one of the recipes, measure it after rounding, store weights and card."""
    from lib.diffusion.measures import measure  # which imports from this file

    run = train(RECIPES, main.__doc__, argv)
    name = run.args.recipe
    if run.quick:
        metrics = measure(run.model, run.recipe.train, n=16, steps=2)
    else:
        metrics = measure(run.model, run.recipe.train, 1_000 if name == "cifar10" else 0)
    data = f"{name}, labels withheld with probability 0.15"
    store(run, "lib.diffusion.recipes", data, metrics, run.processor, name=f"ddpm_{name}")


if __name__ == "__main__":
    main()
