"""The plots of chapter 11. They draw what they are given; the chapter computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


# the series of a sampler: it keeps its look from figure to figure; 11.7 draws the first three of them
SAMPLERS = {
    "SDE, Euler-Maruyama": 0, "DDIM": 1, "DPM-Solver++(2M)": 2, "DDPM": 3, "Heun": 4,
    "ODE, Euler": 5, "DPM-Solver-2": -1, "λ = 0.5": -1,
}  # fmt: skip
INKED = {"DPM-Solver-2": {"marker": "x"}, "λ = 0.5": {"marker": "+", "ls": ":"}}


def _sampler(ax, x, y, name: str) -> None:
    """The curve of a sampler."""
    j = SAMPLERS[name]
    _line(ax, x, y, j, name, **{"marker": style.marker(j), "ms": 5, **INKED.get(name, {})})


def _square(ax, span: float, title: str = "") -> None:
    ax.set(xlim=(-span, span), ylim=(-span, span), aspect="equal", xlabel="x₁", ylabel="x₂")
    ax.set_title(title, fontsize=10)


def _grid(span: float, n: int) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-span, span, n)
    return line, torch.cartesian_prod(line, line)


def two_kinds(sde, ode, law: Callable) -> None:
    """Paths (STEPS + 1, POINTS) from t = 1 to 0 with and without fresh noise, and their ends."""
    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.0), width_ratios=(1.15, 1.15, 1))
    t = torch.linspace(1, 0, len(sde)).numpy()
    for j, (states, name) in enumerate(((sde, "fresh noise: the SDE"), (ode, "none: the ODE"))):
        ax = axes[j]
        ax.plot(t, states[:, :20], color=style.colour(j + 1), ls="-", lw=0.9, alpha=0.8)
        ax.set(xlabel="time t", ylabel="x", ylim=(-3.4, 3.4))
        ax.set_title(name, fontsize=10)
    x = torch.linspace(-3.2, 3.2, 300).numpy()
    for j, (states, name) in enumerate(((sde, "SDE"), (ode, "ODE"))):
        axes[2].hist(states[-1], 100, (-8, 8), density=True, histtype="step",
                     color=style.colour(j + 1), ls=style.dash(j), label=name)  # fmt: skip
    axes[2].plot(x, law(0.0, x)[0], color=style.colour(0), lw=2, ls="-", label="data")
    axes[2].set(xlabel="x", ylabel="density", xlim=(-3.2, 3.2))
    axes[2].set_title("where they end", fontsize=10)
    axes[2].legend(fontsize=8.5)
    plt.show()


def clouds(runs: dict[str, dict[float, Tensor]], log_p: Callable) -> None:
    """Rows of clouds at several times, over the exact density there: {name: {t: (N, 2)}}."""
    times = list(next(iter(runs.values())))
    fig, axes = plt.subplots(len(runs), len(times), figsize=(2.2 * len(times), 2.2 * len(runs)),
                             sharex=True, sharey=True)  # fmt: skip
    line, pixels = _grid(4.0, 60)
    for i, (row, (name, states)) in enumerate(zip(axes, runs.items(), strict=True)):
        for ax, t in zip(row, times, strict=True):
            p = log_p(t, pixels).exp().view(60, 60).T
            ax.pcolormesh(line, line, p**0.6, cmap="Blues", vmin=0, rasterized=True)
            ax.plot(*states[t][:400].T, ".", ms=1.6, color=style.colour(1), ls="none")
            _square(ax, 4.0, f"t = {t:g}" if i == 0 else "")
            ax.set(
                xlabel="x₁" if i == len(axes) - 1 else "",
                ylabel=f"{name}: x₂" if ax is row[0] else "",
            )
    plt.show()


def learned(log_p: Callable, model: Callable, samples: Tensor) -> None:
    """The truth, the learned flow's density, its samples."""
    fig, axes = plt.subplots(1, 3, figsize=(8.6, 2.9))
    for ax, f, n, title in (
        (axes[0], log_p, 160, "truth"),
        (axes[1], model, 48, "the learned flow"),
    ):
        line, pixels = _grid(4.2, n)
        p, edge = f(pixels).exp().view(n, n).T, 4.2 + (line[1] - line[0]).item() / 2
        ax.imshow(p**0.6, cmap="Blues", vmin=0, vmax=0.75, origin="lower",
                  extent=(-edge, edge, -edge, edge), interpolation="bilinear")  # fmt: skip
        _square(ax, 4.2, title)
    axes[2].plot(*samples.T, ".", ms=1.6, color=style.colour(1))
    _square(axes[2], 4.2, "its samples, 20 steps")
    plt.show()


