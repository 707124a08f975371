"""A picture as numbers: panels with lines, points, areas. Drawn by `static/explore.js`, or as a still."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import style


def _list(x: Any, digits: int = 5) -> list[float | None]:
    """Numbers for JSON: `digits` significant, None where not finite (the pen is lifted there)."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu().numpy()
    flat = np.asarray(x, dtype=float).ravel()
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in flat]


class Sheet:
    """Small colour pictures of one size that belong to a figure, sent to its page once, as one image.

    pixels: (N, side, side, 3), levels 0 .. 255; COLUMNS of them stand in a row.
    """

    COLUMNS = 40

    def __init__(self, name: str, pixels, content: bytes | None = None):
        self.name, self._content = name, content
        self.pixels = np.asarray(pixels, dtype=np.uint8)
        if self.pixels.ndim != 4 or self.pixels.shape[3] != 3 or len({*self.pixels.shape[1:3]}) > 1:
            raise ValueError(f"pixels must be (N, side, side, 3), not {self.pixels.shape}")
        self.side = self.pixels.shape[1]

    @classmethod
    def open(cls, path: Path, n: int, side: int = 32) -> Sheet:
        """The first n pictures of a file that `webp` made."""
        from PIL import Image

        whole = np.asarray(Image.open(path).convert("RGB"))
        grid = whole.reshape(-1, side, cls.COLUMNS, side, 3).swapaxes(1, 2)
        return cls(path.stem, grid.reshape(-1, side, side, 3)[:n], path.read_bytes())

    def webp(self) -> bytes:
        """The file: all pictures as one, to the last level (with loss, edges of colour would fray)."""
        from PIL import Image

        rows, side = -(-len(self.pixels) // self.COLUMNS), self.side
        whole = np.zeros((rows * self.COLUMNS, side, side, 3), np.uint8)
        whole[: len(self.pixels)] = self.pixels
        whole = whole.reshape(rows, self.COLUMNS, side, side, 3).swapaxes(1, 2)
        out = io.BytesIO()
        Image.fromarray(whole.reshape(rows * side, -1, 3)).save(
            out, "webp", lossless=True, quality=100, method=6
        )
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """The image as a data address, and how it is cut."""
        content = self._content or self.webp()
        src = "data:image/webp;base64," + base64.b64encode(content).decode()
        return {"src": src, "side": self.side, "columns": self.COLUMNS}


class Panel:
    """One pair of axes. Coordinates are data units; `series` picks colour, dash and marker."""

    def __init__(
        self,
        xlim: tuple[float, float],
        ylim: tuple[float, float],
        *,
        title: str = "",
        xlabel: str = "",
        ylabel: str = "",
        equal: bool = False,
        axes: bool = True,
        aspect: float = 1.5,
        grow: float = 1.0,
        xticks: Sequence[tuple[float, str]] | None = None,
        yticks: Sequence[tuple[float, str]] | None = None,
    ):
        """`aspect`: width over height on the page; `grow`: share of the row's width.

        `xticks`, `yticks`: places and what is written there, where the numbers are not to be read as such.
        """
        self.spec: dict[str, Any] = {
            "xlim": list(xlim), "ylim": list(ylim), "title": title, "xlabel": xlabel,
            "ylabel": ylabel, "equal": equal, "axes": axes, "aspect": aspect, "grow": grow,
            "items": [],
        }  # fmt: skip
        for name, ticks in (("xticks", xticks), ("yticks", yticks)):
            if ticks:
                self.spec[name] = [[float(v), word] for v, word in ticks]
        self.sheets: dict[str, Sheet] = {}

    def _add(self, kind: str, series: int, name: str | None, **more: Any) -> Panel:
        item = {"t": kind, "s": series, **{k: v for k, v in more.items() if v is not None}}
        if name:
            item["name"] = name
        self.spec["items"].append(item)
        return self

    def line(
        self,
        x,
        y,
        series=0,
        name=None,
        *,
        dash=None,
        width=2.0,
        fill=None,
        alpha=None,
        marker=None,
    ) -> Panel:
        """A curve; None or NaN lifts the pen; `fill` shades down to zero with that opacity.

        `marker`: the one of the points that lie on it, for the legend.
        """
        dash = max(series, 0) % 6 if dash is None else dash
        return self._add(
            "line", series, name, x=_list(x), y=_list(y), dash=dash, w=width, fill=fill, a=alpha,
            m=marker,
        )  # fmt: skip

    def grid(self, x, y, series=-1, name=None, *, width=1.0, alpha=0.5) -> Panel:
        """Grid lines of a map: x and y (n, m) draw the n rows and the m columns as curves."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        lift = lambda a: np.pad(a, ((0, 0), (0, 1)), constant_values=np.nan).ravel()  # noqa: E731
        xs, ys = (np.concatenate([lift(a), lift(a.T)]) for a in (x, y))
        return self.line(xs, ys, series, name, dash=0, width=width, alpha=alpha)

    def points(self, x, y, series=0, name=None, *, radius=2.0, alpha=None, marker=None) -> Panel:
        """Points with the marker of their series, or marker number `marker` (0 to 4: disc, square, triangle up, diamond, triangle down)."""
        m = max(series, 0) % 4 if marker is None else marker
        return self._add("points", series, name, x=_list(x), y=_list(y), r=radius, a=alpha, m=m)

    def poly(self, x, y, series=0, name=None, *, fill=0.25, width=2.0) -> Panel:
        """A closed polygon."""
        return self._add("poly", series, name, x=_list(x), y=_list(y), fill=fill, w=width)

    def bars(self, x, y, width, series=0, name=None, *, fill=0.35) -> Panel:
        """Bars of height y centred at x."""
        return self._add(
            "bars", series, name, x=_list(x), y=_list(y), width=float(width), fill=fill
        )

    def arrows(self, x, y, u, v, series=0, name=None, *, width=1.5) -> Panel:
        """Arrows from (x, y) by (u, v)."""
        return self._add(
            "arrows", series, name, x=_list(x), y=_list(y), u=_list(u), v=_list(v), w=width
        )

    def heat(self, values, extent, series=0, name=None, *, top=None) -> Panel:
        """A density (H, W) as opacity of one colour, row 0 at the lowest y; `top` is full colour."""
        v = np.nan_to_num(np.asarray(values, float))
        top = v.max() if top is None else top
        levels = np.clip(v / (top or 1.0), 0, 1) ** 0.7 * 235
        return self._add(
            "heat", series, name, v=levels.round().astype(int).ravel().tolist(),
            shape=list(v.shape), extent=list(extent),
        )  # fmt: skip

    def picture(self, grey, extent) -> Panel:
        """A grey picture (H, W) in [0, 1], row 0 on top."""
        v = np.clip(np.nan_to_num(np.asarray(grey, float)), 0, 1) * 255
        return self._add(
            "heat", 0, None, v=v.round().astype(int).ravel().tolist(), shape=list(v.shape),
            extent=list(extent), gray=1,
        )  # fmt: skip

    def tile(self, sheet: Sheet, k: int, extent) -> Panel:
        """Picture k of a sheet. The figure's first scene has to show all sheets there are."""
        if not 0 <= k < len(sheet.pixels):
            raise ValueError(f"sheet {sheet.name} has {len(sheet.pixels)} pictures, no number {k}")
        self.sheets[sheet.name] = sheet
        return self._add("tile", 0, None, sheet=sheet.name, k=int(k), extent=list(extent))

    def text(
        self, x: float, y: float, text: str, series=-1, *, align="center", size=1.0, halo=False
    ) -> Panel:
        """A word in the picture; `halo` lights its ground, so that it can be read over lines."""
        return self._add(
            "text",
            series,
            None,
            x=float(x),
            y=float(y),
            text=text,
            align=align,
            size=size,
            halo=halo or None,
        )


class Scene:
    """Panels, named readouts (already formatted), and the sentence that says what is seen."""

    def __init__(self, panels: Sequence[Panel], alt: str, readouts: dict[str, str] | None = None):
        self.panels, self.alt, self.readouts = list(panels), alt, readouts or {}

    def to_dict(self) -> dict[str, Any]:
        """What the renderer takes."""
        return {
            "panels": [p.spec for p in self.panels], "alt": self.alt, "readouts": self.readouts,
        }  # fmt: skip

    def still(self, title: str = "", dpi: int = 75) -> bytes:
        """The same picture by matplotlib, as lossless WebP: for print, and where no script runs."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        grow = [p.spec["grow"] for p in self.panels]
        fig = Figure(figsize=(4.2 * max(1.6, sum(grow)) ** 0.75, 3.1), layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.subplots(1, len(self.panels), squeeze=False, width_ratios=grow)[0]
        for ax, panel in zip(axes, self.panels, strict=True):
            _draw(ax, panel.spec, panel.sheets)
        handles, names = [], []
        for ax in axes:
            for h, n in zip(*ax.get_legend_handles_labels(), strict=True):
                if n not in names:
                    handles.append(h)
                    names.append(n)
        if names:
            fig.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8)
        if title:
            fig.suptitle(title, fontsize=10)
        out = io.BytesIO()
        fig.savefig(out, format="webp", dpi=dpi, pil_kwargs={"lossless": True})
        return out.getvalue()


def _draw(ax, spec: dict[str, Any], sheets: dict[str, Sheet]) -> None:
    arr = lambda v: np.array([np.nan if q is None else q for q in v], float)  # noqa: E731
    for it in spec["items"]:
        s, kind, name = it["s"], it["t"], it.get("name")
        c, a = style.colour(s), it.get("a", 1.0)
        if kind == "line":
            x, y = arr(it["x"]), arr(it["y"])
            mark = {"marker": style.marker(it["m"]), "markevery": []} if "m" in it else {}
            ax.plot(
                x, y, color=c, ls=style.dash(it["dash"]), lw=it["w"] * 0.8, alpha=a, label=name,
                **mark,
            )  # fmt: skip
            if it.get("fill"):
                ax.fill_between(x, y, color=c, alpha=it["fill"], lw=0)
        elif kind == "points":
            ax.plot(
                arr(it["x"]), arr(it["y"]), style.marker(it["m"]), color=c, ms=it["r"] * 1.7,
                alpha=a, label=name, ls="none", mew=0,
            )  # fmt: skip
        elif kind == "poly":
            ax.fill(
                arr(it["x"]), arr(it["y"]), fc=(c, it["fill"]), ec=c, lw=it["w"] * 0.8, ls="-",
                label=name,
            )  # fmt: skip
        elif kind == "bars":
            ax.bar(
                arr(it["x"]), arr(it["y"]), it["width"], color=c, alpha=it["fill"], label=name,
                edgecolor=c,
            )  # fmt: skip
        elif kind == "arrows":
            ax.quiver(
                arr(it["x"]), arr(it["y"]), arr(it["u"]), arr(it["v"]), color=c, angles="xy",
                scale_units="xy", scale=1, width=0.005, label=name,
            )  # fmt: skip
        elif kind == "heat":
            v = np.array(it["v"], float).reshape(it["shape"])
            if it.get("gray"):
                ax.imshow(v, cmap="gray", vmin=0, vmax=255, extent=it["extent"], aspect="auto")
            else:
                rgba = np.zeros((*v.shape, 4))
                rgba[..., :3] = [int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)]
                rgba[..., 3] = v / 255
                ax.imshow(rgba, origin="lower", extent=it["extent"], aspect="auto")
        elif kind == "tile":
            ax.imshow(sheets[it["sheet"]].pixels[it["k"]], extent=it["extent"], aspect="auto")
        else:
            word = ax.text(it["x"], it["y"], it["text"], color=c, ha=it["align"], va="center")
            if it.get("halo"):
                from matplotlib.patheffects import withStroke

                word.set_path_effects([withStroke(linewidth=3, foreground="white", alpha=0.7)])
    ax.set(xlim=spec["xlim"], ylim=spec["ylim"], xlabel=spec["xlabel"], ylabel=spec["ylabel"])
    for name in ("xticks", "yticks"):
        if name in spec:
            ax.set(
                **{
                    name: [v for v, _ in spec[name]],
                    f"{name[:-1]}labels": [w for _, w in spec[name]],
                }
            )
    ax.set_title(spec["title"], fontsize=10)
    if spec["equal"]:
        ax.set_aspect("equal")
    if not spec["axes"]:
        ax.set_axis_off()
