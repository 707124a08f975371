"""The two small trainings behind chapter 3's explorable figures: a sweep over beta, and a plane of digits.

    OMP_NUM_THREADS=1 python -m lib.vae.sweep

(the plane alone: `python -m lib.train digits-plane --mode full`) trains both from fixed seeds, measures them on the test digits, and stores the numbers and pictures
that the figures show in `lib/weights`: `digits_beta` (measurements and pictures, no weights) and
`digits_plane` (a model). The steps and the learning rate of the sweep were chosen on the validation part, at beta 1,
after a first sweep of 600 steps, measured on the test part as well, had turned out too short.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib import weights
from lib.data.images import LEVELS, digits
from lib.recipe import Recipe, _cpu, store, train
from lib.train import fit
from lib.utils import check_count
from lib.vae.likelihoods import DiscretisedLogistic
from lib.vae.nets import mlp_decoder, mlp_encoder
from lib.vae.recipes import measure_bound
from lib.vae.vae import VAE

BETAS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
SHOWN = (0, 2, 3, 5, 8)  # the classes whose first test digit is reconstructed
SHAPE = (1, 8, 8)


class Sweep(nn.Module):
    """What `beta_sweep` measured, as buffers: what a file of weights can hold.

    betas, rate, distortion (n,): nats per test digit, averaged; active (n,): latent dimensions with
    a mean divergence above 0.1 nat; digits (5, 8, 8), reconstructions and samples (n, 5, 8, 8): grey
    values 0 .. 255, the samples decoded from the same 5 draws of the prior at each beta.

    >>> Sweep(3).samples.shape
    torch.Size([3, 5, 8, 8])
    """

    def __init__(self, n: int = len(BETAS)):
        super().__init__()
        check_count(n, "n")
        for name in ("betas", "rate", "distortion"):
            self.register_buffer(name, torch.zeros(n))
        self.register_buffer("active", torch.zeros(n, dtype=torch.int64))
        grey = lambda *lead: torch.zeros(*lead, 8, 8, dtype=torch.uint8)  # noqa: E731
        self.register_buffer("digits", grey(len(SHOWN)))
        self.register_buffer("reconstructions", grey(n, len(SHOWN)))
        self.register_buffer("samples", grey(n, len(SHOWN)))

    @property
    def elbo(self) -> Tensor:
        """-(rate + distortion), (n,): the bound itself, whatever beta was trained with."""
        return -(self.rate + self.distortion)


def digits_beta(
    beta: float, latent: int = 10, width: int = 64, steps: int = 1800, seed: int = 0
) -> Recipe:
    """A small VAE of the 8 x 8 digits, trained on recon - beta kl; 10 to 20 s of one core."""
    torch.manual_seed(seed)
    likelihood = DiscretisedLogistic(LEVELS["digits"])
    model = VAE(
        mlp_encoder(SHAPE, 2 * latent, width),
        mlp_decoder(latent, SHAPE, likelihood.channels, width),
        likelihood,
        latent,
        kl_weight=beta,
    )
    train, valid = (digits(part)[0].float() for part in ("train", "valid"))
    settings = dict(steps=steps, batch_size=128, lr=6e-3, clip=50.0, ema=0.99, valid=valid)
    return Recipe(model, train, settings | dict(valid_every=100, seed=seed, progress=False))


def beta_sweep(
    betas: Sequence[float] = BETAS, seed: int = 0, steps: int = 1800, latent: int = 10
) -> Sweep:
    """One VAE for each beta from the same seed, measured on the test digits.

    rate is E_q KL(q(z | x) || p(z)) and distortion is -E_q log p(x | z), 8 samples for each digit.
    Raises ValueError without betas, or for a negative one.
    """
    if not betas or not all(b >= 0 for b in betas):
        raise ValueError(f"betas are numbers of 0 or more, at least one, got {betas!r}")
    out = Sweep(len(betas))
    test, labels = digits("test")
    test = test.float()
    rows = [int((labels == k).nonzero()[0]) for k in SHOWN]
    out.digits.copy_(_grey(test[rows]))
    noise = torch.randn(len(SHOWN), latent, generator=torch.Generator().manual_seed(seed + 1))
    for k, beta in enumerate(betas):
        recipe = digits_beta(beta, latent=latent, steps=steps, seed=seed)
        model = _trained(recipe)
        found = measure_bound(model, test, seed)
        out.betas[k], out.rate[k], out.distortion[k] = beta, found["kl"], found["-recon"]
        with torch.no_grad():
            out.active[k] = (model.kl_dims(test).mean(0) > 0.1).sum()
        out.reconstructions[k] = _grey(model.reconstruct(test[rows]))
        out.samples[k] = _grey(model.sample(len(SHOWN), noise=noise, mean=True))
    return out


def plane_model(seed: int = 0) -> VAE:
    """The network of `digits_plane`, for the stored weights: `lib.weights.load("digits_plane", it)`."""
    torch.manual_seed(seed)
    likelihood = DiscretisedLogistic(LEVELS["digits"])
    decoder = mlp_decoder(2, SHAPE, likelihood.channels, 64)
    return VAE(mlp_encoder(SHAPE, 4, 64), decoder, likelihood, 2)


def digits_plane(steps: int = 3000, seed: int = 0) -> Recipe:
    """A VAE of the 8 x 8 digits with two latent dimensions, small enough to run inside a page."""
    train, valid = (digits(part)[0].float() for part in ("train", "valid"))
    settings = dict(steps=steps, batch_size=128, lr=3e-3, clip=50.0, ema=0.99, valid=valid)
    settings |= dict(valid_every=100, seed=seed, progress=False)
    return Recipe(plane_model(seed), train, settings)


def _trained(recipe: Recipe) -> VAE:
    for _ in fit(recipe.model, recipe.train, **recipe.fit):
        pass
    return recipe.model


def _grey(levels: Tensor) -> Tensor:
    """Levels (B, 1, 8, 8) -> (B, 8, 8) uint8, white on black."""
    return (levels[:, 0] / (LEVELS["digits"] - 1) * 255).clamp(0, 255).round().to(torch.uint8)


def main(argv: list[str] | None = None) -> None:
    """Train, round, measure and store `digits_plane`."""
    run = train({"digits_plane": digits_plane}, main.__doc__, argv)
    found = measure_bound(run.model, digits("test")[0].float().to(run.args.device))
    seconds = {"wall": run.wall, "processor": run.processor}
    metrics = {"part": "test", "unit": "nats"} | found
    store(run, "lib.vae.sweep", "digits", metrics, seconds)


def keep_sweep() -> None:
    """Train, measure and store `digits_beta`."""
    wall, cpu = time.perf_counter(), time.process_time()
    sweep = beta_sweep()
    seconds = {"wall": time.perf_counter() - wall, "processor": time.process_time() - cpu}
    names = ("betas", "rate", "distortion", "elbo", "active")
    found = {name: [round(v, 4) for v in getattr(sweep, name).tolist()] for name in names}
    card = {
        "recipe": "lib.vae.sweep.beta_sweep()",
        "seed": 0,
        "data": "digits",
        "metrics": {"part": "test", "unit": "nats"} | found,
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "device": _cpu(),
    }
    print(card, weights.save("digits_beta", sweep, card, dtype=torch.float32), flush=True)


if __name__ == "__main__":
    main(["--mode", "full"])
    keep_sweep()
