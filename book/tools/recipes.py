"""The table of recipes on `book/training.md`, from `lib.train.catalogue` and the cards of stored weights."""

from __future__ import annotations

import importlib
import inspect
import re

HEAD = """| recipe | chapter | made for | target | measured | seconds | on |
|---|---|---|---|---|---|---|"""
OPEN = "not measured yet"
HYPHEN = "\u2011"  # where no line breaks
LIVE = "in the chapter"
MORE = (
    "lib.flows.autoregressive_recipes",
    "lib.flows.posteriors",
)  # recipes that another module trains


def planned(name: str) -> int:
    """The steps of a recipe where nobody asks for others."""
    from lib.train.catalogue import ENTRIES

    entry = ENTRIES[name]
    for module in (entry.module, *MORE):
        build = getattr(importlib.import_module(module), entry.own, None)
        if build is not None:
            return inspect.signature(build).parameters["steps"].default
    raise ValueError(f"no module of {entry.module}, {', '.join(MORE)} has a recipe {entry.own}")


def cut(name: str, card: dict) -> str:
    """`, after 9,000 of 60,000 steps` where a recipe for a GPU was trained for fewer than planned."""
    from lib.train.catalogue import ENTRIES, GPU

    made = re.search(r"\(steps=(\d+)", card.get("recipe", ""))
    if ENTRIES[name].machine != GPU or made is None or int(made[1]) >= planned(name):
        return ""
    return f", after {int(made[1]):,} of {planned(name):,} steps"


def row(name: str) -> str:
    """One recipe: its target, and where it stands."""
    from lib.train.catalogue import ENTRIES, GPU, standing

    entry, at = ENTRIES[name], standing(name)
    if at is None:
        found, seconds, where = (OPEN if entry.machine == GPU else LIVE), "", ""
    else:
        spent = at.card["seconds"]
        spent = spent["processor"] if isinstance(spent, dict) else spent
        found, seconds = f"{at.value:.4g} {entry.unit}{cut(name, at.card)}", f"{spent:,.0f}"
        device = at.card["device"].partition(";")[0].replace("1 thread", "one thread")
        where = f"{device}, {at.card['date'].replace('-', HYPHEN)}"
    shown = name.replace("_", "-")
    return (
        f"| `{shown}`: {entry.about} | {entry.chapter} | {entry.machine} | {entry.target} | {found} "
        f"| {seconds} | {where} |"
    )


def table(paths: object = None) -> str:
    """All recipes, in the order of the chapters."""
    from lib.train.catalogue import ENTRIES

    return "\n".join([HEAD, *map(row, ENTRIES)])
