"""Gradients of an ODE's solution without keeping its steps: the adjoint method, and checkpoints.

With L a function of x(t1), the adjoint a(t) = dL/dx(t) obeys da/dt = -a df/dx, and dL/dtheta is the
integral of a df/dtheta over t0 .. t1. Pontryagin et al. (1962); Chen et al. (2018), appendix B.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lib.ode.checks import check_start
from lib.ode.solvers import (
    STEPS,
    Field,
    dopri5_step,
    grid,
    solve,
    solve_adaptive,
    with_float_time,
)


class How(NamedTuple):
    """Fixed steps of a method, or adaptive ones to a tolerance if steps is None.

    >>> grow = lambda t, x: x
    >>> How(steps=20, method='rk4', rtol=0.0, atol=0.0)(grow, torch.ones(1), 0.0, 1.0)
    tensor([2.7183])
    """

    steps: int | None
    method: str
    rtol: float
    atol: float

    def __call__(self, field: Field, x: Tensor, t0: float, t1: float, **adaptive) -> Tensor:
        if self.steps is not None:
            return solve(field, x, t0, t1, self.steps, self.method)
        return solve_adaptive(field, x, t0, t1, self.rtol, self.atol, **adaptive).x


def odeint_adjoint(
    field: Field,
    x: Tensor,
    t0: float,
    t1: float,
    params: Sequence[Tensor] | None = None,
    steps: int | None = None,
    method: str = "rk4",
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """x(t1) with gradients to x and to `params` by the adjoint method: memory free of the steps.

    Backward, one ODE runs from t1 to t0 and carries three things: the state again, its adjoint, and
    the gradient of the parameters. Adaptive steps keep each of them, and each tensor of `params`,
    to the tolerance of its own. The state is *reconstructed*; where the field contracts strongly
    or is chaotic the reconstruction fails, and the gradient with it: use `odeint_checkpointed`.

    Args:
        params: every tensor that the field uses and that needs a gradient; a module's own
            parameters if left out. One that was forgotten is an error, not a silent zero.
        steps: equal steps of `method`; adaptive Dormand-Prince steps to rtol, atol if left out.

    Raises:
        SolverError: as the solvers. ValueError: a tensor in the field is missing in params.

    >>> a = torch.tensor(1.0, requires_grad=True)
    >>> odeint_adjoint(lambda t, x: a * x, torch.ones(1), 0.0, 1.0, [a], steps=20).backward()
    >>> a.grad.round(decimals=4)  # d e^a / da at a = 1
    tensor(2.7183)
    """
    return _Adjoint.apply(*_start(field, x, t0, t1, params, steps, method, rtol, atol))


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, field, how, x, t0, t1, *params):
        y = how(field, x, t0, t1)
        ctx.field, ctx.how, ctx.span = _as_now(field, x), how, (t0, t1)
        _keep(ctx, params)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (y,), params = ctx.saved_tensors, _kept(ctx)
        sizes = [p.numel() for p in (y, y, *params)]

        def augmented(t, state):  # d/dt (x, a, dL/dtheta) = (f, -a df/dx, -a df/dtheta)
            # the state is as wide as the widest of params, the field's input is not
            x, a = (part.view_as(y).to(y.dtype) for part in state.split(sizes)[:2])
            v, *grads = vector_jacobian(ctx.field, t.to(y.dtype), x, a, params)
            return torch.cat([v.flatten(), *(-g.flatten() for g in grads)])

        zeros = [torch.zeros_like(p).flatten() for p in params]
        state = torch.cat([y.flatten(), grad.flatten(), *zeros])
        t0, t1 = ctx.span
        # a step is as wrong as the worst of the parts: of millions of parameters, most of them idle,
        # one mean over all entries would accept an x and an a with hardly a right digit
        _, a, *grads = ctx.how(augmented, state, t1, t0, parts=sizes).split(sizes)
        grads = [g.view_as(p) for g, p in zip(grads, params, strict=True)]
        return None, None, a.view_as(y), None, None, *grads


def odeint_checkpointed(
    field: Field,
    x: Tensor,
    t0: float,
    t1: float,
    params: Sequence[Tensor] | None = None,
    steps: int | None = None,
    method: str = "rk4",
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """As `odeint_adjoint`, but the states of the forward steps are kept and nothing is reconstructed.

    Backward, each step is taken once more from its stored start and differentiated by autograd: the
    gradient of the very numbers that were computed, equal to backpropagation through the solver.
    Memory is one state for each step instead of one graph. ACA, Zhuang et al. (2020).

    >>> a = torch.tensor(1.0, requires_grad=True)
    >>> odeint_checkpointed(lambda t, x: a * x, torch.ones(1), 0.0, 1.0, [a], steps=20).backward()
    >>> a.grad.round(decimals=4)
    tensor(2.7183)
    """
    return _Checkpointed.apply(*_start(field, x, t0, t1, params, steps, method, rtol, atol))


class _Checkpointed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, field, how, x, t0, t1, *params):
        starts = []  # (t, x(t)) of each step
        if how.steps is None:
            y = how(field, x, t0, t1, on_step=lambda t, x: starts.append((t, x)))
            ctx.times = [t for t, _ in starts] + [t1]
            states = [x for _, x in starts]
        else:
            path = solve(field, x, t0, t1, how.steps, how.method, path=True)
            ctx.times, states, y = grid(t0, t1, how.steps), list(path[:-1]), path[-1]
        ctx.field, ctx.how = _as_now(field, x), how
        _keep(ctx, params)
        ctx.save_for_backward(*states)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, a):
        states, params = ctx.saved_tensors, _kept(ctx)
        total, f = [torch.zeros_like(p) for p in params], with_float_time(ctx.field)
        for t, s, x in zip(ctx.times[-2::-1], ctx.times[:0:-1], states[::-1], strict=True):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                if ctx.how.steps is None:
                    y = dopri5_step(f, t, x, s - t, f(t, x))[0]
                else:
                    y = STEPS[ctx.how.method](f, t, x, s - t)
            check_captured(y, x, params)
            a, *grads = torch.autograd.grad(y, (x, *params), a, allow_unused=True)
            a = torch.zeros_like(x) if a is None else a
            total = [g if d is None else g + d for g, d in zip(total, grads, strict=True)]
        return None, None, a, None, None, *total


def _start(field, x, t0, t1, params, steps, method, rtol, atol) -> tuple:
    check_start(x, t0, t1)
    params = _needed(field, params)
    check_forgotten(field, x, t0, params)
    return field, How(steps, method, rtol, atol), x, t0, t1, *params


def _needed(field: Field, params: Sequence[Tensor] | None) -> Sequence[Tensor]:
    """The tensors that need a gradient, each once; a module's own if not named."""
    if params is None:
        if not isinstance(field, nn.Module):
            raise ValueError(
                "say which tensors of the field need gradients, params=[...] (or [] for none): a "
                "function does not tell, only a module does"
            )
        params = field.parameters()
    return tuple({id(p): p for p in params if p.requires_grad}.values())


