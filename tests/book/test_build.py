"""The book builds without a warning, and says on its own pages what was checked."""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
import threading

import build
import pytest
import slides
import tidy
from notebooks import ROOT, chapters, read, tags
from policy import IDENTITIES
from tidy import clean

EXECUTED = ROOT / "_build" / "executed"
CHAPTERS = chapters()


def test_the_book_builds(built):
    assert (built / "index.html").is_file()


def test_an_unchanged_book_is_left_alone(built):
    index = built / "chapters" / f"{CHAPTERS[0].stem}.html"
    before = index.stat().st_mtime_ns
    command = [sys.executable, str(ROOT / "book/tools/build.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "executing" not in run.stdout
    assert index.stat().st_mtime_ns == before


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_figures_that_came_out_are_described(built, path):
    """What cannot be seen without running: a picture from a cell that is not a figure cell."""
    ran = read(EXECUTED / path.stem / "notebook.ipynb")
    metadata = {c["id"]: c["metadata"] for c in clean(read(path))["cells"]}
    for k, cell in enumerate(ran["cells"], 1):
        cell["metadata"] = metadata.get(cell["id"], cell["metadata"])
        if cell["cell_type"] != "code":
            continue
        pictures = [
            o for o in cell["outputs"] if any(m.startswith("image/") for m in o.get("data", {}))
        ]
        if pictures:
            assert len(pictures) == 1, f"cell {k} makes {len(pictures)} pictures: one per cell"
            assert cell["metadata"].get("alt"), f"cell {k} makes a picture and has no alt"
            assert "figure" in cell["metadata"].get("mystnb", {}), f"cell {k} has no caption"
        html = "".join("".join(o.get("data", {}).get("text/html", "")) for o in cell["outputs"])
        if 'class="explorable"' in html:
            assert "explorable" in tags(cell), f"cell {k} is an explorable figure without the tag"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_the_ledger_page_lists_every_check(built, path):
    lines = (EXECUTED / path.stem / "ledger.jsonl").read_text(encoding="utf8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert len({e["label"] for e in entries if not e["expect_failure"]}) >= IDENTITIES
    page = (built / "book" / "ledger.html").read_text(encoding="utf8")
    for entry in entries:
        anchor = "eq-" + entry["label"].replace(".", "-")
        assert f'href="../chapters/{path.stem}.html#{anchor}"' in page


def test_pages_hold_no_widget_state_and_no_foreign_address(built):
    for page in built.rglob("*.html"):
        text = page.read_text(encoding="utf8")
        assert "application/vnd.jupyter.widget" not in text, page
        assert "require.js" not in text, page
        loads = re.findall(
            r"<(?:script|img|link|iframe|source)[^>]*?(?:src|href)=\"([^\"]+)\"", text
        )
        foreign = [a for a in loads if re.match(r"(https?:)?//", a) and 'rel="canonical"' not in a]
        assert not foreign, f"{page}: {foreign}"


def test_a_number_keeps_its_sign_or_unit_on_its_line(built):
    kept = 0
    for path in sorted(built.glob("chapters/*.html")):
        html = re.sub(
            r"<(pre|code|script|style|svg)\b.*?</\1>", "", path.read_text("utf8"), flags=re.S
        )
        text = re.sub(r"<[^>]+>", "", " | ".join(re.findall(r"<p\b[^>]*>(.*?)</p>", html, re.S)))
        assert not re.findall(r".{30}\d[ \n](?:%|[×±][ \n]\d).{10}", text), path.name
        assert not re.findall(r".{30}\b(?:[Ff]igure|[Cc]hapter)[ \n]\d.{10}", text), path.name
        assert not re.findall(
            r".{30}(?:\d|\\\))[ \n](?:nats|percent|steps|updates|images|pixels|channels|examples|passes|dimensions)\b.{10}",
            text,
        ), path.name
        assert not re.findall(r".{30}[ \n]\\\(\\square", text), path.name
        assert not re.findall(r'(?:std-doc|prev-next-title)">\d+\. .{10}', html), path.name
        kept += len(re.findall("\\d\u00a0(?:%|[×±]\u00a0\\d)", text))
    assert kept > 30


def test_every_button_leads_to_a_file(built):
    """Colab, Binder and repository buttons: their paths exist in the tree."""
    import yaml

    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))
    url, branch = config["repository"]["url"], config["repository"]["branch"]
    owner = url.removeprefix("https://github.com/")
    seen = 0
    for page in built.rglob("*.html"):
        for target in re.findall(r'href="(https://[^"]+)"', page.read_text(encoding="utf8")):
            target = target.replace("&amp;", "&")
            patterns = (
                rf"https://colab\.research\.google\.com/github/{owner}/blob/{branch}/(.+)",
                rf"https://mybinder\.org/v2/gh/{owner}/{branch}\?urlpath=(?:lab/tree|tree)/(.+)",
                rf"{re.escape(url)}/(?:blob|edit|raw|tree)/{branch}/(.+)",
            )
            hosts = ("https://colab.", "https://mybinder.org", url)
            if not target.startswith(hosts) or target.rstrip("/") == url or "/issues/" in target:
                continue
            match = next(filter(None, (re.fullmatch(p, target) for p in patterns)), None)
            assert match, f"{page.name}: {target} is not an address of this book"
            assert (ROOT / match[1].partition("#")[0]).is_file(), f"{page.name}: {target}"
            seen += 1
    assert seen >= 2 * len(CHAPTERS)


def test_the_status_says_once_what_all_chapters_share(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "EXECUTED", tmp_path)
    paths = chapters()[:2]
    for path, device in zip(paths, ("a CPU", "a GPU"), strict=True):
        run = {
            "seconds": 12.4,
            "cells": {"a": 3.21, "b": 1},
            "commit": "abc1234",
            "date": "2026-11-27",
        }
        run |= {"device": device, "versions": {"torch": "2.13.0"}}
        (tmp_path / path.stem).mkdir()
        (tmp_path / path.stem / "run.json").write_text(json.dumps(run))
        (tmp_path / path.stem / "ledger.jsonl").write_text("{}\n{}\n")
    shared, _, head, _, *rows = build.status_table(paths).splitlines()
    assert (
        shared
        == "The same for all chapters: versions torch 2.13.0; commit abc1234; date 2026-11-27."
    )
    assert head == "| chapter | checks | seconds | longest cell | device |"
    assert [row.split(" | ", 1)[1] for row in rows] == [
        "2 | 12 | 3.2 s | a CPU |",
        "2 | 12 | 3.2 s | a GPU |",
    ]


@pytest.mark.parametrize("tool", [build, slides], ids=lambda m: m.__name__)
def test_what_executes_chapters_has_the_lock(tool, tmp_path, monkeypatch):
    def take():
        with open(tmp_path / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def executing(*_):
        with pytest.raises(BlockingIOError):
            take()
        return ["an error, which ends it"]

    for name, value in (
        ("BUILD", tmp_path),
        ("STAMP", tmp_path / "x"),
        ("run_chapters", executing),
    ):
        monkeypatch.setattr(tool, name, value, raising=False)
    assert tool.main([]) == 1
    take()


def test_the_second_build_says_that_it_waits_and_does(tmp_path, capsys):
    order = []

    def second():
        with build.alone(tmp_path):
            order.append("second")

    other = threading.Thread(target=second)
    with build.alone(tmp_path):
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert capsys.readouterr().out == "another build is running; waiting for it\n"


def test_a_stub_that_shares_its_line_stays_quiet():
    stub = 'x = "é"; check("1.1", x)'
    assert tidy._quiet(stub) == 'x = "é"; _ = check("1.1", x)'
    assert tidy._quiet('check("1.1", x)') == '_ = check("1.1", x)'
