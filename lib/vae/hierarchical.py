"""Several levels of latent variables: p(z_L) ... p(z_1 | z_2 ... z_L) p(x | z_1 ... z_L).

The generator runs from the top level down and carries a state. Inference goes up once, x -> one
feature per level, and then down the generator's own path: q(z_l | x, z_above) sees the state and
the feature. Ladder VAE (Sonderby et al. 2016); the posterior relative to the prior is NVAE's
(Vahdat and Kautz 2020, section 3.2).
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.flows.transform import check_context
from lib.nets import mlp
from lib.utils import check_count, std_normal_log_prob, sum_dims
from lib.vae.elbo import Elbo, kl_normal
from lib.vae.likelihoods import Likelihood
from lib.vae.vae import LatentModel, bounded


class Level(nn.Module):
    """One level of the generator and its inference.

    prior:     state -> mean and raw log std of p(z | above)            (B, S, ...) -> (B, 2 d, ...)
    posterior: state and feature, concatenated -> mean and raw log std of q, in units of the prior
    update:    state and z, concatenated -> the next state, further down

    >>> level = mlp_levels(4, (3,), width=8)[1][0]
    >>> level.p(torch.ones(2, 8))[0].shape
    torch.Size([2, 3])
    """

    def __init__(self, prior: nn.Module, posterior: nn.Module, update: nn.Module):
        super().__init__()
        self.prior, self.posterior, self.update = prior, posterior, update

    def p(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std of p(z | above), (B, d, ...) each."""
        mean, raw = self.prior(state).to(state.dtype).chunk(2, 1)
        return mean, bounded(raw)

    def q(self, state: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Shift m and log scale of q: z = mean_p + std_p (m + scale eps)."""
        both = torch.cat([state, feature], 1)
        # under autocast the networks' answers are too coarse for the sums to come
        m, raw = self.posterior(both).to(both.dtype).chunk(2, 1)
        return m, bounded(raw)

    def below(self, state: Tensor, z: Tensor) -> Tensor:
        """The next state, further down, as exact as z."""
        return self.update(torch.cat([state, z], 1)).to(z.dtype)


class HierarchicalVAE(LatentModel):
    """Levels from the top (the first) to the bottom; see the head of this file.

    As q = N(mean_p + std_p m, (std_p s)^2), the divergence of a level is KL(N(m, s^2) || N(0, I)):
    the prior cancels, and q = p costs nothing, by m = 0 and s = 1.

    Args:
        up: networks that x passes in turn; the output of the last is the top level's feature, of
            the first the bottom level's.
        levels: the generator's, top first, as many as `up`.
        decoder: the last state -> what `likelihood` reads.
        top: shape of the state that the top level starts from, a learned constant.
        free_bits: nats for each level, on average over the batch, without a penalty.

    >>> from lib.vae.likelihoods import Bernoulli
    >>> up, levels = mlp_levels(4, (1, 2), width=8)
    >>> model = HierarchicalVAE(up, levels, mlp(8, 4, 8), Bernoulli(), (8,))
    >>> model.kl_levels(torch.ones(5, 4)).shape, model.sample(3).shape
    (torch.Size([5, 2]), torch.Size([3, 4]))
    """

    def __init__(
        self,
        up: list[nn.Module],
        levels: list[Level],
        decoder: nn.Module,
        likelihood: Likelihood,
        top: tuple[int, ...],
        kl_weight: float = 1.0,
        free_bits: float = 0.0,
        samples: int = 1,
    ):
        super().__init__()
        if len(up) != len(levels) or not levels:
            raise ValueError(
                f"HierarchicalVAE needs one network in `up` for each level, got {len(up)} and "
                f"{len(levels)}"
            )
        if not kl_weight >= 0 or not free_bits >= 0 or (free_bits and samples > 1):
            raise ValueError(
                f"kl_weight and free_bits are 0 or more, free_bits with samples=1 only, got "
                f"{kl_weight}, {free_bits} and {samples}"
            )
        self.up, self.levels = nn.ModuleList(up), nn.ModuleList(levels)
        self.decoder, self.likelihood = decoder, likelihood
        self.top = nn.Parameter(torch.zeros(top))
        self.kl_weight, self.free_bits = kl_weight, free_bits
        self.samples = check_count(samples, "samples")

    def features(self, x: Tensor) -> list[Tensor]:
        """What inference knows of x at each level, top first."""
        self._check(x)
        h = self.likelihood.centre(x)
        return [h := up(h) for up in self.up][::-1]

    def infer(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
        """One sample down the path: the last state, the z's, each level's KL and sum of log p/q.

        KL is in closed form given the levels above, (B,) each; log p(z) - log q(z) is (B,).
        """
        state = self.top.expand(len(features[0]), *self.top.shape)
        zs, kls, log_ratio = [], [], 0.0
        for level, feature in zip(self.levels, features, strict=True):
            mean, log_std = level.p(state)
            m, log_scale = level.q(state, feature)
            eps = torch.randn_like(m)
            u = m + log_scale.exp() * eps
            z = mean + log_std.exp() * u
            # both densities of z hold 1 / std_p, which cancels
            log_q = std_normal_log_prob(eps) - sum_dims(log_scale)
            log_ratio = log_ratio + std_normal_log_prob(u) - log_q
            kls.append(kl_normal(m, log_scale))
            zs.append(z)
            state = level.below(state, z)
        return state, zs, kls, log_ratio

    def bound(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """E_q log p(x | z), (B,), and the divergence of each level, top first, (B,) each."""
        state, _, kls, _ = self.infer(self.features(x))
        return self.likelihood.log_prob(x, self.decoder(state)), kls

    def elbo(self, x: Tensor, context: Tensor | None = None) -> Elbo:
        """The bound on log p(x), one sample: (B, ...) -> Elbo of (B,); kl is the sum over levels."""
        check_context(self, x, context)
        recon, kls = self.bound(x)
        return Elbo(recon, torch.stack(kls).sum(0))

    def kl_levels(self, x: Tensor) -> Tensor:
        """The divergence of each level, top first: (B, ...) -> (B, L)."""
        return torch.stack(self.bound(x)[1], 1)

    def _loss(self, x):
        recon, kls = self.bound(x)
        kl = torch.stack(kls)  # (L, B)
        missing = (self.free_bits - kl.mean(1)).relu().sum() if self.free_bits else 0.0
        return -(recon - self.kl_weight * (kl.sum(0) + missing))

    def log_weights(self, x: Tensor, n: int) -> Tensor:
        """log p(x, z) - log q(z | x) for n samples of all levels: (B, ...) -> (n, B)."""
        check_count(n)
        features = [h.expand(n, *h.shape).flatten(0, 1) for h in self.features(x)]
        state, _, _, log_ratio = self.infer(features)
        many = x.expand(n, *x.shape).flatten(0, 1)
        return (self.likelihood.log_prob(many, self.decoder(state)) + log_ratio).view(n, len(x))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        zs: list[Tensor] | None = None,
        generator: torch.Generator | None = None,
        mean: bool = False,
    ) -> Tensor:
        """n samples (n, ...); `zs` fixes the top levels, as many as given; `mean` gives p(x | z)'s."""
        check_count(n)
        state, zs = self.top.expand(n, *self.top.shape), list(zs or [])
        if len(zs) > len(self.levels) or any(len(z) != n for z in zs):
            raise ValueError(f"zs must be up to {len(self.levels)} tensors of {n} rows")
        check_context(self, state, context)
        for i, level in enumerate(self.levels):
            mu, log_std = level.p(state)
            if i == len(zs):
                zs.append(mu + log_std.exp() * self._draw_noise(*mu.shape, generator=generator))
            state = level.below(state, zs[i])
        params = self.decoder(state)
        return self.likelihood.mean(params) if mean else self.likelihood.sample(params, generator)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | z) at the centre of q of each level: (B, ...) -> (B, ...)."""
        features = self.features(x)
        state = self.top.expand(len(x), *self.top.shape)
        for level, feature in zip(self.levels, features, strict=True):
            mean, log_std = level.p(state)
            z = mean + log_std.exp() * level.q(state, feature)[0]
            state = level.below(state, z)
        return self.likelihood.mean(self.decoder(state))


def mlp_levels(
    dim: int, latents: tuple[int, ...], width: int = 256
) -> tuple[list[nn.Module], list[Level]]:
    """`up` and `levels` of a HierarchicalVAE for `dim` pixels; latents top first, states of `width`.

    The caller's `top` is (width,), its decoder reads a state of that width.

    >>> up, levels = mlp_levels(64, (4, 8), width=32)
    >>> len(up), len(levels)
    (2, 2)
    """
    up: list[nn.Module] = [nn.Sequential(nn.Flatten(), mlp(dim, width, width, 1))]
    up += [nn.Sequential(nn.SiLU(), mlp(width, width, width, 1)) for _ in latents[1:]]
    levels = []
    for d in latents:
        prior, posterior = mlp(width, 2 * d, width, 1), mlp(2 * width, 2 * d, width, 1)
        levels.append(Level(prior, posterior, mlp(width + d, width, width, 1)))
    return up, levels


def diffusion_bound(
    x: Tensor,
    denoise: Callable[[Tensor, int], Tensor],
    alpha: list[float],
    sigma: list[float],
) -> tuple[Tensor, list[Tensor]]:
    """The bound of a hierarchical VAE with a fixed encoder: a diffusion model.

    Nothing is learnt on the way up: q(z_t | x) = N(alpha_t x, sigma_t^2) for t = 1 .. T, each z a
    noisier copy of x. By Bayes' rule q(z_s | z_t, x), s = t - 1, is Gaussian, and the generator uses
    that same Gaussian with a network's guess in the place of x: p(z_s | z_t) = q(z_s | z_t, x_hat),
    x_hat = denoise(z_t, t). All that is left of a level's divergence is the guess's error,
    KL_s = (SNR_s - SNR_t) / 2 |x - x_hat|^2 with SNR = alpha^2 / sigma^2 (Kingma et al. 2021,
    equation 13), and one network serves all levels.

    alpha and sigma hold the values at t = 1 .. T. The top prior is N(0, I); the pixels are
    p(x | z_1) = N(x_hat, (sigma_1 / alpha_1)^2). Returns recon and the T divergences, top first, as
    `HierarchicalVAE.bound` does: (B,) each, in nats, one sample.

    >>> recon, kls = diffusion_bound(torch.ones(5, 2), lambda z, t: z, [0.9, 0.1], [0.4, 0.9])
    >>> recon.shape, len(kls)
    (torch.Size([5]), 2)
    """
    if len(alpha) != len(sigma) or not alpha or not all(v > 0 for v in (*alpha, *sigma)):
        raise ValueError("alpha and sigma must be equally many numbers above 0, one per level")
    z = alpha[-1] * x + sigma[-1] * torch.randn_like(x)
    top_std = x.new_tensor(sigma[-1]).log().expand_as(x)
    kls = [kl_normal(alpha[-1] * x, top_std)]
    for t, s in itertools.pairwise(range(len(alpha), 0, -1)):
        a = alpha[t - 1] / alpha[s - 1]  # z_t = a z_s + b noise
        b2 = sigma[t - 1] ** 2 - a**2 * sigma[s - 1] ** 2
        if not b2 > 0:
            raise ValueError(f"the noise must grow with t: SNR_{t} is not below SNR_{s}")
        from_z = a * sigma[s - 1] ** 2 / sigma[t - 1] ** 2
        from_x = alpha[s - 1] * b2 / sigma[t - 1] ** 2
        std = (b2**0.5) * sigma[s - 1] / sigma[t - 1]
        log_std = x.new_tensor(std).log().expand_as(x)
        mean_q = from_z * z + from_x * x
        mean_p = from_z * z + from_x * denoise(z, t)
        kls.append(kl_normal(mean_q, log_std, mean_p, log_std))
        z = mean_q + std * torch.randn_like(x)
    log_std = x.new_tensor(sigma[0] / alpha[0]).log().expand_as(x)
    recon = std_normal_log_prob((x - denoise(z, 1)) / log_std.exp()) - sum_dims(log_std)
    return recon, kls
