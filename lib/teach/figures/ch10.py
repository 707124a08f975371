"""Explorable figures of chapter 10; their twins are `ch10_field.js`, `ch10_langevin.js`, `ch10_guidance.js`."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from ...data.densities import GaussianMixture
from ...diffusion import VP, ExactDenoiser, Guided, ancestral, simulate
from ..explorable import Choice, Explorable, Panel, Scene, Slider, explore

HERE = Path(__file__).parent
PIXELS = 48


def _round(weights, means, std: float) -> GaussianMixture:
    return GaussianMixture(weights, means, std**2 * torch.eye(len(means[0]), dtype=torch.float64))


def _pixels(box: float) -> torch.Tensor:
    """Centres of the pixels of a square picture, row by row from the lowest: (PIXELS^2, 2)."""
    line = (torch.arange(PIXELS, dtype=torch.float64) + 0.5) * 2 * box / PIXELS - box
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


# ---- the score of blurred data --------------------------------------------------------------------
FIELD = ((0.2, 0.5, 0.3), ((-2.2, 0.0), (2.2, 0.0), (0.0, 2.4)), 0.35)
BOX = 6.0


def score_field() -> Explorable:
    """Density and score of three bumps, blurred by noise of a chosen size."""
    law, pixels = _round(*FIELD), _pixels(BOX)
    ticks = torch.linspace(-5.2, 5.2, 14, dtype=torch.float64)
    at = torch.cartesian_prod(ticks, ticks)
    line = torch.linspace(-BOX, BOX, 241, dtype=torch.float64)
    cut = torch.stack([line, torch.zeros_like(line)], 1)

    def scene(level: float) -> Scene:
        sigma = 10**level
        blurred, width = law.noised(1.0, sigma), math.hypot(FIELD[2], sigma)
        left = Panel((-BOX, BOX), (-BOX, BOX), title="blurred density and its score", xlabel="x₁",
                     ylabel="x₂", equal=True, aspect=1.0)  # fmt: skip
        p = blurred.log_prob(pixels).exp().view(PIXELS, PIXELS)
        left.heat(p, (-BOX, BOX, -BOX, BOX), 0)
        s = width * blurred.score(at)
        s = 0.45 * s / (1 + 0.5 * s.norm(dim=1, keepdim=True))
        left.arrows(*at.T, *s.T, -1, "score, long arrows shortened", width=1.2)
        left.line([-BOX, BOX], [0, 0], 1, dash=1, width=1)
        s1 = blurred.score(cut)[:, 0]
        middle = Panel((-BOX, BOX), (-7, 7), title="along the dashed line", xlabel="x₁",
                       ylabel="score times width of a bump", aspect=1.0)  # fmt: skip
        middle.line([-BOX, BOX], [0, 0], -1, dash=0, width=1, alpha=0.5)
        middle.line(line, width * s1, 1, "first component, times width", dash=0, width=2.2)
        q = blurred.log_prob(cut).exp()
        middle.line(line, 5 * q / q.max() - 7, 0, "density, scaled", dash=2, width=1.8)
        inner = q[80:161]
        valley = float((inner.min() / q.max()).item())
        dip = bool(((inner[1:-1] < inner[:-2]) & (inner[1:-1] < inner[2:])).any())
        slope = float(((s1[121] - s1[119]) / (line[121] - line[119])) * width**2)
        where = (
            "the bumps are apart, and the arrows between them flip"
            if valley < 0.05
            else "the bumps begin to touch"
            if dip
            else "the line has no valley: one hill, and all arrows point to one place"
        )
        return Scene(
            [left, middle],
            f"At noise {sigma:.3f} {where}. The lowest density of the middle third is {valley:.4f} "
            f"of the highest on the line.",
            {"noise σ": f"{sigma:.3f}", "width of a bump": f"{width:.3f}",
             "valley / top": f"{valley:.4f}" if dip else "no valley", "slope at 0, times width²": f"{slope:.2f}"},
        )  # fmt: skip

    return explore(
        "The score of blurred data",
        scene,
        [Slider("level", "log10 of the noise σ", -1.5, 0.7, -0.75, 0.05, play=True)],
        twin=HERE / "ch10_field.js",
    )


# ---- Langevin dynamics ----------------------------------------------------------------------------
CHAINS, MOST, FAR, BINS = 400, 400, 8.0, 64
# Long steps are chaotic: they make another picture of the last digit in which two languages differ.
GRID = 2.0**16  # So every state is rounded to a multiple of 1 / GRID.
WEIGHTS, STD = (0.2, 0.8), 0.5


@cache
def kicks() -> np.ndarray:
    """(MOST, CHAINS) normal numbers from a hash of a counter, the same in JavaScript."""

    def uniform(i: np.ndarray) -> np.ndarray:
        h = (i + 0x9E3779B9).astype(np.uint32)
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x21F0AAAD)
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x735A2D97)
        return ((h ^ (h >> np.uint32(15))).astype(np.float64) + 0.5) / 4294967296

    i = np.arange(MOST * CHAINS, dtype=np.uint64)
    normal = np.sqrt(-2 * np.log(uniform(2 * i))) * np.cos(2 * np.pi * uniform(2 * i + 1))
    return normal.reshape(MOST, CHAINS)


def line_score(x: np.ndarray, half: float) -> np.ndarray:
    """Score of the two bumps at +-half."""
    log_odds = math.log(WEIGHTS[1] / WEIGHTS[0]) + 2 * half * x / STD**2
    right = 1 / (1 + np.exp(-log_odds))
    return (half * (2 * right - 1) - x) / STD**2


def langevin_step() -> Explorable:
    """400 chains of Langevin dynamics on two bumps: step, number of steps, distance of the bumps."""
    start = (np.arange(CHAINS) + 0.5) * 8 / CHAINS - 4
    grid = np.linspace(-6, 6, 241)
    edges = np.linspace(-8, 8, BINS + 1)

    def scene(log_step: float, steps: float, gap: float) -> Scene:
        h, n, half = 10**log_step, round(steps), gap / 2
        x, trace = start.copy(), [start[100]]
        for k in range(n):
            moved = x + h * line_score(x, half) + math.sqrt(2 * h) * kicks()[k]
            moved = np.floor(moved * GRID + 0.5) / GRID
            x = np.where(np.abs(x) > FAR, x, moved)  # who has flown off stays away
            trace.append(x[100])
        lost = float((np.abs(x) > FAR).mean())
        share = float((x < 0).mean())
        left_of = f"{share:.3f}" if lost <= 0.02 else "–"  # who has flown off says nothing
        height, _ = np.histogram(x, edges)
        density = sum(
            w * np.exp(-0.5 * ((grid - m) / STD) ** 2) / (STD * math.sqrt(2 * math.pi))
            for w, m in zip(WEIGHTS, (-half, half), strict=True)
        )
        truth = float((density[:120].sum() + density[120] / 2) * (grid[1] - grid[0]))
        left = Panel((-6, 6), (0, 1), title="400 chains after these steps", xlabel="x",
                     ylabel="density", aspect=1.2)  # fmt: skip
        width = edges[1] - edges[0]
        left.bars((edges[1:] + edges[:-1]) / 2, np.minimum(height / CHAINS / width, 1), width, 0, "chains")  # fmt: skip
        left.line(grid, density, 1, "truth", width=2.2)
        right = Panel(
            (0, MOST), (-6, 6), title="one of them", xlabel="steps", ylabel="x", aspect=1.2
        )
        for m, name in ((-half, "tops of the bumps"), (half, "")):
            right.line([0, MOST], [m, m], -1, name, dash=2, width=1)
        right.line(np.arange(n + 1), trace, 0, "a chain", width=1.3)
        limit = 2 * STD**2
        wide = f"{1 / math.sqrt(1 - h / limit):.2f}" if h < limit else "no law"
        said = (
            f"{100 * lost:.0f}% of the chains have flown off: the step is too long."
            if lost > 0.02
            else f"The share on the left is {share:.3f}, the truth {truth:.3f}."
        )
        return Scene(
            [left, right],
            f"Step {h:.4f}, {n} steps, bumps {gap:.1f} apart. {said}",
            {"step h": f"{h:.4f}", "time, h × n": f"{h * n:.2f}", "share on the left": left_of,
             "truth": f"{truth:.3f}", "bump width / true width, in the limit": wide},
        )  # fmt: skip

    return explore(
        "Langevin dynamics on two bumps",
        scene,
        [
            Slider("log_step", "log10 of the step h", -2.5, 0, -1.5, 0.05),
            Slider("steps", "number of steps", 0, MOST, 200, 10, play=True),
            Slider("gap", "distance of the bumps", 1, 6, 2, 0.1),
        ],
        twin=HERE / "ch10_langevin.js",
    )


# ---- guidance -------------------------------------------------------------------------------------
NAMES = ("left", "right", "top")
GUIDED = ((1 / 3, 1 / 3, 1 / 3), ((-1.2, -0.6), (1.2, -0.6), (0.0, 1.4)), 0.8)
SPAN, POINTS = 5.0, 250


@cache
def guided_setting() -> tuple[torch.Tensor, list[float]]:
    """Starting noise (POINTS, 2), and the times of the sampler."""
    normal = NormalDist().inv_cdf
    noise = [
        [normal((k + 0.5) / POINTS), normal((0.5 + k * 0.6180339887) % 1)] for k in range(POINTS)
    ]
    return torch.tensor(noise, dtype=torch.float64), VP().log_snr_times(40, 1e-3)


def guided_samples(w: float, k: int) -> torch.Tensor:
    """Points that guidance of weight w towards component k makes of the noise, by DDIM's steps."""
    noise, times = guided_setting()
    denoiser = Guided(ExactDenoiser(_round(*GUIDED), VP()), w)
    context = torch.full((POINTS,), k)
    *_, x = simulate(ancestral(denoiser, context, eta=0.0), noise, times)
    return x


