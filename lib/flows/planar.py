"""Planar flows: a map that pushes along one direction, and only across one hyperplane.

Rezende and Mohamed (2015), equations (10) to (13) and appendix A.1. The paper's map needs w.u >= -1
and has no closed-form inverse; along w it is a function of one number, so one root finding inverts
it. Its relatives are in `radial.py` and `sylvester.py`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.flows.transform import Transform
from lib.utils import check_count, full_precision, known

MARGIN = 1e-3  # w.u stays this far above -1, so that float32 keeps the slope positive
SHIFT = math.log(math.e - 1)  # softplus(SHIFT) = 1


def above_minus_one(a: Tensor) -> Tensor:
    """m(a) > -1, increasing, close to a for large a, with m(0) = 0: elementwise.

    The paper's m(a) = softplus(a) - 1 moved so that m(0) = 0 (and held MARGIN above -1). The moved
    m gives the same flows with another u; but |u_hat| <= |u|, where the paper's
    (m(0) / |w|^2) w grows without bound as w goes to 0.

    >>> above_minus_one(torch.tensor([-100.0, 0.0, 100.0])).round(decimals=3)
    tensor([-0.9990,  0.0000, 99.4420])
    """
    return (1 - MARGIN) * (F.softplus(a + SHIFT) - 1)


def constrained(w: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """u_hat with w.u_hat = m(w.u) > -1, and that number: (..., D) twice -> (..., D), (...).

    u_hat = u + (m(w.u) - w.u) w / |w|^2: only the part of u along w changes.

    >>> w, u = torch.tensor([1.0, 0.0]), torch.tensor([-9.0, 2.0])
    >>> u_hat, wu = constrained(w, u)
    >>> u_hat.round(decimals=2), bool(wu > -1)
    (tensor([-1.,  2.]), True)
    """
    with full_precision(w):  # in bfloat16 the margin would be lost
        wu, length2 = torch.linalg.vecdot(w, u), torch.linalg.vecdot(w, w)
    m = above_minus_one(wu)
    along = (m - wu) / length2.clamp_min(torch.finfo(w.dtype).tiny)
    return torch.addcmul(u, along[..., None], w), m


def solve(c: Tensor, m: Tensor) -> Tensor:
    """The s with s + m tanh(s) = c, for m > -1: elementwise, to rounding error.

    For c > 0 the left side is concave in s > 0 where m > 0, convex where m < 0, and the start lies
    where Newton's steps then approach the root from one side: no bracket is needed, and the first
    step that would turn back is rounding. Gradients follow the implicit function theorem, up to
    second derivatives.

    >>> s = solve(torch.tensor(2.0), torch.tensor(-0.9))
    >>> (s - 0.9 * s.tanh()).round(decimals=5)
    tensor(2.)
    """
    s = _solve(c, m)
    for _ in range(2):  # one Newton step from a root has exact 1st derivatives, two have 2nd
        t = torch.tanh(s)
        slope = (1 + m * (1 - t * t)).clamp_min(torch.finfo(m.dtype).tiny)  # 0 for m = -1, s = 0
        s = s - (s + m * t - c) / slope
    return s


@torch.no_grad()
def _solve(c: Tensor, m: Tensor, steps: int = 200) -> Tensor:
    sign, c = c.sign(), c.abs()  # the left side is odd
    up = m > 0
    first, second = c - m, c / (1 + m).clamp_min(torch.finfo(m.dtype).tiny)  # |tanh s| <= 1, s
    s = torch.where(up, torch.maximum(first, second), torch.minimum(first, second))
    for _ in range(steps):
        t = torch.tanh(s)
        new = s - (s + m * t - c) / (1 + m * (1 - t * t)).clamp_min(torch.finfo(m.dtype).tiny)
        new = torch.where(up, torch.maximum(s, new), torch.minimum(s, new))
        done, s = (new == s).all(), new
        if known(done):
            break
    return sign * s


class Planar(Transform):
    """x = z + u_hat tanh(w.z + b): what lies on one side of the hyperplane w.z + b = 0 moves by
    +u_hat, on the other by -u_hat, and space is stretched (w.u_hat > 0) or squeezed between.

        log|det dx/dz| = log|1 + u_hat.psi|,  psi = (1 - tanh^2(w.z + b)) w      in O(D)

    `to_base` finds alpha = w.z from alpha + (w.u_hat) tanh(alpha + b) = w.x, then z. With
    `context` = C > 0 a linear layer of the context, (B, C), gives each example its own w, u and b
    (an amortised posterior). `constrain=False` takes u as it is: not a bijection where w.u < -1.

    >>> layer = Planar(2)
    >>> z = torch.tensor([[0.3, -1.0]])
    >>> torch.allclose(layer.to_base(layer.from_base(z)[0])[0], z, atol=1e-5)
    True
    """

    def __init__(self, dim: int, context: int = 0, constrain: bool = True):
        super().__init__()
        self.shape, self.constrain = (check_count(dim, "dim"),), constrain
        self.takes_context = context > 0
        if context:
            self.net = amortised(context, 1, dim)
        else:
            self.w = nn.Parameter(torch.randn(dim))
            self.u = nn.Parameter(0.1 * torch.randn(dim))
            self.b = nn.Parameter(torch.randn(()))

    def layer(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w, u_hat, b and w.u_hat: (D,), (D,), () and (), with a context (B, D), (B, D), (B,), (B,)."""
        if context is None:
            w, u, b = self.w, self.u, self.b
        else:
            d = self.shape[0]
            w, u, b = self.net(context).to(self.net.weight.dtype).split([d, d, 1], 1)
            b = b[:, 0]
        u, wu = constrained(w, u) if self.constrain else (u, (w * u).sum(-1))
        return w, u, b, wu

    def condition(self, context: Tensor | None = None) -> Tensor:
        """w.u_hat, () or (B,): the map is a bijection where it is -1 or more."""
        return self.layer(context)[-1]

    def from_base(self, z, context=None):
        self.check(z, context)
        w, u, b, wu = self.layer(context)
        t = torch.tanh((z * w).sum(-1) + b)
        return z + t[:, None] * u, log_slope(t, wu, self.constrain)

    def to_base(self, x, context=None):
        self.check(x, context)
        w, u, b, wu = self.layer(context)
        if not self.constrain and known((wu < -1).any()):
            raise ValueError(
                f"a planar map has an inverse where w.u >= -1, got w.u = {wu.min():.4g}: several "
                f"z have the same x"
            )
        t = torch.tanh(solve((x * w).sum(-1) + b, wu))
        return x - t[:, None] * u, -log_slope(t, wu, self.constrain)


