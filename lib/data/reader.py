"""Read the attributes of an image: analysis by synthesis, for images that a model has made.

Where an image differs from its background, the best colour of the palette gives each pixel's cover;
its mass and centre give size and position, and templates at that size and centre give shape and
rotation. Then the answer is drawn, and how much of the image it explains is the confidence.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from ..utils import check_batch
from .attributes import BACKGROUNDS, COLOURS, FIELDS, SHAPES, SYMMETRY, Attributes, labels
from .shapes import _cover, render

_TURNS = 24  # templates per shape
_WIDE = 1.7  # half the side of a template, in radii of the disc of equal area
_GRID = 24
# Blur of the templates, in passes of a 3 x 3 mean: 0.12, 0.2, 0.35 and 0.5 radii. A pixel of the
# image is 0.15 to 0.3 radii wide, and a model's images are blurred.
_BLURS = (1, 3, 9, 18)
_CORNER = 1.56  # the farthest corner of any shape, in the same unit
_CHUNK = 2**22  # pixels read at once


@torch.no_grad()
def read_attributes(images: Tensor, threshold: float = 0.5) -> Attributes:
    """What (B, 3, S, S) images in [0, 1] show, with a confidence (B,) in [0, 1]; S is at least 16.

    The confidence is the part of the image's difference from its background that the answer
    explains, seen at half the resolution; 0 without any. Below `threshold`, shape and colour are -1 and the
    other numbers NaN. A background far from both known ones is -1.

    Raises:
        TypeError, ValueError: not a floating-point batch of square RGB images, or not finite.

    >>> from lib.data.attributes import from_labels
    >>> images = render(from_labels(torch.tensor([[0, 3, 2, 1, 4]])))
    >>> labels(read_attributes(images))[:, :5]
    tensor([[0, 3, 2, 1, 4]])
    """
    shape = tuple(check_batch(images, name="images").shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or shape[2] < 16:
        raise ValueError(f"images must have shape (B, 3, S, S) with S at least 16, not {shape}")
    images = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    images = images.clamp(-9, 9)  # far outside [0, 1] there is nothing to read, only to overflow
    parts = [_read(part, threshold) for part in images.split(max(1, _CHUNK // shape[2] ** 2))]
    return _join(parts)


def matches(read: Attributes | Tensor, wanted: Attributes | Tensor) -> dict[str, Tensor]:
    """For each field, 1 where an image shows what was wanted and 0 where not: (B,) floats.

    NaN where nothing was wanted (-1 in `wanted`), so `.nanmean()` is the share that is right.
    Takes attributes or labels (B, 9), so `matches(read_attributes(x), parse_captions(texts))`.

    >>> matches(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, -1]]))['colour']
    tensor([nan])
    """
    got, want = (labels(a) if isinstance(a, Attributes) else a for a in (read, wanted))
    if got.shape != want.shape:
        raise ValueError(f"labels of {tuple(got.shape)} cannot match {tuple(want.shape)}")
    right = (got == want).to(torch.get_default_dtype()).masked_fill(want < 0, math.nan)
    return dict(zip(FIELDS, right.unbind(1), strict=False))


def _read(images: Tensor, threshold: float) -> Attributes:
    side = images.shape[2]
    to = {"device": images.device, "dtype": images.dtype}
    grounds = torch.tensor(list(BACKGROUNDS.values()), **to)
    rim = max(1, side // 32)
    edge = torch.ones(side, side, dtype=torch.bool, device=images.device)
    edge[rim:-rim, rim:-rim] = False
    seen = images[:, :, edge].median(2).values
    far, background = torch.cdist(seen, grounds).min(1)
    ground = seen.where(far[:, None] > 0.25, grounds[background])
    signal = images - ground[:, :, None, None]

    # Two shapes leave a gap between the halves of the image, across or down.
    mass, solid = ((s.norm(dim=1) > 0.3).to(images) for s in (signal, avg_pool2d(signal, 3, 1, 1)))
    across, down = _gap(mass.sum(1), solid.sum(1)), _gap(mass.sum(2), solid.sum(2))
    down &= ~across
    low = torch.arange(side, device=images.device) < side // 2
    half = torch.where(across[:, None, None], low, low[:, None] | ~down[:, None, None])
    first = _object(signal * half[:, None], ground)
    first.background = background.masked_fill(far > 0.25, -1)
    rows = (across | down).nonzero()[:, 0]
    second = _object((signal * ~half[:, None])[rows], ground[rows])
    nothing = dict.fromkeys(("size", "x", "y", "rotation"), math.nan)
    first.second = first.replace(shape=-1, colour=-1, **nothing)
    for name in ("shape", "colour", "size", "x", "y", "rotation"):
        getattr(first.second, name)[rows] = getattr(second, name)

    # What the answer explains, at half the resolution.
    drawn = render(first.replace(background=background), side)
    view = lambda x: avg_pool2d(x, max(2, side // 16))
    total = view(signal).square().flatten(1).sum(1)
    rest = view(images - drawn - (ground - grounds[background])[:, :, None, None])
    rest = rest.square().flatten(1).sum(1)
    share = (1 - rest / total.clamp_min(1e-9)).clamp(0, 1)
    first.confidence = share.masked_fill(total <= 1e-9, 0)  # of nothing, nothing is explained
    # A shape covers at least 3 % of the image; half of that is nothing.
    unknown = (first.confidence < threshold) | ~(first.size > 0.14)
    for a in filter(None, (first, first.second)):
        a.shape[unknown], a.colour[unknown] = -1, -1
        for part in (a.size, a.x, a.y, a.rotation):
            part[unknown] = math.nan
    return first


def _gap(profile: Tensor, solid: Tensor) -> Tensor:
    """Whether mass along a line, (B, S), has a gap in the middle and enough that is not noise,
    `solid`, on both sides."""
    side, width = profile.shape[1], max(1, profile.shape[1] // 32)
    middle = profile[:, side // 2 - width : side // 2 + width].mean(1)
    halves = profile[:, : side // 2], profile[:, side // 2 :]
    peak = torch.minimum(*(h.max(1).values for h in halves))
    least = torch.minimum(*(h.sum(1) for h in (solid[:, : side // 2], solid[:, side // 2 :])))
    return (middle < 0.35 * peak) & (least > 0.012 * side**2)


def _object(signal: Tensor, ground: Tensor) -> Attributes:
    """The one shape of an image less its background, (B, 3, S, S), on a background (B, 3)."""
    b, _, side, _ = signal.shape
    to = {"device": signal.device, "dtype": signal.dtype}
    # Colour: the direction from the background that leaves the least of the image unexplained.
    flat = signal.flatten(2)
    moment = flat @ flat.mT
    ways = torch.tensor(list(COLOURS.values()), **to) - ground[:, None]
    power = ways.square().sum(2).clamp_min(1e-3)
    colour = (torch.einsum("bki,bij,bkj->bk", ways, moment, ways) / power).argmax(1)
    way = ways[torch.arange(b, device=colour.device), colour] / power.gather(1, colour[:, None])
    cover = torch.einsum("bc,bcp->bp", way, flat).reshape(b, side, side)

    # Size and centre: without the noise of empty pixels first, then without bias close by.
    line = (torch.arange(side, **to) + 0.5) / side
    area, x, y = _moments(cover.clamp(max=1.2) * (cover > 0.25), line)
    for _ in range(2):
        reach = _CORNER * (area.clamp_min(0.01) / math.pi).sqrt() + 1.5 / side
        near = (line - x[:, None]).square()[:, None, :] + (1 - line - y[:, None]).square()[
            ..., None
        ]
        area, x, y = _moments(cover * (near < reach.square()[:, None, None]), line)
    size = (4 / math.pi * area.clamp_min(1e-6)).sqrt()

    # Shape and rotation: the template that looks most like it at its own size and centre.
    grid = torch.linspace(-1, 1, _GRID, **to) * (1 - 1 / _GRID) * _WIDE
    grid = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1)  # x, y down
    centre = torch.stack([x, 1 - y], 1)[:, None, None]
    at = 2 * (centre + grid * size[:, None, None, None] / 2) - 1
    patch = grid_sample(cover[:, None], at, align_corners=False).flatten(1)
    bank = _templates(str(signal.device), signal.dtype)
    likeness = (_unit(patch) @ bank.T).reshape(b, len(_BLURS), len(SHAPES), _TURNS)
    rows = torch.arange(b, device=colour.device)
    likeness = likeness[rows, likeness.amax((2, 3)).argmax(1)]
    best, turn = likeness.max(2)
    shape = best.argmax(1)
    k = turn[rows, shape]
    before, top, after = (likeness[rows, shape, (k + d) % _TURNS] for d in (-1, 0, 1))
    bend = (before - 2 * top + after).clamp(max=-1e-6)
    k = k + (0.5 * (before - after) / bend).clamp(-0.5, 0.5)
    period = torch.tensor(SYMMETRY, **to)[shape]
    turned = (k / _TURNS * period) % period.clamp_min(1)
    none = torch.full_like(shape, -1)
    return Attributes(shape, colour, size, x, y, turned * (period > 0), none)


def _moments(cover: Tensor, line: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Area as a part of the image, and the centre of mass, y up."""
    mass = cover.sum((1, 2)).clamp_min(1e-3)
    x = (cover.sum(1) @ line) / mass
    y = 1 - (cover.sum(2) @ line) / mass
    return mass / len(line) ** 2, x.clamp(0, 1), y.clamp(0, 1)


