"""Attention of the pixels of an image: to each other, and to a sequence of vectors beside it.

attention(q, k, v) = softmax(q k^T / sqrt(d)) v: each query q takes a weighted mean of the values v,
with weights from how well the keys k fit. Vaswani et al. (2017), equation 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.nets import Linear
from lib.utils import check_count


class Attention(nn.Module):
    """Every pixel reads every other: x + attention(norm(x)), (B, C, H, W) -> the same.

    Args:
        heads: channels of one head.

    >>> Attention(8, heads=4)(torch.ones(2, 8, 4, 4)).shape
    torch.Size([2, 8, 4, 4])
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        _check_heads(channels, heads)
        self.heads, self.norm = heads, nn.GroupNorm(1, channels)
        self.qkv = Linear(channels, 3 * channels)
        self.out = zeroed(Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        _check_images(x, self.out.in_features)
        B, C, H, W = x.shape
        qkv = self.qkv(_pixels(self.norm(x)))
        qkv = qkv.view(B, H * W, 3, C // self.heads, self.heads).permute(2, 0, 3, 1, 4)
        read = attend(*qkv).transpose(1, 2).reshape(B, H * W, C)
        return x + self.out(read).view(B, H, W, C).permute(0, 3, 1, 2)


class CrossAttention(nn.Module):
    """Every pixel reads a sequence: (B, C, H, W), (B, L, width) -> (B, C, H, W).

    x + attention with queries from norm(x), keys and values from the sequence. Rombach et al.
    (2022), section 3.3.

    Args:
        heads: channels of one head.
        width: of the sequence's vectors.

    >>> reads = CrossAttention(8, heads=4, width=5)
    >>> total = reads.weights(torch.ones(2, 8, 4, 4), torch.ones(2, 3, 5)).sum(-1)
    >>> torch.allclose(total, torch.ones(2, 2, 16))
    True
    """

    def __init__(self, channels: int, heads: int, width: int):
        super().__init__()
        _check_heads(channels, heads)
        self.heads, self.norm = heads, nn.GroupNorm(1, channels)
        self.query = Linear(channels, channels)
        self.key_value = Linear(width, 2 * channels)
        self.out = zeroed(Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = self.projections(x, context)
        B, C, H, W = x.shape
        read = attend(q, k, v).transpose(1, 2).reshape(B, H * W, C)
        return x + self.out(read).view(B, H, W, C).permute(0, 3, 1, 2)

    def projections(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, N, H W, heads), keys and values (B, N, L, heads), N heads of `heads` channels."""
        _check_images(x, self.query.in_features)
        if context.ndim != 3 or context.shape[::2] != (len(x), self.key_value.in_features):
            raise ValueError(
                f"expected one sequence for each of the {len(x)} images, ({len(x)}, L, "
                f"{self.key_value.in_features}), got {tuple(context.shape)}"
            )
        B, C, H, W = x.shape
        n, L = C // self.heads, context.shape[1]
        query = self.query(_pixels(self.norm(x))).view(B, H * W, n, self.heads).transpose(1, 2)
        key, value = self.key_value(context).view(B, L, 2, n, self.heads).permute(2, 0, 3, 1, 4)
        return query, key, value

    def weights(self, x: Tensor, context: Tensor) -> Tensor:
        """How much each pixel reads of each vector: (B, N, H W, L), sums over L are 1."""
        query, key, _ = self.projections(x, context)
        return (query @ key.transpose(-1, -2) * self.heads**-0.5).softmax(-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v: (..., M, d), (..., L, d), (..., L, e) -> (..., M, e).

    >>> q, k, v = torch.zeros(1, 2), torch.ones(3, 2), torch.tensor([[1.0], [2.0], [6.0]])
    >>> attend(q, k, v)  # equal weights
    tensor([[3.]])
    """
    if q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # torch's fused backward pass takes three to eight times as long there
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


def _pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C), a view of what is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _check_images(x: Tensor, channels: int) -> None:
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"expected images (B, {channels}, H, W), got {tuple(x.shape)}")


def _check_heads(channels: int, heads: int) -> None:
    if channels % check_count(heads, "heads"):
        raise ValueError(f"heads of {heads} channels do not divide {channels} channels")


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all its weights at zero: a branch that starts by adding nothing.

    >>> zeroed(nn.Linear(1, 2)).weight.tolist()
    [[0.0], [0.0]]
    """
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer
