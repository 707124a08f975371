"""The plots of chapter 7. They draw what they are given; the chapter computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from lib.ode import SolverError, solve_adaptive

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def _marked(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j with its marker at every value."""
    _line(ax, x, y, j, label, **{"marker": style.marker(j), "ms": 4.5, **more})


def residual(field: Callable, paths: dict[int, Tensor]) -> None:
    """Paths (steps + 1, B, 2) of networks with so many blocks, over the field's arrows."""
    fig, axes = plt.subplots(1, len(paths), figsize=(3.3 * len(paths), 3.5))
    line = torch.linspace(-2, 2, 15)
    at = torch.cartesian_prod(line, line)
    v = field(torch.tensor(0.0), at)
    v = v / (v.norm(dim=1, keepdim=True) + 2)
    for ax, (n, path) in zip(axes, paths.items(), strict=True):
        ax.quiver(*at.T, *v.T, color=style.colour(-1), alpha=0.3, scale=16, width=0.004)
        for j, one in enumerate(path.unbind(1)):
            more = {"marker": ".", "ms": 4} if n < 50 else {}
            c = style.colour(-1 if j == 6 else j)
            _line(ax, *one.T, j, lw=1.4, ls="-", **{**more, "color": c})
            ax.plot(*one[0], "o", color=c, ms=5, mfc="white", zorder=3)
            ax.plot(*one[-1], "o", color=c, ms=5)
        ax.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", xlabel="z₁", ylabel="z₂")
        ax.set_title(f"{n} blocks" if n < 50 else "the limit")
    plt.show()


def rumour(field: Callable, t: Tensor, exact: Tensor, euler: dict[int, Tensor]) -> None:
    """Slopes of a scalar field, the exact curve, and polygons with so many steps."""
    fig, ax = plt.subplots(figsize=(style.WIDTH, 3.4))
    grid = torch.cartesian_prod(torch.linspace(0.04, 1.96, 25), torch.linspace(0.04, 0.96, 13))
    slope = torch.stack([field(s, z) for s, z in grid])
    length = (1 + slope**2).sqrt()
    ax.quiver(*grid.T, 1 / length, slope / length, angles="xy", color=style.colour(-1), alpha=0.3,
              scale=32, width=0.003, headwidth=0, headlength=0, headaxislength=0, pivot="mid")  # fmt: skip
    _line(ax, t, exact, 0, "exact", lw=2.4)
    for j, (n, z) in enumerate(euler.items(), 1):
        _marked(ax, torch.linspace(0, 2, n + 1), z, j, f"Euler, {n} steps", lw=1.3, clip_on=False)
    ax.set(xlabel="time t", ylabel="share z", xlim=(0, 2), ylim=(0, 1))
    fig.legend(loc="outside upper center", ncols=3, fontsize=9, columnspacing=1)
    plt.show()


def convergence(runs: dict[str, tuple[list[int], list]]) -> None:
    """Error over evaluations for each method: name -> (evaluations, errors)."""
    fig, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    for j, (name, (cost, errors)) in enumerate(runs.items()):
        _marked(ax, cost, torch.stack(errors), j, name)
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the field", ylabel="error at the end")
    ax.legend()
    plt.show()


def adaptive(field: Callable, start: Tensor, trials: list[tuple[float, float, bool]]) -> None:
    """The path with a mark where each accepted step starts, and all trials (start, length, accepted) below."""
    taken = [(t, h) for t, h, accepted in trials if accepted]
    refused = [(t, h) for t, h, accepted in trials if not accepted]
    times, end = [t for t, _ in taken], sum(taken[-1])
    fine = torch.linspace(0, end, 401).tolist()
    path = [start]
    for s, t in zip(fine, fine[1:], strict=False):
        path.append(solve_adaptive(field, path[-1], s, t, 1e-6, 1e-6, first_step=(t - s)).x)
    path = torch.cat(path)
    fig, (top, low) = plt.subplots(2, 1, figsize=(style.WIDTH, 4.2), sharex=True)
    _line(top, fine, path, 0)
    index = [round(400 * t / end) for t in times]
    top.plot(times, path[index], style.marker(1), color=style.colour(1), ms=3.5)
    top.set(ylabel="z")
    _marked(low, *zip(*taken, strict=True), 1, "accepted", ls="-", lw=1)
    low.plot(*zip(*refused, strict=True), style.marker(2), color=style.colour(2), mfc="none", ms=5,
             label="refused")  # fmt: skip
    low.set(yscale="log", xlabel="time t", ylabel="step h")
    low.set_yticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
    low.minorticks_off()
    low.legend(fontsize=9.5, loc="lower right")
    plt.show()


