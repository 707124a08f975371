"""Vector quantisation: each latent vector is replaced by the nearest of K codes.

van den Oord, Vinyals and Kavukcuoglu (2017), "Neural discrete representation learning"; equation
numbers and appendix A.1 (the moving averages) are theirs.
"""

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lib.utils import check_batch, check_count, check_indices, sum_dims
from lib.vae.autoencoder import Autoencoder

_LEAST = 1e-6  # a running count below it says nothing of where its code should lie


class Quantised(NamedTuple):
    """What a quantiser makes of latents (B, C, ...).

    >>> VectorQuantizer(4, 2)(torch.ones(5, 2, 3)).indices.shape
    torch.Size([5, 3])
    """

    z: Tensor  # (B, C, ...): the codes, with the gradient of the latents
    indices: Tensor  # (B, ...) int64: which codes
    loss: Tensor  # (B,): what is to be added to the loss of each example


class Usage(NamedTuple):
    """How a codebook of K codes is used.

    >>> VectorQuantizer(4, 2).usage(torch.tensor([0, 0, 1, 1]))
    Usage(used=0.5, entropy=1.0, perplexity=2.0)
    """

    used: float  # share of the K codes that occur
    entropy: float  # of one index, in bits: at most log2 K
    perplexity: float  # 2^entropy: as many codes, equally frequent, would have that entropy


