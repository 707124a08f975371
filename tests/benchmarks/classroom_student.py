"""A student of `classroom.py`: what a browser with JupyterLab asks of the hub, over HTTP and the kernel's WebSocket."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
import time
import uuid
from urllib.parse import urljoin, urlsplit

import requests
import websocket


class Student:
    """Logs in, follows the link to a chapter, runs it, saves it. Seconds of each step are in `took`."""

    def __init__(self, name: str, base: str, patience: float = 600.0):
        self.name, self.base, self.patience = name, base.rstrip("/"), patience
        self.home = f"{self.base}/user/{name}"
        self.http = requests.Session()
        self.took: dict[str, float] = {}
        self.reloads = 0  # of a page that said the hub does not answer
        self.kernel, self.socket, self.session = "", None, uuid.uuid4().hex

    # ------------------------------------------------------------------ pages and interfaces

    def xsrf(self, path: str) -> str:
        """The token of the cookie with the longest path that leads to `path`, as a browser picks it."""
        fit = [
            c
            for c in self.http.cookies
            if c.name == "_xsrf" and path.startswith(c.path.rstrip("/"))
        ]
        return max(fit, key=lambda c: len(c.path)).value if fit else ""

    def ask(self, method: str, url: str, **options) -> requests.Response:
        """A request as JupyterLab and the hub's pages make it; follows no redirect, so that a 302 is seen."""
        headers = {"X-XSRFToken": self.xsrf(urlsplit(url).path), "Referer": self.home}
        headers |= options.pop("headers", {})
        options = {"timeout": self.patience, "allow_redirects": False} | options
        return self.http.request(method, url, headers=headers, **options)

    def api(self, method: str, path: str, **options) -> dict:
        """An answer of the student's own server, which must be a good one."""
        answer = self.ask(method, f"{self.home}/api/{path}", **options)
        assert answer.ok, (
            f"{self.name}: {method} {path} gave {answer.status_code} {answer.text[:300]}"
        )
        return answer.json() if answer.content else {}

    def login(self, password: str) -> None:
        page = self.http.get(f"{self.base}/hub/login", timeout=self.patience)
        assert page.ok, f"no login page: {page.status_code}"
        form = {"username": self.name, "password": password, "_xsrf": self.xsrf("/hub/login")}
        answer = self.ask("POST", f"{self.base}/hub/login", data=form)
        assert answer.status_code == 302, f"{self.name} cannot log in: {answer.status_code}"

    def follow(self, link: str) -> None:
        """Open an nbgitpuller link: the hub starts the server, the puller brings the book, JupyterLab opens."""
        began = time.perf_counter()
        while True:  # the hub's page of a starting server reloads itself
            try:
                page = self.http.get(link, timeout=self.patience)
            except (
                requests.ConnectionError
            ):  # kept alive to a server that is gone; a browser tries again
                time.sleep(1)
                continue
            if page.ok and urlsplit(page.url).path == f"/user/{self.name}/git-pull":
                break
            if page.status_code == 500 and "Failed to connect to Hub API" in page.text:
                self.reloads += 1  # a hub that is too busy to answer within 20 s: the page says so
                time.sleep(1)
                continue
            assert page.status_code in (200, 424, 503), (
                f"{self.name}: {page.url} {page.status_code}"
            )
            if "/spawn-pending/" not in page.url and "/hub/" in page.url:  # "Start my server"
                self.http.get(f"{self.base}/hub/spawn/{self.name}", timeout=self.patience)
            assert time.perf_counter() - began < self.patience, (
                f"{self.name}: no server, {page.url}"
            )
            time.sleep(1)
        self.took["server"] = time.perf_counter() - began
        query = {k: v for k, _, v in (p.partition("=") for p in urlsplit(link).query.split("&"))}
        began, last = time.perf_counter(), {}
        url = f"{self.home}/git-pull/api"
        wanted = {k: requests.utils.unquote(query[k]) for k in ("repo", "branch", "targetpath")}
        with self.ask("GET", url, params=wanted, stream=True) as events:
            assert events.ok, f"{self.name}: the puller answers {events.status_code}"
            for line in events.iter_lines():
                if line.startswith(b"data: "):
                    last = json.loads(line[6:])
        assert last.get("phase") == "finished", f"{self.name}: {last}"
        self.took["pull"] = time.perf_counter() - began
        began = time.perf_counter()
        page = self.http.get(f"{self.home}/{query['urlpath']}", timeout=self.patience)
        assert page.ok and "jupyter-config-data" in page.text, f"{self.name}: no JupyterLab"
        for source in re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', page.text):
            self.http.get(urljoin(page.url, source), timeout=self.patience)
        self.took["lab"] = time.perf_counter() - began

    # ------------------------------------------------------------------ the notebook and its kernel

    def load(self, path: str) -> dict:
        """The notebook as the server has it on disk."""
        return self.api("GET", f"contents/{path}?content=1&type=notebook")["content"]

    def save(self, path: str, notebook: dict) -> None:
        self.api("PUT", f"contents/{path}", json={"type": "notebook", "content": notebook})

    def start_kernel(self, path: str) -> None:
        about = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        self.kernel = self.api("POST", "sessions", json=about)["kernel"]["id"]
        self.connect()

    def connect(self) -> None:
        """The WebSocket to the kernel, with the cookies of the browser. A thread reads it and so answers pings."""
        self.socket = self.open_socket(self.home, self.kernel)
        self.inbox: queue.Queue[str | bytes] = queue.Queue()
        threading.Thread(target=_listen, args=(self.socket, self.inbox), daemon=True).start()
        assert self.say("kernel_info_request", {})["status"] == "ok"

    def open_socket(self, home: str, kernel: str) -> websocket.WebSocket:
        path = f"{urlsplit(home).path}/api/kernels/{kernel}/channels"
        cookies = requests.cookies.get_cookie_header(
            self.http.cookies, requests.Request("GET", self.base + path).prepare()
        )
        url = f"{self.base.replace('http', 'ws', 1)}{path}?session_id={self.session}"
        return websocket.create_connection(
            url, cookie=cookies, origin=self.base, timeout=self.patience,
            header={"X-XSRFToken": self.xsrf(path)},
        )  # fmt: skip

    def send(self, kind: str, content: dict) -> str:
        head = {
            "msg_id": uuid.uuid4().hex, "msg_type": kind, "username": self.name,
            "session": self.session, "version": "5.3", "date": "",
        }  # fmt: skip
        message = {"header": head, "parent_header": {}, "metadata": {}, "content": content}
        self.socket.send(json.dumps({**message, "channel": "shell", "buffers": []}))
        return head["msg_id"]

    def receive(self) -> dict:
        data = self.inbox.get(timeout=self.patience)
        assert data, f"{self.name}: the kernel's WebSocket was closed"
        if isinstance(data, bytes):  # with buffers: offsets first, then the JSON
            count = int.from_bytes(data[:4], "big")
            ends = [int.from_bytes(data[4 * i : 4 * i + 4], "big") for i in range(1, count + 1)]
            data = data[ends[0] : ends[1] if count > 1 else None]
        return json.loads(data)

    def say(self, kind: str, content: dict, outputs: list | None = None) -> dict:
        """Send on the shell channel and read until reply and idleness are here; the reply's content."""
        key, reply, idle = self.send(kind, content), None, False
        while reply is None or not idle:
            message = self.receive()
            if message["parent_header"].get("msg_id") != key:
                continue
            what, body = message["header"]["msg_type"], message["content"]
            if message["channel"] == "shell":
                reply = body
            elif what == "status":
                idle = body["execution_state"] == "idle"
            elif outputs is not None and what in ("stream", "error"):
                outputs.append({"output_type": what, **body})
            elif outputs is not None and what in ("display_data", "execute_result"):
                body.pop("transient", None)
                outputs.append({"output_type": what, **body})
        return reply

    def run(self, code: str) -> list[dict]:
        """Execute one cell; its outputs. An error of the cell is an error here."""
        outputs: list[dict] = []
        about = {"silent": False, "store_history": True, "allow_stdin": False}
        reply = self.say("execute_request", {"code": code, **about}, outputs)
        assert reply["status"] == "ok", f"{self.name}: {reply.get('evalue')} in\n{code}"
        self.count = reply["execution_count"]
        return outputs

    def prints(self, code: str) -> str:
        return printed(self.run(code))

    def run_all(self, notebook: dict) -> None:
        """All code cells from the top; their outputs go where JupyterLab puts them."""
        began = time.perf_counter()
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                known = printed(cell["outputs"])
                cell["outputs"] = self.run("".join(cell["source"]))
                cell["execution_count"] = self.count
                if "nbval-check-output" in cell["metadata"].get("tags", []):
                    got = printed(cell["outputs"])
                    assert got == known, f"{self.name} reads\n{got}instead of\n{known}"
        self.took["run"] = time.perf_counter() - began


def _listen(socket: websocket.WebSocket, inbox: queue.Queue) -> None:
    """Put what comes into `inbox`, and an empty text when nothing will come any more."""
    with contextlib.suppress(websocket.WebSocketException, OSError):
        while data := socket.recv():
            inbox.put(data)
    inbox.put("")


def printed(outputs: list[dict]) -> str:
    """What a cell's outputs say on stdout."""
    texts = (o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == "stdout")
    return "".join(t if isinstance(t, str) else "".join(t) for t in texts)
