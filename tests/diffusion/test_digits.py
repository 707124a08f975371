"""The digits' network: what a pixel alone tells is Bayes' rule; the stored weights are what their card says."""

import pytest
import torch

from lib import weights
from lib.data import images
from lib.diffusion import Cosine
from lib.diffusion.chain import chain_times
from lib.diffusion.digits import (
    NO_LABEL,
    DigitNet,
    digits,
    digits_model,
    labelled,
    measure,
    to_levels,
    to_unit,
)
from lib.quality import classifier
from lib.train import fit

F64 = torch.float64


@pytest.fixture(scope="module")
def stored():
    model = digits_model()
    weights.load("ddpm_digits", model)
    return model


def test_levels_go_there_and_back():
    k = torch.arange(17)
    assert torch.equal(to_levels(to_unit(k)), k.to(torch.uint8))
    assert to_unit(k)[[0, 8, 16]].tolist() == [-1.0, 0.0, 1.0]
    assert to_levels(torch.tensor([-7.0, 0.06, 0.07, 9.0])).tolist() == [0, 8, 9, 16]


@pytest.mark.parametrize("t", [0.05, 0.3, 0.7])
def test_one_pixel_alone_by_bayes_rule(t):
    """Mean and deviation over the training images themselves, weighted by their likelihood."""
    levels, schedule = images.digits("train")[0], Cosine(10.0)
    net = DigitNet(schedule, levels).double()
    x_t = torch.randn(3, 1, 8, 8, dtype=F64)
    mean, std = net.alone(x_t, torch.full((3,), t, dtype=F64))
    for b, (i, j) in enumerate([(2, 3), (4, 4), (7, 2)]):
        seen = torch.cat([to_unit(levels[:, 0, i, j]), to_unit(torch.arange(17))]).double()
        count = torch.cat([torch.ones(len(levels)), torch.full((17,), 0.1)]).double()
        log = count.log() - (x_t[b, 0, i, j] - schedule.alpha(t) * seen) ** 2 / (
            2 * schedule.sigma(t) ** 2
        )
        p = log.softmax(0)
        assert mean[b, 0, i, j].item() == pytest.approx((p @ seen).item(), abs=1e-5)
        spread = (p @ (seen - p @ seen) ** 2).sqrt().item()
        assert std[b, 0, i, j].item() == pytest.approx(spread, abs=2e-5)


def test_no_context_is_the_null_label(stored):
    x = torch.randn(4, 1, 8, 8)
    null = torch.full((4,), NO_LABEL)
    torch.testing.assert_close(stored.denoiser(x, 0.4), stored.denoiser(x, 0.4, null))
    known = stored.denoiser(x, 0.4, torch.tensor([1, 2, 3, 4]))
    assert (known - stored.denoiser(x, 0.4)).abs().max() > 0.05


def test_the_guess_is_nearly_free_of_error_where_levels_can_be_told(stored):
    x, _ = labelled("test")
    sigma = stored.denoiser.schedule.sigma(0.01)
    x_t = stored.denoiser.schedule.alpha(0.01) * x + sigma * torch.randn_like(x)
    error = (stored.denoiser(x_t, 0.01) - x).square().mean().sqrt()
    assert error < 0.35 * sigma


def test_the_card_s_bits(stored):
    """With fewer steps than the card's, so a little more; and the label helps."""
    said = weights.card("ddpm_digits")["metrics"]
    bound = measure(stored, 40)
    error = bound.total.std().item() / len(bound.total) ** 0.5
    assert said["bits"] < bound.total.mean().item() < said["bits"] + 0.4
    assert bound.prior.mean() < 1e-4
    told = measure(stored, 40, with_labels=True)
    saved = (bound.total - told.total).mean().item()
    assert 0.03 < saved < 0.2
    assert error < 0.02


def test_samples_are_digits(stored):
    labels = torch.arange(10).repeat(20)
    x = stored.sample(200, labels, steps=50)
    assert classifier("digits").accuracy(x.clamp(-1, 1), labels) > 0.9
    assert (x - to_unit(to_levels(x))).abs().mean() < 0.01  # they lie on grey levels


def test_the_recipe_learns():
    recipe = digits(steps=30)
    updates = list(
        fit(
            recipe.model,
            recipe.train,
            **(recipe.fit | dict(valid_every=15, ema=0.9)),
            progress=False,
        )
    )
    assert updates[-1].valid < 0.97 * updates[0].loss


def test_a_pixel_alone_is_exact_under_autocast(device):
    model = digits_model().to(device)
    x, t = (
        torch.randn(4, 1, 8, 8, device=device).clamp(-1, 1),
        torch.full((4,), 0.02, device=device),
    )
    net = model.denoiser.net
    want = net.alone(x, t)
    with torch.autocast(device.type, torch.bfloat16):
        got = net.alone(x, t)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_a_chain_of_one_time_is_its_last_guess(device):
    model = digits_model().to(device).eval()
    start = torch.randn(3, 1, 8, 8, device=device)
    got = model.sample(3, steps=chain_times(1), start=start)
    schedule = model.denoiser.schedule
    torch.testing.assert_close(got, model.denoiser(start * schedule.sigma(1.0), 1.0))
