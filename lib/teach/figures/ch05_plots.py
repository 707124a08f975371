"""The plots of chapter 5. They draw what they are given; the chapter computes it."""

from __future__ import annotations

import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def _rows(images: dict[str, Tensor], size: float = 0.62, **look):
    """Rows of 8 x 8 images with values in [0, 1], each row with its name at the left."""
    n = max(len(row) for row in images.values())
    figure, axes = plt.subplots(
        len(images), n, figsize=(size * n + 1.4, size * len(images) + 0.1), squeeze=False
    )
    for line, (name, row) in zip(axes, images.items(), strict=True):
        for ax, image in zip(line, row, strict=False):
            own = look.get(name.split()[0], {"cmap": "gray_r", "vmin": 0, "vmax": 1})
            ax.imshow(image.detach().reshape(8, 8), **own)
        for ax in line:
            style.frame(ax)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9.5)
    return figure, axes


def rows(images: dict[str, Tensor]) -> None:
    """Rows of 8 x 8 images with values in [0, 1], each row with its name at the left."""
    _rows(images)
    plt.show()


def next_pixel(images: Tensor, predicted: Tensor, surprise: Tensor) -> None:
    """Digits, linear predictions of each pixel from the earlier ones, and standardised errors."""
    lines = {"digit": images, "predicted": predicted, "error": surprise}
    figure, axes = _rows(lines, 1.15, error={"cmap": "RdBu", "vmin": -3, "vmax": 3})
    figure.colorbar(axes[-1, 0].images[0], ax=axes[-1].tolist(), label="std. dev.")
    plt.show()


def there_and_back(x: Tensor, z: Tensor, grid: Tensor, mean: Tensor, std: Tensor) -> None:
    """Two coordinates of an autoregressive model, and the noise that they came from."""
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6))
    hue = torch.atan2(z[:, 1], z[:, 0])
    look = dict(c=hue, cmap=style.CYCLIC, s=5, lw=0)
    left.scatter(*x.T, **look)
    _line(left, grid, mean, -1, "mean of x₂ given x₁", ls="-", lw=1.4)
    left.fill_between(grid, mean - std, mean + std, color=style.INK, alpha=0.12, lw=0,
                      label="± 1 standard deviation")  # fmt: skip
    left.set(xlim=(-2.6, 3.2), ylim=(-2.8, 2.8), xlabel="x₁", ylabel="x₂", title="data x")
    left.legend(loc="lower right", fontsize=9)
    right.scatter(*z.T, **look)
    right.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), xlabel="z₁", ylabel="z₂", title="noise z")
    right.set_aspect("equal")
    plt.show()


def patterns(jacobians: dict[str, Tensor], order: list[int]) -> None:
    """Magnitudes of Jacobian entries; exact zeros are white, with a dot."""
    _, axes = plt.subplots(1, len(jacobians), figsize=(9.2, 2.7))
    for ax, (name, J) in zip(axes, jacobians.items(), strict=True):
        names = [i + 1 for i in (order if "sorted" in name else range(len(J)))]
        size = J.abs() / J.abs().max()
        shown = np.where(J != 0, 0.25 + 0.75 * size, np.nan)
        ax.imshow(shown, cmap="Blues", vmin=0, vmax=1)
        ax.plot(*(J == 0).nonzero().T.flip(0), ".", color="#999999", ms=2)
        ticks = range(len(J))
        ax.set(xticks=ticks, yticks=ticks, xticklabels=names, yticklabels=names)
        ax.set(title=name, xlabel="input j")
        ax.title.set_fontsize(9.5)
    axes[0].set_ylabel("output i")
    plt.show()


