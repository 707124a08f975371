"""Chapter 7's checkers: right answers pass, known wrong ones get the hint that helps."""

import math

import torch

from lib.ode import solve
from tests.teach.answers import Answers

Z1 = 1.5 * math.exp(-1.4)


def kutta(field, z, t0, t1, steps, move=True, third=True, late=True):
    h = (t1 - t0) / steps
    for n in range(steps):
        t = t0 + n * h if move else t0
        k1 = field(t, z)
        k2 = field(t + late * h / 2, z + h / 2 * k1)
        k3 = field(t + late * h, z - h * k1 + 2 * h * k2 if third else z + h * k2)
        z = z + h / 6 * (k1 + 4 * k2 + k3)
    return z


def kutta_on_a_grid(field, z, t0, t1, steps):
    times = torch.linspace(t0, t1, steps + 1)  # float32
    for a, b in zip(times, times[1:], strict=False):
        z = kutta(field, z, a, b, 1)
    return z


def kutta_adding(field, z, t0, t1, steps):
    h, t = (t1 - t0) / steps, t0
    for _ in range(steps):
        z = kutta(field, z, t, t + h, 1)
        t += h
    return z


def backward(A, G, a, h, late=True, scale=True, rows=True):
    grad = 0
    for A_n, G_n in zip(A.flip(0), G.flip(0), strict=True):
        after = a
        a = a + h * (a @ A_n if rows else A_n @ a)
        grad = grad + (h if scale else 1) * (after if late else a) @ G_n
    return a, grad


def adjoint(v, v_z, v_theta, z1, a1, t0, t1, sign_a=-1, sign_g=-1, swap=False):
    def field(t, s):
        z, a, _ = s
        return torch.stack([v(t, z), sign_a * a * v_z(t, z), sign_g * a * v_theta(t, z)])

    start = torch.tensor([z1, a1, 0.0], dtype=torch.float64)
    return solve(field, start, *((t0, t1) if swap else (t1, t0)), 200)


def adjoint_by_hand(v, v_z, v_theta, z, a, t0, t1, n=500):
    """The midpoint method on three numbers of the kind that `z` and `a` are."""
    h, g = (t0 - t1) / n, 0.0
    for k in range(n):
        t = t1 + k * h
        mz, ma = z + h / 2 * v(t, z), a - h / 2 * a * v_z(t, z)
        t += h / 2
        z, a, g = z + h * v(t, mz), a - h * ma * v_z(t, mz), g - h * ma * v_theta(t, mz)
    return z, a, g


RIGHT = {
    "7.1": [0.25, torch.tensor(0.25), 2 / 8],
    "7.2": [2 * Z1**2, round(2 * Z1**2, 3), torch.tensor(2 * 2.25 * math.exp(-2.8))],
    "7.3": [kutta, kutta_on_a_grid, kutta_adding],
    "7.4": [backward],
    "7.5": [
        adjoint,
        lambda *a: tuple(adjoint(*a)),
        adjoint_by_hand,
        lambda *a: adjoint_by_hand(*a[:3], *map(torch.tensor, a[3:5]), *a[5:]),
    ],
}
WRONG = {
    "7.1": [(1 / 8, "sign"), (8, "down to -1"), (0.3, "1 - 8h"), ("a quarter", "number")],
    "7.2": [
        (Z1**2, "time of 2"),
        (-2 * Z1**2, "plus"),
        (Z1**2 / 2, "derivative"),
        (2 * Z1, "not 1"),
        (1.5 * math.exp(-2.8), "dz0"),
        (3.0, "same at all times"),
    ],
    "7.3": [
        (lambda *a: kutta(*a, move=False), "t move on"),
        (lambda *a: kutta(*a, third=False), "k3 starts"),
        (lambda *a: kutta(*a, late=False), "three different times"),
        (lambda f, z, t0, t1, n: z, "not taken"),
        (lambda f, z, t0, t1, n: kutta(f, z, t0, t0 + abs(t1 - t0), n), "backwards"),
        (lambda f, z, t0, t1, n: 2 * kutta(f, z, t0, t1, n), "one step"),
        (3, "function was expected"),
    ],
    "7.4": [
        (lambda A, G, a, h: backward(A.flip(0), G.flip(0), a, h), "last block"),
        (lambda *a: backward(*a, rows=False), "row"),
        (lambda *a: backward(*a, late=False), "a_{n+1}"),
        (lambda *a: backward(*a, scale=False), "factor h"),
        (lambda *a: (backward(*a)[0], -backward(*a)[1]), "sign"),
        (lambda *a: backward(*a)[0], "2 things"),
    ],
    "7.5": [
        (lambda *a: adjoint(*a, sign_a=1), "da/dt = -a v_z"),
        (lambda *a: adjoint(*a, sign_g=1), "dg/dt"),
        (lambda *a: adjoint(*a, swap=True), "from t1 to t0"),
        (lambda *a: adjoint(*a)[:2], "3 things"),
        (lambda *a: adjoint(*a) * torch.tensor([1, 2, 1]), "a(t0)"),
    ],
}


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 7, RIGHT, WRONG
    PLAIN = ("7.1", "7.2")
