"""Autoregressive flows keep every law of a transform, and sample as D full passes would."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from lib.flows import Compose, Flow, Inverse
from lib.flows.autoregressive import Autoregressive, MaskedAutoregressive, SplineAutoregressive
from lib.flows.made import MADE
from tests.flows.laws import Case, Laws


def backwards(D):
    return list(range(D))[::-1]


def masked(D, **kwargs):
    return MaskedAutoregressive(D, 24, **kwargs)


def spline(D, **kwargs):
    return SplineAutoregressive(D, 24, bins=5, activation=F.silu, **kwargs)


def stack(D):
    return Compose(masked(D), masked(D, order=backwards(D), context=2), spline(D, depth=1))


def quiet(D):  # the inverse of a chain of D maps loses digits as fast as their slopes multiply
    return 0.5 / D**0.5


class TestAutoregressive(Laws):
    CASES = {
        "maf": Case(lambda D: masked(D, activation=F.silu), quiet, sizes=(1, 2, 3, 6, 33)),
        "maf-relu": Case(masked, quiet, second=False),
        "maf-deep": Case(
            lambda D: masked(D, depth=3, order=backwards(D), activation=F.silu), quiet
        ),
        "maf-context": Case(
            lambda D: masked(D, context=2, activation=F.silu), quiet, 2, sizes=(1, 2, 3, 6, 33)
        ),
        "narrow": Case(lambda D: MaskedAutoregressive(D, 4, depth=1, context=1), quiet, 1),
        "iaf": Case(lambda D: Inverse(masked(D, context=3)), quiet, 3),
        "spline": Case(spline, quiet, sizes=(1, 2, 3, 6, 33), mass=1e-4),
        "spline-context": Case(lambda D: spline(D, context=2), quiet, 2, mass=1e-4),
        "spline-inverse": Case(lambda D: Inverse(spline(D)), lambda D: 0.2 / D**0.5, mass=1e-4),
        "stack": Case(stack, lambda D: 0.3 / D**0.5, 2, mass=1e-4),
    }


KINDS = {"masked": masked, "spline": spline}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, D, C, device, **kwargs):
    f = KINDS[kind](D, order=torch.randperm(D), context=C, **kwargs)
    with torch.no_grad():
        for p in f.parameters():
            p.add_(torch.randn_like(p) * 0.5 / D**0.5)
    z = torch.randn(5, D, dtype=torch.float64, device=device)
    c = torch.randn(5, C, dtype=torch.float64, device=device) if C else None
    return f.to(device, torch.float64), z, c


@every_kind
@pytest.mark.parametrize("D", [1, 2, 3, 6, 33])
@pytest.mark.parametrize("C", [0, 3])
@pytest.mark.parametrize("depth", [1, 3])
def test_sampling_is_exactly_d_passes(kind, D, C, depth, device, monkeypatch):
    """Values and gradients, to every parameter, the noise and the context."""
    f, z, c = make(kind, D, C, device, depth=depth)
    leaves = [z.requires_grad_(), *f.parameters()] + ([c.requires_grad_()] if C else [])
    grads = []
    monkeypatch.setattr(MADE, "passes_pay", lambda self, z: False)  # on a GPU too
    for run in (f.from_base, f.from_base_naive):
        x, logabsdet = run(z, c)
        grads.append(
            torch.autograd.grad((x.sin().sum(1) + logabsdet).sum(), leaves, allow_unused=True)
        )
    torch.testing.assert_close(f.from_base(z, c), (x, logabsdet), rtol=1e-12, atol=1e-12)
    for a, b, leaf in zip(*grads, leaves, strict=True):
        a, b = (torch.zeros_like(leaf) if g is None else g for g in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@every_kind
@pytest.mark.parametrize("direction", ["to_base", "from_base"])
def test_jacobian_is_triangular_in_its_order(kind, direction, device):
    f, z, _ = make(kind, 6, 0, device)
    jac = torch.autograd.functional.jacobian(lambda v: getattr(f, direction)(v[None])[0][0], z[0])
    jac = jac[f.net.order][:, f.net.order]
    assert (jac.triu(1) == 0).all() and (jac.diagonal() > 0).all()
    assert (jac.tril(-1) != 0).any()
    _, logabsdet = getattr(f, direction)(z[:1])
    torch.testing.assert_close(jac.diagonal().log().sum()[None], logabsdet)


@every_kind
def test_starts_as_the_identity(kind, device):
    f = KINDS[kind](4, context=2).to(device)
    x, c = torch.randn(6, 4, device=device), torch.randn(6, 2, device=device)
    for run in (f.to_base, f.from_base, f.from_base_naive):
        y, logabsdet = run(x, c)
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(logabsdet, torch.zeros(6, device=device), atol=1e-5, rtol=0)


def test_one_pass_short_is_not_the_inverse(device):
    """The bug gallery's: D - 1 passes leave the last coordinate wrong, and only that one."""
    f, z, _ = make("masked", 4, 0, device)
    x = torch.zeros_like(z)
    for _ in range(3):
        x, _ = f.each_from_base(z, f.params(x, None))
    wrong = (x - f.from_base(z)[0]).abs().max(0).values > 1e-9
    assert wrong.nonzero().flatten().tolist() == [f.net.order[-1]]


