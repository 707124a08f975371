"""Which chapters run again after a change, and what a failing cell does to the build."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from notebooks import ROOT, chapters, code, dependencies, execution_key, read

TREE = {
    "requirements.txt": "numpy==1\n",
    "lib/__init__.py": "",
    "lib/nets.py": "import math\n",
    "lib/flows/__init__.py": "from .flow import Flow\n",
    "lib/flows/flow.py": "def f():\n    from ..nets import x\n",
    "lib/flows/weights/w.bin": "1",
    "lib/vae/__init__.py": "",
    "lib/vae/elbo.py": "import importlib\nm = importlib.import_module('lib.metrics')\n",
    "lib/metrics.py": "",
    "lib/unused.py": "",
    "lib/teach/__init__.py": "",
    "lib/teach/static/explore.js": "",
    "lib/teach/figures/__init__.py": "",
    "lib/teach/figures/ch01.py": "",
    "lib/teach/figures/ch01_bend.js": "",
    "lib/teach/figures/ch02.py": "",
    "lib/teach/exercises/__init__.py": "",
    "lib/teach/exercises/ch02.py": "",
}
CODE = {
    "01_one": "from lib.flows import Flow\nimport lib.teach\n!ls\n%time x = 1\n",
    "02_two": "from lib.vae import elbo\nimport lib.teach\n",
}


def _notebook(*sources: str) -> dict:
    cells = [
        {
            "cell_type": "code",
            "id": f"c{k}",
            "metadata": {},
            "source": s,
            "outputs": [],
            "execution_count": None,
        }
        for k, s in enumerate(sources)
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def tree(tmp_path):
    for name, text in TREE.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def _keys(root):
    return {name: execution_key(_notebook(text), name, root) for name, text in CODE.items()}


@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("lib/__init__.py", {"01_one", "02_two"}),
        ("lib/teach/__init__.py", {"01_one", "02_two"}),
        ("lib/teach/static/explore.js", {"01_one", "02_two"}),
        ("requirements.txt", {"01_one", "02_two"}),
        ("lib/flows/flow.py", {"01_one"}),
        ("lib/flows/weights/w.bin", {"01_one"}),
        ("lib/nets.py", {"01_one"}),
        ("lib/teach/figures/ch01_bend.js", {"01_one"}),
        ("lib/teach/figures/ch01.py", {"01_one"}),
        ("lib/teach/figures/ch02.py", {"02_two"}),
        ("lib/teach/exercises/ch02.py", {"02_two"}),
        ("lib/vae/elbo.py", {"02_two"}),
        ("lib/metrics.py", {"02_two"}),
        ("lib/unused.py", set()),
    ],
)
def test_a_change_in_lib_reaches_exactly_its_chapters(tree, file, again):
    before = _keys(tree)
    path = tree / file
    path.write_text(path.read_text() + "\n# changed\n")
    after = _keys(tree)
    assert {name for name in CODE if before[name] != after[name]} == again


def test_prose_does_not_execute_a_chapter_again(tree):
    nb = _notebook("x = 1")
    before = execution_key(nb, "01_one", tree)
    nb["cells"].append({"cell_type": "markdown", "id": "m", "metadata": {}, "source": "text"})
    assert execution_key(nb, "01_one", tree) == before
    nb["cells"][0]["source"] = "x = 2"
    assert execution_key(nb, "01_one", tree) != before


@pytest.mark.parametrize(("name", "value"), [("BOOK_MODE", "full"), ("BOOK_DEVICE", "cuda")])
def test_another_mode_or_device_executes_every_chapter_again(tree, monkeypatch, name, value):
    monkeypatch.delenv(name, raising=False)
    plain = _keys(tree)
    monkeypatch.setenv(name, "")  # lib takes it for none
    assert _keys(tree) == plain
    monkeypatch.setenv(name, value)
    other = _keys(tree)
    assert all(other[chapter] != key for chapter, key in plain.items())


# Each chapter's imports in turn, in one process (torch alone takes seconds), and which files of lib they load.
IMPORT = """
import json, sys
loaded = {}
for name, imports in json.load(sys.stdin).items():
    for module in [m for m in sys.modules if m.split(".")[0] == "lib"]:
        del sys.modules[module]
    exec(imports, {})
    found = [m for n, m in sys.modules.items() if n.split(".")[0] == "lib"]
    loaded[name] = [m.__file__ for m in found if getattr(m, "__file__", None)]
