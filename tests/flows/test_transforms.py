"""The maps that need no network, held to `laws.py`; their starts, their contexts, mistakes."""

import math

import pytest
import torch
from torch import nn

from lib.flows import Affine, Compose, Flow, Inverse, Logit, LULinear, Monotone, Rotation, Transform
from lib.flows.flow import StandardNormal, Uniform
from tests.flows.laws import Case, Laws


class Conditional(Transform):
    """x = exp(c_1) z + c_2: the smallest transform with a context, (B, 2)."""

    takes_context = True

    def to_base(self, x, context=None):
        self.check(x, context)
        return (x - context[:, 1:]) * (-context[:, :1]).exp(), -context[:, 0] * x.shape[1]

    def from_base(self, z, context=None):
        self.check(z, context)
        return z * context[:, :1].exp() + context[:, 1:], context[:, 0] * z.shape[1]


def stack(D):
    return Compose(Rotation(D), Monotone(D, units=3), LULinear(D), Inverse(Monotone(D)), Affine(D))


class TestTransforms(Laws):
    SIZES = (1, 2, 3, 6, 33)
    CASES = {
        "affine": Case(Affine, sizes=SIZES),
        "monotone": Case(Monotone, sizes=SIZES),
        "monotone-1": Case(lambda D: Monotone(D, units=1), sizes=SIZES),
        "logit": Case(lambda D: Logit(0.05), onto=False, sizes=SIZES),
        # the inverse of a product of triangular matrices loses digits as fast as their entries grow
        "lu": Case(LULinear, lambda D: 0.8 / D**0.5, sizes=SIZES),
        "rotation": Case(Rotation, 1.0, sizes=SIZES),
        "inverse": Case(lambda D: Inverse(LULinear(D)), lambda D: 0.8 / D**0.5, sizes=SIZES),
        "inverse-monotone": Case(lambda D: Inverse(Monotone(D)), sizes=SIZES),
        "stack": Case(stack, lambda D: 0.4 / D**0.5, sizes=SIZES),
        "conditional": Case(lambda D: Conditional(), 1.0, context=2, sizes=SIZES),
    }


def test_logit_density_integrates_to_one(device):
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64, device=device)[1:-1, None]
    mass = Flow(Logit(0.0), 1).log_prob(x.to(torch.float64)).exp().mean()
    assert abs(mass.item() - 1) < 1e-5


def test_monotone_inverse_is_exact_where_newton_alone_diverges(device):
    """Steep steps between flat parts: without its bracket Newton's method jumps about for ever."""
    f = Monotone(1, units=3).to(device, torch.float64)
    with torch.no_grad():
        f.log_slope.fill_(math.log(1e-3))
        f.log_a.fill_(math.log(5.0))
        f.log_b.fill_(math.log(40.0))
    z = torch.linspace(-20, 20, 4001, dtype=torch.float64, device=device)[:, None]
    x, _ = f.from_base(z)
    torch.testing.assert_close(f.to_base(x)[0], z, rtol=1e-12, atol=1e-11)
    assert (x.diff(dim=0) > 0).all()


def test_data_driven_starts(device):
    """z has mean 0 and variance 1 (a linear map: covariance I), on data far from the origin."""
    x = torch.randn(500, 3, dtype=torch.float64, device=device) * x_scale(device) + 40
    x[:, 1] += x[:, 0]
    for f in (Affine(3), Monotone(3), LULinear(3)):
        z, _ = f.to(device, torch.float64).init_from(x).to_base(x)
        cov = torch.cov(z.T, correction=0).detach()
        torch.testing.assert_close(z.mean(0), torch.zeros_like(z[0]), atol=1e-9, rtol=0)
        torch.testing.assert_close(cov.diagonal(), torch.ones_like(z[0]), atol=1e-4, rtol=0)
        if isinstance(f, LULinear):
            torch.testing.assert_close(cov, torch.eye(3).to(cov), atol=1e-4, rtol=0)


def x_scale(device):
    return torch.tensor([0.01, 1.0, 300.0], dtype=torch.float64, device=device)


def test_constant_and_repeated_data_start_finite(device):
    """The corner pixels of the digits are always 0."""
    x = torch.zeros(100, 3, dtype=torch.float64, device=device)
    x[::2, 1] = 1.0
    x[:, 2] = torch.linspace(0, 1, 100)
    for f in (Affine(3), Monotone(3), LULinear(3)):
        z, logabsdet = f.to(device, torch.float64).init_from(x).to_base(x)
        assert z.isfinite().all() and logabsdet.isfinite().all()


