"""Explorable figures of chapter 2."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..explorable import Choice, Drag, Explorable, Panel, Scene, Slider, explore

HERE = Path(__file__).parent
LOG_2PI = math.log(2 * math.pi)

# z ~ N(0, 1), x = h(z) + sigma eps, and one observed x
MODELS = {
    "one mode": {"h": lambda z: 1.2 * z + 0.3, "sigma": 0.7, "x": 1.4},
    "two modes": {"h": lambda z: (z + 0.25) ** 2, "sigma": 0.6, "x": 2.0},
}
FLOOR = -9.0  # nats; where the bar of `gap` stands


def gap() -> Explorable:
    """Move q = N(mean, scale^2) over a posterior; ELBO and gap share a bar of constant height."""
    z = np.linspace(-16, 16, 1601)  # six of the widest scales beyond the last mean
    dz, shown = z[1] - z[0], slice(600, 1001, 2)

    def scene(model: str, mean: float, scale: float) -> Scene:
        m = MODELS[model]
        prior = -0.5 * z**2 - 0.5 * LOG_2PI
        fit = -0.5 * ((m["x"] - m["h"](z)) / m["sigma"]) ** 2 - math.log(m["sigma"]) - 0.5 * LOG_2PI
        log_p = math.log(np.sum(np.exp(prior + fit)) * dz)
        posterior = prior + fit - log_p
        log_q = -0.5 * ((z - mean) / scale) ** 2 - math.log(scale) - 0.5 * LOG_2PI
        q = np.exp(log_q) * dz
        recon, kl_prior = float(np.sum(q * fit)), float(np.sum(q * (log_q - prior)))
        kl = float(np.sum(q * (log_q - posterior)))
        elbo = recon - kl_prior

        left = Panel((-4, 4), (0, 1.4), title="where z may have been", xlabel="latent z",
                     ylabel="density", aspect=1.3, grow=1.5)  # fmt: skip
        left.line(z[shown], np.exp(prior[shown]), 2, "prior p(z)", width=1.5)
        left.line(z[shown], np.exp(posterior[shown]), 0, "posterior p(z | x)", width=2.5, fill=0.18)
        left.line(z[shown], np.exp(log_q[shown]), 1, "your q(z)", width=2.5)
        peak = 1 / (scale * math.sqrt(2 * math.pi))
        left.text(
            -2.2 if mean > 0 else 2.2, 1.3, f"q goes up to {peak:.1f}" if peak > 1.4 else "", 1
        )
        top = max(elbo, FLOOR)
        right = Panel((-0.3, 1), (FLOOR - 0.4, 0.4), title="one bar, two parts, in nats", axes=False, aspect=0.85)  # fmt: skip
        right.line([0, 0], [FLOOR, 0], -1, dash=0, width=1)  # the only axis: nothing goes across
        for nats in range(-8, 1, 2):
            right.line([-0.02, 0], [nats, nats], -1, dash=0, width=1)
            right.text(-0.05, nats, f"{nats}".replace("-", "−"), align="right")
        rect = [0.22, 0.78, 0.78, 0.22]
        right.poly(rect, [FLOOR, FLOOR, top, top], 1, "ELBO, above −9", fill=0.4)
        right.poly(rect, [top, top, log_p, log_p], 3, "gap KL(q ‖ posterior)", fill=0.4)
        right.line([0, 1], [log_p, log_p], -1, "log p(x)", dash=1, width=1.5)
        right.text(0.5, FLOOR + 0.45, "ELBO" if elbo > FLOOR + 0.9 else "")
        right.text(
            0.5,
            (top + log_p) / 2,
            "gap, on below" if elbo < FLOOR else "gap" if log_p - top > 0.6 else "",
        )
        within = np.clip((2 * scale - np.abs(z - mean)) / dz + 0.5, 0, 1)  # of each cell
        share = float(np.sum(within * np.exp(posterior)) * dz)
        close = f"{100 * share:.0f}% of the posterior lies within two scales of q's mean."
        if kl < 0.02:
            close = "q lies on the posterior."
        return Scene(
            [left, right],
            f"Posterior with {model}, q with mean {mean:.2f} and scale {scale:.2f}. The ELBO is "
            f"{elbo:.2f} and the gap {kl:.2f}; they add up to log p(x) = {log_p:.2f} nats. {close}",
            {
                "ELBO": f"{elbo:.3f}",
                "gap KL(q ‖ posterior)": f"{kl:.3f}",
                "sum, log p(x)": f"{elbo + kl:.3f}",
                "E log p(x | z)": f"{recon:.3f}",
                "KL(q ‖ prior)": f"{kl_prior:.3f}",
            },
        )

    return explore(
        "Move q: the ELBO and the gap trade places under a constant log p(x)",
        scene,
        [
            Choice("model", "posterior", tuple(MODELS), "one mode"),
            Slider("mean", "mean of q", -3, 3, -0.4, 0.02, play=True),
            Slider("scale", "scale of q", 0.05, 2, 0.9, 0.01),
        ],
        twin=HERE / "ch02_gap.js",
        drag=[Drag("mean")],
    )


REPEATS, LARGEST, DIMENSIONS, NOISE = 200, 8, 10, 0.5  # repeats, log2 of the largest K, D, sigma


def _uniform(index: np.ndarray) -> np.ndarray:
    """Numbers in (0, 1) from a counter: the same in JavaScript, bit by bit (hash of 32 bits)."""
    h = (index.astype(np.uint64) + 0x9E3779B9) & 0xFFFFFFFF
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        h = ((h ^ (h >> np.uint64(shift))) * factor) & 0xFFFFFFFF
    return ((h ^ (h >> np.uint64(15))).astype(float) + 0.5) / 2**32


@lru_cache(maxsize=1)
def _noise() -> tuple[np.ndarray, np.ndarray]:
    """Running sums over dimensions of eps^2 and eps, each (D, repeats, K)."""
    n = DIMENSIONS * REPEATS << LARGEST
    i = np.arange(n)
    eps = np.sqrt(-2 * np.log(_uniform(2 * i))) * np.cos(2 * np.pi * _uniform(2 * i + 1))
    eps = eps.reshape(DIMENSIONS, REPEATS, 1 << LARGEST)
    return np.cumsum(eps**2, 0), np.cumsum(eps, 0)


def samples() -> Explorable:
    """Estimates of log p(x) from K importance samples, in D dimensions, with a better or worse q."""
    ks = np.arange(LARGEST + 1)
    var, place = 1 + NOISE**2, math.sqrt(1 + NOISE**2)  # of p(x), and where x is: x_d = place

    def scene(dim: float, log2k: float, near: float) -> Scene:
        D, j = round(dim), round(log2k)
        m, s = near * place / var, 1 + near * (NOISE / math.sqrt(var) - 1)
        square, plain = (a[D - 1] for a in _noise())
        # log p(x, z) - log q(z) at z = m + s eps, minus log p(x); every dimension alike
        z2 = D * m * m + 2 * m * s * plain + s * s * square
        zx = place * (D * m + s * plain)
        log_w = (
            -0.5 * z2 - 0.5 * (D * place**2 - 2 * zx + z2) / NOISE**2 + 0.5 * square
            + D * (math.log(s) - math.log(NOISE) + 0.5 * place**2 / var + 0.5 * math.log(var))
        )  # fmt: skip
        top = log_w.max(1, keepdims=True)
        running = np.cumsum(np.exp(log_w - top), 1)
        est = np.log(running[:, (1 << ks) - 1]) - np.log(2.0**ks) + top  # (repeats, powers of K)
        mean, low, high = (
            est.mean(0),
            *(np.sort(est, 0)[[r]][0] for r in (REPEATS // 10, REPEATS * 9 // 10)),
        )
        ratio = np.exp(est[:, j])
        half = float(np.mean(ratio < 0.5))

        floor = -5.0 * max(1, math.ceil(-0.26 * low[0]))  # room for the lower line
        left = Panel((-0.3, LARGEST + 0.3), (floor, 7), title="estimates of log p(x), minus log p(x)",
                     xlabel="log₂ K (K samples: 1, 2, 4, … 256)", ylabel="nats", aspect=1.35, grow=1.4)  # fmt: skip
        jitter = j + 0.36 * (np.arange(REPEATS) / (REPEATS - 1) - 0.5)
        lost = int((est[:, j] < floor).sum())
        name = "200 repeats at your K" + (f" ({lost} lower, on the edge)" if lost else "")
        left.points(jitter, np.maximum(est[:, j], floor), 0, name, radius=1.6, alpha=0.5)
        left.line([-1, LARGEST + 1], [0, 0], -1, "truth", dash=1, width=1.5)
        left.line(ks, mean, 1, "their mean: estimates the bound", dash=0, width=2.5)
        left.line(ks, low, 2, "10% and 90%", width=1.5)
        left.line(ks, high, 2, width=1.5)
        bar = 2 / 7  # 0 is the edge of a bar, 1 the middle of one
        place_in = np.floor(np.minimum(ratio, 4.2) / bar).astype(int)
        count = np.bincount(place_in, minlength=15) / REPEATS
        right = Panel((0, 4.29), (0, 1), title="the same, as a ratio", xlabel="estimate / p(x), last bar: more",
                      ylabel="share of repeats", aspect=1.1)  # fmt: skip
        right.bars((np.arange(15) + 0.5) * bar, count, bar, 0, "share of repeats", fill=0.4)
        right.line([1, 1], [0, 1], -1, "truth", dash=1, width=1.5)
        off = mean[j] if abs(mean[j]) > 0.005 else 0.0
        where = (
            "the prior" if near == 0 else "the posterior" if near == 1 else f"{near:.2f} of the way"
        )
        return Scene(
            [left, right],
            f"Dimension {D}, K = {1 << j}, q at {where}. The mean log estimate is {off:.2f} nats "
            f"from log p(x); {100 * half:.1f}% of the repeats give less than half of p(x).",
            {
                "K": f"{1 << j}",
                "mean of log estimate − log p(x)": f"{off:.2f}",
                "mean of estimate / p(x)": f"{ratio.mean():.2f}",
                "repeats below half of p(x)": f"{100 * half:.1f} %",
            },
        )

    return explore(
        "How many samples? Dimension, number and proposal against the estimate of log p(x)",
        scene,
        [
            Slider("dim", "dimension D", 1, DIMENSIONS, 4, 1, play=True),
            Slider("log2k", "log2 of K (K = 1 to 256)", 0, LARGEST, 4, 1),
            Slider("near", "q: prior 0, posterior 1", 0, 1, 0, 0.02),
        ],
        twin=HERE / "ch02_samples.js",
    )
