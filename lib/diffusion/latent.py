"""Latent diffusion: an autoencoder makes small pictures, and a diffusion model learns those.

Rombach et al. (2022). `Diffusion`, the samplers and guidance are those of pixels: only what x is has
changed. Captions reach the network by cross-attention.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.attention import attend
from lib.diffusion.denoiser import BaseDenoiser, Diffusion
from lib.nets import Linear
from lib.utils import check_count, check_indices
from lib.vae.autoencoder import Autoencoder


class CaptionEncoder(nn.Module):
    """Words to vectors that know their neighbours: tokens (B, L) int64 -> (B, L, width).

    An embedding of the word plus one of its place, then transformer layers in which each word reads
    all others, so that "red" can know which of two shapes it speaks of. Padding is a word like any
    other: the empty caption is a sequence of it. Vaswani et al. (2017).

    >>> encoder = CaptionEncoder(words=20, length=5, width=8)
    >>> encoder(torch.tensor([[3, 1, 0]])).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, words: int, length: int, width: int, layers: int = 1):
        super().__init__()
        self.words, self.length = check_count(words, "words"), check_count(length, "length")
        self.word, self.place = nn.Embedding(words, width), nn.Embedding(length, width)
        self.layers = nn.ModuleList(ReadingLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.ndim != 2 or tokens.shape[1] > self.length or tokens.is_floating_point():
            raise ValueError(
                f"a caption is a row of at most {self.length} integer tokens (B, L), "
                f"got {tokens.dtype} of shape {tuple(tokens.shape)}"
            )
        check_indices(tokens, self.words, "tokens")
        h = self.word(tokens) + self.place.weight[: tokens.shape[1]]
        for layer in self.layers:
            h = layer(h)
        return self.norm(h)


class ReadingLayer(nn.Module):
    """One layer of a transformer: each word reads all, then thinks alone. (B, L, width) -> the same.

    Norms come before, not after (Xiong et al. 2020). torch's own TransformerEncoderLayer computes
    the same; on a CPU in bfloat16 its gradient is slow.

    >>> ReadingLayer(8)(torch.ones(2, 3, 8)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        if width % check_count(heads, "heads"):
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.width = heads, width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = Linear(width, 3 * width), Linear(width, width)
        self.think = nn.Sequential(Linear(width, 2 * width), nn.SiLU(), Linear(2 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        qkv = (
            self.qkv(self.norm1(h))
            .unflatten(2, (3, self.heads, self.width // self.heads))
            .permute(2, 0, 3, 1, 4)
        )
        h = h + self.out(attend(*qkv).transpose(1, 2).flatten(2))
        return h + self.think(self.norm2(h))


class Captioned(nn.Module):
    """A network whose context is captions: net(x, t, tokens (B, L)) by way of a `CaptionEncoder`.

    >>> from lib.unet import UNet
    >>> net = Captioned(UNet(1, width=8, multipliers=(1,), tokens=8), CaptionEncoder(20, 5, 8))
    >>> net(torch.ones(2, 1, 4, 4), torch.ones(2), torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 1, 4, 4])
    """

    def __init__(self, net: nn.Module, encoder: CaptionEncoder):
        super().__init__()
        self.net, self.encoder = net, encoder

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        if context is None:
            raise ValueError("captions are needed; the empty caption is a row of tokens 0")
        return self.net(x, t, self.encoder(context))


class LatentDiffusion(nn.Module):
    """A diffusion model of an autoencoder's latents; calling it gives the training loss, (B,).

    The autoencoder is trained before and stays as it is. Its latents are moved and scaled to mean 0
    and variance 1 in all, by `fit_scale` on some images, since the schedule is made for that.

    Args:
        shape: of one image's latents, (c, h, w).
        drop, null, weight, t_min: as for `Diffusion`.

    >>> from lib.diffusion import VP, Denoiser
    >>> from lib.unet import UNet
    >>> from lib.vae.autoencoder import KLAutoencoder
    >>> net = UNet(2, width=8, multipliers=(1,))
    >>> model = LatentDiffusion(KLAutoencoder(3, 2, width=8), Denoiser(net, VP()), 2, 4, 4)
    >>> model.fit_scale(torch.rand(4, 3, 16, 16)).sample(2, steps=2).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(self, autoencoder: Autoencoder, denoiser: BaseDenoiser, *shape: int, **options):
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.prior = Diffusion(denoiser, *shape, **options)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    @property
    def denoiser(self) -> BaseDenoiser:
        """The denoiser of scaled latents, for guidance and samplers."""
        return self.prior.denoiser

    @torch.no_grad()
    def fit_scale(self, x: Tensor) -> "LatentDiffusion":
        """Set shift and scale by the latents of some images (B, C, H, W); returns itself."""
        z = self.autoencoder.latents(x)
        if z.numel() < 2 or not z.std() > 0:
            raise ValueError(
                f"the scale of latents needs images whose latents differ, got {len(x)} of them"
            )
        self.shift.copy_(z.mean())
        self.scale.copy_(z.std())
        return self

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images to scaled latents: (B, C, H, W) -> (B, c, h, w)."""
        z = self.autoencoder.latents(x).to(x.dtype)  # under autocast coarser than the noise to come
        return (z - self.shift) / self.scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents to images: (B, c, h, w) -> (B, C, H, W)."""
        return self.autoencoder.decode(z * self.scale + self.shift)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The denoising loss of images' latents: (B, C, H, W) -> (B,)."""
        return self.prior(self.encode(x), context)

    def train(self, mode: bool = True) -> "LatentDiffusion":
        """As usual, but the autoencoder stays in eval mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        steps: int = 50,
        step: Callable | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """n images (n, C, H, W): latents as in `Diffusion.sample`, decoded."""
        return self.decode(self.prior.sample(n, context, steps, step, start))
