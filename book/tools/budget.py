"""What a full run costs, on `book/training.md`: minutes of the measured GPU, and what a T4 would need.

From `book/results/gpu.json` (steps of recipes, trainings) and `limits.json` (operations and bytes).
"""

from __future__ import annotations

import re

from gpu import find, machine
from proof import missing, results, table
from recipes import planned

GOAL = 10  # minutes of one card for a recipe in full mode
T4 = {"operations": 8.1, "half": 65.0, "bytes": 320.0}  # 10^12/s in float32 and half; 10^9/s
UNET = "U-Net, 35.8M parameters, batch 256"
RECIPES = {  # the work of limits.json that is a step of a recipe: which one, its batch over that work's
    "RealNVP of MNIST, batch 256": ("mnist_realnvp", 1.0),
    UNET: ("ddpm_cifar10", 0.5),
}
PLAIN = "RealNVP of MNIST, batch 256"
OPEN = "not measured"
BOUND = "not timed: its operations (below) at the card's own limit in bfloat16"


def _work(row: dict) -> tuple[float, float]:
    """What one call does: 10^12 operations, and 10^9 bytes."""
    seconds = row["milliseconds"] / 1e3
    return row["teraflops"] * seconds, row["gigabytes a second"] * seconds


def _set(work: str) -> str:
    """The name of a work with numbers as on the page: "16,384", "3 × 512"."""
    return re.sub(r"\d{4,}", lambda m: f"{int(m[0]):,}", work.replace(" x ", " × "))


def _least(name: str, limits: dict | None) -> float:
    """Minutes that the operations of a recipe's steps take at the card's own limit in bfloat16; 0 if not counted."""
    rows = limits["rows"] if limits else []
    for work, (recipe, batch) in RECIPES.items():
        row = find(rows, work, "forward, float32, contiguous")
        if recipe == name and row is not None:
            operations = _train(rows) * batch * _work(row)[0] * 1e12
            return operations * planned(name) / limits["limits"]["bfloat16"] / 60
    return 0.0


def _train(rows: list[dict]) -> float:
    """How many forward passes a training step is, in operations, where both were counted."""
    forward, train = (find(rows, PLAIN, f"{t}, float32") for t in ("forward", "train"))
    return _work(train)[0] / _work(forward)[0] if forward and train else 3.0


def minutes(paths: object = None) -> str:
    """How long the planned steps of each GPU recipe take on the measured card."""
    from lib.train.catalogue import ENTRIES, GPU

    found = results("gpu.json")
    if found is None:
        return missing("make gpu PARTS=rates")
    lines, trained, limits = [], found.get("trainings", {}), results("limits.json")
    for name, entry in ENTRIES.items():
        if entry.machine != GPU:
            continue
        rate = found.get("rates", {}).get(name, {})
        if "milliseconds" in rate:
            each, how = rate["milliseconds"], "one recipe at a time"
            how += f", batch {rate['batch']}, {rate['precision']}, {rate['peak MB']:,} MB"
        elif name in trained:
            each = 1e3 * trained[name]["seconds"] / trained[name]["steps"]
            how = f"beside {len(trained) - 1} others, validation in it"
            if trained[name].get("compiled"):
                how += ", with `--compile`, whose wait is in it"
        else:
            least = _least(name, limits)
            rest = (f"at least {least:.0f}", "**no**", BOUND) if least > GOAL else ("", "", OPEN)
            lines.append((f"`{name.replace('_', '-')}`", f"{planned(name):,}", "", *rest))
            continue
        whole = each * planned(name) / 6e4
        verdict = "yes" if whole <= GOAL else "**no**" if rate else "not known"
        took = f"{whole:.1f}" if rate else f"at most {whole:.1f}"
        cells = (f"{planned(name):,}", f"{each:.2f}", took, verdict, how)
        lines.append((f"`{name.replace('_', '-')}`", *cells))
    head = (
        "recipe",
        "planned steps",
        "ms a step",
        "minutes",
        f"at most {GOAL}?",
        "how it was timed",
    )
    said = machine(found, only=("rates", "trainings"))
    said = said.replace(": rates ", ": of the recipes that ran one at a time ")
    said += (
        " The minutes are those of the steps, without the measurement on the test data. Where recipes ran one at a time, they are "
        "without validation too: 2,000 images after each 1,000 steps, at most 16 forward passes of a batch, less than 2%."
    )
    both = [n for n in trained if "milliseconds" in found.get("rates", {}).get(n, {})]
    for n in both:  # how far off the upper bounds may be
        beside = 1e3 * trained[n]["seconds"] / trained[n]["steps"]
        said += (
            f" Neighbours, validation and compilation together: a step of `{n.replace('_', '-')}` took {beside:.1f} ms with them, "
            f"{found['rates'][n]['milliseconds']:.1f} ms without."
        )
    return f"{said}\n\n{table(head, lines)}\n"


