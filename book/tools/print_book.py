"""The book on paper: one PDF from the pages, through Chromium.

usage: print_book.py [NN ...]      (`make pdf`; builds the book first, writes _build/deep-generative-models.pdf)

The articles of all pages (or of the chapters named) go into one document with a title page and a list of contents. Explorable
figures become their stills with the sentence about them, what is folded opens, formulas are set by MathJax and fitted to the
column, long lines of code wrap. Chromium prints twice: the first time tells on which page each chapter begins.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

from bs4 import BeautifulSoup
from build import BUILD, HTML
from build import main as build
from notebooks import contents

from lib.paths import commit

OUT = BUILD / "deep-generative-models.pdf"
WIDTH = 680  # CSS pixels between the margins of A4: (210 - 2 * 15) mm
DROP = "script, details.hide, .headerlink, .copybtn, .ex-controls, .prev-next-footer, button, .term-says, style"
FOOTER = (
    '<div style="width:100%;text-align:center;font:9px sans-serif;color:#444">'
    '<span class="pageNumber"></span></div>'
)
STYLE = """
html { font-size: 62.5%; } html body { font-size: 1.55rem; line-height: 1.45; background: #fff; color: #000; margin: 0; }
#book { width: auto; max-width: none; }
#book article.page { break-before: page; }
#book h1 { font-size: 2.6rem; } #book h2 { font-size: 2.1rem; } #book h3 { font-size: 1.8rem; }
#book h1, #book h2, #book h3, #book summary { break-after: avoid; }
#book pre { white-space: pre-wrap !important; overflow-wrap: anywhere; font-size: 1.15rem; line-height: 1.35; overflow: visible !important; }
#book div.math, #book div.cell_output, #book table { overflow: visible !important; mask-image: none; }
#book table { display: table; width: 100%; font-size: 1.25rem; table-layout: auto; }
#book td, #book th { overflow-wrap: anywhere; padding: 0.3rem 0.5rem; }
#book .landscape table { font-size: 0.95rem; }
#book div.cell, #book div.cell_input, #book pre { break-inside: auto; }
#book img { max-width: 100%; height: auto; } #book figure { break-inside: avoid; margin: 1rem 0; }
#book .ex-say { font-size: 1.2rem; margin: 0.4rem 0 0; }
#book ol, #book ul { padding-left: 2.6em; } #book .contents ol { padding: 0; }
#book a { color: inherit; text-decoration: none; } #book .contents a { color: #000; }
#book details > summary { list-style: none; }
.title-page { height: 92vh; display: flex; flex-direction: column; justify-content: center; text-align: center; }
#book .title-page h1 { font-size: 4.5rem; } .title-page p { font-size: 1.8rem; }
.contents ol { list-style: none; padding: 0; } .contents li { display: flex; gap: 0.5rem; margin: 0.55rem 0; }
.contents li::before { content: none; } .contents .dots { flex: 1; border-bottom: 1px dotted #888; }
.contents .at { min-width: 4ch; text-align: right; font-variant-numeric: tabular-nums; }
"""
MATHJAX = """window.MathJax = {startup: {typeset: true}, options: {enableMenu: false, enableAssistiveMml: false,
  processHtmlClass: 'math', ignoreHtmlClass: 'book'}, tex: {tags: 'none'}};"""
# Formulas wider than the page are set smaller, tables that stay wider get smaller type. Then: what is still cut off?
FIT = """(width) => {
  for (const box of document.querySelectorAll("#book div.math")) {
    const formula = box.querySelector("mjx-container");
    if (formula && box.scrollWidth > box.clientWidth)
      formula.style.fontSize = (parseFloat(formula.style.fontSize) || 100) * 0.98 * box.clientWidth / box.scrollWidth + "%";
  }
  for (const formula of document.querySelectorAll("#book span.math > mjx-container")) {
    const wide = formula.getBoundingClientRect().width; // one piece: it moves to a line of its own, or is too long for any
    const room = formula.closest("p, li, td, th, dd, figcaption, div").clientWidth;
    if (wide > room) formula.style.fontSize = (parseFloat(formula.style.fontSize) || 100) * 0.98 * room / wide + "%";
  }
  for (const table of document.querySelectorAll("#book table"))
    if (table.scrollWidth > width || table.getBoundingClientRect().right > width + 1) table.parentElement.classList.add("landscape");
  return [...document.querySelectorAll("#book *")].filter((e) => {
    const r = e.getBoundingClientRect();
    return r.width && r.right > width + 1 && !e.closest("mjx-assistive-mml");
  }).slice(0, 10).map((e) => e.tagName + " " + e.className + " " + e.textContent.slice(0, 60));
}"""


def chromium() -> str:
    """The browser: BOOK_CHROMIUM, or one on the path. Raises ValueError if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("BOOK_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise ValueError(
            "no Chromium: install one or name one with BOOK_CHROMIUM=/path/to/chromium"
        )
    return found


def pages(only: list[str]) -> list[str]:
    """The pages in the order of the contents, or the chapters whose numbers are named."""
    names = contents()
    if not only:
        return names
    chosen = [n for n in names if n.split("/")[1][:2] in only]
    if len(chosen) != len(set(only)):
        raise ValueError(f"chapters are named by two digits, as in 01; got {' '.join(only)}")
    return chosen


def slug(name: str) -> str:
    return (
        name.split("/")[-1].split("_")[0] if name.startswith("chapters/") else name.split("/")[-1]
    )


def article(html: Path, name: str, all_of_them: list[str]) -> BeautifulSoup:
    """The article of a page, with ids, links and pictures that hold in the whole document."""
    soup = BeautifulSoup((html / f"{name}.html").read_text(encoding="utf8"), "html.parser")
    body = soup.select_one("article.bd-article")
    for figure in body.select("figure.explorable"):
        said = figure.select_one("img.ex-still")
        line = soup.new_tag("p", attrs={"class": "ex-say"})
        line.string = said["alt"]
        figure.append(line)
    for node in body.select(DROP):
        node.decompose()
    own, folder = slug(name), name.rsplit("/", 1)[0]
    for node in body.select("[id]"):
        node["id"] = f"{own}--{node['id']}"
    for node in body.select("[aria-describedby]"):
        del node["aria-describedby"]
    targets = {os.path.normpath(f"{n}.html"): slug(n) for n in all_of_them}
    for link in body.select("a[href]"):
        path, _, mark = link["href"].partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        where = os.path.normpath(os.path.join(folder, path)) if path else f"{name}.html"
        if where in targets:
            link["href"] = f"#{targets[where]}--{mark}" if mark else f"#{targets[where]}"
        else:
            link.unwrap()
    for picture in body.select("img[src]"):
        picture.attrs.pop("loading", None)
        if not picture["src"].startswith("data:"):
            picture["src"] = "../html/" + os.path.normpath(os.path.join(folder, picture["src"]))
    for fold in body.select("details"):
        fold["open"] = ""
    body["id"], body["class"] = own, ["page", "bd-article"]
    return body


def title(body: BeautifulSoup) -> str:
    return " ".join(body.select_one("h1").get_text(" ").split())


def document(html: Path, names: list[str], at: dict[str, int], about: str) -> str:
    """The whole book as one HTML page; `at` holds the page numbers of the contents, as far as they are known."""
    bodies = {slug(n): article(html, n, names) for n in names}
    rows = "".join(
        f'<li><a href="#{s}">{title(b)}</a><span class="dots"></span><span class="at">{at.get(s, 0)}</span></li>'
        for s, b in bodies.items()
    )
    page = BeautifulSoup((html / f"{names[0]}.html").read_text(encoding="utf8"), "html.parser")
    sheets = "".join(
        f'<link rel="stylesheet" href="../html/_static/{s["href"].split("_static/")[1].split("?")[0]}">'
        for s in page.select('link[rel="stylesheet"]')
        if "_static/" in s["href"]
    )
    return f"""<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">
<title>Deep generative models</title>{sheets}<style>{STYLE}</style><script>{MATHJAX}</script>
<script defer src="../html/_static/vendor/mathjax/tex-chtml.js"></script></head><body><div id="book" class="book">
<section class="title-page"><h1>Deep generative models</h1><p>An interactive textbook</p><p>{about}</p></section>
<article class="page contents"><h1>Contents</h1><ol>{rows}</ol></article>
{"".join(str(b) for b in bodies.values())}</div></body></html>"""


def page_numbers(pdf: bytes) -> dict[str, int]:
    """The page, from 1, on which each named destination lies. Reads the plain objects that Chromium writes."""
    text = pdf.decode("latin-1")
    objects = {int(n): b for n, b in re.findall(r"(?:^|\n)(\d+) 0 obj\s(.*?)\sendobj", text, re.S)}
    root = next(b for b in objects.values() if re.search(r"/Type\s*/Catalog", b))

    def leaves(number: int) -> list[int]:
        kids = re.search(r"/Kids\s*\[(.*?)\]", objects[number], re.S)
        if not kids:
            return [number]
        return [leaf for k in re.findall(r"(\d+) 0 R", kids[1]) for leaf in leaves(int(k))]

    order = leaves(int(re.search(r"/Pages\s+(\d+) 0 R", root)[1]))
    places = {n: k for k, n in enumerate(order, 1)}
    found = re.findall(r"/([\w#-]+)\s*\[\s*(\d+) 0 R\s*/XYZ", text)
    names = {re.sub(r"#([0-9A-Fa-f]{2})", lambda m: chr(int(m[1], 16)), n): p for n, p in found}
    return {n: places[int(p)] for n, p in names.items() if int(p) in places}


def count(pdf: bytes) -> int:
    """The number of pages."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


def printed(
    browser, names: list[str], out: Path, html: Path = HTML, about: str = "", times: int = 2
) -> dict:
    """Print pages into `out`. Returns the number of pages and what is cut off at the right (should be empty).

    The first of two `times` finds the page numbers that the second one writes into the contents.
    """
    html = html.resolve()
    folder = html.parent / "print"
    folder.mkdir(exist_ok=True)
    file, at, cut, pdf = folder / "book.html", {}, [], b""
    for _ in range(times):
        file.write_text(document(html, names, at, about), encoding="utf8")
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 1000}, color_scheme="light", device_scale_factor=1
        )
        page.set_default_timeout(0)
        page.emulate_media(media="print")
        page.goto(file.as_uri())
        page.evaluate("async () => { await MathJax.startup.promise; await document.fonts.ready; }")
        page.evaluate(FIT, WIDTH)  # a table that got smaller type may need a smaller formula
        cut = page.evaluate(FIT, WIDTH)
        pdf = page.pdf(
            format="A4",
            margin={"top": "14mm", "bottom": "16mm", "left": "15mm", "right": "15mm"},
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
        page.close()
        at = page_numbers(pdf)
    out.write_bytes(pdf)
    starts = {slug(n): at.get(slug(n), 0) for n in names}
    return {"pages": count(pdf), "cut": cut, "starts": starts, "bytes": len(pdf)}


def main(arguments: list[str]) -> int:
    code = build([])
    if code:
        return code
    names = pages(arguments)
    out = OUT if not arguments else OUT.with_name(f"chapters-{'-'.join(arguments)}.pdf")
    from playwright.sync_api import sync_playwright

    about = f"Version {commit()}. On paper a figure that moves is a still."
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        done = printed(browser, names, out, about=about)
        browser.close()
    if done["cut"]:
        print("cut off at the right margin:\n  " + "\n  ".join(done["cut"]))
    print(f"{out.as_uri()}: {done['pages']} pages, {done['bytes'] / 1e6:.1f} MB")
    print("chapters begin on pages " + json.dumps(done["starts"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
