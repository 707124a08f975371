"""Downloads of published files that end well or not at all: mirrors, resuming, stalls, one at a time.

Nothing is trusted: a file counts when the caller's check has accepted its content.
"""

import contextlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm.auto import tqdm

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SILENCE = 20.0  # seconds without a byte after which a mirror is given up
LEAST = 1 << 14  # bytes that must come in twice that time: a trickle is no download either
TRIES = 5  # connections to one mirror, as long as each brings the file forward
CHUNK = 1 << 16


class TooSlow(TimeoutError):
    """Bytes come, but a mirror that goes on like this is not worth another try."""


class NoMirror(OSError):
    """No mirror gave the file; the message says of each what happened."""


def fetch(
    urls: Sequence[str],
    part: Path,
    install: Callable[[Path], object],
    most: int,
    done: Callable[[], bool],
) -> None:
    """Download from the first mirror whose file `install` accepts.

    Args:
        urls: the same file at several places.
        part: where to collect it. What an earlier attempt left there is continued, where the server
            can do that; a file that turns out wrong is removed.
        install: checks the complete file and puts it where it belongs; ValueError if it is not
            the right one. `part` is gone afterwards.
        most: bytes. More than that is not downloaded, whatever a server sends.
        done: true when there is nothing left to do. Asked again under the lock: of two processes that
            want one file, one downloads and the other finds it there.

    Raises:
        NoMirror: each mirror failed.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    with alone(part.parent / ".lock"):
        if done():
            return
        if _size(part):  # perhaps all of it came, and only its installation was interrupted
            with contextlib.suppress(ValueError):
                install(part)
                part.unlink(missing_ok=True)
                return
        said = []
        for url in urls:
            try:
                _from(url, part, install, most)
                return
            except (OSError, ValueError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                code = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
                said.append(f"{url}: {code}{reason or type(error).__name__}")
        raise NoMirror("\n".join(said))


def _from(url: str, part: Path, install: Callable[[Path], object], most: int) -> None:
    """One mirror: what breaks off is continued while it grows; what is wrong is tried once from zero."""
    for _ in range(TRIES):
        had = _size(part)
        try:
            _receive(url, part, most)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not had:  # 416: there is nothing after what we have
                raise
            part.unlink()
            continue
        except TooSlow:
            raise
        except (OSError, http.client.HTTPException):
            if _size(part) <= had:
                raise
            continue
        try:
            install(part)
        except ValueError:
            part.unlink(missing_ok=True)
            if not had:
                raise
            continue  # perhaps only our old part was wrong
        part.unlink(missing_ok=True)
        return
    raise ConnectionError(f"broke off {TRIES} times")


def _receive(url: str, part: Path, most: int) -> None:
    """Append the rest of a file to `part`, or write it anew where the server sends all of it."""
    had = _size(part)
    headers = {"User-Agent": "deep-generative-models", "Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=SILENCE) as answer:
        if answer.status == 206:
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {had}-"):
                part.unlink()
                raise ValueError("the server sent another part of the file than we asked for")
        else:
            had = 0
        length = answer.headers.get("Content-Length")
        total = had + int(length) if length else None
        if (much := max(total or 0, had)) > most:
            part.unlink(missing_ok=True)
            raise ValueError(f"has {much:,} bytes, and the published file at most {most:,}")
        name = part.name.removesuffix(".part")
        with (
            open(part, "ab" if had else "wb") as f,
            tqdm(
                total=total, initial=had, unit="B", unit_scale=True, desc=name, leave=False
            ) as bar,
        ):
            got, since, then = had, 0, time.monotonic()
            while chunk := answer.read1(CHUNK):
                f.write(chunk)
                bar.update(len(chunk))
                got, since = got + len(chunk), since + len(chunk)
                if got > most:
                    break
                if time.monotonic() - then > 2 * SILENCE:
                    if since < LEAST:
                        raise TooSlow(f"only {since} bytes in {2 * SILENCE:g} s")
                    since, then = 0, time.monotonic()
    if got > most:
        part.unlink()
        raise ValueError(f"is longer than the published file, which has at most {most:,} bytes")
    if total is not None and got < total:
        raise ConnectionError(f"ended after {got:,} of {total:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock that other processes on this machine respect; it goes with the process, however that ends."""
    with open(lock, "a") as f:
        if not _try(f):
            print(f"waiting for another process that downloads to {lock.parent}", flush=True)
            while not _try(f):
                time.sleep(0.1)
        yield


def _try(f) -> bool:
    """True when the lock is ours, or when this file system knows no locks (a checked file does no harm)."""
    try:
        if fcntl is not None:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(f.fileno(), 0, os.SEEK_SET)
            msvcrt.locking(f.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
