"""The plots of chapter 4. They draw what they are given; the chapter computes it."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Ellipse

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def chessboards(maps: dict, side: int = 8, half: float = 2.0) -> None:
    """A board of `side` x `side` fields through each map, (N, 2) -> (N, 2)."""
    _, axes = plt.subplots(1, len(maps), figsize=(3.1 * len(maps), 3.1))
    edge = torch.linspace(0, 1, 25)
    one = torch.ones_like(edge)
    ring = [(edge, 0 * one), (one, edge), (1 - edge, one), (0 * one, 1 - edge)]
    walk = torch.cat([torch.stack(pair, 1) for pair in ring])
    step = 2 * half / side
    for ax, (name, f) in zip(axes, maps.items(), strict=True):
        for i in range(side):
            for j in range(side):
                field = f(step * (walk + torch.tensor([i, j])) - half)
                dark = style.colour(0) if (i + j) % 2 else "#dfe9f3"
                # A dash of the style's cycle on a line of no width: matplotlib 3.10 refuses to draw it.
                ax.fill(field[:, 0], field[:, 1], color=dark, lw=0, ls="-")
        ax.set(title=name, aspect="equal", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))
        ax.set(xlabel="first coordinate", ylabel="second coordinate" if ax is axes[0] else "")
    plt.show()


def slices(s, t, cuts: list[float]) -> None:
    """The density of one affine coupling layer, and its cuts along the second coordinate."""
    a, b = torch.linspace(-2.8, 2.8, 201), torch.linspace(-3, 4.2, 241)
    conditional = lambda a, b: torch.distributions.Normal(t(a), s(a).exp()).log_prob(b).exp()
    joint = (-0.5 * a**2).exp()[:, None] / math.sqrt(2 * math.pi) * conditional(a[:, None], b)
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    left.contourf(a, b, joint.T, levels=9, cmap="Blues")
    left.set(xlabel="steering number $x_a$", ylabel="steered number $x_b$")
    for j, cut in enumerate(cuts):
        at = torch.tensor(cut)
        left.axvline(cut, color=style.colour(j), ls=style.dash(j))
        _line(right, b, conditional(at, b), j, f"$x_a$ = ${cut:g}$")
    right.set(xlabel="$x_b$", ylabel="density of $x_b$ given $x_a$", ylim=(0, None))
    right.legend()
    plt.show()


def sparsity(jacobians: dict) -> None:
    """The size of each entry of some square matrices; exact zeros stay white, with a dot."""
    _, axes = plt.subplots(1, len(jacobians), figsize=(2.1 * len(jacobians), 2.4))
    for ax, (name, J) in zip(axes, jacobians.items(), strict=True):
        size = np.abs(torch.as_tensor(J).detach().numpy())
        shown = np.ma.masked_where(size == 0, np.log10(np.where(size == 0, 1, size)))
        ax.imshow(shown, cmap="Blues", vmin=-3, vmax=1)
        rows, columns = np.nonzero(size == 0)
        ax.plot(columns, rows, ".", color="#999999", ms=2)
        half = len(J) / 2 - 0.5
        ax.axhline(half, color=style.INK, lw=0.8)
        ax.axvline(half, color=style.INK, lw=0.8)
        ax.set(title=name, xticks=[], yticks=[], xlabel="input: a | b")
    axes[0].set_ylabel("output: b | a")
    plt.show()


def _tiles(ax, values, shade, words=None) -> None:
    """A small grid of tiles; `shade` gives 0 to 1, `words` what stands in each."""
    ax.imshow(shade, cmap="Blues", vmin=0, vmax=1.25)
    H, W = np.shape(shade)
    for edge in np.arange(-0.5, max(H, W)):
        ax.axhline(edge, color="white", lw=1)
        ax.axvline(edge, color="white", lw=1)
    if words is not None:
        for (i, j), value in np.ndenumerate(np.asarray(values)):
            ax.text(j, i, f"{value:g}", ha="center", va="center", fontsize=8)
    ax.set(xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set_visible(False)


@torch.no_grad()
def moons(truth, flow, points) -> None:
    """True density, the flow's, its draws, and where it sends the data; `points` (N, 2)."""
    x, y = torch.linspace(-3.7, 3.7, 171), torch.linspace(-2.8, 3.2, 141)
    grid = torch.cartesian_prod(x, y)
    axes = plt.subplots(2, 2, figsize=(7.6, 6.2))[1].ravel()
    densities = [m.log_prob(grid).exp().view(len(x), len(y)).T for m in (truth, flow)]
    top = densities[0].max()
    for ax, name, p in zip(axes, ("truth", "flow"), densities, strict=False):
        ax.pcolormesh(x, y, p, vmin=0, vmax=top, cmap="Blues", rasterized=True)
        ax.set(title=name, xlabel="$x_1$", ylabel="$x_2$")
    drawn = flow.sample(len(points))
    axes[2].plot(*drawn.T, ".", ms=1.5, color=style.colour(0))
    axes[2].set(title="draws", xlabel="$x_1$", ylabel="$x_2$", xlim=(-3.7, 3.7), ylim=(-2.8, 3.2))
    z = flow.transform.to_base(points)[0]
    upper = _upper(points)
    for j, part in enumerate((upper, ~upper)):
        look = {"ls": "none", "marker": ("." if j else "x"), "color": style.colour(j)}
        name = "lower moon" if j else "upper moon"
        axes[3].plot(*z[part].T, ms=2, mew=0.5, label=name, **look)
    axes[3].set(title="data sent to the base", xlabel="$z_1$", ylabel="$z_2$")
    axes[3].set(xlim=(-6, 6), ylim=(-4, 6.5))
    axes[3].legend(markerscale=3, loc="upper right", frameon=True, framealpha=1.0)
    for ax in axes:
        ax.set_aspect("equal")
    plt.show()


