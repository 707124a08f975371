"""Explorable figure of chapter 7: a solver on van der Pol's oscillator; its twin is `ch07_solver.js`."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...ode import ORDER, STEPS, solve_adaptive
from ..explorable import Choice, Explorable, Panel, Scene, Slider, explore

HERE = Path(__file__).parent
MU, START, END = 1.5, (0.4, 0.3), 9.0  # the oscillator, where it starts, and how long it runs
FAR = 12.0  # a state beyond this counts as lost
STAGES = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
ADAPTIVE = "Dormand-Prince, adaptive"
NAMES = {"euler": "Euler", "midpoint": "midpoint", "heun": "Heun", "rk4": "RK4", "dopri5": ADAPTIVE}


def oscillator(t: float, z: np.ndarray) -> np.ndarray:
    """The field at one state (2,) or several (N, 2); for two numbers NumPy is faster than torch."""
    x, y = z.T
    return np.array([y, MU * (1 - x * x) * y - x]).T


def count(h: float) -> int:
    """Steps of about h; halves go up, as in JavaScript."""
    return max(1, math.floor(END / h + 0.5))


def run(method: str, h: float, tol: float) -> tuple[np.ndarray, np.ndarray, int, int, bool]:
    """Times (N,), states (N, 2), evaluations, rejected steps, and whether it left the picture."""
    z = np.array(START)
    if method == "dopri5":
        seen: list[tuple[float, Tensor]] = []
        field = lambda t, z: torch.from_numpy(oscillator(t, z.numpy()))  # noqa: E731
        end = solve_adaptive(field, torch.from_numpy(z), 0.0, END, 10**tol, 10**tol,
                             on_step=lambda t, z: seen.append((t, z)))  # fmt: skip
        states = torch.stack([*(s for _, s in seen), end.x]).numpy()
        return np.array(end.times), states, end.evaluations, end.rejected, False
    n = count(h)
    states, step = [z], END / n
    for k in range(n):
        z = STEPS[method](oscillator, k * step, z, step)
        states.append(z)
        lost = max(abs(z[0]), abs(z[1])) > FAR
        if lost:
            break
    n = len(states) - 1
    return np.arange(n + 1) * step, np.stack(states), n * STAGES[method], 0, bool(lost)


@cache
def background() -> tuple[np.ndarray, list[tuple[list[float], list[float]]]]:
    """The true path (301, 2), and for each method log10 of evaluations and of the error at the end."""
    _, path, *_ = run("rk4", END / 6000, 0)
    true, curves = path[::20], []
    for method in ORDER:
        xs, ys = [], []
        for k in range(19):
            _, z, evaluations, _, lost = run(method, 0.6 * 10 ** (-0.12 * k), -2 - 0.5 * k)
            if not lost:
                xs.append(round(math.log10(evaluations), 4))
                ys.append(round(off(z, true), 4))
        curves.append((xs, ys))
    shown = true.round(4)
    shown[-1] = true[-1]  # the error is measured there
    return shown, curves


def off(states: np.ndarray, true: np.ndarray) -> float:
    """log10 of the distance at the end."""
    return math.log10(max(1e-12, float(np.hypot(*(states[-1] - true[-1])))))


MIDPOINT = {"dash": 0, "width": 5, "alpha": 0.5}  # Heun's errors lie on its own


def solver() -> Explorable:
    """Choose a solver, its step or its tolerance: the path, the steps, and what the error cost."""
    true, curves = background()
    arrows = np.array([(x, y) for x in np.linspace(-3, 3, 11) for y in np.linspace(-4.5, 4.5, 11)])
    v = oscillator(0, arrows)
    v = 0.45 * v / (1 + np.hypot(*v.T))[:, None]

    def scene(method: str, h: float, tol: float) -> Scene:
        key = next(k for k, name in NAMES.items() if name == method)
        times, z, evaluations, rejected, lost = run(key, h, tol)
        steps, series = len(times) - 1, list(NAMES).index(key)
        left = Panel((-3.2, 3.2), (-5, 5), title="the path in the plane", xlabel="z₁", ylabel="z₂",
                     aspect=1.1, grow=1.2)  # fmt: skip
        left.arrows(*arrows.T, *v.T, -1, width=0.8)
        left.line(*true.T, -1, "exact", dash=0, width=1.2, alpha=0.7)
        left.line(*z.T, series, method, **(MIDPOINT if key == "midpoint" else {"width": 2.2}))
        if steps <= 300:
            left.points(*z.T, series, radius=3)
        left.points([true[-1, 0]], [true[-1, 1]], -1, "true end", radius=6, marker=3)
        if not lost:
            left.points([z[-1, 0]], [z[-1, 1]], series, "the solver's end", radius=6)

        middle = Panel((0, END), (-2.5, 0.5), title="length of the steps", xlabel="time t",
                       ylabel="log₁₀ of the step", aspect=1.1)  # fmt: skip
        lengths = np.log10(np.diff(times))
        if key == "dopri5":
            middle.points(times[:-1], lengths, series, radius=3)
        middle.line(times[:-1], lengths, series, width=1.5)

        right = Panel((1, 4.2), (-10.5, 1.5), title="error and its price",
                      xlabel="log₁₀ of the evaluations", ylabel="log₁₀ of the error",
                      aspect=1.1)  # fmt: skip
        for j, (xs, ys) in enumerate(curves):
            other, name = list(NAMES.items())[j]
            right.line(xs, ys, j, name, **(MIDPOINT if other == "midpoint" else {"width": 1.6}))
        error = off(z, true)
        if not lost:
            right.points([math.log10(evaluations)], [error], -1, "this setting", radius=6, marker=1)

        if key == "dopri5":
            how = f"{method}, at a tolerance of 10 to the power {tol:.1f}, takes {steps} steps and rejects {rejected}"
            said = (
                f"They are between {np.diff(times).min():.3f} and {np.diff(times).max():.3f} long."
            )
        else:  # the adaptive solver stays in the picture, for comparison
            how = f"{method} takes {steps} steps of {END / count(h):.3f}"
            spent, reached = (part[round(-4 - 2 * tol)] for part in curves[-1])
            right.points([spent], [reached], 4, "adaptive, at its tolerance", radius=6)
            said = (
                f"Dormand-Prince at a tolerance of 10 to the power {tol:.1f} reaches 10 to the power "
                f"{reached:z.1f}, its evaluations 10 to the power {spent:.2f}."
            )
        if lost:
            result = "The path leaves the picture: the step is too long for this field."
        else:
            result = f"The error at the end is 10 to the power {error:z.1f}."
        return Scene(
            [left, middle, right],
            f"{how}, with {evaluations} evaluations of the field. {result} {said}",
            {
                "evaluations": f"{evaluations}",
                "steps": f"{steps}",
                "rejected": f"{rejected}",
                "log10 error": f"lost after {steps} steps" if lost else f"{error:z.1f}",
            },
        )

    return explore(
        "Solver, step and tolerance",
        scene,
        [
            Choice("method", "solver", tuple(NAMES.values()), "Euler"),
            Slider("h", "step size (fixed solvers)", 0.02, 0.8, 0.02, 0.02, play=True),
            Slider("tol", "log10 tolerance (adaptive)", -8, -2, -3, 0.5),
        ],
        twin=HERE / "ch07_solver.js",
        data={"true": true.T.tolist(), "curves": curves},
    )
