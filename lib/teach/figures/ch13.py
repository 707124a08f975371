"""The explorable figures of chapter 13: all models against each other, and the map of special cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lib.results import store
from lib.results.models import FAMILIES, MODELS
from lib.results.table import METRICS, UNITS, kind, table

from ..explorable import Choice, Explorable, Panel, Scene, Slider, Toggle, explore

HERE = Path(__file__).parent
SHOWN = (
    "cost", "sliced_wasserstein", "mmd", "frechet", "precision", "recall", "class_error",
    "parameters", "train_seconds", "score_seconds", "sample_seconds", "one_sample_seconds",
    "evaluations",
)  # fmt: skip
NAMES = {
    "gaussian": "Gaussian", "vae": "VAE", "hvae": "hier. VAE", "vae_iaf": "VAE+IAF",
    "realnvp": "RealNVP", "spline": "spline", "maf": "MAF", "maf_spline": "spline MAF",
    "iaf": "IAF", "planar": "planar", "cnf": "ODE flow", "ffjord": "FFJORD", "ddpm": "DDPM",
    "sde": "SDE", "ode": "prob. flow", "latent": "latent",
}  # fmt: skip
DATA = {"digits": "digits, 64 dimensions", "plane": "eight Gaussians, 2 dimensions"}
FEW = 5  # models: the ranks of fewer say nothing
SCALES = (1, 2)  # of the letters: on a wide page, on a phone
PLACES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1))
FAR = (1.9, 2.8, 3.7, 4.6, 5.5, 6.5, 7.5)  # for crowds; a thin line leads to the mark from there
PLACES += tuple((dx, s * far) for far in FAR for dx in (0, 1, -1) for s in (1, -1))


def label(metric: str, data: str) -> str:
    """What an axis says."""
    m = METRICS[metric]
    what = UNITS[data] if metric == "cost" else m.label
    return f"log₁₀ of {what}" if m.log else what


@cache
def numbers() -> dict[str, Any]:
    """For each data set the axes' labels and each model's [mean, low, high] of every metric."""
    results, out = store.read(), {"names": list(NAMES.values()), "data": {}}
    out["family"] = [FAMILIES.index(MODELS[m].family) for m in NAMES]
    for data in DATA:
        cells = table(results, data, SHOWN)
        place = lambda metric, v: math.log10(v) if METRICS[metric].log else v
        out["data"][DATA[data]] = {
            "bound": [kind(results, data, m) != "exact" for m in NAMES],
            "axes": {
                METRICS[k].label: {
                    "label": label(k, data),
                    "better": METRICS[k].better,
                    "cost": k == "cost",
                    "digits": METRICS[k].digits if not METRICS[k].log else 2,
                    "at": [
                        [_five(place(k, v)) for v in (c.mean, c.low, c.high)]
                        for c in (cells[m][k] for m in NAMES)
                    ],
                }
                for k in SHOWN
            },
        }
    return out


def _five(v: float) -> float:
    return float(f"{v:.5g}")


def _limits(at: list[list[float]]) -> tuple[float, float]:
    low, high = min(a[1] for a in at), max(a[2] for a in at)
    room = (high - low) or 1.0
    return low - 0.12 * room, high + 0.12 * room


def ranks(values: list[float]) -> list[float]:
    """1 for the smallest; equal values share the mean of their places."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def spearman(x: list[float], y: list[float]) -> float:
    """Correlation of the ranks; 0 where one side does not vary."""
    a, b = ranks(x), ranks(y)
    n, mean = len(a), (len(a) + 1) / 2
    cov = sum((p - mean) * (q - mean) for p, q in zip(a, b, strict=True))
    va, vb = (sum((p - mean) ** 2 for p in v) for v in (a, b))
    return cov / math.sqrt(va * vb) if n > 1 and va > 0 and vb > 0 else 0.0


def placed(
    points: list[tuple[float, float]],
    words: list[str],
    bars: Sequence[tuple[float, float, float, float]] = (),
) -> list[tuple[float, float, str, float]]:
    """Where each label goes, in shares of the panel, its alignment, and how far above its mark: on nothing else if it can.

    bars: left, right, bottom and top of what is to be seen besides the points; another label is worse
    than any of these. On a wide page first; of the places that are equally good there, the best on a
    phone, where letters are twice as wide a share of the panel. Three times over, since the first
    labels do not know the last ones.
    """
    marks = {
        k: [(x - 0.012 * k, x + 0.012 * k, y - 0.01 - 0.01 * k, y + 0.01 + 0.01 * k) for x, y in points]
        + [*bars]
        for k in SCALES
    }  # fmt: skip
    out = {}
    for i in [*range(len(words))] * 3:
        (x, y), best = points[i], None
        others = {k: [out[j][5][k] for j in out if j != i] for k in SCALES}
        for dx, dy in PLACES:
            px, py = x + 0.024 * dx, y + (0.04 if dx else 0.055) * dy
            far = math.hypot(px - x, py - y) - 1e-9  # nearer to another point, it seems that one's
            nearer = sum(math.hypot(px - a, py - b) < far for a, b in points)
            boxes, bad = {}, 0
            for k in SCALES:
                wide = 0.0115 * k * len(words[i])
                left = px - wide * (1 - dx) / 2
                a = boxes[k] = (left, left + wide, py - 0.015 - 0.01 * k, py + 0.015 + 0.01 * k)
                on = sum(_meet(a, b) for b in marks[k]) + 4 * sum(_meet(a, b) for b in others[k])
                on += 1 + min(nearer, 1) if led(dy) else nearer
                bad = 100 * bad + on + 4 * (a[0] < 0 or a[1] > 1 or a[2] < 0 or a[3] > 1)
            if best is None or bad < best[0]:
                best = (bad, px, py, ("right", "center", "left")[dx + 1], dy, boxes)
        out[i] = best
    return [best[1:5] for best in out.values()]


