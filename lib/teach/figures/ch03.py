"""Explorable figures of chapter 3, on stored models that `lib.vae.sweep` trained and measured.

`latent_plane` runs the decoder in the page, in its twin `ch03_latent_plane.js`, with the very weights that
are stored; `beta` shows nine trained models, with the numbers and pictures measured of each.
"""

from __future__ import annotations

import base64
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ... import weights
from ...data.images import LEVELS, digits
from ...vae.sweep import BETAS, Sweep, plane_model
from ..explorable import Drag, Explorable, Panel, Scene, Slider, explore

HERE = Path(__file__).parent
TOP = LEVELS["digits"] - 1  # the lightest grey level
MARKED = 150  # test digits drawn in the plane


@lru_cache(1)
@torch.random.fork_rng([])
def _plane() -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """Layers (weight, bias) of the stored decoder; posterior means (150, 2) and classes (150,)."""
    model = plane_model()
    weights.load("digits_plane", model)
    layers = [m for m in model.decoder.modules() if isinstance(m, torch.nn.Linear)]
    images, labels = (part[:MARKED] for part in digits("test"))
    with torch.no_grad():
        means = model.encode(images.float())[0].double().numpy().round(3)
    pairs = [(m.weight.detach().double().numpy(), m.bias.detach().double().numpy()) for m in layers]
    return pairs, means, labels.numpy()


def decode(z1: float, z2: float) -> np.ndarray:
    """Mean grey level 0 .. 16 of each pixel at a point of the plane, by the stored decoder: (8, 8)."""
    layers, h = _plane()[0], np.array([z1, z2])
    for k, (weight, bias) in enumerate(layers):
        h = weight @ h + bias
        if k < len(layers) - 1:
            h = h / (1 + np.exp(-h))  # SiLU
    mean = 0.5 * (h[:64] + 1) * TOP
    scale = np.exp(math.log((TOP + 1) / 8) + 7 * np.tanh(h[64:] / 7))
    steps = np.arange(1, TOP + 1)[:, None]  # E[k] is the sum over j of P(k >= j)
    a = np.clip((mean - steps + 0.5) / scale, -700, 700)
    return (1 / (1 + np.exp(-a))).sum(0).reshape(8, 8)


def latent_plane() -> Explorable:
    """Drag a point through the latent plane of a small VAE; its decoded digit follows."""
    layers, means, labels = _plane()
    packed = np.concatenate([v.ravel() for pair in layers for v in pair]).astype("<f2").tobytes()
    data = {
        "sizes": [2, *(len(bias) for _, bias in layers)],
        "weights": base64.b64encode(packed).decode(),  # float16, as they are stored
        "x": means[:, 0].tolist(),
        "y": means[:, 1].tolist(),
        "labels": "".join(str(k) for k in labels),
    }

    def scene(z1: float, z2: float) -> Scene:
        levels = decode(z1, z2)
        away = np.hypot(means[:, 0] - z1, means[:, 1] - z2)
        near = int(away.argmin())
        log_prior = -0.5 * (z1**2 + z2**2) - math.log(2 * math.pi)

        left = Panel((-3.5, 3.5), (-3.5, 3.5), title="150 test digits, at their means",
                     xlabel="z₁", ylabel="z₂", equal=True, aspect=1.05, grow=1.5)  # fmt: skip
        angle = np.linspace(0, 2 * np.pi, 61)
        for k, radius in enumerate((1, 2)):
            left.line(radius * np.cos(angle), radius * np.sin(angle), -1,
                      None if k else "prior, 1 and 2 standard deviations", dash=1, width=1, alpha=0.5)  # fmt: skip
        for (x, y), label in zip(means, labels, strict=True):
            left.text(x, y, str(label), int(label) % 6, size=0.85)
        left.line(
            [z1, means[near, 0]], [z2, means[near, 1]], 1, "to the nearest test digit", dash=0
        )
        left.points(
            [z1], [z2], 1, "your z, drag it", radius=3, marker=0
        )  # under its handle, a disc
        right = Panel((0, 1), (0, 1), title="decoded there", equal=True, axes=False, aspect=0.9)
        right.picture(1 - levels / TOP, (0, 1, 0, 1))  # ink on paper
        right.line([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], -1, dash=0, width=2, alpha=0.4)
        mean = float(levels.mean())
        return Scene(
            [left, right],
            f"The decoder's picture at z = ({z1:.2f}, {z2:.2f}), with mean grey level {mean:.2f} of 16. The "
            f"nearest of the 150 test digits marked in the plane is a {labels[near]}, {away[near]:.3f} away. "
            f"The prior's log density there is {log_prior:.3f} nats.",
            {
                "z1": f"{z1:.2f}", "z2": f"{z2:.2f}", "nearest test digit": f"a {labels[near]}",
                "its distance": f"{away[near]:.3f}", "log p(z), nats": f"{log_prior:.3f}",
                "mean grey level (0 to 16)": f"{mean:.2f}",
            },
        )  # fmt: skip

    return explore(
        "Drag a point through latent space",
        scene,
        [Slider("z1", "z1", -3.5, 3.5, 0.2, 0.05), Slider("z2", "z2", -3.5, 3.5, 1.2, 0.05)],
        drag=[Drag("z1", "z2", panel=0)],
        twin=HERE / "ch03_latent_plane.js",
        data=data,
    )


