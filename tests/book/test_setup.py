"""`make setup`: when it runs, and which environment it keeps. Nothing is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import ROOT


@pytest.fixture
def tree(tmp_path):
    """A copy of the book with an environment set up by this Python."""
    for name in ("requirements.txt", "tests/peers.txt", "pyproject.toml", "Makefile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").write_text(sys.version)
    return tmp_path


def sets_up(tree: Path, *words: str, **variables: str) -> bool:
    """Whether `make book` would run setup_env.py first."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
    run = subprocess.run(
        ["make", "-n", "book", *words],
        cwd=tree,
        env=env | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return "setup_env.py" in run.stdout


@pytest.mark.parametrize("words", [(), (f"PYTHON={sys.executable}",)], ids=["plain", "the same"])
def test_what_is_set_up_is_left_alone(tree, words):
    assert not sets_up(tree, *words)
    (tree / "requirements.txt").touch()
    os.utime(tree / ".venv" / ".installed", (1, 1))
    assert sets_up(tree, *words)


@pytest.mark.parametrize("how", ["word", "variable", "missing"])
def test_another_python_that_is_asked_for_sets_up_again(tree, how):
    (tree / ".venv" / ".installed").write_text("3.9")
    if how == "missing":
        assert sets_up(tree, "PYTHON=/no/python")
    elif how == "word":
        assert sets_up(tree, f"PYTHON={sys.executable}")
    else:
        assert sets_up(tree, PYTHON=sys.executable)


@pytest.mark.parametrize("version", [sys.version, "3.9"], ids=["the same", "another"])
def test_only_an_environment_of_this_python_is_kept(tmp_path, version):
    """setup_env.py with calls that do nothing, but the one that looks at the environment."""
    (tmp_path / "requirements.txt").write_text("torch==2.2.2\n")
    python = tmp_path / "v" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!{sys.executable}\nimport sys\nsys.version = {version!r}\n"
        "sys.argv = sys.argv[1:]\nexec(sys.argv.pop(1))\n"  # -c CODE ...
    )
    python.chmod(0o755)
    script = (
        "import subprocess, sys\nreal, made = subprocess.call, []\n"
        "def call(words, **how):\n"
        "    made.append(words[1:3] == ['-m', 'venv'])\n"
        "    return real(words, **how) if words[1] == '-c' else 0\n"
        f"subprocess.call, sys.argv = call, ['', 'v', 'v/.installed']\n"
        f"exec(open({str(ROOT / 'book/tools/setup_env.py')!r}).read())\n"
        "print('made anew:', any(made))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert f"made anew: {version != sys.version}" in run.stdout, run.stdout + run.stderr
    assert (tmp_path / "v" / ".installed").read_text() == sys.version
