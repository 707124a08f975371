"""The 2-D toys of the literature with their exact log-densities.

The generators of FFJORD (Grathwohl et al. 2019, github.com/rtqichen/ffjord, lib/toy_data.py), as
independent draws: where the original spaces its points evenly along a curve or gives every class
the same count, a point here picks its place at random. The law of one point is the same.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..utils import log_normal_interval
from .base import Density, segment_logsumexp


class Smeared(Density):
    """x = a random point of a skeleton + uniform on a square, centred, + Gaussian noise.

    p(x) = E_c kernel(x - c). The expectation over the skeleton is a finite sum: the skeleton itself
    where it is a set of points, else Gauss-Legendre nodes on a curve, in such number that
    doubling it changes no digit (tests/data).

    Args:
        nodes, weights: (K, 2), (K,): the sum.
        place: draws points of the skeleton, `place(n, draw) -> (n, 2)`.
        side, std: of the square and of the noise. One of them may be zero.

    >>> p = moons().noised(0.6, 0.8)
    >>> p.log_prob(torch.zeros(1, 2)).round(decimals=3)
    tensor([-2.2520])
    """

    def __init__(self, name: str, nodes, weights, place: Callable, side: float, std: float):
        self.name, self.nodes, self.weights, self.place = name, nodes, weights, place
        self.side, self.std, self.scale = float(side), float(std), 1.0
        if not (self.side >= 0 and self.std >= 0 and 0 < self.side + self.std < math.inf):
            raise ValueError(
                f"side or std must be above zero, for a curve alone has no density, and none below; "
                f"got {side} and {std}"
            )
        self.terms = 3 * len(nodes)
        # the finest detail: of a square smeared by noise it is the edge, as wide as the noise
        self.width = self.std or self.side / math.sqrt(12)

    def __repr__(self):
        return f"{self.name}(side={self.side:.3g}, std={self.std:.3g})"

    def _log_prob(self, x):
        delta, log_w = x[:, None, :] - self.nodes.to(x), self.weights.to(x).log()
        if not (self.side and self.std):
            log = log_w + _log_kernel(delta, self.side, self.std)
            # logsumexp's derivative, exp(log - its rounded result), is off far out; not of numbers near 0
            top = log.detach().amax(1, keepdim=True).clamp_min(torch.finfo(log.dtype).min)
            return (log - top).logsumexp(1) + top[:, 0]
        # This kernel is costly: only nodes that may count. Any other is e^-50 times the nearest
        # one or less, since the squares reach q to either side.
        with torch.no_grad():
            distance, q = torch.linalg.vector_norm(delta, dim=-1), self.side / math.sqrt(2)
            nearest = distance.amin(1, keepdim=True)
            far = distance > q + ((nearest + q) ** 2 + 100 * self.std**2).sqrt()
            row, k = (~far).nonzero(as_tuple=True)
        # float64: the derivative of log_ndtr is the exponential of a difference of two squares
        delta = (x[row] - self.nodes.to(x)[k]).double()
        log = log_w[k] + _log_kernel(delta, self.side, self.std)
        return segment_logsumexp(log, row, len(x)).to(x)

    def _sample(self, n, draw):
        x = self.scale * self.place(n, draw) + self.side * (draw.uniform(n, 2) - 0.5)
        return x + self.std * draw.normal(n, 2)

    def _frame(self, widths):
        reach = self.side / 2 + widths * self.std
        return self.nodes.amin(0) - reach, self.nodes.amax(0) + reach

    def noised(self, alpha: float, sigma: float) -> "Smeared":
        """The law of alpha x + sigma eps, exactly: the same skeleton, smaller and more smeared."""
        alpha, sigma = float(alpha), float(sigma)
        std = math.hypot(alpha * self.std, sigma)
        side = abs(alpha) * self.side
        out = Smeared(self.name, alpha * self.nodes, self.weights, self.place, side, std)
        out.scale = alpha * self.scale
        return out


def _log_kernel(delta: Tensor, side: float, std: float) -> Tensor:
    """log density of (uniform on [-side/2, side/2] + N(0, std^2)) in each of the last dims, summed."""
    if not side:
        return (-0.5 * (delta / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))).sum(-1)
    if not std:
        inside = (delta.abs() <= side / 2).all(-1)
        log = torch.where(inside, -2.0 * math.log(side), -math.inf).to(delta)
        return log.masked_fill(delta.isnan().any(-1), math.nan)
    left = -delta.abs()  # the kernel is even
    low, high = (left - side / 2) / std, (left + side / 2) / std
    return (log_normal_interval(low, high, side / std) - math.log(side)).sum(-1)


def _legendre(edges: list[float], counts: list[int]) -> tuple[Tensor, Tensor]:
    """Nodes and weights, panel by panel, for the mean over [edges[0], edges[-1]]."""
    ts, ws = [], []
    for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True):
        t, w = np.polynomial.legendre.leggauss(n)
        ts.append(low + (high - low) * (t + 1) / 2)
        ws.append((high - low) / (edges[-1] - edges[0]) * w / 2)
    return torch.from_numpy(np.concatenate(ts)), torch.from_numpy(np.concatenate(ws))


def _check_noise(noise: float, least: float) -> None:
    if not noise >= least:
        raise ValueError(
            f"a curve alone has no density, and the sum that stands for the integral along it needs "
            f"noise of {least} or more; got {noise}"
        )


def moons(noise: float = 0.1) -> Smeared:
    """Two interleaving half circles, twice the size of scikit-learn's, moved by (-1, -0.2).

    >>> moons()
    moons(side=0, std=0.2)
    """

    _check_noise(noise, 0.04)

    def arc(t):  # the lower moon is the upper one turned by half a turn around (0.5, 0.25)
        return torch.stack([2 * t.cos() - 1, 2 * t.sin() - 0.2], -1)

    def turned(x):
        return x.new_tensor([0.0, 0.6]) - x

    def place(n, draw):
        x = arc(math.pi * draw.uniform(n))
        return torch.where(draw.uniform(n, 1) < 0.5, x, turned(x))

    t, w = _legendre([0.0, math.pi], [128])
    nodes = torch.cat([arc(t), turned(arc(t))])
    return Smeared("moons", nodes, torch.cat([w, w]) / 2, place, 0.0, 2 * noise)


def swissroll(noise: float = 1.0) -> Smeared:
    """(t cos t, t sin t) / 5 with t uniform on [1.5 pi, 4.5 pi]; the noise is divided by 5 too.

    >>> swissroll()
    swissroll(side=0, std=0.2)
    """

    _check_noise(noise, 0.5)

    def curve(t):
        return torch.stack([t * t.cos(), t * t.sin()], -1) / 5

    low, high = 1.5 * math.pi, 4.5 * math.pi
    t, w = _legendre([low, high], [288])
    place = lambda n, draw: curve(low + (high - low) * draw.uniform(n))
    return Smeared("swissroll", curve(t), w, place, 0.0, noise / 5)


def spirals(noise: float = 0.1) -> Smeared:
    """Two arms, one the other's mirror image through the origin: three half turns each.

    On the first arm (-t cos t, t sin t) / 3, where t / (3 pi) is the square root of a uniform
    number, plus uniform on [0, 1/6]^2, which moves its centre by 1/12.

    >>> spirals()
    spirals(side=0.167, std=0.1)
    """

    _check_noise(noise, 0.06)

    def arm(t):
        return torch.stack([-t * t.cos(), t * t.sin()], -1) / 3 + 1 / 12

    def place(n, draw):
        sign = 2 * (draw.uniform(n, 1) < 0.5).to(draw.to["dtype"]) - 1
        return sign * arm(3 * math.pi * draw.uniform(n).sqrt())

    # a step in t is longer further out, so there are more of them
    t, w = _legendre([0.0, math.pi, 2 * math.pi, 3 * math.pi], [48, 112, 176])
    w = w * 2 * t / (3 * math.pi)  # the density of t is 2 t / (3 pi)^2
    nodes = torch.cat([arm(t), -arm(t)])
    return Smeared("spirals", nodes, torch.cat([w, w]) / 2, place, 1 / 6, noise)


class Checkerboard(Smeared):
    """Uniform on the eight black cells of a 4 x 4 board of side 8.

    >>> Checkerboard().log_prob(torch.tensor([[-3.0, -3.0], [-3.0, -1.0]]))
    tensor([-3.4657,    -inf])
    """

    def __init__(self):
        cells = torch.tensor(
            [[i, j] for i in range(4) for j in range(4) if (i + j) % 2 == 0], dtype=torch.float64
        )
        nodes, weights = 2 * cells - 3, torch.full((8,), 1 / 8, dtype=torch.float64)
        place = lambda n, draw: draw.take(nodes, draw.choice(weights, n))
        super().__init__("checkerboard", nodes, weights, place, 2.0, 0.0)

    def score(self, x: Tensor) -> Tensor:
        """Zero inside a black cell; NaN elsewhere, where there is no density to take the log of."""
        outside = ~(self.log_prob(x) > -math.inf)  # NaN too
        return torch.zeros_like(x).masked_fill(outside[:, None], math.nan)

    def entropy(self) -> float:
        """log of the area, 32."""
        return math.log(32.0)

    def moments(self) -> tuple[Tensor, Tensor]:
        # E x = 0; E x^2 = (1 + 9) / 2 + 2^2 / 12; E xy = 1/8 of the sum over the cells' centres
        cov = self.nodes.T @ self.nodes / 8 + torch.eye(2, dtype=torch.float64) / 3
        return torch.zeros(2, dtype=torch.float64), cov

    def noised(self, alpha: float, sigma: float) -> Smeared:
        """The law of alpha x + sigma eps, exactly: smooth, and no longer a Checkerboard."""
        if not sigma > 0:
            raise ValueError(f"sigma must be above zero, not {sigma}: only noise removes the jumps")
        return super().noised(alpha, sigma)

    def expectation(self, f):
        raise NotImplementedError(
            "Checkerboard has jumps, which the trapezoidal rule cannot integrate: average over "
            "sample(n), or use noised(1.0, sigma), which is smooth"
        )


def checkerboard() -> Checkerboard:
    """Eight black cells of side 2; its noised versions are smooth and exact too.

    >>> checkerboard().entropy() == math.log(32)
    True
    """
    return Checkerboard()
