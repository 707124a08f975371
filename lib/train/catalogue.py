"""Every recipe of the book by name: which module trains it, what it is to reach, where it stands."""

import difflib
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from lib import weights

CORE, GPU = "one core", "a GPU"


class Entry(NamedTuple):
    """A recipe: its module has `main(argv)`, in whose command line it is called `own`.

    >>> ENTRIES["digits_maf"].chapter
    5
    """

    module: str
    own: str
    chapter: int
    machine: str
    about: str
    found: tuple[str, ...] = ()  # where its number is in the metrics on its card
    unit: str = ""
    target: str = ""  # what it is compared with, and where that is from

    @property
    def main(self) -> Callable[[list[str]], None]:
        return importlib.import_module(self.module).main


class Standing(NamedTuple):
    """What has been measured of a recipe.

    >>> standing("moons_realnvp").card["data"]
    'moons'
    """

    value: float
    card: dict[str, Any]


FLOWS, ODE, VAE = "lib.flows.recipes", "lib.flows.recipes_ode", "lib.vae.recipes"
IMAGES, SHAPES, QUALITY = "lib.diffusion.recipes", "lib.diffusion.shapes", "lib.quality"
BITS, NATS = "bits per dimension", "nats (minus the bound)"
GRATHWOHL = "[Grathwohl et al. (2019)](references.md#grathwohl2019)"
BOUND, ABOVE = ("-elbo of all",), ("above the entropy",)
IMPORTANCE = "-log p, 500 samples"


def _gpu(module: str, own: str, chapter: int, about: str, *more) -> Entry:
    return Entry(module, own, chapter, GPU, about, *more)


def _core(module: str, own: str, chapter: int, about: str, *more) -> Entry:
    return Entry(module, own, chapter, CORE, about, *more)


