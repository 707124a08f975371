"""Slides: the rule keeps every numbered equation and every figure, and nothing leaves its slide."""

from __future__ import annotations

import re

import pytest
from deck import Deck, lead, lead_in, plain, sentences
from notebooks import chapters, read, source, tags
from slides import OUT, deck, goals, write

SIZE = {"width": 1280, "height": 720}

# One slide as it stands: what sticks out, what is not typeset, what Markdown was left over.
LOOK = r"""async () => {
  await new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)));
  const s = Reveal.getCurrentSlide(), box = s.getBoundingClientRect();
  const seen = [...s.querySelectorAll("*")].filter((e) => !e.closest(".ex-alt, aside, svg")
    && (!e.closest("mjx-container") || e.matches("mjx-math"))); // stretched brackets are clipped inside
  const out = seen.filter((e) => { const r = e.getBoundingClientRect(); return r.width && (r.right > 1281 || r.left < -1 || r.bottom > 721); });
  const text = s.cloneNode(true);
  text.querySelectorAll("code, pre, mjx-container, script, aside, figure.explorable").forEach((e) => e.remove());
  return {
    sticks_out: out.slice(0, 3).map((e) => e.tagName + " " + e.textContent.slice(0, 40)),
    bottom: Math.max(0, Math.round(box.bottom) - 720),
    small: Number(s.style.zoom || 1) < 0.75 ? s.style.zoom : 0,
    raw: (text.textContent.match(/\*\*|\$|\\[a-z]+|\]\(|<a id/g) || []),
    errors: s.querySelectorAll("mjx-merror, [data-mjx-error]").length,
    pictures: [...s.querySelectorAll("img")].filter((i) => !i.closest("figure.explorable") && !(i.complete && i.naturalWidth && i.alt)).length,
    unready: s.querySelectorAll("figure.explorable:not([data-ready='1'])").length,
    live: s.querySelectorAll("figure.explorable").length,
  };
}"""
FINE = {
    "sticks_out": [],
    "bottom": 0,
    "small": 0,
    "raw": [],
    "errors": 0,
    "pictures": 0,
    "unready": 0,
}

MOVE = """async () => {
  const f = Reveal.getCurrentSlide().querySelector("figure.explorable"), c = f.querySelector("input[type=range], select");
  const look = () => [...f.querySelectorAll("canvas")].map((x) => x.toDataURL()).join("");
  const before = look(), painted = f.dataset.painted;
  if (c.tagName === "SELECT") c.selectedIndex = (c.selectedIndex + 1) % c.options.length;
  else c.value = Number(c.value) > (Number(c.min) + Number(c.max)) / 2 ? c.min : c.max;
  c.dispatchEvent(new Event(c.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
  for (let k = 0; k < 200 && f.dataset.painted === painted; k++) await new Promise((r) => setTimeout(r, 10));
  return before.length > 1000 && look() !== before;
}"""


@pytest.fixture(scope="module")
def decks(built):
    """All decks, from chapters that are executed."""
    write(chapters())
    return OUT


def numbered(path) -> list[str]:
    """The numbers of the equations in a chapter's text, exercises and solutions apart."""
    text = "\n\n".join(source(c) for c in read(path)["cells"] if c["cell_type"] == "markdown")
    text = re.sub(r"<details>.*?</details>", "", text, flags=re.S)
    text = re.sub(r"^## Exercises.*?(?=^## )", "", text, flags=re.M | re.S)
    return re.findall(r"\\tag\{([^}]+)\}", text)


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_a_deck_has_all_equations_and_figures(decks, path):
    slides = [s for column in deck(path).columns for s in column]
    shown = "".join("".join(s.body) for s in slides)
    assert re.findall(r"\\tag\{([^}]+)\}", shown) == numbered(path)
    captions = [c for c in read(path)["cells"] if "caption" in tags(c)]
    for caption in captions:
        number = re.search(r"\*\*Figure ([\d.]+\w?)\.\*\*", source(caption))[1]
        assert f"Figure {number}" in shown, f"Figure {number} is on no slide"
    live = sum("explorable" in tags(c) for c in read(path)["cells"])
    assert shown.count('<figure class="explorable"') == live
    assert all(s.body for s in slides), "a slide without content"
    assert 20 <= len(slides) <= 60, "a lecture"


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_nothing_leaves_its_slide(decks, browser, path):
    context = browser.new_context(viewport=SIZE)
    page, faults = context.new_page(), []
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: faults.append(str(e)))
    page.on("requestfailed", lambda r: faults.append(r.url))
    page.on("request", lambda r: faults.append(r.url) if r.url.startswith("http") else None)
    page.goto((decks / f"{path.stem}.html").as_uri(), timeout=120_000)
    page.wait_for_selector("body[data-ready='1']", timeout=120_000)
    moved = 0
    for k in range(page.evaluate("Reveal.getTotalSlides()")):
        found = page.evaluate(LOOK)
        live = found.pop("live")
        assert found == FINE, f"slide {k + 1}: {found}"
        if live:
            moved += page.evaluate(MOVE)
        page.evaluate("Reveal.next()")
    assert moved == sum("explorable" in tags(c) for c in read(path)["cells"])
    assert not faults
    context.close()


