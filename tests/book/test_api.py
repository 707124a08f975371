"""The reference: plain docstrings become Markdown, and no public name is missing on its pages."""

import re

import pytest
from api import MARKER, anchor, call, fill, items, markdown, plain, public, signature
from notebooks import ROOT

DOC = """A line with a|b, *x and `code_of_it`.

    y = x + 1

Args:
    a, b: two things, of which the
        second goes on.
    *shape: sizes.

Raises:
    ValueError: always.

>>> 1 + 1
2
"""


def test_a_docstring_as_markdown():
    text = markdown(DOC)
    assert r"a\|b, \*x and `code_of_it`." in text
    assert "```text\ny = x + 1\n```" in text
    assert (
        "**Args**\n\n- `a, b`: two things, of which the second goes on.\n- `*shape`: sizes." in text
    )
    assert "**Raises**\n\n- `ValueError`: always." in text
    assert text.endswith("```pycon\n>>> 1 + 1\n2\n```")


def test_what_a_reader_copies_stays_as_it_is_typed():
    """Outside of code a page turns quotes into curly ones and two hyphens into a dash."""
    assert plain('trace="exact", or "rk4"') == '`trace="exact"`, or `"rk4"`'
    assert plain('the published "FID"; "two words"; `f("x")`') == (
        'the published "FID"; "two words"; `f("x")`'
    )
    assert markdown("python -m lib.train x --mode full") == (
        "```text\npython -m lib.train x --mode full\n```"
    )
    assert markdown("a = f(2)\nb = g(a)") == "```text\na = f(2)\nb = g(a)\n```"
    assert markdown("A word.\nAnother.") == "A word. Another."


def test_fields_of_a_record_are_a_list():
    doc = "mean (n,): of all.\ns, t: times.\na (2,) and b (n, 2):  two   more."
    assert markdown(doc).splitlines() == [
        "- `mean (n,)`: of all.",
        "- `s, t`: times.",
        "- `a (2,) and b (n, 2)`: two more.",
    ]
    assert markdown("One: a\nsentence that goes\non: here.").count("- ") == 0


def test_entries_of_a_section():
    assert items(["a: one", "and more: or less", "b: two"]) == [
        "a: one",
        "and more: or less",
        "b: two",
    ]
    assert items(["a: one", "  goes on", "b: two"]) == ["a: one goes on", "b: two"]
    assert plain("|x|_2 <a> $1$") == r"\|x\|\_2 \<a\> \$1\$"


def test_signatures():
    from lib.flows.flow import Flow
    from lib.vae.elbo import Elbo, kl_normal

    assert signature(Elbo) == "class Elbo(recon: Tensor, kl: Tensor)"
    assert signature(Flow) == "class Flow(transform: Transform, *shape: int, base=None)"
    assert signature(kl_normal).splitlines()[3] == "    mean2: Tensor | float = 0.0,"
    assert call("def f", ["a"] * 40, "").count("\n") == 41


def test_every_public_name_is_on_a_page():
    pages = [p.read_text("utf8") for p in sorted((ROOT / "book").glob("api*.md"))]
    assert all(len(MARKER.findall(page)) == 1 for page in pages)
    text = "\n".join(map(fill, pages))
    for name, what in public().items():
        kind = "class-" if isinstance(what, type) else ""
        assert text.count(f'<a id="{anchor(name, kind)}"></a>') == 1, name
    anchors = re.findall(r'<a id="([^"]+)"></a>', text)
    assert len(anchors) == len(set(anchors))


def test_a_wrong_marker_is_refused():
    with pytest.raises(ValueError, match="no module of lib"):
        fill("<!-- api: lib.nothing -->")
