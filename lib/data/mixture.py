"""Gaussian mixtures: their noised marginals, scores and posteriors, all in closed form."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..utils import can_look, check_batch, known
from .base import Density, Draw

_LOG_2PI = math.log(2 * math.pi)


class GaussianMixture(Density):
    """p(x) = sum_k w_k N(x; m_k, C_k) on R^D.

    Args:
        weights: (K,), positive, summing to one.
        means: (K, D).
        covs: (K, D, D), or (D, D) for all; symmetric, positive definite.

    Everything is done along the axes of the covariances (C = Q diag(v) Q^T), found once: isotropic
    noise changes v and leaves Q alone.

    >>> p = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[0.25]])
    >>> p.score(torch.tensor([[0.0]])), p.noised(0.6, 0.8).variances.flatten()
    (tensor([[-0.]]), tensor([0.7300, 0.7300], dtype=torch.float64))
    """

    def __init__(self, weights, means, covs):
        weights, means, covs = (
            torch.as_tensor(a, dtype=torch.float64) for a in (weights, means, covs)
        )
        if means.ndim != 2:
            raise ValueError(f"means must have shape (K, D), not {tuple(means.shape)}")
        k, d = means.shape
        if weights.shape != (k,):
            raise ValueError(f"weights must have shape ({k},), not {tuple(weights.shape)}")
        if not (weights > 0).all() or abs(float(weights.sum()) - 1) > 1e-6:
            raise ValueError(f"weights must be positive and sum to one, not {weights.tolist()}")
        if covs.shape not in ((k, d, d), (d, d)):
            raise ValueError(f"covs must have shape ({k}, {d}, {d}), not {tuple(covs.shape)}")
        if not torch.allclose(covs, covs.mT):
            raise ValueError("covs must be symmetric matrices")
        variances, axes = torch.linalg.eigh(covs.expand(k, d, d))
        if not (variances > 0).all():
            raise ValueError("covs must be positive definite: an eigenvalue is not above zero")
        self._set(weights, means, axes, variances)

    def _set(self, weights, means, axes, variances):
        self.weights, self.means, self.axes, self.variances = weights, means, axes, variances
        self.terms, self.dim = means.numel(), means.shape[1]
        self.width = float(variances.detach().min().sqrt())
        return self

    @property
    def covs(self) -> Tensor:
        """(K, D, D)"""
        return (self.axes * self.variances[:, None, :]) @ self.axes.mT

    def __repr__(self):
        return f"GaussianMixture({len(self.weights)} components in {self.dim}-D)"

    def _components(self, x: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0):
        """For the law of alpha x_0 + sigma eps: log w_k N(x; ...) (B, K); x - alpha m_k along the
        axes (B, K, D); the variances along them (B, K, D) or (K, D). alpha, sigma: () or (B, 1, 1).
        """
        delta = x[:, None, :] - alpha * self.means.to(x)
        y = torch.einsum("kij,bki->bkj", self.axes.to(x), delta)
        var = alpha**2 * self.variances.to(x) + sigma**2
        log = -0.5 * (y**2 / var + var.log() + _LOG_2PI).sum(-1)
        return self.weights.to(x).log() + log, y, var

    def _log_prob(self, x):
        return self._components(x)[0].logsumexp(1)

    def score(self, x: Tensor) -> Tensor:
        """grad log p(x) = sum_k p(k | x) C_k^-1 (m_k - x): (B, D) -> (B, D)."""
        self._check(x)
        log, y, var = self._components(x)
        share = _comparable(log, y, var).softmax(1)
        return -torch.einsum("bk,kij,bkj->bi", share, self.axes.to(x), y / var)

    def responsibilities(self, x: Tensor) -> Tensor:
        """p(k | x), the exact classifier: (B, D) -> (B, K)."""
        self._check(x)
        return _comparable(*self._components(x)).softmax(1)

    def component(self, k: int) -> "GaussianMixture":
        """The law of x given that it came from component k."""
        if not 0 <= k < len(self.weights):
            raise ValueError(f"k must be in 0 .. {len(self.weights) - 1}, not {k}")
        i = slice(k, k + 1)
        parts = (torch.ones_like(self.weights[i]), self.means[i], self.axes[i], self.variances[i])
        return GaussianMixture.__new__(GaussianMixture)._set(*parts)

    def _sample(self, n, draw: Draw):
        return self._sample_labelled(n, draw)[0]

    def sample_labelled(self, n: int, generator=None, device=None, dtype=None):
        """Draws and the component each came from: (n, D), (n,) int64. Same draws as `sample`."""
        return self._sample_labelled(n, Draw(generator, device, dtype))

    def _sample_labelled(self, n, draw):
        k = draw.choice(self.weights, n)
        eps = draw.take(self.variances.sqrt(), k) * draw.normal(n, self.dim)
        turned = torch.einsum("bij,bj->bi", draw.take(self.axes, k), eps)
        return draw.take(self.means, k) + turned, k

    def _frame(self, widths):
        reach = widths * self.covs.detach().diagonal(dim1=1, dim2=2).sqrt()
        means = self.means.detach()
        return (means - reach).amin(0), (means + reach).amax(0)

    def moments(self):
        """Mean (D,) and covariance (D, D), in closed form."""
        mean = self.weights @ self.means
        delta = self.means - mean
        outer = delta[:, :, None] * delta[:, None, :]
        return mean, torch.einsum("k,kij->ij", self.weights, self.covs + outer)

    def noised(self, alpha: Tensor | float, sigma: Tensor | float) -> "GaussianMixture":
        """The law of x_t = alpha x_0 + sigma eps: again a mixture, exact for VP and VE alike.

        alpha, sigma: numbers or 0-d tensors; derivatives pass through them, so that
        d log p_t(x) / dt can be had from alpha(t), sigma(t).
        """
        alpha, sigma = _number(alpha, "alpha"), _number(sigma, "sigma")
        parts = (self.weights, alpha * self.means, self.axes, alpha**2 * self.variances + sigma**2)
        return GaussianMixture.__new__(GaussianMixture)._set(*parts)

    def posterior(self, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> "Posterior":
        """The law of x_0 given x_t = alpha x_0 + sigma eps, for each row of x_t (B, D).

        Bayes' rule component by component, where all matrices share the axes of C_k: with variances
        v along them, mean m + (alpha v / s) (x_t - alpha m) and variance sigma^2 v / s, where
        s = alpha^2 v + sigma^2. alpha, sigma: numbers or (B,), sigma > 0 for a density.
        """
        self._check(x_t, "x_t")
        alpha, sigma = _per_example(alpha, x_t, "alpha"), _per_example(sigma, x_t, "sigma")
        log, y, var = self._components(x_t, alpha, sigma)
        v, axes = self.variances.to(x_t), self.axes.to(x_t)
        means = self.means.to(x_t) + torch.einsum("kij,bkj->bki", axes, alpha * v / var * y)
        log_weights = _comparable(log, y, var).log_softmax(1)
        return Posterior(log_weights, means, axes, (sigma**2 * v / var).expand_as(means))

    def denoise(self, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """E[x_0 | x_t]: (B, D) -> (B, D), what an ideal denoiser returns. Tweedie's formula,
        alpha E[x_0 | x_t] = x_t + sigma^2 score(x_t), needs no division by a small sigma here."""
        return self.posterior(x_t, alpha, sigma).mean()

    def _check(self, x, name="x"):
        check_batch(x, self.dim, name, finite=False)


class Posterior(NamedTuple):
    """A Gaussian mixture for each of B examples.

    >>> p = GaussianMixture([1.0], [[0.0]], [[1.0]])
    >>> p.posterior(torch.tensor([[2.0]]), 1.0, 1.0).mean()
    tensor([[1.]])
    """

    log_weights: Tensor  # (B, K)
    means: Tensor  # (B, K, D)
    axes: Tensor  # (K, D, D), columns; the covariance is axes diag(variances) axes^T
    variances: Tensor  # (B, K, D)

    @property
    def weights(self) -> Tensor:
        """(B, K)"""
        return self.log_weights.exp()

    @property
    def covs(self) -> Tensor:
        """(B, K, D, D)"""
        return torch.einsum("kil,bkl,kjl->bkij", self.axes, self.variances, self.axes)

    def mean(self) -> Tensor:
        """(B, D)"""
        return torch.einsum("bk,bki->bi", self.weights, self.means)

    def cov(self) -> Tensor:
        """(B, D, D)"""
        delta = self.means - self.mean()[:, None]
        delta = delta.masked_fill((self.weights == 0)[..., None], 0)  # 0 times inf is NaN
        outer = delta[..., :, None] * delta[..., None, :]
        return torch.einsum("bk,bkij->bij", self.weights, self.covs + outer)

    def log_prob(self, x_0: Tensor) -> Tensor:
        """log p(x_0 | x_t), row by row: (B, D) -> (B,)."""
        y = torch.einsum("kij,bki->bkj", self.axes, x_0[:, None] - self.means)
        log = -0.5 * (y**2 / self.variances + self.variances.log() + _LOG_2PI).sum(-1)
        return (self.log_weights + log).logsumexp(1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw for each row, (B, D)."""
        k = self.weights.multinomial(1, generator=generator)[:, 0]
        row = torch.arange(len(k), device=k.device)
        draw = Draw(generator, self.means.device, self.means.dtype)
        eps = self.variances[row, k].sqrt() * draw.normal(*self.means[row, k].shape)
        return self.means[row, k] + torch.einsum("bij,bj->bi", self.axes[k], eps)


