"""Maps of each coordinate on its own: a diagonal Jacobian, so log|det J| is a sum of logs."""

import math

import torch
from torch import Tensor, nn

from lib.data.images import from_logit, to_logit
from lib.flows.transform import Transform
from lib.utils import known, sum_dims


def check_data(transform: Transform, x: Tensor) -> None:
    """What a data-driven initialisation needs: a valid, finite batch of at least two examples.

    >>> check_data(Affine(2), torch.ones(1, 2))
    Traceback (most recent call last):
        ...
    ValueError: Affine needs at least 2 examples, all finite, to start from; got 1 with 0 non-finite values
    """
    transform.check(x)
    if len(x) < 2 or not x.isfinite().all():
        raise ValueError(
            f"{type(transform).__name__} needs at least 2 examples, all finite, to start from; got "
            f"{len(x)} with {int((~x.isfinite()).sum())} non-finite values"
        )


class Affine(Transform):
    """x = exp(log_scale) z + shift, learned, elementwise; starts as the identity.

    log|det dx/dz| = sum(log_scale). `Affine(2)` acts on (B, 2), `Affine(3, 32, 32)` on images.

    >>> data = 3 + 2 * torch.randn(1000, 2)
    >>> z, _ = Affine(2).init_from(data).to_base(data)
    >>> bool((z.mean(0).abs() < 1e-5).all())
    True
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape
        self.log_scale = nn.Parameter(torch.zeros(shape))
        self.shift = nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def init_from(self, x: Tensor) -> "Affine":
        """Start where z has mean 0 and variance 1: maximum likelihood under a normal base.

        A standard deviation below 1e-3 counts as 1e-3: data in such units are to be scaled before.
        """
        check_data(self, x)
        self.shift.copy_(x.mean(0))
        self.log_scale.copy_(x.std(0, correction=0).clamp_min(1e-3).log())  # a constant pixel: 1e-3
        return self

    def to_base(self, x, context=None):
        self.check(x, context)
        return (x - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().repeat(len(x))

    def from_base(self, z, context=None):
        self.check(z, context)
        return z * self.log_scale.exp() + self.shift, self.log_scale.sum().repeat(len(z))


class Monotone(Transform):
    """z = slope x + sum_k a_k tanh(b_k (x - c_k)) + shift with slope, a_k, b_k > 0, elementwise.

    A bijection of R: the derivative is at least `slope` > 0, so the map is strictly increasing, and
    its linear part carries it to both infinities (the tanh alone would stop at +-sum(a)).

        dz/dx = slope + sum_k a_k b_k (1 - tanh^2(b_k (x - c_k)))

    `to_base` is closed form. `from_base` solves for x to rounding error, and gradients (to z
    and to the parameters) follow the implicit function theorem, up to second
    derivatives. The slope in the tails is the smallest one: to squeeze mass there and stretch it
    elsewhere, stack Monotone, LULinear or Affine, Monotone.

    Starts near the identity, with centres spread over [-span, span]; `init_from(x)` puts them on
    quantiles of x.

    >>> f = Monotone(2)
    >>> x = torch.tensor([[-5.0, 0.3]])
    >>> torch.allclose(f.from_base(f.to_base(x)[0])[0], x, atol=1e-5)
    True
    """

    def __init__(self, *shape: int, units: int = 8, span: float = 3.0):
        super().__init__()
        if units < 1 or span <= 0:
            raise ValueError(f"Monotone needs units >= 1 and span > 0, got {units} and {span}")
        self.shape, self.units = shape, units
        width = 2 * span / units  # between neighbouring centres
        centres = width * (torch.arange(units) + 0.5) - span
        # a unit rises by 2 a, and there is one for each width: together a slope of 2 a / width
        self.log_slope = nn.Parameter(torch.full(shape, math.log(0.5)))
        self.shift = nn.Parameter(torch.zeros(shape))
        self.log_a = nn.Parameter(torch.full((*shape, units), math.log(width / 4)))
        self.log_b = nn.Parameter(torch.full((*shape, units), -math.log(width)))
        self.c = nn.Parameter(centres.expand(*shape, units).clone())

    @torch.no_grad()
    def init_from(self, x: Tensor) -> "Monotone":
        """Start with one unit for each equal share of the data, and z of mean 0 and variance 1.

        A standard deviation below 1e-3 counts as 1e-3: data in such units are to be scaled before.
        """
        check_data(self, x)
        share = (torch.arange(self.units, dtype=x.dtype, device=x.device) + 0.5) / self.units
        std = x.std(0, correction=0).clamp_min(1e-3)
        self.c.copy_(x.quantile(share, 0).movedim(0, -1))
        # as wide as the spacing around each centre, but never a spike on repeated values
        edges = x.quantile(torch.cat([share.new_zeros(1), share, share.new_ones(1)]), 0)
        width = ((edges[2:] - edges[:-2]) / 2).movedim(0, -1)
        width = torch.maximum(width, 0.05 * std[..., None])
        self.log_b.copy_(-width.log())
        self.log_a.copy_((width / std[..., None] / 4).log())
        self.log_slope.copy_((0.5 / std).log())
        self.shift.zero_()
        z, _ = self._map(x)
        scale = torch.where(std > 1e-3, z.std(0, correction=0), 1.0)
        self.log_slope.sub_(scale.log())
        self.log_a.sub_(scale.log()[..., None])
        self.shift.copy_(-z.mean(0) / scale)
        return self

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and dz/dx, both of the shape of x."""
        a, b, slope = self.log_a.exp(), self.log_b.exp(), self.log_slope.exp()
        t = torch.tanh(b * (x[..., None] - self.c))  # (B, ..., units)
        z = slope * x + (a * t).sum(-1) + self.shift
        return z, slope + (a * b * (1 - t) * (1 + t)).sum(-1)

    def to_base(self, x, context=None):
        self.check(x, context)
        z, derivative = self._map(x)
        return z, sum_dims(derivative.log())

    def from_base(self, z, context=None):
        self.check(z, context)
        x = self._solve(z)
        for _ in range(2):  # one Newton step from a root has exact 1st derivatives, two have 2nd
            value, derivative = self._map(x)
            x = x - (value - z) / derivative
        return x, -sum_dims(self._map(x)[1].log())

    @torch.no_grad()
    def _solve(self, z: Tensor, steps: int = 200) -> Tensor:
        """The root of _map(x) = z: Newton's method inside a bracket that every step shrinks."""
        slope, reach = self.log_slope.exp(), self.log_a.exp().sum(-1)
        low, high = (z - self.shift - reach) / slope, (z - self.shift + reach) / slope  # |tanh| < 1
        x = (low + high) / 2
        for step in range(steps):
            value, derivative = self._map(x)
            low, high = torch.where(value < z, x, low), torch.where(value > z, x, high)
            new = x - (value - z) / derivative
            if step % 3 == 2:  # Newton may cycle; bisection cannot, and halves the bracket
                new = (low + high) / 2
            new = torch.minimum(torch.maximum(new, low), high)
            close = (new - x).abs() <= 4 * torch.finfo(x.dtype).eps * (1 + x.abs())
            x = new
            if step % 3 != 2 and known(close.all()):
                break
        return x


class Logit(Transform):
    """z = logit(alpha + (1 - 2 alpha) x): data in (0, 1), such as dequantised images, to all of R.

    alpha > 0 keeps z finite on the closed interval [0, 1]; the image of `from_base` is then
    slightly larger than it. Papamakarios et al. (2017), section 4.3, with alpha = 1e-6 for MNIST
    and 0.05 for CIFAR-10.

    >>> Logit(0.05).to_base(torch.tensor([[0.5, 0.5]]))[0]
    tensor([[0., 0.]])
    """

    def __init__(self, alpha: float = 0.05):
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"Logit needs 0 <= alpha < 0.5, got {alpha}")
        self.alpha = alpha

    def to_base(self, x, context=None):
        self.check(x, context)
        return to_logit(x, self.alpha)

    def from_base(self, z, context=None):
        self.check(z, context)
        return from_logit(z, self.alpha)
