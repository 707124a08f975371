"""Diffusion of the generated shapes by their captions, in pixels and in latents; the stored weights.

    recipe = latent_shapes(autoencoder)
    for update in fit(recipe.model, recipe.train, **recipe.fit):
        ...

From the command line, which keeps the weights, each made for one core that has bfloat16 (AMX):

    python -m lib.train autoencoder-shapes --mode full     (first: the latent model needs it)
    python -m lib.train latent-shapes --mode full
    python -m lib.train pixel-shapes --mode full
    python -m lib.train ddpm-shapes --mode full
"""

from typing import Any

import torch
from torch import Tensor, nn

from lib import weights
from lib.data import shapes as data
from lib.data.captions import LENGTH, VOCABULARY, caption, encode_captions
from lib.data.reader import read_attributes
from lib.diffusion.denoiser import Clipped, Denoiser, Diffusion
from lib.diffusion.exponential import dpm_solver_multi
from lib.diffusion.latent import Captioned, CaptionEncoder, LatentDiffusion
from lib.diffusion.obedience import obedience
from lib.diffusion.schedule import Cosine
from lib.recipe import Recipe, store, train
from lib.unet import UNet
from lib.utils import check_count, measuring
from lib.vae import compress
from lib.vae.autoencoder import Autoencoder, KLAutoencoder
from lib.vae.compress import SECOND, images

UNSAID = 0.15  # share of attributes that a caption leaves out


