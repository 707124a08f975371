"""Gradients through an ODE: adjoint, checkpoints and backpropagation agree, and with the truth."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from lib.ode import odeint, odeint_adjoint, odeint_checkpointed, solve, solve_adaptive

METHODS = {"adjoint": odeint_adjoint, "checkpointed": odeint_checkpointed}
both = pytest.mark.parametrize("method", METHODS)


class Field(nn.Module):
    """A loud little network of (t, x)."""

    def __init__(self, dim=3, width=12):
        super().__init__()
        self.a, self.b = nn.Linear(dim + 1, width), nn.Linear(width, dim)

    def forward(self, t, x):
        return 2 * self.b(torch.tanh(1.7 * self.a(torch.cat([x, t.expand(len(x), 1)], 1))))


@pytest.fixture
def problem(device):
    torch.manual_seed(3)
    field = Field().to(device, torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64, device=device, requires_grad=True)
    return field, x, torch.randn(4, 3, dtype=torch.float64, device=device)


def gradients(run, field, x, weights):
    y = run()
    return torch.autograd.grad((weights * y).sum().sin(), [x, *field.parameters()])


def error(got, want):
    flat = lambda parts: torch.cat([p.flatten() for p in parts])
    return ((flat(got) - flat(want)).norm() / flat(want).norm()).item()


@both
@pytest.mark.parametrize("t0, t1", [(0.1, 1.3), (1.3, 0.1)])
@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-9])
def test_gradient_error_follows_the_tolerance(problem, method, t0, t1, tol):
    field, x, w = problem
    truth = gradients(lambda: solve(field, x, t0, t1, 800), field, x, w)
    run = METHODS[method]
    got = gradients(lambda: run(field, x, t0, t1, rtol=tol, atol=tol), field, x, w)
    assert error(got, truth) < 60 * tol


def test_idle_parameters_do_not_loosen_the_tolerance(problem):
    """A million entries whose gradient is zero: the mean over all would be a thousandth of x's."""
    field, x, w = problem
    idle, tol = torch.zeros(10**6, dtype=x.dtype, device=x.device, requires_grad=True), 1e-6
    truth = gradients(lambda: solve(field, x, 0.1, 1.3, 800), field, x, w)
    beside = lambda: odeint_adjoint(
        field, x, 0.1, 1.3, [*field.parameters(), idle], rtol=tol, atol=tol
    )
    assert error(gradients(beside, field, x, w), truth) < 60 * tol


@pytest.mark.parametrize("steps", [7, None])
def test_checkpoints_equal_backpropagation(problem, steps):
    field, x, w = problem
    if steps:
        through = lambda: solve(field, x, 0.1, 1.3, steps)
    else:
        through = lambda: solve_adaptive(field, x, 0.1, 1.3, 1e-3, 1e-3).x
    stored = lambda: odeint_checkpointed(field, x, 0.1, 1.3, steps=steps, rtol=1e-3, atol=1e-3)
    got, want = gradients(stored, field, x, w), gradients(through, field, x, w)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@both
def test_against_finite_differences(problem, method):
    field, x, w = problem
    run = METHODS[method]
    value = lambda: (w * run(field, x, 0.1, 1.3, steps=60)).sum()
    leaves = [x, *field.parameters()]
    ways = [torch.randn_like(p) for p in leaves]
    got = sum(
        (g * d).sum() for g, d in zip(torch.autograd.grad(value(), leaves), ways, strict=True)
    )

    def moved(h):
        with torch.no_grad():
            for p, d in zip(leaves, ways, strict=True):
                p += h * d
            result = value().item()
            for p, d in zip(leaves, ways, strict=True):
                p -= h * d
        return result

    h = 1e-5
    torch.testing.assert_close(got.item(), (moved(h) - moved(-h)) / (2 * h), rtol=1e-6, atol=1e-8)


