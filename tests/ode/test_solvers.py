"""Solvers against fields whose solution is known, in both directions of time."""

import math
from functools import partial

import pytest
import torch

from lib.ode import (
    ORDER,
    STEPS,
    SolverError,
    odeint_adjoint,
    odeint_checkpointed,
    solve,
    solve_adaptive,
)
from lib.ode.solvers import error_ratio, initial_step, step_factor

# field, exact solution from x at t0 to t
PROBLEMS = {
    "constant": (lambda t, x: torch.full_like(x, 0.7), lambda x, s, t: x + 0.7 * (t - s)),
    "linear": (lambda t, x: -1.3 * x, lambda x, s, t: x * math.exp(-1.3 * (t - s))),
    "sine": (
        lambda t, x: torch.sin(t) - x,
        lambda x, s, t: (
            (x - (math.sin(s) - math.cos(s)) / 2) * math.exp(s - t)
            + (math.sin(t) - math.cos(t)) / 2
        ),
    ),
    "logistic": (lambda t, x: x * (1 - x),
                 lambda x, s, t: x * math.exp(t - s) / (1 + x * (math.exp(t - s) - 1))),
}  # fmt: skip
every = pytest.mark.parametrize("name", PROBLEMS)
directions = pytest.mark.parametrize("t0, t1", [(0.2, 1.7), (1.7, 0.2)])


def start(device, dtype=torch.float64):
    return torch.tensor([[0.3, 0.9], [0.5, 0.05]], dtype=dtype, device=device)


@every
@directions
@pytest.mark.parametrize("method", STEPS)
def test_order_of_convergence(name, t0, t1, method, device):
    field, exact = PROBLEMS[name]
    x = start(device)
    want = exact(x, t0, t1)
    errors = [(solve(field, x, t0, t1, n, method) - want).abs().max().item() for n in (40, 80)]
    if name == "constant":
        assert max(errors) < 1e-12
    else:
        slope = math.log2(errors[0] / errors[1])
        assert abs(slope - ORDER[method]) < 0.2, (method, slope)


@every
@directions
@pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-8, 1e-11])
def test_adaptive_keeps_its_tolerance_and_its_end(name, t0, t1, tol, device):
    field, exact = PROBLEMS[name]
    seen = []

    def watched(t, x):
        seen.append(t.item())
        return field(t, x)

    got = solve_adaptive(watched, start(device), t0, t1, tol, tol)
    assert (got.x - exact(start(device), t0, t1)).abs().max() < 20 * tol
    assert got.evaluations == len(seen) and got.times[0] == t0 and got.times[-1] == t1
    assert (
        min(t0, t1) - 1e-12 <= min(seen) and max(seen) <= max(t0, t1) + 1e-12
    )  # never past the end
    assert len(got.times) - 1 + got.rejected == (got.evaluations - 2) / 6


def test_dormand_prince_is_of_order_five():
    from lib.ode.solvers import dopri5_step

    f = lambda t, x: 3 * x * (1 - x)
    x = torch.tensor([0.3], dtype=torch.float64)
    exact = 0.3 * math.exp(6) / (1 + 0.3 * (math.exp(6) - 1))
    errors, estimates = [], []
    for n in (32, 64):
        y, h = x, 2.0 / n
        for k in range(n):
            y, error, _ = dopri5_step(f, k * h, y, h, f(k * h, y))
            estimates += [error.abs().item()] if k == 0 else []
        errors.append(abs(y.item() - exact))
    assert 4.9 < math.log2(errors[0] / errors[1]) < 5.2
    assert 4.7 < math.log2(estimates[0] / estimates[1]) < 5.3  # of one step of order 4: h^5


