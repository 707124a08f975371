"""A RealNVP of two moons small enough to run inside a page.

`python -m lib.train moons-realnvp --mode full` stores its weights.
"""

import torch
from torch import nn

from lib.data.densities import moons
from lib.flows.builders import realnvp
from lib.flows.coupling import AffineCoupling
from lib.flows.flow import Flow
from lib.flows.transform import Compose, Transform
from lib.recipe import Recipe, store, train
from lib.train import Draws
from lib.utils import seeded, sum_dims

NAME, LAYERS, WIDTH = "moons_realnvp", 8, 24


def moons_flow(seed: int = 0) -> Flow:
    """The model of the stored weights: `lib.weights.load("moons_realnvp", moons_flow())`.

    >>> sum(p.numel() for p in moons_flow().parameters())
    5584
    """
    with seeded(seed):
        return Flow(realnvp(2, LAYERS, WIDTH, limit=1.0, activation=nn.SiLU), 2)


def layers_from_base(flow: Flow) -> list[AffineCoupling]:
    """The couplings in the order in which `from_base` applies them: layer 1 first.

    >>> len(layers_from_base(moons_flow()))
    8
    """
    return list(flow.transform.transforms)[::-1]


class Partly(Transform):
    """A share t in [0, 1] of an affine coupling: x_b = exp(t log_scale) z_b + t shift.

    The identity at t = 0, the coupling at t = 1, a coupling in between: to show one layer at work.

    >>> half = Partly(layers_from_base(moons_flow())[0], 0.5)
    >>> half.from_base(torch.ones(3, 2))[1].shape
    torch.Size([3])
    """

    def __init__(self, coupling: AffineCoupling, share: float):
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], got {share}")
        self.shape, self.coupling, self.share = coupling.shape, coupling, share

    def _part(self, a):
        log_scale, shift = self.coupling.scale_and_shift(a, None)
        return self.share * log_scale, self.share * shift

    def to_base(self, x, context=None):
        self.check(x, context)
        a, b = self.coupling.split(x)
        log_scale, shift = self._part(a)
        return self.coupling.join(a, (b - shift) * torch.exp(-log_scale)), -sum_dims(log_scale)

    def from_base(self, z, context=None):
        self.check(z, context)
        a, b = self.coupling.split(z)
        log_scale, shift = self._part(a)
        return self.coupling.join(a, b * torch.exp(log_scale) + shift), sum_dims(log_scale)


def first_layers(flow: Flow, k: float) -> Transform:
    """The first k layers next to the base, the last of them in part where k is no whole number.

    >>> first_layers(moons_flow(), 2.5).from_base(torch.ones(3, 2))[0].shape
    torch.Size([3, 2])
    """
    layers = layers_from_base(flow)
    if not 0 <= k <= len(layers):
        raise ValueError(f"k must be between 0 and {len(layers)}, got {k}")
    whole = int(k)
    parts = layers[:whole] + ([Partly(layers[whole], k - whole)] if k > whole else [])
    return Compose(*reversed(parts or [Partly(layers[0], 0.0)]))


class Near(nn.Module):
    """The flow's loss, and 0.02 times the squared distance of what leaves [-2.5, 2.5]^2 between layers.

    Left alone, the first layers blow the plane up and the last ones shrink it: as likely, not as clear.

    >>> Near(moons_flow())(torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    def __init__(self, flow: Flow):
        super().__init__()
        self.flow = flow

    def forward(self, x, context=None):
        between, total, far = x, 0.0, 0.0
        for layer in self.flow.transform.transforms:
            far = far + (between.abs() - 2.5).relu().square().sum(1)
            between, logabsdet = layer.to_base(between)
            total = total + logabsdet
        return 0.02 * far - self.flow.base.log_prob(between) - total


def moons_realnvp(steps: int = 4_000, seed: int = 0) -> Recipe:
    """Two moons by eight couplings, kept near the plane: half a minute of one core; stored."""
    density = moons()
    draws = Draws(lambda n, generator: density.sample(n, generator=generator).float(), seed)
    settings = dict(steps=steps, batch_size=512, lr=3e-3, clip=5.0, ema=0.99, seed=seed)
    return Recipe(Near(moons_flow(seed)), draws, settings)


def main(argv: list[str] | None = None) -> None:
    """Train on fresh draws, round, measure on 50,000 others, store."""
    run = train({NAME: moons_realnvp}, main.__doc__, argv)
    run, density = run._replace(model=run.model.flow.cpu()), moons()
    generator = torch.Generator().manual_seed(run.args.seed + 1)
    x = density.sample(50_000, generator=generator).double()
    with torch.no_grad():
        nll = float(run.model.double()(x).mean())
    run.model.float()
    metrics = {"part": "50,000 fresh draws", "unit": "nats", "nll": round(nll, 4)}
    metrics["entropy"] = round(float(density.entropy()), 4)
    seconds = {"wall": run.wall, "processor": run.processor}
    store(run, "lib.flows.moons", "moons", metrics, seconds)


if __name__ == "__main__":
    main()
