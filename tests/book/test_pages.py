"""The rendered pages in a browser: nothing missing, nothing from elsewhere, figures that answer, for every reader."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

import pytest
from book_quiz import read_quiz
from notebooks import ROOT, contents

from tests.book.axe import VISIBLE, violations

PAGES = contents()
CHAPTERS = [p for p in PAGES if p.startswith("chapters/")]
WIDE, PHONE = (1280, 900), (390, 844)

READY = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  const figures = [...document.querySelectorAll("figure.explorable")];
  for (let k = 0; k < 200 && figures.some((f) => f.dataset.ready !== "1"); k++)
    await new Promise((r) => setTimeout(r, 50));
  return figures.filter((f) => f.dataset.ready !== "1").length;
}"""

MATH = """() => {
  const shown = [...document.querySelectorAll(".bd-article .math")];
  return {
    raw: shown.filter((e) => !e.querySelector("mjx-container")).map((e) => e.textContent.slice(0, 80)),
    errors: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map((e) => e.textContent),
    silent: document.querySelectorAll("mjx-container:not(:has(mjx-assistive-mml))").length,
    // text that a formula left behind: $x$ or a tag that nobody read
    left: [...document.querySelectorAll(".bd-article p, .bd-article li, .bd-article td, figcaption")]
      .map((e) => {
        const c = e.cloneNode(true);
        c.querySelectorAll("code, pre, mjx-container, script").forEach((x) => x.remove());
        return c.textContent;
      })
      .filter((t) => /\\\\[(\\[]|\\$\\$|\\\\tag|\\\\frac|\\$[^$]*\\\\[a-z]/.test(t))
      .map((t) => t.slice(0, 120)),
  };
}"""

WIDTH = """() => {
  const w = document.documentElement.clientWidth;
  const inside = (e) => {
    for (let p = e.parentElement; p; p = p.parentElement)
      if (/(auto|scroll|hidden|clip)/.test(getComputedStyle(p).overflowX)) return true;
    return false;
  };
  const out = [...document.querySelectorAll(".bd-article *")].filter((e) => {
    const r = e.getBoundingClientRect();
    return r.width && r.right > w + 1 && !inside(e);
  });
  return {
    page: document.documentElement.scrollWidth - w,
    wide: out.slice(0, 5).map((e) => e.tagName + "." + e.className + " " + e.textContent.slice(0, 40)),
  };
}"""

BLANK = """(f) => [...f.querySelectorAll(".ex-panels canvas")].map((c) => {
  const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  let colours = new Set();
  for (let i = 0; i < d.length; i += 4) if (d[i + 3]) colours.add((d[i] << 16) | (d[i + 1] << 8) | d[i + 2]);
  return colours.size;
})"""

# Set a control, wait for the paint, and give the picture and the sentence before and after.
MOVE = """async ([figure, k]) => {
  const c = figure.querySelectorAll(".ex-controls input, .ex-controls select")[k];
  const look = () => [...figure.querySelectorAll(".ex-panels canvas")].map((x) => x.toDataURL()).join("");
  const said = () => figure.querySelector(".ex-panels").getAttribute("aria-label");
  const before = [look(), said()];
  const painted = Number(figure.dataset.painted);
  if (c.type === "range") {
    c.value = Number(c.value) > (Number(c.min) + Number(c.max)) / 2 ? c.min : c.max;
    c.dispatchEvent(new Event("input", { bubbles: true }));
  } else if (c.type === "checkbox") c.click();
  else {
    c.selectedIndex = (c.selectedIndex + 1) % c.options.length;
    c.dispatchEvent(new Event("change", { bubbles: true }));
  }
  for (let i = 0; i < 100 && Number(figure.dataset.painted) === painted; i++)
    await new Promise((r) => requestAnimationFrame(r));
  const after = [look(), said()];
  [...figure.querySelectorAll(".ex-controls button")].find((b) => b.textContent === "Reset").click();
  await new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)));
  return { name: c.dataset.name, picture: before[0] !== after[0], text: before[1] !== after[1], said: after[1] };
}"""