def reckoned(paths: object = None) -> str:
    """What a T4 would need, from the operations and bytes that were counted."""
    found = results("limits.json")
    if found is None:
        return missing("make gpu PARTS=limits")
    rows, lines = found["rows"], []
    times = _train(rows)
    for work in dict.fromkeys(r["work"] for r in rows):
        row, more = find(rows, work, "train, float32"), 1.0
        if row is None:
            row, more = find(rows, work, "forward, float32, contiguous"), times
        share = max(row["of the limit"], row["of the copy"]) if row else 0
        if share < 0.1:
            continue  # the calls take its time, not the card
        recipe, batch = RECIPES.get(work, (None, 1.0))
        operations, moved = (more * batch * x for x in _work(row))
        took = f"{more * batch * row['milliseconds']:,.0f}"
        took += "" if more * batch == 1 else " (reckoned)"
        floor = max(operations / T4["operations"], moved / T4["bytes"])
        steps = planned(recipe) if recipe else None
        hours = [s * steps / 3600 for s in (floor, floor / share)] if steps else []
        lines.append(
            (
                f"{_set(work)}: a step"
                if recipe is None
                else f"`{recipe.replace('_', '-')}`: a step",
                *(f"{operations:.2g}", f"{moved:.3g}", took, f"{100 * share:.0f}%"),
                *(f"{1e3 * floor:,.0f}", f"{1e3 * floor / share:,.0f}"),
                f"{steps:,}" if steps else "",
                f"{hours[0]:.2g} to {hours[1]:.2g}" if steps else "",
            )
        )
    said = (
        f"**This table is reckoned, not measured.** NVIDIA's data sheet gives a T4 {T4['operations']} TFLOP/s in float32, {T4['half']:.0f} in half "
        f"precision and {T4['bytes']:.0f} GB/s; it has neither TF32 nor bfloat16, so `lib` trains there in float32 (float16 needs a "
        f"scaled loss, which `lib.train` does not have). The operations and bytes of a call are those that were counted for "
        f"[the limits](benchmarks.md). A GPU cannot need less than the time of all operations at its rate, nor less than the time of all "
        f"bytes at its rate; the larger of the two is its time *at its limits*. The {found['card']} was timed in float32, not in TF32 "
        f"as in the table above. Its *share* is its own time at its limits, as measured by large products and copies, "
        f"over what it took. The T4's time *at the same share* is that at its limits over this share. It is not an upper bound: the data sheet's "
        f"limits are nominal, a T4 may lower its clock when it is warm, and it has smaller caches. A training step of the U-Net was not "
        f"timed: it is taken as {times:.1f} forward passes, which is what it is for RealNVP of MNIST, and as {RECIPES[UNET][1]:g} of "
        f"that, since the recipe's batch is {RECIPES[UNET][1]:g} of the one whose forward pass was timed."
    )
    head = (
        "work",
        "10¹² operations",
        "GB moved",
        f"{found['card'].removeprefix('NVIDIA ')}, ms",
        "its share",
        "T4 at its limits, ms",
        "T4 at the same share, ms",
        "steps",
        "hours",
    )
    last = "Flows and CNFs in small batches are left out: there the processor that makes the calls decides, and the GPU hardly matters."
    return "\n".join([said, "", table(head, lines), "", last, ""])


PAGES = {"gpu minutes": ("training", minutes), "gpu reckoned": ("training", reckoned)}
