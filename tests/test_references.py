"""The bibliography: the page follows the .bib, and every citation in the book leads to an entry."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import references  # noqa: E402

ENTRIES = references.parse(references.BIB.read_text(encoding="utf-8"))
CITED = re.compile(r"references\.md#([\w-]+)")


def test_page_is_what_the_bib_gives():
    wanted = references.page(references.BIB.read_text(encoding="utf-8"))
    found = references.PAGE.read_text(encoding="utf-8")
    assert found == wanted, "run python book/tools/references.py"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e["key"])
def test_entry_is_complete(entry):
    assert re.fullmatch(r"[a-z]+(19|20)\d\d[a-z]*", entry["key"])
    assert entry["year"] in entry["key"]
    assert {"author", "title", "year"} <= entry.keys()
    if "eprint" in entry:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", entry["eprint"])
    if "doi" in entry:
        assert re.fullmatch(r"10\.\d{4,}/\S+", entry["doi"])
    text = references.line(entry)
    assert text.startswith(f'<a id="{entry["key"]}"></a>')
    assert not re.search(r"[{}\\]", text), text


def test_every_citation_has_an_entry():
    keys = {e["key"] for e in ENTRIES}
    pages = [*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("book/*.md"), *ROOT.glob("book/*.ipynb")]
    missing = {
        (p.name, k)
        for p in pages
        for k in CITED.findall(p.read_text(encoding="utf-8"))
        if k not in keys
    }
    assert not missing


def test_a_broken_bib_is_refused():
    with pytest.raises(ValueError, match="twice"):
        references.parse("@misc{a2000, year = {2000}}\n@misc{a2000, year = {2000}}")
    with pytest.raises(ValueError, match="not closed"):
        references.parse("@misc{a2000, title = {never {closed}")
    with pytest.raises(ValueError, match="cannot be read"):
        references.parse("@misc{a2000, year = 2000}")
    with pytest.raises(ValueError, match="lacks author"):
        references.page("@misc{a2000, title = {t}, year = {2000}, keywords = {later}}")
