"""How good are samples of images: distances on the features of a small classifier of our own.

    net = classifier("mnist")
    real, fake = net.features(test_images), net.features(samples)
    frechet_distance(real, fake), precision_recall(real, fake)

The published "FID" is this Frechet distance on the features of one certain Inception network, and
its numbers hold for that network only. Ours come from networks of 80,602 weights (of 11,482 for
`digits`) that are stored here; they compare models with each other and with real images, and with
nothing else.
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.data import images
from lib.data.images import LEVELS, to_unit
from lib.recipe import Recipe, store, train
from lib.utils import check_batch, check_count

SIZES = {"mnist": 28, "fashion_mnist": 28, "digits": 8}


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Between the Gaussians with the means and covariances of features (N, F) and (M, F), squared.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), which is W_2 squared between those Gaussians
    (Dowson and Landau 1982; Heusel et al. 2017, equation 6). Computed in float64.

    It is biased upwards, the more the fewer samples there are: compare only values from equal N and
    M, and beside the value between two sets of real images of those sizes.

    >>> a = torch.tensor([[0.0], [2.0]])
    >>> frechet_distance(a, a + 3)
    9.0
    """
    a, b = _pair(a, b)
    for x, name in ((a, "a"), (b, "b")):
        if len(x) < 2:
            raise ValueError(f"a covariance needs at least 2 samples, {name} has {len(x)}")
    return frechet_gaussians(a.mean(0), a.mT.cov(), b.mean(0), b.mT.cov())


