"""A wrong number must be found: by nbval under exactly the settings of `make test`, or by the policy."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import ROOT
from policy import RULES, Chapter

CANARY = Path(__file__).with_name("canary.ipynb")
SETTINGS = re.search(r"^NBVAL := (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)


def _variant(tmp_path, number: str | None, count: int | None) -> Path:
    nb = json.loads(CANARY.read_text())
    cell = nb["cells"][0]
    cell["execution_count"] = count
    if number is None:
        cell["outputs"] = []
    else:
        cell["outputs"][0]["text"] = [number + "\n"]
    path = tmp_path / "01_canary.ipynb"
    path.write_text(json.dumps(nb))
    return path


def _nbval(path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    command += [*shlex.split(SETTINGS), "--rootdir", str(path.parent), str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_stored_canary_is_wrong():
    nb = json.loads(CANARY.read_text())
    assert nb["cells"][0]["outputs"][0]["text"] == ["0.300001\n"]


@pytest.mark.parametrize(
    ("number", "count", "nbval_passes", "policy_passes"),
    [
        ("0.3", 1, True, True),
        ("0.300001", 1, False, True),
        ("0.300001", None, False, False),
        (None, 1, False, False),
        (None, None, True, False),  # nbval compares nothing here, silently: the policy must see it
    ],
    ids=["right", "wrong", "null-count", "no-print", "stripped"],
)
def test_canary(tmp_path, number, count, nbval_passes, policy_passes):
    path = _variant(tmp_path, number, count)
    run = _nbval(path)
    assert run.returncode == (0 if nbval_passes else 1), run.stdout + run.stderr
    if not nbval_passes:
        assert "1 failed" in run.stdout
        assert "0.300001" in run.stdout or count is None or number is None
    assert bool(RULES["stored_outputs"](Chapter.open(path))) != policy_passes
