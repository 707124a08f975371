"""Radial flows: a map that pushes away from a point, or towards it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.flows.planar import SHIFT, above_minus_one
from lib.flows.transform import Transform
from lib.utils import check_count


class Radial(Transform):
    """x = z + beta (z - z_0) / (alpha + r), r = |z - z_0|, a bijection where beta >= -alpha, alpha > 0.

        log|det dx/dz| = (D - 1) log(1 + m a) + log(1 + m a^2),  a = alpha / (alpha + r)

    with m = beta / alpha > -1. Rezende and Mohamed (2015), equation (14). The distance of x from z_0
    is (1 + m a) r: a quadratic equation for r, so `to_base` is closed form. With `context` = C > 0
    a linear layer of the context, (B, C), gives each example its own z_0, alpha and beta.

    >>> layer = Radial(2)
    >>> z = torch.tensor([[0.3, -1.0]])
    >>> torch.allclose(layer.to_base(layer.from_base(z)[0])[0], z, atol=1e-5)
    True
    """

    def __init__(self, dim: int, context: int = 0):
        super().__init__()
        self.shape, self.takes_context = (check_count(dim, "dim"),), context > 0
        if context:
            self.net = nn.Linear(context, dim + 2)
        else:
            self.centre = nn.Parameter(torch.randn(dim))
            self.raw_alpha = nn.Parameter(torch.zeros(()))
            self.beta = nn.Parameter(0.1 * torch.randn(()))

    def layer(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """z_0, alpha > 0 and m = beta / alpha > -1: (D,), (), (), with a context (B, D), (B,), (B,)."""
        if context is None:
            centre, raw, beta = self.centre, self.raw_alpha, self.beta
        else:
            h = self.net(context).to(self.net.weight.dtype)
            centre, raw, beta = h[:, :-2], h[:, -2], h[:, -1]
        return centre, F.softplus(raw + SHIFT), above_minus_one(beta)

    def _log_slope(self, a: Tensor, m: Tensor) -> Tensor:
        across = torch.log1p(m * a)  # of a sphere around z_0
        return (self.shape[0] - 1) * across + torch.log1p(m * a * a)  # and along the radius

    def from_base(self, z, context=None):
        self.check(z, context)
        centre, alpha, m = self.layer(context)
        a = alpha / (alpha + torch.linalg.vector_norm(z - centre, dim=1))
        return z + (m * a)[:, None] * (z - centre), self._log_slope(a, m)

    def to_base(self, x, context=None):
        self.check(x, context)
        centre, alpha, m = self.layer(context)
        length = torch.linalg.vector_norm(x - centre, dim=1)
        p = alpha * (1 + m) - length  # r^2 + p r - alpha length = 0
        larger = (torch.sqrt(p * p + 4 * alpha * length) + p.abs()) / 2  # no cancellation
        r = torch.where(p > 0, alpha * length / larger, larger)
        a = alpha / (alpha + r)
        return centre + (x - centre) / (1 + m * a)[:, None], -self._log_slope(a, m)
