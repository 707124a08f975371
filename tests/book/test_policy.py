"""The chapters keep to the rules in book/tools/policy.py, and the rules themselves bite."""

from __future__ import annotations

import copy
import subprocess
import sys

import policy
import pytest
from notebooks import ROOT, chapters, dump
from policy import RULES, Chapter, book_pages, dead_links

CHAPTERS = chapters()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_rule(path, name):
    complaints = RULES[name](Chapter.open(path))
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize("path", book_pages(), ids=lambda p: p.stem)
def test_links_of_pages(path):
    assert not dead_links(path)


def test_anchors_are_unique_in_the_book():
    seen: dict[str, str] = {}
    for path in [*CHAPTERS, *book_pages()]:
        for anchor in policy.anchors(path):
            assert anchor not in seen, f"{anchor} is in {path.name} and in {seen[anchor]}"
            seen[anchor] = path.name


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "-q", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


# ---------------------------------------------------------------- each rule, broken on purpose

FORM = r"""
# Title

<a id="eq-1-1"></a>

$$ a = b \tag{1.1} $$

[(1.1)](#eq-1-1), [Dinh (2017)](../book/references.md#dinh2017)
"""


def _md(text, *tags):
    return {"cell_type": "markdown", "id": "m", "metadata": {"tags": list(tags)}, "source": text}


def _py(text, *tags, **metadata):
    return {
        "cell_type": "code",
        "id": "c",
        "metadata": {"tags": list(tags), **metadata},
        "source": text,
        "outputs": [],
        "execution_count": None,
    }


def _chapter(tmp_path, *cells, **metadata):
    (tmp_path / "chapters").mkdir(exist_ok=True)
    (tmp_path / "book").mkdir(exist_ok=True)
    (tmp_path / "book/references.bib").write_text("@article{dinh2017,\n}\n")
    (tmp_path / "book/references.md").write_text('<a id="dinh2017"></a>Dinh\n')
    nb = {
        "cells": copy.deepcopy(list(cells)),
        "metadata": {"book": metadata},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path = tmp_path / "chapters" / "01_one.ipynb"
    path.write_text(dump(nb))
    return Chapter.open(path, tmp_path)


def _says(complaints, *parts):
    text = "\n".join(complaints)
    assert all(p in text for p in parts), f"{parts} not in:\n{text}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("see {eq}`a`", "role"),
        ("```{note}\nx\n```", "directive"),
        (":::\nx\n:::", "colon fence"),
        (r"$\newcommand{\x}{y}$", "macro"),
        (r"see $\eqref{a}$", "reference"),
        (r"\(x\)", "use $"),
        ("$$\\begin{align}a\\end{align}$$", "aligned"),
        (r"$$ a \tag{1.1} b \tag{1.2} $$", "two tags"),
        ("\\begin{align}\na\n\\end{align}", "outside"),
    ],
)
def test_plain_markdown(tmp_path, text, said):
    _says(RULES["plain_markdown"](_chapter(tmp_path, _md(text))), said)


def test_plain_markdown_leaves_good_text_alone(tmp_path):
    good = (
        FORM
        + "`{eq}` and\n\n```python\nx = {1}\n```\n\n$$\\begin{aligned}a&=b\\\\[2pt]c\\end{aligned}$$"
    )
    assert not RULES["plain_markdown"](_chapter(tmp_path, _md(good)))
    assert not RULES["links"](_chapter(tmp_path, _md(good)))
    assert not RULES["citations"](_chapter(tmp_path, _md(good)))


