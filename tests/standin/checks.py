"""The stand-in for a card is as strict as CUDA, computes what the processor does, and draws other numbers.

Run by `tests/test_standin.py` in a process of its own: torch must know the device before the first
gradient that is computed, and `torch.Generator` is another one as long as it is there.
"""

import copy
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, jacfwd, jacrev, vmap
from torch.utils.checkpoint import checkpoint

from tests.mutants.forks import fork
from tests.standin import OFFSET, install
from tests.standin.__main__ import chapter

CARD = install()
SAME = "Expected all tensors to be on the same device"


def card(*size: int) -> torch.Tensor:
    return torch.rand(*size).to(CARD)


MIXES = {
    "sum": lambda x, y: x + y,
    "sum, the other way round": lambda x, y: y + x,
    "into the processor's": lambda x, y: y.add_(x),
    "into the card's": lambda x, y: x.mul_(y),
    "a number of the processor's is changed": lambda x, y: torch.zeros(()).add_(x.sum()),
    "product": lambda x, y: x @ y,
    "cat": lambda x, y: torch.cat([x, y]),
    "stack of numbers": lambda x, y: torch.stack([x.sum(), y.sum()]),
    "where": lambda x, y: torch.where(x > 0, x, y),
    "linear": lambda x, y: F.linear(x, y),
    "convolution": lambda x, y: F.conv2d(x[None, None], y[None, None]),
    "loss": lambda x, y: F.mse_loss(x, y),
    "value put by index": lambda x, y: x.__setitem__(x > 0, y.flatten()),
    "gather": lambda x, y: x.gather(0, y.long()),
    "index_select": lambda x, y: x.index_select(0, torch.tensor([0])),
    "embedding": lambda x, y: F.embedding(torch.tensor([0]), x),
    "module": lambda x, y: torch.nn.Linear(3, 3)(x),
    "out=": lambda x, y: torch.add(x, x, out=y),
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_mixing_devices_is_refused(mix):
    with pytest.raises(RuntimeError, match=SAME):
        mix(card(3, 3), torch.rand(3, 3))
    mix(torch.rand(3, 3), torch.rand(3, 3))  # so it was the devices


def test_what_cuda_allows_is_allowed():
    x, number = card(3), torch.tensor(2.0)
    assert torch.equal((x * number).cpu(), x.cpu() * 2)
    assert (number - x).device == torch.device(CARD.type, 0)
    assert torch.equal(x[torch.tensor([2, 0])].cpu(), x.cpu()[[2, 0]])
    assert torch.equal(x[torch.tensor([True, False, True])].cpu(), x.cpu()[[0, 2]])
    x[torch.tensor([1])] = number
    assert x[1] == 2.0 and x.tolist()[1] == 2.0
    assert torch.where(x > 1, x, number).device.type == CARD.type
    y = torch.zeros(3)
    y.copy_(x)
    assert torch.equal(y, x.cpu())


def test_index_of_the_card_into_the_processors():
    for index in (torch.tensor([0], device=CARD), card(3) > 0):
        with pytest.raises(RuntimeError, match="indices should be either on cpu or on the same"):
            torch.rand(3)[index]


def test_numpy_and_pickle_want_the_processor(tmp_path):
    for leave in (lambda x: x.numpy(), np.asarray, lambda x: np.add(x, 1)):
        with pytest.raises(TypeError, match="can't convert card:0 device type tensor to numpy"):
            leave(card(2))
    assert card(2).cpu().numpy().shape == (2,)
    with pytest.raises(TypeError, match="cannot be pickled"):
        torch.save(card(2), tmp_path / "x.pt")


def test_a_generator_of_the_processor_is_refused():
    g = torch.Generator()
    draws = (
        lambda: torch.randn(2, device=CARD, generator=g),
        lambda: torch.randint(5, (2,), device=CARD, generator=g),
        lambda: torch.randperm(5, device=CARD, generator=g),
        lambda: card(2).normal_(generator=g),
        lambda: torch.bernoulli(card(2), generator=g),
        lambda: torch.multinomial(card(2), 1, generator=g),
    )
    for draw in draws:
        with pytest.raises(RuntimeError, match="'card' device type for generator but found 'cpu'"):
            draw()


def test_a_generator_of_its_own():
    own = lambda seed: torch.Generator(CARD).manual_seed(seed)
    draw = lambda g: torch.randn(9, generator=g, device=g.device).cpu()
    assert own(1).device.type == CARD.type and isinstance(own(1), torch.Generator)
    assert torch.equal(draw(own(1)), draw(own(1))) and not torch.equal(draw(own(1)), draw(own(2)))
    assert not torch.equal(draw(own(1)), draw(torch.Generator().manual_seed(1)))
    assert torch.Generator().device.type == "cpu"
    before = torch.get_rng_state()
    draw(own(1))
    assert torch.equal(before, torch.get_rng_state())


DRAWS = {
    "randn": lambda d: torch.randn(50, device=d),
    "randperm": lambda d: torch.randperm(50, device=d),
    "rand_like": lambda d: torch.rand_like(torch.zeros(50, device=d)),
    "normal_": lambda d: torch.zeros(50, device=d).normal_(),
    "dropout": lambda d: F.dropout(torch.ones(50, device=d)),
    "bernoulli": lambda d: torch.bernoulli(torch.full((50,), 0.5, device=d)),
    "multinomial": lambda d: torch.multinomial(torch.ones(50, device=d), 50),
    "exponential_": lambda d: torch.zeros(50, device=d).exponential_(),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_another_stream_than_the_processors(draw, monkeypatch):
    def drawn(device: str, offset: int = 0) -> torch.Tensor:
        monkeypatch.setenv(OFFSET, str(offset))
        torch.manual_seed(3)
        return draw(device).cpu()

    assert torch.equal(drawn(CARD), drawn(CARD))
    assert not torch.equal(drawn(CARD), drawn("cpu"))
    assert not torch.equal(drawn(CARD), drawn(CARD, 1))
    torch.manual_seed(3)
    draw(CARD)
    assert torch.equal(draw("cpu"), drawn("cpu"))  # the card took nothing of the processor's


def net() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.GroupNorm(2, 4),
        torch.nn.SiLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 25, 2),
    )


