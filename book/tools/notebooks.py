"""Read the chapters: cells, tags, anchors, links, and which files of `lib` a chapter depends on."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAPTER_NAME = re.compile(r"^\d\d_\w+$")
CAPTION = re.compile(
    r'\A\s*<a id="(?P<id>fig-\d{1,2}-\d{1,2}[a-z]?)"></a>\s*'
    r"(?P<text>\*\*Figure (?P<number>\d{1,2}\.\d{1,2}[a-z]?)\.\*\*\s.+)\Z",
    re.S,
)
MAGIC = re.compile(r"^(\s*)([!%].*)$", re.M)
SECONDS = re.compile(r"\A# (?:about|less than) \d+ s on one core \(.*\n")


def chapters(root: Path = ROOT) -> list[Path]:
    """The chapter notebooks, in order."""
    return sorted(p for p in (root / "chapters").glob("*.ipynb") if CHAPTER_NAME.match(p.stem))


def contents(root: Path = ROOT) -> list[str]:
    """The pages in the order of `_toc.yml`, the front page first, without their endings."""
    import yaml

    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


def read(path: Path) -> dict:
    """A notebook as plain data, every cell's source as one string."""
    try:
        nb = json.loads(path.read_text(encoding="utf8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a notebook: {error}") from error
    for cell in nb["cells"]:
        cell["source"] = source(cell)
    return nb


def dump(nb: dict) -> str:
    """The one way a notebook is written: sources as lists of lines, one space, UTF-8."""
    cells = []
    for cell in nb["cells"]:
        cell = dict(cell)
        cell["source"] = source(cell).splitlines(keepends=True)
        cells.append(cell)
    return json.dumps({**nb, "cells": cells}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def source(cell: dict) -> str:
    """A cell's text."""
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def tags(cell: dict) -> list[str]:
    """A cell's tags."""
    return cell["metadata"].get("tags", [])


def code(cell: dict) -> str:
    """A code cell without its magics, so that `ast` can read it."""
    text = source(cell)
    if text.startswith("%%"):
        return ""
    return MAGIC.sub(r"\1pass  # \2", text)


def without_seconds(text: str) -> str:
    """A code cell's text without the comment that says how long it takes (book/tools/seconds.py)."""
    return SECONDS.sub("", text)


def prose(cell: dict) -> str:
    """A Markdown cell without code, so that what looks like a link or a role in code is not one."""
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "", source(cell), flags=re.M | re.S)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def without_math(text: str) -> str:
    """Prose without its formulas."""
    text = re.sub(r"\$\$.*?\$\$", " ", text, flags=re.S)
    return re.sub(r"(?<!\\)\$[^$\n]+(?:\n[^$\n]+){0,3}(?<!\\)\$", " ", text)


# ---------------------------------------------------------------- what a chapter depends on


def _module_file(name: str, root: Path) -> Path | None:
    base = root.joinpath(*name.split("."))
    for file in (base / "__init__.py", base.with_suffix(".py")):
        if file.is_file():
            return file
    return None


def _imports(tree: ast.AST, package: str) -> set[str]:
    """Dotted names of `lib` that a module may import: also inside functions, also as strings."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join(parts + ([node.module] if node.module else []))
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"lib(\.\w+)+", node.value):
                names.add(node.value)
    return {n for n in names if n == "lib" or n.startswith("lib.")}


@lru_cache(maxsize=4096)
def _imports_of_file(file: Path, package: str, stamp: tuple) -> frozenset[str]:
    return frozenset(_imports(ast.parse(file.read_text(encoding="utf8")), package))


def dependencies(nb: dict, chapter: str, root: Path = ROOT) -> list[Path]:
    """Every file of `lib` that a chapter can reach, found without running anything.

    Modules by following imports; then the data that lies beside those modules (scripts, styles,
    weights). Files named after a chapter (`ch03.py`, `ch03.js`) belong to that chapter alone.
    """
    own = f"ch{chapter[:2]}"
    other = re.compile(rf"^(?!{own}(?!\d))ch\d\d(?!\d)")
    todo: list[str] = []
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            try:
                todo += _imports(ast.parse(code(cell)), "")
            except SyntaxError:
                continue  # the execution will say it better
    todo += [f"lib.teach.figures.{own}", f"lib.teach.exercises.{own}"]
    files: set[Path] = set()
    packages: set[Path] = set()
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        for k in range(1, name.count(".") + 2):  # importing a.b.c imports a and a.b
            part = ".".join(name.split(".")[:k])
            if part in seen:
                continue
            seen.add(part)
            file = _module_file(part, root)
            if file is None:
                break  # a name inside a module, not a module
            files.add(file)
            package = part if file.name == "__init__.py" else part.rpartition(".")[0]
            packages.add(file.parent)
            stat = file.stat()
            todo += _imports_of_file(file, package, (stat.st_mtime_ns, stat.st_size))
    for package in packages:
        files.update(_data(package, other))
    return sorted(f for f in files if not other.match(f.name) or f.suffix == ".py")


def _data(folder: Path, other: re.Pattern) -> set[Path]:
    """Files that are not Python, here and in subfolders that are not packages."""
    found: set[Path] = set()
    for item in folder.iterdir():
        if item.name.startswith((".", "__pycache__")) or other.match(item.name):
            continue
        if item.is_dir():
            if not (item / "__init__.py").exists():
                found |= _data(item, other)
        elif item.suffix not in (".py", ".pyc"):
            found.add(item)
    return found


def execution_key(nb: dict, chapter: str, root: Path = ROOT) -> str:
    """Changes exactly when running the chapter again could give something else."""
    h = hashlib.sha256()

    def add(*parts: str | bytes) -> None:
        for part in parts:
            part = part.encode() if isinstance(part, str) else part
            h.update(len(part).to_bytes(8, "little") + part)

    add("3", platform.python_version(), (root / "requirements.txt").read_bytes())
    add(*(os.environ.get(name, "") for name in ("BOOK_MODE", "BOOK_DEVICE")))
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            add(without_seconds(source(cell)), "raises" if "raises-exception" in tags(cell) else "")
    for file in dependencies(nb, chapter, root):
        add(str(file.relative_to(root)), file.read_bytes())
    return h.hexdigest()
