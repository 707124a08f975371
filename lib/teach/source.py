"""`show_source`: the code that is read is the code that runs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

LONGEST = 30


def source_text(obj: Any, *, docstring: bool = False) -> str:
    """The source of a class or function as it stands in its file, without docstrings."""
    try:
        text = textwrap.dedent(inspect.getsource(obj))
    except (TypeError, OSError) as error:
        raise ValueError(f"{obj!r} has no source to show; give a class or a function") from error
    if docstring:
        return text.rstrip()
    lines, drop = text.splitlines(), set()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first, end = node.body[0], node.body[0].end_lineno
        alone = len(node.body) > 1 and node.body[1].lineno > end  # not `"doc"; return x`
        if alone and ast.get_docstring(node, clean=False) is not None:
            blank = end < len(lines) and not lines[end].strip()  # the line after it goes too
            drop.update(range(first.lineno - 1, end + blank))
    return "\n".join(line for k, line in enumerate(lines) if k not in drop).rstrip()


def show_source(*objects: Any, docstring: bool = False) -> None:
    """Show `lib`'s own source of classes or functions, at most 30 lines in all.

    Raises `ValueError` where there is no source, or where it would not fit on a screen.
    """
    blocks, count = [], 0
    for obj in objects:
        text = source_text(obj, docstring=docstring)
        count += len(text.splitlines())
        file = Path(
            inspect.getsourcefile(inspect.unwrap(obj)) or "?"
        ).resolve()  # behind decorators
        parts = file.parts
        place = "/".join(parts[parts.index("lib") :]) if "lib" in parts else file.name
        blocks.append(f"From `{place}`:\n\n```python\n{text}\n```")
    if count > LONGEST:
        raise ValueError(f"{count} lines do not fit on a screen; show a part (at most {LONGEST})")
    try:
        from IPython import get_ipython
        from IPython.display import Markdown, display
    except ImportError:
        get_ipython = lambda: None  # noqa: E731
    if get_ipython() is None:
        print("\n\n".join(blocks))
    else:
        display(Markdown("\n\n".join(blocks)))
