"""The latent variable model in which all is exact: probabilistic principal component analysis.

Tipping and Bishop (1999), "Probabilistic principal component analysis"; equation numbers are
theirs.
"""

import math

import torch
from torch import Tensor, nn

from lib.flows.transform import check_context, check_input
from lib.utils import check_count, check_finite, known, std_normal_log_prob
from lib.vae.elbo import Elbo, _check_noise, normal_log_prob


class LinearGaussian(nn.Module):
    """z ~ N(0, I), x = W z + mu + sigma eps, with an amortised q(z | x) = N(A x + b, S).

    S is diagonal, or full with `full=True`. With a full S the bound can reach log p(x) at every W.
    With a diagonal S it can do so where the columns of W are orthogonal, and as p(x) does not
    change when W is rotated, its maximum over W is the same (Lucas et al. 2019). The bound is
    exact: no sampling.

    >>> model = LinearGaussian(3, 1).fit_closed_form(torch.randn(200, 3))
    >>> x = model.sample(5)
    >>> torch.allclose(model.elbo(x).total, model.log_prob(x), atol=1e-3)  # q is the posterior
    True
    """

    takes_context = False

    def __init__(self, dim: int, latent: int, full: bool = False):
        super().__init__()
        if not 0 < latent < dim:
            raise ValueError(f"LinearGaussian needs 0 < latent < dim, got {latent} and {dim}")
        self.shape, self.latent, self.full = (dim,), latent, full
        self.W = nn.Parameter(torch.randn(dim, latent) / dim**0.5)
        self.mu = nn.Parameter(torch.zeros(dim))
        self.log_sigma = nn.Parameter(torch.zeros(()))
        self.A = nn.Parameter(torch.randn(latent, dim) / dim**0.5)
        self.b = nn.Parameter(torch.zeros(latent))
        self.log_std = nn.Parameter(torch.zeros(latent))  # of q: the Cholesky factor's diagonal
        self.lower = nn.Parameter(torch.zeros(latent, latent)) if full else None

    # the model: exact

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z): (B, D), (B, d) -> (B,)."""
        return normal_log_prob(x, z @ self.W.T + self.mu, self.log_sigma)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(x | z) + log N(z; 0, I): (B, D), (B, d) -> (B,)."""
        return self.log_likelihood(x, z) + std_normal_log_prob(z)

    def covariance(self) -> Tensor:
        """Cov[x] = W W' + sigma^2 I, (D, D)."""
        return self.W @ self.W.T + (2 * self.log_sigma).exp() * torch.eye(len(self.mu)).to(self.W)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x) = log N(x; mu, C), C = W W' + sigma^2 I: (B, D) -> (B,), exact.

        With m and S of the posterior, det C = sigma^2D / det S and
        (x - mu)' C^-1 (x - mu) = |x - mu - W m|^2 / sigma^2 + |m|^2; C itself is close to singular.
        """
        self._check(x, context)
        mean, cov = self.posterior(x)
        log_det = 2 * torch.linalg.cholesky(cov).diagonal().log().sum()
        at_mean = self.log_joint(x, mean)  # with one factor (2 pi)^(-d/2) too many
        return at_mean + 0.5 * (self.latent * math.log(2 * math.pi) + log_det)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """p(z | x) = N(mean, cov): (B, D) -> (B, d) and (d, d), the same for every x.

        With M = W' W + sigma^2 I: mean = M^-1 W' (x - mu), cov = sigma^2 M^-1.
        """
        self._check(x)
        gain, cov = self._posterior_map()
        return (x - self.mu) @ gain.T, cov

    def _posterior_map(self) -> tuple[Tensor, Tensor]:
        """M^-1 W', (d, D), and sigma^2 M^-1, (d, d)."""
        var, eye = (2 * self.log_sigma).exp(), torch.eye(self.latent).to(self.W)
        L = torch.linalg.cholesky(self.W.T @ self.W + var * eye)
        return torch.cholesky_solve(self.W.T, L), var * torch.cholesky_solve(eye, L)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n samples (n, D); `noise`, (n, d + D), holds the standard normal z and eps to use."""
        check_count(n)
        if noise is None:
            like = {"dtype": self.W.dtype, "device": self.W.device}
            noise = torch.randn(n, self.latent + len(self.mu), generator=generator, **like)
        _check_noise(noise, (n, self.latent + len(self.mu)))
        check_context(self, noise, context)
        z, eps = noise.split([self.latent, len(self.mu)], 1)
        return z @ self.W.T + self.mu + self.log_sigma.exp() * eps

    # the approximation

    def q(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | x): its mean A x + b, (B, d), and the Cholesky factor of its covariance, (d, d)."""
        self._check(x)
        factor = self.log_std.exp().diag()
        return x @ self.A.T + self.b, factor + self.lower.tril(-1) if self.full else factor

    def elbo(self, x: Tensor, context: Tensor | None = None) -> Elbo:
        """The bound in closed form, (B, D) -> Elbo of (B,).

        E_q log p(x | z) = log N(x; W m + mu, sigma^2 I) - tr(W S W') / (2 sigma^2), with m = A x +
        b, and KL(q || N(0, I)) = (m' m + tr S - d - log det S) / 2.
        """
        self._check(x, context)
        mean, factor = self.q(x)
        spread = (self.W @ factor).square().sum() * (-2 * self.log_sigma).exp() / 2
        kl = (mean.square().sum(1) + factor.square().sum() - self.latent) / 2 - self.log_std.sum()
        return Elbo(self.log_likelihood(x, mean) - spread, kl)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The training loss of each example, -ELBO in nats: (B, D) -> (B,)."""
        return -self.elbo(x, context).total

    def log_weights(self, x: Tensor, n: int, noise: Tensor | None = None) -> Tensor:
        """log p(x, z) - log q(z | x) for n samples of q: (B, D) -> (n, B).

        `noise`, (n, B, d), holds the standard normal numbers that make z.
        """
        mean, factor = self.q(x)
        check_count(n)
        if noise is None:
            noise = torch.randn(n, *mean.shape, dtype=x.dtype, device=x.device)
        _check_noise(noise, (n, *mean.shape))
        z = mean + noise @ factor.T
        log_q = -0.5 * (noise**2 + math.log(2 * math.pi)).sum(-1) - self.log_std.sum()
        log_joint = self.log_joint(x.expand(n, *x.shape).flatten(0, 1), z.flatten(0, 1))
        return log_joint.view(n, len(x)) - log_q

    # closed-form maximum likelihood

    @torch.no_grad()
    def fit_closed_form(self, x: Tensor) -> "LinearGaussian":
        """Maximum likelihood on x, (N, D): sets the parameters, and q to the exact posterior.

        With the eigenvalues Lambda and eigenvectors U of the covariance (1/N): mu is the mean,
        sigma^2 the average of the D - d smallest eigenvalues, W = U (Lambda - sigma^2 I)^(1/2) from
        the d largest. Section 3.2.
        """
        self._check(x)
        check_count(len(x), "the number of examples")
        centred = x - x.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))  # ascending
        var = values[: -self.latent].mean()
        if var <= 8 * torch.finfo(x.dtype).eps * values[-1]:
            raise ValueError(
                f"the data vary in at most {self.latent} directions, so sigma would be 0: "
                f"use a smaller latent"
            )
        self.mu.copy_(x.mean(0))
        self.log_sigma.copy_(0.5 * var.log())
        self.W.copy_(
            vectors[:, -self.latent :] * (values[-self.latent :] - var).clamp_min(0).sqrt()
        )
        return self.set_posterior()

    @torch.no_grad()
    def set_posterior(self) -> "LinearGaussian":
        """Set q to the exact posterior; needs `full=True`, or a W with orthogonal columns."""
        gain, cov = self._posterior_map()
        factor = torch.linalg.cholesky(cov)
        off = factor.tril(-1)
        if not self.full and known(off.abs().max() > 1e-3 * factor.diagonal().min()):
            raise ValueError(
                "the posterior is not diagonal at this W: use LinearGaussian(..., full=True)"
            )
        self.A.copy_(gain)
        self.b.copy_(-gain @ self.mu)
        self.log_std.copy_(factor.diagonal().log())
        if self.full:
            self.lower.copy_(off)
        return self

    def _check(self, x: Tensor, context: Tensor | None = None) -> None:
        check_input(self, x, context)
        if known(~x.isfinite().all()):
            check_finite(x)
