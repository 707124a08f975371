"""How fast a live demo starts, and follows the hand: every slider of every demo, in Voila, in a real browser.

usage: python tests/benchmarks/live.py [steps] [NN ...]      (needs Chromium)

Starts what `make demo` starts, on a free port, and waits until every kernel of the pool is warm. "Ready" is
the time from opening a chapter's demo until its first figure has its controls and its picture; each is opened
in a fresh browser context, so nothing is cached. The two times of a slider are those of `pages.py`, from the
input event to the picture and to the second frame after it. Where Python answers, the picture counts when it
is the one that Python sent for this move. Nothing here is an assertion.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / "tests" / "book"),
    str(ROOT / "book" / "tools"),
    str(Path(__file__).parent),
]

from demo import command, environment, prepare  # noqa: E402
from pages import quantile  # noqa: E402
from sheets import sheets  # noqa: E402

DRAG = """async ([name, k, n]) => {
  const figure = document.querySelector(`#${name} figure.explorable`), f = figure.explorable;
  const s = figure.querySelectorAll("input[type=range]")[k], out = [];
  const frame = () => new Promise((r) => requestAnimationFrame(r));
  const mark = () => (f.spec.twin ? figure.dataset.painted : f.scene().n);  // Python numbers its scenes
  for (let i = 0; i < n; i++) {
    const at = ((i * 7 + 1) % 30) / 29, step = Number(s.step) || 1;
    const v = Number(s.min) + Math.round((at * (s.max - s.min)) / step) * step;
    if (Math.abs(Number(s.value) - v) < step / 2) continue;
    const before = mark(), began = performance.now();
    s.value = v;
    s.dispatchEvent(new Event("input", { bubbles: true }));
    while (mark() === before && performance.now() - began < 3000) await frame();
    const drawn = performance.now() - began;
    await frame();
    out.push([drawn, performance.now() - began]);
    await new Promise((r) => setTimeout(r, 30));
  }
  return out;
}"""


def kernels() -> list[tuple[float, float]]:
    """Processor seconds and megabytes of every kernel below this process (PSS: shared pages shared out)."""
    import psutil

    out = []
    for p in psutil.Process().children(recursive=True):
        try:
            if "ipykernel_launcher" in " ".join(p.cmdline()):
                out.append((sum(p.cpu_times()[:2]), p.memory_full_info().pss / 1e6))
        except psutil.Error:  # came and went
            continue
    return out


def warm(count: int) -> None:
    """Wait until the kernels do nothing any more: their processor time stands still."""
    began, last = time.perf_counter(), -1.0
    while True:
        time.sleep(4)
        now = kernels()
        spent = sum(s for s, _ in now)
        if len(now) >= count and spent - last < 0.3:
            wall, size = time.perf_counter() - began, sum(m for _, m in now)
            print(
                f"{len(now)} kernels warm after {wall:.0f} s and {spent:.0f} s of processor time; {size:.0f} MB in all"
            )
            return
        last = spent


def main(steps: int, only: list[str]) -> None:
    from conftest import FLAGS, chromium
    from playwright.sync_api import sync_playwright

    notebooks = prepare(only)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    base = f"http://localhost:{port}/"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    voila = subprocess.Popen(command(port, browser=False), cwd=ROOT, env=environment(), **quiet)
    try:
        while True:
            try:
                urllib.request.urlopen(base).close()
                break
            except OSError:
                time.sleep(0.5)
        warm(len(notebooks))
        ready, worst = [], []
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
            for notebook in notebooks:
                context = browser.new_context(viewport={"width": 1280, "height": 720})
                page = context.new_page()
                names = [e["figure"] for e in sheets(ROOT / "chapters" / notebook.name)]
                began = time.perf_counter()
                page.goto(
                    f"{base}voila/render/{notebook.name}", wait_until="commit", timeout=120_000
                )
                page.wait_for_selector(f"#{names[0]} .live [data-ready='1']", timeout=120_000)
                ready.append(time.perf_counter() - began)
                load = os.getloadavg()[0]
                print(
                    f"{notebook.stem}: ready after {ready[-1]:.2f} s (load {load:.1f})", flush=True
                )
                page.wait_for_load_state("load", timeout=120_000)
                for name in names:
                    page.evaluate("(n) => { location.hash = n; }", name)
                    page.wait_for_selector(f"#{name}:not([hidden])")
                    page.wait_for_timeout(300)
                    sliders = page.query_selector_all(f"#{name} input[type=range]")
                    for k, slider in enumerate(sliders):
                        times = page.evaluate(DRAG, [name, k, steps])
                        drawn, shown = ([t[i] for t in times] for i in (0, 1))
                        worst.append(quantile(shown, 0.95))
                        print(
                            f"  {name} / {slider.get_attribute('data-name')}: drawn p50 {quantile(drawn, 0.5):.0f} "
                            f"p95 {quantile(drawn, 0.95):.0f} ms, on the screen p50 {quantile(shown, 0.5):.0f} "
                            f"p95 {quantile(shown, 0.95):.0f} ms",
                            flush=True,
                        )
                context.close()
            browser.close()
        print(
            f"ready: median {statistics.median(ready):.2f}, most {max(ready):.2f} s; on the screen, p95: "
            f"median {statistics.median(worst):.0f}, most {max(worst):.0f} ms of {len(worst)} sliders"
        )
    finally:
        voila.terminate()
        voila.wait(30)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60, sys.argv[2:])
