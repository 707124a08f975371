"""The recipes of continuous flows learn, the stored weights are as good as their cards say."""

import math

import pytest
import torch

from lib import weights
from lib.data import images
from lib.data.densities import eight_gaussians
from lib.data.images import bits_per_dim, quantise
from lib.data.toys import moons as two_moons
from lib.flows import Flow, recipes_ode
from lib.flows.continuous import Continuous, FieldNet, RegularisedFlow, set_solver
from lib.flows.recipes import measure
from lib.flows.recipes_ode import digits, eight, measure_plane, moons, plane_flow
from lib.train import fit
from lib.train.catalogue import ENTRIES


@pytest.mark.parametrize("build, density", [(moons, two_moons()), (eight, eight_gaussians())])
def test_the_plane_is_learnt(build, density, device):
    recipe = build(steps=40, batch_size=128)
    model = recipe.model.to(device)
    x = density.sample(1_000).to(device)
    with torch.no_grad():
        before = model(x).mean().item()
    for _ in fit(model, recipe.train, **recipe.fit):
        pass
    with torch.no_grad():
        after = model(x).mean().item()
    assert after < before - 0.1 and before - density.entropy() > 0.3
    assert model.sample(5).shape == (5, 2)


@pytest.mark.parametrize(
    "name, density", [("cnf_moons", two_moons()), ("cnf_eight", eight_gaussians())]
)
def test_stored_weights_are_within_a_twentieth_of_a_nat_of_the_entropy(name, density, device):
    model = plane_flow()
    card = weights.load(name, model)
    assert card["metrics"]["above the entropy"] < 0.05
    found = measure_plane(model, density, n=4_000)
    assert (
        abs(found["above the entropy"] - card["metrics"]["above the entropy"]) < 4 * found["stderr"]
    )
    assert -0.01 < found["above the entropy"] < 0.05


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_digits_are_learnt(trace, device):
    recipe = digits(steps=60, width=64, trace=trace)
    model, levels = recipe.model.to(device), images.digits("test")[0].flatten(1)[:100]
    before, _ = measure(model, levels, 17, draws=1)
    for _ in fit(model, recipe.train, **recipe.fit | {"ema": None, "valid_every": 60}):
        pass
    after, error = measure(model, levels, 17, draws=1)
    assert after < before - 0.15 and 0 < error < 0.2 and after < 3
    x = recipe.train(50)
    near = (quantise(x, 17)[:, None] == images.digits("train")[0].flatten(1)).all(2).any(1)
    assert near.all() and model.sample(2).shape == (2, 64)


def test_the_full_size_recipe_takes_a_step(device, monkeypatch):
    few = torch.randint(256, (12, 1, 28, 28), dtype=torch.uint8)
    monkeypatch.setattr(images, "mnist", lambda split: (few, None))
    recipe = recipes_ode.mnist(steps=1, width=8)
    settings = recipe.fit | {"batch_size": 2, "valid": recipe.fit["valid"][:2], "valid_every": 1}
    model = recipe.model.to(device)
    assert len(model.parts()) == 2 and "two ODEs" in ENTRIES["cnf_mnist"].about
    (update,) = fit(model, recipe.train, **settings)
    assert 5 < bits_per_dim(update.valid, 784, 256) < 20 and min(model.costs) > 0
    assert model.sample(1).shape == (1, 1, 28, 28)


def test_measuring(device):
    """The base of an untrained map: what a standard normal scores is known."""
    model = plane_flow()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    density = two_moons()
    mean, cov = density.moments()
    want = math.log(2 * math.pi) + (cov.trace() + mean.square().sum()).item() / 2
    found = measure_plane(set_solver(model, rtol=1e-3), density, n=4_000)
    assert found["-log p"] == pytest.approx(want, abs=4 * found["stderr"])
    assert found["above the entropy"] == pytest.approx(want - density.entropy(), abs=0.1)
    with pytest.raises(ValueError, match="no Continuous part"):
        set_solver(torch.nn.Linear(2, 2), rtol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_is_repeatable_and_in_eval_mode(training, device):
    """Hutchinson's probes come from the seed; a regularised loss is not a density."""
    how = dict(trace="hutchinson", solver="rk4", steps=2)
    flow = RegularisedFlow(Continuous(FieldNet(2, width=4), **how), 2, kinetic=5.0).to(device)
    flow.train(training)
    levels, before = torch.randint(17, (6, 2)), torch.get_rng_state()
    bits = [measure(flow, levels, draws=1) for _ in range(2)]
    assert bits[0] == bits[1] and (torch.get_rng_state() == before).all()
    flow.cpu().transform.how = flow.transform.how._replace(trace="exact")
    got, want = (
        measure_plane(f, eight_gaussians(), n=300)["-log p"]
        for f in (flow, Flow(flow.transform, 2))
    )
    assert got == pytest.approx(want, abs=1e-6) and flow.training == training
