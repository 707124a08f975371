"""The four energies, their normalisation, and the reverse KL divergence that fits a flow to one."""

import math

import pytest
import torch

from lib.flows import Affine, Compose, Flow, Uniform
from lib.flows.energy import (
    ENERGIES,
    U1,
    U3,
    U4,
    ReverseKL,
    anneal,
    boxed,
    forward_kl,
    grid,
    log_z,
)
from lib.flows.planar import PlanarFlow

F64 = torch.float64
LOG_Z = {"U1": 1.8775, "U2": 2.0821, "U3": 2.6417, "U4": 2.6846}  # over [-4, 4]^2


@pytest.mark.parametrize("name", ENERGIES)
def test_energies_as_in_the_paper(name, device):
    """Table 1, term by term, without logaddexp."""
    z = 2 * torch.randn(50, 2, dtype=F64, device=device)
    z1, z2 = z.T
    w1 = torch.sin(2 * math.pi * z1 / 4)
    w2 = 3 * torch.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + torch.exp(-(z1 - 1) / 0.3))

    def bump(a):
        return torch.exp(-0.5 * a**2)

    want = {
        "U1": 0.5 * ((torch.sqrt(z1**2 + z2**2) - 2) / 0.4) ** 2
        - torch.log(bump((z1 - 2) / 0.6) + bump((z1 + 2) / 0.6)),
        "U2": 0.5 * ((z2 - w1) / 0.4) ** 2,
        "U3": -torch.log(bump((z2 - w1) / 0.35) + bump((z2 - w1 + w2) / 0.35)),
        "U4": -torch.log(bump((z2 - w1) / 0.4) + bump((z2 - w1 + w3) / 0.35)),
    }
    torch.testing.assert_close(ENERGIES[name](z), want[name])


@pytest.mark.parametrize("name", ENERGIES)
def test_log_z(name, device):
    assert log_z(ENERGIES[name], device=device) == pytest.approx(LOG_Z[name], abs=6e-5)


@pytest.mark.parametrize("name", ENERGIES)
def test_the_box_leaves_the_inside_and_makes_a_density(name, device):
    energy, walled = ENERGIES[name], boxed(ENERGIES[name])
    inside = 8 * torch.rand(100, 2, dtype=F64, device=device) - 4
    torch.testing.assert_close(walled(inside), energy(inside))
    corner = torch.tensor([[4.4, -4.6]], dtype=F64, device=device)
    torch.testing.assert_close(walled(corner) - energy(corner), torch.tensor([6.5]).to(corner))
    wide = log_z(walled, 6.0, device=device)  # nothing is left beyond
    assert wide == pytest.approx(log_z(walled, 9.0, 1200, device=device), abs=1e-5)
    assert LOG_Z[name] - 1e-4 < wide < LOG_Z[name] + 0.1


def test_energies_are_finite_far_away(device):
    z = torch.tensor([[100.0, -100.0], [-1e3, 1e3]], device=device, requires_grad=True)
    total = sum(energy(z).sum() for energy in ENERGIES.values())
    assert total.isfinite() and torch.autograd.grad(total, z)[0].isfinite().all()
    for energy in ENERGIES.values():
        one_by_one = torch.func.vmap(lambda z: energy(z[None])[0])(z)  # noqa: B023
        torch.testing.assert_close(one_by_one, energy(z))


def test_grid(device):
    x = grid(3.0, 4, device=device)
    assert x.shape == (16, 2) and x.dtype == F64
    torch.testing.assert_close(x.mean(0), torch.zeros(2).to(x))
    torch.testing.assert_close(x[:2], torch.tensor([[-2.25, -2.25], [-2.25, -0.75]]).to(x))


def gaussian(x):
    """-log of an unnormalised Gaussian, mean (1, -2), standard deviations 0.5 and 2."""
    mean, std = x.new_tensor([1.0, -2.0]), x.new_tensor([0.5, 2.0])
    return 0.5 * (((x - mean) / std) ** 2).sum(1) + 3.0


