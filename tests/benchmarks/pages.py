"""How fast a page answers: weight as transferred, time to the first answer, slider to picture.

usage: python tests/benchmarks/pages.py [steps]      (after `make book`; needs Chromium)

Weight is what a static host sends: text compressed by gzip, the rest as it is. "First answer" is the
time from navigation until the first explorable figure has its controls and its picture. "Slider to
picture" is the time from an input event, sent 60 times per slider, until the second animation frame
after the figure has painted; two frames of a 60 Hz screen are 33 ms. Nothing here is an assertion.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import statistics
import sys
import threading
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "book"))
HTML = ROOT / "_build" / "html"
TEXT = (".html", ".js", ".css", ".svg", ".json")

DRAG = """async ([figure, k, n]) => {
  const s = figure.querySelectorAll("input[type=range]")[k], out = [];
  const frame = () => new Promise((r) => requestAnimationFrame(r));
  for (let i = 0; i < n; i++) {
    const f = ((i * 7 + 1) % 30) / 29, step = Number(s.step) || 1;
    const v = Number(s.min) + Math.round((f * (s.max - s.min)) / step) * step;
    if (Number(s.value) === v) continue;
    const painted = figure.dataset.painted, began = performance.now();
    s.value = v;
    s.dispatchEvent(new Event("input", { bubbles: true }));
    while (figure.dataset.painted === painted && performance.now() - began < 2000) await frame();
    const drawn = performance.now() - began;
    await frame();
    out.push([drawn, performance.now() - began]);
  }
  return out;
}"""

FIRST = """() => new Promise((done) => {
  const look = () => document.querySelector("figure.explorable[data-ready='1']")
    ? done(performance.now()) : requestAnimationFrame(look);
  if (!document.querySelector("figure.explorable")) done(null); else look();
})"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves without a word."""

    def log_message(self, *_: object) -> None:
        pass


def quantile(values: list[float], q: float) -> float:
    """The value below which a part q lies."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def weight(paths: set[str]) -> int:
    """Bytes as a static host sends them."""
    total = 0
    for path in paths:
        body = (HTML / path).read_bytes()
        total += len(gzip.compress(body, 6)) if path.endswith(TEXT) else len(body)
    return total


def follow(page, figure, name: str, steps: int) -> None:
    """Move every slider of a figure and print how fast its picture follows."""
    for k, slider in enumerate(figure.query_selector_all("input[type=range]")):
        times = page.evaluate(DRAG, [figure, k, steps])
        drawn, shown = ([t[i] for t in times] for i in (0, 1))
        print(
            f"  {name} / {slider.get_attribute('data-name')}: "
            f"drawn p50 {quantile(drawn, 0.5):.0f} p95 {quantile(drawn, 0.95):.0f} ms, "
            f"on the screen p50 {quantile(shown, 0.5):.0f} p95 {quantile(shown, 0.95):.0f} ms"
        )


def main(steps: int) -> None:
    from conftest import FLAGS, chromium
    from playwright.sync_api import sync_playwright

    handler = functools.partial(Quiet, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    names = [toc["root"], *(c["file"] for p in toc["parts"] for c in p["chapters"])]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        for name in names:
            firsts, got = [], set()
            for _ in range(3):
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                page = context.new_page()
                page.on(
                    "response", lambda r, got=got: got.add(r.url.removeprefix(base).split("?")[0])
                )
                page.goto(f"{base}{name}.html")
                firsts.append(page.evaluate(FIRST))
                page.wait_for_load_state("networkidle")
                if len(firsts) < 3:
                    context.close()
            own = weight({f"{name}.html", *(g for g in got if g.startswith("_images/"))})
            all_of_it = weight({g for g in got if (HTML / g).is_file()})
            line = f"{name}: {all_of_it / 1e6:.2f} MB transferred, {own / 1e6:.2f} MB of it its own"
            if firsts[0] is not None:
                line += f"; first answer after {statistics.median(firsts):.0f} ms"
            print(line)
            for figure in page.query_selector_all("figure.explorable"):
                figure.scroll_into_view_if_needed()
                follow(page, figure, figure.get_attribute("aria-label"), steps)
            context.close()
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
