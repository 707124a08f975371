"""Explorable figure of chapter 6: one planar layer in the plane; its twin is `ch06_layer.js`."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from ...flows.planar import Planar, constrained
from ..explorable import Choice, Drag, Explorable, Panel, Scene, Slider, explore

HERE = Path(__file__).parent
BOX, PIXELS = 5.0, 64  # the plane shown, and the density's picture
TOP = 1 / math.pi  # full colour is the largest value, at most this: twice the base's peak
HALF = math.acosh(math.sqrt(2))  # where h' = 1/2: the border of the strip
PLAIN, HAT, RIDGE, DENT = USES = (
    "u",
    "u_hat of (6.11)",
    "u, w.u held at -0.8",
    "u, w.u held at 1.5",
)
STEEP = 1e-6  # a smaller slope counts as this one: the density is infinite where it is zero
# 60 points that look like draws of a Gaussian: quantiles at the points of a golden-ratio lattice
POINTS = np.array(
    [
        [NormalDist().inv_cdf((k + 0.5) / 60), NormalDist().inv_cdf((0.5 + k * 0.6180339887) % 1)]
        for k in range(60)
    ]
).round(3)


def branches(c: np.ndarray, m: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """The solutions s of s + m tanh(s) = c, one monotone branch after the other, by bisection.

    A list of (s, there): one branch where m >= -1, else three, and `there` says where each has a solution.
    """
    g = lambda s: s + m * np.tanh(s)  # noqa: E731
    if m >= -1:
        pieces = [(c - abs(m), c + abs(m), 1, c == c)]
    else:
        turn = math.acosh(math.sqrt(-m))  # g'(turn) = 0
        high = -float(g(turn))
        side = np.full_like(c, turn)
        pieces = [
            (np.minimum(c, -turn) + 2 * m, -side, 1, c < high),
            (-side, side, -1, np.abs(c) < high),
            (side, np.maximum(c, turn) - 2 * m, 1, c > -high),
        ]
    out = []
    for low, high, sign, there in pieces:
        low, high = low.copy(), high.copy()
        for _ in range(24):
            middle = 0.5 * (low + high)
            left = sign * (g(middle) - c) < 0
            low, high = np.where(left, middle, low), np.where(left, high, middle)
        out.append((0.5 * (low + high), there))
    return out


def image_density(x1, x2, w, u, b: float) -> np.ndarray:
    """Density at (x1, x2) of x = z + u tanh(w.z + b), z standard normal: the sum over all z that reach x."""
    m = safe(float(w @ u))
    total = np.zeros_like(x1)
    for s, there in branches(w[0] * x1 + w[1] * x2 + b, m):
        t = np.tanh(s)
        z1, z2 = x1 - u[0] * t, x2 - u[1] * t
        slope = np.maximum(np.abs(1 + m * (1 - t * t)), STEEP)
        total += there * np.exp(-0.5 * (z1 * z1 + z2 * z2)) / (2 * math.pi * slope)
    return total


def safe(wu: float) -> float:
    """w.u without the last digit's rounding, so that -1 is -1."""
    return round(wu, 9) + 0.0


