"""The results file: what is in it, how it is written whole or not at all, and how it is read.

    {"schema": 2,
     "made":      {device, threads, python, torch, numpy, scikit-learn, date, commit, code},
     "protocol":  {data sets, counts, units, rule of training},
     "models":    {name: {title, family, chapter, training}},
     "rows":      [{model, data, seed, parameters, steps, train_seconds, train_wall_seconds,
                    kind, cost, cost_stderr, [tighter, tighter_stderr,]
                    [standard, standard_stderr,] score_seconds,
                    sample_seconds, one_sample_seconds, evaluations, sliced_wasserstein, mmd,
                    mmd_stderr, precision, recall, frechet, class_error}],
     "reference": [{data, seed, and the last seven: of real examples in the place of samples}],
     "drawn":     {data: {model: some samples of the first seed, `protocol.pictures` reads them}},
     "images":    {model: [for each seed the cost of every digit of the test set, 1/1000 bit]},
     "sha256":    of the rest, so that an edit by accident is noticed}

`cost` is bits per dimension for digits and nats above the truth for the plane (`protocol.likelihood`);
seconds are the processor's, for one example where they are not of training.
"""

import hashlib
import json
import math
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy
import torch

from lib import paths
from lib.results import protocol
from lib.results.models import MODELS, SEEDS

SCHEMA = 2
PATH = Path(__file__).parent / "all_models.json"  # beside the code: chapters are made anew with it
MAKERS = ("digits", "models", "nets", "plane", "prior", "protocol", "training")  # of the numbers
QUALITY = (
    "sliced_wasserstein",
    "mmd",
    "mmd_stderr",
    "precision",
    "recall",
    "frechet",
    "class_error",
)
NUMBERS = (
    "parameters",
    "steps",
    "train_seconds",
    "train_wall_seconds",
    "cost",
    "cost_stderr",
    "score_seconds",
    "sample_seconds",
    "one_sample_seconds",
    "evaluations",
    *QUALITY,
)
OPTIONAL = ("tighter", "tighter_stderr", "standard", "standard_stderr")
Results = dict[str, Any]


def blank() -> Results:
    """A results file with no rows yet.

    >>> blank()['rows']
    []
    """
    return {
        "schema": SCHEMA,
        "made": _made(),
        "protocol": {
            "digits": "scikit-learn 8 x 8, split of lib.data.images; bits per dimension of levels",
            "plane": "lib.data.densities.eight_gaussians; nats above the truth",
            "scored": protocol.SCORED,
            "samples": protocol.SAMPLES,
            "compared with": protocol.TEST,
            "seeds": list(SEEDS),
            "training": "fixed steps of the chapter's recipe, at most half a minute of one core",
            "kinds": protocol.KINDS,
        },
        "models": {name: entry._asdict() for name, entry in MODELS.items()},
        "rows": [],
        "reference": [],
        "drawn": {data: {} for data in protocol.DATA},
        "images": {},
    }


def _made() -> dict[str, Any]:
    import sklearn

    return {
        "device": "cpu, one thread for each model",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": paths.commit(),
        "code": fingerprint(),
    }


def fingerprint() -> str:
    """Of the source that makes the rows: those of another protocol are not continued.

    >>> len(fingerprint())
    16
    """
    digest = hashlib.sha256()
    for name in MAKERS:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


