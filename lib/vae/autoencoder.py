"""Autoencoders that keep a picture a picture: images (B, C, H, W) to latents (B, c, H/4, W/4) and back.

They are the first half of latent diffusion (Rombach et al. 2022, section 3.1): what the eye does not
miss is thrown away here, once, and the diffusion model need not learn it.
"""

import math

import torch
from torch import Tensor, nn

from lib.nets import Residual, pixel_shuffle, pixel_unshuffle
from lib.utils import check_batch, check_count
from lib.vae.elbo import Elbo, draw, kl_normal, normal_log_prob
from lib.vae.vae import bounded


class _Unshuffle(nn.PixelUnshuffle):
    def forward(self, x):
        return pixel_unshuffle(x, self.downscale_factor)


class _Shuffle(nn.PixelShuffle):
    def forward(self, x):
        return pixel_shuffle(x, self.upscale_factor)


def spatial_encoder(channels: int, features: int, width: int = 64) -> nn.Sequential:
    """(B, channels, H, W) -> (B, features, H/4, W/4): patches of 2 x 2, then a stride of 2.

    >>> spatial_encoder(3, 8, width=8)(torch.ones(2, 3, 16, 16)).shape
    torch.Size([2, 8, 4, 4])
    """
    return nn.Sequential(
        _Unshuffle(2),
        nn.Conv2d(4 * channels, width, 3, padding=1),
        Residual(width, still=True),
        nn.SiLU(),
        nn.Conv2d(width, width, 4, stride=2, padding=1),
        Residual(width, still=True),
        Residual(width, still=True),
        nn.SiLU(),
        nn.Conv2d(width, features, 1),
    ).to(memory_format=torch.channels_last)


def spatial_decoder(latent: int, channels: int, width: int = 64) -> nn.Sequential:
    """(B, latent, H/4, W/4) -> (B, channels, H, W): the encoder's layers in the opposite order.

    >>> spatial_decoder(4, 3, width=8)(torch.ones(2, 4, 4, 4)).shape
    torch.Size([2, 3, 16, 16])
    """
    return nn.Sequential(
        nn.Conv2d(latent, width, 3, padding=1),
        Residual(width, still=True),
        Residual(width, still=True),
        nn.SiLU(),
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
        Residual(width, still=True),
        nn.SiLU(),
        nn.Conv2d(width, 4 * channels, 3, padding=1),
        _Shuffle(2),
    ).to(memory_format=torch.channels_last)


class Autoencoder(nn.Module):
    """What the two kinds share. A subclass writes `latents` and `forward`.

    Args:
        channels, latent: C and c.
        width: channels within.
        noise: standard deviation of p(x | z), which turns squared errors into nats.
        features: channels of the encoder's output, by default `latent`.

    >>> model = KLAutoencoder(1, latent=2, width=8)
    >>> model.decode(model.latents(torch.ones(2, 1, 8, 8))).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 4,
        width: int = 64,
        noise: float = 0.1,
        features: int | None = None,
    ):
        super().__init__()
        if not noise > 0:
            raise ValueError(f"noise is above 0, got {noise}")
        self.noise = noise
        self.channels, self.latent = (
            check_count(channels, "channels"),
            check_count(latent, "latent"),
        )
        self.encoder = spatial_encoder(channels, features or latent, check_count(width, "width"))
        self.decoder = spatial_decoder(latent, channels, width)

    def features(self, x: Tensor) -> Tensor:
        """The encoder's output, for images (B, C, H, W) with H and W multiples of 4."""
        check_batch(x, name="images", finite=False)
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError(
                f"images must be (B, {self.channels}, H, W) with H and W multiples of 4, "
                f"got {tuple(x.shape)}"
            )
        return self.encoder(x)

    def latents(self, x: Tensor) -> Tensor:
        """The latents that a diffusion model learns: (B, C, H, W) -> (B, c, H/4, W/4)."""
        raise NotImplementedError(f"{type(self).__name__} must define latents(x)")

    def decode(self, z: Tensor) -> Tensor:
        """Latents to images: (B, c, h, w) -> (B, C, 4h, 4w)."""
        if z.ndim != 4 or z.shape[1] != self.latent:
            raise ValueError(f"latents must be (B, {self.latent}, h, w), got {tuple(z.shape)}")
        return self.decoder(z)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """There and back: (B, C, H, W) -> the same."""
        return self.decode(self.latents(x))


class KLAutoencoder(Autoencoder):
    """A VAE with latents in the form of an image, and little weight on the divergence.

    p(x | z) = N(decode(z), noise^2 I), p(z) = N(0, I), q(z | x) = N(mean, std^2) from the encoder.
    The loss is -(recon - kl_weight kl): kl_weight = 1 is the evidence lower bound in nats, and a small
    one keeps latents near unit scale while nearly all of the picture passes.

    >>> model = KLAutoencoder(1, latent=2, width=8)
    >>> model(torch.ones(2, 1, 8, 8)).shape, model.elbo(torch.ones(2, 1, 8, 8)).kl.shape
    (torch.Size([2]), torch.Size([2]))
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 4,
        width: int = 64,
        noise: float = 0.1,
        kl_weight: float = 0.01,
    ):
        super().__init__(channels, latent, width, noise, 2 * latent)
        if not kl_weight >= 0:
            raise ValueError(f"kl_weight is 0 or more, got {kl_weight}")
        self.kl_weight = kl_weight

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std of q(z | x): (B, C, H, W) -> (B, c, H/4, W/4) each."""
        mean, raw = self.features(x).to(x.dtype).chunk(2, 1)  # under autocast it is coarser
        return mean, bounded(raw)

    def latents(self, x: Tensor) -> Tensor:
        """The mean of q(z | x): (B, C, H, W) -> (B, c, H/4, W/4)."""
        return self.encode(x)[0]

    def posterior(self, x: Tensor) -> Tensor:
        """A draw from q(z | x): (B, C, H, W) -> (B, c, H/4, W/4)."""
        return draw(*self.encode(x))[0][0]

    def elbo(self, x: Tensor) -> Elbo:
        """The bound on log p(x) with one draw of z, in nats: (B, ...) -> Elbo of (B,)."""
        mean, log_std = self.encode(x)
        recon = normal_log_prob(x, self.decode(draw(mean, log_std)[0][0]), math.log(self.noise))
        return Elbo(recon, kl_normal(mean.flatten(1), log_std.flatten(1)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """-(recon - kl_weight kl) in nats: (B, C, H, W) -> (B,). The context is not looked at."""
        recon, kl = self.elbo(x)
        return self.kl_weight * kl - recon
