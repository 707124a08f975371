"""The closed-form laws against independent truths; each bug named here was planted and caught."""

import math

import pytest
import torch
from torch.testing import assert_close

from lib.data import densities, toys
from lib.data.densities import GaussianMixture

F64 = {"dtype": torch.float64}
MIXTURES = ["two_gaussians", "eight_gaussians", "grid_gaussians", "anisotropic_gaussians"]
SMOOTH = ["moons", "circles", "rings", "swissroll", "spirals", "pinwheel"]
ALL = [*MIXTURES, *SMOOTH, "checkerboard"]
NOISY = ["moons", "circles", "rings", "swissroll", "spirals", "checkerboard"]


@pytest.fixture(scope="module")
def laws():
    """One of each, so that an entropy is computed once."""
    return {name: getattr(densities, name)() for name in ALL}


def draws(law, n, seed=0):
    return law.sample(n, torch.Generator().manual_seed(seed), **F64)


def integral(log_p, low, high, n):
    axes = [torch.linspace(a, b, n, **F64) for a, b in zip(low, high, strict=True)]
    points = torch.cartesian_prod(*axes)
    cell = math.prod((a[1] - a[0]).item() for a in axes)
    return (log_p(points).exp().sum() * cell).item()


# Normalisation, entropy, moments


@pytest.mark.parametrize("name", [*MIXTURES, *SMOOTH])
def test_density_integrates_to_one(laws, name):
    got = integral(laws[name].log_prob, *laws[name].box(8), 150)
    # the pinwheel has thin folds with a probability of 3e-8 and more of their edges
    assert got == pytest.approx(1, abs=1e-4 if name == "pinwheel" else 1e-6)


def test_checkerboard_is_uniform_on_the_black_cells(laws):
    law, x = laws["checkerboard"], draws(laws["checkerboard"], 4000)
    assert_close(law.log_prob(x).exp(), x.new_full((4000,), 1 / 32))
    k = ((x + 4) / 2).floor().long()
    assert (k.sum(1) % 2 == 0).all() and k.min() == 0 and k.max() == 3
    assert law.log_prob(x * torch.tensor([-1.0, 1.0], **F64)).eq(-math.inf).all()
    inside = x[:1]
    assert_close(law.score(torch.cat([inside, -inside.flip(1) * 0 + 9]))[0], torch.zeros(2, **F64))
    assert law.score(torch.full((1, 2), 9.0)).isnan().all()


@pytest.mark.parametrize(
    ("name", "floor", "gaussian"),
    [  # shared/published-figures.md, section 5: generators of FFJORD
        ("checkerboard", 3.466, 4.494),
        ("rings", 2.623, 3.587),
        ("circles", 3.268, 3.892),
        ("moons", 2.394, 3.295),
        ("swissroll", 2.670, 3.466),
        ("spirals", 2.646, 3.747),
        # The list says 4.271; half the squared radius plus the variance is 4.126, so 4.2552.
        ("eight_gaussians", 2.832, 4.2552),
        # The list says 2.302. Three ways to 2.3178: our quadrature, the mean of our -log p over
        # samples, and histograms of 2e7 draws of FFJORD's own code (bins of 0.08 and 0.04: 2.3302
        # and 2.3209, hence 2.3178 for bins of no width).
        ("pinwheel", 2.3178, 3.626),
    ],
)
def test_entropy_and_moments_of_the_published_toys(laws, name, floor, gaussian):
    mean, cov = laws[name].moments()
    assert laws[name].entropy() == pytest.approx(floor, abs=1e-3)
    got = math.log(2 * math.pi * math.e) + 0.5 * torch.logdet(cov).item()
    assert got == pytest.approx(gaussian, abs=2e-3)


def test_entropy_of_a_single_gaussian_is_exact():
    for d in (1, 2):
        a = torch.randn(d, d, **F64)
        cov = a @ a.T + 0.1 * torch.eye(d, **F64)
        law = GaussianMixture([1.0], torch.randn(1, d, **F64), cov)
        truth = 0.5 * torch.logdet(2 * math.pi * math.e * cov).item()
        assert law.entropy() == pytest.approx(truth, abs=1e-9)
        for got, want in zip(law.moments(), densities.Density.moments(law), strict=True):
            assert_close(got, want, rtol=1e-7, atol=1e-9)


# Samples


