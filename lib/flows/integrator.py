"""How a continuous flow is integrated: the state and its log-density by one ODE.

d log p(x(t)) / dt = -div v(t, x(t)): Chen et al. (2018), theorem 1. `continuous.py` makes a transform
of it, and `lib.diffusion.likelihood` the likelihood of a diffusion model.
"""

from collections.abc import Callable, Sequence
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
from lib.flows.transform import _one_each
from lib.ode import STEPS, Counted, odeint, odeint_adjoint, solve, solve_adaptive
from lib.utils import check_count, sum_dims

SOLVERS = ("dopri5", *STEPS, "torchdiffeq")
TRACES = ("exact", "hutchinson")


class Moved(NamedTuple):
    """Where an ODE takes a batch, and what was integrated on the way.

    >>> field = lambda t, x: -x
    >>> Integrator(solver="rk4").move(field, torch.ones(1, 2), 0.0, 1.0).divergence
    tensor([-2.0000])
    """

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
            An adaptive step's error is one mean over x and the integrals: of B examples
            with D numbers each, one integral may miss the tolerance by a factor of sqrt(B (D + 1)).
        adjoint: constant memory in training, instead of backpropagation through the solver.

    >>> Integrator(solver='rk4', steps=5).check().solver
    'rk4'
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
            # an empty batch: zero, attached to the parameters as any loss is, without an evaluation
            none = x.new_zeros(0) + sum(p.flatten()[:0].to(x).sum() for p in params)
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
        exact, push = self.trace == "exact", getattr(field, "push", None)
        if exact:
            e = directions(x) if costs else None
        else:
            e = draw_probes(x, self.probe, self.probes) if probes is None else probes
        if costs:
            if exact and push is not None:  # the columns of J, whose squares sum to the same
                pull = lambda field, t, x, e: push(t, x, e)
            else:
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
    probes: Tensor | int | None = None,
    params: Sequence[Tensor] | None = None,
    **how,
) -> tuple[Tensor, Tensor]:
    """log p(x) in nats, (B,), and z = x(t1), for any field(t, x) of any shape and any base.

    log p(x) = log p_base(z) + the integral of div v: the density that the field carries from t1
    back to t0. Any field: a continuous flow's, or the probability flow of a diffusion model.

    Args:
        probes: for trace="hutchinson", those of `draw_probes` instead of fresh ones; or how many.
        params: with adjoint=True, the tensors of the field that need a gradient; a module's own
            parameters if left out.
        how: trace, probe, probes, solver, steps, rtol, atol, adjoint: see `Integrator`.

    >>> shrink = lambda t, x: -x
    >>> at_one = lambda z: -0.5 * z.square().sum(1)  # up to a constant
    >>> ode_log_prob(shrink, torch.zeros(1, 2), at_one)[0]
    tensor([-2.])
    """
    if params is None:
        if how.get("adjoint") and not isinstance(field, nn.Module):
            raise ValueError(
                "say which tensors of the field need gradients, params=[...] (or [] for none): a "
                "function does not tell, and by the adjoint a tensor not in params gets none"
            )
        params = list(field.parameters()) if isinstance(field, nn.Module) else []
    if isinstance(probes, int):
        how["probes"], probes = probes, None
    moved = Integrator(**how).check().move(field, x, t0, t1, params, probes=probes)
    log_prob = _one_each(base_log_prob(moved.x), x, "base_log_prob(z)")
    return log_prob + moved.divergence, moved.x
