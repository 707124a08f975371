"""Small networks."""

import contextlib
import platform
from collections.abc import Callable
from itertools import pairwise, takewhile

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import mkldnn


def _onednn() -> bool:
    """Whether oneDNN is there, on a processor of AMD: MKL, which is made by Intel, is slow on it."""
    found = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", errors="ignore") as said:  # Linux
        found += "".join(takewhile(str.strip, said))  # the first core: hundreds may follow
    return "AuthenticAMD" in found and mkldnn.is_available()


ONEDNN = _onednn()
PAYS = 2**22  # multiplications from which a convolution is faster, with its gradients


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, (..., C) -> (..., C'): `F.linear`, on processors of AMD in half the time.

    torch leaves products of matrices in float32 to MKL, which on an AMD EPYC takes twice as long as
    oneDNN. To oneDNN it gives convolutions, those of 1 x 1 from 16 images on: the rows become 16.

    >>> x, weight, bias = torch.ones(32, 2), torch.ones(3, 2), torch.zeros(3)
    >>> bool((linear(x, weight, bias) == F.linear(x, weight, bias)).all())
    True
    """
    rows = x.shape[:-1].numel()
    gains = ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32
    if not gains or rows % 16 or rows * weight.numel() <= PAYS:
        return F.linear(x, weight, bias)
    images = x.reshape(16, 1, rows // 16, x.shape[-1]).permute(0, 3, 1, 2)
    read = F.conv2d(images, weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return read.reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """`nn.Linear` by `linear`.

    >>> Linear(2, 3)(torch.ones(4, 2)).shape
    torch.Size([4, 3])
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def mlp(
    d_in: int,
    d_out: int,
    width: int = 64,
    depth: int = 2,
    activation: Callable[[], nn.Module] = nn.SiLU,
    dropout: float = 0.0,
    last: float = 1.0,
) -> nn.Sequential:
    """`depth` hidden layers of `width` units: (B, d_in) -> (B, d_out).

    SiLU because flows and ODE fields are differentiated twice; it costs a sixth of tanh. The
    weights of the last layer, `net[-1]`, start at `last` times their usual size.

    >>> sum(p.numel() for p in mlp(2, 1, width=8, depth=1).parameters())
    33
    """
    sizes, layers = [d_in] + [width] * depth, []
    for a, b in pairwise(sizes):
        layers += [Linear(a, b), activation(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, _quiet(Linear(sizes[-1], d_out), last))


class Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))): (B, width, H, W) -> the same. With `still` it starts as x.

    >>> import torch
    >>> x = torch.ones(1, 2, 4, 4)
    >>> bool((Residual(2, still=True)(x) == x).all())
    True
    """

    def __init__(self, width: int, dropout: float = 0.0, still: bool = False):
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 3, padding=1),
        )
        if still:
            nn.init.zeros_(self.body[-1].weight)
            nn.init.zeros_(self.body[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def pixel_unshuffle(x: Tensor, side: int) -> Tensor:
    """Blocks of side x side pixels to channels: (B, C, H, W) -> (B, C side^2, H / side, W / side).

    torch's, and right for no images too, which torch hands back as they are.

    >>> import torch
    >>> pixel_unshuffle(torch.arange(4.0).view(1, 1, 2, 2), 2).flatten()
    tensor([0., 1., 2., 3.])
    """
    if len(x):
        return F.pixel_unshuffle(x, side)
    _, C, H, W = x.shape
    return x.reshape(0, C * side**2, H // side, W // side)


def pixel_shuffle(x: Tensor, side: int) -> Tensor:
    """The inverse of `pixel_unshuffle`: (B, C side^2, H, W) -> (B, C, side H, side W).

    >>> import torch
    >>> pixel_shuffle(torch.arange(4.0).view(1, 4, 1, 1), 2)[0, 0]
    tensor([[0., 1.],
            [2., 3.]])
    """
    if len(x):
        return F.pixel_shuffle(x, side)
    _, C, H, W = x.shape
    return x.reshape(0, C // side**2, side * H, side * W)


def conv_net(
    c_in: int,
    c_out: int,
    width: int = 64,
    blocks: int = 2,
    dropout: float = 0.0,
    last: float = 0.01,
) -> nn.Sequential:
    """A residual network that keeps the image size: (B, c_in, H, W) -> (B, c_out, H, W).

    The weights of the last layer start at `last` times their usual size: near zero, and not at
    zero, where nothing below would learn in the first step.

    >>> import torch
    >>> conv_net(1, 3, width=4)(torch.ones(2, 1, 5, 7)).shape
    torch.Size([2, 3, 5, 7])
    """
    inner = [Residual(width, dropout) for _ in range(blocks)]
    end = _quiet(nn.Conv2d(width, c_out, 3, padding=1), last)
    return nn.Sequential(nn.Conv2d(c_in, width, 3, padding=1), *inner, nn.SiLU(), end)


def _quiet(layer: nn.Linear | nn.Conv2d, factor: float) -> nn.Module:
    if factor != 1:
        layer.weight.data.mul_(factor)
        layer.bias.data.mul_(factor)
    return layer
