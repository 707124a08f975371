"""Explorable figures of chapter 8, from scenes computed beforehand: no twins in JavaScript."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch

from ...data.densities import eight_gaussians
from ...flows.divergence import draw_probes, exact_divergence
from ...ode import solve
from ..explorable import Choice, Explorable, Panel, Scene, Slider, explore

B, STEPS, SPAN, PIXELS = 2.5, 100, 5.0, 56
POINTS, PATHS = 300, 5


def _mark(panel: Panel, x, y, path: int, radius: float) -> None:
    """Points of a path, in its colour, and for each of the five another shape."""
    panel.points(x, y, path + 1, radius=radius)
    panel.spec["items"][-1]["m"] = (path + 1) % 5


def blurred(t):
    """Eight Gaussians, shrunk by alpha = exp(-B t^2) and blurred to keep alpha^2 + sigma^2 = 1."""
    alpha = torch.exp(-B * torch.as_tensor(t, dtype=torch.float64) ** 2)
    return eight_gaussians().noised(alpha, (1 - alpha**2).sqrt())


def field(t, x: torch.Tensor) -> torch.Tensor:
    """The field that carries each of these densities into the next."""
    return -2 * B * t * (x + blurred(t).score(x))


@cache
def ride() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (STEPS + 1, POINTS, 2) from t = 0 to 1; divergence and log p of the first few."""
    draw = torch.Generator().manual_seed(0)  # in float32 whatever the page has set: one cloud
    x = eight_gaussians().sample(POINTS, draw, dtype=torch.float32).double()
    path = solve(field, x, 0.0, 1.0, STEPS, path=True)
    few, times = path[:, :PATHS], torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    divergence = torch.stack([exact_divergence(field, t, x)[1] for t, x in zip(times, few)])  # noqa: B905
    log_p = torch.stack([blurred(t).log_prob(x) for t, x in zip(times, few)])  # noqa: B905
    return path.numpy(), divergence.numpy(), log_p.numpy()


def time() -> Explorable:
    """Move through the time of a flow whose densities are all known."""
    centre = torch.linspace(-SPAN, SPAN, PIXELS + 1, dtype=torch.float64)
    centre = (centre[1:] + centre[:-1]) / 2
    pixels = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), 2).view(-1, 2)

    def scene(t: float) -> Scene:
        path, divergence, log_p = ride()
        k = round(t * STEPS)
        p = blurred(t).log_prob(pixels).exp().view(PIXELS, PIXELS).numpy()
        left = Panel((-SPAN, SPAN), (-SPAN, SPAN), title="density and points", xlabel="x₁",
                     ylabel="x₂", equal=True, aspect=1.0, grow=1.2)  # fmt: skip
        left.heat(p, (-SPAN, SPAN, -SPAN, SPAN), 0)
        left.points(*path[k].T, -1, "points on the flow", radius=1.6, alpha=0.6)
        for j in range(PATHS):
            trail = path[np.minimum(np.arange(0, STEPS + 1, 2), k), j]  # always as long
            left.line(*trail.T, j + 1, width=2.2, dash=0)
        for j in range(PATHS):
            _mark(left, *path[[k], j].T, j, 5.5)
        times = np.arange(0, STEPS + 1, 2) / STEPS
        panels = [left]
        for values, title, ylim in (
            (divergence, "divergence on five paths", (-9, 7)),
            (log_p, "log p on five paths", (-5, -1)),
        ):
            panel = Panel((0, 1), ylim, title=title, xlabel="time t", ylabel=title.split(" on")[0],
                          aspect=1.0)  # fmt: skip
            for j in range(PATHS):
                shown = np.clip(values[::2, j], *ylim)
                panel.line(times, shown, j + 1, f"path {j + 1}", width=2.2, marker=(j + 1) % 5)
                _mark(panel, times[4 + j :: 10], shown[4 + j :: 10], j, 4)
            panel.line([t, t], list(ylim), -1, width=1, alpha=0.7)
            panels.append(panel)
        mean = float(divergence[k].mean())
        what = ("eight clumps" if t < 0.3 else "a ring of blurred spots" if t < 0.38
                else "one ring, filling up" if t < 0.56 else "one round cloud")  # fmt: skip
        return Scene(
            panels,
            f"At t = {t:.2f} the density is {what}. Divergence at five points: mean {mean:.2f}; "
            f"mean log p {float(log_p[k].mean()):.2f}. Where the divergence is positive, log p falls in time.",
            {"t": f"{t:.2f}", "divergence, mean of five": f"{mean:.2f}", "log p, mean of five": f"{float(log_p[k].mean()):.2f}"},
        )  # fmt: skip

    return explore("A continuous flow, frame by frame", scene,
                   [Slider("t", "time (0 data, 1 noise)", 0, 1, 0.3, 0.02, play=True)])  # fmt: skip


