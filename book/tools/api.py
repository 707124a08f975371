"""The reference of `lib`, made from its docstrings when the book is built.

A page under `book/` holds a line `<!-- api: lib.flows -->`, and gets there every module of that package,
with the signature and the docstring of each public class, function and method. Docstrings are plain
text, as they read in an editor: paragraphs, indented formulas, `Args:` and `Raises:` as lists, and
examples after `>>>`, which tests/test_doctests.py runs.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator

import lib

MARKER = re.compile(r"^<!-- api: ([\w. ]+) -->$", re.M)
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Sources?):$")
FIELD = re.compile(r"^([\w*, ]{1,40}): ")
VALUE = re.compile(r"""((?:\b\w+=)?"[a-z][a-z0-9_]*")(?!\w)""")
COMMAND = re.compile(r"(python|torchrun|make) \S")
RECORD = re.compile(r"(?=.{1,60}:)(\w+(?:, \w+)*(?: \([^)]*\))?(?: and \w+ \([^)]*\))?): +(.*)")
LONGEST = 88  # characters of a signature on one line


def modules() -> list[str]:
    """Every module of `lib` but lib.teach, which is the book's and not the library's."""
    names = (info.name for info in pkgutil.walk_packages(lib.__path__, "lib."))
    keep = lambda n: not n.startswith("lib.teach") and not n.endswith("__main__")
    return sorted(n for n in names if keep(n))


def names_of(module: str) -> dict[str, Callable]:
    """The public classes and functions that a module defines, in its order."""
    found = vars(importlib.import_module(module)).items()
    # unwrapped, because what `lru_cache` makes of a function is none
    ours = lambda what: inspect.isclass(what) or inspect.isfunction(inspect.unwrap(what))
    return {
        f"{module}.{name}": what
        for name, what in found
        if ours(what) and what.__module__ == module and not name.startswith("_")
    }


def public() -> dict[str, Callable]:
    """ "lib.flows.linear.LULinear" -> the class, and so on, of all modules."""
    return {name: what for module in modules() for name, what in names_of(module).items()}


# ---------------------------------------------------------------------------- one docstring


def plain(text: str) -> str:
    """Text that Markdown leaves alone: its signs are escaped outside of `code`.

    A quoted word in small letters is the value of an argument: as code its quotes stay straight.
    """
    parts = re.split(r"(`[^`\n]+`)", text)
    parts[::2] = [VALUE.sub(r"`\1`", p) for p in parts[::2]]
    parts = re.split(r"(`[^`\n]+`)", "".join(parts))
    escape = lambda t: re.sub(r"([\\*_<>\[\]|$~#{}])", r"\\\1", t)
    return "".join(p if k % 2 else escape(p) for k, p in enumerate(parts))


def blocks(doc: str) -> Iterator[tuple[str, list[str]]]:
    """("text" | "formula" | "example" | a section's name, lines) one after the other."""
    lines, k = inspect.cleandoc(doc).splitlines(), 0
    while k < len(lines):
        first, start = lines[k], k
        if not first.strip():
            k += 1
            continue
        if match := SECTION.match(first):
            k += 1
            while k < len(lines) and (not lines[k].strip() or lines[k].startswith(" ")):
                k += 1
            yield (
                match[1],
                textwrap.dedent("\n".join(lines[start + 1 : k])).strip("\n").splitlines(),
            )
            continue
        if first.startswith(">>>"):
            kind, inside = "example", lambda line: bool(line.strip())
        elif first.startswith(" "):
            kind, inside = "formula", lambda line: line.startswith(" ") or not line.strip()
        else:
            kind = "text"
            inside = lambda line: (
                bool(line.strip()) and not SECTION.match(line) and not line.startswith(" ")
            )
        k += 1
        while k < len(lines) and inside(lines[k]):
            k += 1
        yield kind, lines[start:k]


def items(lines: list[str]) -> list[str]:
    """The entries of a section: a line that is not indented starts one where it names a field."""
    out: list[str] = []
    for line in lines:
        if out and (line.startswith(" ") or not FIELD.match(line)):
            out[-1] += " " + line.strip()
        elif line.strip():
            out.append(line.strip())
    return out


def entry(text: str) -> str:
    """`name`: what it is."""
    match = FIELD.match(text)
    if not match:
        return f"- {plain(text)}"
    return f"- `{match[1]}`: {plain(text[match.end() :])}"


def is_code(lines: list[str]) -> bool:
    """Whether a paragraph that is not indented is a command, or statements of Python."""
    if COMMAND.match(lines[0]):
        return len(lines) == 1
    try:
        body = ast.parse("\n".join(lines)).body
    except SyntaxError:
        return False
    return bool(body) and all(isinstance(node, ast.Assign) for node in body)


def is_list(lines: list[str]) -> bool:
    """Whether each line of a paragraph names a field of a record and says what it is."""
    return len(lines) > 2 and all(map(RECORD.match, lines))


def markdown(doc: str) -> str:
    """A docstring as Markdown."""
    out = []
    for kind, lines in blocks(doc):
        if kind == "text" and is_code(lines):
            kind = "formula"
        if kind == "text" and is_list(lines):
            found = [RECORD.match(line) for line in lines]
            out.append("\n".join(f"- `{m[1]}`: {plain(' '.join(m[2].split()))}" for m in found))
        elif kind == "text":
            out.append(plain(" ".join(line.strip() for line in lines)))
        elif kind in ("formula", "example"):
            body = textwrap.dedent("\n".join(lines)).rstrip()
            out.append(f"```{'pycon' if kind == 'example' else 'text'}\n{body}\n```")
        else:
            out.append(f"**{kind}**\n\n" + "\n".join(map(entry, items(lines))))
    return "\n\n".join(out)


# --------------------------------------------------------------------------------- a page


def signature(what: Callable) -> str:
    """As it stands in the source, one parameter a line if it is long."""
    node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(what)))).body[0]
    if isinstance(node, ast.ClassDef):
        made = next((f for f in node.body if getattr(f, "name", "") == "__init__"), None)
        fields = [ast.unparse(f) for f in node.body if isinstance(f, ast.AnnAssign)]
        bases = ", ".join(map(ast.unparse, node.bases))
        if made is None:
            record = "NamedTuple" in bases or node.decorator_list
            return call(f"class {node.name}", fields if record else [bases] * bool(bases), "")
        return call(f"class {node.name}", parameters(made.args)[1:], "")
    back = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return call(f"def {node.name}", parameters(node.args), back)


