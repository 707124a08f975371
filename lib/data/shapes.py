"""Images of one or two shapes whose every attribute is known: any number of them, from a seed.

`attributes` says what they can show and in which units, `captions` puts it into words, and
`reader` looks at an image and gives its attributes back.
"""

import math

import torch
from torch import Tensor

from ..utils import check_batch, check_count
from .attributes import (
    BACKGROUNDS,
    COLOURS,
    FIELDS,
    NAMES,
    SHAPES,
    Attributes,
    from_labels,
    labels,
    one_hot,
    sample_attributes,
)

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "FIELDS",
    "NAMES",
    "SHAPES",
    "Attributes",
    "downsample",
    "from_labels",
    "labels",
    "one_hot",
    "render",
    "sample",
    "sample_attributes",
]

_CHUNK = 2**18  # pixels drawn at once on a CPU: few calls, and still near its cache


def sample(
    n: int, size: int = 32, generator: torch.Generator | None = None, **options
) -> tuple[Tensor, Attributes]:
    """n images (n, 3, size, size) in [0, 1], and what they show; options as `sample_attributes`.

    >>> images, shown = sample(2, size=16, colour="red")
    >>> images.shape, shown.colour
    (torch.Size([2, 3, 16, 16]), tensor([0, 0]))
    """
    attributes = sample_attributes(n, generator, **options)
    return render(attributes, size), attributes


@torch.no_grad()
def render(attributes: Attributes, size: int = 32) -> Tensor:
    """Draw: -> (B, 3, size, size) in [0, 1], with the dtype and on the device of the attributes.

    A pixel that the outline crosses mixes both colours by the distance of its centre to the
    outline. Inside and outside the colours are exact; the second shape lies on top.

    Raises:
        ValueError: a shape, a colour or a background is unknown (-1).

    >>> render(sample_attributes(2), size=16).shape
    torch.Size([2, 3, 16, 16])
    """
    first, second = attributes, attributes.second
    check_count(size, "size")
    for name in ("shape", "colour", "background"):
        if (getattr(first, name) < 0).any():
            raise ValueError(f"cannot draw an unknown {name}: {name} is -1 for some image")
        if second is not None and name != "background":
            if ((second.shape >= 0) & (getattr(second, name) < 0)).any():
                raise ValueError(f"cannot draw an unknown {name}: it is -1 for some second shape")
    for drawn in (first, *([] if second is None else [second])):
        if (drawn.shape >= len(SHAPES)).any():
            raise ValueError(f"shapes go up to {len(SHAPES) - 1}, got {int(drawn.shape.max())}")
    to = {"device": first.size.device, "dtype": first.size.dtype}
    images = torch.empty(len(first), 3, size, size, **to)
    paints = torch.tensor(list(COLOURS.values()), **to)[:, :, None, None]
    ground = torch.tensor(list(BACKGROUNDS.values()), **to)[first.background][:, :, None, None]
    paint = paints[first.colour] - ground
    step = max(1, (_CHUNK if images.device.type == "cpu" else 2**26) // size**2)
    for i in range(0, len(first), step):
        rows = slice(i, i + step)
        torch.mul(_cover(first[rows], size), paint[rows], out=images[rows]).add_(ground[rows])
        if second is None:
            continue
        some = (second.shape[rows] >= 0).nonzero()[:, 0] + i
        if len(some):
            cover = _cover(second[some], size)
            images[some] = images[some].mul_(1 - cover).add_(cover * paints[second.colour[some]])
    return images


def downsample(images: Tensor, factor: int = 2) -> Tensor:
    """Mean over blocks of factor x factor pixels: (B, C, H, W) -> (B, C, H / factor, W / factor).

    >>> downsample(torch.arange(4.0).view(1, 1, 2, 2))
    tensor([[[[1.5000]]]])
    """
    check_batch(images, name="images", finite=False)
    if images.ndim != 4 or any(s % check_count(factor, "factor") for s in images.shape[2:]):
        shape = tuple(images.shape)
        raise ValueError(f"images must be (B, C, H, W) with H and W multiples of {factor}: {shape}")
    return torch.nn.functional.avg_pool2d(images, factor)


def _cover(a: Attributes, size: int) -> Tensor:
    """How much of each pixel the shape covers, (B, 1, size, size)."""
    cover = a.size.new_empty(len(a), 1, size, size)
    wide = torch.promote_types(a.size.dtype, torch.float32)  # half precision cannot place a pixel
    a = a.replace(**{k: getattr(a, k).to(wide) for k in ("x", "y", "size", "rotation")})
    pixel = torch.arange(size, device=a.size.device, dtype=wide) + 0.5
    x, y = pixel - size * a.x[:, None], size * (1 - a.y[:, None]) - pixel
    for kind in range(len(SHAPES)):
        rows = (a.shape == kind).nonzero()[:, 0]
        if len(rows):
            distance = _outline(kind, x[rows], y[rows], size * a.size[rows], a.rotation[rows])
            cover[rows, 0] = distance.neg_().add_(0.5).clamp_(0, 1).to(cover.dtype)
    return cover


def _outline(kind: int, x: Tensor, y: Tensor, size: Tensor, turn: Tensor) -> Tensor:
    """Signed distance to the outline, negative inside: x (B, W), y (B, H) -> (B, H, W), in pixels.

    Each half-plane is an outer sum of a row and a column: one pass over the pixels.
    """
    if kind == 0:
        square = (x * x)[:, None, :] + (y * y)[:, :, None]
        return square.sqrt_().sub_(size[:, None, None] / 2)

    def along(degrees):  # coordinate in that direction, of the shape's own frame
        angle = turn[:, None] + math.radians(degrees)
        return (angle.cos() * x)[:, None, :] + (angle.sin() * y)[:, :, None]

    # `unit`: side of the square, inradius of the triangle, side of a fifth of the cross
    area = math.pi / 4 * size[:, None, None] ** 2
    if kind == 2:
        unit = (area / (3 * math.sqrt(3))).sqrt()
        distance = torch.maximum(along(-90), along(30))
        return torch.maximum(distance, along(150), out=distance).sub_(unit)
    u, v = along(0).abs_(), along(90).abs_()
    if kind == 1:
        return torch.maximum(u, v, out=u).sub_(area.sqrt() / 2)
    unit = (area / 5).sqrt()
    wide = torch.maximum(u, v).sub_(1.5 * unit)
    return torch.maximum(wide, torch.minimum(u, v, out=u).sub_(unit / 2), out=wide)
