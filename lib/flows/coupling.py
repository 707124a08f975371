"""Coupling flows: one half passes through and steers what happens to the other.

NICE (Dinh et al. 2015) adds, RealNVP (Dinh et al. 2017) scales and adds, neural spline flows
(Durkan et al. 2019) bend. Both directions take one pass of the network, which is never inverted.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.flows.spline import rational_quadratic
from lib.flows.transform import Transform, _check_limit
from lib.utils import bounded, check_count, sum_dims


def halves(dim: int, flip: bool = False) -> Tensor:
    """The first ceil(dim / 2) coordinates are True and pass through: bool (dim,).

    >>> halves(3)
    tensor([ True,  True, False])
    """
    return (torch.arange(check_count(dim, "dim")) < (dim + 1) // 2) ^ flip


def alternating(dim: int, flip: bool = False) -> Tensor:
    """Coordinates 0, 2, 4, ... are True and pass through: bool (dim,).

    >>> alternating(3, flip=True)
    tensor([False,  True, False])
    """
    return (torch.arange(check_count(dim, "dim")) % 2 == 0) ^ flip


def checkerboard(C: int, H: int, W: int, flip: bool = False) -> Tensor:
    """Pixels with an even row + column are True and pass through: bool (C, H, W).

    >>> checkerboard(1, 2, 2)
    tensor([[[ True, False],
             [False,  True]]])
    """
    return ((torch.arange(H)[:, None] + torch.arange(W)) % 2 == 0).expand(C, H, W) ^ flip


def channel_halves(C: int, H: int, W: int, flip: bool = False) -> Tensor:
    """The first ceil(C / 2) channels are True and pass through: bool (C, H, W).

    >>> channel_halves(2, 1, 1).flatten()
    tensor([ True, False])
    """
    return halves(C, flip)[:, None, None].expand(C, H, W)


class Coupling(Transform):
    """x_a = z_a, and x_b a map of z_b that depends on z_a through `net`. Subclasses write the map.

    The mask, bool (D,) or (C, H, W), is True where a number passes through and steers (a), False
    where it is steered (b). Coordinates, or whole channels, are taken apart: `net` maps a, (B, d_a),
    to (B, k d_b), k blocks of d_b. Any other mask, such as a checkerboard, hides b behind zeros:
    `net` maps (B, C, H, W) to (B, k C, H, W).

    With `context` (its length, or number of channels) above 0, the network sees (a, context), joined
    along dimension 1. On images, rows of context are spread over all pixels, and images of context
    brought to the size at hand: nearest neighbour upwards, means downwards.

    >>> layer = AdditiveCoupling(alternating(3), nn.Linear(2, 1))
    >>> layer.split(torch.tensor([[1.0, 2.0, 3.0]]))
    (tensor([[1., 3.]]), tensor([[2.]]))
    """

    blocks = 1  # k

    def __init__(self, mask: Tensor, net: nn.Module, context: int = 0):
        super().__init__()
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim not in (1, 3):
            raise TypeError("mask must be a bool tensor of shape (D,) or (C, H, W)")
        if mask.all() or not mask.any():
            raise ValueError("a mask needs both: True, what steers, and False, what is steered")
        self.shape, self.net = tuple(mask.shape), net
        self.context, self.takes_context = context, context > 0
        passing = mask if mask.ndim == 1 else mask[:, 0, 0]
        if mask.ndim == 3 and (mask != passing[:, None, None]).any():
            self.layout = "hidden"
        elif (passing.int().diff() != 0).sum() <= 1:
            self.layout = "a, b" if passing[0] else "b, a"
        else:
            self.layout = "mixed"
        self.sizes = int(passing.sum()), int((~passing).sum())  # of a and b along dimension 1
        self.width = len(mask) if self.layout == "hidden" else self.sizes[1]
        order = torch.cat([passing.nonzero(), (~passing).nonzero()])[:, 0]
        self.register_buffer("order", order, persistent=False)  # first a, then b
        self.register_buffer("back", order.argsort(), persistent=False)
        self.register_buffer("steered", (~mask).float(), persistent=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The part that steers and the part that is steered: (B, D) -> (B, d_a), (B, d_b)."""
        if self.layout == "hidden":
            return x * (1 - self.steered), x * self.steered
        if self.layout == "b, a":
            return x.split(self.sizes[::-1], 1)[::-1]
        return (x if self.layout == "a, b" else x.index_select(1, self.order)).split(self.sizes, 1)

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """What `split` took apart, each number back in its place."""
        if self.layout == "hidden":
            return a + b
        if self.layout == "b, a":
            return torch.cat([b, a], 1)
        x = torch.cat([a, b], 1)
        return x if self.layout == "a, b" else x.index_select(1, self.back)

    def params(self, a: Tensor, context: Tensor | None) -> Tensor:
        """The network's answer to a, (B, k d_b)."""
        out = self.net(a if context is None else torch.cat([a, fitted(context, a)], 1))
        want = len(a), self.blocks * self.width, *a.shape[2:]
        if out.shape != want:
            raise ValueError(f"the network returned {tuple(out.shape)}, expected {want}")
        return out.to(a.dtype)  # under autocast it is coarser than the map may be

    def only_b(self, t: Tensor) -> Tensor:
        """Zero where nothing is steered."""
        return t * self.steered if self.layout == "hidden" else t