def test_neither_way_of_sampling_drops_units(device, monkeypatch):
    """Dropout belongs to the density's pass in training; an inverse of another network is none."""
    f, z, _ = make("masked", 5, 0, device, dropout=0.5)
    f.train()
    found = []
    for pays in (False, True):
        monkeypatch.setattr(MADE, "passes_pay", lambda self, z, pays=pays: pays)
        found.append(f.from_base(z))
    torch.testing.assert_close(*found)
    torch.testing.assert_close(f.eval().to_base(found[0][0])[0], z)


def test_sampling_after_a_step_of_training_uses_the_new_weights(device):
    f, z, _ = make("masked", 5, 0, device)
    before, twin = f.from_base(z)[0], copy.deepcopy(f)
    opt = torch.optim.SGD(f.parameters(), 0.1)
    Flow(f, 5)(z).sum().backward()
    opt.step()
    assert not torch.allclose(f.from_base(z)[0], before)
    torch.testing.assert_close(f.from_base(z), f.from_base_naive(z))
    torch.testing.assert_close(twin.from_base(z)[0], before)


def test_conditionals_are_gaussian(device):
    """MAF in one layer: x_i given x_<i is normal, with mean `shift` and log std `log_scale`."""
    f, x, _ = make("masked", 4, 0, device)
    log_scale, shift = f.params(x, None)
    log_scale = 3 * torch.tanh(log_scale / 3)
    want = torch.distributions.Normal(shift, log_scale.exp()).log_prob(x).sum(1)
    torch.testing.assert_close(Flow(f, 4).log_prob(x), want)


def test_every_coordinate_depends_on_the_context(device):
    """Not only the later ones: a network without units of degree 0 leaves the first one out."""
    f, z, c = make("masked", 3, 2, device)
    assert ((f.from_base(z, c)[0] - f.from_base(z, -c)[0]).abs() > 1e-6).all()


def test_mistakes():
    with pytest.raises(NotImplementedError):
        Autoregressive(MADE(2)).to_base(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="permutation"):
        MaskedAutoregressive(2, order=[1, 2])
    with pytest.raises(ValueError, match="bins must be at least 1"):
        SplineAutoregressive(2, bins=0)
    for limit in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="limit must be finite and above 0"):
            MaskedAutoregressive(2, limit=limit)


@pytest.mark.parametrize("make", [MaskedAutoregressive, SplineAutoregressive])
def test_the_slope_is_exact_under_autocast(make, device):
    """The network is coarse there; the map from its answer, and the determinant, are not."""
    layer = make(6, width=16).to(device)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    x = torch.randn(7, 6, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        params = [p.float() for p in layer.params(x, None)]
        got = layer.to_base(x)
        sample = layer.from_base(x)
    z, slope = layer.each_to_base(x, params)
    torch.testing.assert_close(got, (z, slope.sum(1)), rtol=1e-6, atol=1e-6)
    assert sample[0].dtype == sample[1].dtype == torch.float32


def test_both_ways_of_sampling_agree_in_training_with_dropout(device):
    layer = MaskedAutoregressive(6, width=32, dropout=0.5).to(device).train()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.2 * torch.randn_like(p))
    z = torch.randn(9, 6, device=device)
    torch.testing.assert_close(layer.from_base(z), layer.from_base_naive(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pays", [False, True])
def test_both_inverses_follow_a_subclass_with_parameters_of_its_own(pays, device, monkeypatch):
    """Chapter 13 makes a coupling layer of a MAF in this way."""

    class Shifted(MaskedAutoregressive):
        def params(self, x, context):
            raw, shift = super().params(x, context)
            return raw, shift + 1.0

    layer = Shifted(3, width=8).to(device)
    z = torch.randn(4, 3, device=device)
    monkeypatch.setattr(MADE, "passes_pay", lambda self, z: pays)
    for run in (layer.from_base_naive, layer.from_base):
        x, logabsdet = run(z)
        torch.testing.assert_close(layer.to_base(x), (z, -logabsdet))
        assert (x - z - 1).abs().max() < 1e-6
    torch.testing.assert_close(Flow(layer, 3).sample(4, noise=z), x.detach())
    with pytest.raises(ValueError, match=r"expected shape \(B, 3\)"):
        layer.from_base(z[:, :2])


@pytest.mark.parametrize("make", [masked, spline])
def test_the_layers_of_lib_fill_in_one_sweep(make, monkeypatch):
    """D passes would give the same numbers, and take D times as long."""
    layer = make(3)
    monkeypatch.setattr(layer, "from_base_naive", None)
    assert layer.from_base(torch.zeros(2, 3))[0].shape == (2, 3)
