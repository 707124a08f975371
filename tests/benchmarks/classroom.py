"""A class on a real JupyterHub: students open, run and save chapter 1; what they need; what a kill costs them.

usage: python tests/benchmarks/classroom.py [students]      (`make class`; needs git and npm; 12 students: some minutes)

JupyterHub, nbgitpuller and the hub's own proxy are installed on the first run into _build/classroom, on top of
the book's environment. Each student is a thread that speaks HTTP and WebSocket as a browser does. Run as root, every
student is a Unix user of their own, as on The Littlest JupyterHub. Assertions stop the run; the figures at the end
go into RESULTS.md by hand. CLASS_TRANSPORT=tcp shows the leak that the class's setting closes: that run goes red.
"""

from __future__ import annotations

import os
import secrets
import signal
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book" / "tools"), str(Path(__file__).parent)]

from classroom_privacy import strangers  # noqa: E402
from classroom_setup import FIRST_UID, Hub, git, separate_users  # noqa: E402
from classroom_student import Student  # noqa: E402
from hub import FOLDER, link  # noqa: E402
from notebooks import chapters  # noqa: E402

CHAPTER = chapters()[0]
PATH = f"{FOLDER}/chapters/{CHAPTER.name}"
NOTE = "What I do not understand yet: {}"


def everybody(students: list[Student], work) -> list:
    """The same at once for all; the first complaint is raised."""
    with ThreadPoolExecutor(len(students)) as pool:
        return list(pool.map(work, students))


def lesson(student: Student, hub: Hub) -> None:
    """Log in, follow the link, run the chapter, write a note, save."""
    began = time.perf_counter()
    student.login(hub.password)
    student.follow(link(hub.url, CHAPTER))
    student.notebook = student.load(PATH)
    student.took["open"] = time.perf_counter() - began
    began = time.perf_counter()
    student.start_kernel(PATH)
    student.took["kernel"] = time.perf_counter() - began
    student.run_all(student.notebook)
    student.secret = NOTE.format(secrets.token_hex(8))
    student.notebook["cells"][3]["source"] += f"\n\n{student.secret}"
    began = time.perf_counter()
    student.save(PATH, student.notebook)
    student.took["save"] = time.perf_counter() - began
    assert student.load(PATH) == student.notebook, f"{student.name}: saved one thing, got another"


def processes(student: Student, hub: Hub) -> dict[str, psutil.Process]:
    """The student's server, and the kernel below it."""
    out = {}
    for p in psutil.Process(hub.pid).children(recursive=True):
        try:
            line, home = " ".join(p.cmdline()), p.environ().get("HOME", "")
        except psutil.Error:
            continue
        if home.endswith(f"/{student.name}"):
            for key, mark in [
                ("server", "jupyterhub.singleuser"),
                ("kernel", "ipykernel_launcher"),
            ]:
                if mark in line:
                    out[key] = p
    return out


def size(p: psutil.Process) -> dict[str, float]:
    """Megabytes and processor seconds of one process (and of the children it has waited for)."""
    memory, times = p.memory_full_info(), p.cpu_times()
    status = Path(f"/proc/{p.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    return {
        "pss": memory.pss / 1e6, "uss": memory.uss / 1e6, "rss": memory.rss / 1e6, "peak": peak / 1e6,
        "cpu": sum(times[:4]),
    }  # fmt: skip


def measure(students: list[Student], hub: Hub) -> dict[str, float]:
    """Medians of what a student needed, and the most where a limit depends on it."""
    sizes = [{k: size(p) for k, p in processes(s, hub).items()} for s in students]
    assert all(set(s) == {"server", "kernel"} for s in sizes), "a server or a kernel is not there"
    out = {"students": len(students), "cores": os.cpu_count() or 0}
    for key in ("server", "pull", "lab", "open", "kernel", "run", "save"):
        times = [s.took[key] for s in students]
        out[f"{key} s, median"], out[f"{key} s, most"] = statistics.median(times), max(times)
    for who in ("server", "kernel"):
        for what in ("pss", "uss", "rss", "peak"):
            values = [s[who][what] for s in sizes]
            out[f"{who} {what} MB, median"] = statistics.median(values)
            out[f"{who} {what} MB, most"] = max(values)
        out[f"{who} processor s, median"] = statistics.median(s[who]["cpu"] for s in sizes)
    for name, pid in [("hub", hub.pid), ("proxy", hub.proxy().pid)]:
        about = size(psutil.Process(pid))
        out[f"{name} rss MB"], out[f"{name} processor s"] = about["rss"], about["cpu"]
    files = (f.lstat() for f in (hub.work / "home" / students[0].name).rglob("*"))
    out["home MB"] = sum(f.st_blocks * 512 for f in files) / 1e6
    return out


def kill_kernels(students: list[Student], hub: Hub) -> None:
    """SIGKILL to every kernel in the middle of a cell: the server says so and starts another; the file is whole."""

    def one(student: Student) -> None:
        student.run("mine = 1")
        student.send("execute_request", {"code": "import time\ntime.sleep(600)", "silent": False})
        time.sleep(1)
        processes(student, hub)["kernel"].kill()
        while True:
            message = student.receive()
            said = message["content"].get("execution_state")
            if message["header"]["msg_type"] == "status" and said in (
                "restarting",
                "autorestarting",
            ):
                break
        student.socket.close()
        student.connect()
        assert student.prints("print('mine' in globals())") == "False\n"
        assert student.load(PATH) == student.notebook, f"{student.name}: the notebook has changed"

    everybody(students, one)