@both
def test_linear_field_has_its_adjoint_in_closed_form(method, device):
    """dx/dt = theta x: x(t1) = exp(theta) x, d/dtheta = exp(theta) x, d/dx = exp(theta)."""
    theta = torch.tensor(-0.8, dtype=torch.float64, device=device, requires_grad=True)
    x = torch.tensor([[1.7]], dtype=torch.float64, device=device, requires_grad=True)
    y = METHODS[method](lambda t, x: theta * x, x, 0.0, 1.0, [theta], rtol=1e-10, atol=1e-10)
    dx, dtheta = torch.autograd.grad(y.sum(), (x, theta))
    assert dx.item() == pytest.approx(math.exp(-0.8), rel=1e-8)
    assert dtheta.item() == pytest.approx(1.7 * math.exp(-0.8), rel=1e-8)


@both
def test_captured_tensors_are_never_lost_in_silence(problem, method):
    field, x, _ = problem
    context = torch.randn_like(x).requires_grad_()
    shifted = lambda t, x: field(t, x) + context
    run = METHODS[method]
    with pytest.raises(ValueError, match=r"tensor of shape \(4, 3\).*not in params"):
        run(shifted, x, 0.0, 1.0, list(field.parameters()), steps=4).sum().backward()
    with pytest.raises(ValueError, match="not in params"):
        run(shifted, x, 0.0, 1.0, list(field.parameters()), steps=1).sum().backward()
    with pytest.raises(ValueError, match="params="):
        run(shifted, x, 0.0, 1.0, steps=4)
    got = run(shifted, x, 0.0, 1.0, [*field.parameters(), context], steps=50)
    want = solve(shifted, x, 0.0, 1.0, 50)
    for y in (got, want):
        y.sum().backward()
    given = context.grad.clone() / 2
    context.grad = None
    want = solve(shifted, x, 0.0, 1.0, 50).sum()
    torch.testing.assert_close(given, torch.autograd.grad(want, context)[0], rtol=1e-5, atol=1e-6)


@both
def test_a_computed_context_gets_its_gradient(problem, method):
    field, x, _ = problem
    encoder = nn.Linear(3, 3).to(x)
    context = encoder(torch.randn_like(x))
    shifted = lambda t, x: field(t, x) + context
    y = METHODS[method](shifted, x, 0.0, 1.0, [*field.parameters(), context], steps=40)
    (got,) = torch.autograd.grad(y.sum(), encoder.weight, retain_graph=True)
    (want,) = torch.autograd.grad(solve(shifted, x, 0.0, 1.0, 40).sum(), encoder.weight)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert want.abs().max() > 0.1


@both
def test_field_that_ignores_state_or_parameters(method):
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    unused = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = METHODS[method](
        lambda t, x: torch.cos(t) * torch.ones_like(x), x, 0.0, 1.0, [unused], steps=5
    )
    dx, du = torch.autograd.grad(y.sum(), (x, unused))
    assert torch.equal(dx, torch.ones_like(x)) and torch.equal(du, torch.zeros_like(unused))


def test_reconstruction_fails_where_the_field_contracts():
    """Backward, what contracted grows: rounding errors in it, times e^40, spoil what depends on it."""
    k = torch.tensor(40.0, dtype=torch.float64, requires_grad=True)

    def field(t, state):  # the first coordinate forgets its start, the second one listens to it
        x, y = state.unbind(-1)
        return torch.stack([-k * (x - torch.cos(t)), torch.sin(3 * x) * y], -1)

    start = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    grad = lambda y: torch.autograd.grad(y[:, 1].sum(), k)[0].item()
    truth = grad(solve(field, start, 0.0, 1.0, 2000))
    stored = grad(odeint_checkpointed(field, start, 0.0, 1.0, [k], rtol=1e-8, atol=1e-8))
    assert stored == pytest.approx(truth, rel=1e-4)
    rebuilt = grad(odeint_adjoint(field, start, 0.0, 1.0, [k], steps=400))
    stored = grad(odeint_checkpointed(field, start, 0.0, 1.0, [k], steps=400))
    assert stored == pytest.approx(truth, rel=1e-4)
    assert abs(rebuilt - truth) > 0.1 * abs(truth), (rebuilt, truth)


def test_memory_is_flat():
    """What stays alive between forward and backward: a graph for each step, or nothing of them."""
    torch.manual_seed(0)
    field, x = Field(3, 256), torch.randn(64, 3)

    def kept(run):
        stored = 0

        def pack(t):
            nonlocal stored
            stored += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            run()
        return stored

    for run, grows in (
        (lambda n: solve(field, x, 0.0, 1.0, n), True),
        (lambda n: odeint_adjoint(field, x, 0.0, 1.0, steps=n), False),
    ):
        few, many = kept(lambda run=run: run(5)), kept(lambda run=run: run(40))
        assert (many > 7 * few) if grows else (many == few)


