"""p(x | z), pixel by pixel: what the numbers that a decoder puts out mean.

A decoder gives `channels` numbers for each value of x: `params` is (B, channels * C, H, W) for images
x (B, C, H, W), and (B, channels * D) for vectors (B, D). x is floating point: 0 and 1 for Bernoulli,
levels 0 .. n_levels - 1 (as floats) for the discrete families. All log-probabilities are in nats,
summed over the pixels of an example.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.utils import check_batch, check_count, known, sum_dims


class Likelihood(nn.Module):
    """A family p(x | params). Subclasses write `_log_prob`, `mean` and `sample`.

    >>> Gaussian('pixel').split(torch.ones(2, 6)).shape
    torch.Size([2, 2, 3])
    """

    channels = 1  # numbers per value of x

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """log p(x | params): (B, *shape), (B, channels * shape[0], ...) -> (B,), nats.

        In the precision of x where that of params is lower, as under autocast.
        """
        split = self.split(params.to(torch.promote_types(params.dtype, x.dtype)))
        if tuple(x.shape) != (len(params), *split.shape[2:]):
            raise ValueError(
                f"{type(self).__name__} got parameters for x of shape "
                f"{(len(params), *split.shape[2:])}, and x of shape {tuple(x.shape)}"
            )
        return sum_dims(self._log_prob(x, split))

    def split(self, params: Tensor) -> Tensor:
        """(B, channels * C, ...) -> (B, channels, C, ...)."""
        if params.ndim < 2 or params.shape[1] % self.channels:
            raise ValueError(
                f"{type(self).__name__} needs {self.channels} numbers for each value of x: "
                f"(B, {self.channels} * C, ...), got {tuple(params.shape)}"
            )
        return params.unflatten(1, (self.channels, params.shape[1] // self.channels))

    def check(self, x: Tensor) -> None:
        """Raise a ValueError if x holds a value that the family gives no probability."""

    def centre(self, x: Tensor) -> Tensor:
        """x moved to about [-1, 1], as the encoder wants it."""
        return x

    def _log_prob(self, x: Tensor, split: Tensor) -> Tensor:
        raise NotImplementedError

    def mean(self, params: Tensor) -> Tensor:
        """E[x | params]: -> (B, *shape)."""
        raise NotImplementedError

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw for each example: -> (B, *shape)."""
        raise NotImplementedError


class Bernoulli(Likelihood):
    """Pixels 0 or 1; params are log-odds.

    >>> Bernoulli().log_prob(torch.tensor([[1.0]]), torch.tensor([[0.0]])).exp()
    tensor([0.5000])
    """

    def check(self, x):
        _check_levels(x, 2)

    def centre(self, x):
        return 2 * x - 1

    def _log_prob(self, x, split):
        logit = split[:, 0]
        return x * logit - F.softplus(logit)  # x log p + (1 - x) log(1 - p)

    def mean(self, params):
        return torch.sigmoid(self.split(params)[:, 0])

    def sample(self, params, generator=None):
        p = self.mean(params)
        return (_uniform(p, generator) < p).to(p.dtype)


class Gaussian(Likelihood):
    """N(mean, std^2) on real values. What bounds std from below bounds the density from above.

    std: a number; "shared", one learned number; or "pixel", the decoder gives it for every value
    of every example. The learned ones are floor + softplus(raw). With floor = 0 a pixel that never
    changes has an unbounded log-likelihood: each nat is bought with a smaller std, and with no
    better picture.

    >>> Gaussian(2.0).log_prob(torch.zeros(1, 1), torch.zeros(1, 1))
    tensor([-1.6121])
    """

    def __init__(self, std: float | str = "shared", floor: float = 1e-2):
        super().__init__()
        if isinstance(std, str) and std not in ("shared", "pixel"):
            raise ValueError(f'std must be a number, "shared" or "pixel", got {std!r}')
        if not isinstance(std, str) and not std > 0:
            raise ValueError(f"std must be above 0, got {std}")
        if not floor >= 0:
            raise ValueError(f"floor is the smallest std, 0 or more, got {floor}")
        self.std, self.floor = std, floor
        self.channels = 2 if std == "pixel" else 1
        self.raw = nn.Parameter(torch.zeros(())) if std == "shared" else None

    def log_std(self, split: Tensor) -> Tensor:
        """log std of every value: (B, channels, *shape) -> broadcasts to (B, *shape)."""
        if not isinstance(self.std, str):
            return split.new_full((), math.log(self.std))
        raw = split[:, 1] if self.std == "pixel" else self.raw
        if self.floor == 0:  # log softplus(raw) is raw far below 0, where softplus underflows
            return torch.where(raw < -20, raw, F.softplus(raw.clamp(min=-20)).log())
        return (self.floor + F.softplus(raw)).log()

    def _log_prob(self, x, split):
        log_std = self.log_std(split)
        inverse = (-log_std).exp().clamp_max(torch.finfo(x.dtype).max)  # 0 times it stays 0
        white = (x - split[:, 0]) * inverse
        return -0.5 * (white**2 + math.log(2 * math.pi)) - log_std

    def mean(self, params):
        return self.split(params)[:, 0]

    def sample(self, params, generator=None):
        split = self.split(params)
        noise = _normal(split[:, 0], generator)
        return split[:, 0] + self.log_std(split).exp() * noise


