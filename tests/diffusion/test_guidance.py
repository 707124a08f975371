"""Guidance against the exact conditional law of Gaussian mixtures."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from lib.data.densities import GaussianMixture, anisotropic_gaussians, two_gaussians
from lib.diffusion import VE, VP, BaseDenoiser, Denoiser, ExactDenoiser, ancestral, simulate
from lib.diffusion.guidance import (
    ClassifierGuided,
    Guided,
    LinearInverse,
    linear_likelihood,
    linear_posterior,
)
from lib.nets import mlp

F64 = torch.float64
SCHEDULES = [VP(), VE(0.05, 20.0)]
A = tensor([[0.8, -0.6]], dtype=F64)
Y = tensor([0.7], dtype=F64)
STD = 0.4


def points(n, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, 2, dtype=F64, generator=generator)).to(device)


def classifier(mixture, schedule):
    """log p(k | x_t), exactly."""

    def log_prob(x_t, t, context):
        log = mixture.posterior(x_t, schedule.alpha(t), schedule.sigma(t)).log_weights
        return log[torch.arange(len(x_t), device=x_t.device), context]

    return log_prob


class Net(torch.nn.Module):
    """A loud network of x, t and a class; counts its calls."""

    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(5)
        self.body = mlp(3 + classes, 2, 16)
        self.calls, self.classes = 0, classes

    def forward(self, x, t, context):
        self.calls += 1
        one_hot = torch.nn.functional.one_hot(context, self.classes).to(x)
        return 3 * self.body(torch.cat([x, t[:, None], one_hot], 1))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("t", [0.02, 0.37, 0.9])
class TestBayes:
    def test_weight_one_is_the_exact_conditional(self, schedule, t, device):
        mixture, x = anisotropic_gaussians(), points(9, device)
        exact = ExactDenoiser(mixture, schedule)
        context = torch.arange(9, device=device) % 3
        guided = ClassifierGuided(exact, classifier(mixture, schedule))
        for got, want in zip(guided.split(x, t, context), exact.split(x, t, context), strict=True):
            assert_close(got, want, rtol=1e-10, atol=1e-10)
        noised = [
            mixture.component(k).noised(schedule.alpha(t), schedule.sigma(t)) for k in range(3)
        ]
        want = torch.stack([noised[i % 3].score(x[i : i + 1])[0] for i in range(9)])
        assert_close(guided.score(x, t, context), want, rtol=1e-9, atol=1e-9)

    def test_both_kinds_of_guidance_agree(self, schedule, t, device):
        """With an exact classifier, for every weight."""
        mixture, x = anisotropic_gaussians(), points(6, device)
        exact, context = ExactDenoiser(mixture, schedule), torch.arange(6, device=device) % 3
        for w in (0.0, 0.4, 2.5):
            free = Guided(exact, w).split(x, t, context)
            by_classifier = ClassifierGuided(exact, classifier(mixture, schedule), w)
            for a, b in zip(free, by_classifier.split(x, t, context), strict=True):
                assert_close(a, b, rtol=1e-9, atol=1e-9)

    def test_linear_likelihood_gives_the_exact_posterior(self, schedule, t, device):
        mixture, x = anisotropic_gaussians(), points(6, device)
        got = ClassifierGuided(
            ExactDenoiser(mixture, schedule), linear_likelihood(mixture, schedule, A, Y, STD)
        )
        want = ExactDenoiser(linear_posterior(mixture, A, Y, STD), schedule)
        for a, b in zip(got.split(x, t), want.split(x, t), strict=True):
            assert_close(a, b, rtol=1e-9, atol=1e-9)

    def test_pigdm_is_exact_for_round_gaussian_data(self, schedule, t, device):
        """And DPS is not: it takes x_hat for certain."""
        v = 1.7
        data = GaussianMixture([1.0], [[0.4, -0.9]], v * torch.eye(2, dtype=F64))
        x, exact = points(5, device), ExactDenoiser(data, schedule)
        want = ExactDenoiser(linear_posterior(data, A, Y, STD), schedule)(x, t)
        got = LinearInverse(exact, A, Y, STD, spread=v**0.5).to(device)(x, t)
        assert_close(got, want, rtol=1e-9, atol=1e-9)
        dps = LinearInverse(exact, A, Y, STD, spread=0.0).to(device)(x, t)
        gap = (dps - want).norm(dim=1) / (want - exact(x, t)).norm(dim=1)
        r2 = v * schedule.sigma(t) ** 2 / (schedule.alpha(t) ** 2 * v + schedule.sigma(t) ** 2)
        assert_close(gap, torch.full_like(gap, r2 / STD**2), rtol=1e-7, atol=1e-9)  # |A| = 1

    def test_parts_stay_consistent(self, schedule, t, device):
        """x_t = alpha x_hat + sigma eps_hat, whatever guides."""
        mixture, x = anisotropic_gaussians(), points(6, device)
        exact, context = ExactDenoiser(mixture, schedule), torch.arange(6, device=device) % 3
        for d in (
            Guided(exact, 3.0),
            ClassifierGuided(exact, classifier(mixture, schedule), 2.0),
            LinearInverse(exact, A, Y, STD).to(device),
        ):
            x_hat, eps_hat = d.split(x, t, context)
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            assert_close(alpha * x_hat + sigma * eps_hat, x, rtol=1e-9, atol=1e-9)


def test_posterior_by_quadrature():
    mixture = anisotropic_gaussians()
    line = torch.linspace(-7, 7, 561, dtype=F64)
    grid = torch.cartesian_prod(line, line)
    log = mixture.log_prob(grid) - 0.5 * ((grid @ A.T - Y) / STD).square().sum(1)
    want = log.softmax(0) / (line[1] - line[0]) ** 2
    got = linear_posterior(mixture, A, Y, STD).log_prob(grid).exp()
    assert_close(got, want, rtol=1e-6, atol=1e-9)


def test_posterior_that_leaves_a_component_nothing():
    """Its weight is e^-2000, 0 in float64; the other component is a Gaussian by itself."""
    far = two_gaussians(20.0, 0.25)
    a, y = tensor([[1.0, 0.0]]), tensor([10.0])
    got = linear_posterior(far, a, y, 0.2)
    k = int(far.means[:, 0].argmax())
    want = linear_posterior(far.component(k), a, y, 0.2)
    for value, wanted in zip(got.moments(), want.moments(), strict=True):
        assert_close(value, wanted, rtol=1e-9, atol=1e-9)
    assert got.weights.min() > 0


@pytest.mark.parametrize("std", [1e-5, 1e-8, 1e-12])
def test_posterior_of_a_nearly_exact_measurement(std):
    """What is left along the measurement is std^2, far below the rounding of the data's variance."""
    mixture, y = anisotropic_gaussians(), Y
    for a in torch.eye(2, dtype=F64)[:, None]:  # along an axis a matrix holds that beside the rest
        got = linear_posterior(mixture, a, y, std)
        assert_close(got.means @ a.T, y.expand(len(got.means), 1), rtol=1e-8, atol=0)
        assert_close(
            a @ got.covs @ a.T, torch.full_like(got.covs[:, :1, :1], std**2), rtol=1e-6, atol=0
        )


