"""Ordinary differential equations: read `solvers.py`, then `adjoint.py`; `bridge.py` is for real work."""

from lib.ode.adjoint import odeint_adjoint, odeint_checkpointed
from lib.ode.bridge import Counted, odeint
from lib.ode.checks import SolverError
from lib.ode.solvers import ORDER, STEPS, Solution, solve, solve_adaptive

__all__ = [
    "ORDER",
    "STEPS",
    "Counted",
    "Solution",
    "SolverError",
    "odeint",
    "odeint_adjoint",
    "odeint_checkpointed",
    "solve",
    "solve_adaptive",
]
