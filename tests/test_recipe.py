"""The command line of the recipes: options arrive, the curve is the mean of the losses, what is stored loads."""

import json

import pytest
import torch
from torch import nn

from lib import weights
from lib.recipe import Log, Recipe, _checkpoint, store, train
from lib.train import fit
from lib.train.state import Run


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
    store(run, "lib.lines", "points", {"error": 1.0}, run.processor, name="points")
    model = Line()
    card = weights.load("points", model, folder=tmp_path)
    torch.testing.assert_close(model.at, run.model.at, rtol=0, atol=0)
    assert card["recipe"] == "lib.lines.line(steps=2)"
    assert card["seconds"] == run.processor


def test_the_curve_is_in_the_unit_asked_for():
    words = ["line", "--steps", "2", "--device", "cpu"]
    plain = train({"line": line}, "", words, every=1)
    half = train({"line": line}, "", words, every=1, unit=lambda recipe, nats: 0.5 * nats)
    assert [k for k, _ in half.curve] == [1, 2]
    for (_, a), (_, b) in zip(plain.curve, half.curve, strict=True):
        assert a == pytest.approx(2 * b, abs=2e-4)


def with_valid(steps: int = 400, seed: int = 0) -> Recipe:
    recipe = line(steps, seed)
    more = dict(valid=(torch.zeros(100, 2), None), batch_size=64, valid_every=100)
    return recipe._replace(fit=recipe.fit | more)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BOOK_MODE", raising=False)
    return tmp_path / "cache"


def test_quick_is_a_rehearsal_kept_apart_from_what_is_measured(cache, monkeypatch):
    run = train({"line": with_valid}, "", ["line", "--device", "cpu"])
    assert run.quick and run.recipe.fit["steps"] == 20 and run.recipe.fit["batch_size"] == 16
    assert len(run.recipe.fit["valid"][0]) == 64 and [k for k, *_ in run.curve] == [10, 20]
    path = store(run, "lib.lines", "points", {"error": 1.0}, 1.0)
    assert path.parent == cache / "quick" and weights.card("line", path.parent)["mode"] == "quick"
    monkeypatch.setenv("BOOK_MODE", "full")
    assert not train({"line": line}, "", ["line", "--device", "cpu"]).quick
    monkeypatch.setenv("BOOK_MODE", "fast")
    with pytest.raises(ValueError, match="BOOK_MODE must be 'quick' or 'full', not 'fast'"):
        train({"line": line}, "", ["line", "--device", "cpu"])


def test_full_keeps_a_checkpoint_of_its_own_until_the_card_is_written(cache, tmp_path):
    words = ["line", "--mode", "full", "--device", "cpu", "--to", str(tmp_path)]
    run = train({"line": with_valid}, "", words)
    assert run.recipe.fit["batch_size"] == 64
    kept = list((cache / "checkpoints").iterdir())
    assert {file.name for file in kept} == {
        "tests.test_recipe.line-0.pt",
        "tests.test_recipe.line-0.log.json",
    }
    last = json.loads((cache / "checkpoints" / "tests.test_recipe.line-0.log.json").read_text())[
        "rows"
    ][-1]
    again = train({"line": with_valid}, "", words)  # complete: nothing is trained, all is known
    assert again.curve == run.curve and again.wall >= last["clock"][0]
    assert torch.equal(again.model.at, run.model.at)
    store(again, "lib.lines", "points", {"error": 1.0}, 1.0)
    assert list((cache / "checkpoints").iterdir()) == []


def test_a_resumed_run_ends_with_the_whole_curve_and_all_seconds(tmp_path, monkeypatch):
    words = ["line", "--device", "cpu", "--steps", "40", "--checkpoint", str(tmp_path / "run.pt")]
    whole = train({"line": line}, "", [*words[:-1], str(tmp_path / "whole.pt")], every=10)

    def stopped(self, point, write, add=Log.add):
        if point[0] == 30:  # a hundred seconds later
            self.start = self.start[0] - 100.0, self.start[1] - 50.0
        add(self, point, write)
        if point[0] == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Log, "add", stopped)
        patch.setattr(Run, "finish", lambda self, path: self.save(path))
        train({"line": line}, "", words, every=10)
    run = train({"line": line}, "", words, every=10)
    assert [k for k, _ in run.curve] == [10, 20, 30, 40] and run.curve[-1] == whole.curve[-1]
    assert run.wall >= 100 and run.processor >= 50
    kept = store(run, "lib.lines", "points", {"error": 1.0}, run.wall, name="resumed")
    assert kept.exists() and (tmp_path / "run.pt").exists()  # asked for by name: stays


