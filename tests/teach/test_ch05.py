"""Chapter 5's checkers: right answers pass, known wrong ones get the hint that helps."""

import math

import torch
import torch.nn.functional as F

from lib.flows.made import MADE
from lib.teach.exercises.ch05 import _predictor
from tests.teach.answers import Answers

LN = math.log
P51 = -0.125 - math.e**2 / 8 - LN(2) - LN(1.5) + 1 - LN(2 * math.pi)


def made_masks(order, hidden, own=None, strict_hidden=False, strict_last=True, first=1):
    if own is None:
        own = torch.empty(len(order))
        own[list(order)] = torch.arange(first, len(order) + first, dtype=torch.float)
    d = [own, *(torch.tensor(h, dtype=torch.float) for h in hidden)]
    inner = torch.gt if strict_hidden else torch.ge
    masks = [inner(b[:, None], a).float() for a, b in zip(d, d[1:], strict=False)]
    return [*masks, (torch.gt if strict_last else torch.ge)(own[:, None], d[-1]).float()]


def sample(predict, z, passes=None, start=0.0):
    x = torch.full_like(z, start)
    for _ in range(passes or z.shape[1]):
        mean, log_scale = predict(x)
        x = mean + log_scale.exp() * z
    return x, log_scale.sum(1)


def by_coordinates(predict, z):
    x = torch.zeros_like(z)
    for i in range(z.shape[1]):
        mean, log_scale = predict(x)
        x[:, i] = mean[:, i] + log_scale[:, i].exp() * z[:, i]
    return x, predict(x)[1].sum(1)


def gated(u, raw, m):
    s = torch.sigmoid(raw)
    return s * u + (1 - s) * m, F.logsigmoid(raw).sum(1)


def mixture(x, log_w, mean, log_s, scale=torch.exp):
    normal = torch.distributions.Normal(mean, scale(log_s))
    z = torch.special.ndtri((log_w.exp() * normal.cdf(x[:, None])).sum(1))
    log_p = (log_w + normal.log_prob(x[:, None])).logsumexp(1)
    return z, log_p - torch.distributions.Normal(0.0, 1.0).log_prob(z)


def first(f, change):
    """An answer whose first part is changed."""
    return lambda *a: (change(*a), f(*a)[1])


def second(f, change):
    """An answer whose second part is changed: change(second, *arguments)."""
    return lambda *a: (f(*a)[0], change(f(*a)[1], *a))


def phi(*a):
    return torch.distributions.Normal(0.0, 1.0).log_prob(mixture(*a)[0])


