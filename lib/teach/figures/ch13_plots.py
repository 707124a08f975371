"""The plots of chapter 13. They draw what they are given; the chapter reads or computes it."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt

from lib.results.models import FAMILIES, MODELS
from lib.results.store import Results
from lib.results.table import UNITS, Cell, best, kind, reference, table

from .. import style
from . import ch13


def _family(model: str) -> int:
    return FAMILIES.index(MODELS[model].family)


def _families(fig, kinds: bool = False) -> None:
    """The legend of the families, below all panels, and of exact values and bounds."""
    marks = [
        plt.Line2D([], [], marker=style.marker(f), color=style.colour(f), ls="none", label=name)
        for f, name in enumerate(FAMILIES)
    ]
    if kinds:
        for look, label in (
            ({"marker": "o"}, "exact"),
            ({"marker": "o", "mfc": "white"}, "upper bound"),
            ({"marker": "|", "ms": 11}, "tighter bound"),
        ):
            marks.append(plt.Line2D([], [], color=style.INK, ls="none", label=label, **look))
    fig.legend(handles=marks, loc="outside lower center", ncols=5 - kinds, fontsize=8.5)


def ladder(results: Results) -> None:
    """The cost of a test example, from best to worst, on both data sets; open marks are bounds."""
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 4.6))
    for ax, data in zip(axes, ("digits", "plane"), strict=True):
        cells = table(results, data, ["cost"])
        for k, model in enumerate(best(cells, "cost")[::-1]):
            c, f = cells[model]["cost"], _family(model)
            exact = kind(results, data, model) == "exact"
            ax.plot([c.low, c.high], [k, k], color=style.colour(f), ls="-", lw=1.2)
            ax.plot(
                c.mean, k, style.marker(f), color=style.colour(f), ms=6.5, ls="none",
                mfc=style.colour(f) if exact else "white",
            )  # fmt: skip
            if "tighter" in cells[model]:
                ax.plot(cells[model]["tighter"].mean, k, "|", color=style.colour(f), ms=11)
        names = [MODELS[m].title for m in best(cells, "cost")[::-1]]
        ax.set_yticks(range(len(names)), names, fontsize=8.5)
        ax.set(xlabel=UNITS[data], xscale="log" if data == "plane" else "linear")
        ax.set_title({"digits": "digits", "plane": "eight Gaussians"}[data], fontsize=10)
        ax.grid(axis="x", alpha=0.3)
    _families(fig, kinds=True)
    plt.show()


def qualities(results: Results, data: str, metrics: Sequence[str]) -> None:
    """Several measures of the same samples side by side; the band is what real examples score."""
    fig, axes = plt.subplots(1, len(metrics), figsize=(9.6, 4.5), sharey=True)
    cells, real = table(results, data), reference(results, data)
    names = best(cells, metrics[0])[::-1]
    for ax, metric in zip(axes, metrics, strict=True):
        for k, model in enumerate(names):
            c, f = cells[model][metric], _family(model)
            ax.plot([c.low, c.high], [k, k], color=style.colour(f), ls="-", lw=1.2)
            ax.plot(c.mean, k, style.marker(f), color=style.colour(f), ms=5.5, ls="none")
        # the edge is for a band too narrow to be seen
        ax.axvspan(real[metric].low, real[metric].high, color="#666666", alpha=0.5, lw=2.5)
        ax.set(xlabel=ch13.label(metric, data))
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), [MODELS[m].title for m in names], fontsize=8.5)
    _families(fig)
    plt.show()


def samples(drawn: dict, real) -> None:
    """Rows of pictures, levels (N, 1, 8, 8), by name; the last row is real."""
    rows = drawn | {"test images": real}
    fig, axes = plt.subplots(len(rows), 1, figsize=(9.6, 0.62 * len(rows)))
    for ax, (name, x) in zip(axes, rows.items(), strict=True):
        strip = x[:20, 0].permute(1, 0, 2).reshape(8, -1)
        ax.imshow(strip, cmap="gray_r", vmin=0, vmax=16, aspect="equal")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        ax.spines[:].set_visible(False)
    plt.show()


def trust(
    curves: dict[str, dict[int, Cell]], floor: dict[int, Cell], widths: dict[str, dict[float, Cell]]
) -> None:
    """Left: a distance against the number of samples. Right: MMD against its kernel's width."""
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.3))
    for j, (name, curve) in enumerate({"truth against truth": floor, **curves}.items()):
        n = list(curve)
        axes[0].plot(n, [curve[k].mean for k in n], color=style.colour(j - 1), ls=style.dash(j),
                     marker=style.marker(j), ms=4, label=name)  # fmt: skip
        axes[0].fill_between(n, [curve[k].low for k in n], [curve[k].high for k in n],
                             color=style.colour(j - 1), alpha=0.15, lw=0)  # fmt: skip
    axes[0].set(xscale="log", yscale="log", xlabel="samples on either side", ylabel="sliced Wasserstein")  # fmt: skip
    axes[0].legend(fontsize=8.5)
    for j, (name, curve) in enumerate(widths.items()):
        h = list(curve)
        axes[1].plot(h, [curve[k].mean for k in h], color=style.colour(j), ls=style.dash(j + 1),
                     marker=style.marker(j + 1), ms=4, label=name)  # fmt: skip
        axes[1].fill_between(h, [curve[k].low for k in h], [curve[k].high for k in h],
                             color=style.colour(j), alpha=0.15, lw=0)  # fmt: skip
    axes[1].axhline(2, color=style.INK, ls=":", lw=1)
    axes[1].set(xscale="log", xlabel="width of the kernel", ylabel="MMD² in standard errors")
    axes[1].legend(fontsize=8.5)
    plt.show()


def published(rows: Sequence[tuple]) -> None:
    """Bits per dimension of papers, (model, year, bits, family, "=" or "≤", ...), over the years."""
    fig, ax = plt.subplots(figsize=(9.6, 4.4))
    for family in dict.fromkeys(r[3] for r in rows):
        f = FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
        colour = style.colour(f)
        ax.plot([], [], style.marker(f), ms=6, color=colour, ls="none", label=family)
        for name, year, bits, _, sign, *_ in (r for r in rows if r[3] == family):
            near = [r[2] - bits for r in rows if r[1] == year and 0 < r[2] - bits < 0.15]
            at = year + (0.1 if near and min(near) < 0.05 else 0)  # else one mark hides the other
            ax.plot(at, bits, style.marker(f), ms=6, color=colour, ls="none",
                    mfc=colour if sign == "=" else "white")  # fmt: skip
            ax.annotate(name, (at, bits), (5, -9 if near else 2), textcoords="offset points",
                        fontsize=9, color=colour)  # fmt: skip
    ax.set(
        xlim=(2015.7, 2024.2), xlabel="year of publication", ylabel="bits per dimension, CIFAR-10"
    )
    ax.legend(fontsize=8.5)
    plt.show()
