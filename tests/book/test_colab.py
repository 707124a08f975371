"""The setup cell where lib is not installed, what the simulation of Colab is made of, and the workflows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import colab_env
import pytest
import yaml
from notebooks import ROOT
from packaging.version import Version
from publish_as import published

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINS = sorted((ROOT / "tests" / "colab").glob("*.txt"))


def _git(folder, *words, **env):
    who = {f"GIT_{a}_{b}": "test" for a in ("AUTHOR", "COMMITTER") for b in ("NAME", "EMAIL")}
    command = ["git", "-C", str(folder), *words]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **who, **env})


@pytest.fixture(params=["branch", "tag"])
def colab_like(request, tmp_path):
    """An empty folder, the book's address as a local repository, and a pip that writes down its arguments."""
    address, version = published(ROOT)
    origin, work, tools = (tmp_path / name for name in ("origin", "work", "bin"))
    for folder in (origin, work, tools):
        folder.mkdir()
    teach = origin / "lib" / "teach" / "__init__.py"
    teach.parent.mkdir(parents=True)
    (origin / "lib" / "__init__.py").touch()
    names = "check = setup = show_source = style = verify = "
    _git(origin, "init", "-q", "-b", "other")
    for text, name in (("'an older one'", None), ("'this page'", version), ("'a newer one'", None)):
        teach.write_text(names + text + "\n")
        _git(origin, "add", "-A")
        _git(origin, "commit", "-q", "-m", text)
        if name:
            _git(origin, *(["tag"] if request.param == "tag" else ["branch"]), name)
    pip = tools / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/pip.log\n')
    pip.chmod(0o755)
    env = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{origin}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
        "GIT_ALLOW_PROTOCOL": "file",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return work, env, tmp_path / "pip.log"


def test_the_setup_cell_brings_the_pages_own_version(colab_like):
    work, env, log = colab_like
    cell = colab_env.setup_source()
    shell = re.findall(r"^    !(.*)$", cell, re.M)
    assert len(shell) == 2
    for line in shell:
        ran = subprocess.run(
            ["bash", "-c", line], cwd=work, env=env, capture_output=True, text=True, check=False
        )
        # A reader sees nothing, not even git's advice about a detached head.
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    asked = log.read_text()
    assert "--no-deps" in asked and "-U" not in asked.split() and "--upgrade" not in asked
    assert not {"torch", "numpy"} & set(asked.split())
    rest = "from lib.teach import check, setup, show_source, style, verify"
    assert rest in cell
    for first in (rest, "import lib.teach"):  # the second: a kernel that was started again
        code = f"{first}\nimport lib.teach as t\nprint(t.setup)"
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=work, env=env, capture_output=True, text=True
        )
        assert ran.stdout.strip() == "this page", ran.stderr
    history = ["git", "-C", str(work / "book-source"), "rev-list", "--all", "--count"]
    assert subprocess.run(history, capture_output=True, text=True).stdout.strip() == "1"


def test_the_setup_cell_does_nothing_where_lib_is(monkeypatch):
    ran = []
    cell = re.sub(r"!(.*)", r"ran.append(1)", colab_env.setup_source())
    exec(compile(cell, "<cell>", "exec"), {"ran": ran})
    assert ran == []


def test_an_environment_says_its_python_and_pins_everything():
    assert {p.stem for p in PINS} >= {"colab", "oldest"}
    for path in PINS:
        lines = path.read_text().splitlines()
        assert re.fullmatch(r"# python 3\.\d+", lines[0])
        for line in lines[1:]:
            assert line.startswith("#") or line == "pytest" or re.fullmatch(r"[\w-]+==[\w.]+", line)


def test_the_oldest_environment_is_what_lib_claims():
    """A lower bound that nobody has run is a guess."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    claimed = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", d).groups() for d in project["dependencies"])
    text = (ROOT / "tests" / "colab" / "oldest.txt").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.M))
    assert {k: Version(v) for k, v in claimed.items()} == {k: Version(pinned[k]) for k in claimed}
    python = re.search(r"^# python (\S+)", text)[1]
    assert project["requires-python"] == f">={python}"


def test_colab_has_no_package_older_than_lib_claims():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = dict(
        re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "tests/colab/colab.txt").read_text(), re.M)
    )
    for name, least in (d.split(">=") for d in project["dependencies"]):
        # What Colab lacks is what the setup cell adds.
        assert name in colab_env.setup_source() or Version(pinned[name]) >= Version(least)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflows_pin_actions_and_ask_for_no_more_than_they_need(path):
    text = path.read_text()
    flow = yaml.safe_load(text)
    assert flow["permissions"] in ({}, {"contents": "read"})
    for name, job in flow["jobs"].items():
        allowed = job.get("permissions", flow["permissions"])
        writes = {scope for scope, level in allowed.items() if level == "write"}
        expected = {"publish": {"pages", "id-token"}, "tell": {"issues"}}
        assert writes == expected.get(name, set()), name
        assert job["timeout-minutes"] <= 180
        for step in job["steps"]:
            action = step.get("uses")
            assert action is None or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action
            # What comes from outside reaches a script as a variable, never as part of its text.
            assert "${{" not in step.get("run", "")
    assert len(re.findall(r"uses: .*@[0-9a-f]{40} # v\d", text)) == text.count("uses:")