def test_a_measurement_too_exact_for_float64_is_what_is_blamed():
    refused = 0
    for a in torch.randn(20, 1, 2, dtype=F64):
        try:
            linear_posterior(anisotropic_gaussians(), a, Y, 1e-12)
        except ValueError as error:
            assert "std = 1e-12 is too small" in str(error)
            refused += 1
    assert refused


def test_likelihood_by_monte_carlo():
    """p(y | x_t) is the mean of p(y | x) over x given x_t."""
    mixture, schedule, t = anisotropic_gaussians(), VP(), 0.3
    x_t = points(1, "cpu")
    many = x_t.expand(200_000, 2)
    x = mixture.posterior(many, schedule.alpha(t), schedule.sigma(t)).sample()
    p = (-0.5 * ((x @ A.T - Y) / STD).square().sum(1)).exp() / (STD * (2 * torch.pi) ** 0.5)
    got = linear_likelihood(mixture, schedule, A, Y, STD)(x_t, t).exp()
    assert abs(got - p.mean()) < 4 * p.std() / len(p) ** 0.5
    assert p.std() / len(p) ** 0.5 < 0.02 * got


def test_samples_reach_the_exact_posterior():
    torch.manual_seed(0)
    mixture, schedule, n = anisotropic_gaussians(), VP(), 4000
    guided = ClassifierGuided(
        ExactDenoiser(mixture, schedule), linear_likelihood(mixture, schedule, A, Y, STD)
    )
    times = schedule.log_snr_times(60, 1e-3)
    *_, x = simulate(ancestral(guided), torch.randn(n, 2, dtype=F64), times)
    posterior = linear_posterior(mixture, A, Y, STD)
    mean, cov = posterior.moments()
    assert ((x.mean(0) - mean).abs() < 5 * (cov.diagonal() / n) ** 0.5 + 0.02).all()
    assert_close(torch.cov(x.T), cov, rtol=0.15, atol=0.05)


