"""Tensor helpers that every chapter shares, and the checks that turn a mistake into a sentence."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# torch 2.2 has it under another name.
is_compiling = getattr(torch.compiler, "is_compiling", None) or torch._utils.is_compiling


def sum_dims(x: Tensor) -> Tensor:
    """Sum everything but the batch dimension: (B, ...) -> (B,).

    >>> sum_dims(torch.ones(2, 3, 4))
    tensor([12., 12.])
    """
    return x.flatten(1).sum(1) if x.ndim > 1 else x


def expand_as_batch(t: Tensor | float, x: Tensor) -> Tensor:
    """Shape a number or a (B,) tensor so that it multiplies x (B, ...): -> () or (B, 1, ..., 1).

    The result has the dtype and device of x.

    >>> expand_as_batch(torch.tensor([1.0, 2.0]), torch.ones(2, 3, 4)).shape
    torch.Size([2, 1, 1])
    """
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if t.ndim == 0:
        return t
    if t.ndim != 1 or len(t) not in (1, len(x)):
        raise ValueError(
            f"expected a number or one value for each of the {len(x)} examples, "
            f"not a tensor of shape {tuple(t.shape)}"
        )
    return t.reshape(-1, *[1] * (x.ndim - 1))


def std_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats: (B, ...) -> (B,).

    >>> std_normal_log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    """
    return sum_dims(-0.5 * (z**2 + 1.8378770664093453))  # log(2 pi)


def log_normal_interval(low: Tensor, high: Tensor, width: float) -> Tensor:
    """log P(low < n < high) of a standard normal n, elementwise; width = high - low > 0.

    By symmetry the interval is taken on the left, where both values of the distribution function
    are small. Far out they agree in all digits, and so may `low` and `high`: the gap between the
    logarithms is then the one that the density makes, which bounds it everywhere. In a narrow
    interval they agree everywhere: the density, exp(-m s - s^2 / 2) times its value in the middle
    m, is integrated over s with the mean of s^2, width^2 / 12.

    >>> log_normal_interval(torch.tensor([-1.0, -41.0]), torch.tensor([1.0, -39.0]), 2.0)
    tensor([-3.8172e-01, -7.6508e+02])
    """
    if width < 1e-2:
        middle = 0.5 * (low + high)
        a = (0.5 * width * middle).abs().clamp_min(1e-6)  # log(sinh(a) / a) without overflow:
        tilt = a + torch.log(-torch.expm1(-2 * a) / (2 * a))
        return tilt - 0.5 * middle**2 + (math.log(width / math.sqrt(2 * math.pi)) - width**2 / 24)
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    log_low, log_high = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
    gap = torch.fmin(log_low - log_high, 0.5 * width * (low + high))  # fmin: -inf - (-inf) is NaN
    return log_high + torch.log(-torch.expm1(gap))


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Within it the random numbers of the CPU and of `device` start at `seed`; then all is as before.

    Other devices are left alone: `torch.manual_seed` would reset every card's generator.

    >>> with seeded(0):
    ...     a = torch.rand(1)
    >>> with seeded(0):
    ...     print(bool(a == torch.rand(1)))
    True
    """
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards each part has its own mode again.

    >>> model = nn.Dropout(0.5)
    >>> with evaluating(model):
    ...     model(torch.ones(3))
    tensor([1., 1., 1.])
    >>> model.training
    True
    """
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def measuring(model: nn.Module, seed: int) -> Iterator[None]:
    """`evaluating`, and `seeded` on the model's device.

    >>> with measuring(nn.Linear(2, 1), 0):
    ...     torch.randint(100, (3,))
    tensor([44, 39, 33])
    """
    with evaluating(model), seeded(seed, next(model.parameters(), torch.empty(0)).device):
        yield


def full_precision(x: Tensor) -> torch.autocast:
    """Autocast off: what is exact keeps the precision of its input, networks around it need not.

    >>> with torch.autocast("cpu", torch.bfloat16), full_precision(torch.ones(2)):
    ...     (torch.ones(2, 2) @ torch.ones(2)).dtype
    torch.float32
    """
    return torch.autocast(x.device.type, enabled=False)


