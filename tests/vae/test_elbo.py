"""Divergences and bounds against closed forms, torch.distributions, Monte Carlo, scikit-learn."""

import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from lib.utils import std_normal_log_prob
from lib.vae import (
    Elbo,
    LinearGaussian,
    draw,
    effective_sample_size,
    elbo_normal,
    importance_bound,
    importance_stderr,
    kl_full,
    kl_normal,
    log_weights,
    normal_log_prob,
)

F64 = torch.float64


def close_to(samples, want):
    """The mean over dim 0 is within 4 standard errors of `want`, and these are small."""
    stderr = samples.std(0) / len(samples) ** 0.5
    assert (stderr < 0.05 * (1 + want.abs())).all()
    assert ((samples.mean(0) - want).abs() < 4 * stderr).all(), (samples.mean(0), want, stderr)


def covariances(B, D, device):
    A = torch.randn(B, D, D, dtype=F64, device=device)
    return A @ A.mT / D + 0.2 * torch.eye(D, dtype=F64, device=device)


def loud_model(device, D=5, d=2, full=True):
    """Every parameter generic, q far from the posterior."""
    model = LinearGaussian(D, d, full=full).to(device, F64)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.6 * torch.randn(p.shape, dtype=F64))
    return model


# densities and divergences


def test_elbo_total():
    assert Elbo(torch.tensor([-3.0]), torch.tensor([1.5])).total.item() == -4.5


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 5, 5), (1, 1), (0, 3)], ids=str)
def test_normal_log_prob(shape, device):
    x, mean, log_std = torch.randn(3, *shape, dtype=F64, device=device)
    want = Normal(mean, log_std.exp()).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(normal_log_prob(x, mean, log_std), want)
    want = Normal(0.3, math.exp(-0.7)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(normal_log_prob(x, 0.3, -0.7), want)


def test_kl_normal(device):
    m1, s1, m2, s2 = torch.randn(4, 6, 3, dtype=F64, device=device)
    q, p = Normal(m1, s1.exp()), Normal(m2, s2.exp())
    want = kl_divergence(q, p).sum(1)
    torch.testing.assert_close(kl_normal(m1, s1, m2, s2), want)
    torch.testing.assert_close(kl_normal(m1, s1), kl_divergence(q, Normal(0.0, 1.0)).sum(1))
    assert (kl_normal(m1, s1, m1, s1) == 0).all()
    m1, s1, m2, s2 = m1 / 3, s1 / 3, m2 / 3, s2 / 3
    x, log_q = draw(m1, s1, 40_000)
    log_p = normal_log_prob(x.flatten(0, 1), m2.repeat(40_000, 1), s2.repeat(40_000, 1)).view(-1, 6)
    close_to(log_q - log_p, kl_normal(m1, s1, m2, s2))


def test_kl_normal_keeps_its_digits_near_zero():
    """r^2 - 1 - 2 log r is about 2 h^2 for log r = h: no noise, no negative number."""
    h = torch.tensor([[1e-2], [1e-3]])
    torch.testing.assert_close(kl_normal(0 * h, h), h[:, 0] ** 2, rtol=2e-2, atol=0)


@pytest.mark.parametrize("D", [1, 2, 6])
def test_kl_full(D, device):
    m1, m2 = torch.randn(2, 4, D, dtype=F64, device=device)
    C1, C2 = covariances(4, D, device), covariances(4, D, device)
    q, p = MultivariateNormal(m1, C1), MultivariateNormal(m2, C2)
    got = kl_full(m1, C1, m2, C2)
    torch.testing.assert_close(got, kl_divergence(q, p))
    torch.testing.assert_close(kl_full(m1[0], C1[0], m2[0], C2[0]), got[0])
    torch.testing.assert_close(kl_full(m1, C1[0], m2[0], C2[0])[0], got[0])  # broadcasts
    torch.testing.assert_close(kl_full(m1[0], C1[0], m2, C2[0])[0], got[0])
    x = q.sample((40_000,))
    close_to(q.log_prob(x) - p.log_prob(x), got)
    std1, std2 = m1.sin().exp(), m2.cos().exp()  # diagonal: the two closed forms agree
    want = kl_normal(m1, std1.log(), m2, std2.log())
    torch.testing.assert_close(
        kl_full(m1, (std1**2).diag_embed(), m2, (std2**2).diag_embed()), want
    )


def test_draw(device):
    mean, log_std = torch.randn(2, 3, 2, dtype=F64, device=device)
    z, log_q = draw(mean, log_std, 5)
    torch.testing.assert_close(log_q, Normal(mean, log_std.exp()).log_prob(z).sum(-1))
    noise = torch.randn(5, 3, 2, dtype=F64, device=device)
    torch.testing.assert_close(draw(mean, log_std, 5, noise)[0], mean + log_std.exp() * noise)


# the bound


def test_bound_is_tight_at_the_posterior_and_below_elsewhere(device):
    model, x = loud_model(device), torch.randn(7, 5, dtype=F64, device=device)
    log_p = model.log_prob(x)
    gap = log_p - model.elbo(x).total
    mean, factor = model.q(x)
    posterior_mean, cov = model.posterior(x)
    assert (gap > 0.01).all()
    torch.testing.assert_close(gap, kl_full(mean, factor @ factor.T, posterior_mean, cov))
    model.set_posterior()
    torch.testing.assert_close(model.elbo(x).total, log_p)
    torch.testing.assert_close(-model(x), log_p)
    # and then every weight is p(x), whatever z: zero variance
    torch.testing.assert_close(model.log_weights(x, 3), log_p.expand(3, 7))


def test_closed_form_elbo_against_sampling(device):
    model, x = loud_model(device), torch.randn(3, 5, dtype=F64, device=device)
    close_to(model.log_weights(x, 40_000), model.elbo(x).total)


def test_the_three_forms_are_equal_in_expectation(device):
    model = loud_model(device, full=False)
    x = torch.randn(3, 5, dtype=F64, device=device)
    mean, factor = model.q(x)
    log_std = factor.diagonal().log().expand_as(mean)
    want = model.elbo(x)
    for form in ("kl", "entropy", "joint"):
        many = [
            elbo_normal(x, model.log_likelihood, mean, log_std, 200, form=form) for _ in range(200)
        ]
        close_to(torch.stack([e.recon for e in many]), want.recon)
        close_to(torch.stack([e.total for e in many]), want.total)
        if form == "kl":
            torch.testing.assert_close(many[0].kl, want.kl)
    # on the same noise "joint" is the mean log-weight, and a prior given as a function is the same
    noise = torch.randn(9, *mean.shape, dtype=F64, device=device)
    joint = elbo_normal(
        x,
        model.log_likelihood,
        mean,
        log_std,
        9,
        form="joint",
        noise=noise,
        log_prior=std_normal_log_prob,
    )
    log_w = log_weights(x, model.log_joint, mean, log_std, 9, noise)
    torch.testing.assert_close(joint.total, log_w.mean(0))
    torch.testing.assert_close(log_w, model.log_weights(x, 9, noise))


def test_importance_bound_rises_to_log_p(device):
    """Burda et al. (2016), theorem 1: L_1 <= L_k <= L_m <= log p(x), and L_m -> log p(x)."""
    model, x = loud_model(device, full=False), torch.randn(1, 5, dtype=F64, device=device)
    with torch.no_grad():
        model.log_std.fill_(0.3)  # wide enough that the weights have a variance
        model.A.mul_(0.3)
    log_p = model.log_prob(x)
    log_w = model.log_weights(x, 400_000)[:, 0]
    means, errors = [], []
    for k in (1, 2, 5, 20, 100, 1000):
        bounds = importance_bound(log_w.view(-1, k).T)
        means.append(bounds.mean().item())
        errors.append((bounds.std() / len(bounds) ** 0.5).item())
    for i in range(5):
        assert means[i + 1] > means[i] - 4 * (errors[i] + errors[i + 1])
    assert means[0] < means[2] < means[4]
    assert all(m < log_p.item() + 4 * e for m, e in zip(means, errors, strict=True))
    total = importance_bound(log_w)
    assert abs(total - log_p.item()) < 4 * importance_stderr(log_w) < 0.2


def test_standard_error_and_effective_size(device):
    """On log-normal weights of known spread: sd of the bound, and n / E[w^2] E[w]^-2."""
    n, s = 2000, 0.7
    log_w = s * torch.randn(n, 500, dtype=F64, device=device)
    sd = importance_bound(log_w).std().item()
    assert importance_stderr(log_w).mean().item() == pytest.approx(sd, rel=0.15)
    ess = effective_sample_size(log_w).mean().item()
    assert ess == pytest.approx(n * math.exp(-(s**2)), rel=0.03)
    assert effective_sample_size(torch.zeros(8, 1)).item() == pytest.approx(8)
    assert effective_sample_size(torch.tensor([0.0, -900.0])).item() == pytest.approx(1)
    assert importance_bound(torch.full((4, 2), -2000.0)).tolist() == [-2000.0, -2000.0]


# the linear-Gaussian model


def test_log_prob_and_posterior_by_bayes_rule(device):
    """p(x) from the joint Gaussian, and p(z | x) p(x) = p(x, z) at any z."""
    model, x = loud_model(device), torch.randn(6, 5, dtype=F64, device=device)
    want = MultivariateNormal(model.mu, model.covariance()).log_prob(x)
    torch.testing.assert_close(model.log_prob(x), want)
    mean, cov = model.posterior(x)
    z = torch.randn(6, 2, dtype=F64, device=device)
    bayes = MultivariateNormal(mean, cov).log_prob(z) + model.log_prob(x)
    torch.testing.assert_close(bayes, model.log_joint(x, z))


def test_samples_have_the_models_moments(device):
    model = loud_model(device)
    x = model.sample(200_000)
    torch.testing.assert_close(x.mean(0), model.mu.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), model.covariance().detach(), atol=0.05, rtol=0)
    noise = torch.randn(3, 7, dtype=F64, device=device)
    torch.testing.assert_close(model.sample(3, noise=noise), model.sample(3, noise=noise))


