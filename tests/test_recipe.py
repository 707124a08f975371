"""The command line of the recipes: options arrive, the curve is the mean of the losses, what is stored loads."""

import pytest
import torch
from torch import nn

from lib import weights
from lib.recipe import Recipe, store, train
from lib.train import fit


class Line(nn.Module):
    """Squared distance of the data from a point: (B, 2) -> (B,)."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2))

    def forward(self, x, context=None):
        return (x - self.at).square().sum(1)


def line(steps: int = 3, seed: int = 0) -> Recipe:
    data = torch.randn(32, 2, generator=torch.Generator().manual_seed(0)) + 1
    settings = dict(steps=steps, batch_size=8, lr=0.1, seed=seed, progress=False)
    return Recipe(Line(), data, settings)


def test_the_curve_is_the_mean_of_the_losses_since_the_last_entry():
    words = ["line", "--steps", "6", "--seed", "3", "--device", "cpu"]
    run = train({"line": line}, "", words, every=2)
    recipe = line(6, 3)
    losses = [u.loss for u in fit(recipe.model, recipe.train, **recipe.fit)]
    want = [[k, pytest.approx((losses[k - 2] + losses[k - 1]) / 2, abs=1e-4)] for k in (2, 4, 6)]
    assert run.curve == want
    torch.testing.assert_close(run.model.at, weights.round_weights(recipe.model).at, rtol=0, atol=0)


def test_what_is_stored_loads_and_says_how_it_came_about(tmp_path):
    words = ["line", "--steps", "2", "--to", str(tmp_path), "--device", "cpu", "--often", "5"]
    run = train({"line": line}, "", words, often=dict(type=int))
    assert run.args.often == 5
    store(run, "lib.lines", "points", {"error": 1.0}, name="points")
    model = Line()
    card = weights.load("points", model, folder=tmp_path)
    torch.testing.assert_close(model.at, run.model.at, rtol=0, atol=0)
    assert card["recipe"] == "lib.lines.line(steps=2)"
    assert set(card["seconds"]) == {"wall", "processor"}
