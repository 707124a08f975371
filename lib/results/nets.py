"""The one network that the chapters do not have yet: a denoiser of vectors."""

import torch
from torch import Tensor, nn

from lib.nets import mlp
from lib.unet import time_embedding


class VectorNet(nn.Module):
    """An MLP of x_t and the time: net(x, t, context), (B, D) and (B,) -> (B, D); no context.

    Chapter 11's network of the plane, for any D.
    """

    def __init__(self, dim: int, width: int = 96, depth: int = 3, embedding: int = 16):
        super().__init__()
        self.embedding = embedding
        self.inner = mlp(dim + embedding, dim, width, depth)

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        return self.inner(torch.cat([x, time_embedding(t, self.embedding).to(x.dtype)], 1))
