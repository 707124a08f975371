"""Samplers: a step takes x_t to x_s, s < t; `simulate` chains steps from noise to data.

    *_, x = simulate(ancestral(denoiser), noise, schedule.times(50))

A step is a function of (x_t, t, s) with t and s floats, because coefficients as floats cost nothing
beside the network; they are remembered for each (t, s). `noise` is where fresh noise comes from: a
function of a tensor, like `torch.randn_like`, which a test or a figure may replace. Without fresh
noise a step also runs from data to noise, and that is how an example gets its code.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from lib.diffusion.denoiser import BaseDenoiser
from lib.utils import can_look, check_count, known

Step = Callable[[Tensor, float, float], Tensor]
Noise = Callable[[Tensor], Tensor]


def simulate(step: Step, x: Tensor, ts: Iterable[float]) -> Iterator[Tensor]:
    """Yield the state after every step along the times `ts`; `*_, x_0 =` keeps the last.

    No step records gradients, and what the caller does between two of them is left alone. The times fall, from noise to data; or they rise, if the step draws no noise.

    Raises:
        ValueError: the times do neither, leave [0, 1], or rise under a step that draws noise.
        FloatingPointError: a state is not finite; says when.

    >>> halve = lambda x, t, s: x / 2
    >>> [x.item() for x in simulate(halve, torch.ones(()), [1.0, 0.5, 0.0])]
    [0.5, 0.25]
    """
    ts = [float(t) for t in ts]
    falls = {s < t if s != t else None for t, s in pairwise(ts)}
    if falls not in ({True}, {False}) or not all(map(math.isfinite, ts)):
        raise ValueError(
            "ts must be at least two times, falling from noise to data (or rising, to encode)"
        )
    if not 0 <= min(ts) < max(ts) <= 1:  # beyond, a schedule would answer, and wrongly
        raise ValueError(
            f"times run in [0, 1], step k of a chain of T is at k / T; got {min(ts):.6g} to "
            f"{max(ts):.6g}"
        )
    quiet = torch.no_grad()(step)  # a fifth of a step's time in the plane: only where needed
    for t, s in pairwise(ts):
        x = (quiet if torch.is_grad_enabled() else step)(x, t, s)
        # a finite sum means finite terms, and is found 50 times faster than by looking at each
        if not math.isfinite(x.sum().item()) and not x.isfinite().all():
            raise FloatingPointError(
                f"the sampler's state is not finite after the step from t = {t:.4g} to {s:.4g}: the "
                f"step is too long, or the denoiser's output is not finite there"
            )
        yield x


def check_falls(t: float, s: float) -> None:
    """Raise unless s < t: a step that draws noise cannot go back towards it.

    >>> check_falls(0.3, 0.2)  # falls, as it must
    """
    if s >= t:
        raise ValueError(
            f"a step with fresh noise goes from noise to data, s < t; got t = {t}, s = {s}. To encode, "
            f"take one without: eta=0, churn=0, heun, dpm_solver"
        )


def check_share(share: float, t: float, s: float) -> None:
    """Raise if more than all of the variance at s is to be new: an eta above what x_s has room for.

    >>> check_share(0.4, 0.3, 0.2)  # some
    """
    if share > 1 + 1e-9:
        raise ValueError(
            f"eta asks for {share:.3g} times the variance of x_s as fresh noise, in the step from "
            f"t = {t:.6g} to {s:.6g}: more fresh noise than there is room for"
        )


def check_noise(t: float, sigma: float) -> None:
    """Raise unless sigma > 0: where there is no noise, nobody can tell what it was, eps_hat.

    >>> check_noise(0.3, 0.1)  # some
    """
    if not sigma > 0:
        raise ValueError(
            f"sigma is 0 at t = {t:.4g}, and eps_hat is not known there: take a small t above 0"
        )


def ancestral(
    denoiser: BaseDenoiser,
    context: Tensor | None = None,
    eta: float = 1.0,
    large: bool = False,
    noise: Noise = torch.randn_like,
) -> Step:
    """Draw x_s from q(x_s | x_t, x_hat): DDPM for eta = 1, DDIM without any fresh noise for eta = 0.

    x_s = alpha_s x_hat + sqrt(sigma_s^2 - v) eps_hat + sqrt(v) fresh noise, with v = eta^2
    sigma_s^2 / sigma_t^2 (sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2). Song, Meng and Ermon (2021),
    equations 12 and 16. `large` takes the other variance of Ho et al. (2020, section 3.2), that of
    q(x_t | x_s), for the fresh noise alone, as DDPM's "fixed large".

    Raises:
        ValueError: in a step, times that rise, or an eta whose v is above sigma_s^2.

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser
    >>> model, ts = ExactDenoiser(two_gaussians(), VP()), VP().times(10)
    >>> len([*simulate(ancestral(model), torch.randn(5, 2), ts)])
    10
    """

    @lru_cache(4096)
    def weights(t: float, s: float) -> tuple[float, float, float]:
        alpha_t, sigma_t = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        alpha_s, sigma_s = denoiser.schedule.alpha(s), denoiser.schedule.sigma(s)
        check_noise(t, sigma_t)
        if eta == 0:
            return alpha_s, sigma_s, 0.0
        check_falls(t, s)
        forward = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2  # variance of q(x_t | x_s)
        share = eta**2 * max(forward, 0.0) / sigma_t**2  # of sigma_s^2, that is new
        check_share(share, t, s)
        kept = sigma_s * max(1 - share, 0.0) ** 0.5
        if large and sigma_s > 0:  # the last mean is not spoilt by noise
            return alpha_s, kept, abs(eta) * forward**0.5
        return alpha_s, kept, sigma_s * share**0.5

    def step(x_t: Tensor, t: float, s: float) -> Tensor:
        a, b, fresh = weights(t, s)
        x_s = denoiser.mix(x_t, t, a, b, context)
        return x_s.add_(noise(x_t), alpha=fresh) if fresh else x_s

    return step


def euler_maruyama(
    denoiser: BaseDenoiser,
    context: Tensor | None = None,
    noise: Noise = torch.randn_like,
    churn: float = 1.0,
) -> Step:
    """One step of the reverse-time SDE, dx = (f x - g^2 score) dt + g dw, from t down to s.

    Anderson (1982); Song et al. (2021), equation 6. With any other `churn` from 0 up, the SDE with
    the same marginals dx = (f x - (1 + churn^2) / 2 g^2 score) dt + churn g dw; churn = 0 is Euler's
    method for the probability flow (Karras et al. 2022, section 4).

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser
    >>> model, ts = ExactDenoiser(two_gaussians(), VP()), VP().times(10)
    >>> len([*simulate(euler_maruyama(model), torch.randn(5, 2), ts)])
    10
    """
    if not churn >= 0:
        raise ValueError(f"churn is a multiple of the noise, from 0 up; got {churn}")

    @lru_cache(4096)
    def weights(t: float, s: float) -> tuple[float, float, float]:
        if churn:
            check_falls(t, s)
        f, g2 = denoiser.schedule.sde(t)
        alpha, sigma, h = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t), t - s
        check_noise(t, sigma)
        kept = 1 - h * f  # of x_t = alpha x_hat + sigma eps_hat
        push = 0.5 * (1 + churn**2) * h * g2 / -sigma  # along eps_hat = -sigma score
        return kept * alpha, kept * sigma + push, churn * (g2 * abs(h)) ** 0.5

    def step(x_t: Tensor, t: float, s: float) -> Tensor:
        a, b, fresh = weights(t, s)
        x_s = denoiser.mix(x_t, t, a, b, context)
        return x_s.add_(noise(x_t), alpha=fresh) if fresh else x_s

    return step


def corrected(
    step: Step,
    denoiser: BaseDenoiser,
    context: Tensor | None = None,
    n: int = 1,
    snr: float = 0.16,
    noise: Noise = torch.randn_like,
) -> Step:
    """Predictor-corrector: after each step, n steps of Langevin dynamics at the new time.

    The step size 2 (snr |z| / |score|)^2 makes the noise 1 / snr times as large as the drift; norms
    are means over the batch. Song et al. (2021), algorithms 2 to 5, without algorithm 5's factor
    alpha_i, the 1 - beta of a step.

    Raises:
        ValueError: n below 0 or snr not above 0; in a step, times that rise, or a score of 0
            everywhere, which no noise is in proportion to (not looked at on a GPU).

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser
    >>> model, ts = ExactDenoiser(two_gaussians(), VP()), VP().times(10)
    >>> len([*simulate(corrected(ancestral(model), model), torch.randn(5, 2), ts)])
    10
    """

    check_count(n, "n", 0)
    if not snr > 0:
        raise ValueError(f"snr is a ratio above 0, got {snr}")

    def both(x_t: Tensor, t: float, s: float) -> Tensor:
        if n:
            check_falls(t, s)
            check_noise(s, denoiser.schedule.sigma(s))
        x = step(x_t, t, s)
        for _ in range(n):
            score, z = denoiser.score(x, s, context), noise(x)
            length = _mean_norm(score)
            if can_look(length) and known(length == 0):
                raise ValueError(
                    f"the score is 0 everywhere at t = {s:.4g}, and a corrector's step is so long "
                    f"that its noise is in proportion to the score"
                )
            size = 2 * (snr * (_mean_norm(z) / length)) ** 2
            x = x + size * score + (2 * size).sqrt() * z
        return x

    return both


def _mean_norm(v: Tensor) -> Tensor:
    """(B, ...) -> (), also of states that are numbers, (B,)."""
    return v[:, None].flatten(1).norm(dim=1).mean()


def ode_field(
    denoiser: BaseDenoiser, context: Tensor | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """The probability-flow ODE dx/dt = f x - g^2 / 2 score, as field(t, x) for any solver.

    Same marginals as the SDE at every t. Song et al. (2021), equation 13. t is a tensor of no
    dimensions, as `lib.ode` and torchdiffeq pass it.

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser
    >>> from lib.ode import solve
    >>> field = ode_field(ExactDenoiser(two_gaussians(), VP()))
    >>> solve(field, torch.randn(5, 2), 1.0, 1e-3).shape
    torch.Size([5, 2])
    """

    def field(t: Tensor, x: Tensor) -> Tensor:
        f, g2 = denoiser.schedule.sde(float(t))
        return f * x - 0.5 * g2 * denoiser.score(x, float(t), context)

    return field