def kill_servers(students: list[Student], hub: Hub) -> None:
    """SIGKILL to every server while it saves, again and again; after a restart no acknowledged save is missing."""

    def one(student: Student) -> None:
        said = {"last": 0}

        def keep_saving() -> None:
            for k in range(1, 10_000):
                student.notebook["metadata"]["version"] = k
                try:
                    student.save(PATH, student.notebook)
                except (AssertionError, OSError):
                    return
                said["last"] = k

        writer = threading.Thread(target=keep_saving)
        writer.start()
        time.sleep(3 + 2 * secrets.randbelow(1000) / 1000)
        processes(student, hub)["server"].send_signal(signal.SIGKILL)
        writer.join()
        assert said["last"] > 0, f"{student.name}: nothing was saved before the kill"
        student.socket.close()
        began = time.perf_counter()
        student.follow(link(hub.url, CHAPTER))
        student.took["back"] = time.perf_counter() - began
        found = student.load(PATH)
        version = found["metadata"].pop("version")
        assert version in (said["last"], said["last"] + 1), f"{student.name}: {version}, {said}"
        del student.notebook["metadata"]["version"]
        assert found == student.notebook, f"{student.name}: the notebook has changed"
        student.start_kernel(PATH)
        assert "nats" in student.prints("from lib.train import fit\nprint('nats')")

    everybody(students, one)


def new_edition(students: list[Student], hub: Hub) -> None:
    """The instructor changes the chapter; the link followed again brings that and keeps what students wrote."""
    line = "A sentence that the instructor added in the second week."
    teacher = hub.work / "teacher"
    git("clone", "-q", str(hub.work / "book.git"), str(teacher))
    path = teacher / "chapters" / CHAPTER.name
    text = path.read_text(encoding="utf8")
    head, mark, tail = text.rpartition('   "source": [\n')  # the last cell
    path.write_text(f'{head}{mark}    "{line}\\n",\n{tail}', encoding="utf8")
    git(
        "-C",
        str(teacher),
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@localhost",
        "commit",
        "-qam",
        "x",
    )
    git("-C", str(teacher), "push", "-q")

    def one(student: Student) -> None:
        student.follow(link(hub.url, CHAPTER))
        cells = student.load(PATH)["cells"]
        assert student.secret in cells[3]["source"], f"{student.name}: the note is gone"
        assert line in cells[-1]["source"], f"{student.name}: the new sentence did not come"
        mine = student.notebook["cells"]
        assert [c.get("outputs") for c in cells[:-1]] == [c.get("outputs") for c in mine[:-1]]

    everybody(students, one)


def main(count: int) -> None:
    names = [f"student{k:02}" for k in range(1, count + 1)]
    apart = separate_users()
    work = Path(tempfile.mkdtemp(prefix="class"))
    with Hub(
        work, names, os.environ.get("CLASS_TRANSPORT", "ipc"), FIRST_UID if apart else 0
    ) as hub:
        students = [Student(name, hub.url) for name in names]
        began = time.perf_counter()
        everybody(students, lambda s: lesson(s, hub))
        wall = time.perf_counter() - began
        figures = {"wall s": wall, "load": os.getloadavg()[1]} | measure(students, hub)
        for name, value in figures.items():
            print(f"{name:32}{value:10.1f}")
        print(f"all have opened, run and saved after {wall:.0f} s", flush=True)

        def nosy(k: int) -> int:
            a, b = students[k], students[(k + 1) % count]
            pids = {key: p.pid for key, p in processes(b, hub).items()}
            inside = {
                "paths": [
                    str(hub.work / "home" / b.name), str(hub.work / "home" / b.name / PATH),
                    *(f"/proc/{pid}/{f}" for pid in pids.values() for f in ("environ", "mem", "cwd")),
                    f"/proc/{hub.pid}/environ", str(hub.work / "hub"), str(hub.work / "hub" / "hub.sqlite"),
                    str(hub.work / "hub" / "cookie_secret"),
                ],
                "urls": [f"{hub.url}/hub/api/users/{b.name}/tokens", *hub.addresses(b.name, pids["server"])],
            }  # fmt: skip
            return strangers(a, b, PATH, b.secret, inside if apart else None)

        refused = sum(nosy(k) for k in range(count))
        print(
            f"{refused} attempts on a neighbour's files, kernel, server and tokens, all refused",
            flush=True,
        )
        if not apart:
            print("not tried: attempts from a kernel (all students are one Unix user; run as root)")
        kill_kernels(students, hub)
        print(f"{count} kernels killed in the middle of a cell: no saved work lost", flush=True)
        kill_servers(students, hub)
        back = statistics.median(s.took["back"] for s in students)
        print(
            f"{count} servers killed while saving: none lost; back after {back:.0f} s", flush=True
        )
        new_edition(students, hub)
        print(
            "a new edition pulled over saved work: the students' cells and outputs kept\n",
            flush=True,
        )
        print(
            f"{sum(s.reloads for s in students)} pages said that the hub does not answer, and were loaded again"
        )


if __name__ == "__main__":
    main(max(2, int(sys.argv[1])) if len(sys.argv) > 1 else 12)  # a neighbour for everybody
