"""Write ``book/references.md`` from ``book/references.bib``; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1]
BIB, PAGE = BOOK / "references.bib", BOOK / "references.md"
GROUPS = {"start": "Chapters 1 to 3", "later": "Main works of the other chapters"}
ACCENTS = {r"{\"a}": "ä", r"{\"o}": "ö", r"{\"u}": "ü", r"{\'e}": "é", r"{\'i}": "í"}
HEAD = """\
# References

<!-- Written by book/tools/references.py from book/references.bib: edit that file, not this one. -->

A chapter cites a work by author and year, and the citation links to its entry here. The machine-readable list is
`book/references.bib`.
"""


def parse(text: str) -> list[dict[str, str]]:
    """The entries of a BibTeX file, in order: fields in lower case, plus ``kind`` and ``key``."""
    text = re.sub(r"(?m)^%.*$", "", text)
    entries, seen = [], set()
    for start in re.finditer(r"@(\w+)\s*\{\s*([^,\s]+)\s*,", text):
        entry = {"kind": start[1].lower(), "key": start[2]}
        if entry["key"] in seen:
            raise ValueError(f"references.bib: the key {entry['key']!r} is there twice.")
        seen.add(entry["key"])
        at = start.end()
        while field := re.compile(r"\s*,?\s*(\w+)\s*=\s*\{").match(text, at):
            at = end = field.end()
            depth = 1
            while depth:
                if end == len(text):
                    raise ValueError(f"references.bib: a brace of {entry['key']!r} is not closed.")
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
            entry[field[1].lower()] = " ".join(text[at : end - 1].split())
            at = end
        if not re.compile(r"\s*,?\s*\}").match(text, at):
            raise ValueError(f"references.bib: {entry['key']!r} has a field that cannot be read.")
        entries.append(entry)
    return entries


def plain(text: str) -> str:
    """BibTeX text as Markdown text: accents in Unicode, no braces, a real dash."""
    for tex, letter in ACCENTS.items():
        text = text.replace(tex, letter)
    return text.replace("{", "").replace("}", "").replace("--", "–")


def names(author: str) -> str:
    """``Blei, David M. and Li, Xuechen`` as ``David M. Blei and Xuechen Li``."""
    people = author.split(" and ")
    others = people[-1] == "others"
    people = [" ".join(reversed(p.split(", ", 1))) for p in people if p != "others"]
    if others:
        return ", ".join(people) + " and others"
    return people[0] if len(people) == 1 else ", ".join(people[:-1]) + " and " + people[-1]


def venue(entry: dict[str, str]) -> str:
    where = next(
        entry[f] for f in ("journal", "booktitle", "publisher", "institution", "note") if f in entry
    )
    text = f"*{where}*" if entry["kind"] in ("article", "inproceedings") else where
    if "edition" in entry:
        text = f"{entry['edition']}, {text}"
    if "volume" in entry:
        text += f" {entry['volume']}" + (f"({entry['number']})" if "number" in entry else "")
    return text + (f", {entry['pages']}" if "pages" in entry else "")


def links(entry: dict[str, str]) -> str:
    found = []
    if "doi" in entry:
        found.append(f"[doi:{entry['doi']}](https://doi.org/{entry['doi']})")
    if "eprint" in entry:
        found.append(f"[arXiv:{entry['eprint']}](https://arxiv.org/abs/{entry['eprint']})")
    if "url" in entry:
        found.append(f"[page]({entry['url']})")
    return ", ".join(found)


def line(entry: dict[str, str]) -> str:
    """One reference as a paragraph of plain Markdown that starts with its anchor."""
    text = (
        f"{names(entry['author'])} ({entry['year']}). {entry['title'].rstrip('.')}. {venue(entry)}."
    )
    text = f'<a id="{entry["key"]}"></a>{plain(text)}'
    return f"{text} {links(entry)}." if links(entry) else text


def surname(entry: dict[str, str]) -> tuple[str, str]:
    last = plain(entry["author"].split(",")[0]).lower().removeprefix("van den ")
    return last, entry["year"]


def page(text: str) -> str:
    entries = parse(text)
    for entry in entries:
        missing = {"author", "title", "year", "keywords"} - entry.keys()
        if missing or entry["keywords"] not in GROUPS:
            raise ValueError(
                f"references.bib: {entry['key']!r} lacks {', '.join(sorted(missing)) or 'a known keyword'}."
            )
    parts = [HEAD]
    for keyword, title in GROUPS.items():
        chosen = sorted((e for e in entries if e["keywords"] == keyword), key=surname)
        parts.append(f"## {title}\n\n" + "\n\n".join(line(e) for e in chosen) + "\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    wanted = page(BIB.read_text(encoding="utf-8"))
    if "--check" in arguments:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == wanted:
            return 0
        print(
            "book/references.md is not what book/references.bib gives: run python book/tools/references.py"
        )
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
