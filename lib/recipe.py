"""A recipe, and what a module of recipes does when it is run: train one by name, store its weights.

python -m lib.train mnist-glow --mode full

A module's `main` calls `train`, measures the model that it gets back, whose weights are rounded as
they will be stored, and calls `store`. `lib.train.catalogue` knows all modules.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from lib import weights
from lib.paths import cache, write_atomic
from lib.train import fit
from lib.train.workers import device_here, has_bfloat16, joined

QUICK = dict(steps=20, batch_size=16, valid=64)  # enough to see that all of it works, on any CPU


class Recipe(NamedTuple):
    """A model, what it learns from, and the keyword arguments of `fit` (validation included).

    >>> from lib.flows.recipes import digits_realnvp
    >>> digits_realnvp(steps=10).fit["steps"]
    10
    """

    model: nn.Module
    train: Any  # a tensor, or a function of the batch size
    fit: dict[str, Any]


class Trained(NamedTuple):
    """A trained recipe: its model with rounded weights, and how it came about.

    >>> args = argparse.Namespace(mode="quick")
    >>> Trained(args, None, nn.Linear(1, 1), wall=1.5, processor=1.2, curve=[]).quick
    True
    """

    args: argparse.Namespace  # recipe, mode, device, steps, seed, checkpoint, to, the caller's own
    recipe: Recipe
    model: nn.Module
    wall: float  # seconds of training by the clock
    processor: float  # and of the processor, of the first process if there were several
    curve: list[list[float]]  # step, loss, and the validation loss where there is one
    processes: int = 1

    @property
    def quick(self) -> bool:
        """A rehearsal: measure little."""
        return self.args.mode == "quick"


class Log:
    """Curve and clock of a training beside its checkpoint, so that a resumed one has all of it.

    >>> log = Log(None)
    >>> log.add([10, 0.5], write=False)
    >>> log.rows[0]["point"]
    [10, 0.5]
    """

    def __init__(self, checkpoint: Path | None):
        self.path = checkpoint and checkpoint.with_name(
            checkpoint.name.removesuffix(".pt") + ".log.json"
        )
        self.rows: list[dict[str, Any]] = []
        self.marks: dict[str, tuple[float, float]] = {}  # step of a checkpoint: clock
        self.before, self.start = (0.0, 0.0), (time.perf_counter(), time.process_time())

    def begin(self, step: int) -> None:
        """Take over what belongs to the steps before this one."""
        if step > 1 and self.path and self.path.exists():
            kept = json.loads(self.path.read_text())
            self.rows = [row for row in kept["rows"] if row["point"][0] < step]
            self.marks = {k: clock for k, clock in kept["marks"].items() if int(k) < step}
        clocks = [*(row["clock"] for row in self.rows), *self.marks.values()]
        self.before = tuple(max(clocks, default=self.before))

    def clock(self) -> tuple[float, float]:
        """Seconds of training so far, by the wall's clock and the processor's."""
        now = time.perf_counter(), time.process_time()
        return tuple(
            round(b + n - s, 1) for b, n, s in zip(self.before, now, self.start, strict=True)
        )

    def add(self, point: list[float], write: bool) -> None:
        self.rows.append({"point": point, "clock": self.clock()})
        self._write(write)

    def mark(self, step: int, write: bool) -> None:
        """The clock at a checkpoint's step, from which a resumed run goes on."""
        self.marks[str(step)] = self.clock()
        self._write(write)

    def _write(self, write: bool) -> None:
        if write and self.path:
            write_atomic(self.path, json.dumps({"rows": self.rows, "marks": self.marks}))


def _parser(recipes: Mapping[str, Callable[..., Recipe]], about: str | None, more: dict):
    parser = argparse.ArgumentParser(description=about)
    one = {"nargs": "?", "default": next(iter(recipes))} if len(recipes) == 1 else {}
    parser.add_argument("recipe", choices=recipes, **one)
    parser.add_argument(
        "--mode",
        choices=("quick", "full"),
        default=os.environ.get("BOOK_MODE"),
        help="quick, on a CPU unless told: a rehearsal of 20 steps; full, on a GPU unless told",
    )
    parser.add_argument("--device", help="cuda where there is one, else cpu")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int, help="of all processes together")
    parser.add_argument("--parts", type=int, default=1, help="split each batch, to save memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--amp",
        choices=("auto", "bf16", "fp32"),
        default="auto",
        help="auto: bfloat16 where the recipe asks for it and the hardware has it",
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile; what it gains was not measured"
    )
    parser.add_argument("--checkpoint", help="resume from this file, and write it as it goes")
    parser.add_argument("--checkpoint-every", type=int, default=1000, help="steps")
    parser.add_argument("--to", help="folder for weights and card")
    for name, how in more.items():
        parser.add_argument("--" + name.replace("_", "-"), **how)
    return parser


