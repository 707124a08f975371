"""Training that survives: SIGKILL at random moments, SIGTERM and SIGINT, too little memory."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.train import Draws, Stopped, fit
from lib.train.stopping import Signals, memory_is_out


@pytest.fixture(autouse=True)
def _as_from_a_terminal():
    """Python's own handler, also where pytest was started by `&` in a script, which ignores SIGINT."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


class Mean(nn.Module):
    """-log N(x; mean, 1) up to a constant; `spoil(call, x)` may raise."""

    def __init__(self, spoil=lambda call, x: None):
        super().__init__()
        self.mean, self.spoil, self.calls = nn.Parameter(torch.zeros(2)), spoil, 0

    def forward(self, x, context=None):
        self.calls += 1
        self.spoil(self.calls, x)
        return 0.5 * (x - self.mean).square().sum(1)


def table(device="cpu"):
    return torch.randn(64, 2, generator=torch.Generator().manual_seed(0)).to(device) + 3


def train(model, path=None, on_step=lambda step: None, data=None, **settings):
    settings = dict(steps=40, batch_size=16, lr=0.05, ema=0.9, checkpoint=path) | settings
    for update in fit(model, table() if data is None else data, progress=False, **settings):
        on_step(update.step)
    return model


def state(path):
    return torch.load(path, weights_only=True)


def test_sigkill_at_random_moments_and_resume_to_the_bit(tmp_path):
    """Data from a table, from torch's generator, from one of its own; dropout and noise in the model."""
    script = Path(__file__).with_name("killed.py")
    run = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert set(told) == {"table", "global", "own"}
    for kind in told.values():
        assert kind["end"] == 300
        assert kind["same"] == {"model": True, "ema": True, "best": True}, told
    killed = [step for kind in told.values() for step in kind["killed after"]]
    assert len(killed) >= 3 and 0 < max(killed) < 300, killed  # else nothing was tried


# data functions


def test_a_data_function_with_a_hidden_state_is_refused(tmp_path, device):
    hidden = torch.Generator().manual_seed(0)
    count = iter(range(1000))
    for bad in (
        lambda n: torch.randn(n, 2, generator=hidden),
        lambda n: torch.full((n, 2), float(next(count))),
    ):
        list(fit(Mean().to(device), bad, steps=2, progress=False))  # nothing to resume: fine
        with pytest.raises(ValueError, match="no checkpoint holds.*Draws"):
            list(fit(Mean().to(device), bad, steps=2, checkpoint=tmp_path / "x.pt", progress=False))
    assert not (tmp_path / "x.pt").exists()


def test_the_check_of_a_data_function_draws_nothing(tmp_path):
    """Training with a checkpoint and without one is the same training."""
    for data in (
        lambda n: torch.randn(n, 2),
        Draws(lambda n, g: torch.randn(n, 2, generator=g), 1),
    ):
        ends = []
        for path in (None, tmp_path / f"{type(data).__name__}.pt"):
            torch.manual_seed(0)
            if isinstance(data, Draws):
                data.generator.manual_seed(1)
            ends.append(train(Mean(), path, data=data).mean.detach().clone())
        assert torch.equal(*ends)


# signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_the_checkpoint_and_the_same_call_goes_on(number, tmp_path):
    path, former = tmp_path / "run.pt", signal.getsignal(number)
    whole = train(Mean(), tmp_path / "whole.pt")

    def send(step):
        if step == 13:
            signal.raise_signal(number)
            assert not path.exists()  # the step is not cut short, nor this one of the caller

    with pytest.raises(
        Stopped, match=f"{signal.Signals(number).name} after step 13: .*run.pt holds"
    ):
        train(Mean(), path, send)
    assert state(path)["step"] == 13 and signal.getsignal(number) == former
    again = train(Mean(), path)
    assert torch.equal(again.mean, whole.mean)


def test_a_signal_twice_acts_at_once(tmp_path):
    def send(step):
        if step == 3:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(Mean(), tmp_path / "run.pt", send)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_the_loop_no_longer_sees_is_passed_on(tmp_path):
    """The caller leaves the loop while one waits."""
    loop = fit(Mean(), table(), steps=9, checkpoint=tmp_path / "run.pt", progress=False)
    next(loop)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.close()
    assert state(tmp_path / "run.pt")["step"] == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_checkpoint_signals_are_left_alone():
    loop = fit(Mean(), table(), steps=2, progress=False)
    next(loop)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    loop.close()


