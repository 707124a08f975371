"""The stand-in for a card, tested in a process of its own: in another it could not be made, nor taken away."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

CHECKS = Path(__file__).parent / "standin" / "checks.py"


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no backends in Python",
)
def test_in_a_process_of_its_own():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CHECKS)]
    ran = subprocess.run(command, cwd=CHECKS.parents[2], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
