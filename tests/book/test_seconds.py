"""Slow cells say beforehand how long they take, as recorded; so does the first cell of each chapter."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import record as recorder
import seconds
from notebooks import ROOT, chapters, dump, execution_key, read, source
from tidy import main as tidy

CHAPTERS = chapters()
KNOWN = json.loads((ROOT / "book" / "results" / "cells.json").read_text("utf8"))
SAYS = re.compile(
    r"# (about \d+|less than 3) s on one core \((.+?)\)"
    r"(?:, (\d+) s in full mode \(one core of the (.+?) machine\))?"
)
TIME = re.compile(
    r"about (\d+) seconds (?:of one core )?to run(?: on one core, (\d+) in full mode)?"
)


def near(said: str | None, took: float) -> bool:
    """Within a third of what was recorded; below 3 s nothing is."""
    if said is None or not took:
        return said == "less than 3"
    number = re.fullmatch(r"(?:about )?(\d+)", said)
    return number is not None and took / 1.34 <= int(number[1]) <= took * 1.34


def faults(nb: dict, name: str, known: dict) -> list[str]:
    """Slow cells that say nothing, cells that say something else than the record, and records of no cell.

    Written without `seconds.comment`, so that the two agree by what they read, not by what they share.
    """
    out, ids = [], {c["id"]: c for c in nb["cells"] if c["cell_type"] == "code"}
    quick, full = (known[mode]["chapters"][name]["cells"] for mode in ("quick", "full"))
    out += [f"{k} is recorded and gone" for k in {**quick, **full} if k not in ids]
    for key, cell in ids.items():
        first = source(cell).split("\n")[0]
        both = "session.full" in source(cell) and full.get(key, 0)
        slow = max(quick.get(key, 0), both or 0) >= 5
        said = SAYS.fullmatch(first)
        if slow and not said:
            out.append(f"{key} takes {quick.get(key)} s and begins with {first!r}")
        elif said and not slow:
            out.append(f"{key} is not slow and says {first!r}")
        elif said:
            right = near(said[1], quick.get(key, 0)) and said[2] in known["quick"]["processor"]
            if both:
                right &= near(said[3], both) and said[4] in known["full"]["card"]
            if not right or bool(said[3]) != bool(both):
                took = f"{quick.get(key)} s" + (f", in full mode {both} s" if both else "")
                out.append(f"{key} took {took}: {first!r}")
    return out


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_slow_cells_say_how_long_they_take(path):
    wrong = faults(read(path), path.stem, KNOWN)
    assert not wrong, (
        "'make tidy'; for other cells 'make book record ONLY=--seconds':\n" + "\n".join(wrong)
    )


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_the_line_time_is_within_a_third_of_what_was_recorded(path):
    nb = read(path)
    said = TIME.search(source(nb["cells"][0]))
    assert said, "the first cell says 'about N seconds to run on one core'"
    took, full = (KNOWN[mode]["chapters"][path.stem]["seconds"] for mode in ("quick", "full"))
    assert near(said[1], took), f"recorded are {took} s"
    if any("session.full" in source(c) for c in nb["cells"] if c["cell_type"] == "code"):
        assert near(said[2], full), f"recorded are {full} s in full mode"


def test_the_gpu_times_are_those_of_gpu_json():
    gpu = json.loads((ROOT / "book" / "results" / "gpu.json").read_text("utf8"))
    assert all(KNOWN["full"][k] == gpu[k] for k in ("card", "cores", "versions", "commit", "date"))
    for path in CHAPTERS:
        took, cells = gpu["chapters"][path.stem], KNOWN["full"]["chapters"][path.stem]["cells"]
        assert KNOWN["full"]["chapters"][path.stem]["seconds"] == took["seconds"]
        assert {k: round(took["slow cells"].get(k, 0), 1) for k in cells} == cells


# ---------------------------------------------------------------- each fault, on purpose


def notebook(**cells: str) -> dict:
    made = [
        {"cell_type": "code", "id": k, "metadata": {}, "source": text, "outputs": []}
        | {"execution_count": None}
        for k, text in cells.items()
    ]
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def known(quick: dict, full: dict) -> dict:
    return {
        "quick": {"processor": "Some(R) Xeon(R) 6 Processor @ 2 GHz", "cores": 2}
        | {"notebooks at once": 2, "versions": {"python": "3"}}
        | {"chapters": {"01_one": {"seconds": 20.0, "cells": quick}}},
        "full": {"card": "NVIDIA H200", "cores": 16}
        | {"chapters": {"01_one": {"seconds": 60.0, "cells": full}}},
    }


PLAIN = notebook(slow="x = 1", quick="y = 2", sizes="n = 2000 if session.full else 400")
TIMES = known({"slow": 12.3, "sizes": 3.7}, {"slow": 20.0, "sizes": 41.0, "quick": 6.0})


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A record of TIMES in place of the book's."""
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(TIMES))
    monkeypatch.setattr(seconds, "RECORD", file)
    return file


