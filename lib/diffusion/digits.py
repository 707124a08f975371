"""Diffusion of the 8 x 8 digits: a network for few and small images, trained in the book.

    recipe = digits()
    for update in fit(recipe.model, recipe.train, **recipe.fit):
        ...

The stored `ddpm_digits` goes on for longer; it fits the model of `digits_model()`, and is made by

    python -m lib.train ddpm-digits --mode full
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.data import images
from lib.diffusion.denoiser import Denoiser, Diffusion
from lib.diffusion.elbo import Bound, chain_elbo
from lib.diffusion.schedule import Cosine, Schedule
from lib.nets import Linear
from lib.recipe import Recipe, store, train
from lib.unet import time_embedding
from lib.utils import expand_as_batch, full_precision, measuring

N_LEVELS = images.LEVELS["digits"]
NO_LABEL = 10  # beside the labels 0 to 9
DECODE_AT = (
    0.02  # the chain ends at noise of three tenths of a grey level, and then come the levels
)


def to_unit(levels: Tensor) -> Tensor:
    """Levels 0 .. 16 to -1 .. 1, where DDPM has its pixels.

    >>> to_unit(torch.tensor([0.0, 8.0, 16.0]))
    tensor([-1.,  0.,  1.])
    """
    return images.to_unit(levels, N_LEVELS)


def to_levels(x: Tensor) -> Tensor:
    """The nearest level, uint8: (B, ...) -> the same shape.

    >>> to_levels(torch.tensor([-1.0, 0.0, 1.0, 1.2]))
    tensor([ 0,  8, 16, 16], dtype=torch.uint8)
    """
    return ((x.clamp(-1, 1) + 1) * (N_LEVELS - 1) / 2).round().to(torch.uint8)


def labelled(split: str) -> tuple[Tensor, Tensor]:
    """The digits of a split in [-1, 1], (N, 1, 8, 8), and their labels (N,).

    >>> labelled('test')[0].shape
    torch.Size([360, 1, 8, 8])
    """
    levels, labels = images.digits(split)
    return to_unit(levels), labels


class DigitNet(nn.Module):
    """x_hat of 8 x 8 digits: net(x_t, t, context), (B, 1, 8, 8) -> (B, 1, 8, 8).

    What one pixel alone tells is exact: given how often each grey level occurs there in training,
    Bayes' rule gives mean and standard deviation of the clean pixel. A residual network that sees
    all pixels corrects the mean, in units of the deviation. Where the noise is smaller than the
    step between two levels nothing is left to correct, which a plain network is slow to find out.

    Args:
        schedule: variance preserving; the denoiser's own.
        levels: (N, 1, 8, 8), integers, to count the levels of; None leaves the counts to be loaded.

    >>> net = DigitNet(Cosine(), width=8)
    >>> net(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5)).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        schedule: Schedule,
        levels: Tensor | None = None,
        width: int = 256,
        blocks: int = 3,
        dropout: float = 0.4,
        embedding: int = 64,
    ):
        super().__init__()
        self.schedule, self.embedding, self.dropout = schedule, embedding, dropout
        counts = torch.ones(1, 8, 8, N_LEVELS)
        if levels is not None:  # a tenth of an image keeps unseen levels possible
            counts = F.one_hot(levels.long(), N_LEVELS).sum(0) + 0.1
        self.register_buffer("log_prior", (counts / counts.sum(-1, keepdim=True)).log())
        self.register_buffer("grid", to_unit(torch.arange(N_LEVELS)), persistent=False)
        self.time = nn.Sequential(nn.Linear(embedding, 128), nn.SiLU(), nn.Linear(128, 128))
        self.label = nn.Embedding(NO_LABEL + 1, 128)
        self.first, self.last = Linear(3 * 64, width), Linear(width, 64)
        self.blocks = nn.ModuleList([Block(width, 128, dropout) for _ in range(blocks)])
        self.last.weight.data.mul_(0.1)

    def alone(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each clean pixel given its noisy value: like x, both."""
        wide = t.double()
        alpha, sigma = (
            expand_as_batch(f(wide), x)[..., None]
            for f in (self.schedule.alpha, self.schedule.sigma)
        )
        grid = self.grid.to(x)
        with full_precision(x):  # a difference of close numbers
            log = self.log_prior - (x[..., None] - alpha * grid).square() / (2 * sigma * sigma)
            p = log.softmax(-1)
            mean = p @ grid
            return mean, (p @ grid.square() - mean * mean).clamp_min(1e-12).sqrt()

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            context = torch.full((len(x),), NO_LABEL, device=x.device)
        mean, std = self.alone(x, t)
        e = self.time(time_embedding(t, self.embedding).to(x.dtype))
        e = F.silu(e + self.label(context))
        h = self.first(torch.cat([x, mean, std], 1).flatten(1))
        for block in self.blocks:
            h = block(h, e)
        return mean + std * self.last(F.silu(h)).view_as(x)


class Block(nn.Module):
    """h + a small network of h whose units are scaled and shifted by time and label.

    >>> Block(4, 3, dropout=0.0)(torch.ones(2, 4), torch.ones(2, 3)).shape
    torch.Size([2, 4])
    """

    def __init__(self, width: int, embedding: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.scale = nn.Linear(embedding, 2 * width)
        self.inner, self.outer = Linear(width, width), Linear(width, width)
        self.outer.weight.data.mul_(0.1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.scale(e).chunk(2, 1)
        inner = F.silu(self.inner(F.silu(self.norm(h) * (1 + scale) + shift)))
        return h + self.outer(self.dropout(inner))


def digits_model(seed: int = 0, weight: str = "eps", counted: Tensor | None = None) -> Diffusion:
    """The model of the stored `ddpm_digits`: `lib.weights.load("ddpm_digits", digits_model())`.

    Cosine schedule, labels 0 to 9, NO_LABEL (10) or no context at all for none.
    """
    torch.manual_seed(seed)
    schedule = Cosine(10.0)
    denoiser = Denoiser(DigitNet(schedule, counted), schedule, predict="x")
    return Diffusion(denoiser, 1, 8, 8, weight=weight, drop=0.15, null=NO_LABEL)


def digits(steps: int = 900, weight: str = "eps", seed: int = 0) -> Recipe:
    """1,257 digits in 15 seconds of one core, by DDPM's simple loss (or `weight`'s).

    Dropout, averaged weights and the validation part keep them from being learnt by heart.
    """
    (x, labels), (held, held_labels) = labelled("train"), labelled("valid")
    model = digits_model(seed, weight, images.digits("train")[0])
    settings = dict(steps=steps, batch_size=128, lr=2e-3, ema=0.995, seed=seed, context=labels)
    settings |= dict(valid=(held.repeat(4, 1, 1, 1), held_labels.repeat(4)), valid_every=100)
    return Recipe(model, x, settings)


def ddpm_digits(steps: int = 2_500, seed: int = 0) -> Recipe:
    """8 x 8 digits for half a minute of one core; the stored `ddpm_digits`."""
    return digits(steps, seed=seed)


def measure(
    model: Diffusion,
    steps: int = 200,
    split: str = "test",
    with_labels: bool = False,
    variance: str = "posterior",
    seed: int = 0,
) -> Bound:
    """The bound of each image of a split in bits per dimension, in its parts, (N,) each.

    Times equally spaced in log_snr down to DECODE_AT, where the levels are decoded. An upper bound
    of the bits that the integer levels cost, with the labels given or not.
    """
    x, labels = labelled(split)
    device = next(model.parameters()).device
    context = labels.to(device) if with_labels else None
    ts = model.denoiser.schedule.log_snr_times(steps - 1, DECODE_AT)
    how = dict(levels=N_LEVELS, variance=variance)
    with measuring(model, seed):
        bound = chain_elbo(model.denoiser, x.to(device), ts, context, **how)
    return bound.bits(64)


def main(argv: list[str] | None = None) -> None:
    """Train, round, measure, store weights and card."""
    run = train({"ddpm_digits": ddpm_digits}, main.__doc__, argv)
    steps = 10 if run.quick else 1_000
    bound, known = (measure(run.model, steps, with_labels=known) for known in (False, True))
    metrics = {
        "part": "test",
        "unit": f"bits per dimension, upper bound, {steps} steps",
        "bits": bound.total.mean().item(),
        "stderr": bound.total.std().item() / len(bound.total) ** 0.5,
        "bits given the label": known.total.mean().item(),
        "parts": {k: v.mean().item() for k, v in bound._asdict().items()},
    }
    store(run, "lib.diffusion.digits", "digits", metrics, run.processor)


if __name__ == "__main__":
    main()
