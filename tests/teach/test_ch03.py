"""Chapter 3's checkers: right answers pass, known wrong ones get the hint that helps; the figures are true."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from lib import weights
from lib.teach.figures import ch03
from lib.vae.elbo import importance_bound
from lib.vae.likelihoods import DiscretisedLogistic
from lib.vae.sweep import BETAS, Sweep, beta_sweep, plane_model
from tests.teach.answers import Answers

LOG2 = math.log(2)


def by_autograd(f, m, log_s, eps, draw=lambda m, log_s, eps: m + log_s.exp() * eps):
    m, log_s = m.detach().requires_grad_(), log_s.detach().requires_grad_()
    return torch.autograd.grad(f(draw(m, log_s, eps)).mean(), (m, log_s))


def by_hand(f, m, log_s, eps, second=lambda slope, s, eps: slope * s * eps, reduce=torch.mean):
    z = (m + log_s.exp() * eps).requires_grad_()
    (slope,) = torch.autograd.grad(f(z).sum(), z)
    return reduce(slope), reduce(second(slope, log_s.exp(), eps))


def by_score(f, m, log_s, eps):
    value = f(m + log_s.exp() * eps)
    return (value * eps / log_s.exp()).mean(), (value * (eps**2 - 1)).mean()


def with_draw(draw):
    return lambda f, m, log_s, eps: by_autograd(f, m, log_s, eps, draw)


def parts(k, mean, scale):
    return (k - 0.5 - mean) / scale, (k + 0.5 - mean) / scale


def log_bin(k, mean, scale, n):
    low, high = parts(k, mean, scale)
    below, above = F.logsigmoid(high), F.logsigmoid(-low)
    inside = below + above + torch.log(-torch.expm1(low - high))
    return torch.where(k == 0, below, torch.where(k == n - 1, above, inside))


def naive_edges(k, mean, scale, n):
    """Right within, and by way of probabilities in the first and the last bin."""
    edge = (k == 0) | (k == n - 1)
    return torch.where(edge, naive_bin(k, mean, scale, n), log_bin(k, mean, scale, n))


def naive_bin(k, mean, scale, n, first=True, last=True):
    low, high = parts(k, mean, scale)
    low, high = low.sigmoid(), high.sigmoid()
    low = torch.where(k == 0, 0.0, low) if first else low
    high = torch.where(k == n - 1, 1.0, high) if last else high
    return (high - low).log()


def from_lib(k, mean, scale, n):
    """The library's likelihood, one pixel for each level."""
    k, mean, scale = torch.broadcast_tensors(k, mean, scale)
    family = DiscretisedLogistic(n)
    raw = 7 * torch.atanh((scale.log() - math.log(n / 8)) / 7)
    params = torch.stack([2 * mean / (n - 1) - 1, raw], 1)
    return family.log_prob(k[:, None], params)


def free_bits(recon, kl, free):
    return -recon.mean() + kl.mean(0).clamp(min=free).sum()


def like(x, z, m, log_s, logits):
    return -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(
        -1
    )


def by_probability(x, z, m, log_s, logits):
    p = torch.sigmoid(logits)
    return (x * p.log() + (1 - x) * (1 - p).log()).nan_to_num(0).sum(-1)


def by_halves(x, z, m, log_s, logits):
    """Safe for a logit far above 0, and by way of exp(-logit) for one far below."""
    return ((x - 1) * logits - torch.log1p(torch.exp(-logits))).sum(-1)


def prior(x, z, m, log_s, logits):
    return Normal(0.0, 1.0).log_prob(z).sum(-1)


def posterior(x, z, m, log_s, logits):
    return Normal(m, log_s.exp()).log_prob(z).sum(-1)


def divergence(x, z, m, log_s, logits):
    return kl_divergence(Normal(m, log_s.exp()), Normal(0.0, 1.0)).sum(-1)


def with_distributions(*args):
    return like(*args) + prior(*args) - posterior(*args)


def log_weights(x, z, m, log_s, logits):
    from_prior = -(z**2) / 2
    from_q = -(((z - m) / log_s.exp()) ** 2) / 2 - log_s
    return (x * logits - F.softplus(logits)).sum(-1) + (from_prior - from_q).sum(-1)


