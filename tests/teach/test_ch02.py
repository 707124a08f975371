"""Chapter 2: its figures' twins in JavaScript, and its exercises' checkers with known wrong answers."""

import json
import math
import random
import shutil
import subprocess

import pytest
import torch

from lib.teach.figures import ch02
from tests.teach.answers import Answers


def compare(a, b, where=""):
    """Same structure, same words, numbers equal to the five digits that a scene keeps."""
    if isinstance(a, dict):
        assert set(a) == set(b), where
        for k in a:
            compare(a[k], b[k], f"{where}/{k}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            compare(x, y, f"{where}/{k}")
    elif isinstance(a, int | float) and not isinstance(a, bool):
        assert abs(a - b) <= 1e-4 * (1e-2 + abs(a)), (where, a, b)
    else:
        assert a == b, where


@pytest.mark.skipif(
    shutil.which("node") is None, reason="needs node; the browser tests cover it too"
)
@pytest.mark.parametrize("name", ["gap", "samples"])
def test_twin_computes_the_same_scene(name):
    figure = getattr(ch02, name)()
    draw = random.Random(2)
    points = [{c.name: draw.choice(c.stops()) for c in figure.controls} for _ in range(12)]
    points += [{c.name: c.stops()[k] for c in figure.controls} for k in (0, -1)] + [figure.values]
    code = f"const t = ({figure.twin}); console.log(JSON.stringify({json.dumps(points)}.map((p) => t(p, null))))"
    out = subprocess.run(
        ["node", "-e", code], capture_output=True, text=True, check=True, timeout=60
    )
    for point, twin in zip(points, json.loads(out.stdout), strict=True):
        compare(figure.scene(**point).to_dict(), twin, str(point))


def test_bound_and_gap_share_one_bar():
    figure = ch02.gap()
    for model, log_p in (("one mode", -1.561), ("two modes", None)):
        sums = set()
        for mean, scale in ((-2.0, 0.3), (0.7, 0.5), (1.4, 1.9)):
            scene = figure.scene(model=model, mean=mean, scale=scale)
            r = {k: float(v) for k, v in scene.readouts.items()}
            parts = [i for i in scene.panels[1].spec["items"] if i["t"] == "poly"]
            assert max(parts[1]["y"]) - min(parts[0]["y"]) == pytest.approx(
                r["sum, log p(x)"] + 9, abs=2e-3
            )
            assert r["ELBO"] == pytest.approx(r["E log p(x | z)"] - r["KL(q ‖ prior)"], abs=2e-3)
            sums.add(r["sum, log p(x)"])
        assert len(sums) == 1 and (log_p is None or log_p in sums)


def test_the_best_q_closes_the_gap():
    v = 1 / (1 + 1.2**2 / 0.7**2)
    scene = ch02.gap().scene(mean=v * 1.2 * 1.1 / 0.7**2, scale=math.sqrt(v))
    assert float(scene.readouts["gap KL(q ‖ posterior)"]) == 0 and "lies on" in scene.alt


@pytest.mark.parametrize("mean", [-3.0, 3.0])
def test_the_parts_are_whole_at_the_slider_s_end(mean):
    """The moments of a wide q, far out, are known: the sum over z has to reach past them."""
    m, scale = ch02.MODELS["two modes"], 2.0
    c, v = mean + 0.25, scale**2  # E y^2 and E y^4 of y = z + 1/4
    y2, y4 = c**2 + v, c**4 + 6 * c**2 * v + 3 * v**2
    recon = -(y4 - 2 * m["x"] * y2 + m["x"] ** 2) / (2 * m["sigma"] ** 2)
    recon -= math.log(m["sigma"]) + 0.5 * math.log(2 * math.pi)
    kl = 0.5 * (v + mean**2 - 1) - math.log(scale)
    read = ch02.gap().scene(model="two modes", mean=mean, scale=scale).readouts
    assert float(read["E log p(x | z)"]) == pytest.approx(recon, abs=2e-3)
    assert float(read["KL(q ‖ prior)"]) == pytest.approx(kl, abs=2e-3)
    assert float(read["ELBO"]) == pytest.approx(recon - kl, abs=2e-3)


def test_more_samples_raise_the_bound_and_the_posterior_needs_one():
    figure = ch02.samples()
    bound = [figure.scene(dim=3, log2k=k).panels[0].spec["items"][2]["y"][k] for k in range(9)]
    assert all(a < b < 0.05 for a, b in zip(bound, bound[1:], strict=False))
    exact = figure.scene(dim=10, log2k=0, near=1.0)
    assert exact.readouts["mean of estimate / p(x)"] == "1.00" and exact.readouts["K"] == "1"


# ---- exercises: the right answer, and wrong ones with their hint

KL = lambda m1, s1, m2, s2: math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
RIGHT_KL = KL(-0.4, 0.6, 0.9, 1.7)
GROWTH = 1 / math.sqrt(0.2 * 1.8) * math.exp((1.25 / 1.25**2) / 1.8)


def bound(x, m, s, a, b, sigma, spread=1.0, entropy=1.0):
    square = (x - a * m - b) ** 2 + spread * a**2 * s**2
    recon = -0.5 * square / sigma**2 - math.log(sigma) - 0.5 * math.log(2 * math.pi)
    return recon - 0.5 * (s**2 + m**2 - 1) + entropy * math.log(s)


def log_evidence(log_w):
    return torch.logsumexp(log_w, 0) - math.log(len(log_w))


def sweep(m, m_star, Lam, fresh=True):
    out = m.clone()
    for i in range(len(m)):
        seen = out if fresh else m
        out[i] = (
            m_star[i] - (Lam[i] @ (seen - m_star) - Lam[i, i] * (seen[i] - m_star[i])) / Lam[i, i]
        )
    return out


def sweep_in_place(m, m_star, Lam):
    m[:] = sweep(m, m_star, Lam)
    return m


RIGHT = {
    "2.1": [RIGHT_KL, 0.896, torch.tensor(RIGHT_KL)],
    "2.2": [(GROWTH**20 - 1) * 100, 1.98e10],
    "2.3": [bound],
    "2.4": [log_evidence, lambda w: (w - w.max(0).values).exp().mean(0).log() + w.max(0).values],
    "2.5": [sweep],
}
WRONG = {
    "2.1": [
        (KL(0.9, 1.7, -0.4, 0.6), "other direction"),
        (KL(-0.4, 0.6**0.5, 0.9, 1.7**0.5), "standard deviations"),
        (RIGHT_KL + 0.5, "-1/2 is missing"),
        (RIGHT_KL / math.log(2), "in bits"),
        (-0.3, "never negative"),
        (2.0, "three terms"),
        ("much", "a number"),
    ],
    "2.2": [
        ((GROWTH**20 - 1) * 10, "must be squared"),
        (GROWTH**20 - 1, "one sample"),
        (20 * (GROWTH - 1) * 100, "multiply"),
        ((GROWTH - 1) ** 20 * 100, "subtract 1 at the end"),
        (1e6, "not yet"),
    ],
    "2.3": [
        (lambda *p: bound(*p, spread=0.0), "spread of q"),
        (lambda *p: bound(*p, entropy=0.0), "entropy of q, is missing"),
        (lambda *p: bound(*p, entropy=-1.0), "sign of log s"),
        (lambda *p: bound(*p) + 0.5 * math.log(2 * math.pi), "log(2 pi)"),
        (lambda x, m, s, *p: bound(x, m, s**0.5, *p), "standard deviation"),
        (lambda *p: 0.0, "not yet"),
        (lambda *p: 1 / 0, "ZeroDivisionError"),
        (3.0, "a function"),
    ],
    "2.4": [
        (lambda w: w.mean(0), "mean of the logs"),
        (lambda w: w.logsumexp(0), "log of the sum"),
        (lambda w: w.logsumexp(1) - math.log(3), "dimension 0"),
        (lambda w: w.exp().mean(0).log(), "underflows"),
        (lambda w: w.sub_(1.0).logsumexp(0), "changed its input"),
        (lambda w: w.max(0).values, "not yet"),
        (lambda w: (w - w.max()).exp().mean(0).log() + w.max(), "underflows"),  # of all examples
        (lambda w: w.mean(0).log(), "not yet"),  # NaN
    ],
    "2.5": [
        (lambda *p: sweep(*p, fresh=False), "newest values"),
        (lambda m, t, P: sweep(m, t, P.inverse()), "precision"),
        (lambda m, t, P: 2 * t - sweep(m, t, P), "not yet"),
        (lambda m, t, P: t, "many sweeps"),
        (sweep_in_place, "changed its input"),
        (lambda m, t, P: m[:2], "shape"),
    ],
}


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 2, RIGHT, WRONG
    PLAIN = ("2.1", "2.2")
    PURE = ("2.4", "2.5")
