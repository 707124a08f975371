"""Densities known in closed form: Gaussian mixtures here, curves and tilings in `toys`, and the `pinwheel`.

Everything a diffusion model learns from samples is here exactly: the noised marginals, their
scores, the posterior of the clean point given a noisy one, and its mean.
"""

import math

import torch

from ..utils import check_count
from .base import Density, Grid
from .mixture import GaussianMixture, Posterior
from .pinwheel import pinwheel
from .rings import circles, rings
from .toys import checkerboard, moons, spirals, swissroll

__all__ = [
    "Density",
    "GaussianMixture",
    "Grid",
    "Posterior",
    "anisotropic_gaussians",
    "checkerboard",
    "circles",
    "eight_gaussians",
    "grid_gaussians",
    "moons",
    "pinwheel",
    "rings",
    "spirals",
    "swissroll",
    "two_gaussians",
]


def two_gaussians(distance: float = 3.0, std: float = 0.5, weight: float = 0.35) -> GaussianMixture:
    """Two round components at (-distance/2, 0) and (distance/2, 0), unequal: the first has `weight`.

    >>> two_gaussians().means
    tensor([[-1.5000,  0.0000],
            [ 1.5000,  0.0000]], dtype=torch.float64)
    """
    means = [[-distance / 2, 0.0], [distance / 2, 0.0]]
    return GaussianMixture([weight, 1 - weight], means, std**2 * torch.eye(2, dtype=torch.float64))


def eight_gaussians(
    radius: float = 4 / 1.414, std: float = 0.5 / 1.414, k: int = 8
) -> GaussianMixture:
    """k round components on a ring, component i at the angle 2 pi i / k. FFJORD's by default.

    >>> eight_gaussians(k=4).means.norm(dim=1).round(decimals=3)
    tensor([2.8290, 2.8290, 2.8290, 2.8290], dtype=torch.float64)
    """
    angle = 2 * math.pi * torch.arange(check_count(k, "k"), dtype=torch.float64) / k
    means = radius * torch.stack([angle.cos(), angle.sin()], -1)
    return GaussianMixture([1 / k] * k, means, std**2 * torch.eye(2, dtype=torch.float64))


def grid_gaussians(side: int = 5, spacing: float = 1.0, std: float = 0.1) -> GaussianMixture:
    """side x side round components, centred on the origin, row by row.

    >>> len(grid_gaussians(side=3).means)
    9
    """
    line = spacing * (torch.arange(check_count(side, "side"), dtype=torch.float64) - (side - 1) / 2)
    means = torch.cartesian_prod(line, line).flip(1)
    return GaussianMixture(
        [1 / side**2] * side**2, means, std**2 * torch.eye(2, dtype=torch.float64)
    )


def anisotropic_gaussians() -> GaussianMixture:
    """Three elongated components, unequal and turned: nothing about them is zero, one or aligned.

    >>> anisotropic_gaussians().moments()[0].round(decimals=2)
    tensor([-0.2900,  0.0500], dtype=torch.float64)
    """
    angles = torch.tensor([0.4, 1.3, 2.5], dtype=torch.float64)
    stds = torch.tensor([[1.1, 0.25], [0.7, 0.3], [0.9, 0.2]], dtype=torch.float64)
    c, s = angles.cos(), angles.sin()
    turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    covs = (turn * stds[:, None] ** 2) @ turn.mT
    return GaussianMixture([0.5, 0.2, 0.3], [[-1.4, -0.8], [1.6, -0.3], [0.3, 1.7]], covs)
