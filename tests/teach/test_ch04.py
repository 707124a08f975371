"""Chapter 4's checkers: right answers pass, known wrong ones get the hint that helps."""

import math

import torch
import torch.nn.functional as F

from tests.teach.answers import Answers

LOG2PI = math.log(2 * math.pi)
R = 1.44 * math.exp(-0.8)


def to_base(x, s, t, d, change=lambda b, s, t: (b - t) * torch.exp(-s), total=lambda s: -s.sum(1)):
    a, b = x[:, :d], x[:, d:]
    return torch.cat([a, change(b, s(a), t(a))], 1), total(s(a))


def other(**changed):
    return lambda *args: to_base(*args, **changed)


def turned(x, s, t, d):
    z, logabsdet = to_base(x, s, t, d)
    return torch.cat([z[:, d:], z[:, :d]], 1), logabsdet


def squeeze(x, axes=(0, 1, 3, 5, 2, 4)):
    B, C, H, W = x.shape
    parts = x.reshape(B, C, H // 2, 2, W // 2, 2).permute(*axes)
    return parts.reshape(B, 4 * C, H // 2, W // 2)


def quarters(x):
    B, C, H, W = x.shape
    parts = x.reshape(B, C, 2, H // 2, 2, W // 2).permute(0, 1, 2, 4, 3, 5)
    return parts.reshape(B, 4 * C, H // 2, W // 2)


def mirrors(z, V, factor=2.0, length=lambda v: v @ v, order=lambda V: V.flip(0)):
    for v in order(V):
        z = z - factor * (z @ v)[:, None] * v / length(v)
    return z


def by_matrix(z, V):
    Q = torch.eye(z.shape[1], dtype=z.dtype)
    for v in V:
        Q = Q @ (torch.eye(z.shape[1], dtype=z.dtype) - 2 * torch.outer(v, v) / (v @ v))
    return z @ Q.T


def bent(**changed):
    return lambda z, V: mirrors(z, V, **changed)


SAME = lambda V: V  # noqa: E731

RIGHT = {
    "4.1": [-0.5 * (2.56 + R**2) - LOG2PI - 0.8, -4.127, torch.tensor(-4.1272)],
    "4.2": [32 * LOG2PI, 58.81],
    "4.3": [to_base, other(change=lambda b, s, t: (b - t) / torch.exp(s))],
    "4.4": [squeeze, lambda x: F.pixel_unshuffle(x, 2)],
    "4.5": [mirrors, by_matrix],
}
WRONG = {
    "4.1": [
        (-0.5 * (2.56 + R**2) - LOG2PI + 0.8, "and it is added"),
        (-0.5 * (2.56 + R**2) - LOG2PI, "log-determinant is missing"),
        (-0.5 * (2.56 + (3 * math.exp(-0.8) - 1.56) ** 2) - LOG2PI - 0.8, "first the shift"),
        (-0.5 * (2.56 + (3 * math.exp(0.8) + 1.56) ** 2) - LOG2PI - 0.8, "x is given"),
        (-0.5 * (2.56 + R**2) - LOG2PI / 2 - 0.8, "not half of it"),
        (-0.5 * (2.56 + R**2) - 0.8, "constant of the normal"),
        (-0.5 * R**2 - LOG2PI - 0.8, "z_a contributes"),
        (math.exp(-0.5 * (2.56 + R**2) - LOG2PI - 0.8), "its logarithm"),
        ((-0.5 * (2.56 + R**2) - LOG2PI - 0.8) / math.log(2), "in bits"),
        (7, "not yet"),
        ("five", "a number or a tensor was expected"),
    ],
    "4.2": [
        (32 * (LOG2PI + 1), "entropy of the model"),
        (LOG2PI / 2, "there are 64"),
        (64 * LOG2PI, "half of log 2 pi"),
        (-32 * LOG2PI, "the sign"),
        (32 * LOG2PI / math.log(2), "in bits"),
        (0.0, "peak of the base"),
        (12, "not yet"),
    ],
    "4.3": [
        (other(change=lambda b, s, t: b * s.exp() + t), "way from the base"),
        (other(change=lambda b, s, t: b * (-s).exp() - t), "first the shift"),
        (other(change=lambda b, s, t: (b - t) / s), "divide by exp"),
        (other(change=lambda b, s, t: (b - t) * s.exp()), "undone by exp(-s)"),
        (other(change=lambda b, s, t: b - t), "the scale is missing"),
        (other(change=lambda b, s, t: b * (-s).exp()), "the shift is missing"),
        (turned, "changed places"),
        (lambda x, s, t, d: (to_base(x, s, t, d)[0][:, d:], 0), "all D coordinates"),
        (other(total=lambda s: s.sum(1)), "minus sign"),
        (other(total=lambda s: -s.sum()), "not over the batch"),
        (other(total=lambda s: -s), "sum them"),
        (other(total=lambda s: -s.mean(1)), "do not average"),
        (other(total=lambda s: -s.sum(1, keepdim=True)), "no keepdim"),
        (other(total=lambda s: (-s.sum(1)).exp()), "not its logarithm"),
        (other(total=lambda s: 3 * s.sum(1)), "minus the sum of s"),
        (other(change=lambda b, s, t: b), "not right yet"),
        (lambda x, s, t, d: to_base(x, s, t, d)[0], "a pair"),
        (lambda x, s, t, d: (x, None), "not there"),
        (lambda x, s, t, d: to_base(x, s, t, 3), "raised"),
        (3, "a function was expected"),
    ],
    "4.4": [
        (lambda x: x.reshape(2, 12, 2, 3), "reshape alone"),
        (lambda x: squeeze(x, (0, 3, 5, 1, 2, 4)), "positions slowest"),
        (lambda x: squeeze(x, (0, 1, 5, 3, 2, 4)), "is slower than"),
        (quarters, "every second pixel"),
        (lambda x: squeeze(x).flip(1), "y[:, 4c"),
        (lambda x: x, "the shape should be"),
    ],
    "4.5": [
        (bent(order=SAME), "on the right acts first"),
        (bent(factor=1.0), "a projection"),
        (bent(factor=1.0, order=SAME), "the last mirror acts first"),
        (bent(length=lambda v: 1), "divide by the squared"),
        (bent(length=lambda v: 1, order=SAME), "let the last mirror"),
        (bent(length=torch.linalg.vector_norm), "not the length"),
        (bent(length=torch.linalg.vector_norm, order=SAME), "and the last mirror"),
        (lambda z, V: mirrors(z, V[:1]), "all rows"),
        (lambda z, V: z, "beginning with the last"),
    ],
}


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 4, RIGHT, WRONG
    PLAIN = ("4.1", "4.2")
    DOUBLE = ("4.3",)
