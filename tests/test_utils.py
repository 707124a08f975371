import math

import pytest
import torch
from torch.testing import assert_close

from lib.utils import (
    check_batch,
    check_count,
    check_finite,
    expand_as_batch,
    log_normal_interval,
    measuring,
    seeded,
    std_normal_log_prob,
    sum_dims,
)


def test_sum_dims(device):
    x = torch.arange(24.0, dtype=torch.float64, device=device).reshape(2, 3, 4)
    assert_close(sum_dims(x), x.new_tensor([66.0, 210.0]))
    assert_close(sum_dims(x[:, 0, 0]), x[:, 0, 0])


def test_expand_as_batch(device):
    x = torch.randn(3, 2, 4, dtype=torch.float64, device=device)
    t = torch.tensor([0.3, 0.5, 0.7], device=device)
    out = expand_as_batch(t, x)
    assert out.shape == (3, 1, 1) and out.dtype == x.dtype and out.device == x.device
    assert_close((out * x)[1], 0.5 * x[1], rtol=1e-6, atol=0)
    assert expand_as_batch(0.3, x).shape == ()
    with pytest.raises(ValueError, match=r"each of the 3 examples.*\(2,\)"):
        expand_as_batch(t[:2], x)
    with pytest.raises(ValueError, match=r"not a tensor of shape \(3, 1\)"):
        expand_as_batch(t[:, None], x)


def test_std_normal_log_prob_is_the_normal_density(device):
    z = torch.randn(5, 2, 3, dtype=torch.float64, device=device)
    truth = torch.distributions.Normal(z.new_zeros(()), 1.0).log_prob(z).sum((1, 2))
    assert_close(std_normal_log_prob(z), truth)


@pytest.mark.parametrize(
    ("x", "kwargs", "error", "message"),
    [
        ([1.0], {}, TypeError, "x must be a torch.Tensor, not list"),
        (torch.zeros(2, 2, dtype=torch.int64), {}, TypeError, r"torch.int64: convert.*float\(\)"),
        (torch.zeros(2), {"d": 2}, ValueError, r"shape \(B, 2\), not \(2,\)"),
        (torch.zeros(4, 3), {"d": 2, "name": "z"}, ValueError, r"z must have shape \(B, 2\)"),
        (torch.tensor(1.0), {}, ValueError, "single number"),
        (torch.zeros(4, 3), {"context": torch.zeros(5, 1)}, ValueError, "each of the 4 rows of x"),
        (torch.zeros(4, 3), {"context": [1]}, TypeError, "context must be a torch.Tensor"),
        (torch.tensor([[0.0, math.nan]]), {}, ValueError, r"x has 1 of 2 .* index \(0, 1\)"),
        (torch.tensor([[0.0], [math.inf]]), {}, ValueError, r"infinite, .* \(1, 0\)"),
        (torch.ones(1, 1), {"context": torch.tensor([math.nan])}, ValueError, "context has 1 of 1"),
    ],
)
def test_check_batch_explains(x, kwargs, error, message):
    with pytest.raises(error, match=message) as caught:
        check_batch(x, **kwargs)
    assert "\n" not in str(caught.value)


def test_check_batch_returns_what_is_right():
    x = torch.randn(4, 3)
    assert check_batch(x, 3, context=torch.arange(4)) is x
    x[0, 0] = math.nan
    assert check_batch(x, finite=False) is x
    with pytest.raises(ValueError):
        check_finite(x)


def test_check_count():
    assert check_count(3) == 3
    for bad, error in ((0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="n must be"):
            check_count(bad)


@pytest.mark.parametrize("centre", [0.0, 0.3, -2.0, 8.0, -30.0])
@pytest.mark.parametrize("width", [9e-3, 1e-4, 1e-8])
def test_log_normal_interval_of_a_narrow_one(width, centre, device):
    """float32 against the midpoint's density, right to width^2 (1 + centre^2) / 24, in float64."""
    mid = torch.tensor(centre, dtype=torch.float64)
    truth = math.log(width) + torch.distributions.Normal(0.0, 1.0).log_prob(mid)
    truth = truth + width**2 * (mid**2 - 1) / 24
    low, high = (torch.tensor(centre + s * width / 2, device=device) for s in (-1, 1))
    got = log_normal_interval(low, high, width)
    assert_close(got.double().cpu(), truth, rtol=3e-7, atol=3e-6 + (width * centre) ** 4)


@pytest.mark.parametrize(("low", "high"), [(-3.0, 2.9), (-2.9, 3.0), (-6.0, 1.0)])
def test_log_normal_interval_around_zero(low, high, device):
    """The bound on the gap is made of both ends: of the lower one alone it would be no bound here."""
    ends = torch.tensor([low, -high], dtype=torch.float64, device=device)
    truth = torch.log1p(-torch.special.ndtr(ends).sum())  # the two tails are what is missing
    assert_close(log_normal_interval(ends[0], -ends[1], high - low), truth, rtol=1e-12, atol=0)


def test_log_normal_interval_has_no_step(device):
    ends = [torch.tensor([-40.0, -3.0, -0.1, 0.0, 2.5], dtype=torch.float64, device=device)] * 2
    parts = [
        log_normal_interval(a - w / 2, a + w / 2, w) - math.log(w)
        for a, w in zip(ends, (9.999e-3, 1.0001e-2), strict=True)
    ]
    assert_close(*parts, rtol=0, atol=1e-5)


def test_seeded_repeats_and_leaves_the_stream_alone(device, monkeypatch):
    """Only the CPU's generator and, on a card, this one's: never every card's."""
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("all cards"))
    torch.rand(3, device=device)
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(5, device):
            draws.append(torch.rand(4))
    assert (draws[0] == draws[1]).all() and (torch.get_rng_state() == before).all()


def test_measuring_puts_each_part_back(device):
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(2)).to(device)
    model[1].eval()  # frozen on purpose
    with pytest.raises(RuntimeError, match="stop"), measuring(model, 0):
        assert not model[0].training
        raise RuntimeError("stop")
    assert model.training and model[0].training and not model[1].training
