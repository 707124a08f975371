"""MADE: a network whose i-th output sees only the inputs before the i-th. One pass, D conditionals.

Germain et al. (2015): units get degrees, and a weight is kept where degrees rise towards the
output. Run backwards, `fill` finds the inputs one after the other and computes each hidden unit
once, where D passes of the network would compute each one D times.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.nets import linear
from lib.utils import check_count


class MADE(nn.Module):
    """(B, D), (B, C) or None -> (B, outputs * D): `outputs` blocks of D, as `.chunk(outputs, 1)`.

    Number i of each block depends on the context and on the inputs before i in `order` only
    (default 0, 1, ..., D - 1). The input that comes p-th, p = 1 ... D, has degree p, a context has
    degree 0, and the units of each hidden layer share out the degrees below D, in rising order.
    A hidden unit sees what has its own degree or less, an output what has less.

    Args:
        activation: an elementwise function, in place if it likes: relu_ costs a quarter of silu.
        dropout: the share of hidden units left out of a pass in training mode (`fill` uses all).

    >>> net = MADE(3, outputs=1)
    >>> jac = torch.autograd.functional.jacobian(lambda x: net(x[None])[0], torch.randn(3))
    >>> bool((jac.triu() == 0).all())  # output i sees the inputs before i
    True
    """

    def __init__(
        self,
        dim: int,
        outputs: int = 2,
        width: int = 128,
        depth: int = 2,
        context: int = 0,
        order: Sequence[int] | Tensor | None = None,
        activation: Callable[[Tensor], Tensor] = torch.relu_,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.dim, self.outputs = check_count(dim, "dim"), check_count(outputs, "outputs")
        check_count(width, "width"), check_count(depth, "depth")
        self.order = list(range(dim)) if order is None else [int(i) for i in order]
        if sorted(self.order) != list(range(dim)):
            raise ValueError(f"order must be a permutation of 0 ... {dim - 1}, got {self.order}")
        if context < 0 or not 0 <= dropout < 1:
            raise ValueError(f"context >= 0 and 0 <= dropout < 1, got {context} and {dropout}")
        self.context, self.activation, self.dropout = context, activation, dropout

        degree = torch.argsort(torch.tensor(self.order)) + 1
        lowest = 0 if context or dim == 1 else 1  # without a context, degree 0 sees nothing at all
        hidden = torch.arange(width) * (dim - lowest) // width + lowest
        # below[p]: how many units of a hidden layer, its first ones, have degree p or less
        self.below = [int((hidden <= p).sum()) for p in range(dim)] + [width]
        degrees = [torch.cat([degree, degree.new_zeros(context)]), *[hidden] * depth]
        masks = [b[:, None] >= a for a, b in zip(degrees, degrees[1:], strict=False)]
        masks.append((degree[:, None] > hidden).repeat(outputs, 1))
        for i, mask in enumerate(masks):  # floats: a product with booleans takes five times as long
            self.register_buffer(f"mask{i}", mask.float(), persistent=False)
        self.full = [bool(mask.all()) for mask in masks]
        self.layers = nn.ModuleList(nn.Linear(*reversed(mask.shape)) for mask in masks)

    def masks(self) -> list[Tensor]:
        """One for each layer, (outputs, inputs) of the layer, 1 where the weight is used."""
        return [getattr(self, f"mask{i}") for i in range(len(self.layers))]

    def weights(self) -> list[Tensor]:
        """Those that are used: each layer's, times its mask."""
        some = zip(self.layers, self.masks(), self.full, strict=True)
        return [m.weight if full else m.weight * mask for m, mask, full in some]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.one_pass(x, context, self.weights(), self.dropout if self.training else 0.0)

    def one_pass(
        self, x: Tensor, context: Tensor | None, weights: list[Tensor], dropout: float = 0.0
    ) -> Tensor:
        """The outputs with the masked `weights` given: many passes need to mask them once."""
        h = x if context is None else torch.cat([x, context], 1)
        for i, (layer, weight) in enumerate(zip(self.layers, weights, strict=True)):
            if i:
                h = self.activation(h)
                if dropout:
                    h = F.dropout(h, dropout)
            h = linear(h, weight, layer.bias)
        return h.to(x.dtype)  # under autocast it is coarser

    def passes_pay(self, x: Tensor) -> bool:
        """Whether D passes are faster than `fill` for this (B, D): on a GPU, while they are small.

        There a call takes ten to twenty microseconds however little it does, and a pass has fewer
        calls than one coordinate of `fill`. The limit, 2e9 operations a pass, is reckoned: some
        fifty microseconds of a card's arithmetic.
        """
        size = sum(mask.numel() for mask in self.masks())
        return x.device.type == "cuda" and 2 * len(x) * size < 2e9

    def fill(
        self,
        step: Callable[[int, Tensor], Tensor],
        batch: int,
        context: Tensor | None = None,
    ) -> Tensor:
        """The x, (B, D), with x_i = step(i, the outputs for i), one coordinate after the other.

        `step` gets (outputs, B) and gives (B,). The coordinates are found by halves: the first
        half, then its share of all sums that the second half needs, then the second half. Each
        hidden unit is computed once, each weight is used once, and masks are not needed.
        Differentiable; activations are kept as (units, B), so that a part of them is contiguous.
        """
        D, k, below = self.dim, self.outputs, self.below
        weights, biases = (
            list(w) for w in zip(*((m.weight, m.bias) for m in self.layers), strict=True)
        )
        # the columns of the first layer and the rows of the last, in the order of filling
        first, context_weight = weights[0].split([D, self.context], 1)
        weights[0] = first[:, self.order]
        weights[-1] = weights[-1].view(k, D, -1).transpose(0, 1)[self.order].reshape(k * D, -1)
        biases[-1] = biases[-1].view(k, D).T[self.order].flatten()

        def units(layer: int, low: int, high: int) -> slice:
            """Those of a layer that can be computed with coordinates low ... high - 1."""
            if layer == 0:
                return slice(low, high)
            if layer == len(weights):
                return slice(k * low, k * high)
            return slice(below[low], below[high])

        def solve(low: int, high: int, sums: list[Tensor]) -> list[Tensor]:
            """The units from low to high of each layer, given what earlier ones add to `sums`."""
            if high - low == 1:
                h = step(self.order[low], sums[-1])[None]
                found = [h]
                for i in range(len(weights) - 1):
                    part = weights[i][units(i + 1, low, high), units(i, low, high)]
                    h = self.activation(torch.addmm(sums[i], part, h))
                    found.append(h)
                return found
            middle = (low + high) // 2
            here = [units(i, low, middle) for i in range(len(weights) + 1)]
            cut = [s.stop - s.start for s in here]
            left = solve(low, middle, [s[:n] for s, n in zip(sums, cut[1:], strict=True)])
            later = [
                torch.addmm(s[n:], w[units(i + 1, middle, high), here[i]], h)
                for i, (s, n, w, h) in enumerate(zip(sums, cut[1:], weights, left, strict=True))
            ]
            right = solve(middle, high, later)
            return [torch.cat(pair) for pair in zip(left, right, strict=True)]

        sums = [b[:, None].expand(-1, batch) for b in biases]
        if context is not None:
            sums[0] = sums[0] + context_weight @ context.T
        start = below[0]  # units of degree 0, which see the context only
        for i in range(len(weights) - 1 if start else 0):
            h = self.activation(sums[i][:start].clone())
            sums[i + 1] = sums[i + 1] + weights[i + 1][:, :start] @ h
        sums = [s[start:] for s in sums[:-1]] + sums[-1:]
        return solve(0, D, sums)[0][torch.argsort(torch.tensor(self.order))].T
