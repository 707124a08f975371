"""Chapter 10's checkers: right answers pass, known wrong ones get the hint that helps; its figures' numbers."""

import math

import numpy as np
import pytest
import torch

from lib.data.densities import anisotropic_gaussians
from lib.diffusion import VP, ExactDenoiser
from lib.teach.figures import ch10, ch10_plots
from tests.teach.answers import Answers

Z = 4 * math.cosh(0.8)
EQUAL = 2 * math.exp(0.8) / Z


def denoising(score, x, sigma, eps, sign=1.0, power=1.0, half=0.5, clean=False, scale=None):
    s = sigma[:, None]
    noisy = score(x if clean else x + (s if scale is None else scale(s)) * eps)
    return half * (s**power * (noisy + sign * eps / s)).square().sum(1)


def reverse_step(x, t, h, f, g2, score, z, bracket=-1.0, sign=-1.0, g=1.0, kick=None):
    drift = f(t) * x + sign * g2(t) ** g * score(x, t)
    return x + bracket * h * drift + ((g2(t) * h) ** 0.5 if kick is None else kick(g2(t), h)) * z


def guide(free, given, x_t, alpha, sigma, w):
    eps = (1 - w) * free + w * given
    return (x_t - sigma * eps) / alpha, eps


def late(x, t, h, f, g2, score, z):
    return reverse_step(x, t - h, h, f, g2, score, z)


RIGHT = {
    "10.1": [(Z, EQUAL), torch.tensor([5.3498, 0.83202])],
    "10.2": [(3, 0), torch.tensor([3.0, 0.0])],
    "10.3": [(1 / 0.97, 0.16, 0.08)],
    "10.4": [denoising],
    "10.5": [reverse_step],
    "10.6": [guide, lambda f, g, x, a, s, w: [*guide(f, g, x, a, s, w)]],
}
WRONG = {
    "10.1": [
        ((Z / 2, EQUAL), "four states"),
        ((4 * math.cosh(0.4), EQUAL), "factor 1/2"),
        ((Z, 1 - EQUAL), "sign"),
        ((Z, EQUAL / 2), "one of the two"),
        ((Z, 0.5), "two of the four"),
        ((5.35, 0.83), "three digits of it"),
        ((1.0, EQUAL), "sum of exp"),
        (Z, "shape"),
        ("x", "number"),
    ],
    "10.2": [
        ((0, 3), "order"),
        ((3, 3), "constant"),
        ((-3, 0), "sign"),
        ((1, 0), "1/3"),
        ((12, 0), "1/12"),
        ((2, 1), "minimise"),
    ],
    "10.3": [
        ((0.97**-0.5, 0.4, 0.08), "standard deviations"),
        ((1 / 0.94, -0.08, 0.08), "factor 2"),
        ((1 / 0.97, 0.16, 0.04), "limit"),
        ((1 / 0.97, 0.16, 2.0), "narrow"),
        ((0.16, 1 / 0.97, 0.08), "first"),
        ((1.0, 0.04, 0.08), "for each axis"),
    ],
    "10.4": [
        (lambda *a: denoising(*a, sign=-1.0), "sign"),
        (lambda *a: denoising(*a, power=0.0), "missing"),
        (lambda *a: denoising(*a, power=0.5), "not sigma"),
        (lambda *a: denoising(*a, half=1.0), "1/2"),
        (lambda *a: denoising(*a, clean=True), "not at x"),
        (lambda *a: denoising(*a, scale=lambda s: s**2), "sigma^2 eps"),
        (lambda *a: denoising(*a, scale=lambda s: 1.0), "not x + eps"),
        (lambda *a: denoising(*a) / 3, "mean"),
        (lambda *a: denoising(*a).mean(), "one loss"),
        (lambda *a: denoising(*a)[:, None], "shape"),
        (lambda *a: denoising(*a) + 1, "half of"),
    ],
    "10.5": [
        (lambda *a: reverse_step(*a, bracket=1.0), "bracket changes"),
        (lambda *a: reverse_step(*a, sign=1.0), "sign of the score"),
        (lambda *a: reverse_step(*a, g=0.5), "already the square"),
        (lambda *a: reverse_step(*a, g=2.0), "g^4"),
        (lambda *a: reverse_step(*a, sign=-0.5), "chapter 11"),
        (lambda *a: reverse_step(*a, kick=lambda g2, h: g2 * h**0.5), "not g^2 sqrt(h)"),
        (lambda *a: reverse_step(*a, kick=lambda g2, h: g2**0.5 * h), "square root of h"),
        (lambda *a: reverse_step(*a, kick=lambda g2, h: 0.0), "kick is missing"),
        (late, "where the point is"),
        (lambda *a: reverse_step(*a) + 1, "sqrt(g^2 h) z"),
    ],
    "10.6": [
        (lambda f, g, x, a, s, w: guide(f, g, x, a, s, w + 1), "paper's count"),
        (lambda f, g, x, a, s, w: guide(g, f, x, a, s, w), "exchanged"),
        (lambda f, g, x, a, s, w: (x, -guide(f, g, x, a, s, w)[1] / s), "score"),
        (lambda f, g, x, a, s, w: guide(f, g, x, a, s, w)[1], "pair"),
        (lambda f, g, x, a, s, w: (x - s * guide(f, g, x, a, s, w)[1], guide(f, g, x, a, s, w)[1]), "alpha"),
        (lambda f, g, x, a, s, w: ((x - s * g) / a, guide(f, g, x, a, s, w)[1]), "guided"),
        (lambda f, g, x, a, s, w: ((x + s * guide(f, g, x, a, s, w)[1]) / a, guide(f, g, x, a, s, w)[1]), "taken away"),
        (lambda f, g, x, a, s, w: (x, guide(f, g, x, a, s, w)[1]), "solve"),
        (lambda f, g, x, a, s, w: (x, x), "(1 - w)"),
    ],
}  # fmt: skip


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 10, RIGHT, WRONG
    PLAIN = ("10.1", "10.2", "10.3")
    DOUBLE = ("10.4",)


