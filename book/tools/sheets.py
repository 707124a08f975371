"""Run sheets: what an instructor does with each explorable figure, from `book/demos/NN.yml`.

A file is a list, one entry for each explorable figure of the chapter, in the chapter's order:

    - figure: schedules             # the function in lib.teach.figures.ch09
      minutes: 8
      ask: the question to the class, before anything is touched
      steps:                        # at least one
        - do: Set the time to 0.5.  # in the words of the figure's labels; names each value
          set: {t: 0.5}             # the controls that then differ from their first values
          see: what the picture then shows
          alt: words of the figure's text alternative at these values (a test compares them)
          say: what to say about it
      reset: when to press the figure's Reset button, and what it brings back
      what_if: for those who ask for more

The same entries become the page `book/run_sheets.md`, and the panel beside a live demo.
"""

from __future__ import annotations

import ast
import html
import json
import re
from pathlib import Path
from typing import Any

import yaml
from notebooks import CAPTION, ROOT, chapters, read, source, tags, without_seconds

FOLDER = ROOT / "book" / "demos"
TEXTS = ("figure", "ask", "reset", "what_if")
CALL = re.compile(r"\s*figures\.(\w+)\(\)\s*")


def figures(nb: dict) -> list[dict[str, str]]:
    """The explorable figures of a chapter, in order: `name`, `number` ("9.6"), `anchor`."""
    out = []
    for cell, after in zip(nb["cells"], nb["cells"][1:] + [None], strict=True):
        if "explorable" not in tags(cell):
            continue
        call = CALL.fullmatch(without_seconds(source(cell)))
        caption = CAPTION.match(source(after)) if after is not None else None
        if not call or not caption:
            raise ValueError(
                f"an explorable cell is `figures.name()` with a caption below, not {source(cell)!r}"
            )
        out.append({"name": call[1], "number": caption["number"], "anchor": caption["id"]})
    return out


def title(nb: dict) -> str:
    """The chapter's title."""
    return source(nb["cells"][0]).strip().splitlines()[0].removeprefix("# ")


def names(notebook: Path) -> dict[str, str]:
    """What each explorable figure of a chapter is called on the page: the title that it gives to `explore`."""
    file = ROOT / "lib" / "teach" / "figures" / f"ch{notebook.name[:2]}.py"
    return {
        function.name: call.args[0].value
        for function in ast.parse(file.read_text(encoding="utf8")).body
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "explore"
    }


def load(path: Path) -> list[dict[str, Any]]:
    """The entries of one file. Raises `ValueError` where something is missing or of another kind."""
    entries = yaml.safe_load(path.read_text(encoding="utf8"))
    where = f"{path.parent.name}/{path.name}"
    if not isinstance(entries, list):
        raise ValueError(f"{where}: expected a list of run sheets, got {type(entries).__name__}")
    for entry in entries:
        at = f"{where}, {entry.get('figure', '?')}"
        for name in TEXTS:
            if not isinstance(entry.get(name), str) or not entry[name].strip():
                raise ValueError(f"{at}: `{name}` must be text, not {entry.get(name)!r}")
        if not isinstance(entry.get("minutes"), int) or not 1 <= entry["minutes"] <= 30:
            raise ValueError(f"{at}: `minutes` must be 1 to 30, not {entry.get('minutes')!r}")
        if not entry.get("steps"):
            raise ValueError(f"{at}: at least one step")
        for step in entry["steps"]:
            if set(step) != {"do", "set", "see", "alt", "say"} or not isinstance(step["set"], dict):
                raise ValueError(f"{at}: a step has do, set, see, alt and say, not {sorted(step)}")
        unknown = set(entry) - {*TEXTS, "minutes", "steps"}
        if unknown:
            raise ValueError(f"{at}: unknown fields {sorted(unknown)}")
    return entries


def sheets(notebook: Path, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """A chapter's run sheets, one for each of its explorable figures, in the chapter's order.

    Each entry also has the figure's `number` and `anchor`. Raises `ValueError` where a figure has no
    sheet or a sheet no figure.
    """
    found = figures(read(notebook))
    path = folder / f"{notebook.name[:2]}.yml"
    entries = {e["figure"]: e for e in load(path)} if path.is_file() else {}
    names = [f["name"] for f in found]
    if set(entries) != set(names):
        raise ValueError(
            f"{notebook.name} has the explorable figures {names}, and {path.name} has run sheets "
            f"for {list(entries)}"
        )
    return [{**entries[f["name"]], **f} for f in found]


# ---------------------------------------------------------------- as HTML


def _p(label: str, text: str, kind: str = "") -> str:
    return f"<p{kind}><strong>{label}</strong> {html.escape(_set(text))}</p>"


def _set(text: str) -> str:
    """As it is printed: on one line, minus signs before numbers, no break within a value or a pair."""
    text = re.sub(r"(?<![\w.)])-(?=\d)", "\u2212", " ".join(text.split()))
    text = re.sub(r"(?<=\w) = (?=[\d\u2212])", "\u00a0=\u00a0", text)
    text = re.sub(r"(?<=\bto) (?=\u2212?\d)", "\u00a0", text)
    return re.sub(r"(\([\u2212\d.]+,) ([\u2212\d.]+\))", "\\1\u00a0\\2", text)


def panel(entry: dict[str, Any]) -> str:
    """The sheet beside a live demo: its steps are buttons that set the controls."""
    steps = []
    for step in entry["steps"]:
        values = html.escape(json.dumps(step["set"], ensure_ascii=False), quote=True)
        words = html.escape(_set(step["do"]))
        steps.append(
            f'<li><button type="button" data-set="{values}">{words}</button>'
            f"{_p('Seen.', step['see'])}{_p('Say.', step['say'])}</li>"
        )
    return (
        f"<h2>Run sheet, {entry['minutes']} minutes</h2>"
        f"{_p('Ask first.', entry['ask'])}"
        f"<ol>{''.join(steps)}</ol>"
        f"{_p('Reset.', entry['reset'])}"
        f'<p><button type="button" data-set="{{}}">Reset the figure</button></p>'
        f"{_p('What if.', entry['what_if'])}"
    )


def page(notebooks: list[Path] | None = None) -> str:
    """All sheets as Markdown, for `book/run_sheets.md`."""
    out = []
    for notebook in chapters() if notebooks is None else notebooks:
        nb, entries = read(notebook), sheets(notebook)
        if not entries:
            continue
        minutes = sum(e["minutes"] for e in entries)
        number, called = int(notebook.name[:2]), names(notebook)
        out.append(f"## Chapter {number}: {title(nb)} ({minutes} minutes)\n")
        for e in entries:
            link = f"../chapters/{notebook.name}#{e['anchor']}"
            out.append(
                f"### Figure {e['number']}: {called[e['figure']]} ({e['minutes']} minutes)\n"
            )
            out.append(f"[The figure on its page]({link}).\n")
            out.append(f"**Ask first.** {_md(e['ask'])}\n")
            for k, s in enumerate(e["steps"], 1):
                out.append(
                    f"{k}. {_md(s['do'])} **Seen.** {_md(s['see'])} **Say.** {_md(s['say'])}"
                )
            out.append("")
            out.append(f"**Reset.** {_md(e['reset'])}\n")
            out.append(f"**What if.** {_md(e['what_if'])}\n")
    return "\n".join(out)


def _md(text: str) -> str:
    """Text that Markdown must leave alone."""
    return re.sub(r"([\\`*_$<>\[\]])", r"\\\1", _set(text))