def inverse_times(layer, dims: tuple[int, ...], width: int, batch: int = 1024, repeat: int = 3):
    """Milliseconds of three operations of `layer(dim, width, 2)`: the best of `repeat` runs each."""
    names = ("density", "inverse, each unit once", "inverse, D passes")
    times: dict[str, list[float]] = {name: [] for name in names}
    for dim in dims:
        model, z = layer(dim, width, 2), torch.randn(batch, dim)
        with torch.no_grad():
            for name, f in zip(
                names, (model.to_base, model.from_base, model.from_base_naive), strict=True
            ):
                best = math.inf
                for _ in range(repeat):
                    start = time.perf_counter()
                    f(z)
                    best = min(best, time.perf_counter() - start)
                times[name].append(1000 * best)
    return dims, times


def times(dims: tuple[int, ...], measured: dict[str, list[float]]) -> None:
    """Time against dimension, and how many density passes each operation costs at the end."""
    _, ax = plt.subplots()
    one = measured["density"][-1]
    for j, (name, values) in enumerate(measured.items()):
        _line(ax, dims, values, j, name, marker=style.marker(j), ms=5)
        ax.annotate(
            f"{values[-1] / one:.0f} ×",
            (dims[-1], values[-1]),
            xytext=(7, -3),
            textcoords="offset points",
        )
    ax.set(xscale="log", yscale="log", xlabel="dimension D", ylabel="ms for 1,024 examples")
    ax.set_yticks([0.5, 1, 2, 5, 10, 20, 50, 100], ["0.5", "1", "2", "5", "10", "20", "50", "100"])
    ax.set_xticks(dims, dims)
    ax.minorticks_off()
    ax.set_xlim(dims[0] * 0.9, dims[-1] * 1.35)
    ax.legend()
    plt.show()


def twins() -> None:
    """Who is computed from whom, in three dimensions: MAF at the left, IAF at the right."""
    _, axes = plt.subplots(1, 2, figsize=(8.4, 3.3))
    says = {
        "MAF": "sample: $x_1$, then $x_2$, then $x_3$\ndensity: all $z_i$ at once",
        "IAF": "sample: all $x_i$ at once\ndensity: $z_1$, then $z_2$, then $z_3$",
    }
    for ax, (name, words) in zip(axes, says.items(), strict=True):
        at_once, source = name == "IAF", 0 if name == "MAF" else 1
        for i in range(3):
            for row, letter in enumerate("xz"):
                face = style.colour(2 * (1 - row)) + "30" if row == 0 else "white"
                look = {"boxstyle": "circle,pad=0.35", "fc": face, "ec": style.INK}
                ax.text(i, row, f"${letter}_{i + 1}$", ha="center", va="center", bbox=look)
            step = 1 if at_once else i + 1
            ax.text(i, -0.47, f"step {step}", fontsize=9, ha="center")
            arrow = {"arrowstyle": "-|>", "shrinkA": 15, "shrinkB": 15, "lw": 1.4}
            ax.annotate("", (i, 0), (i, 1), arrowprops={**arrow, "color": style.INK})
            for j in range(i):  # what mean and scale of x_i are computed from
                bend = f"arc3,rad={0.25 * (i - j - 1) + 0.02}" if source == 0 else "arc3"
                more = {"color": style.colour(1), "ls": "--", "connectionstyle": bend}
                ax.annotate("", (i, 0), (j, source), arrowprops={**arrow, **more})
        ax.set(xlim=(-0.5, 2.5), ylim=(-1.25, 1.35), title=name)
        ax.text(1, -0.98, words, ha="center", va="center", fontsize=10)
        ax.axis("off")
    plt.show()


def densities(models: dict, points: Tensor | None, xlim, ylim, n: int = 160) -> None:
    """exp(log p) of 2-D models on a grid; a model is a Flow or a log-density (B, 2) -> (B,)."""
    _, axes = plt.subplots(1, len(models), figsize=(3.05 * len(models), 2.9), sharey=True)
    across, up = torch.linspace(*xlim, n), torch.linspace(*ylim, n)
    grid = torch.cartesian_prod(across, up)
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        with torch.no_grad():
            log_p = getattr(model, "log_prob", model)(grid)
        ax.imshow(
            log_p.exp().view(n, n).T,
            origin="lower",
            extent=(*xlim, *ylim),
            aspect="auto",
            cmap="Blues",
        )
        if points is not None:
            ax.scatter(*points.T, s=3, lw=0, color=style.colour(1), alpha=0.7)
        ax.set(title=name, xlabel="x₁", xlim=xlim, ylim=ylim)
    axes[0].set_ylabel("x₂")
    plt.show()