def test_line_score_is_the_slope():
    """The figure's score of two bumps against differences of its log-density."""
    x, half = np.linspace(-3, 3, 25), 1.3

    def log_p(x):
        bumps = (
            w * np.exp(-0.5 * ((x - m) / ch10.STD) ** 2)
            for w, m in zip(ch10.WEIGHTS, (-half, half), strict=True)
        )
        return np.log(sum(bumps))

    slope = (log_p(x + 1e-5) - log_p(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(ch10.line_score(x, half), slope, rtol=1e-6, atol=1e-6)


def test_kicks_are_standard_normal():
    z = ch10.kicks()
    n = z.size
    assert abs(z.mean()) < 4 / n**0.5
    assert abs(z.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((z[:, :-1] * z[:, 1:]).mean()) < 4 / n**0.5


def test_langevin_scene_widens_as_theory_says():
    """Bumps so near that they are crossed at once: the share settles; a long step flies off."""
    scene = ch10.langevin_step().scene(log_step=-1.0, steps=400, gap=1.0)
    assert abs(float(scene.readouts["share on the left"]) - 0.27) < 0.08
    assert "flown off" in ch10.langevin_step().scene(log_step=0.0, steps=400).alt
    kept = ch10.langevin_step().scene(log_step=-1.5, steps=400, gap=6.0)
    assert abs(float(kept.readouts["share on the left"]) - 0.5) < 0.02


def test_a_chain_that_has_flown_off_does_not_rest_at_the_frame():
    panel = ch10.langevin_step().scene(log_step=0.0, steps=100.0, gap=2.0).panels[1].spec
    (chain,) = [i for i in panel["items"] if i.get("name") == "a chain"]
    assert max(panel["ylim"]) < ch10.FAR < abs(chain["y"][-1])


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_guidance_is_exact_at_weights_zero_and_one(w):
    curves = ch10.guidance_curves()
    at = curves["w"].index(w)
    assert abs(curves["sampled"][at] - curves["tilted"][at]) < 0.05


def test_each_bump_s_name_stands_on_its_bump():
    items = ch10.guidance_weight().scene().panels[0].spec["items"]
    words = {i["text"]: (i["x"], i["y"]) for i in items if i["t"] == "text"}
    assert words == dict(zip(ch10.NAMES, ch10.GUIDED[1], strict=True))


def test_guidance_overshoots_above_one():
    curves = ch10.guidance_curves()
    gaps = [a - b for a, b in zip(curves["sampled"], curves["tilted"], strict=True)]
    assert all(g > 0.15 for g, w in zip(gaps, curves["w"], strict=True) if w >= 2)


def test_orders_of_the_plot():
    torch.manual_seed(0)
    errors = ch10_plots.euler_maruyama_orders((8, 32), chains=4000)
    slopes = [math.log(e[0] / e[1], 4) for e in errors.values()]
    assert abs(slopes[0] - 0.5) < 0.1
    assert abs(slopes[1] - 1) < 0.12 and abs(slopes[2] - 1) < 0.12


def test_score_error_is_zero_for_the_exact_score():
    mixture = anisotropic_gaussians()
    exact = ExactDenoiser(mixture, VP())
    assert ch10_plots.score_error(exact, exact, mixture, 0.3) == 0
