"""What `book/proof.md` and `book/benchmarks.md` show: faults planted, exercises, speed beside others.

Every number comes from a file that a command wrote (`make mutants`, `make bench`: book/results/) or is
counted here, in the chapters and in the tests.
"""

from __future__ import annotations

import ast
import json
import math
import re
import statistics
from html import escape
from pathlib import Path

from notebooks import ROOT, read, source
from policy import Chapter, exercise_labels, solutions, stubs

HINT = re.compile(r"^(?:#+\s+|\*\*)Exercise (\d+\.\d+)|<summary>\s*(Hint)[^<]*</summary>", re.M)


def _row(*items: object) -> str:
    return "| " + " | ".join(str(i).replace("|", r"\|") for i in items) + " |"


def table(head: tuple, rows: list[tuple]) -> str:
    return "\n".join([_row(*head), _row(*["---"] * len(head)), *[_row(*r) for r in rows]])


def results(name: str) -> dict | None:
    """A file of book/results, if there is one."""
    file = ROOT / "book" / "results" / name
    return json.loads(file.read_text(encoding="utf8")) if file.is_file() else None


def missing(command: str) -> str:
    """What a page says where there is no file of results."""
    return f"This copy of the book has no results of `{command}` yet: run it in the repository, and build the book again.\n"


def title(path: Path) -> str:
    """`4. Coupling flows`, linked."""
    first = source(read(path)["cells"][0]).lstrip("# ").splitlines()[0].strip()
    return f"[{int(path.stem[:2])}. {first}](../chapters/{path.name})"


# ---------------------------------------------------------------- planted bugs


def _share(rows: list[dict]) -> str:
    caught = sum(r["caught"] for r in rows)
    real = sum(r["sampled"] - r["equivalent"] for r in rows)
    return f"{caught} of {real} ({100 * caught / real:.1f}%)" if real else "none planted"


def mutants(paths: list[Path]) -> str:
    """The shares of faults that were caught, by module and chapter, and what survived."""
    found = results("mutants.json")
    if found is None:
        return missing("make mutants")
    lib, chapters = found["lib"], found["chapters"]
    versions = ", ".join(f"{n} {v}" for n, v in found["versions"].items())
    gallery = sum(r["gallery"] for r in chapters.values())
    parts = [
        f"**In `lib`: {_share(list(lib.values()))} caught. In the chapters' formulas: "
        f"{_share(list(chapters.values()))}. Bugs of the galleries: {gallery} of {gallery}.** "
        f"Commit {found['commit']}, {found['date']}, {versions}; seed {found['seed']}, up to "
        f"{found['sample']} faults for each module and {found['cells']} for each chapter.",
        "",
        table(
            ("module", "possible", "planted", "equivalent", "caught"),
            [
                (f"`{n}`", r["possible"], r["sampled"], r["equivalent"], _share([r]))
                for n, r in lib.items()
            ],
        ),
        "",
        table(
            ("chapter", "possible", "planted", "equivalent", "caught", "by what", "gallery"),
            [
                (
                    title(path),
                    *(r[k] for k in ("possible", "sampled", "equivalent")),
                    _share([r]),
                    ", ".join(f"{k} {n}" for k, n in r["by"].items()),
                    r["gallery"],
                )
                for path in paths
                if (r := chapters.get(path.stem))
            ],
        ),
        "",
    ]
    alive = [f for r in [*lib.values(), *chapters.values()] for f in r["survived"]]
    since = found.get("since", {})  # fault -> the test that was written when it had survived
    if alive:
        later = lambda f: f"; since then `{since[f]}` catches it" if f in since else ""
        parts += ["Not caught in that run, and not equivalent:", ""]
        parts += [*[f"- `{f}`{later(f)}" for f in alive], ""]
    return "\n".join(parts)


def seeds(paths: list[Path]) -> str:
    """How many checks hold with other seeds, and which do not."""
    found = results("seeds.json")
    if found is None:
        return missing("make seeds")
    rows = found["chapters"]
    made, red = (
        sum(r["checks"] for r in rows.values()),
        [s for r in rows.values() for s in r["red"]],
    )
    versions = ", ".join(f"{n} {v}" for n, v in found["versions"].items())
    *first, last = (f"{by:,}" for by in found["moved"])
    parts = [
        f"**With the seeds moved by {', '.join(first)} and {last} the chapters made {made:,} checks in all, exact ones included; {len(red) or 'none'} went "
        f"red.** Commit {found['commit']}, {found['date']}, {versions}.",
        "",
    ]
    for path in paths:
        if r := rows.get(path.stem):
            parts += [f"- {title(path)}: {said}" for said in r["red"]]
    return "\n".join([*parts, ""])