def bounded(raw: Tensor, limit: float = 3.0) -> Tensor:
    """A log-scale from a network's output: close to raw near 0, never past +-limit.

    >>> bounded(torch.tensor([0.1, 100.0]))
    tensor([0.1000, 3.0000])
    """
    return limit * torch.tanh(raw / limit)


def check_batch(
    x: Tensor,
    d: int | None = None,
    name: str = "x",
    context: Tensor | None = None,
    finite: bool = True,
) -> Tensor:
    """Return x if it is a floating-point batch (B, ...), or (B, d) where d is given; else explain.

    Args:
        context: must have as many rows as x, where it is given.
        finite: also look for NaN and infinity. That waits for the device and cannot run under
            vmap, so code that is called at every step of a solver leaves it out.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: wrong shape, an unequal number of rows, or a value that is not finite.

    >>> check_batch(torch.ones(2, 3), 4)
    Traceback (most recent call last):
        ...
    ValueError: x must have shape (B, 4), not (2, 3)
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, not {x.dtype}: convert it with .float()")
    shape = tuple(x.shape)
    if d is not None and (x.ndim != 2 or x.shape[1] != d):
        raise ValueError(f"{name} must have shape (B, {d}), not {shape}")
    if x.ndim == 0:
        raise ValueError(
            f"{name} must have the batch as its first dimension; it is a single number"
        )
    if context is not None:
        if not isinstance(context, Tensor):
            raise TypeError(f"context must be a torch.Tensor, not {type(context).__name__}")
        if context.ndim == 0 or len(context) != len(x):
            raise ValueError(
                f"context must have one row for each of the {len(x)} rows of {name}, "
                f"but its shape is {tuple(context.shape)}"
            )
    if finite:
        check_finite(x, name)
        if context is not None and context.is_floating_point():
            check_finite(context, "context")
    return x


def check_finite(x: Tensor, name: str = "x") -> Tensor:
    """Return x if it has no NaN and no infinity; else a ValueError that says how many and where.

    >>> check_finite(torch.tensor([1.0, float('nan')]))
    Traceback (most recent call last):
        ...
    ValueError: x has 1 of 2 values that are NaN or infinite, the first at index (1,)
    """
    bad = ~torch.isfinite(x)
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{name} has {int(bad.sum())} of {x.numel()} values that are NaN or infinite, "
            f"the first at index {first}"
        )
    return x


def known(condition: Tensor) -> bool:
    """Whether a condition on values holds; False under vmap, which knows no single answer.

    >>> known(torch.tensor(2.0) > 1)
    True
    """
    try:
        return bool(condition)
    except RuntimeError:
        return False


def can_look(x: Tensor) -> bool:
    """Whether values can be checked for nothing: on a CPU (a GPU would be waited for), not compiled.

    >>> can_look(torch.ones(2))
    True
    """
    return x.device.type == "cpu" and not is_compiling()


def check_indices(k: Tensor, count: int, name: str) -> Tensor:
    """Return whole numbers k if they lie in 0 .. count - 1; else say where they lie.

    Not looked at on a GPU, which would have to be waited for; there an index out of range stops the
    kernel that uses it.

    >>> check_indices(torch.tensor([3, 7]), 5, "labels")
    Traceback (most recent call last):
        ...
    ValueError: labels go from 0 to 4, got 3 to 7
    """
    if can_look(k) and known(((k < 0) | (k >= count)).any()):
        raise ValueError(f"{name} go from 0 to {count - 1}, got {int(k.min())} to {int(k.max())}")
    return k


def check_count(n: int, name: str = "n", least: int = 1) -> int:
    """Return n if it is a whole number from `least` up; else explain.

    >>> check_count(0, 'steps')
    Traceback (most recent call last):
        ...
    ValueError: steps must be at least 1, not 0
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"{name} must be an int, not {type(n).__name__}")
    if n < least:
        raise ValueError(f"{name} must be at least {least}, not {n}")
    return n
