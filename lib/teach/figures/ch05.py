"""Explorable figures of chapter 5; the twins are `ch05_sampling.js` and `ch05_masks.js`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ...flows.made import MADE
from ..explorable import Choice, Explorable, Panel, Scene, Slider, explore

HERE = Path(__file__).parent
LOW, HIGH, PIXELS = -4.0, 4.0, 60  # the range of each coordinate; pixels of the joint density
TOP = 0.35  # density of full colour


SUB = "₀₁₂₃"
RULES = [
    ("", ""),
    ("0.9 sin(1.5 x1) = ", "0.4 tanh(x1) − 0.6 = "),
    ("0.6 x1 x2 − 0.2 = ", "0.5 cos(x2) − 0.3 x1 − 0.4 = "),
]


def conditioner(x1, x2):
    """mu and alpha of x1, x2, x3 from the coordinates before: `predict` of the chapter."""
    zero = 0 * x1
    mu = [zero + 0.4, 0.9 * np.sin(1.5 * x1), 0.6 * x1 * x2 - 0.2]
    alpha = [zero - 0.2, 0.4 * np.tanh(x1) - 0.6, 0.5 * np.cos(x2) - 0.3 * x1 - 0.4]
    return mu, alpha


def _normal(x, shift=0.0, log_scale=0.0):
    z = (x - shift) * np.exp(-log_scale)
    return np.exp(-0.5 * z * z - log_scale) / math.sqrt(2 * math.pi)


def _num(v: float, digits: int = 2) -> str:
    """Fixed digits, without a negative zero."""
    return f"{0.0 if abs(v) < 0.5 * 10.0**-digits else v:.{digits}f}"


def sampling() -> Explorable:
    """Draw x1, then x2, then x3: z_k says which quantile, the coordinates before k say of which Gaussian."""
    grid = np.linspace(LOW, HIGH, 201)
    centre = LOW + (np.arange(PIXELS) + 0.5) * (HIGH - LOW) / PIXELS
    pix1, pix2 = np.meshgrid(centre, centre)

    def scene(step: float, z1: float, z2: float, z3: float) -> Scene:
        k, z = round(step), [z1, z2, z3]
        x = [0.0, 0.0, 0.0]
        for i in range(3):
            shift, log_scale = conditioner(x[0], x[1])
            x[i] = float(shift[i] + math.exp(log_scale[i]) * z[i])
        shift, log_scale = ([float(v) for v in pair] for pair in conditioner(x[0], x[1]))
        terms = [-0.5 * v * v - 0.5 * math.log(2 * math.pi) - s for v, s in zip(z, log_scale, strict=True)]  # fmt: skip
        given = ["", " | x1", " | x1, x2"]

        top = 1.15
        if k:  # a narrow conditional is high
            top = max(top, 1.15 * math.exp(-log_scale[k - 1]) / math.sqrt(2 * math.pi))
        left = Panel((LOW, HIGH), (0, top), title=f"step {k}: from z{SUB[k]} to x{SUB[k]}" if k else "step 0: only noise so far",
                     xlabel=f"z{SUB[k]} and x{SUB[k]}" if k else "x₁", ylabel="density", aspect=1.1, grow=1.0)  # fmt: skip
        if k:
            i = k - 1
            tail = np.linspace(-4, z[i], 61)  # what lies left of z_k, and of x_k: the same area
            image = shift[i] + math.exp(log_scale[i]) * tail
            left.poly([-4, *tail, z[i]], [0, *_normal(tail), 0], 2, fill=0.2, width=0)
            left.poly([image[0], *image, x[i]], [0, *_normal(image, shift[i], log_scale[i]), 0], 0, fill=0.3, width=0)  # fmt: skip
            left.line(grid, _normal(grid), 2, "z: standard normal", width=1.8)
            left.line(grid, _normal(grid, shift[i], log_scale[i]), 0, "x: the conditional p(x | before)", dash=0, width=2.5)  # fmt: skip
            left.arrows([z[i]], [0.94 * top], [x[i] - z[i]], [0], -1, "μ + exp(α) z", width=1.5)
            left.line([z[i], z[i]], [0, 0.94 * top], 2, width=1.5)
            left.line([x[i], x[i]], [0, 0.94 * top], 0, dash=0, width=1.5)
        else:
            left.line(grid, _normal(grid, shift[0], log_scale[0]), 3, "the first conditional", dash=3, width=1.8)  # fmt: skip

        slots = Panel((0.4, 3.6), (LOW, HIGH), title="x, from the left", xlabel="coordinate", ylabel="value",
                      aspect=0.72, grow=0.55)  # fmt: skip
        slots.line([0.4, 3.6], [0, 0], -1, dash=0, width=1, alpha=0.4)
        for i in range(3):
            if i < k:
                slots.bars([i + 0.8], [x[i]], 0.5, 0, "x, fixed" if i == 0 else None)
                slots.text(i + 0.8, x[i] + (0.35 if x[i] >= 0 else -0.35), _num(x[i]), 0)
            else:
                slots.text(i + 0.8, 0.45, "?", -1, size=1.4)
        slots.points([1.3, 2.3, 3.3], z, 2, "z, the noise", radius=4)

        low = 0 if k < 2 else 1  # the plane of x1, x2, or of x2, x3 where x1 is fixed
        s, ls = conditioner(*((pix1, pix2) if low == 0 else (x[0], pix1)))
        if low == 0:
            joint = _normal(pix1, s[0], ls[0]) * _normal(pix2, s[1], ls[1])
        else:
            joint = _normal(pix1, shift[1], log_scale[1]) * _normal(pix2, s[2], ls[2])
        a, b = ("x₁", "x₂") if low == 0 else ("x₂", "x₃")
        right = Panel((LOW, HIGH), (LOW, HIGH), title="p(x₁, x₂)" if low == 0 else "p(x₂, x₃ | x₁)", xlabel=a, ylabel=b,
                      equal=True, aspect=1.0, grow=0.9)  # fmt: skip
        right.heat(joint, (LOW, HIGH, LOW, HIGH), 0, top=TOP)
        if k >= 1:
            at = x[low]
            along = _normal(grid, shift[low + 1], log_scale[low + 1])
            right.line([at, at], [LOW, HIGH], -1, f"{a} fixed", dash=1, width=1.2)
            right.line(
                at + 1.6 * along, grid, 3, "the conditional along the line", dash=3, width=1.8
            )
        if k >= low + 2:
            right.points([x[low]], [x[low + 1]], 1, "the point drawn", radius=5)

        done = sum(terms[:k])
        if k == 0:
            said = "Nothing is fixed: three noises, and the first conditional."
        else:
            said = (
                f"x{k} = {_num(shift[k - 1])} + exp({_num(log_scale[k - 1])}) times z{k} = {_num(z[k - 1])} "
                f"gives {_num(x[k - 1])}; as much mass lies left of it as left of z{k}. "
                f"Fixed: {', '.join(f'x{i + 1} = {_num(x[i])}' for i in range(k))}; log density {_num(done, 3)} nats."
            )  # fmt: skip
        if k < 3:
            said += f" Next: p(x{k + 1}{given[k]}) has mean {_num(shift[k])} and scale {_num(math.exp(log_scale[k]))}."
        else:
            said += " All three are drawn."
        return Scene(
            [left, slots, right],
            f"Step {k} of 3. {said} Rules: mu 2 = 0.9 sin(1.5 x1), alpha 2 = 0.4 tanh(x1) − 0.6; "
            f"mu 3 = 0.6 x1 x2 − 0.2, alpha 3 = 0.5 cos(x2) − 0.3 x1 − 0.4.",
            {
                **{f"x{i + 1}": _num(x[i], 3) if i < k else "?" for i in range(3)},
                "μ of this step": RULES[k - 1][0] + _num(shift[k - 1], 3) if k else "none yet",
                "α": RULES[k - 1][1] + _num(log_scale[k - 1], 3) if k else "none yet",
                "next: mean, scale": f"{_num(shift[k])}, {_num(math.exp(log_scale[k]))}"
                if k < 3
                else "all drawn",
                "log p so far, nats": _num(done, 3) if k else "none yet",
            },
        )

    return explore(
        "Draw one coordinate after the other",
        scene,
        [
            Slider("step", "step", 0, 3, 3, 1),
            Slider("z1", "noise z1", -2, 2, 0.7, 0.05),
            Slider("z2", "noise z2", -2, 2, -1.2, 0.05),
            Slider("z3", "noise z3", -2, 2, 0.5, 0.05),
        ],
        twin=HERE / "ch05_sampling.js",
    )


SHUFFLED = (3, 1, 5, 0, 4, 2)  # of six; of fewer, those there are
ORDERS = ("natural", "reversed", "shuffled")


def order_of(name: str, dim: int) -> list[int]:
    """The inputs in the order in which they are drawn."""
    return {
        "natural": list(range(dim)),
        "reversed": list(range(dim))[::-1],
        "shuffled": [i for i in SHUFFLED if i < dim],
    }[name]


def masks() -> Explorable:
    """MADE's network: the degree of each unit, the weights that stay, and what each output then sees."""

    def scene(dim: float, width: float, depth: float, order: str, output: float) -> Scene:
        D, width, depth = round(dim), round(width), round(depth)
        chosen = min(round(output), D) - 1  # the output to follow
        drawn = order_of(order, D)
        made = MADE(D, outputs=1, width=width, depth=depth, order=drawn)
        kept = [mask.numpy() > 0 for mask in made.masks()]
        place = np.argsort(drawn) + 1  # degree of input i, and of output i: when it is drawn
        hidden = kept[0].sum(1)  # a unit of degree m sees the m inputs that are drawn first
        degrees = [place, *[hidden] * depth, place]
        names = ["x", *["h"] * depth, "p"]

        reach = [None] * len(degrees)  # which units have a path to the chosen output
        reach[-1] = np.arange(D) == chosen
        for i in range(len(kept) - 1, -1, -1):
            reach[i] = kept[i][reach[i + 1]].any(0)
        seen = [i for i in drawn if reach[0][i]]
        paths = np.eye(D, dtype=int)
        for mask in kept:
            paths = mask.astype(int) @ paths  # number of paths from input to output

        height = [(np.arange(len(d)) + 0.5) / len(d) for d in degrees]
        height = [1 - h for h in height]
        net = Panel((-0.5, depth + 1.6), (-0.09, 1.04), title=f"weights kept, paths to output {chosen + 1}{', the last' if output > D else ''}", axes=False,
                    aspect=1.2, grow=1.5)  # fmt: skip
        for on in (False, True):
            xs, ys = [], []
            for i, mask in enumerate(kept):
                for to, row in enumerate(mask):
                    for of in np.flatnonzero(row):
                        if (reach[i + 1][to] and reach[i][of]) == on:
                            a, b = height[i][of], height[i + 1][to]  # the digits stay clear
                            xs += [i + 0.1, i + 0.9, np.nan]
                            ys += [0.9 * a + 0.1 * b, 0.1 * a + 0.9 * b, np.nan]
            if xs and on:
                net.line(xs, ys, 1, "on a path to the chosen output", dash=0, width=2)
            elif xs:
                net.line(xs, ys, -1, "kept, on no such path", dash=2, width=1, alpha=0.45)
        for on in (True, False):
            at = [
                (i, h)
                for i in range(len(degrees))
                for h, r in zip(height[i], reach[i], strict=True)
                if r == on
            ]
            if at:
                net.points(*np.array(at).T, 1 if on else 2, "reaches it (square)" if on else "does not (round)",
                           radius=9, alpha=0.3)  # fmt: skip
                net.spec["items"][-1]["m"] = 1 if on else 0
        for i, d in enumerate(degrees):
            for h, degree in zip(height[i], d, strict=True):
                net.text(i, h, str(degree), -1, size=0.95)
        for i in range(D):
            net.text(-0.3, height[0][i], f"x{i + 1}", -1)
            net.text(depth + 1.36, height[-1][i], f"out {i + 1}", -1, size=0.9)
        for i, name in enumerate(names):
            word = {"x": "inputs", "h": "hidden", "p": "outputs"}[name]
            net.text(i, -0.05, word, -1, size=0.9)

        table = Panel((-1.2, D + 0.2), (-0.9, D + 0.4), title="product of the masks: who sees whom", axes=False, equal=True,
                      aspect=1.0, grow=1.0)  # fmt: skip
        for r, to in enumerate(drawn):  # rows and columns in the order of drawing
            table.text(-0.55, D - r - 0.5, f"out {to + 1}", -1, size=0.95)
            table.text(r + 0.5, -0.4, f"x{to + 1}", -1, size=0.95)
        for on in (True, False):
            cells = [
                (r, c) for r in range(D) for c in range(D) if (paths[drawn[r], drawn[c]] > 0) == on
            ]
            for n, (r, c) in enumerate(cells):
                name = "sees it: number of paths" if on and n == 0 else None
                y = D - r
                table.poly([c, c + 1, c + 1, c], [y - 1, y - 1, y, y], 0 if on else -1, name,
                           fill=0.3 if on else 0.0, width=1)  # fmt: skip
                if on:
                    table.text(c + 0.5, y - 0.5, str(paths[drawn[r], drawn[c]]), -1)
        row = D - drawn.index(chosen)
        table.line([0, D, D, 0, 0], [row - 1, row - 1, row, row, row - 1], -1, "the chosen output", dash=0, width=3)  # fmt: skip

        kept_count, all_count = sum(int(m.sum()) for m in kept), sum(m.size for m in kept)
        listed = ", ".join(f"x{i + 1}" for i in seen) or "no input"
        narrow = any((paths[drawn[r], drawn[:r]] == 0).any() for r in range(D))
        return Scene(
            [net, table],
            f"A masked network with {D} inputs, {depth} hidden layer{'s' if depth > 1 else ''} of {width} units, "
            f"{order} order: {', '.join(f'x{i + 1}' for i in drawn)}. Output {chosen + 1} sees {listed}. "
            f"{kept_count} of {all_count} weights are kept; a path exists only from inputs drawn earlier, so the "
            f"table is strictly lower triangular in this order."
            + (" With so few units some earlier inputs are missed." if narrow else ""),
            {
                f"output {chosen + 1} sees": listed,
                "its paths": str(int(paths[chosen].sum())),
                "weights kept": f"{kept_count} of {all_count}",
                "order": " ".join(f"x{i + 1}" for i in drawn),
            },
        )

    return explore(
        "Masks decide who sees whom",
        scene,
        [
            Slider("dim", "inputs D", 2, 6, 4, 1),
            Slider("width", "hidden width", 4, 12, 8, 1),
            Slider("depth", "hidden layers", 1, 2, 1, 1),
            Choice("order", "order", ORDERS, "natural"),
            Slider("output", "output to follow", 1, 6, 3, 1),
        ],
        twin=HERE / "ch05_masks.js",
    )