RIGHT = {
    "3.1": [0.25 + LOG2, 0.943, torch.tensor(0.9431)],
    "3.2": [(-80 / 64 + math.log(17)) / LOG2, 2.284],
    "3.3": [by_autograd, by_hand],
    "3.4": [log_bin, from_lib],
    "3.5": [log_weights, with_distributions],
    "3.6": [
        free_bits,
        lambda r, kl, f: -(r.mean() - kl.mean(0).sum() - (f - kl.mean(0)).relu().sum()),
    ],
}
WRONG = {
    "3.1": [
        (0.375 + 0.5 * LOG2, "variances"),
        (1.25 + LOG2, "-1/2 of each dimension"),
        (1.3606, "in bits"),
        (3.625 - LOG2, "other direction"),
        (0.25 - LOG2, "sign of the logarithm"),
        (LOG2 - 0.375, "means are missing"),
        (0.125 + LOG2, "first dimension alone"),
        (7, "not yet"),
        ("one", "a number or a tensor was expected"),
    ],
    "3.2": [
        (-1.25 + math.log(17), "nats per dimension"),
        (-1.25 / LOG2, "cells are missing"),
        (-1.25 / LOG2 + 4, "17 levels"),
        ((1.25 + math.log(17)) / LOG2, "subtracted"),
        ((-80 + 64 * math.log(17)) / LOG2, "whole image"),
        ((-80 + math.log(17)) / 64 / LOG2, "not to the image"),
        (3, "not yet"),
        ([1, 2], "shape"),
    ],
    "3.3": [
        (lambda *a: by_hand(*a, second=lambda slope, s, eps: slope * eps), "one more factor s"),
        (by_score, "score-function"),
        (lambda *a: by_hand(*a, reduce=torch.sum), "sum over the draws"),
        (lambda *a: by_hand(*a, reduce=lambda v: v), "each draw"),
        (with_draw(lambda m, r, eps: m + r * eps), "exp(log_s) eps"),
        (with_draw(lambda m, r, eps: m + (2 * r).exp() * eps), "is the variance"),
        (with_draw(lambda m, r, eps: m + (r / 2).exp() * eps), "not of the variance"),
        (lambda *a: by_hand(*a, second=lambda slope, s, eps: slope * s), "inside the mean"),
        (lambda *a: by_hand(*a)[::-1], "exchanged"),
        (lambda *a: by_hand(*a)[0], "a pair"),
        (lambda *a: (by_hand(*a)[0], None), "not there"),
        (lambda *a: (1.0, 2.0), "slope of f"),
        (with_draw(lambda m, r, eps: (m + r.exp() * eps).detach()), "raised"),
    ],
    "3.4": [
        (lambda *a: log_bin(*a).exp(), "logarithm was asked"),
        (lambda *a: naive_bin(*a, first=False, last=False), "edges are missing"),
        (lambda *a: naive_bin(*a, last=False), "the last bin reaches"),
        (lambda *a: naive_bin(*a, first=False), "the first bin reaches"),
        (
            lambda k, m, s, n: F.logsigmoid((k - m) / s) + F.logsigmoid((m - k) / s) - s.log(),
            "integral over the bin",
        ),
        (lambda k, m, s, n: log_bin(k, m - 0.5, s, n), "also at the edges"),
        (naive_bin, "round to the same"),
        (naive_edges, "round to the same"),
        (lambda k, m, s, n: k * 0, "not yet"),
    ],
    "3.5": [
        (lambda *a: log_weights(*a) - prior(*a), "prior log p(z) is missing"),
        (lambda *a: log_weights(*a) + posterior(*a), "posterior is missing"),
        (lambda *a: like(*a) - divergence(*a), "belongs to its own z"),
        (lambda *a: like(*a) - prior(*a) + posterior(*a), "changed places"),
        (lambda x, z, m, log_s, lo: log_weights(x, z, m, log_s / 2, lo), "not of the variance"),
        (lambda x, z, m, log_s, lo: log_weights(x, z, m, log_s, lo) - log_s.sum(-1), "missing in"),
        (lambda x, z, m, log_s, lo: log_weights(x, z, m, log_s, lo) - 2 * log_s.sum(-1), "narrow"),
        (lambda *a: log_weights(*a) + math.log(2 * math.pi), "the prior has a normaliser"),
        (lambda *a: log_weights(*a) - math.log(2 * math.pi), "the posterior has a normaliser"),
        (lambda *a: like(*a) / a[0].shape[1] + prior(*a) - posterior(*a), "do not average"),
        (lambda *a: prior(*a) - posterior(*a) - like(*a), "sign of the cross entropy"),
        (lambda *a: log_weights(*a).mean(0), "no mean over the draws"),
        (lambda *a: importance_bound(log_weights(*a)), "the bound already"),
        (lambda *a: log_weights(*a).exp(), "their logarithms were asked"),
        (lambda *a: prior(*a) - posterior(*a) + by_probability(*a), "work with the logits"),
        (lambda *a: log_weights(*a) - like(*a) + by_halves(*a), "work with the logits"),
    ],
    "3.6": [
        (lambda r, kl, f: -r.mean() + kl.clamp(min=f).mean(0).sum(), "after the mean"),
        (lambda r, kl, f: -r + kl.clamp(min=f).sum(1), "one number"),
        (lambda r, kl, f: -r.mean() + kl.mean(0).sum().clamp(min=f), "before the sum"),
        (lambda r, kl, f: (-r + kl.sum(1).clamp(min=f)).mean(), "before the sum"),
        (lambda r, kl, f: -r.mean() + kl.mean(0).clamp(max=f).sum(), "minimum"),
        (lambda r, kl, f: -r.mean() + kl.mean(0).sum(), "do not count"),
        (lambda *a: -free_bits(*a), "the loss is minus"),
        (lambda r, kl, f: -r.mean() - kl.mean(0).clamp(min=f).sum(), "it is a cost"),
        (lambda r, kl, f: -r.mean() + kl.mean(0).clamp(min=f).mean(), "do not average"),
        (lambda r, kl, f: -r.mean() + (kl.mean(0) - f).relu().sum(), "the excess"),
        (lambda r, kl, f: -r.mean() + sum(max(f, m.item()) for m in kl.mean(0)), "no gradient"),
        (lambda r, kl, f: free_bits(r, kl.detach(), f), "no gradient"),
    ],
}


