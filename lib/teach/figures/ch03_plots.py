"""The plots of chapter 3. They draw what they are given; the chapter computes it."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patheffects import withStroke

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def _points(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j as points."""
    look = {"color": style.colour(j), "marker": style.marker(j), "ls": "none", "label": label}
    ax.plot(x, y, **{**look, **more})


def _picture(ax, image, x: float, y: float, side: float) -> None:
    """One image, (64,), (1, H, W) or (3, H, W), framed, with its upper left corner at (x, y)."""
    image = torch.as_tensor(image).detach().float()
    where = {"extent": (x, x + side, y + side, y)}
    if image.numel() == 64:
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16, **where)  # ink on paper
    elif image.shape[0] == 1:
        ax.imshow(image[0], cmap="gray_r", vmin=0, vmax=1, **where)
    else:
        ax.imshow(image.permute(1, 2, 0).clamp(0, 1), **where)
    ax.add_patch(plt.Rectangle((x, y), side, side, fill=False, ec=style.FRAME, lw=0.6))


def diagram() -> None:
    """A variational autoencoder: values (solid), the gradient's way back (dashed), the two terms."""
    fig, ax = plt.subplots(figsize=(9, 4.1))
    ax.set(xlim=(-0.3, 9.9), ylim=(-0.75, 3.8))
    ax.axis("off")
    ax.add_patch(plt.Rectangle((4.75, 1.2), 5.15, 2.6, color=style.colour(0), alpha=0.1, lw=0))
    ax.text(7.3, 3.55, "generation: this half alone, z ~ N(0, I)", ha="center", fontsize=10)
    nodes = {
        "x": (0.3, 2, "image\nx"), "enc": (1.75, 2, "encoder"), "ms": (3.4, 2, "m(x)\ns(x)"),
        "eps": (3.4, 3.4, "noise ε"), "z": (5.5, 2, "z = m + s ε"), "dec": (7.4, 2, "decoder"),
        "px": (9.15, 2, "p(x | z)"),
        "kl": (3.4, 0.3, "cost of the code\nKL(q ‖ prior)"),
        "rec": (9.0, 0.3, "reconstruction\nlog p(x | z)"),
    }  # fmt: skip
    boxes = {}
    for name, (x, y, text) in nodes.items():
        term = name in ("kl", "rec")
        round_ = {"boxstyle": "round,pad=0.35", "fc": "white", "lw": 2 if term else 1.2}
        look = round_ | {"ec": style.colour(2) if term else "0.3"}
        word = ax.text(x, y, text, ha="center", va="center", bbox=look, color="black", zorder=3)
        boxes[name] = word.get_bbox_patch()
    fig.canvas.draw()  # now the boxes have their sizes
    boxes = {
        k: b.get_window_extent().transformed(ax.transData.inverted()) for k, b in boxes.items()
    }

    tip = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}

    def arrow(a, b, back: bool = False) -> None:
        """From edge to edge, level or upright; the way back runs beside the way there."""
        (x0, y0, _), (x1, y1, _), p, q = nodes[a], nodes[b], boxes[a], boxes[b]
        beside, gap = (-0.12 if back else 0.12), 0.04
        if min(p.y1, q.y1) > max(p.y0, q.y0):  # side by side
            ends = (p.x1 + gap, q.x0 - gap) if x1 > x0 else (p.x0 - gap, q.x1 + gap)
            tail, head = ((x, y0 + beside) for x in ends)
        elif min(p.x1, q.x1) > max(p.x0, q.x0):
            ends = (p.y1 + gap, q.y0 - gap) if y1 > y0 else (p.y0 - gap, q.y1 + gap)
            tail, head = (((x0 if back else x1) + 2 * beside, y) for y in ends)
        else:  # the noise, from above and the left
            tail, head = (p.x1 + gap, y0 - 0.1), (x1, q.y1 + gap)
        look = {"color": style.colour(1), "ls": "--", "lw": 2} if back else {"color": "0.4"}
        ax.annotate("", head, tail, arrowprops=tip | look, zorder=2)

    there = ("x enc", "enc ms", "ms z", "eps z", "z dec", "dec px", "px rec", "ms kl")
    for pair in there:
        arrow(*pair.split())
    # the image itself, which the reconstruction is held against, goes below
    (x, *_), (end, *_), low = nodes["x"], nodes["rec"], -0.6
    ax.plot([x, x, end], [boxes["x"].y0 - 0.04, low, low], "-", color="0.4", lw=1)
    ax.annotate(
        "", (end, boxes["rec"].y0 - 0.04), (end, low), arrowprops=tip | {"color": "0.4"}, zorder=2
    )
    for pair in ("rec px", "px dec", "dec z", "z ms", "ms enc", "kl ms"):
        arrow(*pair.split(), back=True)
    ax.text(4.68, 1.4, "gradient", color=style.colour(1), ha="right")  # left of the half
    ax.text(4.85, 2.95, "no gradient", fontsize=9, va="center")  # beside the noise's arrow
    plt.show()


