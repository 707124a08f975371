"""The plots of chapter 10, and the loops behind them that are too long for a page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from lib.data.densities import GaussianMixture
from lib.diffusion import BaseDenoiser, Schedule

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def _density(ax, p: Callable[[Tensor], Tensor], span: float, n: int = 90, power: float = 0.6):
    line = torch.linspace(-span, span, n, dtype=torch.float64)
    values = p(torch.cartesian_prod(line, line)).view(n, n).T
    return ax.pcolormesh(line, line, values**power, vmin=0, cmap="Blues", rasterized=True)


def _square(ax, span: float, left: bool = True) -> None:
    ax.set(xlim=(-span, span), ylim=(-span, span), aspect="equal", xlabel="x₁")
    if left:
        ax.set_ylabel("x₂")


def _arrows(ax, score: Callable, span: float, n: int = 15) -> None:
    line = torch.linspace(-span, span, n + 2, dtype=torch.float64)[1:-1]
    at = torch.cartesian_prod(line, line)
    with torch.no_grad():
        s = score(at)
    s = 0.2 * s / (1 + 0.35 * s.norm(dim=1, keepdim=True))  # long ones are shortened
    ax.quiver(*at.T, *s.T, angles="xy", scale_units="xy", scale=1, width=0.005, color=style.INK)


def opening(mixture: GaussianMixture, before: Tensor, after: Tensor) -> None:
    """A density with its score; points before and after Langevin dynamics."""
    _, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.9))
    for ax in (left, right):
        _density(ax, lambda x: mixture.log_prob(x).exp(), 4)
        _square(ax, 4)
    _arrows(left, mixture.score, 4)
    right.plot(*before.T, ".", ms=2.5, color="#777777", label="start")
    right.plot(*after.T, "o", ms=2.5, color=style.colour(1), label="after 200 steps")
    right.legend(
        fontsize=8.5, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, markerscale=2.5
    )
    plt.show()


def fields(mixture: GaussianMixture, scores: dict[str, tuple[Callable, Callable]]) -> None:
    """Scores side by side, each with the true one that it should be; the colour is its error."""
    fig, axes = plt.subplots(2, 2, figsize=(7.6, 6.4), sharex=True, sharey=True)
    line = torch.linspace(-5, 5, 80, dtype=torch.float64)
    at = torch.cartesian_prod(line, line)
    p = mixture.log_prob(at).exp().view(80, 80).T
    for ax, (name, (score, target)) in zip(axes.flat, scores.items(), strict=True):
        with torch.no_grad():
            true = target(at)
            off = (score(at) - true).norm(dim=1) / true.norm(dim=1)
        off = off.clamp(max=1).view(80, 80).T
        mesh = ax.pcolormesh(line, line, off, cmap="Oranges", vmin=0, vmax=1.2, rasterized=True)
        ax.contour(line, line, p, levels=[0.004, 0.06], colors=style.colour(0), linewidths=1.0)
        _arrows(ax, score, 5, 13)
        _square(ax, 5, ax in axes[:, 0])
        ax.label_outer()  # the upper panels have the numbers of the lower ones
        ax.set_title(name, fontsize=10)
    bar = fig.colorbar(mesh, ax=axes, shrink=0.5, ticks=[0, 0.5, 1])
    bar.set_label("relative error (1: or more)", fontsize=8.5)
    bar.ax.set_ylim(0, 1)
    plt.show()


def error_by_level(
    learned: Callable, target: Callable, mixture: GaussianMixture, x: Tensor
) -> tuple[Tensor, Tensor]:
    """log p, in bins, and the relative error of a learned score at points x of that log p."""
    level, edges = mixture.log_prob(x), torch.linspace(-22, -2, 11, dtype=torch.float64)
    with torch.no_grad():
        true = target(x)
        off = (learned(x) - true).square().sum(1)
    size, place, error = true.square().sum(1), [], []
    for low, high in zip(edges, edges[1:], strict=False):
        here = (low <= level) & (level < high)
        place.append((low + high) / 2)
        error.append((off[here].mean() / size[here].mean()).sqrt())
    return torch.stack(place), torch.stack(error)


def failures(shares: dict[float, list[float]], by_level: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Shares of one mode over the steps; error of a score by the log-density."""
    _, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.3))
    for j, (gap, y) in enumerate(shares.items()):
        _line(left, range(1, len(y) + 1), y, j, f"{gap:g} apart")
    left.axhline(0.2, color=style.INK, lw=1, ls=":")
    left.set(xlabel="Langevin steps", ylabel="share left of the middle", ylim=(0.1, 0.6))
    left.legend(fontsize=8.5, ncols=2, loc="upper right")
    for j, (name, (level, error)) in enumerate(by_level.items()):
        _line(right, level, error, j, name, marker=style.marker(j))
    right.axvline(-8, color=style.INK, lw=1, ls=":")
    right.set(xlabel="log p of the place, nats", ylabel="relative error of the score", yscale="log")
    right.set_yticks([0.3, 0.5, 1], ["0.3", "0.5", "1"])
    right.minorticks_off()
    right.legend(fontsize=8.5)
    plt.show()


