"""Diffusion of the generated 32 x 32 shapes by a small U-Net; the stored `ddpm_shapes`.

recipe = shapes()
for update in fit(recipe.model, recipe.train, **recipe.fit):
    ...

python -m lib.diffusion.shapes
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.data import shapes as data
from lib.data.reader import read_attributes
from lib.diffusion.denoiser import Clipped, Denoiser, Diffusion
from lib.diffusion.samplers import ancestral
from lib.diffusion.schedule import Cosine
from lib.train import fit
from lib.unet import UNet


def draw(n: int) -> tuple[Tensor, Tensor]:
    """n fresh images in [-1, 1], (n, 3, 32, 32), and which shape they show, (n,)."""
    images, attributes = data.sample(n, 32)
    return 2 * images - 1, attributes.shape


class Recipe(NamedTuple):
    """A model, where its images come from, and the keyword arguments of `fit`."""

    model: Diffusion
    train: Callable[[int], tuple[Tensor, Tensor]]
    fit: dict[str, Any]


def shapes_model(seed: int = 0) -> Diffusion:
    """The model of `ddpm_shapes`: `lib.weights.load("ddpm_shapes", shapes_model())`.

    Cosine schedule, v-prediction; labels 0 to 3 are `lib.data.shapes.SHAPES`, 4 is none. The images
    enter as patches of 2 x 2 pixels.
    """
    torch.manual_seed(seed)
    net = UNet(3, width=32, multipliers=(1, 2), classes=len(data.SHAPES), patch=2)
    denoiser = Denoiser(net, Cosine(), predict="v")
    return Diffusion(denoiser, 3, 32, 32, weight="v", drop=0.15, null=net.null)


def shapes(steps: int = 4_000, seed: int = 0, lr: float = 2e-3) -> Recipe:
    """Never the same image twice: nothing can be learnt by heart. Ten minutes of one core."""
    settings = dict(steps=steps, batch_size=32, lr=lr, ema=0.995, clip=1.0, seed=seed)
    return Recipe(shapes_model(seed), draw, settings | dict(amp=torch.bfloat16))


@torch.no_grad()
def share_right(model: Diffusion, n: int = 200, steps: int = 50, seed: int = 0) -> float:
    """The share of samples in which an exact reader finds the shape that was asked for."""
    torch.manual_seed(seed)
    wanted = torch.arange(n) % len(data.SHAPES)
    step = ancestral(Clipped(model.denoiser), wanted, eta=0.0)
    images = model.sample(n, wanted, steps=steps, step=step)
    read = read_attributes(((images + 1) / 2).clamp(0, 1))
    return (read.shape == wanted).float().mean().item()


def main(argv: list[str] | None = None) -> None:
    """Train, round, measure, store weights and card."""
    from lib import weights

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--to", default=str(weights.FOLDER), help="folder for weights and card")
    args = parser.parse_args(argv)
    recipe, curve, total = shapes(args.steps), [], 0.0
    begun = time.process_time()
    for u in fit(recipe.model, recipe.train, **recipe.fit):
        total += u.loss
        if u.step % 200 == 0:
            curve.append([u.step, round(total / 200, 4)])
            print(*curve[-1], f"{u.seconds:.0f} s", flush=True)
            total = 0.0
    seconds = time.process_time() - begun
    right = share_right(weights.round_weights(recipe.model))
    card = {
        "recipe": f"lib.diffusion.shapes.shapes(steps={args.steps})",
        "seed": 0,
        "data": "shapes, 32 x 32, one shape",
        "metrics": {"share of 200 samples with the shape asked for, 50 DDIM steps": right},
        "seconds": round(seconds, 1),
        "device": "cpu, one thread",
        "curve": curve,
    }
    print(right, weights.save("ddpm_shapes", recipe.model, card, folder=args.to))


if __name__ == "__main__":
    main()