@pytest.mark.parametrize(
    ("cells", "metadata", "said"),
    [
        ([_md(FORM), _py("verify('1.2', 1, 2)")], {}, "no equation has that number"),
        ([_md(FORM)], {}, "(1.1) is not verified"),
        (
            [_md(FORM), _py("verify('1.1', 1, 2, expect_failure=True)")],
            {},
            "(1.1) is not verified",
        ),
        ([_md(FORM), _md(FORM)], {}, "numbered 2 times"),
        ([_md("$$ a \\tag{1.1} $$")], {}, "needs <a id="),
        ([_md(FORM.replace("1.1", "2.1").replace("1-1", "2-1"))], {}, "not a number of chapter 1"),
        (
            [_md(FORM), _py("verify('1.1', 1, 2)")],
            {"unchecked": {"1.1": "why"}},
            "which is verified",
        ),
        ([_md(FORM)], {"unchecked": {"1.9": "why"}}, "does not exist"),
        ([_md(FORM), _py("verify(label, 1, 2)")], {}, "plain text"),
    ],
)
def test_equations(tmp_path, cells, metadata, said):
    _says(RULES["equations"](_chapter(tmp_path, *cells, **metadata)), said)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([_py("fig, ax = plt.subplots()"), _md("text")], "not tagged caption"),
        (
            [
                _py("plt.plot(x)"),
                _md('<a id="fig-1-1"></a>**Figure 1.1.** See it.', "caption"),
            ],
            "metadata alt",
        ),
        (
            [
                _py("plt.plot(x)", alt="a sentence that is long"),
                _md('<a id="fig-1-2"></a>**Figure 1.2.** See it.', "caption"),
            ],
            "numbered ['1.2']",
        ),
        ([_md('<a id="fig-1-2"></a>**Figure 1.2.** See it.', "caption")], "without a figure"),
        ([_py("x = 1")], "no explorable"),
    ],
)
def test_figures(tmp_path, cells, said):
    _says(RULES["figures"](_chapter(tmp_path, *cells)), said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x](#nothing)", "no such anchor"),
        ("[x](02_two.ipynb)", "no such file"),
        ("[x](../book/references.md#nobody2020)", "no such anchor"),
        ("[x](/etc/passwd)", "relative"),
        ('<a id="a"></a> <a id="a"></a>', "2 times"),
        ('<a id="A"></a>', "lower case"),
    ],
)
def test_links(tmp_path, text, said):
    _says(RULES["links"](_chapter(tmp_path, _md(text))), said)


@pytest.mark.parametrize(
    "text", ["open('/home/me/x')", "p = '../data/x.csv'", "load('~/x')", "%cd x\nload('/tmp/a')"]
)
def test_paths(tmp_path, text):
    assert RULES["no_paths"](_chapter(tmp_path, _py(text)))


@pytest.mark.parametrize(
    "text",
    [
        "%%time\nfrom lib.flows import planar",
        "%timeit x",
        "  !cd lib",
        "x = !ls",
        "x = %pwd",
        "planar?",
        "?planar",
        "if x:\n    %cd lib",
    ],
)
def test_plain_python(tmp_path, text):
    first, fine = _py("!pip install x"), _py("# a comment?\n\nx = 5 % 3\nif x != 1:\n    'a\\n%b'")
    assert not RULES["plain_python"](_chapter(tmp_path, first, fine))
    _says(RULES["plain_python"](_chapter(tmp_path, first, _py(text))), "cell 2", "IPython")


def test_exercises(tmp_path):
    good = "**Exercise 1.1** Do.\n\n<details><summary>Solution 1.1</summary>\n\nDone.\n\n</details>"
    stub = _py("check('1.1', None)", "exercise")
    complaints = RULES["exercises"](_chapter(tmp_path, _md(good), stub))
    assert len(complaints) == 2, complaints  # too few, and the stub's tag
    tight = good.replace("</summary>\n\n", "</summary>\n")
    _says(RULES["exercises"](_chapter(tmp_path, _md(tight))), "blank line", "no solution")


def test_size(tmp_path):
    complaints = RULES["size"](_chapter(tmp_path, _md("a b c"), _py("x\n" * 41)))
    _says(complaints, "2 cells", "3 words", "41 lines", "median")


def test_setup_cell(tmp_path):
    (tmp_path / "lib/teach").mkdir(parents=True)
    (tmp_path / "lib/teach/setup_cell.py").write_text("SETUP_CELL = 'a'\n")
    assert RULES["setup_cell"](_chapter(tmp_path, _py("b")))
    assert not RULES["setup_cell"](_chapter(tmp_path, _py("a")))
