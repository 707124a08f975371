"""Learning a score from samples, four ways, and sampling with it by Langevin dynamics.

The score of a density is grad log p(x). It does not see the normalising constant. The four losses
have the same minimiser (the last one for the density blurred by noise) and take any function
`score(x) -> like x`, module or not, and return one number for each example, (B,).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lib.flows.divergence import draw_probes, exact_divergence, rows
from lib.utils import check_batch, check_count, expand_as_batch, sum_dims

Score = Callable[[Tensor], Tensor]
Noise = Callable[[Tensor], Tensor]


def score_of(log_prob: Callable[[Tensor], Tensor]) -> Score:
    """The score of a log-density (B, ...) -> (B,), up to any constant, by automatic differentiation.

    By `torch.func`, so that it can be differentiated once more, also where gradients are off.

    >>> score_of(lambda x: -0.5 * x.square().sum(1))(torch.tensor([[2.0]]))
    tensor([[-2.]])
    """
    return torch.func.grad(lambda x: log_prob(x).sum())


def explicit_matching(score: Score, target: Score, x: Tensor) -> Tensor:
    """1/2 |s(x) - target(x)|^2, whose mean over the data is half the Fisher divergence: (B,).

    Needs the true score, which is what is missing. Hyvarinen (2005), equation 2.

    >>> explicit_matching(lambda x: -x, lambda x: -2 * x, torch.ones(1, 2))
    tensor([1.])
    """
    check_batch(x, finite=False)
    return 0.5 * sum_dims((score(x) - target(x)).square())


def implicit_matching(score: Score, x: Tensor) -> Tensor:
    """1/2 |s(x)|^2 + tr ds/dx, the same but for a constant, without the true score: (B,).

    One backward pass for each dimension. The density must be positive and smooth, and p s must
    vanish at infinity. Hyvarinen (2005), theorem 1.

    >>> implicit_matching(lambda x: -x, torch.ones(1, 2))
    tensor([-1.])
    """
    check_batch(x, finite=False)
    s, trace = exact_divergence(lambda _, y: score(y), None, x)
    return 0.5 * sum_dims(s.square()) + trace


def sliced_matching(
    score: Score,
    x: Tensor,
    probes: int | Tensor = 1,
    reduced: bool = True,
    kind: str = "rademacher",
) -> Tensor:
    """e' (ds/dx) e + 1/2 (e's)^2 for random directions e with E[ee'] = I: (B,).

    Its mean over e is `implicit_matching`. One backward pass for each direction, whatever D is.
    Song, Garg et al. (2019), section 3, averaged over the directions.

    Args:
        probes: how many directions, or the directions themselves, (P, *x.shape).
        reduced: replace (e's)^2 by its mean |s|^2: less variance, at no cost (their SSM-VR).
        kind: "rademacher" or "gaussian".

    >>> sliced_matching(lambda x: -x, torch.ones(1, 2))
    tensor([-1.])
    """
    check_batch(x, finite=False)
    e = probes if isinstance(probes, Tensor) else draw_probes(x, kind, probes)
    if e.shape[1:] != x.shape:
        raise ValueError(
            f"probes must have shape (P, {', '.join(map(str, x.shape))}), got {tuple(e.shape)}"
        )
    s, eJ = rows(lambda _, y: score(y), None, x, e)
    curvature = (eJ * e).flatten(2).sum(2).mean(0)
    if reduced:
        return curvature + 0.5 * sum_dims(s.square())
    return curvature + 0.5 * (e * s).flatten(2).sum(2).square().mean(0)


def denoising_matching(
    score: Score, x: Tensor, sigma: float | Tensor, noise: Noise = torch.randn_like
) -> Tensor:
    """1/2 |s(x + sigma eps) + eps / sigma|^2: (B,). No derivative of s is needed.

    -eps / sigma is the score of N(x, sigma^2 I) at the noisy point. Its mean over x and eps is
    smallest for the score of the data *blurred* by that noise. Vincent (2011), equation 9.

    Args:
        sigma: standard deviation of the noise, a number or (B,). The loss grows like
            D / (2 sigma^2): multiply by sigma^2 when noise levels are mixed.

    >>> still = lambda x: torch.ones_like(x)
    >>> denoising_matching(lambda x: -x, torch.zeros(1, 2), 2.0, noise=still)
    tensor([2.2500])
    """
    check_batch(x, finite=False)
    sigma = expand_as_batch(sigma, x)
    if not bool((sigma > 0).all()):
        raise ValueError("sigma must be above zero: without noise there is nothing to remove")
    eps = noise(x)
    return 0.5 * sum_dims((score(x + sigma * eps) + eps / sigma).square())


@torch.no_grad()  # as a decorator: a `with` block here would switch gradients off in the caller
def langevin(
    score: Score,
    x: Tensor,
    step: float,
    n: int,
    noise: Noise = torch.randn_like,
    log_prob: Callable[[Tensor], Tensor] | None = None,
    uniform: Noise = torch.rand_like,
) -> Iterator[Tensor]:
    """Yield n states of x + step * score(x) + sqrt(2 step) * fresh normal noise.

    Its law tends to the density of the score as step -> 0 and the time step * n -> infinity. At a
    fixed step the law it settles in is a little off: N(m, s^2) gets the variance
    s^2 / (1 - step / (2 s^2)), and nothing at all settles from step = 2 s^2 on.

    Args:
        log_prob: (B, ...) -> (B,), up to a constant: accept or refuse each move by the rule of
            Metropolis, which removes that bias (Roberts and Tweedie 1996).
        noise, uniform: where randomness comes from, given a tensor to resemble.

    Raises:
        ValueError: the step is not above zero. FloatingPointError: the step is too long here.

    >>> *_, x = langevin(lambda x: -x, torch.full((2000, 1), 5.0), step=0.1, n=100)
    >>> bool((x.mean().abs() < 0.2) & ((x.var() - 1 / 0.95).abs() < 0.2))
    True
    """
    check_count(n, "n")
    if not step > 0:
        raise ValueError(f"step is a time, above zero; got {step}")
    s = score(x)
    now = None if log_prob is None else log_prob(x)
    for k in range(n):
        y = x + step * s + (2 * step) ** 0.5 * noise(x)
        if not y.isfinite().all():
            raise FloatingPointError(
                f"Langevin's state is not finite at step {k + 1}: step = {step:.3g} is too long for "
                f"the narrowest part of this density, or the score is not finite there"
            )
        s_y = score(y)
        if log_prob is None:
            x, s = y, s_y
        else:
            there = log_prob(y)
            gain = there - now + _move(y, x, s_y, step) - _move(x, y, s, step)
            taken = uniform(gain).log() < gain
            now = torch.where(taken, there, now)
            keep = expand_as_batch(taken, x) > 0
            x, s = torch.where(keep, y, x), torch.where(keep, s_y, s)
        yield x


def _move(x: Tensor, y: Tensor, s: Tensor, step: float) -> Tensor:
    """log-density, up to a constant, of proposing y at x, where the score is s: (B,)."""
    return -sum_dims((y - x - step * s).square()) / (4 * step)


@torch.no_grad()
def annealed_langevin(
    score: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: Sequence[float],
    step: float,
    n: int,
    noise: Noise = torch.randn_like,
) -> Iterator[Tensor]:
    """Langevin dynamics at falling noise levels, each started where the last one stopped.

    Yields the state after each level. Song and Ermon (2019), algorithm 1.

    Args:
        score: score(x, sigma) of the data blurred by N(0, sigma^2 I).
        sigmas: the levels, falling.
        step: Langevin's step at the last level; at level i it is step (sigma_i / sigma_last)^2.
            Their epsilon is 2 step, because they write x + epsilon / 2 score + sqrt(epsilon) z.
        n: steps for each level.

    >>> blurred = lambda x, sigma: -x / (1 + sigma**2)
    >>> states = annealed_langevin(blurred, torch.zeros(5, 1), [2.0, 1.0, 0.5], step=0.05, n=10)
    >>> len([*states])
    3
    """
    sigmas = [float(s) for s in sigmas]
    if not sigmas or sigmas[-1] <= 0 or any(b >= a for a, b in pairwise(sigmas)):
        raise ValueError(f"sigmas must fall and stay above zero, got {sigmas}")
    for sigma in sigmas:
        here = step * (sigma / sigmas[-1]) ** 2
        *_, x = langevin(lambda y, sigma=sigma: score(y, sigma), x, here, n, noise)
        yield x
