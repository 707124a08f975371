"""Reading the published data files: found in a local folder or downloaded, checked, parsed without trust.

A file may be compressed or not; what is checked is the size and SHA-256 of its uncompressed
content, before anything is parsed. So it does not matter where it came from. How the files that we read
relate to the published ones:

- `mnist`, `fashion-mnist`: the four idx files, published as .gz.
- `cifar10`: the six Python batches, published in one archive, `cifar-10-python.tar.gz`; each is checked
  on its own, and the archive is not kept.
- `binarized-mnist`: published as text, one `.amat` for each split: a line for each image, its 784 values
  0 or 1 with a space between them. A local folder may hold `binarized_mnist.npz` instead, the same rows
  with 8 pixels to a byte (`numpy.packbits`), 2 MB in place of 110.
"""

import gzip
import hashlib
import io
import lzma
import os
import pickle
import sys
import tarfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ..paths import data_dir, write_atomic
from .fetch import NoMirror, fetch

# path: (bytes, SHA-256) of the uncompressed file. The MNIST and CIFAR-10 files have the well-known
# MD5 sums as well; the .npz is our own packing of the published text.
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
    "binarized-mnist/binarized_mnist_train.amat": (
        78400000,
        "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    ),
    "binarized-mnist/binarized_mnist_valid.amat": (
        15680000,
        "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    ),
    "binarized-mnist/binarized_mnist_test.amat": (
        15680000,
        "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
    ),
}

# Where the files of a set are published; {} is the file's name.
MIRRORS: dict[str, tuple[str, ...]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/{}.gz",
        "https://storage.googleapis.com/cvdf-datasets/mnist/{}.gz",
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{}.gz",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/{}.gz",
    ),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    "binarized-mnist": (
        "https://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/{}",
        "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/{}",
    ),
}

_OPEN: dict[str, Callable] = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def read(name: str) -> bytes:
    """The uncompressed content of a file of KNOWN, verified.

    From the folder in the environment variable BOOK_DATA, which is only read; without that variable
    from `data_dir()`, where it is downloaded to if it is not there.

    Raises:
        FileNotFoundError: it is there neither plain nor compressed, and could not be downloaded; says
            where we looked, and what to do without a network.
        PermissionError: the folder to store it in belongs to another user.
        ValueError: it is not the published file.
    """
    path = find(name)
    if path is None:
        _bring(name)
        path = find(name)
        assert path is not None, name
    return _verified(path, *KNOWN[name], _OPEN.get(path.suffix, open))


def find(name: str) -> Path | None:
    """A file of KNOWN in `data_dir()`, plain or compressed; None if it is not there."""
    paths = (data_dir() / (name + end) for end in _OPEN)
    return next((path for path in paths if path.is_file()), None)


def _bring(name: str) -> None:
    """Download a file of KNOWN to `data_dir()`; of an archive, all that it has for us."""
    folder, (size, sha256) = data_dir(), KNOWN[name]
    kit, file = name.split("/")
    urls = [url.format(file) for url in MIRRORS.get(kit, ())]
    if os.environ.get("BOOK_DATA") or not urls:
        raise FileNotFoundError(
            f"{name} (plain, .gz or .xz) is not in {folder}: set the environment variable BOOK_DATA to "
            "a folder that has it, or remove the variable, and it is downloaded"
        )
    if kit == "cifar10":
        part, most, install = folder / kit / "cifar-10-python.tar.gz.part", 200_000_000, _unpack
    else:
        part = folder / kit / (urls[0].rpartition("/")[2] + ".part")
        most, install = size + size // 50 + 10_000, partial(_keep, name=name)
    try:
        fetch(urls, part, install, most, done=lambda: find(name) is not None)
    except PermissionError as error:
        raise PermissionError(
            f"{name} is not in {folder}, and cannot be stored in {part.parent}, which belongs to "
            f"another user: set the environment variable BOOK_CACHE to a folder of your own"
        ) from error
    except NoMirror as error:
        raise FileNotFoundError(
            f"{name} is not in {folder}, and no mirror gave it:\n{error}\n"
            f"Without a network: bring the file from one of these addresses in another way and put it into "
            f"{part.parent} as {file} (plain, .gz or .xz), or set the environment variable BOOK_DATA to a "
            f"folder with the file {name}. Uncompressed it has {size:,} bytes and the SHA-256 {sha256}."
        ) from error


def _keep(part: Path, name: str) -> None:
    """A downloaded file takes its name when it is the right one."""
    path = part.with_name(part.name.removesuffix(".part"))
    try:
        _verified(part, *KNOWN[name], _OPEN.get(path.suffix, open))
    except ValueError as error:  # which says to delete the file; `fetch` does
        raise ValueError("sent something else than the published file") from error
    os.replace(part, path)


def _unpack(part: Path) -> None:
    """CIFAR-10's archive: its batches, each checked, under our names. No path in it is followed."""
    wanted = {name.split("/")[1]: name for name in KNOWN if name.startswith("cifar10/")}
    try:
        with tarfile.open(part, "r:gz") as archive:
            for member in archive:
                batch = member.name.removeprefix("cifar-10-batches-py/")
                if batch not in wanted or not member.isreg():
                    continue
                size, sha256 = KNOWN[wanted.pop(batch)]
                content = archive.extractfile(member).read(size + 1)
                _check(content, f"{batch} in {part.name}", size, sha256)
                write_atomic(part.with_name(batch), content)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{part} is damaged ({error})") from error
    if wanted:
        raise ValueError(f"{part} lacks {', '.join(wanted)}")


def _verified(path: Path, size: int, sha256: str, opened: Callable) -> bytes:
    try:
        with opened(path, "rb") as f:
            content = f.read(size + 1)  # never more: a small file may unpack to a huge one
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and fetch it again") from error
    _check(content, path, size, sha256)
    return content


def _check(content: bytes, where: Path | str, size: int, sha256: str) -> None:
    advice = "delete it and fetch it again"
    if len(content) != size:
        much = "more" if len(content) > size else f"{len(content):,}"
        raise ValueError(f"{where} should have {size:,} bytes unpacked, but has {much}: {advice}")
    if (got := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{where} is not the published file (SHA-256 {got[:12]}...): {advice}")


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


def binarized(split: str) -> np.ndarray:
    """Larochelle and Murray's binarised MNIST, (N, 784) uint8 of 0 and 1: packed rows, or the text."""
    packed = "binarized-mnist/binarized_mnist.npz"
    if find(packed) is not None:
        with np.load(io.BytesIO(read(packed)), allow_pickle=False) as arrays:
            return np.unpackbits(arrays[split], axis=1)
    text = read(f"binarized-mnist/binarized_mnist_{split}.amat")
    return np.frombuffer(text, np.uint8).reshape(-1, 2 * 784)[:, ::2] - ord("0")


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


def main(kits: list[str]) -> int:
    """`python -m lib.data.files mnist cifar10`: bring whole sets before a class without a network."""
    unknown = [kit for kit in kits if kit not in MIRRORS]
    if not kits or unknown:
        print(f"which sets? any of: {', '.join(MIRRORS)}")
        return 2
    for name in KNOWN:
        if name.split("/")[0] in kits and not name.endswith(".npz"):
            read(name)
            print(f"{find(name)}: as published")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
