"""Where files live: the repository, a folder for things we compute, a folder for data sets."""

import os
import secrets
import subprocess
from pathlib import Path

_LIB = Path(__file__).resolve().parent


def root() -> Path | None:
    """The repository's root, or None when lib was installed away from the book.

    Only the folder around lib counts. A virtual environment inside a checkout has the book's
    `_toc.yml` somewhere above it too, and must not write there.

    >>> root() is None or (root() / '_toc.yml').is_file()
    True
    """
    return _LIB.parent if (_LIB.parent / "_toc.yml").is_file() else None


def commit() -> str:
    """Short commit of the book's source, with + when lib or a chapter was changed since.

    The environment variable BOOK_COMMIT has the last word, for a copy whose own git knows less;
    "release" where nobody knows.

    >>> isinstance(commit(), str)
    True
    """
    if said := os.environ.get("BOOK_COMMIT"):
        return said
    if root() is None:
        return "release"

    # GIT_DIR and its like, as git sets them for a hook, would speak of the hook's repository
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or "CONFIG" in k}

    def git(*words: str) -> str:
        command = ["git", "-C", str(root()), *words]
        how = dict(capture_output=True, text=True, check=True, timeout=5, env=env)
        return subprocess.run(command, **how).stdout.strip()

    try:
        if not root().samefile(git("rev-parse", "--show-toplevel")):
            return "release"  # a copy without a git of its own, inside another repository
        changed = git("status", "--porcelain", "--", "lib", "chapters")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "release"


def cache() -> Path:
    """A folder we may write to: trained models, downloads, anything that can be made again.

    The environment variable BOOK_CACHE; else `_build/cache` in a checkout that can be written;
    else `deep-generative-models` in XDG_CACHE_HOME or ~/.cache. Created if it is missing.

    Raises:
        PermissionError: the folder cannot be created or written; the message names it.

    >>> cache().is_dir()
    True
    """
    chosen, checkout = os.environ.get("BOOK_CACHE"), root()
    if not chosen and checkout is not None and _writable(checkout / "_build" / "cache"):
        return checkout / "_build" / "cache"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(chosen or Path(base) / "deep-generative-models").expanduser()
    except RuntimeError as error:
        raise PermissionError(
            "no home folder is known, so neither is a cache folder: set the environment variable "
            "BOOK_CACHE to a folder that you may write to"
        ) from error
    if not _writable(folder):
        raise PermissionError(
            f"cannot write to the cache folder {folder}: set the environment variable BOOK_CACHE "
            "to a folder that you may write to"
        )
    return folder


def data_dir() -> Path:
    """The folder that holds data sets: the environment variable BOOK_DATA, else `data` in `cache()`.

    Not created, and it need not exist. A folder that BOOK_DATA names is only read; into our own,
    `lib.data.files` downloads what is missing.

    >>> isinstance(data_dir(), Path)
    True
    """
    chosen = os.environ.get("BOOK_DATA")
    return Path(chosen).expanduser() if chosen else cache() / "data"


def write_atomic(path: Path | str, content: bytes | str) -> Path:
    """Write a file completely or not at all; a reader never sees half of it. Text is UTF-8.

    The content goes to a new file in the same folder (a rename across disks would be a copy) and
    takes the name at the end. If anything fails, an older file under that name stays as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomic(Path(folder) / "a.txt", "text").read_text()
    'text'
    """
    path = Path(path)
    if isinstance(content, str):
        content = content.encode()
    elif not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(f"content must be bytes or str, not {type(content).__name__}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are private (0600), and a class shares one cache.
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with open(part, "xb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())  # else a power cut may keep the new name with no content
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path


def _writable(folder: Path) -> bool:
    """Create the folder and try it: permission bits say nothing about read-only or full disks."""
    probe = folder / f".probe.{secrets.token_hex(6)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(probe, "xb") as f:
                f.write(b"0")  # a full disk takes an empty file
                f.flush()
                os.fsync(f.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        return False
    return True
