"""A network as an ODE field v(t, x) that also knows its own Jacobian: chain rule by hand."""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn

from lib.nets import linear
from lib.utils import check_count


class FieldNet(nn.Module):
    """`depth` tanh layers of `width` units, the time an extra input of every layer: (B, D) -> (B, D).

    The "concat" network of FFJORD (Grathwohl et al. 2019). tanh, because its derivative 1 - a^2 is
    made of its value: with SiLU, whose derivative is differentiated in training, a step costs 1.5
    times as much.

    Args:
        context: length of a row of context; then call `field.with_context(c)`, a field of (t, x).
        last: the last layer's weights start at `last` times their usual size.

    >>> field = FieldNet(2, width=8)
    >>> v, divergence = field.with_divergence(torch.tensor(0.5), torch.ones(3, 2))
    >>> v.shape, divergence.shape
    (torch.Size([3, 2]), torch.Size([3]))
    """

    def __init__(
        self, dim: int, width: int = 64, depth: int = 3, context: int = 0, last: float = 1.0
    ):
        super().__init__()
        if check_count(depth, "depth") < 2:
            raise ValueError(f"FieldNet needs at least two hidden layers, got depth {depth}")
        sizes = [dim] + [width] * depth + [dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.speeds = nn.ParameterList(b.bias.detach().clone() for b in self.layers)  # d bias / dt
        for p in self.speeds:
            nn.init.uniform_(p, -(width**-0.5), width**-0.5)
        with torch.no_grad():
            for p in (self.layers[-1].weight, self.layers[-1].bias, self.speeds[-1]):
                p.mul_(last)
        self.from_context = nn.Linear(context, width, bias=False) if context else None
        self.shape, self.context = (dim,), None

    @property
    def takes_context(self) -> bool:
        return self.from_context is not None

    def with_context(self, context: Tensor) -> "FieldNet":
        """The field of (t, x) at these rows of context, (B, C); shares this one's parameters."""
        if self.from_context is None:
            raise ValueError(
                f"this field takes no context, got one of shape {tuple(context.shape)}"
            )
        bound = copy.copy(self)
        vars(bound)["context"] = context  # set as an attribute, a Parameter would join this one's
        return bound

    def activations(self, t: Tensor, x: Tensor) -> list[Tensor]:
        """x and the output of each layer; the last one is v."""
        if self.takes_context and self.context is None:
            raise ValueError("this field needs a context: call field.with_context(c)(t, x)")
        a = [x]
        for layer, speed in zip(self.layers, self.speeds, strict=True):
            bias = torch.addcmul(layer.bias, speed, t)
            h = linear(a[-1], layer.weight, bias)
            if len(a) == 1 and self.context is not None:
                h = h + self.from_context(self.context)
            a.append(h.tanh() if len(a) < len(self.layers) else h)
        return a

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.activations(t, x)[-1]

    def push(self, t: Tensor, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """v and J e, forward mode by hand: e is (B, D) or several, (P, B, D)."""
        _, *hidden, v = self.activations(t, x)
        for layer, a in zip(self.layers, hidden, strict=False):
            e = linear(e, layer.weight) * slope(a)
        return v, linear(e, self.layers[-1].weight)

    def with_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """v and its exact divergence, tr(W_n G_n-1 ... G_1 W_0), G_k = diag of a layer's slopes.

        As G is diagonal, W G w = (W * w) g: the D columns of the first matrix, and the D rows of
        the last, join the weights beside them, and the two ends meet before the last G but one.
        """
        _, *hidden, v = self.activations(t, x)
        W = [layer.weight for layer in self.layers]
        g = [slope(a) for a in hidden]
        if len(g) == 2:  # sum over j, k of g_k W_kj g_j (W_0 W_2)_jk: one product, whatever D is
            return v, (linear(g[0], W[1] * (W[0] @ W[2]).T) * g[1]).sum(1)
        D, B = len(W[-1]), len(x)
        left = linear(g[0], (W[1] * W[0].T[:, None, :]).flatten(0, 1)).view(B, D, len(W[1]))
        for weight, s in zip(W[2:-2], g[1:-2], strict=True):
            left = linear(left * s[:, None], weight)
        right = linear(g[-1], (W[-2].T * W[-1][:, None, :]).flatten(0, 1))
        right = right.view(B, D, W[-2].shape[1])
        return v, ((left * right).sum(1) * g[-2]).sum(1)


def slope(a: Tensor) -> Tensor:
    """The derivative of tanh where its value is a.

    >>> slope(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.7500])
    """
    return torch.addcmul(a.new_ones(()), a, a, value=-1)


class ConvField(nn.Module):
    """A field of images, the time an extra input of every layer: (B, C, H, W) -> the same.

    Down to half the size, `depth` convolutions there, and up again; H and W are even.

    >>> ConvField(1, width=4)(torch.tensor(0.5), torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """

    takes_context = False

    def __init__(self, channels: int, width: int = 64, depth: int = 3):
        super().__init__()
        self.channels = check_count(channels, "channels")
        inner = [nn.Conv2d(width, width, 3, padding=1) for _ in range(check_count(depth, "depth"))]
        first = [
            nn.Conv2d(channels, width, 3, padding=1),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
        ]
        last = [
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.Conv2d(width, channels, 3, padding=1),
        ]
        self.layers = nn.ModuleList([*first, *inner, *last])
        shapes = [(layer.out_channels, 1, 1) for layer in self.layers]
        self.speeds = nn.ParameterList(torch.zeros(shape) for shape in shapes)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(
                f"ConvField expected images (B, {self.channels}, H, W) with H and W even, got "
                f"{tuple(x.shape)}"
            )
        for layer, speed in zip(self.layers[:-1], self.speeds, strict=False):
            x = torch.addcmul(layer(x), speed, t).tanh()
        return torch.addcmul(self.layers[-1](x), self.speeds[-1], t)
