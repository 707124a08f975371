"""Circles around the origin with Gaussian noise, in closed form: FFJORD's `circles` and `rings`."""

import math

import torch

from .base import Density


class Rings(Density):
    """Circles around the origin, the angle uniform, with Gaussian noise.

    Integrating over the angle gives a Bessel function: on a circle of radius R,
    p(x) = exp(-(r^2 + R^2) / (2 s^2)) I0(r R / s^2) / (2 pi s^2), with r = |x|.

    >>> Rings([2.0], [1.0], 0.1).moments()[1].diag().round(decimals=2)
    tensor([2.0100, 2.0100], dtype=torch.float64)
    """

    def __init__(self, radii, weights, std: float):
        self.radii, self.weights = (
            torch.as_tensor(a, dtype=torch.float64) for a in (radii, weights)
        )
        if self.radii.ndim != 1 or self.radii.shape != self.weights.shape:
            raise ValueError("radii and weights must be two lists of the same length")
        if not (self.weights > 0).all() or abs(float(self.weights.sum()) - 1) > 1e-6:
            raise ValueError(
                f"weights must be positive and sum to one, not {self.weights.tolist()}"
            )
        if not ((self.radii >= 0) & self.radii.isfinite()).all() or not 0 < std < math.inf:
            raise ValueError(
                f"radii must be 0 or more and std above 0, not {self.radii.tolist()} and {std}"
            )
        self.std = self.width = float(std)
        self.terms = 4 * len(self.radii)

    def __repr__(self):
        return f"Rings({self.radii.tolist()}, std={self.std:.3g})"

    def _log_prob(self, x):
        big, var = self.radii.to(x), self.std**2
        least = torch.finfo(x.dtype).eps * var  # |x| itself has no second derivative at the origin
        r = (x.square().sum(1, keepdim=True) + least).sqrt()
        # I0(a) = exp(a) i0e(a): the exponentials combine into one that cannot overflow
        log = -((r - big) ** 2) / (2 * var) + torch.special.i0e(r * big / var).log()
        return (self.weights.to(x).log() + log).logsumexp(1) - math.log(2 * math.pi * var)

    def _sample(self, n, draw):
        angle = 2 * math.pi * draw.uniform(n)
        circle = torch.stack([angle.cos(), angle.sin()], -1)
        radius = draw.take(self.radii, draw.choice(self.weights, n))
        return radius[:, None] * circle + self.std * draw.normal(n, 2)

    def _frame(self, widths):
        reach = torch.full((2,), float(self.radii.max()) + widths * self.std, dtype=torch.float64)
        return -reach, reach

    def noised(self, alpha: float, sigma: float) -> "Rings":
        """The law of alpha x + sigma eps, exactly: again rings."""
        alpha, sigma = float(alpha), float(sigma)
        return Rings(abs(alpha) * self.radii, self.weights, math.hypot(alpha * self.std, sigma))


def circles() -> Rings:
    """Two circles, of radius 3 and 1.5.

    >>> circles()
    Rings([3.0, 1.5], std=0.24)
    """
    return Rings([3.0, 1.5], [0.5, 0.5], 0.24)


def rings() -> Rings:
    """Four circles, of radius 3, 2.25, 1.5 and 0.75.

    >>> rings()
    Rings([3.0, 2.25, 1.5, 0.75], std=0.08)
    """
    return Rings([3.0, 2.25, 1.5, 0.75], [0.25] * 4, 0.08)