def test_bridge_agrees(problem):
    field, x, w = problem
    ours = gradients(lambda: odeint_adjoint(field, x, 0.1, 1.3, rtol=1e-9, atol=1e-9), field, x, w)
    theirs = gradients(
        lambda: odeint(field, x, 0.1, 1.3, adjoint=True, rtol=1e-9, atol=1e-9), field, x, w
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@both
def test_saved_tensors_may_be_moved_away(problem, method):
    """torch's own way to spend less memory, storing what is saved elsewhere, changes nothing."""
    field, x, w = problem
    run = METHODS[method]
    plain = gradients(lambda: run(field, x, 0.1, 1.3, steps=6), field, x, w)
    with torch.autograd.graph.save_on_cpu():
        moved = gradients(lambda: run(field, x, 0.1, 1.3, steps=6), field, x, w)
    torch.testing.assert_close(moved, plain, rtol=0, atol=0)
    assert all(g.abs().max() > 0 for g in moved)


@both
@pytest.mark.parametrize("end", [1.0, 0.3])
def test_a_forgotten_tensor_is_named_in_float32_too(method, end, device):
    """0.3 is no float32: the backward solve's first time is not the end to the bit."""
    a, b = (torch.tensor(0.5, device=device, requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="not in params"):
        end = METHODS[method](lambda t, x: a * b * x, torch.ones(2, device=device), 0.0, end, [a])
        end.sum().backward()


@both
def test_one_output_of_a_chunk_does_not_speak_for_the_other(method, device):
    both = torch.tensor([0.5, 0.7], device=device, requires_grad=True)
    a, b = (2 * both).chunk(2)
    x = torch.ones(2, device=device)
    with pytest.raises(ValueError, match="not in params"):
        METHODS[method](lambda t, x: a * b * x, x, 0.0, 1.0, [a]).sum().backward()
    METHODS[method](lambda t, x: a * b * x, x, 0.0, 1.0, [a, b]).sum().backward()
    by_first, by_second = (both.grad * both.detach()).tolist()  # the end depends on a b alone
    assert by_first == pytest.approx(by_second, rel=1e-4)


@both
def test_a_tensor_named_twice_counts_once(method, device):
    a = torch.tensor(0.5, device=device, requires_grad=True)
    METHODS[method](lambda t, x: a * x, torch.ones(1, device=device), 0.0, 1.0, [a, a]).backward()
    assert a.grad.item() == pytest.approx(math.exp(0.5), rel=1e-4)


@both
def test_a_tensor_changed_before_its_backward_is_named(method, device):
    p = torch.tensor(1.0, device=device, requires_grad=True)
    end = METHODS[method](
        lambda t, x: torch.sin(p * x), torch.ones(1, device=device), 0.0, 1.0, [p]
    )
    with torch.no_grad():
        p.add_(1.0)
    with pytest.raises(RuntimeError, match="changed in place between the solve and its backward"):
        end.backward()


class Halves(nn.Module):
    """Keeps the dtype of its state; `seen` is the dtype that its matrix product had."""

    def __init__(self):
        super().__init__()
        self.a, self.seen = nn.Linear(3, 3), set()

    def forward(self, t, x):
        v = self.a(x)
        self.seen.add(v.dtype)
        return torch.tanh(3 * v).to(x.dtype)


def under(device, on):
    return torch.autocast(device.type, torch.bfloat16, enabled=on)


def bridged(field, x, t0, t1, steps, **how):
    fixed = dict(method="rk4", options={"step_size": abs(t1 - t0) / steps}) if steps else {}
    return odeint(field, x, t0, t1, adjoint=True, **fixed, **how)


@pytest.mark.parametrize("run", [*METHODS.values(), bridged])
@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("steps", [4, None])
def test_the_backward_pass_has_the_autocast_of_the_solve(run, on, steps, device):
    field, x = Halves().to(device), torch.randn(4, 3, device=device)
    with under(device, on):
        end = run(field, x, 0.0, 1.0, steps=steps, rtol=0.1, atol=0.1)
    with under(device, not on):
        end.sum().backward()
    assert field.seen == {torch.bfloat16 if on else torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpoints_equal_backpropagation_under_autocast(dtype, device):
    field, x = Halves().to(device), torch.randn(4, 3, device=device, dtype=dtype)
    x.requires_grad_()

    def grads(run):
        with under(device, True):
            end = run(field, x, 0.0, 1.0, steps=6)
        return torch.autograd.grad(end.float().square().sum(), (x, *field.parameters()))

    through = lambda field, x, t0, t1, steps: solve(field, x, t0, t1, steps)
    got, want = grads(odeint_checkpointed), grads(through)
    torch.testing.assert_close(got[0], want[0], rtol=1e-6, atol=1e-6)
    # the solver adds up the weights' gradients in bfloat16, their one cast's dtype
    torch.testing.assert_close(got[1:], want[1:], rtol=0.03, atol=0.03)


@both
def test_a_parameter_wider_than_the_state(method, device):
    x = torch.randn(4, 2, device=device, requires_grad=True)
    w = torch.randn(2, 2, dtype=torch.float64, device=device, requires_grad=True)
    net = nn.Linear(2, 2).to(device)
    field = lambda t, x: net(torch.sin(t) * x @ w.float())
    params = [w, *net.parameters()]
    grads = lambda end: torch.autograd.grad(end.square().sum(), (x, *params))
    got = grads(METHODS[method](field, x, 0.0, 1.0, params, steps=30))
    want = grads(solve(field, x, 0.0, 1.0, 30))
    for mine, its, p in zip(got, want, (x, *params), strict=True):
        assert mine.dtype == p.dtype
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)


@both
@pytest.mark.parametrize("late", [True, False])
def test_a_tensor_that_part_of_the_solve_uses_is_not_forgotten_in_silence(method, late, device):
    a, b = (torch.tensor(0.5, device=device, requires_grad=True) for _ in range(2))
    field = lambda t, x: b * x if (t > 0.5) == late else a * x
    with pytest.raises(ValueError, match="not in params"):
        METHODS[method](field, torch.ones(2, device=device), 0.0, 1.0, [a]).sum().backward()


@pytest.mark.parametrize("run", [*METHODS.values(), partial(odeint, adjoint=True)])
def test_a_forgotten_tensor_is_found_where_nothing_else_needs_a_gradient(problem, run):
    """A frozen field and a captured context: there is no backward pass that could say it."""
    field, x, _ = problem
    field, x, context = field.requires_grad_(False), x.detach(), torch.ones_like(x).requires_grad_()
    shifted = lambda t, x: field(t, x) + context
    with pytest.raises(ValueError, match="not in params"):
        run(shifted, x, 0.0, 1.0, params=[])
    with torch.no_grad():
        assert run(shifted, x, 0.0, 1.0, params=[]).isfinite().all()
    (got,) = torch.autograd.grad(run(shifted, x, 0.0, 1.0, params=[context]).sum(), context)
    assert got.abs().max() > 0.1


@pytest.mark.parametrize("run", [*METHODS.values(), partial(odeint, adjoint=True)])
@pytest.mark.parametrize("needed", [True, False])
def test_a_forgotten_tensor_that_the_field_returns_itself_is_found(run, needed, device):
    """It is a leaf: no graph leads to it."""
    w = torch.ones(2, device=device, requires_grad=True)
    x = torch.zeros(2, device=device, requires_grad=needed)
    field = lambda t, x: w
    with pytest.raises(ValueError, match=r"tensor of shape \(2,\).*not in params"):
        run(field, x, 0.0, 1.0, params=[]).sum().backward()
    run(field, x, 0.0, 1.0, params=[w]).sum().backward()
    torch.testing.assert_close(w.grad, torch.ones_like(w))
    if needed:
        x.grad = None
        run(lambda t, x: x, x, 0.0, 1.0, params=[]).sum().backward()  # the state is no leaf lost
        torch.testing.assert_close(x.grad, torch.full_like(x, math.e), rtol=1e-4, atol=0)
