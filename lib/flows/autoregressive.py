"""Autoregressive flows: coordinate i is transformed with parameters computed from those before it.

A triangular Jacobian of any strength, at the price of one slow direction. MAF (Papamakarios et al.
2017) goes to the base in one pass and samples one coordinate after the other; IAF (Kingma et al.
2016) is its `Inverse`, and has it the other way round.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lib.flows.made import MADE
from lib.flows.spline import rational_quadratic
from lib.flows.transform import Transform, _check_limit
from lib.utils import bounded, check_count

Params = tuple[Tensor, ...]


class Autoregressive(Transform):
    """x_i = f(z_i; parameters(x_<i)): `to_base` knows all x and is one pass. Subclasses write f.

    `log|det dz/dx|` is a sum over i: x_i does not act on z_j for j < i.

    >>> layer = MaskedAutoregressive(3)
    >>> x = torch.ones(2, 3)
    >>> bool((layer.from_base(x)[0] == layer.from_base_naive(x)[0]).all())
    True
    """

    def __init__(self, net: MADE):
        super().__init__()
        self.net, self.shape, self.takes_context = net, (net.dim,), net.context > 0
        nn.init.zeros_(net.layers[-1].weight)  # the same parameters everywhere: the identity
        nn.init.zeros_(net.layers[-1].bias)

    def each_to_base(self, x: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """z and log dz/dx of each element: (...) and `outputs` times (...) -> (...), (...)."""
        raise NotImplementedError

    def each_from_base(self, z: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """x and log dx/dz of each element: (...) and `outputs` times (...) -> (...), (...)."""
        raise NotImplementedError

    def params(self, x: Tensor, context: Tensor | None) -> Params:
        """Those of all coordinates in one pass: (B, D) -> `outputs` times (B, D)."""
        return self.net(x, context).chunk(self.net.outputs, 1)

    def to_base(self, x, context=None):
        self.check(x, context)
        z, log_slope = self.each_to_base(x, self.params(x, context))
        return z, log_slope.sum(1)

    def from_base(self, z, context=None):
        if type(self).params is not Autoregressive.params:  # a subclass's own: in whole passes only
            return self.from_base_naive(z, context)
        self.check(z, context)
        if self.net.passes_pay(z):
            weights, k = self.net.weights(), self.net.outputs
            return self._passes(z, lambda x: self.net.one_pass(x, context, weights).chunk(k, 1))
        columns, log_slopes = z.T.contiguous().unbind(0), []

        def step(i, params):
            x, log_slope = self.each_from_base(columns[i], params.to(z.dtype).unbind())
            log_slopes.append(log_slope)
            return x

        x = self.net.fill(step, len(z), context)
        return x, torch.stack(log_slopes).sum(0)

    def from_base_naive(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What `from_base` computes, by D full passes: each one makes one more coordinate right."""
        self.check(z, context)
        training, self.net.training = self.net.training, False  # all units, as there
        try:
            return self._passes(z, lambda x: self.params(x, context))
        finally:
            self.net.training = training

    def _passes(self, z: Tensor, params: Callable[[Tensor], Params]) -> tuple[Tensor, Tensor]:
        x = torch.zeros_like(z)
        for _ in range(z.shape[1]):
            x, log_slope = self.each_from_base(z, params(x))
        return x, log_slope.sum(1)


class MaskedAutoregressive(Autoregressive):
    """One layer of MAF: x_i = exp(log_scale(x_<i)) z_i + shift(x_<i), so x_i given x_<i is Gaussian.

    The log-scale stays within +-limit. Starts as the identity. Reverse `order` from layer to layer:
    `maf` does. IAF is `Inverse(MaskedAutoregressive(...))`.

    >>> MaskedAutoregressive(3, width=8).to_base(torch.ones(1, 3))[0].tolist()  # the identity
    [[1.0, 1.0, 1.0]]
    """

    def __init__(
        self,
        dim: int,
        width: int = 128,
        depth: int = 2,
        context: int = 0,
        order: Sequence[int] | Tensor | None = None,
        limit: float = 3.0,
        **kwargs,
    ):
        super().__init__(MADE(dim, 2, width, depth, context, order, **kwargs))
        self.limit = _check_limit(limit)

    def each_to_base(self, x, params):
        raw, shift = params
        log_slope = -bounded(raw, self.limit)
        return (x - shift) * log_slope.exp(), log_slope

    def each_from_base(self, z, params):
        raw, shift = params
        log_scale = bounded(raw, self.limit)
        return z * log_scale.exp() + shift, log_scale


class SplineAutoregressive(Autoregressive):
    """z_i is a monotone rational-quadratic spline of x_i in [-bound, bound], with `bins` bins, whose
    parameters come from x_<i. Durkan et al. (2019). Starts as the identity.

    >>> SplineAutoregressive(3, width=8).to_base(torch.ones(1, 3))[0].detach().round(decimals=4)
    tensor([[1., 1., 1.]])
    """

    def __init__(
        self,
        dim: int,
        width: int = 128,
        depth: int = 2,
        context: int = 0,
        order: Sequence[int] | Tensor | None = None,
        bins: int = 8,
        bound: float = 3.0,
        **kwargs,
    ):
        check_count(bins, "bins")
        super().__init__(MADE(dim, 3 * bins - 1, width, depth, context, order, **kwargs))
        self.bins, self.bound = bins, bound

    def _spline(self, x, params, inverse):
        K = self.bins
        widths, heights = torch.stack(params[:K], -1), torch.stack(params[K : 2 * K], -1)
        slopes = torch.stack(params[2 * K :], -1) if K > 1 else widths[..., :0]
        return rational_quadratic(x, widths, heights, slopes, inverse, self.bound)

    def each_to_base(self, x, params):
        return self._spline(x, params, inverse=False)

    def each_from_base(self, z, params):
        return self._spline(z, params, inverse=True)
