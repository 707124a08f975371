"""Planar, radial and Sylvester flows: what they promise, their conditions and their inverses."""

import math

import pytest
import torch

from lib.flows import Compose, Flow, Uniform, posteriors
from lib.flows.builders import planar_flow, radial_flow, sylvester_flow
from lib.flows.energy import grid
from lib.flows.planar import MARGIN, Planar, PlanarFlow, above_minus_one, constrained, solve
from lib.flows.radial import Radial
from lib.flows.sylvester import Sylvester, orthonormal
from lib.train import fit
from lib.vae.elbo import normal_log_prob
from tests.flows.laws import Case, Laws

F64 = torch.float64


def loud(f, device, scale=0.7, dtype=F64):
    """Fresh transforms are near the identity, which hides bugs."""
    with torch.no_grad():
        for p in f.parameters():
            p.add_(scale * torch.randn_like(p))
    return f.to(device, dtype)


class TestLaws(Laws):
    CASES = {
        "planar": Case(Planar, sizes=(1, 2, 3, 6, 33)),
        "planar-context": Case(lambda D: Planar(D, 3), loud=0.2, context=3),
        "stack": Case(lambda D: PlanarFlow(D, 5), sizes=(1, 2, 3, 6, 33), loud=lambda D: 1 / D),
        "stack-context": Case(
            lambda D: PlanarFlow(D, 5, 3), loud=lambda D: 0.4 / D**0.5, context=3
        ),
        "radial": Case(Radial, sizes=(1, 2, 3, 6, 33)),
        "radial-context": Case(lambda D: Radial(D, 3), context=3),
        "sylvester-1": Case(lambda D: Sylvester(D, 1), sizes=(1, 2, 3, 6, 33)),
        "sylvester": Case(lambda D: Sylvester(D, min(D, 4)), loud=lambda D: 0.7 / D**0.5),
        "sylvester-context": Case(lambda D: Sylvester(D, 2, 3), loud=0.4, context=3),
        "planar_flow": Case(lambda D: planar_flow(D, 3), loud=lambda D: 1 / D),
        "radial_flow": Case(lambda D: radial_flow(D, 3), loud=0.4),
        "sylvester_flow": Case(lambda D: sylvester_flow(D, 3, 2), loud=lambda D: 0.5 / D**0.5),
    }


# the root of s + m tanh(s) = c


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["f32", "f64"])
def test_solve_to_rounding_error(dtype, device):
    m = torch.cat([torch.logspace(-6, 0, 60) - 1, torch.logspace(-6, 4, 60)]).to(device, dtype)
    c = torch.cat([torch.logspace(-12, 3, 80), torch.zeros(1)]).to(device, dtype)
    m, c = torch.broadcast_tensors(m[:, None], torch.cat([c, -c]))
    s = solve(c, m)
    t = s.tanh()
    eps = torch.finfo(dtype).eps
    assert ((s + m * t - c).abs() <= 4 * eps * (s.abs() + m.abs() * t.abs() + c.abs())).all()
    assert (s.sign() == c.sign()).all()


def test_solve_differentiates_twice(device):
    c = torch.tensor([-3.0, -0.2, 0.4, 5.0], dtype=F64, device=device, requires_grad=True)
    m = torch.tensor([-0.99, 3.0, -0.5, 20.0], dtype=F64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(solve, (c, m), atol=1e-7, rtol=1e-6)
    assert torch.autograd.gradgradcheck(solve, (c, m), atol=1e-5, rtol=1e-5)


# the condition w.u >= -1


def test_m_stays_above_minus_one_and_starts_at_zero(device):
    a = torch.linspace(-60, 60, 2001, device=device)
    m = above_minus_one(a)
    assert (m >= -1 + 0.99 * MARGIN).all() and (m.diff() >= 0).all()
    assert above_minus_one(torch.zeros(1, device=device)).abs() < 1e-7
    assert (m.abs() <= a.abs() + 1e-6).all()  # so |u_hat| <= |u|
    want = a[a > 20] * (1 - MARGIN)
    torch.testing.assert_close(m[a > 20], want - (1 - MARGIN) * 0.4587, atol=1e-3, rtol=0)


def test_constrained_u_keeps_what_is_across_w(device):
    w, u = torch.randn(2, 50, 3, dtype=F64, device=device) * 5
    u_hat, m = constrained(w, u)
    torch.testing.assert_close((w * u_hat).sum(1), m)
    torch.testing.assert_close(m, above_minus_one((w * u).sum(1)))
    torch.testing.assert_close(torch.linalg.cross(w, u_hat), torch.linalg.cross(w, u))
    assert (u_hat.norm(dim=1) <= u.norm(dim=1)).all()


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12, 1e-3])
def test_vanishing_w_is_harmless(size, device):
    """The paper's m(0) = log 2 - 1 would make u_hat as large as 1 / |w|."""
    f = Planar(3).to(device)
    with torch.no_grad():
        f.w.copy_(size * torch.tensor([1.0, -2.0, 0.5]))
        f.u.copy_(torch.tensor([0.3, 1.0, -2.0]))
    z = torch.randn(5, 3, device=device)
    x, logabsdet = f.from_base(z)
    (x.sum() + logabsdet.sum()).backward()
    assert x.isfinite().all() and f.w.grad.isfinite().all() and f.u.grad.isfinite().all()
    assert ((x - z).norm(dim=1) <= 1.001 * f.u.norm()).all()
    torch.testing.assert_close(f.to_base(x)[0], z)