def test_more_than_one_is_not_the_tilted_law():
    """The guided score at time t is that of p_t(x) p_t(y | x)^w, and for w other than 0 and 1 these are
    not the noised laws of p(x) p(y | x)^w. Along one coordinate, by quadrature."""
    mixture, schedule, w, t = two_gaussians(2.5, 0.8, 0.4), VP(), 3.0, 0.25
    x = torch.stack([torch.linspace(-9, 9, 1801, dtype=F64), torch.zeros(1801, dtype=F64)], 1)
    h = 0.01
    one = torch.ones(1801, dtype=torch.int64)
    log = classifier(mixture, schedule)
    clean = mixture.log_prob(x) + w * log(x, 1e-9, one)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    kernel = torch.exp(-0.5 * ((x[:, None, 0] - alpha * x[None, :, 0]) / sigma) ** 2)
    noised = kernel @ clean.exp()
    of_noised = torch.gradient(noised.log(), spacing=h)[0]
    context = torch.ones(1801, dtype=torch.int64)
    used = Guided(ExactDenoiser(mixture, schedule), w).score(x, t, context)[:, 0]
    middle = x[:, 0].abs() < 2
    assert (of_noised - used)[middle].abs().max() > 0.3
    # at w = 1 both agree, which shows that the quadrature is right
    clean = mixture.log_prob(x) + log(x, 1e-9, one)
    of_noised = torch.gradient((kernel @ clean.exp()).log(), spacing=h)[0]
    used = Guided(ExactDenoiser(mixture, schedule), 1.0).score(x, t, context)[:, 0]
    assert (of_noised - used)[middle].abs().max() < 1e-4


class TestGuided:
    @pytest.fixture
    def denoiser(self, device):
        return Denoiser(Net().to(device, F64), VP(), "v")

    def test_extrapolates_by_one_call(self, denoiser, device):
        x, context = points(5, device), tensor([0, 1, 2, 0, 1], device=device)
        null = torch.full_like(context, 3)
        for t in (0.4, torch.linspace(0.1, 0.9, 5, dtype=F64, device=device)):
            free, given = denoiser.eps(x, t, null), denoiser.eps(x, t, context)
            for w in (0.0, 0.3, 1.0, 4.0):
                denoiser.net.calls = 0
                got = Guided(denoiser, w, null=3).eps(x, t, context)
                assert denoiser.net.calls == 1
                assert_close(got, free + w * (given - free), rtol=1e-10, atol=1e-10)

    def test_paper_weight(self, denoiser, device):
        """Ho and Salimans write (1 + w) conditional - w unconditional."""
        x, context = points(4, device), tensor([0, 1, 2, 0], device=device)
        theirs, null = 1.7, torch.full_like(context, 3)
        want = (1 + theirs) * denoiser.eps(x, 0.3, context) - theirs * denoiser.eps(x, 0.3, null)
        got = Guided(denoiser, 1 + theirs, null=3).eps(x, 0.3, context)
        assert_close(got, want, rtol=1e-10, atol=1e-10)

    def test_holds_the_network_once(self, denoiser):
        guided = Guided(denoiser, 2.0, null=3)
        assert isinstance(guided, BaseDenoiser)
        ours, plain = list(guided.parameters()), list(denoiser.parameters())
        assert len(ours) == len(plain) and all(a is b for a, b in zip(ours, plain, strict=True))
        assert len(guided.state_dict()) == len(denoiser.state_dict())

    def test_null_may_be_a_vector(self, device):
        class Linear(BaseDenoiser):
            schedule = VP()

            def split(self, x_t, t, context=None):
                alpha, sigma = self.scales(x_t, t)
                return context, (x_t - alpha * context) / sigma

        x, null = points(3, device), tensor([0.5, -1.0], dtype=F64, device=device)
        got = Guided(Linear(), 3.0, null)(x, 0.5, x)
        assert_close(got, null + 3 * (x - null), rtol=1e-10, atol=1e-10)

    def test_needs_a_context(self, denoiser, device):
        with pytest.raises(ValueError, match="context"):
            Guided(denoiser, 2.0, null=3)(points(2, device), 0.5)


