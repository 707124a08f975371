"""What the reader's numbers are where the truth is known: true images, and images with one fault."""

import math

import pytest
import torch

from lib import weights
from lib.data import shapes
from lib.data.captions import decode_captions, parse_captions
from lib.data.reader import read_attributes
from lib.diffusion import Cosine, Denoiser
from lib.diffusion.latent import LatentDiffusion
from lib.diffusion.obedience import _spread, draw, obedience
from lib.diffusion.shapes import (
    autoencoder_model,
    captioned,
    ddpm_model,
    latent_model,
    measure,
    pixel_model,
    share_right,
)


class Painter(torch.nn.Module):
    """A "model" that draws its captions truly, or with a fault."""

    def __init__(self, fault=lambda shown: shown):
        super().__init__()
        self.fault, self.weight = fault, torch.nn.Parameter(torch.zeros(()))
        self.denoiser = torch.nn.Identity()
        self.denoiser.schedule = Cosine()

    def sample(self, n, tokens, steps, step, start):
        shown = shapes.from_labels(parse_captions(decode_captions(tokens)))
        return 2 * shapes.render(self.fault(shown)) - 1


def test_true_images_are_all_right_and_as_diverse_as_the_data():
    for second in (0.0, 1.0):
        got = obedience(Painter(), 1.0, captions=40, each=20, second=second)
        assert got.attributes == got.images == 1.0, got
        assert got.spread == pytest.approx(1, abs=0.1)
        assert len(got.right) == (9 if second else 5)


def test_a_fault_is_seen_where_it_is():
    green = obedience(Painter(lambda a: a.replace(colour=1)), 1.0, captions=50, each=4, seed=2)
    wanted = shapes.sample_attributes(50, torch.Generator().manual_seed(2)).colour
    share = (wanted == 1).double().mean().item()
    assert green.right["colour"] == pytest.approx(share) and green.right["shape"] == 1.0
    assert green.images == pytest.approx(share)
    assert green.attributes == pytest.approx((4 + share) / 5)
    round_ = obedience(Painter(lambda a: a.replace(shape=0)), 1.0, captions=50, each=4, seed=2)
    asked = shapes.sample_attributes(50, torch.Generator().manual_seed(2)).shape
    assert round_.shapes == (asked == 0).double().tolist()  # caption by caption


def test_the_same_image_again_has_no_spread():
    generator = torch.Generator()
    painter = Painter()

    def same(n, tokens, steps, step, start):
        labels = parse_captions(decode_captions(tokens))
        rows = [
            shapes.from_labels(row[None], generator.manual_seed(int(row.clamp_min(0).sum())))
            for row in labels
        ]
        return 2 * torch.cat([shapes.render(row) for row in rows]) - 1

    painter.sample = same
    assert obedience(painter, 1.0, captions=10, each=5).spread < 0.02
    with pytest.raises(ValueError, match="needs 2 images of a caption"):
        obedience(painter, 1.0, each=1)


@pytest.mark.parametrize("make", [latent_model, pixel_model])
def test_draw_gives_images_and_follows_its_noise(make):
    model = make().eval()
    start = torch.randn(2, *(model.prior if isinstance(model, LatentDiffusion) else model).shape)
    texts = ["a red circle", "a small blue cross at the top on a light background"]
    a, b = (draw(model, texts, w=2.0, steps=2, start=start) for _ in range(2))
    assert a.shape == (2, 3, 32, 32) and torch.equal(a, b) and 0 <= a.min() and a.max() <= 1


def test_captions_of_training_say_only_what_is_there():
    x, tokens = captioned(200, torch.Generator().manual_seed(0))
    read = shapes.labels(read_attributes((x + 1) / 2))
    said = parse_captions(decode_captions(tokens))
    assert ((said == read) | (said < 0)).double().mean() > 0.999
    assert 0.05 < (said[:, 0] < 0).double().mean() < 0.3 and (said[:, 1] >= 0).all()


def test_the_stored_models_do_what_their_cards_say():
    """Few images: 4 standard errors of a share of 48 below the card's."""
    model = ddpm_model()
    card = weights.load("ddpm_shapes", model)
    says = card["metrics"]["share of 400 samples with the shape asked for"]
    assert share_right(model, 48, steps=12, seed=5) > says - 4 * (says * (1 - says) / 48) ** 0.5
    model = latent_model()
    card = weights.load("latent_shapes", model)
    best = card["metrics"]["w = 3"]
    got = obedience(model, 3.0, captions=24, each=2, seed=5)
    share = best["right"]["shape"]
    assert got.right["shape"] > share - 4 * (share * (1 - share) / 48) ** 0.5
    assert best["attributes"] >= 0.9 and got.attributes > 0.9


def test_spread_is_of_the_captions_whose_shapes_were_found():
    shown = shapes.sample_attributes(200, torch.Generator().manual_seed(0))
    lost = torch.arange(200) // 10 % 2 == 1  # of every other caption's ten, one alone is found
    lost &= torch.arange(200) % 10 != 0
    hide = lambda v: v.double().masked_fill(lost, torch.nan)
    found = shown.replace(x=hide(shown.x), y=hide(shown.y), size=hide(shown.size))
    assert _spread(found, 10) == pytest.approx(_spread(shown, 10).item(), rel=0.1)


@pytest.mark.parametrize("make", [ddpm_model, autoencoder_model])
def test_what_a_card_says_is_measured_where_the_model_is(make, device):
    found = measure(make().to(device), n=3)
    assert found and all(math.isfinite(v) for v in found.values())


def test_guesses_of_pixels_are_clipped_at_every_step():
    """The state moves towards x_hat: under a network that says 9 it would pass all that are pixels."""
    model, texts, states = pixel_model().eval(), ["a red circle"], []

    class Nine(torch.nn.Module):
        def forward(self, x, t, context):
            states.append(x.clone())
            return torch.full_like(x, 9.0)

    model.denoiser = Denoiser(Nine(), Cosine(), "x")
    model.register_parameter("where", torch.nn.Parameter(torch.zeros(())))
    start = torch.randn(1, *model.shape)
    draw(model, texts, steps=6, start=start)
    ts, schedule = Cosine().times(6, model.t_min), Cosine()
    for t, x_t in zip(ts, states, strict=True):  # with x_hat = 1 the whole path is known
        x = x_t[:1]  # of guidance's two
        want = schedule.alpha(t) + schedule.sigma(t) / schedule.sigma(1.0) * (
            start * schedule.sigma(1.0) - schedule.alpha(1.0)
        )
        torch.testing.assert_close(x, want, rtol=1e-4, atol=1e-4)
