"""What the book's own tests share: the built pages, a server for them, a browser."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
collect_ignore_glob = ["*.ipynb"]  # the canary must fail, in its own test
NO_BROWSER = (
    "the pages were NOT opened in a browser: there is no Chromium here. Install one (Debian, Ubuntu: "
    "'sudo apt install chromium') or name one with BOOK_CHROMIUM=/path/to/chromium"
)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def built() -> Path:
    """The pages, built from the tree as it is (the build holds a lock: other workers wait)."""
    run = subprocess.run(
        [sys.executable, str(ROOT / "book" / "tools" / "build.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return HTML


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def site(built: Path) -> str:
    """The pages over http."""
    handler = functools.partial(_Quiet, directory=str(built))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def chromium() -> str | None:
    """The browser to use: BOOK_CHROMIUM, or one on the path."""
    given = os.environ.get("BOOK_CHROMIUM")
    if given:
        assert Path(given).exists(), f"BOOK_CHROMIUM names {given}, which does not exist"
        return given
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser():
    """Chromium, closed to everything but what a test opens."""
    path = chromium()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(NO_BROWSER)
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        yield p.chromium.launch(executable_path=path, args=FLAGS)