class TestLinearInverse:
    def test_pulls_through_the_network(self, device):
        """The gradient of log N(y; A x_hat(x_t), ...), with the covariance held, by autograd."""
        denoiser = Denoiser(Net().to(device, F64), VP(), "v")
        x, context = points(4, device), tensor([0, 1, 2, 0], device=device)
        y = torch.randn(4, 1, dtype=F64, device=device)
        for t in (0.4, torch.linspace(0.2, 0.8, 4, dtype=F64, device=device)):
            times = torch.as_tensor(t, dtype=F64, device=device).expand(4)
            alpha, sigma = VP().alpha(times), VP().sigma(times)
            r2 = sigma**2 / (alpha**2 + sigma**2)
            at = x.clone().requires_grad_()
            off = y - denoiser(at, t, context) @ A.to(device).T
            log = -0.5 * (off[:, 0] ** 2 / (r2 + STD**2)).sum()  # A A' = 1
            grad = torch.autograd.grad(log, at)[0]
            plain = denoiser.score(x, t, context)
            got = LinearInverse(denoiser, A, y, STD).to(device).score(x, t, context)
            assert_close(got, (plain + grad).detach(), rtol=1e-9, atol=1e-9)

    def test_examples_of_any_shape(self):
        data = GaussianMixture([1.0], [[0.0] * 4], torch.eye(4, dtype=F64))
        flat = ExactDenoiser(data, VP())

        class Image(BaseDenoiser):
            schedule = VP()

            def split(self, x_t, t, context=None):
                parts = flat.split(x_t.flatten(1), t)
                return tuple(p.view_as(x_t) for p in parts)

        a = torch.eye(4, dtype=F64)[:3] * tensor([[1.0], [2.0], [0.5]], dtype=F64)
        y, x = tensor([0.3, -0.2, 0.9], dtype=F64), torch.randn(5, 1, 2, 2, dtype=F64)
        got = LinearInverse(Image(), a, y, 0.3)(x, 0.4)
        want = ExactDenoiser(linear_posterior(data, a, y, 0.3), VP())(x.flatten(1), 0.4)
        assert_close(got.flatten(1), want, rtol=1e-9, atol=1e-9)

    def test_bias_of_the_approximation(self):
        """On a mixture the Gaussian likelihood is not exact: visible in the samples' mean."""
        torch.manual_seed(0)
        mixture, schedule, n = two_gaussians(3.0, 0.5, 0.35), VP(), 3000
        a, y = tensor([[0.6, 0.8]], dtype=F64), tensor([0.1], dtype=F64)
        exact = ExactDenoiser(mixture, schedule)
        posterior = linear_posterior(mixture, a, y, 0.5)
        start = torch.randn(n, 2, dtype=F64)
        times = schedule.log_snr_times(60, 1e-3)
        share = {}
        for name, d in {
            "exact": ClassifierGuided(exact, linear_likelihood(mixture, schedule, a, y, 0.5)),
            "pigdm": LinearInverse(exact, a, y, 0.5, spread=1.0),
        }.items():
            *_, x = simulate(ancestral(d), start, times)
            share[name] = float((x[:, 0] < 0).double().mean())
        want = float(posterior.weights[0])
        assert abs(share["exact"] - want) < 4 * (want * (1 - want) / n) ** 0.5 + 0.01
        assert abs(share["pigdm"] - want) > 0.02

    def test_mistakes_are_explained(self):
        exact = ExactDenoiser(two_gaussians(), VP())
        with pytest.raises(ValueError, match="M, D"):
            LinearInverse(exact, A, torch.ones(3), 0.1)
        with pytest.raises(ValueError, match="above zero"):
            LinearInverse(exact, A, Y, 0.0)
        with pytest.raises(ValueError, match="spread"):
            LinearInverse(exact, A, Y, 0.1, spread=-1.0)


@pytest.mark.parametrize("B", [2, 3])
def test_a_measurement_for_each_row(B, device):
    """Also where there are as many rows as components."""
    mixture, schedule = two_gaussians(), VP()
    A = tensor([[1.0, 0.5]], dtype=F64, device=device)
    y, x = tensor([[1.5], [-1.0], [0.2]], dtype=F64, device=device)[:B], points(B, device)
    log_p = lambda y: linear_likelihood(mixture, schedule, A, y, std=0.1)
    one_by_one = torch.cat([log_p(y[i])(x[i : i + 1], 0.4) for i in range(B)])
    assert_close(log_p(y)(x, 0.4), one_by_one)
    with pytest.raises(ValueError, match=r"one y \(M,\), got"):
        linear_posterior(mixture, A, y, std=0.1)


def test_what_is_exact_stays_so_under_autocast(device):
    """A measurement of noise 0.001 has more digits than bfloat16."""
    law, x = two_gaussians(), torch.randn(50, 2, device=device)
    exact = ExactDenoiser(law, VP()).to(device)
    inverse = LinearInverse(exact, tensor([[1.0, 0.5]]), tensor([1.2]), std=1e-3).to(device)
    likely = linear_likelihood(law, VP(), tensor([[1.0, 0.5]]), tensor([1.2]), std=1e-3)
    for model in (exact, inverse, likely, ClassifierGuided(exact, likely)):
        want = model(x, 0.05)
        with torch.autocast(device.type, torch.bfloat16):
            got = model(x, 0.05)
        assert_close(got, want, rtol=1e-5, atol=1e-5)
