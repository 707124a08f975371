"""What every model is measured on, and by: two data sets and one list of numbers.

    digits   scikit-learn's 8 x 8 digits, 17 grey levels, 64 dimensions: 1,257 / 180 / 360 images.
             The unit is bits per dimension *of the levels*; samples are images of whole levels.
    plane    eight Gaussians on a ring, whose log p is known. The unit is nats, and what is reported
             is how far the model's -log p (or bound on it) lies above the truth's.

A model enters as a `Reading`: how it scores examples, and how it draws them.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.data.densities import eight_gaussians
from lib.data.images import LEVELS, digits, to_unit
from lib.metrics import mmd, sliced_wasserstein
from lib.quality import classifier, frechet_distance, precision_recall

DATA = ("digits", "plane")
SAMPLES = {"digits": 1_000, "plane": 1_000}  # drawn from a model, to be compared with the test set
TEST = {"digits": 360, "plane": 1_000}  # the examples that samples are compared with
SCORED = {"digits": 360, "plane": 10_000}  # the examples whose -log p is averaged
KINDS = {
    "exact": "-log p of the model, exact up to rounding or the tolerance of a solver",
    "dequantised": "an upper bound on the cost of a level: the exact -log p of the level plus noise",
    "bound": "an upper bound on -log p: minus the evidence lower bound",
}
CLASSES = {"digits": 10, "plane": 8}


class Reading(NamedTuple):
    """One way to use a trained model.

    nats: examples -> what each costs, (B,); images are levels (B, 1, 8, 8) uint8, points (B, 2).
    draw: n -> n samples of the same form.
    calls: -> how many times the network was asked, one after the other, in the last `draw`.
    kind: of nats, a key of KINDS.
    tighter: examples -> a tighter bound where there is one (importance sampling), else None.
    standard: examples -> the bound with N(0, I) in the place of a learned prior, else None.
    """

    nats: Callable[[Tensor], Tensor]
    draw: Callable[[int], Tensor]
    calls: Callable[[], int]
    kind: str
    tighter: Callable[[Tensor], Tensor] | None = None
    standard: Callable[[Tensor], Tensor] | None = None


def test_set(data: str, n: int | None = None) -> tuple[Tensor, Tensor]:
    """Examples of the test part and the class of each: levels or points, (n,) int64."""
    if data == "digits":
        x, labels = digits("test")
        return x[:n], labels[:n]
    if data != "plane":
        raise ValueError(f"data is one of {', '.join(DATA)}, got {data!r}")
    draw = torch.Generator().manual_seed(2_718)
    x, labels = eight_gaussians().sample_labelled(n or SCORED[data], draw)
    return x.float(), labels


def real_samples(data: str, seed: int) -> Tensor:
    """As many examples as a model draws, taken from the training part: what a perfect model scores."""
    draw = torch.Generator().manual_seed(seed)
    if data == "plane":
        return eight_gaussians().sample(SAMPLES[data], draw).float()
    x = digits("train")[0]
    return x[torch.randperm(len(x), generator=draw)[: SAMPLES[data]]]


def costs(data: str, nats: Tensor) -> Tensor:
    """What each test example costs in the data's unit, (B,).

    digits: nats / (64 ln 2). plane: -log p of the model minus that of the truth, point by point,
    whose mean is the divergence KL(p || q) for an exact density, and that plus a gap for a bound.
    """
    nats = nats.double()
    if data == "digits":
        return nats / (64 * math.log(2))
    return nats + eight_gaussians().log_prob(test_set(data)[0].double())


def likelihood(data: str, nats: Tensor) -> dict[str, float]:
    """The mean of `costs`, and its standard error as an average over test examples."""
    cost = costs(data, nats)
    return {"cost": cost.mean().item(), "cost_stderr": cost.std().item() / len(cost) ** 0.5}


def sample_quality(data: str, x: Tensor) -> dict[str, float]:
    """How samples, levels (N, 1, 8, 8) or points (N, 2), compare with the test examples.

    sliced_wasserstein, mmd (squared) and its standard error: of pixels in [-1, 1], or of points;
    precision, recall, frechet: of the features of our classifier, or of points (`lib.quality`);
    class_error: half the sum of differences between the shares of the classes, 0 to 1, where the
    class of a sample is what the classifier, or Bayes' rule, says.
    """
    n = TEST[data]
    real, labels = test_set(data, n)
    if data == "digits":
        check_levels(x)
        judge = classifier("digits")
        a, b = to_unit(real, LEVELS[data]), to_unit(x, LEVELS[data])
        features = judge.features(a), judge.features(b)
        guess = judge.logits(b).argmax(1)
    else:
        a, b = real.double(), x.double()
        features = a, b
        guess = eight_gaussians().responsibilities(b).argmax(1)
    directions = torch.Generator().manual_seed(0)
    distance = sliced_wasserstein(a, b, projections=500, generator=directions)
    discrepancy = mmd(a, b)
    shares = precision_recall(*features)
    count = lambda k: torch.bincount(k, minlength=CLASSES[data]).double() / len(k)
    return {
        "sliced_wasserstein": distance.item(),
        "mmd": discrepancy.value.item(),
        "mmd_stderr": discrepancy.stderr.item(),
        "precision": shares.precision,
        "recall": shares.recall,
        "frechet": frechet_distance(*features),
        "class_error": 0.5 * (count(guess) - count(labels)).abs().sum().item(),
    }


def kept(data: str, x: Tensor) -> str | list[int]:
    """Some samples for a picture: 20 images as a letter for each level, or 300 points in hundredths."""
    if data == "digits":
        return "".join(chr(ord("a") + k) for k in x[:20].flatten().tolist())
    return (100 * x[:300]).round().int().flatten().tolist()


def pictures(data: str, text: str | list[int]) -> Tensor:
    """What `kept` kept: levels (20, 1, 8, 8) uint8, or points (300, 2)."""
    if data == "digits":
        levels = [ord(letter) - ord("a") for letter in text]
        return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 8, 8)
    return torch.tensor(text).view(-1, 2) / 100


def check_levels(x: Tensor) -> None:
    """Raise a ValueError unless x are images of whole levels, (N, 1, 8, 8) uint8."""
    if x.dtype != torch.uint8 or x.shape[1:] != (1, 8, 8) or int(x.max()) >= LEVELS["digits"]:
        raise ValueError(
            f"samples of the digits are levels 0 .. {LEVELS['digits'] - 1}, (N, 1, 8, 8) uint8, got "
            f"{x.dtype} of shape {tuple(x.shape)}, up to {x.max()}"
        )


@torch.no_grad()
def measure(data: str, reading: Reading, seed: int) -> dict[str, Any]:
    """Every number of one reading but those of its training; see `likelihood`, `sample_quality`,
    in "drawn" what `kept` keeps, and for the digits in "images" what each costs, in 1/1000 bit.

    score_seconds and sample_seconds are processor time for one example of a large batch,
    one_sample_seconds that of a batch of one, the least of three.
    """
    x = test_set(data)[0]
    torch.manual_seed(1_000 + seed)
    begun = time.process_time()
    nats = reading.nats(x)
    seconds = (time.process_time() - begun) / len(x)  # of the model: the truth's own log p is slow
    found: dict[str, Any] = {"kind": reading.kind, **likelihood(data, nats)}
    found["score_seconds"] = seconds
    for name in ("tighter", "standard"):
        if (other := getattr(reading, name)) is not None:
            again = likelihood(data, other(x))
            found |= {name: again["cost"], f"{name}_stderr": again["cost_stderr"]}
    if data == "digits":
        found["images"] = (1_000 * costs(data, nats)).round().int().tolist()
    torch.manual_seed(2_000 + seed)
    begun = time.process_time()
    drawn = reading.draw(SAMPLES[data])
    found["sample_seconds"] = (time.process_time() - begun) / SAMPLES[data]
    found["evaluations"] = reading.calls()
    singles = []
    for _ in range(3):
        begun = time.process_time()
        reading.draw(1)
        singles.append(time.process_time() - begun)
    found["one_sample_seconds"] = min(singles)
    return found | sample_quality(data, drawn) | {"drawn": kept(data, drawn)}
