"""Chapter 9's checkers: right answers pass, known wrong ones get the hint that helps. And its figures."""

import math

import pytest
import torch

from lib.diffusion import VP
from lib.teach.figures import ch09
from tests.teach.answers import Answers


def q_sample(x, k, betas, eps, root=True, noise_root=True, shift=0, single=False, zero=True):
    bar = torch.cat([torch.ones_like(betas[:1]), (1 - betas).cumprod(0)])
    if not zero:
        bar = torch.cat([bar[1:2], bar[1:]])
    bar = bar[(k - shift).clamp_min(0)][:, None]
    if single:
        bar = (1 - betas)[(k - 1).clamp_min(0)][:, None]
    return (bar.sqrt() if root else bar) * x + ((1 - bar).sqrt() if noise_root else 1 - bar) * eps


def step_back(x_t, x, at, st, as_, ss, swap=False, weight=None, factor=True, var=None):
    a = at / as_
    v = st**2 - a**2 * ss**2
    old, new = (a if factor else 1) * ss**2 / st**2, (weight or as_) * v / st**2
    if swap:
        old, new = new, old
    return old * x_t + new * x, ss**2 * v / st**2 if var is None else var(a, v)


def simple_loss(net, schedule, x, t, eps, target=None, clean=False):
    alpha, sigma = (f(t).view(-1, 1, 1, 1) for f in (schedule.alpha, schedule.sigma))
    guess = net(x if clean else alpha * x + sigma * eps, t)
    return ((eps if target is None else x) - guess).square()


def mean(values):
    return values.mean((1, 2, 3))


def sample_step(x_t, eps, at, st, as_, ss, eta, z, keep=False, power=0.5, double=True, late=False):
    x_hat = (x_t - st * eps) / at
    v = st**2 - (at / as_) ** 2 * ss**2
    tau2 = (eta**2 if double else eta) * ss**2 * v / st**2
    old = st if late else ss if keep else (ss**2 - tau2) ** 0.5
    return as_ * x_hat + old * eps + tau2**power * z


RIGHT = {
    "9.1": [(0.504**0.5, 0.496), torch.tensor([0.70993, 0.496])],
    "9.2": [0.25 * (0.64 / 0.36 - 0.36 / 0.64), 0.3038],
    "9.3": [q_sample],
    "9.4": [step_back],
    "9.5": [lambda *a: mean(simple_loss(*a))],
    "9.6": [sample_step],
}
WRONG = {
    "9.1": [
        ((0.504, 0.496), "take the root"),
        ((0.504**0.5, 0.496**0.5), "not its root"),
        ((0.006**0.5, 0.994), "product of the betas"),
        ((0.504, 1 - 0.504**2), "shrinks by a root"),
        ((0.504**0.5, 0.6), "do not add up"),
        ((0.71, 0.50), "three digits"),
        (0.7, "pair"),
        ((1.0, 2.0), "0.9 x 0.8"),
    ],
    "9.2": [
        (-0.25 * (0.64 / 0.36 - 0.36 / 0.64), "sign"),
        (0.5 * (0.64 / 0.36 - 0.36 / 0.64), "one half"),
        (0.25 * (0.8 / 0.6 - 0.6 / 0.8), "squares"),
        (0.125 * (0.64 / 0.36 - 0.36 / 0.64), "already"),
        (0.25 * math.log(0.64 / 0.36 / (0.36 / 0.64)), "logarithms"),
        (7.0, "half the gain"),
    ],
    "9.3": [
        (lambda *a: q_sample(*a, root=False), "root of the product"),
        (lambda *a: q_sample(*a, noise_root=False), "a deviation"),
        (lambda *a: q_sample(*a, single=True), "that is one step"),
        (lambda *a: q_sample(*a, shift=1), "off by one"),
        (lambda *a: q_sample(*a, root=False, noise_root=False), "neither root"),
        (lambda *a: q_sample(*a, zero=False), "k = 0"),
        (lambda *a: q_sample(*a)[0], "shape (6, 3)"),
    ],
    "9.4": [
        (lambda *a: step_back(*a)[0], "pair"),
        (lambda *a: (step_back(*a)[0], step_back(*a)[0]), "one number"),
        (lambda *a: step_back(*a, swap=True), "exchanged"),
        (lambda *a: step_back(*a, weight=0.53), "alpha_s, not alpha_t"),
        (lambda *a: step_back(*a, factor=False), "factor a"),
        (lambda *a: step_back(*a, var=lambda a, v: 0.62 * v**0.5 / 1.4), "standard deviation"),
        (lambda *a: step_back(*a, var=lambda a, v: v), "step forward"),
        (lambda *a: step_back(*a, var=lambda a, v: 0.62**2), "only x is known"),
        (lambda *a: step_back(*a, var=lambda a, v: 0.62**2 * (1 - a**2) / 1.4**2), "is not 1"),
        (lambda *a: (step_back(*a)[0] + 1, step_back(*a)[1]), "complete the square"),
    ],
    "9.5": [
        (lambda *a: simple_loss(*a).mean(), "left to the caller"),
        (lambda *a: simple_loss(*a).sum((1, 2, 3)), "not their sum"),
        (lambda *a: mean(simple_loss(*a, target="x")), "guesses the noise"),
        (lambda *a: mean(simple_loss(*a)).sqrt(), "root"),
        (lambda *a: mean(simple_loss(*a).sqrt()), "square is missing"),
        (lambda *a: mean(simple_loss(*a, clean=True)), "clean x"),
        (lambda *a: simple_loss(*a), "shape (5,)"),
        (lambda *a: mean(simple_loss(*a)) + 1, "mean square"),
    ],
    "9.6": [
        (lambda *a: sample_step(*a, late=True), "not sigma_t"),
        (lambda *a: sample_step(*a, keep=True), "no old noise taken away"),
        (lambda *a: sample_step(*a, power=1.0), "the root of the variance"),
        (lambda *a: sample_step(*a, double=False), "eta enters tau^2 squared"),
        (lambda *a: sample_step(*a) + 1, "eta = 0"),
        (lambda *a: sample_step(*a)[0], "shape (4, 3)"),
    ],
}


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 9, RIGHT, WRONG
    PLAIN = ("9.1", "9.2")


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_schedules_reads_what_the_schedules_are(t):
    scene = ch09.schedules().scene(beta_max=17, steps=60, limit=8, t=t)
    assert float(scene.readouts["λ of VP"]) == pytest.approx(VP(0.1, 17).log_snr(t), abs=0.006)
    assert -8.01 < float(scene.readouts["λ of cosine"]) < 8.01
    few, many = (
        float(ch09.schedules().scene(steps=n).readouts["log α² at t = 1, VP less chain"])
        for n in (200, 400)
    )
    assert few / many == pytest.approx(2, rel=0.1)  # the chain's error falls like 1 / T


@pytest.mark.parametrize("digit", ch09.DIGITS)
def test_the_guess_is_better_than_scaling_and_worse_with_more_noise(digit):
    errors = [
        float(ch09.one_digit().scene(digit=digit, t=t).readouts["error of the guess"])
        for t in (0.1, 0.4, 0.7, 1.0)
    ]
    assert errors[0] < 0.15
    assert errors == sorted(errors)
    clean, noisy, guess = ch09._pictures(digit)
    assert clean.shape == (8, 8)
    assert noisy.shape == guess.shape == (len(ch09.STOPS), 8, 8)
