"""Continuous flows: x moves along an ODE, and its log-density changes by the field's divergence.

d log p(x(t)) / dt = -div v(t, x(t)) (Chen et al. 2018, theorem 1), so with t = 0 the data and t = 1
the noise, log p(x) = log p_base(x(1)) + the integral of div v from 0 to 1. The divergence is a trace:
exact with D directions, or estimated with one (FFJORD, Grathwohl et al. 2019).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.flows.divergence import (
    PROBES,
    Field,
    directions,
    draw_probes,
    exact_divergence,
    hutchinson,
    pull_one_by_one,
    rows,
)
from lib.flows.field import FieldNet
from lib.flows.flow import Flow
from lib.flows.transform import Transform
from lib.ode import STEPS, Counted, odeint, odeint_adjoint, solve, solve_adaptive
from lib.utils import check_count, sum_dims

__all__ = [
    "Continuous",
    "FieldNet",
    "Integrator",
    "Moved",
    "RegularisedFlow",
    "draw_probes",
    "exact_divergence",
    "hutchinson",
    "ode_log_prob",
    "set_solver",
]

SOLVERS = ("dopri5", *STEPS, "torchdiffeq")
TRACES = ("exact", "hutchinson")


class Moved(NamedTuple):
    """Where an ODE takes a batch, and what was integrated on the way."""

    x: Tensor  # (B, ...), at t1
    divergence: Tensor  # (B,), the integral of div v = log|det dx(t1)/dx(t0)|
    kinetic: Tensor | None  # (B,), the integral of |v|^2, if asked for
    jacobian: Tensor | None  # (B,), the integral of |J|_F^2 or its estimate |e'J|^2
    evaluations: int  # of the field


class Integrator(NamedTuple):
    """How to solve the ODE of a continuous flow, and how to take its trace.

    Args:
        trace: "exact", or "hutchinson" with `probes` random directions, drawn once for each solve.
        probe: "rademacher" (random signs) or "gaussian".
        solver: "dopri5", adaptive to rtol and atol, by `lib.ode.solve_adaptive`; "torchdiffeq", the
            same method by that library; or "euler", "midpoint", "heun", "rk4" with `steps` steps.
        adjoint: constant memory in training, instead of backpropagation through the solver.
    """

    trace: str = "exact"
    probe: str = "rademacher"
    probes: int = 1
    solver: str = "dopri5"
    steps: int = 20
    rtol: float = 1e-5
    atol: float = 1e-5
    adjoint: bool = False

    def check(self) -> "Integrator":
        for name, choices in (("trace", TRACES), ("probe", PROBES), ("solver", SOLVERS)):
            if getattr(self, name) not in choices:
                got = getattr(self, name)
                raise ValueError(f"{name} is one of {', '.join(choices)}; got {got!r}")
        check_count(self.probes, "probes"), check_count(self.steps, "steps")
        return self

    def move(
        self,
        field: Field,
        x: Tensor,
        t0: float,
        t1: float,
        params: Sequence[Tensor] = (),
        costs: bool = False,
        probes: Tensor | None = None,
    ) -> Moved:
        """x(t1) and the integral of the divergence, one ODE for both; `costs` adds two to it."""
        if len(x) == 0:
            none = x.new_zeros(0)
            return Moved(x, none, none, none, 0)
        B, D = len(x), x[0].numel()
        measure = self.trace_of(field, x, costs, probes)

        def augmented(t: Tensor, s: Tensor) -> Tensor:
            v, *rates = measure(t, s[:, :D].reshape(x.shape))
            return torch.cat([v.reshape(B, D), *(r[:, None] for r in rates)], 1)

        counted = Counted(augmented)
        extra = x.new_zeros(B, 3 if costs else 1)
        s = self.solve(counted, torch.cat([x.reshape(B, D), extra], 1), t0, t1, params)
        kinetic, jacobian = (s[:, D + 1], s[:, D + 2]) if costs else (None, None)
        y = s[:, :D].reshape(x.shape)
        return Moved(y, s[:, D], kinetic, jacobian, counted.evaluations)

    def trace_of(self, field: Field, x: Tensor, costs: bool, probes: Tensor | None):
        """measure(t, x) -> v, its divergence, and with `costs` |v|^2 and |J|_F^2."""
        exact = self.trace == "exact"
        if exact:
            e = directions(x) if costs else None
        else:
            e = draw_probes(x, self.probe, self.probes) if probes is None else probes
        if costs:
            pull = rows if exact else pull_one_by_one

            def measure(t, x):
                v, eJ = pull(field, t, x, e)
                a, b = ((eJ * u).flatten(2).sum(2) for u in (e, eJ))
                a, b = (a.sum(0), b.sum(0)) if exact else (a.mean(0), b.mean(0))
                return v, a, sum_dims(v.square()), b

            return measure
        if exact:
            own = getattr(field, "with_divergence", None)
            return own or (lambda t, x: exact_divergence(field, t, x))
        push = getattr(field, "push", None)

        def measure(t, x):
            if push is None or torch.is_grad_enabled():  # with a graph, backward is as fast
                return hutchinson(field, t, x, e)
            v, Je = push(t, x, e)
            return v, (Je * e).flatten(2).sum(2).mean(0)

        return measure

    def solve(self, field: Field, s: Tensor, t0: float, t1: float, params) -> Tensor:
        adaptive = dict(rtol=self.rtol, atol=self.atol)
        if self.solver == "torchdiffeq":
            return odeint(field, s, t0, t1, params=params, adjoint=self.adjoint, **adaptive)
        fixed = dict(steps=self.steps, method=self.solver)
        how = adaptive if self.solver == "dopri5" else fixed
        if self.adjoint:
            return odeint_adjoint(field, s, t0, t1, params, **how)
        if self.solver == "dopri5":
            return solve_adaptive(field, s, t0, t1, **adaptive).x
        return solve(field, s, t0, t1, **fixed)


def ode_log_prob(
    field: Field,
    x: Tensor,
    base_log_prob: Callable[[Tensor], Tensor],
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    probes: Tensor | None = None,
    params: Sequence[Tensor] | None = None,
    **how,
) -> tuple[Tensor, Tensor]:
    """log p(x) in nats, (B,), and z = x(t1), for any field(t, x) of any shape and any base.

    log p(x) = log p_base(z) + the integral of div v: the density that the field carries from t1
    back to t0. Any field: a continuous flow's, or the probability flow of a diffusion model.

    Args:
        probes: for trace="hutchinson", those of `draw_probes` instead of fresh ones.
        params: with adjoint=True, the tensors of the field that need a gradient; a module's own
            parameters if left out.
        how: trace, probe, probes, solver, steps, rtol, atol, adjoint: see `Integrator`.
    """
    if params is None:
        if how.get("adjoint") and not isinstance(field, nn.Module):
            raise ValueError(
                "say which tensors of the field need gradients, params=[...] (or [] for none): a "
                "function does not tell, and by the adjoint a tensor not in params gets none"
            )
        params = list(field.parameters()) if isinstance(field, nn.Module) else []
    moved = Integrator(**how).check().move(field, x, t0, t1, params, probes=probes)
    return base_log_prob(moved.x) + moved.divergence, moved.x


class Continuous(Transform):
    """dx/dt = field(t, x): to_base solves it from t = 0 to 1, from_base from 1 to 0.

    `field(t, x)` is a module; with a context, `field.takes_context` is True and
    `field.with_context(c)` is the field of (t, x). The map is a bijection whatever the network is.
    The steps are chosen for the whole batch, so an example's numbers depend on the others within
    the tolerance.

    Args:
        how: trace, probe, probes, solver, steps, rtol, atol, adjoint: see `Integrator`.

    Attributes:
        how: the settings; `set_solver(flow, rtol=1e-7)` changes some.
        evaluations: of the field in the last solve (those of backward passes left out).
    """

    def __init__(self, field: nn.Module, **how):
        super().__init__()
        self.field, self.how = field, Integrator(**how).check()
        self.evaluations, self.watcher = 0, None

    @property
    def takes_context(self) -> bool:
        return getattr(self.field, "takes_context", False)

    @property
    def shape(self) -> tuple[int, ...] | None:
        return getattr(self.field, "shape", None)

    def move(
        self, x: Tensor, t0: float, t1: float, context: Tensor | None = None, **kwargs
    ) -> Moved:
        """From any time to any other, with what was integrated on the way."""
        self.check(x, context)
        field, params = self.field, list(self.field.parameters())
        if context is not None:
            field, params = field.with_context(context), [*params, context]
        moved = self.how.move(field, x, t0, t1, params, **kwargs)
        self.evaluations = moved.evaluations
        return moved

    def to_base(self, x, context=None):
        moved = self.move(x, 0.0, 1.0, context, costs=self.watcher is not None)
        if self.watcher is not None:
            self.watcher.append(moved)
        return moved.x, moved.divergence

    def from_base(self, z, context=None):
        moved = self.move(z, 1.0, 0.0, context)
        return moved.x, moved.divergence

    @torch.no_grad()
    def path(self, x: Tensor, times: Sequence[float], context: Tensor | None = None) -> Tensor:
        """The batch at each of these times, x being at the first: (B, ...) -> (T, B, ...), no trace."""
        self.check(x, context)
        field = self.field if context is None else self.field.with_context(context)
        states = [x]
        for t0, t1 in pairwise(times):
            states.append(self.how._replace(adjoint=False).solve(field, states[-1], t0, t1, ()))
        return torch.stack(states)


def set_solver(model: nn.Module, **how) -> nn.Module:
    """Change the settings of every continuous part, as in set_solver(flow, rtol=1e-7, atol=1e-7)."""
    parts = [m for m in model.modules() if isinstance(m, Continuous)]
    if not parts:
        raise ValueError(f"this {type(model).__name__} has no Continuous part")
    for part in parts:
        part.how = part.how._replace(**how).check()
    return model


class RegularisedFlow(Flow):
    """A flow whose training loss also pays for how its continuous parts get there (RNODE).

    loss = -log p(x) + kinetic * the integral of |v|^2 + jacobian * the integral of |J|_F^2, which is
    estimated by |e'J|^2 with Hutchinson's own probe. Straight and even paths need fewer
    evaluations. In eval mode the loss is -log p(x). Finlay et al. (2020), equation 10.

    Attributes:
        costs: (kinetic, jacobian) of the last training batch, means, before their weights.
    """

    def __init__(self, transform: Transform, *shape: int, kinetic=0.01, jacobian=0.01, base=None):
        super().__init__(transform, *shape, base=base)
        self.kinetic, self.jacobian, self.costs = kinetic, jacobian, (0.0, 0.0)
        if not self.parts():
            raise ValueError("RegularisedFlow needs a Continuous part, its transform has none")

    def parts(self) -> list[Continuous]:
        return [m for m in self.transform.modules() if isinstance(m, Continuous)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if not self.training:
            return super().forward(x, context)
        seen = []
        try:
            for part in self.parts():
                part.watcher = seen
            loss = super().forward(x, context)
        finally:
            for part in self.parts():
                part.watcher = None
        kinetic, jacobian = sum(m.kinetic for m in seen), sum(m.jacobian for m in seen)
        self.costs = kinetic.mean().item(), jacobian.mean().item()
        return loss + self.kinetic * kinetic + self.jacobian * jacobian
