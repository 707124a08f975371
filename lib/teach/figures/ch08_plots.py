"""The plots of chapter 8. They draw what they are given; the chapter computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from lib.flows import Flow
from lib.flows.continuous import RegularisedFlow
from lib.ode import solve

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def _density(ax, p: Callable, span: float, n: int = 64, power: float = 1.0):
    """A log-density's exponential on a square, to a power that lifts what is faint."""
    line = torch.linspace(-span, span, n)
    with torch.no_grad():
        values = p(torch.cartesian_prod(line, line)).exp().view(n, n).T
    return ax.pcolormesh(line, line, values**power, vmin=0, shading="gouraud", rasterized=True)


def _square(ax, span: float) -> None:
    ax.set(xlim=(-span, span), ylim=(-span, span), aspect="equal", xlabel="x₁", ylabel="x₂")


def through_time(log_p: Callable, times: Sequence[float], path: Tensor) -> None:
    """Densities at several times, and points on their way: path (T, B, 2) from time 0 to 1."""
    fig, axes = plt.subplots(1, len(times), figsize=(2.15 * len(times), 2.5), sharey=True)
    for ax, t in zip(axes, times, strict=True):
        _density(ax, lambda x, t=t: log_p(t, x), 4.5, n=58)
        k = round(t * (len(path) - 1))
        ax.plot(*path[: k + 1].permute(2, 0, 1).numpy(), color="white", ls="-", lw=0.9, alpha=0.8)
        ax.plot(*path[k].T, "o", ms=4, color="white", mec="black", mew=0.8)
        _square(ax, 4.5)
        ax.set_xticks((-2, 0, 2))  # a tick at the end runs into the next panel's
        ax.set_title(f"t = {t:g}", fontsize=10)
    for ax in axes[1:]:
        ax.set_ylabel("")
    plt.show()


def line_flow(at: Callable, density: Callable) -> None:
    """Paths of a one-dimensional flow and its density at four times."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.2))
    t = torch.linspace(0, 1, 81)
    for x in torch.linspace(-3, 3, 25):
        left.plot(t, [at(float(s), x) for s in t],
                  color=style.colour(0), ls="-", lw=1)  # fmt: skip
    left.set(xlabel="time t", ylabel="x(t)")
    x = torch.linspace(-5.5, 5.5, 501)
    for j, s in enumerate((0.0, 1 / 3, 2 / 3, 1.0)):
        _line(right, x, density(s, x), j, f"t = {s:.2g}")
    right.set(xlabel="x", ylabel="density")
    right.legend(fontsize=8.5)
    plt.show()


def two_sums(counts: Sequence[int], by_det: Sequence[Tensor], by_trace: Sequence[Tensor]) -> None:
    """Errors of the two sums over Euler steps against their number."""
    _, ax = plt.subplots()
    for j, (y, name) in enumerate(((by_det, "sum of log|det|"), (by_trace, "sum of h tr J"))):
        _line(ax, counts, y, j, name, marker=style.marker(j))
    ax.set(xscale="log", yscale="log", xlabel="number of layers N", ylabel="error, nats")
    ax.legend(fontsize=9, loc="lower left")  # in sight where the figure scrolls
    plt.show()


def squares(parts: dict[str, Tensor]) -> None:
    """The unit square under linear fields, with the paths of its corners."""
    fig, axes = plt.subplots(1, len(parts), figsize=(2.5 * len(parts), 2.9))
    span = 1.6
    corners = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]])
    for ax, (name, A) in zip(axes, parts.items(), strict=True):
        start = corners.to(A)
        path = solve(lambda t, x, A=A: x @ A.T, start, 0.0, 1.0, 40, path=True)
        ax.fill(*start.T, color=style.colour(-1), ls="-", alpha=0.25, label="before")
        ax.fill(*path[-1].T, color=style.colour(0), ls="-", alpha=0.35, label="after")
        ax.plot(*path[-1].T, color=style.colour(0), ls="-")
        paths = ax.plot(*path[:, :4].permute(2, 0, 1), color=style.colour(1), ls="--", lw=1)
        paths[0].set_label("paths of the corners")
        span = max(span, 1.15 * path.abs().max().item())
        ax.set_title(f"{name}: area × {A.trace().exp():.2f}", fontsize=9)
    for ax in axes:
        _square(ax, span)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8.5)
    plt.show()


def cost(dims: Sequence[int], seconds: dict[str, list[float]]) -> None:
    """Milliseconds against the dimension."""
    _, ax = plt.subplots()
    for j, (name, y) in enumerate(seconds.items()):
        _line(ax, dims, [1e3 * s for s in y], j, name, marker=style.marker(j))
    ax.set(xscale="log", yscale="log", xlabel="dimension D", ylabel="milliseconds")
    ax.set_xticks(list(dims), [str(D) for D in dims])
    ax.minorticks_off()
    ax.legend(fontsize=9)
    plt.show()


def tolerance(exponents: Sequence[int], off: list, trip: list, price: list) -> None:
    """Errors and evaluations against the tolerance."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.2))
    x = [10.0**n for n in exponents]
    _line(left, x, off, 0, "log p, nats", marker=style.marker(0))
    _line(left, x, trip, 1, "round trip", marker=style.marker(1))
    left.plot(x, x, ":", color=style.colour(-1), lw=1, label="error = tolerance")
    left.set(xscale="log", yscale="log", xlabel="tolerance", ylabel="largest error")
    left.legend(fontsize=9)
    _line(right, x, price, 2, marker=style.marker(2))
    right.set(xscale="log", yscale="log", xlabel="tolerance", ylabel="evaluations")
    right.set_yticks([30, 50, 100, 200, 300], ["30", "50", "100", "200", "300"])
    right.minorticks_off()
    for ax in (left, right):
        ax.invert_xaxis()
    plt.show()


