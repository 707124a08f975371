"""Build the book: execute the chapters that changed, stage everything, run Sphinx.

usage: build.py [--all] [--no-pages]

_build/executed/NN_name/  the executed chapter (notebook.ipynb), what its checks recorded
                          (ledger.jsonl) and where and how long it ran (run.json)
_build/src/               what Sphinx reads: the sources, with executed chapters in place of theirs
_build/html/              the pages

A chapter is executed again when its code cells, any file of `lib` that it can reach, requirements.txt,
the Python version, BOOK_MODE or BOOK_DEVICE changed. (Jupyter Book's own cache looks at the notebook alone.)
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import api
import yaml
from budget import PAGES as BUDGET
from course import Course
from execute import ANSI, Job, execute
from extras import join
from extras import pages as made_pages
from gpu import PAGES as GPU
from hub import computed_page, measured_page
from notebooks import ROOT, chapters, dump, execution_key, read
from proof import TABLES as PROOF
from recipes import table as recipes
from seconds import totals
from sheets import page as run_sheets
from tidy import clean

from lib.paths import commit

BUILD = ROOT / "_build"
EXECUTED, STAGED, HTML = BUILD / "executed", BUILD / "src", BUILD / "html"
STAMP, DOCTREES = BUILD / "built.json", BUILD / ".doctrees"
SPHINX_PACKAGES = ("jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme")


# ---------------------------------------------------------------- executing


FIGURE = re.compile(r"^<!-- explorable: (?:(\w+)\.)?(\w+) -->$", re.M)


def figure_name(match: re.Match) -> str:
    """`ch01.bend` of a marker; a bare name is a module with one figure of that name."""
    return f"{match[1] or match[2]}.{match[2]}"


def work(paths: list[Path]) -> dict[str, dict]:
    """What there is to execute: the chapters, and the figures that other pages show."""
    out = {path.stem: read(path) for path in paths}
    for page in sorted((ROOT / "book").glob("*.md")):
        for match in FIGURE.finditer(page.read_text(encoding="utf8")):
            module, name = figure_name(match).split(".")
            code = f"from lib.teach.figures import {module}\n\n{module}.{name}()"
            cell = {"cell_type": "code", "id": "figure", "metadata": {}, "source": code}
            cell |= {"outputs": [], "execution_count": None}
            nb = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
            out[f"figure-{module}.{name}"] = nb
    return out


def key_of(name: str, nb: dict) -> str:
    own = re.search(r"\d\d", name)
    return execution_key(nb, own[0] if own else "00")


def stale(everything: dict[str, dict]) -> dict[str, tuple[dict, str]]:
    """The notebooks whose artefacts do not belong to their present key."""
    out = {}
    for name, nb in everything.items():
        key = key_of(name, nb)
        try:
            known = json.loads((EXECUTED / name / "run.json").read_text(encoding="utf8"))["key"]
        except (OSError, ValueError, KeyError):
            known = ""
        if known != key:
            out[name] = (nb, key)
    return out


def room(executed: Path, name: str) -> dict[str, str]:
    """An empty place for what a notebook will record; the variables that its kernel needs for that."""
    shutil.rmtree(executed / name, ignore_errors=True)  # nothing stale outlives a failure
    fresh = executed / f".{name}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / "ledger.jsonl").touch()
    return {"BOOK_BUILD": "1", "BOOK_LEDGER": str(fresh / "ledger.jsonl")}


def store(executed: Path, job: Job, key: str) -> None:
    """Keep what a job that succeeded has made; nothing of another."""
    fresh = executed / f".{job.name}"
    if job.error:
        shutil.rmtree(fresh)
        return
    run = {
        "key": key,
        "seconds": round(job.seconds, 1),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        **job.about,
    }
    (fresh / "notebook.ipynb").write_text(dump(job.executed), encoding="utf8")
    (fresh / "run.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf8")
    fresh.rename(executed / job.name)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Of those that execute chapters one at a time: each clears away what the others have begun."""
    folder.mkdir(parents=True, exist_ok=True)
    # closed, also by a process that dies, it is free again
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build is running; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_chapters(paths: list[Path], again: bool = False) -> list[str]:
    """Execute what is stale; keep artefacts of what succeeded. Returns what went wrong."""
    EXECUTED.mkdir(parents=True, exist_ok=True)
    everything = work(paths)
    for old in EXECUTED.iterdir():
        if again or old.name not in everything:
            shutil.rmtree(old)
    todo, jobs, errors = stale(everything), [], []
    for name, (nb, _) in todo.items():
        jobs.append(Job(name, nb, room(EXECUTED, name)))
    if jobs:
        print(f"executing {', '.join(todo)}", flush=True)

    def finish(job: Job) -> None:
        if job.error:
            errors.append(job.error)
            print(f"  {job.name}: FAILED after {job.seconds:.1f} s\n{job.error}", flush=True)
        else:
            print(f"  {job.name}: {job.seconds:.1f} s", flush=True)
        store(EXECUTED, job, todo[job.name][1])

    execute(jobs, finish)
    return errors


