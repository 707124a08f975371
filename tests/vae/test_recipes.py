"""The recipes: the networks fit the data, a step of training runs, measuring agrees with the model."""

import pytest
import torch

from lib import weights
from lib.train import fit
from lib.vae import recipes
from lib.vae.recipes import digits_vae, measure


def test_digits_learns(device):
    recipe = digits_vae(steps=60)
    model, train = recipe.model.to(device), recipe.train.to(device)
    valid = recipe.fit["valid"].to(device)
    before = measure(model, valid[:50], samples=5)
    losses = [u.loss for u in fit(model, train, **recipe.fit | {"valid": None, "ema": None})]
    after = measure(model, valid[:50], samples=5)
    assert after["-elbo"] < before["-elbo"] - 20 and losses[-1] < losses[0] - 20
    assert after["-elbo"] == pytest.approx(after["-recon"] + after["kl"])
    assert after["-log p, 5 samples"] < after["-elbo"] + 0.5
    assert recipe.train.shape == (1257, 1, 8, 8) and valid.shape == (180, 1, 8, 8)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_mnist_recipes_take_a_step(name, device, monkeypatch):
    few = torch.randint(2, (64, 1, 28, 28), dtype=torch.uint8)
    monkeypatch.setattr(recipes, "binarized_mnist", lambda split: few)
    recipe = recipes.RECIPES[name](steps=1)
    settings = recipe.fit | {"batch_size": 8, "valid": recipe.fit["valid"][:8], "valid_every": 1}
    model = recipe.model.to(device)
    (update,) = fit(model, recipe.train.to(device), **settings)
    assert update.step == 1 and 300 < update.loss < 800
    assert model.sample(2).shape == (2, 1, 28, 28)


@pytest.mark.parametrize(("n", "stride"), [(6, 4), (5, 5), (100, 1)])
def test_main_writes_measured_weights(n, stride, tmp_path, monkeypatch):
    few = torch.randint(2, (24, 1, 28, 28), dtype=torch.uint8)
    monkeypatch.setattr(recipes, "binarized_mnist", lambda split: few)
    args = ["mnist_small", "--steps", "2", "--to", str(tmp_path), "--device", "cpu"]
    recipes.main([*args, "--test-images", str(n)])
    model = recipes.mnist_small_model()
    card = weights.load("mnist_small", model, tmp_path)
    again = measure(model, few[::stride].float())  # spread over the set
    assert card["metrics"]["examples"] == min(n, 24) and card["curve"][-1][0] == 2
    for key, value in again.items():
        assert card["metrics"][key] == pytest.approx(value)


@pytest.mark.parametrize("n", ["0", "-3", "few"])
def test_main_refuses_no_test_images_before_it_trains(n, monkeypatch, capsys):
    few = torch.randint(2, (24, 1, 28, 28), dtype=torch.uint8)
    monkeypatch.setattr(recipes, "binarized_mnist", lambda split: few)
    monkeypatch.setattr("lib.recipe.fit", lambda *args, **how: pytest.fail("it trains"))
    with pytest.raises(SystemExit) as end:
        recipes.main(["mnist_small", "--steps", "2", "--device", "cpu", "--test-images", n])
    assert end.value.code == 2 and "argument --test-images: " in capsys.readouterr().err


def test_stored_mnist_samples():
    """What chapter 3 shows without training: the stored weights load, and decode to digits."""
    if not (weights.FOLDER / "mnist_small.safetensors").exists():
        pytest.skip("no stored weights")
    model = recipes.mnist_small_model()
    card = weights.load("mnist_small", model)
    image = model.sample(64, generator=torch.Generator().manual_seed(0), mean=True)
    assert image.shape == (64, 1, 28, 28) and 0.05 < image.mean() < 0.25  # ink: 0.13 in the data
    assert 80 < card["metrics"]["-log p, 500 samples"] < card["metrics"]["-elbo"] < 110


def test_measuring_leaves_the_callers_random_numbers(device):
    model, x = digits_vae(steps=1).model.to(device), torch.zeros(5, 1, 8, 8, device=device)
    draws, found = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(measure(model, x, samples=7))
        draws.append(torch.rand(1).item())
    assert draws[0] != draws[1] and found[0] == found[1]
    assert recipes.measure_bound(model, x)["-elbo"] == found[0]["-elbo"]
