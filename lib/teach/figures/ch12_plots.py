"""The plots of chapter 12. They draw what they are given; the chapter computes it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def _picture(ax, x: Tensor, title: str = "") -> None:
    """(3, H, W) in [0, 1], or (H, W)."""
    x = x.detach().cpu()
    if x.ndim == 3:
        ax.imshow(x.clamp(0, 1).permute(1, 2, 0).double().numpy(), interpolation="nearest")
    else:
        ax.imshow(x.numpy(), cmap="gray", interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9.5)
    for side in ax.spines.values():
        side.set_visible(False)


def strip(pictures: dict[str, Tensor], size: float = 1.5) -> None:
    """Named pictures (1, 3, H, W) or (3, H, W) side by side."""
    _, axes = plt.subplots(1, len(pictures), figsize=(size * len(pictures), size + 0.35))
    for ax, (name, x) in zip(axes, pictures.items(), strict=True):
        _picture(ax, x[0] if x.ndim == 4 else x, name)
    plt.show()


def rows(pictures: dict[str, Tensor], size: float = 0.72, titles: Sequence[str] = ()) -> None:
    """Rows of pictures (N, 3, H, W) in [0, 1], with a name each."""
    n = max(len(x) for x in pictures.values())
    height = size * len(pictures) + 0.25 + 0.14 * max((t.count("\n") for t in titles), default=0)
    fig, axes = plt.subplots(len(pictures), n, figsize=(size * n + 1.6, height), squeeze=False)
    for line, (name, x) in zip(axes, pictures.items(), strict=True):
        for ax in line:
            ax.set_axis_off()
        for ax, one in zip(line, x, strict=False):
            ax.set_axis_on()
            _picture(ax, one)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=8.5)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    plt.show()


def what_a_bit_buys(quantisers, spectrum: Tensor, level: float, curve, trained: Tensor) -> None:
    """quantisers (n, 3): log2 K, entropy, distortion; curve: bits and distortion; trained (m, 2)."""
    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.2))
    fig.get_layout_engine().set(wspace=0.08)
    bits = np.linspace(0, 4.2, 50)
    _line(axes[0], bits, 2 ** (-2 * bits), 0, "Shannon's bound", ls="-")
    q = np.asarray(quantisers)
    axes[0].plot(q[:, 0], q[:, 2], "o", mfc="none", color=style.colour(1), label="Lloyd, log₂ K")
    axes[0].plot(q[:, 1], q[:, 2], "x", color=style.colour(2), label="Lloyd, entropy")
    axes[0].set(yscale="log", xlabel="rate, bits", ylabel="distortion", ylim=(2e-3, 1.3))
    axes[0].set_title("one Gaussian", fontsize=10)
    axes[0].legend(fontsize=8, loc="lower left")
    at = np.arange(1, len(spectrum) + 1)
    v = spectrum.numpy()
    paid = v > level
    axes[1].bar(at[paid], v[paid] - level, 0.6, level, color="none", edgecolor=style.colour(0),
                label="paid for in bits")  # fmt: skip
    axes[1].bar(at, np.minimum(v, level), 0.6, color=style.colour(1), alpha=0.6, label="lost")
    axes[1].axhline(level, color=style.colour(-1), lw=0.9, ls="--")
    axes[1].text(5.4, level * 1.12, "θ", ha="right")
    axes[1].set(yscale="log", xlabel="part", ylabel="variance", xticks=at, ylim=(0.05, 6))
    axes[1].set_title("five of them, a level", fontsize=10)
    axes[1].legend(fontsize=8)
    _line(axes[2], *curve, 0, "water-filling", ls="-")
    axes[2].plot(*trained.T.numpy(), "s", color=style.colour(1), label="trained, linear")
    axes[2].set(xlabel="rate, bits", ylabel="distortion", ylim=(0, 7.5))
    axes[2].set_title("all levels", fontsize=10)
    axes[2].legend(fontsize=8)
    plt.show()


def codebooks(z: Tensor, books: dict[str, Tensor], chosen: dict[str, Tensor]) -> None:
    """Vectors (N, 2), codes (K, 2) of each way, and the indices that were chosen."""
    fig, axes = plt.subplots(1, len(books), figsize=(3.1 * len(books), 3.4), sharex=True, sharey=True)  # fmt: skip
    for ax, (name, book) in zip(axes, books.items(), strict=True):
        used = torch.zeros(len(book), dtype=torch.bool)
        used[chosen[name]] = True
        ax.plot(*z[:1500].T, ".", ms=1.5, color=style.colour(0), alpha=0.35)
        ax.plot([], [], ".", ms=4, color=style.colour(0), label="vectors")
        ax.plot(*book[used].T, "s", ms=4, color=style.colour(1), label="chosen")
        ax.plot(*book[~used].T, "o", ms=4, mfc="none", color=style.colour(-1), label="dead")
        ax.set(aspect="equal", xlabel="z₁", ylabel="z₂" if ax is axes[0] else "", title=name)
        ax.title.set_size(10)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9.5)  # fmt: skip
    plt.show()


def rates(found, kinds: Sequence[str], shown: Sequence[int]) -> None:
    """Error against rate of `Rates`, bars from the least to the largest of its starts; pictures of the first."""
    fig = plt.figure(figsize=(9.6, 5.0))
    left, right = fig.subfigures(1, 2, width_ratios=(1, 1.15))
    ax = left.subplots()
    split = next(i for i, name in enumerate(kinds) if name.startswith("VQ"))
    for j, (part, label) in enumerate(
        ((slice(split), "divergence"), (slice(split, None), "codebook"))
    ):
        _line(ax, found.rate[part], found.error[part], j, label, marker=style.marker(j), ms=5)
        low, high = found.errors[:, part].aminmax(dim=0)
        ax.vlines(found.rate[part], low, high, color=style.colour(j), lw=1.2)
    ax.plot(
        found.entropy[split:], found.error[split:], "x", color=style.colour(1), label="its entropy"
    )
    ax.set(xscale="log", yscale="log", xlabel="bits per pixel", ylabel="mean squared error")
    ax.set_yticks([0.006, 0.01, 0.02, 0.03, 0.06], ["0.006", "0.01", "0.02", "0.03", "0.06"])
    ax.tick_params(axis="y", which="minor", left=False, labelleft=False)
    ax.legend(fontsize=8.5)
    lines = [("original", found.pictures), *((kinds[i], found.decoded[i]) for i in shown)]
    grid = right.subplots(len(lines), len(found.pictures), squeeze=False)
    for line, (name, pictures) in zip(grid, lines, strict=True):
        for ax, one in zip(line, pictures, strict=True):
            _picture(ax, one.double() / 255)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    fig.get_layout_engine().set(w_pad=0.06, h_pad=0.02, wspace=0, hspace=0)
    plt.show()


def scales(log_snr: dict[float, Sequence[float]], scale: Tensor, curves: dict[int, list]) -> None:
    """log-SNR over time of data of some scales; deviation of the samples against the scale."""
    _, axes = plt.subplots(1, 2, figsize=(8.6, 3.2))
    t = np.linspace(0.01, 1, len(next(iter(log_snr.values()))))
    for j, (c, y) in enumerate(log_snr.items()):
        _line(axes[0], t, y, j, f"scale {c:g}")
    axes[0].axhspan(-4, 4, color=style.colour(-1), alpha=0.12, lw=0)
    axes[0].text(0.99, 3.8, "signal and\nnoise alike", ha="right", va="top", fontsize=8)
    axes[0].set(xlabel="time t", ylabel="log signal-to-noise ratio")
    axes[0].legend(fontsize=8.5)
    for j, (n, y) in enumerate(curves.items()):
        _line(axes[1], scale, y, j, f"{n} steps")
    axes[1].axhline(1, color=style.colour(-1), lw=0.7, ls=":")
    axes[1].set(xscale="log", xlabel="standard deviation of the data")
    axes[1].set_ylabel("sampled deviation / right one")
    axes[1].legend(fontsize=8.5)
    plt.show()


def in_and_off(clouds: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Points in the plane (N, 2) and distances from it (N,), for each name."""
    _, axes = plt.subplots(1, len(clouds) + 1, figsize=(2.5 * len(clouds) + 2.9, 2.6))
    for j, (ax, (name, (x, off))) in enumerate(zip(axes, clouds.items(), strict=False)):
        ax.plot(*x[:1500].T, ".", ms=1.5, color=style.colour(j))
        ax.set(xlim=(-4.4, 4.4), ylim=(-4.4, 4.4), aspect="equal", xlabel="in the plane, first")
        ax.set_ylabel("in the plane, second" if ax is axes[0] else "")
        ax.set_title(name, fontsize=10)
        axes[-1].hist(off.numpy(), 200, (0, 12), density=True, histtype="step",
                      color=style.colour(j), ls=style.dash(j), label=name)  # fmt: skip
    axes[-1].set(xlabel="distance from the plane", ylabel="density", xlim=(0, 3))
    axes[-1].margins(y=0.1)  # the peak keeps off the title
    axes[-1].legend(fontsize=8)
    plt.show()


