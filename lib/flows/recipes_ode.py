"""Continuous flows trained in the book: which field, which data, which settings of `fit`.

    recipe = moons()
    for update in fit(recipe.model, recipe.train, **recipe.fit):
        ...
    set_solver(recipe.model, rtol=1e-5, atol=1e-5)  # training is looser

From the command line, which keeps the weights; `cnf_mnist` is for a GPU:

    BOOK_DATA=... python -m lib.train cnf-mnist --mode full
"""

import torch

from lib.data.base import Density
from lib.data.densities import eight_gaussians
from lib.data.toys import moons as two_moons
from lib.flows import Affine, Compose, Flow, Logit
from lib.flows.continuous import Continuous, FieldNet, RegularisedFlow, set_solver
from lib.flows.field import ConvField
from lib.flows.linear import start
from lib.flows.recipes import Pixels, measure
from lib.recipe import Recipe, store, train
from lib.utils import check_count, measuring

TRAINING = dict(rtol=1e-3, atol=1e-3)


def plane_flow(width: int = 96, depth: int = 2, **how) -> Flow:
    """A flow of the plane: an affine map, then the ODE. The stored `cnf_moons` and `cnf_eight`.

    >>> plane_flow(width=8)(torch.zeros(3, 2)).shape
    torch.Size([3])
    """
    return Flow(Compose(Affine(2), Continuous(FieldNet(2, width, depth), **how)), 2)


def moons(steps: int = 500, seed: int = 0, batch_size: int = 256) -> Recipe:
    """Two moons in ten seconds of one core: exact trace."""
    return _plane(two_moons(), steps, seed, batch_size)


def eight(steps: int = 500, seed: int = 0, batch_size: int = 256) -> Recipe:
    """Eight Gaussians on a ring in ten seconds of one core: exact trace."""
    return _plane(eight_gaussians(), steps, seed, batch_size)


def cnf_moons(steps: int = 2_000, seed: int = 0) -> Recipe:
    """Two moons, longer: three minutes of one core; the stored `cnf_moons`."""
    return moons(steps, seed, batch_size=512)


def cnf_eight(steps: int = 2_000, seed: int = 0) -> Recipe:
    """Eight Gaussians, longer: two minutes of one core; the stored `cnf_eight`."""
    return eight(steps, seed, batch_size=512)


def _plane(density: Density, steps: int, seed: int, batch_size: int) -> Recipe:
    torch.manual_seed(seed)
    model = plane_flow(**TRAINING)
    model.transform.transforms[0].init_from(density.sample(5_000))
    settings = dict(steps=steps, batch_size=batch_size, lr=2e-2, clip=10.0, seed=seed)
    return Recipe(model, density.sample, settings)


def digits(
    steps: int = 600, width: int = 256, trace: str = "exact", seed: int = 0, **how
) -> Recipe:
    """8 x 8 digits as vectors, in logit space: 20 s of one core.

    Two hidden layers, whose exact trace costs one product more, whatever D is: cheaper than
    Hutchinson's estimate, and without its noise. The validation part chooses among the averaged
    weights: 1,257 images are learnt by heart otherwise.
    """
    torch.manual_seed(seed)
    pixels = Pixels("digits", flat=True)
    ode = Continuous(FieldNet(64, width, 2), trace=trace, **dict(rtol=1e-2, atol=1e-2) | how)
    model = Flow(Compose(*_head(pixels), ode), 64)
    settings = dict(steps=steps, batch_size=128, lr=5e-3, clip=10.0, ema=0.99, seed=seed)
    return Recipe(model, pixels, settings | dict(valid=pixels.held(copies=2), valid_every=50))


def mnist(steps: int = 30_000, width: int = 64, seed: int = 0) -> Recipe:
    """Dequantised MNIST, for a GPU: two ODEs of convolutions, Hutchinson, RNODE's regularisers."""
    torch.manual_seed(seed)
    pixels = Pixels("mnist")
    how = dict(trace="hutchinson", **TRAINING)
    parts = [Continuous(ConvField(1, width), **how) for _ in range(2)]
    transform = Compose(*_head(pixels), *parts)
    model = RegularisedFlow(transform, 1, 28, 28, kinetic=0.01, jacobian=0.01)
    settings = dict(steps=steps, batch_size=200, lr=1e-3, clip=10.0, ema=0.999, seed=seed)
    return Recipe(model, pixels, settings | dict(valid=pixels.held(), valid_every=1_000))


def _head(pixels: Pixels) -> tuple[Logit, Affine]:
    """Logits, and an affine map that gives every pixel mean 0 and variance 1."""
    logit, affine = Logit(0.05), Affine(*pixels.shape)
    start(Compose(logit, affine), pixels(min(5_000, len(pixels.train))))
    return logit, affine


@torch.no_grad()
def measure_plane(
    model: Flow, density: Density, n: int = 20_000, seed: int = 1
) -> dict[str, float]:
    """Mean -log p in nats on fresh samples, how far it is above the entropy, and the latter's error.

    The difference is the mean of log p_true - log p on the same points, whose noise is far
    smaller than that of either mean.

    >>> from lib.flows.elementwise import Affine
    >>> sorted(measure_plane(Flow(Affine(2), 2), two_moons(), n=50))
    ['-log p', 'above the entropy', 'stderr']
    """
    check_count(n, "n", 2)
    x = density.sample(n, torch.Generator().manual_seed(seed))
    with measuring(model, seed):
        nats = torch.cat([model(part).double() for part in x.split(2_000)])
    gap = density.log_prob(x).double() + nats
    above, error = gap.mean().item(), gap.std().item() / n**0.5
    return {"-log p": density.entropy() + above, "above the entropy": above, "stderr": error}


PLANE = {"moons": two_moons, "eight": eight_gaussians}


def main(argv: list[str] | None = None) -> None:
    """Train one of the recipes, measure it after rounding, store weights and card."""
    from lib.flows.autoregressive_recipes import moons_maf, moons_spline  # measured alike

    own = (cnf_moons, cnf_eight, moons, eight, digits, mnist)
    recipes = {f.__name__: f for f in (*own, moons_maf, moons_spline)}
    run = train(recipes, main.__doc__, argv)
    name, model = run.args.recipe, run.model
    data = name.removeprefix("cnf_").split("_")[0]
    if data in PLANE:
        if recipes[name] in own:
            set_solver(model, rtol=1e-5, atol=1e-5)
        n = 500 if run.quick else 20_000
        metrics = {"part": f"{n:,} fresh points", "unit": "nats"}
        metrics |= measure_plane(model.to("cpu"), PLANE[data](), n)
    else:
        set_solver(model, rtol=1e-4, atol=1e-4)
        pixels, few = run.recipe.train, 8 if run.quick else None
        bits, error = measure(model, pixels.part("test")[:few], pixels.n_levels, draws=1)
        metrics = {"part": "test", "unit": "bits per dimension", "bits": bits, "stderr": error}
    module = recipes[name].__module__.replace("__main__", "lib.flows.recipes_ode")
    stored = name if "_" in name else f"cnf_{name}"  # as lib.train.catalogue calls it
    store(run, module, data, metrics, run.processor, stored)


if __name__ == "__main__":
    main()
