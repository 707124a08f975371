"""Checkers of chapter 7, "Neural ODEs". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..exercise import TYPED, call, close, exercise, known, number, require, seeded

F64 = torch.float64
_known = partial(known, rtol=1e-5)


def _several(value: Any, n: int, what: str) -> list[Tensor]:
    """n numbers or tensors."""
    try:
        parts = list(value)
    except TypeError:
        parts = []
    require(len(parts) == n, f"{n} things were expected: {what}")
    return [number(p) for p in parts]


@exercise("7.1")
def largest_step(answer: Any) -> None:
    got = number(answer)
    _known(
        got,
        {
            "that keeps z from changing sign; it may, as long as |z| does not grow": 1 / 8,
            "the factor is 1 - 8h, and it may go down to -1": 8.0,
        },
        rtol=TYPED,
    )
    close(got, 0.25, "each step multiplies by 1 - 8h; where is |1 - 8h| = 1?")


@exercise("7.2")
def by_hand(answer: Any) -> None:
    got = number(answer)
    z1 = 1.5 * math.exp(-1.4)
    _known(
        got,
        {
            "the integral runs over a time of 2": z1**2,
            "the sign: (7.14) has a plus, with the limits from t0 to t1": -2 * z1**2,
            "that is L; its derivative is asked for": z1**2 / 2,
            "dL/dz(t1) is z(t1), not 1": 2 * z1,
            "that is dL/dz0": 1.5 * math.exp(-2.8),
        },
        rtol=TYPED,
    )
    close(got, 2 * z1**2, "a z is the same at all times; what is it at t1?", rtol=2e-3)


def _waves(t: Any, z: Tensor) -> Tensor:
    t = torch.as_tensor(t, dtype=F64)
    return torch.sin(2 * t) * z * (1.5 - z) + 0.3 * torch.cos(z.flip(-1))


@exercise("7.3")
def kutta(answer: Any) -> None:
    def step(t: float, z: Tensor, h: float) -> Tensor:
        k1 = _waves(t, z)
        k2 = _waves(t + h / 2, z + h / 2 * k1)
        k3 = _waves(t + h, z - h * k1 + 2 * h * k2)
        return z + h / 6 * (k1 + 4 * k2 + k3)

    z = torch.tensor([0.9, 0.2], dtype=F64)  # seven steps from here stay below 2
    got = number(call(answer, _waves, z, 0.3, 0.8, 1))
    k1 = _waves(0.3, z)
    k2 = _waves(0.55, z + 0.25 * k1)
    frozen = z + 0.5 / 6 * (k1 + 4 * _waves(0.3, z + 0.25 * k1)
                            + _waves(0.3, z - 0.5 * k1 + _waves(0.3, z + 0.25 * k1)))  # fmt: skip
    _known(
        got,
        {
            "the stages are taken at three different times: t, t + h/2, t + h": frozen,
            "k3 starts from z - h k1 + 2 h k2": z
            + 0.5 / 6 * (k1 + 4 * k2 + _waves(0.8, z + 0.5 * k2)),
            "the three slopes have the weights 1, 4, 1, over 6": z
            + 0.5 / 3 * (k1 + k2 + _waves(0.8, z - 0.5 * k1 + k2)),
            "the step was not taken: z is where it was": z,
        },
    )
    close(got, step(0.3, z, 0.5), "one step of length t1 - t0 is not right")
    for t0, t1 in ((0.3, 1.9), (1.9, 0.3)):
        want, h = z, (t1 - t0) / 7
        for n in range(7):
            want = step(t0 + n * h, want, h)
        got = number(call(answer, _waves, z, t0, t1, 7))
        hint = "one step is right, and seven are not: does t move on?"
        close(got, want, hint if t1 > t0 else "right forwards, and not backwards: h is negative there")  # fmt: skip


@exercise("7.4")
def backward(answer: Any) -> None:
    n, d, p, h = 5, 3, 4, 0.3
    A, G, a = seeded(0, n, d, d), seeded(1, n, d, p), seeded(2, d)
    first, grad = _several(call(answer, A, G, a, h), 2, "dL/dz0, dL/dtheta")

    def walk(order, late=True, transpose=False, scale=h):
        b, total = a, torch.zeros(p, dtype=F64)
        for k in order:
            after = b
            b = b + h * (A[k] @ b if transpose else b @ A[k])
            total = total + scale * (after if late else b) @ G[k]
        return b, total

    down, up = range(n - 1, -1, -1), range(n)
    want, sums = walk(down)
    _known(
        first,
        {
            "start at the last block and go to the first": walk(up)[0],
            "a is a row: a @ A[n], not A[n] @ a": walk(down, transpose=True)[0],
        },
    )
    close(first, want, "dL/dz0: a + h a A, from the last block to the first")
    _known(
        grad,
        {
            "the sum has a_{n+1}, the gradient after the block": walk(down, late=False)[1],
            "the factor h is missing in the sum": walk(down, scale=1.0)[1],
            "the sign of the sum": -sums,
        },
    )
    close(grad, sums, "dL/dtheta: the sum of h a_{n+1} G_n")


@exercise("7.5")
def adjoint(answer: Any) -> None:
    th, t0, t1, z0 = 0.8, 0.2, 1.5, torch.tensor(0.6, dtype=F64)

    double = partial(torch.as_tensor, dtype=F64)  # t and z may be floats

    def v(t, z):
        return th * torch.sin(double(z)) + torch.cos(double(t)) * z

    def v_z(t, z):
        return th * torch.cos(double(z)) + torch.cos(double(t))

    def v_theta(t, z):
        return torch.sin(double(z))

    def rk4(f, s, a, b, n=400):
        h = (b - a) / n
        for k in range(n):
            t = a + k * h
            k1 = f(t, s)
            k2 = f(t + h / 2, s + h / 2 * k1)
            k3 = f(t + h / 2, s + h / 2 * k2)
            s = s + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(t + h, s + h * k3))
        return s

    z1, a1 = rk4(v, z0, t0, t1), 1.7

    def back(sign_a, sign_g):
        def field(t, s):
            return torch.stack([v(t, s[0]), sign_a * s[1] * v_z(t, s[0]), sign_g * s[1] * v_theta(t, s[0])])  # fmt: skip

        return rk4(field, torch.stack([z1, z1.new_tensor(a1), z1.new_tensor(0.0)]), t1, t0)

    reply = call(answer, v, v_z, v_theta, z1.item(), a1, t0, t1)
    start, a, g = _several(reply, 3, "z(t0), dL/dz0, dL/dtheta")
    got, want = torch.stack([start.reshape(()), a.reshape(()), g.reshape(())]), back(-1, -1)
    _known(
        got[0],
        {
            "z(t0): the state has to go back, from t1 to t0": rk4(v, z1, t0, t1),
            "z(t0), not z(t1)": z1,
        },
    )
    close(got[0], want[0], "z(t0) is not right: solve from t1 to t0", rtol=1e-5)
    _known(got[1], {"a has the wrong sign in its equation: da/dt = -a v_z": back(1, -1)[1]})
    close(got[1], want[1], "dL/dz0 is a(t0)", rtol=1e-5)
    _known(
        got[2],
        {
            "dL/dtheta has the wrong sign: backwards in time, dg/dt = -a v_theta": -want[2],
            "a and v_theta belong to the same time": a1 * (want[2] / want[1]),
        },
    )
    close(got[2], want[2], "dL/dtheta is the integral of a v_theta", rtol=1e-5)
