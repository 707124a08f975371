"""The U-Net of the diffusion chapters: `net(x, t, context)`, images in, images out."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attention import Attention, CrossAttention, zeroed
from lib.nets import linear, pixel_shuffle, pixel_unshuffle
from lib.utils import check_batch, check_count, check_indices


def time_embedding(t: Tensor, width: int, scale: float = 1000.0, longest: float = 1e4) -> Tensor:
    """Cosines and sines of a time at `width / 2` frequencies: (B,) -> (B, width), in t's precision.

    Entry i is cos(w_i scale t) and entry i + width / 2 is sin(w_i scale t), where w_i falls
    geometrically from 1 to almost 1 / longest. With t in [0, 1] and scale = 1000 these are the
    embeddings of DDPM's 1000 steps (Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B).

    Raises:
        ValueError: `width` is odd, or t is not a vector.

    >>> time_embedding(torch.tensor([0.0, 1.0]), 4)[0]
    tensor([1., 1., 0., 0.])
    """
    check_count(width, "width")
    if width % 2:
        raise ValueError(f"time_embedding needs an even width, got {width}")
    if t.ndim != 1:
        raise ValueError(f"times must be a vector (B,), got shape {tuple(t.shape)}")
    i = torch.arange(width // 2, dtype=t.dtype, device=t.device)
    angle = (scale * t)[:, None] * torch.exp(i * (-math.log(longest) / (width // 2)))
    return torch.cat([angle.cos(), angle.sin()], 1)


class UNet(nn.Module):
    """A residual U-Net with a time, and a context if it is asked for: (B, C, H, W) -> (B, C', H, W).

    The way down has `blocks` residual blocks at each of len(multipliers) resolutions, each half the
    one before, with `width * multiplier` channels; the way up has one block more at each, and reads
    what the way down has left at the same resolution. The time's embedding is added to the channels
    within each block. The last convolution of each block and of the network starts at zero, so that
    a fresh network returns 0.

    Each normalisation is `GroupNorm` with one group (mean and variance over channels and pixels):
    beside convolutions in bfloat16 the usual 8 or 32 groups would be what takes the time. All
    memory is channels_last: faster on a CPU (a forward pass by 9% to 14%), slower on an H200 with
    TF32 (by 21%), where `net.to(memory_format=torch.contiguous_format)` undoes it.

    Args:
        channels_in: C.
        channels_out: C', by default C.
        width: channels at full resolution; even.
        multipliers: times `width`, for each resolution from the full one down.
        blocks: residual blocks at each resolution on the way down.
        attention: resolutions (0 is the full one) where self-attention follows each block. In the
            middle, at the coarsest, it is always there.
        heads: channels of one attention head (all of a level's, where they are fewer).
        classes: the context is labels (B,) int64, 0 to classes - 1, or `net.null` (= classes) for
            no label.
        features: the context is vectors (B, features).
        tokens: the context is sequences of vectors (B, L, tokens), which every block that attends
            reads too, by cross-attention (Rombach et al. 2022, section 3.3).
        dropout: between the two convolutions of each block.
        patch: squares of patch x patch pixels enter and leave as channels of one; 2 is one
            resolution less, and half the time.
        fourier: powers n for which sin and cos of 2^n pi x enter beside x. Likelihoods of images
            in [-1, 1] with 256 levels hang on differences below a level, which 7 and 8 show.

    Sources: Ronneberger et al. (2015); Ho et al. (2020), appendix B; Dhariwal and Nichol (2021),
    section 3; fourier is Kingma et al. (2021), appendix C.

    >>> net = UNet(1, width=8, multipliers=(1, 2), classes=10)
    >>> net(torch.ones(2, 1, 8, 8), torch.ones(2), torch.tensor([3, net.null])).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int | None = None,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        heads: int = 64,
        classes: int = 0,
        features: int = 0,
        tokens: int = 0,
        dropout: float = 0.0,
        patch: int = 1,
        fourier: Sequence[int] = (),
    ):
        super().__init__()
        counts = dict(channels_in=channels_in, width=width, blocks=blocks, patch=patch, heads=heads)
        for name, value in counts.items():
            check_count(value, name)
        if width % 2:
            raise ValueError(f"the embedding of the time needs an even width, got {width}")
        if not multipliers:
            raise ValueError("multipliers needs one number for each resolution, got none")
        if not set(attention) <= set(range(len(multipliers))):
            raise ValueError(
                f"attention names resolutions 0 to {len(multipliers) - 1}, got {tuple(attention)}"
            )
        kinds = dict(classes=classes, features=features, tokens=tokens)
        if sum(map(bool, kinds.values())) > 1:
            raise ValueError(
                f"the context is labels, vectors or sequences, one of them: got {kinds}"
            )
        self.channels_in, self.classes = channels_in, classes
        self.features, self.tokens = features, tokens
        self.width, self.patch, self.fourier = width, patch, tuple(fourier)
        self.halvings, squares = len(multipliers) - 1, patch * patch
        hidden = 4 * width
        self.time = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        if classes:
            self.embed = nn.Embedding(classes + 1, hidden)
        elif features:
            self.embed = nn.Linear(features, hidden)

        def block(c_in: int, c_out: int, attend: bool) -> Block:
            return Block(c_in, c_out, hidden, dropout, min(heads, c_out) if attend else 0, tokens)

        widths = [width * m for m in multipliers]
        self.first = nn.Conv2d(channels_in * squares * (1 + 2 * len(fourier)), width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        left, c = [width], width  # channels of what the way down leaves
        for level, c_out in enumerate(widths):
            for _ in range(blocks):
                self.down.append(block(c, c_out, level in attention))
                c = c_out
                left.append(c)
            if level < len(widths) - 1:
                self.down.append(Down(c))
                left.append(c)
        self.middle = nn.ModuleList([block(c, c, True), block(c, c, False)])
        for level, c_out in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(block(c + left.pop(), c_out, level in attention))
                c = c_out
            if level:
                self.up.append(Up(c))
        self.norm = nn.GroupNorm(1, c)
        self.last = zeroed(nn.Conv2d(c, (channels_out or channels_in) * squares, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    @property
    def null(self) -> int:
        """The label that says "no label"."""
        return self.classes

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), t (B,) in [0, 1], context as the network was made for: (B, C', H, W).

        Raises:
            ValueError: a shape does not fit, H or W cannot be halved often enough, or there is a
                context where none is expected, or none where one is.
        """
        self._check(x, t, context)
        exact = torch.promote_types(x.dtype, torch.float32)  # half precision has no 1000 times
        embedding = self.time(time_embedding(t.to(exact), self.width).to(x.dtype))
        if context is not None and not self.tokens:
            embedding = embedding + self.embed(context)
        embedding = F.silu(embedding)  # once, for all blocks
        if self.fourier:
            waves = [x * (math.pi * 2**n) for n in self.fourier]
            x = torch.cat([x, *(f(w) for w in waves for f in (torch.sin, torch.cos))], 1)
        h = self.first(pixel_unshuffle(x, self.patch))  # channels_last, because its weights are
        left = [h]
        for layer in self.down:
            h = layer(h, embedding, context)
            left.append(h)
        for layer in self.middle:
            h = layer(h, embedding, context)
        for layer in self.up:
            if isinstance(layer, Block):
                h = torch.cat([h, left.pop()], 1)
            h = layer(h, embedding, context)
        return pixel_shuffle(self.last(_silu(self.norm(h))), self.patch)

    def _check(self, x: Tensor, t: Tensor, context: Tensor | None) -> None:
        check_batch(x, name="the input of UNet", finite=False)
        if x.ndim != 4 or x.shape[1] != self.channels_in:
            raise ValueError(
                f"UNet expects images (B, {self.channels_in}, H, W), got shape {tuple(x.shape)}"
            )
        weights = self.first.weight.dtype
        if x.dtype != weights and torch.float64 in (x.dtype, weights):  # autocast mixes the others
            raise TypeError(f"this UNet has {weights} weights, its input is {x.dtype}")
        H, W = x.shape[2:]
        factor = self.patch * 2**self.halvings
        if H % factor or W % factor:
            patches = f"reads patches of {self.patch} x {self.patch} pixels and "
            raise ValueError(
                f"this UNet {patches if self.patch > 1 else ''}halves images {self.halvings} times:"
                f" H and W must be multiples of {factor}, got H = {H}, W = {W}; pad the images, or "
                f"give fewer multipliers"
            )
        if t.shape != (len(x),):
            raise ValueError(
                f"t must hold one time for each of {len(x)} images, got shape {tuple(t.shape)}"
            )
        kind = "integer labels" if self.classes else "vectors"
        shape: tuple = (len(x), self.features) if self.features else (len(x),)
        if self.tokens:
            kind, shape = "sequences of vectors", (len(x), "L", self.tokens)
        if (context is None) == bool(self.classes or self.features or self.tokens):
            wanted = f"{kind} {shape}" + (f", {self.null} for none" if self.classes else "")
            raise ValueError(
                "this UNet was made without classes, features and tokens and takes no context"
                if context is not None
                else f"this UNet needs a context: {wanted}"
            )
        if context is not None:
            fits = len(context.shape) == len(shape) and all(
                want in ("L", got) for got, want in zip(context.shape, shape, strict=True)
            )
            if not fits or context.is_floating_point() == bool(self.classes):
                raise ValueError(
                    f"the context must be {kind} of shape {shape}, "
                    f"got {context.dtype} of shape {tuple(context.shape)}"
                )
            if self.classes:
                check_indices(context, self.null + 1, "labels")


class Block(nn.Module):
    """Two convolutions, each after a norm and SiLU, around them the identity; attention behind them.

    (B, c_in, H, W), (B, embedding) and, with `tokens`, (B, L, tokens) -> (B, c_out, H, W).

    >>> block = Block(2, 4, embedding=3, dropout=0.0, heads=0)
    >>> block(torch.ones(1, 2, 8, 8), torch.ones(1, 3)).shape
    torch.Size([1, 4, 8, 8])
    """

    def __init__(
        self, c_in: int, c_out: int, embedding: int, dropout: float, heads: int, tokens: int = 0
    ):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, c_in), nn.GroupNorm(1, c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.shift = nn.Linear(embedding, c_out)
        self.skip = Pointwise(c_in, c_out) if c_in != c_out else nn.Identity()
        self.attention = Attention(c_out, heads) if heads else nn.Identity()
        self.cross = CrossAttention(c_out, heads, tokens) if heads and tokens else None
        self.dropout = dropout

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.conv1(_silu(self.norm1(x)))
        h.add_(self.shift(embedding)[:, :, None, None])  # no gradient needs a convolution's output
        h = _silu(self.norm2(h))
        if self.dropout:
            h = F.dropout(h, self.dropout, self.training)
        h = self.attention(self.conv2(h).add_(self.skip(x)))
        return h if self.cross is None else self.cross(h, context)


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution, each pixel for itself: (B, c_in, H, W) -> (B, c_out, H, W).

    What is channels_last is a matrix of pixels as it lies: `lib.nets.linear`.

    >>> Pointwise(2, 4)(torch.ones(1, 2, 8, 8)).shape
    torch.Size([1, 4, 8, 8])
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        # flattened as it lies, so that its gradient lies as it does: else each step copies it
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        pixels = linear(x.permute(0, 2, 3, 1), weight, self.bias)
        return pixels.permute(0, 3, 1, 2)


class Down(nn.Conv2d):
    """Half the resolution, by a convolution with stride 2: (B, C, H, W) -> (B, C, H/2, W/2).

    >>> Down(2)(torch.ones(1, 2, 8, 8), torch.ones(1, 3)).shape
    torch.Size([1, 2, 4, 4])
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x)


class Up(nn.Conv2d):
    """Twice the resolution: (B, C, H, W) -> (B, C, 2H, 2W).

    The convolution comes before the pixels are repeated, where it costs a quarter; what it cannot
    smooth, the blocks that follow do.

    >>> Up(2)(torch.ones(1, 2, 4, 4), torch.ones(1, 3)).shape
    torch.Size([1, 2, 8, 8])
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None = None) -> Tensor:
        return _repeated(super().forward(x))


def _repeated(x: Tensor) -> Tensor:
    """Each pixel four times: (B, C, H, W) -> (B, C, 2H, 2W).

    On a CPU the backward pass of torch's `interpolate` takes four times as long as that of stacks.
    """
    if x.device.type != "cpu" or not x.requires_grad:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    pixels = x.permute(0, 2, 3, 1)  # as they lie
    wide = torch.stack((pixels, pixels), 3).flatten(2, 3)
    return torch.stack((wide, wide), 2).flatten(1, 2).permute(0, 3, 1, 2)


def _silu(x: Tensor) -> Tensor:
    """In place where no gradient needs what was there."""
    return F.silu(x, inplace=not x.requires_grad)
