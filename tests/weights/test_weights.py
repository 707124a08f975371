"""Stored weights: what comes back is what was measured, and the card says how it was made."""

import json

import pytest
import torch
from torch import nn

from lib import weights

CARD = {"metrics": {"loss": 1.5}, "seconds": 3.0, "seed": 0, "recipe": "a test", "device": "cpu"}


def net(width=3):
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))  # an integer buffer too


def test_round_trip(tmp_path, device):
    torch.manual_seed(1)
    model = weights.round_weights(net().to(device))
    path = weights.save("small", model, CARD, folder=tmp_path)
    other = net().to(device).train()
    card = weights.load("small", other, folder=tmp_path)
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype
    assert not other.training and path.stat().st_size < 1000
    assert card == weights.card("small", tmp_path) and card["metrics"] == {"loss": 1.5}
    assert {"torch", "python", "date", "commit", "sha256", "parameters", "dtype"} <= set(card)
    assert card["parameters"] == 21 and card["dtype"] == "float16"


def test_weights_that_would_change_are_refused(tmp_path):
    with pytest.raises(ValueError, match="0.weight is not the same after storing it"):
        weights.save("small", net(), CARD, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    weights.save("small", net(), CARD, dtype=torch.float32, folder=tmp_path)


def test_errors_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="lacks metrics, seed"):
        weights.save("small", net(), {**CARD, "metrics": {}, "seed": None}, folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights called 'small'.*there are: none"):
        weights.load("small", net(), folder=tmp_path)
    path = weights.save("small", weights.round_weights(net()), CARD, folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="there are: small"):
        weights.load("big", net(), folder=tmp_path)
    with pytest.raises(ValueError, match="weights of another model"):
        weights.load("small", net(5), folder=tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="not the file that its card describes"):
        weights.load("small", net(), folder=tmp_path)


def test_the_book_s_weights_have_complete_cards():
    for path in weights.FOLDER.glob("*.safetensors"):
        card = json.loads(path.with_suffix(".json").read_text())
        assert card["metrics"] and card["commit"] and path.stat().st_size <= 4e6


def test_a_card_that_cannot_be_written_leaves_the_stored_model(tmp_path):
    model = nn.Linear(2, 1)
    weights.save("small", weights.round_weights(model), CARD, folder=tmp_path)
    other = weights.round_weights(nn.Linear(2, 1))
    with pytest.raises(TypeError, match="JSON"):
        weights.save("small", other, CARD | {"metrics": torch.tensor(1.0)}, folder=tmp_path)
    again = nn.Linear(2, 1)
    weights.load("small", again, folder=tmp_path)
    assert torch.equal(again.weight, model.weight)


def test_refused_weights_leave_the_model_as_it_was(tmp_path, device):
    """Also those that would have fitted."""
    weights.save("small", weights.round_weights(nn.Sequential(net(), net())), CARD, folder=tmp_path)
    other = nn.Sequential(net(), net(5)).to(device).train()
    before = [v.clone() for v in other.state_dict().values()]
    with pytest.raises(ValueError, match="weights of another model"):
        weights.load("small", other, folder=tmp_path)
    assert all(map(torch.equal, other.state_dict().values(), before)) and other.training


def test_weights_without_a_card_say_what_is_missing(tmp_path):
    path = weights.save("small", weights.round_weights(net()), CARD, folder=tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="no card small.json"):
        weights.load("small", net(), folder=tmp_path)