def rows(images: dict, size: float = 0.62, heads: dict | None = None) -> None:
    """Rows of images, each with its name at the left; `heads` maps a column to a heading above.

    All on one pair of axes, as a layout of many takes seconds.
    """
    n, side = max(len(row) for row in images.values()), 0.86
    _, ax = plt.subplots(figsize=(size * n + 1.4, size * len(images) + 0.1))
    for y, (name, row) in enumerate(images.items()):
        ax.text(-0.15, y + side / 2, name, ha="right", va="center", fontsize=12)
        for x, image in enumerate(row):
            if image.abs().sum() > 0:  # an image of zeros leaves a gap
                _picture(ax, image, x, y, side)
    for x, text in (heads or {}).items():
        ax.text(x + side / 2, -0.15, text, ha="center", va="bottom", fontsize=12)
    ax.set(xlim=(-0.02, n - 0.98 + side), ylim=(len(images) - 0.98 + side, -0.02))
    ax.axis("off")
    plt.show()


def bent(z, f, x0, sigma, posterior, q, gap: float) -> None:
    """A curved map with one observation, and the posterior beside q, `gap` nats apart."""
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1))
    _line(left, z, f(z), 0, "f(z)")
    left.fill_between(z, f(z) - sigma, f(z) + sigma, color=style.colour(0), alpha=0.2, lw=0)
    left.axhline(x0, color=style.colour(-1), ls="--", lw=1.2, label="observed x")
    left.set(xlim=(-3, 3), ylim=(-3.2, 4.6), xlabel="latent z", ylabel="x")
    left.legend(loc="upper left")
    _line(right, z, posterior, 0, "posterior p(z | x)")
    _line(right, z, q, 1, "q(z | x)")
    right.set(xlim=(-1, 3), ylim=(0, 1.45 * float(posterior.max())))
    right.set(xlabel="latent z", ylabel="density", title=f"gap: {gap:.3f} nats")
    right.legend(loc="upper right")
    plt.show()


def variance(dims, measured, predicted) -> None:
    """Ratio of the variances of two gradient estimators against the dimension."""
    _, ax = plt.subplots()
    _points(ax, dims, measured, 0, "measured, 20,000 gradients")
    _line(ax, dims, predicted, 1, "equation (3.9)", ls="-")
    end = [predicted[-1] * (d / dims[-1]) ** 2 for d in dims]
    _line(ax, dims[2:], end[2:], -1, "slope 2", ls="--", lw=1)
    ax.set(xscale="log", yscale="log", xlabel="dimension D", xticks=dims)
    ax.set(xticklabels=dims, ylabel="variance: score / reparameterised")
    ax.minorticks_off()
    ax.legend()
    plt.show()


def black_pixel(scale, plain, floor: float, n: int) -> None:
    """What one empty pixel earns as its Gaussian narrows; `plain` is its log-density at 0."""
    _, ax = plt.subplots()
    stopped = -scale.clamp_min(floor).log() - 0.5 * math.log(2 * math.pi)
    square = 1 / (12 * n**2)  # mean of (u / n - 1 / 2 n)^2
    spread = -scale.log() - 0.5 * math.log(2 * math.pi) - square / (2 * scale**2)
    _line(ax, scale, plain, 0, "as the number 0")
    _line(ax, scale, stopped, 1, f"as the number 0, floor {floor:g}")
    _line(ax, scale, spread, 2, "dequantised: averaged over its cell", ls="-", lw=2.4)
    ax.axhline(math.log(n), color=style.colour(-1), ls=":", lw=1.2)
    ax.annotate(f"log {n}", (0.35, math.log(n) + 0.4))
    ax.set(xscale="log", xlabel="standard deviation s", ylabel="nats from this pixel")
    ax.set(ylim=(-3, 12.5), xlim=(1e-4, 1))  # room for the legend
    ax.legend(loc="upper right", fontsize=9)
    plt.show()


