"""Images at several scales: space becomes channels, and half of the channels leave early.

Dinh et al. (2017), sections 3.6 and 3.7.
"""

import torch
from torch import Tensor, nn

from lib.flows.linear import start
from lib.flows.transform import Transform


def squeeze(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 4C, H/2, W/2), also for no examples, unlike F.pixel_unshuffle.

    >>> squeeze(torch.arange(4.0).view(1, 1, 2, 2)).flatten()
    tensor([0., 1., 2., 3.])
    """
    B, C, H, W = x.shape
    blocks = x.reshape(B, C, H // 2, 2, W // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return blocks.reshape(B, 4 * C, H // 2, W // 2)


def unsqueeze(z: Tensor) -> Tensor:
    """The inverse: (B, 4C, H, W) -> (B, C, 2H, 2W).

    >>> unsqueeze(squeeze(torch.arange(4.0).view(1, 1, 2, 2)))[0, 0]
    tensor([[0., 1.],
            [2., 3.]])
    """
    B, C, H, W = z.shape
    blocks = z.reshape(B, C // 4, 2, 2, H, W).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(B, C // 4, 2 * H, 2 * W)


class Squeeze(Transform):
    """(B, C, H, W) -> (B, 4C, H/2, W/2) on the way to the base: each 2 x 2 block becomes 4 channels.

        z[4c + 2i + j, h, w] = x[c, 2h + i, 2w + j]

    A permutation of the numbers, log|det| = 0.

    >>> Squeeze().to_base(torch.ones(2, 3, 8, 8))[0].shape
    torch.Size([2, 12, 4, 4])
    """

    def to_base(self, x, context=None):
        self.check(x, context)
        if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"Squeeze expected shape (B, C, H even, W even), got {tuple(x.shape)}")
        return squeeze(x), x.new_zeros(len(x))

    def from_base(self, z, context=None):
        self.check(z, context)
        if z.ndim != 4 or z.shape[1] % 4:
            raise ValueError(
                f"Squeeze, from the base, expected shape (B, 4C, H, W), got {tuple(z.shape)}"
            )
        return unsqueeze(z), z.new_zeros(len(z))


class MultiScale(Transform):
    """Levels from data to base; after each but the last, half of the channels go to the base.

    Each level but the last squeezes, (C, H, W) -> (4C, H/2, W/2); its first 2C channels leave, the
    others go on, so the next level acts on (2C, H/2, W/2). The last keeps its shape. What has left
    is laid out in the shape of the image again, so z has the shape of x; `split(z)` takes it apart.

    >>> from lib.flows.builders import glow
    >>> f = glow((1, 8, 8), levels=2, steps=1, width=4)
    >>> [tuple(part.shape) for part in f.split(torch.ones(1, 1, 8, 8))]
    [(1, 2, 4, 4), (1, 2, 4, 4)]
    """

    def __init__(self, *levels: Transform):
        super().__init__()
        if not levels or not all(isinstance(level, Transform) for level in levels):
            raise TypeError("MultiScale takes transforms, MultiScale(first, ..., last)")
        self.levels = nn.ModuleList(levels)

    @property
    def takes_context(self) -> bool:
        return any(level.takes_context for level in self.levels)

    def check(self, x, context=None):
        super().check(x, context)
        if x.ndim != 4:
            raise ValueError(f"MultiScale expected shape (B, C, H, W), got {tuple(x.shape)}")

    def split(self, z: Tensor) -> list[Tensor]:
        """What leaves at each level, largest first: of (B, C, H, W) the (B, 2C, H/2, W/2), ..."""
        parts = []
        for _ in self.levels[:-1]:
            leaves, z = squeeze(z).chunk(2, 1)
            parts.append(leaves)
        return [*parts, z]

    def join(self, parts: list[Tensor]) -> Tensor:
        """The inverse of `split`."""
        *parts, z = parts
        for leaves in reversed(parts):
            z = unsqueeze(torch.cat([leaves, z], 1))
        return z

    def to_base(self, x, context=None):
        self.check(x, context)
        logabsdet, parts = x.new_zeros(len(x)), []
        for level in self.levels:
            x, step = level.to_base(x, context if level.takes_context else None)
            logabsdet = logabsdet + step
            if level is not self.levels[-1]:
                leaves, x = x.chunk(2, 1)
                parts.append(leaves)
        return self.join([*parts, x]), logabsdet

    def from_base(self, z, context=None):
        self.check(z, context)
        logabsdet, (*parts, x) = z.new_zeros(len(z)), self.split(z)
        for level in reversed(self.levels):
            if level is not self.levels[-1]:
                x = torch.cat([parts.pop(), x], 1)
            x, step = level.from_base(x, context if level.takes_context else None)
            logabsdet = logabsdet + step
        return x, logabsdet

    def x_from_base(self, z, context=None):
        self.check(z, context)
        *parts, x = self.split(z)
        for level in reversed(self.levels):
            if level is not self.levels[-1]:
                x = torch.cat([parts.pop(), x], 1)
            x = level.x_from_base(x, context if level.takes_context else None)
        return x

    def start_parts(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`lib.flows.linear.start` for each level."""
        parts = []
        for level in self.levels:
            x = start(level, x, context if level.takes_context else None)
            if level is not self.levels[-1]:
                leaves, x = x.chunk(2, 1)
                parts.append(leaves)
        return self.join([*parts, x])