@pytest.mark.parametrize("full", [False, True])
def test_closed_form_fit_is_the_maximum(full, device):
    x = torch.randn(300, 6, dtype=F64, device=device)
    x = x @ torch.randn(6, 6, dtype=F64, device=device) + 3
    model = LinearGaussian(6, 2, full=full).to(device, F64).fit_closed_form(x)
    loss = -model.log_prob(x).mean()
    for gradient in torch.autograd.grad(loss, [model.W, model.mu, model.log_sigma]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)
    score = PCA(2).fit(x.cpu()).score(x.cpu())  # scikit-learn's has the covariance with 1/(N - 1)
    exact = MultivariateNormal(model.mu, model.covariance()).log_prob(x).mean().item()
    assert -loss.item() == pytest.approx(exact) and exact == pytest.approx(score, abs=2e-4)
    assert -loss.item() >= score  # and so it is a little below the maximum
    # q is the posterior at once, so the bound is at its maximum too
    bound = model(x).mean()
    assert bound.item() == pytest.approx(loss.item(), abs=1e-9)
    for gradient in torch.autograd.grad(bound, model.parameters()):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)
    with torch.no_grad():
        for _ in range(20):
            model.W.add_(direction := 0.05 * torch.randn_like(model.W))
            assert -model.log_prob(x).mean() > loss
            model.W.sub_(direction)