D, DRAWS = 16, 400


def matrix(mix: float) -> torch.Tensor:
    """A fixed matrix (D, D) whose off-diagonal part is multiplied by `mix`."""
    raw = torch.randn(D, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    diagonal = torch.diag(raw.diagonal())
    return diagonal + mix * (raw - diagonal) / 3


def spread(J: torch.Tensor, kind: str) -> float:
    """The standard deviation of e'Je by the formula."""
    S = (J + J.T) / 2
    own = S.diagonal().square().sum() if kind == "signs" else 0.0
    return math.sqrt(2 * float(S.square().sum() - own))


def probes() -> Explorable:
    """How many probes, of which kind, for a trace of given accuracy."""

    def scene(kind: str, power: float, mix: float) -> Scene:
        count, J = 2 ** round(power), matrix(mix)
        name = "rademacher" if kind == "signs" else "gaussian"
        e = draw_probes(torch.zeros(DRAWS, D, dtype=torch.float64), name, count,
                        torch.Generator().manual_seed(1))  # fmt: skip
        estimates = ((e @ J) * e).sum(2).mean(0).numpy()
        true, one = float(J.trace()), spread(J, kind)
        predicted, seen = one / math.sqrt(count), float(estimates.std())
        reach = 24.0
        edges = np.linspace(true - reach, true + reach, 50)  # the trace is the middle of a bar
        height, _ = np.histogram(np.clip(estimates, edges[0], edges[-1]), edges)
        left = Panel((edges[0], edges[-1]), (0, 100), title="400 estimates of the trace", xlabel="estimate",
                     ylabel="how many (cut at 100)", aspect=1.2)  # fmt: skip
        left.bars(
            (edges[1:] + edges[:-1]) / 2,
            np.minimum(height, 100),
            edges[1] - edges[0],
            0,
            "estimates",
        )
        left.line([true, true], [0, 100], -1, "the trace", dash=2, width=2)
        right = Panel((-0.3, 8.3), (-2, 1.5), title="error against price (0 is not drawn)", xlabel="log₂ of the number of probes",
                      ylabel="log₁₀ of the standard deviation", aspect=1.2)  # fmt: skip
        powers = np.arange(9)
        for j, k in enumerate(("Gaussian", "signs")):
            sd = np.where((sd := spread(J, k)) > 1e-9, sd / np.sqrt(2.0**powers), np.nan)
            right.line(powers, np.log10(sd), j, f"{k}, formula")
        at = math.log10(seen) if seen > 0.01 else math.nan
        right.points([power], [at], 2, "these 400", radius=6)
        many, sort = "probe" if count == 1 else "probes", "Sign" if kind == "signs" else kind
        return Scene(
            [left, right],
            f"{sort} probes, {count} {many} for each estimate: the trace is {true:.2f}, the standard "
            f"deviation of the estimates {seen:.2f}, by the formula {predicted:.2f}.",
            {"trace": f"{true:.2f}", "mean": f"{float(estimates.mean()):.2f}",
             "deviation": f"{seen:.2f}", "formula": f"{predicted:.2f}"},
        )  # fmt: skip

    return explore(
        "Probes for a trace",
        scene,
        [
            Choice("kind", "probes", ("Gaussian", "signs"), "Gaussian"),
            Slider("power", "log2 of probes", 0, 8, 0, 1, play=True),
            Slider("mix", "off-diagonal part", 0, 2, 1, 0.5),
        ],
    )