def affine(shift, log_scale, device):
    f = Affine(2)
    with torch.no_grad():
        f.shift.copy_(torch.tensor(shift)), f.log_scale.copy_(torch.tensor(log_scale))
    return Flow(f, 2).to(device, F64)


def test_reverse_kl_of_gaussians(device):
    """Loss = KL - log Z with both in closed form; no variance at the truth."""
    std = torch.tensor([0.5, 2.0], dtype=F64)
    log_norm = math.log(2 * math.pi) + std.log().sum().item() - 3.0
    noise = torch.randn(20_000, 2, dtype=F64, device=device)
    truth = ReverseKL(affine([1.0, -2.0], std.log().tolist(), device), gaussian)
    torch.testing.assert_close(truth(noise), torch.full_like(noise[:, 0], -log_norm))
    other = ReverseKL(affine([0.5, -1.0], [0.0, 0.3], device), gaussian)
    ratio = torch.tensor([0.0, 0.3], dtype=F64).exp() / std
    moved = torch.tensor([0.5, 1.0], dtype=F64) / std
    want = (0.5 * (ratio**2 + moved**2 - 1) - ratio.log()).sum().item()
    kl, stderr = other.kl(noise, log_norm)
    assert abs(kl - want) < 4 * stderr < 0.2
    assert other(noise).mean().item() == pytest.approx(kl - log_norm)


def test_forward_kl_of_gaussians(device):
    q = affine([0.5, -1.0], [0.0, 0.8], device)
    std = torch.tensor([0.5, 2.0], dtype=F64)
    ratio = std / torch.tensor([0.0, 0.8], dtype=F64).exp()
    moved = torch.tensor([0.5, 1.0], dtype=F64) / torch.tensor([0.0, 0.8], dtype=F64).exp()
    want = (0.5 * (ratio**2 + moved**2 - 1) - ratio.log()).sum().item()
    assert forward_kl(q, gaussian, 16.0, 400) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("name", ENERGIES)
def test_loss_is_bounded_by_minus_log_z(name, device):
    """KL >= 0 for any flow; and E_q[exp(-loss)] = Z, by importance sampling, for one that covers p."""
    energy = boxed(ENERGIES[name])
    exact = log_z(energy, 6.0, device=device)
    flow = Flow(PlanarFlow(2, 3), 2).to(device, F64)
    model = ReverseKL(flow, energy)
    kl, stderr = model.kl(torch.randn(5000, 2, dtype=F64, device=device), exact)
    assert kl > 4 * stderr
    wide = ReverseKL(affine([0.0, 0.0], [0.9, 0.5], device), energy)
    log_w = -wide(torch.randn(200_000, 2, dtype=F64, device=device)).detach()
    assert torch.logsumexp(log_w, 0).item() - math.log(len(log_w)) == pytest.approx(exact, abs=0.03)


def test_heat_scales_the_energy_only(device):
    flow = Flow(PlanarFlow(2, 2), 2).to(device, F64)
    noise = torch.randn(9, 2, dtype=F64, device=device)
    model = ReverseKL(flow, U3)
    full = model(noise)
    x, log_q = flow.sample_with_log_prob(9, noise=noise)
    torch.testing.assert_close(full, log_q + U3(x))
    model.heat = 0.25
    torch.testing.assert_close(model(noise), log_q + 0.25 * U3(x))


def test_training_brings_a_planar_flow_closer(device):
    energy = boxed(U4)
    exact = log_z(energy, 6.0)
    model = ReverseKL(Flow(PlanarFlow(2, 8), 2), energy).to(device)
    noise = torch.randn(5000, 2, device=device)
    before, _ = model.kl(noise, exact)
    heats = []
    for _ in anneal(model, 200, progress=False):
        heats.append(model.rise)
    after, stderr = model.kl(noise, exact)
    assert -4 * stderr < after < 1.5 < before
    assert heats[0] == pytest.approx(0.1) and heats[60] == pytest.approx(0.1 + 0.9 * 60 / 120)
    assert heats[120:] == [1.0] * 80 and (torch.tensor(heats).diff() >= 0).all()