def wrapped(text: str, width: int = 16) -> str:
    """A caption in short lines, for a title."""
    return "\n".join(textwrap.wrap(text, width))


def attention(found: tuple[Tensor, Tensor], text: str) -> None:
    """Mean picture, then the map of each word but "a", "at" and "the": (n, 3, H, W), (L, h, w)."""
    images, maps = found
    parts = text.split()
    words = [i for i, w in enumerate(parts) if w not in ("a", "at", "the", "and")]
    fig, axes = plt.subplots(1, len(words) + 1, figsize=(1.12 * len(words) + 1.8, 1.6))
    _picture(axes[0], images.mean(0), "mean of 8")
    top = float(maps[words].max())
    for ax, i in zip(axes[1:], words, strict=True):
        shown = ax.imshow(
            maps[i].numpy(), cmap="viridis", vmin=0, vmax=top, interpolation="nearest"
        )
        ax.set(xticks=[], yticks=[])
        ax.set_title(parts[i], fontsize=9)
    bar = fig.colorbar(shown, ax=axes, shrink=0.62, aspect=10, pad=0.01)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("× mean", fontsize=8)
    plt.show()


def obedience(curves: dict[str, list[dict]]) -> None:
    """Attributes right and spread against the weight, for each model."""
    _, axes = plt.subplots(1, 2, figsize=(8.8, 3.2))
    for j, (name, found) in enumerate(curves.items()):
        w = [row["w"] for row in found]
        more = dict(marker=style.marker(j), ms=4)
        _line(axes[0], w, [row["attributes"] for row in found], j, name, **more)
        _line(axes[1], w, [row["spread"] for row in found], j, name, **more)
    axes[0].axhline(0.9, color=style.colour(-1), lw=0.7, ls=":")
    axes[1].axhline(1, color=style.colour(-1), lw=0.7, ls=":")
    axes[0].set(xlabel="guidance weight w", ylabel="attributes right", ylim=(0, 1.02))
    axes[1].set(xlabel="guidance weight w", ylabel="spread, 1 is the data's", ylim=(0, 2.6))
    axes[0].legend(fontsize=9, loc="lower right")
    plt.show()


