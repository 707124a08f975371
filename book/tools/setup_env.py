"""Make the virtual environment. Runs under whatever Python there is, so the syntax is kept old on purpose.

usage: setup_env.py VENV STAMP [TORCH_INDEX]
"""

import os
import re
import subprocess
import sys

LOW, HIGH = (3, 11), (3, 13)


def stop(sentence):
    sys.exit("make setup: " + sentence)


def run(command, sentence):
    try:
        code = subprocess.call(command)
    except KeyboardInterrupt:
        stop("interrupted; run it again, it continues where it was.")
    if code:
        stop(sentence)


def main():
    venv, stamp = sys.argv[1], sys.argv[2]
    index = sys.argv[3] if len(sys.argv) > 3 else ""
    if not LOW <= sys.version_info[:2] <= HIGH:
        stop(
            "the book needs Python 3.11, 3.12 or 3.13 and %s is %d.%d; name another one, as in "
            "'make setup PYTHON=python3.12'." % ((sys.executable,) + sys.version_info[:2])
        )
    import shutil

    if not shutil.which("git"):
        stop(
            "git is missing; install it (Debian, Ubuntu: 'sudo apt install git') and run it again."
        )
    try:
        import ensurepip  # noqa: F401
        import venv as _  # noqa: F401
    except ImportError:
        stop(
            "this Python cannot make virtual environments; install its venv package "
            "(Debian, Ubuntu: 'sudo apt install python%d.%d-venv')." % sys.version_info[:2]
        )
    if os.path.exists(stamp):
        os.remove(stamp)
    python = os.path.join(venv, "bin", "python")
    look = "import pip, sys; sys.exit(sys.argv[1] != sys.version)"
    whole = os.path.exists(python) and (
        subprocess.call([python, "-c", look, sys.version], stderr=subprocess.DEVNULL) == 0
    )
    if not whole:
        run(
            [sys.executable, "-m", "venv", "--clear", venv],
            "could not make the virtual environment %s (no space, or no permission to write here?)."
            % venv,
        )
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    with open("requirements.txt") as f:
        torch = re.search(r"^torch==\S+", f.read(), re.M).group(0)
    failed = "pip could not install %s (its message is above); mend that and run it again."
    print("make setup: %s, then the rest of requirements.txt (minutes, once)" % torch)
    if not index and sys.platform.startswith("linux") and not shutil.which("nvidia-smi"):
        print(
            "            (no NVIDIA card seen: 'make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu'"
            " may save gigabytes)"
        )
    sys.stdout.flush()
    run(pip + ([torch, "--index-url", index] if index else [torch]), failed % torch)
    run(pip + ["-r", "requirements.txt"], failed % "requirements.txt")
    run(
        pip + ["--no-deps", "--no-build-isolation", "-e", "."],
        failed % "the book's own package",
    )
    # What the peers declare and do not need (tensorboard, umnn) is absent on purpose: they go in after the
    # check, and out before it where an earlier setup put them.
    gone = [python, "-m", "pip", "uninstall", "-q", "-y", "-r", "tests/peers.txt"]
    run(gone, failed.replace("install", "remove") % "tests/peers.txt")
    run([python, "-m", "pip", "check"], "the installed packages contradict each other (see above).")
    run(pip + ["--no-deps", "-r", "tests/peers.txt"], failed % "tests/peers.txt")
    with open(stamp, "w") as f:
        f.write(sys.version)


main()