def settled(recipe: Recipe, args: argparse.Namespace, device: torch.device) -> Recipe:
    """The recipe with what mode, device and options change in its settings.

    >>> args = argparse.Namespace(mode="quick", batch_size=None, amp="auto")
    >>> recipe = Recipe(nn.Linear(1, 1), torch.zeros(50, 1), {"steps": 9, "batch_size": 128})
    >>> settled(recipe, args, torch.device("cpu")).fit["batch_size"]
    16
    """
    settings = dict(recipe.fit)
    if args.mode == "quick":
        settings["batch_size"] = min(settings.get("batch_size", 256), QUICK["batch_size"])
        valid = settings.get("valid")
        if valid is not None:
            few = lambda v: None if v is None else v[: QUICK["valid"]]
            settings["valid"] = tuple(map(few, valid)) if isinstance(valid, tuple) else few(valid)
            settings["valid_every"] = max(1, settings["steps"] // 2)
    if args.batch_size is not None:
        settings["batch_size"] = args.batch_size
    if args.amp != "auto":
        settings["amp"] = torch.bfloat16 if args.amp == "bf16" else None
    elif settings.get("amp") and not has_bfloat16(device):
        settings["amp"] = None
    to = lambda v: v.to(device) if hasattr(v, "to") else v
    return Recipe(recipe.model.to(device), to(recipe.train), settings)


def train(
    recipes: Mapping[str, Callable[..., Recipe]],
    about: str | None,
    argv: list[str] | None = None,
    every: int = 0,
    unit: Callable[[Recipe, float], float] = lambda recipe, loss: loss,
    **more: dict[str, Any],
) -> Trained:
    """Read the command line and train the recipe that it names; in torchrun, in all processes.

    Only the first process returns: the others are done, and leave by SystemExit.

    Args:
        about: the help text.
        argv: the command line's words, by default the process's own.
        every: for a recipe without validation: the curve holds means of so many losses (default: a
            twentieth of the steps).
        unit: what the curve holds in place of a loss in nats, bits per dimension for example.
        more: further options, name="what `add_argument` takes".

    >>> from lib.flows.recipes_ode import moons
    >>> train({"moons": moons}, None, ["--mode", "quick", "--steps", "2"])  # doctest: +ELLIPSIS
    moons, quick: 2 steps...
    """
    args = _parser(recipes, about, more).parse_args(argv)
    device = device_here(args.device)
    args.device = str(device)
    args.mode = args.mode or ("full" if device.type == "cuda" else "quick")
    if args.mode not in ("quick", "full"):
        raise ValueError(f"BOOK_MODE must be 'quick' or 'full', not {args.mode!r}")
    full = args.mode == "full"
    args.to = args.to or str(weights.FOLDER if full else cache() / "quick")
    args.kept = args.checkpoint is not None
    if full and not args.kept:
        args.checkpoint = str(_checkpoint(recipes[args.recipe], args.recipe, args.seed))
    if full and device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
    steps = args.steps if full or args.steps else QUICK["steps"]
    path = Path(args.checkpoint) if args.checkpoint else None
    with joined(device) as workers:
        recipe = recipes[args.recipe](seed=args.seed, **({} if steps is None else {"steps": steps}))
        recipe = settled(recipe, args, device)
        if args.compile:
            recipe.model.compile()
        if workers.first:
            print(_about(recipe, args, workers.size), flush=True)
        curve = _run(recipe, args, path, workers.first, every, unit)
        wall, processor = curve.clock()
    if not workers.first:
        raise SystemExit(0)
    model, points = weights.round_weights(recipe.model), [row["point"] for row in curve.rows]
    return Trained(args, recipe, model, wall, processor, points, workers.size)


def _checkpoint(make: Callable[..., Recipe], name: str, seed: int) -> Path:
    """Where a full run keeps its state: "mnist" is the name of a recipe in more than one file."""
    file = Path(getattr(make, "func", make).__code__.co_filename)
    return cache() / "checkpoints" / f"{file.parent.name}.{file.stem}.{name}-{seed}.pt"


def _run(recipe: Recipe, args, path: Path | None, first: bool, every: int, unit) -> Log:
    log, since = Log(path), []
    every = every or max(1, recipe.fit["steps"] // 20)
    how = dict(checkpoint=path, checkpoint_every=args.checkpoint_every, parts=args.parts)
    step = 0
    try:
        for u in fit(recipe.model, recipe.train, **recipe.fit, **how):
            if not step:
                log.begin(u.step)
            step = u.step
            if step % args.checkpoint_every == 0:
                log.mark(step, first)
            since.append(u.loss)
            if u.valid is not None:
                point = u.loss, u.valid
            elif recipe.fit.get("valid") is None and step % every == 0:
                point = (sum(since) / len(since),)
            else:
                continue
            log.add([step, *(round(unit(recipe, loss), 4) for loss in point)], first)
            since.clear()
            if first:
                print(*log.rows[-1]["point"], f"{u.seconds:.0f} s", flush=True)
    finally:
        if step:  # stopped or done, `fit` writes a checkpoint; after an error it may not
            log.mark(step, first)
    if not log.rows:  # a run that was complete already
        log.begin(recipe.fit["steps"] + 1)
    return log


def _about(recipe: Recipe, args: argparse.Namespace, processes: int) -> str:
    settings = recipe.fit
    return (
        f"{args.recipe}, {args.mode}: {settings['steps']:,} steps of "
        f"{settings.get('batch_size', 256)} examples on {args.device}, {processes} process(es), "
        f"{'bfloat16' if settings.get('amp') else 'float32'}, seed {args.seed}; "
        f"checkpoint {args.checkpoint or 'none'}"
    )


def store(
    run: Trained,
    module: str,
    data: str,
    metrics: dict[str, Any],
    seconds: float | dict[str, float],
    name: str | None = None,
) -> Path:
    """Weights and card into the folder `--to`, under the recipe's name or `name`; prints both.

    `module` is where the recipe is imported from, `data` what it has learnt from, in words, and
    `seconds` what the book quotes of the training: `run.wall`, `run.processor`, or both by name.
    The checkpoint goes, unless it was asked for by name.

    >>> from contextlib import redirect_stdout
    >>> from tempfile import TemporaryDirectory
    >>> from lib.flows.recipes_ode import moons
    >>> with TemporaryDirectory() as folder, redirect_stdout(None):
    ...     argv = ["--mode", "quick", "--device", "cpu", "--steps", "2", "--to", folder]
    ...     run = train({"moons": moons}, None, argv)
    ...     path = store(run, "lib.flows.recipes_ode", "two moons", {"loss": 1.0}, run.wall)
    >>> path.name
    'moons.safetensors'
    """
    args, settings = run.args, run.recipe.fit
    steps = f"steps={settings['steps']}"
    if args.batch_size is not None:
        steps += f", batch_size={args.batch_size}"
    card = {
        "recipe": f"{module}.{args.recipe}({steps})",
        "mode": args.mode,
        "seed": args.seed,
        "data": data,
        "metrics": metrics,
        "seconds": seconds,
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else _cpu(),
        "processes": run.processes,
        "precision": "bfloat16" if settings.get("amp") else "float32",
        **({"compiled": True} if args.compile else {}),
        "curve": run.curve,
    }
    path = weights.save(name or args.recipe, run.model, card, folder=args.to)
    print(metrics, path)
    if args.checkpoint and not args.kept:
        for file in (Path(args.checkpoint), Log(Path(args.checkpoint)).path):
            file.unlink(missing_ok=True)
    return path


def _cpu() -> str:
    """What a card says of a training on a CPU."""
    threads = torch.get_num_threads()
    return f"cpu, {'one thread' if threads == 1 else f'{threads} threads'}"