@pytest.mark.parametrize("name", ALL)
def test_samples_follow_log_prob(laws, name):
    law, n = laws[name], 2000 if name == "spirals" else 10_000
    x = draws(law, n)
    nll = -law.log_prob(x)
    if name != "checkerboard":  # all values are equal there
        assert abs(nll.mean() - law.entropy()) < 4 * nll.std() / n**0.5
    mean, cov = law.moments()
    delta = x - mean
    outer = (delta[:, :, None] * delta[:, None, :]).flatten(1)
    for got, truth in ((delta, torch.zeros(2, **F64)), (outer, cov.flatten())):
        assert ((got.mean(0) - truth).abs() < 4.5 * got.std(0) / n**0.5).all()


@pytest.mark.parametrize("name", ["anisotropic_gaussians", *SMOOTH])
def test_samples_fill_each_square_with_its_probability(laws, name):
    law, n, bins = laws[name], 20_000, 12
    low, high = law.box(4)
    x = draws(law, n, seed=1)
    k = ((x - low) / (high - low) * bins).floor().long().clamp(0, bins - 1)
    count = torch.bincount(k[:, 0] * bins + k[:, 1], minlength=bins**2).double()
    sub = 10  # midpoints in each square
    step = (high - low) / (bins * sub)
    axes = [low[i] + step[i] * (torch.arange(bins * sub) + 0.5) for i in range(2)]
    p = law.log_prob(torch.cartesian_prod(*axes)).exp() * step.prod()
    p = p.reshape(bins, sub, bins, sub).sum((1, 3)).flatten()
    full = n * p > 5
    chi2 = ((count - n * p) ** 2 / (n * p))[full].sum()
    df = int(full.sum())
    assert abs(chi2 - df) < 5 * (2 * df) ** 0.5


@pytest.mark.parametrize("name", ALL)
def test_a_seed_fixes_the_draws_and_arguments_place_them(laws, name, device):
    law = laws[name]
    a, b, c = (
        law.sample(50, torch.Generator(device).manual_seed(s), dtype=torch.float32)
        for s in (7, 7, 8)
    )
    assert a.device.type == device.type and a.dtype == torch.float32 and a.shape == (50, 2)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert law.sample(3, device=device, dtype=torch.float64).dtype == torch.float64
    torch.manual_seed(3)
    a = law.sample(5, device=device)
    torch.manual_seed(3)
    assert torch.equal(a, law.sample(5, device=device)) and len(a.unique(dim=0)) == 5


@pytest.mark.parametrize("name", ALL)
def test_float32_on_the_device_agrees_with_float64(laws, name, device):
    law, x = laws[name], draws(laws[name], 300).float().double()
    got = law.log_prob(x.float().to(device))
    assert got.dtype == torch.float32 and got.device.type == device.type
    assert_close(got.cpu().double(), law.log_prob(x), rtol=1e-4, atol=1e-4)
    score = law.score(x.float().to(device))
    assert score.dtype == torch.float32 and score.device.type == device.type
    assert_close(score.cpu().double(), law.score(x), rtol=1e-3, atol=2e-3)


# Scores and derivatives


