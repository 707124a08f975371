"""`fit` on models whose answer is known, the weights it promises at the end, resume to the bit."""

import math
import os

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib.nets import mlp
from lib.train import Update, fit


class Regression(nn.Module):
    """Squared distance to a linear function of the context; `noise` makes it random."""

    def __init__(self, noise: float = 0.0, spoil=lambda step, loss: loss):
        super().__init__()
        self.net, self.noise = nn.Linear(2, 1), noise
        self.spoil, self.calls, self.modes = spoil, 0, []

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.calls += 1
        self.modes.append(self.training)
        eps = self.noise * torch.randn_like(x)
        return self.spoil(self.calls, ((x + eps - self.net(context)) ** 2).sum(1))


class Mean(nn.Module):
    """-log N(x; mean, 1) up to a constant: its minimum is the mean of the data."""

    def __init__(self, d: int = 1):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(d))

    def forward(self, x, context=None):
        return 0.5 * ((x - self.mean) ** 2).sum(1)


class Picture(nn.Module):
    """Squared distance of an image to what two convolutions make of it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x, context=None):
        return (self.b(self.a(x).tanh()) - x).square().mean((1, 2, 3))


def pairs(n, device="cpu", generator=None):
    c = torch.randn(n, 2, generator=generator).to(device)
    return c @ torch.tensor([[2.0], [-3.0]], device=device) + 0.5, c


def run(*args, **kwargs):
    return list(fit(*args, progress=False, **kwargs))


def test_reaches_the_known_answer_and_keeps_pairs_together(device):
    x, c = pairs(300, device)
    model = Regression().to(device)
    updates = run(model, x, context=c, steps=400, batch_size=32, lr=0.1)
    torch.testing.assert_close(model.net.weight[0].tolist(), [2.0, -3.0], atol=1e-3, rtol=0)
    assert model.net.bias.item() == pytest.approx(0.5, abs=1e-3)
    assert [u.step for u in updates] == list(range(1, 401))
    assert updates[0].loss > 1 > 1e-4 > updates[-1].loss and updates[0].valid is None
    assert 0 < updates[0].seconds < updates[-1].seconds and isinstance(updates[0], Update)
    assert all(model.modes) and not model.training  # train mode in every step, eval mode at the end


def test_every_example_is_seen_once_in_an_epoch(device):
    seen = []

    class Watch(Mean):
        def forward(self, x, context=None):
            seen.append((x.flatten().tolist(), context.flatten().tolist()))
            return super().forward(x)

    x = torch.arange(12.0, device=device)[:, None]
    run(Watch().to(device), x, context=x + 100, steps=9, batch_size=4)
    epochs = [sum((s[0] for s in seen[i : i + 3]), []) for i in (0, 3, 6)]
    assert all(sorted(e) == list(range(12)) for e in epochs) and epochs[0] != epochs[1] != epochs[2]
    assert all([v + 100 for v in a] == b for a, b in seen)
    first, seen[:] = list(seen), []
    torch.manual_seed(99)  # the order depends on `seed` alone
    run(Watch().to(device), x, context=x + 100, steps=9, batch_size=4)
    assert seen == first
    run(Watch().to(device), x, context=x + 100, steps=9, batch_size=4, seed=1)
    assert seen[9:] != first
    seen.clear()
    run(Watch().to(device), x, context=x + 100, steps=2, batch_size=500)  # fewer than a batch
    assert [sorted(s[0]) for s in seen] == [list(range(12))] * 2


def test_a_function_draws_new_data(device):
    sizes = []

    def draw(n):
        sizes.append(n)
        return pairs(n)  # made on the CPU: fit moves it

    model = Regression().to(device)
    run(model, draw, steps=300, batch_size=64, lr=0.1)
    assert sizes == [64] * 300 and model.net.weight[0, 1].item() == pytest.approx(-3, abs=1e-3)
    unpaired = Mean().to(device)
    run(unpaired, lambda n: 4 + torch.randn(n, 1), steps=300, batch_size=64, lr=0.1)
    assert unpaired.mean.item() == pytest.approx(4, abs=0.1)


def test_one_step_is_adams_step(device):
    """From 0 with gradient g: x - lr g / (|g| + eps), whatever |g|; AdamW also shrinks x."""
    model = Mean(2).to(device)
    x = torch.tensor([[3.0, -0.01]], device=device)
    (update,) = run(model, x, steps=1, lr=0.1, schedule="constant")
    torch.testing.assert_close(model.mean.tolist(), [0.1, -0.1], atol=1e-5, rtol=0)
    assert update.grad_norm == pytest.approx(math.hypot(3.0, 0.01))
    assert update.loss == pytest.approx(0.5 * (3.0**2 + 0.01**2))
    model.mean.data.fill_(1.0)
    run(model, x, steps=1, lr=0.1, weight_decay=0.5, schedule="constant")
    torch.testing.assert_close(model.mean.tolist(), [1.05, 0.85], atol=1e-5, rtol=0)


def test_cosine_schedule_lowers_the_step_to_zero(device):
    """With a constant gradient every Adam step is lr: the distance is the sum of the rates."""

    class Linear(Mean):
        def forward(self, x, context=None):
            return self.mean * x[:, 0]

    positions = []
    model = Linear().to(device)
    for _ in fit(model, torch.ones(4, 1, device=device), steps=100, lr=0.01, progress=False):
        positions.append(model.mean.item())
    steps = -torch.tensor([0.0, *positions]).diff()
    want = 0.005 * (1 + torch.cos(math.pi * torch.arange(100) / 100))
    torch.testing.assert_close(steps, want, atol=2e-6, rtol=1e-3)


def test_clipping(device):
    """The reported norm is the one before clipping; what Adam sees is the one after."""
    model = Mean().to(device)
    sizes = iter([1000.0, 1.0])
    updates = run(
        model, lambda n: torch.full((n, 1), next(sizes)), steps=2, clip=0.5, lr=1e-9, batch_size=1
    )
    assert [round(u.grad_norm, 3) for u in updates] == [1000.0, 1.0]
    state = Mean().to(device)
    *_, last = fit(
        state, torch.full((4, 1), 1e4, device=device), steps=1, clip=1e-8, progress=False
    )
    assert 0 < state.mean.item() < 6e-4  # Adam's eps is 1e-8: that gradient's step is halved


def test_ema(device):
    """The averaged weights, recomputed by hand, are what the model holds at the end."""
    x, trace = 5 + torch.randn(64, 1, device=device), []
    model = Mean().to(device)
    for _ in fit(model, x, steps=50, lr=0.1, batch_size=16, ema=0.9, progress=False):
        trace.append(model.mean.item())
    want = trace[0]
    for w in trace[1:]:
        want = 0.9 * want + 0.1 * w
    assert model.mean.item() == pytest.approx(want, rel=1e-5) and want < trace[-1]


@pytest.mark.parametrize("ema", [None, 0.8])
def test_early_stopping_restores_the_best_weights(ema, device):
    """Validation data whose optimum lies on the way to that of the training data."""
    model = Mean().to(device)
    x, valid = torch.full((64, 1), 3.0, device=device), torch.full((10, 1), 1.0, device=device)
    settings = dict(valid=valid, valid_every=2, patience=5, lr=0.05, schedule="constant", ema=ema)
    updates = run(model, x, steps=500, **settings)
    losses = [u.valid for u in updates if u.valid is not None]
    best = min(losses)
    assert len(updates) < 100 and updates[0].valid is None and updates[1].valid is not None
    assert losses.index(best) == len(losses) - 1 - 5
    assert model(valid).mean().item() == pytest.approx(best) and model.mean.item() == pytest.approx(
        1, abs=0.1
    )


def test_validation_leaves_the_training_alone(device):
    x, c = pairs(100, device)
    models = []
    for valid in (None, (x[:7], c[:7])):
        torch.manual_seed(0)
        models.append(Regression(noise=0.1).to(device))
        updates = run(models[-1], x, context=c, steps=20, batch_size=10, valid=valid, lr=0.0)
    assert False in models[1].modes and models[1].modes.count(True) == 20
    assert len({u.valid for u in updates if u.valid is not None}) == 1  # lr 0 and the same noise
    torch.manual_seed(0)
    losses = [u.loss for u in updates]
    again = Regression(noise=0.1).to(device)
    assert [u.loss for u in run(again, x, context=c, steps=20, batch_size=10, lr=0.0)] == losses


# checkpoints


def resumable(model, path, stop, device, steps=200, **kwargs):
    """Train a stochastic model with everything switched on; leave the loop after `stop` updates."""
    x, c = pairs(150, device, torch.Generator().manual_seed(0))
    settings = dict(context=c, steps=steps, batch_size=16, lr=0.02, weight_decay=0.01, clip=5.0)
    settings |= dict(ema=0.95, valid=(x[:20], c[:20]), valid_every=25, seed=3) | kwargs
    for update in fit(model, x, checkpoint=path, progress=False, **settings):
        if update.step == stop:
            break
    return update


def fresh(device):
    torch.manual_seed(5)
    return Regression(noise=0.3).to(device)


@pytest.mark.parametrize("valid", [True, False])
def test_resume_gives_the_same_weights_to_the_bit(valid, tmp_path, device):
    off = {} if valid else {"valid": None}
    whole, parts = fresh(device), fresh(device)
    torch.manual_seed(7)
    resumable(whole, tmp_path / "whole.pt", 200, device, **off)
    torch.manual_seed(7)
    resumable(parts, tmp_path / "parts.pt", 90, device, **off)
    torch.manual_seed(1234)  # another process, another seed, other initial weights
    parts = Regression(noise=0.3).to(device)
    update = resumable(parts, tmp_path / "parts.pt", 200, device, **off)
    assert update.step == 200
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b) if device.type == "cpu" else torch.allclose(a, b)
    kept = [torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in ("whole", "parts")]
    for key in ("model", "ema"):
        for a, b in zip(kept[0][key].values(), kept[1][key].values(), strict=True):
            torch.testing.assert_close(a, b)
    # a finished run is not trained further
    assert list(fit_again(parts, tmp_path / "parts.pt", device, off)) == []


def fit_again(model, path, device, off):
    x, c = pairs(150, device, torch.Generator().manual_seed(0))
    settings = dict(context=c, steps=200, batch_size=16, lr=0.02, weight_decay=0.01, clip=5.0)
    settings |= dict(ema=0.95, valid=(x[:20], c[:20]), valid_every=25, seed=3) | off
    return fit(model, x, checkpoint=path, progress=False, **settings)


def test_a_checkpoint_is_written_on_the_way_and_survives_a_failed_write(
    tmp_path, device, monkeypatch
):
    path = tmp_path / "deep" / "run.pt"
    model = Mean().to(device)
    x = torch.ones(8, 1, device=device)
    loop = fit(model, x, steps=50, checkpoint=path, checkpoint_every=10, progress=False)
    for update in loop:
        assert path.exists() == (update.step >= 10)
        if update.step == 25:
            break
    before = path.read_bytes()
    assert torch.load(path, weights_only=True)["step"] == 20

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        loop.close()
    assert path.read_bytes() == before and os.listdir(path.parent) == ["run.pt"]


@pytest.mark.parametrize("first", [torch.contiguous_format, torch.channels_last])
def test_adam_whatever_the_order_in_memory(first, tmp_path, device):
    """torch's fused Adam on a processor pairs numbers by their place in memory: wrong where orders differ."""
    x = torch.randn(8, 2, 5, 5, device=device)
    model = Picture().to(device)
    opt = torch.optim.Adam(model.parameters(), lr=0.05, fused=False)
    for _ in range(6):
        opt.zero_grad()
        model(x).mean().backward()
        opt.step()
    how = dict(batch_size=8, lr=0.05, schedule="constant", checkpoint=tmp_path / "run.pt")
    begun = Picture().to(device).to(memory_format=first)
    run(begun, x, steps=3, **how)
    # on a machine where the other order is the faster one
    ended = Picture().to(device).to(memory_format=torch.channels_last)
    run(ended, x, steps=6, **how)
    torch.testing.assert_close(ended.state_dict(), model.state_dict(), rtol=1e-4, atol=1e-5)


