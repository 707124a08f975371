"""The chapters in Firefox and in WebKit, Safari's engine: set, within their width, and every figure the one that Python computes.

WebKitGTK's window is never narrower than some 450 pixels: its phone is a wide one.
"""

from __future__ import annotations

import json

import pytest

from lib.teach.explorable import renderer
from tests.book.engines import ENGINES, Firefox
from tests.book.test_figures import ALL, CORNERS, SCENE, compare, some_params
from tests.book.test_pages import (
    ALONE,
    BLANK,
    CHAPTERS,
    MATH,
    MOVE,
    PHONE,
    REACH,
    READY,
    WIDE,
    WIDTH,
)

FIGURE = "document.querySelectorAll('figure.explorable')[{}]"
FITTED = """async () => {
  for (let k = 0; k < 200 && !document.documentElement.dataset.fitted; k++) await new Promise((r) => setTimeout(r, 50));
  return document.documentElement.dataset.fitted !== undefined;
}"""


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    make, there = ENGINES[request.param]
    if not there():
        pytest.skip(f"the pages were NOT opened in {request.param}: it is not here (README.md)")
    with make() as engine:
        yield engine


def call(engine, function: str, *args: str):
    return engine.run(f"({function})({', '.join(args)})")


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter(engine, site, built, name, size):
    base = site if size == WIDE else built.as_uri() + "/"
    engine.go(f"{base}{name}.html", *size)
    assert engine.run("innerWidth") <= max(size[0], 500)
    assert call(engine, READY) == 0, "an explorable figure never became ready"
    assert call(engine, FITTED)
    assert call(engine, MATH) == {"raw": [], "errors": [], "silent": 0, "left": []}
    assert call(engine, WIDTH) == {"page": 0, "wide": []}
    assert call(engine, ALONE) == []
    for k in range(engine.run("document.querySelectorAll('figure.explorable').length")):
        figure = FIGURE.format(k)
        engine.run(f"{figure}.scrollIntoView({{ block: 'center' }})")
        colours = call(engine, BLANK, figure)
        assert colours and min(colours) > 3, f"a blank picture: {colours}"
        if size == PHONE:
            assert call(engine, REACH, figure) == []
            continue
        controls = f"{figure}.querySelectorAll('.ex-controls input, .ex-controls select').length"
        for j in range(engine.run(controls)):
            moved = call(engine, MOVE, f"[{figure}, {j}]")
            assert moved["picture"] or moved["text"], f"{moved['name']} does nothing"
    assert not engine.faults


def test_what_goes_wrong_is_heard(engine, tmp_path):
    page = tmp_path / "wrong.html"
    page.write_text("<p style='width: 3000px'>wide</p><script>console.error('heard')</script>")
    engine.go(page.as_uri(), *PHONE)
    assert engine.run("new Promise((r) => setTimeout(() => r({ a: [1, 'é'] }), 50))") == {
        "a": [1, "é"]
    }
    with pytest.raises((AssertionError, RuntimeError), match="lost"):
        engine.run("(async () => { throw new Error('lost') })()")
    with pytest.raises((AssertionError, RuntimeError)):
        engine.run("nobody.knows")
    assert call(engine, WIDTH)["page"] > 1000
    if type(engine) is Firefox:
        assert [f for f in engine.faults if "heard" in f]


def test_figures_are_what_python_computes(engine, tmp_path):
    """Sines and exponentials differ between engines in the last bit, which a chaotic path would enlarge."""
    page = tmp_path / "figure.html"
    script = renderer()[0].replace("</script", "<\\/script")
    page.write_text(
        "<!doctype html><meta charset=utf8><body><figure class=explorable></figure>"
        f"<script>{script}</script>"
    )
    for make in ALL:
        figure = make.values[0]()
        engine.go(page.as_uri(), *WIDE)
        spec = json.dumps(figure.spec(static=True))
        engine.run(
            "(globalThis.fig = document.querySelector('figure'), "
            f"Explorable.mount(fig, {spec}, null), 1)"
        )
        engine.run(
            "(async () => { while (fig.dataset.ready !== '1') await new Promise((r) => setTimeout(r, 10)) })()"
        )
        for params in some_params(figure) + CORNERS.get(make.values[0].__name__, []):
            got = json.loads(call(engine, SCENE, json.dumps(params)))
            compare(got, figure.scene(**params).to_dict(), f"{make.id} {params}")