# ---------------------------------------------------------------- exercises


def hints(ch: Chapter) -> dict[str, int]:
    """How many hints each exercise has."""
    out: dict[str, int] = {}
    for _, cell in ch.markdown:
        for match in HINT.finditer(source(cell)):
            if match[1]:
                out[match[1]] = 0
            elif out:
                out[list(out)[-1]] += 1
    return out


def answers(number: int, which: str) -> dict[str, int]:
    """How many RIGHT or WRONG answers the tests try on each exercise."""
    text = (ROOT / "tests" / "teach" / f"test_ch{number:02d}.py").read_text(encoding="utf8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == which:
            rows = zip(node.value.keys, node.value.values, strict=True)
            return {k.value: len(v.elts) for k, v in rows}
    raise ValueError(f"tests/teach/test_ch{number:02d}.py has no {which}")


def exercises(paths: list[Path]) -> str:
    """Exercises by chapter: checked ones, hints, answers that the tests try."""
    rows = []
    for path in paths:
        ch = Chapter.open(path)
        labels, wrong = exercise_labels(ch), answers(ch.number, "WRONG")
        counts = (len(labels), len(stubs(ch)), sum(hints(ch).values()), len(solutions(ch)))
        right = sum(answers(ch.number, "RIGHT").values())
        rows.append((title(path), *counts, right, sum(wrong.values()), min(wrong.values())))
    total = [sum(r[k] for r in rows) for k in range(1, 7)]
    rows.append(("**all**", *total, min(r[7] for r in rows)))
    head = ("chapter", "exercises", "checked", "hints", "solutions", "right answers tried")
    return table((*head, "wrong answers tried", "fewest wrong answers for one exercise"), rows)


# ---------------------------------------------------------------- benchmarks

LEFT, WIDE, STEP, SHAPES = 296, 716, 17, "circle square triangle diamond".split()


def _mark(shape: str, x: float, y: float) -> str:
    match shape:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        case "square":
            return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
        case "triangle":
            return f'<path d="M{x:.1f} {y - 4.5:.1f} l4.5 8 h-9 z"/>'
    return f'<path d="M{x:.1f} {y - 5:.1f} l5 5 l-5 5 l-5 -5 z"/>'


def shorter(task: str) -> str:
    """A label that leaves room for the marks on a phone."""
    return task.replace(", our SiLU in place of ReLU", " with SiLU")


def chart(rows: list[dict], name: str) -> str:
    """One line for each task; marks at ours / theirs on a logarithmic axis, bars over the middle half."""
    peers = list(dict.fromkeys(r["peer"] for r in rows))
    tasks = list(dict.fromkeys(f"{r['case']}: {r['task']}" for r in rows))
    low, high = min(r["low"] for r in rows), max(1.0, *(r["high"] for r in rows))
    low, high = math.log(min(low, 0.5) / 1.1), math.log(max(high, 1.2) * 1.1)
    across = lambda ratio: LEFT + (WIDE - LEFT - 8) * (math.log(ratio) - low) / (high - low)
    bottom = 28 + STEP * len(tasks)
    parts = []
    for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5):
        if low < math.log(tick) < high:
            x, kind = across(tick), "bench-one" if tick == 1 else "bench-grid"
            parts.append(f'<path class="{kind}" d="M{x:.1f} 20 V{bottom}"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" class="bench-tick">{tick:g}</text>')
    for k, peer in enumerate(peers):
        x = LEFT + 12 + 110 * k
        parts.append(f'<g class="bench-{k % 4}">{_mark(SHAPES[k % 4], x, 8)}</g>')
        parts.append(f'<text x="{x + 9}" y="12">{escape(peer)}</text>')
    for k, task in enumerate(tasks):
        y = 28 + STEP * (k + 0.5)
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" class="bench-name">{escape(shorter(task))}</text>'
        )
        for r in rows:
            if f"{r['case']}: {r['task']}" == task:
                i = peers.index(r["peer"]) % 4
                bar = f'<path d="M{across(r["low"]):.1f} {y:.1f} H{across(r["high"]):.1f}"/>'
                mark = _mark(SHAPES[i], across(r["ratio"]), y)
                parts.append(f'<g class="bench-{i}">{bar}{mark}</g>')
    said = "; ".join(words(peer, [r for r in rows if r["peer"] == peer]) for peer in peers)
    return (
        f'<div class="bench"><svg viewBox="0 0 {WIDE} {bottom + 20}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg" aria-label="{escape(f"{name}, our time over theirs. {said}.")}">'
        f"{''.join(parts)}</svg></div>"
    )