def tilted(w: float, k: int, x: torch.Tensor) -> torch.Tensor:
    """p(x) p(k | x)^w, up to a factor, over its largest value at the points x."""
    law = _round(*GUIDED)
    log = law.log_prob(x) + w * law.responsibilities(x)[:, k].log()
    return (log - log.max()).exp()


@cache
def guidance_curves() -> dict[str, list]:
    """Mean distance from the centre, along the direction of the top component, against w."""
    ws, pixels = [0.25 * j for j in range(33)], _pixels(SPAN)
    sampled = [float(guided_samples(w, 2)[:, 1].mean()) for w in ws]
    want = []
    for w in ws:
        q = tilted(w, 2, pixels)
        want.append(float((q * pixels[:, 1]).sum() / q.sum()))
    return {"w": ws, "sampled": sampled, "tilted": want}


def guidance_weight() -> Explorable:
    """What a guidance weight samples, and the law that its formula seems to promise."""
    pixels = _pixels(SPAN)
    noise, times = guided_setting()
    curves = guidance_curves()
    data = {
        "noise": noise.tolist(),
        "alpha": [VP().alpha(t) for t in times],
        "sigma": [VP().sigma(t) for t in times],
        **curves,
    }

    def scene(w: float, kind: str) -> Scene:
        k = NAMES.index(kind)
        x, q = guided_samples(w, k), tilted(w, k, pixels)
        left = Panel((-SPAN, SPAN), (-SPAN, SPAN), title="samples, and the law p(x) p(y|x)ʷ",
                     xlabel="x₁", ylabel="x₂", equal=True, aspect=1.0)  # fmt: skip
        left.heat(q.view(PIXELS, PIXELS), (-SPAN, SPAN, -SPAN, SPAN), 0, "the law", top=1.0)
        left.points(*x.T, 1, "guided samples", radius=1.4, alpha=1.0)
        for at, name in zip(GUIDED[1], NAMES, strict=True):
            left.text(*at, name, -1, halo=True)
        centre = torch.tensor(GUIDED[1][k], dtype=torch.float64)
        unit = centre / centre.norm()
        along, q = pixels @ unit, q / q.sum()
        out, promised = float((x @ unit).mean()), float((q * along).sum())
        sd, meant = float((x @ unit).std()), math.sqrt(float((q * (along - promised) ** 2).sum()))
        right = Panel((0, 8), (0, 6), title="how far out, for y = top", xlabel="guidance weight w",
                      ylabel="mean of x₂", aspect=1.0)  # fmt: skip
        right.line(curves["w"], curves["sampled"], 1, "mean of the samples", width=2.2)
        right.line(curves["w"], curves["tilted"], 0, "mean of the law", width=2.2)
        right.line([w, w], [0, 6], -1, "the slider's w", dash=2, width=1)
        what = "no condition" if w == 0 else "the conditional law, up to the sampler's error" if w == 1 else "more than the condition" if w > 1 else "part of the condition"  # fmt: skip
        return Scene(
            [left, right],
            f"Weight {w:.2f} towards {kind}: {what}. The samples lie {out:.2f} out on average, with "
            f"spread {sd:.2f}; the law p(x) p(y|x)ʷ has its mean at {promised:.2f}, spread {meant:.2f}.",
            {"w": f"{w:.2f}", "mean, samples": f"{out:.2f}", "mean of the law": f"{promised:.2f}",
             "spread, samples": f"{sd:.2f}", "spread of the law": f"{meant:.2f}"},
        )  # fmt: skip

    return explore(
        "Guidance weight",
        scene,
        [
            Slider("w", "guidance weight w", 0, 8, 1, 0.25, play=True),
            Choice("kind", "condition y", NAMES, "top"),
        ],
        twin=HERE / "ch10_guidance.js",
        data=data,
    )
