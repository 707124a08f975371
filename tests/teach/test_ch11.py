"""Chapter 11's checkers, and what its explorable figures compute."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from lib.metrics import sliced_wasserstein
from lib.teach.figures import ch11
from tests.teach.answers import Answers


def velocity(x, score, beta, c=0.5, sign=1.0):
    return -beta / 2 * x - sign * c * beta * score


def ddim(x_t, eps, a_t, s_t, a_s, s_s):
    return a_s * (x_t - s_t * eps) / a_t + s_s * eps


def churned(x, score, f, g2, h, lam, z, c=None, fresh=None, way=1.0):
    c = (1 + lam**2) / 2 if c is None else c
    fresh = lam * math.sqrt(g2 * h) if fresh is None else fresh
    return x - way * h * (f * x - c * g2 * score) + fresh * z


RIGHT = {
    "11.1": [2.5, torch.tensor(2.5)],
    "11.2": [0.8],
    "11.3": [velocity],
    "11.4": [ddim],
    "11.5": [churned],
}
WRONG = {
    "11.1": [
        (1.5 * 25 / 9, "square root"),
        (0.9, "wrong way"),
        (3.5, "variances add"),
        (0.5, "own scale"),
        (1.5 * math.sqrt(19 / 3), "9, not 3"),
        (1.0, "ratio"),
        ("x", "number"),
    ],
    "11.2": [
        (0.2, "share that is left"),
        (math.sqrt(0.8), "square it"),
        (0.9, "squared"),
        (0.6, "both variances"),
        (0.5, "one minus"),
    ],
    "11.3": [
        (lambda x, s, b: velocity(x, s, b, c=1.0), "g^2 / 2"),
        (lambda x, s, b: velocity(x, s, b, sign=-1.0), "sign"),
        (lambda x, s, b: -b * x - b / 2 * s, "f = -beta / 2"),
        (lambda x, s, b: -b / 2 * x - b**2 / 2 * s, "squares beta"),
        (lambda x, s, b: -b / 2 * x - b**0.5 / 2 * s, "root"),
        (lambda x, s, b: -velocity(x, s, b), "backwards"),
        (lambda x, s, b: x, "f x - g^2 / 2"),
        (lambda x, s, b: velocity(x, s, b).sum(1), "shape"),
        (3, "function was expected"),
    ],
    "11.4": [
        (lambda x, e, a, s, b, u: b * (x - s * e) / a + s * e, "sigma_t where"),
        (lambda x, e, a, s, b, u: a * (x - s * e) / a + u * e, "alpha_t where"),
        (lambda x, e, a, s, b, u: (x - s * e) / a, "that is x_hat"),
        (lambda x, e, a, s, b, u: b * (x - s * e) / a, "missing"),
        (lambda x, e, a, s, b, u: b * (x - s * e) + u * e, "division"),
        (lambda x, e, a, s, b, u: b * x + u * e, "instead of x_hat"),
        (lambda x, e, a, s, b, u: x, "alpha_s x_hat"),
    ],
    "11.5": [
        (lambda *a: churned(*a, way=-1.0), "minus h"),
        (lambda *a: churned(*a, c=1.0), "full SDE"),
        (lambda *a: churned(*a, c=0.5), "of the ODE"),
        (lambda *a: churned(*a, c=0.85), "squared in the weight"),
        (lambda *a: churned(*a, c=(1 - 0.49) / 2), "forward in time"),
        (lambda *a: churned(*a, c=1.49), "factor 1/2"),
        (lambda *a: churned(*a, fresh=0.7 * math.sqrt(2.6) * 0.01), "root of h"),
        (lambda *a: churned(*a, fresh=0.7 * 2.6 * 0.1), "g, not g^2"),
        (lambda *a: churned(*a, fresh=math.sqrt(0.026)), "multiplied by lam"),
        (lambda *a: churned(*a, fresh=0.49 * math.sqrt(0.026)), "lam, not lam^2"),
        (lambda *a: churned(*a, fresh=0.0), "missing"),
        (lambda *a: churned(*a) + 1, "x - h"),
    ],
}  # fmt: skip


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 11, RIGHT, WRONG
    PLAIN = ("11.1", "11.2")


@pytest.mark.parametrize("churn", [0.0, 0.6, 1.0, 1.6])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.7])
def test_the_cloud_has_the_exact_law_whatever_the_noise(churn, t):
    """Within 4.5 standard errors of mean and spread over the 20 draws; and not without the half."""
    k = ch11.STEPS - round(t * ch11.STEPS)
    x = np.concatenate([ch11.run(churn, seed, True)[k] for seed in range(1, 21)])
    line = np.linspace(-6, 6, 4001)
    p = ch11.line_law(t, line)[0]
    mean, second = (np.trapezoid(p * line**q, line) for q in (1, 2))
    assert abs(np.trapezoid(p, line) - 1) < 1e-6
    assert abs(x.mean() - mean) < 4.5 * x.std() / len(x) ** 0.5 + 0.02
    assert abs(x.std() / math.sqrt(second - mean**2) - 1) < 0.06
    wrong = np.concatenate([ch11.run(churn, seed, False)[k] for seed in range(1, 21)])
    assert wrong.std() < 0.92 * x.std()


def test_the_draws_are_normal():
    z = np.concatenate([ch11._normals(seed).ravel() for seed in (1, 2, 3)])
    n = len(z)
    for q, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        spread = np.std(z**q) / n**0.5
        assert abs((z**q).mean() - moment) < 4.5 * spread
    assert abs((z[:-1] * z[1:]).mean()) < 4.5 / n**0.5


def test_score_of_the_line():
    x, d = np.linspace(-3, 3, 61), 1e-5
    for t in (0.0, 0.2, 0.9):
        by_difference = (
            np.log(ch11.line_law(t, x + d)[0]) - np.log(ch11.line_law(t, x - d)[0])
        ) / (2 * d)
        np.testing.assert_allclose(ch11.line_law(t, x)[1], by_difference, rtol=1e-6, atol=1e-7)


def test_more_evaluations_reach_the_floor():
    runs, floor = ch11.table()
    for grid in ch11.GRIDS:
        for name in ch11.FLOWS:
            errors = [runs[name, grid, n][1] for n in ch11.COUNTS]
            assert errors[-1] < 2 * floor[1] and errors[-1] < 0.75 * max(errors)
    assert runs["DDIM", "equal in t", 8][1] < runs["Heun", "equal in t", 8][1]
    x, _ = runs["Heun", "equal in t", 64]
    assert x.shape == (ch11.DRAWN, 2)


def test_a_path_that_leaves_the_picture_is_not_drawn_along_its_frame():
    left = ch11.noise().scene(churn=0.6, seed=4).panels[0].spec
    most = max(max(map(abs, i["y"])) for i in left["items"] if i["t"] == "line")
    assert most == pytest.approx(4.3413, abs=1e-3) and most > max(left["ylim"])


def test_what_lies_outside_is_counted_and_not_drawn_at_the_frame():
    figure = ch11.steps()
    for name, grid in product(ch11.FLOWS, ch11.GRIDS):
        for power in ch11.POWERS[:3]:
            scene = figure.scene(name=name, grid=grid, power=power)
            left, right = (p.spec for p in scene.panels)
            x = np.array(left["items"][1]["x"], float)
            n = int(np.isnan(x).sum())
            assert n < ch11.DRAWN and (np.abs(x[~np.isnan(x)]) < 4.5).all()
            assert (f" {n} of the {ch11.DRAWN} drawn lie outside" in scene.alt) == (n > 0)
            low, high = right["ylim"]
            for item in right["items"]:
                assert low < min(item["y"]) and max(item["y"]) < high
            off = math.log10(float(scene.readouts["distance"]))
            assert right["items"][-1]["y"][0] == pytest.approx(off, abs=0.005)


def test_without_the_half_the_figure_shows_what_the_answers_say():
    """The numbers that the page gives below figure 11.2, for draw 1."""
    scene = ch11.noise().scene
    wrong = lambda **values: scene(half=False, **values).alt  # noqa: E731
    assert "deviation 0.16, exact is 1.00" in wrong(t=0.8)
    assert "deviation 0.02, exact is 1.02" in wrong(t=0.5)
    assert "deviation 1.07, exact is 1.18; 0.26 of" in wrong(churn=1.0)
    assert "0.19 of the histogram is misplaced" in wrong(churn=1.6)


def test_what_400_true_points_misplace():
    """Half the L1 distance between their histogram and the density: about 0.07."""
    rng, off = np.random.default_rng(0), []
    edges = np.linspace(-ch11.REACH, ch11.REACH, ch11.BINS + 1)
    width, p = edges[1] - edges[0], ch11.line_law(0.0, (edges[1:] + edges[:-1]) / 2)[0]
    for _ in range(400):
        centre = np.where(rng.random(400) < ch11.WEIGHTS[0], *ch11.MEANS)
        x = centre + ch11.VAR**0.5 * rng.normal(size=400)
        height = np.histogram(x, edges)[0] / (400 * width)
        off.append(0.5 * np.abs(height - p).sum() * width)
    assert abs(np.mean(off) - 0.074) < 4 * np.std(off) / 20


def test_the_first_paths_start_where_they_are_told():
    given = ch11.run(0.0, 7, True, (0.3, -0.2))
    assert given[0, :2].tolist() == [0.3, -0.2]
    np.testing.assert_array_equal(given[:, 2:], ch11.run(0.0, 7, True)[:, 2:])


def test_draws_are_fresh_for_each_seed_and_shared_by_the_samplers():
    """A seed fixes data, start and noise, whoever else is asked; another seed gives another distance."""
    one = ch11.draws(4, ("DDIM", "ODE, Euler"), seeds=(5, 6))
    again = ch11.draws(4, ("DDIM",), seeds=(6,))
    key = ("DDIM", "equal in t")
    assert one[key].shape == (2,) and one[key][0] != one[key][1]
    torch.testing.assert_close(one[key][1:], again[key], rtol=0, atol=0)


def test_the_distance_is_the_library_s():
    x, y = torch.randn(2, 200, 2, generator=torch.Generator().manual_seed(0))
    mine = ch11._distance(ch11._profile(x), ch11._profile(y))
    known = sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(1))
    assert mine == pytest.approx(known.item(), rel=1e-5)


def test_the_axes_name_evaluations_and_distances():
    spec = ch11.steps().scene().panels[1].spec
    assert all(2**at == float(word) for at, word in spec["xticks"])
    assert all(10**at == pytest.approx(float(word)) for at, word in spec["yticks"])
    for name in "xy":  # a tick beyond the frame would stretch it in the still
        low, high = spec[f"{name}lim"]
        assert all(low <= at <= high for at, _ in spec[f"{name}ticks"])
