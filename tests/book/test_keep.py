"""What nbval has executed is stored as the build stores its own execution, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from execute import Job, execute
from notebooks import ROOT

RUN = """
import sys
from pathlib import Path
import keep, pytest
keep.EXECUTED = Path(sys.argv[1])
options = ["-q", "-p", "no:cacheprovider", "--rootdir", sys.argv[1], "--nbval-lax", "--nbval-current-env", *sys.argv[2:]]
sys.exit(pytest.main(options, plugins=[keep]))
"""

ENV = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "book" / "tools"), str(ROOT)])}


def notebook(*cells: str) -> dict:
    made = []
    for k, source in enumerate(cells):
        tags = ["raises-exception"] if "raise" in source else []
        cell = {"cell_type": "code", "id": f"cell-{k}", "metadata": {"tags": tags}}
        made.append(cell | {"source": source, "outputs": [], "execution_count": None})
    text = {"cell_type": "markdown", "id": "text", "metadata": {}, "source": "# A title"}
    return {"cells": [text, *made], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def nbval(folder: Path, run: str = RUN, **notebooks: dict) -> subprocess.CompletedProcess:
    """Run nbval with the plugin over notebooks of these names; `folder / "executed"` gets what it keeps."""
    files = []
    for name, nb in notebooks.items():
        files.append(folder / f"{name}.ipynb")
        files[-1].write_text(json.dumps(nb), encoding="utf8")
    (folder / "executed").mkdir(exist_ok=True)
    command = [sys.executable, "-c", run, str(folder / "executed"), *map(str, files)]
    return subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, check=False)


GOOD = notebook(
    "import os\nprint('one')\nprint('two', os.environ['BOOK_BUILD'])",
    "with open(os.environ['BOOK_LEDGER'], 'a') as ledger:\n    _ = ledger.write('{}\\n')",
    "raise ValueError('as it must')",
    "1 + 1;",
    "import json\n{'a': 1}",
)


def test_what_passes_is_stored_as_the_build_would(tmp_path):
    ran = nbval(tmp_path, small=GOOD)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    kept = tmp_path / "executed" / "small"
    ledger = tmp_path / "ledger"
    job = Job("small", GOOD, {"BOOK_BUILD": "1", "BOOK_LEDGER": str(ledger)})
    with ThreadPoolExecutor(1) as other:  # this one may hold a browser's event loop
        other.submit(execute, [job]).result()
    assert not job.error
    found = json.loads((kept / "notebook.ipynb").read_text(encoding="utf8"))
    wanted = json.loads(json.dumps(job.executed))
    assert found["metadata"] == wanted["metadata"]
    shape = lambda nb: [(c["cell_type"], c["id"], c.get("execution_count")) for c in nb["cells"]]
    assert shape(found) == shape(wanted)
    joined = lambda text: "".join(text)
    for mine, its in zip(found["cells"], wanted["cells"], strict=True):
        assert len(mine.get("outputs", [])) == len(its.get("outputs", []))
        assert mine["source"] != "1 + 1;" or not mine["outputs"]
        for a, b in zip(mine.get("outputs", []), its.get("outputs", []), strict=True):
            assert a["output_type"] == b["output_type"]
            assert joined(a.get("text", "")) == joined(b.get("text", ""))
            assert a.get("evalue") == b.get("evalue")
            assert {m: joined(t) for m, t in a.get("data", {}).items()} == b.get("data", {})
    run = json.loads((kept / "run.json").read_text(encoding="utf8"))
    assert run["versions"] == job.about["versions"] and run["device"] == job.about["device"]
    assert set(run["cells"]) == {f"cell-{k}" for k in range(5)} and run["seconds"] > 0
    assert (kept / "ledger.jsonl").read_text() == ledger.read_text() == "{}\n"


BAD = {
    "a cell fails": ("assert 1 + 1 == 3", "assert 1 + 1 == 3"),
    "a page may not show stderr": ("import sys\nprint('x', file=sys.stderr)", "wrote to stderr"),
    "a relative path is not there": ("open('small.ipynb').close()", "FileNotFoundError"),
}


@pytest.mark.parametrize("why", BAD)
def test_what_fails_is_not_stored(tmp_path, why):
    source, said = BAD[why]
    old = tmp_path / "executed" / "small"
    old.mkdir(parents=True)
    (old / "run.json").write_text("{}")  # of an earlier execution
    ran = nbval(tmp_path, small=notebook("print('one')", source), other=notebook("print(2)"))
    assert ran.returncode != 0 and said in ran.stdout
    assert [p.name for p in (tmp_path / "executed").iterdir()] == ["other"]


def test_half_a_chapter_is_not_stored(tmp_path):
    (tmp_path / "executed").mkdir()
    nbval(tmp_path, small=notebook("print('one')", "print('two')"))
    assert (tmp_path / "executed" / "small").is_dir()
    command = [sys.executable, "-c", RUN, str(tmp_path / "executed"), "-k", "0", "small.ipynb"]
    subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, check=False)
    assert not list((tmp_path / "executed").iterdir())


def test_a_file_saved_meanwhile_does_not_make_the_old_outputs_new(tmp_path):
    """The key is that of what the chapter found when it began."""
    version = tmp_path / "version"
    version.write_text("1")
    run = f"import keep\nkeep.key_of = lambda name, nb: open({str(version)!r}).read()\n{RUN}"
    ran = nbval(tmp_path, run, small=notebook(f"_ = open({str(version)!r}, 'w').write('2')"))
    assert ran.returncode == 0 and version.read_text() == "2", ran.stdout + ran.stderr
    kept = json.loads((tmp_path / "executed" / "small" / "run.json").read_text(encoding="utf8"))
    assert kept["key"] == "1"


TAKE = """
import fcntl
try:
    fcntl.flock(open({lock!r}, "w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    print("kept")
"""


def test_no_build_begins_meanwhile(tmp_path):
    """It would clear away the rooms of the chapters that run."""
    ran = nbval(tmp_path, small=notebook(TAKE.format(lock=str(tmp_path / ".lock"))))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    kept = json.loads((tmp_path / "executed" / "small" / "notebook.ipynb").read_text("utf8"))
    assert ["".join(o["text"]) for o in kept["cells"][1]["outputs"]] == ["kept\n"]
