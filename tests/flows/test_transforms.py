"""Every bijection inverts, reports the log-det autograd finds, per example, and differentiates."""

import copy
import math
from zlib import crc32

import pytest
import torch
from torch import nn

from lib.flows import Affine, Compose, Flow, Inverse, Logit, LULinear, Monotone, Rotation, Transform
from lib.flows.flow import StandardNormal, Uniform


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


# by name: how to make it for D dimensions, and how loud its weights may be. The inverse of a
# product of triangular matrices loses digits as fast as their entries grow, hence D there.
TRANSFORMS = {
    "affine": (Affine, lambda D: 0.7),
    "monotone": (Monotone, lambda D: 0.7),
    "monotone-1": (lambda D: Monotone(D, units=1), lambda D: 0.7),
    "logit": (lambda D: Logit(0.05), lambda D: 1.0),
    "lu": (LULinear, lambda D: 0.8 / D**0.5),
    "rotation": (Rotation, lambda D: 1.0),
    "inverse": (lambda D: Inverse(LULinear(D)), lambda D: 0.8 / D**0.5),
    "inverse-monotone": (lambda D: Inverse(Monotone(D)), lambda D: 0.7),
    "stack": (stack, lambda D: 0.4 / D**0.5),
}
SIZES = [1, 2, 3, 6, 33]


def make(name, D, dtype=torch.float64, device="cpu", batch=7):
    """A loud transform, and a batch of base points that its data side can represent."""
    build, loud = TRANSFORMS[name]
    generator = torch.Generator().manual_seed(crc32(f"{name}{D}".encode()))
    f = build(D)
    with torch.no_grad():  # fresh transforms are near the identity, which hides bugs
        for p in f.parameters():
            p.add_(loud(D) * torch.randn(p.shape, generator=generator))
    z = torch.randn(batch, D, generator=generator, dtype=torch.float64)
    return f.to(device, dtype), z.to(device, dtype)


every = pytest.mark.parametrize("name", TRANSFORMS)
every_size = pytest.mark.parametrize("D", SIZES)


def jacobians(f, x):
    """(B, D, D), one example at a time, so that a map which mixes examples is caught."""
    jac = torch.autograd.functional.jacobian
    return torch.stack([jac(lambda v: f(v[None])[0][0], row) for row in x])


@every
@every_size
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_round_trip(name, D, dtype, device):
    f, z = make(name, D, dtype, device)
    x, logabsdet = f.from_base(z)
    back, logabsdet_back = f.to_base(x)
    tol = 1e-10 if dtype == torch.float64 else 1e-4
    assert x.shape == z.shape and logabsdet.shape == logabsdet_back.shape == (len(z),)
    assert x.dtype == back.dtype == logabsdet.dtype == logabsdet_back.dtype == dtype
    torch.testing.assert_close(back, z, rtol=tol, atol=tol)
    torch.testing.assert_close(logabsdet_back, -logabsdet, rtol=tol, atol=tol * D)
    assert not torch.allclose(x, z, atol=1e-2) or name == "rotation"  # loud; D = 1 cannot rotate


@every
@every_size
@pytest.mark.parametrize("direction", ["to_base", "from_base"])
def test_logabsdet_is_that_of_the_jacobian(name, D, direction, device):
    f, z = make(name, D, device=device, batch=3)
    x = z if direction == "from_base" else f.from_base(z)[0].detach()
    run = getattr(f, direction)
    want = torch.linalg.slogdet(jacobians(run, x)).logabsdet
    torch.testing.assert_close(run(x)[1], want, rtol=1e-9, atol=1e-9)


@every
@every_size
@pytest.mark.parametrize("direction", ["to_base", "from_base"])
def test_gradients_match_finite_differences(name, D, direction, device):
    """d/d(input, parameters) of a random function of both outputs, along a random direction."""
    f, z = make(name, D, device=device, batch=4)
    x = (z if direction == "from_base" else f.from_base(z)[0]).detach().requires_grad_()
    weights = torch.randn(4, D + 1, dtype=x.dtype, device=device)
    leaves = [x, *f.parameters()]
    steps = [torch.randn_like(leaf) for leaf in leaves]

    def value():
        out, logabsdet = getattr(f, direction)(x)
        return (weights * torch.cat([out, logabsdet[:, None].sin()], 1)).sum()

    def moved(h):
        with torch.no_grad():
            for leaf, step in zip(leaves, steps, strict=True):
                leaf += h * step
            result = value().item()
            for leaf, step in zip(leaves, steps, strict=True):
                leaf -= h * step
        return result

    grads = torch.autograd.grad(value(), leaves, allow_unused=True)
    got = sum((g * s).sum().item() for g, s in zip(grads, steps, strict=True) if g is not None)
    h = 1e-4 / D**0.5  # fourth-order central difference
    want = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    assert got == pytest.approx(want, rel=1e-6, abs=1e-6)


