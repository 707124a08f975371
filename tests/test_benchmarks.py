"""What the benchmarks write, and whether ours and theirs do the same work: no time is measured here."""

import json
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def samplers():
    pytest.importorskip("diffusers")  # tests/peers.txt
    from tests.benchmarks import samplers

    return samplers


def test_our_multistep_is_the_second_order_step_that_theirs_is(samplers, monkeypatch):
    from lib.diffusion import exponential

    found, led_to = [], exponential._Last.led_to
    look = lambda *given: found.append(led_to(*given)) or found[-1]
    monkeypatch.setattr(exponential._Last, "led_to", look)
    with torch.no_grad():
        ours, _ = samplers.cases(torch.randn(8, 2))["DPM-Solver++(2M)"]
        for _ in range(20):
            ours()
    assert len(found) == 20 and all(found), "a step of first order"


# ---------------------------------------------------------------- what is written


@pytest.fixture
def bench(samplers, monkeypatch, tmp_path):
    """`make bench` with one benchmark, that takes no time; (run it, what bench.json holds)."""
    from tests.benchmarks import __main__ as bench
    from tests.benchmarks.rounds import row

    def rows(rounds):
        yield row(("samplers", "2", "DDIM"), "diffusers", [1.0] * rounds, [2.0] * rounds, "wall")
        if rounds == 13:
            raise ArithmeticError

    def run(*words):
        monkeypatch.setattr("sys.argv", ["bench", *words])
        return bench.main()

    file = tmp_path / "bench.json"
    file.write_text("older")
    about = {"cpu": "A", "cores": 1, "versions": {"torch": "9"}}
    monkeypatch.setattr(bench, "machine", about.copy)
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(torch, "set_default_device", lambda name: None)  # it would outlast the test
    mine = ModuleType("t.mine")
    mine.rows = rows
    monkeypatch.setattr(bench, "BENCHMARKS", {mine: 5})
    return run, file.read_text


@pytest.mark.parametrize(("words", "rounds"), [((), 5), (("--quick",), 3), (("--rounds", "2"), 2)])
def test_comparisons_are_written_with_their_rounds(bench, words, rounds):
    run, written = bench
    assert run(*words) == 0
    assert [r["rounds"] for r in json.loads(written())["rows"]] == [rounds]


def test_a_benchmark_that_breaks_off_leaves_the_last_results(bench, capsys):
    run, written = bench
    assert run("--rounds", "13") == 1
    assert written() == "older"
    assert "broken off, so nothing was written: mine" in capsys.readouterr().out


@pytest.mark.parametrize("rounds", ["1", "0", "-3"])
def test_quartiles_need_two_rounds(bench, rounds):
    run, written = bench
    with pytest.raises(SystemExit, match="--rounds: 2 or more"):
        run("--rounds", rounds)
    assert written() == "older"


@pytest.fixture
def limits(samplers, monkeypatch, tmp_path):
    """`make gpu PARTS=limits` on a card as fast as it is told, for two works of one piece each."""
    from tests.benchmarks import limits

    def run(*only, speed, commit, card="A"):
        monkeypatch.setattr(limits, "limits", lambda: dict.fromkeys(limits_of, speed))
        monkeypatch.setattr(limits, "machine", lambda: {"card": card, "versions": {"torch": "9"}})
        monkeypatch.setattr(limits, "commit", lambda: commit)
        limits.main(list(only))
        return json.loads((tmp_path / "limits.json").read_text())

    limits_of = ("bytes", "float32", "tf32", "bfloat16")
    piece = lambda: iter([("forward, float32", "float32", lambda: None)])
    monkeypatch.setattr(limits, "works", lambda: {"flow": piece, "net": piece})
    monkeypatch.setattr(limits, "seconds", lambda run: 1.0)
    monkeypatch.setattr(limits, "RESULTS", tmp_path)
    monkeypatch.setattr(torch, "set_default_device", lambda name: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    return run, tmp_path / "limits.json"


def test_rows_that_are_kept_stay_with_their_commit_limits_and_notes(limits):
    run, file = limits
    first = run(speed=1e12, commit="a")
    assert [r["work"] for r in first["rows"]] == ["flow", "net"] and "earlier" not in first
    file.write_text(json.dumps(first | {"notes": ["hot"]}))
    second = run("net", speed=2e12, commit="b")
    third = run("net", speed=3e12, commit="c")
    for found, commit, speed in ((second, "b", 2e12), (third, "c", 3e12)):
        assert [r["work"] for r in found["rows"]] == ["net"] and "notes" not in found
        assert (found["commit"], found["limits"]["bytes"]) == (commit, speed)
        (old,) = found["earlier"]
        assert old == {k: first[k] for k in old if k not in ("notes", "rows")} | {
            "notes": ["hot"],
            "rows": first["rows"][:1],
        }
        assert {"date", "commit", "limits"} <= set(old)
    assert "earlier" not in run("flow", speed=1e12, commit="d", card="B")
    run("net", speed=1e12, commit="e", card="B")
    last = run("flow", speed=1e12, commit="f", card="B")
    assert [r["work"] for e in last["earlier"] for r in e["rows"]] == ["net"]