class DiscretisedLogistic(Likelihood):
    """Levels 0 .. n_levels - 1: a mixture of logistic densities, integrated over each level's bin.

    Level k owns (k - 1/2, k + 1/2]; the first and the last bin reach to infinity, so the levels'
    probabilities sum to one. For each component: mean (1 is the last level, -1 the first), a raw
    scale, and, if there are several, a log-weight. Salimans et al. (2017), equation (2).

    >>> p, params = DiscretisedLogistic(4), torch.tensor([[0.3, -0.5]]).expand(4, 2)
    >>> p.log_prob(torch.arange(4.0)[:, None], params).exp().sum().round(decimals=5)
    tensor(1.)
    """

    def __init__(self, n_levels: int = 256, components: int = 1):
        super().__init__()
        if n_levels < 2:
            raise ValueError(f"DiscretisedLogistic needs at least 2 levels, got {n_levels}")
        self.n_levels, self.components = n_levels, check_count(components, "components")
        self.channels = 2 if components == 1 else 3 * components

    def check(self, x):
        _check_levels(x, self.n_levels)

    def centre(self, x):
        return 2 * x / (self.n_levels - 1) - 1

    def parts(self, split: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and scale in levels, and log-weight: each (B, components, *shape)."""
        m, raw, *rest = split.chunk(self.channels // self.components, 1)
        mean = 0.5 * (m + 1) * (self.n_levels - 1)
        scale = (math.log(self.n_levels / 8) + 7 * torch.tanh(raw / 7)).exp()
        log_weight = rest[0].log_softmax(1) if rest else torch.zeros_like(m)
        return mean, scale, log_weight

    def _log_prob(self, x, split):
        mean, scale, log_weight = self.parts(split)
        k = x[:, None]
        low, high = (k - 0.5 - mean) / scale, (k + 0.5 - mean) / scale
        # F(high) - F(low) = F(high) F(-low) (1 - e^(low - high)) for the sigmoid F, no cancellation
        below, above = F.logsigmoid(high), F.logsigmoid(-low)
        log_p = below + above + (-torch.expm1(-1 / scale)).log()
        log_p = torch.where(k < 0.5, below, torch.where(k > self.n_levels - 1.5, above, log_p))
        return torch.logsumexp(log_p + log_weight, 1)

    def mean(self, params):
        """E[k] = sum over j >= 1 of P(k >= j)."""
        mean, scale, log_weight = self.parts(self.split(params))
        total = sum(torch.sigmoid((mean - j + 0.5) / scale) for j in range(1, self.n_levels))
        return (total * log_weight.exp()).sum(1)

    def sample(self, params, generator=None):
        mean, scale, log_weight = self.parts(self.split(params))
        part = _pick(log_weight, generator)[:, None]
        mean, scale = mean.gather(1, part)[:, 0], scale.gather(1, part)[:, 0]
        u = _uniform(mean, generator)
        tiny = torch.finfo(u.dtype).eps
        level = (mean + scale * u.logit(tiny)).round().clamp(0, self.n_levels - 1)
        return level.to(params.dtype)


class Categorical(Likelihood):
    """Levels 0 .. n_levels - 1, each with its own log-weight: any distribution, no notion of near.

    >>> p = Categorical(3)
    >>> p.mean(torch.tensor([[0.0, 0.0, 9.0]])).round(decimals=2)
    tensor([[2.]])
    """

    def __init__(self, n_levels: int = 17):
        super().__init__()
        if n_levels < 2:
            raise ValueError(f"Categorical needs at least 2 levels, got {n_levels}")
        self.n_levels = self.channels = n_levels

    def check(self, x):
        _check_levels(x, self.n_levels)

    def centre(self, x):
        return 2 * x / (self.n_levels - 1) - 1

    def _log_prob(self, x, split):
        return -F.cross_entropy(split, x.long(), reduction="none")

    def mean(self, params):
        p = self.split(params).softmax(1)
        k = torch.arange(self.n_levels, device=p.device, dtype=p.dtype)
        return torch.tensordot(p, k, dims=([1], [0]))

    def sample(self, params, generator=None):
        return _pick(self.split(params), generator).to(params.dtype)


def _pick(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """An index along dimension 1 with probability softmax(logits), by the Gumbel maximum."""
    u = _uniform(logits, generator)
    u = u.clamp_min(torch.finfo(u.dtype).tiny)
    return (logits - (-u.log()).log()).argmax(1)


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    dtype = torch.promote_types(like.dtype, torch.float32)  # bfloat16 has 256 values in [0, 1)
    return torch.rand(like.shape, generator=generator, dtype=dtype, device=like.device)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def _check_levels(x: Tensor, n_levels: int) -> None:
    check_batch(x, finite=False)
    if x.numel() and known(((x < 0) | (x > n_levels - 1) | (x != x.round())).any()):
        raise ValueError(
            f"expected whole levels from 0 to {n_levels - 1}, as floats, got values from "
            f"{x.min():.4g} to {x.max():.4g}"
        )