class Visit:
    """A page opened with every other host blocked, and what went wrong on it."""

    def __init__(self, browser, base: str, name: str, size: tuple[int, int]):
        self.faults: list[str] = []
        self.got: set[str] = set()  # addresses that it has asked for
        self.name, self.size = name, size
        width, height = size
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.context.route("**/*", self._gate(base))
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda e: self.faults.append(f"error: {e}"))
        self.page.on("requestfailed", lambda r: self.faults.append(f"failed: {r.url} {r.failure}"))
        self.page.on("response", self._response)
        self.page.goto(f"{base}{name}")
        self.unready = self.page.evaluate(READY)

    def _gate(self, base: str):
        def gate(route):
            if route.request.url.startswith((base, "data:", "blob:")):
                route.continue_()
            else:
                self.faults.append(f"asks for {route.request.url}")
                route.abort()

        return gate

    def _response(self, response) -> None:
        self.got.add(response.url)
        if response.status >= 400:
            self.faults.append(f"{response.status}: {response.url}")

    def _console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.context.close()


# Opening a chapter and setting its formulas takes seconds: the tests of one page at one width share a visit.
# (pytest puts them together if it can hash what they are given: no dictionary.)
# The wide page comes from a server; the narrow one by file://, as from a USB stick.
@pytest.fixture(scope="module")
def visit(site, built, browser, request):
    name, size = request.param
    base = site if size == WIDE else built.as_uri() + "/"
    with Visit(browser, base, f"{name}.html", size) as visit:
        yield visit


def visits(names: list[str], *sizes: tuple[int, int]):
    """For each page at each width, one test with its `visit`."""
    found = [(name, size) for name in names for size in sizes]
    ids = [f"{name}-{'wide' if size == WIDE else 'phone'}" for name, size in found]
    return pytest.mark.parametrize("visit", found, ids=ids, indirect=True)


@visits(PAGES, WIDE, PHONE)
def test_page(visit):
    assert not visit.unready, "an explorable figure never became ready"
    math = visit.page.evaluate(MATH)
    assert math == {"raw": [], "errors": [], "silent": 0, "left": []}
    width = visit.page.evaluate(WIDTH)
    assert width == {"page": 0, "wide": []}
    for picture in visit.page.query_selector_all(".bd-article img"):
        assert (picture.get_attribute("alt") or "").strip(), picture.get_attribute("src")
        if picture.is_visible():  # pictures below the window load when they come near
            picture.scroll_into_view_if_needed()
            assert picture.evaluate("(i) => i.decode().then(() => i.naturalWidth > 0)")
    for figure in visit.page.query_selector_all("figure.explorable"):
        figure.scroll_into_view_if_needed()
        colours = figure.evaluate(BLANK)
        assert colours and min(colours) > 3, f"a blank picture: {colours}"
    assert not visit.faults


@visits(PAGES, WIDE)
def test_every_control_moves_its_picture_and_its_text(visit):
    for figure in visit.page.query_selector_all("figure.explorable"):
        figure.scroll_into_view_if_needed()
        title = figure.get_attribute("aria-label")
        controls = figure.query_selector_all(".ex-controls input, .ex-controls select")
        assert controls, f"{title}: no control"
        for k in range(len(controls)):
            moved = visit.page.evaluate(MOVE, [figure, k])
            if controls[k].get_attribute("type") == "range":
                assert moved["picture"], f"{title}: {moved['name']} does not move the picture"
                assert moved["text"], (
                    f"{title}: {moved['name']} leaves the text at {moved['said']!r}"
                )
            else:  # a switch may change the picture only after a slider has moved
                assert moved["picture"] or moved["text"], f"{title}: {moved['name']} does nothing"
    assert not visit.faults


@visits(CHAPTERS, WIDE)
def test_a_slider_follows_the_keyboard(visit):
    for slider in visit.page.query_selector_all("figure.explorable input[type=range]"):
        slider.focus()
        before = slider.evaluate("(s) => s.getAttribute('aria-valuetext')")
        at_top = slider.evaluate("(s) => Number(s.value) >= Number(s.max)")
        visit.page.keyboard.press("ArrowLeft" if at_top else "ArrowRight")
        assert slider.evaluate("(s) => s.getAttribute('aria-valuetext')") != before


