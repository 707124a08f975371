"""`python -m lib.train`: every recipe has a name, every name leads to a recipe, and the cards are read."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from lib import recipe as recipes
from lib import weights
from lib.train import __main__ as command
from lib.train.catalogue import ENTRIES, find, standing, table
from lib.train.draws import check_repeats


def asked(monkeypatch, name):
    """What the main of a recipe's module hands to `lib.recipe.train`: recipes, and the words."""
    found = {}

    def note(table, about, argv=None, **more):
        found.update(recipes=table, words=argv)
        raise InterruptedError

    module = importlib.import_module(ENTRIES[name].module)
    monkeypatch.setattr(module, "train", note)
    with pytest.raises(InterruptedError):
        command.main([name, "--mode", "full"])
    return found


@pytest.mark.parametrize("name", ENTRIES)
def test_a_name_leads_to_its_recipe(name, monkeypatch):
    found = asked(monkeypatch, name)
    assert found["words"] == [ENTRIES[name].own, "--mode", "full"]
    assert callable(found["recipes"][ENTRIES[name].own])


def test_no_recipe_is_left_out(monkeypatch):
    """Whatever a module's own command can train has a name here, older and shorter ones aside."""
    for module in {entry.module for entry in ENTRIES.values()}:
        own = [entry.own for entry in ENTRIES.values() if entry.module == module]
        name = next(name for name, entry in ENTRIES.items() if entry.module == module)
        left = set(asked(monkeypatch, name)["recipes"]) - set(own)
        assert left <= {"moons", "eight"}, module


def test_names_are_found_in_the_order_one_says_them():
    assert (
        find("mnist_realnvp") == find("realnvp-mnist") == find("MNIST-RealNVP") == "mnist_realnvp"
    )
    with pytest.raises(ValueError, match="no recipe is called 'mnist-glo'; near: mnist_glow"):
        find("mnist-glo")


def test_what_stands_on_the_cards_is_read():
    """Every stored model that the book trains by a recipe is found, and its number is on its card."""
    stored = {file.stem for file in weights.FOLDER.glob("*.safetensors")}
    assert stored - {"digits_beta", "shapes_rates"} <= set(ENTRIES)  # the two sweeps
    for name in stored & set(ENTRIES):
        at = standing(name)
        assert repr(at.value) in json.dumps(at.card["metrics"])
    assert standing("mnist_glow") is None or standing("mnist_glow").value < 2
    listed = table().splitlines()
    assert len(listed) == len(ENTRIES)
    assert re.search(r"mnist_small .*one core.*: 95.29 nats", table())


@pytest.mark.parametrize("name", ["digits_vae", "moons_spline", "cnf_moons", "latent_shapes"])
def test_the_data_of_recipes_can_be_resumed(name, monkeypatch):
    entry = ENTRIES[name]
    recipe = asked(monkeypatch, name)["recipes"][entry.own](seed=0)
    if callable(recipe.train):
        check_repeats(recipe.train, 4, torch.device("cpu"))


@pytest.mark.parametrize("name", ["moons_realnvp", "cnf-digits", "ddpm-digits", "digits-planar"])
def test_a_rehearsal_from_the_command_line(name, tmp_path, capsys):
    command.main([name, "--device", "cpu", "--mode", "quick", "--to", str(tmp_path)])
    (path,) = tmp_path.glob("*.json")
    card = json.loads(path.read_text())
    assert path.stem == find(name) and card["mode"] == "quick" and len(card["curve"]) >= 2
    value = card["metrics"]
    for key in ENTRIES[find(name)].found:
        value = value[key]
    assert isinstance(value, float)
    assert "20 steps" in capsys.readouterr().out


def test_the_list_help_and_a_wrong_name(capsys):
    for words, status in (["--list"], 0), (["--help"], 0), ([], 2), (["nothing"], "no recipe is"):
        with pytest.raises(SystemExit) as end:
            command.main(words)
        assert str(end.value.code).startswith(str(status))
    out = capsys.readouterr().out
    assert "mnist_realnvp" in out and "torchrun" in out


def test_failures_end_with_one_line(monkeypatch):
    for error in (MemoryError("too much"), FloatingPointError("step 3"), ConnectionError("gone")):

        def fails(*_, error=error, **how):
            raise error

        monkeypatch.setattr(recipes, "fit", fails)
        with pytest.raises(SystemExit, match=f"{type(error).__name__}: {error}"):
            command.main(["digits_plane", "--device", "cpu"])


def test_sigterm_and_the_same_command_again(tmp_path):
    """A process of its own: it ends with 128 + 15, says where the checkpoint is, and goes on from it."""
    path, to = tmp_path / "run.pt", tmp_path / "stored"
    words = [sys.executable, "-m", "lib.train", "digits_plane", "--device", "cpu", "--to", to]
    words += ["--mode", "full", "--steps", "300", "--checkpoint", path, "--checkpoint-every", "20"]
    run = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL)
    while not path.exists() and run.poll() is None:
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGTERM)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 128 + signal.SIGTERM and "SIGTERM after step" in said
    assert "Traceback" not in said and str(path) in said
    step = torch.load(path, weights_only=True)["step"]
    assert 20 <= step < 300
    command.main([str(word) for word in words[3:]])
    card = weights.card("digits_plane", to)
    assert [k for k, *_ in card["curve"]] == [100, 200, 300]
    whole = ["digits_plane", "--device", "cpu", "--to", str(tmp_path / "whole")]
    command.main(
        [*whole, "--mode", "full", "--steps", "300", "--checkpoint", str(tmp_path / "w.pt")]
    )
    assert weights.card("digits_plane", tmp_path / "whole")["sha256"] == card["sha256"]
