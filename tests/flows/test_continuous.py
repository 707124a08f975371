"""Continuous flows: divergences, log-determinants, densities, gradients, regularisers, errors."""

import copy
from itertools import product

import pytest
import torch
from torch import nn

from lib.flows import Affine, Compose, Flow, Inverse
from lib.flows.continuous import (
    Continuous,
    FieldNet,
    RegularisedFlow,
    draw_probes,
    exact_divergence,
    hutchinson,
    ode_log_prob,
    set_solver,
)
from lib.ode import SolverError, solve
from lib.unet import UNet
from lib.utils import std_normal_log_prob
from tests.flows.laws import Case, Laws

TIGHT = dict(rtol=1e-9, atol=1e-9)
F64 = torch.float64


def net(D=3, depth=3, context=0, device="cpu", dtype=F64, width=12):
    torch.manual_seed(D + 10 * depth)
    field = FieldNet(D, width, depth, context)
    with torch.no_grad():  # a fresh network hardly bends anything, which hides bugs
        for p in field.parameters():
            p.mul_(2)
    return field.to(device, dtype)


class Conv(nn.Module):
    """A field of images that no shortcut knows."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 2, 3, padding=1)

    def forward(self, t, x):
        return self.b(torch.nn.functional.silu(self.a(3 * x) + t))


class Attentive(nn.Module):
    """The U-Net as a field: norms in channels_last and torch's fused attention."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = UNet(2, width=4, multipliers=(1, 2))
        for p in self.net.parameters():  # a fresh network returns 0
            nn.init.normal_(p, std=0.2)

    def forward(self, t, x):
        return self.net(x, t.expand(len(x)))


class Linear(nn.Module):
    """dx/dt = x A'."""

    def __init__(self, A):
        super().__init__()
        self.A = nn.Parameter(A)

    def forward(self, t, x):
        return x @ self.A.T


def plain(field):
    """The same field without its own derivatives."""
    return lambda t, x: field(t, x)


def jacobians(f, x):
    """(B, n, n), one example at a time."""
    n = x[0].numel()
    jac = torch.autograd.functional.jacobian
    return torch.stack([jac(lambda v: f(v[None])[0], row).reshape(n, n) for row in x])


class TestContinuousIsATransform(Laws):
    """At a tolerance near the precision, a continuous flow holds what every transform must hold."""

    HOW = dict(rtol=1e-11, atol=1e-11)
    SOME = dict(loud=0.4, sizes=(2, 6), vmap=False, onto=False)  # its density is looked at below
    CASES = {
        "three layers": Case(lambda D, how=HOW: Continuous(FieldNet(D, 8, 3), **how), **SOME),
        "two layers": Case(
            lambda D, how=HOW: Continuous(FieldNet(D, 8, 2), **how), second=False, **SOME
        ),
        "context": Case(
            lambda D, how=HOW: Continuous(FieldNet(D, 8, 3, context=2), **how),
            context=2,
            second=False,
            **SOME,
        ),
    }

    def make(self, name, D=None, dtype=F64, device="cpu", batch=7):
        f, z, c = super().make(name, D, dtype, device, batch)
        return (f if dtype == F64 else set_solver(f, rtol=1e-6, atol=1e-6)), z, c


