"""The plots of chapter 9. They draw what they are given; the chapter computes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.data.densities import GaussianMixture
from lib.diffusion import ExactDenoiser, Schedule
from lib.diffusion.elbo import Bound, posterior, transition

from .. import style


def _line(ax, x, y, j: int, label: str | None = None, **more) -> None:
    """Series j; a curve is never known by its colour alone."""
    ax.plot(x, y, **{"color": style.colour(j), "ls": style.dash(j), "label": label, **more})


def _framed(ax) -> None:
    ax.set(xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set(visible=True, color=style.FRAME)


def _grey(ax, image: Tensor) -> None:
    ax.imshow(image, cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    _framed(ax)


def strips(rows: Sequence[tuple[str, Sequence[Tensor]]], titles: Sequence[str]) -> None:
    """Rows of small pictures, each (1, C, H, W) or (C, H, W) in [-1, 1], with a name for each row.

    C is 1 or 3.
    """
    height = 1.15 if titles[0] else 1.0
    fig, axes = plt.subplots(
        len(rows), len(titles), figsize=(8.4, 8.4 / (len(titles) + 1) * len(rows) * height + 0.2)
    )
    for line, (name, pictures) in zip(axes.reshape(len(rows), -1), rows, strict=True):
        for ax, picture in zip(line, pictures, strict=True):
            image = picture.detach().cpu().float().reshape(picture.shape[-3:])
            if len(image) == 3:
                ax.imshow((image.permute(1, 2, 0) / 2 + 0.5).clamp(0, 1))
                _framed(ax)
            else:
                _grey(ax, image[0])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    for ax, title in zip(axes.reshape(len(rows), -1)[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
    plt.show()


def there_and_back(
    ts: Sequence[float], there: list[Tensor], back: list[Tensor], law: Callable
) -> None:
    """Paths of the chain and of the way back over the density at each time."""
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), sharey=True)
    x = torch.linspace(-3.5, 3.5, 187)
    p = torch.stack([law(t).log_prob(x[:, None]).exp() for t in ts], 1)
    for ax, paths, title in zip(
        axes, (torch.stack(there)[:, :14, 0], torch.stack(back)[:, :14, 0]),
        ("forward: noise is added", "back: guessed away"), strict=True,
    ):  # fmt: skip
        ax.pcolormesh(ts, x, p.sqrt(), cmap="Blues", vmin=0, vmax=1.2, rasterized=True)
        along = ts if title.startswith("forward") else ts[::-1]
        ax.plot(along, paths, color=style.INK, ls="-", lw=0.7, alpha=0.7)
        ax.set(xlabel="time t (0 data, 1 noise)", title=title, ylim=(-3.5, 3.5))
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes[0].set_ylabel("x")
    plt.show()


def reverse_laws(
    mixture: GaussianMixture, schedule: Schedule, x_t: float, t: float, earlier: Sequence[float]
) -> None:
    """The exact law of x_s given x_t, and the Gaussian of a step back."""
    fig, axes = plt.subplots(1, len(earlier), figsize=(8.6, 2.7))
    y = torch.linspace(-1.9, 1.9, 801)
    point = torch.tensor([[x_t]])
    guess = ExactDenoiser(mixture, schedule)(point, t)
    for ax, s in zip(axes, earlier, strict=True):
        a, v = transition(schedule, t, s)
        log = mixture.noised(schedule.alpha(s), schedule.sigma(s)).log_prob(y[:, None])
        p = (log - 0.5 * (x_t - a * y) ** 2 / v).softmax(0) / (y[1] - y[0])
        mean, var = posterior(schedule, point, guess, t, s)
        q = torch.exp(-0.5 * (y - mean[0]) ** 2 / var) / math.sqrt(2 * math.pi * var)
        _line(ax, y, p, 0, "exact")
        _line(ax, y, q, 1, "Gaussian step")
        ax.set(
            xlabel="$x_s$",
            title=f"from t = {t:g} to s = {s:g}",
            ylim=(0, None),
            yticks=[],
            xticks=(-1, 0, 1),
        )
    axes[0].set_ylim(top=1.3 * axes[0].get_ylim()[1])  # room for the legend
    axes[0].set_ylabel("density, own scale")
    axes[0].legend(fontsize=8)
    plt.show()


def gaps(bounds: dict[int, Bound], truth: Tensor) -> None:
    """The gap of the bound against the number of steps, and the three parts."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2))
    counts = list(bounds)
    gap = [(b.total - truth).mean().item() for b in bounds.values()]
    _line(left, counts, gap, 0, "gap of the bound", marker="o")
    left.plot(counts, [gap[-1] * counts[-1] / c for c in counts], ":", color=style.INK, lw=1,
              label="like 1/T")  # fmt: skip
    left.legend(fontsize=8)
    left.set(xscale="log", yscale="log", xlabel="steps T", ylabel="gap, nats")
    left.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    left.set_xticks(counts, [str(c) for c in counts])
    left.minorticks_off()
    few = counts[::2]
    for j, name in enumerate(("steps", "reconstruction", "total")):
        values = [getattr(bounds[c], name).mean().item() for c in few]
        place = [k + 0.27 * (j - 1) for k in range(len(few))]
        bars = right.bar(place, values, 0.25, color=style.colour(j), label=name)
        for bar in bars:
            bar.set_hatch(("", "//", "..")[j])
            bar.set_edgecolor("white")
    right.axhline(truth.mean().item(), color=style.INK, ls="--", lw=1, label="truth")
    right.axhline(0, color=style.INK, lw=0.6, ls="-")
    right.set_xticks(range(len(few)), [f"T = {c}" for c in few])
    right.set(ylabel="nats")
    right.legend(fontsize=8)
    plt.show()