def picard(field: Callable, t: Tensor, exact: Tensor, which: Sequence[int]) -> None:
    """Picard's curves for a scalar field, and a field with several solutions through one point."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.3))
    _line(left, t, exact, -1, "exact", lw=2.4, ls="-")
    curve = exact[0].expand_as(t)
    for k in range(1, max(which) + 1):
        area = torch.cumulative_trapezoid(field(t, curve), t)
        curve = exact[0] + torch.cat([area.new_zeros(1), area])
        if k in which:
            _line(left, t, curve, list(which).index(k), f"curve {k}")
    left.set(xlabel="time t", ylabel="z", ylim=(0, 1.2), xlim=(0, t[-1].item()))
    left.legend(fontsize=8.5)
    for j, leave in enumerate((0.0, 0.5, 1.0)):
        _line(right, t, (t - leave).clamp_min(0) ** 3, j, f"leaves at {leave:g}")
    _line(right, t, 0 * t, 3, "stays")
    right.set(xlabel="time t", ylabel="z", ylim=(-0.2, 2), xlim=(0, 2))
    right.legend(fontsize=8.5)
    plt.show()


def minus_x(paths: dict[int, Tensor]) -> None:
    """Learned paths (steps + 1, B, D) for D = 1 over time, and for D = 2 in the plane."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.6))
    time = torch.linspace(0, 1, len(paths[1]))
    shade = plt.get_cmap("viridis")
    for k in range(0, paths[1].shape[1], 2):
        c = shade(0.9 * k / paths[1].shape[1])
        left.plot(time, paths[1][:, k, 0], color=c, lw=1.2, ls="-")
        right.plot(*paths[2][:, k].T, color=c, lw=1.2, ls="-")
        right.plot(*paths[2][-1, k], "o", color=c, ms=4)
        right.plot(*paths[2][0, k], "o", color=c, ms=4, mfc="white", zorder=3)
        left.plot(0, paths[1][0, k, 0], "o", color=c, ms=4, mfc="white", zorder=3)
        left.plot(1, paths[1][-1, k, 0], "o", color=c, ms=4)
    left.set(xlabel="time t", ylabel="x", title="one dimension", ylim=(-1.1, 1.1))
    right.set(xlabel="x", ylabel="u", title="one more dimension")
    right.axhline(0, color=style.colour(-1), lw=0.6)
    plt.show()