def words(peer: str, rows: list[dict]) -> str:
    ratios = [r["ratio"] for r in rows]
    faster = sum(x < 1 for x in ratios)
    even = sum(r["low"] <= 1 <= r["high"] for r in rows)
    return (
        f"{peer}: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to "
        f"{max(ratios):.2f}, ours faster in {faster} of {len(ratios)}"
        + (f"; too close to tell (the bar contains 1) in {even}" if even else "")
    )


WORK = {  # what is timed, from tests/benchmarks: what the tables do not say
    "flows": "A batch of 1,024. RealNVP: 8 couplings; MAF and IAF: 5 layers; each of their networks has 2 hidden layers of 128 units. "
    "Planar: 16 maps. A training step is `log_prob`, backward and Adam. The rows are not independent trials, so how many of them are "
    "below 1 is no measure of certainty. The smallest ratios are those of an autoregressive flow in its slow direction (MAF: `sample`; "
    "IAF: `log_prob` and `train`), where `lib` does less work: on a processor it computes each hidden unit once, and the others make "
    "a full pass for each of the D coordinates.",
    "continuous flows": "A field of 3 hidden layers of 64 tanh units, a batch of 512, dopri5 at rtol = atol = 1e-5. The note is about the "
    "other side: its evaluations of the field, and the mean of its minus log p. The `ffjord` rows and those of our own have the same weights, so with the "
    "exact trace they agree; with Hutchinson's each draws its own random signs. zuko's field has the same size, but its own weights, "
    "and so other nats. It is evaluated 42 or 49 times against 20 of ours: for `log_prob` a ratio of 0.41 to 0.48 would be equal speed "
    "per evaluation. ffjord takes 26 in 64 dimensions: there 0.77 would be equal speed.",
    "samplers": "One step of a sampler (or 20) without its network, whose answer is computed beforehand. Compare the milliseconds with those of the "
    "U-Net below, which a sampler calls in each step.",
}


def compared(found: dict, level: str = "##", where: str = "") -> str:
    """Where and when, then for each benchmark of one file a chart and its table."""
    versions = ", ".join(f"{n} {v}" for n, v in found["versions"].items())
    load = ", ".join(f"{x:g}" for x in found["load"])
    machine = f"{found['cpu']}, {found['cores']} cores, of which one thread was used"
    if "card" in found:
        machine = f"{found['card']}, its calls made by one thread of {machine.partition(', of')[0]}"
    parts = [
        f"{machine}; {versions}; commit "
        f"{found['commit']}, {found['date']}; {found['seconds']} s in all. Load of the machine before the run "
        f"and after each part: {load}.",
        "",
    ]
    if found["busy"]:
        parts += ["**Other work ran on this machine at the same time: expect a wider spread.**", ""]
    if found["quick"]:
        parts += ["**A quick run, three rounds for each line: the spread is hardly measured.**", ""]
    peers = [r for r in found["rows"] if not r["peer"].startswith("ours")]
    for name in dict.fromkeys(r["benchmark"] for r in found["rows"]):
        every = [r for r in found["rows"] if r["benchmark"] == name]
        theirs = [r for r in peers if r["benchmark"] == name]
        heading = (name if name == "U-Net" else name[0].upper() + name[1:]) + where
        about = [WORK[name], ""] if name in WORK and not where else []
        parts += [f"{level} {heading}", "", *about, chart(theirs, heading), ""]
        for peer in dict.fromkeys(r["peer"] for r in theirs):
            parts.append(f"- {words(peer, [r for r in theirs if r['peer'] == peer])}")
        body = [
            (
                f"{r['case']}: {r['task']}",
                f"{r['milliseconds']:.3g}",
                r["peer"],
                f"{r['ratio']:.2f}",
                f"{r['low']:.2f} to {r['high']:.2f}",
                f"{r['rounds']}, {r['clock']}",
                r["note"],
            )
            for r in every
        ]
        head = (
            "work",
            "ours, ms",
            "beside",
            "ours / theirs",
            "middle half",
            "rounds, clock",
            "note",
        )
        parts += ["", table(head, body), ""]
    return "\n".join(parts)


def benchmarks(paths: list[Path]) -> str:
    """The run on a processor."""
    found = results("bench.json")
    if found is not None:
        return compared(found)
    earlier = "\nEarlier runs, written down by hand: `tests/benchmarks/RESULTS.md`.\n"
    return missing("make bench") + earlier


TABLES = {
    "mutants": ("proof", mutants),
    "seeds": ("proof", seeds),
    "exercises": ("proof", exercises),
}
TABLES |= {"benchmarks": ("benchmarks", benchmarks)}
