"""A JupyterHub for `classroom.py`: installed on first use, started on free ports of this machine, ended by pid."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import site
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import requests
from hub import FOLDER, repository
from notebooks import ROOT

ENV = ROOT / "_build" / "classroom"
FIRST_UID = 61001  # user numbers of the students; no entry in the password file
# What the Helm chart 4.4.0 runs (see deploy/values.yaml), and the puller of .binder/requirements.txt.
HUB, PULLER, PROXY = "jupyterhub==5.5.0", "nbgitpuller==1.3.0", "configurable-http-proxy@5.1.0"


def git(*words: str) -> None:
    subprocess.run(["git", *words], check=True, cwd=ROOT)


def _as_student(python: str) -> bool:
    """Whether a student's user may run this Python, with the book's packages and this folder."""
    code = f"import sys; sys.path[:0] = [{site.getsitepackages()[0]!r}]; import zmq; open({__file__!r})"
    with contextlib.suppress(OSError):
        who = {"user": FIRST_UID, "group": FIRST_UID, "extra_groups": []}
        return (
            subprocess.run([python, "-c", code], capture_output=True, check=False, **who).returncode
            == 0
        )
    return False


def _pythons() -> list[str]:
    name = "python{}.{}".format(*sys.version_info)
    return [
        os.path.realpath(sys.executable),
        *(f"{d}/{name}" for d in ("/usr/bin", "/usr/local/bin")),
    ]


def separate_users() -> bool:
    """Whether each student can be a Unix user: we are root, and a Python is there that others may run."""
    return os.getuid() == 0 and any(_as_student(p) for p in _pythons() if os.path.exists(p))


def install() -> tuple[Path, Path]:
    """The class's Python and proxy, made if they are not there."""
    python, proxy = (
        ENV / "bin" / "python",
        ENV / "node_modules" / ".bin" / "configurable-http-proxy",
    )
    if not python.exists():
        candidates = [p for p in _pythons() if os.path.exists(p)]
        base = (
            next((p for p in candidates if _as_student(p)), candidates[0])
            if os.getuid() == 0
            else candidates[0]
        )
        subprocess.run([base, "-m", "venv", "--without-pip", str(ENV)], check=True)
        places = json.loads(
            subprocess.check_output(
                [python, "-c", "import json, site; print(json.dumps(site.getsitepackages()))"]
            )
        )
        Path(places[0], "book.pth").write_text(
            site.getsitepackages()[0] + "\n"
        )  # torch and JupyterLab
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
        subprocess.run([*pip, "--disable-pip-version-check", HUB, PULLER], check=True)
    if not proxy.exists():
        npm = [
            "npm",
            "install",
            "--prefix",
            str(ENV),
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ]
        subprocess.run([*npm, PROXY], check=True)
    return python, proxy


def _ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


class Hub:
    """The running hub. `work` holds the homes, the hub's files and a copy of the book to pull from."""

    def __init__(self, work: Path, names: list[str], transport: str, first_uid: int):
        self.work, self.names, self.transport, self.first_uid = work, names, transport, first_uid
        self.password = secrets.token_hex(16)

    def __enter__(self) -> Hub:
        python, proxy = install()
        port, hub, self.proxy_port = _ports(3)
        self.url = f"http://127.0.0.1:{port}"
        self.work.chmod(0o711)
        (self.work / "home").mkdir(mode=0o711)
        (self.work / "hub").mkdir(mode=0o700)
        address, branch = repository()
        git("init", "-q", "--bare", "-b", branch, str(self.work / "book.git"))
        git("push", "-q", str(self.work / "book.git"), f"HEAD:refs/heads/{branch}")
        config = f'[url "file://{self.work}/book.git"]\n\tinsteadOf = {address}\n[safe]\n\tdirectory = *\n'
        (self.work / "gitconfig").write_text(config)
        shutil.copy(ROOT / "deploy" / "tljh.py", self.work / "tljh.py")
        data = Path(sys.prefix)
        environment = {
            "PATH": f"{ENV / 'bin'}:{os.environ['PATH']}", "LANG": "C.UTF-8",
            "CLASS_WORK": str(self.work), "CLASS_NAMES": " ".join(self.names), "CLASS_FIRST_UID": str(self.first_uid),
            "CLASS_URL": self.url, "CLASS_HUB_PORT": str(hub), "CLASS_PROXY_PORT": str(self.proxy_port),
            "CLASS_PROXY": str(proxy), "CLASS_PASSWORD": self.password, "CLASS_PYTHON": str(python),
            "CLASS_TRANSPORT": self.transport, "CLASS_FOLDER": FOLDER,
            "CLASS_SHARE": str(data / "share" / "jupyter"), "CLASS_ETC": str(data / "etc" / "jupyter"),
        }  # fmt: skip
        config = str(Path(__file__).with_name("classroom_hub.py"))
        self.log = open(self.work / "hub" / "log", "wb")  # noqa: SIM115 -- closed at the exit
        self.process = subprocess.Popen(
            [str(python), "-m", "jupyterhub", "-f", config], cwd=self.work / "hub", env=environment,
            stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.pid = self.process.pid
        for _ in range(240):
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{self.url}/hub/api", timeout=10).ok:
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(f"the hub did not start; its log is {self.work}/hub/log")

    def __exit__(self, *error) -> None:
        family = (
            psutil.Process(self.pid).children(recursive=True) if self.process.poll() is None else []
        )
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        for p in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                p.kill()
        self.log.close()
        if error and error[0] is None:
            shutil.rmtree(self.work, ignore_errors=True)
        else:
            print(f"what the hub said: {self.work}/hub/log", file=sys.stderr)

    def proxy(self) -> psutil.Process:
        children = psutil.Process(self.pid).children()
        return next(p for p in children if "configurable-http-proxy" in " ".join(p.cmdline()))

    def addresses(self, name: str, server: int) -> list[str]:
        """What a kernel on this machine can reach past the proxy: a student's server, the proxy's own interface."""
        ports = {
            c.laddr.port
            for c in psutil.Process(server).net_connections("tcp")
            if c.status == "LISTEN"
        }
        assert ports, f"the server of {name} listens nowhere"
        mine = [f"http://127.0.0.1:{p}/user/{name}/api/contents" for p in ports]
        return [*mine, f"http://127.0.0.1:{self.proxy_port}/api/routes"]
