"""Continuous flows: x moves along an ODE, and its log-density changes by the field's divergence.

d log p(x(t)) / dt = -div v(t, x(t)) (Chen et al. 2018, theorem 1), so with t = 0 the data and t = 1
the noise, log p(x) = log p_base(x(1)) + the integral of div v from 0 to 1. The divergence is a trace:
exact with D directions, or estimated with one (FFJORD, Grathwohl et al. 2019).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lib.flows.divergence import draw_probes, exact_divergence, hutchinson
from lib.flows.field import FieldNet
from lib.flows.flow import Flow
from lib.flows.integrator import Integrator, Moved, ode_log_prob
from lib.flows.transform import Transform
from lib.ode import Counted

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

    >>> flow = Continuous(FieldNet(2, width=8), rtol=1e-6, atol=1e-6)
    >>> x = torch.ones(3, 2)
    >>> bool((flow.from_base(flow.to_base(x)[0])[0] - x).abs().max() < 1e-4)
    True
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
        field, params = self._given(context)
        moved = self.how.move(field, x, t0, t1, params, **kwargs)
        self.evaluations = moved.evaluations
        return moved

    def to_base(self, x, context=None):
        moved = self.move(x, 0.0, 1.0, context, costs=self.watcher is not None)
        if self.watcher is not None:
            self.watcher.append(moved)
        return moved.x, moved.divergence

    def from_base(self, z, context=None):
        moved = self.move(z, 1.0, 0.0, context, costs=self.watcher is not None)
        if self.watcher is not None:  # the integrals run from 1 to 0, the costs do not
            self.watcher.append(moved._replace(kinetic=-moved.kinetic, jacobian=-moved.jacobian))
        return moved.x, moved.divergence

    def x_from_base(self, z, context=None):
        """The path alone: no divergence, and steps only as short as the path asks for.

        With an adaptive solver it differs from `from_base`'s x within the tolerance.
        """
        self.check(z, context)
        field, params = self._given(context)
        counted = Counted(field)
        x = self.how.solve(counted, z, 1.0, 0.0, params) if len(z) else z
        self.evaluations = counted.evaluations
        return x

    def _given(self, context: Tensor | None) -> tuple[nn.Module, list[Tensor]]:
        """The field of (t, x), and what its gradients go to."""
        params = list(self.field.parameters())
        if context is None:
            return self.field, params
        return self.field.with_context(context), [*params, context]

    @torch.no_grad()
    def path(self, x: Tensor, times: Sequence[float], context: Tensor | None = None) -> Tensor:
        """The batch at each of these times, x being at the first: (B, ...) -> (T, B, ...), no trace."""
        self.check(x, context)
        field, _ = self._given(context)
        states = [x]
        for t0, t1 in pairwise(times):
            states.append(self.how._replace(adjoint=False).solve(field, states[-1], t0, t1, ()))
        return torch.stack(states)


def set_solver(model: nn.Module, **how) -> nn.Module:
    """Change the settings of every continuous part, as in set_solver(flow, rtol=1e-7, atol=1e-7).

    >>> set_solver(Continuous(FieldNet(2)), solver='rk4', steps=5).how.steps
    5
    """
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

    >>> RegularisedFlow(Continuous(FieldNet(2, width=8)), 2)(torch.ones(3, 2)).shape
    torch.Size([3])
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
        if len(x):  # the mean of none is NaN
            self.costs = kinetic.mean().item(), jacobian.mean().item()
        return loss + self.kinetic * kinetic + self.jacobian * jacobian