def test_zero_u_is_the_identity(device):
    f = Planar(2).to(device)
    with torch.no_grad():
        f.u.zero_()
    z = torch.randn(5, 2, device=device)
    torch.testing.assert_close(f.from_base(z), (z, torch.zeros(5, device=device)))


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["f32", "f64"])
def test_far_beyond_the_condition_the_slope_stays_positive(dtype, device):
    f = Planar(4).to(device, dtype)
    with torch.no_grad():
        f.w.fill_(3.0), f.u.fill_(-50.0), f.b.zero_()
    assert f.condition().item() == pytest.approx(-1 + MARGIN, abs=1e-6)
    size = torch.logspace(-6, 0, 100, dtype=dtype, device=device)[:, None]
    z = size * torch.randn(100, 4, dtype=dtype, device=device)
    x, logabsdet = f.from_base(z)
    assert logabsdet.isfinite().all() and logabsdet.min() >= math.log(MARGIN) - 1e-3
    assert logabsdet.min() < -6
    assert (f.to_base(x)[0] - z).abs().max() < (2e-2 if dtype == torch.float32 else 1e-10)


def bare(w, u, b, device):
    """A planar map without the reparameterisation."""
    f = Planar(2, constrain=False).to(device, F64)
    with torch.no_grad():
        f.w.copy_(torch.tensor(w, dtype=F64)), f.u.copy_(torch.tensor(u, dtype=F64)), f.b.fill_(b)
    return f


