"""The quizzes: complete, worth guessing at, with numbers that are computed here, and usable by keyboard and without scripts."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from book_quiz import read_quiz
from notebooks import ROOT, contents
from scipy.integrate import quad
from scipy.linalg import expm

from lib.data.densities import moons

CHAPTERS = [page for page in contents() if page.startswith("chapters/")]
FILES = sorted((ROOT / "book" / "quizzes").glob("*.yml"))


def quiz(name: str) -> list[dict]:
    return read_quiz(ROOT / "book" / "quizzes" / f"{name.split('/')[-1][:2]}.yml")


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_its_quiz(name):
    for question in quiz(name):
        assert 3 <= len(question["options"]) <= 5, question["ask"]
        whys = [o["why"] for o in question["options"]]
        texts = [o["text"] for o in question["options"]]
        assert len(set(texts)) == len(texts) == len(set(whys)), question["ask"]
        assert min(len(why.split()) for why in whys) >= 5, question["ask"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_right_option_cannot_be_told_by_its_place_or_its_length(name):
    places, longest = Counter(), 0
    for question in (questions := quiz(name)):
        sizes = [len(o["text"]) for o in question["options"]]
        place = [o["right"] for o in question["options"]].index(True)
        places[place] += 1
        longest += sizes[place] == max(sizes) and sizes.count(max(sizes)) == 1
    assert max(places.values()) <= len(questions) / 2
    assert longest <= len(questions) / 2


def test_no_turn_of_phrase_is_used_twice():
    seen: dict[str, str] = {}
    for file in FILES:
        for number, question in enumerate(read_quiz(file), 1):
            for text in [question["ask"], *(o["why"] for o in question["options"])]:
                words = re.findall(r"[\w'$\\]+", text.lower())
                for k in range(len(words) - 5):
                    phrase = " ".join(words[k : k + 6])
                    place = f"{file.stem}, question {number}"
                    assert seen.setdefault(phrase, place) == place, f"{phrase!r} is used twice"


def _normal(x: float, v: float) -> float:
    return math.exp(-0.5 * x * x / v) / math.sqrt(2 * math.pi * v)


def _second_moment(v: float, u: float) -> float:
    """E_q[(p/q)^2] for p = N(0, v) and q = N(0, u), by quadrature."""
    return quad(lambda z: _normal(z, v) ** 2 / _normal(z, u), -12, 12)[0]


def _mean_field() -> float:
    precision = np.linalg.inv(np.array([[1.0, 0.8], [0.8, 1.0]]))
    return 1 / precision[0, 0]


def _rank_one() -> float:
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 1000))
    u *= -0.4 / (u @ v)
    return float(np.linalg.det(np.eye(1000) + np.outer(u, v)))


def _langevin(c2: float, h: float) -> float:
    """The variance that the chain on N(0, c2) settles at, by iterating it."""
    v = 0.0
    for _ in range(500):
        v = (1 - h / c2) ** 2 * v + 2 * h
    return v / c2


def _ddim() -> float:
    """Variance of E[x | u], u = x + 2 eps, for standard normal x."""
    return quad(lambda u: (u / 5) ** 2 * _normal(u, 5), -30, 30)[0]


def _signs(J: np.ndarray) -> float:
    signs = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
    return float(np.var([e @ J @ e for e in signs]))


def _gauss(J: np.ndarray) -> float:
    draws = np.random.default_rng(0).normal(size=(2_000_000, 3)) ** 2 @ np.diag(J)
    return round(float(draws.var()))


def _one_steers() -> float:
    """Nats that no coupling layer without an exchange of roles can win back on the moons (exercise 4.8)."""
    a = torch.linspace(-5, 5, 801, dtype=torch.float64)
    log_p = moons().log_prob(torch.cartesian_prod(a, a)).reshape(801, 801)
    p = log_p.exp() * (a[1] - a[0]) ** 2
    steering, mean = p.sum(1), (p * a).sum(1) / p.sum(1)
    variance = (p * a**2).sum(1) / steering - mean**2
    bell = 0.5 * (2 * math.pi * variance).log() + 0.5
    base = 0.5 * (a**2 + math.log(2 * math.pi))
    return float((steering * (base + bell)).nansum() + (p * log_p).nansum())


J = np.diag([1.0, 2.0, 3.0])
SHEAR = np.array([[2.0, 5.0], [0.0, -2.0]])
NUMBERS = [  # chapter, what its quiz says, the number by another route
    ("01", "9.19", 9.19, lambda: 10 * quad(lambda t: 0.5 / t, 1, 2 * math.pi)[0]),
    ("01", "355", 355, lambda: round(64 * math.log(255))),
    ("02", "$0.36$", 0.36, _mean_field),
    ("02", "= 1.39", 1.39, lambda: -math.log(0.25)),
    ("02", "= 0.29", 0.29, lambda: -math.log(0.75)),
    ("02", "2.3 times the squared mean", 2.3, lambda: _second_moment(0.5, 5)),
    ("02", "a third of the squared mean", 0.34, lambda: _second_moment(0.5, 0.3) - 1),
    ("04", "= 1.84", 1.84, lambda: -math.log(_normal(0, 1) ** 2)),
    ("04", "0.94 nats", 0.94, _one_steers),
    ("04", "about 31", 31, lambda: round(0.7**2 * 64)),
    ("06", "$0.6$", 0.6, _rank_one),
    ("06", "= 0.69", 0.69, lambda: -math.log(0.5)),
    ("06", "= -1.5$", -1.5, lambda: np.dot([3, 0], [-0.5, 4])),
    ("08", "$-2.5$", -2.5, lambda: -3 + 0.5),
    ("08", "= e^0$", 1, lambda: np.linalg.det(expm(SHEAR))),
    ("08", "0 and 28", 0, lambda: _signs(J)),
    ("08", "0 and 28", 28, lambda: _gauss(J)),
    ("09", "1 and 0.87", 0.87, lambda: math.sqrt(1 - 0.25)),
    ("10", "twice as large", 2, lambda: _langevin(0.01, 0.01)),
    ("11", "0.2", 0.2, _ddim),
]


@pytest.mark.parametrize(("chapter", "says", "number", "route"), NUMBERS)
def test_numbers(chapter, says, number, route):
    text = " ".join((ROOT / "book" / "quizzes" / f"{chapter}.yml").read_text("utf8").split())
    assert says in text
    assert abs(route() - number) <= 0.005 + 0.01 * abs(number)


def test_the_quiz_answers_without_javascript(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}{CHAPTERS[0]}.html")
    option = page.locator("ol.quiz details").first
    assert option.locator("p").is_hidden()
    option.locator("summary").click()
    assert option.locator("p").is_visible()
    context.close()
