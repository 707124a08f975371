"""Explorable figures of chapter 4; the twins are `ch04_bend_moons.js` and `ch04_masks.js`.

`bend_moons` runs a stored RealNVP (`lib.flows.moons`) in the page, with the very weights that are stored.
"""

from __future__ import annotations

import base64
import math
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from ... import weights
from ...data.densities import moons
from ...data.images import LEVELS, digits
from ...flows.builders import realnvp_images
from ...flows.coupling import AffineCoupling
from ...flows.flow import Flow
from ...flows.moons import LAYERS, NAME, first_layers, layers_from_base, moons_flow
from ...flows.multiscale import Squeeze, squeeze
from ..explorable import Explorable, Panel, Scene, Slider, explore

HERE = Path(__file__).parent
BOX, PIXELS = 3.6, 64  # the plane shown, and the density's picture
TOP = 0.3  # density of full colour
REACH = 0.15  # longest piece of a grid line
DRAWS, SHOWN = 400, 150  # draws of the moons that are scored, and those that are drawn
POINTS = (
    np.array(  # 160 points that look like draws of a Gaussian: quantiles on a golden-ratio lattice
        [
            [
                NormalDist().inv_cdf((k + 0.5) / 160),
                NormalDist().inv_cdf((0.5 + k * 0.6180339887) % 1),
            ]
            for k in range(160)
        ]
    ).round(3)
)


@lru_cache(1)
def _stored() -> tuple[Flow, np.ndarray, float]:
    """The stored flow in float64, fixed draws of the moons (400, 2), and their NLL by the true density."""
    flow = moons_flow()
    weights.load(NAME, flow)
    draws = moons().sample(DRAWS, generator=torch.Generator().manual_seed(7))
    draws = draws.double().numpy().round(3)
    return flow.double(), draws, -float(moons().log_prob(torch.from_numpy(draws)).mean())


@lru_cache(1)
def _grid() -> list[tuple[int, float, list[float]]]:
    """The lines of the square grid: which coordinate runs, the other's value, stops of the running one.

    Stops are put in until no layer makes a piece longer than REACH: a curve, not a chord.
    """
    flow = _stored()[0]
    maps = [first_layers(flow, k / 2) for k in range(1, 2 * LAYERS + 1)]
    lines = []
    for axis in (0, 1):
        for value in np.linspace(-2.5, 2.5, 11):
            stops = np.linspace(-2.5, 2.5, 61)
            for _ in range(7):
                points = torch.full((len(stops), 2), float(value), dtype=torch.float64)
                points[:, axis] = torch.from_numpy(stops)
                with torch.no_grad():
                    images = torch.stack([m.from_base(points)[0] for m in maps])
                seen = (images.abs() < BOX).all(-1)
                length = (images[:, 1:] - images[:, :-1]).norm(dim=-1) * (
                    seen[:, 1:] | seen[:, :-1]
                )
                long = (length > REACH).any(0).numpy()
                if not long.any():
                    break
                stops = np.sort(np.concatenate([stops, (stops[1:] + stops[:-1])[long] / 2]))
            lines.append((axis, float(value), stops.round(6).tolist()))
    return lines