# ---------------------------------------------------------------- the generated tables


def _title(nb: dict) -> str:
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            match = re.match(r"#\s+(.+)", cell["source"].strip())
            if match:
                return match.group(1).strip()
    return "(no title)"


def _row(*items: object) -> str:
    return "| " + " | ".join(str(i).replace("|", r"\|").replace("\n", " ") for i in items) + " |"


def _number(x: float | None) -> str:
    return "" if x is None else "0" if x == 0 else f"{x:.1e}"


def ledger_table(paths: list[Path]) -> str:
    """Every check that the last execution made: the two routes and how well they agree."""
    parts, sums = [], Counter()
    for path in paths:
        lines = (EXECUTED / path.stem / "ledger.jsonl").read_text(encoding="utf8").splitlines()
        entries = [json.loads(line) for line in lines]
        number = int(path.stem[:2])
        parts += [f"## {number}. {_title(read(path))}", ""]
        good = [e for e in entries if not e.get("expect_failure")]
        bad = len(entries) - len(good)
        identities = len({e["label"] for e in good})
        sums.update(identities=identities, checks=len(good), failures=bad)
        parts += [
            f"{identities} identities, {len(good)} checks"
            + (f", and {bad} failure{'s' * (bad > 1)} on purpose." if bad else "."),
            "",
            _row("equation", "one route", "the other", "tolerance", "achieved", "size", "s"),
            _row(*["---"] * 7),
        ]
        for e in entries:
            anchor = "eq-" + e["label"].replace(".", "-")
            red = " (must fail)" if e.get("expect_failure") else ""
            parts.append(
                _row(
                    f"[({e['label']})](../chapters/{path.name}#{anchor}){red}",
                    *e["routes"],
                    e["tol"],
                    _number(e["error"]),
                    _number(e.get("size")),
                    f"{e['seconds']:.2f}",
                )
            )
        parts.append("")
    total = (
        f"**{sums['identities']} identities in {len(paths)} chapters, {sums['checks']} checks, and "
        f"{sums['failures']} failures on purpose.**\n"
    )
    return "\n".join([total, *parts])


def status_table(paths: list[Path]) -> str:
    """When, where and how long each chapter last ran; what all runs share is said once, above the table."""
    runs = {
        p: json.loads((EXECUTED / p.stem / "run.json").read_text(encoding="utf8")) for p in paths
    }
    shared, cells = [], {p: [] for p in paths}
    head = ["chapter", "checks", "seconds", "longest cell"]
    for name, said in (
        ("device", lambda run: run.get("device", "")),
        ("versions", lambda run: ", ".join(f"{k} {v}" for k, v in run.get("versions", {}).items())),
        ("commit", lambda run: run["commit"]),
        ("date", lambda run: run["date"]),
    ):
        values = {said(run) for run in runs.values()}
        if len(values) == 1:
            shared.append(f"{name} {values.pop()}")
            continue
        head.append(name)
        for path in paths:
            cells[path].append(said(runs[path]))
    parts = [f"The same for all chapters: {'; '.join(shared)}.\n"] if shared else []
    parts += [_row(*head), _row(*["---"] * len(head))]
    for path, run in runs.items():
        lines = (EXECUTED / path.stem / "ledger.jsonl").read_text(encoding="utf8").splitlines()
        parts.append(
            _row(
                f"[{int(path.stem[:2])}. {_title(read(path))}](../chapters/{path.name})",
                len(lines),
                f"{run['seconds']:.0f}",
                f"{max(run.get('cells', {}).values(), default=0):.1f} s",
                *cells[path],
            )
        )
    return "\n".join(parts) + "\n"


# ---------------------------------------------------------------- staging


def _staged_notebook(path: Path, course: Course) -> str:
    """The source's prose with the execution's outputs, so that prose changes need no execution."""
    nb = clean(read(path))  # also where nobody has run `make tidy` yet
    ran = read(EXECUTED / path.stem / "notebook.ipynb")
    outputs = [c for c in ran["cells"] if c["cell_type"] == "code"]
    cells = [c for c in nb["cells"] if c["cell_type"] == "code"]
    for cell, done in zip(cells, outputs, strict=True):
        cell["outputs"], cell["execution_count"] = done["outputs"], done["execution_count"]
        for out in cell["outputs"]:
            out.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return dump(join(nb, path.stem, course))


