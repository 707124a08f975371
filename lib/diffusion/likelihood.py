"""The exact likelihood of a diffusion model, as the continuous flow that its probability flow is."""

import math

import torch
from torch import Tensor

from lib.diffusion.denoiser import BaseDenoiser
from lib.diffusion.elbo import last_step_log_prob, level_of
from lib.diffusion.samplers import ode_field
from lib.diffusion.schedule import Schedule
from lib.flows.continuous import draw_probes, ode_log_prob
from lib.utils import check_count, std_normal_log_prob


def base_log_prob(schedule: Schedule):
    """log N(z; 0, sigma(1)^2 I) in nats, (B, ...) -> (B,): the law that sampling starts from.

    >>> from lib.diffusion import VE
    >>> base_log_prob(VE(0.5, 2.0))(torch.zeros(1, 2))
    tensor([-3.2242])
    """
    sigma = schedule.sigma(1.0)
    return lambda z: std_normal_log_prob(z / sigma) - z.shape[1:].numel() * math.log(sigma)


@torch.no_grad()
def flow_log_prob(
    denoiser: BaseDenoiser,
    x: Tensor,
    context: Tensor | None = None,
    t0: float = 1e-5,
    **how,
) -> tuple[Tensor, Tensor]:
    """log p(x) in nats, (B,), of "noise at t = 1, probability flow down to t0", and the code of x.

    That model's density is exact up to the solver's error, at single points a hundred times the
    tolerance and more. For x of the data it stands for the density blurred by sigma(t0). Song et al.
    (2021), section 4.3, with t0 = 1e-5.

    Args:
        how: trace, probes, solver, rtol, atol ... of `lib.flows.continuous.Integrator`.

    Raises:
        ValueError: t0 is outside [0, 1).

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser
    >>> p = two_gaussians()
    >>> x = torch.tensor([[1.4, 0.3]], dtype=torch.float64)
    >>> (flow_log_prob(ExactDenoiser(p, VP()), x)[0] - p.log_prob(x)).abs() < 1e-3
    tensor([True])
    """
    if not 0 <= t0 < 1:
        raise ValueError(f"the flow runs from noise at 1 down to a time 0 <= t0 < 1, got {t0}")
    field, base = ode_field(denoiser, context), base_log_prob(denoiser.schedule)
    return ode_log_prob(field, x, base, t0=t0, params=[], **how)


@torch.no_grad()
def flow_bits(
    denoiser: BaseDenoiser,
    x: Tensor,
    levels: int,
    context: Tensor | None = None,
    decode_at: float | None = None,
    draws: int = 1,
    generator: torch.Generator | None = None,
    batch: int = 100,
    **how,
) -> Tensor:
    """Bits per dimension of images of whole levels: (B,), an upper bound in the mean over draws.

    x are levels spread evenly over [-1, 1], 2 k / (levels - 1) - 1. The flow has a density, so noise
    must fill the space between levels (dequantisation).

    Args:
        decode_at: left out, the noise is uniform and as wide as a level: for a model that was trained
            on such data (Theis et al. 2016). At a time t, it is the diffusion's own: x_t is drawn
            from q(x_t | x), the flow gives its density, and the decoder of `elbo.chain_elbo` the
            level: E[log q(x_t | x) - log p_t(x_t) - log P(x | x_t)], for one trained on levels.
        batch: that many images share the solver's steps.
        how: of `flow_log_prob`.

    Raises:
        ValueError: x holds other numbers than these levels.

    >>> from lib.data.densities import two_gaussians
    >>> from lib.diffusion import VP, ExactDenoiser
    >>> x = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    >>> flow_bits(ExactDenoiser(two_gaussians(), VP()), x, levels=3, solver="rk4").shape
    torch.Size([2])
    """
    level_of(x, levels)  # of other numbers the result would say nothing
    if decode_at is not None:
        how["t0"] = decode_at
    noised = _uniform if decode_at is None else _gaussian
    total = x.new_zeros(len(x))
    for _ in range(check_count(draws, "draws")):
        for i in range(0, len(x), check_count(batch, "batch")):
            part = slice(i, i + batch)
            c = None if context is None else context[part]
            y, nats = noised(denoiser, x[part], levels, c, decode_at, generator)
            total[part] += (
                nats - flow_log_prob(denoiser, y, c, **_drawn(y, how, generator, part))[0]
            )
    return total / (draws * x.shape[1:].numel() * math.log(2))


def _drawn(x: Tensor, how: dict, generator: torch.Generator | None, part: slice) -> dict:
    """`how` with Hutchinson's probes of this part, drawn from the generator as all else is."""
    probes = how.get("probes", 1)
    if isinstance(probes, Tensor):
        return how | {"probes": probes[:, part]}
    if how.get("trace") != "hutchinson":
        return how
    return how | {"probes": draw_probes(x, how.get("probe", "rademacher"), probes, generator)}


def _uniform(denoiser, x, levels, context, t, generator) -> tuple[Tensor, Tensor]:
    """x + u and log q of it, minus the logarithm of the width of a level in each dimension."""
    width = 2 / (levels - 1)
    u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) - 0.5
    return x + width * u, x.new_full((len(x),), -x.shape[1:].numel() * math.log(width))


def _gaussian(denoiser, x, levels, context, t, generator) -> tuple[Tensor, Tensor]:
    """x_t and log q(x_t | x) - log P(x | x_t)."""
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    eps = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    x_t = alpha * x + sigma * eps
    log_q = std_normal_log_prob(eps) - x.shape[1:].numel() * math.log(sigma)
    x_hat = denoiser(x_t, t, context)
    return x_t, log_q - last_step_log_prob(x, x_hat, sigma / alpha, levels)
