"""Chapter 6's checkers: right answers pass, known wrong ones get the hint that helps."""

import math

import torch

from tests.teach.answers import Answers

S = math.acosh(math.sqrt(1.8))
LOW = S / 1.5 - 1.2 * math.tanh(S)


def thin(d, u, v):
    return (1 + (v * u / d).sum()).abs().log() + d.abs().log().sum()


def inverse(x, w, u, b, steps=80):
    t, a = x @ w + b, w @ u
    low, high = t - a.abs(), t + a.abs()
    for _ in range(steps):
        s = (low + high) / 2
        left = s + a * torch.tanh(s) < t
        low, high = torch.where(left, s, low), torch.where(left, high, s)
    h = torch.tanh(s)
    return x - h[:, None] * u, -torch.log1p(a * (1 - h**2))


def newton(x, w, u, b):
    """Without damping: right for a gentle layer, and not for w.u = 4.9."""
    s, a = x @ w + b, w @ u
    for _ in range(60):
        h = torch.tanh(s)
        s = s - (s + a * h - (x @ w + b)) / (1 + a * (1 - h**2))
    h = torch.tanh(s)
    return x - h[:, None] * u, -torch.log1p(a * (1 - h**2))


def naive_inverse(x, w, u, b):
    h = torch.tanh(x @ w + b)
    return x - h[:, None] * u, -torch.log1p((w @ u) * (1 - h**2))


def radial(z, c, alpha, beta, power=None):
    r = (z - c).norm(dim=1)
    grow = beta / (alpha + r)
    power = z.shape[1] - 1 if power is None else power
    along = torch.log1p(alpha * beta / (alpha + r) ** 2)
    return z + grow[:, None] * (z - c), power * torch.log1p(grow) + along


def estimate(x, log_q, energy):
    log_r = -energy(x) - log_q
    total = torch.logsumexp(log_r, 0)
    return total - math.log(len(x)), (2 * total - torch.logsumexp(2 * log_r, 0)).exp()


def plain_estimate(x, log_q, energy):
    r = (-energy(x) - log_q).exp()
    return r.mean().log(), r.sum() ** 2 / (r**2).sum()


RIGHT = {
    "6.1": [5.0, torch.tensor(5.0), 1 / (1 - 0.8)],
    "6.2": [(LOW, -LOW), torch.tensor([LOW, -LOW]), (round(LOW, 3), round(-LOW, 3))],
    "6.3": [thin, lambda d, u, v: torch.log((1 + v @ (u / d)).abs()) + d.abs().log().sum()],
    "6.4": [inverse],
    "6.5": [radial],
    "6.6": [estimate],
}
WRONG = {
    "6.1": [
        (0.2, "determinant"),
        (-0.8, "w.u"),
        (math.log(5), "logarithm"),
        (1 / 1.8, "sign"),
        ("five", "number"),
    ],
    "6.2": [
        ((-LOW, LOW), "order"),
        ((-S, S), "folds in s"),
        ((-S / 1.5, S / 1.5), "folds in z"),
        ((0.1, 0.2), "6.2"),
        (3.0, "two things"),
    ],
    "6.3": [
        (lambda d, u, v: (1 + v @ (u / d)).abs().log(), "missing"),
        (lambda d, u, v: (1 + v @ u).abs().log() + d.abs().log().sum(), "A^-1"),
        (lambda d, u, v: thin(d, u, v).exp(), "logarithm"),
        (lambda d, u, v: thin(d, u, v) if len(d) < 9 else (d.prod() * (1 + v @ (u / d))).log(),
         "overflows"),
        (lambda d, u, v: (1 + v @ (u / d)).log() + d.log().sum(), "NaN"),
        (lambda d, u, v: (1 + v @ (u / d)).log() + d.abs().log().sum(), "NaN"),
        (lambda d, u, v: thin(d, u, v) if len(d) < 9 else d.log().sum(), "overflows"),
        (2, "function was expected"),
    ],
    "6.4": [
        (naive_inverse, "s, the root"),
        (newton, "where s +"),
        (lambda *a: inverse(*a, steps=22), "where s +"),  # right to six digits, not to 1e-8
        (lambda x, w, u, b: (inverse(x, w, u, b)[0], -inverse(x, w, u, b)[1]), "wrong sign"),
        (lambda x, w, u, b: (inverse(x, w, u, b)[0], naive_inverse(x, w, u, b)[1]), "at the root"),
        (lambda x, w, u, b: inverse(x, w, u, b)[0], "two things"),
        (lambda x, w, u, b: inverse(x, w, u, b, steps=4), "where s"),
    ],
    "6.5": [
        (lambda z, c, a, b: radial(z, c, a, b, power=1), "D - 1 is missing"),
        (lambda z, c, a, b: radial(z, c, a, b, power=5), "not D"),
        (lambda z, c, a, b: radial(z, c, a, b, power=4), "D - 1"),  # right for D = 5
        (lambda z, c, a, b: (radial(z, c, a, b)[0], -radial(z, c, a, b)[1]), "inverse"),
        (lambda z, c, a, b: (z, radial(z, c, a, b)[1]), "x = z"),
    ],
    "6.6": [
        (plain_estimate, "stay in logarithms"),
        (lambda x, q, U: (estimate(x, q, U)[0] + math.log(400), estimate(x, q, U)[1]), "log N"),
        (lambda x, q, U: (estimate(x, q, U)[0].exp(), estimate(x, q, U)[1]), "logarithm is asked"),
        (lambda x, q, U: (estimate(x, q, U)[0], estimate(x, q, U)[1] / 400), "square of the sum"),
        (lambda x, q, U: estimate(x, -q, U), "q belongs below"),
    ],
}  # fmt: skip


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 6, RIGHT, WRONG
    PLAIN = ("6.1", "6.2")
    DOUBLE = ("6.4", "6.6")