def ring(data, samples, codes) -> None:
    """Data, samples and codes of a two-dimensional VAE; colours and numbers say which mode."""
    _, axes = plt.subplots(1, 3, figsize=(9, 3.1))
    mode = torch.atan2(data[:, 1], data[:, 0])
    look = {"s": 4, "lw": 0}
    axes[0].scatter(*data.T, c=mode, cmap=style.CYCLIC, **look)
    axes[1].scatter(*samples.T, color=style.colour(0), alpha=0.5, **look)
    axes[2].scatter(*codes.T, c=mode, cmap=style.CYCLIC, **look)
    for ax, title in zip(axes, ("data", "samples", "codes of the data"), strict=True):
        ax.set(title=title, aspect="equal")
    sector = (mode / (math.pi / 4)).round().long() % 8
    edge = withStroke(linewidth=2.5, foreground="white")  # keeps a number off its points
    word = {"ha": "center", "va": "center", "fontsize": 9, "path_effects": [edge]}
    for k in range(8):
        for ax, points in ((axes[0], data), (axes[2], codes)):
            ax.text(*points[sector == k].mean(0).tolist(), str(k + 1), **word)
    lim = 1.15 * float(data.abs().max())
    for ax in axes[:2]:
        ax.set(xlim=(-lim, lim), ylim=(-lim, lim), xlabel="x₁", ylabel="x₂")
    axes[2].set(xlabel="z₁", ylabel="z₂")
    plt.show()


def curves(runs: dict) -> None:
    """Training loss and validation loss against updates, in bits per dimension."""
    _, axes = plt.subplots(1, len(runs), figsize=(8.4, 3.1), sharey=True)
    for ax, (name, (steps, loss, at, valid)) in zip(axes, runs.items(), strict=True):
        loss = np.convolve(loss, np.ones(20) / 20, "valid")
        _line(ax, steps[19:], loss, 0, "minibatches (mean of 20)")
        _line(ax, at, valid, 1, "validation part")
        _points(ax, [at[int(np.argmin(valid))]], [min(valid)], 1, "best", ls="none", ms=7)
        ax.set(title=name, xlabel="updates", ylim=(1.5, 2.7))
    axes[0].set_ylabel("−bound, bits per dimension")
    axes[0].legend(fontsize=9)
    plt.show()


def manifold(decoded, codes, labels) -> None:
    """Decoded grid of a plane, (n, n, 8, 8) with the first axis downwards, and the data's codes."""
    _, (left, right) = plt.subplots(1, 2, figsize=(8.6, 4.2))
    n = len(decoded)
    framed = torch.nn.functional.pad(decoded, (1, 1, 1, 1))  # white between the tiles
    sheet = framed.permute(0, 2, 1, 3).reshape(10 * n, 10 * n)
    left.imshow(sheet, cmap="gray_r", vmin=0, vmax=16)
    left.set(xticks=[], yticks=[], xlabel="z₁, prior quantiles 4% to 96%", ylabel="z₂, the same")
    left.spines[:].set_visible(False)
    left.set_title("decoded plane")
    for digit in range(10):
        j = labels == digit
        right.scatter(*codes[j].T, s=42, color=style.colour(digit), marker=f"${digit}$", lw=0.3)
    # to the middle of the outermost tiles
    edge = float(torch.special.ndtri(torch.tensor(1 - 0.5 / n)))
    square = plt.Rectangle((-edge, -edge), 2 * edge, 2 * edge, fill=False, color="0.4", ls="--")
    right.add_patch(square)
    right.set(
        xlabel="z₁", ylabel="z₂", title="codes; dashed: the plane at the left", aspect="equal"
    )
    plt.show()


def units(kl: dict) -> None:
    """KL of each latent dimension, sorted, for several models."""
    _, ax = plt.subplots()
    for j, (name, values) in enumerate(kl.items()):
        values = values.sort(descending=True).values
        k = range(1, len(values) + 1)
        look = {"marker": style.marker(j), "ms": 9 - 2 * j, "mfc": "none"}  # none covers another
        _line(ax, k, values, j, name, clip_on=False, **look)
    ax.set(xlabel="latent dimension, sorted", ylabel="mean KL (nats)", ylim=(-0.08, None))
    ax.set_xticks([1, 5, 10, 15, 20])
    ax.legend()
    plt.show()


def principal(values, plane, labels) -> None:
    """Variances along principal components, and the first two, marked by class."""
    _, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6))
    k = range(1, len(values) + 1)
    _line(left, k, values, 0, marker="o", ms=4)
    left.axhline(1, color=style.colour(-1), ls="--", lw=1, label="prior")
    left.set(xlabel="principal component", ylabel="variance of the codes", ylim=(0, None))
    left.set_xticks([1, 5, 10, 15, 20])
    left.legend()
    for digit in range(10):
        j = labels == digit
        right.scatter(*plane[j].T, s=42, color=style.colour(digit), marker=f"${digit}$", lw=0.3)
    right.set(xlabel="first component", ylabel="second component")
    plt.show()
