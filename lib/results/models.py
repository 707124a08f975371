"""The rows of the table: which models there are, in which chapter, and what trains them."""

from collections.abc import Callable
from typing import NamedTuple

from lib.results import digits, plane
from lib.results.training import Trained

SEEDS = (0, 1, 2)


class Entry(NamedTuple):
    """A row. `training` names the function of `digits` and of `plane` that trains it."""

    title: str
    family: str
    chapter: int
    training: str


MODELS = {
    "gaussian": Entry("Gaussian", "baseline", 1, "gaussian"),
    "vae": Entry("VAE", "latent variables", 3, "vae"),
    "hvae": Entry("hierarchical VAE", "latent variables", 3, "hvae"),
    "vae_iaf": Entry("VAE, IAF posterior", "latent variables", 5, "vae_iaf"),
    "realnvp": Entry("RealNVP", "flow", 4, "realnvp"),
    "spline": Entry("spline coupling", "flow", 4, "spline"),
    "maf": Entry("MAF", "flow", 5, "maf"),
    "maf_spline": Entry("spline MAF", "flow", 5, "maf_spline"),
    "iaf": Entry("IAF", "flow", 5, "iaf"),
    "planar": Entry("planar flow", "flow", 6, "planar"),
    "cnf": Entry("neural ODE flow", "continuous flow", 8, "cnf"),
    "ffjord": Entry("FFJORD", "continuous flow", 8, "ffjord"),
    "ddpm": Entry("DDPM", "diffusion", 9, "diffusion"),
    "sde": Entry("score SDE", "diffusion", 10, "diffusion"),
    "ode": Entry("probability flow", "diffusion", 11, "diffusion"),
    "latent": Entry("latent diffusion", "diffusion", 12, "latent"),
}
FAMILIES = tuple(dict.fromkeys(entry.family for entry in MODELS.values()))
TRAININGS = tuple(dict.fromkeys(entry.training for entry in MODELS.values()))


def trainer(data: str, training: str) -> Callable[..., Trained]:
    """The function (seed, share of the steps) -> Trained for a data set."""
    modules = {"digits": digits, "plane": plane}
    if data not in modules or training not in TRAININGS:
        raise ValueError(
            f"there are the data {', '.join(modules)} and the trainings {', '.join(TRAININGS)}; "
            f"got {data!r} and {training!r}"
        )
    return getattr(modules[data], training)
