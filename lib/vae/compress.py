"""How much of a picture a bit buys: small autoencoders of the generated shapes, measured and stored.

    OMP_NUM_THREADS=1 python -m lib.vae.compress

trains one autoencoder at each weight of the divergence and one at each size of the codebook, all for
the same number of steps, and stores what they keep in `lib/weights` as `shapes_rates`: numbers and
pictures, no weights.
"""

import itertools
import math
import time

import torch
from torch import Tensor, nn

from lib import weights
from lib.data import shapes
from lib.data.reader import matches, read_attributes
from lib.recipe import _cpu
from lib.train import fit
from lib.vae.autoencoder import Autoencoder, KLAutoencoder
from lib.vae.elbo import kl_normal
from lib.vae.vq import VQAutoencoder

KL_WEIGHTS = (0.1, 3.0, 30.0, 300.0)
CODES = (4, 32, 256)
PIXELS = 32 * 32
SECOND = 0.25  # share of images with two shapes
WIDTH, SHOWN = 24, 5
SEEDS = 3  # one training is no measurement: at weight 300 errors differ by a third
MEASURES = ("rate", "entropy", "used", "error", "right")


class Rates(nn.Module):
    """What was measured of n models, KL_WEIGHTS first and then CODES, each trained from SEEDS starts.

    runs (SEEDS, n, 5): for each model, in this order,
        rate: bits per pixel, from the divergence KL(q || N(0, I)), or log2 K for each index;
        entropy: bits per pixel by the entropy of single indices; the rate again without indices;
        used: share of the codes that occur; of the latents, those with 0.01 nats at least;
        error: mean squared error of a value in [-1, 1], by decoding the mean of q or the codes;
        right: share of the attributes that the reader still reads rightly.
    The properties with these names are the means over the starts, (n,).
    pictures (SHOWN, 3, 32, 32), decoded (n, SHOWN, 3, 32, 32): levels 0 .. 255, of the first start.

    >>> Rates().errors.shape, Rates().rate.shape
    (torch.Size([3, 7]), torch.Size([7]))
    """

    def __init__(self):
        super().__init__()
        n = len(KL_WEIGHTS) + len(CODES)
        self.register_buffer("runs", torch.zeros(SEEDS, n, len(MEASURES)))
        self.register_buffer("pictures", torch.zeros(SHOWN, 3, 32, 32, dtype=torch.uint8))
        self.register_buffer("decoded", torch.zeros(n, SHOWN, 3, 32, 32, dtype=torch.uint8))

    def _mean(self, name: str) -> Tensor:
        return self.runs[:, :, MEASURES.index(name)].mean(0)

    rate = property(lambda self: self._mean("rate"))
    entropy = property(lambda self: self._mean("entropy"))
    used = property(lambda self: self._mean("used"))
    error = property(lambda self: self._mean("error"))
    right = property(lambda self: self._mean("right"))

    @property
    def errors(self) -> Tensor:
        """The error of each run, (SEEDS, n): their spread is that of one training."""
        return self.runs[:, :, MEASURES.index("error")]

    @property
    def psnr(self) -> Tensor:
        """10 log10(2^2 / error) in decibels, (n,): the peak is the whole range of 2."""
        return 10 * (4 / self.error).log10()


def images(n: int, generator: torch.Generator | None = None) -> Tensor:
    """n fresh images of one or two shapes in [-1, 1], (n, 3, 32, 32): never the same twice.

    >>> images(2).shape
    torch.Size([2, 3, 32, 32])
    """
    return 2 * shapes.sample(n, generator=generator, second=SECOND)[0] - 1


def trained(model: Autoencoder, steps: int, seed: int = 0) -> Autoencoder:
    """The model after `steps` updates on 32 fresh images each."""
    torch.manual_seed(seed)
    settings = dict(batch_size=32, lr=2e-3, clip=3e3, seed=seed, amp=torch.bfloat16)
    for _ in fit(model, images, steps=steps, **settings):
        pass
    return model


@torch.no_grad()
def measure(model: Autoencoder, x: Tensor, shown: shapes.Attributes) -> tuple[float, ...]:
    """rate, entropy, used, error and right of `Rates`, on images (B, 3, 32, 32) in [-1, 1]."""
    back = model.reconstruct(x)
    if isinstance(model, VQAutoencoder):
        k = model.indices(x)
        usage = model.quantizer.usage(k)
        positions = k[0].numel()
        rate, entropy = (model.quantizer.rate(positions, u) / PIXELS for u in (None, usage))
        used = usage.used
    else:
        mean, log_std = model.encode(x)
        nats = kl_normal(mean.reshape(-1, 1), log_std.reshape(-1, 1)).view_as(mean)
        rate = entropy = nats.sum((1, 2, 3)).mean().item() / math.log(2) / PIXELS
        used = (nats.mean(0) > 0.01).double().mean().item()
    read = read_attributes(((back + 1) / 2).clamp(0, 1).cpu())
    right = torch.stack([*matches(read, shown).values()]).nanmean().item()
    return rate, entropy, used, (back - x).square().mean().item(), right


def levels(x: Tensor) -> Tensor:
    """[-1, 1] -> 0 .. 255.

    >>> levels(torch.tensor([-1.0, 0.0, 1.0, 3.0]))
    tensor([  0, 128, 255, 255], dtype=torch.uint8)
    """
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def sweep(steps: int = 800) -> Rates:
    """Train and measure all of them."""
    rates, generator = Rates(), torch.Generator().manual_seed(10_000)
    attributes = shapes.sample_attributes(1_000, generator, second=SECOND)
    x = 2 * shapes.render(attributes) - 1
    rates.pictures.copy_(levels(x[:SHOWN]))
    makers = [lambda w=w: KLAutoencoder(width=WIDTH, kl_weight=w) for w in KL_WEIGHTS]
    makers += [lambda k=k: VQAutoencoder(width=WIDTH, codes=k, reseed=0.03) for k in CODES]
    for seed, (i, make) in itertools.product(range(SEEDS), enumerate(makers)):
        torch.manual_seed(seed)
        model = trained(make(), steps, seed)
        row = measure(model, x, attributes)
        rates.runs[seed, i] = torch.tensor(row)
        if seed == 0:
            rates.decoded[i].copy_(levels(model.reconstruct(x[:SHOWN])))
        print(seed, i, *(f"{value:.4f}" for value in row), flush=True)
    return rates


def main() -> None:
    """Run the sweep and store it."""
    begun = time.process_time()
    rates = weights.round_weights(sweep())
    card = {
        "recipe": "lib.vae.compress.sweep(steps=800)",
        "seed": list(range(SEEDS)),
        "data": "generated shapes, 32 x 32, a quarter of them two",
        "metrics": {"mean squared error": rates.error.tolist()},
        "kl_weights": list(KL_WEIGHTS),
        "codes": list(CODES),
        "seconds": round(time.process_time() - begun, 1),
        "device": _cpu(),
    }
    print(weights.save("shapes_rates", rates, card))


if __name__ == "__main__":
    main()