def test_a_foreign_checkpoint_is_refused(tmp_path, device):
    path, x = tmp_path / "run.pt", torch.ones(8, 1, device=device)
    run(Mean().to(device), x, steps=5, checkpoint=path)
    with pytest.raises(ValueError, match=r"was written with lr=0.001 \(now 0.1\)"):
        run(Mean().to(device), x, steps=5, checkpoint=path, lr=0.1)
    with pytest.raises(ValueError, match="belongs to another model than this Mean"):
        run(Mean(2).to(device), x.expand(8, 2), steps=5, checkpoint=path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="is not a checkpoint of fit"):
        run(Mean().to(device), x, steps=5, checkpoint=path)


# failures


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_loss_stops_at_once_with_the_last_good_weights(bad, tmp_path, device):
    x, c = pairs(64, device)
    trace = []
    model = Regression(
        spoil=lambda n, loss: loss * torch.where(loss == loss[0], bad, 1.0) if n == 6 else loss
    )
    model = model.to(device)
    path = tmp_path / "run.pt"
    with pytest.raises(
        FloatingPointError, match=r"step 6: loss (nan|inf), gradient norm (nan|inf), 1 of 8"
    ):
        for _ in fit(
            model, x, context=c, steps=9, batch_size=8, ema=0.9, progress=False, checkpoint=path
        ):
            trace.append(model.net.weight.detach().clone())
    assert len(trace) == 5
    # step 6 failed at the weights after step 5: those after step 4 are the last with a finite loss
    assert torch.equal(model.net.weight, trace[3]) and not path.exists()
    assert model.net.weight.grad is None


