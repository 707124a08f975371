"""Every public name of `lib`, and the few that no fuzz test or doctest needs, with the reason."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatch
from types import CodeType

from api import public

__all__ = ["EXCUSED", "codes", "excused", "name_of", "public"]


def name_of(what: Callable) -> str:
    return f"{what.__module__}.{what.__qualname__}"


def codes(what: Callable) -> set[CodeType]:
    """The code of a function, or of everything that a class defines."""
    parts = vars(what).values() if inspect.isclass(what) else [what]
    found = set()
    for part in parts:
        part = getattr(part, "fget", None) or getattr(part, "__func__", part)
        if inspect.isfunction(part):
            found.add(inspect.unwrap(part).__code__)
    return found


# What no fuzz test covers. Names of functions may be patterns of `fnmatch`.
EXCUSED = {
    "trains for minutes, or measures a stored model: its inputs are seeds and counts, and what it is "
    "made of is fuzzed": (
        "lib.train.*",
        "lib.recipe.*",
        "lib.quality.classifier_recipe",
        "lib.flows.moons.moons_realnvp",
        "*.recipes.*",
        "lib.flows.autoregressive_recipes.*",
        "lib.flows.recipes_ode.*",
        "lib.flows.posteriors.*",
        "lib.flows.energy.anneal",
        "lib.vae.sweep.*",
        "lib.vae.compress.*",
        "lib.diffusion.digits.*",
        "lib.diffusion.shapes.*",
        "lib.diffusion.measures.*",
        "lib.diffusion.obedience.*",
        "lib.results.digits.*",
        "lib.results.plane.*",
        "lib.results.models.*",
        "lib.results.run.*",
        "lib.results.training.*",
        "lib.results.protocol.measure",
        "lib.results.protocol.sample_quality",
    ),
    "a command line": ("*.main",),
    "reads or fetches a data set; tests/data damages the files and the mirrors": (
        "lib.data.files.*",
        "lib.data.fetch.*",
        "lib.data.images.digits",
        "lib.data.images.*mnist",
        "lib.data.images.cifar10",
    ),
    "says how a number is shown": ("lib.results.table.Metric",),
}


def excused(name: str, reasons: dict[str, tuple[str, ...]]) -> str | None:
    """Why a name is left out, or None."""
    return next((r for r, names in reasons.items() if any(fnmatch(name, n) for n in names)), None)