# Let a figure play, then take its slider in hand or press Reset: what it shows at once, later, and what the button says.
PLAYED = """async ([figure, how]) => {
  const button = (word) => [...figure.querySelectorAll(".ex-controls button")].find((b) => b.textContent === word);
  const wait = (ms) => new Promise((r) => setTimeout(r, ms)), values = () => JSON.stringify(figure.explorable.state);
  button("Reset").click(); // a test before this one may have moved it
  const slider = button("Play").closest(".ex-row").querySelector("input"), first = values();
  button("Play").click();
  for (let i = 0; i < 60 && values() === first; i++) await wait(100);
  const ran = values() !== first;
  if (how === "Reset") button("Reset").click();
  else { slider.value = slider.min; slider.dispatchEvent(new Event("input", { bubbles: true })); }
  const now = values();
  await wait(600);
  const found = { ran, stays: values() === now, reset: now === first, stopped: Boolean(button("Play")) && !button("Pause") };
  button("Reset").click();
  return found;
}"""


@visits(CHAPTERS, WIDE)
def test_a_figure_that_plays_stops_when_it_is_taken_in_hand(visit):
    for figure in visit.page.query_selector_all("figure.explorable:has(.ex-row button)"):
        for how in ("Reset", "slider"):
            found = visit.page.evaluate(PLAYED, [figure, how])
            title = figure.get_attribute("aria-label")
            assert found["ran"] and found["stays"] and found["stopped"], (title, how, found)
            assert found["reset"] or how != "Reset", title


# With a panel in the middle of the window: its figure's controls that are out of the window, too narrow for a thumb, or above it.
REACH = """(figure) => [...figure.querySelectorAll(".ex-panels canvas")].flatMap((panel) => {
  panel.scrollIntoView({ block: "center" });
  const middle = panel.getBoundingClientRect().top + panel.clientHeight / 2;
  return [...figure.querySelectorAll(".ex-controls input, .ex-controls select")].filter((c) => {
    const r = c.getBoundingClientRect();
    return r.top < middle || r.bottom > innerHeight || (c.type === "range" && r.width < 100);
  }).map((c) => c.dataset.name);
})"""


@visits(CHAPTERS, PHONE)
def test_on_a_phone_the_controls_stay_beside_their_picture(visit):
    for figure in visit.page.query_selector_all("figure.explorable"):
        assert figure.evaluate(REACH) == [], figure.get_attribute("aria-label")


@visits(CHAPTERS, PHONE)
def test_on_a_phone_no_formula_scrolls_or_is_too_small(visit):
    """Set smaller, down to four fifths of the text, it fits: break a longer one into lines."""
    visit.page.wait_for_function("document.documentElement.dataset.fitted")
    wide = visit.page.evaluate(
        """() => [...document.querySelectorAll("div.math:has(mjx-container)")].filter((d) => d.scrollWidth > d.clientWidth + 4
            || parseFloat(getComputedStyle(d.querySelector("mjx-container")).fontSize) < 0.8 * 16)
            .map((d) => d.textContent.trim().slice(0, 60))"""
    )
    assert not wide


# Marks that stand at the start of a line, below the end of the formula that they belong to.
ALONE = """() => [...document.querySelectorAll(".bd-article span.math")].filter((m) => {
  const mark = m.nextSibling, lines = m.querySelector("mjx-container").getClientRects();
  if (mark?.nodeType !== Node.TEXT_NODE || !/^[.,;:!?)\\]]/.test(mark.data) || !lines.length) return false;
  const range = document.createRange();
  range.setStart(mark, 0);
  range.setEnd(mark, 1);
  return range.getBoundingClientRect().top > lines[lines.length - 1].bottom - 2;
}).map((m) => m.textContent + m.nextSibling.data.slice(0, 20))"""


@visits(CHAPTERS, WIDE, PHONE)
def test_no_line_begins_with_the_comma_of_a_formula(visit):
    assert visit.page.evaluate(ALONE) == []
    held = visit.page.locator(".together").first
    assert held.evaluate("(e) => getComputedStyle(e).whiteSpace") == "nowrap"


@visits(CHAPTERS, PHONE)
def test_on_a_phone_a_wide_figure_says_that_it_scrolls(visit):
    visit.page.wait_for_timeout(200)  # the page marks them after its formulas
    silent = visit.page.evaluate(
        """() => [...document.querySelectorAll(".cell_output figure:not(.explorable)")].filter((f) =>
            (f.querySelector("img").getBoundingClientRect().width > f.clientWidth + 4) !==
            (getComputedStyle(f, "::before").visibility === "visible"
             && getComputedStyle(f, "::before").content !== "none")).map((f) => f.textContent.slice(0, 40))"""
    )
    assert not silent


