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
from ...flows.flow import Flow
from ...flows.moons import LAYERS, NAME, first_layers, layers_from_base, moons_flow
from ..explorable import Explorable, Panel, Scene, Slider, explore

HERE = Path(__file__).parent
BOX, PIXELS = 3.6, 64  # the plane shown, and the density's picture
TOP = 0.3  # density of full colour
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
    """The stored flow in float64, fixed draws of the moons (400, 2), and their entropy in nats."""
    flow = moons_flow()
    about = weights.load(NAME, flow)
    draws = moons().sample(DRAWS, generator=torch.Generator().manual_seed(7))
    return flow.double(), draws.double().numpy().round(3), about["metrics"]["entropy"]


def bend_moons() -> Explorable:
    """The couplings of a trained RealNVP, one after the other, bend a Gaussian into two moons."""
    flow, draws, entropy = _stored()
    layers = layers_from_base(flow)
    keeps = [int(layer.order[0]) for layer in layers]  # the coordinate that passes through
    numbers = [v.detach().numpy().ravel() for layer in layers for v in layer.net.parameters()]
    data = {
        "weights": base64.b64encode(np.concatenate(numbers).astype("<f2").tobytes()).decode(),
        "width": layers[0].net[0].out_features, "limit": layers[0].limit, "keeps": keeps,
        "points": POINTS.T.tolist(), "draws": draws.T.tolist(), "entropy": entropy,
    }  # fmt: skip
    line, fine = np.linspace(-2.5, 2.5, 11), np.linspace(-2.5, 2.5, 61)
    nan = np.nan
    grid = np.array([
        np.concatenate([[*fine, nan, *(fine * 0 + v), nan] for v in line]),
        np.concatenate([[*(fine * 0 + v), nan, *fine, nan] for v in line]),
    ])  # fmt: skip
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
        lines = np.where(np.isnan(grid), nan, lines)
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
                f"{100 * share:.0f} percent of it is done."
            )

        left = Panel((-BOX, BOX), (-BOX, BOX), title=title, xlabel="x1", ylabel="x2", equal=True, aspect=1.0)  # fmt: skip
        left.line(*lines, -1, "square grid of the base, carried along", dash=0, width=1, alpha=0.5)
        left.points(*moved.numpy().T, 2, "points of the base", radius=2.2)
        right = Panel((-BOX, BOX), (-BOX, BOX), title=f"density after {k:.1f} of {LAYERS} layers", xlabel="x1",
                      ylabel="x2", equal=True, aspect=1.0)  # fmt: skip
        right.heat(density, (-BOX, BOX, -BOX, BOX), 0, "density of the flow so far", top=TOP)
        right.points(*draws[:SHOWN].T, 1, "draws of the moons", radius=1.6, alpha=0.7)
        return Scene(
            [left, right],
            f"After {k:.1f} of {LAYERS} layers. {said} The density so far gives draws of the moons {nll:.2f} nats "
            f"on average, where {entropy:.2f} is the least possible; the mean log-determinant so far is "
            f"{volume + 0.0:.2f}.",
            {
                "layers": f"{k:.1f} of {LAYERS}",
                "NLL of 400 draws, nats": f"{nll:.3f}",
                "least possible": f"{entropy:.3f}",
                "mean logabsdet so far": f"{volume + 0.0:.3f}",
            },
        )

    return explore(
        "Layers bend a grid into two moons",
        scene,
        [Slider("k", "layers done", 0, LAYERS, LAYERS, 0.1, play=True)],
        twin=HERE / "ch04_bend_moons.js",
        data=data,
    )
