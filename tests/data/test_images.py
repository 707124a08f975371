"""Images, levels and bits. Tests of the full-size sets run where BOOK_DATA holds them."""

import gzip
import hashlib
import lzma
import math
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lib.data import files, images

F64 = {"dtype": torch.float64}
HERE = Path(os.environ.get("BOOK_DATA", "/nowhere"))
needs = lambda name: pytest.mark.skipif(
    not (HERE / name).is_dir(), reason=f"BOOK_DATA does not hold {name}"
)


# Digits


def test_digits_are_scikit_learns_each_image_once(device):
    from sklearn.datasets import load_digits

    parts = [images.digits(s, device=device) for s in ("train", "valid", "test")]
    assert [len(x) for x, _ in parts] == [1257, 180, 360]
    x, y = torch.cat([x for x, _ in parts]).cpu(), torch.cat([y for _, y in parts]).cpu()
    assert x.shape == (1797, 1, 8, 8) and x.dtype == torch.uint8 and y.dtype == torch.int64
    assert parts[0][0].device.type == device.type == parts[0][1].device.type
    assert x.max() == images.LEVELS["digits"] - 1
    bunch = load_digits()
    key = lambda image, label: (bytes(np.asarray(image, np.uint8).ravel()), int(label))
    ours = sorted(key(i.numpy(), k) for i, k in zip(x, y, strict=True))
    assert ours == sorted(key(i, k) for i, k in zip(bunch.images, bunch.target, strict=True))


def test_digits_split_is_stratified_and_never_changes():
    share = images.digits("test")[1].bincount() / 360
    every = sum(images.digits(s)[1].bincount() for s in ("train", "valid", "test")) / 1797
    assert ((share - every).abs() < 1 / 360).all()
    # A number that a reader compares with ours depends on these very images.
    test = images.digits("test")[0].numpy().tobytes()
    assert hashlib.sha256(test).hexdigest()[:16] == "b5f736e0394343b6"
    assert torch.equal(images.digits("valid")[0], images.digits("valid")[0])


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn: pip install"):
        images.digits()


# Levels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [2, 10, 17, 100, 256, 1000])
def test_quantise_inverts_dequantise_at_the_ends_of_every_cell(device, dtype, n, monkeypatch):
    k = torch.arange(n, device=device)
    almost_one = torch.tensor(1, dtype=dtype).nextafter(torch.tensor(0, dtype=dtype)).item()
    for u in (0.0, 0.3, almost_one):
        rand = lambda shape, u=u, **kw: torch.full(shape, u, dtype=kw["dtype"], device=kw["device"])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", rand)
            x = images.dequantise(k, n, dtype=dtype)
        assert x.dtype == dtype and (x < 1).all() and (x >= 0).all()
        assert torch.equal(images.quantise(x, n).long(), k)


def test_dequantised_levels_are_uniform_in_their_cell(device):
    levels = torch.full((20_000,), 5, dtype=torch.uint8, device=device)
    g = torch.Generator(device).manual_seed(0)
    u = images.dequantise(levels, 17, g, torch.float64) * 17 - 5
    assert 0 <= u.min() and u.max() < 1
    assert abs(u.mean() - 0.5) < 4 * 12**-0.5 / 20_000**0.5
    assert abs(u.var() - 1 / 12) < 0.002
    again = images.dequantise(levels, 17, torch.Generator(device).manual_seed(0), torch.float64)
    assert torch.equal(u, again * 17 - 5)


def test_quantise_clamps_samples():
    x = torch.tensor([-0.2, 0.0, 0.999, 1.0, 7.0])
    assert images.quantise(x, 17).tolist() == [0, 0, 16, 16, 16]
    assert images.quantise(x, 256).dtype == torch.uint8
    assert images.quantise(x, 257).dtype == torch.int64


def test_wrong_levels_are_explained():
    with pytest.raises(TypeError, match="tensor of integers, not torch.float32"):
        images.dequantise(torch.zeros(3), 17)
    with pytest.raises(ValueError, match=r"0 .. 16, but go from 0 to 17"):
        images.dequantise(torch.tensor([0, 17]), 17)
    with pytest.raises(ValueError, match="x has 1 of 1 values that are NaN"):
        images.quantise(torch.tensor([math.nan]), 17)
    with pytest.raises(ValueError, match="'train', 'valid' or 'test', not 'dev'"):
        images.digits("dev")
    with pytest.raises(ValueError, match="margin must be in"):
        images.to_logit(torch.zeros(1, 2), 0.5)


# Bits per dimension


def test_bits_of_a_density_constant_in_each_cell_are_those_of_its_levels():
    """Then Jensen's inequality is an equality, and the bits are -log2 P(k) / D."""
    n, d = 17, 3
    p = torch.rand(n, **F64) + 0.1
    p = p / p.sum()
    k = torch.randint(n, (50, d))
    x = images.dequantise(k, n, dtype=torch.float64)
    nll = -(p[images.quantise(x, n).long()] * n).log().sum(1)  # density: P(k) over a cell of 1/n
    assert_close(images.bits_per_dim(nll, d, n), -p[k].log2().mean(1))
    assert images.bits_per_dim(0.0, 3072, 256) == pytest.approx(8.0)


