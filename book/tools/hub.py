"""What a class needs: links that open a chapter on a JupyterHub, and the machines for a number of students.

usage: hub.py links https://hub.example.edu [branch]   a link for each chapter
       hub.py plan [students]                     memory, processors and nodes, with the arithmetic

The plan is computed from what was measured: the sections "classroom.py" and "classroom_chapters.py" of
`tests/benchmarks/RESULTS.md`.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import yaml
from notebooks import ROOT, chapters

FOLDER = "deep-generative-models"  # in a student's home; the same whatever the repository is called
RESULTS = ROOT / "tests" / "benchmarks" / "RESULTS.md"

# What is chosen, not measured.
HEADROOM = 1.3  # limit over need, for what students try beside the chapter
MINUTES = (
    5  # all students press "Run all" in chapter 1 at once: by then all of them have the result
)
NODE_CORES, NODE_GIB = 8, 32  # a common size of a cloud's machine
RESERVED = 0.10  # of a node's memory, for its system and the cluster's own pods


def repository() -> tuple[str, str]:
    """Address and branch of the repository, from where the launch buttons have them."""
    about = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["repository"]
    return about["url"], about["branch"]


def link(hub: str, path: Path, branch: str = "") -> str:
    """The nbgitpuller link that brings the book to a student's home and opens the chapter `path` in JupyterLab.

    `branch` stands for the published one, where that is a tag: nbgitpuller pulls a tag once and then fails.
    """
    url, published = repository()
    query = {
        "repo": url,
        "branch": branch or published,
        "targetpath": FOLDER,
        "urlpath": f"lab/tree/{FOLDER}/chapters/{path.name}",
    }
    text = "&".join(f"{key}={quote(value, safe='/:')}" for key, value in query.items())
    return f"{hub.rstrip('/')}/hub/user-redirect/git-pull?{text}"


def measured(text: str | None = None) -> dict[str, float]:
    """The last figures of each name in the sections of RESULTS.md, and `chapter NN MB` of every chapter.

    Raises:
        ValueError: a section that the plan needs is not there.
    """
    text = RESULTS.read_text(encoding="utf8") if text is None else text
    out: dict[str, float] = {}
    for head, body in re.findall(r"^## (classroom[^\n]*)\n(.*?)(?=^## |\Z)", text, re.M | re.S):
        lines = "\n".join(re.findall(r"^```\n(.*?)^```", body, re.M | re.S))
        if head.startswith("classroom_chapters.py"):
            found = re.findall(r"^(\d\d)_\w+ +(\d+) MB +(\d+) processor s", lines, re.M)
            out |= {f"chapter {n} MB": float(size) for n, size, _ in found}
            out |= {f"chapter {n} processor s": float(seconds) for n, _, seconds in found}
        else:
            found = re.findall(r"^(\S.*?)  +([\d.]+)$", lines, re.M)
            out |= {name: float(value) for name, value in found}
    missing = {"students", "server peak MB, most", "kernel processor s, median"} - set(out)
    if missing or not any(name.startswith("chapter ") for name in out):
        raise ValueError(f"{RESULTS.name} has no {sorted(missing) or 'chapters'}")
    return out


@dataclass(frozen=True)
class Plan:
    """Per student: `memory` is what is reserved and `limit` where the kernel is killed (GiB), `cores` reserved."""

    students: int
    hungriest: str
    memory: float
    limit: float
    cores: float
    per_node: int
    nodes: int
    seconds: float  # until the last of the class has run chapter 1 on these nodes


def _up(value: float, step: float) -> float:
    return round(math.ceil(value / step - 1e-9) * step, 6)


def _chapters(m: dict[str, float], unit: str) -> dict[str, float]:
    """What each chapter needs, by its number."""
    found = ((re.fullmatch(rf"chapter (\d+) {unit}", key), value) for key, value in m.items())
    return {match[1]: value for match, value in found if match}


def _most(m: dict[str, float], unit: str) -> tuple[str, float]:
    """The chapter that needs most of something, and how much."""
    return max(_chapters(m, unit).items(), key=lambda item: item[1])


def plan(students: int, m: dict[str, float]) -> Plan:
    """Limits and nodes for a class, from the measured figures `m`.

    Raises:
        ValueError: fewer than one student.
    """
    if students < 1:
        raise ValueError(f"a class has at least one student, not {students}")
    chapter, size = _most(m, "MB")
    need = (m["server peak MB, most"] + size) * 1e6 / 2**30
    memory, limit = _up(need, 0.125), _up(HEADROOM * need, 0.25)
    work = m["kernel processor s, median"] + m["server processor s, median"]
    cores = _up(work / (60 * MINUTES), 0.05)
    per_node = int(min(NODE_GIB * (1 - RESERVED) / memory, NODE_CORES / cores))
    nodes = math.ceil(students / per_node)
    seconds = (
        min(students, per_node) * work / NODE_CORES
    )  # a full node: none lends another its cores
    return Plan(students, chapter, memory, limit, cores, per_node, nodes, seconds)


def measured_page(_: list[Path] | None = None) -> str:
    """What RESULTS.md has, as Markdown for `book/classroom.md`."""
    m = measured()
    rows = [
        ("from the link to the open chapter, seconds", "open s"),
        ("of that, until the student's server runs", "server s"),
        ("the whole chapter run, seconds", "run s"),
        ("saved, seconds", "save s"),
        ("memory of the server at its peak, MB", "server peak MB"),
        ("memory of the kernel at its peak, MB", "kernel peak MB"),
    ]
    out = ["| chapter 1 | median | most |", "|---|---|---|"]
    out += [
        f"| {words} | {_short(m[f'{key}, median'])} | {_short(m[f'{key}, most'])} |"
        for words, key in rows
    ]
    works = [("server", "starting and serving"), ("kernel", "running the chapter")]
    out += [
        f"| processor seconds, {words} | {_short(m[f'{who} processor s, median'])} | |"
        for who, words in works
    ]
    chapter = _chapters(m, "MB")
    out += [
        "",
        f"That was with {m['students']:.0f} students at once on {m['cores']:.0f} cores (load "
        f"{m['load']:.0f}): the seconds on the clock are those of {m['cores']:.0f} cores, the processor seconds are what counts. After "
        f"{_short(m['wall s'])} s all had opened, run and saved the chapter. A student's home took {m['home MB']:.0f} MB, the hub "
        f"{m['hub rss MB']:.0f} MB and its proxy {m['proxy rss MB']:.0f} MB of memory.",
        "",
        "The kernel's memory at its peak in each chapter, run alone from top to bottom:",
        "",
        "| chapter | " + " | ".join(chapter) + " |",
        "|---|" + "---|" * len(chapter),
        "| MB | " + " | ".join(f"{v:.0f}" for v in chapter.values()) + " |",
    ]
    return "\n".join(out)


def computed_page(_: list[Path] | None = None) -> str:
    """What follows from it, as Markdown for `book/classroom.md`."""
    m = measured()
    plans = [plan(n, m) for n in (10, 20, 40, 50, 100, 200)]
    p = plans[-1]
    need = m["server peak MB, most"] + m[f"chapter {p.hungriest} MB"]
    work = m["kernel processor s, median"] + m["server processor s, median"]
    longest, seconds = _most(m, "processor s")
    wait = (seconds + m["server processor s, median"]) / p.cores / 60
    above = m["kernel peak MB, most"] / m["chapter 01 MB"] - 1
    out = [
        f"- **Memory.** The chapter that needs most is chapter {int(p.hungriest)}: server and kernel take {need:.0f} MB, which is at most {_up(need * 1e6 / 2**30, 0.001):.3f} GiB. "
        f"Rounded up to the next eighth, {p.memory:g} GiB are reserved for each student, and {p.limit:g} GiB, {HEADROOM:g} times the need, rounded up to the next quarter, are the limit.",
        f'- **Processors.** Opening and running chapter 1 takes {work:.1f} processor seconds. If all press "Run all" at once and all are to '
        f"have the result within {MINUTES} minutes, each needs {work / (60 * MINUTES):.3f} cores, rounded up to {p.cores:g}. One thread computes, so 1 core is the limit. "
        f"Later chapters take longer: chapter {int(longest)}, the longest when they were measured, {seconds:.0f} processor seconds, which on these cores a class has after {wait:.0f} minutes.",
        f"- **Binder.** mybinder.org ends a session at about 2 GB; that of chapter {int(p.hungriest)} comes to {need / 1000:.2f} GB where the chapter ran alone, "
        f"and in the class chapter 1 peaked up to {above:.0%} higher than alone: do not count on Binder for chapter {int(p.hungriest)}.",
        f"- **A cluster of nodes with {NODE_CORES} cores and {NODE_GIB} GiB**, {RESERVED:.0%} of the memory kept for the nodes themselves: "
        f"{p.per_node} students on a node, {p.nodes} nodes for 200. If their cores are as fast as those above and never idle, a full node, and so all 200, have "
        f"run chapter 1 after {p.seconds:.0f} s.",
        "",
        "| students | memory of one machine | its cores | or nodes |",
        "|---|---|---|---|",
    ]
    out += [
        f"| {q.students} | {math.ceil(q.students * q.memory + 1)} GiB | {math.ceil(q.students * q.cores)} | {q.nodes} |"
        for q in plans
    ]
    return "\n".join(out)


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["links"] and len(arguments) in (2, 3):
        for path in chapters():
            print(link(arguments[1], path, *arguments[2:]))
        return 0
    if arguments[:1] == ["plan"] and len(arguments) <= 2:
        p = plan(int(arguments[1]) if len(arguments) == 2 else 200, measured())
        print(
            f"{p.students} students, all at work at once; the hungriest chapter is {p.hungriest}\n"
            f"each: {p.memory:g} GiB reserved, {p.limit:g} GiB at most, {p.cores:g} cores reserved, 1 at most\n"
            f"{p.per_node} students on a node of {NODE_CORES} cores and {NODE_GIB} GiB: {p.nodes} nodes\n"
            f"all press 'Run all' in chapter 1 at once: the last has it after {p.seconds:.0f} s\n"
            f"one machine for all instead: {p.students * p.memory + 1:.0f} GiB"
        )
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