def test_a_training_is_the_processors():
    def losses(device: str) -> list[float]:
        model = net().to(device)
        steps = torch.optim.Adam(model.parameters(), lr=0.01)
        torch.manual_seed(2)
        x, out = torch.randn(8, 1, 5, 5).to(device), []
        for _ in range(4):
            loss = checkpoint(model, x, use_reentrant=False).square().mean()
            steps.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            steps.step()
            out.append(loss.item())
        assert {p.grad.device.type for p in model.parameters()} == {torch.device(device).type}
        return out

    assert losses(CARD) == pytest.approx(losses("cpu"), rel=1e-5)


def test_a_module_moves_there_and_back():
    model = net().to(CARD)
    assert all(
        isinstance(p, torch.nn.Parameter) and p.device.index == 0 for p in model.parameters()
    )
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[4].weight.zero_()
    assert model[4].weight.abs().sum() > 0 and isinstance(twin[4].weight, torch.nn.Parameter)
    twin.load_state_dict(model.state_dict())
    model.double()
    x = torch.randn(2, 1, 5, 5)
    assert torch.allclose(twin.cpu()(x), model.cpu().float()(x))


def test_derivatives_of_functions():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    x = torch.randn(4, 3)

    def jacobians(device):
        here = {k: v.detach().to(device) for k, v in model.named_parameters()}
        f = lambda y: functional_call(model, here, (y,))
        return [vmap(d(f))(x.to(device)) for d in (jacrev, jacfwd)]

    for on_card, on_cpu in zip(jacobians(CARD), jacobians("cpu"), strict=True):
        assert on_card.device.type == CARD.type and torch.allclose(on_card.cpu(), on_cpu)


def test_changes_in_place_and_views():
    def gradient(device: str) -> torch.Tensor:
        leaf = torch.ones(3, 3).to(device).requires_grad_()
        x = leaf * 1
        x[0] += 1
        x[:, 1].mul_(2).squeeze_()
        x.t()[2].exp_()
        x.sum().backward()
        return leaf.grad.cpu()

    assert torch.equal(gradient(CARD), gradient("cpu"))
    x = card(3).requires_grad_()
    y = x.exp()
    y.data.zero_()  # what autograd does not see, it does not refuse
    y.sum().backward()
    assert torch.equal(x.grad.cpu(), torch.zeros(3))
    x = card(2, 1)
    assert x.squeeze_().shape == x.cpu().shape == (2,)


def test_attention_with_gradients():
    q = torch.randn(2, 2, 5, 4)

    def gradient(device):
        here = q.to(device).requires_grad_()
        F.scaled_dot_product_attention(here, here, here).square().sum().backward()
        return here.grad.cpu()

    assert torch.allclose(gradient(CARD), gradient("cpu"), atol=1e-6)


def test_the_fixture_gives_it_when_asked(monkeypatch):
    def devices(on: str) -> list[str]:
        monkeypatch.setenv("BOOK_STANDIN", on)
        return runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))["DEVICES"]

    assert "card" in devices("1") and "card" not in devices("0")


@pytest.mark.parametrize("there, said", [("'cpu'", SAME), ("session.device", "")])
def test_a_chapter_that_mixes_devices_is_found(there, said, tmp_path):
    """In a fork, as the command does it: a chapter changes the environment and torch's state."""
    code = [
        "import torch; from lib.teach import setup; session = setup()",
        f"print((torch.ones(2, device=session.device) + torch.ones(2, device={there})).sum().item())",
    ]
    cells = [
        {"cell_type": "code", "id": c[:3], "metadata": {}, "source": c, "outputs": []} for c in code
    ]
    path = tmp_path / "09_small.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    how, (wrong, prints) = fork(lambda: chapter(path, "quick", 0), 60)
    assert how == "done" and "card · quick" in prints
    assert said in wrong and ("cell 2" in wrong) == bool(said) and ("4.0" in prints) != bool(said)