@pytest.mark.parametrize("name", [*MIXTURES, *SMOOTH])
def test_score_is_the_gradient_by_finite_differences(laws, name, device):
    law, x, h = laws[name], draws(laws[name], 20).to(device), 1e-5
    steps = h * torch.eye(2, **F64).to(device)
    differences = [(law.log_prob(x + s) - law.log_prob(x - s)) / (2 * h) for s in steps]
    assert_close(law.score(x), torch.stack(differences, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["anisotropic_gaussians", *SMOOTH])
def test_second_derivatives(laws, name):
    law, x = laws[name], draws(laws[name], 6).requires_grad_()
    (got,) = torch.autograd.grad(law.score(x)[:, 0].sum(), x)
    h = torch.tensor([1e-5, 0.0], **F64)
    truth = (law.score(x.detach() + h) - law.score(x.detach() - h))[:, 0] / 2e-5
    assert_close(got[:, 0], truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["anisotropic_gaussians", "moons", "rings"])
def test_score_works_under_no_grad_and_leaves_a_graph_only_where_asked(laws, name):
    law, x = laws[name], draws(laws[name], 4)
    with torch.no_grad():
        assert_close(law.score(x), law.score(x.clone().requires_grad_()))
    assert not law.score(x).requires_grad and law.score(x.requires_grad_()).requires_grad


def test_log_prob_goes_through_vmap(laws):
    for name in ("anisotropic_gaussians", "moons", "rings"):
        law, x = laws[name], draws(laws[name], 3)
        one = lambda x, law=law: law.log_prob(x[None])[0]
        assert_close(torch.vmap(torch.func.grad(one))(x), law.score(x))


def test_quadrature_along_the_curves_has_converged(monkeypatch):
    x = torch.rand(300, 2, **F64) * 9 - 4.5
    for name in ("moons", "swissroll", "spirals"):
        got = getattr(toys, name)().log_prob(x)
        with monkeypatch.context() as patch:
            real = toys._legendre
            patch.setattr(toys, "_legendre", lambda e, n, real=real: real(e, [2 * k for k in n]))
            assert_close(got, getattr(toys, name)().log_prob(x), rtol=0, atol=1e-7)


def test_kernel_of_square_and_noise_is_a_convolution():
    side, std, d = 0.7, 0.3, torch.tensor([0.2, -1.1], **F64)
    u, w = toys._legendre([-side / 2, side / 2], [80])
    normal = lambda e: (-0.5 * (e / std) ** 2).exp() / (std * math.sqrt(2 * math.pi))
    truth = sum(((w * normal(e - u)).sum()).log() for e in d)
    assert_close(toys._log_kernel(d, side, std), truth)
    far = toys._log_kernel(torch.tensor([30.0, -30.0]), side, std)  # float32, 99 deviations away
    assert far.isfinite() and far < -5000


def test_pinwheel_counts_every_preimage_in_a_fold():
    """Against all roots found on a circle of two million points, where the map is folded over."""
    law = densities.pinwheel()
    f = torch.tensor([2.45, -0.45], **F64)  # 1 + 0.25 f2 e^f1 < 0
    assert 1 + 0.25 * f[1] * f[0].exp() < 0
    turn = 0.25 * f[0].exp()
    c, s = turn.cos(), turn.sin()
    x = 2 * torch.stack([f[0] * c + f[1] * s, f[1] * c - f[0] * s])[None]
    r, a = f.norm(), torch.atan2(f[1], f[0])
    grid = torch.linspace(-math.pi, math.pi, 2_000_001, **F64)
    total = 0.0
    for blade in range(5):
        goal = a - 0.25 * (r * a.cos()).exp() + 2 * math.pi / 5 * blade
        gap = (grid - 0.25 * (r * grid.cos()).exp() - goal) / (2 * math.pi)
        gap = gap - gap.round()
        cross = (gap[1:] * gap[:-1] <= 0) & (gap[1:].abs() < 0.25)
        b = grid[1:][cross]
        weight = (-0.5 * ((r * b.cos() - 1) / 0.3) ** 2 - 0.5 * (r * b.sin() / 0.1) ** 2).exp()
        total += (weight / (1 + 0.25 * r * b.sin() * (r * b.cos()).exp()).abs()).sum().item()
    truth = math.log(total / (5 * 4 * 2 * math.pi * 0.3 * 0.1))
    assert law.log_prob(x).item() == pytest.approx(truth, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-12, 1e-19, 1e-22, 1e-30, 1e-42, 0.0])
def test_score_of_the_pinwheel_near_its_middle(scale):
    """By symmetry it is 0 in the middle. Squares of such coordinates vanish in float32."""
    x = scale * torch.tensor([[1.0, 0.5], [-0.3, 0.2], [0.0, 1.0]])
    assert_close(densities.pinwheel().score(x), torch.zeros(3, 2), rtol=0, atol=1e-5)


def test_grid_of_gaussians():
    law = densities.grid_gaussians(side=2, spacing=3.0, std=0.2)
    corners = [[-1.5, -1.5], [1.5, -1.5], [-1.5, 1.5], [1.5, 1.5]]
    assert law.means.tolist() == corners and law.weights.tolist() == [0.25] * 4
    assert_close(law.covs, (0.04 * torch.eye(2, **F64)).expand(4, 2, 2))


# Noise: x_t = alpha x_0 + sigma eps


