"""One description, three forms: what does not need a browser. The browser's part is in tests/book."""

import base64
import io
import json
import math
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from lib.teach import explorable
from lib.teach.explorable import Choice, Drag, Panel, Scene, Slider, Toggle, explore, pack


def wave(shift: float, kind: str = "sin", on: bool = True) -> Scene:
    x = np.linspace(0, 6, 50)
    y = np.sin(x + shift) if kind == "sin" else np.cos(x + shift)
    y[3] = np.nan
    panel = Panel((0, 6), (-1, 1), xlabel="x").line(x, y * on, 0, "wave").points([shift], [0.5])
    return Scene([panel], f"a wave shifted by {shift:.1f}", {"shift": f"{shift:.1f}"})


def figure():
    return explore(
        "A wave",
        wave,
        [Slider("shift", "shift", 0, 2, 0.5, 0.5), Choice("kind", "kind", ("sin", "cos"), "sin"), Toggle("on", "on", True)],
    )  # fmt: skip


def unpacked(grid, index):
    """The renderer's decoding, in Python."""
    n = sum(k for k, _, _ in grid["slots"])
    raw = np.frombuffer(zlib.decompress(base64.b64decode(grid["data"])), "<u2").reshape(-1, n)
    row = np.cumsum(raw, axis=0, dtype=np.uint16)[index].astype(float)
    out, at = [], 0
    for k, lo, hi in grid["slots"]:
        code = row[at : at + k]
        out.append(np.where(code == 65535, np.nan, lo + code / 65534 * (hi - lo)))
        at += k
    return out


def test_frames_computed_beforehand_keep_the_numbers():
    fig = figure()
    grid = fig.spec(static=True)["grid"]
    assert len(grid["alts"]) == 5 * 2 * 2
    index = (3 * 2 + 1) * 2 + 1  # shift = 1.5, cos, on: the last control runs fastest
    assert grid["alts"][index] == "a wave shifted by 1.5"
    item = fig.scene(shift=1.5, kind="cos", on=True).to_dict()["panels"][0]["items"][0]
    want = np.array([np.nan if v is None else v for v in item["y"]])
    got = [s for s in unpacked(grid, index) if len(s) == 50]
    assert any(np.allclose(s, want, atol=2e-5, equal_nan=True) for s in got)


def test_scenes_must_share_a_structure():
    one = {"panels": [{"items": [{"x": [1.0, 2.0]}]}], "alt": "", "readouts": {}}
    two = {"panels": [{"items": [{"x": [1.0, 2.0, 3.0]}]}], "alt": "", "readouts": {}}
    with pytest.raises(ValueError, match="same structure"):
        pack([one, two])


def test_page_form_is_complete_and_safe(monkeypatch):
    monkeypatch.setenv("BOOK_BUILD", "1")
    fig = explore("<b>&", lambda a: wave(a), [Slider("a", "</script>", 0, 1, 0, 0.5)])
    data, _ = fig._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html"}  # no widget state on a page
    page = data["text/html"]
    assert page.count("</script>") == 1 and "&lt;b&gt;&amp;" in page
    spec = json.loads(re.search(r'application/json">(.*?)</script>', page, re.S)[1])
    assert spec["controls"][0]["label"] == "</script>"
    still = re.search(r"data:image/webp;base64,([^\"]+)", page)[1]
    image = Image.open(io.BytesIO(base64.b64decode(still)))
    assert image.width > 200 and len(image.getcolors(1 << 20)) > 10
    assert 'alt="a wave shifted by 0.0"' in page


def test_live_form_recomputes_in_python(monkeypatch):
    monkeypatch.delenv("BOOK_BUILD", raising=False)
    fig = figure()
    assert fig.params == {"shift": 0.5, "kind": "sin", "on": True}
    fig.params = {"shift": 1.0}
    assert json.loads(fig.widget.scene)["alt"] == "a wave shifted by 1.0"
    data, _ = fig._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= set(data)


def test_colab_gets_the_widget_alone(monkeypatch):
    monkeypatch.delenv("BOOK_BUILD", raising=False)
    monkeypatch.setitem(explorable.sys.modules, "google.colab", explorable)
    data, _ = figure()._repr_mimebundle_()
    assert "text/html" not in data and "application/vnd.jupyter.widget-view+json" in data


def test_mistakes_are_sentences():
    s = Slider("a", "a", 0, 1, 0.5)
    with pytest.raises(ValueError, match="different names"):
        explore("t", wave, [s, s])
    with pytest.raises(ValueError, match="control 'b' that does not exist"):
        explore("t", wave, [s], drag=[Drag("b")])
    with pytest.raises(ValueError, match="too many to compute beforehand"):
        explore("t", wave, [Slider(n, n, 0, 1, 0.5) for n in "abc"])
    with pytest.raises(ValueError, match="no control"):
        figure().scene(speed=3)


@pytest.mark.parametrize(
    ("low", "value", "step"),
    [(0, 1.5, 0.5), (0, -0.5, 0.5), (0, math.nan, 0.5), (2, 1, 0.5), (0, 0, 0)],
)
def test_sliders_start_within_their_ends(low, value, step):
    with pytest.raises(ValueError, match="slider 'a' needs"):
        Slider("a", "a", low, 1, value, step)


def test_a_choice_starts_at_one_of_its_options():
    with pytest.raises(ValueError, match="'x' is not one of the options"):
        Choice("kind", "kind", ("sin", "cos"), "x")


@pytest.mark.parametrize("panel", [1, -1])
def test_a_handle_needs_its_panel(panel):
    fig = explore("t", wave, [Slider("shift", "", 0, 1, 0)], drag=[Drag("shift", panel=panel)])
    with pytest.raises(ValueError, match=f"panel {panel}; there are 1"):
        fig.spec(static=False)


def test_scenes_are_counted_beyond_64_bits():
    with pytest.raises(ValueError, match="too many to compute beforehand"):
        explore("t", wave, [Slider(n, n, 0, 255, 0, 1) for n in "abcdefgh"])


@pytest.mark.parametrize(
    ("step", "stops"),
    [(0.35, [0, 0.35, 0.7]), (0.4, [0, 0.4, 0.8]), (0.25, [0, 0.25, 0.5, 0.75, 1])],
)
def test_no_stop_lies_beyond_the_slider(step, stops):
    assert Slider("a", "a", 0, 1, 0, step).stops() == stops


def test_stops_reach_the_end_although_steps_are_rounded():
    for n in range(1, 300):
        assert Slider("a", "a", 0.1, 0.7, 0.1, 0.6 / n).stops()[-1] == 0.7


def test_one_nan_does_not_spoil_a_picture():
    v = np.ones((3, 4))
    v[1, 2] = np.nan
    for panel in (
        Panel((0, 1), (0, 1)).heat(v, (0, 1, 0, 1)),
        Panel((0, 1), (0, 1)).picture(v, (0, 1, 0, 1)),
    ):
        shown = panel.spec["items"][-1]["v"]
        assert shown[6] == 0 and set(shown[:6] + shown[7:]) in ({235}, {255})