@pytest.mark.parametrize("marked", [False, True])
def test_the_clock_of_a_resumed_run_has_the_seconds_since_the_last_point_of_its_curve(
    tmp_path, monkeypatch, marked
):
    """A run that ends at step 8, two steps after its checkpoint, and long before its first point."""
    words = ["line", "--device", "cpu", "--steps", "12", "--checkpoint", str(tmp_path / "run.pt")]
    words += ["--checkpoint-every", "6"]

    def late(self, step, write, mark=Log.mark):
        if step == 6:  # a hundred seconds later
            self.start = self.start[0] - 100.0, self.start[1] - 50.0
        if marked or step == 6:  # else it is killed, and marks no end
            mark(self, step, write)

    def update(self, update=Run.update):
        if self.step == 8:
            raise KeyboardInterrupt
        return update(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Log, "mark", late)
        patch.setattr(Run, "update", update)
        patch.setattr(Run, "finish", lambda self, path: None)
        train({"line": line}, "", words, every=12)
    run = train({"line": line}, "", words, every=12)
    assert [k for k, _ in run.curve] == [12]
    assert 100 <= run.wall < 150 and 50 <= run.processor < 100


def test_precision_is_what_the_recipe_asks_for_where_the_hardware_has_it(monkeypatch):
    half = lambda steps=2, seed=0: line(steps, seed)._replace(
        fit=line(steps, seed).fit | {"amp": torch.bfloat16}
    )
    words = ["line", "--device", "cpu"]
    for recipe, option, has, want in (
        (half, "auto", True, torch.bfloat16),
        (half, "auto", False, None),
        (half, "fp32", True, None),
        (line, "auto", True, None),
        (line, "bf16", False, torch.bfloat16),
    ):
        monkeypatch.setattr("lib.recipe.has_bfloat16", lambda device, has=has: has)
        run = train({"line": recipe}, "", [*words, "--amp", option])
        assert run.recipe.fit.get("amp") == want


def test_batch_size_and_parts_are_options(tmp_path):
    words = ["line", "--steps", "6", "--device", "cpu", "--to", str(tmp_path)]
    whole = train({"line": line}, "", [*words, "--batch-size", "12"], every=2)
    parts = train({"line": line}, "", [*words, "--batch-size", "12", "--parts", "3"], every=2)
    assert whole.recipe.fit["batch_size"] == 12
    torch.testing.assert_close(parts.model.at, whole.model.at, rtol=1e-3, atol=0)
    store(whole, "lib.lines", "points", {"error": 1.0}, 1.0)
    assert weights.card("line", tmp_path)["recipe"] == "lib.lines.line(steps=6, batch_size=12)"


def test_recipes_of_one_name_keep_their_checkpoints_apart(cache):
    """cnf_mnist, ddpm_mnist and classifier_mnist are all "mnist" in the files that train them."""
    from lib import quality
    from lib.diffusion import recipes as images
    from lib.flows import recipes_ode as ode

    made = [ode.mnist, images.RECIPES["mnist"], quality.RECIPES["mnist"]]
    paths = [_checkpoint(make, "mnist", 0) for make in made]
    assert len(set(paths)) == 3
    assert paths[0].name == "flows.recipes_ode.mnist-0.pt"
    assert paths[2].name == "lib.quality.mnist-0.pt"


def test_checkpoints_keep_their_logs_apart(tmp_path):
    """What follows the last dot of a name may be part of a number."""
    logs = [Log(tmp_path / name).path for name in ("lr0.1", "lr0.2", "run.pt")]
    assert len(set(logs)) == 3
    assert logs[2] == tmp_path / "run.log.json"
