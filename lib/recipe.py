"""A recipe, and what a module of recipes does when it is run: train one by name, store its weights.

python -m lib.flows.recipes mnist_glow --steps 2000

A module's `main` calls `train`, measures the model that it gets back, whose weights are rounded as
they will be stored, and calls `store`.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from lib import weights
from lib.train import fit


class Recipe(NamedTuple):
    """A model, what it learns from, and the keyword arguments of `fit` (validation included)."""

    model: nn.Module
    train: Any  # a tensor, or a function of the batch size
    fit: dict[str, Any]


class Trained(NamedTuple):
    """A trained recipe: its model with rounded weights, and how it came about."""

    args: argparse.Namespace  # recipe, device, steps, seed, checkpoint, to, and the caller's own
    recipe: Recipe
    model: nn.Module
    seconds: dict[str, float]  # wall, processor
    curve: list[list[float]]  # step, loss, and the validation loss where there is one


def train(
    recipes: Mapping[str, Callable[..., Recipe]],
    about: str | None,
    argv: list[str] | None = None,
    every: int = 0,
    **more: dict[str, Any],
) -> Trained:
    """Read the command line and train the recipe that it names.

    Args:
        about: the help text.
        argv: the command line's words, by default the process's own.
        every: for a recipe without validation: the curve holds means of so many losses.
        more: further options, name="what `add_argument` takes".
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("recipe", choices=recipes)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", help="resume from this file, and write it as it goes")
    parser.add_argument("--to", default=str(weights.FOLDER), help="folder for weights and card")
    for name, how in more.items():
        parser.add_argument("--" + name.replace("_", "-"), **how)
    args = parser.parse_args(argv)
    steps = {} if args.steps is None else {"steps": args.steps}
    recipe = recipes[args.recipe](seed=args.seed, **steps)
    model = recipe.model.to(args.device)
    if hasattr(recipe.train, "to"):
        recipe = recipe._replace(train=recipe.train.to(args.device))
    wall, processor, curve, since = time.perf_counter(), time.process_time(), [], []
    for u in fit(model, recipe.train, **recipe.fit, checkpoint=args.checkpoint):
        since.append(u.loss)
        if u.valid is not None:
            curve.append([u.step, round(u.loss, 4), round(u.valid, 4)])
        elif every and u.step % every == 0:
            curve.append([u.step, round(sum(since) / len(since), 4)])
        else:
            continue
        since.clear()
        print(*curve[-1], f"{u.seconds:.0f} s", flush=True)
    seconds = {
        "wall": round(time.perf_counter() - wall, 1),
        "processor": round(time.process_time() - processor, 1),
    }
    return Trained(args, recipe, weights.round_weights(model), seconds, curve)


def store(
    run: Trained, module: str, data: str, metrics: dict[str, Any], name: str | None = None
) -> None:
    """Weights and card into the folder `--to`, under the recipe's name or `name`.

    `module` is where the recipe is imported from, `data` what it has learnt from, in words.
    """
    card = {
        "recipe": f"{module}.{run.args.recipe}(steps={run.recipe.fit['steps']})",
        "seed": run.args.seed,
        "data": data,
        "metrics": metrics,
        "seconds": run.seconds,
        "device": torch.cuda.get_device_name() if run.args.device == "cuda" else "cpu, one thread",
        "curve": run.curve,
    }
    print(metrics, weights.save(name or run.args.recipe, run.model, card, folder=run.args.to))
