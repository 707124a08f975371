"""Explorable figures of chapter 11: one noise for SDE and ODE (twin `ch11_noise.js`), and steps against quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from ...data.densities import eight_gaussians
from ...diffusion import (
    VP,
    ExactDenoiser,
    ancestral,
    dpm_solver,
    dpm_solver_multi,
    euler_maruyama,
    heun,
    simulate,
)
from ..explorable import Choice, Explorable, Panel, Scene, Slider, Toggle, explore

HERE = Path(__file__).parent
WEIGHTS, MEANS, VAR = (0.35, 0.65), (-1.4, 1.0), 0.09  # two humps on a line
STEPS, POINTS, SHOWN, REACH, BINS = 100, 400, 14, 3.4, 34
BETA = 0.1, 20.0


def _alpha2(t):
    return np.exp(-(BETA[0] * t + 0.5 * (BETA[1] - BETA[0]) * t * t))


def line_law(t, x):
    """Density and score of p_t at x; t and x broadcast."""
    a2 = _alpha2(t)
    var = a2 * VAR + 1 - a2
    parts = [w * np.exp(-0.5 * (x - np.sqrt(a2) * m) ** 2 / var) for w, m in zip(WEIGHTS, MEANS, strict=True)]  # fmt: skip
    total = parts[0] + parts[1]
    pull = sum(p * (np.sqrt(a2) * m - x) for p, m in zip(parts, MEANS, strict=True))
    return total / np.sqrt(2 * math.pi * var), pull / (total * var)


@cache
def _normals(seed: int) -> np.ndarray:
    """(STEPS + 1, POINTS) normals that a browser draws as well: a congruential generator, Box-Muller."""
    n, state, out = (STEPS + 1) * POINTS, 7919 * seed + 12345, []
    for _ in range(n):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append((state + 0.5) / 2**32)
    half = n // 2
    u, angle = np.array(out[:half]), 2 * math.pi * np.array(out[half:])
    r = np.sqrt(-2 * np.log(u))
    return np.concatenate([r * np.cos(angle), r * np.sin(angle)]).reshape(STEPS + 1, POINTS)


def run(churn: float, seed: int, half: bool, first: Sequence[float] = ()) -> np.ndarray:
    """States (STEPS + 1, POINTS) from t = 1 to 0, Euler-Maruyama with the exact score.

    first: where the first paths start, instead of at random.
    """
    z, h = _normals(seed), 1 / STEPS
    states = [np.concatenate([np.asarray(first), z[0][len(first) :]])]
    for k in range(STEPS):
        t, x = 1 - k * h, states[-1]
        beta = BETA[0] + t * (BETA[1] - BETA[0])
        push = (0.5 if half else 1.0) * (1 + churn**2) * beta * h
        x = (
            x
            + 0.5 * beta * h * x
            + push * line_law(t, x)[1]
            + churn * math.sqrt(beta * h) * z[k + 1]
        )
        states.append(np.clip(x, -9, 9))
    return np.stack(states)


def noise() -> Explorable:
    """The same starting noise, with any amount of fresh noise on the way: paths differ, p_t does not."""
    grid_t, grid_x = (np.arange(50) + 0.5) / 50, REACH * ((np.arange(56) + 0.5) / 28 - 1)
    heat = line_law(grid_t[None], grid_x[:, None])[0]
    edges = np.linspace(-REACH, REACH, BINS + 1)
    centres, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    fine = np.linspace(-REACH, REACH, 4 * BINS + 1)  # the centres miss the peaks at t = 0

    def scene(t: float, churn: float, seed: float, half: bool) -> Scene:
        states, k = run(churn, round(seed), half), STEPS - round(t * STEPS)
        left = Panel((0, 1), (-REACH, REACH), title="paths from noise, at the right, to data",
                     xlabel="time t", ylabel="x", aspect=1.4, grow=1.3)  # fmt: skip
        left.heat(heat, (0, 1, -REACH, REACH), 0, top=0.8)
        times = 1 - np.arange(k + 1) / STEPS
        for j in range(SHOWN):
            left.line(times, states[: k + 1, j], 1, "paths", dash=0, width=1.1, marker=1)
        left.points(np.full(SHOWN, t), states[k, :SHOWN], 1, radius=3)
        height, _ = np.histogram(states[k], edges)
        height = height / (POINTS * width)
        p = line_law(t, centres)[0]
        right = Panel((-REACH, REACH), (0, 1.3), title="all 400 points, now", xlabel="x",
                      ylabel="density", aspect=1.2)  # fmt: skip
        right.bars(centres, np.minimum(height, 1.3), width, 1, "points")
        right.line(fine, line_law(t, fine)[0], 0, "exact density", width=2.4)
        off = 0.5 * float(np.abs(height - p).sum() * width)
        sd = float(states[k].std())
        a2 = float(_alpha2(t))
        mean = sum(w * m for w, m in zip(WEIGHTS, MEANS, strict=True))
        second = sum(w * m * m for w, m in zip(WEIGHTS, MEANS, strict=True))
        exact = math.sqrt(a2 * (second - mean**2 + VAR) + 1 - a2)
        what = "no fresh noise, the probability flow" if churn == 0 else f"{churn:.1f} of the diffusion's fresh noise"  # fmt: skip
        lost = "" if half else " The factor one half is left out."
        return Scene(
            [left, right],
            f"At t = {t:.2f}, with {what}: the points have standard deviation {sd:.2f}, exact is "
            f"{exact:.2f}; {off:.2f} of the histogram is misplaced.{lost}",
            {"deviation": f"{sd:.2f}", "exact": f"{exact:.2f}", "misplaced": f"{off:.2f}"},
        )

    return explore(
        "The same noise through SDE and ODE",
        scene,
        [
            Slider("t", "time (0 data, 1 noise)", 0, 1, 0.0, 0.02, play=True, down=True),
            Slider("churn", "noise (0 ODE, 1 SDE)", 0, 1.6, 0.0, 0.1),
            Slider("seed", "which noise", 1, 20, 1, 1),
            Toggle("half", "with the factor 1/2", True),
        ],
        twin=HERE / "ch11_noise.js",
    )


FLOWS = {
    "SDE, Euler-Maruyama": (euler_maruyama, 1),
    "DDPM": (ancestral, 1),
    "ODE, Euler": (partial(euler_maruyama, churn=0.0), 1),
    "DDIM": (partial(ancestral, eta=0.0), 1),
    "Heun": (heun, 2),
    "DPM-Solver-2": (dpm_solver, 2),
    "DPM-Solver++(2M)": (dpm_solver_multi, 1),
}
GRIDS = {"equal in t": "times", "equal in log-SNR": "log_snr_times"}
T_MIN, DRAWN, MEASURED = 1e-3, 220, 1500
COUNTS = (4, 6, 8, 12, 16, 22, 32, 46, 64)  # 2^2 to 2^6 by half powers, even for two a step

POWERS = np.arange(4, 13) / 2  # both axes are logarithms, and say what they are of
TICKS = [(k, str(2**k)) for k in range(2, 7)]
LEVELS = [(math.log10(v), f"{v:g}") for v in (0.1, 0.3, 1, 3, 10, 30)]


def _profile(x: torch.Tensor) -> torch.Tensor:
    """x along 128 directions, sorted: what the sliced Wasserstein distance compares."""
    directions = torch.randn(2, 128, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    return (x @ (directions / directions.norm(dim=0))).sort(0).values


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """`lib.metrics.sliced_wasserstein` from profiles: the data are sorted once for all samplers."""
    return (a - b).square().mean().sqrt().item()


@cache
def _exact() -> ExactDenoiser:
    """Eight Gaussians' denoiser: one for all samplers, because its schedule remembers its values."""
    return ExactDenoiser(eight_gaussians(), VP())