def weights(schedules: dict[str, Schedule], mixture: GaussianMixture) -> None:
    """Weights of the noise levels, and the least error of the noise, over log_snr."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.0))
    grid = torch.linspace(-12, 12, 241)
    left.plot(grid, torch.full_like(grid, 1 / 24), color=style.INK, ls=":", label="the bound")
    for j, (name, schedule) in enumerate(schedules.items()):
        low, high = schedule.log_snr(1.0), schedule.log_snr(1e-4)
        inside = [v.item() for v in grid if low < v < high]
        rate = [-1 / schedule.log_snr_rate(schedule.time_of(v)) for v in inside]
        _line(left, inside, rate, j, f"simple loss, {name}")
    left.set(
        xlabel="log signal-to-noise ratio λ", ylabel="weight", ylim=(0, 0.22)
    )  # room for the legend
    left.legend(fontsize=8, loc="upper right")
    schedule, errors = next(iter(schedules.values())), []
    y = torch.linspace(-6, 6, 4_001, dtype=torch.float64)[:, None]
    for v in grid[::4]:  # SNR E Var[x | y], by quadrature: a sample would leave its own error
        t = schedule.time_of(v.item())
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        p = mixture.noised(alpha, sigma).log_prob(y).exp()
        spread = mixture.posterior(y, alpha, sigma).cov()[:, 0, 0]
        errors.append(v.exp().item() * torch.trapezoid(p * spread, y[:, 0]).item())
    _line(right, grid[::4], errors, 2)
    right.set(
        xlabel="log signal-to-noise ratio λ", ylabel=r"least $E|\varepsilon - \hat\varepsilon|^2$"
    )
    plt.show()


def sheet(images: Tensor, rows: int) -> Tensor:
    """Images (N, 1, 8, 8) in column order as one picture with white lines between."""
    framed = F.pad(images.view(-1, rows, 8, 8), (1, 1, 1, 1), value=-1)
    return framed.permute(1, 2, 0, 3).reshape(10 * rows, -1)


def trained(curve: list[tuple], here: Tensor, there: Tensor) -> None:
    """Losses, and samples of two models: 40 images each, four of each label in turn."""
    _, panels = plt.subplot_mosaic([["loss", "here"], ["loss", "there"]], figsize=(8.6, 4.1),
                                   width_ratios=(1, 1.55))  # fmt: skip
    axes = [panels[name] for name in ("loss", "here", "there")]
    steps, losses, valid = zip(*curve, strict=True)
    smooth = torch.tensor(losses).unfold(0, 20, 20).mean(1)
    _line(axes[0], range(20, 20 * len(smooth) + 1, 20), smooth, 0, "training")
    held = [(s, v) for s, v in zip(steps, valid, strict=True) if v is not None]
    axes[0].plot(*zip(*held, strict=True), "s", color=style.colour(1), ms=4, label="held out")
    axes[0].set(xlabel="update", ylabel="simple loss", ylim=(0.1, 0.3))
    axes[0].legend(fontsize=8)
    for ax, images, title in zip(axes[1:], (here, there), ("trained here", "stored"), strict=True):
        _grey(ax, sheet(images, 4))
        ax.set_title(title, fontsize=10)
    plt.show()


def reach(
    counts: Sequence[int], found: dict[str, list], floor: float, shown: dict[str, Tensor]
) -> None:
    """Distances to the data against the number of steps, and some samples.

    Samples have the colour of the curve with their name; those of no curve are grey.
    """
    fig, axes = plt.subplot_mosaic([["d", "0", "1"], ["d", "2", "3"]], figsize=(8.8, 4.0),
                                   width_ratios=(1.7, 1, 1))  # fmt: skip
    looks = {name: {"marker": style.marker(j), "ms": 5} for j, name in enumerate(found)}
    # the last two nearly coincide: an open marker lets the one below be seen
    looks[list(looks)[-1]] |= {"mfc": "none", "ms": 8}
    for j, (name, values) in enumerate(found.items()):
        _line(axes["d"], counts, values, j, name, **looks[name])
    axes["d"].axhline(floor, color=style.INK, ls=":", lw=1, label="two sets of data")
    axes["d"].set(xscale="log", yscale="log", xlabel="steps", ylabel="sliced Wasserstein distance")
    axes["d"].set_xticks(list(counts), [str(c) for c in counts])
    axes["d"].set_yticks([0.03, 0.05, 0.1, 0.2, 0.4], ["0.03", "0.05", "0.1", "0.2", "0.4"])
    axes["d"].minorticks_off()
    axes["d"].legend(fontsize=8.5)
    for k, (name, points) in enumerate(shown.items()):
        ax = axes[str(k)]
        colour = style.colour(list(found).index(name)) if name in found else "0.4"
        ax.plot(*points[:2_000].T, ".", ms=1.2, color=colour, rasterized=True)
        ax.set(xlim=(-4.5, 4), ylim=(-3.5, 4), xticks=(-3, 0, 3), yticks=(-3, 0, 3), aspect="equal")
        ax.set(xlabel="x₁" if k > 1 else "", ylabel="" if k % 2 else "x₂")
        ax.tick_params(labelsize=8, labelbottom=k > 1, labelleft=k % 2 == 0)
        ax.set_title(name, fontsize=9)
    plt.show()