def fitted(context: Tensor, x: Tensor) -> Tensor:
    """The context at the size of the images x (B, C, H, W); as it is beside vectors.

    >>> fitted(torch.ones(2, 5), torch.ones(2, 1, 4, 4)).shape
    torch.Size([2, 5, 4, 4])
    """
    if x.ndim == 2:
        return context
    if context.ndim == 2:
        return context[..., None, None].expand(-1, -1, *x.shape[2:])
    if context.shape[2] > x.shape[2] or context.shape[3] > x.shape[3]:
        return F.adaptive_avg_pool2d(context, x.shape[2:])
    return F.interpolate(context, x.shape[2:])


class AdditiveCoupling(Coupling):
    """NICE, Dinh et al. (2015), section 3.2: x_b = z_b + net(z_a). Volume is preserved.

    >>> layer = AdditiveCoupling(halves(2), lambda a: 10 * a)
    >>> layer.from_base(torch.tensor([[1.0, 2.0]]))
    (tensor([[ 1., 12.]]), tensor([0.]))
    """

    def to_base(self, x, context=None):
        self.check(x, context)
        a, b = self.split(x)
        return self.join(a, b - self.only_b(self.params(a, context))), x.new_zeros(len(x))

    def from_base(self, z, context=None):
        self.check(z, context)
        a, b = self.split(z)
        return self.join(a, b + self.only_b(self.params(a, context))), z.new_zeros(len(z))


class AffineCoupling(Coupling):
    """RealNVP, Dinh et al. (2017), equations 4 and 5: x_b = exp(log_scale) z_b + shift, where
    log_scale and shift are functions of z_a, and |log_scale| < limit.

    >>> layer = AffineCoupling(halves(2), nn.Linear(1, 2))
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> torch.allclose(layer.to_base(layer.from_base(x)[0])[0], x)
    True
    """

    blocks = 2

    def __init__(self, mask: Tensor, net: nn.Module, limit: float = 3.0, context: int = 0):
        super().__init__(mask, net, context)
        self.limit = _check_limit(limit)

    def scale_and_shift(self, a: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """log_scale and shift, each of the shape of b."""
        raw, shift = self.params(a, context).chunk(2, 1)
        return self.only_b(bounded(raw, self.limit)), self.only_b(shift)

    def to_base(self, x, context=None):
        self.check(x, context)
        a, b = self.split(x)
        log_scale, shift = self.scale_and_shift(a, context)
        return self.join(a, (b - shift) * torch.exp(-log_scale)), -sum_dims(log_scale)

    def from_base(self, z, context=None):
        self.check(z, context)
        a, b = self.split(z)
        log_scale, shift = self.scale_and_shift(a, context)
        return self.join(a, b * torch.exp(log_scale) + shift), sum_dims(log_scale)


class SplineCoupling(Coupling):
    """Durkan et al. (2019): z_b is a monotone rational-quadratic spline of x_b in [-bound, bound].

    `net` returns 3 bins - 1 blocks of d_b: widths, heights, inner slopes; zeros give the identity.

    >>> layer = SplineCoupling(halves(2), nn.Linear(1, 11), bins=4)
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> torch.allclose(layer.to_base(layer.from_base(x)[0])[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        mask: Tensor,
        net: nn.Module,
        bins: int = 8,
        bound: float = 3.0,
        context: int = 0,
    ):
        super().__init__(mask, net, context)
        self.bins, self.bound, self.blocks = check_count(bins, "bins"), bound, 3 * bins - 1

    def bend(self, a: Tensor, b: Tensor, context: Tensor | None, inverse: bool):
        """b through the spline of a, and the log of its slope, both of the shape of b."""
        blocks = self.params(a, context).unflatten(1, (self.blocks, self.width))
        sizes = [self.bins, self.bins, self.bins - 1]
        pieces = blocks.movedim(1, -1).split(sizes, -1)
        b, log_slope = rational_quadratic(b, *pieces, inverse, self.bound)
        return self.only_b(b), self.only_b(log_slope)

    def to_base(self, x, context=None):
        self.check(x, context)
        a, b = self.split(x)
        b, log_slope = self.bend(a, b, context, inverse=False)
        return self.join(a, b), sum_dims(log_slope)

    def from_base(self, z, context=None):
        self.check(z, context)
        a, b = self.split(z)
        b, log_slope = self.bend(a, b, context, inverse=True)
        return self.join(a, b), sum_dims(log_slope)
