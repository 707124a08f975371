import ast
import importlib
import re
import subprocess
import sys

import pytest
import torch

from lib.paths import commit
from lib.teach import setup, show_source, source
from lib.teach.setup_cell import SETUP_CELL


def test_setup_is_reproducible_and_prints_one_line(capsys, monkeypatch):
    monkeypatch.delenv("BOOK_MODE", raising=False)
    a = (setup(seed=3, device="cpu"), torch.rand(2))[1]
    b = (setup(seed=3, device="cpu"), torch.rand(2))[1]
    assert torch.equal(a, b)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "torch" in lines[0] and "quick" in lines[0] and "seed 3" in lines[0]


def test_mode_and_device_can_be_chosen(monkeypatch):
    monkeypatch.setenv("BOOK_MODE", "full")
    assert setup(device="cpu").full
    assert not setup(device="cpu", mode="quick").full
    with pytest.raises(ValueError, match="'quick' or 'full', not 'fast'"):
        setup(mode="fast")
    with pytest.raises(ValueError, match="device 'tpu' cannot be used"):
        setup(device="tpu")


def test_old_python_gets_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(RuntimeError, match=r"needs Python 3\.11 or newer"):
        setup(device="cpu")


def test_setup_cell_is_short():
    assert len(SETUP_CELL.splitlines()) <= 8
    ast.parse(re.sub(r"!.*", "pass", SETUP_CELL))


def test_source_is_the_files_own_without_docstrings():
    text = source.source_text(source.show_source)
    assert text.startswith("def show_source(*objects") and '"""' not in text
    assert '"""' in source.source_text(source.show_source, docstring=True)
    ast.parse(text)


def test_code_on_a_docstring_s_line_is_shown(tmp_path, monkeypatch):
    text = (
        "def one(x): 'doc'; return x\n\n"
        'class Two:\n    """doc\n    more"""; y = 3\n\n'
        "    def three(self):\n        'doc'\n        return 1\n"
    )
    (tmp_path / "dense.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    dense = importlib.import_module("dense")
    assert source.source_text(dense.one) == "def one(x): 'doc'; return x"
    two = source.source_text(dense.Two)
    assert '"""; y = 3' in two and two.endswith("def three(self):\n        return 1")


def test_source_must_fit_and_exist(capsys):
    with pytest.raises(ValueError, match="do not fit on a screen"):
        show_source(source, docstring=False)
    with pytest.raises(ValueError, match="no source to show"):
        show_source(3)
    show_source(commit)
    assert "From `lib/paths.py`" in capsys.readouterr().out


def test_models_do_not_import_teach():
    code = (
        "import sys, lib.data.densities, lib.data.images, lib.flows, lib.vae, lib.train, lib.metrics; "
        "sys.exit(any(m.startswith('lib.teach') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_decorated_function_comes_from_its_own_file(capsys):
    from lib.diffusion.score import annealed_langevin

    show_source(annealed_langevin)
    assert "From `lib/diffusion/score.py`" in capsys.readouterr().out