def test_stiff_field_costs_small_steps():
    field, x = (lambda t, x: -300 * (x - torch.cos(t))), torch.ones(1, dtype=torch.float64)
    stiff = solve_adaptive(field, x, 0.0, 1.0, 1e-4, 1e-4)
    mild = solve_adaptive(lambda t, x: -3 * (x - torch.cos(t)), x, 0.0, 1.0, 1e-4, 1e-4)
    assert stiff.evaluations > 10 * mild.evaluations  # stability, not accuracy, sets the step
    assert (stiff.x - math.cos(1) - math.sin(1) / 300).abs() < 1e-3
    with pytest.raises(SolverError, match="not finite at t ="):
        solve(field, 2 * x, 0.0, 100.0, steps=1000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_and_shape_are_kept(dtype, device):
    x = torch.rand(2, 3, 4, dtype=dtype, device=device)
    field = lambda t, x: -x * t
    path = solve(field, x, 0.0, 1.0, steps=8, path=True)
    assert path.shape == (9, 2, 3, 4) and path.dtype == dtype
    assert torch.equal(path[0], x) and torch.equal(path[-1], solve(field, x, 0.0, 1.0, steps=8))
    got = solve_adaptive(field, x, 0.0, 1.0).x
    torch.testing.assert_close(got, x * math.exp(-0.5), rtol=1e-4, atol=1e-5)
    assert got.dtype == dtype


@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_adaptive_in_half_precision(tol, device):
    """The square of 1 / 1e-5 is no float16, whose largest is 65504."""
    x = torch.rand(2, 3, dtype=torch.float16, device=device)
    got = solve_adaptive(lambda t, x: -x, x, 0.0, 1.0, tol, tol).x
    torch.testing.assert_close(got, x * math.exp(-1), rtol=1e-2, atol=1e-3)


def test_both_ways_undo_each_other(device):
    field = lambda t, x: torch.stack([x[:, 1], -x[:, 0] + torch.sin(t) * x[:, 1]], 1)
    x = torch.randn(5, 2, dtype=torch.float64, device=device)
    there = solve_adaptive(field, x, 0.0, 2.0, 1e-10, 1e-10).x
    back = solve_adaptive(field, there, 2.0, 0.0, 1e-10, 1e-10).x
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)
    assert (there - x).abs().max() > 0.1


BAD = {
    "nan": (lambda t, x: x * math.nan, r"at the start|at t = 0\.1"),
    "nan from a time on": (lambda t, x: torch.where(t > 0.5, math.nan, 1.0) * x, r"t = 0\.[56]"),
    "blow-up": (lambda t, x: 4 * x**2, "t = 0"),
    "overflow": (lambda t, x: torch.full_like(x, 2.5e307), r"not finite at t = (1\.|2)"),
    "inf at the start": (lambda t, x: torch.where(t < 0, x, 1.0), "not finite at t = 0"),
}
STARTS = {"overflow": 1.5e308, "inf at the start": math.inf}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("run", [solve, solve_adaptive, odeint_adjoint])
def test_not_finite_is_our_error_with_time_and_norm(name, run):
    field, where = BAD[name]
    x = torch.full((3, 2), STARTS.get(name, 1.0), dtype=torch.float64)
    with pytest.raises(SolverError, match=where) as error:
        run(field, x, 0.0, 2.0, **dict(params=[]) if run is odeint_adjoint else {})
    assert "norm" in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("first_step", [None, 0.1])
def test_an_adaptive_solve_that_overflows_is_no_solution(dtype, first_step, device):
    """Beside an infinite state every error is within the relative tolerance."""
    top = torch.finfo(dtype).max
    run = lambda slope, x: solve_adaptive(
        lambda t, x: torch.full_like(x, slope * top),
        torch.full((2,), x * top, dtype=dtype, device=device),
        *(0.0, 1.0, 1e-2, 1e-2),
        first_step=first_step,
    )
    for x in (0.9, math.inf):
        with pytest.raises(SolverError, match="not finite at t ="):
            run(0.3, x)
    assert run(0.05, 0.9).x.isfinite().all()


def test_the_first_step_is_that_of_hairer():
    """Section II.4, where the change of the slope, divided by the trial step, decides."""
    rtol, atol = 1e-3, 1e-5
    field = lambda t, x: torch.stack([4 * x[1] + t + 0.2, -3 * x[0] + 0.4])
    x = torch.tensor([2.0, -2.0], dtype=torch.float64)
    scale = atol + rtol * x.abs()
    size = lambda v: math.sqrt(((v / scale) ** 2).mean())
    k1 = field(0.0, x)
    d0, d1 = size(x), size(k1)
    h0 = 0.01 * d0 / d1
    d2 = size((field(h0, x + h0 * k1) - k1) / h0)
    want = (0.01 / d2) ** 0.2
    assert d2 > d1 and want < 100 * h0
    norm = partial(error_ratio, rtol=rtol, atol=atol)
    assert initial_step(field, 0.0, x, k1, 1.0, norm) == pytest.approx(want, rel=1e-9)


