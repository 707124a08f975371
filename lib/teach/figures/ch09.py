"""Explorable figures of chapter 9: noising and denoising one digit, and schedules."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ...diffusion import VP, Chain, Cosine
from ...diffusion.digits import digits_model, labelled
from ...weights import load
from ..explorable import Choice, Explorable, Panel, Scene, Slider, explore

HERE = Path(__file__).parent
POINTS = 101
DIGITS = ("0", "3", "4", "8")
STOPS = [k / 50 for k in range(51)]


def schedules() -> Explorable:
    """VP, DDPM's chain towards it, and cosine: signal and log signal-to-noise ratio."""

    def scene(beta_max: float, steps: float, limit: float, t: float) -> Scene:
        vp, cosine = VP(0.1, beta_max), Cosine(limit)
        chain = Chain.linear(round(steps), 0.1 / steps, beta_max / steps)
        times = np.linspace(0, 1, POINTS)
        inner = [float(u) for u in times[1:]]
        k = np.unique(np.round(np.linspace(1, steps, 21)))
        at_k = [float(v) / steps for v in k]
        left = Panel((0, 1), (0, 1), title="signal that is left", xlabel="time t",
                     ylabel="α²", aspect=1.15)  # fmt: skip
        right = Panel((0, 1), (-24, 14), title="log signal-to-noise ratio", xlabel="time t",
                      ylabel="λ", aspect=1.15)  # fmt: skip
        left.line(times, [vp.alpha(float(u)) ** 2 for u in times], 0, "VP", width=2.2)
        left.points(at_k, [chain.alpha(u) ** 2 for u in at_k], 1, "DDPM's chain", radius=3)
        left.line(times, [cosine.alpha(float(u)) ** 2 for u in times], 2, "cosine", dash=1)
        right.line(inner, np.clip([vp.log_snr(u) for u in inner], -24, 14), 0, "VP", width=2.2)
        right.points(at_k, np.clip([chain.log_snr(u) for u in at_k], -24, 14), 1,
                     "DDPM's chain", radius=3)  # fmt: skip
        right.line(
            times, np.clip([cosine.log_snr(float(u)) for u in times], -24, 14), 2, "cosine", dash=1
        )
        left.line([t, t], [0, 1], -1, "time t", width=1, alpha=0.7)
        right.line([t, t], [-24, 14], -1, width=1, alpha=0.7)
        here = {"VP": vp.log_snr(t), "chain": chain.log_snr(t), "cosine": cosine.log_snr(t)}
        end = 2 * math.log(chain.alpha(1.0) / vp.alpha(1.0))
        return Scene(
            [left, right],
            f"At t = {t:.2f} the log signal-to-noise ratio is {here['VP']:.2f} for VP up to beta "
            f"{beta_max:.0f}, {here['chain']:.2f} for its chain of {steps:.0f} steps and "
            f"{here['cosine']:.2f} for cosine within {limit:.0f}. At t = 1 log alpha "
            f"squared of the chain is {abs(end):.3f} below that of VP.",
            {
                "λ of VP": f"{here['VP']:.2f}",
                "λ of its chain": f"{here['chain']:.2f}",
                "λ of cosine": f"{here['cosine']:.2f}",
                "signal left at t = 1, VP": f"{vp.alpha(1.0) ** 2:.1e}",
                "log α² at t = 1, VP less chain": f"{abs(end):.3f}",
            },
        )

    return explore(
        "Three schedules",
        scene,
        [
            Slider("beta_max", "largest beta of VP", 2, 30, 20, 1),
            Slider("steps", "steps T of the chain", 40, 400, 100, 20),
            Slider("limit", "limit of cosine's lambda", 4, 14, 10, 1),
            Slider("t", "time t", 0.02, 1, 0.8, 0.02, play=True),
        ],
        twin=HERE / "ch09_schedules.js",
    )


@cache
@torch.random.fork_rng([])
def _pictures(digit: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clean digit (8, 8), noisy ones and guesses (stops, 8, 8), all in [-1, 1]."""
    model = digits_model()
    load("ddpm_digits", model)
    x, labels = labelled("test")
    clean = x[labels == int(digit)][2:3].float()
    generator = torch.Generator().manual_seed(8)
    noise = torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float32)
    t = torch.tensor(STOPS)
    schedule = model.denoiser.schedule
    noisy = (
        schedule.alpha(t).view(-1, 1, 1, 1) * clean + schedule.sigma(t).view(-1, 1, 1, 1) * noise
    )
    with torch.no_grad():
        guess = model.float().denoiser(noisy, t)
    return clean[0, 0].numpy(), noisy[:, 0].numpy(), guess[:, 0].numpy()


def one_digit() -> Explorable:
    """A digit under more and more noise, and what the stored network makes of it."""

    def scene(digit: str, t: float) -> Scene:
        clean, noisy, guess = _pictures(digit)
        schedule, k = Cosine(10.0), round(50 * t)
        rms = lambda y: float(np.sqrt(np.mean((y - clean) ** 2)))  # noqa: E731
        errors = np.array([rms(y) for y in guess])
        plain = np.array([rms(y / schedule.alpha(u)) for y, u in zip(noisy, STOPS, strict=True)])
        panels = []
        for picture, title in ((noisy[k], "with noise"), (guess[k], "the network's guess")):
            panel = Panel((0, 8), (0, 8), title=title, equal=True, axes=False, aspect=1.0)
            panel.picture(np.clip((1 - picture) / 2, 0, 1), (0, 8, 0, 8))
            panel.line([0, 8, 8, 0, 0], [0, 0, 8, 8, 0], -1, dash=0, width=2, alpha=0.4)
            panels.append(panel)
        right = Panel((0, 1), (0, 1.2), title="error of a pixel", xlabel="time t",
                      ylabel="root mean square", aspect=1.2, grow=1.2)  # fmt: skip
        right.line(STOPS, errors, 0, "the guess", width=2.2)
        inside = plain < 1.2  # stop where the curve leaves the panel
        leaves = float(np.interp(1.2, plain, STOPS))
        right.line([*np.array(STOPS)[inside], leaves], [*plain[inside], 1.2], 1, "only scaled")
        right.line([t, t], [0, 1.2], -1, "time t", width=1, alpha=0.7)
        right.points([t], [errors[k]], 2, "now", radius=5)
        share = schedule.alpha(t) ** 2
        sees = (
            "the digit"
            if errors[k] < 0.25
            else "a digit, perhaps another"
            if errors[k] < 0.42
            else "a blur"
        )
        return Scene(
            [*panels, right],
            f"Digit {digit} at t = {t:.2f}: {share:.0%} of the signal's variance is left. The guess "
            f"is off by {errors[k]:.2f} for a pixel, root mean square, and shows {sees}.",
            {
                "signal left": f"{share:.3f}",
                "log signal-to-noise": f"{schedule.log_snr(t):.2f}",
                "error of the guess": f"{errors[k]:.3f}",
            },
        )

    return explore(
        "Noise on a digit, and its guess",
        scene,
        [
            Choice("digit", "digit", DIGITS, "3"),
            Slider("t", "time (0 data, 1 noise)", 0, 1, 0.3, 0.02, play=True),
        ],
    )
