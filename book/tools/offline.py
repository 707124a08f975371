"""The whole book in one file: unpack it on a stick, open index.html, no server and no network.

usage: offline.py      (`make offline`; builds the book first, writes _build/deep-generative-models.zip)

The pages already carry their formulas, fonts and search index. This checks that every link of every page stays inside the
archive or goes to the web on purpose, and packs. The same pages give the same bytes.
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote, urljoin

from build import BUILD, HTML
from build import main as build

NAME = "deep-generative-models"
WHEN = (
    2000,
    1,
    1,
    0,
    0,
    0,
)  # one time for all files, so that the archive depends on their content alone
LEFT_OUT = re.compile(r"(^|/)\.|^objects\.inv$|^reports/|^_static/[\w-]+-macros\.html$")
START = """Deep generative models: an interactive textbook

Unpack the whole folder, then open index.html in a browser. No network is needed: formulas, figures and search
work from the folder. Colab, Binder and literature links lead to the web.
"""
LINK = re.compile(r"""<(?:a|img|script|link|source)\b[^>]*?\s(?:href|src)="([^"]*)\"""")


def contents(html: Path) -> dict[str, Path]:
    """The files of the archive, by their name in it."""
    files = sorted(p for p in html.rglob("*") if p.is_file())
    names = {p.relative_to(html).as_posix(): p for p in files}
    return {n: p for n, p in names.items() if not LEFT_OUT.search(n)}


def lost_links(files: dict[str, Path]) -> list[str]:
    """Links of the pages that lead to no file of the archive and not to the web."""
    out = []
    for name, path in files.items():
        if not name.endswith(".html"):
            continue
        for target in set(LINK.findall(path.read_text(encoding="utf8"))):
            if re.match(r"(https?:)?//|data:|mailto:|#|javascript:", target) or not target:
                continue
            where = urljoin(name, unquote(re.split(r"[?#]", target)[0]))
            if where not in files and where != name:
                out.append(f"{name}: {target}")
    return sorted(out)


def pack(html: Path, out: Path) -> list[str]:
    """Write the archive. Raises ValueError if a page links to a file that is not in it."""
    files = contents(html)
    lost = lost_links(files)
    if lost:
        raise ValueError("links that lead nowhere without a server:\n" + "\n".join(lost[:20]))
    fresh = out.with_suffix(".part")
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        texts = {"READ-ME-FIRST.txt": START.encode()}
        for name, content in {**texts, **{n: p.read_bytes() for n, p in files.items()}}.items():
            info = zipfile.ZipInfo(f"{NAME}/{name}", WHEN)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, content)
    fresh.replace(out)
    return list(files)


def main() -> int:
    code = build([])
    if code:
        return code
    out = BUILD / f"{NAME}.zip"
    names = pack(HTML, out)
    print(f"{out.as_uri()}: {len(names)} files, {out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
