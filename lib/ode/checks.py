"""What the solvers refuse: states, times and tolerances with which there is nothing to solve."""

import math

from torch import Tensor

from lib.utils import check_batch, known


class SolverError(FloatingPointError):
    """A field or state that is not finite, or steps that became too small; says when and how big.

    >>> issubclass(SolverError, FloatingPointError)
    True
    """


def check_start(x: Tensor, t0: float, t1: float) -> None:
    """Raise unless x is a floating-point tensor and the times are finite and differ.

    >>> import torch
    >>> check_start(torch.ones(1), 1.0, 1.0)
    Traceback (most recent call last):
        ...
    ValueError: t0 and t1 must be two different finite times, got 1.0 and 1.0
    """
    check_batch(x, name="the state", finite=False)
    if not (math.isfinite(t0) and math.isfinite(t1)) or t0 == t1:
        raise ValueError(f"t0 and t1 must be two different finite times, got {t0} and {t1}")


def check_tolerance(rtol: float, atol: float) -> None:
    """Raise unless rtol is 0 or more and atol above 0: an entry that is 0 has no relative error.

    >>> check_tolerance(0.0, 1e-6)
    """
    if not (rtol >= 0 and atol > 0):
        raise ValueError(f"rtol is 0 or more and atol above 0: got {rtol} and {atol}")


def check_state(x: Tensor, t: float) -> None:
    """Raise unless the state at t is finite.

    >>> import torch
    >>> check_state(torch.ones(3), 0.5)  # finite: nothing to say
    """
    if known(~x.isfinite().all()):
        bad = ~x.isfinite()
        norm = x.detach()[~bad].norm().item()
        raise SolverError(
            f"the state is not finite at t = {t:.6g}: {int(bad.sum())} of {x.numel()} values, the "
            f"others have norm {norm:.3g}. The field is not finite there, or the steps are too long "
            f"for it"
        )
