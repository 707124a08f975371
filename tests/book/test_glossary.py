"""The glossary: every form once, definitions on hover, focus and tap, and none that is in the way."""

from __future__ import annotations

import json
import re

import pytest
from book_terms import anchor, page, pattern, read_terms
from notebooks import ROOT, chapters, prose, read

FILE = ROOT / "book" / "glossary.yml"
TERMS = read_terms(FILE)
NUMBERS = [int(p.stem[:2]) for p in chapters()]


def test_definitions_are_short_sentences():
    for entry in TERMS:
        assert entry["says"].rstrip().endswith("."), entry["term"]
        assert 6 <= len(entry["says"].split()) <= 45, entry["term"]
        assert len({anchor(e["term"]) for e in TERMS}) == len(TERMS)


def test_every_term_is_used_in_the_chapter_that_introduces_it():
    texts = {}
    for path in chapters():
        cells = [c for c in read(path)["cells"] if c["cell_type"] == "markdown"]
        texts[int(path.stem[:2])] = re.sub(r"[*_]", "", "\n".join(map(prose, cells)))
    for entry in TERMS:
        if entry["chapter"] in texts and " of a " not in entry["term"]:
            assert pattern([entry]).search(texts[entry["chapter"]]), entry["term"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_chapter_introduces_terms(number):
    assert any(e["chapter"] == number for e in TERMS)


def test_a_form_with_capitals_is_matched_as_written_and_words_are_whole():
    find = pattern(TERMS)
    assert find.findall("A vae and a VAE, nats not gnats, Coupling\nlayers; re-score") == [
        "VAE",
        "nats",
        "Coupling\nlayers",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- {term: a, chapter: 1}", "expected"),
        ("- {term: a, chapter: 1, says: '$x$.'}", "plain"),
        (
            "- {term: a, chapter: 1, says: x}\n- {term: b, also: [A], chapter: 1, says: x}",
            "'A' is in",
        ),
    ],
)
def test_a_faulty_glossary_is_refused(tmp_path, text, complaint):
    file = tmp_path / "glossary.yml"
    file.write_text(text, "utf8")
    with pytest.raises(ValueError, match=complaint):
        read_terms(file)


def test_the_page_lists_all_terms_and_names_no_chapter_that_is_not_there():
    made = page("<!-- glossary -->", TERMS, lambda n: None)
    assert all(f"({anchor(e['term'])})=" in made for e in TERMS)
    with pytest.raises(ValueError, match="no line"):
        page("", TERMS, str)


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_first_occurrences_are_marked_once_and_lead_to_the_glossary(built, path):
    text = (built / "chapters" / f"{path.stem}.html").read_text(encoding="utf8")
    glossary = (built / "book" / "glossary.html").read_text(encoding="utf8")
    marked = re.findall(r'<span class="term"><a href="\.\./book/glossary\.html#([\w-]+)"', text)
    assert len(marked) >= 5
    assert len(set(marked)) == len(marked)
    assert all(f'id="{name}"' in glossary for name in marked)
    assert all(f'id="says-{name}"' in text for name in marked)
    number = int(path.stem[:2])
    elsewhere = [e for e in TERMS if number not in e.get("in", [number])]
    assert not {anchor(e["term"]) for e in elsewhere} & set(marked)


def test_a_definition_shows_on_hover_on_focus_and_on_the_first_tap(site, browser):
    address = f"{site}chapters/{chapters()[0].stem}.html"
    for touch in (False, True):
        context = browser.new_context(has_touch=touch, viewport={"width": 390, "height": 844})
        here = context.new_page()
        here.goto(address)
        here.evaluate("MathJax.startup.promise.then(() => 0)")  # formulas push what a tap aims at
        term = here.locator(".term").nth(2)
        says = term.locator(".term-says")
        assert says.is_hidden()
        if touch:
            term.locator("a").tap()
            assert here.url == address, "the first tap left the page"
        else:
            term.locator("a").focus()
        assert says.is_visible()
        box = says.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        if touch:
            term.locator("a").tap()
            here.wait_for_url("**/glossary.html#*")
        else:
            here.keyboard.press("Escape")
            assert says.is_hidden()
        context.close()
    context = browser.new_context(java_script_enabled=False)
    here = context.new_page()
    here.goto(address)
    here.locator(".term a").first.hover()
    assert here.locator(".term-says").first.is_visible()
    context.close()


def test_definitions_do_not_fill_the_search_index(built):
    """A word that a chapter's page holds in definitions only is not found there."""
    index = json.loads((built / "searchindex.js").read_text("utf8")[len("Search.setIndex(") : -1])
    tips, checked = re.compile(r'<span class="term-says".*?</span>', re.S), 0
    for path in chapters():
        here = index["docnames"].index(f"chapters/{path.stem}")
        text = (built / "chapters" / f"{path.stem}.html").read_text(encoding="utf8")
        says, rest = " ".join(tips.findall(text)), tips.sub("", text)
        says, rest = (re.sub(r"<[^>]+>|\W", " ", part).lower() for part in (says, rest))
        for word in set(re.findall(r"[a-z]{4,}", says)) - set(re.findall(r"[a-z]+", rest)):
            if word in index["terms"] and f" {word}" not in rest:
                checked += 1
                pages = index["terms"][word]
                assert here not in (pages if isinstance(pages, list) else [pages]), word
    assert checked >= 5
