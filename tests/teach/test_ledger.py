"""`verify` is the book's witness: it must pass what is right, and nothing else."""

import json
import math

import numpy as np
import pytest
import torch

from lib.teach import ledger, verify

ROUTES = ("closed form", "quadrature")


@pytest.fixture(autouse=True)
def ledger_file(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_LEDGER", str(tmp_path / "ledger.jsonl"))
    return tmp_path / "ledger.jsonl"


def test_passes_and_records_the_achieved_error(ledger_file, capsys):
    verify("1.4", torch.tensor([1.0, 2.0]), [1.0, 2.0 + 1e-7], routes=ROUTES, rtol=1e-6)
    assert capsys.readouterr().out == "✓ (1.4) closed form = quadrature, to 1e-6 relative\n"
    (entry,) = map(json.loads, ledger_file.read_text().splitlines())
    assert entry["chapter"] == "1" and entry["label"] == "1.4" and entry["routes"] == list(ROUTES)
    assert 0 < entry["error"] < 2e-6 and entry["size"] == pytest.approx(2.0) and entry["passed"]


def test_failure_names_both_values_the_error_and_the_place():
    with pytest.raises(AssertionError) as info:
        verify("2.3", [1.0, 2.0, 3.0], [1.0, 2.5, 3.0], routes=ROUTES)
    for part in ("(2.3)", "at index 1 of 3", "closed form gives 2,", "quadrature gives 2.5", "0.5"):
        assert part in str(info.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite_never_passes(bad):
    for a, b in ((bad, 1.0), (1.0, bad), (bad, bad)):
        with pytest.raises(AssertionError):
            verify("1.1", a, b + 0.0, routes=ROUTES, atol=1e9)


def test_monte_carlo_needs_an_error_bar_that_could_see_a_factor():
    verify("2.1", 1.03, 1.0, routes=ROUTES, stderr=0.01)
    with pytest.raises(AssertionError):
        verify("2.1", 1.05, 1.0, routes=ROUTES, stderr=0.01)
    with pytest.raises(ValueError, match="could hide a factor"):
        verify("2.1", 1.05, 1.0, routes=ROUTES, stderr=0.4)
    with pytest.raises(ValueError, match="positive"):
        verify("2.1", 1.0, 1.5, routes=ROUTES, stderr=0.0)


@pytest.mark.parametrize("x", [torch.ones(3), torch.ones(())])
def test_an_error_bar_of_another_shape_is_refused(x):
    with pytest.raises(ValueError, match=r"stderr has the shape \(2,\)"):
        verify("2.1", x, x + 0.01, routes=ROUTES, stderr=0.01 * torch.ones(2))


def test_expected_failure_is_inverted(capsys):
    verify("1.7", 2.0, 1.0, routes=ROUTES, expect_failure=True)
    assert "goes red" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="expected to fail and holds"):
        verify("1.7", 1.0, 1.0 + 1e-15, routes=ROUTES, expect_failure=True)


def test_comparisons_that_compare_nothing_are_refused():
    x = torch.ones(3)
    cases = [
        (("1.4", x, x), {}, "same object"),
        (("1.4", x, torch.ones(2)), {}, "shapes differ"),
        (("1.4", x[:0], torch.ones(0)), {}, "empty"),
        (("1.4", x * 0, torch.zeros(3)), {}, "give atol"),
        (("1.4", 1.0, 1.0 + 1e-12), {"rtol": 0}, "the tolerance is 0 everywhere; give atol"),
        (("eq-4", 1.0, 2.0), {}, "looks like"),
        (("1.4", 1.0, 2.0), {"routes": ("a", "a")}, "different routes"),
    ]
    for args, more, message in cases:
        with pytest.raises(ValueError, match=message):
            verify(*args, **{"routes": ROUTES, **more})
    with pytest.raises(TypeError, match="number or a tensor"):
        verify("1.4", "one", 1.0, routes=ROUTES)


@pytest.mark.parametrize("n", [24, True])
def test_small_numbers_of_two_routes_may_be_one_object(n, capsys):
    """Python keeps one object for each small integer, and for each truth value."""
    verify("5.2", type(n)(f"{n}"), n, routes=ROUTES)
    assert capsys.readouterr().out.startswith("✓")
    x = float("24")
    with pytest.raises(ValueError, match="same object"):
        verify("5.2", x, x, routes=ROUTES)


def test_a_session_without_a_place_to_write_still_verifies(tmp_path, monkeypatch, capsys):
    file = tmp_path / "a-file"
    file.write_text("")
    monkeypatch.delenv("BOOK_LEDGER")
    monkeypatch.setenv("BOOK_CACHE", str(file / "below"))
    monkeypatch.setattr(ledger, "records", [])
    verify("1.4", 1.0, 1.0 + 1e-12, routes=ROUTES)
    verify("1.5", 1.0, 1.0 + 1e-12, routes=ROUTES)
    out = capsys.readouterr().out
    assert out.count("✓") == 2 and out.count("set") == 1 and "BOOK_CACHE" in out


@pytest.mark.parametrize("z", [torch.tensor([1 + 2j]), np.array([1 + 2j]), 1 + 2j])
def test_complex_numbers_are_refused(z):
    """As float64 they would lose the imaginary part, and any two could pass."""
    with pytest.raises(TypeError, match="must be a real number or a tensor of them"):
        verify("7.2", z, z.real, routes=("a", "b"))