@pytest.mark.parametrize(("alpha", "sigma"), [(0.7, 0.6), (1.0, 1.3)])
@pytest.mark.parametrize("name", ["anisotropic_gaussians", *NOISY])
def test_noised_law_is_that_of_noised_samples(laws, name, alpha, sigma):
    law, n = laws[name], 1000 if name in ("spirals", "swissroll") else 10_000
    noised = law.noised(alpha, sigma)
    x = alpha * draws(law, n) + sigma * torch.randn(n, 2, **F64)
    nll = -noised.log_prob(x)
    assert abs(nll.mean() - noised.entropy()) < 4 * nll.std() / n**0.5
    (m0, c0), (m, c) = law.moments(), noised.moments()
    assert_close(m, alpha * m0, rtol=0, atol=2e-5)
    assert_close(c, alpha**2 * c0 + sigma**2 * torch.eye(2, **F64), rtol=2e-5, atol=2e-5)
    own = -noised.log_prob(draws(noised, n, seed=5))
    assert abs(own.mean() - noised.entropy()) < 4 * own.std() / n**0.5


@pytest.mark.parametrize("name", ["anisotropic_gaussians", *NOISY])
def test_noise_twice_is_noise_once(laws, name):
    a, s, b, r = 0.8, 0.3, 0.6, 0.5
    twice = laws[name].noised(a, s).noised(b, r)
    once = laws[name].noised(a * b, math.hypot(b * s, r))
    x = torch.randn(50, 2, **F64)
    assert_close(twice.log_prob(x), once.log_prob(x))
    assert_close(draws(twice, 9), draws(once, 9))


def test_noised_marginal_obeys_the_fokker_planck_equation():
    """dp/dt = -div(f x p) + g^2/2 laplace p with f = -b/2, g^2 = b: alpha = exp(-bt/2)."""
    b, law, x = 1.7, densities.anisotropic_gaussians(), torch.randn(5, 2, **F64)
    t = torch.tensor(0.4, **F64)

    def p(t, x):
        alpha = torch.exp(-b * t / 2)
        return law.noised(alpha, torch.sqrt(-torch.expm1(-b * t))).log_prob(x[None]).exp()[0]

    for y in x:
        (rate,) = torch.autograd.functional.jacobian(p, (t, y))[:1]
        grad = torch.autograd.functional.jacobian(lambda y: p(t, y), y)
        laplace = torch.autograd.functional.hessian(lambda y: p(t, y), y).trace()
        assert_close(rate, b / 2 * (2 * p(t, y) + y @ grad + laplace))


def test_posterior_is_bayes_rule_on_a_grid():
    law, alpha, sigma = densities.anisotropic_gaussians(), 0.8, 0.9
    axes = torch.linspace(-8, 8, 321, **F64)
    grid = torch.cartesian_prod(axes, axes)
    for x_t in ([0.4, 0.3], [-2.0, 1.1]):
        x_t = torch.tensor([x_t], **F64)
        likelihood = -0.5 * ((x_t - alpha * grid) ** 2).sum(1) / sigma**2
        joint = (law.log_prob(grid) + likelihood).exp()
        p = joint / (joint.sum() * 0.05**2)
        post = law.posterior(x_t, alpha, sigma)
        assert_close(post.log_prob(grid).exp(), p, rtol=1e-6, atol=1e-9)
        mean = (p[:, None] * grid).sum(0) * 0.05**2
        assert_close(post.mean()[0], mean, rtol=0, atol=1e-8)
        assert_close(law.denoise(x_t, alpha, sigma)[0], mean, rtol=0, atol=1e-8)
        delta = grid - mean
        assert_close(post.cov()[0], (p[:, None] * delta).T @ delta * 0.05**2, rtol=0, atol=1e-8)
        assert_close(post.weights.sum(1), torch.ones(1, **F64))


@pytest.mark.parametrize(("alpha", "sigma"), [(0.6, 0.8), (1.0, 2.5), (0.999, 0.01)])
def test_tweedie(device, alpha, sigma):
    law = densities.anisotropic_gaussians()
    x_t = law.noised(alpha, sigma).sample(30, device=device, **F64)
    score = law.noised(alpha, sigma).score(x_t)
    assert_close(alpha * law.denoise(x_t, alpha, sigma), x_t + sigma**2 * score)
    got = torch.func.grad(lambda x: law.noised(alpha, sigma).log_prob(x).sum())(x_t)
    assert_close(got, score)