def test_a_state_of_parts_is_as_wrong_as_the_worst_of_them():
    """Two numbers that turn, beside a thousand that rest: the steps are those of the two alone."""
    turn = lambda t, x: torch.cat([9 * x[1:2], -9 * x[:1], 0 * x[2:]])
    x = torch.cat([torch.tensor([1.0, 0.0]), torch.zeros(1000)]).double()
    run = lambda x, parts=None: solve_adaptive(turn, x, 0.0, 1.0, 1e-6, 1e-6, parts=parts)
    alone, hidden, apart = run(x[:2]), run(x), run(x, [2, 0, 1000])
    assert apart.times == alone.times and torch.equal(apart.x[:2], alone.x)
    assert len(hidden.times) < 0.7 * len(alone.times)


def test_a_refused_step_never_grows():
    x = torch.ones(2)
    assert step_factor(1.0 + 1e-9, 0.0, 0.1, x) == pytest.approx(0.9)
    assert step_factor(32.0, 0.0, 0.1, x) == pytest.approx(0.45)
    assert step_factor(1e30, 0.0, 0.1, x) == 0.2 and step_factor(1e-30, 0.0, 0.1, x) == 10.0


@pytest.mark.parametrize("t1", [1e-17, -1e-17])
def test_a_span_shorter_than_any_step_is_one_step(t1):
    """What has arrived takes no next step that could be too small."""
    found = solve_adaptive(lambda t, x: x, torch.ones(1), 0.0, t1)
    assert found.x.item() == 1.0 and found.times == [0.0, t1]


@pytest.mark.parametrize("run", [solve, solve_adaptive, odeint_adjoint, odeint_checkpointed])
def test_a_slope_of_another_shape_is_refused(run):
    """(3,) beside (3, 1) would make nine numbers of three."""
    how = dict(params=[]) if run in (odeint_adjoint, odeint_checkpointed) else {}
    with pytest.raises(ValueError, match=r"shape \(3,\).*shape \(3, 1\)"):
        run(lambda t, x: x.sum(1), torch.ones(3, 1), 0.0, 1.0, **how)


def test_mistakes_of_the_caller():
    f, x = (lambda t, x: x), torch.ones(2)
    with pytest.raises(ValueError, match="euler, midpoint, heun, rk4; got 'rk45'"):
        solve(f, x, 0.0, 1.0, method="rk45")
    with pytest.raises(ValueError, match="two different finite times"):
        solve(f, x, 1.0, 1.0)
    with pytest.raises(TypeError, match="floating point"):
        solve(f, torch.ones(2, dtype=torch.long), 0.0, 1.0)
    with pytest.raises(SolverError, match="more than 3 steps"):
        solve_adaptive(lambda t, x: torch.cos(40 * t) * x, x, 0.0, 5.0, 1e-9, 1e-9, max_steps=3)


@pytest.mark.parametrize("atol", [0.0, -1.0, math.nan])
def test_a_tolerance_without_an_absolute_part_is_refused(atol):
    """An entry that is 0, as the divergence at the start, has no relative error."""
    with pytest.raises(ValueError, match="rtol is 0 or more and atol above 0"):
        solve_adaptive(lambda t, x: x, torch.tensor([0.0, 1.0]), 0.0, 1.0, rtol=1e-5, atol=atol)


def test_no_evaluation_leaves_the_span():
    """Some fields do not exist past the end."""
    seen = []
    field = lambda t, x: seen.append(t.item()) or 1e-3 * torch.exp(t * t) * x
    for t0, t1 in ((0.0, 1.0), (1.0, 0.0)):
        assert solve_adaptive(field, torch.ones(1), t0, t1).x.isfinite().all()
    assert 0.0 <= min(seen) and max(seen) <= 1.0
