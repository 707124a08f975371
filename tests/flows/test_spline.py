"""Rational-quadratic splines: monotone, exact inverses, exact slopes, and no trouble at the knots."""

import pytest
import torch

from lib.flows.spline import knots, rational_quadratic


def make(bins=5, n=400, dtype=torch.float64, device="cpu", loud=2.0, bound=3.0):
    """Loud splines, one for each of n inputs, which reach past the bound."""
    w, h = loud * torch.randn(2, n, bins, dtype=torch.float64)
    d = loud * torch.randn(n, bins - 1, dtype=torch.float64)
    x = 1.3 * bound * (2 * torch.rand(n, dtype=torch.float64) - 1)
    return [v.to(device, dtype) for v in (x, w, h, d)]


@pytest.mark.parametrize("bins", [1, 2, 5, 16])
@pytest.mark.parametrize("bound", [1.0, 7.0])
def test_round_trip(bins, bound, device):
    x, *params = make(bins, device=device, bound=bound)
    y, log_slope = rational_quadratic(x, *params, bound=bound)
    back, log_slope_back = rational_quadratic(y, *params, inverse=True, bound=bound)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(log_slope_back, -log_slope, rtol=0, atol=1e-9)
    if bins > 1:
        assert (y - x).abs().max() > 0.1 * bound


@pytest.mark.parametrize("inverse", [False, True])
def test_log_slope_is_the_derivative(inverse, device):
    x, *params = make(device=device)
    x.requires_grad_()
    y, log_slope = rational_quadratic(x, *params, inverse=inverse)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, slope.log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients(inverse, device):
    x, *params = (v.requires_grad_() for v in make(n=6, device=device, loud=1.0))
    assert torch.autograd.gradcheck(
        lambda *a: rational_quadratic(*a, inverse=inverse), (x, *params)
    )
    run = lambda v: rational_quadratic(v, *params, inverse=inverse)
    assert torch.autograd.gradgradcheck(run, x, atol=1e-5, rtol=1e-4)


def test_it_passes_through_the_knots_with_their_slopes(device):
    """At a knot the left and the right bin agree, the last is the bound itself."""
    _, *params = make(n=50, device=device, loud=1.0)
    xs, ys, ds = knots(*params, bound=3.0)
    assert (xs.diff() > 0).all() and (ys.diff() > 0).all() and (ds > 0).all()
    assert (xs[:, 0] == -3).all() and (ys[:, -1] == 3).all() and (ds[:, [0, -1]] == 1).all()
    for i in range(xs.shape[1]):
        for a, b, sign, inverse in [(xs, ys, 1, False), (ys, xs, -1, True)]:
            for step in (-1e-11, 0.0, 1e-11):
                got, log_slope = rational_quadratic(a[:, i] + step, *params, inverse=inverse)
                torch.testing.assert_close(got, b[:, i], rtol=0, atol=1e-7 if step else 1e-12)
                torch.testing.assert_close(log_slope, sign * ds[:, i].log(), rtol=0, atol=1e-4)


def test_monotone(device):
    x = torch.linspace(-4, 4, 20_001, dtype=torch.float64, device=device)
    _, *params = make(8, n=1, device=device, loud=4.0)
    for inverse in (False, True):
        y, log_slope = rational_quadratic(
            x, *(p.expand(len(x), -1) for p in params), inverse=inverse
        )
        assert (y.diff() > 0).all() and log_slope.isfinite().all()


def test_tails_are_the_identity_however_far(device):
    far = torch.tensor([-1e30, -3.0001, 3.0001, 1e30], device=device)
    _, *params = make(n=4, dtype=torch.float32, device=device)
    for inverse in (False, True):
        x = far.clone().requires_grad_()
        y, log_slope = rational_quadratic(x, *(p.requires_grad_() for p in params), inverse=inverse)
        assert (y == far).all() and (log_slope == 0).all()
        grads = torch.autograd.grad(y.sum() + log_slope.sum(), [x, *params])
        assert (grads[0] == 1).all() and all((g == 0).all() for g in grads[1:])


def test_zeros_are_the_identity(device):
    x, *params = make(device=device)
    for inverse in (False, True):
        y, log_slope = rational_quadratic(x, *(0 * p for p in params), inverse=inverse)
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(log_slope, 0 * x)


def test_extreme_parameters_stay_finite(device):
    """Bins as thin and as steep as they can be: the inverse's root is where it cancels."""
    x, *params = make(8, n=2000, dtype=torch.float32, device=device, loud=30.0)
    for inverse in (False, True):
        y, log_slope = rational_quadratic(x, *params, inverse=inverse)
        assert y.isfinite().all() and log_slope.isfinite().all()


def test_any_shape(device):
    x, *params = make(4, n=24, device=device)
    y, log_slope = rational_quadratic(x, *params)
    some = rational_quadratic(x.view(2, 3, 4), *(p.view(2, 3, 4, -1) for p in params))
    torch.testing.assert_close(some, (y.view(2, 3, 4), log_slope.view(2, 3, 4)))


def test_mistakes():
    x, w, h, d = make(4)
    for args, says in [
        ((x, w, h, torch.cat([d, d], 1)), "4 widths|K widths"),
        ((x, w, h[:, :3], d), "got 4, 3 and 3"),
        ((x, w, h, d, False, 0.0), "bound must be above 0"),
    ]:
        with pytest.raises(ValueError, match=says):
            rational_quadratic(*args)


@pytest.mark.parametrize("steep", [30.0, 1e3])
def test_the_way_back_keeps_its_digits_beside_a_steep_knot(steep):
    """The root's usual form subtracts where b < 0: at a slope of 1,000 it was off by 0.07 nats in float32."""
    y = torch.linspace(-0.999, -0.001, 999)
    raw = [torch.zeros(999, 2), torch.zeros(999, 2), torch.full((999, 1), steep)]
    x, logabsdet = rational_quadratic(y, *raw, True, 1.0)
    exact = rational_quadratic(y.double(), *[r.double() for r in raw], True, 1.0)
    assert torch.allclose(x.double(), exact[0], rtol=0, atol=1e-6)
    assert torch.allclose(logabsdet.double(), exact[1], rtol=0, atol=1e-3)
