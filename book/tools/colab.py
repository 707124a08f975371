"""Run chapters as Colab does: each alone in an empty folder, with Colab's packages and not the book's.

usage: colab.py [--env colab|oldest] [NN ...]     (default: every chapter; `make colab`)
       colab.py --here [NN ...]                   in this very environment: Colab's own image

tests/colab/NAME.txt says which Python and which packages. The environment lies in _build/colab/NAME, apart
from .venv. A chapter gets a home, a working folder and a stand-in `google.colab`; the book's address leads to a
local repository that holds the working tree as it is, and the index of packages is a folder with what
the setup cell asks for. There is no other network: a name space without one where the system can give it
(Linux), else proxies that lead nowhere. With --here nothing of that is put in place of the real thing.

It fails when a cell raises or writes to stderr, when the setup cell takes longer than 15 s (on a machine that
is not busy with other work) or changes a package that was there, or when a stored print comes out otherwise
(unless tests/colab/NAME.txt says why prints may differ there: then they are shown).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

from colab_env import BUILD, PINS, environment, origin, packages, sh, wheels
from execute import Job, execute
from notebooks import ROOT, chapters, read, tags
from publish_as import published

SETUP_SECONDS = 15
CELL_SECONDS = 3600  # a shared machine may be slow; the report says how long a chapter took
INSIDE = "BOOK_COLAB_INSIDE"
ADDRESS_IN_MEMORY = re.compile(r"0x[0-9a-f]{6,}")


# ---------------------------------------------------------------- the chapters


def simulated(name: str, home: Path) -> dict[str, str]:
    """The variables of a kernel on Colab, and no others of ours."""
    startup = home / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-colab.py").write_text("import google.colab\n")  # Colab's kernel has it loaded
    bin_ = BUILD / name / "bin"
    address = published(ROOT)[0]
    env = {
        "HOME": str(home),
        "PATH": f"{bin_}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(PINS / "fake"),
        "PYTHONDONTWRITEBYTECODE": "1",  # pip's additions are taken away again
        "COLAB_RELEASE_TAG": "simulated",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{BUILD / 'origin.git'}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_TERMINAL_PROMPT": "0",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(BUILD / "wheels" / name),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    threads = {k: v for k, v in os.environ.items() if k == "OMP_NUM_THREADS"}
    return env | nowhere | threads


def prints(nb: dict) -> dict[str, str]:
    """The printed text of the cells that nbval compares, by the cell's id."""
    out = {}
    for cell in nb["cells"]:
        if cell["cell_type"] == "code" and "nbval-check-output" in tags(cell):
            text = "".join("".join(o.get("text", "")) for o in cell["outputs"])
            out[cell["id"]] = ADDRESS_IN_MEMORY.sub("0xADDR", text)
    return out


def run(
    path: Path, python: Path | str, env: dict[str, str], restore: bool, free: bool = False
) -> dict:
    """Run one chapter; what came of it, with the complaints. `free`: prints may differ, and are shown."""
    before = packages(python)
    nb = read(path)
    job = Job(path.stem, nb, env, python=str(python), alone=True, cell_seconds=CELL_SECONDS)
    execute([job])
    after = packages(python)
    added = sorted(after.keys() - before.keys())
    if restore and added:
        sh(python, "-m", "pip", "uninstall", "-q", "-y", *added)
    wrong = [job.error] if job.error else []
    wrong += [
        f"the setup cell changed {k} from {v} to {after.get(k, 'nothing')}"
        for k, v in before.items()
        if after.get(k) != v
    ]
    cells = job.about.get("cells", {})
    first = next(c["id"] for c in nb["cells"] if c["cell_type"] == "code")
    seconds = cells.get(first, 0.0)
    load = round(os.getloadavg()[0], 1)
    if seconds > SETUP_SECONDS and load < 1.5 * (os.cpu_count() or 1):
        wrong.append(f"the setup cell took {seconds:.1f} s; it may take {SETUP_SECONDS}")
    want = prints(nb)
    got = prints(job.executed) if job.executed is not None else {}
    differ, said = [k for k in want if got.get(k) != want[k]], []
    if got:
        lines = [f"cell {k} printed\n{_lines(want[k], got.get(k, ''))}" for k in differ]
        (said if free else wrong).extend(lines)
    return {
        "chapter": path.stem,
        "setup": round(seconds, 1),
        "seconds": round(job.seconds, 1),
        "load": load,
        "prints": len(want),
        "differ": len(differ),
        "added": added,
        "versions": job.about.get("versions", {}),
        "device": job.about.get("device", ""),
        "wrong": wrong,
        "said": said,
    }


