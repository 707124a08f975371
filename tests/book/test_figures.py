"""Every explorable figure of every chapter: the picture in the browser is the picture that Python computes."""

import importlib
import inspect
import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest

from lib.teach import figures
from lib.teach.explorable import Explorable, Scene, Slider, explore, renderer
from lib.teach.scene import Panel

MODULES = sorted(p.stem for p in Path(figures.__file__).parent.glob("ch*.py"))


def _all():
    for module in MODULES:
        made = importlib.import_module(f"lib.teach.figures.{module}")
        for name, f in vars(made).items():
            if inspect.isfunction(f) and f.__module__ == made.__name__ and not name.startswith("_"):
                if f.__annotations__.get("return") in (Explorable, "Explorable"):
                    yield pytest.param(f, id=f"{module}.{name}")


ALL = list(_all())


@pytest.fixture
def browser_page(browser):
    page = browser.new_page()
    yield page
    page.close()


def some_params(figure, n=6):
    """The ends of every control, and random places between."""
    draw = random.Random(0)
    stops = {c.name: c.stops() for c in figure.controls}
    ends = [{k: v[0] for k, v in stops.items()}, {k: v[-1] for k, v in stops.items()}]
    return [{}, *ends, *({k: draw.choice(v) for k, v in stops.items()} for _ in range(n))]


CORNERS = {  # where a figure once was wrong, or its two languages differed; by its name
    "columns": [dict(a=0.1, b=0.1, c=0.05, d=0.1), dict(a=-1.05, b=-0.75, c=0.35, d=0.25)],
    "by_hand": [dict(slope=0.05, logdet=False)],
    "gap": [dict(model="two modes", mean=3.0, scale=2.0)],
    "bend_moons": [dict(k=1.9)],
    "layer": [dict(w1=0.0, w2=0.0), dict(u1=0.0, u2=0.0), dict(u1=0.0, u2=0.0, use="u_hat of (6.11)")],
    "solver": [dict(method="RK4", tol=-2.0)],
    "langevin_step": [  # steps so long that the chains are chaotic: a last digit grows
        dict(log_step=-0.25, steps=400.0, gap=4.5), dict(log_step=-0.3, steps=400.0, gap=2.5),
        dict(log_step=-0.2, steps=100.0, gap=4.0),
    ],
    "noise": [dict(churn=0.6, seed=4.0)],
    "compare": [
        dict(y="evaluations for a sample"),
        dict(y="recall (coverage)", data="eight Gaussians, 2 dimensions"),
    ],
}  # fmt: skip


def numbers(node):
    if isinstance(node, dict | list):
        for v in node.values() if isinstance(node, dict) else node:
            yield from numbers(v)
    elif isinstance(node, int | float):
        yield node


@pytest.mark.parametrize("make", ALL)
def test_python_draws_everywhere(make):
    figure, alts = make(), set()
    for params in some_params(figure) + CORNERS.get(make.__name__, []):
        scene = figure.scene(**params).to_dict()
        assert not re.search(r"-0\.0+(?!\d)", " ".join([scene["alt"], *scene["readouts"].values()]))
        assert all(math.isfinite(v) for v in numbers(scene))
        assert len(scene["alt"].split()) >= 8, "the text alternative says what is seen"
        alts.add(scene["alt"])
        assert all(p["axes"] is False or (p["xlabel"] and p["ylabel"]) for p in scene["panels"])
    assert len(alts) > 2, "the text alternative follows the controls"
    assert len(figure.scene().still()) > 1000


def compare(got, want, where, scale=1e-3):
    """`want` is Python's scene: five significant digits. Strings may differ in the last digit."""
    if isinstance(want, dict):
        assert set(got) == set(want), f"{where}: {sorted(set(got) ^ set(want))}"
        for k in want:
            compare(got[k], want[k], f"{where}.{k}", scale)
    elif isinstance(want, list) and want and isinstance(want[0], dict | list):
        assert len(got) == len(want), where
        for k, (a, b) in enumerate(zip(got, want, strict=True)):
            compare(a, b, f"{where}[{k}]", scale)
    elif isinstance(want, list):
        a, b = (np.array([np.nan if v is None else v for v in q], float) for q in (got, want))
        assert a.shape == b.shape, f"{where}: {a.shape} {b.shape}"
        size = np.nanmax(np.abs(b), initial=scale)
        level = 1.01 if where.endswith(".v") else 1e-4 * size  # opacity levels are integers
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=level, err_msg=where)
    elif isinstance(want, str):
        compare_text(got, want, where)
    elif isinstance(want, bool) or want is None:
        assert got == want, where
    else:
        assert got == pytest.approx(want, rel=1e-4, abs=1e-6), where