def led(dy: float) -> bool:
    """Whether a line leads from a label to its mark."""
    return abs(dy) > 1.5


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether two boxes, each left, right, bottom and top, have a place in common."""
    return a[0] < b[1] and a[1] > b[0] and a[2] < b[3] and a[3] > b[2]


def compare() -> Explorable:
    """Any number against any other, by family, with the spread over seeds as bars."""
    shared = numbers()
    axes = tuple(METRICS[k].label for k in SHOWN)

    def scene(data: str, x: str, y: str, spread: bool, **shown: bool) -> Scene:
        here = shared["data"][data]
        ax, ay = here["axes"][x], here["axes"][y]
        (x0, x1), (y0, y1) = _limits(ax["at"]), _limits(ay["at"])
        panel = Panel((x0, x1), (y0, y1), xlabel=ax["label"], ylabel=ay["label"], aspect=1.35)
        keep = [i for i, f in enumerate(shared["family"]) if shown[f"f{f}"]]
        for f, family in enumerate(FAMILIES):
            mine = [i for i in keep if shared["family"][i] == f]
            if not mine:
                continue
            if spread:
                for i in mine:
                    (mx, lx, hx), (my, ly, hy) = ax["at"][i], ay["at"][i]
                    panel.line([lx, hx, None, mx, mx], [my, my, None, ly, hy], f, dash=0, width=1.2)
            px, py = ([a["at"][i][0] for i in mine] for a in (ax, ay))
            panel.points(px, py, f, family, radius=4.5, marker=f)  # as in the other figures
        unit = [
            ((ax["at"][i][0] - x0) / (x1 - x0), (ay["at"][i][0] - y0) / (y1 - y0)) for i in keep
        ]
        bound = ax["cost"] or ay["cost"]
        words = [("≤ " if bound and here["bound"][i] else "") + shared["names"][i] for i in keep]
        bars = []
        for i, (u, v) in zip(keep, unit, strict=True):
            (_, left, right), (_, low, high) = ax["at"][i], ay["at"][i]
            bars.append(((left - x0) / (x1 - x0), (right - x0) / (x1 - x0), v, v))
            bars.append((u, u, (low - y0) / (y1 - y0), (high - y0) / (y1 - y0)))
        spots = placed(unit, words, bars if spread else ())
        xs, ys = [], []
        for (a, b), (u, v, _, dy) in zip(unit, spots, strict=True):
            if led(dy):
                xs += [x0 + a * (x1 - x0), x0 + u * (x1 - x0), None]
                end = v - math.copysign(0.02, dy)
                ys += [y0 + b * (y1 - y0), y0 + end * (y1 - y0), None]
        if xs:
            panel.line(xs, ys, -1, dash=0, width=0.8, alpha=0.55)
        for (u, v, align, _), word, i in zip(spots, words, keep, strict=True):
            at, family = (x0 + u * (x1 - x0), y0 + v * (y1 - y0)), shared["family"][i]
            panel.text(*at, word, family, align=align, size=0.85)
        px, py = ([a["at"][i][0] for i in keep] for a in (ax, ay))
        sign = (ax["better"] or -1) * (ay["better"] or -1)  # of a price, less is better
        rho = f"{sign * spearman(px, py):.2f}".replace("-0.00", "0.00")
        rho = rho if len(keep) >= FEW else "–"
        first = _best(py, ay["better"])
        who = [shared["names"][keep[k]] for k in first]
        who = (" and ".join(who) or "none") if len(who) < 3 else f"{len(who)} alike"
        return Scene(
            [panel],
            f"{len(keep)} models on {data}: {y} against {x}. Agreement of the two orders of merit: "
            f"{rho}; the best of those shown by the vertical axis: {who}.",
            {"models shown": f"{len(keep)}", "agreement of ranks": rho, "best vertically": who},
        )

    return explore(
        "All models, any two numbers",
        scene,
        [
            Choice("data", "data", tuple(DATA.values()), DATA["digits"]),
            Choice("x", "horizontal", axes, METRICS["sample_seconds"].label),
            Choice("y", "vertical", axes, METRICS["cost"].label),
            *(Toggle(f"f{f}", family, True) for f, family in enumerate(FAMILIES)),
            Toggle("spread", "ends over three seeds", True),
        ],
        twin=HERE / "ch13_compare.js",
        data={
            "numbers": shared,
            "families": list(FAMILIES),
            "places": [list(p) for p in PLACES],
            "scales": list(SCALES),
            "few": FEW,
        },
    )


def _best(values: list[float], better: int) -> list[int]:
    """Where the best value is, every place of it; empty if there is none, or no better end."""
    if not values or better == 0:
        return []
    best = min(values) if better < 0 else max(values)
    return [k for k, v in enumerate(values) if v == best]


# the map: where each model stands, and what each arrow says

NODES = {
    "Gaussian": (1.05, 4.7, 0), "IAF": (3.1, 4.7, 2), "MAF": (2.1, 3.6, 2), "RealNVP": (0.95, 2.5, 2),
    "VAE": (4.6, 4.7, 1), "any flow": (4.0, 2.8, 2), "latent diffusion": (6.4, 3.7, 4),
    "hierarchical VAE": (7.7, 4.7, 1), "DDPM": (9.3, 3.6, 4), "score SDE": (8.8, 2.4, 4),
    "planar": (0.8, 0.4, 2), "residual flow": (2.3, 1.5, 2), "continuous flow": (4.6, 0.4, 3),
    "probability flow": (7.0, 1.4, 4), "DDIM": (9.3, 0.4, 4),
}  # fmt: skip
ARROWS = (
    ("Gaussian", "MAF", "13.6", "is a MAF with linear conditionals: a Cholesky factor is triangular"),
    ("RealNVP", "MAF", "13.7", "is autoregressive with two steps instead of D"),
    ("IAF", "MAF", "13.8", "is MAF run backwards: what is slow in one is fast in the other"),
    ("planar", "residual flow", "13.9", "is a residual block of one hidden unit"),
    ("residual flow", "continuous flow", "13.10", "becomes an ODE as its blocks become many and small"),
    ("any flow", "VAE", "13.11", "is a VAE whose decoder has no noise and whose posterior is exact"),
    ("DDPM", "hierarchical VAE", "13.12", "is a hierarchical VAE whose encoder only adds noise"),
    ("DDPM", "score SDE", "13.13", "becomes the reverse SDE as its steps become small"),
    ("score SDE", "probability flow", "13.14", "has the marginals of an ODE without fresh noise"),
    ("probability flow", "continuous flow", "13.15", "is a continuous flow with the field f x - g² score / 2"),
    ("DDIM", "probability flow", "13.16", "is Euler's method for it, in the right variables"),
    ("latent diffusion", "VAE", "13.17", "is a VAE whose prior is a diffusion of the latents"),
)  # fmt: skip


ASPECT = 1.3  # high enough that on a phone, where a letter is 0.2 units wide, nothing meets
TALL = 2 / ASPECT  # what a unit upwards is in units to the right


def ends(a: str, b: str) -> tuple[float, float, float, float]:
    """Start and shift of the arrow from a to b, clear of both words."""
    (xa, ya, _), (xb, yb, _) = NODES[a], NODES[b]
    dx, dy = xb - xa, yb - ya
    gap = lambda word: 1.0 / max(abs(dx) / (0.1 * len(word) + 0.15), abs(dy) / 0.26)
    s, e = gap(a), 1 - gap(b)
    return xa + s * dx, ya + s * dy, (e - s) * dx, (e - s) * dy


def beside(x: float, y: float, u: float, v: float) -> tuple[float, float]:
    """Where the number of an arrow goes: at its middle, to its left."""
    far = 0.36 / math.hypot(u, TALL * v)
    return x + 0.5 * u - far * TALL * v, y + 0.5 * v + far * u / TALL


def family_map() -> Explorable:
    """The map of special cases; one arrow in bold, with what it says."""
    arrows = [
        [*map(_five, (*ends(a, b), *beside(*ends(a, b)))), a, b, eq, says]
        for a, b, eq, says in ARROWS
    ]

    def scene(arrow: float) -> Scene:
        chosen = round(arrow) - 1
        panel = Panel((0, 10), (0, 5), axes=False, aspect=ASPECT)
        for k, (x, y, u, v, *_) in enumerate(arrows):
            if k != chosen:
                panel.arrows([x], [y], [u], [v], -1, width=1.2)
        x, y, u, v, _, _, a, b, eq, says = arrows[chosen]
        panel.arrows([x], [y], [u], [v], 1, width=2.5)
        for k, (*_, nx, ny, _a, _b, _eq, _says) in enumerate(arrows):
            panel.text(nx, ny, str(k + 1), -1, size=1.2 if k == chosen else 0.8)
        for word, (nx, ny, family) in NODES.items():
            panel.text(nx, ny, word, family, size=1.25 if word in (a, b) else 1.0)
        return Scene(
            [panel],
            f"The map of the book's models, arrow {chosen + 1} of {len(arrows)} in bold: {a} {says}. "
            f"The check is equation ({eq}).",
            {"from": a, "to": b, "equation": eq, "it": says},
        )

    return explore(
        "The map of special cases",
        scene,
        [Slider("arrow", "arrow", 1, len(ARROWS), 7, 1, play=3.0)],
        twin=HERE / "ch13_map.js",
        data={"arrows": arrows, "nodes": [[w, *n] for w, n in NODES.items()]},
    )
