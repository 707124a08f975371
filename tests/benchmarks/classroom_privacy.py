"""What one student tries against another in `classroom.py`: with cookies, with tokens, and from a kernel."""

from __future__ import annotations

import json
import threading
import uuid

import requests
import websocket
from classroom_student import Student

# Run in the first student's kernel. It says what happened and decides nothing.
PROBE = """
import json, os, time, urllib.error, urllib.request

def look(path):
    try:
        return "listed" if os.path.isdir(path) and os.listdir(path) is not None else open(path, "rb").read(1) and "read"
    except OSError as error:
        return type(error).__name__

def get(url, token):
    request = urllib.request.Request(url, headers={"Authorization": "token " + token} if token else {})
    try:
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code

token = os.environ["JUPYTERHUB_API_TOKEN"]
print(json.dumps({
    "uid": os.getuid(),
    "looked": {path: look(path) for path in PATHS},
    "asked": {url: [get(url, ""), get(url, token)] for url in URLS},
    "environment": sorted(os.environ),
}))
"""
# Every port that another user's processes listen on, heard for some seconds as a kernel's front end would.
LISTEN = """
import json, os, time, zmq
rows = [line.split() for line in open("/proc/net/tcp").readlines()[1:]]
ports = [int(r[1].split(":")[1], 16) for r in rows if r[3] == "0A" and r[7] != str(os.getuid()) and r[7] != "0"]
socket = zmq.Context.instance().socket(zmq.SUB)
socket.setsockopt(zmq.SUBSCRIBE, b"")
for port in ports:
    socket.connect(f"tcp://127.0.0.1:{port}")
end, heard = time.time() + 6, b""
while time.time() < end:
    if socket.poll(200):
        heard += b"".join(socket.recv_multipart())
socket.close(linger=0)
print(json.dumps([len(ports), heard.decode("latin1")]))
"""


def strangers(a: Student, b: Student, path: str, secret: str, inside: dict | None) -> int:
    """`a` tries to reach what is `b`'s; `secret` stands in b's notebook. Returns how many attempts were refused.

    `inside`: for tries from a's kernel, the paths that a must not read and the addresses a must be refused at;
    None where all students are one Unix user.
    """
    refused = 0
    mine = f"{a.base}/hub/api/users/{a.name}/tokens"
    made = a.ask("POST", mine, json={"note": "probe"})
    assert made.status_code == 201, f"{a.name} gets no token: {made.status_code}"
    token = made.json()["token"]

    def own(answer: requests.Response) -> bool:
        return answer.ok and secret not in answer.text

    bare = {"headers": {"Authorization": f"token {token}"}, "timeout": 60}
    check = requests.get(f"{a.home}/api/contents/{path}", **bare)
    assert own(check), (
        "the probe's token must open the student's own server, or its refusal elsewhere says nothing"
    )

    server = [
        ("GET", "/lab"), ("GET", "/api/contents"), ("GET", f"/api/contents/{path}"),
        ("GET", f"/files/{path}"), ("GET", "/api/sessions"), ("GET", "/api/kernels"),
        ("GET", "/api/terminals"), ("PUT", "/api/contents/mine.txt"), ("DELETE", f"/api/contents/{path}"),
        ("POST", "/api/kernels"), ("POST", "/api/terminals"), ("POST", f"/api/kernels/{b.kernel}/restart"),
        ("GET", "/git-pull?repo=x"),
    ]  # fmt: skip
    hub = [
        ("GET", f"/users/{b.name}"), ("GET", f"/users/{b.name}/tokens"), ("POST", f"/users/{b.name}/tokens"),
        ("GET", "/users"), ("POST", f"/users/{b.name}/server"), ("DELETE", f"/users/{b.name}/server"),
        ("GET", "/proxy"), ("POST", "/shutdown"), ("DELETE", f"/users/{b.name}"),
    ]  # fmt: skip
    tries = [(m, b.home + p) for m, p in server] + [(m, f"{a.base}/hub/api{p}") for m, p in hub]
    for method, url in tries:
        body = (
            {"json": {"type": "file", "format": "text", "content": "x"}} if method == "PUT" else {}
        )
        as_browser = a.ask(method, url, allow_redirects=True, **body)
        with_token = requests.request(method, url, **bare, **body)
        unknown = requests.request(method, url, timeout=60, **body)
        for who, answer in [("cookies", as_browser), ("token", with_token), ("nobody", unknown)]:
            to_login = who == "nobody" and "/hub/login" in answer.url
            assert answer.status_code in (403, 404) or to_login, (
                f"{who} of {a.name}: {method} {url} gave {answer.status_code}"
            )
            assert secret not in answer.text
            refused += 1
    try:
        a.open_socket(b.home, b.kernel).close()
    except websocket.WebSocketBadStatusException as error:
        assert error.status_code in (403, 404), error.status_code
        refused += 1
    else:
        raise AssertionError(f"{a.name} has a WebSocket to the kernel of {b.name}")
    if inside is None:
        return refused

    code = f"PATHS, URLS = {inside['paths']!r}, {inside['urls']!r}\n{PROBE}"
    found = json.loads(a.prints(code))
    for where, what in found["looked"].items():
        assert what == "PermissionError", f"{a.name}'s kernel: {where} {what}"
    for url, codes in found["asked"].items():
        assert set(codes) <= {401, 403, 404}, f"{a.name}'s kernel: {url} gave {codes}"
    assert "CONFIGPROXY_AUTH_TOKEN" not in found["environment"]
    refused += len(found["looked"]) + 2 * len(found["asked"])

    word = uuid.uuid4().hex
    talk = f"import time\nfor _ in range(40):\n    print('{word}', flush=True)\n    time.sleep(0.2)"
    speaker = threading.Thread(target=b.run, args=(talk,))
    speaker.start()
    ports, heard = json.loads(a.prints(LISTEN))
    speaker.join()
    assert ports > 0, "the listener found no port of another student, so its silence says nothing"
    assert word not in heard, f"{a.name} hears what {b.name}'s kernel prints: kernels on TCP ports"
    return refused + 1