def log_slope(t: Tensor, wu: Tensor, positive: bool = True) -> Tensor:
    """log|1 + w.u (1 - t^2)|, the logabsdet of z -> z + u t, t = tanh(w.z + b): elementwise.

    >>> log_slope(torch.tensor(0.0), torch.tensor(1.0)).exp()
    tensor(2.)
    """
    slope = 1 + wu * (1 - t * t)  # at least MARGIN if held above -1; log1p would cost four times
    return (slope if positive else slope.abs()).log()


@torch.no_grad()
def amortised(context: int, layers: int, dim: int) -> nn.Linear:
    """Context -> w, u, b of each layer, one after another; like Planar's start where context is 0.

    >>> amortised(context=3, layers=2, dim=4).out_features
    18
    """
    net = nn.Linear(context, layers * (2 * dim + 1))
    bias, weight = (p.view(layers, 2 * dim + 1, -1) for p in (net.bias, net.weight))
    nn.init.normal_(bias)
    for p in (bias, weight):
        p[:, dim : 2 * dim] *= 0.1
    return net


class PlanarFlow(Transform):
    """K planar maps in a row, x = f_K(... f_1(z)), with stacked parameters: three operations each.

    The same as `Compose(f_K, ..., f_1)` of `Planar`s (`parts` gives them), and three times faster
    on small batches. With `context` one linear layer gives the parameters of all layers.

    >>> PlanarFlow(2, layers=5).from_base(torch.ones(3, 2))[1].shape
    torch.Size([3])
    """

    def __init__(self, dim: int, layers: int, context: int = 0):
        super().__init__()
        self.shape, self.layers = (check_count(dim, "dim"),), check_count(layers, "layers")
        self.takes_context = context > 0
        if context:
            self.net = amortised(context, layers, dim)
        else:
            self.w = nn.Parameter(torch.randn(layers, dim))
            self.u = nn.Parameter(0.1 * torch.randn(layers, dim))
            self.b = nn.Parameter(torch.randn(layers))

    @torch.no_grad()
    def parts(self) -> list[Planar]:
        """Copies of f_1 ... f_K, one `Planar` each: for a picture of what each layer does."""
        context = self.net.in_features if self.takes_context else 0
        parts = [Planar(*self.shape, context=context) for _ in range(self.layers)]
        for name, stacked in self.named_parameters():
            for part, rows in zip(parts, stacked.chunk(self.layers), strict=True):
                p = part.to(stacked).get_parameter(name)
                p.copy_(rows.view(p.shape))
        return parts

    def _layers(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w, u_hat, b and w.u_hat of `Planar.layer`, stacked: (K, D) or (K, B, D), and (K,) ..."""
        if context is None:
            w, u, b = self.w, self.u, self.b
        else:
            d = self.shape[0]
            h = self.net(context).to(self.net.weight.dtype)
            h = h.view(len(context), self.layers, 2 * d + 1).transpose(0, 1)
            w, u, b = h.split([d, d, 1], -1)
            b = b[..., 0]
        u, wu = constrained(w, u)
        return w, u, b, wu

    def condition(self, context: Tensor | None = None) -> Tensor:
        """w.u_hat of each layer, (K,) or (K, B)."""
        return self._layers(context)[-1]

    def from_base(self, z, context=None):
        self.check(z, context)
        w, u, b, wu = self._layers(context)
        ts = []
        with full_precision(z):
            if context is None:  # examples in columns, where a sum and an outer product are fastest
                z, wu = z.T.contiguous(), wu[:, None]
                for w_k, u_k, b_k in zip(w[:, None], u[:, :, None], b, strict=True):
                    ts.append(torch.tanh(torch.addmm(b_k, w_k, z)))  # w.z + b, (1, B)
                    z = torch.addmm(z, u_k, ts[-1])  # z + u t
                z, t = z.T, torch.cat(ts)
            else:
                for w_k, u_k, b_k in zip(w, u, b, strict=True):
                    ts.append(torch.tanh((z * w_k).sum(1) + b_k))
                    z = torch.addcmul(z, u_k, ts[-1][:, None])
                t = torch.stack(ts)
        return z, log_slope(t, wu).sum(0)

    def to_base(self, x, context=None):
        self.check(x, context)
        logabsdet = x.new_zeros(len(x))
        for w, u, b, wu in reversed(list(zip(*self._layers(context), strict=True))):
            t = torch.tanh(solve((x * w).sum(1) + b, wu))
            x = x - t[:, None] * u
            logabsdet = logabsdet - log_slope(t, wu)
        return x, logabsdet