def _upper(points):
    """Which moon is nearer: the upper arc, (2 cos t - 1, 2 sin t - 0.2), or the lower one."""

    def distance(x):
        angle = torch.atan2(x[:, 1] + 0.2, x[:, 0] + 1).clamp(0, math.pi)
        return torch.hypot(x[:, 0] - 2 * angle.cos() + 1, x[:, 1] - 2 * angle.sin() + 0.2)

    return distance(points) < distance(points.new_tensor([0.0, 0.6]) - points)


def curves(runs: dict, unit: str = "bits per dimension") -> None:
    """Training and validation loss of two runs, (steps, loss, steps, valid) each."""
    fig, axes = plt.subplots(1, len(runs), figsize=(8.4, 3.1), sharey=True)
    low = min(min(r[1] + r[3]) for r in runs.values())
    for ax, (name, (steps, loss, seen, valid)) in zip(axes, runs.items(), strict=True):
        window = np.ones(15) / 15  # a running mean over 15 updates
        _line(ax, steps[14:], np.convolve(loss, window, "valid"), 0, "training, mean of 15")
        _line(ax, seen, valid, 1, "validation")
        best = int(np.argmin(valid))
        ax.plot(seen[best], valid[best], "s", color=style.INK, ms=7, label="best: kept")
        ax.set(title=name, xlabel="updates", ylim=(low - 0.1, low + 1.5))
    axes[0].set_ylabel(unit)
    axes[-1].legend(loc="upper right")
    plt.show()


def rows(images: dict, size: float = 0.62) -> None:
    """Rows of 8 x 8 images with values in [0, 1], (n, 64) each, with a name at the left."""
    n = max(len(row) for row in images.values())
    figsize = (size * n + 1.4, size * len(images) + 0.1)
    _, axes = plt.subplots(len(images), n, figsize=figsize, squeeze=False)
    for line, (name, row) in zip(axes, images.items(), strict=True):
        for k, ax in enumerate(line):
            picture = torch.as_tensor(row[k]).detach().float().reshape(8, 8)
            ax.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
            style.frame(ax)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9.5)
    plt.show()


def venn() -> None:
    """Invertible maps, maps with a triangular Jacobian, and the layers in their overlap."""
    fig, axes = plt.subplot_mosaic(
        [["venn", "full", "coupling", "each"]], figsize=(10, 3.0), width_ratios=[2.3, 1, 1, 1]
    )
    ax = axes["venn"]
    for j, (x, name, at) in enumerate(
        [(-0.75, "invertible", (-2.3, 1.45)), (0.75, "triangular Jacobian", (0.9, 1.45))]
    ):
        look = {"edgecolor": style.colour(j), "ls": style.dash(j), "lw": 1.6}
        ax.add_patch(Ellipse((x, 0), 3.6, 2.6, facecolor=style.colour(j) + "18", **look))
        ax.text(*at, name, color=style.colour(j), fontsize=11.5)
    ax.text(-1.75, 0, "rotations", ha="center", va="center", fontsize=11)
    ax.text(1.8, 0, "$z_i^2$ in each\ncoordinate", ha="center", va="center", fontsize=11)
    for y, width, height in ((0, 2.0, 1.9), (-0.15, 1.4, 0.95)):
        look = {"facecolor": "none", "edgecolor": style.INK, "lw": 1}
        ax.add_patch(Ellipse((0, y), width, height, **look))
    ax.text(0, 0.5, "autoregressive", ha="center", va="center", fontsize=9.5)
    ax.text(0, -0.15, "coupling", ha="center", va="center", fontsize=11)
    ax.set(xlim=(-2.7, 2.8), ylim=(-1.5, 1.75))
    ax.axis("off")
    full = np.tril(np.ones((8, 8)))
    coupling = np.eye(8)
    coupling[4:, :4] = 1
    patterns = {"full": full, "coupling": coupling, "each": np.eye(8)}
    names = {"full": "autoregressive", "coupling": "coupling", "each": "each number alone"}
    for key, pattern in patterns.items():
        _tiles(axes[key], pattern, 0.9 * pattern + 0.05)
        axes[key].set_title(names[key], fontsize=10)
        axes[key].set(xlabel="input", ylabel="output" if key == "full" else "")
    plt.show()


def stuck(data, drawn) -> None:
    """Data and the draws of a flow without exchange of roles, on the same axes."""
    _, axes = plt.subplots(1, 2, figsize=(7.4, 3.0), sharex=True, sharey=True)
    for ax, name, points in zip(axes, ("data", "draws"), (data, drawn), strict=True):
        ax.plot(*torch.as_tensor(points).T, ".", ms=2, color=style.colour(0))
        ax.set(title=name, xlabel="$x_1$", xlim=(-4, 4), ylim=(-4, 4), xticks=[-3, 0, 3])
    axes[0].set_ylabel("$x_2$")
    plt.show()