# the divergence


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("D", [1, 2, 7, 16])
def test_own_derivatives_of_the_network(D, depth, device):
    field, t = net(D, depth, device=device), torch.tensor(0.7, dtype=F64, device=device)
    x = torch.randn(4, D, dtype=F64, device=device)
    e = torch.randn(3, 4, D, dtype=F64, device=device)
    J = jacobians(lambda x: field(t, x), x)
    v, div = field.with_divergence(t, x)
    torch.testing.assert_close(v, field(t, x))
    torch.testing.assert_close(div, J.diagonal(dim1=1, dim2=2).sum(1))
    v, Je = field.push(t, x, e)
    torch.testing.assert_close(v, field(t, x))
    torch.testing.assert_close(Je, torch.einsum("bij,pbj->pbi", J, e))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    "kind", ["vectors", "images", "attention", "context", "time only", "constant"]
)
def test_divergence_of_any_field(kind, grad, device):
    t = torch.tensor(0.3, dtype=F64, device=device)
    x = torch.randn(4, 3, dtype=F64, device=device)
    if kind == "images":
        field, x = Conv().to(device, F64), torch.randn(4, 2, 3, 4, dtype=F64, device=device)
    elif kind == "attention":
        field, x = Attentive().to(device, F64), torch.randn(4, 2, 2, 4, dtype=F64, device=device)
    elif kind == "time only":
        field = lambda t, x: (3 * t).sin() * torch.ones_like(x)
    elif kind == "constant":
        w = torch.ones(3, dtype=F64, device=device, requires_grad=True)
        field = lambda t, x: w.expand_as(x)
    elif kind == "context":
        field = plain(net(3, context=2, device=device).with_context(torch.randn_like(x[:, :2])))
    else:
        field = plain(net(3, device=device))
    e = torch.randn(2, *x.shape, dtype=F64, device=device)
    with torch.set_grad_enabled(grad):
        v, div = exact_divergence(field, t, x)
        w, estimate = hutchinson(field, t, x, e)
        one = hutchinson(field, t, x, e[0])[1]
    n = x[0].numel()
    J = torch.autograd.functional.jacobian(lambda x: field(t, x), x).reshape(4, n, 4, n)
    J = J.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    flat = e.flatten(2)
    want = torch.einsum("pbi,bij,pbj->pb", flat, J, flat)
    torch.testing.assert_close(v, field(t, x))
    torch.testing.assert_close(w, v)
    torch.testing.assert_close(div, J.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(estimate, want.mean(0))
    torch.testing.assert_close(one, want[0])
    if kind not in ("time only", "constant"):
        assert div.requires_grad == estimate.requires_grad == grad


@pytest.mark.parametrize(
    "which, attention", [*product(("exact", "hutchinson"), (False, True)), ("own", False)]
)
def test_divergence_can_be_trained(which, attention, device):
    field = Attentive().to(device, F64) if attention else net(2, device=device)
    shape = (3, 2, 2, 2) if attention else (3, 2)
    t, x = torch.tensor(0.3, dtype=F64, device=device), torch.randn(shape, dtype=F64, device=device)
    e = torch.randn_like(x)
    run = {
        "exact": lambda: exact_divergence(plain(field), t, x),
        "hutchinson": lambda: hutchinson(field, t, x, e),
        "own": lambda: field.with_divergence(t, x),
    }[which]
    leaves = [x.requires_grad_(), *field.parameters()]
    step = [torch.randn_like(p) for p in leaves]

    def move(h):
        with torch.no_grad():
            for p, s in zip(leaves, step, strict=True):
                p.add_(s, alpha=h)

    def value(h=0.0):
        if h:
            move(h)
        v, div = run()
        total = v.sin().sum() + div.cos().sum()
        if h:
            move(-h)
        return total

    grads = torch.autograd.grad(value(), leaves, materialize_grads=True)
    got = sum((g * s).sum() for g, s in zip(grads, step, strict=True)).item()
    h = 1e-5
    assert got == pytest.approx((value(h) - value(-h)).item() / (2 * h), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_with_the_variance_of_its_formula(probe, device):
    field, n = net(4, device=device), 40_000
    t, x = torch.tensor(0.6, dtype=F64, device=device), torch.randn(1, 4, dtype=F64, device=device)
    J = jacobians(lambda x: field(t, x), x)[0]
    S = (J + J.T) / 2
    want = 2 * (S**2).sum() - (2 * (S.diagonal() ** 2).sum() if probe == "rademacher" else 0)
    e = draw_probes(x.expand(n, 4), probe)
    one = hutchinson(field, t, x.expand(n, 4), e)[1].detach()
    assert abs((one.mean() - J.trace()) / (want / n) ** 0.5) < 4
    fourth = ((one - one.mean()) ** 4).mean()
    assert abs(one.var() - want) < 4 * ((fourth - one.var() ** 2) / n).sqrt()
    several = hutchinson(field, t, x.expand(n // 5, 4), draw_probes(x.expand(n // 5, 4), probe, 5))
    assert several[1].var().item() == pytest.approx(want.item() / 5, rel=0.1)


def test_probes(device):
    x = torch.zeros(2000, 3, dtype=F64, device=device)
    signs = draw_probes(x, "rademacher", 2)
    assert signs.shape == (2, 2000, 3) and signs.abs().eq(1).all() and signs.dtype == F64
    normal = draw_probes(x, "gaussian", 2)
    for e in (signs, normal):
        cov = torch.cov(e.reshape(-1, 3).T)
        torch.testing.assert_close(cov, torch.eye(3).to(cov), atol=0.1, rtol=0)
    g = lambda: torch.Generator(device).manual_seed(3)
    assert torch.equal(draw_probes(x, generator=g()), draw_probes(x, generator=g()))


# the map


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
def test_linear_field_in_closed_form(t0, t1, device):
    A = torch.randn(3, 3, dtype=F64, device=device)
    x = torch.randn(5, 3, dtype=F64, device=device)
    f = Continuous(Linear(A), **TIGHT)
    z, logabsdet = f.to_base(x) if t1 else f.from_base(x)
    torch.testing.assert_close(
        z, x @ torch.linalg.matrix_exp((t1 - t0) * A).T, rtol=1e-7, atol=1e-7
    )
    torch.testing.assert_close(logabsdet, ((t1 - t0) * A.trace()).expand(5), rtol=1e-8, atol=1e-8)


HOW = {
    "dopri5": {},
    "torchdiffeq": dict(solver="torchdiffeq"),
    "rk4": dict(solver="rk4", steps=100),
    "any field": {},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("direction", ["to_base", "from_base"])
def test_logabsdet_is_that_of_the_solved_map(how, direction, device):
    field = net(3, device=device)
    if how == "any field":
        field.with_divergence = None
    f = Continuous(field, **TIGHT | HOW[how])
    x = torch.randn(3, 3, dtype=F64, device=device)
    run = getattr(f, direction)
    want = torch.linalg.slogdet(jacobians(lambda x: run(x)[0], x))
    assert (want.sign > 0).all()
    torch.testing.assert_close(run(x)[1], want.logabsdet, rtol=1e-6, atol=1e-6)
    assert run(x)[1].abs().min() > 0.02


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("shape", [(2,), (2, 3, 4)])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_round_trip(dtype, shape, trace, device):
    field = (net(2) if len(shape) == 1 else Conv()).to(device, dtype)
    tol = 1e-9 if dtype == F64 else 1e-6
    f = Continuous(field, trace=trace, rtol=tol, atol=tol)
    x = torch.randn(6, *shape, dtype=dtype, device=device)
    torch.manual_seed(5)
    z, logabsdet = f.to_base(x)
    torch.manual_seed(5)  # the same probes
    back, logabsdet_back = f.from_base(z)
    assert z.dtype == logabsdet.dtype == dtype and logabsdet.shape == (6,)
    torch.testing.assert_close(back, x, rtol=100 * tol, atol=100 * tol)
    torch.testing.assert_close(logabsdet_back, -logabsdet, rtol=100 * tol, atol=300 * tol)
    assert (z - x).abs().max() > 0.1 and f.evaluations > 10
    assert f.to_base(x[:0])[0].shape == (0, *shape) and f.from_base(z[:0])[1].shape == (0,)


def test_density_integrates_to_one(device):
    flow = Flow(Continuous(net(2, device=device), rtol=1e-7, atol=1e-7), 2)
    axis = torch.linspace(-7, 7, 141, dtype=F64, device=device)
    with torch.no_grad():
        mass = flow.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * 0.1**2
        x, log_p = flow.sample_with_log_prob(50)
        torch.testing.assert_close(log_p, flow.log_prob(x), rtol=1e-5, atol=1e-5)
    assert abs(mass.item() - 1) < 1e-5


def test_hutchinson_log_prob_has_the_right_mean(device):
    field, x = net(3, device=device), torch.randn(1, 3, dtype=F64, device=device)
    exact = Flow(Continuous(field), 3).log_prob(x)
    for probe in ("rademacher", "gaussian"):
        flow = Flow(Continuous(field, trace="hutchinson", probe=probe, probes=2), 3)
        with torch.no_grad():
            some = flow.log_prob(x.expand(4000, 3))
        assert abs(some.mean() - exact) < 4 * some.std() / 4000**0.5
        assert some.std() > 0.05


def test_ode_log_prob_of_a_gaussian_process(device):
    """The probability flow between N(0, 4) and N(0, 1) scales: v = -log(2) x; any shape."""
    x = torch.randn(5, 1, 2, 3, dtype=F64, device=device)
    rate = torch.tensor(2.0, dtype=F64, device=device).log()
    for how in ({}, dict(trace="hutchinson"), dict(solver="torchdiffeq"), dict(solver="rk4")):
        log_p, z = ode_log_prob(lambda t, x: -rate * x, x, std_normal_log_prob, **how)
        want = torch.distributions.Normal(0 * x, 2 + 0 * x).log_prob(x).flatten(1).sum(1)
        torch.testing.assert_close(z, x / 2, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(log_p, want, rtol=1e-4, atol=1e-4)
    # only part of the way, from a base at t = 1/2
    log_p, _ = ode_log_prob(lambda t, x: -rate * x, x, std_normal_log_prob, t1=0.5)
    want = torch.distributions.Normal(0 * x, 2**0.5 + 0 * x).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(log_p, want, rtol=1e-4, atol=1e-4)


def test_ode_log_prob_by_the_adjoint(device):
    field, x = net(2, device=device), torch.randn(4, 2, dtype=F64, device=device)
    weight = field.layers[0].weight
    how = dict(base_log_prob=std_normal_log_prob, **TIGHT)
    want = torch.autograd.grad(ode_log_prob(field, x, **how)[0].sum(), weight)
    got = torch.autograd.grad(ode_log_prob(field, x, adjoint=True, **how)[0].sum(), weight)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="say which tensors"):
        ode_log_prob(plain(field), x, adjoint=True, **how)
    with pytest.raises(ValueError, match="not in params"):  # x asks for a gradient, the weights too
        loss = ode_log_prob(plain(field), x.requires_grad_(), adjoint=True, params=[], **how)[0]
        loss.sum().backward()


def test_fixed_probes_make_it_repeatable(device):
    field, x = net(3, device=device), torch.randn(4, 3, dtype=F64, device=device)
    e = draw_probes(x)
    run = lambda: ode_log_prob(field, x, std_normal_log_prob, trace="hutchinson", probes=e)[0]
    assert torch.equal(run(), run())
    with torch.no_grad():
        torch.testing.assert_close(run(), run())  # by `push`, without a graph
        free = run()
    torch.testing.assert_close(run(), free)  # and by the backward pass, with one


# training


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("solver", ["dopri5", "torchdiffeq", "rk4"])
def test_gradients_of_the_adjoint_and_of_backpropagation(context, trace, solver, device):
    field = net(2, context=context, device=device)
    x = torch.randn(4, 2, dtype=F64, device=device, requires_grad=True)
    c = torch.randn(4, 2, dtype=F64, device=device, requires_grad=True) if context else None
    leaves = [x, *field.parameters(), *([c] if context else [])]
    grads = []
    for adjoint in (False, True):
        f = Continuous(field, trace=trace, solver=solver, steps=100, adjoint=adjoint, **TIGHT)
        torch.manual_seed(4)
        loss = Flow(f, 2)(x, c).sum()
        grads.append(torch.autograd.grad(loss, leaves))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert a.abs().max() > 1e-3


def test_backpropagation_through_the_solver_against_finite_differences(device):
    field = net(2, context=1, device=device)
    x = torch.randn(3, 2, dtype=F64, device=device, requires_grad=True)
    c = torch.randn(3, 1, dtype=F64, device=device, requires_grad=True)
    flow = Flow(Continuous(field, **TIGHT), 2)
    assert torch.autograd.gradcheck(flow.log_prob, (x, c), atol=1e-5, rtol=1e-4)
    w = field.layers[1].weight
    (got,) = torch.autograd.grad(flow(x, c).sum(), w)
    with torch.no_grad():
        w[0, 1] += 1e-5
        up = flow(x, c).sum()
        w[0, 1] -= 2e-5
        down = flow(x, c).sum()
    assert got[0, 1].item() == pytest.approx((up - down).item() / 2e-5, rel=1e-4)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_regularisers_against_quadrature(trace, device):
    """Simpson's rule along a fine path; for Hutchinson the mean over many probes."""
    field, x = net(2, device=device), torch.randn(1, 2, dtype=F64, device=device)
    times = torch.linspace(0, 1, 201, dtype=F64, device=device)
    path = solve(field, x, 0.0, 1.0, 200, path=True)
    weights = torch.ones_like(times)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    weights /= 600
    kinetic = sum(
        w * field(t, p).square().sum() for w, t, p in zip(weights, times, path, strict=True)
    )
    J = [
        jacobians(lambda x, t=t: field(t, x), p).square().sum()
        for t, p in zip(times, path, strict=True)
    ]
    jacobian = sum(w * j for w, j in zip(weights, J, strict=True))
    n = 1 if trace == "exact" else 4000
    flow = RegularisedFlow(Continuous(field, trace=trace, **TIGHT), 2, kinetic=3.0, jacobian=0.5)
    if trace == "hutchinson":
        flow.transform.how = flow.transform.how._replace(rtol=1e-6, atol=1e-6)
    assert flow.costs == (0.0, 0.0)  # nothing paid yet
    torch.manual_seed(7)
    with torch.no_grad():
        loss = flow(x.expand(n, 2))
        moved = flow.transform.move(x.expand(n, 2), 0.0, 1.0, costs=True)
    assert moved.kinetic[0].item() == pytest.approx(kinetic.item(), rel=1e-6)
    error = 1e-6 * jacobian if n == 1 else 4 * moved.jacobian.std() / n**0.5
    assert abs(moved.jacobian.mean() - jacobian) < error
    assert flow.costs[0] == pytest.approx(kinetic.item(), rel=1e-6)
    if trace == "exact":
        flow(x.expand(3, 2))  # means: three times the same point costs what it costs once
        assert flow.costs == pytest.approx((kinetic.item(), jacobian.item()), rel=1e-6)
    nats = -Flow(flow.transform, 2).log_prob(x.expand(n, 2)).mean()
    if trace == "exact":
        want = nats + 3 * kinetic + 0.5 * jacobian
        torch.testing.assert_close(loss[0], want, rtol=1e-6, atol=1e-6)
        flow.eval()
        torch.testing.assert_close(flow(x)[0], nats)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_regularisers_can_be_trained_and_lower_the_energy(trace, device):
    torch.manual_seed(3)
    energy = {}
    for weight in (0.0, 1.0):
        f = Compose(
            Affine(2),
            Continuous(
                net(2, device=device, dtype=torch.float32), trace=trace, rtol=1e-3, atol=1e-3
            ),
        )
        flow = RegularisedFlow(f.to(device), 2, kinetic=weight, jacobian=weight)
        opt = torch.optim.Adam(flow.parameters(), lr=1e-2)
        for _ in range(25):
            opt.zero_grad()
            flow(torch.randn(64, 2, device=device)).mean().backward()
            opt.step()
        energy[weight] = flow.costs
        assert copy.deepcopy(flow).parts()[0] is not flow.parts()[0]
    assert energy[1.0][0] < 0.8 * energy[0.0][0] and energy[1.0][1] < 0.8 * energy[0.0][1]


def test_copies_and_state_dicts(device):
    f = Continuous(net(2, device=device))
    x = torch.randn(5, 2, dtype=F64, device=device)
    want = f.to_base(x)
    torch.testing.assert_close(copy.deepcopy(f).to_base(x), want)
    fresh = Continuous(FieldNet(2, 12, 3).to(device, F64))
    fresh.load_state_dict(f.state_dict())
    torch.testing.assert_close(fresh.to_base(x), want)
    torch.testing.assert_close(Inverse(f).from_base(x), want)
    got = Compose(f, Affine(2).to(device, F64)).to_base(x)
    torch.testing.assert_close(got, want)


def test_paths(device):
    f, x = Continuous(net(2, device=device), **TIGHT), torch.randn(5, 2, dtype=F64, device=device)
    path = f.path(x, [0.0, 0.3, 1.0])
    assert path.shape == (3, 5, 2) and not path.requires_grad
    torch.testing.assert_close(path[-1], f.to_base(x)[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(path[1], f.move(x, 0.0, 0.3).x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(f.path(path[-1], [1.0, 0.0])[-1], x, rtol=1e-6, atol=1e-6)


# contexts and mistakes


def test_context(device):
    field = net(2, context=3, device=device)
    flow = Flow(Continuous(field), 2)
    x, c = (torch.randn(4, n, dtype=F64, device=device) for n in (2, 3))
    assert flow.takes_context and not torch.allclose(flow.log_prob(x, c), flow.log_prob(x, 2 * c))
    assert flow.sample(4, c).shape == (4, 2) and field.context is None
    order = torch.tensor([2, 0, 3, 1], device=device)
    torch.testing.assert_close(
        flow.log_prob(x[order], c[order]), flow.log_prob(x, c)[order], rtol=1e-6, atol=1e-6
    )
    own = field.with_context(c)
    first = field.layers[0](x) + 0.3 * field.speeds[0] + field.from_context(c)
    torch.testing.assert_close(own.activations(torch.tensor(0.3, dtype=F64), x)[1], first.tanh())
    with pytest.raises(ValueError, match="needs a context"):
        flow.log_prob(x)
    with pytest.raises(ValueError, match="with_context"):
        field(torch.tensor(0.0), x)
    with pytest.raises(ValueError, match="takes no context"):
        Flow(Continuous(net(2, device=device)), 2).log_prob(x, c)
    with pytest.raises(ValueError, match="takes no context"):
        net(2, device=device).with_context(c)


@pytest.mark.parametrize("solver", ["dopri5", "torchdiffeq", "rk4"])
def test_a_field_that_is_not_finite(solver, device):
    class Bad(nn.Module):
        def forward(self, t, x):
            return x / (t - 0.5).clamp(min=0) * (t > 0.4)

    x = torch.randn(4, 2, dtype=F64, device=device)
    with pytest.raises(SolverError, match="not finite|became"):
        Continuous(Bad(), solver=solver).to_base(x)


@pytest.mark.parametrize("solver", ["dopri5", "torchdiffeq", "rk4"])
def test_a_path_that_overflows(solver, device):
    class Far(nn.Module):
        def forward(self, t, x):
            return torch.full_like(x, 2.5e307)

    x = torch.full((4, 2), 1.7e308, dtype=F64, device=device)
    with pytest.raises(SolverError, match="not finite|non-finite"):
        Continuous(Far(), solver=solver).to_base(x)


def test_mistakes(device):
    field = net(2, device=device)
    f = Continuous(field)
    for how in (dict(trace="exakt"), dict(probe="uniform"), dict(solver="rk5"), dict(probes=0)):
        with pytest.raises(ValueError):
            Continuous(field, **how)
    with pytest.raises(TypeError):
        Continuous(field, tolerance=1e-3)
    with pytest.raises(ValueError, match="at least two hidden layers"):
        FieldNet(2, depth=1)
    with pytest.raises(ValueError, match="needs a Continuous part"):
        RegularisedFlow(Affine(2), 2)
    with pytest.raises(ValueError, match=r"expected shape \(B, 2\)"):
        f.to_base(torch.zeros(3, 3, dtype=F64, device=device))
    with pytest.raises(TypeError, match="float64 parameters"):
        f.to_base(torch.zeros(3, 2, device=device))
    with pytest.raises(ValueError, match="probe is one of"):
        draw_probes(torch.zeros(2, 2), "uniform")


def test_nobody_moves_nowhere(device):
    """An empty batch has its shape at the end, and no divergence."""
    moved = Continuous(FieldNet(3, 8)).to(device).move(torch.empty(0, 3, device=device), 0.0, 1.0)
    assert moved.x.shape == (0, 3) and moved.divergence.shape == (0,) and moved.evaluations == 0


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("model", [Flow, RegularisedFlow])
def test_nobody_is_trained_on_without_a_word(model, adjoint, device):
    """Gradients of 0, as from any other flow: the last batch of a share may be empty."""
    flow = model(Continuous(net(2, context=1, device=device), adjoint=adjoint), 2)
    x, c = (torch.zeros(0, n, dtype=F64, device=device, requires_grad=True) for n in (2, 1))
    flow(x, c).sum().backward()
    for p in (x, c, *flow.parameters()):
        assert torch.equal(p.grad, torch.zeros_like(p))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_divergence_of_nobody(depth, device):
    x = torch.ones(0, 2, dtype=F64, device=device)
    v, div = net(2, depth, device=device).with_divergence(torch.zeros((), dtype=F64), x)
    assert v.shape == (0, 2) and div.shape == (0,)


@pytest.mark.parametrize("solver", ["dopri5", "rk4", "torchdiffeq"])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_a_frozen_flow_has_forgotten_nothing(trace, solver, device):
    """The estimate takes its derivatives at a leaf of its own where x needs none."""
    flow = Continuous(net(3, device=device), trace=trace, adjoint=True, solver=solver)
    flow.requires_grad_(False)
    x = torch.ones(2, 3, dtype=F64, device=device)
    torch.manual_seed(0)
    got = flow.to_base(x)
    torch.manual_seed(0)
    with torch.no_grad():
        torch.testing.assert_close(got, flow.to_base(x), rtol=1e-4, atol=1e-4)


def test_an_inverted_flow_pays_too(device):
    """Time runs from 1 to 0 there, and the way back costs what the way there does."""
    flow = Continuous(net(2, device=device), **TIGHT)
    x = torch.randn(5, 2, dtype=F64, device=device)
    there = flow.move(x, 0.0, 1.0, costs=True)
    regularised = RegularisedFlow(Inverse(flow), 2, kinetic=1.0, jacobian=1.0)
    regularised(there.x)
    want = there.kinetic.mean().item(), there.jacobian.mean().item()
    assert regularised.costs == pytest.approx(want, rel=1e-6)


def test_hutchinson_in_inference_mode(device):
    """Autograd records nothing there, and a field would look like a constant."""
    if device.type not in ("cpu", "cuda"):
        pytest.skip("a backend in Python has no inference mode")
    torch.manual_seed(0)
    flow = Flow(Continuous(net(2, device=device), trace="hutchinson", solver="rk4", steps=8), 2)
    x = torch.randn(4, 2, dtype=F64, device=device)
    found = []
    for mode in (torch.no_grad, torch.inference_mode):
        torch.manual_seed(1)
        with mode():
            found.append(flow.log_prob(x))
    torch.testing.assert_close(*found)
    e = draw_probes(x)
    with torch.inference_mode():
        got = hutchinson(lambda t, x: x.sin(), torch.zeros((), dtype=F64, device=device), x, e)[1]
    torch.testing.assert_close(got, x.cos().sum(1))


def test_only_the_last_layer_of_a_field_starts_smaller():
    """Its weight, its bias and the bias's speed, a quarter of what the same random numbers give."""
    fields = []
    for last in (1.0, 0.25):
        torch.manual_seed(0)
        fields.append(FieldNet(2, width=4, depth=3, last=last))
    scaled = {"layers.3.weight", "layers.3.bias", "speeds.3"}
    for name, p in fields[0].named_parameters():
        want = 0.25 * p if name in scaled else p
        assert torch.equal(fields[1].get_parameter(name), want), name


def test_a_learnt_context_does_not_join_the_field(device):
    """A Parameter set as an attribute would become one of the field's, in its state_dict too."""
    field = FieldNet(2, width=4, context=3).to(device)
    flow = Flow(Continuous(field, solver="rk4", steps=2), 2)
    names, learnt = set(flow.state_dict()), nn.Parameter(torch.randn(5, 3, device=device))
    x = torch.randn(5, 2, device=device)
    flow.log_prob(x, learnt).sum().backward()
    assert set(flow.state_dict()) == names and learnt.grad.abs().sum() > 0
    assert flow.log_prob(x, learnt.detach()).isfinite().all()


class Stubborn(FieldNet):
    def with_divergence(self, t, x):
        raise AssertionError("a sample needs no divergence")


def test_a_sample_follows_the_path_alone(device, monkeypatch):
    field = Stubborn(3, 16, 3)
    field.load_state_dict(net(3, width=16).state_dict())
    part = Continuous(field.to(device, F64), rtol=1e-7, atol=1e-7)
    z = torch.randn(50, 3, dtype=F64).to(device)
    flow = Flow(Compose(Affine(3).to(device, F64), part), 3)
    x, alone = flow.sample(50, noise=z), part.evaluations
    with pytest.raises(AssertionError, match="no divergence"):
        flow.sample_with_log_prob(50, noise=z)
    monkeypatch.delattr(Stubborn, "with_divergence")  # then FieldNet's own
    torch.testing.assert_close(x, flow.sample_with_log_prob(50, noise=z)[0], rtol=0, atol=1e-5)
    assert alone < part.evaluations
    assert part.x_from_base(z[:0]).shape == (0, 3) and part.evaluations == 0


@pytest.mark.parametrize("how", [dict(solver="euler", steps=4), dict(solver="dopri5")])
def test_an_estimate_counts_every_evaluation_of_a_solve_without_a_graph(how, device):
    """The adjoint's forward pass runs without gradients, on views of an x that needs one."""

    class Shrink(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.ones((), device=device))

        def forward(self, t, x):
            return -self.rate * x

    x = torch.ones(1, 2, device=device, requires_grad=True)
    runs = [Continuous(Shrink(), trace="hutchinson", adjoint=a, **how) for a in (False, True)]
    for run in runs:
        assert run.to_base(x)[1].item() == pytest.approx(-2, abs=1e-6)
    assert runs[0].evaluations == runs[1].evaluations
