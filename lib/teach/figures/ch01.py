"""Explorable figures of chapter 1. Each has a JavaScript twin beside it, `ch01_*.js`, that draws the same scene."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np

from ..explorable import Drag, Explorable, Panel, Scene, Slider, Toggle, explore

HERE = Path(__file__).parent
SHARPNESS = 1.5  # of the bend in `bend`
EDGES = np.array(
    [-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816]
)  # deciles


def _gauss(z):
    return np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)


def _area(y, x) -> float:
    """Under the curve, by trapezoids (numpy has it under two names, depending on its version)."""
    return float(0.5 * ((y[1:] + y[:-1]) * np.diff(x)).sum())


def bend() -> Explorable:
    """One-dimensional map x = z + a tanh(b (z - c)), its density, and strips of equal mass."""
    z = np.linspace(-4, 4, 321)

    def scene(slope: float, place: float, strip: float) -> Scene:
        a = (slope - 1) / SHARPNESS  # so that `slope` is f'(place)
        f = lambda z: z + a * np.tanh(SHARPNESS * (z - place))  # noqa: E731
        df = lambda z: 1 + (slope - 1) / np.cosh(SHARPNESS * (z - place)) ** 2  # noqa: E731
        x, density, edges = f(z), _gauss(z) / df(z), f(EDGES)
        mass = _area(density, x)
        low, high = EDGES[int(strip) - 2], EDGES[int(strip) - 1]
        part = np.linspace(low, high, 41)  # the chosen strip, in z
        x_part, d_part = f(part), _gauss(part) / df(part)
        mass_z, mass_x = (
            _area(_gauss(part), part),
            _area(d_part, x_part),
        )

        through = Panel(
            (-4, 4), (-6, 6), title="the map x = f(z)", xlabel="z", ylabel="x", aspect=1.15
        )
        for k, (zk, xk) in enumerate(zip(EDGES, edges, strict=True)):
            through.line([zk, zk, -4], [-6, xk, xk], -1, "edges of ten strips of equal mass" if k == 0 else None,
                         width=1, alpha=0.35)  # fmt: skip
        a0, a1 = float(x_part[0]), float(x_part[-1])
        through.poly([low, high, *part[::-1]], [-6, -6, *x_part[::-1]], 2, fill=0.3, width=0)
        through.poly([-4, -4, *part[::-1]], [a0, a1, *x_part[::-1]], 3, fill=0.3, width=0)
        through.line(z, x, 0, "map f", width=2.5)
        right = Panel((-6, 6), (0, 1.05), title="the density follows", xlabel="z and x", ylabel="density",
                      aspect=1.5, grow=1.3)  # fmt: skip
        for zk, xk in zip(EDGES, edges, strict=True):
            right.line([xk, xk], [0, _gauss(zk) / df(zk)], -1, width=1, alpha=0.35)
        right.poly(
            [low, *part, high],
            [0, *_gauss(part), 0],
            2,
            "the chosen strip, in z",
            fill=0.3,
            width=0,
        )
        right.poly(
            [a0, *x_part, a1], [0, *d_part, 0], 3, "the same strip, in x", fill=0.45, width=0
        )
        right.line(z, _gauss(z), 2, "density of z", width=1.5)
        right.line(x, density, 1, "density of x", dash=0, width=2.5)
        return Scene(
            [through, right],
            f"A map with slope {slope:.2f} at z = {place:.2f}. There the density of z is {_gauss(place):.3f} "
            f"and the density of x is {_gauss(place) / slope:.3f}. Strip {int(strip)} of ten is "
            f"{high - low:.3f} wide in z and {a1 - a0:.3f} wide in x; its mass is {mass_x:.3f} in both.",
            {
                "total mass of x": f"{mass:.3f}",
                "width of the strip, z": f"{high - low:.3f}",
                "width, x": f"{a1 - a0:.3f}",
                "mass of the strip, z": f"{mass_z:.3f}",
                "mass, x": f"{mass_x:.3f}",
            },
        )

    return explore(
        "Bend a map, and the density follows",
        scene,
        [
            Slider("slope", "slope at the bend", 0.4, 5, 2.6, 0.05, play=True),
            Slider("place", "where it bends", -2, 2, 0.15, 0.05),
            Slider("strip", "strip to follow", 2, 9, 6, 1),
        ],
        twin=HERE / "ch01_bend.js",
    )


def columns() -> Explorable:
    """The columns of a 2 x 2 matrix, dragged: signed area, orientation, collinear columns."""
    flag_x = np.array([0.3, 0.3, 0.75, 0.3, 0.3, 0.6])  # a letter F, drawn with one stroke
    flag_y = np.array([0.15, 0.85, 0.85, 0.85, 0.5, 0.5])

    def scene(a: float, b: float, c: float, d: float) -> Scene:
        det = round(a * d - b * c, 9) + 0.0  # the sliders make multiples of 0.0025
        flat = det == 0
        series = 2 if flat else 0 if det > 0 else 1
        before = Panel((-2.6, 2.6), (-2.6, 2.6), title="unit square, area 1", xlabel="z₁", ylabel="z₂",
                       equal=True, aspect=1.0)  # fmt: skip
        before.poly([0, 1, 1, 0], [0, 0, 1, 1], 0, fill=0.2)
        before.line(flag_x, flag_y, -1, "a letter F, to see a flip", dash=0)
        before.arrows([0], [0], [1], [0], 3, width=2.5)
        before.arrows([0], [0], [0], [1], 4, width=2.5)
        after = Panel((-2.6, 2.6), (-2.6, 2.6), title="its image under A", xlabel="x₁", ylabel="x₂",
                      equal=True, aspect=1.0)  # fmt: skip
        after.line(
            [-2.6, 2.6, None, 0, 0], [0, 0, None, -2.6, 2.6], -1, dash=0, width=1, alpha=0.25
        )
        after.poly([0, a, a + c, c], [0, b, b + d, d], series, fill=0.3)
        after.line(a * flag_x + c * flag_y, b * flag_x + d * flag_y, -1, dash=0)
        after.arrows([0], [0], [a], [b], 3, "e₁ and its image, column 1 (drag its tip)", width=2.5)
        after.arrows([0], [0], [c], [d], 4, "e₂ and its image, column 2 (drag its tip)", width=2.5)
        word = "flat" if flat else "kept" if det > 0 else "flipped"
        density = "none: no density" if flat else f"{1 / abs(det):.3f}"
        said = (
            "The columns are collinear: the image has no area, and A has no inverse."
            if flat
            else f"Orientation is {word}; a uniform density on the square becomes {density} on the image."
        )
        return Scene(
            [before, after],
            f"Columns ({a:.2f}, {b:.2f}) and ({c:.2f}, {d:.2f}): signed area {det:.4f}. {said}",
            {
                "det A": f"{det:.4f}", "area of the image": f"{abs(det):.4f}",
                "density there": density, "orientation": word,
            },
        )  # fmt: skip

    return explore(
        "Drag the columns of a matrix",
        scene,
        [
            Slider("a", "first column, x1", -1.25, 1.25, 1.2, 0.05),
            Slider("b", "first column, x2", -1.25, 1.25, 0.4, 0.05),
            Slider("c", "second column, x1", -1.25, 1.25, -0.5, 0.05),
            Slider("d", "second column, x2", -1.25, 1.25, 1.1, 0.05),
        ],
        drag=[Drag("a", "b", panel=1), Drag("c", "d", panel=1)],
        twin=HERE / "ch01_columns.js",
    )


def bent(z1, z2, s):
    """The plane bent by strength s: a shear along x1, then x2 is scaled and shifted by x1. Invertible."""
    x1 = z1 + 0.6 * s * np.sin(1.2 * z2)
    return x1, z2 * np.exp(0.5 * s * np.sin(1.1 * x1)) + 0.5 * s * np.cos(x1)


def bent_jacobian(z1, z2, s):
    """J = [[1, p], [r, q]] of `bent`, with q by the product rule."""
    x1, p = z1 + 0.6 * s * np.sin(1.2 * z2), 0.72 * s * np.cos(1.2 * z2)
    e = np.exp(0.5 * s * np.sin(1.1 * x1))
    r = z2 * e * 0.55 * s * np.cos(1.1 * x1) - 0.5 * s * np.sin(x1)
    return np.array([[1.0, p], [r, r * p + e]])


def parallelogram() -> Explorable:
    """A small square under a curved map, and the parallelogram that the Jacobian predicts."""
    line = np.linspace(-2.4, 2.4, 13)
    fine = np.linspace(-2.4, 2.4, 49)
    side = np.linspace(-0.5, 0.5, 51)[:-1]  # the boundary of the unit square, 200 points
    ring = np.concatenate([np.stack([side, side * 0 - 0.5]), np.stack([side * 0 + 0.5, side]),
                           np.stack([-side, side * 0 + 0.5]), np.stack([side * 0 - 0.5, -side])], 1)  # fmt: skip

    def scene(u: float, v: float, strength: float, size: float) -> Scene:
        jac = bent_jacobian(u, v, strength)
        det = float(np.linalg.det(jac))
        centre = np.array(bent(u, v, strength))
        x1, x2 = bent(u + size * ring[0], v + size * ring[1], strength)
        area = 0.5 * float(np.sum(x1 * np.roll(x2, -1) - np.roll(x1, -1) * x2))
        flat = centre[:, None] + jac @ (
            size * np.array([[-0.5, 0.5, 0.5, -0.5], [-0.5, -0.5, 0.5, 0.5]])
        )
        wrong = abs(det * size**2 / area - 1)

        before = Panel((-4.5, 4.5), (-4.5, 4.5), title="z, with a square of side h", xlabel="z₁",
                       ylabel="z₂", equal=True, aspect=1.0)  # fmt: skip
        after = Panel((-4.5, 4.5), (-4.5, 4.5), title="x = f(z)", xlabel="x₁", ylabel="x₂", equal=True,
                      aspect=1.0)  # fmt: skip
        xs, ys, px, py = [], [], [], []
        for level in line:  # lines of constant z2, then of constant z1
            for a, b in ((fine, fine * 0 + level), (fine * 0 + level, fine)):
                xs += [*a, np.nan]
                ys += [*b, np.nan]
                fx, fy = bent(a, b, strength)
                px += [*fx, np.nan]
                py += [*fy, np.nan]
        before.line(xs, ys, -1, dash=0, width=1, alpha=0.3)
        after.line(px, py, -1, dash=0, width=1, alpha=0.3)
        before.poly(
            u + size * ring[0], v + size * ring[1], 0, "square, and its true image", fill=0.35
        )
        after.poly(x1, x2, 0, fill=0.35)
        after.line([*flat[0], flat[0][0]], [*flat[1], flat[1][0]], 1, "parallelogram of the Jacobian",
                   dash=1, width=2.5)  # fmt: skip
        return Scene(
            [before, after],
            f"At z = ({u:.2f}, {v:.2f}) the determinant of the Jacobian is {det:.3f}. A square of side "
            f"{size:.2f}, of area {size**2:.4f}, becomes a curved patch of area {area:.4f}; the parallelogram "
            f"has area {det * size**2:.4f}, wrong by {100 * wrong:.3f}%.",
            {
                "|det J|": f"{abs(det):.4f}", "|det J| h²": f"{abs(det) * size**2:.4f}",
                "true area": f"{area:.4f}", "wrong by": f"{100 * wrong:.3f} %",
            },
        )  # fmt: skip

    return explore(
        "A small square becomes a parallelogram",
        scene,
        [
            Slider("u", "z1", -1.5, 1.5, 0.9, 0.05),
            Slider("v", "z2", -1.5, 1.5, 1.1, 0.05),
            Slider("strength", "strength of the bend", 0, 1.2, 0.9, 0.05, play=True),
            Slider("size", "side h of the square", 0.05, 1.2, 0.8, 0.05),
        ],
        drag=[Drag("u", "v", panel=0)],
        twin=HERE / "ch01_parallelogram.js",
    )


TWO_HEAPS = [
    round(0.4 + side * 1.25 + 0.45 * NormalDist().inv_cdf((k + 0.5) / 20), 3)
    for side in (-1, 1)
    for k in range(20)
]


def by_hand() -> Explorable:
    """Forty numbers and a monotone map z = g(x): raise the likelihood by hand, with or without log g'."""
    data = np.array(TWO_HEAPS)
    grid = np.linspace(-4, 4, 321)
    bins = np.linspace(-2.4, 3.2, 15)
    counts = np.histogram(data, bins)[0] / len(data) / (bins[1] - bins[0])

    def scene(slope: float, middle: float, height: float, logdet: bool) -> Scene:
        def g(x):
            left, right = np.tanh(2 * (x - middle + 1.25)), np.tanh(2 * (x - middle - 1.25))
            z = slope * (x - middle) + height * (left + right)
            return z, slope + 2 * height * ((1 - left**2) + (1 - right**2))

        z, dz = g(data)
        fit, volume = float(np.mean(np.log(_gauss(z)))), float(np.mean(np.log(dz)))
        zs, dzs = g(grid)
        curve = _gauss(zs) * (dzs if logdet else 1.0)
        wide = np.linspace(-120, 120, 9601)  # a very flat curve reaches far
        zw, dw = g(wide)
        area = _area(_gauss(zw) * (dw if logdet else 1.0), wide)
        score = fit + volume if logdet else fit

        left = Panel((-4, 4), (0, 1), title="data and the curve you claim", xlabel="x", ylabel="density",
                     aspect=1.4, grow=1.2)  # fmt: skip
        left.bars(
            (bins[1:] + bins[:-1]) / 2,
            counts,
            bins[1] - bins[0],
            2,
            "the 40 numbers, as a histogram",
        )
        left.line(grid, curve, 1, "the curve", dash=0, width=2.5)
        right = Panel(
            (-4, 4), (-4, 4), title="where the data land in z", xlabel="x", ylabel="z", aspect=1.15
        )
        right.line(
            [-4, 4, None, -4, 4],
            [1, 1, None, -1, -1],
            -1,
            "z = 1 and z = -1",
            dash=1,
            width=1,
            alpha=0.4,
        )
        right.line(grid, zs, 0, "map z = g(x)", width=2)
        right.points(data, z, 3, "data", radius=3)
        return Scene(
            [left, right],
            f"Slope {slope:.2f}, middle {middle:.2f}, height {height:.2f}. Mean log p(z) is {fit:.3f}, mean "
            f"log dz/dx is {volume:.3f}; the score {'with' if logdet else 'without'} the log-determinant is "
            f"{score:.3f}, and the curve has area {area:.2f}.",
            {
                "mean log p(z)": f"{fit:.3f}", "mean log dz/dx": f"{volume:.3f}", "score": f"{score:.3f}",
                "area, beyond the frame too": f"{area:.2f}",
            },
        )  # fmt: skip

    return explore(
        "Be the optimiser",
        scene,
        [
            Slider("slope", "slope", 0.05, 1.5, 1, 0.05),
            Slider("middle", "middle", -1, 1.5, 0, 0.05),
            Slider("height", "half-height of the two steps", 0, 1, 0, 0.05),
            Toggle("logdet", "count log dz/dx", True),
        ],
        twin=HERE / "ch01_by_hand.js",
        data=TWO_HEAPS,
    )