def test_at_the_boundary_the_inverse_is_exact(device):
    f = bare([1.0, 2.0], [1.0, -1.0 + 5e-7], 0.3, device)
    assert f.condition().item() == pytest.approx(-1 + 1e-6, abs=1e-12)
    z = torch.randn(200, 2, dtype=F64, device=device)
    z[0] = torch.tensor([-0.3, 0.0])  # on the hyperplane: slope 1e-6
    x, logabsdet = f.from_base(z)
    assert logabsdet[0].item() == pytest.approx(math.log(1e-6), rel=1e-6)
    back, logabsdet_back = f.to_base(x)
    torch.testing.assert_close(f.from_base(back)[0], x, atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(back, z, atol=1e-6, rtol=0)
    torch.testing.assert_close(logabsdet_back[1:], -logabsdet[1:], atol=1e-6, rtol=0)


def test_below_minus_one_two_points_have_one_image(device):
    w, u = [1.0, 2.0], [1.0, -1.5]  # w.u = -2
    f = bare(w, u, 0.0, device)
    s = 2.0
    for _ in range(100):  # s = 2 tanh(s), so that w.z = s has the same image as w.z = -s
        s = 2 * math.tanh(s)
    z = math.tanh(s) * torch.tensor([u, [-u[0], -u[1]]], dtype=F64, device=device)
    x, _ = f.from_base(z)
    assert (z[0] - z[1]).norm() > 3
    torch.testing.assert_close(x[0], x[1], atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match=r"w\.u >= -1, got w\.u = -2"):
        f.to_base(x)
    held = Planar(2).to(device, F64)
    held.load_state_dict(f.state_dict())
    x, _ = held.from_base(z)
    assert (x[0] - x[1]).norm() > 1e-3
    torch.testing.assert_close(held.to_base(x)[0], z)


# the determinant


@pytest.mark.parametrize("D", [1, 2, 7])
def test_matrix_determinant_lemma(D, device):
    """det(I + u psi^T) = 1 + psi.u, against the dense determinant."""
    f = loud(Planar(D), device)
    z = torch.randn(20, D, dtype=F64, device=device)
    w, u, b, wu = f.layer()
    psi = (1 - torch.tanh(z @ w + b) ** 2)[:, None] * w
    dense = torch.eye(D).to(z) + u[:, None] * psi[:, None, :]
    torch.testing.assert_close(f.from_base(z)[1], torch.linalg.slogdet(dense).logabsdet)
    torch.testing.assert_close(wu, w @ u)


def test_sylvester_identity(device):
    f = loud(Sylvester(6, 3), device)
    z = torch.randn(20, 6, dtype=F64, device=device)
    Q, R, R2, b = f.layer()
    torch.testing.assert_close(Q.T @ Q, torch.eye(3).to(z))
    slope = 1 - torch.tanh(z @ Q @ R2.T + b) ** 2
    dense = torch.eye(6).to(z) + Q @ R @ (slope[:, :, None] * R2) @ Q.T
    torch.testing.assert_close(f.from_base(z)[1], torch.linalg.slogdet(dense).logabsdet)


def test_sylvester_with_one_column_is_planar(device):
    f, g = loud(Sylvester(4, 1), device), Planar(4, constrain=False).to(device, F64)
    Q, R, R2, b = f.layer()
    with torch.no_grad():
        g.w.copy_(R2[0, 0] * Q[:, 0]), g.u.copy_(R[0, 0] * Q[:, 0]), g.b.copy_(b[0])
    z = torch.randn(9, 4, dtype=F64, device=device)
    torch.testing.assert_close(f.from_base(z), g.from_base(z))
    torch.testing.assert_close(f.to_base(z), g.to_base(z))


def test_sylvester_moves_nothing_across_its_columns(device):
    f = loud(Sylvester(5, 2), device)
    z = torch.randn(9, 5, dtype=F64, device=device)
    moved = f.from_base(z)[0] - z
    Q = f.layer()[0]
    torch.testing.assert_close(moved @ Q @ Q.T, moved)
    assert moved.norm() > 0.1


def test_orthonormal_columns_survive_any_parameters(device):
    for raw in (torch.zeros(5, 5), 100 * torch.randn(5, 5), torch.ones(5, 2)):
        Q = orthonormal(raw.to(device, F64))
        torch.testing.assert_close(Q.T @ Q, torch.eye(Q.shape[1]).to(Q))


def test_too_many_columns():
    with pytest.raises(ValueError, match="at most 3 orthonormal columns, got 4"):
        Sylvester(3, 4)


# radial


@pytest.mark.parametrize("beta", [-30.0, -2.0, 0.0, 1.0, 40.0])
def test_radial_inverse_everywhere(beta, device):
    f = Radial(3).to(device, F64)
    with torch.no_grad():
        f.beta.fill_(beta)
    far = torch.logspace(-9, 4, 300, dtype=F64, device=device)[:, None]
    z = f.centre.detach() + far * torch.nn.functional.normalize(torch.randn_like(far.repeat(1, 3)))
    x, logabsdet = f.from_base(z)
    back, logabsdet_back = f.to_base(x)
    torch.testing.assert_close(back, z, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(logabsdet_back, -logabsdet, atol=1e-9, rtol=1e-9)
    centre = f.centre.detach()[None]
    torch.testing.assert_close(f.from_base(centre)[0], centre)
    assert f.to_base(centre)[1].isfinite().all()


# stacks


@pytest.mark.parametrize("context", [0, 3])
def test_stacked_layers_are_their_parts(context, device):
    f = loud(PlanarFlow(4, 5, context), device, 0.3)
    c = torch.randn(6, context, dtype=F64, device=device) if context else None
    z = torch.randn(6, 4, dtype=F64, device=device)
    parts = Compose(*reversed(f.parts()))
    x, logabsdet = f.from_base(z, c)
    torch.testing.assert_close(parts.from_base(z, c), (x, logabsdet))
    torch.testing.assert_close(f.to_base(x, c), parts.to_base(x, c))
    torch.testing.assert_close(f.to_base(x, c)[0], z)
    want = torch.stack([part.condition(c) for part in f.parts()])
    torch.testing.assert_close(f.condition(c), want)


def test_each_example_has_its_own_map(device):
    """With a context, a batch gives what its examples give one at a time."""
    for f in (Planar(3, 2), PlanarFlow(3, 4, 2), Radial(3, 2), Sylvester(3, 2, 2)):
        f = loud(f, device, 0.5)
        z = torch.randn(5, 3, dtype=F64, device=device)
        c = torch.randn(5, 2, dtype=F64, device=device)
        x, logabsdet = f.from_base(z, c)
        for i in range(5):
            one = f.from_base(z[i : i + 1], c[i : i + 1])
            torch.testing.assert_close(one, (x[i : i + 1], logabsdet[i : i + 1]))
        assert (f.from_base(z, c.flip(0))[0] - x).abs().max() > 1e-2
        torch.testing.assert_close(f.to_base(x, c), (z, -logabsdet))


# densities through `to_base`


@pytest.mark.parametrize(
    "build",
    [Planar, lambda D: PlanarFlow(D, 6), Radial, lambda D: Sylvester(D, 2)],
    ids=["planar", "stack", "radial", "sylvester"],
)
def test_density_integrates_to_one(build, device):
    flow = Flow(loud(build(2), device, 0.5), 2)
    x = grid(12.0, 400, device=device)
    with torch.no_grad():
        mass = flow.log_prob(x).exp().sum() * (24 / 400) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-4)


def test_uniform_base_becomes_a_bent_square(device):
    """A planar map of a uniform base: constant density times 1 / slope, on the image of the square."""
    base = Uniform(-2, 2)
    flow = Flow(loud(PlanarFlow(2, 3), device, 0.5), 2, base=base)
    x = grid(8.0, 800, device=device)
    with torch.no_grad():
        log_p = flow.log_prob(x)
        assert log_p.exp().sum().item() * (16 / 800) ** 2 == pytest.approx(1, abs=3e-3)
        z = base.draw(500, 2, dtype=F64, device=device)
        inside, logabsdet = flow.transform.from_base(z)
        torch.testing.assert_close(flow.log_prob(inside), -math.log(16.0) - logabsdet)
    assert (log_p == -math.inf).any()


# as a posterior


def test_posterior_density_is_that_of_its_samples(device):
    """log q(z | x) on the way out equals the Gaussian's log-density of z brought back."""
    vae = posteriors.digits_planar(3, latent=4, width=16, steps=1).model.to(device, F64)
    loud(vae.posterior_flow, device, 0.3)
    x = torch.randint(17, (5, 1, 8, 8), device=device).to(F64)
    z, log_q = vae.posterior(x)
    mean, log_std, context = vae._encode(x)
    back, logabsdet = vae.posterior_flow.to_base(z, context)
    torch.testing.assert_close(log_q, normal_log_prob(back, mean, log_std) + logabsdet)
    assert (z - back).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["digits_planar", "mnist_planar"])