def _comparable(log: Tensor, y: Tensor, var: Tensor) -> Tensor:
    """What `_components` gives, (B, K), with no row of -inf alone, of which a softmax is NaN.

    So far out that every square overflows, all of the weight goes to the component that is nearest
    in its own standard deviations.
    """
    lost = log.amax(1, keepdim=True) == -math.inf
    if can_look(log) and known(~lost.any()):  # a GPU is not waited for, vmap cannot know: both
        return log
    reach = y.detach().abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(y.dtype).tiny)
    far = -((y / reach) ** 2 / var).sum(-1)
    return torch.where(lost, far / torch.finfo(y.dtype).eps ** 2, log)


def _number(a, name: str) -> Tensor:
    a = torch.as_tensor(a, dtype=torch.float64, device="cpu")
    if a.ndim:
        raise ValueError(f"{name} must be a number, not a tensor of shape {tuple(a.shape)}")
    return a


def _per_example(a, x: Tensor, name: str) -> Tensor:
    """() or (B, 1, 1), to go with (B, K, D)."""
    a = torch.as_tensor(a, dtype=x.dtype, device=x.device)
    if a.ndim > 1 or (a.ndim == 1 and len(a) != len(x)):
        raise ValueError(
            f"{name} must be a number or one for each of the {len(x)} rows, "
            f"not of shape {tuple(a.shape)}"
        )
    return a.reshape(-1, 1, 1) if a.ndim else a