def splines(x: Tensor, curves: dict, z_limit: float = 3.3) -> None:
    """Elementwise maps with their knots, and the densities that they make of a standard normal.

    curves: name -> (y, log dy/dx, x of the knots, y of the knots).
    """
    _, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4))
    for j, (name, (y, log_slope, at, to)) in enumerate(curves.items()):
        _line(left, x, y, j, name)
        left.plot(at, to, ls="none", marker=style.marker(j), ms=4, color=style.colour(j))
        log_p = -0.5 * y**2 - 0.5 * math.log(2 * math.pi) + log_slope
        _line(right, x, log_p.exp(), j, name)
    left.set(xlabel="x", ylabel="z", xlim=(-z_limit, z_limit), ylim=(-z_limit, z_limit))
    right.set(xlabel="x", ylabel="density of x", xlim=(-z_limit, z_limit), ylim=(0, None))
    left.legend(fontsize=9)
    plt.show()


def overfitting(runs: dict) -> None:
    """Training and validation loss against updates, in bits per dimension, one panel for each run."""
    _, axes = plt.subplots(1, len(runs), figsize=(8.4, 3.1), sharey=True)
    for ax, (name, (steps, loss, at, valid)) in zip(axes, runs.items(), strict=True):
        smooth = np.convolve(loss, np.ones(10) / 10, "valid")
        _line(ax, steps[9:], smooth, 0, "minibatches (mean of 10)")
        _line(ax, at, valid, 1, "validation part")
        k = int(np.argmin(valid))
        ax.plot(at[k], valid[k], ls="none", marker="s", ms=7, color=style.colour(1), label="kept")
        ax.set(title=name, xlabel="updates", ylim=(1.6, 3.5))
    axes[0].set_ylabel("bits per dimension")
    axes[0].legend(fontsize=9)
    plt.show()


DASHES = (":", "--", "-")


def posteriors(side: Tensor, cases: list[dict[str, Tensor]], x: Tensor) -> None:
    """Exact posteriors over a plane (shaded) and two approximations (contours).

    side: (n,) the axis of the grid; each case: name -> density (n, n), first index z1; x: (K, 2).
    """
    fig, axes = plt.subplots(1, len(cases), figsize=(9, 3.5))
    for case, at, ax in zip(cases, x, axes, strict=True):
        exact = case["exact"]
        ax.pcolormesh(side, side, exact.T, cmap="Blues", shading="gouraud", rasterized=True)
        for j, density in enumerate(case.values()):
            mass = density.flatten().sort(descending=True).values
            share = mass.cumsum(0) / mass.sum()
            levels = [float(mass[int((share < s).sum())]) for s in (0.9, 0.5)]
            look = {"colors": style.colour(j) if j else style.INK, "linestyles": DASHES[j]}
            ax.contour(side, side, density.T, levels=levels, linewidths=1.4 if j else 1.0, **look)
        inside = (sum(d / d.sum() for d in case.values()) > 2e-6).nonzero()
        low, high = side[inside.amin(0)], side[inside.amax(0)]
        half, middle = float((high - low).max()) / 2, (low + high) / 2
        ax.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
        ax.set(aspect="equal", xlabel="z₁", title=f"x = (${at[0]:.1f}$, ${at[1]:.1f}$)")
    axes[0].set_ylabel("z₂")
    for j, name in enumerate(cases[0]):
        colour, label = style.colour(j) if j else style.INK, f"{name} q" if j else name
        axes[-1].plot([], [], color=colour, ls=DASHES[j], label=label)
    fig.legend(loc="outside lower center", ncols=3, fontsize=9.5)
    plt.show()