@visits(CHAPTERS, WIDE)
def test_links_inside_a_chapter_arrive(visit):
    lost = visit.page.evaluate(
        """() => [...document.querySelectorAll('.bd-article a[href^="#"]')]
            .map((a) => a.getAttribute("href").slice(1))
            .filter((id) => id && !document.getElementById(decodeURIComponent(id)))"""
    )
    assert not lost


# After each change of the text the theme looks for what scrolls, 300 ms later: on paper nothing does.
CHANGE = """async () => {
  document.querySelector(".bd-article").append(document.createElement("span"));
  await new Promise((r) => setTimeout(r, 500));
}"""
OUT_OF_REACH = """async () => {
  await new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)));
  return [...document.querySelectorAll("div.highlight pre")]
    .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0).map((e) => e.textContent.slice(0, 40));
}"""


@visits(CHAPTERS, WIDE)
def test_print(visit):
    """On paper: the figures, the sentences about them, no sidebars."""
    visit.page.emulate_media(media="print")
    assert not visit.page.is_visible(".bd-sidebar-primary")
    for figure in visit.page.query_selector_all("figure.explorable"):
        boxes = figure.evaluate(
            """(f) => [...f.querySelectorAll(".ex-panels canvas, img.ex-still, .ex-alt")]
                .map((e) => e.getBoundingClientRect()).filter((r) => r.width > 40 && r.height > 8).length"""
        )
        assert boxes >= 2, "a figure or its sentence is not printed"
    assert len(visit.page.pdf()) > 20_000
    visit.page.evaluate(CHANGE)
    visit.page.emulate_media(media="null")  # others look at this page on a screen
    assert visit.page.evaluate(OUT_OF_REACH) == []


# The questions of a quiz, and which of their options are open.
STATE = """() => [...document.querySelectorAll("ol.quiz > li")].map(
  (q) => [...q.querySelectorAll("details")].map((d) => d.open))"""


@visits(CHAPTERS, WIDE)
def test_the_keyboard_opens_an_option_of_the_quiz_and_the_page_counts(visit):
    page, number = visit.page, Path(visit.name).stem[:2]
    questions = read_quiz(ROOT / "book" / "quizzes" / f"{number}.yml")
    assert page.evaluate(STATE) == [[False] * len(q["options"]) for q in questions]
    place = [o["right"] for o in questions[0]["options"]].index(True)
    page.locator("ol.quiz > li").nth(0).locator("summary").first.focus()
    for _ in range(place):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.quiz-tally').textContent")
    assert page.evaluate(STATE)[0].index(True) == place
    assert page.locator("ol.quiz details[open] strong").first.text_content() == "Right."
    told = page.locator(".quiz-tally").text_content()
    assert told == f"1 of {len(questions)} questions answered, 1 right at the first try."
    page.locator("ol.quiz ~ button").click()
    assert not any(map(any, page.evaluate(STATE)))


HEAVIEST = 2_000_000  # bytes, as a static host sends a page with all that it loads
TEXT = (".html", ".js", ".css", ".svg", ".json")


@functools.cache
def sent(file: Path) -> int:
    """Bytes: gzip for text, the rest as it is."""
    return len(gzip.compress(file.read_bytes(), 6)) if file.suffix in TEXT else file.stat().st_size


@visits([*PAGES, "search"], WIDE)
def test_weight(site, built, visit):
    """That a slow line can carry, with every figure in sight."""
    for picture in visit.page.locator(".bd-article img[loading=lazy]").all():
        picture.scroll_into_view_if_needed()
    visit.page.wait_for_load_state("networkidle")
    files = {built / address.removeprefix(site).split("?")[0] for address in visit.got}
    sizes = {file: sent(file) for file in files if file.is_file()}
    assert built / visit.name in sizes
    assert sum(sizes.values()) <= HEAVIEST, sorted(sizes.items(), key=lambda x: -x[1])[:5]


# A reader who turns back: on a narrow page the theme then offers a way to the top.
BACK = """async () => {
  const frames = () => new Promise((r) => requestAnimationFrame(() => setTimeout(r, 100)));
  scrollTo(0, document.documentElement.scrollHeight);
  await frames();
  scrollBy(0, -300);
  await frames();
}"""