def _lines(want: str, got: str) -> str:
    import difflib

    lines = difflib.unified_diff(
        want.splitlines(), got.splitlines(), "stored", "here", lineterm="", n=0
    )
    return "\n".join(line for line in lines if not line.startswith("@@"))


# ---------------------------------------------------------------- without a network


def closed(arguments: list[str]) -> int | None:
    """Run this again where there is no network but the loopback; None where that cannot be had."""
    if not shutil.which("unshare"):
        return None
    own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "-r", "--net"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        return None
    again = [*own, sys.executable, __file__, *arguments]
    return subprocess.run(again, env={**os.environ, INSIDE: "1"}, check=False).returncode


def loopback_up() -> None:
    """A new name space's loopback is down, and the kernel's messages go over it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        up = struct.pack("16sh14x", b"lo", 0x41)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(s, 0x8914, up)  # SIOCSIFFLAGS
    with contextlib.suppress(OSError), socket.create_connection(("1.1.1.1", 53), timeout=2):
        sys.exit("colab: the network is open where it should be closed")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="colab", help="one of tests/colab/*.txt")
    parser.add_argument("--here", action="store_true", help="this environment, nothing simulated")
    parser.add_argument("only", nargs="*", help="chapters by number, as 01 04")
    given = parser.parse_args(arguments)
    by_number = {p.stem[:2]: p for p in chapters()}
    paths = [by_number[n] for n in given.only or by_number if n in by_number]
    if not paths:
        print(f"no chapter named {' '.join(given.only)}")
        return 1
    name = "here" if given.here else given.env
    if given.here:
        if "/ORG/" in published(ROOT)[0]:
            print("the book has no address yet: make publish-as URL=https://github.com/OWNER/NAME")
            return 1
        python: Path | str = sys.executable
    else:
        python = BUILD / name / "bin" / "python"
        if INSIDE in os.environ:
            loopback_up()
        else:
            environment(name)
            wheels(python, BUILD / "wheels" / name)
            origin()
            code = closed(arguments)
            if code is not None:
                return code
            print("colab: no name space without a network here: proxies that lead nowhere instead")
    return report(name, paths, python)


def prints_may_differ(name: str) -> bool:
    """Whether the environment's file says so, with its reason."""
    pins = PINS / f"{name}.txt"
    return pins.is_file() and "\n# prints may differ: " in pins.read_text()


def report(name: str, paths: list[Path], python: Path | str) -> int:
    """Run the chapters one after the other, print a line each, and keep it all in a file."""
    rows, free = [], prints_may_differ(name)
    for path in paths:
        home = BUILD / "home"
        shutil.rmtree(home, ignore_errors=True)
        env = dict(os.environ) if name == "here" else simulated(name, home)
        row = run(path, python, env, restore=name != "here", free=free)
        rows.append(row)
        same = f"{row['prints'] - row['differ']} of {row['prints']} prints as stored"
        print(
            f"{row['chapter']:28} setup {row['setup']:5.1f} s  chapter {row['seconds']:6.1f} s"
            f"  load {row['load']:4.1f}  {same}  {'FAILED' if row['wrong'] else 'ok'}",
            flush=True,
        )
        for wrong in row["wrong"] + row["said"]:
            print("    " + wrong.replace("\n", "\n    "), flush=True)
        BUILD.mkdir(parents=True, exist_ok=True)
        (BUILD / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    failed = [row["chapter"] for row in rows if row["wrong"]]
    versions = next((row["versions"] for row in rows if row["versions"]), {})
    print(f"{name}: {', '.join(f'{k} {v}' for k, v in versions.items())}")
    print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
