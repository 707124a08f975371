"""The exact likelihood of a diffusion model, as the continuous flow that its probability flow is."""

import math

import torch
from torch import Tensor

from lib.diffusion.denoiser import BaseDenoiser
from lib.diffusion.samplers import ode_field
from lib.diffusion.schedule import Schedule
from lib.flows.continuous import ode_log_prob
from lib.utils import check_count, std_normal_log_prob


def base_log_prob(schedule: Schedule):
    """log N(z; 0, sigma(1)^2 I) in nats, (B, ...) -> (B,): the law that sampling starts from."""
    sigma = schedule.sigma(1.0)
    return lambda z: std_normal_log_prob(z / sigma) - z[0].numel() * math.log(sigma)


@torch.no_grad()
def flow_log_prob(
    denoiser: BaseDenoiser,
    x: Tensor,
    context: Tensor | None = None,
    t0: float = 1e-5,
    **how,
) -> tuple[Tensor, Tensor]:
    """log p(x) in nats, (B,), of "noise at t = 1, probability flow down to t0", and the code of x.

    That model's density is exact up to the solver's tolerance. For x of the data it stands for the
    density blurred by sigma(t0). Song et al. (2021), section 4.3, with t0 = 1e-5.

    Args:
        how: trace, probes, solver, rtol, atol ... of `lib.flows.continuous.Integrator`.
    """
    field, base = ode_field(denoiser, context), base_log_prob(denoiser.schedule)
    return ode_log_prob(field, x, base, t0=t0, params=[], **how)


@torch.no_grad()
def flow_bits(
    denoiser: BaseDenoiser,
    x: Tensor,
    levels: int,
    context: Tensor | None = None,
    draws: int = 1,
    generator: torch.Generator | None = None,
    batch: int = 100,
    **how,
) -> Tensor:
    """Bits per dimension of images of whole levels, by dequantisation: (B,), an upper bound in mean.

    x are levels spread evenly over [-1, 1], 2 k / (levels - 1) - 1. Uniform noise as wide as a level
    is added, and log2 of that width taken off the density: the mean of -log2 p(x + u) is at least
    -log2 of the integral of p over the level (Theis et al. 2016). `batch` images share their steps.
    """
    width = 2 / (levels - 1)
    total = x.new_zeros(len(x))
    for _ in range(check_count(draws, "draws")):
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) - 0.5
        for i in range(0, len(x), check_count(batch, "batch")):
            part = slice(i, i + batch)
            c = None if context is None else context[part]
            total[part] += flow_log_prob(denoiser, x[part] + width * noise[part], c, **how)[0]
    return -total / (draws * x[0].numel() * math.log(2)) - math.log2(width)