RIGHT = {
    "5.1": [P51, -2.985, torch.tensor(-2.9851)],
    "5.2": [24, 24.0],
    "5.3": [made_masks, lambda o, h: [m.bool() for m in made_masks(o, h)]],
    "5.4": [sample, by_coordinates, lambda p, z: sample(p, z, 9, 3.0)],
    "5.5": [gated, lambda u, r, m: [m + torch.sigmoid(r) * (u - m), -F.softplus(-r).sum(1)]],
    "5.6": [mixture],
}
WRONG = {
    "5.1": [
        (P51 + 2 * (LN(3) - 1), "sign of the log-scales"),
        (P51 + LN(3) - 1, "density of z"),
        (P51 + LN(2 * math.pi), "own -1/2 log 2 pi"),
        (P51 + LN(2 * math.pi) / 2, "one of them is missing"),
        (P51 - 0.125 - math.e**2 / 8, "-z^2 / 2"),
        (P51 + math.e**2 / 8, "z_2 is missing"),
        (math.exp(P51), "logarithm was asked"),
        (-0.125 - LN(2) - LN(2 * math.pi) / 2, "first coordinate alone"),
        (-0.125 - (0.75 * math.e) ** 2 / 2 - LN(2) + 1 - LN(2 * math.pi), "1.5 / e"),
        (3, "not yet"),
        ("one", "a number"),
    ],
    "5.2": [
        (48, "without masks"),
        (12, "one of the two"),
        (30, "its own input"),
        (18, "may read x_d"),
        (34, "biases"),
        (7, "not yet"),
    ],
    "5.3": [
        (lambda o, h: made_masks(range(len(o)), h), "is not used"),
        (lambda o, h: made_masks(o, h, torch.tensor(o) + 1.0), "its place in"),
        (lambda o, h: made_masks(o, h, strict_last=False), "sees its own input"),
        (lambda o, h: made_masks(o, h, strict_hidden=True), "may know"),
        (lambda o, h: made_masks(o, h, first=0), "start at 1"),
        (lambda o, h: [m.T for m in made_masks(o, h)], "transposed"),
        (lambda o, h: made_masks(o, h)[1:], "three weight matrices"),
        (lambda o, h: made_masks(o, h)[0], "a list of masks"),
        (lambda o, h: [torch.zeros_like(m) for m in made_masks(o, h)], "not yet"),
        (lambda o, h: [m[:1] for m in made_masks(o, h)], "shapes should be"),
    ],
    "5.4": [
        (lambda p, z: sample(p, z, 1), "one pass is exact"),
        (lambda p, z: sample(p, z, 3), "one pass short"),
        (lambda p, z: ((z - p(z)[0]) * (-p(z)[1]).exp(), -p(z)[1].sum(1)), "that is x -> z"),
        (lambda p, z: (p(z)[0] + p(z)[1].exp() * z, p(z)[1].sum(1)), "IAF"),
        (lambda p, z: sample(p, z, 2), "x is not right"),
        (lambda p, z: sample(p, z, 4), "how many passes"),
        (second(sample, lambda s, p, z: -s), "the sign"),
        (second(sample, lambda s, p, z: s.sum()), "each example"),
        (second(sample, lambda s, p, z: p(sample(p, z)[0])[1]), "over the coordinates"),
        (second(sample, lambda s, p, z: s / 4), "not the mean"),
        (second(sample, lambda s, p, z: p(sample(p, z)[0])[1].sum(0)), "dim 1"),
        (second(sample, lambda s, p, z: p(z)[1].sum(1)), "x is right"),
        (lambda p, z: sample(p, z)[0], "a pair"),
        (lambda p, z: 1 / 0, "raised"),
    ],
    "5.5": [
        (first(gated, lambda u, r, m: torch.sigmoid(r) * u + m), "weight 1 - sigma"),
        (first(gated, lambda u, r, m: gated(u, -r, m)[0]), "exchanged"),
        (first(gated, lambda u, r, m: r * u + (1 - r) * m), "sigmoid of raw_gate"),
        (first(gated, lambda u, r, m: r.exp() * u + (1 - r.exp()) * m), "exponential"),
        (first(gated, lambda u, r, m: u), "z is not right"),
        (second(gated, lambda s, u, r, m: F.logsigmoid(r)), "each example"),
        (second(gated, lambda s, u, r, m: torch.sigmoid(r).prod(1)), "not the determinant"),
        (second(gated, lambda s, u, r, m: -s), "makes volumes smaller"),
        (second(gated, lambda s, u, r, m: r.sum(1)), "not raw_gate"),
        (second(gated, lambda s, u, r, m: s.sum()), "not over the batch"),
        (first(gated, lambda u, r, m: (u * r.exp() + m) / (1 + r.exp())), "use torch.sigmoid"),
        (second(gated, lambda s, u, r, m: torch.sigmoid(r).log().sum(1)), "in one step"),
        (second(gated, lambda s, u, r, m: (r - r.exp().log1p()).sum(1)), "in one step"),
        (second(gated, lambda s, u, r, m: s + 1), "z is right"),
    ],
    "5.6": [
        (
            first(mixture, lambda x, w, m, s: torch.special.ndtr(mixture(x, w, m, s)[0])),
            "uniform on",
        ),
        (
            first(mixture, lambda x, w, m, s: (w.exp() * (x[:, None] - m) / s.exp()).sum(1)),
            "components' own z",
        ),
        (first(mixture, lambda x, w, m, s: mixture(x, 0 * w - LN(3), m, s)[0]), "exp(log_w)"),
        (lambda *a: mixture(*a, scale=lambda s: (s / 2).exp()), "not of a variance"),
        (first(mixture, lambda x, *a: x), "z is not right"),
        (second(mixture, lambda s, *a: s + phi(*a)), "divided out"),
        (second(mixture, lambda s, *a: -s), "the sign"),
        (second(mixture, lambda s, *a: s + 2 * phi(*a)), "not multiplied"),
        (second(mixture, lambda s, *a: s.exp()), "logarithm was asked"),
        (second(mixture, lambda s, *a: s + 1), "z is right"),
    ],
}


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 5, RIGHT, WRONG
    PLAIN = ("5.1", "5.2")


def test_the_checkers_model_is_autoregressive():
    predict, x = _predictor()
    for row in x:
        for k in range(2):
            J = torch.autograd.functional.jacobian(lambda x: predict(x[None])[k][0], row)  # noqa: B023
            assert J.triu().abs().max() == 0 and (J.tril(-1) != 0).sum() == 6


def test_the_masks_of_the_exercise_are_the_librarys():
    order = [2, 0, 3, 1]
    net = MADE(4, 1, 6, 2, order=order)
    degrees = [(torch.arange(6) * 3 // 6 + 1).tolist()] * 2
    for a, b in zip(net.masks(), made_masks(order, degrees), strict=True):
        assert torch.equal(a, b)