def test_an_infinite_gradient_of_a_finite_loss_stops_too(device):
    class Root(Mean):
        def forward(self, x, context=None):
            return (x[:, 0] * self.mean).sqrt()  # at 0: value 0, slope infinite

    with pytest.raises(FloatingPointError, match="step 1: loss 0, gradient norm (nan|inf)"):
        run(Root().to(device), torch.ones(4, 1, device=device), steps=2)


def test_divergence_is_caught(device):
    x, c = pairs(64, device)
    model = Regression().to(device)
    with pytest.raises(FloatingPointError):
        run(model, x, context=c, steps=50, lr=1e20, schedule="constant")
    assert all(p.isfinite().all() for p in model.parameters())
    assert model(x, c).isfinite().all()


def test_grad_mode_of_the_caller(device):
    """It neither leaks out of the generator nor gets in its way."""
    x, model = torch.ones(8, 1, device=device), Mean().to(device)
    for _ in fit(model, x, steps=3, valid=x, valid_every=1, progress=False):
        assert torch.is_grad_enabled()
    with torch.no_grad():
        assert all(u.valid is not None for u in run(model, x, steps=3, valid=x))  # by default
        assert not torch.is_grad_enabled()


def test_sampling_in_eval_mode_inside_the_loop_does_not_stay(device):
    x, c = pairs(64, device)
    model = Regression().to(device)
    for _ in fit(model, x, context=c, steps=4, progress=False):
        model.eval()
    assert model.modes == [True] * 4


