"""`explore`: one description of an explorable figure, three forms of it.

The description is a Python function of the controls that returns a `Scene` (numbers, not pixels), and the
list of controls. From it come

1. **the page without a kernel**: `static/explore.js` draws on a canvas. The numbers come from a *twin*,
   a few lines of JavaScript that compute the same scene (compared with Python's by the tests), or
   from scenes computed beforehand at every stop of the controls;
2. **the live figure** in Jupyter, Colab and Voila: the same renderer as an anywidget; the twin
   answers in the browser, or Python recomputes and sends numbers. `figure.params` holds the controls;
3. **a still with a sentence** for print and where no script runs.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .frames import pack
from .scene import Panel, Scene, Sheet

STATIC = Path(__file__).parent / "static"
MOST_FRAMES = 4000


@dataclass(frozen=True)
class Slider:
    """A number between `min` and `max`; `play` adds a button that runs through it, with `down` from max.

    `shown` is what stands beside the slider at each of its stops, in place of the number.
    Raises `ValueError` for a `value` outside [min, max], and for a `step` not above 0.
    """

    name: str
    label: str
    min: float
    max: float
    value: float
    step: float = 0.01
    play: bool | float = False
    shown: tuple[str, ...] = ()
    down: bool = False
    kind: str = "slider"

    def __post_init__(self) -> None:
        if not (self.min <= self.value <= self.max and self.step > 0):
            raise ValueError(
                f"slider {self.name!r} needs min <= value <= max and a step above 0, not "
                f"{self.min}, {self.value}, {self.max} and {self.step}"
            )
        if self.shown and len(self.shown) != len(self.stops()):
            raise ValueError(
                f"slider {self.name!r} has {len(self.stops())} stops, `shown` has {len(self.shown)}"
            )

    def stops(self) -> list[float]:
        n = math.floor((self.max - self.min) / self.step + 1e-6)  # none beyond max, as in a browser
        return [float(f"{self.min + k * self.step:.10g}") for k in range(n + 1)]


@dataclass(frozen=True)
class Choice:
    """One of several named options. Raises `ValueError` for a `value` that is none of them."""

    name: str
    label: str
    options: tuple[str, ...]
    value: str
    kind: str = "choice"

    def __post_init__(self) -> None:
        if self.value not in self.options:
            raise ValueError(
                f"choice {self.name!r}: {self.value!r} is not one of the options {self.options}"
            )

    def stops(self) -> list[str]:
        return list(self.options)


@dataclass(frozen=True)
class Toggle:
    """On or off."""

    name: str
    label: str
    value: bool = False
    kind: str = "toggle"

    def stops(self) -> list[bool]:
        return [False, True]


@dataclass(frozen=True)
class Drag:
    """A handle in panel `panel` that moves the sliders `x` and `y` (or x alone, at height `at`).

    `colour` is the number of the series that it belongs to.
    """

    x: str
    y: str | None = None
    panel: int = 0
    at: float = 0.0
    colour: int = 1


class Explorable:
    """What `explore` returns. Displays itself; `scene(**params)` is the picture as numbers."""

    def __init__(self, title, scene, controls, *, twin=None, data=None, drag=()):
        names = [c.name for c in controls]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"controls need different names, and at least one; got {names}")
        for d in drag:
            for name in (d.x, d.y):
                if name is not None and name not in names:
                    raise ValueError(
                        f"a handle moves a control {name!r} that does not exist: {names}"
                    )
        self.title, self.controls, self.twin = title, tuple(controls), twin
        self._scene, self._data, self._drag, self._widget = scene, data, tuple(drag), None
        self.values = {c.name: c.value for c in controls}
        frames = math.prod(len(c.stops()) for c in controls)
        if twin is None and frames > MOST_FRAMES:
            raise ValueError(
                f"{frames} scenes are too many to compute beforehand (at most {MOST_FRAMES}): "
                "give fewer stops, or a twin that computes in the browser"
            )

    def scene(self, **params: Any) -> Scene:
        """The scene at these values of the controls; the others keep their default."""
        unknown = set(params) - set(self.values)
        if unknown:
            raise ValueError(
                f"{self.title!r} has no control {sorted(unknown)}; it has {list(self.values)}"
            )
        with torch.random.fork_rng([]):  # how often it is asked for hangs on where it is shown
            return self._scene(**{**self.values, **params})

    def spec(self, *, static: bool) -> dict[str, Any]:
        """The description that the renderer takes."""
        scene = self.scene()
        for d in self._drag:
            if not 0 <= d.panel < len(scene.panels):
                raise ValueError(
                    f"a handle stands in panel {d.panel}; there are {len(scene.panels)}, from 0"
                )
        out = {
            "title": self.title,
            "controls": [asdict(c) for c in self.controls],
            "values": self.values,
            "drag": [asdict(d) for d in self._drag],
            "scene": scene.to_dict(),
        }
        sheets = {name: sheet for p in scene.panels for name, sheet in p.sheets.items()}
        if sheets:
            out["sheets"] = {name: sheet.to_dict() for name, sheet in sheets.items()}
        if self.twin is not None:
            out |= {"twin": self.twin, "data": self._data}
        elif static:
            out["grid"] = self._grid()
        return out

    def _grid(self) -> dict[str, Any]:
        stops = {c.name: c.stops() for c in self.controls}
        points = [dict(zip(stops, v, strict=True)) for v in itertools.product(*stops.values())]
        scenes = [self.scene(**p).to_dict() for p in points]
        return {"stops": stops, **pack(scenes)}

    # ---- the three forms ------------------------------------------------------------------------
    def html(self, *, script: bool = False) -> str:
        """The figure for a page without kernel; `script` brings the renderer along."""
        spec = json.dumps(
            self.spec(static=True), ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )
        host = ""
        if script:
            js, css = renderer()
            host = f"<style>{css}</style><script>globalThis.Explorable||(()=>{{{js}}})();Explorable.mountAll()</script>"
        return (
            f'<figure class="explorable" aria-label="{html.escape(self.title)}">'
            f"{self.still()}"
            f'<script type="application/json">{_inside_script(spec)}</script>'
            f"</figure>{host}"
        )

    def still(self) -> str:
        """The picture at the first values of the controls, with its sentence, as an HTML image."""
        scene = self.scene()
        data = base64.b64encode(scene.still()).decode()
        alt = html.escape(scene.alt)
        return f'<img class="ex-still" alt="{alt}" src="data:image/webp;base64,{data}">'

    def live_html(self) -> str:
        """The figure for a page with a kernel behind it: still, sentence, and what the renderer needs.

        The page's script hands `spec` to the renderer and connects it with the widget `model`; without
        it, the still and its sentence stay. What Python answers is computed once for every option
        here, so that no choice is slow when it is made first.
        """
        if self.twin is None:
            for c in (c for c in self.controls if c.kind == "choice"):
                for option in c.options:
                    self.scene(**{c.name: option})
        spec = {"model": self.widget.model_id, "spec": self.spec(static=False)}
        data = json.dumps(spec, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return (
            f'<div class="ex-live">{self.still()}<p>{html.escape(self.scene().alt)}</p>'
            f'<script type="application/json">{_inside_script(data)}</script></div>'
        )

    @property
    def widget(self):
        """The live figure, made when it is first asked for."""
        if self._widget is None:
            self._widget = _widget(self)
        return self._widget

    @property
    def params(self) -> dict[str, Any]:
        """The controls of the live figure."""
        return dict(self.widget.params)

    @params.setter
    def params(self, change: dict[str, Any]) -> None:
        self.widget.params = {**self.widget.params, **change}

    def _repr_mimebundle_(self, **_: Any):
        plain = f"{self.title}. {self.scene().alt}"
        if os.environ.get("BOOK_BUILD"):  # the book serves the renderer once, for all its pages
            return {"text/plain": plain, "text/html": self.html()}, {}
        try:
            live = self.widget._repr_mimebundle_()
        except ImportError:
            return {"text/plain": plain, "text/html": self.html(script=True)}, {}
        live, meta = live if isinstance(live, tuple) else (live, {})
        if "google.colab" in sys.modules:  # Colab may prefer text/html to the widget
            return {**live, "text/plain": plain}, meta
        return {**live, "text/plain": plain, "text/html": self.html(script=True)}, meta


def _inside_script(data: str) -> str:
    return data.replace("</", "<" + chr(92) + "/")


def renderer() -> tuple[str, str]:
    """The renderer's script and style."""
    read = lambda name: (STATIC / name).read_text("utf8")
    return read("panel.js") + read("explore.js"), read("explore.css")