def captioned(n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """n fresh images and their captions as tokens, (n, 3, 32, 32) and (n, 19).

    A caption leaves out each attribute but the shapes with probability `UNSAID`.

    >>> captioned(2)[1].shape
    torch.Size([2, 19])
    """
    x, shown = data.sample(n, generator=generator, second=SECOND)
    said = data.labels(shown)
    unsaid = torch.rand(said.shape, generator=generator) < UNSAID
    unsaid[:, [1, 5]] = False
    return 2 * x - 1, encode_captions(caption(said.masked_fill(unsaid, -1)))


def autoencoder_model(seed: int = 0) -> KLAutoencoder:
    """The model of `autoencoder_shapes`: 4 x 8 x 8 latents, 0.3M parameters."""
    torch.manual_seed(seed)
    return KLAutoencoder(3, latent=4, width=48, noise=0.1, kl_weight=0.03)


def autoencoder_shapes(steps: int = 6_000, seed: int = 0) -> Recipe:
    """The autoencoder of the latent model: five minutes of one core."""
    settings = dict(steps=steps, batch_size=32, lr=2e-3, ema=0.99, clip=3e3, seed=seed)
    return Recipe(autoencoder_model(seed), images, settings | dict(amp=torch.bfloat16))


def caption_net(channels: int, patch: int = 1, attention: tuple[int, ...] = (0,)) -> Captioned:
    """The network of both models: 64 channels, two resolutions, 1.2M parameters.

    Both read the caption where they have 8 x 8 places: the latents at once, the pixels, which enter
    as 16 x 16 patches of 2 x 2, after one halving.
    """
    net = UNet(
        channels,
        width=64,
        multipliers=(1, 1),
        attention=attention,
        heads=32,
        tokens=64,
        patch=patch,
    )
    return Captioned(net, CaptionEncoder(len(VOCABULARY), LENGTH, 64))


_OPTIONS = dict(weight="v", t_min=1e-4, drop=0.1, null=0)  # token 0 everywhere: the empty caption


def latent_model(autoencoder: KLAutoencoder | None = None, seed: int = 0) -> LatentDiffusion:
    """The model of `latent_shapes`, whose weights hold the autoencoder's too."""
    autoencoder = autoencoder or autoencoder_model()
    torch.manual_seed(seed)
    denoiser = Denoiser(caption_net(4), Cosine(), predict="v")
    return LatentDiffusion(autoencoder, denoiser, 4, 8, 8, **_OPTIONS)


def latent_shapes(steps: int = 24_000, seed: int = 0) -> Recipe:
    """Captions to latents of the stored autoencoder."""
    autoencoder = autoencoder_model()
    weights.load("autoencoder_shapes", autoencoder)
    model = latent_model(autoencoder, seed)
    model.fit_scale(images(2_000, torch.Generator().manual_seed(seed)))
    return Recipe(model, captioned, _settings(steps, seed))


def pixel_model(seed: int = 0) -> Diffusion:
    """The model of `pixel_shapes`: the same layers, on pixels."""
    torch.manual_seed(seed)
    denoiser = Denoiser(caption_net(3, patch=2, attention=(1,)), Cosine(), predict="v")
    return Diffusion(denoiser, 3, 32, 32, **_OPTIONS)


def pixel_shapes(steps: int = 15_000, seed: int = 0) -> Recipe:
    """Captions to pixels."""
    return Recipe(pixel_model(seed), captioned, _settings(steps, seed))


def _settings(steps: int, seed: int) -> dict[str, Any]:
    return dict(
        steps=steps,
        batch_size=32,
        lr=1e-3,
        ema=0.999,
        clip=1.0,
        seed=seed,
        amp=torch.bfloat16,
    )


def upright(n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """n large shapes that stand upright, one an image: (n, 3, 32, 32) and which shape it is, (n,).

    >>> upright(2)[0].shape
    torch.Size([2, 3, 32, 32])
    """
    shown = data.sample_attributes(n, generator, size="large").replace(rotation=0.0)
    return 2 * data.render(shown) - 1, shown.shape


def ddpm_model(seed: int = 0) -> Diffusion:
    """The model of `ddpm_shapes`, for chapter 9: labels 0 to 3 are `lib.data.shapes.SHAPES`, 4 is none.

    The network of `recipes.small_model`, with colours.
    """
    torch.manual_seed(seed)
    net = UNet(3, width=64, multipliers=(1, 1), classes=len(data.SHAPES), patch=2, fourier=(2, 4))
    options = _OPTIONS | dict(drop=0.15, null=net.null)
    return Diffusion(Denoiser(net, Cosine(), predict="v"), 3, 32, 32, **options)


def ddpm_shapes(steps: int = 15_000, seed: int = 0) -> Recipe:
    """Large upright shapes by their kind: a quarter of an hour of one core."""
    return Recipe(ddpm_model(seed), upright, _settings(steps, seed))


RECIPES = {f.__name__: f for f in (autoencoder_shapes, latent_shapes, pixel_shapes, ddpm_shapes)}


@torch.no_grad()
def share_right(model: Diffusion, n: int = 400, steps: int = 20, seed: int = 0) -> float:
    """The share of n samples of `ddpm_model` in which the exact reader finds the shape asked for.

    >>> 0 <= share_right(ddpm_model(), n=2, steps=1) <= 1
    True
    """
    wanted = torch.arange(check_count(n)) % len(data.SHAPES)
    with measuring(model, seed):
        denoiser, device = Clipped(model.denoiser), next(model.parameters()).device
        x = torch.cat(
            [
                model.sample(len(rows), rows, steps, dpm_solver_multi(denoiser, rows)).cpu()
                for rows in wanted.to(device).split(100)
            ]
        )
    read = read_attributes(((x + 1) / 2).clamp(0, 1))
    return (read.shape == wanted).double().mean().item()


@torch.no_grad()
def measure(model: nn.Module, n: int = 2_000, captions: int = 60) -> dict[str, Any]:
    """What stands on the cards: errors of an autoencoder, or how well captions are followed.

    n images for the first, 5 samples for each of so many captions for the second.
    """
    if isinstance(model, Diffusion) and model.null:
        count = min(400, n)
        return {f"share of {count} samples with the shape asked for": share_right(model, count)}
    if not isinstance(model, Autoencoder):
        rows = [obedience(model, w, captions=captions, each=5) for w in (1.0, 2.0, 3.0, 4.0)]
        return {f"w = {row.w:g}": row._asdict() for row in rows}
    generator = torch.Generator().manual_seed(10_000)
    x, shown = data.sample(n, generator=generator, second=SECOND)
    x = (2 * x - 1).to(next(model.parameters()).device)
    rate, _, _, error, right = compress.measure(model, x, shown)
    return {
        "mean squared error of a value in [-1, 1]": error,
        "kl, bits per image": rate * compress.PIXELS,
        "share of attributes right after the round trip": right,
    }


def main(argv: list[str] | None = None) -> None:
    """Train one of the recipes, measure it after rounding, store weights and card."""
    run = train(RECIPES, main.__doc__, argv, every=500)
    upright_only = run.args.recipe == "ddpm_shapes"
    kind = "large, upright, one an image" if upright_only else "a quarter of them two"
    learnt = f"generated shapes, 32 x 32, {kind}"
    metrics = measure(run.model, 16, 2) if run.quick else measure(run.model)
    store(run, "lib.diffusion.shapes", learnt, metrics, run.processor)


if __name__ == "__main__":
    main()
