"""Chapter 8's checkers: right answers pass, known wrong ones get the hint that helps."""

import math

import numpy as np
import pytest
import torch

from lib.teach.figures import ch08
from tests.teach.answers import Answers

LOG_2PI = math.log(2 * math.pi)


def estimate(f, x, e, v=None):
    x = x.detach().requires_grad_()
    (eJ,) = torch.autograd.grad(f(x), x, e if v is None else v)
    return (eJ * e).sum(1)


def by_rows(f, x, e):
    J = [torch.autograd.functional.jacobian(lambda r: f(r[None])[0], row) for row in x]
    return torch.stack([v @ j @ v for v, j in zip(e, J, strict=True)])


def base(x):
    return -0.5 * x.square().sum(1) - x.shape[1] / 2 * LOG_2PI


def log_density(
    field, div, x, steps, sign=1.0, keep=True, back=False, mid=0.5, weight=True, old=()
):
    h, total = 1 / steps, 0.0
    for n in range(steps):
        t, s = (1 - n * h, -h) if back else (n * h, h)
        middle = x + mid * s * field(t, x)
        at = {"t": t if "t" in old else t + mid * s, "x": x if "x" in old else middle}
        step = (s if weight else 1.0) * div(*at.values())
        total = total + step if keep else step
        x = x + s * field(t + mid * s, middle)
    return base(x) + sign * total


def divergence(W1, b, W2, x):
    return (1 - torch.tanh(x @ W1.T + b) ** 2) @ (W1 * W2.T).sum(1)


def slopes(W1, b, W2, x):
    return torch.tanh(x @ W1.T + b)


RIGHT = {
    "8.1": [0.7 - LOG_2PI, torch.tensor(-1.1379)],
    "8.2": [(26, 16), torch.tensor([26.0, 16.0])],
    "8.3": [estimate],
    "8.4": [log_density],
    "8.5": [divergence],
}
WRONG = {
    "8.1": [
        (-0.7 - LOG_2PI, "sign"),
        (0.7, "base density"),
        (-LOG_2PI, "divergence is missing"),
        (math.exp(0.7 - LOG_2PI), "logarithm"),
        (0.7 - LOG_2PI / 2, "D = 2"),
        ("x", "number"),
        (3.0, "tr A"),
    ],
    "8.2": [
        ((42, 32), "symmetrise"),
        ((16, 26), "order"),
        ((13, 8), "factor 2"),
        ((26**0.5, 4), "standard deviations"),
        (26, "pair"),
        ((1, 2), "diagonal"),
    ],
    "8.3": [
        (lambda f, x, e: estimate(f, x, e, torch.ones_like(x)), "(1'J) e"),
        (lambda f, x, e: estimate(f, x, e).sum(), "batch"),
        (lambda f, x, e: estimate(f, x, e) / 4, "mean"),
        (lambda f, x, e: estimate(f, x, e) + 1, "one backward pass"),
        (by_rows, "6 times"),
        (2, "function was expected"),
    ],
    "8.4": [
        (lambda *a: log_density(*a, sign=-1.0), "sign"),
        (lambda *a: log_density(*a) + (a[2].shape[1] - 2) / 2 * LOG_2PI, "not for D = 3"),
        (lambda *a: log_density(*a, sign=0.0), "missing"),
        (lambda *a: log_density(*a, keep=False), "overwritten"),
        (lambda *a: log_density(*a, weight=False), "step length"),
        (lambda *a: log_density(*a, back=True), "wrong way"),
        (lambda *a: log_density(*a, mid=0.0), "Euler"),
        (lambda *a: log_density(*a, old="tx"), "middle of the step"),
        (lambda *a: log_density(*a, old="x"), "middle of the step"),
        (lambda *a: log_density(*a)[:, None], "shape (7,)"),
        (lambda *a: log_density(*a) + 1, "end of the path"),
    ],
    "8.5": [
        (lambda W1, b, W2, x: slopes(W1, b, W2, x) @ (W1 * W2.T).sum(1), "derivative"),
        (lambda W1, b, W2, x: (1 - slopes(W1, b, W2, x) ** 2) @ (W1 @ W2).sum(1), "only the diagonal"),
        (lambda W1, b, W2, x: (W1 * W2.T).sum().expand(len(x)), "slopes"),
        (lambda *a: divergence(*a).sum(), "batch"),
        (lambda *a: divergence(*a) + 1, "sum over k"),
        (lambda W1, b, W2, x: divergence(W1, b, W2, x) + 0 * (W2 @ W1).trace(), "D x D"),
    ],
}  # fmt: skip


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 8, RIGHT, WRONG
    PLAIN = ("8.1", "8.2")
    DOUBLE = ("8.3",)


def test_points_ride_on_the_density():
    """log p along a path falls by the integral of the divergence."""
    _, divergence, log_p = ch08.ride()
    fallen = np.trapezoid(divergence, dx=1 / ch08.STEPS, axis=0)
    np.testing.assert_allclose(log_p[0] - log_p[-1], fallen, atol=0.02)


@pytest.mark.parametrize("kind", ["Gaussian", "signs"])
def test_formula_of_the_spread(kind):
    scene = ch08.probes().scene(kind=kind, power=2, mix=1.5)
    seen, formula = (float(scene.readouts[k]) for k in ("deviation", "formula"))
    assert abs(seen / formula - 1) < 0.12
    assert ch08.spread(ch08.matrix(0.0), "signs") < 1e-6


def test_one_cloud_is_said_once_the_middle_is_as_dense_as_the_ring():
    radius = torch.linspace(0, 3, 301, dtype=torch.float64)
    ray = torch.stack([radius, 0 * radius], 1)
    for t in ch08.time().controls[0].stops()[20:35]:
        p = ch08.blurred(t).log_prob(ray).exp()
        assert ("one round cloud" in ch08.time().scene(t=t).alt) == bool(p[0] > 0.99 * p.max())


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_time_scene(t):
    scene = ch08.time().scene(t=t)
    assert f"t = {t:.2f}" in scene.alt
    assert len(scene.panels) == 3
