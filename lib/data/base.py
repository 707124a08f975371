"""What every closed-form density can do."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..utils import check_batch, check_count

# Points times terms of the sum behind one density value that are in memory at once.
_CHUNK = 2**22
_MAX_POINTS = 4_000_000


class Grid(NamedTuple):
    """A regular grid. `points` (N, D) runs along the first axis fastest, as matplotlib wants it:
    in 2-D, `values.reshape(len(axes[1]), len(axes[0]))` has x along its columns.

    >>> from lib.data.densities import rings
    >>> grid = rings().grid(50)
    >>> grid.points.shape, len(grid.axes)
    (torch.Size([2500, 2]), 2)
    """

    points: Tensor  # (N, D)
    axes: tuple[Tensor, ...]  # D tensors
    cell: float  # area of a cell, so that (p * cell).sum() is a probability


class Density:
    """A law on R^D that we know completely. x is (B, D), on any device, float32 or float64.

    A subclass gives `_log_prob`, `_sample`, `_frame` and its smallest standard deviation `width`.

    >>> from lib.data.densities import moons
    >>> p = moons()
    >>> p.log_prob(p.sample(3)).shape, round(p.entropy(), 3)
    (torch.Size([3]), 2.394)
    """

    dim: int = 2
    width: float  # the finest detail, in units of x: sets the step of the quadrature
    terms: int = 1  # how many numbers per point `_log_prob` holds at once

    def _log_prob(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _sample(self, n: int, draw: "Draw") -> Tensor:
        raise NotImplementedError

    def _frame(self, widths: float) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats: (B, D) -> (B,). -inf where the density is zero; NaN stays NaN.

        Derivatives of any order (not of the pinwheel at the origin, where the second is 0); under
        vmap too, but for the spirals, the pinwheel and a checkerboard with noise.
        """
        check_batch(x, self.dim, finite=False)
        chunks = x.split(max(1, _CHUNK // self.terms))
        return torch.cat([self._log_prob(c) for c in chunks])

    def score(self, x: Tensor) -> Tensor:
        """grad log p(x): (B, D) -> (B, D)."""
        check_batch(x, self.dim, finite=False)
        # func.grad and not autograd.grad: it works below no_grad, vmap and jvp, and keeps the
        # graph only if the caller's x has one.
        return torch.func.grad(lambda x: self.log_prob(x).sum())(x)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """n independent exact draws, (n, D). On the generator's device unless told otherwise."""
        return self._sample(check_count(n), Draw(generator, device, dtype))

    def box(self, widths: float = 4.0) -> tuple[Tensor, Tensor]:
        """Lower and upper corner, (D,) each: all centres, and `widths` standard deviations more."""
        return self._frame(widths)

    def grid(
        self,
        n: int = 200,
        widths: float = 4.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Grid:
        """n points along each side of `box(widths)`, to draw on or to sum over."""
        grid = _mesh(*self.box(widths), [check_count(n)] * self.dim)
        to = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        return Grid(grid.points.to(**to), tuple(a.to(**to) for a in grid.axes), grid.cell)

    def entropy(self) -> float:
        """-E log p(x) in nats: the lowest mean negative log-likelihood that a model can reach."""
        if not hasattr(self, "_entropy"):
            self._entropy = float(self.expectation(lambda x, log_p: -log_p))
        return self._entropy

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D), float64."""
        mean = self.expectation(lambda x, log_p: x)
        cov = self.expectation(lambda x, log_p: (x - mean)[:, :, None] * (x - mean)[:, None, :])
        return mean, cov

    def expectation(self, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """E f(x, log p(x)) by the trapezoidal rule, float64. f: (B, D), (B,) -> (B, ...).

        The rule converges exponentially for a function that is analytic and decays: at 1.5 points
        per standard deviation the entropies of this book are right to 2e-5 (tests/data).
        """
        low, high = self.box(8.0)
        counts = [math.ceil(1.5 * s / self.width) + 1 for s in (high - low).tolist()]
        if math.prod(counts) > _MAX_POINTS:
            raise ValueError(
                f"{self!r} needs {math.prod(counts):,} points for a quadrature, more than "
                f"{_MAX_POINTS:,}: it has {self.dim} dimensions and details of {self.width:.2g}; "
                "average over samples instead"
            )
        grid = _mesh(low, high, counts)
        with torch.no_grad():
            log_p = self.log_prob(grid.points)
            p, keep = log_p.exp() * grid.cell, log_p > -700  # below that, exp gives 0 and p f NaN
            return torch.einsum("b,b...->...", p[keep], f(grid.points[keep], log_p[keep]))


class Draw:
    """Random numbers with the generator, device and dtype that a caller of `sample` asked for.

    >>> Draw(torch.Generator().manual_seed(0), dtype=torch.float64).uniform(2).dtype
    torch.float64
    """

    def __init__(self, generator=None, device=None, dtype=None):
        if device is None:
            device = "cpu" if generator is None else generator.device
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if not dtype.is_floating_point:
            raise TypeError(f"dtype must be floating point, not {dtype}")
        self.generator = generator
        self.to = {"device": device, "dtype": dtype}

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, **self.to)

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1)."""
        return torch.rand(*shape, generator=self.generator, **self.to)

    def choice(self, weights: Tensor, n: int) -> Tensor:
        """n indices with these probabilities, (n,) int64."""
        weights = weights.detach().to(device=self.to["device"], dtype=torch.float32)
        return weights.multinomial(n, replacement=True, generator=self.generator)

    def take(self, table: Tensor, index: Tensor) -> Tensor:
        """Rows of a table of constants, on our device and in our dtype."""
        return table.detach().to(**self.to)[index]


def _mesh(low: Tensor, high: Tensor, counts: list[int]) -> Grid:
    sides = list(zip(low.tolist(), high.tolist(), counts, strict=True))
    axes = [torch.linspace(a, b, n, dtype=torch.float64) for a, b, n in sides]
    cell = math.prod((b - a) / max(n - 1, 1) for a, b, n in sides)
    # reversed twice: the last index of meshgrid runs fastest, and that is to be x
    points = torch.stack(torch.meshgrid(*axes[::-1], indexing="ij")[::-1], -1)
    return Grid(points.reshape(-1, len(axes)), tuple(axes), cell)


def segment_logsumexp(log: Tensor, row: Tensor, n: int) -> Tensor:
    """logsumexp of the entries that share a row: (M,), (M,) -> (n,).

    >>> log, row = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0, 0, 1])
    >>> segment_logsumexp(log, row, 2)
    tensor([0.6931, 1.0000])
    """
    top = log.detach().new_full((n,), -math.inf).scatter_reduce(0, row, log.detach(), "amax")
    return top + log.new_zeros(n).index_add(0, row, (log - top[row]).exp()).log()
