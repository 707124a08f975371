"""The table of recipes on `book/training.md`, from `lib.train.catalogue` and the cards of stored weights."""

from __future__ import annotations

HEAD = """| recipe | chapter | made for | target | measured | seconds | on |
|---|---|---|---|---|---|---|"""
OPEN = "not measured yet"
LIVE = "trained in the chapter"


def row(name: str) -> str:
    """One recipe: its target, and where it stands."""
    from lib.train.catalogue import ENTRIES, GPU, standing

    entry, at = ENTRIES[name], standing(name)
    if at is None:
        found, seconds, where = (OPEN if entry.machine == GPU else LIVE), "", ""
    else:
        spent = at.card["seconds"]
        spent = spent["processor"] if isinstance(spent, dict) else spent
        found, seconds = f"{at.value:.4g} {entry.unit}", f"{spent:,.0f}"
        where = f"{at.card['device'].partition(';')[0]}, {at.card['date']}"
    shown = name.replace("_", "-")
    return (
        f"| `{shown}`: {entry.about} | {entry.chapter} | {entry.machine} | {entry.target} | {found} "
        f"| {seconds} | {where} |"
    )


def table(paths: object = None) -> str:
    """All recipes, in the order of the chapters."""
    from lib.train.catalogue import ENTRIES

    return "\n".join([HEAD, *map(row, ENTRIES)])