def test_recipes_take_a_step(name, device, monkeypatch):
    few = torch.randint(2, (64, 1, 28, 28), dtype=torch.uint8)
    monkeypatch.setattr(posteriors, "binarized_mnist", lambda split: few)
    recipe = getattr(posteriors, name)(steps=1)
    settings = recipe.fit | {"batch_size": 8, "valid": recipe.fit["valid"][:8], "valid_every": 1}
    model = recipe.model.to(device)
    (update,) = fit(model, recipe.train[:64].to(device), **settings, progress=False)
    assert update.step == 1 and 100 < update.loss < 800
    assert model.estimate(recipe.train[:2].to(device), 10).log_prob.shape == (2,)


@pytest.mark.parametrize("make", [Planar, PlanarFlow, Radial, Sylvester])
@pytest.mark.parametrize("context", [0, 3])
def test_the_map_keeps_its_precision_under_autocast(make, context, device):
    """The determinant is that of the map in float32, whatever autocast makes of its one layer."""
    more = {PlanarFlow: dict(layers=3), Sylvester: dict(columns=2)}.get(make, {})
    layer = make(4, context=context, **more).to(device)
    z = torch.randn(5, 4, device=device)
    c = (torch.randn(5, context, device=device),) if context else ()
    with torch.autocast(device.type, torch.bfloat16):
        x, logabsdet = layer.from_base(z, *c)
        back, minus = layer.to_base(x, *c)
    assert x.dtype == logabsdet.dtype == torch.float32
    assert (back - z).abs().max() < 1e-4 and (logabsdet + minus).abs().max() < 1e-4


def test_the_margin_survives_autocast(device):
    w, u = torch.tensor([3.0, 0.0], device=device), torch.tensor([-9.0, 0.0], device=device)
    with torch.autocast(device.type, torch.bfloat16):
        assert constrained(w, u)[1] > -1


def test_an_unconstrained_layer_at_the_edge_has_an_inverse(device):
    """w.u = -1: the slope is 0 on the hyperplane, the map is still one to one."""
    layer = Planar(2, constrain=False).to(device)
    with torch.no_grad():
        for p, v in ((layer.w, [1.0, 0.0]), (layer.u, [-1.0, 0.0]), (layer.b, 0.0)):
            p.copy_(torch.tensor(v))
    z, logabsdet = layer.to_base(torch.tensor([[0.0, 1.0]], device=device))
    assert z.tolist() == [[0.0, 1.0]] and logabsdet.item() == math.inf