def test_bits_of_a_smooth_density_bound_those_of_its_levels_from_above():
    n = 4
    edges = torch.linspace(0, 1, n + 1, **F64)  # p(x) = 3 x^2
    exact = -((edges[1:] ** 3 - edges[:-1] ** 3).log2())
    u = (torch.arange(20_000, **F64) + 0.5) / 20_000
    bounds = [
        images.bits_per_dim(-(3 * ((k + u) / n) ** 2).log().mean().item(), 1, n) for k in range(n)
    ]
    assert all(bounds[k] > exact[k] for k in range(n))
    # E log2 u = -1 / ln 2, so for the first cell: log2 n - log2 3 + 2 log2 n + 2 / ln 2
    assert bounds[0] == pytest.approx(6 - math.log2(3) + 2 / math.log(2), abs=1e-3)


@pytest.mark.parametrize("margin", [0.0, 1e-6, 0.05])
def test_logit_is_inverted_and_its_log_det_is_autograds(device, margin):
    x = torch.rand(3, 1, 2, 2, **F64).to(device) * 0.98 + 0.01
    y, logabsdet = images.to_logit(x, margin)
    jacobian = torch.autograd.functional.jacobian(lambda x: images.to_logit(x, margin)[0], x)
    truth = jacobian.reshape(3, 4, 3, 4)[range(3), :, range(3)].slogdet()[1]
    assert_close(logabsdet, truth)
    back, inverse = images.from_logit(y, margin)
    assert_close(back, x)
    assert_close(inverse, -logabsdet)


def test_logit_takes_one_number_for_each_example(device):
    x = torch.rand(5, **F64).to(device)
    y, logabsdet = images.to_logit(x, 0.05)
    back, inverse = images.from_logit(y, 0.05)
    for got, want in zip((y, logabsdet), images.to_logit(x[:, None], 0.05), strict=True):
        assert_close(got, want.flatten())
    assert_close(back, x)
    assert_close(inverse, -logabsdet)


def test_logit_bits_are_those_of_the_density_on_the_unit_cube():
    """A uniform x has 8 bits, whatever the coordinates; and the published formula, term by term."""
    x, margin = torch.rand(5, 1, 4, 4, **F64), 0.05
    y, logabsdet = images.to_logit(x, margin)
    assert_close(images.logit_bits_per_dim(logabsdet, x, 256, margin), torch.full((5,), 8.0, **F64))
    nll, d = torch.randn(5, **F64) * 100, 16
    s = margin + (1 - 2 * margin) * x.flatten(1)
    truth = nll / (d * math.log(2)) - math.log2(1 - 2 * margin) + 8
    truth = truth + (s.log2() + (1 - s).log2()).mean(1)
    assert_close(images.logit_bits_per_dim(nll, x, 256, margin), truth)
    constant = images.logit_constant(x, 256, margin)
    assert constant == pytest.approx((truth - nll / (d * math.log(2))).mean().item())


def test_logit_keeps_float32_at_the_ends():
    x = torch.tensor([[0.0, 1 - 2**-24]])
    y, logabsdet = images.to_logit(x, 1e-6)
    y64, logabsdet64 = images.to_logit(x.double(), 1e-6)
    assert_close(y.double(), y64, rtol=1e-6, atol=0)
    assert_close(logabsdet.double(), logabsdet64, rtol=1e-6, atol=0)


# MAF (Papamakarios et al. 2017), table 2 in nats of logit space, and the bits it stands for.
MAF = [  # name, MNIST nats and bits, CIFAR-10 nats and bits
    ("Gaussian", -1366.9, 2.01, 2367, 4.63),
    ("MADE", -1380.8, 2.04, 147, 5.67),
    ("MADE MoG", -1038.5, 1.41, -397, 5.93),
    ("RealNVP (5)", -1323.2, 1.93, 2576, 4.53),
    ("RealNVP (10)", -1370.7, 2.02, 2568, 4.54),
    ("MAF (5)", -1300.5, 1.89, 2936, 4.36),
    ("MAF (10)", -1313.1, 1.91, 3049, 4.31),
    ("MAF MoG (5)", -1100.3, 1.52, 2911, 4.37),
]


@pytest.mark.parametrize(
    ("load", "margin", "constant", "column"),
    [
        pytest.param(images.mnist, 1e-6, -0.5015, 1, marks=needs("mnist")),
        pytest.param(images.cifar10, 0.05, 5.7414, 3, marks=needs("cifar10")),
    ],
)
def test_published_nats_become_published_bits(load, margin, constant, column):
    levels, _ = load("test")
    x = images.dequantise(levels, 256, torch.Generator().manual_seed(0))
    got = images.logit_constant(x, 256, margin)
    assert got == pytest.approx(constant, abs=5e-4)  # the noise of the dequantisation: 1e-4
    for row in MAF:
        bits = -row[column] / (x[0].numel() * math.log(2)) + got
        assert bits == pytest.approx(row[column + 1], abs=0.006), row[0]


