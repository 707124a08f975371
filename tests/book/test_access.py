"""Every page for every reader: no scripts, the keyboard alone, light pictures, icons. (axe-core: `test_pages.py`.)"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from book_finish import fewer_icons, finish, lighter
from notebooks import chapters, contents
from PIL import Image

from tests.book.axe import violations

CHAPTERS = [p for p in contents() if p.startswith("chapters/")]
READY = """async () => {
  if (window.MathJax) await MathJax.startup.promise;
  for (let k = 0; k < 400 && document.querySelector("figure.explorable:not([data-ready='1'])"); k++)
    await new Promise((r) => setTimeout(r, 50));
}"""


def opened(browser, address: str):
    """The page on a light desktop."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(240_000)
    page.goto(address)
    page.evaluate(READY)
    return page


def test_axe_sees_what_is_wrong(site, browser):
    """The tool works here: a picture without words and a grey on grey are found."""
    page = opened(browser, f"{site}book/status.html")
    page.evaluate(
        """() => document.querySelector(".bd-article").insertAdjacentHTML("afterbegin",
        '<img src="../_static/favicon.svg"><p style="color:#999;background:#888">grey on grey</p>' +
        '<div class="highlight"><pre style="background:#888"><span style="color:#999">grey</span></pre></div>')"""
    )
    found = " ".join(violations(page, formulas=True))
    page.context.close()
    assert "image-alt" in found and "color-contrast (2)" in found


@pytest.mark.parametrize("name", CHAPTERS)
def test_without_javascript(site, browser, name):
    """Text, the source of every formula, the still figures with their sentences, and the folded answers."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}{name}.html")
    shown = page.locator(".bd-article").inner_text()
    assert len(shown.split()) > 2000
    assert len(re.findall(r"\\tag\{\d+\.\d+\w?\}", shown)) >= 12
    stills = page.locator("figure.explorable img.ex-still")
    assert stills.count() == page.locator("figure.explorable").count() > 0
    for k in range(stills.count()):
        stills.nth(k).scroll_into_view_if_needed()
        assert stills.nth(k).is_visible()
        box = stills.nth(k).bounding_box()
        assert box["width"] > 200 and box["height"] > 80
        assert len(stills.nth(k).get_attribute("alt")) > 30
    fold = page.locator(".bd-article details:not(.hide)").first
    fold.locator("summary").click()
    assert fold.get_attribute("open") is not None
    context.close()


@pytest.mark.parametrize("name", CHAPTERS[:2])
def test_the_keyboard_alone(site, browser, name):
    """Tab begins at the link past the lists, reaches figures, folds and quiz in order, and is caught nowhere."""
    page = opened(browser, f"{site}{name}.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Skip to main content"
    page.keyboard.press("Enter")
    seen = []
    for _ in range(400):
        page.keyboard.press("Tab")
        where = page.evaluate(
            """() => { const a = document.activeElement, r = a.getBoundingClientRect();
            window.order ??= [...document.querySelectorAll(".bd-article *")];
            return [order.indexOf(a), a.tagName, a.closest(".quiz") ? "quiz" : a.closest(".explorable") ? "figure" : "",
                    r.width > 0 && r.height > 0]; }"""
        )
        if where[0] >= 0:
            seen.append(where)
        elif seen:
            break
    else:
        pytest.fail("the keyboard does not leave the article within 400 steps")
    places = [w[0] for w in seen]
    assert places == sorted(set(places)), "focus jumps back or stays"
    assert all(w[3] for w in seen), "focus goes where nothing is to be seen"
    assert {"quiz", "figure"} <= {w[2] for w in seen}
    assert sum(w[1] == "SUMMARY" for w in seen) > 20
    page.context.close()


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_pictures_come_late_and_keep_their_room(built, path):
    text = (built / "chapters" / f"{path.stem}.html").read_text(encoding="utf8")
    pictures = re.findall(r'<img [^>]*src="[^"]*_images/[^>]*>', text)
    assert pictures
    for picture in pictures:
        assert 'loading="lazy"' in picture and re.search(r'width="\d+" height="\d+"', picture)
    assert text.index("tex-chtml.js") < text.index("fontawesome.js"), "icons come before formulas"


def test_a_lighter_picture_is_the_same_picture(tmp_path):
    wave = np.outer(np.sin(np.arange(60) / 9), np.cos(np.arange(80) / 7))
    (tmp_path / "_images").mkdir()
    png = tmp_path / "_images" / "a.png"
    Image.fromarray(np.uint8(127 + 120 * np.stack([wave, wave**2, -wave], -1))).save(png)
    webp = lighter(png)
    assert webp.suffix == ".webp" and webp.stat().st_size < png.stat().st_size
    assert (np.asarray(Image.open(webp)) == np.asarray(Image.open(png))).all()
    html = finish('<img alt="a" src="_images/a.png">', tmp_path)
    assert "_images/a.webp" in html
    assert 'width="80" height="60"' in html and 'loading="lazy"' in html


def test_a_picture_broken_off_is_made_again(tmp_path, monkeypatch):
    png = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(png)

    def broken(picture, file, *form, **options):
        Path(file).touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", broken)
        lighter(png)
    assert Image.open(lighter(png)).size == (40, 30)


def test_finishing_twice_is_finishing_once(built):
    page = built / "chapters" / f"{chapters()[0].stem}.html"
    text = page.read_text(encoding="utf8")
    assert finish(text, page.parent) == text


def test_a_formula_keeps_its_marks(tmp_path):
    """And is left as it is where there are none, or where it is done."""
    math = r'<span class="math notranslate nohighlight">\(x\)</span>'
    assert finish(f"<p>{math} is</p>", tmp_path) == f"<p>{math} is</p>"
    done = f'<p>a <span class="together">{math},</span> b</p>'
    assert finish(f"<p>a {math}, b</p>", tmp_path) == done
    assert (
        finish(f"<p>({math}). So</p>", tmp_path)
        == f'<p><span class="together">({math}).</span> So</p>'
    )
    assert finish(done, tmp_path) == done


def test_an_empty_heading_of_a_table_is_no_heading(tmp_path):
    row = (
        '<tr><th class="head"></th><th class="head"><p></p></th><th class="head"><p>a</p></th></tr>'
    )
    cell = '<td class="head"></td>'
    assert finish(row, tmp_path) == f'<tr>{cell}{cell}<th class="head"><p>a</p></th></tr>'


def test_only_icons_that_nobody_shows_are_dropped():
    script = 'a={"cc-visa":[1,2,[],"f1f0","M0"],bars:[3,4,["navicon"],"f0c9",["M1","M2"]],"arrow-up":[5,6,[8593],"f062","M3"]};'
    assert fewer_icons(script, {"bars", "cc-visa"}) == script.replace(
        ',"arrow-up":[5,6,[8593],"f062","M3"]', ""
    )
    assert fewer_icons(script, set()) == "a={};"


def test_every_icon_is_drawn(site, browser):
    for name in ("book/intro", CHAPTERS[0], "search"):
        page = opened(browser, f"{site}{name}.html")
        page.wait_for_function("!document.querySelector('i.fa-solid, i.fa-brands')")
        lost = page.evaluate(
            "[...document.querySelectorAll('svg.svg-inline--fa')].filter((s) => s.querySelector('g .missing, [fill-opacity]')).length"
        )
        assert page.locator("svg.svg-inline--fa").count() > 5
        assert lost == 0
        page.context.close()
