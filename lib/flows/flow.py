"""A flow: a base density and a transform make a model with exact likelihood."""

import math

import torch
from torch import Tensor, nn

from lib.flows.transform import Transform, _one_each, check_input
from lib.utils import check_count, check_finite, known, std_normal_log_prob, sum_dims


class StandardNormal:
    """N(0, I). A base is anything with these two methods; it owns no tensor, so no device.

    >>> StandardNormal().log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    """

    def log_prob(self, z: Tensor) -> Tensor:
        return std_normal_log_prob(z)

    def draw(self, *shape: int, **kwargs) -> Tensor:
        """A sample; kwargs are device, dtype and generator."""
        return torch.randn(*shape, **kwargs)


class Uniform:
    """Uniform on the cube (low, high)^D; log_prob is -inf, and its gradient 0, outside.

    >>> Uniform(0.0, 2.0).log_prob(torch.tensor([[1.0], [3.0]]))
    tensor([-0.6931,    -inf])
    """

    def __init__(self, low: float = 0.0, high: float = 1.0):
        if not low < high:
            raise ValueError(f"Uniform needs low < high, got {low} and {high}")
        self.low, self.high = low, high

    def log_prob(self, z: Tensor) -> Tensor:
        inside = (z >= self.low) & (z <= self.high)
        log_density = 0 * z - math.log(self.high - self.low)  # with a graph
        return sum_dims(torch.where(inside, log_density, -math.inf))

    def draw(self, *shape: int, **kwargs) -> Tensor:
        return self.low + (self.high - self.low) * torch.rand(*shape, **kwargs)


class Flow(nn.Module):
    """log p(x) = log p_base(z) + log|det dz/dx|, z = to_base(x): the change of variables, in nats.

    `shape` is that of one example: `Flow(transform, 2)`, `Flow(transform, 1, 8, 8)`.

    >>> from lib.flows import LULinear
    >>> flow = Flow(LULinear(2), 2)
    >>> flow.log_prob(torch.zeros(1, 2)).detach(), flow.sample(3).shape
    (tensor([-1.8379]), torch.Size([3, 2]))
    """

    def __init__(self, transform: Transform, *shape: int, base=None):
        super().__init__()
        if not shape or not all(isinstance(d, int) for d in shape):
            raise ValueError(
                f"Flow needs the shape of one example, Flow(transform, 2), got {shape}"
            )
        self.transform, self.shape = transform, shape
        self.base = StandardNormal() if base is None else base

    @property
    def takes_context(self) -> bool:
        return self.transform.takes_context

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Exact log-density, (B, *shape) -> (B,), in nats."""
        check_input(self, x, context)
        if known(~x.isfinite().all()):
            check_finite(x)
        z, logabsdet = self.transform.to_base(x, context)
        return self._base_log_prob(z) + logabsdet

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The training loss of each example, -log p(x) in nats: (B, *shape) -> (B,)."""
        return -self.log_prob(x, context)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n samples, (n, *shape), without gradient; row i belongs to context row i.

        `noise`, (n, *shape), is a draw from the base to start from; else it is drawn, with
        `generator` if given. A continuous flow follows the path alone: its samples differ from
        those of `sample_with_log_prob` within the solver's tolerance, at a lower price.
        """
        return self.transform.x_from_base(self._noise(n, context, noise, generator), context)

    def sample_with_log_prob(self, n, context=None, *, noise=None, generator=None):
        """n samples and their log-density, (n, *shape), (n,), both differentiable.

        Reparameterised, and needs only `from_base`: a flow can be fitted by the reverse KL.
        """
        noise = self._noise(n, context, noise, generator)
        x, logabsdet = self.transform.from_base(noise, context)
        return x, self._base_log_prob(noise) - logabsdet

    def _base_log_prob(self, z: Tensor) -> Tensor:
        name = f"the base's {type(self.base).__name__}.log_prob"
        return _one_each(self.base.log_prob(z), z, name)

    def _noise(self, n, context, noise, generator) -> Tensor:
        """n points of the base, (n, *shape): those given, checked, or drawn."""
        check_count(n)
        p = next(self.parameters(), torch.empty(0))
        if noise is None:
            like = {"device": p.device, "dtype": p.dtype}
            noise = self.base.draw(n, *self.shape, **like, generator=generator)
        elif len(noise) != n:
            raise ValueError(f"asked for {n} samples, got noise of shape {tuple(noise.shape)}")
        check_input(self, noise, context)
        return noise