def test_a_time_for_each_row_is_the_same_as_row_by_row(device):
    law = densities.eight_gaussians()
    x_t, alpha = torch.randn(4, 2, **F64).to(device), torch.rand(4, **F64).to(device)
    sigma = (1 - alpha**2).sqrt()
    got = law.posterior(x_t, alpha, sigma)
    for i in range(4):
        one = law.posterior(x_t[i : i + 1], alpha[i].item(), sigma[i].item())
        assert_close((got.means[i], got.covs[i]), (one.means[0], one.covs[0]))
        assert_close(got.log_prob(x_t)[i], one.log_prob(x_t[i : i + 1])[0])


def test_posterior_samples_have_its_moments():
    law, n = densities.anisotropic_gaussians(), 20_000
    post = law.posterior(torch.tensor([[0.4, 0.3]], **F64).expand(n, 2), 0.7, 1.1)
    x = post.sample(torch.Generator().manual_seed(0))
    assert ((x.mean(0) - post.mean()[0]).abs() < 4 * x.std(0) / n**0.5).all()
    assert_close(torch.cov(x.T), post.cov()[0], rtol=0.05, atol=0.02)
    nll = -post.log_prob(x)
    exact = GaussianMixture(post.weights[0], post.means[0], post.covs[0]).entropy()
    assert abs(nll.mean() - exact) < 4 * nll.std() / n**0.5


# Mixtures


def test_mixture_is_the_sum_of_its_components_and_knows_them(device):
    law = densities.anisotropic_gaussians()
    x = torch.randn(20, 2, **F64).to(device)
    parts = torch.stack([law.component(k).log_prob(x).exp() for k in range(3)], 1)
    joint = law.weights.to(device) * parts
    assert_close(law.log_prob(x).exp(), joint.sum(1))
    assert_close(law.responsibilities(x), joint / joint.sum(1, keepdim=True))
    normal = torch.distributions.MultivariateNormal(law.means[1], law.covs[1])
    assert_close(parts[:, 1].cpu(), normal.log_prob(x.cpu()).exp())
    x, k = law.sample_labelled(4000, torch.Generator(device).manual_seed(0), **F64)
    assert torch.equal(x, law.sample(4000, torch.Generator(device).manual_seed(0), **F64))
    assert_close(k.bincount().double().cpu() / 4000, law.weights, rtol=0, atol=0.03)
    for i in range(3):
        assert_close(x[k == i].mean(0).cpu(), law.means[i], rtol=0, atol=0.15)


def test_mixture_in_three_dimensions():
    """In 2-D a matrix of eigenvectors may be its own transpose, and hide one that is missing."""
    a = torch.randn(2, 3, 3, **F64)
    law = GaussianMixture([0.3, 0.7], torch.randn(2, 3, **F64), a @ a.mT + 0.2 * torch.eye(3))
    assert_close(law.covs, a @ a.mT + 0.2 * torch.eye(3))
    assert (law.axes - law.axes.mT).abs().amax((1, 2)).min() > 0.1
    x = law.sample(20_000, **F64)
    parts = torch.distributions.MultivariateNormal(law.means, law.covs)
    truth = (law.weights.log() + parts.log_prob(x[:9, None])).logsumexp(1)
    assert_close(law.log_prob(x[:9]), truth)
    assert_close(law.score(x[:9]), densities.Density.score(law, x[:9]))
    assert_close(torch.cov(x.T), law.moments()[1], rtol=0.05, atol=0.1)

    x_t, alpha, sigma, eye = x[:9], 0.7, 0.8, torch.eye(3, **F64)
    post = law.posterior(x_t, alpha, sigma)
    for k in range(2):  # conditioning a joint Gaussian
        m, c = law.means[k], law.covs[k]
        gain = alpha * c @ torch.linalg.inv(alpha**2 * c + sigma**2 * eye)
        assert_close(post.means[:, k], m + (x_t - alpha * m) @ gain.T)
        assert_close(post.covs[:, k], (c - alpha * gain @ c).expand(9, 3, 3))
    parts = torch.distributions.MultivariateNormal(post.means, post.covs)
    truth = (post.log_weights + parts.log_prob(x_t[:, None])).logsumexp(1)
    assert_close(post.log_prob(x_t), truth)
    post = law.posterior(x_t[:1].expand(20_000, 3), alpha, sigma)
    assert_close(torch.cov(post.sample().T), post.cov()[0], rtol=0.05, atol=0.03)


