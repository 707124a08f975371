"""The bridge to torchdiffeq: exact end, all gradients, counted evaluations, errors that say where."""

import math

import pytest
import torch
from torch import nn

from lib.ode import Counted, SolverError, odeint, solve


class Field(nn.Module):
    def __init__(self, dim=2):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, 9), nn.Tanh(), nn.Linear(9, dim))

    def forward(self, t, x):
        return 2 * self.net(x) + torch.sin(3 * t)


@pytest.fixture
def problem(device):
    torch.manual_seed(1)
    return Field().to(device, torch.float64), torch.randn(5, 2, dtype=torch.float64, device=device)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0), (-0.7, 1.9)])
def test_value_and_gradients(problem, adjoint, t0, t1):
    field, x = problem
    x.requires_grad_()
    got = odeint(field, x, t0, t1, adjoint=adjoint, rtol=1e-8, atol=1e-8)
    want = solve(field, x, t0, t1, 400)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    leaves = [x, *field.parameters()]
    for a, b in zip(
        *(torch.autograd.grad(y.cos().sum(), leaves) for y in (got, want)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
def test_never_past_the_end(t0, t1):
    """A field that exists on [0, 1] only, as the probability flow's does."""
    seen = []

    def field(t, x):
        seen.append(t.item())
        return torch.sqrt(t * (1 - t)) + 0 * x

    got = odeint(field, torch.zeros(2, 1, dtype=torch.float64), t0, t1, rtol=1e-7, atol=1e-7)
    assert 0 <= min(seen) and max(seen) <= 1
    torch.testing.assert_close(got[0, 0].item(), (t1 - t0) * math.pi / 8, rtol=1e-4, atol=1e-6)


def test_tuples_and_counting(problem):
    field, x = problem
    counted = Counted(lambda t, s: (field(t, s[0]), s[0].sum(1)))
    y, total = odeint(counted, (x, x.new_zeros(5)), 0.0, 1.0)
    assert y.shape == (5, 2) and total.shape == (5,) and counted.evaluations > 10
    first = counted.evaluations
    odeint(
        counted.reset(), (x, x.new_zeros(5)), 0.0, 1.0, method="rk4", options={"step_size": 0.25}
    )
    assert counted.evaluations == 16 != first


def test_fixed_steps_are_fixed(problem):
    field, x = problem
    got = odeint(field, x, 0.0, 1.0, method="euler", options={"step_size": 0.1})
    torch.testing.assert_close(got, solve(field, x, 0.0, 1.0, 10, "euler"), rtol=1e-10, atol=1e-10)


def test_captured_tensors(problem):
    field, x = problem
    context = torch.randn(5, 2, dtype=torch.float64, device=x.device, requires_grad=True)
    shifted = lambda t, x: field(t, x) + context
    with pytest.raises(ValueError, match="not in params"):
        odeint(shifted, x, 0.0, 1.0, params=[*field.parameters()], adjoint=True).sum().backward()
    with pytest.raises(ValueError, match="params="):
        odeint(shifted, x, 0.0, 1.0, adjoint=True)
    grads = []
    for settings in ({"adjoint": True, "params": [*field.parameters(), context]}, {}):
        y = odeint(shifted, x, 0.0, 1.0, rtol=1e-9, atol=1e-9, **settings)
        grads.append(torch.autograd.grad(y.sum(), context)[0])
    torch.testing.assert_close(*grads, rtol=1e-6, atol=1e-7)
    assert grads[1].abs().min() > 1e-3


@pytest.mark.parametrize("late", [True, False])
def test_a_tensor_that_part_of_the_solve_uses_is_not_forgotten_in_silence(late, device):
    a, b = (torch.tensor(0.5, device=device, requires_grad=True) for _ in range(2))
    field, x = (lambda t, x: b * x if (t > 0.5) == late else a * x), torch.ones(2, device=device)
    with pytest.raises(ValueError, match="not in params"):
        odeint(field, x, 0.0, 1.0, params=[a], adjoint=True).sum().backward()


@pytest.mark.parametrize("t0, t1", [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("own", [[0.3], torch.tensor([0.75, 0.3, 1.0]), 0.3, None])
def test_times_of_the_callers_own_leave_the_ends_exact(own, t0, t1, device):
    """The solve and the adjoint's end where they should, and step on the caller's times."""
    a, seen = torch.tensor(0.5, device=device, requires_grad=True), []

    def field(t, x):
        seen.append(t.item())
        return a * torch.cos(t) + 0 * x

    x = torch.zeros(1, dtype=torch.float64, device=device)
    end = odeint(field, x, t0, t1, params=[a], adjoint=True, options={"step_t": own})
    there = seen.copy()
    seen.clear()
    end.sum().backward()
    for times in (there, seen):
        assert 0 <= min(times) and max(times) <= 1
        for asked in [] if own is None else torch.as_tensor(own).flatten().tolist():
            assert asked == pytest.approx(min(times, key=lambda t: abs(t - asked)), abs=1e-7)
    assert a.grad.item() == pytest.approx(math.sin(t1) - math.sin(t0), rel=1e-4)


BAD = {
    "nan": (lambda t, x: x * math.nan, "not finite at t = 0, where the state has norm 2"),
    "later": (lambda t, x: torch.where(t > 0.5, math.nan, 1.0) * x, r"t = 0\.[5-9]"),
    "blow-up": (lambda t, x: 4 * x**2, "norm"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("how", ["adaptive", "fixed", "adjoint"])
def test_not_finite(name, how):
    field, message = BAD[name]
    settings = {
        "adaptive": {},
        "fixed": {"method": "rk4", "options": {"step_size": 0.1}},
        "adjoint": {"adjoint": True, "params": []},
    }[how]
    x = torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(SolverError, match=message):
        odeint(field, x, 0.0, 2.0, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tol", [1e-2, 1e-6])
def test_tolerances_and_precisions(dtype, tol, device):
    x = torch.rand(3, 2, dtype=dtype, device=device)
    y = odeint(lambda t, x: -x, x, 0.0, 1.0, rtol=tol, atol=tol)
    assert y.dtype == dtype
    torch.testing.assert_close(y, x * math.exp(-1), rtol=3 * tol, atol=3 * tol)


def test_what_went_wrong_is_what_was_asked_for():
    """The caller's method and options, and the caller's own assertions."""
    fast = lambda t, x: -1e4 * x
    with pytest.raises(SolverError, match="not finite at t = 0"):
        odeint(fast, torch.ones(1), 0.0, 1.0, method="euler", options={"step_size": 0.01})
    slow = lambda t, x: torch.sin(30 * t) * x
    with pytest.raises(SolverError, match=r"max_num_steps exceeded \(3"):
        odeint(slow, torch.ones(1), 0.0, 1.0, options={"max_num_steps": 3})

    def own(t, x):
        assert x.shape == (7,), "my own check"
        return x

    with pytest.raises(AssertionError, match="my own check"):
        odeint(own, torch.ones(1), 0.0, 1.0)


def test_a_gradient_to_time_is_not_asked_for():
    """sqrt(t) has none at t = 0, where the solve ends; the gradient to the parameter exists."""
    rate = torch.ones((), dtype=torch.float64, requires_grad=True)
    field = lambda t, x: rate * x * t.sqrt()
    x = torch.ones(2, dtype=torch.float64)
    odeint(field, x, 1.0, 0.0, adjoint=True, params=[rate]).sum().backward()
    assert rate.grad.item() == pytest.approx(2 * -2 / 3 * math.exp(-2 / 3), rel=1e-4)
