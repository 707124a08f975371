"""How fast a live demo follows the hand: every slider of every demo, in Voila, in a real browser.

usage: python tests/benchmarks/live.py [steps]      (needs Chromium)

Starts what `make demo` starts, on a free port. "Ready" is the time from opening a demo until its
first figure has its controls and its picture, kernel included. The two times of a slider are those of
`pages.py`; in a live figure the moved value also goes to Python. Nothing here is an assertion.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / "tests" / "book"),
    str(ROOT / "book" / "tools"),
    str(Path(__file__).parent),
]

from demo import DEMOS, prepare  # noqa: E402
from pages import follow  # noqa: E402


def main(steps: int) -> None:
    from conftest import FLAGS, chromium
    from playwright.sync_api import sync_playwright

    prepare()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k != "BOOK_BUILD"}
    command = [sys.executable, "-m", "voila", str(DEMOS), f"--port={port}", "--no-browser"]
    voila = subprocess.Popen(
        [*command, "--preheat_kernel=True", "--pool_size=1"],
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(25)  # the pool heats up: imports of torch and matplotlib
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
            for notebook in sorted(DEMOS.glob("*.ipynb")):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                began = time.perf_counter()
                page.goto(f"http://127.0.0.1:{port}/voila/render/{notebook.name}", timeout=120_000)
                page.wait_for_selector("figure.explorable[data-ready='1']", timeout=120_000)
                print(f"{notebook.stem}: ready after {time.perf_counter() - began:.1f} s")
                page.wait_for_timeout(3000)
                for figure in page.query_selector_all("figure.explorable[data-ready='1']"):
                    figure.scroll_into_view_if_needed()
                    name = figure.query_selector(".ex-controls").get_attribute("aria-label")
                    follow(page, figure, name.removesuffix(", controls"), steps)
                page.close()
            browser.close()
    finally:
        voila.terminate()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
