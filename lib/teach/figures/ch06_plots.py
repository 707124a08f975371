"""The plots of chapter 6. They draw what they are given; the chapter computes it."""

from __future__ import annotations

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from lib.flows import Flow, Transform, Uniform
from lib.flows.energy import boxed, log_z
from lib.flows.planar import Planar, PlanarFlow
from lib.flows.radial import Radial
from lib.flows.sylvester import Sylvester

from .. import style

SPAN = 3.4


def _axes(ax, span: float = SPAN, name: str = "x") -> None:
    ax.set(xlim=(-span, span), ylim=(-span, span), aspect="equal")
    ax.set(xlabel=f"{name}₁", ylabel=f"{name}₂")


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def _bent_grid(ax, f: Callable, reach: float = 3.0, n: int = 19, **look) -> None:
    """Lines of a square grid, sent through f: (B, 2) -> (B, 2)."""
    look = {"color": style.colour(-1), "ls": "-", "lw": 0.5, "alpha": 0.55, **look}
    along = torch.linspace(-reach, reach, 241)
    with torch.no_grad():
        for at in torch.linspace(-reach, reach, n):
            for line in (torch.stack([along, at.expand(241)], 1),
                         torch.stack([at.expand(241), along], 1)):  # fmt: skip
                ax.plot(*f(line).T, **look)


def _density(ax, log_prob: Callable, span: float = SPAN, n: int = 160, top: float | None = None):
    """A density on a square, from 0 to `top` (its own largest value)."""
    line = torch.linspace(-span, span, n)
    with torch.no_grad():
        p = log_prob(torch.cartesian_prod(line, line)).exp().view(n, n).T
    return ax.pcolormesh(line, line, p, vmin=0, vmax=top, rasterized=True)


def _plane(ax, w: Tensor, b: Tensor | float, span: float = SPAN) -> None:
    """The line w.x + b = 0."""
    foot, along = -float(b) * w / (w @ w), torch.stack([-w[1], w[0]]) / w.norm()
    ends = torch.stack([foot - 3 * span * along, foot + 3 * span * along])
    ax.plot(*ends.T, color=style.colour(1), ls="--", lw=1.3)


def grids(panels: dict[str, Callable], w: Tensor, b: float, noise: Tensor) -> None:
    """A grid and draws before and after maps; the hyperplane dashed."""
    fig, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 3.3))
    for ax, (name, f) in zip(axes, panels.items(), strict=True):
        _bent_grid(ax, f)
        ax.plot(*f(noise).T, ".", ms=2.2, color=style.colour(0))
        _plane(ax, w, b)
        _axes(ax, 3.9, "z" if name == "noise" else "x")
        ax.set_title(name)
    plt.show()