def test_two_trainings_at_once_leave_the_handlers_as_they_were(tmp_path):
    """Whichever ends first; and a handler that is left behind passes signals on."""
    loops = [fit(Mean(), table(), steps=9, checkpoint=tmp_path / n, progress=False) for n in "ab"]
    for loop in loops:
        next(loop)
    for loop in loops:  # the first to begin is the first to end
        loop.close()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_signals_that_are_ignored_stay_ignored_and_threads_have_none():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Signals() as seen:
            signal.raise_signal(signal.SIGTERM)
            assert seen.number == 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    found = []
    thread = threading.Thread(target=lambda: found.append(train(Mean(), None).mean))
    thread.start()
    thread.join()
    assert found[0].isfinite().all()


# memory


def out_after(calls, rows=0, error=torch.cuda.OutOfMemoryError):
    def spoil(call, x):
        if call > calls and len(x) > rows:
            raise error("CUDA out of memory. Tried to allocate 20.00 GiB")

    return spoil


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, RuntimeError, MemoryError])
def test_out_of_memory_says_what_helps_and_goes_on_in_parts(error, tmp_path):
    path = tmp_path / "run.pt"
    whole = train(Mean(), tmp_path / "whole.pt")
    with pytest.raises(
        MemoryError, match="step 8 with 16 .*run.pt holds.* step 7.*parts=2"
    ) as told:
        train(Mean(out_after(7, 8, error)), path)
    assert isinstance(told.value.__cause__, error) and state(path)["step"] == 7
    with pytest.raises(MemoryError, match="parts=4"):
        train(Mean(out_after(0, 4, error)), path, parts=2)
    again = train(Mean(out_after(0, 4, error)), path, parts=4)
    torch.testing.assert_close(again.mean, whole.mean, rtol=1e-5, atol=0)


def test_memory_that_was_short_for_a_moment(tmp_path):
    """The same call goes on to the same weights to the bit: the examples of the failed step are not lost."""
    ends = []
    for kind in ("whole", "parts"):
        torch.manual_seed(0)
        path, draw = tmp_path / f"{kind}.pt", lambda n: torch.randn(n, 2)
        if kind == "parts":
            with pytest.raises(MemoryError):
                train(Mean(out_after(7)), path, data=draw)
            torch.manual_seed(99)
        ends.append(train(Mean(), path, data=draw).mean)
    assert torch.equal(*ends)


def test_out_of_memory_in_a_validation_makes_up_for_it(tmp_path):
    """Here the one that fails is the best, and the first of the four after which training stops."""
    valid = dict(valid=table() - 2.9, valid_every=5, patience=3, steps=200)
    whole = train(Mean(), tmp_path / "whole.pt", **valid)
    spoil = lambda call, x: out_after(0)(call, x) if not torch.is_grad_enabled() else None
    with pytest.raises(MemoryError):
        train(Mean(spoil), tmp_path / "run.pt", **valid)
    assert state(tmp_path / "run.pt")["step"] == 5
    again = train(Mean(), tmp_path / "run.pt", **valid)
    assert torch.equal(again.mean, whole.mean)
    steps = [state(tmp_path / f"{name}.pt")["step"] for name in ("whole", "run")]
    assert steps == [20, 20]


def test_out_of_memory_without_a_checkpoint_and_other_errors():
    with pytest.raises(MemoryError, match="no checkpoint was asked for"):
        train(Mean(out_after(3)))
    other = RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    def spoil(call, x):
        raise other

    with pytest.raises(RuntimeError) as told:
        train(Mean(spoil))
    assert told.value is other and not memory_is_out(other)


def test_parts_are_the_same_training(device):
    """To rounding, and with clipping; also where the last part is smaller."""
    ends = []
    for parts in (1, 3, 50):
        model = Mean().to(device)
        list(
            fit(
                model, table(device), steps=20, batch_size=16, clip=0.5, parts=parts, progress=False
            )
        )
        ends.append(model.mean.detach())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-5, atol=1e-7)


def test_a_non_finite_loss_keeps_the_checkpoint_before_it(tmp_path):
    path = tmp_path / "run.pt"

    def spoil(call, x):
        if call == 8:
            x.fill_(torch.nan)

    with pytest.raises(FloatingPointError, match="step 8: .*16 of 16 losses not finite"):
        train(Mean(spoil), path, checkpoint_every=5)
    kept = state(path)
    assert kept["step"] == 5 and kept["model"]["mean"].isfinite().all()
    assert torch.equal(train(Mean(), path).mean, train(Mean(), tmp_path / "whole.pt").mean)
