"""How the chapters hang together: paths, the graph of what needs what, back links. From `book/chapters.yml`.

Everything here gives Markdown or HTML for the staged pages; `build.py` puts it where a page has a marker.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import minutes
import yaml
from notebooks import ROOT, prose, read

KEYS = {"short", "column", "needs", "helps", "week", "hours", "day"}
WEEKS, HOURS, DAY = 12, 180, 480  # weeks of the course; minutes of the two short paths
EQUATION = re.compile(r"\((\d\d)_\w+\.ipynb(?:#eq-(\d+-\d+\w?))?(?:#[\w-]+)?\)")


class Course:
    """The chapters of the book with what `book/chapters.yml` says about them.

    Raises ValueError if a chapter has no entry, or an entry is not as described there.
    """

    def __init__(self, paths: list[Path], root: Path = ROOT):
        data = yaml.safe_load((root / "book" / "chapters.yml").read_text(encoding="utf8"))
        self.paths = {int(p.stem[:2]): p for p in paths}
        missing = {p.stem for p in paths} - set(data)
        if missing:
            raise ValueError(f"book/chapters.yml has no entry for {', '.join(sorted(missing))}")
        self.about = {int(p.stem[:2]): data[p.stem] for p in paths}
        self.books = {n: read(p) for n, p in self.paths.items()}
        for n, entry in self.about.items():
            if set(entry) != KEYS:
                raise ValueError(
                    f"chapter {n}: expected the keys {sorted(KEYS)}, got {sorted(entry)}"
                )
            if any(m >= n for m in (*entry["needs"], *entry["helps"])):
                raise ValueError(f"chapter {n} needs a later chapter")
            if not 1 <= entry["week"] <= WEEKS:
                raise ValueError(f"chapter {n}: week {entry['week']} of {WEEKS}")
            for path in ("hours", "day"):
                self.stops(n, path)

    def title(self, n: int) -> str:
        """A chapter's title, without its number."""
        return re.match(r"#\s+(.+)", self.books[n]["cells"][0]["source"].strip())[1].strip()

    def link(self, n: int, folder: str = "../chapters/") -> str:
        """A Markdown link to a chapter."""
        return f"[{n}. {self.title(n)}]({folder}{self.paths[n].name})"

    def minutes(self, n: int) -> tuple[int, int]:
        """Minutes to read, and for the exercises."""
        return minutes.chapter(self.books[n])

    def stops(self, n: int, path: str) -> list[tuple[str, float]]:
        """Headings and minutes of what a short path reads of a chapter; the heading is '' for all of it."""
        wanted, parts = self.about[n][path], minutes.sections(self.books[n])
        if wanted == "all":
            return [("", self.minutes(n)[0])]
        unknown = [w for w in wanted if w not in parts]
        if unknown:
            raise ValueError(f"chapter {n} has no section {unknown[0]!r} for the path {path!r}")
        return [(w, minutes.reading(parts[w])) for w in wanted]

    def used_in(self, n: int) -> dict[int, list[str]]:
        """The later chapters that need this one or use its equations, with the numbers of these."""
        out: dict[int, set[str]] = {}
        for other, nb in self.books.items():
            if other <= n:
                continue
            text = "\n".join(prose(c) for c in nb["cells"] if c["cell_type"] == "markdown")
            for number, equation in EQUATION.findall(text):
                if int(number) == n and equation:
                    out.setdefault(other, set()).add(equation)
            if n in {**self.about[other]["needs"], **self.about[other]["helps"]}:
                out.setdefault(other, set())
        order = {m: sorted(e, key=lambda x: int(re.findall(r"\d+", x)[1])) for m, e in out.items()}
        return dict(sorted(order.items()))

    # ------------------------------------------------------------ tables

    def table(self) -> str:
        """Minutes, needs and uses of every chapter."""
        rows = [
            "| chapter | to read | exercises | needs | used in |",
            "|---|---|---|---|---|",
        ]
        for n, about in self.about.items():
            read_, work = self.minutes(n)
            needs = [*map(str, about["needs"]), *(f"({m})" for m in about["helps"])]
            rows.append(
                f"| {self.link(n)} | {read_} | {work} | {', '.join(needs) or '–'} "
                f"| {', '.join(map(str, self.used_in(n))) or '–'} |"
            )
        rows.append(
            f"| all | {sum(self.minutes(n)[0] for n in self.about)} "
            f"| {sum(self.minutes(n)[1] for n in self.about)} | | |"
        )
        return "\n".join(rows)

    def reasons(self) -> str:
        """What each chapter needs the others for, as a list."""
        rows = []
        for n, about in self.about.items():
            needs = [f"{m} for {why}" for m, why in about["needs"].items()]
            needs += [f"in part {m} for {why}" for m, why in about["helps"].items()]
            rows.append(f"- {self.link(n)} needs {'; '.join(needs) or 'no other'}.")
        return "\n".join(rows)

    def path(self, name: str) -> str:
        """A short path as a list, with minutes."""
        rows, total = [], 0
        for n in self.about:
            stops = self.stops(n, name)
            if not stops:
                continue
            spent = round(sum(m for _, m in stops))  # the total is that of the printed numbers
            total += spent
            what = "all of it" if stops[0][0] == "" else ", ".join(f"*{s}*" for s, _ in stops)
            rows.append(f"- {self.link(n)}: {what} ({spent} minutes)")
        return "\n".join([*rows, "", f"Together {total} minutes."])

    def weeks(self) -> str:
        """The twelve weeks as a table."""
        rows = ["| week | chapter | hours at home |", "|---|---|---|"]
        for week in range(1, WEEKS + 1):
            mine = [n for n, a in self.about.items() if a["week"] == week]
            hours = sum(sum(self.minutes(n)) for n in mine) / 60
            what = " and ".join(self.link(n) for n in mine)
            rows.append(
                f"| {week} | {what} | {hours:.1f} |"
                if mine
                else f"| {week} | A project: fit two of the book's models to data of your own, by one protocol, and say which and why | |"
            )
        return "\n".join(rows)

    def connections(self, n: int) -> str:
        """The cell at the end of a chapter: time, needs, uses."""
        read_, work = self.minutes(n)
        lines = [
            f"- **Time** about {5 * round(read_ / 5)} minutes to read and {work} for the exercises, by [the book's rule](../book/paths.md#minutes)."
        ]
        about = self.about[n]
        needs = [f"{self.link(m, '')} for {why}" for m, why in about["needs"].items()]
        needs += [f"in part {self.link(m, '')} for {why}" for m, why in about["helps"].items()]
        lines.append(f"- **Needs** {'; '.join(needs) or 'no other chapter'}.")
        uses = []
        for m, equations in self.used_in(n).items():
            marks = ", ".join(f"[({e.replace('-', '.')})](#eq-{e})" for e in equations)
            uses.append(self.link(m, "") + (f", which uses {marks}" if marks else ""))
        if uses:
            lines.append(f"- **Used in** {'; '.join(uses)}.")
        return "\n".join(lines)

    # ------------------------------------------------------------ the graph

    def rows(self) -> dict[int, int]:
        """The row of each chapter in the graph: one below the lowest that it needs, in part or whole."""
        out: dict[int, int] = {}
        for n, about in self.about.items():
            before = [
                m for m in (*about["needs"], *about["helps"]) if m in out and self.drawn(m, n)
            ]
            out[n] = 1 + max((out[m] for m in before), default=-1)
        return out

    def drawn(self, m: int, n: int) -> bool:
        """Whether the arrow from m to n is drawn: no longer way through other needs leads there too."""
        about = self.about
        if m not in about[n]["needs"] and m not in about[n]["helps"]:
            return False
        if m in about[n]["helps"] and not self.important(m, n):
            return False
        between = set(about[n]["needs"]) - {m}
        todo = list(between)
        while todo:
            k = todo.pop()
            if k == m:
                return False
            todo += about[k]["needs"]
        return True

    def important(self, m: int, n: int) -> bool:
        """A partial need is drawn unless another partial need of n leads to it."""
        others = set(self.about[n]["helps"]) - {m}
        return not any(m in {**self.about[k]["needs"], **self.about[k]["helps"]} for k in others)

    def graph(self) -> str:
        """The graph as SVG with links; no line breaks inside, so that Markdown takes it as one block."""
        rows, wide, high, boxw, boxh = self.rows(), 86, 84, 78, 46
        at = {n: (4 + a["column"] * wide, 4 + rows[n] * high) for n, a in self.about.items()}
        width, height = 4 * wide + boxw + 8, max(rows.values()) * high + boxh + 8
        parts = []
        for n, about in self.about.items():
            given = [m for m in (*about["needs"], *about["helps"]) if m in at and self.drawn(m, n)]
            given.sort(key=lambda m: (at[m][0], -rows[m]))  # each arrow has a head of its own
            for k, m in enumerate(given):
                (x0, y0), (x1, y1) = at[m], at[n]
                x0, y0, y1 = x0 + boxw / 2, y0 + boxh, y1 - 5
                x1 += boxw / 2 + 11 * (k - (len(given) - 1) / 2)
                bend = (y1 - y0) / 2 if rows[n] - rows[m] == 1 else (y1 - y0) * 0.35
                dash = " graph-partial" if m in about["helps"] else ""
                parts.append(
                    f'<path class="graph-edge{dash}" marker-end="url(#graph-arrow)" '
                    f'd="M{x0:g} {y0:g} C{x0:g} {y0 + bend:g} {x1:g} {y1 - bend:g} {x1:g} {y1:g}"/>'
                )
        for n, about in self.about.items():
            x, y = at[n]
            name = escape(f"{n} {about['short']}: {self.title(n)}")
            parts.append(
                f'<a class="graph-node" href="../chapters/{self.paths[n].stem}.html" aria-label="{name}">'
                f'<rect x="{x:g}" y="{y:g}" width="{boxw}" height="{boxh}" rx="6"/>'
                f'<text x="{x + boxw / 2:g}" y="{y + 19:g}" class="graph-number">{n} </text>'
                f'<text x="{x + boxw / 2:g}" y="{y + 36:g}">{escape(about["short"])}</text></a>'
            )
        arrow = (
            '<defs><marker id="graph-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" class="graph-head"/></marker></defs>'
        )
        return (
            f'<nav class="graph" aria-label="What needs what"><svg viewBox="0 0 {width} {height}" '
            f'xmlns="http://www.w3.org/2000/svg">{arrow}{"".join(parts)}</svg></nav>'
        )

    def page(self, text: str) -> str:
        """`book/paths.md` with its markers filled in."""
        made = {
            "graph": self.graph(),
            "needs": self.reasons(),
            "minutes": self.table(),
            "hours": self.path("hours"),
            "day": self.path("day"),
            "weeks": self.weeks(),
        }
        for name, markdown in made.items():
            marker = f"<!-- {name} -->"
            if marker not in text:
                raise ValueError(f"book/paths.md has no line {marker}")
            text = text.replace(marker, markdown)
        return text
