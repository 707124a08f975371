"""What every chapter must keep to, so that it reads the same in the book, JupyterLab, Colab and on the web.

usage: policy.py [notebook ...]      (default: every chapter) prints what is against the rules

Each rule is a function from a `Chapter` to a list of complaints; `tests/book/test_policy.py` runs
every rule on every chapter.
"""

from __future__ import annotations

import ast
import re
import runpy
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from notebooks import CAPTION, ROOT, chapters, code, prose, read, source, tags, without_math
from tidy import stored

CELLS, WORDS = (35, 90), (2500, 5500)
MEDIAN_LINES, MOST_LINES = 10, 40
EXERCISES, IDENTITIES = 5, 12
ANCHOR = re.compile(r'<a\s+id="([^"]+)"\s*>\s*</a>')
LINK = re.compile(
    r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)(?:\s+\"[^\"]*\")?\)"
)
HREF = re.compile(r'href="([^"]+)"')
TAG = re.compile(r"\\tag\{([^}]*)\}")
EXERCISE = re.compile(r"^(?:#+\s+|\*\*)Exercise (\d+\.\d+)", re.M)
SOLUTION = re.compile(
    r"^<details[^>]*>\s*<summary>\s*Solution (\d+\.\d+)\s*</summary>[ \t]*\n\s*\n(.*?)\n\s*\n</details>",
    re.M | re.S,
)

RULES: dict[str, Callable[[Chapter], list[str]]] = {}


def rule(check: Callable[[Chapter], list[str]]) -> Callable[[Chapter], list[str]]:
    """Register a rule under its function's name."""
    RULES[check.__name__] = check
    return check


@dataclass
class Chapter:
    """A notebook and where it stands."""

    path: Path
    nb: dict
    root: Path = ROOT

    @classmethod
    def open(cls, path: Path, root: Path = ROOT) -> Chapter:
        return cls(path, read(path), root)

    @property
    def number(self) -> int:
        return int(self.path.stem[:2])

    @cached_property
    def code(self) -> list[tuple[int, dict]]:
        return [(k, c) for k, c in enumerate(self.nb["cells"], 1) if c["cell_type"] == "code"]

    @cached_property
    def markdown(self) -> list[tuple[int, dict]]:
        return [(k, c) for k, c in enumerate(self.nb["cells"], 1) if c["cell_type"] == "markdown"]

    @cached_property
    def trees(self) -> list[tuple[int, dict, ast.AST]]:
        out = []
        for k, cell in self.code:
            try:
                out.append((k, cell, ast.parse(code(cell))))
            except SyntaxError:
                pass  # ruff says where
        return out

    @cached_property
    def tags(self) -> Counter:
        """The equations' numbers."""
        return Counter(t for _, c in self.markdown for t in TAG.findall(prose(c)))


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and getattr(n.func, "id", getattr(n.func, "attr", "")) == name
    ]


