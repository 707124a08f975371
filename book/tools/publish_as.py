"""Say where the book is published, in every place at once: `make publish-as URL=... [REF=v1]`.

usage: publish_as.py URL [REF]

`lib/teach/setup_cell.py` holds the address and the version. This writes them there, then into all that
repeats them: the setup cell of every chapter, the buttons (`_config.yml`), README, citation, package.
It may be run again with another address. REF is a branch or a tag (default main): a chapter opened from
the book's Colab button, and the library that its setup cell fetches, are both of that version. So a
release is: publish-as with REF=v1, commit, tag that commit v1, push branch and tag.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from notebooks import ROOT, chapters, dump, read, source

SOURCE = Path("lib/teach/setup_cell.py")
TEXT = {".cff", ".ipynb", ".md", ".py", ".toml", ".yml", ".yaml"}
ADDRESS = re.compile(r"https://github\.com/([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9._-]+)")
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def parse(url: str) -> tuple[str, str]:
    """Owner and name of a repository's address.

    Raises:
        ValueError: it is no address that Colab can open notebooks from.
    """
    match = ADDRESS.fullmatch(url.strip().rstrip("/").removesuffix(".git"))
    if not match:
        raise ValueError(
            f"the address must look like https://github.com/OWNER/NAME (Colab opens notebooks from "
            f"github.com alone), not {url!r}"
        )
    return match[1], match[2]


def published(root: Path) -> tuple[str, str]:
    """Address and version that the book has now."""
    names = runpy.run_path(str(root / SOURCE))
    return names["ADDRESS"], names["VERSION"]


def mentions(owner: str, name: str) -> re.Pattern:
    """Where a repository is named: github.com/OWNER/NAME, mybinder.org/v2/gh/..., its Pages site.

    A longer name that begins with it is another repository.
    """
    owner, name = re.escape(owner), re.escape(name)
    end = r"(?=\.git\b|\.(?!\w)|[^\w.-]|$)"
    before = r"(?P<before>github\.com[/:]|/github/|/gh/)"
    return re.compile(rf"(?:{before}{owner}/{name}|{owner}\.github\.io/{name}){end}", re.I)


def files(root: Path) -> Iterator[Path]:
    """The repository's own text files, as git knows them; tests name no address of their own."""
    command = [
        "git",
        "-C",
        str(root),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    for file in sorted(filter(None, listed)):
        path = root / file
        ours = path.suffix in TEXT and not file.startswith(("tests/", "book/static/vendor/"))
        if ours and path.is_file():
            yield path


def publish(root: Path, url: str, ref: str = "main") -> list[Path]:
    """Set address and version everywhere under `root`; returns the files that changed.

    Raises:
        ValueError: the address or the version cannot be one.
    """
    owner, name = parse(url)
    if not REF.fullmatch(ref) or ".." in ref or ref.endswith((".lock", "/", ".")):
        raise ValueError(f"REF is the name of a branch or a tag, as main or v1, not {ref!r}")
    old_address, old_ref = published(root)
    pattern = mentions(*parse(old_address))
    changed = []

    def write(path: Path, text: str) -> None:
        if text != path.read_text(encoding="utf8"):
            path.write_text(text, encoding="utf8")
            changed.append(path)

    for path in files(root):
        text = path.read_text(encoding="utf8")
        text = pattern.sub(
            lambda m: (
                f"{m['before']}{owner}/{name}" if m["before"] else f"{owner}.github.io/{name}"
            ),
            text,
        )
        if path == root / SOURCE:
            text = _once(rf'^VERSION = "{re.escape(old_ref)}"', f'VERSION = "{ref}"', text)
        elif path == root / "_config.yml":
            # quoted: YAML would read 1.10 as a number
            text = _once(rf'^  branch: "?{re.escape(old_ref)}"?$', f'  branch: "{ref}"', text)
        write(path, text)
    cell = runpy.run_path(str(root / SOURCE))["SETUP_CELL"]
    for path in chapters(root):
        nb = read(path)
        first = next(c for c in nb["cells"] if c["cell_type"] == "code")
        if not source(first).startswith("try:\n    import lib.teach"):
            raise ValueError(f"{path.name}: the first code cell is not the setup cell")
        first["source"] = cell
        write(path, dump(nb))
    return list(dict.fromkeys(changed))


def _once(pattern: str, new: str, text: str) -> str:
    text, n = re.subn(pattern, lambda _: new, text, flags=re.M)
    if n != 1:
        raise ValueError(f"{pattern!r} is there {n} times, where it should be once")
    return text


def main(arguments: list[str]) -> int:
    if not arguments or len(arguments) > 2:
        print("which address? make publish-as URL=https://github.com/OWNER/NAME [REF=v1]")
        return 2
    try:
        changed = publish(ROOT, *arguments)
    except ValueError as error:
        print(f"publish-as: {error}")
        return 2
    for path in changed:
        print(f"set in {path.relative_to(ROOT)}")
    ref = published(ROOT)[1]
    print(
        f"published as {published(ROOT)[0]} at {ref}: commit, push"
        + ("" if ref == "main" else f", and give the commit the name {ref}")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
