"""What `colab.py` runs chapters with: environments as tests/colab/NAME.txt describes them, packages, the book's repository."""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from notebooks import ROOT
from publish_as import published

BUILD, PINS = ROOT / "_build" / "colab", ROOT / "tests" / "colab"
LIST = (
    "import importlib.metadata as m, json;"
    "found = ((d.metadata['Name'], d.version) for d in m.distributions());"
    "print(json.dumps({str(name).lower(): version for name, version in found}))"
)


def sh(*command: str | Path, **kwargs) -> str:
    """Run a command, or end with what it said."""
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, **kwargs
    )
    if done.returncode:
        sys.exit(f"colab: {' '.join(map(str, command[:6]))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def find_python(version: str) -> str:
    """A Python of that version: on the path, or one that pyenv keeps."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python3"))]
    for python in map(str, filter(None, found)):
        asked = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False)
        if said.stdout.strip() == version:  # pyenv's shims answer with an error
            return python
    sys.exit(f"colab: there is no Python {version} here; install it, or use another --env")


def environment(name: str) -> Path:
    """The Python of an environment with the pinned packages, made if it is not there."""
    pins = PINS / f"{name}.txt"
    if not pins.is_file():
        sys.exit(f"colab: no environment {name!r}; there are: {', '.join(envs())}")
    text = pins.read_text()
    folder, stamp = BUILD / name, BUILD / name / ".installed"
    python = folder / "bin" / "python"
    key = hashlib.sha256(text.encode()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != key:
        print(f"colab: installing {pins.relative_to(ROOT)} (gigabytes, minutes, once)", flush=True)
        version = re.search(r"^# python (\S+)", text, re.M)[1]
        sh(find_python(version), "-m", "venv", "--clear", folder)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        if index := os.environ.get("TORCH_INDEX"):
            sh(*pip, re.search(r"^torch\S*", text, re.M)[0], "--index-url", index)
        sh(*pip, "-r", pins)
        (folder / "packages.json").write_text(json.dumps(packages(python)))
        stamp.write_text(key)
    # A run that was stopped may have left what its setup cell added.
    fresh = json.loads((folder / "packages.json").read_text())
    if left := sorted(packages(python).keys() - fresh.keys()):
        sh(python, "-m", "pip", "uninstall", "-q", "-y", *left)
    return python


def envs() -> list[str]:
    """Names of the environments that tests/colab describes."""
    return sorted(p.stem for p in PINS.glob("*.txt"))


def setup_source() -> str:
    """The setup cell, from the one place that holds it."""
    return runpy.run_path(str(ROOT / "lib/teach/setup_cell.py"))["SETUP_CELL"]


def wheels(python: Path, folder: Path) -> None:
    """What the setup cell's pip line asks for, in a folder that stands in for the index."""
    asked = re.search(r"pip install -q --no-deps (.+)", setup_source())[1].split()
    have = {p.name.split("-")[0].lower() for p in folder.glob("*.whl")}
    missing = [a for a in asked if a.lower() not in have]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        sh(python, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, *missing)


def origin() -> Path:
    """A bare repository with the working tree as one commit, under the name that the setup cell asks for."""
    bare, index, ref = BUILD / "origin.git", BUILD / ".index", published(ROOT)[1]
    shutil.rmtree(bare, ignore_errors=True)
    index.unlink(missing_ok=True)
    who = {f"GIT_{a}_{b}": "colab" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")}
    env = {**os.environ, **who, "GIT_INDEX_FILE": str(index)}
    git = ["git", "-C", str(ROOT)]
    sh(*git, "add", "-A", env=env)
    tree = sh(*git, "write-tree", env=env)
    made = sh(*git, "commit-tree", tree, "-m", "The working tree", env=env)
    sh("git", "init", "-q", "--bare", bare)
    kind = "tags" if re.match(r"v?\d", ref) else "heads"
    sh(*git, "push", "-q", bare, f"{made}:refs/{kind}/{ref}")
    return bare


def packages(python: Path | str) -> dict[str, str]:
    """Installed distributions of an environment and their versions."""
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return json.loads(sh(python, "-c", LIST, env=clean))
