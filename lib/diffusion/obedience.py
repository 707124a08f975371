"""Does a model draw what its caption says? Generated shapes, read by an exact reader.

Rombach et al. (2022) ask people and networks; here every attribute of an image can be read off, so
that obedience and diversity are numbers.
"""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from lib.data import shapes
from lib.data.captions import caption, encode_captions
from lib.data.reader import matches, read_attributes
from lib.diffusion.denoiser import Clipped, Diffusion
from lib.diffusion.exponential import dpm_solver_multi
from lib.diffusion.guidance import Guided
from lib.diffusion.latent import LatentDiffusion
from lib.utils import check_count, measuring


@torch.no_grad()
def draw(
    model: Diffusion | LatentDiffusion,
    captions: list[str],
    w: float = 2.0,
    steps: int = 20,
    start: Tensor | None = None,
    batch: int = 128,
) -> Tensor:
    """One image for each caption, (N, 3, H, W) in [0, 1], guided with weight w.

    DPM-Solver++(2M) in `steps` steps; x_hat is clipped where the model knows pixels. `start` is the
    noise to begin with, (N, *shape of what is diffused); fresh if left out.

    >>> from lib.diffusion.shapes import pixel_model
    >>> draw(pixel_model(), ["a red circle"], steps=1).shape
    torch.Size([1, 3, 32, 32])
    """
    check_count(len(captions), "the number of captions")
    device = next(model.parameters()).device
    tokens = encode_captions(captions, device=device)
    denoiser = Guided(model.denoiser, w, null=0)
    if not isinstance(model, LatentDiffusion):
        denoiser = Clipped(denoiser)
    parts = []
    for i in range(0, len(tokens), batch):
        rows = tokens[i : i + batch]
        noise = None if start is None else start[i : i + batch]
        step = dpm_solver_multi(denoiser, rows)
        parts.append(model.sample(len(rows), rows, steps, step, noise))
    return ((torch.cat(parts) + 1) / 2).clamp(0, 1)


class Obedience(NamedTuple):
    """What `obedience` measures of one guidance weight."""

    w: float
    right: dict[str, float]  # of each attribute, the share of images that show what was asked
    attributes: float  # the mean of these
    shapes: list[float]  # of each caption, the share of images with the shape that was asked
    images: float  # share of images in which every attribute is right
    spread: float  # of what the caption leaves open, against the data's: 1 is as diverse
    seconds: float  # wall clock for one image


@torch.no_grad()
def obedience(
    model: Diffusion | LatentDiffusion,
    w: float,
    captions: int = 40,
    each: int = 10,
    second: float = 0.0,
    steps: int = 20,
    seed: int = 0,
) -> Obedience:
    """Draw `each` images of each of some random full captions, and read them.

    spread is a ratio of standard deviations: of what a caption does not fix (the centre's place and
    the size within their classes), about the mean of the images of the same caption, in images whose
    shape was found, against the same of the true images with these captions.

    With one seed every weight sees the same captions and noises: compare weights caption by caption.

    Args:
        second: share of captions with two shapes; the spread is of the first.
    """
    check_count(captions, "captions")
    if each < 2:
        raise ValueError(f"a spread needs 2 images of a caption at least, got each={each}")
    generator = torch.Generator().manual_seed(seed)
    shown = shapes.sample_attributes(captions, generator, second=second)
    labels = shapes.labels(shown).repeat_interleave(each, 0)
    truth = shapes.from_labels(labels, generator)
    with measuring(model, seed):
        begun = time.perf_counter()
        images = draw(model, caption(labels), w, steps)
        seconds = (time.perf_counter() - begun) / len(labels)
    read = read_attributes(images.cpu())
    right = {k: v for k, v in matches(read, labels).items() if not v.isnan().all()}
    hits = torch.stack(list(right.values()))
    share = {k: v.nanmean().item() for k, v in right.items()}
    wide = _spread(read, each) / _spread(truth, each)
    whole = (hits.isnan() | (hits == 1)).all(0).double().mean().item()
    shapes_right = right["shape"].unflatten(0, (captions, each)).nanmean(1).tolist()
    return Obedience(w, share, hits.nanmean().item(), shapes_right, whole, wide.item(), seconds)


def _spread(found: shapes.Attributes, each: int) -> Tensor:
    """Root of the mean variance of x, y and size within the captions of two or more shapes found."""
    rows = torch.stack([found.x, found.y, found.size], 1).unflatten(0, (-1, each)).double()
    known = (~rows.isnan()).sum(1)
    mean = rows.nanmean(1, keepdim=True)
    var = (rows - mean).square().nansum(1) / (known - 1).clamp_min(1)
    return var.masked_fill(known < 2, torch.nan).nanmean().sqrt()