def line_maps(z: Tensor, maps: dict[float, tuple[Tensor, Tensor]], p_z: Tensor) -> None:
    """One-dimensional planar maps (x, dx/dz), by their uw, and the densities of x."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.3))
    for j, (a, (x, slope)) in enumerate(maps.items()):
        _line(left, z, x, j, f"uw = ${a}$")
        if a >= -1:
            _line(right, x, p_z / slope.clamp_min(1e-9), j, f"uw = ${a}$")
    left.axhline(0.2, color=style.colour(-1), ls=":", lw=1)
    left.set(xlim=(-2.5, 2.6), ylim=(-2.5, 2.5), xlabel="z", ylabel="x")
    right.set(xlim=(-4.5, 4.5), ylim=(0, 1.4), xlabel="x", ylabel="density")
    left.legend(fontsize=8.5)
    right.legend(fontsize=8.5)
    plt.show()


def one_layer(cases: dict[str, Tensor], w: Tensor, b: float) -> None:
    """The density of one planar layer of a standard normal, for several u, with its grid."""
    fig, axes = plt.subplots(1, len(cases), figsize=(3.2 * len(cases), 3.3))
    for ax, (name, u) in zip(axes, cases.items(), strict=True):
        layer = Planar(2, constrain=False).requires_grad_(False)
        for parameter, value in ((layer.w, w), (layer.u, u), (layer.b, torch.tensor(b))):
            parameter.copy_(value)
        _density(ax, Flow(layer, 2).log_prob, top=0.26)
        _bent_grid(ax, lambda z, layer=layer: layer.from_base(z)[0], color="white", alpha=0.35)
        _axes(ax)
        ax.set_title(f"{name}: w·u = ${float(w @ u):z.1f}$")
    plt.show()


def first(flow: PlanarFlow, n: int) -> Transform:
    """The first n layers, counted from the base."""
    part = PlanarFlow(flow.shape[0], n).to(flow.w).requires_grad_(False)
    for name in ("w", "u", "b"):
        getattr(part, name).copy_(getattr(flow, name)[:n])
    return part


def bases(flow: PlanarFlow, counts: tuple[int, ...]) -> None:
    """The first layers of a flow on a normal and on a uniform base."""
    fig, axes = plt.subplots(2, len(counts), figsize=(2.4 * len(counts), 4.9))
    for row, base, name in zip(
        axes, (None, Uniform(-2.0, 2.0)), ("normal", "uniform"), strict=True
    ):
        for ax, n in zip(row, counts, strict=True):
            if n == 0:
                log_prob = Flow(first(flow, 1), 2, base=base).base.log_prob
            else:
                log_prob = Flow(first(flow, n), 2, base=base).log_prob
            _density(ax, log_prob, span=6.0, n=240, top=0.16 if base is None else 0.14)
            _axes(ax, 6.0)
            ax.label_outer()
            ax.set_title(
                f"{name} base, {n} layers" if n != 1 else f"{name} base, 1 layer", fontsize=9
            )
    plt.show()


def energies(targets: dict[str, Callable], fitted: dict, sizes: tuple[int, ...]) -> None:
    """Targets and the flows of several depths, as densities with their divergence."""
    shape = (len(targets), 1 + len(sizes))
    fig, axes = plt.subplots(*shape, figsize=(1.85 * shape[1], 1.95 * shape[0]))
    for row, (name, U) in zip(axes, targets.items(), strict=True):
        energy = boxed(U)
        log_p = lambda x, U=energy: -U(x) - log_z(U, half=6.0)  # noqa: E731
        line = torch.linspace(-4.4, 4.4, 120)
        top = log_p(torch.cartesian_prod(line, line)).exp().max().item()
        panels = [(f"{name}, target", log_p)]
        for K, (flow, (kl, _)) in zip(sizes, fitted[name], strict=True):
            panels.append((f"K = {K}: {kl:.2f}", flow.log_prob))
        for ax, (title, log_prob) in zip(row, panels, strict=True):
            _density(ax, log_prob, span=4.4, n=120, top=top)
            ax.set(xticks=[], yticks=[], aspect="equal")
            ax.set_title(title, fontsize=9)
    for row in axes:
        row[0].set_ylabel("x₂")
    for ax in axes[-1]:
        ax.set_xlabel("x₁")
    plt.show()


def depths(flow: Flow, counts: tuple[int, ...], n: int = 1500) -> None:
    """The same draws after the first layers of a flow, coloured by where they started."""
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    side, outer = torch.atan2(z[:, 1], z[:, 0]), z.norm(dim=1) > 1.5
    rows = 2
    fig, axes = plt.subplots(rows, len(counts) // rows, figsize=(8.4, 5.9))
    for ax, k in zip(axes.flat, counts, strict=True):
        with torch.no_grad():
            x = first(flow.transform, k).from_base(z)[0] if k else z
        for part, marker, size in ((~outer, ".", 5), (outer, "x", 12)):
            ax.scatter(*x[part].T, c=side[part], marker=marker, s=size, lw=0.7, cmap=style.CYCLIC,
                       vmin=-math.pi, vmax=math.pi, rasterized=True)  # fmt: skip
        _axes(ax, 4.2, "x" if k else "z")
        ax.set_title(f"after {k} layers" if k else "noise", fontsize=9)
    plt.show()


def modes(runs: dict[str, tuple], U: Callable) -> None:
    """Draws of fitted flows on the contours of their target exp(-U)."""
    fig, axes = plt.subplots(1, len(runs), figsize=(4.2 * len(runs), 3.2))
    a, b = torch.linspace(-3.5, 7, 150), torch.linspace(-3, 4, 120)
    p = (-U(torch.cartesian_prod(a, b))).exp().view(150, 120).T
    for ax, (name, (flow, (kl, _))) in zip(axes, runs.items(), strict=True):
        ax.plot(*flow.sample(1500).T, ".", ms=2, color=style.colour(0), alpha=0.6)
        ax.contour(a, b, p, levels=5, colors=style.colour(1), linewidths=1.2)
        ax.set(title=f"{name}: KL = {kl:.2f} nats", xlabel="x₁", ylabel="x₂", aspect="equal")
        ax.set(xlim=(-3.5, 7), ylim=(-3, 4))
    plt.show()


def data_fit(truth, *flows: Flow) -> None:
    """A true density, and flows fitted to draws from it."""
    names = ("flow, trained through roots", "flow, turned round")
    fig, axes = plt.subplots(1, 1 + len(flows), figsize=(3.2 * (1 + len(flows)), 2.9))
    grid = truth.grid(150)
    side = [len(grid.axes[1]), len(grid.axes[0])]
    panels = [("truth", truth.log_prob), *zip(names, (f.log_prob for f in flows), strict=False)]
    top = truth.log_prob(grid.points).exp().max()
    for ax, (name, log_prob) in zip(axes, panels, strict=True):
        with torch.no_grad():
            p = log_prob(grid.points).exp().view(*side)
        ax.pcolormesh(*grid.axes, p, vmin=0, vmax=top, rasterized=True)
        ax.set(title=name, xlabel="x₁", ylabel="x₂")
    plt.show()


def relatives() -> None:
    """A radial layer of each sign on a standard normal, and a Sylvester layer on a uniform square."""
    away, inwards, lines = Radial(2), Radial(2), Sylvester(2, 2)
    with torch.no_grad():
        for radial, beta in ((away, 3.0), (inwards, -1.2)):
            radial.centre.zero_()
            radial.beta.fill_(beta)
        lines.reflect.copy_(torch.tensor([[0.0, 0.0], [0.6, 0.0]]))
        lines.r.copy_(torch.tensor([[-0.9, 0.7], [0.0, -0.8]]))
        lines.r2.copy_(torch.tensor([[1.4, 0.8], [0.0, 1.2]]))
        lines.b.copy_(torch.tensor([0.5, -0.3]))
    panels = {"radial, away": away, "radial, inwards": inwards, "Sylvester, M = 2": lines}
    fig, axes = plt.subplots(1, 3, figsize=(10.4, 3.1))
    for ax, (name, layer) in zip(axes, panels.items(), strict=True):
        base, top = (Uniform(-2.0, 2.0), 0.16) if layer is lines else (None, None)
        seen = _density(ax, Flow(layer, 2, base=base).log_prob, top=top)
        more = "max" if top else "neither"  # the last panel's scale is cut
        fig.colorbar(seen, ax=ax, shrink=0.75, label="density", extend=more)  # each its own
        _bent_grid(ax, lambda z, layer=layer: layer.from_base(z)[0], color="white", alpha=0.3)
        _axes(ax)
        ax.label_outer()
        ax.set_title(name)
    plt.show()


def posteriors(rows: list[tuple], labels: tuple[str, ...]) -> None:
    """For some images: log-densities over a plane of latent values, side by side.

    rows: (image (8, 8), axes of the plane (a, b), log-densities (each (n, n), first axis a), gaps).
    """
    fig, axes = plt.subplots(
        len(rows), 1 + len(labels), figsize=(2.4 * (1 + len(labels)), 2.25 * len(rows))
    )
    for j, (line, (image, (a, b), logs, gaps)) in enumerate(zip(axes, rows, strict=True), 1):
        line[0].imshow(image, cmap="gray_r")
        style.frame(line[0])
        top = logs[0].div(2).exp().max()
        for ax, log_p, label, gap in zip(line[1:], logs, labels, gaps, strict=True):
            roots = log_p.div(2).exp().T  # of the densities: shows a small side heap
            ax.pcolormesh(a, b, roots, vmin=0, vmax=top, rasterized=True)
            ax.set_title(label if gap is None else f"{label}, gap {gap:.2f}", fontsize=9)
            ax.set(xlabel="z₁" if j == len(rows) else "", ylabel="z₂" if ax is line[1] else "")
            ax.locator_params(nbins=4)
    plt.show()


def wrong(folded: Planar, collapsed: Tensor, U: Callable) -> None:
    """A folded grid, draws through the fold, and draws of a flow trained without log-determinant."""
    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.3))
    f = lambda z: folded.from_base(z)[0]  # noqa: E731
    _bent_grid(axes[0], f)
    with torch.no_grad():
        x = f(torch.randn(200_000, 2))
    edges = torch.linspace(-SPAN, SPAN, 121).numpy()
    axes[1].hist2d(*x.T.numpy(), bins=[edges, edges], vmax=120, rasterized=True)
    line = torch.linspace(-SPAN, SPAN, 120)
    p = (-U(torch.cartesian_prod(line, line))).exp().view(120, 120).T
    axes[2].contour(line, line, p, levels=5, colors=style.colour(1), linewidths=1)
    axes[2].plot(*collapsed.detach().T, ".", ms=3, color=style.colour(0), alpha=0.6)
    for ax, title in zip(axes, ("folded grid", "density of its draws", "no log-det"), strict=True):
        _axes(ax)
        ax.set_title(title)
    _axes(axes[0], 4.2)  # all of the grid
    plt.show()