def test_training_the_bound_reaches_the_closed_form(device):
    scales = torch.tensor([3.0, 2.0, 0.7, 0.4], device=device)
    mix = torch.linalg.qr(torch.randn(4, 4, device=device)).Q
    x = torch.randn(200, 4, device=device) * scales @ mix + 1
    best = LinearGaussian(4, 2).to(device).fit_closed_form(x)(x).mean().item()
    model = LinearGaussian(4, 2).to(device)  # diagonal q
    opt = torch.optim.Adam(model.parameters(), 0.05)
    for step in range(1000):
        opt.param_groups[0]["lr"] = 0.05 * (1 - step / 1000)
        opt.zero_grad()
        model(x).mean().backward()
        opt.step()
    assert best - 1e-5 < model(x).mean().item() < best + 5e-3


def test_float32_on_digits(device):
    """Always-black pixels make the covariance singular; the model's is not."""
    from sklearn.datasets import load_digits

    x = torch.tensor(load_digits().data, dtype=torch.float32, device=device) / 16
    model = LinearGaussian(64, 10).to(device).fit_closed_form(x)
    precise = LinearGaussian(64, 10).to(device, F64).fit_closed_form(x.double())
    assert model(x).mean().item() == pytest.approx(precise(x.double()).mean().item(), abs=1e-2)