class TestAnswers(Answers):
    CHAPTER, RIGHT, WRONG = 3, RIGHT, WRONG
    PLAIN = ("3.1", "3.2")


# ---------------------------------------------------------------- the figures tell the truth


def test_the_plane_decodes_as_the_stored_model_does():
    model = plane_model()
    weights.load("digits_plane", model)
    z = torch.tensor([[0.35, -1.2], [-3.5, 3.5], [1.9, 0.4]])
    want = model.likelihood.mean(model.decode(z))[:, 0].detach().double().numpy()
    for row, picture in zip(z.tolist(), want, strict=True):
        np.testing.assert_allclose(ch03.decode(*row), picture, atol=1e-3)


def test_the_plane_marks_posterior_means_beside_their_own_class():
    figure = ch03.latent_plane()
    _, means, labels = ch03._plane()
    for (x, y), label in list(zip(means, labels, strict=True))[:20]:
        read = figure.scene(z1=x, z2=y).readouts
        assert read["nearest test digit"] == f"a {label}" and read["its distance"] == "0.000"


def test_the_sweep_is_what_its_card_says():
    sweep, card = Sweep(), weights.card("digits_beta")
    weights.load("digits_beta", sweep)
    for name in ("betas", "rate", "distortion", "elbo", "active"):
        got = getattr(sweep, name).double()
        torch.testing.assert_close(got, torch.tensor(card["metrics"][name]).double(), atol=1e-3, rtol=0)  # fmt: skip
    assert sweep.betas.tolist() == list(BETAS)
    assert (sweep.rate.diff() < 0).all() and sweep.rate[-1] < 0.1  # the last one has collapsed
    best = sweep.betas[sweep.elbo.argmax()].item()
    assert 0.5 <= best <= 2


def test_a_sweep_repeats_itself_and_refuses_nonsense():
    a, b = (beta_sweep((0.5, 4.0), steps=20, latent=3) for _ in range(2))
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name
    assert a.rate[0] > a.rate[1] > 0
    for betas in ((), (-1.0,), (math.nan,)):
        with pytest.raises(ValueError, match="betas are numbers"):
            beta_sweep(betas)
