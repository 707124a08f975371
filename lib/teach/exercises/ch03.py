"""Checkers of chapter 3, "Variational autoencoders". Each names the mistake that it recognises."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..exercise import TYPED, Hint, call, close, exercise, known, number, require

F64 = torch.float64
_known = partial(known, rtol=1e-5)


@exercise("3.1")
def kl_by_hand(answer: Any) -> None:
    """KL(N((1, -1/2), diag(1/2, 1)^2) || N(0, I)), accepted to three digits."""
    got = number(answer)
    right, log2 = 0.25 + math.log(2), math.log(2)
    _known(
        got,
        {
            "1/2 and 1 are standard deviations; you used them as variances": 0.375 + 0.5 * log2,
            "the -1/2 of each dimension is missing: the prior's divergence from itself must be 0": right
            + 1,
            "that is in bits; nats were asked for": right / log2,
            "that is KL(prior || q), the other direction: the first argument is averaged over": 3.625
            - log2,
            "the sign of the logarithm: a narrow q costs, so -ln(1/2) is added": 0.25 - log2,
            "the means are missing: they count, squared and halved": -0.375 + log2,
            "that is the first dimension alone; the divergences of both add up": 0.125 + log2,
        },
        rtol=TYPED,
    )
    close(got, right, "not yet: compute each dimension's (s^2 + m^2 - 1)/2 - ln s", rtol=1e-3)


@exercise("3.2")
def bits(answer: Any) -> None:
    """(-80 / 64 + ln 17) / ln 2, accepted to four digits."""
    got, log2 = number(answer), math.log(2)
    _known(
        got,
        {
            "those are nats per dimension; divide by ln 2": -1.25 + math.log(17),
            "the cells are missing: each dimension adds ln 17 nats": -1.25 / log2,
            "there are 17 levels, 0 to 16, not 16": (-1.25 + math.log(16)) / log2,
            "the sign: the negative log-likelihood is -80, so it is subtracted": (
                1.25 + math.log(17)
            )
            / log2,
            "those are bits for the whole image; divide by 64": (-80 + 64 * math.log(17)) / log2,
            "ln 17 belongs to each of the 64 dimensions, not to the image": (-80 + math.log(17))
            / 64
            / log2,
        },
        rtol=TYPED,
    )
    right = (-1.25 + math.log(17)) / log2
    hint = "not yet: add 64 ln 17, divide by 64, then by ln 2"
    close(got, right, hint, rtol=2.5e-4)  # four digits


@exercise("3.3")
def reparameterised(answer: Any) -> None:
    """On f(z) = sin(z) + z^2 / 5 and draws that are neither centred nor of unit size."""
    eps = torch.tensor([0.3, -1.2, 0.8, 2.1, -0.4], dtype=F64)
    m, log_s = torch.tensor(0.7, dtype=F64), torch.tensor(-0.5, dtype=F64)
    got = call(answer, lambda z: torch.sin(z) + z**2 / 5, m, log_s, eps)
    require(isinstance(got, tuple | list) and len(got) == 2, "return a pair: d/dm and d/d log s")
    if any(g is None or g is ... for g in got):
        raise Hint("no answer yet: one of the two gradients is not there")
    got = tuple(number(g) for g in got)
    require(
        not any(g.numel() == len(eps) for g in got),
        "that is one gradient for each draw: average over the draws",
    )
    got = torch.stack([g.reshape(()) if g.numel() == 1 else g.flatten()[0] * torch.nan for g in got])  # fmt: skip

    def pair(s: Tensor, factor: Tensor | float, n: float = 1.0) -> Tensor:
        slope = torch.cos(m + s * eps) + 0.4 * (m + s * eps)
        return torch.stack([slope.mean(), (slope * factor * eps).mean()]) * n

    s, z = log_s.exp(), m + log_s.exp() * eps
    f = torch.sin(z) + z**2 / 5
    score = torch.stack([(f * eps / s).mean(), (f * (eps**2 - 1)).mean()])
    _known(
        got,
        {
            "the second one is the derivative in s; in log s there is one more factor s": pair(
                s, 1
            ),
            "that is the score-function gradient: unbiased too, but the reparameterised one was asked "
            "for, which uses the slope of f": score,
            "that is the sum over the draws; the mean was asked for": pair(s, s, len(eps)),
            "log_s is the logarithm of the standard deviation: z = m + exp(log_s) eps": pair(
                log_s, 1
            ),
            "exp(2 log_s) is the variance; the draws are scaled by the standard deviation": pair(
                s**2, 2 * s**2
            ),
            "log_s is the logarithm of the standard deviation, not of the variance": pair(
                s**0.5, 0.5 * s**0.5
            ),
            "the second gradient is the first one times s; the draw eps is a factor inside the mean": torch.stack(
                [pair(s, s)[0], pair(s, s)[0] * s]
            ),
            "the two are exchanged: first d/dm, then d/d log s": pair(s, s).flip(0),
        },
    )
    close(got, pair(s, s), "z = m + exp(log_s) eps; what is the slope of f(z) in m, and in log_s?")


@exercise("3.4")
def one_bin(answer: Any) -> None:
    """All levels of a small family; then a level 100 scales from the mean, in float32."""
    n, k = 6, torch.arange(6, dtype=F64)
    mean, scale = torch.tensor(2.3, dtype=F64), torch.tensor(0.9, dtype=F64)
    got = number(call(answer, k, mean, scale, n))
    a, b = (k - 0.5 - mean) / scale, (k + 0.5 - mean) / scale
    inside = (b.sigmoid() - a.sigmoid()).log()
    first, last = F.logsigmoid(b), F.logsigmoid(-a)
    want = torch.where(k == 0, first, torch.where(k == n - 1, last, inside))
    only = lambda at, edge: torch.where(k == at, edge, inside)  # noqa: E731
    centre = (k - mean) / scale
    density = F.logsigmoid(centre) + F.logsigmoid(-centre) - scale.log()
    off = lambda x: F.logsigmoid((x - mean) / scale)  # noqa: E731
    shifted = ((off(k + 1)).exp() - off(k).exp()).log()
    _known(
        got,
        {
            "that is the probability; its logarithm was asked for": want.exp(),
            "the edges are missing: the first bin reaches to -infinity and the last to +infinity, or "
            "the probabilities do not sum to 1": inside,
            "the last bin reaches to +infinity": only(0, first),
            "the first bin reaches to -infinity": only(n - 1, last),
            "that is the log-density at the level; the probability is its integral over the bin": density,
            "the edges are exchanged: the first bin has sigmoid(b), the last 1 - sigmoid(a)": torch.where(
                k == 0, last, torch.where(k == n - 1, first, inside)
            ),
            "level k is in the middle of its bin: from k - 1/2 to k + 1/2": shifted,
            "level k is in the middle of its bin, from k - 1/2 to k + 1/2, also at the edges": torch.where(
                k == 0, off(k + 1), torch.where(k == n - 1, (1 - off(k).exp()).log(), shifted)
            ),
        },
    )
    close(
        got, want, "not yet: log of sigmoid(b) - sigmoid(a), except in the first and the last bin"
    )
    far, centre = torch.tensor([120.0, 2, 0, 255]), torch.tensor([20.0, 102, 100, 155])
    got = number(call(answer, far, centre, torch.ones(4), 256))
    inner = math.log(-math.expm1(-1))  # what an inner bin lacks to its edge's tail
    close(got, torch.tensor([inner, inner, 0, 0], dtype=F64) - 99.5,
          "right near the mean, and not 100 scales away in float32: both sigmoids round to the same "
          "number; add logarithms instead", rtol=1e-4)  # fmt: skip


@exercise("3.5")
def log_weights(answer: Any) -> None:
    """Three draws for two images of four pixels, two latents; then a logit of 200 at a black pixel."""
    x = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 1]], dtype=F64)
    m = torch.tensor([[0.3, -1.1], [0.8, 0.2]], dtype=F64)
    log_s = torch.tensor([[-0.7, 0.2], [0.1, -1.3]], dtype=F64)
    eps = torch.tensor([[[0.4, -0.9], [1.3, 0.6]], [[-1.2, 0.1], [0.3, -0.5]], [[0.8, 1.7], [-0.6, 0.2]]], dtype=F64)  # fmt: skip
    z, logits = m + log_s.exp() * eps, 1.5 * torch.cos(torch.arange(24.0, dtype=F64).view(3, 2, 4))
    got = number(call(answer, x, z, m, log_s, logits))

    def log_normal(value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        return (-0.5 * ((value - mean) / log_scale.exp()) ** 2 - log_scale - 0.5 * math.log(2 * math.pi))  # fmt: skip

    pixels = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
    prior, q, like = log_normal(z, 0 * m, 0 * m).sum(-1), log_normal(z, m, log_s).sum(-1), pixels.sum(-1)  # fmt: skip
    want, kl = like + prior - q, ((2 * log_s).exp() + m**2 - 1 - 2 * log_s).sum(-1) / 2
    _known(
        got,
        {
            "the prior log p(z) is missing: w = p(x | z) p(z) / q(z | x)": like - q,
            "the posterior is missing: each draw is divided by the density that it came from": like
            + prior,
            "that is the divergence in closed form, the mean over all z; a weight belongs to its own z": like
            - kl,
            "prior and posterior have changed places": like - prior + q,
            "log_s is the logarithm of the standard deviation, not of the variance": like
            + prior
            - log_normal(z, m, log_s / 2).sum(-1),
            "a narrow q has a high density: -log_s belongs into log q, and it is missing or has the "
            "other sign": like + prior - q - 2 * log_s.sum(-1),
            "the normalisation of q: -log_s is missing in log q": like + prior - q - log_s.sum(-1),
            "the prior has a normaliser too: -log(2 pi)/2 for each dimension, or leave it out of both": want
            + math.log(2 * math.pi),
            "the posterior has a normaliser too: -log(2 pi)/2 for each dimension, or leave it out of both": want
            - math.log(2 * math.pi),
            "the pixels of an image are independent: add their logarithms, do not average": pixels.mean(
                -1
            )
            + prior
            - q,
            "the sign of the cross entropy: it is minus log p(x | z)": prior - q - like,
            "one number for each draw and image, shape (K, B): no mean over the draws": want.mean(
                0
            ),
            "that is the bound already; its weights were asked for, shape (K, B)": torch.logsumexp(
                want, 0
            )
            - math.log(3),
            "those are the weights; their logarithms were asked for": want.exp(),
        },
    )
    close(got, want, "log p(x | z) + log p(z) - log q(z | x), each summed over its own dimensions")
    sure = torch.tensor([200.0, 200, -200, -200]).view(1, 4, 1)
    x, none = torch.tensor([[0.0], [1], [0], [1]]), torch.zeros(4, 1)
    got = number(call(answer, x, none[None], none, none, sure))
    close(got, torch.tensor([[-200.0, 0, 0, -200]]),
          "right for moderate logits, but sigmoid(200) is 1, and the logarithm of 1 - 1 is not -200: "
          "work with the logits", rtol=1e-5)  # fmt: skip


@exercise("3.6")
def free_bits(answer: Any) -> None:
    """Dimension 1 is below the free nats on average, dimension 0 above; examples lie on both sides."""
    recon = torch.tensor([-3.0, -4.5, -2.2], dtype=F64)
    kl = torch.tensor([[0.1, 0.9, 0.02], [1.3, 0.1, 0.4], [0.9, 0.1, 0.3]], dtype=F64)
    got, m = number(call(answer, recon, kl, 0.5)), kl.mean(0)
    want = -recon.mean() + m.clamp(min=0.5).sum()
    each = -recon.mean() + kl.clamp(min=0.5).mean(0).sum()
    per = -recon + kl.clamp(min=0.5).sum(1)
    averaged = -recon.mean() + m.clamp(min=0.5).mean()
    _known(got, {"sum over the latent dimensions, do not average": averaged})
    once = number(call(answer, recon, kl, 2.0))  # more than all dimensions use together
    _known(
        once,
        {
            "each dimension has its own free nats: the maximum comes before the sum": 2.0
            - recon.mean(),
            "each dimension has its own free nats, on average over the batch: the maximum comes after "
            "the mean and before the sum": -recon.mean() + kl.sum(1).clamp(min=2.0).mean(),
        },
    )
    _known(
        got,
        {
            "the maximum comes after the mean over the batch: now each example is pushed to use "
            "`free` nats": each,
            "the maximum comes after the mean over the batch, and the loss is one number": per,
            "a minimum caps what a dimension may cost; the maximum is what makes the first nats free": -recon.mean()
            + m.clamp(max=0.5).sum(),
            "the free nats do not count: that is the plain bound": -recon.mean() + m.sum(),
            "the sign: that is the objective; the loss is minus it": recon.mean()
            - m.clamp(min=0.5).sum(),
            "the divergence has the wrong sign: it is a cost": -recon.mean()
            - m.clamp(min=0.5).sum(),
            "that differs by a constant, free times d: the maximum, not the excess over `free`": want
            - 1.5,
        },
    )
    close(
        got, want, "mean over the batch, then the maximum with `free`, then the sum over dimensions"
    )
    kl.requires_grad_()
    loss = call(answer, recon, kl, 0.5)
    hint = (
        "right as a number, but the divergence gets no gradient from it: keep everything in torch"
    )
    require(isinstance(loss, Tensor) and loss.requires_grad, hint)
    (grad,) = torch.autograd.grad(loss, kl)
    close(grad, (m > 0.5).to(F64).expand(3, 3) / 3, hint)
