"""Conditions by Bayes' rule: grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t).

Everything here is a denoiser around a denoiser, so that every sampler takes it. To add g to the
score is to add sigma^2 / alpha g to x_hat and -sigma g to eps_hat.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lib.data.densities import GaussianMixture
from lib.diffusion.denoiser import BaseDenoiser
from lib.diffusion.schedule import Schedule, Time
from lib.utils import full_precision

LogLikelihood = Callable[[Tensor, Time, Tensor | None], Tensor]


class Guided(BaseDenoiser):
    """Classifier-free guidance: (1 - w) unconditional + w conditional, by one call for both.

    w = 0 is unconditional, w = 1 conditional, above 1 sharper. Ho and Salimans (2022), equation 6,
    where w is counted from 0 at the conditional model: ours is theirs plus one. For w other than 0
    and 1 the result is not the score of any noised density: see chapter 10.

    Args:
        null: the context that stands for "no condition", a number or a tensor like one row of the
            context; None if the denoiser itself takes the context None (then two calls are made).

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser
    >>> model, labels = ExactDenoiser(two_gaussians(), VP()), torch.tensor([0, 1])
    >>> Guided(model, w=2.0)(torch.zeros(2, 2), 0.5, labels).round(decimals=1)
    tensor([[-3.4000,  0.0000],
            [ 2.5000,  0.0000]])
    """

    def __init__(self, denoiser: BaseDenoiser, w: float, null: Tensor | float | int | None = None):
        super().__init__()
        self.denoiser, self.w, self.null = denoiser, float(w), null
        self.schedule = denoiser.schedule

    def split(self, x_t, t, context=None):
        if context is None:
            raise ValueError("guidance needs a context: what to steer towards")
        if self.w == 1:
            return self.denoiser.split(x_t, t, context)
        null = None
        if self.null is not None:
            null = torch.as_tensor(self.null, dtype=context.dtype, device=context.device)
            null = null.expand_as(context)
        if self.w == 0:
            return self.denoiser.split(x_t, t, null)
        if null is None:
            without = self.denoiser.split(x_t, t, None)
            with_it = self.denoiser.split(x_t, t, context)
            return tuple(a.lerp(b, self.w) for a, b in zip(without, with_it, strict=True))
        times = torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t
        both = self.denoiser.split(torch.cat([x_t, x_t]), times, torch.cat([null, context]))
        return tuple(torch.lerp(*half.chunk(2), self.w) for half in both)


class _Shifted(BaseDenoiser):
    """Adds a gradient to the score of another denoiser."""

    def __init__(self, denoiser: BaseDenoiser):
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def _add(self, parts, grad, x_t, t):
        alpha, sigma = self.scales(x_t, t)
        x_hat, eps_hat = parts
        return x_hat + sigma * sigma / alpha * grad, eps_hat - sigma * grad


class ClassifierGuided(_Shifted):
    """score + w grad log p(y | x_t), with a classifier of *noisy* inputs.

    w = 1 is Bayes' rule. Dhariwal and Nichol (2021), section 4; Song et al. (2021), equation 14.

    Args:
        log_prob: log_prob(x_t, t, context) -> (B,), log p(context | x_t) in nats, by operations
            that `torch.func.grad` can differentiate.

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser
    >>> right = lambda x, t, context: x[:, 0]  # log p(y | x_t), up to a constant
    >>> model = ExactDenoiser(two_gaussians(), VP())
    >>> x = torch.zeros(1, 2)
    >>> (ClassifierGuided(model, right).score(x, 0.5) - model.score(x, 0.5)).round(decimals=3)
    tensor([[1., 0.]])
    """

    def __init__(self, denoiser: BaseDenoiser, log_prob: LogLikelihood, w: float = 1.0):
        super().__init__(denoiser)
        self.log_prob, self.w = log_prob, float(w)

    def split(self, x_t, t, context=None):
        parts = self.denoiser.split(x_t, t)
        if self.w == 0:
            return parts
        log, pull = torch.func.vjp(lambda x: self.log_prob(x, t, context), x_t)
        with full_precision(x_t):  # of what is exact, the slope too
            grad = pull(torch.ones_like(log))[0]
        return self._add(parts, self.w * grad, x_t, t)


class LinearInverse(_Shifted):
    """E[x | x_t, y] for y = A x + noise of standard deviation `std`, by an approximate likelihood.

    p(y | x_t) is taken as N(y; A x_hat, r^2 AA' + std^2 I), r^2 = v sigma^2 / (alpha^2 v + sigma^2)
    with v = spread^2: exact for data N(m, v I), where x_hat spreads by r. The gradient passes
    through the denoiser. spread = 1 is Pi-GDM (Song, Vahdat et al. 2023); spread = 0 leaves out that
    x_hat is uncertain, which is DPS (Chung et al. 2023) with its weight at the value of theory.

    Args:
        A: (M, D), applied to the flattened example. y: (M,), or (B, M).
        spread: standard deviation of the data around its mean, in each direction.

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser
    >>> A, y = torch.tensor([[1.0, 0.0]]), torch.tensor([1.5])
    >>> model = LinearInverse(ExactDenoiser(two_gaussians(), VP()), A, y, std=0.1)
    >>> model(torch.zeros(1, 2), 0.9).shape
    torch.Size([1, 2])
    """

    def __init__(
        self, denoiser: BaseDenoiser, A: Tensor, y: Tensor, std: float, spread: float = 1.0
    ):
        super().__init__(denoiser)
        _check_measurement(A, y, std)
        if spread < 0:
            raise ValueError(f"spread is a standard deviation, not below zero; got {spread}")
        self.std, self.spread = float(std), float(spread)
        values, vectors = torch.linalg.eigh(A.double() @ A.double().mT)
        for name, value in (("A", A), ("y", y), ("values", values), ("vectors", vectors)):
            self.register_buffer(name, value, persistent=False)

    def split(self, x_t, t, context=None):
        alpha, sigma = self.scales(x_t.flatten(1), t)
        A, U, values = self.A.to(x_t), self.vectors.to(x_t), self.values.to(x_t)
        (x_hat, eps_hat), pull = torch.func.vjp(lambda x: self.denoiser.split(x, t, context), x_t)
        v = self.spread**2
        r2 = v * sigma**2 / (alpha**2 * v + sigma**2)
        with full_precision(x_t):  # std may be far below bfloat16's digits
            residual = self.y.to(x_t) - x_hat.to(x_t).flatten(1) @ A.mT
            weighted = (residual @ U) / (r2 * values + self.std**2) @ U.mT
            back = (weighted @ A).view_as(x_hat).to(x_hat)
            pulled = pull((back, torch.zeros_like(eps_hat)))[0]
        return self._add((x_hat, eps_hat), pulled, x_t, t)


def linear_posterior(mixture: GaussianMixture, A: Tensor, y: Tensor, std: float) -> GaussianMixture:
    """p(x | y) for y = A x + noise of standard deviation `std` and one y (M,): a mixture, exactly.

    With `ExactDenoiser` it gives the exact conditional denoiser.

    Raises:
        ValueError: shapes that do not fit, or a std not above 0 or too small for float64.

    >>> from lib.data.densities import two_gaussians
    >>> A, y = torch.tensor([[1.0, 0.0]]), torch.tensor([1.5])
    >>> linear_posterior(two_gaussians(), A, y, std=0.01).moments()[0].round(decimals=2)
    tensor([1.5000, 0.0000], dtype=torch.float64)
    """
    A, y = A.double(), y.double()
    _check_measurement(A, y, std)
    if y.ndim != 1:
        raise ValueError(f"linear_posterior conditions on one y (M,), got {tuple(y.shape)}")
    cov = _measured_cov(mixture.covs, A, std)
    gain = torch.linalg.solve(cov, A @ mixture.covs).mT  # (K, D, M)
    off = y - mixture.means @ A.mT  # (K, M)
    log = mixture.weights.log() + _log_normal(off, cov)
    means = mixture.means + torch.einsum("kdm,km->kd", gain, off)
    # Joseph's form, a sum of squares: in C - G A C a small std^2 is lost beside C
    rest = torch.eye(A.shape[1], dtype=A.dtype, device=A.device) - gain @ A
    covs = rest @ mixture.covs @ rest.mT + std**2 * gain @ gain.mT
    if (torch.linalg.eigvalsh(covs) <= 0).any():  # off the axes it is lost in the sums themselves
        raise ValueError(
            f"std = {std:.3g} is too small beside the data's spread: float64 does not hold the "
            f"covariance of what is left"
        )
    weights = log.softmax(0).clamp_min(torch.finfo(log.dtype).tiny)  # a mixture's are above 0
    return GaussianMixture(weights, means, 0.5 * (covs + covs.mT))


def linear_likelihood(
    mixture: GaussianMixture, schedule: Schedule, A: Tensor, y: Tensor, std: float
) -> LogLikelihood:
    """log p(y | x_t) of a mixture in closed form, for `ClassifierGuided`: (B, D), t -> (B,).

    y is one measurement (M,), or one for each row (B, M).

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP
    >>> A, y = torch.tensor([[1.0, 0.0]]), torch.tensor([1.5])
    >>> linear_likelihood(two_gaussians(), VP(), A, y, std=0.1)(torch.zeros(3, 2), 0.5).shape
    torch.Size([3])
    """
    _check_measurement(A, y, std)

    def log_prob(x_t: Tensor, t: Time, context: Tensor | None = None) -> Tensor:
        with full_precision(x_t):  # std may be far below bfloat16's digits
            post = mixture.posterior(x_t, schedule.alpha(t), schedule.sigma(t))
            a = A.to(x_t)
            off = y.to(x_t)[..., None, :] - post.means @ a.mT  # (B, K, M)
            log = _log_normal(off, _measured_cov(post.covs, a, std))
            return (post.log_weights + log).logsumexp(1)

    return log_prob


def _measured_cov(covs: Tensor, A: Tensor, std: float) -> Tensor:
    """The covariance of y, A C A' + std^2 I, for covs (..., D, D)."""
    return A @ covs @ A.mT + std**2 * torch.eye(len(A), dtype=A.dtype, device=A.device)


def _log_normal(off: Tensor, cov: Tensor) -> Tensor:
    """log N(off; 0, cov): (..., M), (..., M, M) -> (...)."""
    chol = torch.linalg.cholesky(cov)
    z = torch.linalg.solve_triangular(chol, off[..., None], upper=False)[..., 0]
    log_det = chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (z.square() + 1.8378770664093453).sum(-1) - log_det  # log(2 pi)


def _check_measurement(A: Tensor, y: Tensor, std: float) -> None:
    if A.ndim != 2 or y.ndim not in (1, 2) or y.shape[-1] != len(A):
        raise ValueError(
            f"A must be (M, D) and y (M,) or (B, M); got {tuple(A.shape)} and {tuple(y.shape)}"
        )
    if not std > 0:
        raise ValueError(f"std, the measurement's noise, must be above zero; got {std}")