def _constant(node: ast.AST | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


# ---------------------------------------------------------------- the same in four places


@rule
def plain_markdown(ch: Chapter) -> list[str]:
    """No MyST role or directive, no macro, no delimiter that some front end does not know."""
    wrong = {
        "a MyST role": r"(?<![`\\\w])\{[a-zA-Z:+-]+\}`[^`\s]",
        "a MyST directive": r"^\s*(?:```+|~~~+|:::+)\s*\{",
        "a colon fence": r"^:::",
        "a macro": r"\\(?:re)?newcommand|\\def\b|\\gdef\b|\\DeclareMathOperator|\\require\b",
        "a LaTeX reference (link to the anchor instead)": r"\\(?:eq)?ref\{|\\label\{",
        r"\( or \[ (use $ or $$)": r"(?<!\\)\\[(\[]",
    }
    out = []
    for k, cell in ch.markdown:
        text = source(cell)
        bare = prose(cell)
        for what, pattern in wrong.items():
            where = text if "directive" in what or "role" in what else bare
            if what.startswith(r"\("):
                where = re.sub(r"\$\$.*?\$\$", "", where, flags=re.S)
            if re.search(pattern, where, re.M):
                out.append(f"cell {k}: {what}")
        for block in re.findall(r"\$\$(.*?)\$\$", bare, flags=re.S):
            if re.search(r"\\begin\{(align|equation|gather)\*?\}", block):
                out.append(f"cell {k}: align or equation inside $$; use aligned")
            if len(TAG.findall(block)) > 1:
                out.append(f"cell {k}: two tags in one equation; write two equations")
        outside = re.sub(r"\$\$.*?\$\$", "", bare, flags=re.S)
        if re.search(r"\\begin\{", without_math(outside)):
            out.append(f"cell {k}: a LaTeX environment outside $$")
    return out


@rule
def setup_cell(ch: Chapter) -> list[str]:
    """The first code cell is the one that all chapters share."""
    cell = runpy.run_path(str(ch.root / "lib" / "teach" / "setup_cell.py"))["SETUP_CELL"]
    if not ch.code or source(ch.code[0][1]).strip() != cell.strip():
        return ["the first code cell is not the text in lib/teach/setup_cell.py"]
    return []


@rule
def plain_python(ch: Chapter) -> list[str]:
    """No magic and no shell, except in the setup cell: the other rules and the search for imports do not see past them."""
    from IPython.core.inputtransformer2 import TransformerManager  # slow to import

    python = TransformerManager().transform_cell
    return [
        f"cell {k}: a magic, a shell line or a question mark that only IPython knows"
        for k, cell in ch.code[1:]
        if python(source(cell)) != source(cell).strip("\n") + "\n"
    ]


@rule
def headings(ch: Chapter) -> list[str]:
    """One title, in the first cell; no level left out."""
    out, level = [], 0
    for k, cell in ch.markdown:
        for marks in re.findall(r"^(#{1,6})\s", prose(cell), re.M):
            n = len(marks)
            if (n == 1) != (level == 0):
                out.append(f"cell {k}: a chapter has exactly one title (#), and starts with it")
            if n > level + 1:
                out.append(f"cell {k}: a heading of level {n} below one of level {level}")
            level = n
    first = ch.nb["cells"][0] if ch.nb["cells"] else {"source": ""}
    return out if source(first).lstrip().startswith("# ") else [*out, "cell 1 is not the title"]


@rule
def no_paths(ch: Chapter) -> list[str]:
    """Nothing that exists on one machine only."""
    out = []
    for k, _, tree in ch.trees:
        for node in ast.walk(tree):
            text = _constant(node)
            if isinstance(text, str) and re.search(
                r"(?:^|[\s'\"=])(?:/(?:home|Users|root|tmp|mnt|work|content|data|var|etc)/|~/|\.\.?/|[A-Z]:\\)",
                text,
            ):
                out.append(f"cell {k}: a path, {text[:50]!r}")
    return out


# ---------------------------------------------------------------- stored outputs


@rule
def stored_outputs(ch: Chapter) -> list[str]:
    """Outputs only where nbval compares them, and then it really does."""
    out = ["widget state is stored"] if "widgets" in ch.nb["metadata"] else []
    checked = 0
    for k, cell in ch.code:
        kinds = [(o["output_type"], o.get("name")) for o in cell["outputs"]]
        if "nbval-check-output" in tags(cell):
            checked += 1
            if kinds != [("stream", "stdout")]:
                out.append(
                    f"cell {k}: tagged nbval-check-output and has no stored print; run 'make record'"
                )
            if not cell["execution_count"]:
                out.append(f"cell {k}: nbval compares nothing where the execution count is null")
        elif kinds or cell["execution_count"] is not None:
            out.append(f"cell {k}: a stored output that nothing compares; run 'make tidy'")
    return out if checked else [*out, "no number is checked in this notebook"]


@rule
def tidy(ch: Chapter) -> list[str]:
    """`make tidy` would change nothing."""
    want = stored(ch.path)
    return [] if ch.path.read_text(encoding="utf8") == want else ["not tidy; run 'make tidy'"]


# ---------------------------------------------------------------- figures


def _draws(tree: ast.AST) -> bool:
    """A top-level use of pyplot, other than settings."""

    def visit(node: ast.AST) -> bool:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            return False
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if re.match(r"(plt|pyplot)\.(?!close|style|rc|setp|get_cmap|colormaps)", name):
                return True
        return any(visit(child) for child in ast.iter_child_nodes(node))

    return visit(tree)


def figure_cells(ch: Chapter) -> list[int]:
    """Numbers of the cells that make a figure, as far as can be seen without running them."""
    return [
        k
        for k, cell, tree in ch.trees
        if _draws(tree) or "alt" in cell["metadata"] or {"explorable", "figure"} & set(tags(cell))
    ]


@rule
def figures(ch: Chapter) -> list[str]:
    """Every figure has a caption and a text alternative; numbers run 1, 2, 3."""
    out, numbers, after = [], [], set()
    cells = ch.nb["cells"]
    for k in figure_cells(ch):
        cell = cells[k - 1]
        caption = cells[k] if k < len(cells) else None
        after.add(k + 1)
        if caption is None or "caption" not in tags(caption):
            out.append(f"cell {k}: makes a figure and the next cell is not tagged caption")
            continue
        match = CAPTION.match(source(caption))
        if not match:
            out.append(
                f'cell {k + 1}: a caption starts <a id="fig-1-2"></a>**Figure 1.2.** and a text'
            )
            continue
        numbers.append(match["number"])
        if match["id"] != "fig-" + match["number"].replace(".", "-"):
            out.append(f"cell {k + 1}: {match['id']} is not the anchor of Figure {match['number']}")
        if "\n\n" in source(caption).strip():
            out.append(f"cell {k + 1}: a caption is one paragraph")
        if "explorable" in tags(cell):
            if len(source(cell).strip().splitlines()) > 2:
                out.append(f"cell {k}: an explorable cell is an import and figures.name()")
            continue
        alt = cell["metadata"].get("alt", "")
        if len(alt) < 20 or "$" in alt or "\n" in alt:
            out.append(
                f"cell {k}: needs metadata alt: a sentence, without formulas, that says what is seen"
            )
    for k, cell in enumerate(cells, 1):
        if "caption" in tags(cell) and k not in after:
            out.append(f"cell {k}: a caption without a figure before it")
        if "explorable" in tags(cell) and "figures." not in source(cell):
            out.append(f"cell {k}: an explorable figure comes from lib.teach.figures")
    want = [f"{ch.number}.{n}" for n in range(1, len(numbers) + 1)]
    if numbers != want:
        out.append(f"figures are numbered {numbers}, not {want}")
    if not any("explorable" in tags(c) for c in cells):
        out.append("there is no explorable figure")
    return out


# ---------------------------------------------------------------- equations


@rule
def equations(ch: Chapter) -> list[str]:
    """Every numbered equation has an anchor and a check, or a reason; every check has its equation."""
    out = [f"({t}) is numbered {n} times" for t, n in ch.tags.items() if n > 1]
    for k, cell in ch.markdown:
        text = prose(cell)
        for match in re.finditer(r"\$\$(?:(?!\$\$).)*?\\tag\{([^}]*)\}\s*\$\$", text, re.S):
            label = match[1]
            anchor = f'<a id="eq-{label.replace(".", "-")}"></a>'
            if not re.search(re.escape(anchor) + r"\s*\n\s*\n\s*\Z", text[: match.start()]):
                out.append(f"cell {k}: ({label}) needs {anchor} and a blank line before it")
            if not re.fullmatch(rf"{ch.number}\.\d{{1,3}}[a-z]?", label):
                out.append(f"cell {k}: ({label}) is not a number of chapter {ch.number}")
        if len(TAG.findall(text)) != len(re.findall(r"\\tag\{[^}]*\}\s*\$\$", text)):
            out.append(f"cell {k}: a tag stands at the end of its equation, right before $$")
    verified: set[str] = set()
    for k, _, tree in ch.trees:
        for call in _calls(tree, "verify"):
            label = _constant(call.args[0]) if call.args else None
            if not isinstance(label, str):
                out.append(f"cell {k}: verify needs the equation's number as plain text")
            elif label not in ch.tags:
                out.append(f"cell {k}: verify({label!r}), and no equation has that number")
            elif not any(
                kw.arg == "expect_failure" and _constant(kw.value) for kw in call.keywords
            ):
                verified.add(label)
    unchecked = ch.nb["metadata"].get("book", {}).get("unchecked", {})
    for label in ch.tags:
        if label not in verified and not str(unchecked.get(label, "")).strip():
            out.append(f"({label}) is not verified, and metadata.book.unchecked gives no reason")
    for label in unchecked:
        if label not in ch.tags:
            out.append(f"metadata.book.unchecked names ({label}), which does not exist")
        elif label in verified:
            out.append(f"metadata.book.unchecked names ({label}), which is verified")
    if len(verified) < IDENTITIES:
        out.append(f"{len(verified)} identities are verified; a chapter has at least {IDENTITIES}")
    return out


# ---------------------------------------------------------------- links


@lru_cache(maxsize=256)
def _text_of(path: Path, stamp: int) -> str:
    if path.suffix == ".ipynb":
        return "\n\n".join(prose(c) for c in read(path)["cells"] if c["cell_type"] == "markdown")
    return prose({"source": path.read_text(encoding="utf8")})


def page_text(path: Path) -> str:
    """The prose of a chapter or page, without code."""
    return _text_of(path, path.stat().st_mtime_ns)


def anchors(path: Path) -> list[str]:
    """Where links may point on a page."""
    text = page_text(path)
    return re.findall(r'\bid="([^"]+)"', text) + re.findall(r"^\(([\w-]+)\)=\s*$", text, re.M)


def dead_links(path: Path, root: Path = ROOT) -> list[str]:
    """Internal links of a page that lead nowhere, and anchors that are there twice."""
    text, own = page_text(path), anchors(path)
    out = [f"the anchor {a} is there {n} times" for a, n in Counter(own).items() if n > 1]
    out += [f"the anchor {a} is not in lower case" for a in own if a != a.lower()]
    for target in LINK.findall(text) + HREF.findall(text):
        if re.match(r"(https?|mailto):", target):
            continue
        if re.match(r"\w+:|/", target):
            out.append(f"{target}: a link is relative, or starts with https:")
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists():
            out.append(f"{target}: there is no such file")
        elif not there.is_relative_to(root.resolve()):
            out.append(f"{target}: leads out of the book")
        elif anchor and there.suffix in (".md", ".ipynb") and anchor not in anchors(there):
            out.append(f"{target}: there is no such anchor")
    return out


def book_pages(root: Path = ROOT) -> list[Path]:
    """The pages that are not chapters."""
    return sorted((root / "book").glob("*.md"))


@rule
def links(ch: Chapter) -> list[str]:
    """Every internal link leads somewhere."""
    return dead_links(ch.path, ch.root)


@rule
def citations(ch: Chapter) -> list[str]:
    """Every cited work is in the bibliography, and something is cited."""
    bib = ch.root / "book" / "references.bib"
    keys = (
        set(re.findall(r"^@\w+\{\s*([^,\s]+)", bib.read_text("utf8"), re.M))
        if bib.exists()
        else set()
    )
    cited = re.findall(r"references\.md#([\w-]+)", page_text(ch.path))
    out = [f"{key} is not in book/references.bib" for key in sorted(set(cited) - keys)]
    return out if cited else [*out, "nothing is cited"]


# ---------------------------------------------------------------- size


def words(ch: Chapter) -> int:
    """Words that a reader sees: no code, formulas, HTML, or what is folded away."""
    text = "\n\n".join(prose(c) for _, c in ch.markdown)
    text = re.sub(r"<details.*?</details>", " ", text, flags=re.S)
    text = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", without_math(text))
    return len(re.findall(r"[^\W\d_][\w'’-]*", text))


@rule
def size(ch: Chapter) -> list[str]:
    """Short enough to be read, long enough to say it."""
    out, cells, count = [], len(ch.nb["cells"]), words(ch)
    if not CELLS[0] <= cells <= CELLS[1]:
        out.append(f"{cells} cells; a chapter has {CELLS[0]} to {CELLS[1]}")
    if not WORDS[0] <= count <= WORDS[1]:
        out.append(f"{count} words; a chapter has {WORDS[0]} to {WORDS[1]}")
    lines = {k: len(source(c).strip().splitlines()) for k, c in ch.code}
    out += [
        f"cell {k}: {n} lines of code (at most {MOST_LINES})"
        for k, n in lines.items()
        if n > MOST_LINES
    ]
    if lines and statistics.median(lines.values()) > MEDIAN_LINES:
        out.append(
            f"the median code cell has {statistics.median(lines.values())} lines, not {MEDIAN_LINES}"
        )
    return out


# ---------------------------------------------------------------- exercises


def exercise_labels(ch: Chapter) -> list[str]:
    """The exercises of a chapter, in order."""
    return [m for _, c in ch.markdown for m in EXERCISE.findall(prose(c))]


def solutions(ch: Chapter) -> dict[str, str]:
    """The text of each solution."""
    return {m[0]: m[1] for _, c in ch.markdown for m in SOLUTION.findall(source(c))}


def stubs(ch: Chapter) -> dict[str, dict]:
    """The code cells that wait for an answer, by exercise."""
    out = {}
    for _, cell, tree in ch.trees:
        if "exercise" in tags(cell):
            found = [_constant(c.args[0]) for c in _calls(tree, "check") if c.args]
            for label in found or ["?"]:
                out[str(label)] = cell
    return out


@rule
def exercises(ch: Chapter) -> list[str]:
    """At least five exercises, each with a solution; stubs are compared by nbval."""
    labels, solved = exercise_labels(ch), solutions(ch)
    want = [f"{ch.number}.{n}" for n in range(1, len(labels) + 1)]
    out = [] if labels == want else [f"exercises are numbered {labels}, not {want}"]
    if len(labels) < EXERCISES:
        out.append(f"{len(labels)} exercises (**Exercise {ch.number}.1 ...); at least {EXERCISES}")
    out += [
        f"exercise {x} has no solution in the form of CONTRIBUTING.md"
        for x in labels
        if x not in solved
    ]
    out += [f"solution {x} has no exercise" for x in solved if x not in labels]
    for label, cell in stubs(ch).items():
        if label not in labels:
            out.append(f"a stub checks exercise {label}, which does not exist")
        if "nbval-check-output" not in tags(cell):
            out.append(f"the stub of exercise {label} is not tagged nbval-check-output")
    for k, cell in ch.markdown:
        text = source(cell)
        if text.count("<details") != text.count("</details>"):
            out.append(f"cell {k}: <details> without its end in the same cell")
        for block in re.findall(r"<details.*?</details>", text, re.S):
            if not re.match(r"<details[^>]*>\s*<summary>.*?</summary>[ \t]*\n[ \t]*\n", block):
                out.append(f"cell {k}: a blank line is needed after </summary>")
            if not re.search(r"\n[ \t]*\n</details>\Z", block):
                out.append(f"cell {k}: a blank line is needed before </details>")
            if re.search(r"^#{1,6}\s", re.sub(r"^```.*?^```", "", block, flags=re.M | re.S), re.M):
                out.append(f"cell {k}: no heading inside <details>")
    return out


def main(arguments: list[str]) -> int:
    paths = [Path(a).resolve() for a in arguments] or chapters()
    found = 0
    for path in paths:
        ch = Chapter.open(path)
        for name, check in RULES.items():
            for complaint in check(ch):
                print(f"{path.stem}: {name}: {complaint}")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