def test_handles_follow_the_mouse_on_a_scaled_slide(decks, browser):
    """reveal.js scales the slide; a handle must still be where the hand is."""
    page = browser.new_page(viewport={"width": 800, "height": 450})
    page.goto((decks / "01_change_of_variables.html").as_uri())
    page.wait_for_selector("body[data-ready='1']", timeout=120_000)
    page.evaluate(
        """() => {
        const f = [...document.querySelectorAll("figure.explorable")].find((x) => x.explorable.spec.drag.length);
        const i = Reveal.getIndices(f.closest("section"));
        Reveal.slide(i.h, i.v); globalThis.fig = f;
    }"""
    )
    page.wait_for_timeout(300)
    box = page.evaluate(
        """() => { const d = fig.explorable.spec.drag[0], r = fig.querySelectorAll("canvas")[d.panel].getBoundingClientRect();
        return [r.left, r.top, r.width, r.height]; }"""
    )
    middle = (box[0] + 0.62 * box[2], box[1] + 0.5 * box[3])
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 3, middle[1])
    page.mouse.up()
    page.wait_for_timeout(200)
    off = page.evaluate(
        """([x, y]) => { // where the renderer puts the handle, on the screen
        const d = fig.explorable.spec.drag[0], cv = fig.querySelectorAll("canvas")[d.panel], r = cv.getBoundingClientRect();
        const m = ExplorablePanel.drawPanel(cv, fig.explorable.scene().panels[d.panel], ExplorablePanel.theme(fig), 17);
        const k = r.width / cv.clientWidth, s = fig.explorable.state;
        return Math.hypot(r.left + k * m.X(s[d.x]) - x, d.y ? r.top + k * m.Y(s[d.y]) - y : 0);
    }""",
        [middle[0] + 3, middle[1]],
    )
    assert off < 12
    page.close()


def test_without_javascript_the_slides_are_a_page(decks, browser):
    context = browser.new_context(viewport=SIZE, java_script_enabled=False)
    page = context.new_page()
    page.goto((decks / "01_change_of_variables.html").as_uri())
    assert page.is_visible("text=These slides need JavaScript to be shown one by one")
    assert page.is_visible("text=Figure 1.2.")
    assert "\\tag{1.5}" in page.inner_text("body"), "the formulas' source"
    stills = page.query_selector_all("figure.explorable img.ex-still")
    assert len(stills) == 4 and all(
        s.is_visible() and s.bounding_box()["width"] > 200 for s in stills
    )
    context.close()


# ---------------------------------------------------------------- the rule, piece by piece


def shown(text: str) -> list[str]:
    out = Deck()
    out.text(text)
    return [
        s.title + "|" + " ".join(re.sub(r"<[^>]+>", " ", "".join(s.body)).split())
        for s in out.columns[0]
    ]


def test_sentences():
    text = "By Dinh et al. (2017) it is $a. B$. *Why? Because.* Then A. Author came. **Bold.** End"
    assert sentences(text) == [
        "By Dinh et al. (2017) it is $a. B$.", "*Why? Because.*", "Then A. Author came.", "**Bold.**", "End",
    ]  # fmt: skip
    assert lead("One two. Three four. Five.", 4) == ("One two. Three four.", "Five.")
    assert lead_in("The first sentence is long. So") == "The first sentence is long. So"
    assert goals("> see that $a$ is b;\n> prove c.\n") == ["see that $a$ is b", "prove c"]


def test_links_lose_their_target_and_keep_their_words():
    assert plain("see [(9.6)](#eq-9-6) and [Ho [2020]](x.md#a(b))") == "see (9.6) and Ho [2020]"


def test_an_equation_brings_the_sentence_before_it():
    text = "## Title\n\nLead text here.\n\nSome more. This is what leads to it:\n\n$$ a \\tag{1.1} $$\n\nwhere $a$ is b. Rest."
    assert shown(text) == [
        "Title|Lead text here. This is what leads to it: $$ a \\tag{1.1} $$ where $a$ is b. Rest."
    ]


def test_three_equations_are_two_slides_and_plain_ones_are_notes():
    text = (
        "## T\n\nLead.\n\n"
        + "\n\n".join(f"$$ a_{k} \\tag{{1.{k}}} $$" for k in (1, 2, 3))
        + "\n\n$$ b $$"
    )
    got = shown(text)
    assert len(got) == 2 and "1.2" in got[0] and "1.3" in got[1] and "b" not in got[1]


def test_what_is_left_out():
    text = "## Exercises\n\nDo it.\n\n## T\n\nLead.\n\n<details><summary>S</summary>\n\nsecret\n\n</details>"
    assert shown(text) == ["T|Lead."]