@lru_cache(1)
@torch.random.fork_rng([])
def _sweep() -> Sweep:
    sweep = Sweep()
    weights.load("digits_beta", sweep)
    return sweep


def beta() -> Explorable:
    """Nine models trained with another beta each: rate, distortion, reconstructions, samples."""
    sweep = _sweep()
    rate, distortion = sweep.rate.double().numpy(), sweep.distortion.double().numpy()
    grey = sweep.reconstructions.double() / 255
    spread = grey.std(1, correction=0).mean((1, 2)).numpy()  # over the five digits
    names = ["0", "1/16", "1/8", "1/4", "1/2", "1", "2", "4", "8"]
    shift = [[0, 2.5], [2.4, 2.2], [1, -2.4], [-3.4, -2.8], [-1.6, -3], [-3, -2.8], [-3.4, -1], [2.8, 0], [2.4, 2]]  # fmt: skip
    text = lambda pictures: base64.b64encode(pictures.numpy().tobytes()).decode()  # noqa: E731
    data = {
        "betas": BETAS, "names": names, "rate": rate.tolist(), "distortion": distortion.tolist(),
        "active": sweep.active.tolist(), "spread": spread.round(4).tolist(), "shift": shift,
        "digits": text(sweep.digits), "samples": [text(row) for row in sweep.samples],
        "reconstructions": [text(row) for row in sweep.reconstructions],
    }  # fmt: skip

    def scene(log2_beta: float) -> Scene:
        k = round(log2_beta) + 5
        b, r, d = BETAS[k], float(rate[k]), float(distortion[k])

        left = Panel((-4, 70), (62, 116), title=f"rate and distortion, beta = {names[k]}",
                     xlabel="rate: KL(q || prior), nats", ylabel="distortion: −log p(x | z), nats",
                     aspect=1.15, grow=1.2)  # fmt: skip
        ends = np.array([-200.0, 200.0])
        left.line(ends, d - b * (ends - r), 2, "slope −beta: equal loss", dash=2, width=1.5)
        left.line(ends, d - (ends - r), -1, "slope −1: equal ELBO", dash=1, width=1, alpha=0.6)
        left.line(rate, distortion, 0, "nine models, measured on test digits", dash=0, marker=0)
        left.points(rate, distortion, 0, radius=3)
        for name, x, y, (dx, dy) in zip(names, rate, distortion, shift, strict=True):
            left.text(x + dx, y + dy, name, 0, size=0.9)
        left.points([r], [d], 1, "this beta", radius=6)

        right = Panel((0, 5), (0, 4.2), equal=True, axes=False, aspect=1.19)
        rows = [
            ("five test digits", sweep.digits),
            ("their reconstructions", sweep.reconstructions[k]),
            ("decoded from five draws of the prior", sweep.samples[k]),
        ]
        for row, (title, pictures) in enumerate(rows):
            base = 2.8 - 1.4 * row
            right.text(2.5, base + 1.2, title)
            for i, picture in enumerate(pictures.numpy()):
                right.picture(1 - picture / 255, (i + 0.04, i + 0.96, base + 0.04, base + 0.96))
        said = (
            "the five reconstructions are the same blur: the posterior has collapsed"
            if spread[k] < 0.01
            else f"the reconstructions differ from each other, by {spread[k]:.2f} of the grey range on average"
        )
        used, bound, loss = int(sweep.active[k]), -(r + d), d + b * r
        return Scene(
            [left, right],
            f"Trained with beta {names[k]}: the code costs {r:.2f} nats and leaves {d:.2f} nats of distortion, "
            f"so the ELBO is {bound:.2f}. {used} of 10 latent dimensions are used; {said}.",
            {
                "beta": names[k], "rate, nats": f"{r:.2f}", "distortion, nats": f"{d:.2f}",
                "ELBO, nats": f"{bound:.2f}", "D + beta R, nats": f"{loss:.2f}", "dimensions used": f"{used} of 10",
            },
        )  # fmt: skip

    return explore(
        "Slide beta",
        scene,
        [Slider("log2_beta", "beta", -5, 3, -2, 1, shown=tuple(names))],
        twin=HERE / "ch03_beta.js",
        data=data,
    )