def bend_moons() -> Explorable:
    """The couplings of a trained RealNVP, one after the other, bend a Gaussian into two moons."""
    flow, draws, true_nll = _stored()
    layers = layers_from_base(flow)
    keeps = [int(layer.order[0]) for layer in layers]  # the coordinate that passes through
    numbers = [v.detach().numpy().ravel() for layer in layers for v in layer.net.parameters()]
    data = {
        "weights": base64.b64encode(np.concatenate(numbers).astype("<f2").tobytes()).decode(),
        "width": layers[0].net[0].out_features, "limit": layers[0].limit, "keeps": keeps,
        "points": POINTS.T.tolist(), "draws": draws.T.tolist(), "true_nll": true_nll,
        "grid": _grid(),
    }  # fmt: skip
    grid = np.concatenate(
        [
            [[*stops, np.nan], [value] * len(stops) + [np.nan]][:: 1 - 2 * axis]
            for axis, value, stops in _grid()
        ],
        axis=1,
    )
    centre = (np.arange(PIXELS) + 0.5) * 2 * BOX / PIXELS - BOX
    pixels = torch.from_numpy(np.stack([v.ravel() for v in np.meshgrid(centre, centre)], 1))

    def log_prob(transform, x):
        z, logabsdet = transform.to_base(x)
        return -0.5 * z.square().sum(1) - math.log(2 * math.pi) + logabsdet

    @torch.no_grad()
    def scene(k: float) -> Scene:
        k = round(k, 6)
        whole = max(math.ceil(k) - 1, 0)  # this layer is at work
        share = k - whole
        transform = first_layers(flow, k)
        lines = transform.from_base(torch.from_numpy(np.nan_to_num(grid).T))[0].numpy().T
        lines = np.where(np.isnan(grid), np.nan, lines)
        moved, logabsdet = transform.from_base(torch.from_numpy(POINTS))
        density = log_prob(transform, pixels).exp().reshape(PIXELS, PIXELS)
        nll, volume = (
            float(-log_prob(transform, torch.from_numpy(draws)).mean()),
            float(logabsdet.mean()),
        )
        a, b = f"x{keeps[whole] + 1}", f"x{2 - keeps[whole]}"
        if k == 0:
            title, said = "the base, before any layer", "Nothing has moved: a standard Gaussian."
        else:
            title = f"layer {whole + 1}: {a} passes, {b} moves"
            said = (
                f"Layer {whole + 1} lets {a} pass, and scales and shifts {b} by functions of {a}; "
                f"{100 * share:.0f}% of it is done."
            )

        left = Panel((-BOX, BOX), (-BOX, BOX), title=title, xlabel="x₁", ylabel="x₂", equal=True, aspect=1.0)  # fmt: skip
        left.line(*lines, -1, "square grid of the base, carried along", dash=0, width=1, alpha=0.5)
        left.points(*moved.numpy().T, 2, "points of the base", radius=2.2)
        right = Panel((-BOX, BOX), (-BOX, BOX), title=f"density after {k:.1f} of {LAYERS} layers", xlabel="x₁",
                      ylabel="x₂", equal=True, aspect=1.0)  # fmt: skip
        right.heat(density, (-BOX, BOX, -BOX, BOX), 0, "density of the flow so far", top=TOP)
        right.points(*draws[:SHOWN].T, 1, "draws of the moons", radius=1.6, alpha=0.7)
        return Scene(
            [left, right],
            f"After {k:.1f} of {LAYERS} layers. {said} The density so far gives draws of the moons {nll:.2f} nats "
            f"on average, where the true density gives {true_nll:.3f}; the mean log-determinant so far, over points of the base, is "
            f"{volume:z.2f}.",
            {
                "layers": f"{k:.1f} of {LAYERS}",
                "NLL of 400 draws, nats": f"{nll:.3f}",
                "NLL of the true density, nats": f"{true_nll:.3f}",
                "mean logabsdet so far, nats": f"{volume:z.3f}",
            },
        )

    return explore(
        "Layers bend a grid into two moons",
        scene,
        [Slider("k", "layers done", 0, LAYERS, 0, 0.1, play=True)],
        twin=HERE / "ch04_bend_moons.js",
        data=data,
    )


@lru_cache(4)
@torch.random.fork_rng([])
def steps(levels: int) -> list[dict]:
    """What a multi-scale RealNVP of an 8 x 8 image does, in order: kind, level, the tensor, who is changed.

    "numbers" (C, H, W): which of the 64 pixels stands where; "changed" (C, H, W) bool, or None; "gone": a
    list of pixels that leave in this step. Read off the layers that `lib.flows.builders.realnvp_images` makes.
    """
    at, out = torch.arange(64).view(1, 8, 8), []
    stack = realnvp_images((1, 8, 8), levels, width=1, blocks=1).levels
    for number, level in enumerate(stack, 1):
        for part in level.transforms:
            if isinstance(part, Squeeze):
                at = squeeze(at[None])[0]
                out.append({"kind": "squeeze", "changed": None, "gone": []})
            elif isinstance(part, AffineCoupling):
                changed = part.steered.bool().expand(part.shape)
                kind = "channels" if bool((changed == changed[:, :1, :1]).all()) else "checkerboard"
                out.append({"kind": kind, "changed": changed.numpy(), "gone": []})
            else:
                continue
            out[-1] |= {"level": number, "numbers": at.numpy()}
        if number < levels:
            leaves, rest = at.chunk(2)
            gone = {"kind": "leave", "changed": None, "gone": leaves.flatten().tolist()}
            out.append(gone | {"level": number, "numbers": at.numpy()})
            at = rest
    return out


