"""Reading the published data files: found in a local folder, checked, parsed without trust.

A file may be compressed or not; what is checked is the size and SHA-256 of its uncompressed
content, before anything is parsed.
"""

import gzip
import hashlib
import io
import lzma
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..paths import data_dir

# path: (bytes, SHA-256) of the uncompressed file. The MNIST and CIFAR-10 files have the well-known
# MD5 sums as well; the last one is our own packing (8 pixels to a byte) of the published text.
KNOWN = {
    "mnist/train-images-idx3-ubyte": (
        47040016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "mnist/train-labels-idx1-ubyte": (
        60008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "mnist/t10k-images-idx3-ubyte": (
        7840016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "mnist/t10k-labels-idx1-ubyte": (
        10008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist/train-images-idx3-ubyte": (
        47040016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "fashion-mnist/train-labels-idx1-ubyte": (
        60008,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "fashion-mnist/t10k-images-idx3-ubyte": (
        7840016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "fashion-mnist/t10k-labels-idx1-ubyte": (
        10008,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "cifar10/data_batch_1": (
        31035704,
        "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    ),
    "cifar10/data_batch_2": (
        31035320,
        "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    ),
    "cifar10/data_batch_3": (
        31035999,
        "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    ),
    "cifar10/data_batch_4": (
        31035696,
        "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    ),
    "cifar10/data_batch_5": (
        31035623,
        "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    ),
    "cifar10/test_batch": (
        31035526,
        "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    ),
    "binarized-mnist/binarized_mnist.npz": (
        2295919,
        "50de2c8299a5a297789293ab2c30f6fc3cb8c359a15e5e88d5501aa18ebb8fa5",
    ),
}

_OPEN: dict[str, Callable] = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def read(name: str) -> bytes:
    """The uncompressed content of a file of KNOWN, from `data_dir()`, verified.

    Raises:
        FileNotFoundError: it is there neither plain nor compressed; says where we looked.
        ValueError: it is not the published file.
    """
    folder = data_dir()
    found = [folder / (name + end) for end in _OPEN if (folder / (name + end)).is_file()]
    if not found:
        raise FileNotFoundError(
            f"{name} (plain, .gz or .xz) is not in {folder}: set the environment variable "
            "BOOK_DATA to a folder that has it"
        )
    return _verified(found[0], *KNOWN[name])


def _verified(path: Path, size: int, sha256: str) -> bytes:
    advice = "delete it and fetch it again"
    try:
        with _OPEN.get(path.suffix, open)(path, "rb") as f:
            content = f.read(size + 1)  # never more: a small file may unpack to a huge one
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path} is damaged ({error}): {advice}") from error
    if len(content) != size:
        much = "more" if len(content) > size else f"{len(content):,}"
        raise ValueError(f"{path} should have {size:,} bytes unpacked, but has {much}: {advice}")
    if (got := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{path} is not the published file (SHA-256 {got[:12]}...): {advice}")
    return content


def idx(name: str) -> np.ndarray:
    """An array of bytes in MNIST's format: a magic number, the sizes (big-endian), the values."""
    content = read(name)
    zeros, kind, ndim = content[:2], content[2], content[3]
    if zeros != b"\0\0" or kind != 8:
        raise ValueError(f"{name} is not an idx file of bytes")
    shape = np.frombuffer(content, ">i4", ndim, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def cifar_batch(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (10000, 3072) uint8, channel by channel, and labels (10000,) of a Python batch."""
    batch = restricted_unpickle(read(name))
    return batch[b"data"], np.array(batch[b"labels"])


def packed_rows(name: str, key: str) -> np.ndarray:
    """One array of an npz file of bit-packed rows."""
    with np.load(io.BytesIO(read(name)), allow_pickle=False) as arrays:
        return arrays[key]


class _ArraysOnly(pickle.Unpickler):
    """Pickle calls whatever a file names. This one knows three names: what an array consists of."""

    _allowed = {
        # the function that rebuilds an array, from wherever this NumPy keeps it
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module, name):
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"a data file may not use {module}.{name}")
        return self._allowed[module, name]


def restricted_unpickle(content: bytes):
    """Unpickle numbers, strings, containers and NumPy arrays; refuse everything else."""
    return _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