def frechet_gaussians(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """The same for given means (F,) and covariances (F, F), which may be singular.

    >>> zero, eye = torch.zeros(2), torch.eye(2)
    >>> frechet_gaussians(zero, eye, zero, 4 * eye)  # twice (2 - 1)^2
    2.0
    """
    # a small difference of large traces
    mean_a, cov_a, mean_b, cov_b = (v.double() for v in (mean_a, cov_a, mean_b, cov_b))
    F = len(mean_a)
    cov_a, cov_b = cov_a.view(F, F), cov_b.view(F, F)  # of one feature, torch's is a number
    # tr (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2). No root of the product,
    # which is not symmetric, is taken: its rounding errors can make it complex.
    root_a, root_b = _root(cov_a), _root(cov_b)
    cross = torch.linalg.svdvals(root_a @ root_b).sum()
    value = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(value.item(), 0.0)


def _root(cov: Tensor) -> Tensor:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp_min(0).sqrt() @ vectors.mT


class PrecisionRecall(NamedTuple):
    """Two shares between 0 and 1.

    >>> PrecisionRecall(0.9, 0.5).recall
    0.5
    """

    precision: float  # of the fake samples, those that lie among the real ones: quality
    recall: float  # of the real samples, those that lie among the fake ones: coverage


@torch.no_grad()
def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of features (N, F) and (M, F), by k nearest neighbours.

    "Among the real ones" means within the distance of some real sample's k-th nearest other real
    sample. Kynkaanniemi et al. (2019), equations 1 and 2. Both depend on N, M and k.

    >>> real = torch.arange(6.0)[:, None]
    >>> precision_recall(real, real[:4] + 0.1, k=1)
    PrecisionRecall(precision=1.0, recall=0.8333333333333334)
    """
    check_count(k, "k")
    real, fake = _pair(real, fake)
    if min(len(real), len(fake)) <= k:
        raise ValueError(
            f"{k} nearest others need more than {k} samples, got {len(real)} and {len(fake)}"
        )
    return PrecisionRecall(_share_within(fake, real, k), _share_within(real, fake, k))


def _share_within(points: Tensor, of: Tensor, k: int) -> float:
    """The share of `points` in the union of balls around `of` that reach its k-th neighbours."""
    exact = "donot_use_mm_for_euclid_dist"  # the fast way loses the distances of near points
    # the smallest distance is the point's own, 0
    radius = torch.cat(
        [torch.cdist(part, of, compute_mode=exact).kthvalue(k + 1).values for part in of.split(500)]
    )
    inside = [
        (torch.cdist(part, of, compute_mode=exact) <= radius).any(1) for part in points.split(500)
    ]
    return torch.cat(inside).double().mean().item()


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    for x, name in ((a, "the first features"), (b, "the second features")):
        check_batch(x, name=name)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features must be (N, F) and (M, F), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a.double(), b.double()


class Classifier(nn.Module):
    """Two convolutions and 48 features: calling it gives the cross-entropy in nats, (B,).

    Images are (B, 1, size, size) with values in [-1, 1]; labels (B,) int64.

    >>> Classifier(size=8).logits(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, size: int = 28, width: int = 16, features: int = 48, classes: int = 10):
        super().__init__()
        self.size = size
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(2 * width * (size // 4) ** 2, features),
            nn.SiLU(),
        )
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(x), labels, reduction="none")

    def logits(self, x: Tensor) -> Tensor:
        """(B, 1, size, size) -> (B, classes)."""
        return self.head(self._features(x))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What the last layer reads, without gradients, in parts: (N, 1, size, size) -> (N, 48)."""
        return torch.cat([self._features(part) for part in x.split(500)])

    def _features(self, x: Tensor) -> Tensor:
        check_batch(x, finite=False)
        if x.shape[1:] != (1, self.size, self.size):
            raise ValueError(
                f"this classifier reads images (B, 1, {self.size}, {self.size}), "
                f"got shape {tuple(x.shape)}"
            )
        return self.body(x)

    @torch.no_grad()
    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """The share of images whose most probable label is right."""
        check_count(len(x), "the number of images")
        guess = torch.cat([self.logits(part).argmax(1) for part in x.split(500)])
        return (guess == labels).double().mean().item()


def classifier(name: str) -> Classifier:
    """The stored classifier for "mnist", "fashion_mnist" or "digits", in eval mode.

    Its test accuracy is in `lib.weights.card("classifier_" + name)`.

    >>> classifier('digits').features(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 48])
    """
    from lib import weights

    if name not in SIZES:
        raise ValueError(f"there is a classifier for {', '.join(SIZES)}; got {name!r}")
    with torch.random.fork_rng([]):  # its first weights are thrown away
        model = Classifier(SIZES[name])
    weights.load(f"classifier_{name}", model)
    return model


def scaled(levels: Tensor, n_levels: int, noise: torch.Generator | None = None) -> Tensor:
    """Level k as 2 k / (n - 1) - 1, with uniform noise one level wide: integers -> [-1, 1] and a bit.

    >>> scaled(torch.tensor([0, 16]), 17).abs().max() < 1.1
    tensor(True)
    """
    return to_unit(levels, n_levels, torch.rand(levels.shape, generator=noise).to(levels.device))


def classifier_recipe(name: str, steps: int | None = None, seed: int = 0) -> Recipe:
    """The training of `classifier(name)`."""
    torch.manual_seed(seed)
    levels, labels = getattr(images, name)("train")
    n_levels, steps = LEVELS[name], steps or (1_500 if name == "digits" else 4_000)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        i = torch.randint(len(levels), (n,))
        return scaled(levels[i], n_levels), labels[i]

    model = Classifier(SIZES[name])
    held, kinds = getattr(images, name)("valid")
    settings = dict(steps=steps, batch_size=64, lr=2e-3, ema=0.998, seed=seed, valid_every=500)
    return Recipe(model, draw, settings | dict(valid=(scaled(held, n_levels), kinds)))


RECIPES = {name: partial(classifier_recipe, name) for name in SIZES}


def main(argv: list[str] | None = None) -> None:
    """Train a classifier, store its weights and a card with its test accuracy."""
    run = train(RECIPES, main.__doc__, argv)
    name, few, accuracy = run.args.recipe, 64 if run.quick else None, {}
    for split in ("valid", "test"):
        levels, labels = (v[:few].to(run.args.device) for v in getattr(images, name)(split))
        accuracy[f"accuracy, {split}"] = run.model.accuracy(scaled(levels, LEVELS[name]), labels)
    store(run, "lib.quality", name, accuracy, run.processor, f"classifier_{name}")


if __name__ == "__main__":
    main()