def _cells(channels: int, size: int):
    """Corner (left, bottom) and side of each cell, channel by channel, row by row, in the unit square."""
    columns = {1: 1, 2: 2, 4: 2, 8: 4}[channels]
    block, rows = 1 / columns, channels // columns
    side = 0.94 * block / size
    top = 0.5 + 0.5 * rows * block
    for c in range(channels):
        for h in range(size):
            for w in range(size):
                yield (
                    (c % columns + 0.03) * block + w * side,
                    top - (c // columns + 0.03) * block - (h + 1) * side,
                    side,
                )


def masks() -> Explorable:
    """Step through a multi-scale RealNVP of an 8 x 8 digit: who passes, who is changed, who leaves."""
    picture = digits("test")[0][2].flatten().numpy() / (LEVELS["digits"] - 1)
    words = {
        "checkerboard": "a coupling with a checkerboard mask",
        "channels": "a coupling with half of the channels as mask",
        "squeeze": "squeeze: each 2 × 2 block becomes four channels",
        "leave": "half of the channels leave for the base",
    }

    def scene(levels: float, way: float) -> Scene:
        every = steps(round(levels))
        n = math.floor(way * len(every) + 0.5)
        now = every[n - 1] if n else {"kind": "start", "changed": None, "gone": [], "level": 1,
                                      "numbers": np.arange(64).reshape(1, 8, 8)}  # fmt: skip
        count, left = np.zeros(64, int), []
        for s in every[:n]:
            left += s["gone"]
            if s["changed"] is not None:
                count[s["numbers"][s["changed"]]] += 1
        C, H, _ = now["numbers"].shape
        cells, numbers = list(_cells(C, H)), now["numbers"].ravel()
        changed = np.zeros(C * H * H, bool) if now["changed"] is None else now["changed"].ravel()
        leaving = np.isin(numbers, now["gone"])

        frame = dict(axes=False, equal=True, aspect=1.0)
        first = Panel(
            (-0.02, 1.02), (-0.02, 1.02), title=f"the pixels, as {C} × {H} × {H}", **frame
        )
        for c in range(C):
            x, y, side = cells[c * H * H + H * (H - 1)]  # the lowest left cell of this channel
            right, above = x + H * side, y + H * side
            first.picture(1 - picture[now["numbers"][c]], (x, right, y, above))
            first.poly([x, right, right, x], [y, y, above, above], -1, fill=0.0, width=1)

        second = Panel((-0.02, 1.02), (-0.02, 1.02), title="who passes, who is changed", **frame)
        for kind, rows, series, name, fill in (
            ("pass", ~changed & ~leaving, -1, "passes", 0.0),
            ("changed", changed, 1, "scaled and shifted", 0.35),
            ("leave", leaving, 3, "leaves for the base, z", 0.2),
        ):
            for k, i in enumerate(np.flatnonzero(rows)):
                x, y, side = cells[i]
                second.poly([x, x + side, x + side, x], [y, y, y + side, y + side], series, None if k else name,
                            fill=fill, width=1)  # fmt: skip
                if kind != "pass":
                    second.text(
                        x + side / 2, y + side / 2, "±" if kind == "changed" else "z", -1, size=0.85
                    )

        third = Panel(
            (-0.02, 1.02), (-0.02, 1.02), title="how often each pixel was changed", **frame
        )
        named = set()
        for i, (x, y, side) in enumerate(_cells(1, 8)):
            out = i in left
            name = "has left, z" if out else "number of times so far"
            third.poly([x, x + side, x + side, x], [y, y, y + side, y + side], 3 if out else 0,
                       None if name in named else name, fill=0.2 if out else min(0.08 * count[i], 0.6), width=1)  # fmt: skip
            named.add(name)
            third.text(
                x + side / 2, y + side / 2, f"{count[i]}z" if out else str(count[i]), -1, size=0.85
            )

        what = words.get(now["kind"], "the image, before any layer")
        here = int(changed.sum())
        few, most = count.min(), count.max()
        often = f"{few} to {most} times" if few < most else "once" if few == 1 else f"{few} times"
        acts = (
            f" {changed.size - here} of the {changed.size} numbers pass, {here} are scaled and shifted."
            if here
            else ""
        )
        return Scene(
            [first, second, third],
            f"Step {n} of {len(every)}, level {now['level']} of {round(levels)}: {what}.{acts} The tensor is "
            f"{C} × {H} × {H}. So far each pixel was changed {often}, and {len(left)} "
            f"of 64 numbers have gone to the base early.",
            {
                "step": f"{n} of {len(every)}",
                "what": now["kind"],
                "tensor": f"{C} × {H} × {H}",
                "changed now": f"{here} of {changed.size}",
                "changed so far": often,
                "gone to the base early": f"{len(left)} of 64",
            },
        )

    return explore(
        "Masks, squeeze and scales, one step at a time",
        scene,
        [
            Slider("levels", "levels", 1, 3, 2, 1),
            Slider(
                "way",
                "part of the way",
                0,
                1,
                1,
                0.05,
                shown=tuple(f"{5 * k}\u00a0%" for k in range(21)),
            ),
        ],
        twin=HERE / "ch04_masks.js",
        data=picture.tolist(),
    )