@pytest.fixture
def told(recorded):
    return seconds.announce(copy.deepcopy(PLAIN), "01_one")


def test_tidy_writes_the_comments_once(recorded, told, tmp_path):
    first = [c["source"].split("\n")[0] for c in told["cells"]]
    machine = "(one core of the H200 machine)"
    assert first[0] == "# about 12 s on one core (Some Xeon 6)"
    assert first[1] == "y = 2"  # slow only beside others, and of the same size
    assert first[2] == f"# about 4 s on one core (Some Xeon 6), 40 s in full mode {machine}"
    path = tmp_path / "01_one.ipynb"
    path.write_text(dump(PLAIN))
    assert tidy([str(path)]) == 0 and tidy(["--check", str(path)]) == 0
    assert [c["source"] for c in read(path)["cells"]] == [c["source"] for c in told["cells"]]


def test_a_cell_that_is_slow_in_full_mode_only(recorded, told):
    mine = known({}, {"sizes": 30.0})
    mine["quick"]["processor"] = "EPYC"
    recorded.write_text(json.dumps(mine))
    made = seconds.announce(told, "01_one")
    assert made["cells"][2]["source"].startswith("# less than 3 s on one core (EPYC), 30 s in full")
    assert not faults(made, "01_one", mine)
    made["cells"][2]["source"] = made["cells"][2]["source"].replace("less than 3", "about 9")
    assert len(faults(made, "01_one", mine)) == 1


def test_a_cell_that_became_quick_loses_its_comment(recorded, told):
    recorded.write_text(json.dumps(known({}, {"sizes": 4.0})))
    assert seconds.announce(told, "01_one") == PLAIN


def test_a_chapter_of_which_nothing_is_recorded_is_left_alone(recorded, told):
    assert seconds.announce(copy.deepcopy(told), "02_two") == told


@pytest.mark.parametrize(
    ("cell", "old", "new", "complaint"),
    [
        (0, "# about 12 s on one core (Some Xeon 6)\n", "", "slow takes 12.3 s"),
        (0, "about 12 s", "about 5 s", "slow took 12.3 s"),
        (0, "Xeon 6", "EPYC", "slow took 12.3 s"),
        (1, "y = 2", "# about 6 s on one core (Some Xeon 6)\ny = 2", "quick is not slow"),
        (2, ", 40 s in full mode (one core of the H200 machine)", "", "in full mode 41.0"),
        (2, "40 s in full", "90 s in full", "in full mode 41.0"),
    ],
)
def test_faults_are_seen(told, cell, old, new, complaint):
    mine = known({"slow": 12.3, "sizes": 3.7}, {"slow": 20.0, "sizes": 41.0})
    mine["quick"]["processor"] = "Some Xeon 6"
    assert not faults(told, "01_one", mine)
    assert old in told["cells"][cell]["source"]
    told["cells"][cell]["source"] = told["cells"][cell]["source"].replace(old, new)
    (said,) = faults(told, "01_one", mine)
    assert complaint in said


