"""No public name of `lib` is left out by oversight."""

import importlib
from pathlib import Path

import pytest

from tests.fuzz.registry import EXCUSED, excused, name_of, public

MODULES = [
    importlib.import_module(f"tests.fuzz.{path.stem}")
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if path.stem != "test_registry"
]


def covered() -> set[str]:
    """What the fuzz tests say that they cover; `conftest` holds each of them to it."""
    found = set()
    for module in MODULES:
        for test in vars(module).values():
            found |= set(getattr(test, "covers", ()))
            if getattr(test, "covers_case", False):
                found |= {what for case in module.CASES.values() for what in case.covers}
    return {name_of(what) for what in found}


def test_every_public_name_is_fuzzed_or_excused():
    left = [n for n in public() if n not in covered() and excused(n, EXCUSED) is None]
    assert not left, f"neither fuzzed nor excused: {', '.join(left)}"


def test_a_new_name_would_be_missed(monkeypatch):
    import lib.utils

    def brand_new():
        """Nobody fuzzes this."""

    brand_new.__module__ = "lib.utils"
    monkeypatch.setattr(lib.utils, "brand_new", brand_new, raising=False)
    with pytest.raises(AssertionError, match=r"excused: lib\.utils\.brand_new"):
        test_every_public_name_is_fuzzed_or_excused()


def test_no_excuse_is_out_of_date():
    for reason, patterns in EXCUSED.items():
        assert len(reason) > 10
        for pattern in patterns:
            hit = [n for n in public() if excused(n, {reason: (pattern,)})]
            assert hit, f"{pattern} names nothing"
