"""Chapter 1's checkers: right answers pass, known wrong ones get the hint that helps; the figures are true."""

import math

import numpy as np
import pytest
import torch

from lib.flows import Transform
from lib.teach import check
from lib.teach.figures import ch01
from tests.teach.answers import Answers

torch_pi = math.sqrt(2 * math.pi)


def gauss(z):
    return torch.exp(-0.5 * z**2) / torch_pi


def leaky(to, fro):
    """A class like the solution of 1.5 with these two maps; each returns (image, logabsdet)."""

    class Leaky(Transform):
        def __init__(self, s):
            super().__init__()
            self.s = s

        def to_base(self, x, context=None):
            return to(x, self.s)

        def from_base(self, z, context=None):
            return fro(z, self.s)

    return Leaky


def without_context(to, fro):
    class Leaky(leaky(to, fro)):
        def to_base(self, x):
            return super().to_base(x)

        def from_base(self, z):
            return super().from_base(z)

    return Leaky


def down(x, s):
    return torch.where(x < 0, x / s, x), -math.log(s) * (x < 0).sum(1).to(x)


def up(z, s):
    return torch.where(z < 0, z * s, z), math.log(s) * (z < 0).sum(1).to(z)


def up_in_place(z, s):
    n = z < 0
    z[n] *= s
    return z, math.log(s) * n.sum(1)


def each(z, s):
    return up(z, s)[0], math.log(s) * (z < 0).to(z)


def diagonal(f, z):
    return torch.func.jacrev(f)(z).diagonal()


RIGHT = {
    "1.1": [0.25, torch.tensor(0.25)],
    "1.2": [lambda r: r * torch.exp(-(r**2) / 2)],
    "1.3": [lambda x: -0.5 * torch.asinh(x) ** 2 - math.log(torch_pi) - 0.5 * torch.log1p(x**2)],
    "1.4": [lambda x, m, s: (gauss((x - m) / s) + gauss((x + m) / s)) / s],
    "1.5": [leaky(down, up), leaky(down, up_in_place)],
    "1.6": [
        lambda f, z: diagonal(f, z).abs().log().sum(),
        lambda f, z: torch.linalg.slogdet(torch.func.jacrev(f)(z))[1],
    ],
}
WRONG = {
    "1.1": [
        (0.5, "density of z"),
        (-0.25, "not negative"),
        (1.0, "multiplied"),
        (0.1, "which interval"),
        ("a quarter", "number"),
        ([1, "b"], "number"),
    ],
    "1.2": [
        (lambda r: torch.exp(-(r**2) / 2), "is missing"),
        (lambda r: torch.exp(-(r**2) / 2) / r, "divided"),
        (lambda r: r * torch.exp(-(r**2) / 2) / (2 * math.pi), "integrate over the angle"),
        (lambda r: 2 * gauss(r), "two"),
        (lambda r: "r", "number or a tensor"),
        (lambda r: r.nothing, "AttributeError"),
        (3, "function was expected"),
    ],
    "1.3": [
        (lambda x: -0.5 * torch.asinh(x) ** 2 - math.log(torch_pi), "is missing"),
        (
            lambda x: -0.5 * torch.asinh(x) ** 2 - math.log(torch_pi) + 0.5 * torch.log1p(x**2),
            "wrong direction",
        ),
        (lambda x: gauss(torch.asinh(x)) / (1 + x**2).sqrt(), "logarithm was asked"),
        (
            lambda x: (gauss(torch.log(x + (x**2 + 1).sqrt())) / (1 + x**2).sqrt()).log(),
            "1e6",
        ),
    ],
    "1.4": [
        (lambda x, m, s: gauss((x - m) / s) / s, "missing"),
        (lambda x, m, s: 2 * gauss((x - m) / s) / s, "unless m = 0"),
        (lambda x, m, s: (gauss((x - m) / s) + gauss((x + m) / s)) / s / 2, "one half"),
        (lambda x, m, s: gauss((x - m) / s) + gauss((x + m) / s), "1/s"),
    ],
    "1.5": [
        (leaky(up, down), "exchanged"),
        (leaky(lambda x, s: (down(x, s)[0], -down(x, s)[1]), up), "other sign"),
        (leaky(down, each), "sum them"),
        (leaky(down, lambda z, s: up(z, s)[0]), "two things"),
        (leaky(down, lambda z, s: (up(z, s)[0], up(z, s)[1].exp())), "logarithm"),
        (without_context(down, up), "context"),
        (leaky(down, lambda z, s: (torch.maximum(z, s * z), up(z, s)[1])), "x = s z elsewhere"),
        (Transform, ("Leaky", "argument", "positional")),
        (leaky(down, up)(0.3), "the class itself"),
    ],
    "1.6": [
        (lambda f, z: diagonal(f, z).prod(), "logarithm is asked"),
        (lambda f, z: diagonal(f, z).sum(), "trace"),
        (lambda f, z: diagonal(f, z).log().sum(), "NaN"),
        (lambda f, z: -diagonal(f, z).abs().log().sum(), "inverse map"),
        (lambda f, z: diagonal(f, z).prod().abs().log(), "underflows"),
    ],
}


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 1, RIGHT, WRONG
    PLAIN = ("1.1", "1.5")
    DOUBLE = ("1.6",)


