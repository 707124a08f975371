"""Every public name of `lib`, and the few that no fuzz test or doctest needs, with the reason."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatch
from types import CodeType

from api import public

__all__ = ["EXCUSED", "codes", "excused", "name_of", "public"]


def named(module: str, names: str) -> list[str]:
    return [f"{module}.{name}" for name in names.split()]


def name_of(what: Callable) -> str:
    return f"{what.__module__}.{what.__qualname__}"


def codes(what: Callable) -> set[CodeType]:
    """The code of a function, or of everything that a class writes; of a NamedTuple also of `__new__`."""
    parts = vars(what).items() if inspect.isclass(what) else [("", what)]
    found = set()
    for name, part in parts:
        part = getattr(part, "fget", None) or getattr(part, "__func__", part)
        if inspect.isfunction(part) and (part.__module__ == what.__module__ or name == "__new__"):
            found.add(inspect.unwrap(part).__code__)
    return found


# What no fuzz test covers, by name: a new function beside these is not excused with them. Only where
# nothing but the ending says what it is, it is a pattern of `fnmatch`.
EXCUSED = {
    "trains for minutes: its arguments are counts and a seed, and `fit`, the data and the model are fuzzed": (
        *named("lib.quality", "classifier_recipe"),
        *named("lib.flows.moons", "moons_realnvp"),
        *named(
            "lib.flows.recipes",
            "digits_realnvp digits_glow mnist_realnvp mnist_glow cifar10_realnvp",
        ),
        *named("lib.flows.recipes_ode", "moons eight cnf_moons cnf_eight digits mnist"),
        *named(
            "lib.flows.autoregressive_recipes", "moons_maf moons_spline digits_maf digits_spline"
        ),
        *named("lib.flows.autoregressive_recipes", "mnist_maf digits_iaf mnist_iaf"),
        *named("lib.flows.posteriors", "digits_planar mnist_planar"),
        *named(
            "lib.vae.recipes", "digits_vae mnist_small mnist_plain mnist_conv mnist_hierarchical"
        ),
        *named("lib.vae.sweep", "digits_beta beta_sweep digits_plane keep_sweep"),
        *named("lib.vae.compress", "trained sweep"),
        *named("lib.diffusion.digits", "digits ddpm_digits"),
        *named("lib.diffusion.recipes", "mnist fashion_mnist cifar10"),
        *named("lib.diffusion.shapes", "autoencoder_shapes latent_shapes pixel_shapes ddpm_shapes"),
        *(
            name
            for data in ("digits", "plane")
            for name in named(
                f"lib.results.{data}",
                "gaussian realnvp spline maf maf_spline iaf planar cnf ffjord vae vae_iaf hvae "
                "diffusion latent",
            )
        ),
        *named("lib.results.run", "run reference plan"),
    ),
    "builds the full-size model of a recipe from a seed alone; its network is fuzzed in small": (
        *named("lib.vae.recipes", "mnist_small_model"),
        *named("lib.vae.sweep", "plane_model"),
        *named("lib.diffusion.digits", "digits_model"),
        *named("lib.diffusion.recipes", "small_model cifar10_model"),
        *named(
            "lib.diffusion.shapes",
            "autoencoder_model caption_net latent_model pixel_model ddpm_model",
        ),
    ),
    "measures a stored model for many seconds by functions that are fuzzed": (
        *named("lib.vae.compress", "measure"),
        *named("lib.diffusion.digits", "measure"),
        *named("lib.diffusion.measures", "measure_samples measure_bits measure"),
        *named("lib.diffusion.obedience", "Obedience obedience"),
        *named("lib.diffusion.shapes", "measure"),
        *named("lib.results.digits", "flow_reading latent_reading diffusion_readings"),
        *named("lib.results.plane", "diffusion_readings"),
        *named("lib.results.protocol", "measure sample_quality"),
    ),
    "a command line": ("*.main",),
    "reads or fetches a data set; tests/data damages the files and the mirrors": (
        *named("lib.data.files", "read find idx cifar_batch binarized restricted_unpickle"),
        *named("lib.data.fetch", "TooSlow NoMirror fetch alone"),
        *named("lib.data.images", "digits mnist fashion_mnist cifar10 binarized_mnist"),
        *named("lib.diffusion.digits", "labelled"),
        *named("lib.diffusion.recipes", "LabelledPixels"),
    ),
}


def excused(name: str, reasons: dict[str, tuple[str, ...]]) -> str | None:
    """Why a name is left out, or None."""
    return next((r for r, names in reasons.items() if any(fnmatch(name, n) for n in names)), None)
