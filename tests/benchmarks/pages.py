"""How fast a page answers: weight as transferred, time to the first answer, slider to picture.

usage: python tests/benchmarks/pages.py [steps [page ...]]      (after `make book`; needs Chromium)

Weight is what a static host sends: text compressed by gzip, the rest as it is. "First answer" is the
time from navigation until the first explorable figure has its controls and its picture. "Slider to
picture" is the time from an input event, sent 60 times per slider, until the second animation frame
after the figure has painted; two frames of a 60 Hz screen are 33 ms. "Readable at 10 Mbit/s" is the time from
navigation, with an empty cache, 20 ms of latency and the throughput held to 10 Mbit/s by the browser, until text is
painted and until the formulas in the window are set. Nothing here is an assertion.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import statistics
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "book"), str(ROOT / "book" / "tools")]
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


READABLE = """async () => {
  while (!performance.getEntriesByName("formulas-in-window").length) await new Promise((r) => setTimeout(r, 10));
  const text = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  return [text, performance.getEntriesByName("formulas-in-window")[0].startTime];
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves without a word, and text compressed, as a static host does."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path.split("?")[0]))
        if path.suffix not in TEXT or not path.is_file():
            return super().do_GET()
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


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


def readable(browser, address: str) -> tuple[float, float]:
    """Milliseconds at 10 Mbit/s until text is painted, and until the formulas in the window are set."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    line = context.new_cdp_session(page)
    line.send("Network.enable")
    line.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 20, "downloadThroughput": 1.25e6, "uploadThroughput": 1.25e6},
    )
    page.goto(address, wait_until="commit")
    times = page.evaluate(READABLE)
    context.close()
    return times


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


def main(steps: int, only: list[str]) -> None:
    from conftest import FLAGS, chromium
    from notebooks import contents
    from playwright.sync_api import sync_playwright

    handler = functools.partial(Quiet, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    names = contents()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        for name in only or names:
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
            slow = [readable(browser, f"{base}{name}.html") for _ in range(3)]
            text, formulas = (statistics.median(s[i] for s in slow) for i in (0, 1))
            line += f"; at 10 Mbit/s text after {text:.0f} ms, formulas in the window after {formulas:.0f} ms"
            print(line, flush=True)
            for figure in page.query_selector_all("figure.explorable"):
                figure.scroll_into_view_if_needed()
                follow(page, figure, figure.get_attribute("aria-label"), steps)
            context.close()
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60, sys.argv[2:])