def explore(
    title: str,
    scene: Callable[..., Scene],
    controls: Sequence[Slider | Choice | Toggle],
    *,
    twin: str | Path | None = None,
    data: Any = None,
    drag: Sequence[Drag] = (),
) -> Explorable:
    """Describe an explorable figure once; it shows itself on a page, live, and in print.

    `scene(**controls) -> Scene`. `twin`: JavaScript source, or its file, of a function
    `(p, data) => scene` that computes the same numbers in the browser; without it, scenes are
    computed beforehand at every stop of the controls (at most 4,000). `data`: JSON for the twin.
    `drag`: handles in the picture that move sliders; the sliders stay for the keyboard.
    Raises `ValueError` for controls that clash, or too many scenes; the figure raises it, when it is
    shown, for a handle in a panel that the scene does not have.
    """
    if isinstance(twin, Path):
        twin = twin.read_text("utf8")
    return Explorable(title, scene, controls, twin=twin, data=data, drag=drag)


def _widget(figure: Explorable):
    """The anywidget around the renderer; imported late, so that `lib` needs no widgets to compute."""
    import anywidget
    import traitlets

    class ExplorableWidget(anywidget.AnyWidget):
        _esm = renderer()[0] + "\nexport default { render: Explorable.render };\n"
        _css = renderer()[1]
        spec = traitlets.Dict().tag(sync=True)
        params = traitlets.Dict().tag(sync=True)
        scene = traitlets.Unicode("").tag(sync=True)

    w = ExplorableWidget(spec=figure.spec(static=False), params=dict(figure.values))
    if figure.twin is None:
        count = itertools.count()

        def recompute(change: dict[str, Any]) -> None:
            body = figure.scene(**change["new"]).to_dict()
            w.scene = json.dumps({**body, "n": next(count)}, separators=(",", ":"))

        w.observe(recompute, "params")
    return w


__all__ = [
    "Choice",
    "Drag",
    "Explorable",
    "Panel",
    "Scene",
    "Sheet",
    "Slider",
    "Toggle",
    "explore",
    "pack",
]
