"""torchdiffeq, for real work, behind one function that closes its traps.

It ends exactly at t1 (an adaptive solver of torchdiffeq steps past the end and interpolates, and some
fields do not exist there), gives gradients to all that the field uses or says what was forgotten, and
turns "underflow in dt" into a sentence with the time and the norm. Only the adjoint's backward solve,
where it fails, says so in torchdiffeq's own words, an AssertionError.
"""

from collections.abc import Sequence

import torch
import torchdiffeq
from torch import Tensor, nn

from lib.ode.adjoint import _as_now, _needed, check_captured, check_forgotten
from lib.ode.checks import SolverError, check_start, check_tolerance
from lib.utils import known

State = Tensor | tuple[Tensor, ...]
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
# how torchdiffeq's own assertions begin; any other is the field's
OURS = ("underflow in dt", "max_num_steps exceeded", "non-finite values in state")
MAX_STEPS = 10_000  # torchdiffeq would go on for 2^31


class Counted(nn.Module):
    """A field that counts how often it is evaluated: the `evaluations` of everything since `reset()`.

    >>> field = Counted(lambda t, x: x)
    >>> _ = odeint(field, torch.ones(1), 0.0, 1.0)
    >>> field.evaluations > 6
    True
    """

    def __init__(self, field):
        super().__init__()
        self.field, self.evaluations = field, 0

    def reset(self) -> "Counted":
        self.evaluations = 0
        return self

    def forward(self, t: Tensor, x: State) -> State:
        self.evaluations += 1
        return self.field(t, x)


class _Watched(nn.Module):
    """Looks in every evaluation with a graph whether a tensor is missing in params."""

    def __init__(self, field, params):
        super().__init__()
        self.run, self.params = field, tuple(params)  # params not registered

    def forward(self, t: Tensor, x: State) -> State:
        v = self.run(t.detach(), x)  # a gradient to t may be infinite, and nobody has asked for it
        if torch.is_grad_enabled():
            inputs = x if isinstance(x, tuple) else (x,)
            for part in v if isinstance(v, tuple) else (v,):
                if part.requires_grad:
                    check_captured(part, inputs[0], [*inputs, *self.params])
        return v


def odeint(
    field,
    x: State,
    t0: float,
    t1: float,
    *,
    params: Sequence[Tensor] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    method: str = "dopri5",
    adjoint: bool = False,
    options: dict | None = None,
) -> State:
    """x(t1) of dx/dt = field(t, x), from t0 to t1 in either direction; x a tensor or a tuple of them.

    Args:
        params: with `adjoint`, every tensor the field uses that needs a gradient; a module's own
            parameters if left out. Without `adjoint`, autograd finds them itself.
        method: any of torchdiffeq's; a fixed-step one takes options={"step_size": h}.
        adjoint: constant memory; the backward solve has the same method and tolerance.

    Raises:
        SolverError: the field or the state is not finite, or the steps became too small.
        ValueError: with `adjoint`, a tensor is missing in params.
        AssertionError: the same as SolverError, from torchdiffeq, in the adjoint's backward solve.

    >>> odeint(lambda t, x: x, torch.ones(1, dtype=torch.float64), 0.0, 1.0, rtol=1e-8)
    tensor([2.7183], dtype=torch.float64)
    """
    parts = x if isinstance(x, tuple) else (x,)
    for part in parts:
        check_start(part, t0, t1)
    check_tolerance(rtol, atol)
    if all(part.numel() == 0 for part in parts):  # no entries, no error to measure
        return x
    # times in float64 where the device has it, so that t1 is t1 to the bit and small steps exist
    kind = torch.float32 if parts[0].device.type == "mps" else torch.float64
    times = torch.tensor([t0, t1], dtype=kind, device=parts[0].device)
    options = dict(options or {})
    if method in ADAPTIVE:
        own = options.get("step_t")  # the caller's, and the end
        own = torch.as_tensor([] if own is None else own, dtype=kind, device=times.device)
        options["step_t"] = torch.cat([own.flatten(), times[1:]]).unique()
        options.setdefault("max_num_steps", MAX_STEPS)
    settings = dict(rtol=rtol, atol=atol, method=method, options=options)
    try:
        if adjoint:
            settings |= _adjoint_settings(field, params, times, options)
            check_forgotten(field, x, t0, settings["adjoint_params"])
            watched = _Watched(_as_now(field, parts[0]), settings["adjoint_params"])
            out = torchdiffeq.odeint_adjoint(watched, x, times, **settings)
        else:
            out = torchdiffeq.odeint(field, x, times, **settings)
    except AssertionError as error:
        if not str(error).startswith(OURS):
            raise
        raise _explain(field, x, times, settings) from error
    result = tuple(part[-1] for part in out) if isinstance(out, tuple) else out[-1]
    if any(
        known(~part.isfinite().all())
        for part in (result if isinstance(result, tuple) else (result,))
    ):
        raise _explain(field, x, times, settings)
    return result


def _adjoint_settings(field, params, times: Tensor, options: dict) -> dict:
    back = dict(options)
    if "step_t" in options:
        sign = 1 if times[0] < times[1] else -1  # torchdiffeq negates decreasing times, not these
        back["step_t"] = sign * torch.cat([options["step_t"], times[:1]]).unique()
    return dict(adjoint_params=_needed(field, params), adjoint_options=back)


@torch.no_grad()
def _explain(field, x: State, times: Tensor, settings: dict) -> SolverError:
    """Solve once more and look at every evaluation: where and how it went wrong."""
    seen = []  # time and norm of the last evaluation

    def watched(t, state):
        v = field(t, state)
        norm = lambda s: (
            torch.cat([p.flatten() for p in (s if isinstance(s, tuple) else (s,))]).norm().item()
        )
        seen[:] = [t.item(), norm(state)]
        bad = [p for p in (v if isinstance(v, tuple) else (v,)) if not p.isfinite().all()]
        if bad:
            raise SolverError(
                f"the field is not finite at t = {seen[0]:.6g}, where the state has norm {seen[1]:.3g}: "
                f"{sum(int((~p.isfinite()).sum()) for p in bad)} of {sum(p.numel() for p in bad)} values"
            )
        return v

    settings = {k: settings[k] for k in ("rtol", "atol", "method", "options")}
    try:
        torchdiffeq.odeint(watched, x, times, **settings)
    except SolverError as found:
        return found
    except AssertionError as error:
        why = str(error)
    else:
        why = "the state is not finite at the end: the steps are too long for the field"
    where = f"at t = {seen[0]:.6g}, where the state has norm {seen[1]:.3g}" if seen else "at t0"
    return SolverError(
        f"the solver gave up {where} ({why}): the field is too stiff for this method, or the "
        f"tolerance too strict"
    )
