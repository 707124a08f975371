"""What the sweep over rates measures, and what is stored of it."""

import math

import pytest
import torch

from lib import weights
from lib.data import shapes
from lib.vae import compress
from lib.vae.autoencoder import KLAutoencoder
from lib.vae.compress import CODES, KL_WEIGHTS, Rates, images, levels, measure, trained
from lib.vae.elbo import kl_normal
from lib.vae.vq import VQAutoencoder


@pytest.fixture
def pictures():
    attributes = shapes.sample_attributes(40, torch.Generator().manual_seed(0), second=0.25)
    return 2 * shapes.render(attributes) - 1, attributes


def test_rate_of_a_divergence(pictures):
    torch.manual_seed(0)
    model = KLAutoencoder(width=8).eval()
    rate, entropy, used, error, right = measure(model, *pictures)
    mean, log_std = model.encode(pictures[0])
    nats = kl_normal(mean.flatten(1), log_std.flatten(1)).mean().item()
    assert rate == entropy == pytest.approx(nats / math.log(2) / 1024, rel=1e-5)
    assert error == pytest.approx(
        (model.reconstruct(pictures[0]) - pictures[0]).square().mean().item()
    )
    assert 0 <= right < 0.5  # an untrained network
    with torch.no_grad():  # a latent is used above 0.01 nats of an image, not of all of them
        model.encoder[-1].weight.zero_()  # mean 0.2: 0.02 nats; 0.1: 0.005
        model.encoder[-1].bias.copy_(torch.tensor([0.2, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    assert measure(model, *pictures)[2] == 0.25


def test_rate_of_a_codebook(pictures):
    torch.manual_seed(0)
    model = VQAutoencoder(width=8, codes=16)
    model(pictures[0])  # places the codes
    rate, entropy, used, *_ = measure(model.eval(), *pictures)
    assert rate == 64 * 4 / 1024 and 0 < entropy <= rate and 0 < used <= 1


def test_training_lowers_the_error(pictures):
    torch.manual_seed(0)
    model = KLAutoencoder(width=8).eval()
    before = (model.reconstruct(pictures[0]) - pictures[0]).square().mean()
    model = trained(model, 12)
    assert not model.training
    assert (model.reconstruct(pictures[0]) - pictures[0]).square().mean() < before


def test_levels_and_images():
    x = images(6, torch.Generator().manual_seed(1))
    assert x.shape == (6, 3, 32, 32) and -1 <= x.min() and x.max() <= 1 and x.min() < -0.7
    assert levels(torch.tensor([-2.0, -1.0, 0.0, 1.0])).tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize(("threads", "said"), [(1, "cpu, one thread"), (3, "cpu, 3 threads")])
def test_the_card_says_how_many_threads_there_were(threads, said, monkeypatch):
    cards = []
    monkeypatch.setattr(compress, "sweep", Rates)
    monkeypatch.setattr(weights, "save", lambda name, model, card: cards.append(card))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    compress.main()
    assert cards[0]["device"] == said


def test_what_is_stored_trades_rate_for_error():
    rates = Rates()
    weights.load("shapes_rates", rates)
    n = len(KL_WEIGHTS)
    assert (rates.rate[:n].diff() < 0).all() and (rates.error[:n].diff() > 0).all()
    assert (rates.rate[n:].diff() > 0).all() and (rates.error[n:].diff() < 0).all()
    want = torch.tensor([64 * math.log2(k) / 1024 for k in CODES])
    torch.testing.assert_close(rates.rate[n:], want, rtol=1e-3, atol=0)
    assert (rates.entropy <= rates.rate).all()
    assert rates.psnr[0] == pytest.approx(10 * math.log10(4 / rates.error[0].item()))