def annealed(states: Sequence[Tensor], sigmas: Sequence[float]) -> None:
    """Points after some of the noise levels."""
    _, axes = plt.subplots(1, len(states), figsize=(9.4, 2.5), sharey=True)
    for ax, x, sigma in zip(axes, states, sigmas, strict=True):
        ax.plot(*x[:1200].T, ".", ms=1.6, color=style.colour(0))
        _square(ax, 9, ax is axes[0])
        share = (x[:, 0] < 0).double().mean()
        ax.set_title(f"σ = {sigma:.2g}: left {share:.2f}", fontsize=9.5)
    plt.show()


def three_sdes(schedules: dict[str, Schedule], starts: Sequence[float], n: int = 400) -> None:
    """Paths of three SDEs and the bands alpha x_0 +- sigma."""
    fig, axes = plt.subplots(1, len(schedules), figsize=(8.4, 3.0))
    t = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    for ax, (name, schedule) in zip(axes, schedules.items(), strict=True):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        for j, x0 in enumerate(starts):
            x = torch.full((n + 1, 3), x0, dtype=torch.float64)
            for k in range(n):
                f, g2 = schedule.sde(float(t[k] + 0.5 / n))
                x[k + 1] = x[k] * (1 + f / n) + math.sqrt(g2 / n) * torch.randn(3).double()
            ax.plot(t, x, color=style.colour(j), ls="-", lw=0.7)
            ax.fill_between(t, alpha * x0 - sigma, alpha * x0 + sigma, color=style.colour(j),
                            alpha=0.13, lw=0)  # fmt: skip
        ax.set(xlabel="time t", ylabel="x(t)")
        ax.set_title(name, fontsize=10)
    for ax in axes[2:]:
        ax.sharey(axes[1])  # VE needs a scale of its own; the others are to be compared
    plt.show()


def euler_maruyama_orders(counts: Sequence[int], chains: int) -> dict[str, list[float]]:
    """Errors at the end of the time against the number of steps, on common Brownian paths.

    dx = x dt + x dw has the solution x_0 exp(w + t / 2); of the VP equation the finest path is
    taken for the truth.
    """
    fine = 16 * counts[-1]
    dw = torch.randn(chains, fine, dtype=torch.float64) / math.sqrt(fine)
    exact = torch.exp(dw.sum(1) + 0.5)
    rate = lambda t: 0.1 + 3.9 * t  # noqa: E731

    def walk(n: int, drift: Callable, noise: Callable) -> Tensor:
        x = torch.ones(chains, dtype=torch.float64)
        for k, kick in enumerate(dw.view(chains, n, -1).sum(2).T):
            x = x + drift(k / n, x) / n + noise(k / n, x) * kick
        return x

    multiplied = lambda n: walk(n, lambda t, x: x, lambda t, x: x)  # noqa: E731
    vp = lambda n: walk(n, lambda t, x: -0.5 * rate(t) * x, lambda t, x: math.sqrt(rate(t)))  # noqa: E731
    reference = vp(fine)
    return {
        "dx = x dt + x dw, path": [float((multiplied(n) - exact).abs().mean()) for n in counts],
        "dx = x dt + x dw, mean": [abs((1 + 1 / n) ** n - math.e) for n in counts],  # closed form
        "VP, path": [float((vp(n) - reference).abs().mean()) for n in counts],
    }


