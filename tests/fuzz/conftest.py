"""A fuzz test says what it covers; here it is held to its word."""

import sys

import pytest

from tests.fuzz.registry import codes


@pytest.fixture(autouse=True)
def _runs_what_it_covers(request):
    """Fails a test that does not run each public name that it claims to fuzz."""
    claims = list(getattr(request.function, "covers", ()))
    if getattr(request.function, "covers_case", False):
        claims += request.node.callspec.params["case"].covers
    left = {what: codes(what) for what in claims if codes(what)}

    def watch(frame, event, _):
        for what in [w for w, code in left.items() if frame.f_code in code]:
            del left[what]
        if not left:
            sys.setprofile(None)

    if left:
        sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert not left, f"never run: {', '.join(w.__qualname__ for w in left)}"
