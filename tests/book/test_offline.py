"""The archive that opens from a stick, and the book on paper."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from notebooks import chapters
from offline import NAME, contents, lost_links, pack
from print_book import count, document, page_numbers, pages, printed

FIRST = chapters()[0].stem


@pytest.fixture(scope="module")
def stick(built, tmp_path_factory) -> Path:
    """The archive, unpacked into a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("a stick")
    out = folder / "book.zip"
    pack(built, out)
    with zipfile.ZipFile(out) as archive:
        assert all(n.startswith(f"{NAME}/") and ".." not in n for n in archive.namelist())
        archive.extractall(folder)
    return folder / NAME


def test_the_archive_depends_on_its_content_alone(built, tmp_path):
    pack(built, tmp_path / "a.zip")
    pack(built, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "a.html"
    page.write_text(
        '<a href="b.html#x">b</a> <img alt="" src="https://a.b/c.png"> <a href="#y">y</a>'
    )
    assert lost_links(contents(tmp_path)) == ["a.html: b.html#x"]
    with pytest.raises(ValueError, match="b.html"):
        pack(tmp_path, tmp_path / "out.zip")
    (tmp_path / "b.html").write_text("b")
    assert lost_links(contents(tmp_path)) == []


def test_the_stick_opens_without_a_network(stick, browser):
    """From index.html to a chapter, a slider and the search, by file:// and with the network off."""
    context = browser.new_context()
    context.set_offline(True)
    faults, page = [], context.new_page()
    page.on("pageerror", lambda e: faults.append(str(e)))
    page.on("requestfailed", lambda r: faults.append(r.url))
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else faults.append(r.url),
    )
    page.goto((stick / "index.html").as_uri())
    page.wait_for_url("**/intro.html")
    page.locator(f'.bd-article a[href*="{FIRST}"]').first.click()
    page.wait_for_selector("figure.explorable[data-ready='1']", timeout=60_000)
    page.evaluate("async () => await MathJax.startup.promise")
    assert page.locator(".bd-article mjx-container").count() > 100
    slider = page.locator("figure.explorable input[type=range]").first
    before = slider.get_attribute("aria-valuetext")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") != before
    page.goto((stick / "search.html").as_uri() + "?q=posterior")
    # until then results come in above others, and a click may miss the one it was meant for
    page.wait_for_selector(".search-summary:has-text('finished')", timeout=60_000)
    page.locator('#search-results a[href*="chapters/"]').first.click()
    page.wait_for_selector(".bd-article h1")
    assert not faults
    context.close()


def test_a_chapter_on_paper(built, browser, tmp_path):
    """Chapter 1: pages, no text beyond the margin, numbers and links, stills with their sentences."""
    name = f"chapters/{FIRST}"
    out = tmp_path / "one.pdf"
    done = printed(browser, [name], out, built, times=1)
    assert done["cut"] == []
    assert 15 <= done["pages"] <= 80
    pdf = out.read_bytes()
    assert count(pdf) == done["pages"]
    starts = page_numbers(pdf)
    assert done["starts"] == {FIRST[:2]: 3}, "title, contents, then the chapter"
    assert 3 < starts[f"{FIRST[:2]}--eq-1-15"] < done["pages"]
    assert b"/Outlines" in pdf
    numbered = document(built, [name], starts, "")
    assert '<span class="at">3</span>' in numbered
    made = (built.parent / "print" / "book.html").read_text(encoding="utf8")
    said = re.findall(r'class="ex-say">([^<]+)<', made)
    figures = (built / f"{name}.html").read_text(encoding="utf8").count('class="explorable"')
    assert len(said) == figures and min(map(len, said)) > 30
    assert "<details open" in made and "<details>" not in made


def test_pages_in_the_order_of_the_contents():
    everything = pages([])
    assert everything[0] == "book/intro"
    assert [p for p in everything if p.startswith("chapters/")] == [
        f"chapters/{c.stem}" for c in chapters()
    ]
    assert pages(["01"]) == [f"chapters/{FIRST}"]
    with pytest.raises(ValueError, match="two digits"):
        pages(["99"])
