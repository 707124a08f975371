"""The divergence of a field by automatic differentiation: exact with D directions, or estimated."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from lib.utils import check_count

try:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # torch's fused attention has no second derivative, and under vmap it is a loop and a warning
    _attention_by_formula = partial(sdpa_kernel, SDPBackend.MATH)
except ImportError:  # torch 2.2
    _attention_by_formula = partial(
        torch.backends.cuda.sdp_kernel, enable_flash=False, enable_mem_efficient=False
    )

Field = Callable[[Tensor, Tensor], Tensor]
PROBES = ("rademacher", "gaussian")


def rows(field: Field, t: Tensor, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """v(t, x) and e'J for several directions at once, (P, B, ...) -> (P, B, ...): one backward pass.

    Reverse mode, because in PyTorch on a CPU it takes half the time of forward mode: `jvp` also
    multiplies by the tangents of the weights, which are zero.

    >>> turn = lambda t, x: x @ torch.tensor([[0.5, -1.0], [1.0, 0.5]])
    >>> rows(turn, torch.zeros(()), torch.ones(3, 2), torch.ones(1, 3, 2))[1].shape
    torch.Size([1, 3, 2])
    """
    keep = torch.is_grad_enabled()
    with _attention_by_formula():
        v, pull = torch.func.vjp(lambda y: field(t, y), x)
        with torch.enable_grad():  # without, GroupNorm's backward pass in channels_last has no vmap
            eJ = torch.func.vmap(pull)(e)[0]
    return v, eJ if keep else eJ.detach()


def directions(x: Tensor) -> Tensor:
    """The D unit vectors for each example: (B, ...) -> (D, B, ...).

    >>> directions(torch.ones(1, 2))[:, 0]
    tensor([[1., 0.],
            [0., 1.]])
    """
    D = x.shape[1:].numel()
    eye = torch.eye(D, dtype=x.dtype, device=x.device).view(D, 1, *x.shape[1:])
    return eye.expand(D, *x.shape)


def exact_divergence(field: Field, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """v(t, x) and its divergence, tr dv/dx, by all D directions at once: (B, ...) -> (B, ...), (B,).

    >>> turn = lambda t, x: x @ torch.tensor([[0.5, -1.0], [1.0, 0.5]])
    >>> exact_divergence(turn, torch.zeros(()), torch.ones(3, 2))[1]
    tensor([1., 1., 1.])
    """
    e = directions(x)
    v, eJ = rows(field, t, x, e)
    return v, (eJ * e).flatten(2).sum((0, 2))


def hutchinson(field: Field, t: Tensor, x: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    """v(t, x) and e'Je, whose mean over e with E[ee'] = I is the divergence: (B, ...) -> (B, ...), (B,).

    `probe`, (B, ...), or several that are averaged, (P, B, ...). Hutchinson (1990). The variance is
    2 |S|^2 for Gaussian e, 2 (|S|^2 - sum of S_ii^2) for signs, S = (J + J') / 2 and |.| the
    Frobenius norm; divided by P.

    >>> turn = lambda t, x: x @ torch.tensor([[0.5, -1.0], [1.0, 0.5]])
    >>> hutchinson(turn, torch.zeros(()), torch.ones(3, 2), torch.ones(3, 2))[1]
    tensor([1., 1., 1.])
    """
    e = probe if probe.ndim > x.ndim else probe[None]
    v, eJ = pull_one_by_one(field, t, x, e)
    return v, (eJ * e).flatten(2).sum(2).mean(0)


def pull_one_by_one(field: Field, t: Tensor, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """As `rows`, one backward pass for each direction: faster for few.

    >>> turn = lambda t, x: x @ torch.tensor([[0.5, -1.0], [1.0, 0.5]])
    >>> pull_one_by_one(turn, torch.zeros(()), torch.ones(3, 2), torch.ones(1, 3, 2))[1].shape
    torch.Size([1, 3, 2])
    """
    if (
        torch.is_inference_mode_enabled()
    ):  # autograd records nothing; func.vjp has a graph of its own
        return rows(field, t, x, e)
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        # without gradients x may be a view that says it needs one and has no graph: its J would be 0
        y = x if keep and x.requires_grad else x.detach().requires_grad_()
        with _attention_by_formula() if keep else nullcontext():
            v = field(t, y)
        if not v.requires_grad:  # a constant
            return v, torch.zeros_like(e)
        kwargs = dict(create_graph=keep, retain_graph=True, materialize_grads=True)
        eJ = [torch.autograd.grad(v, y, row, **kwargs)[0] for row in e]
    return v if keep else v.detach(), torch.stack(eJ)


def draw_probes(x: Tensor, probe: str = "rademacher", probes: int = 1, generator=None) -> Tensor:
    """Random directions of mean 0 and covariance I for `hutchinson`: (probes, *x.shape).

    >>> draw_probes(torch.ones(4, 2), probes=3).abs().unique()
    tensor([1.])
    """
    if probe not in PROBES:
        raise ValueError(f"probe is one of {', '.join(PROBES)}; got {probe!r}")
    like = dict(dtype=x.dtype, device=x.device)
    shape = (check_count(probes, "probes"), *x.shape)
    if probe == "gaussian":
        return torch.randn(shape, generator=generator, **like)
    return torch.randint(2, shape, generator=generator, **like).mul_(2).sub_(1)