def staged_files(paths: list[Path]) -> dict[str, bytes]:
    """Everything that Sphinx is to see, by relative path."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))
    config["execute"] = {"execute_notebooks": "off"}
    files = {
        "_config.yml": yaml.safe_dump(config, sort_keys=False).encode(),
        "_toc.yml": (ROOT / "_toc.yml").read_bytes(),
    }
    for folder in ("book", "lib/teach/static"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.is_file() and not any(p.startswith((".", "__")) for p in file.parts[-2:]):
                files[str(file.relative_to(ROOT))] = file.read_bytes()
    for name, marker, table in (
        ("book/ledger.md", "<!-- ledger -->", ledger_table),
        ("book/status.md", "<!-- status -->", status_table),
        ("book/status.md", "<!-- seconds -->", totals),
        ("book/run_sheets.md", "<!-- run sheets -->", run_sheets),
        ("book/classroom.md", "<!-- class measured -->", measured_page),
        ("book/classroom.md", "<!-- class computed -->", computed_page),
        ("book/training.md", "<!-- recipes -->", recipes),
        *(
            (f"book/{page}.md", f"<!-- {name} -->", table)
            for name, (page, table) in (PROOF | GPU | BUDGET).items()
        ),
    ):
        if name in files:
            text = files[name].decode()
            if marker not in text:
                raise SystemExit(f"{name} has no line {marker} for its table")
            files[name] = text.replace(marker, table(paths)).encode()
    for name in [n for n in files if n.startswith("book/") and n.endswith(".md")]:
        text = FIGURE.sub(lambda m: _figure_html(figure_name(m)), files[name].decode())
        text = api.fill(text)
        files[name] = text.encode()
    course = Course(paths)
    files |= made_pages(files, course)
    for path in paths:
        files[f"chapters/{path.name}"] = _staged_notebook(path, course).encode()
    return files


def _figure_html(name: str) -> str:
    nb = read(EXECUTED / f"figure-{name}" / "notebook.ipynb")
    html = "".join(nb["cells"][0]["outputs"][0]["data"]["text/html"])
    return "\n".join(line for line in html.splitlines() if line.strip())  # one block of HTML


def stage(files: dict[str, bytes]) -> None:
    """Write what changed and delete what went, so that Sphinx reads only the pages that changed."""
    for old in sorted(STAGED.rglob("*"), reverse=True):
        if old.is_dir():
            if not any(old.iterdir()):
                old.rmdir()
        elif str(old.relative_to(STAGED)) not in files:
            old.unlink()
    for name, content in files.items():
        file = STAGED / name
        if file.is_file() and file.read_bytes() == content:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


# ---------------------------------------------------------------- Sphinx


def _digest(parts: dict[str, bytes]) -> str:
    h = hashlib.sha256()
    for name in sorted(parts):
        h.update(f"{name}\0{len(parts[name])}\0".encode() + parts[name])
    return h.hexdigest()


def _frame(files: dict[str, bytes]) -> str:
    """Changes when every page has to be written again: styles, scripts, contents, titles."""
    from importlib.metadata import version

    parts = {n: f for n, f in files.items() if not n.endswith((".md", ".ipynb"))}
    for name, content in files.items():
        if name.endswith(".md"):
            parts[name] = (re.findall(rb"^# .*$", content, re.M) or [b""])[0]
        elif name.startswith("chapters/"):
            parts[name] = _title(read(ROOT / name)).encode()
    parts["versions"] = repr([version(p) for p in SPHINX_PACKAGES]).encode()
    return _digest(parts)


def pages(files: dict[str, bytes], everything: bool = False) -> int:
    """Run Jupyter Book on the staged sources, unless its pages are already these."""
    new = {"all": _digest(files), "frame": _frame(files)}
    try:
        old = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        old = {}
    index = HTML / "index.html"
    if old == new and index.is_file() and not everything:
        return 0
    STAMP.unlink(missing_ok=True)
    again = everything or not index.is_file() or old.get("frame") != new["frame"]
    if again:
        shutil.rmtree(DOCTREES, ignore_errors=True)
    began = time.time()
    jb = [str(Path(sys.executable).with_name("jupyter-book"))]
    command = [
        *jb,
        "build",
        str(STAGED),
        "--path-output",
        str(ROOT),
        "-W",
        "-n",
        "--keep-going",
        "-q",
    ]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, check=False
    )
    if done.returncode:
        # A second run would not read the faulty page again, and so would not warn again.
        shutil.rmtree(DOCTREES, ignore_errors=True)
        text = ANSI.sub("", done.stdout).replace(str(STAGED) + os.sep, "")
        warnings = [line for line in text.splitlines() if re.search(r"WARNING|ERROR", line)]
        print("\n".join(warnings) if warnings else text)
        print("the pages were not built: mend what is named above")
        return 1
    if again:  # every page was written anew; what was not belongs to a page that is gone
        # (Jupyter Book writes index.html, which only leads to the first page, once).
        for page in HTML.rglob("*.html"):
            old = page.stat().st_mtime < began - 1
            if old and page != index and "_static" not in page.parts:
                page.unlink()
    STAMP.write_text(json.dumps(new))
    return 0


def main(arguments: list[str]) -> int:
    with alone(BUILD):
        return _main(arguments)


def _main(arguments: list[str]) -> int:
    began = time.perf_counter()
    everything = "--all" in arguments
    paths = chapters()
    errors = run_chapters(paths, everything)
    if errors:
        print(f"\n{len(errors)} failed; the pages were not built")
        STAMP.unlink(missing_ok=True)
        return 1
    if "--no-pages" in arguments:
        return 0
    files = staged_files(paths)
    stage(files)
    code = pages(files, everything)
    if not code:
        print(
            f"the book is at {(HTML / 'index.html').as_uri()} ({time.perf_counter() - began:.0f} s)"
        )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