def parameters(a: ast.arguments) -> list[str]:
    """Each with its type and its default."""
    plain_ones = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(plain_ones) - len(a.defaults)) + a.defaults

    def one(arg: ast.arg, default: ast.expr | None) -> str:
        sign = " = " if arg.annotation else "="
        return ast.unparse(arg) + ("" if default is None else sign + ast.unparse(default))

    out = [one(*pair) for pair in zip(plain_ones, defaults, strict=True)]
    if a.vararg or a.kwonlyargs:
        out.append("*" + (ast.unparse(a.vararg) if a.vararg else ""))
    out += [one(*pair) for pair in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    return out + ([f"**{ast.unparse(a.kwarg)}"] if a.kwarg else [])


def call(head: str, parts: list[str], back: str) -> str:
    line = f"{head}({', '.join(parts)}){back}"
    if len(line) <= LONGEST:
        return line
    return head + "(\n    " + ",\n    ".join(parts) + f",\n){back}"


def methods(what: type) -> Iterator[tuple[str, str]]:
    """The public methods and properties that a class writes, each with its docstring's first line."""
    for name, part in vars(what).items():
        function = getattr(part, "fget", None) or getattr(part, "__func__", part)
        doc = function.__doc__ if inspect.isfunction(function) else None
        if doc and not name.startswith("_"):
            yield name if isinstance(part, property) else f"{name}()", first_words(doc)


def first_words(doc: str) -> str:
    """The first paragraph, in one line."""
    return next(" ".join(lines).strip() for _, lines in blocks(doc))


def anchor(name: str, kind: str = "") -> str:
    """Lower case, as all anchors of the book; a class may differ from a function by its capital only."""
    return f"api-{kind}" + name.lower().replace(".", "-").replace("_", "-")


def item(full: str, what: Callable) -> str:
    """One class or function."""
    name = full.rsplit(".", 1)[1]
    parts = [
        f'<a id="{anchor(full, "class-" if inspect.isclass(what) else "")}"></a>',
        f"### `{name}`",
        f"```python\n{signature(what)}\n```",
        markdown((vars(what).get("__doc__") if inspect.isclass(what) else what.__doc__) or ""),
    ]
    if inspect.isclass(what) and (own := list(methods(what))):
        lines = [f"- `{name}`: {plain(doc)}" for name, doc in own]
        parts.append("**Methods**\n\n" + "\n".join(lines))
    return "\n\n".join(p for p in parts if p)


def section(module: str) -> str:
    """One module: what it says of itself, and all that it offers."""
    about = importlib.import_module(module).__doc__ or ""
    made = [item(full, what) for full, what in names_of(module).items()]
    head = f'<a id="{anchor(module)}"></a>\n\n## `{module}`'
    return "\n\n".join([head, markdown(about), *made])


def fill(text: str) -> str:
    """A page with its modules in the place of the marker, `<!-- api: lib.flows -->`."""

    def one(match: re.Match) -> str:
        wanted = match[1].split()
        mine = [
            m
            for m in modules()
            if any(m == w or (w != "lib" and m.startswith(w + ".")) for w in wanted)
        ]
        if "lib" in wanted:  # the modules of the top folder
            mine += [m for m in modules() if m.count(".") == 1 and not is_package(m)]
        shown = [m for m in sorted(set(mine)) if names_of(m)]
        if not shown:
            raise ValueError(f"no module of lib is named {match[1]}")
        return "\n\n".join(map(section, shown))

    return MARKER.sub(one, text)


def is_package(module: str) -> bool:
    return hasattr(importlib.import_module(module), "__path__")
