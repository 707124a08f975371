"""Distances between two sets of samples, to compare models with the truth and with each other."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lib.utils import check_batch, check_count, full_precision


def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    projections: int = 128,
    p: float = 2.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sliced Wasserstein distance of order p between samples (N, ...) and (M, ...): a number.

    The mean over random directions of W_p^p in one dimension, to the power 1/p. In one dimension
    the distance is exact: it compares quantile functions, which for equal sizes means sorted
    values. Even for equal distributions it is positive, of order N^(-1/2): compare it with its
    value between two sets of true samples. Bonneel et al. (2015), equation (9).

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> sliced_wasserstein(x, x + 3)
    tensor(3.)
    """
    x, y = _pair(x, y)
    check_count(projections, "projections")
    if not 1 <= p < math.inf:
        raise ValueError(f"the order p must be at least 1 and finite, got {p}")
    like = {"dtype": x.dtype, "device": x.device}
    directions = torch.randn(x.shape[1], projections, generator=generator, **like)
    directions = directions / directions.norm(dim=0)
    x, y, unit = _scaled(x, y)
    with full_precision(x):  # products in bfloat16 see their own rounding
        return unit * _along(x, y, directions, p)


def _along(x: Tensor, y: Tensor, directions: Tensor, p: float) -> Tensor:
    """The distance along the columns of `directions` (D, projections), in the units of x and y."""
    a, b = (x @ directions).sort(0).values, (y @ directions).sort(0).values
    n, m = len(a), len(b)
    if n == m:
        gap, share = (a - b).abs(), a.new_full((n,), 1 / n)
        return _power_mean(gap, share, p)
    # Both quantile functions are steps, at multiples of 1/n and of 1/m: in units of 1/(n m) all of
    # it is whole numbers. Between neighbouring ends each function keeps the value it has there.
    ends = torch.cat([m * torch.arange(n + 1), n * torch.arange(1, m)]).sort().values.to(x.device)
    start, width = ends[:-1], ends.diff().to(x.dtype) / (n * m)
    gap = (a[start // m] - b[start // n]).abs()  # (n + m - 1, projections)
    return _power_mean(gap, width, p)


def _power_mean(gap: Tensor, share: Tensor, p: float) -> Tensor:
    """(mean over columns of sum_i share_i gap_i^p)^(1/p); a large p overflows and vanishes nowhere."""
    top = gap.detach().max().clamp_min(torch.finfo(gap.dtype).tiny)
    return top * (share @ (gap / top) ** p).mean() ** (1 / p)


class Mmd(NamedTuple):
    """Squared maximum mean discrepancy and its standard error.

    >>> Mmd(value=torch.tensor(0.5), stderr=torch.tensor(0.25)).stderr
    tensor(0.2500)
    """

    value: Tensor
    stderr: Tensor


def mmd(x: Tensor, y: Tensor, bandwidths: tuple[float, ...] | None = None) -> Mmd:
    """Squared maximum mean discrepancy between samples (N, ...) and (M, ...), unbiased.

    The kernel is the mean of exp(-|x - y|^2 / (2 h^2)) over the bandwidths h: by default 1/4, 1/2,
    1, 2 and 4 times the median distance between all the points. The mean is 0 for equal
    distributions, so about half of such values are negative. Needs O((N + M)^2) memory.

    value: Gretton et al. (2012), equation (3). stderr: the variance of that U-statistic by
    Hoeffding's decomposition, with the parts that matter where the distributions are equal (there
    it is a little too large, never much too small).

    >>> x = torch.arange(5.0)[:, None]
    >>> mmd(x, x + 9).value > 10 * mmd(x, x + 9).stderr
    tensor(True)
    """
    x, y = _pair(x, y)
    n, m = len(x), len(y)
    if min(n, m) < 4:
        raise ValueError(f"mmd needs at least 4 samples on either side, got {n} and {m}")
    if bandwidths is not None and not (bandwidths and all(h > 0 for h in bandwidths)):
        raise ValueError(f"bandwidths are numbers above 0, at least one, got {bandwidths}")
    x, y, unit = _scaled(x, y)
    both = torch.cat([x, y])
    # By a product of matrices, which loses near points' distances in float32, or far from 0.
    wide = both.double() - both.double().mean(0)
    distance = torch.cdist(wide, wide).to(both)
    if bandwidths is None:
        upper = torch.triu_indices(n + m, n + m, 1, device=x.device)
        median = distance.detach()[upper[0], upper[1]].median().item()
        if median == 0:
            raise ValueError("more than half of all pairs of samples coincide: give `bandwidths`")
        bandwidths = tuple(median * s for s in (0.25, 0.5, 1.0, 2.0, 4.0))
    else:
        bandwidths = tuple(h / unit.item() for h in bandwidths)
    kernel = sum(torch.exp(-0.5 * (distance / h) ** 2) for h in bandwidths) / len(bandwidths)
    kxx, kyy, kxy = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    kxx, kyy = kxx.clone().fill_diagonal_(0), kyy.clone().fill_diagonal_(0)
    xx, yy, xy = kxx.sum(1) / (n - 1), kyy.sum(1) / (m - 1), kxy.mean(1)  # a row's mean: (n,), (m,)
    yx = kxy.mean(0)
    value = xx.mean() + yy.mean() - 2 * xy.mean()

    # what is left of each kernel value without the means of its row and column
    rest_xx = kxx - xx[:, None] - xx + xx.mean()
    rest_yy = kyy - yy[:, None] - yy + yy.mean()
    rest_xy = kxy - xy[:, None] - yx + xy.mean()
    s_xx = rest_xx.fill_diagonal_(0).square().sum() / (n * (n - 3))
    s_yy = rest_yy.fill_diagonal_(0).square().sum() / (m * (m - 3))
    s_xy = rest_xy.square().sum() / ((n - 1) * (m - 1))
    # how much one point moves the statistic; the variance of row means also holds noise of the rows
    h_x = (xx - xy).var() - s_xx / (n - 1) - s_xy / m
    h_y = (yy - yx).var() - s_yy / (m - 1) - s_xy / n
    noise = 2 * s_xx / (n * (n - 1)) + 2 * s_yy / (m * (m - 1)) + 4 * s_xy / (n * m)
    # at equal distributions h is 0 and its estimate often negative: it must not cancel the noise
    variance = (4 * h_x / n + 4 * h_y / m).clamp_min(0) + noise
    return Mmd(value, variance.sqrt())


def _scaled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both sets in units of a power of two near their largest value, and that unit.

    Divided by a power of two a number keeps its digits, and no square overflows or vanishes.
    """
    largest = torch.maximum(x.abs().max(), y.abs().max())
    exponent = torch.frexp(largest).exponent - 1
    unit = torch.ldexp(torch.ones_like(largest), exponent.to(x.dtype))  # an integer one: float32
    unit = unit.clamp_min(torch.finfo(x.dtype).tiny)
    return x / unit, y / unit, unit


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets as (N, D) and (M, D) in float32 at least, or an error that says how they differ."""
    check_batch(x, name="x")
    check_batch(y, name="y")
    if x.shape[1:] != y.shape[1:] or x.ndim < 2 or 0 in (len(x), len(y)):
        raise ValueError(
            f"x and y must be samples (N, ...) and (M, ...) of one shape, got {tuple(x.shape)} "
            f"and {tuple(y.shape)}"
        )
    if (x.dtype, x.device) != (y.dtype, y.device):
        raise ValueError(
            f"x and y must have one precision and device, got {x.dtype} on {x.device} and "
            f"{y.dtype} on {y.device}"
        )
    dtype = torch.promote_types(x.dtype, torch.float32)  # half's rounding is larger than distances
    return x.flatten(1).to(dtype), y.flatten(1).to(dtype)