def orders(counts: Sequence[int], errors: dict[str, list[float]]) -> None:
    """Errors against the number of steps."""
    _, ax = plt.subplots()
    for j, (name, y) in enumerate(errors.items()):
        _line(ax, counts, y, j, name, marker=style.marker(j))
        power = 0.5 if j == 0 else 1.0
        ax.plot(counts, [0.8 * y[0] * (counts[0] / n) ** power for n in counts], ":",
                color=style.INK, lw=1)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="steps", ylabel="error at the end")
    ax.set_xticks(list(counts), [str(n) for n in counts])
    ax.minorticks_off()
    ax.legend(fontsize=8.5)
    plt.show()


def both_ways(
    law: GaussianMixture, schedule: Schedule, times: Sequence[float], reverse: Sequence[Tensor]
) -> None:
    """Density over time with forward and with reverse paths of a law on the line."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), sharey=True)
    t = torch.linspace(0.002, 1, 120, dtype=torch.float64)
    y = torch.linspace(-3, 3, 200, dtype=torch.float64)
    p = [law.noised(schedule.alpha(s), schedule.sigma(s)).log_prob(y[:, None]).exp() for s in t]
    x = law.sample(12).double()
    forward, step = [x[:, 0]], 1 / 400
    for k in range(400):
        f, g2 = schedule.sde((k + 0.5) * step)
        x = x * (1 + f * step) + math.sqrt(g2 * step) * torch.randn_like(x)
        forward.append(x[:, 0])
    back = torch.stack([r[:12, 0] for r in reverse])
    paths = ((torch.linspace(0, 1, 401), torch.stack(forward)), (times, back))
    for ax, (s, x), title in zip(axes, paths, ("forward", "reverse, exact score"), strict=True):
        ax.pcolormesh(t, y, torch.stack(p, 1) ** 0.6, cmap="Blues", vmin=0, rasterized=True)
        ax.plot(s, x, color=style.colour(1), ls="-", lw=0.7)
        ax.set(xlabel="time t (0 data, 1 noise)", ylim=(-3, 3))
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_title(title, fontsize=10)
    axes[0].set_ylabel("x")
    plt.show()


def score_error(
    denoiser: BaseDenoiser, exact: BaseDenoiser, mixture: GaussianMixture, t: float
) -> float:
    """Root mean square error of a score over that of the true one, at draws of p_t."""
    x = mixture.sample(8000)
    schedule = exact.schedule
    x_t = schedule.alpha(t) * x + schedule.sigma(t) * torch.randn_like(x)
    true = exact.score(x_t, t)
    with torch.no_grad():
        off = denoiser.score(x_t, t) - true
    return float((off.square().sum(1).mean() / true.square().sum(1).mean()).sqrt())


def _samples(
    ax, x: Tensor, span: float, left: bool, mixture: GaussianMixture | None = None
) -> None:
    if mixture is not None:
        line = torch.linspace(-span, span, 120, dtype=torch.float64)
        p = mixture.log_prob(torch.cartesian_prod(line, line)).exp().view(120, 120).T
        top = float(p.max())
        ax.contour(line, line, p, levels=[0.03 * top, 0.3 * top], colors=style.INK,
                   linewidths=0.8, zorder=3)  # fmt: skip
    ax.plot(*x.T, ".", ms=1.4, color=style.colour(0))
    _square(ax, span, left)
    ax.set_xticks([-3, 0, 3])  # at the end of the axis they meet the next panel's


def learned(
    times: Sequence[float], errors: Sequence[float], drawn: dict[str, Tensor], mixture
) -> None:
    """Error of the score by time, and samples."""
    fig, axes = plt.subplots(1, 1 + len(drawn), figsize=(9.2, 3.1), width_ratios=[1.2, 1, 1])
    _line(axes[0], times, errors, 0, marker="o")
    axes[0].set(xscale="log", yscale="log", xlabel="time t", ylabel="relative error of the score")
    for ax, (name, x) in zip(axes[1:], drawn.items(), strict=True):
        _samples(ax, x, 4.2, ax is axes[1], mixture)
        ax.set_title(name, fontsize=10)
    plt.show()


def clouds(
    panels: dict[str, Tensor], truths: Sequence[Callable], span: float, keep: bool = False
) -> None:
    """Samples over the contours of the density that they should have (log-densities).

    keep: put points that lie outside on the frame, so that they are seen.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(2.5 * len(panels), 2.9), sharey=True)
    line = torch.linspace(-span, span, 120, dtype=torch.float64)
    at = torch.cartesian_prod(line, line)
    for ax, (name, x), log_p in zip(axes, panels.items(), truths, strict=True):
        p = log_p(at).view(120, 120).T
        p = (p - p.max()).exp()
        ax.contour(line, line, p, levels=[0.03, 0.3], colors=style.colour(1), linewidths=1.2,
                   zorder=3)  # fmt: skip
        x = x[:2000]
        if keep:
            x = x * (0.97 * span / x.abs().amax(1, keepdim=True)).clamp(max=1)
        ax.plot(*x.T, ".", ms=1.4, color=style.colour(0))
        _square(ax, span, ax is axes[0])
        if keep:
            ax.spines[:].set_visible(True)
        tick = round(0.75 * span)  # inside, so that the labels of two panels do not meet
        ax.set(xticks=[-tick, 0, tick], yticks=[-tick, 0, tick])
        ax.set_title(re.sub(r"e\+0?(\d+)", r" × 10$^{\1}$", name), fontsize=9.5)
    plt.show()


