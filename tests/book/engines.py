"""Two more browsers than Chromium, each spoken to in a protocol of the W3C's that it knows by itself.

Playwright drives Firefox and WebKit only in builds of its own, Selenium drives Firefox only through a program that Debian
has no package of. Firefox: WebDriver BiDi over a socket. WebKit, Safari's engine: WebDriver over HTTP, and a screen in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import websocket

PATIENCE = 120  # seconds for one answer


def firefox() -> str | None:
    """The program, if there is one."""
    return shutil.which("firefox-esr") or shutil.which("firefox")


def webkit() -> list[str] | None:
    """Screen, driver and browser, if all are there."""
    driver, screen = shutil.which("WebKitWebDriver"), shutil.which("xvfb-run")
    browsers = sorted(Path("/usr").glob("lib/*/webkit2gtk-4.*/MiniBrowser"))
    return [screen, driver, str(browsers[-1])] if driver and screen and browsers else None


class _Engine(contextlib.AbstractContextManager):
    """`go` to an address, `run` an expression of JavaScript there (a promise is waited for), read the `faults`."""

    def __init__(self) -> None:
        # warnings, errors and failed requests of this page; WebKit does not tell
        self.faults: list[str] = []
        self._process = self._launch()
        with contextlib.ExitStack() as failed:  # a start that fails leaves no process
            failed.callback(self._end)
            self._connect()
            failed.pop_all()

    def run(self, expression: str) -> Any:
        """The value, as JSON carries it."""
        made = f"Promise.resolve({expression}).then((v) => JSON.stringify(v ?? null))"
        return json.loads(self._promised(made))


class Firefox(_Engine):
    """Firefox without a screen."""

    def _launch(self) -> subprocess.Popen:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [firefox(), "--headless", "--no-remote", "--profile", self._folder.name]
        self._log = Path(self._folder.name, "stderr.txt")  # a pipe that nobody reads would fill up
        with self._log.open("w") as out:
            return subprocess.Popen(
                [*command, "--remote-debugging-port", "0"], stdout=subprocess.DEVNULL, stderr=out
            )

    def _connect(self) -> None:
        for _ in range(10 * PATIENCE):
            if listening := re.search(r"ws://\S+(?=\n)", self._log.read_text()):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("Firefox has not begun to listen")
        self._socket = websocket.create_connection(
            f"{listening[0]}/session", timeout=PATIENCE, suppress_origin=True
        )
        self._asked = 0
        self._ask("session.new", capabilities={})
        self._tab = self._ask("browsingContext.getTree")["contexts"][0]["context"]
        self._ask("session.subscribe", events=["log.entryAdded", "network.fetchError"])

    def _ask(self, method: str, **params: Any) -> Any:
        self._asked += 1
        self._socket.send(json.dumps({"id": self._asked, "method": method, "params": params}))
        while True:
            got = json.loads(self._socket.recv())
            if got["type"] == "event":
                self._hear(got["method"], got["params"])
            elif got["type"] == "error":
                raise RuntimeError(f"{method}: {got['error']}: {got['message']}")
            elif got["id"] == self._asked:
                return got["result"]

    def _hear(self, method: str, told: dict) -> None:
        if method == "network.fetchError":
            self.faults.append(f"failed: {told['request']['url']}: {told['errorText']}")
        elif told["level"] in ("warn", "error"):
            self.faults.append(f"{told['level']}: {told['text']}")

    def go(self, address: str, width: int, height: int) -> None:
        """Open a page in a window of this size."""
        size = {"width": width, "height": height}
        self._ask("browsingContext.setViewport", context=self._tab, viewport=size)
        # what the page before had asked for ends with it, and is no fault of this one
        self._ask("browsingContext.navigate", context=self._tab, url="about:blank", wait="complete")
        self.faults.clear()
        self._ask("browsingContext.navigate", context=self._tab, url=address, wait="complete")

    def _promised(self, expression: str) -> str:
        got = self._ask(
            "script.evaluate",
            expression=expression,
            awaitPromise=True,
            target={"context": self._tab},
        )
        assert got["type"] == "success", got["exceptionDetails"]["text"]
        return got["result"]["value"]

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._end()


class WebKit(_Engine):
    """WebKitGTK's own small browser."""

    def _launch(self) -> subprocess.Popen:
        screen, driver, self._browser = webkit()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        # `xvfb-run` is a shell script: its children end with the group
        return subprocess.Popen(
            [screen, "-a", "-s", "-screen 0 1400x1000x24", driver, f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _connect(self) -> None:
        options = {"binary": self._browser, "args": ["--automation"]}
        wanted = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
        for _ in range(100):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                self._session = self._ask("", capabilities=wanted)["sessionId"]
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("WebKit's driver has not begun to listen")
        self._ask("/timeouts", script=1000 * PATIENCE)

    def _ask(self, path: str, **params: Any) -> Any:
        session = f"/{self._session}" if hasattr(self, "_session") else ""
        request = urllib.request.Request(
            f"{self._address}/session{session}{path}",
            json.dumps(params).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {json.load(error)['value']}") from None

    def go(self, address: str, width: int, height: int) -> None:
        """Open a page in a window of this size, or of the least that the window can have."""
        self._ask("/window/rect", width=width, height=height)
        self._ask("/url", url=address)

    def _promised(self, expression: str) -> str:
        script = (
            "const done = arguments[0];"
            f"({expression}).then(done, (e) => done(JSON.stringify({{thrown: String(e)}})));"
        )
        got = self._ask("/execute/async", script=script, args=[])
        assert not got.startswith('{"thrown"'), got
        return got

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            request = urllib.request.Request(
                f"{self._address}/session/{self._session}", method="DELETE"
            )
            urllib.request.urlopen(request, timeout=10).close()
        self._end()

    def _end(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()


ENGINES = {"firefox": (Firefox, firefox), "webkit": (WebKit, webkit)}
