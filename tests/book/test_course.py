"""Learning paths, minutes, the graph of needs and back links: complete, true to the notebooks, and within their time."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import minutes
import pytest
import yaml
from course import DAY, HOURS, WEEKS, Course
from notebooks import ROOT, chapters, contents, prose, read

LISTED = [Path(page).name for page in contents() if page.startswith("chapters/")]
COURSE = Course(chapters())


def markdown(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text: str, *tags: str) -> dict:
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": text}


def test_every_chapter_of_the_contents_has_an_entry():
    data = yaml.safe_load((ROOT / "book" / "chapters.yml").read_text(encoding="utf8"))
    assert [name for name in LISTED if name not in data] == []


def test_a_chapter_without_an_entry_is_refused(tmp_path):
    extra = tmp_path / "14_more.ipynb"
    extra.write_text((ROOT / "chapters" / f"{LISTED[0]}.ipynb").read_text("utf8"), "utf8")
    with pytest.raises(ValueError, match="no entry for 14_more"):
        Course([*chapters(), extra])


def test_the_rule_of_minutes():
    words = markdown("word " * 320)
    assert minutes.reading([words]) == pytest.approx(2)
    assert minutes.reading([code("x = 1\n\n" * 15)]) == pytest.approx(1)
    assert minutes.reading([code("x = 1\n" * 15, "hide-input")]) == 0
    assert minutes.reading([markdown("$$ x = y \\tag{1.2} $$")]) == pytest.approx(1)
    assert minutes.reading([markdown('<a id="fig-1-2"></a>**Figure 1.2.**')]) == pytest.approx(
        1 + 1 / 160
    )
    folded = markdown("<details><summary>Hint</summary>\n\n" + "word " * 320 + "\n\n</details>")
    assert minutes.reading([folded]) == 0
    tasks = markdown("**Exercise 1.1 (compute).** a\n\n**Exercise 1.2 (prove).** b")
    assert minutes.exercises([tasks]) == 25
    with pytest.raises(ValueError, match="guess"):
        minutes.exercises([markdown("**Exercise 1.1 (guess).** a")])


def test_sections_split_a_cell_with_two_headings():
    nb = {"cells": [markdown("# T\n\n## A\n\none\n\n## B\n\ntwo two"), code("x = 1")]}
    parts = minutes.sections(nb)
    assert [c["source"].strip() for c in parts["A"]] == ["## A\n\none"]
    assert len(parts["B"]) == 2


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_no_minute_is_lost_between_sections(path):
    nb = read(path)
    parts = minutes.sections(nb)
    assert sum(map(minutes.reading, parts.values())) == pytest.approx(minutes.reading(nb["cells"]))
    reading, work = COURSE.minutes(int(path.stem[:2]))
    assert 40 <= reading <= 130 and 50 <= work <= 150


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem[:2])
def test_a_chapters_head_says_the_time_that_the_rule_gives(path):
    cells = read(path)["cells"]
    said = re.search(
        r"\*\*Time\*\* (?:about )?(\d+) minutes to read", prose(cells[0]) + prose(cells[1])
    )
    assert abs(int(said[1]) - minutes.reading(cells)) <= 5


@pytest.mark.parametrize(("name", "most"), [("hours", HOURS), ("day", DAY)])
def test_a_short_path_keeps_its_time(name, most):
    total = sum(m for n in COURSE.about for _, m in COURSE.stops(n, name))
    assert 0.8 * most <= total <= most


def test_the_course_has_a_week_for_every_chapter_and_needs_come_first():
    for n, about in COURSE.about.items():
        assert 1 <= about["week"] <= WEEKS
        for m in (*about["needs"], *about["helps"]):
            assert COURSE.about[m]["week"] <= about["week"], f"{n} comes before {m}"


def test_needs_agree_with_the_box_at_the_top_of_the_chapter():
    """Each chapter that the box links to is a need, and each need is in the box."""
    for n, nb in COURSE.books.items():
        box = " ".join(nb["cells"][0]["source"].split())
        needs = box[box.index("**You need**") : box.index("**Time**")]
        linked = {int(x) for x in re.findall(r"\((\d\d)_\w+\.ipynb", needs)}
        linked |= {int(x) for x in re.findall(r"[Cc]hapter (\d+)", needs)}
        if re.search(r"is not needed for this chapter|only for the word", needs):
            linked.discard(1)
        known = {*COURSE.about[n]["needs"], *COURSE.about[n]["helps"]}
        assert linked == known, f"chapter {n}: the box says {linked}, chapters.yml {known}"


def test_the_drawn_graph_says_what_the_needs_say():
    """Following arrows from a chapter leads to everything that it needs, and nothing is drawn twice."""
    about = COURSE.about
    arrows = {n: [m for m in about if m < n and COURSE.drawn(m, n)] for n in about}

    def reached(n: int) -> set[int]:
        return set(arrows[n]).union(*(reached(m) for m in arrows[n])) if arrows[n] else set()

    for n in about:
        assert set(about[n]["needs"]) <= reached(n)
    svg = COURSE.graph()
    assert svg.count('class="graph-edge') == sum(map(len, arrows.values()))
    assert svg.count('class="graph-node"') == len(about)
    rows, places = COURSE.rows(), set()
    for n in about:
        places.add((rows[n], about[n]["column"]))
        assert all(rows[m] < rows[n] for m in arrows[n])
    assert len(places) == len(about), "two chapters stand in one place"


def test_no_arrow_of_the_graph_passes_behind_a_chapter():
    """It would look as if it led there."""
    svg = COURSE.graph()
    boxes = [tuple(map(float, b)) for b in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"', svg)]
    width, height = map(float, re.search(r'width="([\d.]+)" height="([\d.]+)" rx', svg).groups())
    curves = re.findall(r'class="graph-edge[^>]* d="M([\d. -]+)C([\d. -]+)"', svg)
    assert len(boxes) == len(COURSE.about) and len(curves) == svg.count('class="graph-edge')
    for start, rest in curves:
        p = [float(v) for v in f"{start} {rest}".split()]
        for k in range(2, 99):  # between its ends, which touch the boxes that it joins
            t = k / 100
            weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
            x, y = (sum(w * v for w, v in zip(weights, p[i::2], strict=True)) for i in (0, 1))
            behind = [b for b in boxes if b[0] < x < b[0] + width and b[1] < y < b[1] + height]
            assert not behind, f"the arrow {start} to {rest} passes behind the box at {behind}"
    ends = [rest.rsplit(maxsplit=2)[1:] for _, rest in curves]
    assert len(set(map(tuple, ends))) == len(ends), (
        "two arrows share a head: a dashed one looks solid"
    )


def test_the_page_gives_a_reason_for_every_need():
    rows = COURSE.reasons().splitlines()
    for row, (n, about) in zip(rows, COURSE.about.items(), strict=True):
        assert row.startswith(f"- {COURSE.link(n)} needs ")
        assert all(f"{m} for {why}" in row for m, why in about["needs"].items())
        assert all(f"in part {m} for {why}" in row for m, why in about["helps"].items())


def test_back_links_are_the_links_seen_from_the_other_end():
    for n in COURSE.about:
        for m, equations in COURSE.used_in(n).items():
            text = "\n".join(
                prose(c) for c in COURSE.books[m]["cells"] if c["cell_type"] == "markdown"
            )
            for e in equations:
                assert f"({COURSE.paths[n].name}#eq-{e})" in text
                assert f'<a id="eq-{e}"></a>' in COURSE.paths[n].read_text("utf8").replace(
                    '\\"', '"'
                )
    assert "1-19" in COURSE.used_in(1)[4]


def test_a_path_with_a_section_that_is_gone_is_refused():
    broken = copy.copy(COURSE)
    broken.about = copy.deepcopy(COURSE.about)
    broken.about[1]["hours"] = ["The answer"]
    with pytest.raises(ValueError, match="no section 'The answer'"):
        broken.stops(1, "hours")


def test_the_page_refuses_a_missing_marker():
    text = (ROOT / "book" / "paths.md").read_text("utf8")
    assert "<!--" not in COURSE.page(text)
    with pytest.raises(ValueError, match="graph"):
        COURSE.page(text.replace("<!-- graph -->", ""))


def test_links_of_the_graph_arrive(built):
    page = (built / "book" / "paths.html").read_text(encoding="utf8")
    targets = re.findall(r'class="graph-node" href="\.\./chapters/([\w]+\.html)"', page)
    assert len(targets) == len(chapters())
    assert all((built / "chapters" / t).is_file() for t in targets)


@pytest.mark.parametrize("path", chapters(), ids=lambda p: p.stem)
def test_a_chapter_ends_with_its_connections(built, path):
    page = (built / "chapters" / f"{path.stem}.html").read_text(encoding="utf8")
    last = page[page.index('id="connections"') :]
    reading, work = COURSE.minutes(int(path.stem[:2]))
    shown = int(
        re.search(rf"about (\d+)\u00a0minutes to read and {work} for the exercises", last)[1]
    )
    assert shown % 5 == 0 and abs(shown - reading) <= 2.5
