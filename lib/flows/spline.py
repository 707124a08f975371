"""Monotone rational-quadratic splines: an elementwise bijection that bends as freely as it has bins.

Durkan et al. (2019), section 3.1 and appendix A.1, after Gregory and Delbourgo (1982).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-3  # of a slope, and of a bin's share of the width and of the height
UNIT = math.log(math.expm1(1 - SMALLEST))  # softplus(UNIT) + SMALLEST = 1


def knots(widths: Tensor, heights: Tensor, slopes: Tensor, bound: float) -> tuple[Tensor, ...]:
    """K bins from unconstrained numbers, (..., K), (..., K), (..., K - 1) -> 3 times (..., K + 1).

    x, y and dy/dx at the knots: x and y rise from -bound to bound, the slopes are positive, and 1
    at both ends. Zeros give the identity.

    >>> zeros = torch.zeros(4)
    >>> knots(zeros, zeros, torch.zeros(3), bound=2.0)[0]
    tensor([-2., -1.,  0.,  1.,  2.])
    """
    K = widths.shape[-1]
    if heights.shape[-1] != K or slopes.shape[-1] != K - 1 or not K * SMALLEST < 1:
        raise ValueError(
            f"a spline of K bins takes K widths, K heights and K - 1 slopes (1 <= K < "
            f"{1 / SMALLEST:.0f}), got {K}, {heights.shape[-1]} and {slopes.shape[-1]}"
        )
    if not bound > 0:
        raise ValueError(f"bound must be above 0, got {bound}")

    def places(raw: Tensor) -> Tensor:
        share = SMALLEST + (1 - K * SMALLEST) * raw.softmax(-1)
        inner = bound * (2 * share[..., :-1].cumsum(-1) - 1)
        return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)

    return (
        places(widths),
        places(heights),
        F.pad(F.softplus(slopes + UNIT) + SMALLEST, (1, 1), value=1.0),
    )


def rational_quadratic(
    x: Tensor,
    widths: Tensor,
    heights: Tensor,
    slopes: Tensor,
    inverse: bool = False,
    bound: float = 3.0,
) -> tuple[Tensor, Tensor]:
    """y and log dy/dx of each element: (...) and the parameters of `knots` -> (...), (...).

    In the bin from (x0, y0) to (x1, y1), with slopes d0 and d1 there, s = (y1 - y0) / (x1 - x0) and
    t = (x - x0) / (x1 - x0),

        y = y0 + (y1 - y0) (s t^2 + d0 t (1 - t)) / (s + (d0 + d1 - 2 s) t (1 - t))

    and y = x outside [-bound, bound]. `inverse` gives x, and log dx/dy, from y, by the root of a
    quadratic equation in the form that does not cancel.

    >>> zeros = torch.zeros(1, 4)
    >>> rational_quadratic(torch.tensor([0.7]), zeros, zeros, torch.zeros(1, 3))[0]
    tensor([0.7000])
    """
    xs, ys, ds = knots(widths, heights, slopes, bound)
    inside = x.abs() <= bound
    v = x.clamp(-bound, bound)  # valid input also where the result is not used: no NaN gradient
    bin = (v.detach()[..., None] >= (ys if inverse else xs)[..., 1:-1]).sum(-1, keepdim=True)

    def at(a: Tensor) -> tuple[Tensor, Tensor]:
        return a.gather(-1, bin)[..., 0], a.gather(-1, bin + 1)[..., 0]

    (x0, x1), (y0, y1), (d0, d1) = at(xs), at(ys), at(ds)
    w, h = x1 - x0, y1 - y0
    s = h / w
    bend = d0 + d1 - 2 * s
    if inverse:
        dy = v - y0
        b = h * d0 - dy * bend
        root = (b * b + 4 * s * dy * (h * s - b)).clamp_min(0)
        # of the two forms of the root the one that adds, by the sign of b
        total = b.abs() + root.sqrt()
        t = torch.where(b < 0, 0.5 * total / (h * s + b.abs()), 2 * s * dy / total)
        y = x0 + t * w
    else:
        t = (v - x0) / w
    u = t * (1 - t)
    below = s + bend * u
    if not inverse:
        y = y0 + h * (s * t * t + d0 * u) / below
    # squared and multiplied out this would fall below float32's least, at slopes of 1e12
    share = s / below
    log_slope = 2 * share.log() + (d1 * t * t + 2 * s * u + d0 * (1 - t) ** 2).log()
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)
