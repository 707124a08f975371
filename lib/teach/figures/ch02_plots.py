"""The plots of chapter 2. They draw what they are given; the chapter computes it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def _level(ax, y: float, label: str | None = None) -> None:
    ax.axhline(y, color=style.colour(-1), lw=1, ls=":", label=label)


def pulses(simulate, ours: float) -> None:
    """Histograms of simulated pulses for two sources."""
    _, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    for j, (ax, theta) in enumerate(zip(axes, (2.0, 5.0), strict=True)):
        x = simulate(theta, 40_000)[-1]
        ax.hist(x, bins=np.arange(-1, 100, 0.1), density=True, color=style.colour(j), alpha=0.6)
        ax.axvline(ours, color=style.colour(-1), ls="--")
        ax.annotate("our pulse", (ours + 0.2, 0.36))
        ax.set(title=f"mean energy {theta:g} MeV", xlabel="pulse x (photons)")
        ax.set(xlim=(-1, 23), xticks=range(0, 23, 2))
    axes[0].set_ylabel("density of 40,000 pulses")
    plt.show()


def posteriors(theta, density, pulses) -> None:
    """Posterior of the source for several pulses, (len(theta), len(pulses))."""
    _, ax = plt.subplots()
    for j, x in enumerate(pulses):
        _line(ax, theta, density[:, j], j, f"x = {x}")
    ax.set(xlabel="mean energy of the source (MeV)", ylabel="posterior density", ylim=(0, None))
    ax.legend(title="one pulse")
    plt.show()


def area(z, prior, like) -> None:
    """Prior, likelihood, their product with its area, and the posterior."""
    joint = prior * like
    total = torch.trapezoid(joint, z)
    _, ax = plt.subplots()
    _line(ax, z, prior, 2, "prior p(z)")
    _line(ax, z, like, 3, "likelihood p(x | z)")
    label = f"their product: area {total:.3f} = p(x)"
    ax.fill_between(z, joint, color=style.colour(0), alpha=0.35, label=label)
    _line(ax, z, joint / total, 0, "product / area = posterior p(z | x)")
    ax.set(xlim=(-3.5, 3.5), ylim=(0, 1.25), xlabel="latent z", ylabel="density")
    ax.legend(fontsize=9.5, loc="upper left")
    plt.show()


def prior_samples(dims, rms, median, predicted) -> None:
    """Relative error and median of prior-sample estimates against the dimension."""
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    _line(left, dims, predicted, 0, "predicted, (2.6) and (2.7)")
    _line(left, dims, rms, 1, "measured, 200 repeats", ls="none", marker=style.marker(1))
    _level(left, 1, "error of an estimate of zero")
    thin = {"arrowstyle": "-", "lw": 0.7}
    left.annotate("all estimates ≈ 0", (24, 1), (13.5, 0.05), fontsize=9.5, arrowprops=thin)
    left.set(xlabel="dimension D", ylabel="relative error", ylim=(0.01, 1e5), yscale="log")
    left.legend()
    _line(right, dims, median, 2, ls="none", marker=style.marker(2))
    _level(right, 1, "unbiased: the mean is 1")
    right.set(xlabel="dimension D", ylabel="median estimate / p(x)", ylim=(1e-9, 10), yscale="log")
    right.legend(loc="lower left")
    plt.show()


def jensen() -> None:
    """Four weights on the logarithm; the log of their mean and the mean of their logs."""
    w, grid = np.array([0.25, 0.6, 1.4, 2.75]), np.linspace(0.12, 3.2, 200)
    low, high = np.log(w).mean(), np.log(w.mean())
    _, ax = plt.subplots()
    _line(ax, grid, np.log(grid), 0, "log")
    _line(ax, w, np.log(w), 1, "four weights, their logs", ls="none", marker=style.marker(1))
    _line(ax, [w.mean()] * 2, [low, high], 3, "difference", ls="-", lw=3)
    ax.plot([w.mean()] * 2, [-1.6, low], color=style.colour(-1), lw=1, ls="--")
    ax.plot([w.mean()] * 2, [low, high], "o", color=style.colour(3), ms=5)
    ax.annotate("mean weight", (w.mean() - 0.05, -1.5), fontsize=9.5, ha="right")
    thin = {"arrowstyle": "-", "lw": 0.7}
    ax.annotate("log of the mean", (w.mean(), high), (0.5, 0.8), arrowprops=thin)
    ax.annotate("mean of the logs", (w.mean(), low), (1.33, -0.62), arrowprops=thin)
    ax.set(xlabel="weight w", ylabel="log w", ylim=(-1.6, 1.3))
    ax.legend(loc="lower right", fontsize=9.5)
    plt.show()


def mean_field(Lam, target, path) -> None:
    """A correlated Gaussian posterior, its mean-field fit, and the path of coordinate ascent."""
    turn = torch.linspace(0, 2 * torch.pi, 200).to(Lam)
    circle = torch.stack([turn.cos(), turn.sin()])
    factor = torch.linalg.cholesky(Lam.inverse())
    _, ax = plt.subplots(figsize=(style.WIDTH, 4.0))
    for k, names in ((1, ("posterior", "best mean-field q")), (2, (None, None))):
        _line(ax, *(target[:, None] + k * factor @ circle), 0, names[0])
        _line(ax, *(target[:, None] + k * circle / Lam.diagonal().sqrt()[:, None]), 1, names[1])
    _line(ax, *path.T, 2, "coordinate ascent", marker=style.marker(2), ms=4, lw=1, ls="-")
    ax.plot(*target[:, None], "+", color=style.INK, ms=11, mew=1.5, label="mean of both", ls="none")
    # half-widths along z1: of the slice through the centre, and of the shadow on the axis
    for y, half, name in (
        (-1.7, Lam[0, 0] ** -0.5, r"$\pm 1/\sqrt{\Lambda_{11}}$, the slice"),
        (-2.3, Lam.inverse()[0, 0] ** 0.5, r"$\pm\sqrt{\Sigma_{11}}$, the shadow"),
    ):
        ends = [float(target[0] - half), float(target[0] + half)]
        ax.plot(ends, [y, y], color=style.colour(-1), marker="|", lw=1.2, ls="-")
        ax.annotate(name, (ends[1] + 0.1, y), fontsize=11, va="center")
    ax.set(
        xlabel="latent z₁", ylabel="latent z₂", aspect="equal", xlim=(-2.6, 4.7), ylim=(-2.7, 4.1)
    )
    ax.legend(fontsize=9.5, loc="upper left")
    plt.show()


def two_modes(z, posterior, fits) -> None:
    """A posterior with two modes and Gaussians (mean, log std) fitted to it."""
    fig, ax = plt.subplots(figsize=(style.WIDTH, 3.3))
    ax.fill_between(z, posterior, color=style.colour(0), alpha=0.25, label="posterior")
    for j, (name, (mean, log_std)) in enumerate(fits.items(), 1):
        density = (-0.5 * ((z - mean) / log_std.exp()) ** 2 - log_std).exp() / (2 * torch.pi) ** 0.5
        which, _, start = name.partition(", ")
        _line(
            ax,
            z,
            density,
            j,
            f"KL({which})".replace("||", "‖") + (f", from the {start}" if start else ""),
        )
    ax.set(xlim=(-4, 4), xlabel="latent z", ylabel="density", ylim=(0, None))
    fig.legend(loc="outside lower center", ncols=2, fontsize=9, columnspacing=1, handlelength=2.4)
    plt.show()


@torch.no_grad()
def amortised(x, z, maps) -> None:
    """Pairs of a model, and the band mean plus or minus two standard deviations of q for each map."""
    _, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    order = torch.linspace(-1.5, 6, 200).to(x)[:, None]
    for j, (ax, (name, f)) in enumerate(zip(axes, maps.items(), strict=True), 1):
        mean, log_std = f(order).unbind(1)
        pairs = "pairs (x, z)" if j == 1 else None
        _line(ax, x, z, -1, pairs, ls="none", marker=".", ms=3, alpha=0.4)
        _line(ax, order, mean, j, "mean of q", ls="-")
        low, high = mean - 2 * log_std.exp(), mean + 2 * log_std.exp()
        name2 = "± 2 standard deviations"
        ax.fill_between(order[:, 0], low, high, color=style.colour(j), alpha=0.25, label=name2)
        ax.set(title=name, xlabel="observation x", xlim=(-1.5, 6), ylim=(-3.5, 3))
        ax.legend(fontsize=8, loc="lower left")
    axes[0].set_ylabel("latent z")
    plt.show()


def training(curve, best: float) -> None:
    """log p(x) and ELBO on the validation part against updates, and the gap."""
    step, log_p, bound = np.array(curve).T
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    _level(left, best, "closed-form optimum")
    _line(left, step, log_p, 0, "log p(x)")
    _line(left, step, bound, 1, "ELBO")
    left.set(xlabel="update", ylabel="nats per image, validation", ylim=(-20, 32))
    left.legend()
    _line(right, step, log_p - bound, 3, ls="-")
    right.set(xlabel="update", ylabel="gap (nats per image)", yscale="log")
    ticks = [
        t
        for t in (0.2, 0.3, 0.5, 1, 2, 4, 8)
        if (log_p - bound).min() * 0.8 < t < (log_p - bound).max() * 1.2
    ]
    right.set_yticks(ticks, [f"{t:g}" for t in ticks])
    right.minorticks_off()
    plt.show()


def latent(codes, labels, real, drawn) -> None:
    """Digits at their posterior means, (N, 2); tiles of data above samples, (20, 64) and (40, 64)."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), width_ratios=(1, 1.25))
    for (x, y), d in zip(codes.tolist(), labels.tolist(), strict=True):
        left.text(x, y, str(d), color=style.colour(d), fontsize=8, ha="center", va="center")
    left.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), title="360 test digits")
    left.set(xlabel="posterior mean, z₁", ylabel="posterior mean, z₂")
    tiles = torch.cat([real, drawn]).detach().clamp(0, 1).view(6, 10, 8, 8)
    tiles = torch.nn.functional.pad(tiles, (0, 1, 0, 1), value=torch.nan)  # a gap of one pixel
    right.imshow(tiles.permute(0, 2, 1, 3).reshape(54, 90), cmap="gray_r", vmin=0, vmax=1)
    right.axhline(17, color=style.colour(1), lw=2)
    right.set(xticks=[], yticks=[8, 35], title="test digits and samples")
    right.set_yticklabels(["test data", "model"], rotation=90, va="center")
    right.tick_params(length=0)
    right.grid(False)
    right.spines[:].set_visible(False)
    plt.show()


def scales(kept, lost, posterior: float) -> None:
    """Scale of q against updates, with and without the entropy."""
    _, ax = plt.subplots(figsize=(style.WIDTH, 2.6))
    _line(ax, range(len(kept)), kept, 0, "with the entropy")
    _line(ax, range(len(lost)), lost, 1, "without")
    _level(ax, posterior, "posterior")
    ax.set(xlabel="update", ylabel="scale of q", yscale="log")
    ax.set_yticks([0.05, 0.1, 0.2, 0.5, 1], ["0.05", "0.1", "0.2", "0.5", "1"])
    ax.minorticks_off()
    ax.legend()
    plt.show()