def _unit(rows: Tensor) -> Tensor:
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-6)


@lru_cache(maxsize=8)
def _templates(device: str, dtype: torch.dtype) -> Tensor:
    """Every shape at every turn and blur, as unit vectors (blurs * shapes * turns, grid^2)."""
    to = {"device": device, "dtype": dtype}
    shape = torch.arange(len(SHAPES), device=device).repeat_interleave(_TURNS)
    part = torch.arange(_TURNS, **to).repeat(len(SHAPES)) / _TURNS
    half = torch.full_like(part, 0.5)
    size = torch.full_like(part, 0.5 / _WIDE)  # on a canvas twice as wide, for the blur's sake
    turn = part * torch.tensor(SYMMETRY, **to)[shape]
    fine = _cover(Attributes(shape, shape, size, half, half, turn, shape), 2 * _GRID)
    bank, inner = [], slice(_GRID // 2, -(_GRID // 2))
    for k in range(max(_BLURS)):
        fine = avg_pool2d(fine, 3, 1, 1)
        if k + 1 in _BLURS:
            bank.append(_unit(fine[..., inner, inner].flatten(1)))
    return torch.cat(bank)


def _join(parts: list[Attributes]) -> Attributes:
    """One batch from several; `second` is left out where no image has one."""
    names = ("shape", "colour", "size", "x", "y", "rotation", "background", "confidence")
    gather = lambda ps, keys: {k: torch.cat([getattr(p, k) for p in ps]) for k in keys}
    second = Attributes(**gather([p.second for p in parts], names[:7]))
    has_second = bool((second.shape >= 0).any())
    return Attributes(**gather(parts, names), second=second if has_second else None)
