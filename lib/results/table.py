"""The results file as tables: means over seeds, their spread, and which differences are real."""

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple

from lib.results.models import MODELS
from lib.results.store import Results


class Metric(NamedTuple):
    """How a number is called, shown and judged. `better` is -1 if less is better, 1 if more, else 0.

    In a table it has the head `short`, is multiplied by `scale` and has `digits` places.

    >>> METRICS['recall'].better
    1
    """

    label: str
    short: str
    better: int
    digits: int = 3
    scale: float = 1.0
    log: bool = False  # on an axis


METRICS = {
    "cost": Metric("cost of a test example", "cost", -1),
    "sliced_wasserstein": Metric("sliced Wasserstein", "sliced W", -1),
    "mmd": Metric("squared MMD", "1000 MMD²", -1, 1, 1e3),
    "precision": Metric("precision", "precision", 1, 2),
    "recall": Metric("recall (coverage)", "recall", 1, 2),
    "frechet": Metric("Fréchet distance", "Fréchet", -1, 2),
    "class_error": Metric("error of class shares", "class err", -1, 2),
    "parameters": Metric("parameters", "parameters", 0, 0, log=True),
    "train_seconds": Metric("seconds of training", "training, s", 0, 0, log=True),
    "score_seconds": Metric("seconds to score one", "score, µs", -1, 0, 1e6, log=True),
    "sample_seconds": Metric("seconds for a sample", "sample, µs", -1, 0, 1e6, log=True),
    "one_sample_seconds": Metric("seconds for a single sample", "single, ms", -1, 1, 1e3, log=True),
    "evaluations": Metric("evaluations for a sample", "evaluations", -1, 0, log=True),
}
UNITS = {"digits": "bits per dimension", "plane": "nats above the truth"}


class Cell(NamedTuple):
    """One metric of one model over its seeds.

    >>> cell([1.0, 3.0]).mean
    2.0
    """

    mean: float
    std: float  # between seeds; 0 for one seed
    low: float
    high: float
    n: int


def cell(values: Iterable[float]) -> Cell:
    """Mean, standard deviation (n - 1), ends and number of some values.

    >>> cell([1.0, 2.0, 3.0])
    Cell(mean=2.0, std=1.0, low=1.0, high=3.0, n=3)
    """
    values = list(values)
    if not values:
        raise ValueError("a cell needs at least one value")
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Cell(statistics.fmean(values), std, min(values), max(values), len(values))


def rows(results: Results, data: str, model: str) -> list[dict]:
    """The rows of one model on one data set, by seed.

    >>> from lib.results.store import read
    >>> [row['seed'] for row in rows(read(), 'plane', 'realnvp')]
    [0, 1, 2]
    """
    found = [r for r in results["rows"] if (r["data"], r["model"]) == (data, model)]
    if not found:
        raise ValueError(f"there is no row of {model!r} on {data!r}")
    return sorted(found, key=lambda r: r["seed"])


def table(results: Results, data: str, metrics: Iterable[str] = METRICS) -> dict:
    """{model: {metric: Cell}} in the order of the chapters; `tighter`, `standard` where it has them.

    >>> from lib.results.store import read
    >>> len(table(read(), 'plane', ['cost'])) == len(MODELS)
    True
    """
    out = {}
    for model in MODELS:
        mine = rows(results, data, model)
        out[model] = {m: cell(r[m] for r in mine) for m in metrics}
        for other in ("tighter", "standard"):
            if other in mine[0]:
                out[model][other] = cell(r[other] for r in mine)
    return out


def kind(results: Results, data: str, model: str) -> str:
    """Whether the model's cost is exact, dequantised or a bound.

    >>> from lib.results.store import read
    >>> kind(read(), 'plane', 'realnvp')
    'exact'
    """
    return rows(results, data, model)[0]["kind"]


def reference(results: Results, data: str) -> dict[str, Cell]:
    """What real examples score in the place of samples.

    >>> from lib.results.store import read
    >>> sorted(reference(read(), 'plane'))[:2]
    ['class_error', 'frechet']
    """
    found = [r for r in results["reference"] if r["data"] == data]
    return {m: cell(r[m] for r in found) for m in METRICS if m in found[0]}


def best(cells: dict, metric: str, among: Iterable[str] | None = None) -> list[str]:
    """Models from best to worst by the mean of a metric that has a better end.

    >>> best({'a': {'cost': cell([2.0])}, 'b': {'cost': cell([1.0])}}, 'cost')
    ['b', 'a']
    """
    sign = METRICS[metric].better if metric in METRICS else -1
    if sign == 0:
        raise ValueError(f"neither end of {metric!r} is better")
    names = [m for m in (among or cells) if metric in cells[m]]
    return sorted(names, key=lambda m: -sign * cells[m][metric].mean)


def apart(a: Cell, b: Cell) -> float:
    """How many standard errors of the difference of two means apart, seeds as independent draws.

    Equal means are 0 apart; without an error, as of one seed each, others are infinitely far.

    >>> round(apart(cell([1.0, 2.0]), cell([4.0, 5.0])), 2)
    4.24
    """
    gap, error = abs(a.mean - b.mean), math.sqrt(a.std**2 / a.n + b.std**2 / b.n)
    if error == 0:
        return math.inf if gap else 0.0
    return gap / error


def paired(results: Results, a: str, b: str) -> Cell:
    """Cost of b minus cost of a, image by image of the digits' test set, each the mean of its seeds.

    The cell's values are the images: `std / sqrt(n)` is the error that another test set would make.

    >>> from lib.results.store import read
    >>> paired(read(), "vae", "vae").mean, paired(read(), "vae", "realnvp").n
    (0.0, 360)
    """
    mean = lambda model: [
        statistics.fmean(costs) / 1_000 for costs in zip(*results["images"][model], strict=True)
    ]
    return cell(y - x for x, y in zip(mean(a), mean(b), strict=True))


def show(results: Results, data: str, metrics: Iterable[str]) -> str:
    """A table as text: mean ± standard deviation over the seeds, "≤" before a bound, real data last.

    One number where all seeds agree exactly; a dash where real data have none.

    >>> from lib.results.store import read
    >>> show(read(), 'plane', ['cost']).splitlines()[0]
    'model                          cost'
    """
    metrics = list(metrics)
    lines = [["model", *(METRICS[m].short for m in metrics)]]
    for model, row in table(results, data, metrics).items():
        bound = kind(results, data, model) != "exact"
        marks = ["≤ " if bound and m == "cost" else "" for m in metrics]
        numbers = [mark + _number(m, row[m]) for mark, m in zip(marks, metrics, strict=True)]
        lines.append([MODELS[model].title, *numbers])
    real = reference(results, data)
    lines.append(["real data", *(_number(m, real[m]) if m in real else "–" for m in metrics)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows_ = [
        [name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]
        for name, *rest in lines
    ]
    return "\n".join("  ".join(row).rstrip() for row in rows_)


def _number(metric: str, c: Cell) -> str:
    m = METRICS[metric]
    mean = f"{m.scale * c.mean:,.{m.digits}f}"
    return mean if c.std == 0 else f"{mean} ± {m.scale * c.std:.{m.digits}f}"