def test_images_have_any_shape(device):
    for f in (Affine(2, 4, 4), Monotone(2, 4, 4, units=2), Logit()):
        x = torch.rand(5, 2, 4, 4, device=device)
        z, logabsdet = f.to(device).to_base(x)
        assert z.shape == x.shape and logabsdet.shape == (5,)
        torch.testing.assert_close(f.from_base(z)[0], x, atol=1e-5, rtol=1e-4)


# contexts


def test_compose_hands_the_context_to_those_who_take_it(device):
    flow = Flow(Compose(Affine(3), Conditional(), Inverse(Conditional())), 3).to(device)
    x, c = torch.randn(4, 3, device=device), torch.randn(4, 2, device=device)
    z, logabsdet = flow.transform.to_base(x, c)
    torch.testing.assert_close(z, x)
    torch.testing.assert_close(logabsdet, torch.zeros_like(logabsdet))
    assert flow.takes_context and flow.sample(4, c).shape == (4, 3)
    with pytest.raises(ValueError, match="needs a context"):
        flow.log_prob(x)
    with pytest.raises(ValueError, match="one row"):
        flow.transform.to_base(x, c[:3])
    with pytest.raises(ValueError, match="for each of the 4 examples"):
        Conditional().to_base(x, c[:3])


# mistakes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda: Affine(2), lambda: Rotation(2), Logit])
def test_a_map_of_sixteen_bits_is_refused(make, dtype, device):
    """Its determinant would have two or three digits, and a rotation none at all."""
    flow = Flow(Compose(make()), 2).to(device, dtype)
    x = torch.full((3, 2), 0.5, dtype=dtype, device=device)
    for run in (flow.log_prob, flow.transform.to_base, flow.transform.from_base):
        with pytest.raises(TypeError, match="needs float32.*autocast"):
            run(x)


def test_what_has_no_closed_form_says_so(device):
    x = torch.randn(2, 2, device=device)
    with pytest.raises(NotImplementedError, match="Transform has no map to the base"):
        Transform().to_base(x)
    with pytest.raises(NotImplementedError, match="Transform has no map from the base"):
        Transform().from_base(x)
    with pytest.raises(TypeError, match=r"call Affine\.to_base or \.from_base"):
        Affine(2)(x)
    assert not Transform().takes_context  # unless a subclass says so


def test_wrong_construction():
    for build, error in [
        (lambda: Compose([Affine(2)]), TypeError),
        (lambda: Compose(nn.Linear(2, 2)), TypeError),
        (lambda: Monotone(2, units=0), ValueError),
        (lambda: Logit(0.5), ValueError),
        (lambda: Uniform(1.0, 1.0), ValueError),
        (lambda: Flow(Affine(2)), ValueError),
        (lambda: Affine(2).init_from(torch.full((3, 2), math.nan)), ValueError),
    ]:
        with pytest.raises(error):
            build()


def test_logit_refuses_pixels_that_were_not_scaled(device):
    with pytest.raises(ValueError, match=r"values in \[0, 1\], .* got 0 to 255"):
        Logit().to_base(torch.tensor([[0.0, 255.0]], device=device))
    z, _ = Logit(0.05).to_base(torch.tensor([[0.0, 1.0]], device=device))
    assert z.isfinite().all()


@pytest.mark.parametrize("alpha", [1e-8, 1e-6, 0.05])
def test_logit_keeps_its_digits_at_both_ends(alpha, device):
    """A float32 x is an exact number, and its logit is that of the same number in float64."""
    x = torch.tensor([[0.0, 1e-7, 0.3, 0.5, 0.7, 1 - 2**-20, 1 - 2**-24, 1.0]], device=device)
    z, logabsdet = Logit(alpha).to_base(x)
    want, true = Logit(alpha).to_base(x.double())
    torch.testing.assert_close(z, want.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logabsdet, true.float(), rtol=1e-6, atol=1e-6)


def test_bases(device):
    z = torch.tensor([[0.25, 0.5], [0.25, 1.5]], device=device)
    want = torch.tensor([-2 * math.log(2.0), -math.inf], device=device)
    torch.testing.assert_close(Uniform(-1, 1).log_prob(z), want)
    want = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
    torch.testing.assert_close(StandardNormal().log_prob(z), want)
    (grad,) = torch.autograd.grad(Uniform(-1, 1).log_prob(z.requires_grad_()).sum(), z)
    assert (grad == 0).all()
    draw = Uniform(-1, 3).draw(10_000, 1, device=device)
    assert abs(draw.mean() - 1) < 0.06 and draw.min() >= -1 and draw.max() <= 3
