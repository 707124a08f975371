import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from lib import paths


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """lib away from any checkout, no variables set, a home of its own."""
    for name in ("BOOK_CACHE", "BOOK_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(paths, "_LIB", tmp_path / "site-packages" / "lib")
    return tmp_path


def test_root_is_the_checkout_around_lib_and_nothing_higher(elsewhere, monkeypatch):
    assert paths.root() is None
    (elsewhere / "_toc.yml").touch()  # as for a venv inside a checkout
    assert paths.root() is None
    monkeypatch.setattr(paths, "_LIB", elsewhere / "lib")
    assert paths.root() == elsewhere


def test_cache_prefers_the_variable_then_the_checkout_then_xdg_then_home(elsewhere, monkeypatch):
    assert paths.cache() == elsewhere / "home" / ".cache" / "deep-generative-models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(elsewhere / "xdg"))
    assert paths.cache() == elsewhere / "xdg" / "deep-generative-models"
    (elsewhere / "_toc.yml").touch()
    monkeypatch.setattr(paths, "_LIB", elsewhere / "lib")
    assert paths.cache() == elsewhere / "_build" / "cache"
    monkeypatch.setenv("BOOK_CACHE", str(elsewhere / "mine" / "deep"))
    assert paths.cache() == elsewhere / "mine" / "deep"
    assert paths.cache().is_dir() and not list(paths.cache().iterdir())  # no probe left


def test_a_read_only_checkout_is_passed_over(elsewhere, monkeypatch):
    (elsewhere / "_toc.yml").touch()
    (elsewhere / "_build").touch()  # a file where the folder should go: fails for root too
    monkeypatch.setattr(paths, "_LIB", elsewhere / "lib")
    assert paths.cache() == elsewhere / "home" / ".cache" / "deep-generative-models"


def test_a_cache_that_cannot_be_written_says_which_and_what_to_do(elsewhere, monkeypatch):
    (elsewhere / "file").touch()
    monkeypatch.setenv("BOOK_CACHE", str(elsewhere / "file" / "below"))
    with pytest.raises(PermissionError, match="file/below.*BOOK_CACHE"):
        paths.cache()


def test_a_full_disk_is_passed_over(elsewhere, monkeypatch):
    """An empty file fits on it; what is written, only until the disk is asked to have it."""
    (elsewhere / "_toc.yml").touch()
    monkeypatch.setattr(paths, "_LIB", elsewhere / "lib")
    full, really = elsewhere / "_build", os.fsync

    def fsync(handle):
        if full in Path(os.readlink(f"/proc/self/fd/{handle}")).parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert paths.cache() == elsewhere / "home" / ".cache" / "deep-generative-models"
    assert not list((full / "cache").iterdir())  # no probe left there either


@pytest.mark.parametrize("chosen", [None, "~/cache"])
def test_without_a_home_the_variable_is_named(elsewhere, monkeypatch, chosen):
    """As in a container whose user has no entry in the list of users."""

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    if chosen:
        monkeypatch.setenv("BOOK_CACHE", chosen)
    with pytest.raises(PermissionError, match="BOOK_CACHE"):
        paths.cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(elsewhere / "xdg"))
    monkeypatch.delenv("BOOK_CACHE", raising=False)
    assert paths.cache() == elsewhere / "xdg" / "deep-generative-models"


def test_data_dir(elsewhere, monkeypatch):
    assert paths.data_dir() == paths.cache() / "data"
    monkeypatch.setenv("BOOK_DATA", "~/sets")
    assert paths.data_dir() == elsewhere / "home" / "sets"


def test_write_atomic_writes_bytes_and_text_and_makes_the_folder(tmp_path):
    target = tmp_path / "a" / "b.txt"
    assert paths.write_atomic(target, "één\n") == target
    assert target.read_bytes() == "één\n".encode()
    paths.write_atomic(str(target), b"\0\1")
    assert target.read_bytes() == b"\0\1"
    assert os.listdir(target.parent) == ["b.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask  # others of a class can read it


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fails):
    target = tmp_path / "x"
    paths.write_atomic(target, "old")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, fails, fail)
    with pytest.raises(OSError, match="disk full"):
        paths.write_atomic(target, "new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["x"]


def test_write_atomic_refuses_other_content(tmp_path):
    with pytest.raises(TypeError, match="bytes or str, not dict"):
        paths.write_atomic(tmp_path / "x", {})
    assert not os.listdir(tmp_path)


def test_the_commit_of_another_repository_around_a_copy_is_not_the_book_s(tmp_path, monkeypatch):
    monkeypatch.delenv("BOOK_COMMIT", raising=False)
    book = tmp_path / "copy"
    (book / "lib").mkdir(parents=True)
    (book / "_toc.yml").touch()
    monkeypatch.setattr(paths, "_LIB", book / "lib")

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "the reader's own")
    assert paths.commit() == "release"
    (tmp_path / "_toc.yml").touch()  # the same repository, as the book's own
    monkeypatch.setattr(paths, "_LIB", tmp_path / "lib")
    assert len(paths.commit()) >= 7 and paths.commit() != "release"
    own = paths.commit()
    git("init", "other")  # a hook of another repository runs with that one in its environment
    git("-C", "other", "commit", "--allow-empty", "-m", "not the book")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert paths.commit() == own


def test_this_checkout():
    assert paths.root() == Path(__file__).resolve().parents[1]
