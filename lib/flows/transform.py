"""Bijections between data and base, and how they combine.

`to_base` and `from_base` each return the image of a batch and log|det J| of the map *just applied*,
one number for each example. The direction is in the name, because libraries disagree about what
`forward` means.
"""

import math

import torch
from torch import Tensor, nn

from lib.utils import check_batch


class Transform(nn.Module):
    """A bijection (B, ...) -> (B, ...) with its logabsdet, (B,). Subclasses write the two maps.

    A subclass whose map depends on a context sets `takes_context = True`; every concrete map starts
    with `self.check(x, context)`, which turns a caller's mistake into one sentence.

    >>> from lib.flows import Affine
    >>> Affine(2).takes_context, Affine(2).shape
    (False, (2,))
    """

    takes_context = False
    shape: tuple[int, ...] | None = None  # of one example, where the transform knows it

    def to_base(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x -> z and log|det dz/dx|: (B, ...), (B, C) or None -> (B, ...), (B,)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no map to the base in closed form: use from_base (samples "
            f"and their density), or solve from_base(z) = x for z numerically"
        )

    def from_base(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z -> x and log|det dx/dz|: (B, ...), (B, C) or None -> (B, ...), (B,)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no map from the base in closed form: use to_base "
            f"(densities), or solve to_base(x) = z for x numerically"
        )

    def x_from_base(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The x of `from_base` alone: (B, ...), (B, C) or None -> (B, ...), differentiable.

        Overridden where the log-determinant costs extra, and where parts may be of that kind.
        """
        return self.from_base(z, context)[0]

    def forward(self, *args, **kwargs):
        raise TypeError(
            f"a transform has two directions: call {type(self).__name__}.to_base or .from_base"
        )

    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        """Raise a ValueError or TypeError if this transform cannot take `x` and `context`."""
        check_input(self, x, context)
        if x.dtype in (torch.float16, torch.bfloat16):  # a log-determinant of three digits, or NaN
            raise TypeError(
                f"{type(self).__name__} got {x.dtype}: the map itself needs float32; use autocast "
                f"around networks"
            )


def check_input(module: nn.Module, x: Tensor, context: Tensor | None = None) -> None:
    """Raise, in one sentence, unless `module` can take the batch `x` and the `context`.

    Looks at shape, precision, device and context, never at values: it costs no wait for the device,
    and runs under vmap. Uses `module.shape` (of one example; None if any will do) and
    `module.takes_context`.

    >>> import torch
    >>> from lib.flows import Affine
    >>> check_input(Affine(2), torch.ones(5, 3))
    Traceback (most recent call last):
        ...
    ValueError: Affine expected shape (B, 2), got (5, 3)
    """
    name = type(module).__name__
    check_batch(x, name=f"the input of {name}", finite=False)
    if x.ndim < 2 or (module.shape is not None and tuple(x.shape[1:]) != tuple(module.shape)):
        want = "B, ..." if module.shape is None else ", ".join(map(str, ("B", *module.shape)))
        raise ValueError(f"{name} expected shape ({want}), got {tuple(x.shape)}")
    p = next(module.parameters(), x)
    if p.device != x.device:
        raise ValueError(f"{name} is on {p.device}, its input on {x.device}: move one with .to()")
    if p.dtype != x.dtype:
        raise TypeError(
            f"{name} has {p.dtype} parameters, its input is {x.dtype}: convert one with .to()"
        )
    check_context(module, x, context)


def check_context(module: nn.Module, x: Tensor, context: Tensor | None) -> None:
    """Raise if a context is missing, not wanted, or not one row for each example.

    >>> import torch
    >>> from lib.flows import Affine
    >>> check_context(Affine(2), torch.ones(5, 2), torch.ones(5, 1))
    Traceback (most recent call last):
        ...
    ValueError: Affine takes no context, got one of shape (5, 1)
    """
    name = type(module).__name__
    if context is None:
        if module.takes_context:
            raise ValueError(f"{name} needs a context, one row for each of the {len(x)} examples")
    elif not isinstance(context, Tensor):
        raise TypeError(f"{name}'s context must be a torch.Tensor, not {type(context).__name__}")
    elif not module.takes_context:
        raise ValueError(f"{name} takes no context, got one of shape {tuple(context.shape)}")
    elif context.ndim == 0 or len(context) != len(x):
        raise ValueError(
            f"{name} expected one row of context for each of the {len(x)} examples, got shape "
            f"{tuple(context.shape)}"
        )


def _check_limit(limit: float) -> float:
    """Return the largest |log-scale| of a map: 0 would divide by it, infinity multiply 0 by it."""
    if not 0 < limit < math.inf:
        raise ValueError(f"limit must be finite and above 0, got {limit}")
    return limit


def _one_each(log_prob: Tensor, z: Tensor, name: str) -> Tensor:
    """Return what a base says of z; not summed over dimensions, it would broadcast to (B, B)."""
    if log_prob.shape != z.shape[:1]:
        raise ValueError(
            f"{name} must have shape ({len(z)},), one number for each example, got "
            f"{tuple(log_prob.shape)}"
        )
    return log_prob


class Compose(Transform):
    """Transforms in the order from data to base; the log-determinants add up (chain rule).

    Parts that take no context are simply not handed it, so conditional and unconditional parts mix;
    a context that no part takes is an error.

    >>> from lib.flows import LULinear, Rotation
    >>> len(Compose(Rotation(2), LULinear(2)).transforms)
    2
    """

    def __init__(self, *transforms: Transform):
        super().__init__()
        for t in transforms:
            if not isinstance(t, Transform):
                raise TypeError(
                    f"Compose takes transforms, Compose(f, g), got a {type(t).__name__}"
                )
        self.transforms = nn.ModuleList(transforms)

    @property
    def takes_context(self) -> bool:
        return any(t.takes_context for t in self.transforms)

    def to_base(self, x, context=None):
        self.check(x, context)
        logabsdet = x.new_zeros(len(x))
        for t in self.transforms:
            x, step = t.to_base(x, context if t.takes_context else None)
            logabsdet = logabsdet + step
        return x, logabsdet

    def from_base(self, z, context=None):
        self.check(z, context)
        logabsdet = z.new_zeros(len(z))
        for t in reversed(self.transforms):
            z, step = t.from_base(z, context if t.takes_context else None)
            logabsdet = logabsdet + step
        return z, logabsdet

    def x_from_base(self, z, context=None):
        self.check(z, context)
        for t in reversed(self.transforms):
            z = t.x_from_base(z, context if t.takes_context else None)
        return z


class Inverse(Transform):
    """The same bijection, run the other way round: IAF is `Inverse` of MAF.

    >>> import torch
    >>> from lib.flows import Permutation
    >>> Inverse(Permutation([2, 0, 1])).from_base(torch.tensor([[0.0, 1.0, 2.0]]))[0]
    tensor([[2., 0., 1.]])
    """

    def __init__(self, transform: Transform):
        super().__init__()
        self.transform = transform

    @property
    def takes_context(self) -> bool:
        return self.transform.takes_context

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.transform.shape

    def to_base(self, x, context=None):
        return self.transform.from_base(x, context)

    def from_base(self, z, context=None):
        return self.transform.to_base(z, context)