def test_bfloat16(device):
    net = nn.Sequential(mlp(1, 1, 8))
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, context=None):
            out = self.net(x)
            seen.append(out.dtype)
            return (out - x).square().sum(1)

    updates = run(
        Net().to(device), torch.randn(64, 1, device=device), steps=60, lr=0.01, amp=torch.bfloat16
    )
    assert set(seen) == {torch.bfloat16} and updates[-1].loss < updates[0].loss / 2
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_progress_is_silent_when_told_or_not_at_a_terminal(device, capsys, monkeypatch):
    x = torch.ones(4, 1, device=device)
    list(fit(Mean().to(device), x, steps=2))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    list(fit(Mean().to(device), x, steps=2))
    assert capsys.readouterr() == ("", "")
    monkeypatch.delenv("TQDM_DISABLE")
    list(fit(Mean().to(device), x, steps=2, progress=False))
    assert capsys.readouterr() == ("", "")
    list(fit(Mean().to(device), x, steps=2))  # there is a bar that the others could have shown
    assert "2/2" in capsys.readouterr().err


def test_mistakes(device):
    x, model = torch.ones(8, 1, device=device), Mean().to(device)
    nan = x.clone()
    nan[3] = math.nan

    class Averaged(Mean):
        def forward(self, x, context=None):
            return super().forward(x).mean()

    for call, error, says in [
        (lambda: fit(model, x, steps=0), ValueError, "steps must be at least 1"),
        (lambda: fit(model, x, steps=2.5), TypeError, "steps must be an int"),
        (lambda: fit(model, x.long(), steps=1), TypeError, "data must be floating point"),
        (lambda: fit(model, x.double(), steps=1), ValueError, "got 8 of torch.float64"),
        (lambda: fit(model, x[:0], steps=1), ValueError, "got 0 of torch.float32"),
        (lambda: fit(model, nan, steps=1), ValueError, "data has 1 of 8 values that are NaN"),
        (lambda: fit(model, x, steps=1, context=x[:3]), ValueError, "one row for each of the 8"),
        (
            lambda: fit(model, pairs, steps=1, context=x),
            ValueError,
            "returns \\(x, context\\) itself",
        ),
        (
            lambda: run(model, lambda n: (x, torch.ones(len(x) + 2, 1)), steps=1),
            ValueError,
            "gave 8 examples and a context of 10 rows",
        ),
        (lambda: fit(model, x, steps=1, patience=3), ValueError, "give fit some `valid`"),
        (lambda: fit(model, x, steps=1, schedule="linear"), ValueError, '"cosine" or "constant"'),
        (lambda: fit(model, x, steps=1, ema=1.0), ValueError, "between 0 and 1"),
        (lambda: fit(model, x, steps=1, clip=0), ValueError, "above 0; got 0"),
        (lambda: fit(model, x, steps=1, amp=torch.float16), ValueError, "no scaler"),
        (lambda: fit(nn.Identity(), x, steps=1), ValueError, "no parameters to train"),
        (
            lambda: run(Averaged().to(device), x, steps=1),
            ValueError,
            r"Averaged\(x, context\) must return one loss for each of the 8 .*got shape \(\)",
        ),
    ]:
        with pytest.raises(error, match=says):
            call()


