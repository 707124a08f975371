"""The evidence lower bound and its parts, in nats, per example: no mean over the batch here.

Samples of the latent variable come first in a shape: z is (n, B, d), its densities and the
log-weights are (n, B).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lib.utils import check_count, std_normal_log_prob, sum_dims


class Elbo(NamedTuple):
    """recon = E_q log p(x | z) and kl = E_q [log q(z | x) - log p(z)], each (B,), in nats.

    >>> Elbo(recon=torch.tensor([-3.0]), kl=torch.tensor([1.0])).total
    tensor([-4.])
    """

    recon: Tensor
    kl: Tensor

    @property
    def total(self) -> Tensor:
        """The bound on log p(x): recon - kl."""
        return self.recon - self.kl


def normal_log_prob(x: Tensor, mean: Tensor | float, log_std: Tensor | float) -> Tensor:
    """log N(x; mean, diag(exp(log_std))^2), summed for each example: (B, ...) -> (B,).

    mean and log_std are numbers or broadcast to the shape of x. Three standard deviations away
    costs 4.5 nats: the argument is the log of the standard deviation, not of the variance.

    >>> normal_log_prob(torch.tensor([[3.0]]), 0.0, 0.0) - normal_log_prob(torch.zeros(1, 1), 0.0, 0.0)
    tensor([-4.5000])
    """
    mean, log_std = _like(x, mean, "mean"), _like(x, log_std, "log_std")
    white = (x - mean) * (-log_std).exp().clamp_max(torch.finfo(x.dtype).max)  # 0 stays 0
    return std_normal_log_prob(white) - sum_dims(log_std.expand_as(x))


def _like(x: Tensor, value: Tensor | float, name: str) -> Tensor:
    value = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    if value.ndim == 0 or value.shape == x.shape:  # the usual cases, without broadcast_shapes
        return value
    try:
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} must broadcast to the shape {tuple(x.shape)} of x, got {tuple(value.shape)}"
        )
    return value


def kl_normal(
    mean: Tensor, log_std: Tensor, mean2: Tensor | float = 0.0, log_std2: Tensor | float = 0.0
) -> Tensor:
    """KL(N(mean, std^2) || N(mean2, std2^2)), diagonal, (B, ...) -> (B,); to N(0, I) by default.

    With r = std / std2: sum of (r^2 - 1) / 2 - log r + ((mean - mean2) / std2)^2 / 2. Kingma and
    Welling (2014), appendix B, is the case mean2 = 0, std2 = 1.

    >>> kl_normal(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2))
    tensor([2.])
    """
    log_std = _like(mean, log_std, "log_std")
    mean2, log_std2 = _like(mean, mean2, "mean2"), _like(mean, log_std2, "log_std2")
    log_r = log_std - log_std2
    spread = 0.5 * torch.expm1(2 * log_r) - log_r
    inverse = (-log_std2).exp().clamp_max(torch.finfo(mean.dtype).max)  # 0 times it stays 0
    return sum_dims(spread + 0.5 * ((mean - mean2) * inverse) ** 2)


def kl_full(m1: Tensor, C1: Tensor, m2: Tensor, C2: Tensor) -> Tensor:
    """KL(N(m1, C1) || N(m2, C2)) for full covariances: (..., D) and (..., D, D) -> (...).

    (tr(C2^-1 C1) + (m2 - m1)' C2^-1 (m2 - m1) - D + log det C2 - log det C1) / 2, with Cholesky
    factors in place of inverses and determinants. The four arguments broadcast. Raises ValueError
    unless both covariances are symmetric and positive definite.

    >>> kl_full(torch.zeros(2), torch.eye(2), torch.ones(2), torch.eye(2))
    tensor(1.)
    """
    L1, L2 = _cholesky(C1, "C1"), _cholesky(C2, "C2")
    batch = torch.broadcast_shapes(L1.shape[:-2], L2.shape[:-2], m1.shape[:-1], m2.shape[:-1])
    D = L1.shape[-1]
    ratio = torch.linalg.solve_triangular(L2, L1, upper=False)  # tr(C2^-1 C1) = |L2^-1 L1|^2
    shift = torch.linalg.solve_triangular(L2, (m2 - m1)[..., None], upper=False)
    log_det1, log_det2 = (2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1) for L in (L1, L2))
    square = ratio.square().sum((-2, -1)) + shift.square().sum((-2, -1))
    return (0.5 * (square - D + log_det2 - log_det1)).expand(batch)


def _cholesky(C: Tensor, name: str) -> Tensor:
    if C.ndim < 2 or C.shape[-1] != C.shape[-2]:
        raise ValueError(f"{name} must be square matrices (..., D, D), got {tuple(C.shape)}")
    L, failed = torch.linalg.cholesky_ex(C)  # reads the lower triangle only
    size = C.abs().amax((-2, -1), keepdim=True)
    if failed.any() or not ((C - C.mT).abs() <= 1e-5 * size).all():
        raise ValueError(f"{name} must be symmetric and positive definite")
    return L


def draw(
    mean: Tensor, log_std: Tensor, n: int = 1, noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """n samples z = mean + std eps of a diagonal normal q, and log q(z): (n, B, ...), (n, B).

    `noise` is eps, (n, B, ...), drawn if not given: the reparameterisation of Kingma and Welling
    (2014), section 2.4.

    >>> z, log_q = draw(torch.zeros(4, 2), torch.zeros(4, 2), n=3)
    >>> z.shape, log_q.shape
    (torch.Size([3, 4, 2]), torch.Size([3, 4]))
    """
    log_std = _like(mean, log_std, "log_std")
    check_count(n)
    if noise is None:
        noise = torch.randn(n, *mean.shape, dtype=mean.dtype, device=mean.device)
    _check_noise(noise, (n, *mean.shape))
    z = mean + log_std.exp() * noise
    log_q = std_normal_log_prob(noise.flatten(0, 1)).view(noise.shape[:2])
    log_q = log_q - sum_dims(log_std.expand_as(mean))
    return z, log_q


LogDensity = Callable[[Tensor, Tensor], Tensor]


def _for_each(log_density: Callable[..., Tensor], x: Tensor | None, z: Tensor) -> Tensor:
    """log_density(x, z) of all n samples at once: (B, ...), (n, B, ...) -> (n, B)."""
    n, B = z.shape[:2]
    args = (z.flatten(0, 1),)
    if x is not None:
        args = (x.expand(n, *x.shape).flatten(0, 1), *args)
    value = log_density(*args)
    if value.shape != (n * B,):
        raise ValueError(
            f"a log-density must give one number per example, ({n * B},), got {tuple(value.shape)}"
        )
    return value.view(n, B)


def elbo_normal(
    x: Tensor,
    log_likelihood: LogDensity,
    mean: Tensor,
    log_std: Tensor,
    n: int = 1,
    *,
    log_prior: Callable[[Tensor], Tensor] | None = None,
    form: str = "kl",
    noise: Tensor | None = None,
) -> Elbo:
    """The bound for q(z | x) = N(mean, std^2), n samples for what has no closed form: -> (B,) each.

    log_likelihood(x, z) is log p(x | z), (B, ...), (B, d) -> (B,). The prior is N(0, I), or
    log_prior(z). The forms are equal in expectation; they differ in which part is known in closed
    form:

        "kl"       E log p(x | z) - KL(q || p)       the divergence; the prior is N(0, I)
        "entropy"  E log p(x, z) + H(q)              the entropy
        "joint"    E [log p(x, z) - log q(z | x)]    nothing; no variance at the posterior

    >>> log_likelihood = lambda x, z: normal_log_prob(x, z, 0.0)
    >>> elbo_normal(torch.zeros(4, 2), log_likelihood, torch.zeros(4, 2), torch.zeros(4, 2)).kl
    tensor([0., 0., 0., 0.])
    """
    if form not in ("kl", "entropy", "joint"):
        raise ValueError(f'form must be "kl", "entropy" or "joint", got {form!r}')
    if form == "kl" and log_prior is not None:
        raise ValueError('form "kl" knows the standard normal prior only: use "entropy" or "joint"')
    z, log_q = draw(mean, log_std, n, noise)
    recon = _for_each(log_likelihood, x, z).mean(0)
    if form == "kl":
        return Elbo(recon, kl_normal(mean, log_std))
    log_p = _for_each(log_prior or std_normal_log_prob, None, z).mean(0)
    if form == "joint":
        return Elbo(recon, log_q.mean(0) - log_p)
    entropy = sum_dims(log_std.expand_as(mean) + 0.5 * math.log(2 * math.pi * math.e))
    return Elbo(recon, -entropy - log_p)


def log_weights(
    x: Tensor,
    log_joint: LogDensity,
    mean: Tensor,
    log_std: Tensor,
    n: int,
    noise: Tensor | None = None,
) -> Tensor:
    """log p(x, z) - log q(z | x) for n samples of q = N(mean, std^2): (n, B); the mean is the ELBO.

    log_joint(x, z) is log p(x, z), (B, ...), (B, d) -> (B,).

    >>> log_joint = lambda x, z: normal_log_prob(x, z, 0.0) + std_normal_log_prob(z)
    >>> log_weights(torch.zeros(4, 2), log_joint, torch.zeros(4, 2), torch.zeros(4, 2), n=5).shape
    torch.Size([5, 4])
    """
    z, log_q = draw(mean, log_std, n, noise)
    return _for_each(log_joint, x, z) - log_q


def importance_bound(log_w: Tensor) -> Tensor:
    """log (1/n sum_k w_k), (n, ...) -> (...): in expectation a bound on log p(x), tighter with n.

    n = 1 is the ELBO; n to infinity is log p(x). Burda, Grosse and Salakhutdinov (2016), equation
    (8).

    >>> importance_bound(torch.tensor([1.0, 3.0]).log())
    tensor(0.6931)
    """
    check_count(len(log_w), "the number of weights")
    return torch.logsumexp(log_w, 0) - math.log(len(log_w))


def importance_stderr(log_w: Tensor) -> Tensor:
    """Standard error of `importance_bound` by the delta method: std(w) / (mean(w) sqrt(n)).

    It sees only the weights that were drawn: where `effective_sample_size` is small it is too
    optimistic.

    >>> importance_stderr(torch.tensor([[2.0], [2.0], [2.0]]).log())
    tensor([0.])
    """
    n = len(log_w)
    if n < 2:
        raise ValueError(f"a standard error needs at least 2 weights, got {n}")
    share = torch.softmax(log_w, 0) * n  # w / mean(w), of mean 1
    return ((share - 1).square().sum(0) / (n - 1) / n).sqrt()


def effective_sample_size(log_w: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, (n, ...) -> (...): from 1 (one has it all) to n (equal). Kong (1992).

    >>> effective_sample_size(torch.tensor([1.0, 1.0, 0.0]).log())
    tensor(2.)
    """
    check_count(len(log_w), "the number of weights")
    return 1 / torch.softmax(log_w, 0).square().sum(0)  # no difference of two large logarithms


def _check_noise(noise: Tensor, shape: tuple[int, ...]) -> None:
    if noise.shape != shape:
        raise ValueError(f"noise must have shape {shape}, got {tuple(noise.shape)}")
