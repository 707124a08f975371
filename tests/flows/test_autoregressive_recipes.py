"""Chapter 5's recipes take a step, and draw what they say they draw."""

import pytest
import torch

from lib.data import images
from lib.flows import autoregressive_recipes as recipes
from lib.train import fit

NAMES = ["moons_maf", "moons_spline", "digits_maf", "digits_spline", "digits_iaf"]


@pytest.mark.parametrize("name", [*NAMES, "mnist_maf", "mnist_iaf"])
def test_recipes_take_a_step(name, device, monkeypatch):
    few = torch.randint(2, (64, 1, 28, 28), dtype=torch.uint8)
    monkeypatch.setattr(recipes, "binarized_mnist", lambda split: few)
    monkeypatch.setattr(images, "mnist", lambda split: (255 * few, torch.zeros(64)))
    small = {"width": 32} if name.startswith("mnist") else {}
    recipe = getattr(recipes, name)(steps=1, **small)
    settings = recipe.fit | {"batch_size": 8, "valid": recipe.fit["valid"][:8], "valid_every": 1}
    model = recipe.model.to(device)
    (update,) = fit(model, recipe.train, **settings, progress=False)
    assert update.step == 1 and torch.isfinite(torch.tensor(update.valid))
    assert model.sample(2).shape[0] == 2


def test_the_twin_without_a_flow_has_the_same_decoder():
    a, b = (recipes.digits_iaf(layers=k).model for k in (0, 2))
    for p, q in zip(a.decoder.parameters(), b.decoder.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)
    assert a.posterior_flow is None and b.posterior_flow.takes_context


def test_posterior_density_is_that_of_its_samples(device):
    """log q(z | x) from the one pass of IAF equals that of z brought back through the slow way."""
    vae = recipes.digits_iaf(2, latent=4).model.to(device, torch.float64)
    with torch.no_grad():
        for p in vae.posterior_flow.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x = torch.randint(17, (5, 1, 8, 8), device=device).double()
    z, log_q = vae.posterior(x)
    mean, log_std, context = vae._encode(x)
    back, logabsdet = vae.posterior_flow.to_base(z, context)
    normal = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(log_q, normal.log_prob(back).sum(1) + logabsdet)
    assert (z - back).abs().max() > 1e-2
