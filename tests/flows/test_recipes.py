"""The recipes: digits are learnt, a step of the full-size training runs, measuring is right."""

import math

import pytest
import torch
from torch import nn

from lib import weights
from lib.data import images
from lib.data.images import bits_per_dim, quantise
from lib.flows import Compose, Flow, LULinear, recipes
from lib.flows.continuous import Continuous, set_solver
from lib.flows.recipes import Pixels, chessboard, digits_glow, digits_realnvp, measure
from lib.train import fit


@pytest.mark.parametrize("build", [digits_realnvp, digits_glow])
def test_digits_are_learnt(build, device):
    recipe = build(steps=60, width=16)
    model, train = recipe.model.to(device), recipe.train.to(device)
    levels = train.part("valid")[:60]
    before, _ = measure(model, levels, draws=2)
    for _ in fit(model, train, **recipe.fit | {"ema": None, "valid_every": 60, "batch_size": 64}):
        pass
    after, error = measure(model, levels, draws=2)
    assert after < before - 0.1 and 0 < error < 0.2
    assert model.sample(3).shape == (3, *train.shape)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_full_size_recipes_take_a_step(name, device, monkeypatch):
    shape = (3, 32, 32) if "cifar" in name else (1, 28, 28)
    few = torch.randint(256, (12, *shape), dtype=torch.uint8)
    data = "cifar10" if "cifar" in name else "mnist"
    monkeypatch.setattr(images, data, lambda split: (few, None))
    recipe = recipes.RECIPES[name](steps=1)
    settings = recipe.fit | {"batch_size": 2, "valid": recipe.fit["valid"][:2], "valid_every": 1}
    model = recipe.model.to(device)
    (update,) = fit(model, recipe.train.to(device), **settings)
    assert 5 < bits_per_dim(update.loss, math.prod(shape), 256) < 20
    assert model.sample(1).shape == (1, *shape)


def test_pixels_draw_images_with_fresh_noise(device):
    pixels = Pixels("digits").to(device)
    x = pixels(64)
    assert (
        x.shape == (64, 1, 8, 8) and 0 <= x.min() and x.max() < 1 and x.device.type == device.type
    )
    levels = quantise(x, 17).flatten(1)
    assert (levels[:, None] == pixels.train.flatten(1)).all(2).any(1).all()  # all from the data
    held = pixels.held(copies=2)
    assert len(held) == 360 and torch.equal(held, pixels.held(copies=2))
    assert torch.equal(quantise(held[:180], 17), quantise(held[180:], 17))
    assert not torch.equal(held[:180], held[180:])
    assert Pixels("digits", flat=True)(5).shape == (5, 64)


def test_mirror(monkeypatch):
    one = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    monkeypatch.setattr(images, "cifar10", lambda split: (one, None))
    x = quantise(Pixels("cifar10", mirror=True)(50), 256)
    straight = (x == one).all((1, 2, 3))
    assert 10 < straight.sum() < 40 and (x[~straight] == one.flip(3)).all()


def test_chessboard_is_one_of_the_image():
    board = chessboard().view(8, 8)
    assert board.sum() == 32 and (board[0, ::2]).all() and not board[1, ::2].any()


def test_measure_is_the_mean_of_bits(device):
    """A normal density of wide spread is nearly flat: closed form up to its slope in a cell."""
    torch.manual_seed(0)
    flow = Flow(LULinear(4), 4).to(device)
    levels = torch.randint(17, (30, 4))
    mean, error = measure(flow, levels, draws=400)
    k = (levels.double() + 0.5) / 17
    second = k**2 + 1 / (12 * 17**2)  # E of the square within a cell
    nll = 0.5 * (second + math.log(2 * math.pi)).sum(1)
    want = bits_per_dim(nll, 4, 17)
    assert mean == pytest.approx(want.mean().item(), abs=1e-3)
    assert error == pytest.approx(want.std().item() / 30**0.5, rel=0.05)


def test_measure_wants_a_draw_and_no_parameters():
    levels = torch.randint(17, (5, 4))
    with pytest.raises(ValueError, match="draws must be at least 1"):
        measure(Flow(LULinear(4), 4), levels, draws=0)
    bare, same = (measure(Flow(f, 4), levels) for f in (Compose(), LULinear(4)))
    assert bare == pytest.approx(same)


def test_main_writes_measured_weights(tmp_path, monkeypatch):
    few = torch.randint(256, (8, 1, 8, 8), dtype=torch.uint8)
    monkeypatch.setattr(images, "mnist", lambda split: (few, None))
    small = lambda seed, steps: recipes._recipe(
        lambda pixels: recipes.glow(pixels.shape, 1, 1, 4),
        Pixels("mnist"),
        seed,
        steps=steps,
        batch_size=4,
        valid_every=1,
    )
    monkeypatch.setitem(recipes.RECIPES, "mnist_glow", small)
    recipes.main(["mnist_glow", "--steps", "2", "--to", str(tmp_path), "--device", "cpu"])
    model = small(0, 2).model
    card = weights.load("mnist_glow", model, tmp_path)
    assert card["curve"][-1][0] == 2 and card["metrics"]["unit"] == "bits per dimension"
    assert measure(model, few, 256, draws=4)[0] == pytest.approx(card["metrics"]["bits"])


def test_probes_are_not_the_noise_once_more():
    """Of one seed, both would be functions of the same numbers, and the trace's estimate biased."""

    class Square(nn.Module):
        shape = (64,)

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.5))

        def forward(self, t, x):
            return self.w * x * x

    levels = images.digits("test")[0].flatten(1)
    flow = Flow(Continuous(Square(), solver="rk4", steps=4), 64)
    exact = measure(flow, levels)[0]
    set_solver(flow, trace="hutchinson", probe="gaussian")
    assert abs(measure(flow, levels)[0] - exact) < 0.006


def test_vectors_are_not_mirrored():
    with pytest.raises(ValueError, match="not both"):
        Pixels("digits", flat=True, mirror=True)