def test_leaving_the_loop_leaves_the_whole_energy(device):
    model = ReverseKL(Flow(PlanarFlow(2, 2), 2, base=Uniform(-2, 2)), U1).to(device, F64)
    loop = anneal(model, 50, batch_size=8, progress=False)
    next(loop)
    assert model.rise < 1
    loop.close()
    assert model.rise == 1.0
    model.heat = 0.4  # a share of the energy that the caller wants stays that share
    heats = [model.rise for _ in anneal(model, 10, start=0.5, batch_size=8, progress=False)]
    assert heats[1] == pytest.approx(0.5 + 0.5 / 6) and heats[6:] == [1.0] * 4
    assert model.heat == 0.4
    seen = []
    model = ReverseKL(model.flow, lambda z: seen.append(model.heat * model.rise) or U1(z))
    model.heat = 0.4
    [*anneal(model, 2, start=0.5, batch_size=8, progress=False)]
    assert seen[0] == pytest.approx(0.2)  # already in the first step
    with pytest.raises(ValueError, match="above 0 and at most 1; got 0"):
        next(anneal(model, 10, start=0.0))


def test_annealing_is_validated_at_the_whole_energy(device):
    """At the heat of the moment the coldest step would look best, and be kept."""
    torch.manual_seed(2)
    model = ReverseKL(Flow(PlanarFlow(2, 8), 2), boxed(U4)).to(device)
    noise = torch.randn(500, 2, device=device)
    with torch.no_grad():
        before = model(noise).mean().item()
    seen = [u.valid for u in anneal(model, 150, valid=noise, progress=False) if u.valid is not None]
    with torch.no_grad():
        after = model(noise).mean().item()
    assert after == pytest.approx(min(seen), rel=1e-4) and seen.index(min(seen)) > len(seen) // 2
    assert after < before


def test_a_resumed_annealing_goes_on_at_its_heat(tmp_path, device):
    if device.type not in ("cpu", "cuda"):
        pytest.skip("a checkpoint holds the random state of processors and CUDA")

    def annealed(path, stop=20):
        torch.manual_seed(2)
        model = ReverseKL(Flow(PlanarFlow(2, 2), 2), U1).to(device)
        how = dict(batch_size=16, checkpoint=path, progress=False)
        losses = []
        for update in anneal(model, 20, **how):
            losses.append(update.loss)
            if update.step == stop:
                break
        return model, losses

    whole, losses = annealed(tmp_path / "whole.pt")
    annealed(tmp_path / "parts.pt", stop=7)
    parts, rest = annealed(tmp_path / "parts.pt")
    assert rest == pytest.approx(losses[7:], rel=1e-5)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_dropped_mode_shows_in_the_forward_divergence(device):
    """One arc of U1 alone: the reverse KL is log 2, the forward one is large."""
    left = Flow(Affine(2), 2).to(device, F64)
    with torch.no_grad():
        left.transform.shift.copy_(torch.tensor([-1.8, 0.0]))
        left.transform.log_scale.copy_(torch.tensor([0.3, 0.7]).log())
    exact = log_z(U1, 4.0)
    reverse, stderr = ReverseKL(left, U1).kl(torch.randn(20_000, 2).to(device, F64), exact)
    assert math.log(2) - 4 * stderr < reverse < 1.2
    assert forward_kl(left, U1) > 10


def test_forward_kl_of_a_flow_without_parameters():
    normal = lambda z: 0.5 * z.square().sum(1)
    assert abs(forward_kl(Flow(Compose(), 2), normal, half=6.0)) < 1e-3


def test_forward_kl_where_the_energy_is_infinite(device):
    """A normal cut at 3, against the whole one: minus the log of what is kept, log(0.9973^2)."""

    def cut(z):
        return (0.5 * z.square().sum(1)).masked_fill(z.abs().amax(1) > 3, math.inf)

    got = forward_kl(Flow(Affine(2), 2).to(device), cut, n=400)
    assert got == pytest.approx(-2 * math.log(math.erf(3 / math.sqrt(2))), abs=5e-4)
