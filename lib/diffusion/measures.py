"""What is measured of a stored diffusion model of images: sample quality, time, bits per dimension.

Measured again, for weights that are stored already (the card is rewritten):

    BOOK_DATA=... python -m lib.diffusion.measures mnist --bits 100
"""

import argparse
import math
import time
from typing import Any

import torch
from torch import Tensor

from lib import weights
from lib.data.images import to_unit
from lib.diffusion.denoiser import Diffusion
from lib.diffusion.recipes import LabelledPixels, _spread, small_model
from lib.quality import SIZES, classifier, frechet_distance, precision_recall
from lib.utils import check_count, measuring


@torch.no_grad()
def draw(
    model: Diffusion, labels: Tensor, steps: int = 50, seed: int = 0, batch: int = 100
) -> Tensor:
    """One sample for each label, by DDPM's ancestral steps, in parts: (N,) -> (N, C, H, W).

    >>> from lib.diffusion.digits import digits_model
    >>> draw(digits_model(), torch.tensor([3, 5]), steps=2).shape
    torch.Size([2, 1, 8, 8])
    """
    with measuring(model, seed):
        return torch.cat([model.sample(len(part), part, steps) for part in labels.split(batch)])


@torch.no_grad()
def quality(real: Tensor, fake: Tensor, name: str) -> dict[str, float]:
    """Frechet distance, precision and recall (k = 3) on the features of our classifier `name`.

    Images (N, 1, H, W) in [-1, 1]; compare only values from equal N. Not an FID.

    >>> x = torch.rand(10, 1, 8, 8)
    >>> quality(x, x, "digits")["recall"]
    1.0
    """
    net = classifier(name).to(real.device)
    a, b = (net.features(x.clamp(-1, 1)) for x in (real, fake))
    shares = precision_recall(a, b)
    return {"frechet": frechet_distance(a, b), **shares._asdict()}


@torch.no_grad()
def measure_samples(
    model: Diffusion, pixels: LabelledPixels, n: int = 1_000, steps: int = 50
) -> dict[str, Any]:
    """`quality` of n samples against n test images, with labels and without, and of real images.

    "real images" is what training images with the labels of the test images score, and so do the
    samples with labels; those without have shares of the classes of their own.
    """
    device, net = next(model.parameters()).device, classifier(pixels.name)
    real, labels = (v.to(device) for v in pixels.held("test", n))
    train = to_unit(_with_labels(*pixels.part("train"), labels.cpu()), pixels.n_levels).to(device)
    conditional = draw(model, labels, steps)
    free = draw(model, torch.full_like(labels, model.null), steps)
    return {
        "part": "test",
        "images": len(real),
        "steps": steps,
        "with labels": quality(real, conditional, pixels.name),
        "without labels": quality(real, free, pixels.name),
        "real images": quality(real, train, pixels.name),
        "share whose label our classifier confirms": net.to(device).accuracy(conditional, labels),
    }


def _with_labels(images: Tensor, have: Tensor, want: Tensor) -> Tensor:
    """Images with the labels `want`, in that order, drawn at random, none twice.

    At random because MNIST is not in random order: neighbours were often drawn by one hand.
    """
    order = torch.randperm(len(have), generator=torch.Generator().manual_seed(0))
    found = torch.empty(len(want), dtype=torch.long)
    for label in want.unique():
        rows = want == label
        found[rows] = order[have[order] == label][: rows.sum()]
    return images[found]


def seconds_for(model: Diffusion, n: int = 16, steps: int = 50) -> float:
    """Wall-clock seconds for n samples, the smallest of three: other work on the machine counts.

    >>> from lib.diffusion.digits import digits_model
    >>> seconds_for(digits_model(), n=1, steps=1) > 0
    True
    """
    labels = (torch.arange(n) % 10).to(next(model.parameters()).device)
    times = []
    with torch.random.fork_rng():
        for _ in range(3):
            start = time.perf_counter()
            model.sample(n, labels, steps).cpu()
            times.append(time.perf_counter() - start)
    return min(times)


@torch.no_grad()
def measure_bits(
    model: Diffusion, pixels: LabelledPixels, n: int, seed: int = 0, log_snr: float = 11.0
) -> dict[str, Any]:
    """Bits per dimension of n test images and their labels, twice; both are upper bounds.

    "elbo": a chain of 1000 steps, evenly spaced in log-SNR from t = 1 to `log_snr`, where it
    decodes levels; 64 random steps are computed for each image. "flow": the density of the
    probability flow, from the same time, of uniformly dequantised images (Hutchinson's trace).

    Raises:
        ValueError: n is below 2, or the model's schedule does not reach `log_snr`.
    """
    from lib.diffusion.elbo import chain_elbo
    from lib.diffusion.likelihood import flow_bits

    device, schedule = next(model.parameters()).device, model.denoiser.schedule
    levels, labels = pixels.part("test")
    i = _spread(check_count(n, "n", 2), len(levels))  # one has no standard error
    last = schedule.time_of(log_snr)
    x, labels = to_unit(levels[i], pixels.n_levels).to(device), labels[i].to(device)
    ts, k = schedule.log_snr_times(1_000, last), pixels.n_levels
    how = dict(t0=last, trace="hutchinson", rtol=1e-3, atol=1e-3)
    with measuring(model, seed):
        parts = [
            chain_elbo(model.denoiser, part, ts, c, levels=k, draws=64).total
            for part, c in zip(x.split(100), labels.split(100), strict=True)
        ]
        flow = flow_bits(model.denoiser, x, k, labels, **how).double()
    elbo = torch.cat(parts).double() / (x[0].numel() * math.log(2))
    found = {"images": len(x), "log-SNR at the end": log_snr}
    for name, bits in (("elbo", elbo), ("flow", flow)):
        found[name] = bits.mean().item()
        found[f"{name}, standard error"] = bits.std().item() / len(bits) ** 0.5
    return found


def measure(
    model: Diffusion, pixels: LabelledPixels, bits: int = 0, n: int = 1_000, steps: int = 50
) -> dict[str, Any]:
    """All of it; sample quality where there is a classifier, bits of `bits` test images if any."""
    found = measure_samples(model, pixels, n, steps) if pixels.name in SIZES else {}
    found[f"seconds for 16 images in {steps} steps"] = round(seconds_for(model, 16, steps), 2)
    return found | (_bits(model, pixels, bits) if bits else {})


def _bits(model: Diffusion, pixels: LabelledPixels, bits: int) -> dict[str, Any]:
    return {"bits per dimension": measure_bits(model, pixels, bits)}


def main(argv: list[str] | None = None) -> None:
    """Measure stored weights again and rewrite their card."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=("mnist", "fashion_mnist"))
    parser.add_argument("--bits", type=int, default=0, help="test images for bits per dimension")
    parser.add_argument("--only-bits", action="store_true", help="leave the rest as it is")
    parser.add_argument("--folder", default=str(weights.FOLDER))
    args = parser.parse_args(argv)
    if args.bits < 0 or args.bits == 1:
        parser.error(f"--bits is 0, or 2 images at least for a standard error; got {args.bits}")
    if args.only_bits and not args.bits:
        parser.error("--only-bits needs --bits: of how many images?")
    stored, model, pixels = f"ddpm_{args.name}", small_model(), LabelledPixels(args.name)
    card = weights.load(stored, model, folder=args.folder)
    find = _bits if args.only_bits else measure
    card["metrics"] |= find(model, pixels, args.bits)
    print(card["metrics"], weights.save(stored, model, card, folder=args.folder))


if __name__ == "__main__":
    main()
