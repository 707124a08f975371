"""Encoders and decoders for images: shapes in, shapes out, no probability."""

import math

from torch import nn

from lib.nets import Linear, Residual, mlp


class _Flatten(nn.Flatten):
    """(B, *shape) -> (B, D), and a sentence for anything else."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x):
        if tuple(x.shape[1:]) != self.shape:
            want = ", ".join(map(str, ("B", *self.shape)))
            raise ValueError(f"this encoder reads ({want}), got {tuple(x.shape)}")
        return super().forward(x)


def mlp_encoder(
    shape: tuple[int, ...], features: int, width: int = 256, depth: int = 2
) -> nn.Sequential:
    """(B, *shape) -> (B, features); a VAE with `latent` dimensions wants 2 * latent features.

    >>> import torch
    >>> mlp_encoder((1, 8, 8), features=4)(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 4])
    """
    return nn.Sequential(_Flatten(shape), mlp(math.prod(shape), features, width, depth))


def mlp_decoder(
    latent: int,
    shape: tuple[int, ...],
    channels: int = 1,
    width: int = 256,
    depth: int = 2,
    dropout: float = 0.0,
) -> nn.Sequential:
    """(B, latent) -> (B, channels * shape[0], *shape[1:]), as `likelihoods` reads it.

    >>> import torch
    >>> mlp_decoder(4, (1, 8, 8), channels=3)(torch.ones(2, 4)).shape
    torch.Size([2, 3, 8, 8])
    """
    out = (channels * shape[0], *shape[1:])
    net = mlp(latent, math.prod(out), width, depth)
    if dropout:  # after each activation
        layers = [(m, nn.Dropout(dropout)) if isinstance(m, nn.SiLU) else (m,) for m in net]
        net = nn.Sequential(*(m for pair in layers for m in pair))
    return nn.Sequential(net, nn.Unflatten(1, out))


def conv_encoder(
    shape: tuple[int, int, int],
    features: int,
    width: int = 32,
    halvings: int = 2,
    blocks: int = 1,
    dropout: float = 0.0,
) -> nn.Sequential:
    """(B, C, H, W) -> (B, features): `halvings` times residual blocks and a stride of 2.

    The number of channels doubles at each halving: 28 x 28 with two halvings ends at 7 x 7.

    >>> import torch
    >>> conv_encoder((1, 8, 8), features=4, width=4)(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 4])
    """
    _check_halvings(shape, halvings)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, padding=1)]
    for _ in range(halvings):
        layers += [Residual(width, dropout, still=True) for _ in range(blocks)]
        layers += [nn.SiLU(), nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)]
        width *= 2
    layers += [Residual(width, dropout, still=True) for _ in range(blocks)]
    side = (shape[1] >> halvings) * (shape[2] >> halvings)
    return nn.Sequential(*layers, nn.SiLU(), nn.Flatten(), Linear(width * side, features))


def conv_decoder(
    latent: int,
    shape: tuple[int, int, int],
    channels: int = 1,
    width: int = 32,
    halvings: int = 2,
    blocks: int = 1,
    dropout: float = 0.0,
) -> nn.Sequential:
    """(B, latent) -> (B, channels * C, H, W): the encoder's layers in the opposite order.

    >>> import torch
    >>> conv_decoder(4, (1, 8, 8), width=4)(torch.ones(2, 4)).shape
    torch.Size([2, 1, 8, 8])
    """
    _check_halvings(shape, halvings)
    start = (width << halvings, shape[1] >> halvings, shape[2] >> halvings)
    layers: list[nn.Module] = [Linear(latent, math.prod(start)), nn.Unflatten(1, start)]
    wide = start[0]
    for _ in range(halvings):
        layers += [Residual(wide, dropout, still=True) for _ in range(blocks)]
        layers += [nn.SiLU(), nn.ConvTranspose2d(wide, wide // 2, 4, stride=2, padding=1)]
        wide //= 2
    layers += [Residual(wide, dropout, still=True) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(wide, channels * shape[0], 3, padding=1))


def _check_halvings(shape: tuple[int, int, int], halvings: int) -> None:
    factor = 2**halvings
    if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
        raise ValueError(
            f"{halvings} halvings need images (C, H, W) with H and W divisible by {factor}, "
            f"got {tuple(shape)}"
        )
