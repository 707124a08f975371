"""What a generated image shows: its attributes, their named classes, and random ones.

Lengths are fractions of the image's side, x runs to the right and y *up*, angles are in radians and
turn counter-clockwise. A `size` is the diameter of the disc of equal area, so every shape of size s
covers pi s^2 / 4 of the image: the size says nothing about the shape. A single shape lies inside
the image; two are small and stand left and right, or top and bottom, and do not touch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..utils import check_count
from .base import Draw

SHAPES = ("circle", "square", "triangle", "cross")
# After Okabe and Ito: no two become alike, on either background, without red or green cones.
# Multiples of 1/256, so that mixing two of them is exact where the weight is 0 or 1.
COLOURS = {
    "red": (214 / 256, 56 / 256, 14 / 256),
    "green": (0.0, 134 / 256, 96 / 256),
    "blue": (0.0, 98 / 256, 200 / 256),
    "yellow": (243 / 256, 200 / 256, 26 / 256),
    "pink": (228 / 256, 136 / 256, 192 / 256),
}
BACKGROUNDS = {
    "dark": (26 / 256, 26 / 256, 31 / 256),
    "light": (246 / 256, 246 / 256, 241 / 256),
}
SIZES = {"small": (0.19, 0.24), "large": (0.33, 0.39)}
POSITIONS = ("centre", "left", "right", "top", "bottom")
# The columns of `labels`, and the names that each column numbers.
NAMES = {
    "background": tuple(BACKGROUNDS),
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "position": POSITIONS,
}
FIELDS = (*NAMES, *(f"{name} 2" for name in NAMES if name != "background"))

# Angle after which a shape is itself again; 0 for the circle, which has no rotation.
SYMMETRY = (0.0, math.pi / 2, 2 * math.pi / 3, math.pi / 2)
_OPPOSITE = (0, 2, 1, 4, 3)
_DIRECTION = ((0, 0), (-1, 0), (1, 0), (0, 1), (0, -1))
_SIZE_EDGE, _CENTRE_EDGE = 0.285, 0.085  # between small and large; between centre and the sides
# A shape lies off the centre by _NEAR to _FAR[size], two by _NEAR_PAIR at least: then even the blurred
# corner of a triangle, 0.78 sizes and a 32nd from its centre, meets neither the rim nor the other.
_JITTER, _NEAR, _NEAR_PAIR, _FAR = 0.05, 0.12, 0.218, (0.266, 0.149)


@dataclass
class Attributes:
    """What B images show. shape, colour, background: (B,) int64 into `NAMES`, -1 where unknown.

    size, x, y, rotation: (B,) floats, NaN where unknown; x and y are the centre of mass.
    second: the other shape, with shape -1 where there is none; its background says nothing.
    confidence: (B,) in [0, 1], only from the reader.

    >>> sample_attributes(3)[:2].replace(size=0.2).size
    tensor([0.2000, 0.2000])
    """

    shape: Tensor
    colour: Tensor
    size: Tensor
    x: Tensor
    y: Tensor
    rotation: Tensor
    background: Tensor
    second: Attributes | None = None
    confidence: Tensor | None = None

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, rows) -> Attributes:
        """Some of the images: a slice, a list or a tensor of indices, or a mask."""
        if isinstance(rows, int):
            raise TypeError(
                f"take a slice, as in attributes[{rows}:{rows + 1}], not the int {rows}"
            )
        return self._map(lambda part: part[rows])

    def to(self, *args, **kwargs) -> Attributes:
        """As Tensor.to. A dtype, or a tensor's, is for the floats only; the classes stay integers."""
        if "other" in kwargs:
            args = (kwargs.pop("other"), *args)
        where = lambda a: a.device if isinstance(a, Tensor) else a
        rest = [where(a) for a in args if not isinstance(a, torch.dtype)]
        others = {k: v for k, v in kwargs.items() if k != "dtype"}
        move = lambda t: t.to(*args, **kwargs)
        keep = lambda t: t.to(*rest, **others) if rest or others else t
        return self._map(lambda t: move(t) if t.is_floating_point() else keep(t))

    def replace(self, **values: Tensor | float) -> Attributes:
        """A copy with some fields changed; a number is meant for every image."""
        whole = {
            k: torch.full_like(getattr(self, k), v) if isinstance(v, int | float) else v
            for k, v in values.items()
        }
        return dataclasses.replace(self, **whole)

    def _map(self, f) -> Attributes:
        parts = {k.name: getattr(self, k.name) for k in dataclasses.fields(self)}
        keep = {k: v if v is None or k == "second" else f(v) for k, v in parts.items()}
        if self.second is not None:
            keep["second"] = self.second._map(f)
        return Attributes(**keep)