def test_a_record_of_a_cell_that_is_gone_is_seen(told):
    mine = copy.deepcopy(TIMES)
    mine["quick"]["processor"] = "Some Xeon 6"
    del told["cells"][0]
    assert faults(told, "01_one", mine) == ["slow is recorded and gone"]


def test_a_comment_is_no_reason_to_run_a_chapter_again(told):
    assert execution_key(told, "01_one") == execution_key(PLAIN, "01_one")
    told["cells"][0]["source"] += "\n# a word of the author"
    assert execution_key(told, "01_one") != execution_key(PLAIN, "01_one")


@pytest.mark.parametrize("took", [3.0, 4.5, 7.4, 11.0, 17.4, 49.4, 130.0, 290.0])
def test_rounded_seconds_are_at_most_a_sixth_off(took):
    assert abs(seconds.about(took) / took - 1) <= 1 / 6


# ---------------------------------------------------------------- recording


def test_the_last_build_is_recorded(recorded, tmp_path, monkeypatch):
    path = tmp_path / "01_one.ipynb"
    path.write_text(dump(PLAIN))
    run = {"seconds": 21.5, "commit": "abc", "date": "2026-01-02", "versions": {"python": "3.11"}}
    run["cells"] = {"slow": 14.123, "quick": 0.4, "sizes": 2.99, "gone": 8.0}
    built = tmp_path / "executed" / "01_one"
    built.mkdir(parents=True)
    (built / "run.json").write_text(json.dumps(run))
    gpu = {k: "some" for k in ("card", "cores", "versions", "commit", "date")}
    gpu["chapters"] = {"01_one": {"seconds": 50.0, "slow cells": {"sizes": 30.04, "gone": 4.0}}}
    (tmp_path / "gpu.json").write_text(json.dumps(gpu))
    assert seconds.refresh([path], built.parent) == ""
    found = json.loads(recorded.read_text())
    about = {"seconds": 21.5, "commit": "abc", "date": "2026-01-02", "cells": {"slow": 14.1}}
    assert found["quick"]["chapters"] == {"01_one": about}
    assert found["full"]["chapters"] == {"01_one": {"seconds": 50.0, "cells": {"sizes": 30.0}}}
    # A chapter that was not built keeps what is known; one of which nothing is known is named.
    assert seconds.refresh([path], tmp_path / "nothing") == ""
    assert json.loads(recorded.read_text()) == found
    assert "02_two has not been run" in seconds.refresh([path, Path("02_two")], built.parent)


def test_other_versions_are_not_mixed(recorded, tmp_path):
    paths = [tmp_path / f"{name}.ipynb" for name in ("01_one", "02_two")]
    for k, path in enumerate(paths):
        (tmp_path / path.stem).mkdir()
        run = {"versions": {"python": f"3.{k}"}, "cells": {}}
        (tmp_path / path.stem / "run.json").write_text(json.dumps(run))
    assert "different versions" in seconds.refresh(paths, tmp_path)
    assert json.loads(recorded.read_text()) == TIMES


def test_the_command_records_and_then_tidies(monkeypatch):
    called = []
    monkeypatch.setattr(recorder, "refresh", lambda *_: called.append("refresh") or "")
    monkeypatch.setattr(recorder, "tidy", lambda *_: called.append("tidy") or 0)
    assert recorder.main(["--seconds"]) == 0 and called == ["refresh", "tidy"]
    monkeypatch.setattr(recorder, "refresh", lambda *_: "not built")
    assert recorder.main(["--seconds"]) == 1 and called == ["refresh", "tidy"]


def test_the_status_page_adds_the_totals_up():
    said = seconds.totals(CHAPTERS)
    for mode in ("quick", "full"):
        total = sum(c["seconds"] for c in KNOWN[mode]["chapters"].values())
        assert f"{total / 60:.0f} minutes" in said
    says = [c for p in CHAPTERS for c in read(p)["cells"] if source(c).startswith("# about ")]
    assert f"{len(says)} cells take" in said and "H200" in said and len(says) >= 20
    assert "<!-- seconds -->" in (ROOT / "book" / "status.md").read_text("utf8")