print(json.dumps(loaded))
"""


def imports(nb: dict) -> str:
    return "\n".join(
        ast.unparse(node)
        for cell in nb["cells"]
        if cell["cell_type"] == "code"
        for node in ast.parse(code(cell)).body
        if re.match(r"(import|from) lib\b", ast.unparse(node))
    )


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    run = subprocess.run(
        [sys.executable, "-c", IMPORT],
        input=json.dumps({path.stem: imports(read(path)) for path in chapters()}),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_what_a_chapter_really_imports_is_in_its_key(loaded, path):
    """The static reading misses nothing that the chapter's imports load."""
    files = set(loaded[path.stem])
    assert str(ROOT / "lib" / "teach" / "__init__.py") in files
    assert files <= {str(p) for p in dependencies(read(path), path.stem)}


# ---------------------------------------------------------------- failing cells


def _build(root, **cells):
    shutil.copytree(ROOT / "book/tools", root / "book/tools", dirs_exist_ok=True)
    (root / "chapters").mkdir(exist_ok=True)
    for name, sources in cells.items():
        (root / "chapters" / f"{name.lstrip('_')}.ipynb").write_text(
            json.dumps(_notebook(*sources))
        )
    run = subprocess.run(
        [sys.executable, str(root / "book/tools/build.py"), "--no-pages"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "BOOK_JOBS": "2"},
    )
    return run.returncode, run.stdout + run.stderr


# The kernel dies when it is given the next cell, which is the build's own.
LATER = "import os; get_ipython().events.register('pre_run_cell', lambda _: os._exit(3))"


def test_failures_stop_the_build_and_leave_nothing(tree):
    code, said = _build(tree, _01_one=["x = 1"], _02_two=["print(2)"])
    assert code == 0, said
    assert (tree / "_build/executed/01_one/run.json").exists()

    code, said = _build(
        tree,
        _01_one=["x = 1"],
        _02_two=["y = 0\n1 / y"],
        _03_three=["import sys; sys.stderr.write('a warning')"],
        _04_four=["import os; os._exit(3)"],
        _05_five=[LATER],
    )
    assert code == 1
    assert "02_two, cell 1" in said and "ZeroDivisionError" in said
    assert "03_three, cell 1" in said and "a warning" in said
    assert "04_four, cell 1" in said and said.count("kernel died") == 2
    assert "05_five, cell 1" in said and "IndexError" not in said  # though it died behind the last
    assert "01_one" not in said.split("executing")[1].split("\n")[0]  # unchanged: not run again
    left = {p.name for p in (tree / "_build/executed").iterdir()}
    assert left == {"01_one"}  # the good result of the old 02_two went as well


def test_two_chapters_run_at_once(tree):
    """Each waits for the other: they end only if they run at the same time."""
    meet = (
        "import pathlib, time\nhere = pathlib.Path({folder!r})\n(here / '{me}').touch()\n"
        "end = time.time() + 60\nwhile not (here / '{you}').exists():\n"
        "    assert time.time() < end, 'alone'\n    time.sleep(0.05)\n"
    )
    code, said = _build(
        tree,
        _01_one=[meet.format(folder=str(tree), me="a", you="b")],
        _02_two=[meet.format(folder=str(tree), me="b", you="a")],
    )
    assert code == 0, said


def test_a_chapter_runs_in_an_empty_folder_on_one_thread(tree):
    code, said = _build(
        tree,
        _01_one=["import os\nassert os.listdir() == [] and os.environ['OMP_NUM_THREADS'] == '1'"],
    )
    assert code == 0, said
