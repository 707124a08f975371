"""The pinwheel: a density by change of variables, where the inverse is found numerically."""

import math

import torch

from .base import Density, segment_logsumexp


class Pinwheel(Density):
    """Five bent blades: x = 2 R f, f ~ N((1, 0), diag(0.3^2, 0.1^2)), R a turn, clockwise, by
    0.25 exp(f_1) and a multiple of a fifth of a turn.

    A change of variables that has to be inverted by root finding. R keeps the radius r, so f lies
    on a known circle, at an unknown angle a that solves a - 0.25 exp(r cos a) = (the angle of x)
    + the blade's. The Jacobian determinant of f -> x is 4 times the derivative of the left side,
    1 + 0.25 f_2 exp(f_1). Where that is negative, the map folds and several f lead to one x: all
    count. On the edge of a fold the density is infinite; folds begin at r = 1.7 and hold a
    probability of 3e-8. We look for roots in 128 intervals and find one in each, which is all
    of them but for the last sliver of a fold, up to |x| = 9 (where the density is below e^-60).

    >>> Pinwheel().log_prob(torch.tensor([[9.0, 9.0]])) < -50
    tensor([True])
    """

    blades, radial, tangential, rate, scale = 5, 0.3, 0.1, 0.25, 2.0
    width, terms = 0.2, 128 * 5 * 4

    def __repr__(self):
        return "Pinwheel()"

    def _sample(self, n, draw):
        f1, f2 = 1 + self.radial * draw.normal(n), self.tangential * draw.normal(n)
        blade = draw.choice(torch.ones(self.blades), n).to(draw.to["dtype"])
        turn = 2 * math.pi / self.blades * blade + self.rate * f1.exp()
        c, s = turn.cos(), turn.sin()
        return self.scale * torch.stack([f1 * c + f2 * s, f2 * c - f1 * s], -1)

    def _frame(self, widths):
        reach = self.scale * (1 + widths * self.radial)
        return torch.tensor([-reach] * 2).double(), torch.tensor([reach] * 2).double()

    def _log_prob(self, x):
        r = torch.linalg.vector_norm(x, dim=1) / self.scale
        blades = torch.arange(self.blades, device=x.device, dtype=x.dtype)
        # atan2's derivative squares x, which vanishes near the origin: in this unit it does not.
        # At the origin any angle will do: there, by symmetry, the slope is 0.
        unit = x.detach().abs().amax(1, keepdim=True)
        unit = unit.clamp_min(torch.finfo(x.dtype).tiny)
        to = torch.where(x.detach().any(1, keepdim=True), x / unit, torch.ones_like(x))
        angle = torch.atan2(to[:, 1], to[:, 0])
        goal = angle[:, None] + 2 * math.pi / self.blades * blades

        def left(a, r):
            return a - self.rate * (r * a.cos()).exp()

        def slope(a, r):
            return 1 + self.rate * r * a.sin() * (r * a.cos()).exp()

        with torch.no_grad():  # a root lies where left - goal passes a multiple of a full turn
            a = torch.linspace(-math.pi, math.pi, 129, device=x.device, dtype=x.dtype)
            turns = (left(a, r[:, None])[:, None] - goal[..., None]).div(2 * math.pi).floor()
            row, blade, j = (turns[..., 1:] != turns[..., :-1]).nonzero(as_tuple=True)
            low, high = a[j], a[j + 1]
            at_low, at_high = turns[row, blade, j], turns[row, blade, j + 1]
            target = goal[row, blade] + 2 * math.pi * torch.maximum(at_low, at_high)
            for _ in range(50 if x.dtype == torch.float64 else 24):
                mid = (low + high) / 2
                above = (left(mid, r[row]) >= target) == (at_high > at_low)
                low, high = torch.where(above, low, mid), torch.where(above, mid, high)
            root = (low + high) / 2

        # Newton's steps change nothing but the graph: derivatives of a root, implicitly. Each
        # doubles the order, and after two of them second derivatives are right.
        rr, target = r[row], goal[row, blade] + (target - goal[row, blade]).detach()
        for _ in range(2):
            root = root - (left(root, rr) - target) / slope(root, rr)
        log = -0.5 * ((rr * root.cos() - 1) / self.radial) ** 2
        log = log - 0.5 * (rr * root.sin() / self.tangential) ** 2 - slope(root, rr).abs().log()
        return segment_logsumexp(log, row, len(x)) - math.log(
            2 * math.pi * self.radial * self.tangential * self.scale**2 * self.blades
        )


def pinwheel() -> Pinwheel:
    """Five bent blades.

    >>> pinwheel()
    Pinwheel()
    """
    return Pinwheel()