def test_mixture_in_other_dimensions():
    law = GaussianMixture([0.3, 0.7], [[-1.0], [2.0]], [[[0.25]], [[1.44]]])
    x = torch.linspace(-9, 11, 2001, **F64)[:, None]
    assert (law.log_prob(x).exp().sum() * 0.01).item() == pytest.approx(1, abs=1e-9)
    law = GaussianMixture([1.0], torch.zeros(1, 5), 2 * torch.eye(5))
    assert law.sample(3).shape == (3, 5)
    assert law.log_prob(torch.zeros(1, 5, **F64)).item() == pytest.approx(
        -2.5 * math.log(4 * math.pi)
    )
    with pytest.raises(ValueError, match="5 dimensions"):
        law.entropy()


def test_far_away_nothing_overflows(laws):
    for name in (*MIXTURES, "moons", "circles", "rings", "swissroll", "spirals"):
        x = torch.tensor([[40.0, -30.0], [0.0, 0.0]])
        assert laws[name].log_prob(x).isfinite().all(), name
        assert laws[name].score(x).isfinite().all(), name


@pytest.mark.parametrize("name", MIXTURES)
def test_far_away_vmap_gives_what_a_batch_gives(laws, name):
    """Where every square overflows: under vmap nobody knows whether there is such a row."""
    law, x = laws[name], torch.tensor([[1e25, -3e24], [0.3, -0.2]])
    for method in (law.score, law.responsibilities, lambda x: law.denoise(x, 0.8, 0.6)):
        want = method(x)
        assert want.isfinite().all()
        assert_close(torch.vmap(lambda row, f=method: f(row[None])[0])(x), want)


def test_grid_is_laid_out_for_plots(laws):
    law = laws["moons"]
    grid = law.grid(120, dtype=torch.float64)
    x, y = grid.axes
    p = law.log_prob(grid.points).exp().reshape(len(y), len(x))
    assert_close(p[7, 90], law.log_prob(torch.stack([x[90], y[7]])[None]).exp()[0])
    assert (p.sum() * grid.cell).item() == pytest.approx(1, abs=2e-3)


def test_grid_has_the_precision_asked_for(laws):
    """Whichever it is: the points are computed in float64."""
    for asked, want in ((None, torch.get_default_dtype()), (torch.float64, torch.float64)):
        grid = laws["moons"].grid(3, dtype=asked)
        assert {part.dtype for part in (grid.points, *grid.axes)} == {want}


# Mistakes


@pytest.mark.parametrize("name", ALL)
def test_wrong_input_is_explained(laws, name):
    law = laws[name]
    for method in (law.log_prob, law.score):
        with pytest.raises(ValueError, match=r"x must have shape \(B, 2\), not \(2,\)"):
            method(torch.zeros(2))
        with pytest.raises(ValueError, match=r"not \(4, 3\)"):
            method(torch.zeros(4, 3))
        with pytest.raises(TypeError, match="floating point"):
            method(torch.zeros(4, 2, dtype=torch.int64))
        with pytest.raises(TypeError, match="not ndarray"):
            method(torch.zeros(4, 2).numpy())
    with pytest.raises(ValueError, match="n must be at least 1"):
        law.sample(0)
    with pytest.raises(TypeError, match="dtype must be floating point"):
        law.sample(2, dtype=torch.int64)
    nan = law.log_prob(torch.tensor([[math.nan, 0.0], [0.1, 0.2]]))
    assert nan[0].isnan()
    assert torch.equal(nan[1:], law.log_prob(torch.tensor([[0.1, 0.2]])))