def seal(results: Results) -> str:
    """SHA-256 of everything but the seal itself.

    >>> seal({'a': 1}) == seal({'a': 1, 'sha256': 'x'})
    True
    """
    rest = {k: v for k, v in results.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write(results: Results, path: Path) -> Path:
    """The whole file, one line for each row, or nothing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(blank(), Path(folder) / "results.json").name
    'results.json'
    """
    results = {k: v for k, v in results.items() if k != "sha256"}
    results |= {"sha256": seal(results)}
    parts = []
    for key, value in results.items():
        if isinstance(value, list):
            text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if value else "[]"
        elif key in ("drawn", "images"):
            text = json.dumps(value)
        else:
            text = json.dumps(value, indent=1).replace("\n", "\n ")
        parts.append(f" {json.dumps(key)}: {text}")
    return paths.write_atomic(path, "{\n" + ",\n".join(parts) + "\n}\n")


def read(path: Path | str = PATH) -> Results:
    """The results, checked: schema, seal, each row's numbers.

    Raises:
        FileNotFoundError: there is no such file; the message says what makes it.
        ValueError: it is not such a file, or was edited by hand.

    >>> len(read()['rows']) == len(SEEDS) * len(protocol.DATA) * len(MODELS)
    True
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path.name} in {path.parent}: `make results` writes it"
        )
    results = json.loads(path.read_text())
    if results.get("schema") != SCHEMA:
        raise ValueError(f"{path.name} has schema {results.get('schema')}, not {SCHEMA}")
    if results.get("sha256") != seal(results):
        raise ValueError(f"{path.name} is not what `make results` wrote: its seal does not fit")
    for row in results["rows"]:
        check_row(row)
        costs = results["images"].get(row["model"]) if row["data"] == "digits" else None
        if costs and (each := costs[SEEDS.index(row["seed"])]):
            if abs(statistics.fmean(each) / 1_000 - row["cost"]) > 5e-4:  # they are rounded
                raise ValueError(f"{path.name}: what images cost {row['model']} is not its cost")
    return results


def check_row(row: dict[str, Any]) -> None:
    """Raise a ValueError unless a row has its names, and finite numbers.

    >>> check_row(read()['rows'][0])  # nothing to say
    """
    names = {"model", "data", "seed", "kind", *NUMBERS}
    pairs = [set(OPTIONAL[:2]), set(OPTIONAL[2:])]
    if set(row) - set(OPTIONAL) != names or any(len(set(row) & pair) == 1 for pair in pairs):
        raise ValueError(f"a row has {sorted(set(row) ^ names)} too much or too little")
    if row["model"] not in MODELS or row["data"] not in protocol.DATA:
        raise ValueError(f"no such model or data: {row['model']!r}, {row['data']!r}")
    if row["kind"] not in protocol.KINDS:
        raise ValueError(f"no such kind of cost: {row['kind']!r}")
    for name in (*NUMBERS, *(n for n in OPTIONAL if n in row)):
        if isinstance(row[name], bool) or not isinstance(row[name], int | float):
            raise ValueError(f"{name} of {row['model']} is {row[name]!r}, not a number")
        if not math.isfinite(row[name]):
            raise ValueError(f"{name} of {row['model']} is not finite")


def missing(results: Results) -> list[tuple[str, str, int]]:
    """Which (data, model, seed) have no row.

    >>> missing(read())
    []
    """
    have = {(row["data"], row["model"], row["seed"]) for row in results["rows"]}
    every = [(d, m, s) for s in SEEDS for d in protocol.DATA for m in MODELS]
    return [key for key in every if key not in have]


def add(results: Results, rows: list[dict[str, Any]]) -> Results:
    """With these rows in their places, in the order of the models, and no other of their kind.

    What they bring beside numbers is kept apart: samples ("drawn") for the first seed only, and what
    each test image costs ("images"). Raises ValueError for a row that `read` would refuse.

    >>> add(blank(), read()['rows'])['rows'] == read()['rows']
    True
    """
    drawn = {data: dict(kept) for data, kept in results["drawn"].items()}
    for row in rows:
        if "drawn" in row and row["seed"] == SEEDS[0]:
            drawn[row["data"]][row["model"]] = row["drawn"]
    images = {model: list(costs) for model, costs in results["images"].items()}
    for row in rows:
        if "images" in row:
            mine = images.setdefault(row["model"], [None] * len(SEEDS))
            mine[SEEDS.index(row["seed"])] = row["images"]
    rows = [{k: v for k, v in row.items() if k not in ("drawn", "images")} for row in rows]
    for row in rows:
        check_row(row)
    key = lambda row: (row["data"], row["model"], row["seed"])
    kept = {key(row): row for row in results["rows"]} | {key(row): row for row in rows}
    order = list(MODELS)
    place = lambda k: (protocol.DATA.index(k[0]), order.index(k[1]), k[2])
    return results | {
        "rows": [kept[k] for k in sorted(kept, key=place)],
        "drawn": drawn,
        "images": images,
    }