def ordered(
    pictures: dict[float, Tensor],
    weights: Sequence[float],
    measured: dict[float, tuple[float, float, float]],
    columns: int = 7,
) -> None:
    """Blocks of digits, a row for each label, and three shares against the guidance weight.

    pictures: (n, 1, 8, 8) in the order 0 .. 9, 0 .. 9, ...
    """
    layout = [[f"{w:g}" for w in weights], ["shares"] * len(weights)]
    _, axes = plt.subplot_mosaic(layout, figsize=(8.2, 5.6), height_ratios=[1.25, 1])
    for w in weights:
        ax = axes[f"{w:g}"]
        x = pictures[w][: 10 * columns].view(columns, 10, 8, 8).clamp(-1, 1)
        framed = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-1)
        ax.imshow(framed.permute(1, 2, 0, 3).reshape(100, 10 * columns), cmap="gray_r", vmin=-1)
        ax.set_title(f"w = {w:g}", fontsize=10)
        ax.set_yticks([10 * k + 5 for k in range(10)], [str(k) for k in range(10)], fontsize=8)
        ax.set_xticks([])
        ax.spines[:].set(visible=True, color=style.FRAME)
    axes[f"{weights[0]:g}"].set_ylabel("asked for")
    ax = axes["shares"]
    for j, name in enumerate(("read as asked", "precision", "recall")):
        shares = [m[j] for m in measured.values()]
        _line(ax, list(measured), shares, j, name, marker=style.marker(j))
    ax.set(xlabel="guidance weight w", ylabel="share", ylim=(0, 1.05))
    ax.legend(fontsize=8.5, loc="lower left", bbox_to_anchor=(0.1, 0))
    plt.show()