def labels(attributes: Attributes) -> Tensor:
    """The named classes, (B, 9) int64 in the order of `FIELDS`; -1: unknown, or no second shape.

    >>> labels(sample_attributes(1, colour='blue'))[0, FIELDS.index('colour')]
    tensor(2)
    """
    first = attributes
    none = torch.full_like(first.shape, -1)
    second = [none] * 4 if first.second is None else _object_labels(first.second)
    return torch.stack([first.background, *_object_labels(first), *second], 1)


def one_hot(labels: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """(B, 9) or its first five columns -> (B, 34) or (B, 18): a vector to condition on; 0 for -1.

    >>> one_hot(torch.tensor([[1, 0, -1, -1, -1]])).nonzero()[:, 1]
    tensor([1, 2])
    """
    check_labels(labels)
    counts = [len(NAMES[f.removesuffix(" 2")]) for f in FIELDS[: labels.shape[1]]]
    parts = [
        c[:, None] == torch.arange(k, device=c.device)
        for c, k in zip(labels.T, counts, strict=True)
    ]
    return torch.cat(parts, 1).to(dtype or torch.get_default_dtype())


def from_labels(
    labels: Tensor, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
) -> Attributes:
    """Random attributes that have these labels; -1 leaves a class to chance. (B, 9) or (B, 5).

    There is a second shape where any of its four labels is given. Made on the device of `labels`.

    Raises:
        ValueError: an impossible label, or two shapes that are not both small, not on two sides.

    >>> said = torch.tensor([[0, 3, 2, 1, 4]])
    >>> labels(from_labels(said))[:, :5]
    tensor([[0, 3, 2, 1, 4]])
    """
    check_labels(labels)
    n, draw = len(labels), Draw(generator, labels.device, dtype)
    said = labels.new_full((n, 9), -1)
    said[:, : labels.shape[1]] = labels
    said = canonical(said)
    pair = (said[:, 5:] >= 0).any(1)
    if (pair[:, None] & (said[:, [3, 7]] == 1)).any():
        raise ValueError("two shapes in one image must both be small: there is no room for more")
    opposite = said.new_tensor(_OPPOSITE)
    u = draw.uniform(n, 2, 7)
    place, other = said[:, 4], said[:, 8]
    where = draw.uniform(n)
    alone = (where * len(POSITIONS)).long()
    beside = torch.where(other >= 0, opposite[other], 1 + 2 * (where * 2).long())
    place = torch.where(place >= 0, place, torch.where(pair, beside, alone))
    other = torch.where(other >= 0, other, opposite[place])
    if (pair & ((place == 0) | (other != opposite[place]))).any():
        raise ValueError("two shapes in one image stand left and right, or top and bottom")
    background = _choose(said[:, 0], draw.uniform(n), len(BACKGROUNDS))

    def one(columns, u, place):
        shape = _choose(columns[:, 0], u[:, 0], len(SHAPES))
        colour = _choose(columns[:, 1], u[:, 1], len(COLOURS))
        kind = _choose(columns[:, 2], u[:, 2], len(SIZES)).masked_fill(pair, 0)
        low, high = draw.take(torch.tensor(list(SIZES.values())), kind).unbind(1)
        near = torch.where(pair, _NEAR_PAIR, _NEAR).to(u)[:, None]
        far = draw.take(torch.tensor(_FAR), kind)[:, None]
        side, where = draw.take(torch.tensor(_DIRECTION), place), u[:, 4:6]
        # Towards its side, anywhere between near and far; in the other direction, close to 1/2.
        away = torch.where(side == 0, (2 * where - 1) * _JITTER, side * near.lerp(far, where))
        turn = draw.take(torch.tensor(SYMMETRY), shape) * u[:, 6]
        return Attributes(
            shape, colour, low.lerp(high, u[:, 3]), *(0.5 + away).unbind(1), turn, background
        )

    first, second = one(said[:, 1:5], u[:, 0], place), one(said[:, 5:], u[:, 1], other)
    if pair.any():
        first.second = dataclasses.replace(second, shape=second.shape.masked_fill(~pair, -1))
    return first


def sample_attributes(
    n: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    second: float = 0.0,
    **fixed: str,
) -> Attributes:
    """n images' attributes, every class equally likely and all of them independent.

    Args:
        second: probability of a second shape; both are small then, and on opposite sides.
        fixed: background, shape, colour, size or position by name, as in colour="red".

    >>> sample_attributes(4, shape='cross').shape
    tensor([3, 3, 3, 3])
    """
    if not 0 <= second <= 1:
        raise ValueError(f"second is a probability, got {second}")
    draw = Draw(generator, device, dtype)
    wanted = torch.full((check_count(n), 9), -1, device=draw.to["device"])
    for name, value in fixed.items():
        if name not in NAMES:
            raise TypeError(f"an image has {', '.join(NAMES)}, but no {name!r}")
        if value not in NAMES[name]:
            raise ValueError(f"{name} must be one of {', '.join(NAMES[name])}, not {value!r}")
        wanted[:, FIELDS.index(name)] = NAMES[name].index(value)
    if second:
        u = draw.uniform(n, 2)
        kind = (u[:, 1] * len(SHAPES)).long()
        wanted[:, 5] = torch.where(u[:, 0] < second, kind, -1)
    return from_labels(wanted, generator, dtype)


def canonical(labels: Tensor) -> Tensor:
    """(B, 9), the two shapes exchanged where needed: the left or the top one comes first.

    >>> canonical(torch.tensor([[0, 1, 0, 0, 2, 3, 1, 0, 1]]))
    tensor([[0, 3, 1, 0, 1, 1, 0, 0, 2]])
    """
    if labels.ndim != 2 or labels.shape[1] != len(FIELDS):
        raise ValueError(f"labels must be (B, {len(FIELDS)}), not {tuple(labels.shape)}")
    first, second = labels[:, 4], labels[:, 8]
    swap = (first == 2) | (first == 4) | (second == 1) | (second == 3)
    swap &= (labels[:, 5:] >= 0).any(1)
    other = labels[:, [0, 5, 6, 7, 8, 1, 2, 3, 4]]
    return torch.where(swap[:, None], other, labels)


def _object_labels(a: Attributes) -> list[Tensor]:
    """Shape, colour, size and position of one shape; -1 where there is none."""
    known = a.shape >= 0
    dx, dy = a.x - 0.5, a.y - 0.5
    size = (a.size > _SIZE_EDGE).long()
    across = torch.where(dx < 0, 1, 2)
    place = torch.where(dx.abs() >= dy.abs(), across, torch.where(dy > 0, 3, 4))
    place = place.masked_fill(torch.maximum(dx.abs(), dy.abs()) < _CENTRE_EDGE, 0)
    size = size.masked_fill(a.size.isnan(), -1)
    place = place.masked_fill((dx + dy).isnan(), -1)
    return [torch.where(known, c, -1) for c in (a.shape, a.colour, size, place)]


def _choose(said: Tensor, u: Tensor, count: int) -> Tensor:
    return torch.where(said >= 0, said, (u * count).long())


def check_labels(labels: Tensor) -> None:
    """Raise unless labels are (B, 9) or (B, 5) int64, each within its names or -1.

    >>> check_labels(torch.tensor([[0, 9, 0, 0, 0]]))
    Traceback (most recent call last):
        ...
    ValueError: the label of shape goes from -1 to 3: [9]
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels must be an int64 tensor, not {getattr(labels, 'dtype', labels)}")
    if labels.ndim != 2 or labels.shape[1] not in (5, 9):
        raise ValueError(f"labels must be (B, 9) or (B, 5), not {tuple(labels.shape)}")
    for name, column in zip(FIELDS, labels.T, strict=False):
        most = len(NAMES[name.removesuffix(" 2")]) - 1
        if len(column) and not -1 <= int(column.min()) <= int(column.max()) <= most:
            raise ValueError(
                f"the label of {name} goes from -1 to {most}: {column.unique().tolist()}"
            )
