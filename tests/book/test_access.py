"""Every page for every reader: axe-core, no scripts, keyboard, dark, and a weight that a slow line can carry."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from book_finish import fewer_icons, finish, lighter
from notebooks import ROOT, chapters, contents
from PIL import Image

PAGES = [*contents(), "search"]
CHAPTERS = [p for p in PAGES if p.startswith("chapters/")]
AXE = (ROOT / "tests" / "vendor" / "axe.min.js").read_text(encoding="utf8")
HEAVIEST = 2_000_000  # bytes, as a static host sends a page with all that it loads
TEXT = (".html", ".js", ".css", ".svg", ".json")

READY = """async () => {
  if (window.MathJax) await MathJax.startup.promise;
  for (let k = 0; k < 400 && document.querySelector("figure.explorable:not([data-ready='1'])"); k++)
    await new Promise((r) => setTimeout(r, 50));
}"""
# Every rule once. What a theme or a width can change (colours, sizes, what scrolls) again on a dark phone.
# Formulas are half of a chapter's elements and all made by MathJax in the same way: the first chapter speaks for them,
# by its MathML (the glyphs are hidden from readers). Their colour is that of the text.
# Of its other elements two thirds are the coloured words of code. A keyword has one colour in all cells: the first word
# of each kind speaks for them, in what was written, printed or folded. The others become plain text. (To leave them out
# by axe's `exclude` takes four times as long as to read them.)
RUN = """async ([rules, formulas]) => {
  const seen = new Set();
  for (const word of document.querySelectorAll(".highlight span")) {
    const around = word.closest(".cell_input, .cell_output, .admonition, details");
    const kind = [word.className, word.closest("[class*=highlight-]")?.className, around?.className].join("|");
    if (seen.has(kind)) word.replaceWith(...word.childNodes);
    seen.add(kind);
  }
  const options = { resultTypes: ["violations"] };
  if (rules) options.runOnly = { type: "rule", values: rules };
  const found = await axe.run({ exclude: [[formulas ? "mjx-math" : "mjx-container"]] }, options);
  return found.violations.map((v) =>
    `${v.id} (${v.nodes.length}): ` + v.nodes.slice(0, 3).map((n) => n.target.join(" ")).join("; "));
}"""
# Lists and buttons around the text are the same on every page: these two speak for a dark desktop and a light phone.
BOTH = {PAGES[0], CHAPTERS[0]}
VISIBLE = ["color-contrast", "target-size", "scrollable-region-focusable", "link-in-text-block"]


def opened(browser, address: str, width: int, scheme: str, got: set[str] | None = None):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(240_000)
    if got is not None:
        page.on("response", lambda response: got.add(response.url))
    page.goto(address)
    page.evaluate(READY)
    return page


# Opening a chapter takes seconds: its weight is taken where axe then reads it.
@pytest.fixture(scope="module")
def desk(site, browser, request):
    """The page of that name on a light desktop, and the addresses that it has asked for."""
    got: set[str] = set()
    page = opened(browser, f"{site}{request.param}.html", 1280, "light", got)
    yield request.param, page, got
    page.context.close()


desks = pytest.mark.parametrize("desk", PAGES, indirect=True)


@desks
def test_weight(site, built, desk):
    """With every figure in sight: gzip for text, the rest as it is."""
    name, page, got = desk
    for picture in page.locator(".bd-article img[loading=lazy]").all():
        picture.scroll_into_view_if_needed()
    page.wait_for_load_state("networkidle")
    files = {built / g.removeprefix(site).split("?")[0] for g in got}
    sizes = {
        f: len(gzip.compress(f.read_bytes(), 6)) if f.suffix in TEXT else f.stat().st_size
        for f in files
        if f.is_file()
    }
    assert (built / f"{name}.html") in sizes
    assert sum(sizes.values()) <= HEAVIEST, sorted(sizes.items(), key=lambda x: -x[1])[:5]


# A reader who turns back: on a narrow page the theme then offers a way to the top.
BACK = """async () => {
  const frames = () => new Promise((r) => requestAnimationFrame(() => setTimeout(r, 100)));
  scrollTo(0, document.documentElement.scrollHeight);
  await frames();
  scrollBy(0, -300);
  await frames();
}"""


@desks
def test_axe_finds_nothing(desk):
    name, page, _ = desk
    page.evaluate(AXE)
    found = {"all rules": page.evaluate(RUN, [None, name == CHAPTERS[0]])}
    again = [(390, "dark")] + [(1280, "dark"), (390, "light")] * (name in BOTH)
    for width, scheme in again:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("(s) => document.documentElement.dataset.theme === s", arg=scheme)
        page.wait_for_timeout(
            400
        )  # fitting formulas and marking what scrolls waits for the end of a resize
        page.evaluate(BACK)
        if name in CHAPTERS and width < 1200:
            assert page.is_visible("#pst-back-to-top")
        found[f"{width} {scheme}"] = page.evaluate(RUN, [VISIBLE, False])
    assert found == dict.fromkeys(found, [])


def test_axe_sees_what_is_wrong(site, browser):
    """The tool works here: a picture without words and a grey on grey are found."""
    page = opened(browser, f"{site}book/status.html", 1280, "light")
    page.evaluate(
        """() => document.querySelector(".bd-article").insertAdjacentHTML("afterbegin",
        '<img src="../_static/favicon.svg"><p style="color:#999;background:#888">grey on grey</p>' +
        '<div class="highlight"><pre style="background:#888"><span style="color:#999">grey</span></pre></div>')"""
    )
    page.evaluate(AXE)
    found = " ".join(page.evaluate(RUN, [None, True]))
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
    page = opened(browser, f"{site}{name}.html", 1280, "light")
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
    for name in (PAGES[0], CHAPTERS[0], "search"):
        page = opened(browser, f"{site}{name}.html", 1280, "light")
        page.wait_for_function("!document.querySelector('i.fa-solid, i.fa-brands')")
        lost = page.evaluate(
            "[...document.querySelectorAll('svg.svg-inline--fa')].filter((s) => s.querySelector('g .missing, [fill-opacity]')).length"
        )
        assert page.locator("svg.svg-inline--fa").count() > 5
        assert lost == 0
        page.context.close()