def compare_text(got, want, where):
    a, b = got.split(), want.split()
    assert len(a) == len(b), f"{where}: {got!r} {want!r}"
    for x, y in zip(a, b, strict=True):
        if x == y:
            continue
        try:
            u, v = (float(s.strip("().,;:%")) for s in (x, y))
        except ValueError:
            raise AssertionError(f"{where}: {got!r} {want!r}") from None
        digits = len(y.strip("().,;:%").partition(".")[2])
        assert abs(u - v) <= 1.01 * 10.0**-digits, f"{where}: {got!r} {want!r}"


# Set a mounted figure's controls, wait for the paint, and give its scene as text.
SCENE = """async (p) => {
    fig.explorable.set({ ...fig.explorable.spec.values, ...p });
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return JSON.stringify(fig.explorable.scene(), (k, v) => ArrayBuffer.isView(v) ? [...v] : v);
}"""


def in_browser(page, figure, params_list):
    """Mount the page form of the figure and read its scene at each setting."""
    page.set_content("<!doctype html><meta charset=utf8><body><figure class=explorable></figure>")
    page.add_script_tag(content=renderer()[0])
    spec = json.dumps(figure.spec(static=True))
    page.evaluate(
        "s => { globalThis.fig = document.querySelector('figure'); Explorable.mount(fig, JSON.parse(s), null); }",
        spec,
    )
    page.wait_for_function("fig.dataset.ready === '1'")
    return [json.loads(page.evaluate(SCENE, p)) for p in params_list]


@pytest.mark.parametrize("make", ALL)
def test_browser_draws_what_python_computes(make, browser_page):
    figure = make()
    settings = some_params(figure, n=12) + CORNERS.get(make.__name__, [])
    for params, got in zip(settings, in_browser(browser_page, figure, settings), strict=True):
        compare(got, figure.scene(**params).to_dict(), f"{params}")


def test_a_point_without_a_place_is_not_drawn(browser_page):
    """JSON says null where a number is not finite, and arithmetic takes null for 0."""
    browser_page.set_content("<canvas style='width: 200px; height: 200px'></canvas>")
    browser_page.add_script_tag(content=renderer()[0])
    draw = """(panel) => {
        const cv = document.querySelector("canvas"), { drawPanel, theme } = ExplorablePanel;
        drawPanel(cv, panel, theme(cv), false, {});
        return cv.toDataURL();
    }"""
    inside, nowhere, outside = (
        browser_page.evaluate(draw, Panel((-1, 1), (-1, 1)).points([x], [0.0], radius=9).spec)
        for x in (0.0, math.nan, 9.0)
    )
    assert inside != outside == nowhere


def test_frames_computed_beforehand_arrive_in_the_browser(browser_page):
    def scene(shift: float, on: bool) -> Scene:
        x = np.linspace(0, 6, 40)
        panel = Panel((0, 6), (-1, 1), xlabel="x", ylabel="y").line(
            x, np.sin(x + shift) * on, 0, "w"
        )
        panel.heat(np.outer(np.cos(x[:6] + shift), x[:5]), (0, 1, 0, 1)).text(shift, 0, "here")
        return Scene([panel], f"shifted by {shift:.2f}", {"shift": f"{shift:.2f}"})

    from lib.teach.explorable import Toggle

    figure = explore("w", scene, [Slider("shift", "s", 0.5, 2, 1, 0.25), Toggle("on", "on", True)])
    settings = some_params(figure)
    for params, got in zip(settings, in_browser(browser_page, figure, settings), strict=True):
        compare(got, figure.scene(**params).to_dict(), f"{params}", scale=1.0)