class Weighted(Mean):
    """A loss with a number that may be set during training, as a VAE's kl_weight."""

    def __init__(self):
        super().__init__()
        self.weight = 0.0

    def forward(self, x, context=None):
        return super().forward(x) + self.weight


@pytest.mark.parametrize("ema", [None, 0.9])
def test_validation_sees_the_numbers_that_the_loop_sets(ema, device):
    model, x = Weighted().to(device), torch.zeros(8, 1, device=device)
    seen = []
    for update in fit(model, x, steps=4, lr=1e-9, ema=ema, valid=x, valid_every=1, progress=False):
        seen.append(update.valid)
        model.weight = 10.0 * update.step
    assert seen == pytest.approx([0.0, 10.0, 20.0, 30.0])


def test_settings_in_numpys_numbers_can_be_resumed(tmp_path, device):
    x, path = torch.randn(16, 1, device=device), tmp_path / "run.pt"
    how = dict(steps=4, lr=np.float64(0.1), seed=np.int64(3), checkpoint=path)
    run(Mean().to(device), x, **how)
    assert run(Mean().to(device), x, **how) == []  # it is complete


class Counting(Mean):
    """Counts the batches that it has seen, in a buffer; one of them fails."""

    def __init__(self, fails=0):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.fails = fails

    def forward(self, x, context=None):
        if self.training:
            self.count += 1
            if self.count == self.fails:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_a_step_that_ran_out_of_memory_leaves_no_trace(tmp_path, device):
    x, path = torch.randn(16, 1, device=device), tmp_path / "run.pt"
    with pytest.raises(MemoryError, match="up to step 2"):
        run(Counting(fails=3).to(device), x, steps=6, checkpoint=path)
    model = Counting().to(device)
    run(model, x, steps=6, checkpoint=path)
    assert model.count == 6