def artefacts(spectra: dict, cell: Tensor, real: Tensor, trip: Tensor, far: Tensor) -> None:
    """Spectra over the first; errors by place in a cell (4, 4); pictures, round trips and their difference; far."""
    fig = plt.figure(figsize=(9.6, 3.3))
    parts = fig.subfigures(1, 3, width_ratios=(1.25, 0.85, 1.3))
    ax = parts[0].subplots()
    real_power, *others = spectra.values()
    for j, (name, y) in enumerate(zip(list(spectra)[1:], others, strict=True)):
        _line(ax, np.arange(1, len(y)), y[1:] / real_power[1:], j, name)
    ax.axhline(1, color=style.colour(-1), lw=0.9, ls=":")
    ax.set(xscale="log", xlabel="spatial frequency, cycles", ylabel="power over that of the real")
    ax.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    ax.minorticks_off()
    ax.legend(fontsize=8)
    ax = parts[1].subplots()
    image = ax.imshow(1e5 * cell.numpy(), cmap="viridis", vmin=0)
    ax.set(xticks=range(4), yticks=range(4), xlabel="column in a cell", ylabel="row in a cell")
    ax.set_title("error × 10⁵", fontsize=10)
    parts[1].colorbar(image, ax=ax, shrink=0.7)
    lines = {"real": real, "trip": trip, "10 ×\n|gap|": 10 * (trip - real).abs(), "far": far[:3]}
    grid = parts[2].subplots(len(lines), 3)
    for line, (name, pictures) in zip(grid, lines.items(), strict=True):
        for ax, one in zip(line, pictures, strict=True):
            _picture(ax, one)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8.5)
    plt.show()
