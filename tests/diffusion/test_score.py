"""Score matching recovers known scores; Langevin dynamics has the law that theory gives it."""

import itertools
import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from lib.data.densities import GaussianMixture, anisotropic_gaussians, two_gaussians
from lib.diffusion.boltzmann import BoltzmannMachine
from lib.diffusion.score import (
    annealed_langevin,
    denoising_matching,
    explicit_matching,
    implicit_matching,
    langevin,
    score_of,
    sliced_matching,
)
from lib.nets import mlp

F64 = torch.float64


@pytest.fixture
def net(device):
    torch.manual_seed(1)
    net = mlp(2, 2, 16, 2, torch.nn.Tanh).to(device, F64)
    for p in net.parameters():
        p.data.mul_(2)  # a fresh network hardly bends
    return net


def draws(n, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return anisotropic_gaussians().sample(n, generator).to(device, F64)


def test_explicit_minus_implicit_is_the_same_for_all_scores(net, device):
    """The constant is half the Fisher information: within 4 standard errors, for three scores."""
    mixture, x = anisotropic_gaussians(), draws(100_000, device)
    wanted = 0.5 * mixture.score(x).square().sum(1)
    for score in (net, lambda x: torch.sin(x) * 2, lambda x: -x.flip(1) + 0.3):
        gap = explicit_matching(score, mixture.score, x) - implicit_matching(score, x) - wanted
        assert gap.mean().abs() < 4 * gap.std() / len(x) ** 0.5
        assert gap.std() / len(x) ** 0.5 < 0.05 * wanted.mean()


def test_implicit_by_full_jacobian(net, device):
    x = draws(6, device)
    J = torch.func.vmap(torch.func.jacrev(lambda row: net(row[None])[0]))(x)
    want = 0.5 * net(x).square().sum(1) + J.diagonal(dim1=1, dim2=2).sum(1)
    assert_close(implicit_matching(net, x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduced", [True, False])
def test_sliced_over_all_signs_is_implicit(net, device, reduced):
    """Exactly: the four sign vectors of the plane have E[ee'] = I."""
    x = draws(7, device)
    signs = tensor(list(itertools.product((-1.0, 1.0), repeat=2)), dtype=F64, device=device)
    probes = signs[:, None].expand(4, 7, 2)
    got = sliced_matching(net, x, probes, reduced)
    assert_close(got, implicit_matching(net, x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
@pytest.mark.parametrize("reduced", [True, False])
def test_sliced_is_unbiased(net, kind, reduced):
    x = draws(1).expand(40_000, 2)
    got = sliced_matching(net.cpu(), x, 1, reduced, kind).detach()
    want = implicit_matching(net, x[:1])[0]
    assert (got.mean() - want).abs() < 4 * got.std() / 200
    assert got.std() > 0


def test_reduced_has_less_variance(net):
    x = draws(1).expand(20_000, 2)
    losses = [sliced_matching(net.cpu(), x, 1, r, "gaussian") for r in (True, False)]
    assert losses[0].var() < 0.9 * losses[1].var()


def fit_linear(loss, D):
    """The linear score b - P x with the smallest mean loss, exactly: the losses are quadratic."""
    theta = torch.zeros(D * D + D, dtype=F64)

    def mean(theta):
        P, b = theta[: D * D].view(D, D), theta[D * D :]
        return loss(lambda x: b - x @ P.T).mean()

    H = torch.func.hessian(mean)(theta)
    g = torch.func.grad(mean)(theta)
    best = torch.linalg.solve(H, -g)
    return best[: D * D].view(D, D), best[D * D :]


class TestLinearModel:
    """On Gaussian data the best linear score of a sample is that of the sample's own Gaussian."""

    @pytest.fixture
    def data(self):
        A = tensor([[1.3, 0.4, -0.2], [0.0, 0.7, 0.5], [0.0, 0.0, 0.9]], dtype=F64)
        x = torch.randn(400, 3, dtype=F64, generator=torch.Generator().manual_seed(3)) @ A.T
        x = x + tensor([0.5, -1.0, 0.3], dtype=F64)
        mean = x.mean(0)
        cov = (x - mean).T @ (x - mean) / len(x)
        return x, mean, cov

    def test_implicit(self, data):
        x, mean, cov = data
        P, b = fit_linear(lambda s: implicit_matching(s, x), 3)
        assert_close(P, torch.linalg.inv(cov), rtol=1e-8, atol=1e-8)
        assert_close(b, torch.linalg.solve(cov, mean), rtol=1e-8, atol=1e-8)

    def test_explicit(self, data):
        x, _, cov = data
        target = lambda x: -torch.linalg.solve(cov, (x - 0.2).T).T  # noqa: E731
        P, b = fit_linear(lambda s: explicit_matching(s, target, x), 3)
        assert_close(P, torch.linalg.inv(cov), rtol=1e-8, atol=1e-8)
        assert_close(b, torch.linalg.inv(cov).sum(1) * 0.2, rtol=1e-8, atol=1e-8)

    def test_sliced(self, data):
        x, _, cov = data
        signs = tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=F64)
        probes = signs[:, None].expand(8, *x.shape)
        for reduced in (True, False):
            P, _ = fit_linear(lambda s, r=reduced: sliced_matching(s, x, probes, r), 3)
            assert_close(P, torch.linalg.inv(cov), rtol=1e-8, atol=1e-8)

    def test_denoising_is_of_the_blurred_law(self, data):
        """Noise of exact moments over the sample: each x with +-sqrt(D) sigma along each axis."""
        x, _, cov = data
        unit = torch.eye(3, dtype=F64)
        sigma, steps = 0.6, 3**0.5 * torch.cat([unit, -unit])
        noise = lambda y: steps.repeat(len(x), 1)  # noqa: E731
        many = x.repeat_interleave(6, 0)
        P, _ = fit_linear(lambda s: denoising_matching(s, many, sigma, noise), 3)
        assert_close(P, torch.linalg.inv(cov + sigma**2 * unit), rtol=1e-8, atol=1e-8)


def test_denoising_minimiser_of_a_mixture_is_the_blurred_score():
    """At the score of the blurred law the loss is stationary: every direction has slope zero."""
    mixture, sigma = anisotropic_gaussians(), 0.7
    x = draws(200_000)
    eps = torch.randn(*x.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    right, wrong = mixture.noised(1.0, sigma).score, mixture.score
    for bend in (lambda x: torch.sin(x), lambda x: x.flip(1), lambda x: torch.cos(2 * x)):
        for score, zero in ((right, True), (wrong, False)):
            y = x + sigma * eps
            slope = ((score(y) + eps / sigma) * bend(y)).sum(1)
            error = slope.std() / len(x) ** 0.5
            assert (slope.mean().abs() < 4 * error) == zero

            def loss(h, score=score, bend=bend):
                return denoising_matching(
                    lambda z: score(z) + h * bend(z), x, sigma, lambda _: eps
                ).mean()

            assert_close((loss(1e-4) - loss(-1e-4)) / 2e-4, slope.mean(), rtol=1e-5, atol=1e-6)


def test_denoising_takes_a_level_for_each_example(net, device):
    x, eps = draws(5, device), torch.randn(5, 2, dtype=F64, device=device)
    sigma = torch.linspace(0.2, 1.5, 5, dtype=F64, device=device)
    got = denoising_matching(net, x, sigma, lambda _: eps)
    rows = [
        denoising_matching(net, x[i : i + 1], float(sigma[i]), lambda _, i=i: eps[i : i + 1])
        for i in range(5)
    ]
    assert_close(got, torch.cat(rows), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="above zero"):
        denoising_matching(net, x, 0.0)


def test_losses_look_at_no_value_of_x(net, device):
    """vmap would refuse it, and a training step wait for the GPU; `fit` tells of a loss not finite."""
    x, still = draws(5, device), torch.ones_like
    for loss in (
        lambda x: explicit_matching(net, torch.sin, x),
        lambda x: implicit_matching(net, x),
        lambda x: sliced_matching(net, x, still(x)[None]),
        lambda x: denoising_matching(net, x, 0.7, still),
    ):
        one_by_one = torch.func.vmap(lambda row, f=loss: f(row[None])[0])(x)
        assert_close(one_by_one, loss(x), rtol=1e-12, atol=1e-12)


def test_losses_give_gradients_to_the_network(net, device):
    x = draws(8, device)
    for loss in (implicit_matching, sliced_matching):
        net.zero_grad()
        loss(net, x).mean().backward()
        found = [p.grad.abs().max() for p in net.parameters() if p.grad is not None]
        assert len(found) >= 5 and min(found) > 0 and max(found) < math.inf


def test_score_of_is_the_gradient(device):
    mixture, x = anisotropic_gaussians(), draws(6, device)
    score = score_of(lambda y: mixture.log_prob(y) + 7.0)
    with torch.no_grad():
        assert_close(score(x), mixture.score(x), rtol=1e-11, atol=1e-11)
    assert_close(
        implicit_matching(score, x), implicit_matching(mixture.score, x), rtol=1e-9, atol=1e-9
    )


class TestLangevin:
    def test_stationary_variance(self):
        """s^2 / (1 - step / (2 s^2)) for N(m, s^2): the bias of a finite step, in closed form."""
        m, s2, step = 0.7, 1.3, 0.9
        x = torch.full((60_000, 1), 3.0, dtype=F64)
        *_, x = langevin(lambda x: (m - x) / s2, x, step, 40)
        want = s2 / (1 - step / (2 * s2))
        assert (x.var() - want).abs() < 4 * want * (2 / len(x)) ** 0.5
        assert (x.mean() - m).abs() < 4 * (want / len(x)) ** 0.5
        assert want > 1.4 * s2  # so that the test can tell

    def test_variance_step_by_step(self):
        """Not only in the limit: v <- (1 - step / s2)^2 v + 2 step."""
        s2, step, v = 1.3, 0.5, 4.0
        x = 2 * torch.randn(100_000, 1, dtype=F64)
        for y in langevin(lambda x: -x / s2, x, step, 4):
            v = (1 - step / s2) ** 2 * v + 2 * step
            assert (y.var() - v).abs() < 4 * v * (2 / len(y)) ** 0.5

    def test_bias_falls_with_the_step(self):
        """First order in the step, from the closed form: half the step, half the bias."""
        bias = [1.3 / (1 - h / 2.6) - 1.3 for h in (0.02, 0.01)]
        assert 1.95 < bias[0] / bias[1] < 2.05

    def test_metropolis_removes_the_bias(self):
        s2, step = 1.3, 0.9
        log_prob = lambda x: -0.5 * (x**2).sum(1) / s2  # noqa: E731
        x = torch.randn(40_000, 1, dtype=F64)
        *_, x = langevin(lambda x: -x / s2, x, step, 60, log_prob=log_prob)
        assert (x.var() - s2).abs() < 4 * s2 * (2 / len(x)) ** 0.5

    def test_metropolis_keeps_a_skewed_law(self):
        """Two overlapping parts: the mean in closed form, where the plain chain is visibly off."""
        law = GaussianMixture([0.3, 0.7], [[-0.8], [0.8]], [[[0.5]], [[0.15]]])
        mean, var = (a.item() for a in law.moments())
        start = law.sample(40_000)
        *_, x = langevin(law.score, start, 0.2, 40, log_prob=law.log_prob)
        error = 4 * (var / len(x)) ** 0.5
        assert abs(x.mean() - mean) < error
        *_, plain = langevin(law.score, start, 0.2, 40)
        assert abs(plain.mean() - mean) > 2 * error

    def test_diverges_beyond_the_limit(self):
        x = torch.randn(10, 1, dtype=F64)
        with pytest.raises(FloatingPointError, match="too long"):
            list(langevin(lambda x: -x / 0.1, x, 0.25, 2000))
        with pytest.raises(ValueError, match="above zero"):
            list(langevin(lambda x: -x, x, 0.0, 1))

    def test_noise_can_be_given_and_gradients_stay_on(self, device):
        x = torch.ones(3, 2, dtype=F64, device=device)
        states = list(langevin(lambda x: -x, x, 0.1, 2, noise=torch.ones_like))
        want = 0.9 + 0.2**0.5
        assert_close(states[0], torch.full_like(x, want), rtol=1e-12, atol=0)
        assert_close(states[1], torch.full_like(x, 0.9 * want + 0.2**0.5), rtol=1e-12, atol=0)
        for _ in langevin(lambda x: -x, x, 0.1, 1):
            assert torch.is_grad_enabled()


class TestAnnealed:
    def test_one_level_is_langevin_with_the_step_of_the_paper(self):
        x, eps = torch.ones(2, 1, dtype=F64), 0.02
        noise = lambda x: torch.full_like(x, 0.3)  # noqa: E731
        got = list(annealed_langevin(lambda x, s: -x / s**2, x, [0.5, 0.1], eps / 2, 1, noise))
        a = eps * 0.5**2 / 0.1**2
        x = x + a / 2 * (-x / 0.5**2) + a**0.5 * 0.3
        assert_close(got[0], x, rtol=1e-12, atol=0)
        x = x + eps / 2 * (-x / 0.1**2) + eps**0.5 * 0.3
        assert_close(got[1], x, rtol=1e-12, atol=0)

    def test_weights_of_separated_modes(self):
        """Plain Langevin keeps the weights of its start; annealed finds those of the density."""
        mixture = two_gaussians(distance=8.0, std=0.5, weight=0.2)
        start = 8 * torch.rand(3000, 2, dtype=F64) - 4
        left = lambda x: (x[:, 0] < 0).double().mean()  # noqa: E731
        *_, plain = langevin(mixture.score, start, 0.02, 300)
        assert 0.45 < left(plain) < 0.55
        sigmas = [8.0 * 0.75**k for k in range(20)]
        score = lambda x, s: mixture.noised(1.0, s).score(x)  # noqa: E731
        *_, x = annealed_langevin(score, start, sigmas, 0.05 * sigmas[-1] ** 2, 60)
        assert abs(left(x) - 0.2) < 4 * (0.2 * 0.8 / 3000) ** 0.5 + 0.01

    def test_levels_must_fall(self):
        with pytest.raises(ValueError, match="fall"):
            list(annealed_langevin(lambda x, s: -x, torch.ones(1, 1), [0.1, 1.0], 0.1, 1))


class TestBoltzmann:
    @pytest.fixture
    def machine(self, device):
        machine = BoltzmannMachine(5, 0.6, torch.Generator().manual_seed(2)).to(device)
        return machine.double()

    def test_probabilities_sum_to_one(self, machine):
        y = machine.states()
        assert y.shape == (32, 5) and len(y.unique(dim=0)) == 32
        assert_close(machine.log_prob(y).exp().sum().item(), 1.0, rtol=1e-12, atol=0)

    def test_energy_by_the_double_sum(self, machine):
        y = machine.states()[11]
        W, b = machine.W, machine.b
        assert_close(W, W.T, rtol=0, atol=0)
        assert W.diagonal().abs().max() == 0
        pairs = sum(W[i, j] * y[i] * y[j] for i in range(5) for j in range(i))
        assert_close(machine.energy(y[None])[0], -pairs - b @ y, rtol=1e-12, atol=0)

    def test_gradient_is_data_minus_model(self, machine):
        y = machine.states()[[3, 8, 8, 30]]
        machine.log_prob(y).mean().backward()
        pair, mean = machine.log_prob_grad(y)
        i, j = torch.triu_indices(5, 5, 1)
        assert_close(machine.upper.grad, pair[i, j], rtol=1e-10, atol=1e-12)
        assert_close(machine.b.grad, mean, rtol=1e-10, atol=1e-12)

    def test_draws_have_the_moments(self, machine):
        y = machine.sample(40_000)
        _, mean = machine.moments()
        assert ((y.mean(0) - mean).abs() < 4 * ((1 - mean**2) / len(y)) ** 0.5).all()

    def test_fit_recovers_the_machine(self):
        truth = BoltzmannMachine(4, 0.5, torch.Generator().manual_seed(4)).double()
        p = truth.log_prob(truth.states()).exp().detach()
        model = BoltzmannMachine(4).double()
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, tolerance_grad=1e-10)

        def closure():
            optimizer.zero_grad()
            loss = p @ model(model.states())
            loss.backward()
            return loss

        optimizer.step(closure)
        assert_close(model.W, truth.W, rtol=1e-3, atol=1e-4)

    def test_too_many_spins(self):
        with pytest.raises(ValueError, match="2\\^30"):
            BoltzmannMachine(30)


def test_four_losses_refuse_what_is_no_batch():
    for loss in (implicit_matching, sliced_matching, lambda s, x: denoising_matching(s, x, 1.0)):
        with pytest.raises(TypeError, match="floating point"):
            loss(lambda x: x, torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="probes"):
        sliced_matching(lambda x: x, torch.ones(3, 2), torch.ones(1, 3, 5))