# Files


@pytest.mark.parametrize(
    ("load", "shape", "sizes", "mean"),
    [  # the published mean of all training pixels, over 255
        pytest.param(
            images.mnist, (1, 28, 28), (50_000, 10_000, 10_000), 0.1307, marks=needs("mnist")
        ),
        pytest.param(
            images.fashion_mnist,
            (1, 28, 28),
            (50_000, 10_000, 10_000),
            0.2860,
            marks=needs("fashion-mnist"),
        ),
        pytest.param(
            images.cifar10, (3, 32, 32), (45_000, 5_000, 10_000), 0.4734, marks=needs("cifar10")
        ),
    ],
)
def test_full_size_sets(load, shape, sizes, mean):
    parts = [load(s) for s in ("train", "valid", "test")]
    assert [tuple(x.shape) for x, _ in parts] == [(n, *shape) for n in sizes]
    assert [len(y) for _, y in parts] == list(sizes)
    total = sum(x.numpy().sum(dtype=np.int64) for x, _ in parts[:2])
    assert total / (255 * math.prod(shape) * (sizes[0] + sizes[1])) == pytest.approx(mean, abs=1e-4)
    assert (sum(y.bincount() for _, y in parts[:2]) > 5_000 - 1).all()
    if load is images.cifar10:  # red, green, blue: planes in this order
        colour = parts[0][0].double().mean((0, 2, 3)) / 255
        assert_close(colour, torch.tensor([0.4914, 0.4822, 0.4465], **F64), rtol=0, atol=1e-3)


@needs("binarized-mnist")
def test_binarized_mnist():
    x = images.binarized_mnist("test")
    assert x.shape == (10_000, 1, 28, 28) and x.unique().tolist() == [0, 1]
    assert len(images.binarized_mnist("train")) == 50_000
    assert x.double().mean().item() == pytest.approx(0.1325, abs=1e-3)
    rows = x.double().mean((0, 1, 3))  # upright and unscrambled: empty above and below
    assert rows[:3].max() < 0.01 and rows[14] > 0.2


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A data folder with one file that we know: 3 images of 2 x 2."""
    content = bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2, *range(12)])
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    entry = (len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(files.KNOWN, "set/three", entry)
    (tmp_path / "set").mkdir()
    return tmp_path / "set", content


@pytest.mark.parametrize("end", ["", ".gz", ".xz"])
def test_idx_is_read_plain_or_compressed(shelf, end):
    folder, content = shelf
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[end]
    (folder / f"three{end}").write_bytes(pack(content))
    assert files.idx("set/three").tolist() == np.arange(12).reshape(3, 2, 2).tolist()


def test_a_missing_file_says_where_we_looked(shelf):
    with pytest.raises(FileNotFoundError, match=rf"set/three .*{shelf[0].parent}.*BOOK_DATA"):
        files.idx("set/three")
    with pytest.raises(FileNotFoundError, match="mnist/train-images"):
        images.mnist()
    with pytest.raises(FileNotFoundError, match="cifar10/test_batch"):
        images.cifar10("test")


def test_a_damaged_file_is_refused(shelf):
    folder, content = shelf
    path = folder / "three.gz"
    whole = gzip.compress(content)
    for bad, message in (
        (gzip.compress(content[:-1] + b"x"), "not the published file"),
        (gzip.compress(content[:-1]), "has 27: delete it"),
        (gzip.compress(content + bytes(10**7)), "has more: delete it"),
        (whole[:-9], "is damaged"),
        (b"hello", "is damaged"),
        (whole[:12] + b"\xff\xff\xff" + whole[15:], "is damaged"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=message) as caught:
            files.idx("set/three")
        assert str(path) in str(caught.value)


def test_a_pickle_may_hold_arrays_and_nothing_else(tmp_path):
    folder = str(tmp_path / "owned").encode()
    with pytest.raises(pickle.UnpicklingError, match="may not use posix.mkdir"):
        files.restricted_unpickle(b"cposix\nmkdir\n(S'" + folder + b"'\ntR.")
    with pytest.raises(pickle.UnpicklingError, match="may not use numpy.load"):
        files.restricted_unpickle(b"cnumpy\nload\n.")
    assert not os.listdir(tmp_path)


def test_a_batch_as_python_2_wrote_it():
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\0\1\2\3\4\5tb"
    )
    batch = b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x03K\x04eu."
    got = files.restricted_unpickle(batch)
    assert got[b"data"].tolist() == [[0, 1, 2], [3, 4, 5]] and got[b"labels"] == [3, 4]