def codes(x: Tensor, labels: Tensor, found: dict[str, Tensor]) -> None:
    """Data and its codes by three fields; a line joins each code to that of the first field."""
    _, axes = plt.subplots(2, 2, figsize=(6.6, 6.6))  # large enough for the short lines
    first = next(iter(found.values()))
    for ax, (name, z) in zip(axes.flat, {"data": x, **found}.items(), strict=True):
        for k in range(int(labels.max()) + 1):
            ax.plot(*z[labels == k].T, style.marker(k), ms=3, color=style.colour(k), alpha=0.8)
        if name != "data" and z is not first:
            ends = torch.stack([first, z, torch.full_like(z, torch.nan)], 1).flatten(0, 1)
            ax.plot(*ends.T, color="black", ls="-", lw=0.9, zorder=1)
        _square(ax, 4.2, name)
        if name != "data":
            ax.set(xlabel="code, first number", ylabel="second number")
    plt.show()


def orders(counts: Sequence[int], paths: dict[str, list], laws: dict[str, list]) -> None:
    """Errors against the number of steps: of paths in the plane, and of the law of Gaussian data."""
    fig, axes = plt.subplots(1, 2, figsize=(9.2, 4.0))
    titles = ("distance from the exact path", "error of mean and variance")
    for ax, series, title in zip(axes, (paths, laws), titles, strict=True):
        for name, y in series.items():
            _sampler(ax, counts, y, name)
        ax.set(xscale="log", yscale="log", xlabel="steps N", ylabel="error")
        ax.set_xticks(list(counts), [str(n) for n in counts])
        ax.set_title(title, fontsize=10)
    entries = [ax.get_legend_handles_labels() for ax in axes]
    names = {n: h for handles, labels in entries for h, n in zip(handles, labels, strict=True)}
    fig.legend(names.values(), names, loc="outside lower left", ncols=4, fontsize=9.5)
    for power, start in ((1, 1.2), (2, 0.35)):
        x = [counts[0], counts[-1]]
        y = [start, start * (counts[0] / counts[-1]) ** power]
        axes[0].plot(x, y, color=style.colour(-1), lw=0.8, ls=":")
        axes[0].text(x[1], y[1], f" 1/N{'²' if power == 2 else ''}", fontsize=10, va="center")
    plt.show()


def by_evaluations(counts: Sequence[int], curves: dict[str, dict[str, list]], floor: tuple[float, float]) -> None:  # fmt: skip
    """Distance from the data against evaluations, one panel for each time grid; floor is a band."""
    fig, axes = plt.subplots(1, len(curves), figsize=(9.2, 4.2), sharey=True)
    for ax, (grid, series) in zip(axes, curves.items(), strict=True):
        for name, y in series.items():
            _sampler(ax, counts, y, name)
        ax.axhspan(*floor, color=style.colour(-1), alpha=0.15, lw=0, label="two true samples")
        ax.set(xscale="log", yscale="log", xlabel="evaluations of the denoiser", ylim=(0.05, 6))
        ax.set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
        ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
        ax.minorticks_off()
        ax.set_title(f"steps {grid}", fontsize=10)
    axes[0].set_ylabel("sliced Wasserstein distance")
    names = axes[0].get_legend_handles_labels()
    fig.legend(*names, loc="outside lower left", ncols=4, fontsize=9.5)
    plt.show()


def images(rows: dict[str, Tensor], size: float = 0.62, low: float = -1.0) -> None:
    """Rows of images (N, 1, H, W) with a name each; dark is high."""
    n = max(len(x) for x in rows.values())
    fig, axes = plt.subplots(len(rows), 1, figsize=(size * n + 1.2, size * len(rows) + 0.2))
    for ax, (name, x) in zip(torch.as_tensor(range(len(rows))), rows.items(), strict=True):
        ax = axes[int(ax)] if len(rows) > 1 else axes
        side = x.shape[-1]
        framed = torch.nn.functional.pad(x[:, 0].cpu(), (1, 1, 1, 1), value=low)
        strip = framed.permute(1, 0, 2).reshape(side + 2, -1)
        ax.imshow(strip, cmap="gray_r", vmin=low, vmax=1, aspect="equal")
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for side in ax.spines.values():
            side.set_visible(False)
    plt.show()


def digits_by_steps(counts: Sequence[int], series: dict[str, list], floor: float) -> None:
    """A distance of generated digits against evaluations."""
    _, ax = plt.subplots(figsize=(style.WIDTH, 4.0))
    for name, y in series.items():
        _sampler(ax, counts, y, name)
    ax.axhline(floor, color=style.colour(-1), lw=0.8, ls=":", label="test digits")
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the network")
    ax.set_ylabel("distance from real digits")
    ax.set_xticks(list(counts), [str(n) for n in counts])
    ax.set_yticks([1, 3, 10, 30, 100, 300], ["1", "3", "10", "30", "100", "300"])
    ax.minorticks_off()
    ax.figure.legend(loc="outside lower left", ncols=2, fontsize=9)
    plt.show()


def drift(times: Sequence[float], series: dict[str, list]) -> None:
    """Standard deviations against time."""
    _, ax = plt.subplots()
    for j, (name, y) in enumerate(series.items()):
        _line(ax, times, y, j, name, marker=style.marker(j), ms=4)
    ax.set(xlabel="time t", ylabel="size of the cloud")
    ax.invert_xaxis()
    ax.legend(fontsize=9)
    plt.show()