@cache
def _times(grid: str, steps: int) -> list[float]:
    return getattr(_exact().schedule, GRIDS[grid])(steps, T_MIN)


def _cloud(
    name: str, grid: str, n: int, start: torch.Tensor, fresh: torch.Generator
) -> torch.Tensor:
    """What a sampler makes of the start with n evaluations, eight Gaussians, exact score."""
    make, cost = FLOWS[name]
    quiet = lambda x: torch.randn(x.shape, generator=fresh, dtype=x.dtype)  # noqa: E731
    draws = {} if cost == 2 or "2M" in name else {"noise": quiet}
    *_, x = simulate(make(_exact(), **draws), start, _times(grid, n // cost))
    return x


@cache
def table() -> tuple[dict[tuple[str, str, int], tuple[np.ndarray, float]], tuple[float, float]]:
    """Samples (DRAWN, 2) and error of each sampler, grid and number of evaluations.

    And the floor: the least and the largest distance of twenty pairs of true samples.
    """
    truth = eight_gaussians()
    draw = torch.Generator().manual_seed(0)
    data = _profile(truth.sample(MEASURED, draw, dtype=torch.float32))
    start = torch.randn(MEASURED, 2, generator=draw, dtype=torch.float32)
    out = {}
    for name, grid, n in product(FLOWS, GRIDS, COUNTS):
        x = _cloud(name, grid, n, start, torch.Generator().manual_seed(2))
        out[name, grid, n] = x[:DRAWN].numpy(), _distance(_profile(x), data)
    pairs = [
        _distance(
            *map(_profile, truth.sample(2 * MEASURED, draw, dtype=torch.float32).split(MEASURED))
        )
        for _ in range(20)
    ]
    return out, (min(pairs), max(pairs))


def draws(
    n: int, names: Sequence[str], seeds: Sequence[int] = range(100, 108)
) -> dict[tuple[str, str], torch.Tensor]:
    """Distances (len(seeds),) of each sampler and grid with n evaluations, over fresh data and starts."""
    out = {key: [] for key in product(names, GRIDS)}
    for seed in seeds:
        draw = torch.Generator().manual_seed(seed)
        data = _profile(eight_gaussians().sample(MEASURED, draw, dtype=torch.float32))
        start = torch.randn(MEASURED, 2, generator=draw, dtype=torch.float32)
        for name, grid in out:
            x = _cloud(name, grid, n, start, torch.Generator().manual_seed(seed + 1000))
            out[name, grid].append(_distance(_profile(x), data))
    return {key: torch.tensor(values) for key, values in out.items()}


def steps() -> Explorable:
    """Choose a sampler, its evaluations and its time grid: samples and their distance from the data."""
    truth = eight_gaussians()
    line = torch.linspace(-4.5, 4.5, 48, dtype=torch.float64)
    density = truth.log_prob(torch.cartesian_prod(line, line)).exp().view(48, 48).T.numpy()

    def scene(name: str, power: float, grid: str) -> Scene:
        runs, floor = table()
        n = COUNTS[round(2 * power) - 4]
        x, off = runs[name, grid, n]
        left = Panel((-4.5, 4.5), (-4.5, 4.5), title="samples", xlabel="x₁", ylabel="x₂",
                     equal=True, aspect=1.0)  # fmt: skip
        left.heat(density, (-4.5, 4.5, -4.5, 4.5), 0)
        inside = (np.abs(x) < 4.5).all(1)  # the others become NaN: all frames have as many
        left.points(*np.where(inside[:, None], x, np.nan).T, 1, "samples", radius=1.8, alpha=0.8)
        right = Panel((2, 6), (-1.25, 1.75), title="error against price", aspect=1.3, grow=1.2,
                      xlabel="evaluations of the denoiser", ylabel="distance",
                      xticks=TICKS, yticks=LEVELS)  # fmt: skip
        mine = [math.log10(runs[name, grid, m][1]) for m in COUNTS]
        # wide and pale, so that a reference line of the same sampler is seen on it
        right.line(POWERS, mine, -1, "your sampler", dash=0, width=7, alpha=0.3)
        for j, other in enumerate(("SDE, Euler-Maruyama", "DDIM", "DPM-Solver++(2M)")):
            right.line(POWERS, [math.log10(runs[other, grid, m][1]) for m in COUNTS], j, other)
        for edge, label in zip(floor, ("two true samples", ""), strict=True):
            right.line([2, 6], [math.log10(edge)] * 2, -1, label, dash=5, width=1.0)
        right.points([power], [math.log10(off)], -1, "your choice", radius=7)
        outside = f" {(~inside).sum()} of the {DRAWN} drawn lie outside the picture."
        return Scene(
            [left, right],
            f"{name} with {n} evaluations of the denoiser, steps {grid}: the samples are at distance "
            f"{off:.3f} from the data; two true samples are at {floor[0]:.3f} to {floor[1]:.3f}."
            + ("" if inside.all() else outside),
            {
                "evaluations": f"{n}",
                "distance": f"{off:.3f}",
                "floor": f"{floor[0]:.3f} to {floor[1]:.3f}",
            },
        )

    return explore(
        "Steps against quality",
        scene,
        [
            Choice("name", "sampler", tuple(FLOWS), "DDIM"),
            Slider("power", "evaluations", 2, 6, 3, 0.5, play=True, shown=tuple(map(str, COUNTS))),
            Choice("grid", "time steps", tuple(GRIDS), "equal in log-SNR"),
        ],
    )  # fmt: skip