def _as_now(field: Field, x: Tensor) -> Field:
    """The field under autocast as it now stands: a backward pass runs outside of the solve's."""
    kind = x.device.type
    if hasattr(torch, "get_autocast_dtype"):
        on, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    elif kind == "cpu":  # torch before 2.4 has a function for each kind of device
        on, dtype = torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    else:
        on, dtype = torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()

    def again(t, x):
        with torch.autocast(kind, dtype, enabled=on):
            return field(t, x)

    return again


def _keep(ctx, params: Sequence[Tensor]) -> None:
    """The very tensors that the field uses: hooks may replace saved ones."""
    ctx.params, ctx.versions = params, [p._version for p in params]


def _kept(ctx) -> Sequence[Tensor]:
    if [p._version for p in ctx.params] != ctx.versions:
        raise RuntimeError(
            "a tensor of params was changed in place between the solve and its backward: the "
            "gradient would be that of another field"
        )
    return ctx.params


def vector_jacobian(
    field: Field, t: Tensor, x: Tensor, a: Tensor, params: Sequence[Tensor]
) -> list[Tensor]:
    """f(t, x), a df/dx and a df/dp for each p of params, without a graph.

    >>> triple = lambda t, x: 3 * x
    >>> vector_jacobian(triple, torch.zeros(()), torch.ones(2), torch.ones(2), [])
    [tensor([3., 3.]), tensor([3., 3.])]
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = field(t, x)
    if not v.requires_grad:
        return [v, torch.zeros_like(x), *(torch.zeros_like(p) for p in params)]
    check_captured(v, x, params)
    grads = torch.autograd.grad(v, (x, *params), a, allow_unused=True)
    some = zip(grads, (x, *params), strict=True)
    return [v.detach(), *(torch.zeros_like(p) if g is None else g for g, p in some)]


def check_forgotten(
    field: Field, x: Tensor | tuple[Tensor, ...], t0: float, params: Sequence[Tensor]
) -> None:
    """`check_captured` where there will be no backward pass to do it: nothing declared needs a gradient.

    One evaluation of the field, and only in that case.

    >>> check_forgotten(lambda t, x: -x, torch.ones(1), 0.0, [])
    """
    parts = x if isinstance(x, tuple) else (x,)
    if torch.is_grad_enabled() and not any(p.requires_grad for p in (*parts, *params)):
        # with a gradient, as in a backward pass: a field that differentiates itself makes a leaf of
        # its own from a state that needs none
        probe = tuple(p.detach().requires_grad_() for p in parts)
        v = field(parts[0].new_full((), t0), probe if isinstance(x, tuple) else probe[0])
        for part in v if isinstance(v, tuple) else (v,):
            if part.requires_grad:
                check_captured(part, probe[0], probe)


def check_captured(v: Tensor, x: Tensor, params: Sequence[Tensor]) -> None:
    """Raise if v was computed from a tensor that needs a gradient and is neither x nor in params.

    Walks the graph of one evaluation. Without this, a context that the field captured would get no
    gradient, and no message.

    >>> a, x = (torch.ones(1, requires_grad=True) for _ in range(2))
    >>> check_captured(a * x, x, [a])  # a is in params: nothing is lost
    """
    # an operation may have several outputs (chunk, unbind): params may hold one of them
    ends = {(p.grad_fn, p.output_nr) for p in (x, *params) if p.grad_fn is not None}
    known_leaves = {id(p) for p in (x, *params)}

    def check(leaf: Tensor) -> None:
        if id(leaf) not in known_leaves:
            raise ValueError(
                f"the field uses a tensor of shape {tuple(leaf.shape)} that requires a gradient "
                f"and is not in params: its gradient would be lost. Add it to params, or detach it"
            )

    if v.grad_fn is None and v.requires_grad:  # a leaf, returned as it is: no graph leads to it
        check(v)
    todo, seen = [(v.grad_fn, v.output_nr)], set()
    while todo:
        node, output = todo.pop()
        if node is None or node in seen or (node, output) in ends:
            continue
        seen.add(node)
        if getattr(node, "variable", None) is not None:
            check(node.variable)
        todo += node.next_functions
