"""The variational autoencoder: two networks, one bound.

Kingma and Welling (2014); the importance-weighted loss is Burda et al. (2016). What p(x | z) is
stands in `likelihoods.py`, the bound itself in `elbo.py`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib import utils
from lib.flows.continuous import Continuous
from lib.flows.transform import Transform, check_context, check_input
from lib.utils import check_count, check_finite, known, std_normal_log_prob
from lib.vae.elbo import (
    Elbo,
    draw,
    effective_sample_size,
    importance_bound,
    importance_stderr,
    kl_normal,
)
from lib.vae.likelihoods import Likelihood


class Estimate(NamedTuple):
    """log p(x) by importance sampling, its standard error, effective number of samples: (B,) each.

    >>> Estimate(*torch.zeros(3, 5)).log_prob.shape
    torch.Size([5])
    """

    log_prob: Tensor
    stderr: Tensor
    ess: Tensor


def bounded(raw: Tensor, limit: float = 6.0) -> Tensor:
    """A log standard deviation from a network's output: close to raw near 0, never past +-limit.

    >>> bounded(torch.tensor([0.1, 100.0]))
    tensor([0.1000, 6.0000])
    """
    return utils.bounded(raw, limit)


class LatentModel(nn.Module):
    """What every model with a bound and log-weights can do. Subclasses write those two.

    >>> from lib.vae.likelihoods import Bernoulli
    >>> from lib.vae.nets import mlp_decoder, mlp_encoder
    >>> model = VAE(mlp_encoder((6,), 4), mlp_decoder(2, (6,)), Bernoulli(), 2)
    >>> model.estimate(torch.ones(5, 6), samples=10).ess.shape
    torch.Size([5])
    """

    takes_context = False
    shape = None
    likelihood: Likelihood
    samples = 1
    kl_weight = 1.0

    def elbo(self, x: Tensor, context: Tensor | None = None) -> Elbo:
        raise NotImplementedError

    def log_weights(self, x: Tensor, n: int) -> Tensor:
        """log p(x, z) - log q(z | x) for n samples of q: (B, ...) -> (n, B)."""
        raise NotImplementedError

    def _loss(self, x: Tensor) -> Tensor:
        recon, kl = self.elbo(x)
        return -(recon - self.kl_weight * kl)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The training loss of each example, -(recon - kl_weight kl) in nats: (B, ...) -> (B,).

        With `samples` = K > 1 it is minus the importance-weighted bound of K samples.
        """
        check_context(self, x, context)
        if self.samples == 1:
            return self._loss(x)
        if self.kl_weight != 1:
            raise ValueError(
                f"the bound of {self.samples} samples bounds log p(x) at kl_weight 1 only, "
                f"got {self.kl_weight}"
            )
        return -importance_bound(self.log_weights(x, self.samples))

    @torch.no_grad()
    def estimate(self, x: Tensor, samples: int = 500, chunk: int = 10_000) -> Estimate:
        """log p(x) by importance sampling from q, without gradient: (B, ...) -> (B,) each.

        In expectation a lower bound on log p(x), tighter with more samples. `chunk` decodings are
        in memory at once.
        """
        check_count(samples, "samples")
        check_count(chunk, "chunk")
        log_w = x.new_zeros(samples, len(x))
        rows = max(1, chunk // samples)  # examples at once; else few samples of one example
        step = max(1, min(samples, chunk))
        for i in range(0, len(x), rows):
            for k in range(0, samples, step):
                n = min(step, samples - k)
                log_w[k : k + n, i : i + rows] = self.log_weights(x[i : i + rows], n)
        if samples > 1 and len(x) > 0:
            stderr = importance_stderr(log_w)
        else:
            stderr = log_w.new_full((len(x),), torch.inf)  # one weight says nothing of its error
        return Estimate(importance_bound(log_w), stderr, effective_sample_size(log_w))

    def log_prob(self, x: Tensor, samples: int = 500, chunk: int = 10_000) -> Tensor:
        """log p(x) by `estimate`, (B, ...) -> (B,): an estimate, a lower bound in expectation."""
        return self.estimate(x, samples, chunk).log_prob

    def _check(self, x: Tensor, context: Tensor | None = None) -> None:
        check_input(self, x, context)
        if known(~x.isfinite().all()):
            check_finite(x)
        self.likelihood.check(x)

    def _draw_noise(self, n: int, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        p = next(self.parameters())
        return torch.randn(n, *shape, generator=generator, dtype=p.dtype, device=p.device)


class VAE(LatentModel):
    """z ~ N(0, I), x ~ p(x | decoder(z)), and q(z | x) = N(mean, std^2) from the encoder.

    Args:
        encoder: (B, ...) -> (B, 2 * latent), mean and raw log std; what it gives beyond that is
            the posterior flow's context. It sees x moved to about [-1, 1] by the likelihood.
        decoder: (B, latent) -> what `likelihood` reads.
        posterior_flow: a Transform of R^latent; z is its `from_base` of the Gaussian's sample.
        kl_weight: beta. 1 is the bound; may be set during training (warm-up).
        free_bits: nats that each latent dimension may use, on average over the batch, without a
            penalty. Below them the divergence has no gradient, so that a dimension is not given up
            before the decoder has learnt to use it. Kingma et al. (2016), appendix C.8.
        samples: K of the importance-weighted training loss.

    >>> from lib.vae.likelihoods import Bernoulli
    >>> from lib.vae.nets import mlp_decoder, mlp_encoder
    >>> model = VAE(mlp_encoder((6,), 4), mlp_decoder(2, (6,)), Bernoulli(), 2)
    >>> model(torch.ones(5, 6)).shape, model.sample(3).shape
    (torch.Size([5]), torch.Size([3, 6]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent: int,
        posterior_flow: Transform | None = None,
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        samples: int = 1,
    ):
        super().__init__()
        if not kl_weight >= 0 or not free_bits >= 0:
            raise ValueError(
                f"kl_weight and free_bits are 0 or more, got {kl_weight} and {free_bits}"
            )
        if posterior_flow is not None and not isinstance(posterior_flow, Transform):
            raise TypeError(
                f"posterior_flow must be a Transform, not {type(posterior_flow).__name__}"
            )
        if free_bits and (posterior_flow is not None or samples > 1):
            raise ValueError("free_bits needs the closed-form divergence: no flow, samples=1")
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent, self.posterior_flow = check_count(latent, "latent"), posterior_flow
        self.kl_weight, self.free_bits = kl_weight, free_bits
        self.samples = check_count(samples, "samples")

    # the two networks

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std of q(z | x), before the flow if there is one: (B, ...) -> (B, d) each."""
        return self._encode(x)[:2]

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        self._check(x)
        h, d = self.encoder(self.likelihood.centre(x)), self.latent
        h = h.to(x.dtype)  # under autocast it is coarser than a flow may be
        context = self.posterior_flow is not None and self.posterior_flow.takes_context
        if h.ndim != 2 or (h.shape[1] <= 2 * d if context else h.shape[1] != 2 * d):
            want = f"more than {2 * d}" if context else f"{2 * d}"
            raise ValueError(f"the encoder must give (B, {want}), got {tuple(h.shape)}")
        mean, raw, rest = h.split([d, d, h.shape[1] - 2 * d], 1)
        return mean, bounded(raw), rest if context else None

    def decode(self, z: Tensor) -> Tensor:
        """The parameters of p(x | z): (B, d) -> (B, channels * C, ...)."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"z must have shape (B, {self.latent}), got {tuple(z.shape)}")
        return self.decoder(z)

    # the bound

    def posterior(
        self, x: Tensor, n: int | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """z ~ q(z | x) and log q(z | x): (B, d), (B,); with n samples (n, B, d), (n, B)."""
        z, log_q = self._posterior(*self._encode(x), 1 if n is None else check_count(n), noise)
        return (z[0], log_q[0]) if n is None else (z, log_q)

    def _posterior(self, mean, log_std, context, n, noise=None) -> tuple[Tensor, Tensor]:
        z, log_q = draw(mean, log_std, n, noise)
        if self.posterior_flow is None:
            return z, log_q
        if context is not None:
            context = context.expand(n, *context.shape).flatten(0, 1)
        z, logabsdet = self.posterior_flow.from_base(z.flatten(0, 1), context)
        return z.view(n, *mean.shape), log_q - logabsdet.view(n, len(mean))

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) for n samples: (B, ...), (n, B, d) -> (n, B)."""
        n = len(z)
        params = self.decode(z.flatten(0, 1))
        return self.likelihood.log_prob(x.expand(n, *x.shape).flatten(0, 1), params).view(n, len(x))

    def elbo(self, x: Tensor, context: Tensor | None = None, n: int = 1) -> Elbo:
        """The bound on log p(x) with n samples: (B, ...) -> Elbo of (B,).

        The divergence is in closed form without a flow, else it is estimated from the same samples.
        """
        check_context(self, x, context)
        mean, log_std, features = self._encode(x)
        z, log_q = self._posterior(mean, log_std, features, check_count(n))
        recon = self._log_likelihood(x, z).mean(0)
        if self.posterior_flow is None:
            return Elbo(recon, kl_normal(mean, log_std))
        log_p = std_normal_log_prob(z.flatten(0, 1)).view(n, len(x))
        return Elbo(recon, (log_q - log_p).mean(0))

    def kl_dims(self, x: Tensor) -> Tensor:
        """KL(q(z_j | x) || N(0, 1)) of each dimension, (B, d): near 0 for all x where z_j is unused."""
        if self.posterior_flow is not None:
            raise ValueError("the divergence has no closed form per dimension behind a flow")
        return self._kl_dims(*self.encode(x))

    @staticmethod
    def _kl_dims(mean: Tensor, log_std: Tensor) -> Tensor:
        return kl_normal(mean.reshape(-1, 1), log_std.reshape(-1, 1)).view(mean.shape)

    def _loss(self, x):
        if not self.free_bits:
            return super()._loss(x)
        mean, log_std, _ = self._encode(x)
        recon = self._log_likelihood(x, draw(mean, log_std)[0])[0]
        kl = self._kl_dims(mean, log_std)
        # on average over the batch: sum over dimensions of max(free_bits, mean KL)
        missing = (self.free_bits - kl.mean(0)).relu().sum()
        return -(recon - self.kl_weight * (kl.sum(1) + missing))

    def log_weights(self, x: Tensor, n: int, noise: Tensor | None = None) -> Tensor:
        """log p(x | z) + log p(z) - log q(z | x) for n samples of q: (B, ...) -> (n, B).

        Raises:
            ValueError: the posterior flow's log-determinant is an estimate.
        """
        parts = () if self.posterior_flow is None else self.posterior_flow.modules()
        if any(isinstance(p, Continuous) and p.how.trace != "exact" for p in parts):
            raise ValueError(
                "importance weights need the exact log-determinant, since noise in their logarithm "
                "makes their mean too large: set_solver(model, trace='exact')"
            )
        z, log_q = self.posterior(x, n, noise)
        log_p = std_normal_log_prob(z.flatten(0, 1)).view(n, len(x))
        return self._log_likelihood(x, z) + log_p - log_q

    # pictures

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """n samples (n, ...) from z = `noise`, (n, d), drawn if not given; or p(x | z)'s means."""
        check_count(n)
        z = self._draw_noise(n, self.latent, generator=generator) if noise is None else noise
        if len(z) != n:
            raise ValueError(f"asked for {n} samples, got noise of shape {tuple(z.shape)}")
        check_context(self, z, context)
        params = self.decode(z)
        return self.likelihood.mean(params) if mean else self.likelihood.sample(params, generator)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | z) at the centre of q(z | x): (B, ...) -> (B, ...)."""
        mean, _, context = self._encode(x)
        if self.posterior_flow is not None:
            mean = self.posterior_flow.x_from_base(mean, context)
        return self.likelihood.mean(self.decode(mean))
