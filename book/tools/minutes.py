"""How long a chapter takes: a stated rule, applied to what the notebook holds.

A minute is 160 words, or 15 lines of code that are shown, or one numbered equation, or one figure. What is folded
away (hints, solutions, plotting code) is not counted. An exercise is 10 minutes to compute, 12 to implement and 15
to prove. The rule is coarse. It is meant to compare chapters and to add up a path, not to time a reader.
"""

from __future__ import annotations

import re

from notebooks import prose, source, tags, without_math

WORDS, LINES = 160, 15  # per minute
EXERCISE = {"compute": 10, "implement": 12, "prove": 15}  # minutes
KIND = re.compile(r"\*\*Exercise \d+\.\d+ \((\w+)\)\.?\*\*")
FOLDED = re.compile(r"<details.*?</details>", re.S)


def reading(cells: list[dict]) -> float:
    """Minutes to read cells once, exercises not done."""
    total = 0.0
    for cell in cells:
        text = source(cell)
        if cell["cell_type"] == "code":
            if not {"hide-input", "exercise", "remove-cell", "remove-input"} & set(tags(cell)):
                total += sum(bool(line.strip()) for line in text.splitlines()) / LINES
            continue
        shown = FOLDED.sub(" ", text)
        total += len(re.findall(r"\\tag\{", shown))
        total += len(re.findall(r"^<a id=\"fig-", shown, re.M))
        plain = FOLDED.sub(" ", prose(cell))
        plain = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", without_math(plain))
        total += len(re.findall(r"[^\W\d_][\w'’-]*", plain)) / WORDS
    return total


def exercises(cells: list[dict]) -> int:
    """Minutes for the exercises among the cells. Raises ValueError for a level that has no time."""
    kinds = [k for c in cells if c["cell_type"] == "markdown" for k in KIND.findall(source(c))]
    unknown = set(kinds) - set(EXERCISE)
    if unknown:
        raise ValueError(f"an exercise is one of {sorted(EXERCISE)}, got {sorted(unknown)}")
    return sum(EXERCISE[k] for k in kinds)


def sections(nb: dict) -> dict[str, list[dict]]:
    """Cells by the heading of level two that they stand under; what comes before the first is under ''."""
    out: dict[str, list[dict]] = {"": []}
    now = ""
    for cell in nb["cells"]:
        if cell["cell_type"] != "markdown":
            out[now].append(cell)
            continue
        for piece in re.split(
            r"^(?=##\s)", source(cell), flags=re.M
        ):  # one cell may hold two headings
            match = re.match(r"##\s+(.+?)\s*$", piece, re.M)
            now = match[1] if match else now
            out.setdefault(now, []).append({**cell, "source": piece})
    return out


def chapter(nb: dict) -> tuple[int, int]:
    """Minutes to read a chapter (its exercises section not counted), and for its exercises."""
    parts = sections(nb)
    read = sum(reading(cells) for title, cells in parts.items() if title != "Exercises")
    return round(read), exercises(nb["cells"])
