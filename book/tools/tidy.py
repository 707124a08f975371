"""Strip from the chapters all that is not theirs, and give figures their captions. Executes nothing.

usage: tidy.py [--check] [notebook ...]      (default: every chapter)

Kept of the outputs: the printed text of cells tagged `nbval-check-output`, with a count, because
nbval silently compares nothing where the count is null. A caption cell after a figure cell is copied
into the figure cell's metadata, where the book finds it; the Markdown copy stays for every other
front end and is tagged `remove-cell`, which hides it in the book. A stub's last line becomes
`_ = check(...)`. A slow cell begins with a comment that says how long it takes (`seconds.py`).
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from pathlib import Path

from notebooks import CAPTION, chapters, code, dump, read, source, tags
from seconds import announce

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
KEPT = ("tags", "alt", "mystnb", "slideshow")
ID = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")


def _ids(cells: list[dict]) -> None:
    seen: set[str] = set()
    for k, cell in enumerate(cells):
        name = cell.get("id", "")
        if not ID.match(name) or name in seen:
            text = f"{cell['cell_type']}:{source(cell)}"
            name = hashlib.sha1(text.encode()).hexdigest()[:8]
            name = name if name not in seen else f"{name}-{k}"
        cell["id"] = name
        seen.add(name)


def _tag(cell: dict, name: str, on: bool) -> None:
    have = [t for t in tags(cell) if t != name] + ([name] if on else [])
    if have:
        cell["metadata"]["tags"] = sorted(set(have))
    else:
        cell["metadata"].pop("tags", None)


def _captions(cells: list[dict]) -> None:
    for k, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            _tag(cell, "remove-input", "explorable" in tags(cell))
            if source(cell).startswith("try:\n    import lib.teach"):  # the setup cell
                _tag(cell, "hide-input", True)
            following = cells[k + 1] if k + 1 < len(cells) else None
            match = None
            if following is not None and "caption" in tags(following):
                match = CAPTION.match(source(following))
            image = {"alt": cell["metadata"]["alt"]} if "alt" in cell["metadata"] else None
            mystnb = cell["metadata"].pop("mystnb", {})
            mystnb.pop("figure", None)
            mystnb.pop("image", None)
            if match and "explorable" not in tags(cell):
                text = " ".join(match["text"].split())
                mystnb["figure"] = {"name": match["id"], "caption": text}
            if image and "explorable" not in tags(cell):
                mystnb["image"] = image
            if mystnb:
                cell["metadata"]["mystnb"] = mystnb
        elif "caption" in tags(cell):
            before = cells[k - 1] if k else {"metadata": {}}
            _tag(cell, "remove-cell", "figure" in before["metadata"].get("mystnb", {}))


def _quiet(text: str) -> str:
    """A stub's last line as `_ = check(...)`: its value is not shown, so nbval compares the print.

    (A semicolon would do in a notebook; nbval runs cells without history, where it does nothing.)
    """
    try:
        last = ast.parse(code({"source": text})).body[-1]
    except (SyntaxError, IndexError):
        return text
    call = last.value if isinstance(last, ast.Expr) else None
    if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "check":
        lines = text.rstrip(";").split("\n")
        line, at = lines[last.lineno - 1].encode(), last.col_offset  # which counts bytes
        lines[last.lineno - 1] = (line[:at] + b"_ = " + line[at:]).decode()
        return "\n".join(lines)
    return text


def clean(nb: dict) -> dict:
    """The notebook as it is stored."""
    count = 0
    for cell in nb["cells"]:
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k in KEPT}
        cell["source"] = "\n".join(line.rstrip() for line in source(cell).strip("\n").split("\n"))
        if cell["cell_type"] != "code":
            cell.pop("outputs", None)
            cell.pop("execution_count", None)
            cell.pop("attachments", None)
            continue
        cell["source"] = _quiet(cell["source"])
        out: list[dict] = []
        if "nbval-check-output" in tags(cell):
            text = "".join(
                "".join(o["text"])
                for o in cell.get("outputs", [])
                if o["output_type"] == "stream" and o["name"] == "stdout"
            )
            if text:
                lines = text.splitlines(keepends=True)
                out = [{"name": "stdout", "output_type": "stream", "text": lines}]
        count += bool(out)
        cell["outputs"] = out
        cell["execution_count"] = count if out else None
    _ids(nb["cells"])
    _captions(nb["cells"])
    book = nb["metadata"].get("book")
    nb["metadata"] = {**METADATA, **({"book": book} if book is not None else {})}
    nb["nbformat"], nb["nbformat_minor"] = 4, 5
    return nb


def stored(path: Path) -> str:
    """The text of a chapter's file as it should be."""
    return dump(announce(clean(read(path)), path.stem))


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    given = [Path(a) for a in arguments if a.endswith(".ipynb")]
    untidy = []
    for path in given or chapters():
        old = path.read_text(encoding="utf8")
        new = stored(path)
        if new != old:
            untidy.append(path.name)
            if not check:
                path.write_text(new, encoding="utf8")
    if check and untidy:
        print(f"not tidy: {', '.join(untidy)}; run 'make tidy'")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
