"""Serve the chapters' explorable figures live, full screen, with Voila: a gallery, and run sheets beside them.

usage: demo.py [--prepare] [--no-browser] [--port=8866] [NN ...]
       (--prepare only writes _build/demos; NN, as in 09, warms up and shows these chapters alone)

One small notebook per chapter, made here and nowhere stored, imports the chapter's own figures and shows
them: a demo cannot fall behind its chapter. Voila's pool holds one kernel per chapter that has already
run its notebook, so a demo opens on numbers that are there.
"""

from __future__ import annotations

import html
import os
import shutil
import subprocess
import sys
from pathlib import Path

from notebooks import ROOT, chapters, dump, read
from sheets import panel, sheets, title

PAGE = ROOT / "book" / "demos" / "page"
BUILD = ROOT / "_build" / "demos"
RENDERER = ROOT / "lib" / "teach" / "static"

# At most two kernels warm up at a time: a dozen that import torch at once on two cores are all slow.
FIRST = """\
import contextlib, fcntl, os
from IPython.display import HTML, display

@contextlib.contextmanager
def turn():
    with open({lock!r} + str(os.getpid() % 2), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

with turn():
    from lib.teach.figures import {module} as figures"""
SHOW = """\
with turn():
    figure = figures.{name}()
    display(HTML(figure.live_html()))"""


def cell(key: str, code: str, **about: str) -> dict:
    """A code cell; `about` is what the page's template reads."""
    return {
        "cell_type": "code", "id": key, "metadata": {"demo": about}, "source": code,
        "outputs": [], "execution_count": None,
    }  # fmt: skip


def demo(path: Path, folder: Path = BUILD) -> dict | None:
    """The notebook of a chapter's demos, or None where a chapter has none."""
    entries = sheets(path)
    if not entries:
        return None
    number = path.name[:2]
    cells = [cell("first", FIRST.format(lock=str(folder / "turn"), module=f"ch{number}"))]
    for e in entries:
        about = {"name": e["name"], "number": e["number"], "sheet": panel(e)}
        cells.append(cell(e["name"], SHOW.format(name=e["name"]), **about))
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    about = {"kernelspec": spec, "demo": {"title": title(read(path)), "chapter": int(number)}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def gallery(paths: list[Path]) -> str:
    """The cards of the gallery, one for each demo, by chapter."""
    out = []
    for path in paths:
        cards = [
            f'<li><a href="/voila/render/{path.name}#{e["name"]}"><b>Figure {e["number"]}</b>'
            f"<span>{html.escape(' '.join(e['ask'].split()))}</span>"
            f"<small>{e['minutes']} minutes</small></a></li>"
            for e in sheets(path)
        ]
        heading = html.escape(title(read(path)))
        if cards:
            out.append(f"<h2>{int(path.name[:2])}. {heading}</h2><ul>{''.join(cards)}</ul>")
    return "".join(out)


def prepare(only: list[str] | None = None, folder: Path = BUILD) -> list[Path]:
    """Write the notebooks, and the template with which Voila shows them. Returns the notebooks."""
    shutil.rmtree(folder, ignore_errors=True)
    notebooks, template = folder / "notebooks", folder / "jupyter/nbconvert/templates/book"
    notebooks.mkdir(parents=True)
    made, shown = [], []
    for path in chapters():
        nb = demo(path, folder) if not only or path.name[:2] in only else None
        if nb is not None:
            shown.append(path)
            made.append(notebooks / path.name)
            made[-1].write_text(dump(nb), encoding="utf8")
    shutil.copytree(PAGE, template)
    for file in RENDERER.iterdir():
        shutil.copy(file, template / "static")
    tree = template / "tree.html"
    tree.write_text(tree.read_text("utf8").replace("<!-- gallery -->", gallery(shown)), "utf8")
    return made


def command(port: int, *, browser: bool, pool: bool = True, folder: Path = BUILD) -> list[str]:
    """How Voila is started: our template, a pool of warm kernels (or none: each page starts its own)."""
    return [
        sys.executable, "-m", "voila", str(folder / "notebooks"), "--template=book", "--classic-tree",
        f"--port={port}", f"--preheat_kernel={pool}", "--pool_size=1",
        # A new kernel warms up after a demo has opened, and not while it does.
        "--VoilaKernelManager.fill_delay=5",
        # Kernels of pages that went without saying so (a browser that crashed).
        "--MappingKernelManager.cull_idle_timeout=900", "--MappingKernelManager.cull_interval=60",
        *([] if browser else ["--no-browser"]),
    ]  # fmt: skip


def environment(folder: Path = BUILD) -> dict[str, str]:
    """The environment of Voila and its kernels: `lib` from here, the template, one thread."""
    # So that an explorable figure comes as a widget; BOOK_BUILD would ask for the page's form.
    env = {k: v for k, v in os.environ.items() if k not in ("BOOK_BUILD", "MPLBACKEND")}
    for name, value in (("PYTHONPATH", ROOT), ("JUPYTER_PATH", folder / "jupyter")):
        env[name] = os.pathsep.join(filter(None, [str(value), env.get(name)]))
    env |= {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    return env


def main(arguments: list[str]) -> int:
    only = [a for a in arguments if not a.startswith("-")]
    options = [a for a in arguments if a.startswith("-")]
    port = 8866
    for option in options:
        if option.startswith("--port="):
            port = int(option.removeprefix("--port="))
        elif option not in ("--prepare", "--no-browser"):
            sys.exit(f"demo.py knows no option {option!r}\n\n{__doc__}")
    if not prepare(only):
        names = ", ".join(p.name[:2] for p in chapters())
        print(f"no explorable figure in {only or 'any chapter'}; there are the chapters {names}")
        return 1
    if "--prepare" in options:
        return 0
    print(
        'the demos warm up, half a minute for all, and 0.3 GB for each chapter (ONLY="09 10" warms two); '
        "stop with Ctrl-C"
    )
    print(f"gallery: http://localhost:{port}/", flush=True)
    try:
        return subprocess.call(
            command(port, browser="--no-browser" not in options), cwd=ROOT, env=environment()
        )
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