def layer() -> Explorable:
    """Move w, u and b of one planar layer: the plane bends, the density follows, and folds if w.u < -1."""
    line, fine = np.linspace(-4, 4, 11), np.linspace(-4, 4, 49)
    nan = np.nan
    grid1 = np.concatenate([[*fine, nan, *(fine * 0 + v), nan] for v in line])
    grid2 = np.concatenate([[*(fine * 0 + v), nan, *fine, nan] for v in line])
    centre = (np.arange(PIXELS) + 0.5) * 2 * BOX / PIXELS - BOX
    pix1, pix2 = np.meshgrid(centre, centre)
    angle = np.linspace(0, 2 * np.pi, 61)

    def moved(flow: Planar, z1, z2):
        with torch.no_grad():
            x = flow.from_base(torch.from_numpy(np.stack([z1, z2], 1)))[0].numpy()
        return x[:, 0], x[:, 1]

    def scene(w1: float, w2: float, u1: float, u2: float, b: float, use: str) -> Scene:
        w, raw = np.array([w1, w2], float), np.array([u1, u2], float)
        wu = safe(float(w @ raw))
        u, changed = raw, use != PLAIN
        if w.any() and use == HAT:
            u = constrained(torch.from_numpy(w), torch.from_numpy(raw))[0].numpy()
        elif w.any() and changed:  # only the part of u along w
            u = raw + ((-0.8 if use == RIDGE else 1.5) - wu) * w / (w @ w)
        m, length = safe(float(w @ u)), math.hypot(w1, w2)
        flow = Planar(2, constrain=False).double()
        with torch.no_grad():
            for p, v in ((flow.w, w), (flow.u, u), (flow.b, b)):
                p.copy_(torch.as_tensor(v))
        folds = m < -1
        turn = math.acosh(math.sqrt(-m)) if folds else 0.0
        # w.x + b between -high and high is reached three times
        high = -(turn + m * math.tanh(turn))
        where = np.array([[-high - b, high - b], [-9, 9]]) if folds else None

        left = Panel((-BOX, BOX), (-BOX, BOX), title="the plane, moved", xlabel="x₁",
                     ylabel="x₂", equal=True, aspect=1.0, grow=0.8)  # fmt: skip
        left.line(*moved(flow, grid1, grid2), -1, "square grid, moved", dash=0, width=1, alpha=0.4)
        left.points(*moved(flow, POINTS[:, 0], POINTS[:, 1]), 2, "points, moved", radius=2.5)
        strip = None
        if length:  # the line of points that stay where they are
            foot, across = -b * w / length**2, np.array([-w2, w1]) / length
            ends = np.stack([foot - 12 * across, foot + 12 * across], 1)
            left.line(*ends, 3, "the line w.z + b = 0 stays", dash=3, width=2)
            if not folds:  # |s| < HALF, moved
                step = (HALF + m / math.sqrt(2)) * w / length**2
                gap = np.array([[nan], [nan]])
                strip = np.hstack([ends + step[:, None], gap, ends - step[:, None]])
                left.line(*strip, 3, "border of the strip: half the effect", dash=0, width=1)
        hatch = None
        if folds:  # strokes across the strip from w.x = low to high, in steps along it
            low, top = where[0] / length
            step = np.arange(-20, 21) * 0.6
            start = low * w[:, None] / length + step * across[:, None]
            stop = top * w[:, None] / length + (step + top - low) * across[:, None]
            hatch = np.stack([start, stop, np.full_like(start, nan)], 2).reshape(2, -1)
            left.line(*hatch, 1, "folded: three z reach one x", dash=0, width=1.2, alpha=0.8)
        left.arrows([0], [0], [w1], [w2], 0, "w, drag its tip", width=2.5)
        left.arrows([0], [0], [u1], [u2], 1, "u, drag its tip", width=2.5)
        if changed:
            left.arrows([0], [0], [u[0]], [u[1]], 4, "u that the layer uses", width=2.5)
        left.text(w1, w2 + 0.9, "w", 0, size=1.2, halo=True)
        far = math.hypot(u1, u2)  # its word stands beyond the tip
        on = 1 + 0.95 / far if far else 1.0
        left.text(on * u1, on * u2 if far else -0.95, "u", 1, size=1.2, halo=True)

        density = image_density(pix1, pix2, w, u, b)
        middle = Panel((-BOX, BOX), (-BOX, BOX), title="density of x", xlabel="x₁",
                       ylabel="x₂", equal=True, aspect=1.0, grow=0.8)  # fmt: skip
        middle.heat(density, (-BOX, BOX, -BOX, BOX), 0, top=min(TOP, float(density.max())))
        for k in (1, 2):
            middle.line(k * np.cos(angle), k * np.sin(angle), -1,
                        "z: 1 and 2 standard deviations" if k == 1 else None, dash=1, width=1, alpha=0.6)  # fmt: skip
        if length:
            middle.line(*ends, 3, dash=3, width=1.5)
        if strip is not None:
            middle.line(*strip, 3, dash=0, width=1)
        if folds:
            middle.line(*hatch, 1, dash=0, width=1, alpha=0.6)

        reach = max(6, math.ceil(1.2 * -m))  # all three roots are seen
        right = Panel((-reach, reach), (-reach, reach), title="along w: folds back" if folds else "along w: rises",
                      xlabel="s = w.z + b", ylabel="t = w.x + b", aspect=1.0, grow=0.8)  # fmt: skip
        right.line([-reach, reach], [-reach, reach], -1, "no move", dash=2, width=1.2, alpha=0.8)
        s_axis = np.linspace(-7, 7, 281) * reach / 6
        right.line(s_axis, s_axis + m * np.tanh(s_axis), 0, "t = s + (w.u) tanh s", dash=0, width=2.5)  # fmt: skip
        if folds:
            back = np.linspace(-turn, turn, 41)
            right.line(back, back + m * np.tanh(back), 1, "falls: turned over", dash=2, width=4.5)
            roots = np.array([r[0] for r, _ in branches(np.zeros(1), m)])
            right.line([-reach, reach], [0, 0], 1, dash=1, width=1.2)
            right.points(roots, [0.0] * 3, 1, "three s, one t", radius=4.5)

        smallest = min(1.0, 1 + m)
        if not length:
            said = "Invertible; w is zero, so the whole plane is moved by u tanh(b) and keeps every area."
        elif np.abs(u).max() < 0.005:
            said = "Invertible; u is zero, so nothing moves."
        elif folds:
            said = (
                f"It folds over: three z reach every x with w.x between {where[0, 0]:.2f} and "
                f"{where[0, 1]:.2f}, the hatched strip, so it has no inverse."
            )
        elif m > 0.005:
            said = f"Invertible; it stretches space {1 + m:.3f} times across the line w.z + b = 0."
        elif m < -0.005:
            said = f"Invertible; it squeezes space to {1 + m:.3f} of its width at the line w.z + b = 0."
        else:
            said = "Invertible; it shears space along the line w.z + b = 0 and keeps every area."
        used = (
            f" The layer uses u = ({u[0]:.2f}, {u[1]:.2f}) with w.u = {m:.3f}." if changed else ""
        )
        return Scene(
            [left, middle, right],
            f"A planar layer with w = ({w1:.2f}, {w2:.2f}), u = ({u1:.2f}, {u2:.2f}), b = {b:.2f}: "
            f"w.u = {wu:.2f}.{used} The smallest det is {smallest:.3f}. {said}",
            {
                "w.u": f"{wu:.2f}",
                "w.u used": f"{m:.3f}",
                "smallest det": f"{smallest:.3f}",
                "invertible": "no: folds over" if folds else "yes",
            },
        )

    return explore(
        "One planar layer, by hand",
        scene,
        [
            Slider("w1", "w, x1", -2.5, 2.5, 1.5, 0.1),
            Slider("w2", "w, x2", -2.5, 2.5, 1.0, 0.1),
            Slider("u1", "u, x1", -2.5, 2.5, 1.4, 0.1),
            Slider("u2", "u, x2", -2.5, 2.5, -1.5, 0.1),
            Slider("b", "b", -3, 3, 0.3, 0.1),
            Choice("use", "the layer uses", USES, PLAIN),
        ],
        drag=[Drag("w1", "w2", panel=0, colour=0), Drag("u1", "u2", panel=0)],
        twin=HERE / "ch06_layer.js",
        data=POINTS.T.tolist(),
    )