def tame(runs: dict[float, tuple[RegularisedFlow, dict[int, int]]], x: Tensor) -> None:
    """Evaluations during training, and paths of the trained flows: {weight: (flow, {step: count})}."""
    fig, axes = plt.subplots(1, 1 + len(runs), figsize=(3.3 * (1 + len(runs)), 3.2))
    for j, (weight, (_, by_step)) in enumerate(runs.items()):
        _line(axes[0], list(by_step), list(by_step.values()), j, f"weight {weight:g}")
    axes[0].set(xlabel="training step", ylabel="evaluations for one log p")
    axes[0].legend(fontsize=8.5)
    for ax, (weight, (flow, _)) in zip(axes[1:], runs.items(), strict=True):
        # each flow has a scale of its own: the paths are drawn as the data are
        scale = flow.transform.transforms[0]
        with torch.no_grad():
            path = flow.parts()[0].path(scale.to_base(x)[0], torch.linspace(0, 1, 41).tolist())
            path = torch.stack([scale.x_from_base(state) for state in path])
        ax.plot(*path.permute(2, 0, 1), color=style.colour(0), ls="-", lw=0.8, alpha=0.7)
        ax.plot(*path[0].T, "o", ms=3, color=style.colour(1))
        _square(ax, 3.6)
        ax.set_title(f"weight {weight:g}")
    plt.show()


def against_truth(stored: dict[str, tuple]) -> None:
    """Rows of (density, flow, samples): truth, the flow's density, its samples."""
    fig, axes = plt.subplots(len(stored), 3, figsize=(8.4, 2.8 * len(stored)))
    for row, (density, flow, samples) in zip(axes, stored.values(), strict=True):
        span = 1.05 * density.sample(2_000).abs().max().item()
        _density(row[0], density.log_prob, span, power=0.5)
        log_prob = flow.log_prob if isinstance(flow, Flow) else flow
        _density(row[1], log_prob, span, power=0.5)
        row[2].plot(*samples.T, ".", ms=1.5, color=style.colour(0))
        for ax, title in zip(row, ("truth", "flow", "samples"), strict=True):
            _square(ax, span)
            ax.set_title(title, fontsize=10)
    plt.show()


def digits(real: Tensor, drawn: Tensor) -> None:
    """Two grids of 8 x 8 images given as vectors."""
    fig, axes = plt.subplots(1, 2, figsize=(8.2, 4.2))
    for ax, images, title in zip(axes, (real, drawn), ("test part", "samples"), strict=True):
        framed = torch.nn.functional.pad(images.view(40, 8, 8), (1, 1, 1, 1))
        grid = framed.view(5, 8, 10, 10).permute(0, 2, 1, 3).reshape(50, 80)
        ax.imshow(grid, cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], title=title)
        for side in ax.spines.values():
            side.set(visible=True, color=style.FRAME)
    plt.show()


def fresh(tolerances: Sequence[float], fixed: list[int], noisy: list[int]) -> None:
    """Evaluations with one probe and with fresh ones."""
    _, ax = plt.subplots()
    for j, (counts, name) in enumerate(((fixed, "one probe"), (noisy, "fresh probes"))):
        _line(ax, range(len(counts)), counts, j, name, marker=style.marker(j))
    ax.set(yscale="log", ylabel="evaluations", xlabel="tolerance", ylim=(10, None))
    ax.set_yticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1000"])
    ax.minorticks_off()
    ax.set_xticks(range(len(tolerances)), [f"{t:g}" for t in tolerances])
    ax.legend(fontsize=9)
    plt.show()
