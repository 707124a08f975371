"""Chapter 12's checkers, and what its figures compute."""

import math

import numpy as np
import pytest
import torch

from lib.data import shapes
from lib.teach.figures import ch12
from lib.teach.scene import Panel, Sheet
from tests.teach.answers import Answers


def quantise(z, codes, far=False, through=True):
    apart = torch.cdist(z, codes)
    code = codes[apart.argmax(1) if far else apart.argmin(1)]
    return code.detach() + through * (z - z.detach())


def _cosine(z, c):
    return torch.nn.functional.cosine_similarity(z[:, None], c[None], dim=2)


def follow(N, m, z, k, decay, new=None, old=None, mean=False, late=False):
    one_hot = torch.nn.functional.one_hot(k, len(N)).to(z)
    n, s = one_hot.sum(0), one_hot.T @ z
    new, old = 1 - decay if new is None else new, decay if old is None else old
    s = s / n.clamp(min=1)[:, None] if mean else s
    counts, sums = old * N + new * n, old * m + new * s
    return counts, sums, sums / (N if late else counts)[:, None]


def attention(q, k, v, scale=5**-0.5, dim=1):
    return (q @ k.T * scale).softmax(dim) @ v


RIGHT = {
    "12.1": [0.5625],
    "12.2": [(2.0, 1.25), torch.tensor([2.0, 1.25])],
    "12.3": [2 * math.log(5)],
    "12.4": [quantise, lambda z, c: z + (quantise(z, c) - z).detach()],
    "12.5": [follow],
    "12.6": [attention],
}
WRONG = {
    "12.1": [
        (576, "divide by its"),
        (9, "per pixel was asked"),
        (32, "not 512"),
        (0.1875, "count as one"),
        (64 * math.log(512) / 1024, "base 2"),
        (1, "64 indices"),
        ("x", "number"),
    ],
    "12.2": [
        ((2 * math.log(2), 1.25), "base 2"),
        ((4, 1.25), "factor 1/2"),
        ((1.5, 1.25), "no negative"),
        ((2, 1.5), "own variance"),
        ((2, 1.0), "is lost, too"),
        ((1.25, 2), "order is"),
        ((1, 3), "R adds"),
        (2, "shape"),
    ],
    "12.3": [
        (math.log(5), "twice"),
        (-2 * math.log(5), "upwards"),
        (2 * math.log2(5), "natural"),
        (25, "that is the ratio"),
        (1, "2 log of"),
    ],
    "12.4": [
        (lambda z, c: z + 0, "z itself"),
        (lambda z, c: quantise(z, c, far=True), "farthest"),
        (lambda z, c: quantise(z, c, through=False).detach(), "no gradient"),
        (lambda z, c: quantise(z, c) + z - z.detach(), "unchanged"),
        (lambda z, c: quantise(z, c) + c.sum() - c.sum().detach(), "detach what"),
        (lambda z, c: c[(z @ c.T).argmax(1)].detach() + z - z.detach(), "least distance"),
        (lambda z, c: c[_cosine(z, c).argmax(1)].detach() + z - z.detach(), "least distance"),
        (lambda z, c: quantise(z, c) + 1, "least distance"),
        (lambda z, c: quantise(z, c)[0], "shape"),
        (3, "function was expected"),
    ],
    "12.5": [
        (lambda N, m, z, k, d: follow(N, m, z, k, d, new=d, old=1 - d), "weighs the old"),
        (lambda N, m, z, k, d: follow(N, m, z, k, d, new=1.0), "weight 1 - decay"),
        (lambda N, m, z, k, d: follow(N, m, z, k, d, new=1.0, old=0.0), "forgets"),
        (lambda *a: follow(*a, mean=True), "not their mean"),
        (lambda *a: follow(*a, late=True), "new N"),
        (lambda N, m, z, k, d: follow(N[: k.max() + 1], m[: k.max() + 1], z, k, d), "shape"),
        (lambda *a: follow(*a)[:2], "three things"),
        (lambda *a: (follow(*a)[0] + 1, *follow(*a)[1:]), "decay N"),
        (lambda *a: (follow(*a)[0], follow(*a)[1] + 1, follow(*a)[2]), "decay m"),
        (lambda *a: (*follow(*a)[:2], follow(*a)[2] + 1), "both new"),
    ],
    "12.6": [
        (lambda q, k, v: attention(q, k, v, 1.0), "root of d is missing"),
        (lambda q, k, v: attention(q, k, v, 0.2), "not by d"),
        (lambda q, k, v: attention(q, k, v, 0.5), "number of words"),
        (lambda q, k, v: attention(q, k, v, dim=0), "over the places"),
        (lambda q, k, v: q @ k.T / 5**0.5 @ v, "softmax is missing"),
        (lambda q, k, v: (q @ k.T / 5**0.5).exp() @ v, "divided by their sum"),
        (lambda q, k, v: attention(q, k, v) + 1, "softmax(q"),
        (lambda q, k, v: attention(q, k, v).T, "shape"),
    ],
}  # fmt: skip


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 12, RIGHT, WRONG
    PLAIN = ("12.1", "12.2", "12.3")


def test_scalar_quantisers_are_the_known_ones():
    """Max (1960), table I: distortion and entropy of the best quantisers of a unit Gaussian."""
    rows = ch12.scalar_quantisers((2, 4, 8))
    np.testing.assert_allclose(rows[:, 2], [1 - 2 / math.pi, 0.1175, 0.03454], rtol=5e-4)
    np.testing.assert_allclose(rows[:, 1], [1, 1.911, 2.825], rtol=1e-3)
    assert (rows[:, 2] > 2 ** (-2 * rows[:, 1])).all()  # none beats Shannon's bound


def test_spectrum_sums_to_the_mean_square_and_finds_a_wave():
    x = torch.zeros(2, 3, 16, 16)
    x += torch.cos(2 * math.pi * 3 * torch.arange(16) / 16)
    power = ch12.spectrum(x)
    assert power.argmax() == 3 and power[[0, 1, 2, 4, 5, 6, 7, 8]].max() < 1e-12
    f = torch.fft.fftfreq(16) * 16  # of the places in this ring two hold 1/4 each
    ring = ((f[:, None] ** 2 + f**2).sqrt().round() == 3).sum().item()
    assert power[3] * ring == pytest.approx(0.5)


def test_a_sheet_keeps_its_pictures(tmp_path):
    x = shapes.sample(45, generator=torch.Generator().manual_seed(0))[0]
    pixels = (x * 255).round().byte().permute(0, 2, 3, 1).numpy()
    sheet = Sheet("some", pixels)
    (tmp_path / "some.webp").write_bytes(sheet.webp())
    again = Sheet.open(tmp_path / "some.webp", 45)
    assert again.name == "some" and again.pixels.shape == pixels.shape
    assert np.array_equal(again.pixels, pixels)
    assert again.to_dict()["columns"] == 40
    with pytest.raises(ValueError, match="45 pictures, no number 45"):
        Panel((0, 1), (0, 1)).tile(sheet, 45, (0, 1, 0, 1))
    with pytest.raises(ValueError, match=r"\(N, side, side, 3\)"):
        Sheet("flat", pixels[..., 0])