ENTRIES: dict[str, Entry] = {
    # chapter 3
    "digits_vae": _core(VAE, "digits_vae", 3, "VAE of the 8 × 8 digits", BOUND, NATS),
    "digits_plane": _core(
        "lib.vae.sweep", "digits_plane", 3, "the same with two latents", ("-elbo",), NATS
    ),
    "mnist_small": _core(
        VAE, "mnist_small", 3, "binarised MNIST, 0.74M parameters", BOUND, NATS
    ),
    "mnist_plain": _gpu(
        VAE, "mnist_plain", 3, "binarised MNIST, Gaussian posterior", BOUND, NATS,
        f"86.55, {GRATHWOHL}, table 3",
    ),
    "mnist_conv": _gpu(
        VAE, "mnist_conv", 3, "binarised MNIST, residual convolutions", (IMPORTANCE,),
        "nats, by importance sampling", "our goal: below 82",
    ),
    "mnist_hierarchical": _gpu(
        VAE, "mnist_hierarchical", 3, "binarised MNIST, three levels", (IMPORTANCE,),
        "nats, by importance sampling", "our goal: below 82",
    ),
    # chapter 4
    "moons_realnvp": _core(
        "lib.flows.moons", "moons_realnvp", 4, "two moons by eight couplings", ("nll",),
        "nats; the entropy is 2.3939",
    ),
    "digits_realnvp": _core(FLOWS, "digits_realnvp", 4, "8 × 8 digits, RealNVP", ("bits",), BITS),
    "digits_glow": _core(FLOWS, "digits_glow", 4, "8 × 8 digits, Glow", ("bits",), BITS),
    "mnist_realnvp": _gpu(
        FLOWS, "mnist_realnvp", 4, "MNIST, multiscale RealNVP", ("bits",), BITS,
        f"1.06, {GRATHWOHL}, table 2",
    ),
    "mnist_glow": _gpu(
        FLOWS, "mnist_glow", 4, "MNIST, Glow", ("bits",), BITS, f"1.05, {GRATHWOHL}, table 2"
    ),
    "cifar10_realnvp": _gpu(
        FLOWS, "cifar10_realnvp", 4, "CIFAR-10, RealNVP of the published size", ("bits",), BITS,
        "3.49, [Dinh et al. (2017)](references.md#dinh2017), table 1",
    ),
    # chapter 5
    "moons_maf": _core(ODE, "moons_maf", 5, "two moons, five affine maps", ABOVE, "nats above the entropy"),
    "moons_spline": _core(
        ODE, "moons_spline", 5, "two moons, two splines", ABOVE, "nats above the entropy"
    ),
    "digits_maf": _core(FLOWS, "digits_maf", 5, "8 × 8 digits, MAF", ("bits",), BITS),
    "digits_spline": _core(FLOWS, "digits_spline", 5, "8 × 8 digits, splines", ("bits",), BITS),
    "digits_iaf": _core(VAE, "digits_iaf", 5, "digits VAE, IAF posterior", BOUND, NATS),
    "mnist_maf": _gpu(
        FLOWS, "mnist_maf", 5, "MNIST, MAF(5)", ("bits",), BITS,
        "1.89, [Papamakarios et al. (2017)](references.md#papamakarios2017), table 2, converted",
    ),
    "mnist_iaf": _gpu(
        VAE, "mnist_iaf", 5, "binarised MNIST, IAF posterior", BOUND, NATS,
        f"84.20, {GRATHWOHL}, table 3",
    ),
    # chapter 6
    "digits_planar": _core(VAE, "digits_planar", 6, "digits VAE, planar posterior", BOUND, NATS),
    "mnist_planar": _gpu(
        VAE, "mnist_planar", 6, "binarised MNIST, planar posterior", BOUND, NATS,
        f"86.06, {GRATHWOHL}, table 3",
    ),
    # chapter 8
    "cnf_moons": _core(ODE, "cnf_moons", 8, "two moons by an ODE", ABOVE, "nats above the entropy"),
    "cnf_eight": _core(
        ODE, "cnf_eight", 8, "eight Gaussians by an ODE", ABOVE, "nats above the entropy"
    ),
    "cnf_digits": _core(ODE, "digits", 8, "8 × 8 digits by an ODE", ("bits",), BITS),
    "cnf_mnist": _gpu(
        ODE, "mnist", 8, "MNIST by two ODEs of convolutions", ("bits",), BITS,
        f"1.05 for a single flow, {GRATHWOHL}, table 2",
    ),
    # chapters 9 to 12
    "ddpm_digits": _core(
        "lib.diffusion.digits", "ddpm_digits", 9, "diffusion of the 8 × 8 digits", ("bits",), BITS
    ),
    "ddpm_mnist": _core(
        IMAGES, "mnist", 9, "diffusion of MNIST", ("bits per dimension", "elbo"),
        "bits per dimension (100 images)",
    ),
    "ddpm_fashion_mnist": _core(
        IMAGES, "fashion_mnist", 9, "diffusion of Fashion-MNIST", ("bits per dimension", "elbo"),
        "bits per dimension (100 images)",
    ),
    "ddpm_shapes": _core(
        SHAPES, "ddpm_shapes", 9, "diffusion of large shapes by kind",
        ("share of 400 samples with the shape asked for",), "share of the shapes asked for",
    ),
    "ddpm_cifar10": _gpu(
        IMAGES, "cifar10", 9, "diffusion of CIFAR-10, 35.8M parameters",
        ("bits per dimension", "flow"), "bits per dimension, probability flow",
        "3.28 for DDPM read as an ODE, [Song et al. (2021)](references.md#song2021), official code",
    ),
    "autoencoder_shapes": _core(
        SHAPES, "autoencoder_shapes", 12, "the autoencoder below latent-shapes",
        ("mean squared error of a value in [-1, 1]",), "mean squared error",
    ),
    "latent_shapes": _core(
        SHAPES, "latent_shapes", 12, "captions to latents", ("w = 3", "images"),
        "share of images all right, w = 3",
    ),
    "pixel_shapes": _core(
        SHAPES, "pixel_shapes", 12, "captions to pixels", ("w = 3", "images"),
        "share of images all right, w = 3",
    ),
    # the networks that judge samples
    **{
        f"classifier_{name}": _core(
            QUALITY, name, 9, f"the classifier that judges samples of {data}",
            ("accuracy, test",), "test accuracy",
        )
        for name, data in (
            ("digits", "the 8 × 8 digits"), ("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST")
        )
    },
}  # fmt: skip


def find(name: str) -> str:
    """The recipe meant by `name`: hyphens or underscores, and its words in any order.

    Raises:
        ValueError: there is none; the message names similar ones.

    >>> find("maf-digits")
    'digits_maf'
    """
    wanted = name.lower().replace("-", "_")
    same = [n for n in ENTRIES if sorted(n.split("_")) == sorted(wanted.split("_"))]
    if wanted in ENTRIES or len(same) == 1:
        return wanted if wanted in ENTRIES else same[0]
    near = ", ".join(difflib.get_close_matches(wanted, ENTRIES, 3, 0.4)) or "--list names all"
    raise ValueError(f"no recipe is called {name!r}; near: {near}")


def standing(name: str) -> Standing | None:
    """What the card beside the stored weights says, or None where nothing was stored.

    >>> standing("moons_realnvp").value > 2.3939  # nats; the entropy cannot be passed
    True
    """
    if not (weights.FOLDER / f"{name}.json").is_file():
        return None
    card = weights.card(name)
    value = card["metrics"]
    for key in ENTRIES[name].found:
        value = value[key]
    return Standing(float(value), card)


def table() -> str:
    """One line for each recipe: what it is, where it belongs, and where it stands.

    >>> table().splitlines()[0].split(":")[0]
    'digits_vae               chapter 3  one core  VAE of the 8 × 8 digits'
    """
    lines = []
    for name, entry in ENTRIES.items():
        at = standing(name)
        said = f"{at.value:.4g} {entry.unit}" if at else "not stored"
        lines.append(
            f"{name:24} chapter {entry.chapter:<2} {entry.machine:8}  {entry.about}: {said}"
        )
    return "\n".join(lines)
