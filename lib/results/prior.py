"""A VAE whose prior is a diffusion model of its latents, and the bound of the two together.

    log p(x) >= E_q [log p(x | z) + bound of the diffusion on log p(z) - log q(z | x)]

Rombach et al. (2022) train in two stages, which is what the chapter compares; the bound of the whole
is Vahdat et al. (2021), equation 1, with the chain of `lib.diffusion.elbo` for the prior's part.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.diffusion.denoiser import Diffusion
from lib.diffusion.elbo import chain_elbo
from lib.utils import check_count
from lib.vae.elbo import draw, normal_log_prob
from lib.vae.vae import VAE


class LatentBound(NamedTuple):
    """-ELBO of each example in nats, in its three parts, (B,) each."""

    reconstruction: Tensor  # E_q [-log p(x | z)]
    prior: Tensor  # the diffusion's bound on E_q [-log p(z)]
    entropy: Tensor  # of q(z | x), which is paid back

    @property
    def total(self) -> Tensor:
        """reconstruction + prior - entropy >= -log p(x), (B,)."""
        return self.reconstruction + self.prior - self.entropy


class DiffusionPrior(nn.Module):
    """z = scale u + shift with u from a diffusion, x ~ p(x | z). Calling it gives the prior's loss.

    The VAE is trained before and keeps its weights: it is put in eval mode, and its parameters come
    back with requires_grad=False. Its latents are moved and scaled to mean 0 and
    variance 1 in each dimension by `fit_scale`, since a schedule is made for that.

    Args:
        vae: without a posterior flow, so that the entropy of q has a closed form.
        diffusion: of vectors (B, vae.latent).
    """

    def __init__(self, vae: VAE, diffusion: Diffusion):
        super().__init__()
        if vae.posterior_flow is not None:
            raise ValueError(
                "the bound needs the entropy of q in closed form: a VAE without a flow"
            )
        if diffusion.shape != (vae.latent,):
            raise ValueError(
                f"the diffusion must be of ({vae.latent},), the latents, got {diffusion.shape}"
            )
        self.vae, self.diffusion = vae.requires_grad_(False).eval(), diffusion
        self.register_buffer("shift", torch.zeros(vae.latent))
        self.register_buffer("scale", torch.ones(vae.latent))

    @torch.no_grad()
    def fit_scale(self, x: Tensor) -> "DiffusionPrior":
        """Shift and scale by draws of q(z | x) for some examples (B, ...); returns itself.

        Raises:
            ValueError: fewer than two examples.
        """
        z = self.vae.posterior(x)[0]
        if len(z) < 2:
            raise ValueError(f"the scale of latents needs at least 2 examples, got {len(z)}")
        self.shift.copy_(z.mean(0))
        self.scale.copy_(z.std(0))
        return self

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The diffusion's loss of z ~ q(z | x): (B, ...) -> (B,)."""
        with torch.no_grad():
            z = self.vae.posterior(x)[0]
        return self.diffusion((z - self.shift) / self.scale)

    def train(self, mode: bool = True) -> "DiffusionPrior":
        """As usual, but the VAE stays in eval mode: it is not being trained."""
        super().train(mode)
        self.vae.eval()
        return self

    @torch.no_grad()
    def bound(self, x: Tensor, times: Sequence[float]) -> LatentBound:
        """One draw of z for each x, and the diffusion's chain along `times`: (B, ...) -> (B,) each."""
        z, recon, entropy = self._encoded(x)
        u = (z - self.shift) / self.scale
        prior = chain_elbo(self.diffusion.denoiser, u, times).total + self.scale.log().sum()
        return LatentBound(recon, prior, entropy)

    @torch.no_grad()
    def standard_bound(self, x: Tensor) -> LatentBound:
        """The same VAE with the prior N(0, I) it was trained with: what the diffusion is to beat."""
        z, recon, entropy = self._encoded(x)
        return LatentBound(recon, -normal_log_prob(z, 0.0, 0.0), entropy)

    def _encoded(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A draw of z for each x, (B, latent), -log p(x | z) of it, and the entropy of q(z | x)."""
        mean, log_std = self.vae.encode(x)
        z = draw(mean, log_std)[0][0]
        recon = -self.vae.likelihood.log_prob(x, self.vae.decode(z))
        entropy = log_std.sum(1) + 0.5 * self.vae.latent * math.log(2 * math.pi * math.e)
        return z, recon, entropy

    @torch.no_grad()
    def sample(self, n: int, times: Sequence[float]) -> Tensor:
        """n draws of x, (n, ...): latents by DDPM's steps along `times`, then p(x | z)."""
        start = torch.randn(check_count(n), self.vae.latent).to(self.shift)
        u = self.diffusion.sample(n, steps=times, start=start)
        return self.vae.likelihood.sample(self.vae.decode(u * self.scale + self.shift))