# mistakes


def test_mistakes(device):
    x, model = torch.zeros(4, 3, device=device), LinearGaussian(3, 1).to(device)
    bad = x.clone()
    bad[2, 0] = math.nan
    eye = torch.eye(3, device=device)
    loglik = lambda x, z: std_normal_log_prob(x)
    for run, error, says in [
        (lambda: model.log_prob(bad), ValueError, "1 of 12 values"),
        (lambda: model(x[:, :2]), ValueError, r"expected shape \(B, 3\), got \(4, 2\)"),
        (lambda: model(x.long()), TypeError, "must be floating point"),
        (lambda: model(x.double()), TypeError, "input is torch.float64"),
        (lambda: model(x, x), ValueError, "takes no context"),
        (lambda: model.sample(2, x[:2]), ValueError, "takes no context"),
        (lambda: model.fit_closed_form(x), ValueError, "sigma would be 0"),
        (lambda: model.sample(2, noise=x), ValueError, r"noise must have shape \(2, 4\), got"),
        (lambda: model.sample(4, noise=x), ValueError, r"noise must have shape \(4, 4\), got"),
        (lambda: model.log_weights(x, 2, x[None, :, :1]), ValueError, r"shape \(2, 4, 1\), got"),
        (lambda: model.log_weights(x, 2, x[:2]), ValueError, r"got \(2, 3\)"),
        (lambda: LinearGaussian(3, 3), ValueError, "0 < latent < dim"),
        (lambda: loud_model(device, full=False).set_posterior(), ValueError, "full=True"),
        (lambda: normal_log_prob(x, x[:, :2], 0.0), ValueError, "mean must broadcast"),
        (lambda: normal_log_prob(x[0], x, 0.0), ValueError, "mean must broadcast"),
        (lambda: kl_full(x[0], -eye, x[0], eye), ValueError, "C1 must be symmetric"),
        (lambda: kl_full(x[0], eye, x[0], eye.cumsum(0)), ValueError, "C2 must be symmetric"),
        (lambda: draw(x, x, 2, noise=x), ValueError, "noise must have shape"),
        (lambda: elbo_normal(x, loglik, x, x, form="gap"), ValueError, "form must be"),
        (lambda: elbo_normal(x, loglik, x, x, log_prior=loglik), ValueError, "standard normal"),
        (lambda: elbo_normal(x, lambda x, z: x, x, x), ValueError, "one number per example"),
        (lambda: importance_stderr(torch.zeros(1)), ValueError, "at least 2 weights"),
    ]:
        with pytest.raises(error, match=says):
            run()


def test_data_without_a_direction_have_a_closed_form(device):
    """All eigenvalues are equal, up to rounding: none may come out below their mean."""
    for scale in torch.linspace(0.3, 3.0, 60):
        x = scale.item() * torch.cat([torch.eye(4), -torch.eye(4)]).to(device)
        model = LinearGaussian(4, 1, full=True).to(device).fit_closed_form(x)
        assert all(p.isfinite().all() for p in model.parameters())


def test_a_mean_of_one_number_broadcasts(device):
    eye = torch.eye(3, device=device)
    zero = torch.zeros(1, device=device)
    assert kl_full(zero, eye, torch.zeros(3, device=device), eye).item() == pytest.approx(
        0, abs=1e-6
    )
    assert kl_full(zero + 2, eye, torch.zeros(3, device=device), eye).item() == pytest.approx(6)
