"""The last touch on the written pages: what the theme leaves undone for readers and for slow lines.

* Pictures load when they come near, and keep their room before that (``loading``, ``width``, ``height``). They are stored as
  lossless WebP, which takes about half of the bytes of PNG.
* Formulas come before icons: MathJax is the first of the deferred scripts, the search index waits, and of Font Awesome's two thousand
  icons, half of a page's weight, only those stay that some page shows.
* Names of controls agree with what they show; the sidebar is a landmark. (Found by axe-core, see ``tests/book/test_access.py``.)

A page that was finished before stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from PIL import Image

PICTURE = re.compile(r'<img (?![^>]*\bloading=)([^>]*?\bsrc="([^"]*_images/[^"]+)"[^>]*?)(/?)>')
REPAIRS = (
    # an option such as --seed does not break at its hyphens (book.css)
    (r'<span class="pre">(-[^<]{1,24}</span>)', r'<span class="pre option">\1'),
    # "9. Denoising diffusion" as the text of a link: the number does not stand alone
    (r'(<span class="std std-doc">\d+\.|<p class="prev-next-title">\d+\.) ', "\\1\u00a0"),
    # a label that hides the text of the button: "Search Ctrl+K"
    (r'(<button [^>]*\bsearch-button-field\b[^>]*?) aria-label="Search"', r"\1"),
    # what an experiment with a planted mistake prints: the mark says it, the colour repeats it
    (r"(?m)(^|<pre><span></span>)(✗ \([^\n]*goes red[^\n]*)$", r'\1<span class="red">\2</span>'),
    # what only ruff reads in a cell
    (r' *<span class="c1"># (?:fmt: skip|noqa: \w+)</span>', ""),
    # the icons of the switch carry titles of their own, which are not its name
    (r'(<i class="theme-switch [^>]*?) title="[^"]*"', r"\1"),
    # the corner of a table: nothing is no heading
    (r"<th( [^>]*)?>\s*(?:<p>\s*</p>)?\s*</th>", r"<td\1></td>"),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # the arrow beside a page that has pages below it
    (r'<summary>(<span class="toctree-toggle")', r'<summary aria-label="Pages below">\1'),
    (
        r'<div id="pst-primary-sidebar" class="bd-sidebar-primary bd-sidebar([^"]*)">',
        r'<div id="pst-primary-sidebar" class="bd-sidebar-primary bd-sidebar\1" role="complementary" aria-label="Book">',
    ),
)
FONT = re.compile(r'\s*<script defer src="[^"]*/fontawesome\.js[^"]*"></script>')
MATH = re.compile(r'<script defer="defer" src="[^"]*/tex-chtml\.js[^"]*"></script>')
SEARCH = re.compile(r'<script src="([^"]*(?:searchtools|language_data|searchindex)\.js)"></script>')
ICON = re.compile(
    r'("[\w-]+"|[a-z]\w*):\[\d+,\d+,\[[^\]]*\],"[0-9a-f]+",(?:"[^"]*"|\["[^"]*","[^"]*"\])\](,?)'
)


def in_order(html: str) -> str:
    """The deferred scripts in the order in which a reader misses them."""
    icons, math = FONT.search(html), MATH.search(html)
    if icons and math and icons.start() < math.start():
        html = html.replace(math[0], math[0] + icons[0], 1).replace(icons[0], "", 1)
    return html


def fewer_icons(script: str, used: set[str]) -> str:
    """Font Awesome's bundle without the pictures that no page uses (`used` holds names such as arrow-up)."""

    def keep(match: re.Match) -> str:
        return match[0] if match[1].strip('"') in used else ""

    return re.sub(r",\}", "}", ICON.sub(keep, script))


@lru_cache(maxsize=4096)
def _size(path: Path, stamp: int) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def lighter(path: Path) -> Path:
    """The same picture in fewer bytes: a WebP beside the PNG, without loss, or the PNG if that is smaller."""
    target = path.with_suffix(".webp")
    if path.suffix != ".png":
        return path
    if not target.is_file():
        part = path.with_suffix(".part")  # what is broken off is not taken for a picture
        with Image.open(path) as picture:
            picture.save(part, "WEBP", lossless=True, quality=60, method=4)
        part.replace(target)
    return min(path, target, key=lambda p: p.stat().st_size) if path.is_file() else target


def finish(html: str, folder: Path) -> str:
    """A page with lazy pictures and repaired names; `folder` is where its relative addresses start."""

    def picture(match: re.Match) -> str:
        attributes, source, slash = match.groups()
        path = lighter(folder / source)
        attributes = attributes.replace(source, source.rsplit("/", 1)[0] + f"/{path.name}")
        if "width=" not in attributes and path.suffix != ".svg":
            wide, high = _size(path, path.stat().st_mtime_ns)
            attributes = f'{attributes.rstrip()} width="{wide}" height="{high}"'
        return f'<img loading="lazy" decoding="async" {attributes.rstrip()}{slash}>'

    html = in_order(PICTURE.sub(picture, html))
    if 'id="search-results"' not in html:
        html = SEARCH.sub(r'<script defer src="\1"></script>', html)
    for pattern, repair in REPAIRS:
        html = re.sub(pattern, repair, html)
    return together(html)


MARKED = re.compile(
    r'([(\[“‘]*)(<span class="math notranslate nohighlight">[^<]*</span>)([.,;:!?)\]”’]*)'
)


def together(html: str) -> str:
    """A formula in a line and the marks around it: no line begins with a comma."""
    if 'class="together"' in html:
        return html

    def held(match: re.Match) -> str:
        return f'<span class="together">{match[0]}</span>' if match[1] or match[3] else match[0]

    return MARKED.sub(held, html)


def finish_all(app, exception) -> None:
    """Finish the pages of a build that succeeded."""
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    scripts = out / "_static" / "scripts"
    used = set()
    for page in out.rglob("*.html"):
        if "_static" in page.relative_to(out).parts:
            continue
        text = page.read_text(encoding="utf8")
        used |= set(re.findall(r"\bfa-([a-z0-9-]+)", text))
        new = finish(text, page.parent)
        if new != text:
            page.write_text(new, encoding="utf8")
    for picture in (out / "_images").glob("*.png"):  # named after their content
        if lighter(picture).suffix == ".webp":
            picture.unlink()
    for script in (scripts / "sphinx-book-theme.js", scripts / "pydata-sphinx-theme.js"):
        used |= set(re.findall(r"\bfa-([a-z0-9-]+)", script.read_text(encoding="utf8")))
    fonts = scripts / "fontawesome.js"
    fonts.write_text(fewer_icons(fonts.read_text(encoding="utf8"), used), encoding="utf8")


def setup(app) -> None:
    """Join the extension `book_ext`."""
    app.connect("build-finished", finish_all)
