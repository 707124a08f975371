"""Chapter 13's checkers, and what its explorable figures compute."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from lib.teach.figures import ch13
from tests.teach.answers import Answers

LN2 = math.log(2)


def levels_bits(log_p, D, n):
    return -log_p.mean(0) / (D * LN2) + math.log2(n)


def w2(x, y):
    return (x.sort().values - y.sort().values).square().mean().sqrt()


def mmd2(kxx, kyy, kxy):
    off = lambda m: (m.sum() - m.trace()) / (len(m) * (len(m) - 1))
    return off(kxx) + off(kyy) - 2 * kxy.mean()


def paired(a, b):
    d = b - a
    return d.mean(), d.std() / len(d) ** 0.5


RIGHT = {
    "13.1": [(1204 - 4620) / (784 * LN2) + 8],
    "13.2": [0.5 * math.log(17) - LN2, torch.tensor(0.7235)],
    "13.3": [levels_bits],
    "13.4": [w2],
    "13.5": [mmd2],
    "13.6": [paired],
}
WRONG = {
    "13.1": [
        (1204 / (784 * LN2) + 8, "change of variables"),
        ((1204 + 4620) / (784 * LN2) + 8, "sign"),
        ((1204 - 4620) / (784 * LN2), "log2 256 is missing"),
        ((1204 - 4620) / 784 + 8, "ln 2"),
        ((1204 - 4620) / (784 * LN2) - 8, "not subtracted"),
        ((1204 - 4620) / LN2 + 8, "per dimension"),
        (1.0, "D ln 2"),
    ],
    "13.2": [
        (0.5 * math.log(17), "one bit"),
        (0.5 * math.log(17) / LN2 - 1, "natural"),
        (math.log(17) - LN2, "half"),
        (0.5 * math.log(16) - LN2, "between"),
        (0.5 * math.log(9) - LN2, "square of 0.5"),
        (LN2 - 0.5 * math.log(17), "other way"),
        (3.0, "minus that of the mixture"),
    ],
    "13.3": [
        (lambda p, D, n: levels_bits(p, D, n).mean(), "each image"),
        (lambda p, D, n: -p.mean(0) / (D * LN2), "log2 17 is missing"),
        (lambda p, D, n: levels_bits(-p, D, n), "sign"),
        (lambda p, D, n: -p.mean(0) / (D * LN2) + math.log2(n) / D, "per dimension"),
        (lambda p, D, n: -p.mean(0) / D + math.log2(n), "ln 2"),
        (lambda p, D, n: levels_bits(p.T, D, n), "dimension 0"),
        (
            lambda p, D, n: -(p.logsumexp(0) - math.log(4)) / (D * LN2) + math.log2(n),
            "importance",
        ),
        (lambda p, D, n: p[0], "over draws"),
        (5, "function"),
    ],
    "13.4": [
        (lambda x, y: (x - y).square().mean().sqrt(), "sort"),
        (lambda x, y: (x.sort().values - y.sort().values).abs().mean(), "order 1"),
        (lambda x, y: w2(x, y) ** 2, "root"),
        (lambda x, y: w2(x, y) * 40**0.5, "not their sum"),
        (lambda x, y: (x.mean() - y.mean()).abs(), "means only"),
        (lambda x, y: x.mean(), "root of the mean"),
    ],
    "13.5": [
        (lambda a, b, c: a.mean() + b.mean() - 2 * c.mean(), "diagonal"),
        (lambda a, b, c: mmd2(a, b, c) + c.mean(), "factor 2"),
        (lambda a, b, c: mmd2(a, b, c) + 4 * c.mean(), "subtracted"),
        (
            lambda a, b, c: (a.sum() - a.trace()) / 49 + (b.sum() - b.trace()) / 81 - 2 * c.mean(),
            "n (n - 1)",
        ),
        (lambda a, b, c: (a.sum() - 7) / 42 + (b.sum() - 9) / 72 - 2 * c.mean(), "need not be n"),
        (lambda a, b, c: c.mean(), "twice the mean"),
    ],
    "13.6": [
        (lambda a, b: ((b - a).mean(), (a.var() / 360 + b.var() / 360).sqrt()), "image by image"),
        (lambda a, b: ((b - a).mean(), (b - a).std()), "root of n"),
        (lambda a, b: ((a - b).mean(), (b - a).std() / 360**0.5), "b minus a"),
        (lambda a, b: ((b - a).mean(), (b - a).std() / 360), "not over n"),
        (lambda a, b: (1.0, 1.0), "standard error"),
        (lambda a, b: 1.0, "shape"),
    ],
}


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 13, RIGHT, WRONG
    PLAIN = ("13.1", "13.2")


def test_rank_correlation_is_spearmans():
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=9), draw.integers(0, 4, size=9).astype(float)
    want = stats.spearmanr(x, y).statistic
    assert ch13.spearman(list(x), list(y)) == pytest.approx(want, abs=1e-12)
    assert ch13.spearman([1.0], [2.0]) == 0 == ch13.spearman([1.0, 2.0], [3.0, 3.0])


def test_labels_keep_clear_of_points_and_of_each_other():
    points = [(0.3, 0.3), (0.34, 0.31), (0.7, 0.6), (0.98, 0.5), (0.5, 0.97)]
    words = ["first", "second", "third", "at the edge", "above"]
    boxes = []
    for (x, y, align, _), word in zip(ch13.placed(points, words), words, strict=True):
        wide = 0.0115 * len(word)
        left = x - wide * {"left": 0.0, "center": 0.5, "right": 1.0}[align]
        boxes.append((left, left + wide, y - 0.025, y + 0.025))
    for x, y in points:  # a point is in nobody's way
        assert not any(b[0] < x < b[1] and b[2] < y < b[3] for b in boxes)
    for i, a in enumerate(boxes):
        assert a[0] >= 0 and a[1] <= 1 and a[2] >= 0 and a[3] <= 1
        for b in boxes[:i]:
            assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]


def test_names_do_not_meet_on_a_wide_page():
    """Of all pairs of axes on both data, with all families, bars and bounds: one in a hundred may."""
    figure, met = ch13.compare(), []
    axes, share = figure.controls[1].options, {"left": 0.0, "center": 0.5, "right": 1.0}
    pairs = [(d, *xy) for d in ch13.DATA.values() for xy in itertools.combinations(axes, 2)]
    for data, x, y in pairs:
        panel = figure.scene(data=data, x=x, y=y).panels[0].spec
        (x0, x1), (y0, y1) = panel["xlim"], panel["ylim"]
        boxes = []
        for item in (i for i in panel["items"] if i["t"] == "text"):
            wide, at = 0.01 * len(item["text"]), (item["x"] - x0) / (x1 - x0)
            left, v = at - share[item["align"]] * wide, (item["y"] - y0) / (y1 - y0)
            boxes.append((left, left + wide, v - 0.015, v + 0.015))
        assert len(boxes) == len(ch13.NAMES)
        if any(ch13._meet(a, b) for a, b in itertools.combinations(boxes, 2)):
            met.append((data, x, y))
    assert len(met) <= len(pairs) / 100, met


def test_every_arrow_joins_two_nodes_and_names_an_equation_of_its_own():
    labels = [eq for *_, eq, _ in ch13.ARROWS]
    assert len(set(labels)) == len(labels)
    for a, b, *_ in ch13.ARROWS:
        x, y, u, v = ch13.ends(a, b)
        assert a in ch13.NODES and b in ch13.NODES and math.hypot(u, v) > 0.3
        assert min(x, x + u) > 0 and max(x, x + u) < 10


def test_all_who_share_the_best_value_are_said():
    assert ch13._best([2.0, 1.0, 3.0, 1.0], -1) == [1, 3]
    assert ch13._best([2.0, 1.0, 3.0, 1.0], 1) == [2]
    assert ch13._best([], -1) == [] == ch13._best([1.0], 0)
    figure, shared = ch13.compare(), ch13.numbers()
    for data, here in shared["data"].items():
        for y, axis in here["axes"].items():
            if not axis["better"]:
                continue
            values = [a[0] for a in axis["at"]]
            best = (min if axis["better"] < 0 else max)(values)
            names = [n for n, v in zip(shared["names"], values, strict=True) if v == best]
            who = figure.scene(data=data, y=y).readouts["best vertically"]
            assert who == (" and ".join(names) if len(names) < 3 else f"{len(names)} alike")


def test_filtering_by_family_removes_its_points_and_keeps_the_axes():
    figure = ch13.compare()
    every, less = figure.scene(), figure.scene(f2=False)
    names = lambda scene: {
        i.get("name") for i in scene.panels[0].spec["items"] if i["t"] == "points"
    }
    assert names(every) - names(less) == {"flow"}
    assert every.panels[0].spec["xlim"] == less.panels[0].spec["xlim"]
    none = figure.scene(**{f"f{k}": False for k in range(5)})
    assert none.readouts["models shown"] == "0" and none.readouts["best vertically"] == "none"