def test_an_empty_leaky_is_no_answer(capsys):
    class Leaky(Transform):
        def __init__(self, s):
            super().__init__()

    assert not check("1.5", Leaky)
    assert "no answer yet" in capsys.readouterr().out


# ---------------------------------------------------------------- the figures tell the truth


@pytest.mark.parametrize("strength", [0.3, 1.5])
def test_the_jacobian_of_the_bend(strength):
    z = np.array([0.7, -1.3])
    h = 1e-6 * np.eye(2)
    f = lambda z: np.array(ch01.bent(*z, strength))
    columns = np.stack([(f(z + e) - f(z - e)) / 2e-6 for e in h], 1)
    np.testing.assert_allclose(ch01.bent_jacobian(*z, strength), columns, rtol=1e-7)


def test_the_parallelogram_gets_better_with_the_square():
    figure = ch01.parallelogram()
    wrong = [float(figure.scene(size=h).readouts["wrong by"].split()[0]) for h in (0.8, 0.4, 0.2)]
    assert 3.5 < wrong[0] / wrong[1] < 4.5 and 3.2 < wrong[1] / wrong[2] < 4.8  # two decimals


@pytest.mark.parametrize("slope", [0.4, 1.0, 5.0])
def test_bend_keeps_the_mass_of_every_strip(slope):
    figure = ch01.bend()
    for strip in range(2, 10):
        read = figure.scene(slope=slope, place=-0.7, strip=strip).readouts
        assert read["mass, x"] == read["mass of the strip, z"] == "0.100"
        assert float(read["total mass of x"]) == pytest.approx(1, abs=0.002)


def test_columns_know_a_flip_and_a_flat_image():
    figure = ch01.columns()
    assert figure.scene(a=0.5, b=1, c=1, d=0.5).readouts["orientation"] == "flipped"
    flat = figure.scene(a=0.5, b=0.25, c=1, d=0.5)
    assert flat.readouts["orientation"] == "flat" and "no inverse" in flat.alt


@pytest.mark.parametrize(
    ("columns", "det", "density", "word"),
    [
        ((0.1, 0.1, 0.05, 0.1), "0.0050", "200.000", "kept"),
        ((0.05, 0.0, 0.0, -0.05), "-0.0025", "400.000", "flipped"),
        ((-1.05, -0.75, 0.35, 0.25), "0.0000", "none: no density", "flat"),  # -5e-17 in floats
    ],
)
def test_columns_are_flat_only_where_the_area_is_zero(columns, det, density, word):
    scene = ch01.columns().scene(**dict(zip("abcd", columns, strict=True)))
    read = scene.readouts
    assert (read["det A"], read["density there"], read["orientation"]) == (det, density, word)
    assert ("collinear" in scene.alt) == (word == "flat") and f"area {det}." in scene.alt


def test_by_hand_only_the_full_score_has_area_one():
    figure = ch01.by_hand()
    best = dict(slope=0.05, middle=0.4, height=0.8)
    assert float(figure.scene(**best).readouts["score"]) > -1.5
    assert figure.scene(**best).readouts["area, beyond the frame too"] == "1.00"
    greedy = figure.scene(slope=0.05, middle=0.4, height=0.0, logdet=False).readouts
    assert float(greedy["score"]) == pytest.approx(-0.92, abs=0.01)
    assert greedy["area, beyond the frame too"] == "20.00"  # 1 / slope: all of it