def test_a_refused_checkpoint_leaves_the_weights(tmp_path, device):
    """Also those that would have fitted."""

    class Two(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(3, width)

        def forward(self, x, context=None):
            return self.b(self.a(x)).square().sum(1)

    x, path = torch.randn(16, 2, device=device), tmp_path / "run.pt"
    run(Two(3).to(device), x, steps=3, checkpoint=path)
    other = Two(4).to(device)
    before = other.a.weight.clone()
    with pytest.raises(ValueError, match="belongs to another model"):
        run(other, x, steps=3, checkpoint=path)
    assert torch.equal(other.a.weight, before)


def test_a_function_may_draw_no_context(tmp_path, device):
    """(x, None), as a function that has one now and then may write it."""
    draw = lambda n: (torch.randn(n, 1), None)
    plain, kept = Mean().to(device), Mean().to(device)
    torch.manual_seed(0)
    run(plain, draw, steps=3)
    torch.manual_seed(0)
    run(kept, draw, steps=3, checkpoint=tmp_path / "run.pt")
    assert torch.equal(plain.mean, kept.mean)


def test_an_average_of_half_precision_weights_is_refused():
    data = torch.ones(8, 1).bfloat16()
    with pytest.raises(ValueError, match="ema needs weights in float32"):
        next(iter(fit(Mean().bfloat16(), data, steps=1, ema=0.9, progress=False)))


def test_validation_leaves_frozen_parts_as_they_are():
    class Fronted(nn.Module):
        def __init__(self):
            super().__init__()
            self.front, self.back = nn.BatchNorm1d(2).requires_grad_(False), nn.Linear(2, 1)

        def forward(self, x, context=None):
            return self.back(self.front(x)).square().flatten()

    model = Fronted()
    model.front.eval()
    x = 5 + torch.randn(64, 2)
    modes = [
        (model.front.training, model.back.training)
        for _ in fit(model, x, steps=6, batch_size=16, valid=x[:16], valid_every=2, progress=False)
    ]
    assert modes == [(False, True)] * 6
    assert torch.equal(model.front.running_mean, torch.zeros(2))


class Costly(Mean):
    """A loss of 500 for each example, which float16 can hold: of 256 the sum is past its end."""

    def forward(self, x, context=None):
        return 500 + 0 * super().forward(x)


def test_a_validation_loss_in_half_precision_is_summed_in_float32(device):
    x = torch.ones(300, 1, dtype=torch.float16, device=device)
    model = Costly().to(device, torch.float16)
    (update,) = run(model, x, steps=1, valid=x)
    assert update.loss == update.valid == 500


def test_the_best_weights_keep_what_else_a_model_stores(tmp_path, device):
    """`get_extra_state` may be anything that a checkpoint can hold."""

    class Named(Mean):
        extra = None

        def get_extra_state(self):
            return {"name": "mean", "steps": [1, 2]}

        def set_extra_state(self, state):
            self.extra = state

    model, x = Named().to(device), torch.ones(8, 1, device=device)
    run(model, x, steps=3, valid=x, checkpoint=tmp_path / "run.pt")
    assert model.extra == {"name": "mean", "steps": [1, 2]}
    assert run(model, x, steps=3, valid=x, checkpoint=tmp_path / "run.pt") == []
