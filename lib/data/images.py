"""Images as integer grey levels, and the way from levels to densities and back to bits.

`digits` ships with scikit-learn. The other sets come through `lib.data.files`: from a local folder (the
environment variable BOOK_DATA), else downloaded once to `lib.paths.data_dir()`, and always checked
against a SHA-256.

All functions return `(levels, labels)`: levels (N, C, H, W) uint8 from 0 to LEVELS[name] - 1,
labels (N,) int64. `split` is "train", "valid" or "test"; the first two never overlap, the test
set is the official one.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ..utils import check_batch, check_count, check_finite, known, sum_dims
from . import files

LEVELS = {"digits": 17, "mnist": 256, "fashion_mnist": 256, "cifar10": 256, "binarized_mnist": 2}

Images = tuple[Tensor, Tensor]


def digits(split: str = "train", device: torch.device | str | None = None) -> Images:
    """scikit-learn's 1,797 handwritten digits, (N, 1, 8, 8), 17 levels: 1,257 / 180 / 360 images.

    The split is fixed and stratified: every class has the same share of each part, to one image.
    Source: Alpaydin and Kaynak (1998), UCI. Levels count the black pixels of 4 x 4 blocks.

    Raises:
        ImportError: scikit-learn is not installed.

    >>> levels, labels = digits("test")
    >>> levels.shape, int(levels.max())
    (torch.Size([360, 1, 8, 8]), 16)
    """
    _check_split(split)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("digits() needs scikit-learn: pip install scikit-learn") from error
    bunch = load_digits()
    part = _stratified(bunch.target, {"test": 360, "valid": 180})[split]
    return _tensors(bunch.images[part][:, None], bunch.target[part], device)


def mnist(split: str = "train", device: torch.device | str | None = None) -> Images:
    """Handwritten digits, (N, 1, 28, 28), 256 levels: 50,000 / 10,000 / 10,000 images.

    `valid` is the end of the official training set. LeCun and Cortes (1998), CC BY-SA 3.0.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or is not the published one.
    """
    return _idx("mnist", split, device)


def fashion_mnist(split: str = "train", device: torch.device | str | None = None) -> Images:
    """Ten kinds of clothes in the format of `mnist`. Xiao et al. (2017), MIT licence."""
    return _idx("fashion-mnist", split, device)


def cifar10(split: str = "train", device: torch.device | str | None = None) -> Images:
    """Ten kinds of objects, (N, 3, 32, 32), 256 levels: 45,000 / 5,000 / 10,000 images.

    `valid` is the end of the official training set. Krizhevsky (2009).
    """
    _check_split(split)
    names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    batches = [files.cifar_batch(f"cifar10/{name}") for name in names]
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    part = _part(split, len(labels), 5_000)
    return _tensors(images.reshape(-1, 3, 32, 32)[part], labels[part], device)


def binarized_mnist(split: str = "train", device: torch.device | str | None = None) -> Tensor:
    """MNIST as zeros and ones, (N, 1, 28, 28) uint8: 50,000 / 10,000 / 10,000 images, no labels.

    The fixed binarisation of Larochelle and Murray (2011), in its own order; it makes likelihoods
    in nats comparable between papers.
    """
    _check_split(split)
    return torch.from_numpy(files.binarized(split).reshape(-1, 1, 28, 28)).to(device)


def dequantise(
    levels: Tensor,
    n_levels: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """(k + u) / n_levels with u uniform on [0, 1): any shape of integers -> the same shape in [0, 1).

    Rounding could lift the result to the next level, or to 1: it is kept strictly below the upper
    end of its cell, so that `quantise` gives k back always.

    Raises:
        TypeError: levels are not integers. ValueError: a level is not in 0 .. n_levels - 1.

    >>> x = dequantise(torch.tensor([0, 16]), 17)
    >>> (x * 17).floor()
    tensor([ 0., 16.])
    """
    if not isinstance(levels, Tensor) or levels.is_floating_point() or levels.is_complex():
        kind = levels.dtype if isinstance(levels, Tensor) else type(levels).__name__
        raise TypeError(f"levels must be a tensor of integers, not {kind}")
    check_count(n_levels, "n_levels", 2)
    if levels.numel() and not 0 <= int(levels.min()) <= int(levels.max()) < n_levels:
        low, high = int(levels.min()), int(levels.max())
        raise ValueError(f"levels must lie in 0 .. {n_levels - 1}, but go from {low} to {high}")
    dtype = dtype or torch.get_default_dtype()
    u = torch.rand(levels.shape, generator=generator, device=levels.device, dtype=dtype)
    k = levels.to(dtype)
    end = (k + 1) / n_levels
    return ((k + u) / n_levels).minimum(end.nextafter(torch.zeros_like(end)))


def quantise(x: Tensor, n_levels: int) -> Tensor:
    """The level of each value, the inverse of `dequantise`: uint8 (int64 above 256 levels).

    Values outside [0, 1) take the nearest level, since a model's samples may leave the interval.

    >>> quantise(torch.tensor([0.0, 0.5, 0.999, 1.2]), 17)
    tensor([ 0,  8, 16, 16], dtype=torch.uint8)
    """
    check_finite(check_batch(x))
    check_count(n_levels, "n_levels", 2)
    k = (x * n_levels).floor().clamp(0, n_levels - 1)
    # The product is rounded: put k right where x is not in [k / n, (k + 1) / n) as computed.
    k = k + ((k + 1) / n_levels <= x).to(x) - (k / n_levels > x).to(x)
    return k.clamp(0, n_levels - 1).to(torch.uint8 if n_levels <= 256 else torch.int64)


def to_unit(levels: Tensor, n_levels: int, u: Tensor | float = 0.5) -> Tensor:
    """Level k to 2 (k + u - 1/2) / (n - 1) - 1: -1 to 1, and half a level beyond for u in [0, 1).

    >>> to_unit(torch.tensor([0.0, 8.0, 16.0]), 17)
    tensor([-1.,  0.,  1.])
    """
    return (levels + (u - 0.5)) * (2 / (check_count(n_levels, "n_levels", 2) - 1)) - 1


def bits_per_dim(nll: Tensor | float, dim: int, n_levels: int) -> Tensor | float:
    """(nll + D ln n_levels) / (D ln 2), for the nll in nats of x = (k + u) / n_levels in [0, 1]^D.

    A density p of x gives level k the probability P(k) = integral of p over its cell, which has the
    volume n_levels^-D; so P(k) = n_levels^-D E_u p((k + u) / n_levels). By Jensen
    -ln P(k) <= E_u[-ln p] + D ln n_levels: in bits and divided by D that is what we return, an
    upper bound on the bits needed to store the levels (Theis et al. 2016). A uniform density has
    nll = 0, hence log2 n_levels bits: 8 for bytes. n_levels = 1 turns nats into bits alone.

    >>> bits_per_dim(0.0, dim=64, n_levels=256)
    8.0
    """
    check_count(dim, "dim"), check_count(n_levels, "n_levels")
    return (nll / dim + math.log(n_levels)) / math.log(2)


def to_logit(x: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """y = log(s / (1 - s)) with s = margin + (1 - 2 margin) x: [0, 1]^D -> R^D, and log|det dy/dx|.

    (B, ...) -> (B, ...), (B,). The margin keeps the ends finite; MAF and RealNVP use 1e-6 for MNIST
    and 0.05 for CIFAR-10.

    >>> to_logit(torch.tensor([[0.5]]), 0.0)
    (tensor([[0.]]), tensor([1.3863]))
    """
    check_batch(x, finite=False)
    _check_margin(margin)
    log_s, log_rest = _logs(x, margin)
    if known((~(log_s - log_rest).isfinite() & x.isfinite()).any()):
        low, high = x.min().item(), x.max().item()
        raise ValueError(
            f"to_logit needs values in [0, 1], within it for margin 0; got {low:.4g} to {high:.4g}"
        )
    logabsdet = sum_dims(math.log1p(-2 * margin) - log_s - log_rest)
    return log_s - log_rest, logabsdet


def from_logit(y: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """The inverse of `to_logit`, and its own log|det dx/dy|: (B, ...) -> (B, ...), (B,).

    >>> from_logit(to_logit(torch.tensor([[0.3]]), 0.05)[0], 0.05)[0]
    tensor([[0.3000]])
    """
    check_batch(y, finite=False)
    _check_margin(margin)
    log = torch.nn.functional.logsigmoid
    x = (torch.sigmoid(y) - margin) / (1 - 2 * margin)
    return x, sum_dims(log(y) + log(-y) - math.log1p(-2 * margin))


def logit_bits_per_dim(nll: Tensor, x: Tensor, n_levels: int, margin: float) -> Tensor:
    """Bits per dimension from the nll in nats of y = to_logit(x), one per image: (B,), (B, ...) -> (B,).

    log p(x) = log p(y) + log|det dy/dx|; then `bits_per_dim`. x is dequantised, in [0, 1).
    Written out, with s as in `to_logit` (Papamakarios et al. 2017, appendix E.2):
    nll / (D ln 2) - log2(1 - 2 margin) + log2 n_levels + mean(log2 s + log2(1 - s)).

    >>> x = torch.full((1, 4), 0.5)
    >>> logit_bits_per_dim(to_logit(x, 0.05)[1], x, 256, 0.05)
    tensor([8.])
    """
    return bits_per_dim(nll - to_logit(x, margin)[1], x.shape[1:].numel(), n_levels)


def logit_constant(x: Tensor, n_levels: int, margin: float) -> float:
    """What turns a mean nll of a data set x in logit space into bits per dimension.

    bits = nll / (D ln 2) + constant. About -0.5015 for MNIST's test set and 5.7414 for CIFAR-10's.

    >>> round(logit_constant(torch.full((2, 4), 0.5), 256, 0.05), 4)
    6.152
    """
    check_count(len(x), "the number of images")
    return float(logit_bits_per_dim(x.new_zeros(len(x)), x, n_levels, margin).double().mean())


def _check_margin(margin: float) -> None:
    if not 0 <= margin < 0.5:
        raise ValueError(f"margin must be in [0, 0.5), not {margin}")


def _logs(x: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """log s and log(1 - s); 1 - s from 1 - x, because s is rounded where it is close to 1."""
    wide = 1 - 2 * margin
    return (margin + wide * x).log(), (margin + wide * (1 - x)).log()


def _check_split(split: str) -> None:
    if split not in ("train", "valid", "test"):
        raise ValueError(f"split must be 'train', 'valid' or 'test', not {split!r}")


def _part(split: str, n: int, n_valid: int) -> slice:
    """Rows of an official file: all of the test file; the training file without or with its end."""
    if split == "test":
        return slice(None)
    return slice(n - n_valid) if split == "train" else slice(n - n_valid, n)


def _idx(name: str, split: str, device) -> Images:
    _check_split(split)
    stem = "t10k" if split == "test" else "train"
    images = files.idx(f"{name}/{stem}-images-idx3-ubyte")
    labels = files.idx(f"{name}/{stem}-labels-idx1-ubyte")
    part = _part(split, len(labels), 10_000)
    return _tensors(images[part][:, None], labels[part], device)


def _stratified(labels: np.ndarray, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Sorted indices of each named part, and of "train": the rest."""
    # RandomState, whose stream NumPy has frozen; the newer Generator's may change.
    order = np.random.RandomState(1797).permutation(len(labels))
    by_class = [order[labels[order] == c] for c in np.unique(labels)]
    parts, used = {}, np.zeros(len(by_class), int)
    for name, size in sizes.items():
        exact = np.array([size * len(c) / len(labels) for c in by_class])
        take = np.floor(exact).astype(int)  # then one more where the most was cut off
        take[np.argsort(take - exact, kind="stable")[: size - take.sum()]] += 1
        rows = [c[u : u + t] for c, u, t in zip(by_class, used, take, strict=True)]
        parts[name], used = np.sort(np.concatenate(rows)), used + take
    rest = [c[u:] for c, u in zip(by_class, used, strict=True)]
    return {**parts, "train": np.sort(np.concatenate(rest))}


def _tensors(images: np.ndarray, labels: np.ndarray, device) -> Images:
    levels = torch.from_numpy(np.ascontiguousarray(images).astype(np.uint8))
    return levels.to(device), torch.from_numpy(np.asarray(labels).astype(np.int64)).to(device)