def adjoint(t: Tensor, states: Tensor, adjoints: Tensor, marks: Tensor, grads: Tensor) -> None:
    """State and adjoint over time, (T, 2) each; gradients by autograd as markers."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.2))
    for ax, curves, name in zip(axes, (states, adjoints), ("z", "a"), strict=True):
        for j in (0, 1):
            _line(ax, t, curves[:, j], j, f"{name}{'₁₂'[j]}")
        ax.set(xlabel="time t", ylabel="state" if name == "z" else "adjoint")
    for j in (0, 1):
        axes[1].plot(marks, grads[:, j], style.marker(j), color=style.colour(j), ms=5,
                     label=f"a{'₁₂'[j]}, autograd")  # fmt: skip
    axes[0].set_title("forward: state →")
    axes[1].set_title("← backward: adjoint")
    for ax in axes:
        ax.legend()
    plt.show()


def gradient_errors(tolerances: list[float], errors: dict[str, list]) -> None:
    """Relative error of the gradient over the tolerance, for each method."""
    fig, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    for j, (name, e) in enumerate(errors.items()):
        hollow = {} if j else {"ms": 9, "mfc": "none"}  # checkpointed lies on it
        _marked(ax, tolerances, torch.stack(list(e)), j, name, alpha=0.9, **hollow)
    ax.plot(
        tolerances, tolerances, color=style.colour(-1), lw=0.8, ls=":", label="error = tolerance"
    )
    ax.set(xscale="log", yscale="log", xlabel="tolerance", ylabel="relative error of the gradient")
    ax.legend(fontsize=8.5)
    plt.show()


def memory(lengths: Sequence[int], used: dict[str, list[float]]) -> None:
    """Memory kept for the backward pass, MiB, over the number of steps."""
    fig, ax = plt.subplots(figsize=(style.WIDTH, 3.2))
    for j, (name, mib) in enumerate(used.items()):
        _marked(ax, lengths, mib, j, name)
    ax.set(xscale="log", yscale="log", xlabel="RK4 steps", ylabel="kept for the way back, MiB")
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ax.minorticks_off()
    fig.legend(loc="outside lower center", ncols=3, fontsize=9, columnspacing=1)
    plt.show()


def _walk(field: Callable, start: Tensor, t0: float, t1: float) -> tuple[list[float], Tensor]:
    """Times and states (n, D) at the solver's steps, as far as it gets."""
    seen: list[tuple[float, Tensor]] = []
    keep = lambda t, z: seen.append((t, z))  # noqa: E731
    try:
        end = solve_adaptive(field, start, t0, t1, 1e-8, 1e-8, max_steps=2000, on_step=keep)
        seen.append((t1, end.x))
    except SolverError:
        pass
    return [t for t, _ in seen], torch.cat([z for _, z in seen])


def there_and_back(field: Callable, start: Tensor, t1: float):
    """The path out, and the path back from its end."""
    out = _walk(field, start, 0.0, t1)
    return out, _walk(field, out[1][-1:], t1, 0.0)


def no_way_back(stiff: Callable, start: Tensor, chaos: Callable, origin: Tensor) -> None:
    """Two fields solved forward and back: over time, and in a plane."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.5))
    (t, out), (t_back, back) = there_and_back(stiff, start, 1.0)
    _line(left, t, out[:, 0], 0, "out")
    _line(left, t_back, back[:, 0], 1, "back")
    left.plot(0, out[0, 0], "o", color=style.colour(0), ms=7, label="true start")
    left.plot(t_back[-1], back[-1, 0], "s", color=style.colour(1), ms=7, label="found")
    left.set(xlabel="time t", ylabel="first coordinate", ylim=(-3.2, 3), title="contracting")
    (t, out), (t_back, back) = there_and_back(chaos, origin, 2.0)
    _line(right, out[:, 0], out[:, 2], 0, lw=1.2)
    _line(right, back[:, 0], back[:, 2], 1, lw=1.2)
    right.plot(out[0, 0], out[0, 2], "o", color=style.colour(0), ms=7)
    right.plot(back[-1, 0], back[-1, 2], "s", color=style.colour(1), ms=7)
    right.set(xlabel="z₁", ylabel="z₃", title="Lorenz, t from 0 to 2 and back")
    left.legend(fontsize=8.5)
    plt.show()


def classifier(counts: list[tuple[int, int]], tests: dict[str, dict[int, float]]) -> None:
    """Evaluations per training step (mean over 10), and distance with other solvers at test time."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.3))
    mean = torch.tensor(counts, dtype=torch.float64).unfold(0, 10, 1).mean(-1)
    for j, name in enumerate(("forward", "backward, adjoint")):
        _line(left, range(10, len(counts) + 1), mean[:, j], j, name)
    left.set(xlabel="training step", ylabel="evaluations", ylim=(0, None))
    left.legend()
    for j, (name, off) in enumerate(tests.items()):
        _marked(right, list(off), list(off.values()), j, name)
    right.set(xscale="log", yscale="log", xlabel="steps at test time",
              ylabel="relative distance of logits")  # fmt: skip
    right.set_xticks(list(off), [str(n) for n in off])
    right.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    right.legend()
    plt.show()