# The last of a visit: most coloured words of code are plain text afterwards.
@visits([*PAGES, "search"], WIDE, PHONE)
def test_axe_finds_nothing(visit):
    """Every rule on a light desktop; what can be seen again on a dark phone.

    Lists and buttons around the text are the same on every page: two pages speak for a dark desktop and a light phone.
    """
    page, name = visit.page, visit.name.removesuffix(".html")
    page.emulate_media(reduced_motion="reduce")
    wide, found = visit.size == WIDE, {}
    if wide:
        found["all rules"] = violations(page, formulas=name == CHAPTERS[0])
    speaks = name in (PAGES[0], CHAPTERS[0])
    for scheme in ["dark"] * speaks if wide else ["light"] * speaks + ["dark"]:
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("(s) => document.documentElement.dataset.theme === s", arg=scheme)
        page.wait_for_timeout(400)  # marking what scrolls waits for the end of a change
        page.evaluate(BACK)
        if name in CHAPTERS and not wide:
            assert page.is_visible("#pst-back-to-top")
        found[scheme] = violations(page, VISIBLE)
    assert found == dict.fromkeys(found, [])


def test_search_from_a_folder_without_a_server(built, browser):
    with Visit(browser, built.as_uri() + "/", "search.html?q=variables", WIDE) as visit:
        visit.page.wait_for_selector("#search-results li a", timeout=10_000)
        assert not visit.faults


def test_search(site, browser):
    with Visit(browser, site, "search.html?q=variables", WIDE) as visit:
        visit.page.wait_for_selector('#search-results a[href*="chapters/"]', timeout=10_000)
        visit.page.wait_for_load_state("networkidle")
        assert not visit.faults


# ---------------------------------------------------------------- the scripts alone, on a page made by hand

STATIC = ROOT / "book" / "static"
FORMULAS = """<!doctype html><meta charset=utf8><script>
const DOCUMENTATION_OPTIONS = {};
let portions = 0, go;
const held = new Promise((done) => (go = done));
window.MathJax = {
  typesetPromise: async (some) => { if (portions++) await held; for (const e of some) e.dataset.set = "yes"; },
  startup: { defaultPageReady: async () => {} },
};
</script><article class="bd-article">FORMULAS<div style="height: 3000px"></div><p id="far off">here
</article><script>SCRIPT</script>"""


@pytest.fixture
def formulas(browser, tmp_path):
    """A page of formulas that are set when `go()` is called, except those in the window."""
    file = tmp_path / "page.html"
    script = (STATIC / "book.js").read_text(encoding="utf8")
    formula = '<div class="math" style="height: 50px">x</div>'
    html = FORMULAS.replace("FORMULAS", 100 * formula).replace("SCRIPT", script)
    file.write_text(html, encoding="utf8")
    page = browser.new_page()
    yield page, file.as_uri()
    page.close()


@pytest.mark.parametrize("anchor", ["", "#far%20off", "#100%"])
def test_formulas_are_set_whatever_the_address(formulas, anchor):
    page, address = formulas
    page.goto(address + anchor)
    page.evaluate("go(), MathJax.startup.pageReady()")
    assert not page.evaluate("document.querySelectorAll('.math:not([data-set])').length")


@pytest.mark.parametrize("moved", [True, False])
def test_the_page_returns_to_its_anchor_unless_the_reader_has_moved_on(formulas, moved):
    page, address = formulas
    page.goto(address + "#far%20off")
    page.evaluate("void (window.ready = MathJax.startup.pageReady())")
    page.wait_for_function("portions > 1")
    if moved:
        page.keyboard.press("Home")
    page.evaluate("scrollTo({ top: 0, behavior: 'instant' }), go(), ready")
    assert (page.evaluate("scrollY") == 0) is moved


TERM = """<!doctype html><meta charset=utf8><span class="term"><a href="#there">term</a>
<span class="term-says">what it says</span></span><script>SCRIPT</script>"""


def test_a_tap_shows_a_term_and_then_the_keyboard_follows_it(browser):
    context = browser.new_context(has_touch=True)
    page = context.new_page()
    page.goto("about:blank")
    page.set_content(TERM.replace("SCRIPT", (STATIC / "terms.js").read_text(encoding="utf8")))
    page.tap("a")
    assert page.evaluate("[location.hash, document.activeElement.tagName]") == ["", "A"]
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#there"
    context.close()