class VectorQuantizer(nn.Module):
    """Nearest of K codes in place of each latent vector: (B, C, ...) -> `Quantised`.

    The gradient of what follows passes straight through to the latents, as if the rounding were
    the identity. The loss pulls each latent z towards its code e: commitment * |z - sg(e)|^2,
    summed over positions, where sg stops gradients. The codes follow the latents either by moving
    averages or, with decay=None, by the gradient of |sg(z) - e|^2, the middle term of equation 3.

    In the moving averages, with n_k latents in a batch nearest to code k, and sum s_k,

        N_k <- decay N_k + (1 - decay) n_k,   m_k <- decay m_k + (1 - decay) s_k,   e_k = m_k / N_k,

    so that decay=0 is one step of k-means on the batch. They move in training mode only, and each
    process moves its own: under DistributedDataParallel, those of the first are what is kept.

    Args:
        codes: K.
        width: C, the length of a code.
        commitment: beta in equation 3.
        decay: of the moving averages, from 0 to below 1, or None.
        reseed: a code whose running count falls below this share of the codes' mean one moves to
            one of the batch's latents, drawn in proportion to the squared distance to its code.
            0: codes that are no longer chosen stay where they are.
        warm: the first batch in training mode places the codes, on latents of its own, those of
            the first process in all. Else they start as samples of a standard normal.

    Latents nearer than 1e-19 to several codes have any of them in float32: such squares are 0.

    >>> q = VectorQuantizer(2, 1, warm=False)
    >>> q.place(torch.tensor([[0.0], [1.0]]))
    >>> q.eval()(torch.tensor([[0.2], [0.7]])).z
    tensor([[0.],
            [1.]])
    """

    def __init__(
        self,
        codes: int,
        width: int,
        commitment: float = 0.25,
        decay: float | None = 0.99,
        reseed: float = 0.0,
        warm: bool = True,
    ):
        super().__init__()
        if not commitment >= 0:
            raise ValueError(f"commitment is 0 or more, got {commitment}")
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay is None or in [0, 1), such as 0.99; got {decay}")
        if not 0 <= reseed < 1 or (reseed and decay is None):
            raise ValueError(
                f"reseed is a share in [0, 1) of the running counts, which decay=None does not "
                f"keep; got reseed={reseed} and decay={decay}"
            )
        self.codes, self.width = check_count(codes, "codes"), check_count(width, "width")
        self.commitment, self.decay, self.reseed = commitment, decay, reseed
        start = torch.randn(codes, width)
        if decay is None:
            self.codebook = nn.Parameter(start)
        else:
            self.register_buffer("codebook", start)
            self.register_buffer("counts", torch.ones(codes))
            self.register_buffer("sums", start.clone())
        self.register_buffer("placed", torch.tensor(not warm))

    def _apply(self, fn, recurse=True):
        """Running counts stay in float32: half precision counts to 256 or 2048 and no further."""
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        if self.decay is not None and self.codebook.dtype in (torch.float16, torch.bfloat16):
            for name in ("codebook", "counts", "sums"):  # not what half precision left of them
                setattr(self, name, before[name].to(self.codebook.device, torch.float32))
        return self

    def forward(self, z: Tensor) -> Quantised:
        """(B, C, ...) -> the codes (B, C, ...), their indices (B, ...), and the loss (B,).

        Raises:
            TypeError, ValueError: not a floating-point batch with C channels.
        """
        flat = self._rows(z)
        if self.training and not self.placed and len(flat):
            self._start(flat.detach())
        indices = self._nearest(flat.detach())
        indices = indices.view(len(z), *z.shape[2:])
        code = self._codes(indices)
        wide = z.to(code.dtype)
        loss = self.commitment * sum_dims((wide - code.detach()).square())
        if self.decay is None:
            loss = loss + sum_dims((wide.detach() - code).square())
        elif self.training and len(flat):  # no latents move no codes
            self._follow(flat.detach(), indices.flatten())
        # the sum is the code to the last bit, because z - z is 0; its gradient is that of z
        through = code.detach().to(z.dtype) + (z - z.detach())
        return Quantised(through, indices, loss)

    def indices(self, z: Tensor) -> Tensor:
        """The nearest code of each latent vector: (B, C, ...) -> (B, ...) int64."""
        return self._nearest(self._rows(z).detach()).view(len(z), *z.shape[2:])

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes with these indices: (B, ...) -> (B, C, ...)."""
        if indices.is_floating_point() or indices.dtype == torch.bool:
            raise TypeError(f"indices must be integers, not {indices.dtype}")
        return self._codes(check_indices(indices.long(), self.codes, "indices"))

    def _codes(self, indices: Tensor) -> Tensor:
        return self.codebook[indices].movedim(-1, 1)

    @torch.no_grad()
    def place(self, vectors: Tensor, count: float = 1.0) -> None:
        """Put the codes where these vectors are, (K, C), each as if `count` latents lay there."""
        if vectors.shape != self.codebook.shape:
            want, got = tuple(self.codebook.shape), tuple(vectors.shape)
            raise ValueError(f"the codes are {want}, the vectors {got}")
        self.codebook.copy_(vectors)
        if self.decay is not None:
            self.counts.fill_(count)
            self.sums.copy_(vectors * count)
        self.placed.fill_(True)

    def usage(self, indices: Tensor) -> Usage:
        """How often the codes occur in `indices` of any shape."""
        counts = torch.bincount(indices.flatten(), minlength=self.codes)
        share = counts.double() / max(1, indices.numel())
        entropy = -torch.special.xlogy(share, share).sum().item() / math.log(2)
        return Usage((counts > 0).double().mean().item(), entropy, 2**entropy)

    def rate(self, positions: int = 1, usage: Usage | None = None) -> float:
        """Bits for the indices of one example: log2 K at each position, or their entropy there.

        The entropy of single indices is what a code without memory needs; a model of how the
        indices depend on each other needs less.
        """
        each = math.log2(self.codes) if usage is None else usage.entropy
        return check_count(positions, "positions") * each

    def _rows(self, z: Tensor) -> Tensor:
        """(B, C, ...) -> (B * ..., C), in float32 at least, whatever autocast made of them."""
        check_batch(z, name="z", finite=False)
        if z.ndim < 2 or z.shape[1] != self.width:
            raise ValueError(f"latents must be (B, {self.width}, ...), not {tuple(z.shape)}")
        return z.movedim(1, -1).reshape(-1, self.width).to(self.codebook.dtype)

    def _start(self, rows: Tensor) -> None:
        """Place the codes on some of the first batch's latents, (N, C): in all processes the same."""
        n = len(rows)
        order = torch.randperm(n) if n >= self.codes else torch.randint(n, (self.codes,))
        start = rows[order[: self.codes].to(rows.device)]
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(start, 0)  # DDP averages a codebook's gradient, not where it lies
        self.place(start, n / self.codes)

    @torch.no_grad()
    def _nearest(self, rows: Tensor) -> Tensor:
        """argmin_k |z - e_k|^2 = argmin_k |e_k|^2 - 2 z.e_k: (N, C) -> (N,).

        Both from the codes' middle: far from 0 the two terms would cancel.
        """
        with torch.autocast(rows.device.type, enabled=False):
            wide = torch.promote_types(self.codebook.dtype, torch.float32)
            code, rows = self.codebook.to(wide), rows.to(wide)
            middle = code.mean(0)
            code, rows = code - middle, rows - middle
            return torch.addmm(code.square().sum(1), rows, code.T, alpha=-2).argmin(1)

    @torch.no_grad()
    def _follow(self, rows: Tensor, indices: Tensor) -> None:
        """One step of the moving averages; then idle codes move if `reseed` asks for it."""
        counts, sums = torch.zeros_like(self.counts), torch.zeros_like(self.sums)
        counts.index_add_(0, indices, torch.ones_like(rows[:, 0]))
        sums.index_add_(0, indices, rows)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        known = (self.counts > _LEAST)[:, None]
        mean = self.sums / self.counts.clamp_min(_LEAST)[:, None]
        if self.reseed:
            equal = self.counts.mean()
            idle = (self.counts < self.reseed * equal)[:, None]
            far = (rows - self.codebook[indices]).square().sum(1)
            far = (far / far.amax()).nan_to_num(1.0)  # a loss that is not finite is told by `fit`
            far = far + far.mean() * 1e-3 + 1e-12  # all may lie on their codes
            new = rows[torch.multinomial(far, self.codes, replacement=True)]
            mean, known = torch.where(idle, new, mean), known | idle
            self.counts.masked_fill_(idle[:, 0], equal)
            self.sums.copy_(torch.where(idle, new * equal, self.sums))
        self.codebook.copy_(torch.where(known, mean, self.codebook))