@pytest.mark.parametrize(
    ("weights", "means", "covs", "message"),
    [
        ([0.5, 0.6], torch.zeros(2, 2), torch.eye(2), "sum to one"),
        ([1.5, -0.5], torch.zeros(2, 2), torch.eye(2), "positive"),
        ([1.0], torch.zeros(2, 2), torch.eye(2), r"weights must have shape \(2,\)"),
        ([1.0], torch.zeros(2), torch.eye(2), r"means must have shape \(K, D\)"),
        ([1.0], torch.zeros(1, 2), torch.eye(3), r"covs must have shape \(1, 2, 2\)"),
        ([1.0], torch.zeros(1, 2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        ([1.0], torch.zeros(1, 2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
    ],
)
def test_wrong_mixture_is_explained(weights, means, covs, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(weights, means, covs)


def test_other_mistakes_are_explained(laws):
    law, x = laws["anisotropic_gaussians"], torch.zeros(4, 2)
    with pytest.raises(ValueError, match="alpha must be a number or one for each of the 4 rows"):
        law.denoise(x, torch.ones(3), 0.5)
    with pytest.raises(ValueError, match="alpha must be a number, not a tensor"):
        law.noised(torch.ones(3), 0.5)
    with pytest.raises(ValueError, match=r"k must be in 0 .. 2, not 3"):
        law.component(3)
    with pytest.raises(NotImplementedError, match="jumps.*noised"):
        laws["checkerboard"].expectation(lambda x, log_p: x)
    with pytest.raises(ValueError, match="sigma must be above zero"):
        laws["checkerboard"].noised(0.9, 0.0)
    with pytest.raises(ValueError, match="a curve alone"):
        densities.moons(noise=0.0)


@pytest.mark.parametrize("std", [0.1, 0.02])
def test_squares_with_little_noise_keep_their_mass(std):
    """Their edges are as thin as the noise, and the quadrature must not step over them."""
    p = toys.checkerboard().noised(1.0, std)
    mass = p.expectation(lambda x, log_p: torch.ones_like(log_p))
    assert mass.item() == pytest.approx(1, abs=1e-6)
    x = p.sample(20_000, torch.Generator().manual_seed(0))
    log = p.log_prob(x).double()
    assert abs(p.entropy() + log.mean()) < 4 * log.std() / len(x) ** 0.5


@pytest.mark.parametrize("name", ["moons", "swissroll", "spirals"])
@pytest.mark.parametrize("far", [30.0, 300.0, 3000.0])
def test_the_score_in_float32_far_from_the_data(laws, name, far, device):
    x = torch.tensor([[far, 0.0], [0.6 * far, -0.8 * far]], device=device)
    got, want = laws[name].score(x).cpu().double(), laws[name].score(x.cpu().double())
    assert ((got - want).norm(dim=1) < 1e-4 * want.norm(dim=1)).all()


@pytest.mark.parametrize("name", ["rings", "circles"])
def test_the_second_derivative_in_the_middle_of_rings(laws, name, device):
    """At 0 itself, where |x| has no derivative, as beside it."""
    law, at = laws[name], torch.zeros(2, **F64, device=device)
    hessian = torch.func.hessian(lambda x: law.log_prob(x[None])[0])
    assert_close(hessian(at), hessian(at + 1e-6), rtol=1e-3, atol=1e-3)
    assert law.score(at[None]).abs().max() == 0


def test_a_checkerboard_has_no_score_at_nan(laws):
    x = torch.tensor([[math.nan, 0.3], [0.5, 0.5]])
    assert laws["checkerboard"].score(x)[0].isnan().all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_precision_asked_for(laws, name, dtype):
    old = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype == torch.float32 else torch.float32)
    try:
        assert laws[name].sample(3, dtype=dtype).dtype == dtype
    finally:
        torch.set_default_dtype(old)


def test_the_pinwheels_blades_are_exact_in_float64(laws):
    """Turned back by a blade's angle, a sample lies on another's place to the last digits."""
    x = laws["pinwheel"].sample(2000, torch.Generator().manual_seed(0), **F64)
    again = torch.Generator().manual_seed(0)
    f = torch.randn(2000, generator=again, **F64), torch.randn(2000, generator=again, **F64)
    blade = torch.ones(5).multinomial(2000, replacement=True, generator=again).double()
    turn = 2 * math.pi / 5 * blade + 0.25 * (1 + 0.3 * f[0]).exp()
    radius, angle = torch.hypot(1 + 0.3 * f[0], 0.1 * f[1]), torch.atan2(0.1 * f[1], 1 + 0.3 * f[0])
    want = 2 * radius[:, None] * torch.stack([(turn - angle).cos(), -(angle - turn).sin()], 1)
    assert_close(x[:, 0], want[:, 0], rtol=0, atol=1e-12)
    assert_close(x.norm(dim=1), 2 * radius, rtol=1e-12, atol=1e-12)


def test_each_elongated_component_lies_along_its_own_angle():
    covs = densities.anisotropic_gaussians().covs
    for cov, angle, (long, short) in zip(
        covs, (0.4, 1.3, 2.5), ((1.1, 0.25), (0.7, 0.3), (0.9, 0.2)), strict=True
    ):
        along, across = torch.tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        ).to(cov)
        assert_close(cov @ along, long**2 * along, rtol=1e-6, atol=1e-7)
        assert_close(cov @ across, short**2 * across, rtol=1e-6, atol=1e-7)