@every
@pytest.mark.parametrize("direction", ["to_base", "from_base"])
def test_second_derivatives(name, direction, device):
    """The inverse of a monotone map is found by iteration; its curvature must survive that."""
    f, z = make(name, 2, device=device, batch=3)
    x = (z if direction == "from_base" else f.from_base(z)[0]).detach().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: getattr(f, direction)(v), x, atol=1e-5, rtol=1e-4)


@every
def test_examples_do_not_mix_and_any_batch_works(name, device):
    f, z = make(name, 3, device=device)
    x, logabsdet = f.from_base(z)
    for n in (0, 1):
        some = f.from_base(z[:n])
        assert some[0].shape == (n, 3) and some[1].shape == (n,)
        torch.testing.assert_close(some, (x[:n], logabsdet[:n]))
        assert f.to_base(x[:n])[1].shape == (n,)
    strided = z.T.contiguous().T
    assert not strided.is_contiguous()
    torch.testing.assert_close(f.from_base(strided), (x, logabsdet))
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4], device=device)
    torch.testing.assert_close(f.from_base(z[order]), (x[order], logabsdet[order]))


@every
def test_copies_and_state_dicts(name, device):
    f, z = make(name, 3, device=device)
    want = f.from_base(z)  # a graph on the parameters must not stand in the way of a copy
    torch.testing.assert_close(copy.deepcopy(f).from_base(z), want)
    fresh = TRANSFORMS[name][0](3).to(device, torch.float64)
    fresh.load_state_dict(f.state_dict())
    torch.testing.assert_close(fresh.from_base(z), want)


@every
def test_vmap(name, device):
    f, z = make(name, 3, device=device)
    jac = torch.func.vmap(torch.func.jacrev(lambda v: f.from_base(v[None])[0][0]))(z)
    torch.testing.assert_close(jac, jacobians(f.from_base, z))


@pytest.mark.parametrize("name", [n for n in TRANSFORMS if n != "logit"])
@pytest.mark.parametrize("D", [1, 2])
def test_density_integrates_to_one(name, D, device):
    f, z = make(name, D, device=device, batch=4000)
    flow = Flow(f, D)
    with torch.no_grad():
        x = f.from_base(2 * z)[0]  # a box that holds the mass
        low, high = x.min(0).values, x.max(0).values
        n = 4001 if D == 1 else 161
        box = zip(low.tolist(), high.tolist(), strict=True)
        axes = [torch.linspace(a, b, n, dtype=x.dtype, device=device) for a, b in box]
        grid = torch.cartesian_prod(*axes).view(-1, D)
        cell = math.prod(float(a[1] - a[0]) for a in axes)
        mass = torch.cat([flow.log_prob(part).exp() for part in grid.split(20_000)]).sum() * cell
    assert abs(mass.item() - 1) < 1e-5


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


@every
def test_unwanted_context(name, device):
    f, z = make(name, 3, device=device)
    c = z[:, :1]
    for run in (f.to_base, f.from_base, Flow(f, 3).log_prob):
        with pytest.raises(ValueError, match="takes no context, got one of shape"):
            run(z, c)


# mistakes


@pytest.mark.parametrize("name", [n for n in TRANSFORMS if n != "logit"])
def test_wrong_input(name, device):
    f, z = make(name, 3, device=device)
    for bad, error, says in [
        (z[:, :2], ValueError, r"expected shape \(B, 3\), got \(7, 2\)"),
        (z[0], ValueError, r"expected shape \(B, .*\), got \(3,\)"),
        (z.long(), TypeError, "must be floating point, not torch.int64"),
        (z.float(), TypeError, "has torch.float64 parameters, its input is torch.float32"),
        (z.cpu().numpy(), TypeError, "must be a torch.Tensor, not ndarray"),
        (z.to("meta"), ValueError, "its input on meta"),
    ]:
        for run in (f.to_base, f.from_base):
            with pytest.raises(error, match=says):
                run(bad)


def test_what_has_no_closed_form_says_so(device):
    x = torch.randn(2, 2, device=device)
    with pytest.raises(NotImplementedError, match="Transform has no map to the base"):
        Transform().to_base(x)
    with pytest.raises(NotImplementedError, match="Transform has no map from the base"):
        Transform().from_base(x)
    with pytest.raises(TypeError, match=r"call Affine\.to_base or \.from_base"):
        Affine(2)(x)


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
    with pytest.raises(ValueError, match=r"data in \(0, 1\), got values from 0 to 255"):
        Logit().to_base(torch.tensor([[0.0, 255.0]], device=device))
    z, _ = Logit(0.05).to_base(torch.tensor([[0.0, 1.0]], device=device))
    assert z.isfinite().all()


def test_bases(device):
    z = torch.tensor([[0.25, 0.5], [0.25, 1.5]], device=device)
    want = torch.tensor([-2 * math.log(2.0), -math.inf], device=device)
    torch.testing.assert_close(Uniform(-1, 1).log_prob(z), want)
    want = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
    torch.testing.assert_close(StandardNormal().log_prob(z), want)
    draw = Uniform(-1, 3).draw(10_000, 1, device=device)
    assert abs(draw.mean() - 1) < 0.06 and draw.min() >= -1 and draw.max() <= 3