class VQAutoencoder(Autoencoder):
    """An autoencoder whose decoder reads codes: `KLAutoencoder`'s networks around a quantiser.

    The loss is |x - decode(z)|^2 / (2 noise^2), which is -log p(x | z) without its constant, plus
    the quantiser's own.

    A diffusion model learns the encoder's output as it is, before the quantiser; the quantiser is
    the decoder's first layer (Rombach et al. 2022, section 3.1). So what a sample misses of the
    nearest codes is rounded away.

    Args:
        codes: K.
        options: of `VectorQuantizer`.

    >>> model = VQAutoencoder(1, latent=2, width=8, codes=4)
    >>> model.indices(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 2, 2])
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 4,
        width: int = 64,
        codes: int = 256,
        noise: float = 0.1,
        **options,
    ):
        super().__init__(channels, latent, width, noise)
        self.quantizer = VectorQuantizer(codes, latent, **options)

    def latents(self, x: Tensor) -> Tensor:
        """The encoder's output, not yet rounded: (B, C, H, W) -> (B, c, H/4, W/4)."""
        return self.features(x)

    def indices(self, x: Tensor) -> Tensor:
        """The codes of images: (B, C, H, W) -> (B, H/4, W/4) int64."""
        return self.quantizer.indices(self.features(x))

    def decode(self, z: Tensor) -> Tensor:
        """Latents, rounded to the nearest codes, to images: (B, c, h, w) -> (B, C, 4h, 4w)."""
        return super().decode(self.quantizer.lookup(self.quantizer.indices(z)).to(z.dtype))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The training loss in nats: (B, C, H, W) -> (B,). The context is not looked at."""
        z, _, loss = self.quantizer(self.features(x))
        return sum_dims((x - super().decode(z)).square()) / (2 * self.noise**2) + loss
