"""The results file as tables: means over seeds, their spread, and which differences are real."""

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple

from lib.results.models import MODELS
from lib.results.store import Results


class Metric(NamedTuple):
    """How a number is called, shown and judged. `better` is -1 if less is better, 1 if more, else 0."""

    label: str
    better: int
    log: bool = False
    digits: int = 3


METRICS = {
    "cost": Metric("cost of a test example", -1),
    "sliced_wasserstein": Metric("sliced Wasserstein", -1),
    "mmd": Metric("squared MMD", -1, digits=4),
    "precision": Metric("precision", 1),
    "recall": Metric("recall (coverage)", 1),
    "frechet": Metric("Frechet distance", -1),
    "class_error": Metric("error of class shares", -1),
    "parameters": Metric("parameters", 0, True, 0),
    "train_seconds": Metric("seconds of training", 0, True, 1),
    "score_seconds": Metric("seconds to score one", -1, True, 6),
    "sample_seconds": Metric("seconds for a sample", -1, True, 6),
    "one_sample_seconds": Metric("seconds for a single sample", -1, True, 4),
    "evaluations": Metric("evaluations for a sample", -1, True, 0),
}
UNITS = {"digits": "bits per dimension", "plane": "nats above the truth"}


class Cell(NamedTuple):
    """One metric of one model over its seeds."""

    mean: float
    std: float  # between seeds; 0 for one seed
    low: float
    high: float
    n: int


def cell(values: Iterable[float]) -> Cell:
    """Mean, standard deviation (n - 1), ends and number of some values."""
    values = list(values)
    if not values:
        raise ValueError("a cell needs at least one value")
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Cell(statistics.fmean(values), std, min(values), max(values), len(values))


def rows(results: Results, data: str, model: str) -> list[dict]:
    """The rows of one model on one data set, by seed."""
    found = [r for r in results["rows"] if (r["data"], r["model"]) == (data, model)]
    if not found:
        raise ValueError(f"there is no row of {model!r} on {data!r}")
    return sorted(found, key=lambda r: r["seed"])


def table(results: Results, data: str, metrics: Iterable[str] = METRICS) -> dict:
    """{model: {metric: Cell}} in the order of the chapters; `tighter` where a model has it."""
    out = {}
    for model in MODELS:
        mine = rows(results, data, model)
        out[model] = {m: cell(r[m] for r in mine) for m in metrics}
        if "tighter" in mine[0]:
            out[model]["tighter"] = cell(r["tighter"] for r in mine)
    return out


def kind(results: Results, data: str, model: str) -> str:
    """Whether the model's cost is exact, dequantised or a bound."""
    return rows(results, data, model)[0]["kind"]


def reference(results: Results, data: str) -> dict[str, Cell]:
    """What real examples score in the place of samples."""
    found = [r for r in results["reference"] if r["data"] == data]
    return {m: cell(r[m] for r in found) for m in METRICS if m in found[0]}


def best(cells: dict, metric: str, among: Iterable[str] | None = None) -> list[str]:
    """Models from best to worst by the mean of a metric that has a better end."""
    sign = METRICS[metric].better if metric in METRICS else -1
    if sign == 0:
        raise ValueError(f"neither end of {metric!r} is better")
    names = [m for m in (among or cells) if metric in cells[m]]
    return sorted(names, key=lambda m: -sign * cells[m][metric].mean)


def apart(a: Cell, b: Cell) -> float:
    """How many standard errors of the difference of two means apart, seeds as independent draws."""
    error = math.sqrt(a.std**2 / a.n + b.std**2 / b.n)
    return math.inf if error == 0 else abs(a.mean - b.mean) / error


def show(results: Results, data: str, metrics: Iterable[str], digits: dict | None = None) -> str:
    """A table as text: mean and standard deviation over the seeds, `<=` before a bound."""
    metrics, cells = list(metrics), table(results, data)
    head = ["model", *(METRICS[m].label for m in metrics)]
    lines = [head]
    for model, row in cells.items():
        line = [MODELS[model].title]
        for m in metrics:
            places = (digits or {}).get(m, METRICS[m].digits)
            mark = "≤ " if m == "cost" and kind(results, data, model) != "exact" else ""
            line.append(f"{mark}{row[m].mean:,.{places}f} ± {row[m].std:.{places}f}")
        lines.append(line)
    wide = [max(len(line[k]) for line in lines) for k in range(len(head))]
    pad = lambda line: [line[0].ljust(wide[0]), *(c.rjust(w) for c, w in zip(line[1:], wide[1:], strict=True))]  # noqa: E501  # fmt: skip
    return "\n".join("  ".join(pad(line)).rstrip() for line in lines)
