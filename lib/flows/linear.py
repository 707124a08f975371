"""Linear maps whose determinant costs D operations, not D^3."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.flows.elementwise import check_data
from lib.flows.transform import Compose, Transform
from lib.utils import full_precision


class LULinear(Transform):
    """x = W z + shift, W = L U: L unit lower triangular, U upper with a positive diagonal.

    det L = 1 and det U is the product of its diagonal, so log|det dx/dz| = sum(log_diag), in O(D).
    Solving the two triangular systems inverts the map in O(D^2) for each example. Starts as the
    identity.

    Not every matrix is such a product (its leading minors must be positive): put a `Rotation` or a
    permutation before it where that matters. Glow, Kingma and Dhariwal (2018), section 3.2.

    >>> x = torch.randn(500, 3) @ torch.randn(3, 3)
    >>> z, _ = LULinear(3).init_from(x).to_base(x)
    >>> torch.allclose(z.T.cov(), torch.eye(3), atol=1e-2)
    True
    """

    def __init__(self, dim: int):
        super().__init__()
        self.shape = (dim,)
        self.lower_upper = nn.Parameter(torch.zeros(dim, dim))  # L below its diagonal, U above it
        self.log_diag = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def init_from(self, x: Tensor) -> "LULinear":
        """Start where z has mean 0 and covariance I: W is a Cholesky factor of the data's.

        Variances are raised by 1e-5 of themselves, those up to 1e-6 by 1e-6: data in such units are
        to be scaled before.
        """
        check_data(self, x)
        centred = x - x.mean(0)
        with full_precision(x):
            cov = centred.T @ centred / len(x)
        var = cov.diagonal()  # raised a little: constant and collinear coordinates have no factor
        little = 1e-5 * max(1.0, len(var) / 64)  # above the rounding of the largest eigenvalue
        factor = torch.linalg.cholesky(cov + torch.where(var > 1e-6, little * var, 1e-6).diag())
        diag = factor.diagonal()
        self.lower_upper.copy_((factor / diag).tril(-1))
        self.log_diag.copy_(diag.log())
        self.shift.copy_(x.mean(0))
        return self

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U, both (D, D)."""
        lower = self.lower_upper.tril(-1) + torch.eye(len(self.shift)).to(self.shift)
        upper = self.lower_upper.triu(1) + self.log_diag.exp().diag()
        return lower, upper

    def to_base(self, x, context=None):
        self.check(x, context)
        lower, upper = self.factors()
        y = torch.linalg.solve_triangular(
            lower, (x - self.shift).T, upper=False, unitriangular=True
        )
        z = torch.linalg.solve_triangular(upper, y, upper=True).T
        return z, -self.log_diag.sum().repeat(len(x))

    def from_base(self, z, context=None):
        self.check(z, context)
        lower, upper = self.factors()
        with full_precision(z):
            x = z @ upper.T @ lower.T + self.shift
        return x, self.log_diag.sum().repeat(len(z))


class Rotation(Transform):
    """x = Q z with Q = exp(A - A^T), orthogonal with det Q = 1: log|det| = 0, the inverse is Q^T.

    The matrix exponential of a skew-symmetric matrix reaches every rotation. Starts at a random
    one, so that a stack of rotations and elementwise maps does not start symmetric. The exponential
    costs O(D^3), once for a whole batch.

    >>> torch.linalg.det(Rotation(3).matrix()).detach().round(decimals=4)
    tensor(1.)
    """

    def __init__(self, dim: int):
        super().__init__()
        self.shape = (dim,)
        self.skew = nn.Parameter(torch.randn(dim, dim))

    def matrix(self) -> Tensor:
        """Q, (D, D)."""
        return torch.linalg.matrix_exp(self.skew - self.skew.T)

    def to_base(self, x, context=None):
        self.check(x, context)
        return _mix(self.matrix().T, x), x.new_zeros(len(x))

    def from_base(self, z, context=None):
        self.check(z, context)
        return _mix(self.matrix(), z), z.new_zeros(len(z))


class QRLinear(Transform):
    """x = Q R z + shift: Q orthogonal, R upper triangular with diagonal exp(log_diag).

    Q is a product of D Householder reflections, one for each row v of `mirrors`; log|det dx/dz| is
    sum(log_diag), as |det Q| = 1. Starts at a random Q with R = I. Hoogeboom et al. (2019).

    >>> Q, R = QRLinear(3).factors()
    >>> torch.allclose(Q.T @ Q, torch.eye(3), atol=1e-5)
    True
    """

    def __init__(self, dim: int):
        super().__init__()
        self.shape = (dim,)
        self.mirrors = nn.Parameter(torch.randn(dim, dim))
        self.upper = nn.Parameter(torch.zeros(dim, dim))  # R above its diagonal
        self.log_diag = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Q and R, both (D, D).

        The product of all I - 2 v v^T (unit v, the columns of V) is I - V T^-1 V^T, with T the
        upper triangle of V^T V and 1/2 on its diagonal: one solve in place of D products.
        """
        V = F.normalize(self.mirrors, dim=1).T
        eye = torch.eye(len(V), dtype=V.dtype, device=V.device)
        with full_precision(V):
            T = (V.T @ V).triu(1) + 0.5 * eye
            Q = eye - V @ torch.linalg.solve_triangular(T, V.T, upper=True)
        return Q, self.upper.triu(1) + self.log_diag.exp().diag()

    def to_base(self, x, context=None):
        self.check(x, context)
        Q, R = self.factors()
        with full_precision(x):
            turned = Q.T @ (x - self.shift).T
        z = torch.linalg.solve_triangular(R, turned, upper=True).T
        return z, -self.log_diag.sum().repeat(len(x))

    def from_base(self, z, context=None):
        self.check(z, context)
        Q, R = self.factors()
        with full_precision(z):
            x = z @ (Q @ R).T + self.shift
        return x, self.log_diag.sum().repeat(len(z))


class Channels(Transform):
    """What acts on dimension 1, of any vectors or images with `count` channels.

    >>> Conv1x1(3).to_base(torch.ones(2, 4))
    Traceback (most recent call last):
        ...
    ValueError: Conv1x1 expected shape (B, 3, ...), got (2, 4)
    """

    count: int

    def check(self, x, context=None):
        super().check(x, context)
        if x.shape[1] != self.count:
            raise ValueError(
                f"{type(self).__name__} expected shape (B, {self.count}, ...), got {tuple(x.shape)}"
            )


class Permutation(Channels):
    """z_i = x_order[i], of coordinates (B, D) or channels (B, C, H, W): log|det| = 0.

    >>> Permutation([2, 0, 1]).to_base(torch.tensor([[0.0, 1.0, 2.0]]))[0]
    tensor([[2., 0., 1.]])
    """

    def __init__(self, order: Sequence[int] | Tensor):
        super().__init__()
        order = torch.as_tensor(order)
        if order.ndim != 1 or order.sort().values.tolist() != list(range(len(order))):
            raise ValueError(
                f"order must be a permutation of 0 ... {order.numel() - 1}, got {order.tolist()}"
            )
        self.count = len(order)
        self.register_buffer("order", order.to(torch.int64, copy=True))  # the caller's may change

    def to_base(self, x, context=None):
        self.check(x, context)
        return x.index_select(1, self.order), x.new_zeros(len(x))

    def from_base(self, z, context=None):
        self.check(z, context)
        return z.index_select(1, self.order.argsort()), z.new_zeros(len(z))


class Conv1x1(Channels):
    """Glow's invertible 1 x 1 convolution: x = W z at every pixel, W = P L U, (C, C).

    P is a fixed permutation, L unit lower triangular, U upper triangular with diagonal
    sign exp(log_diag), the signs fixed: log|det dx/dz| = H W sum(log_diag). Starts at a random
    rotation or reflection. Kingma and Dhariwal (2018), section 3.2.

    >>> Conv1x1(3).to_base(torch.ones(2, 3, 4, 4))[1].shape
    torch.Size([2])
    """

    def __init__(self, channels: int):
        super().__init__()
        self.count = channels
        P, L, U = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels)).Q)
        self.register_buffer("permutation", P)
        self.register_buffer("sign", U.diagonal().sign())
        self.lower_upper = nn.Parameter(L.tril(-1) + U.triu(1))
        self.log_diag = nn.Parameter(U.diagonal().abs().log())

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """P, L and U, each (C, C)."""
        lower = self.lower_upper.tril(-1) + torch.eye(self.count).to(self.log_diag)
        return self.permutation, lower, self.lower_upper.triu(1) + self._diag().diag()

    def _diag(self) -> Tensor:
        return self.sign * self.log_diag.exp()

    def to_base(self, x, context=None):
        self.check(x, context)
        P, L, U = self.factors()
        y = torch.linalg.solve_triangular(L, P.T, upper=False, unitriangular=True)
        inverse = torch.linalg.solve_triangular(U, y, upper=True)
        return _mix(inverse, x), -self._log_det(x)

    def from_base(self, z, context=None):
        self.check(z, context)
        P, L, U = self.factors()
        with full_precision(z):
            W = P @ L @ U
        return _mix(W, z), self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return math.prod(x.shape[2:]) * self.log_diag.sum().repeat(len(x))


def _mix(W: Tensor, x: Tensor) -> Tensor:
    """W x at every pixel: (C, C), (B, C, H, W) -> (B, C, H, W)."""
    with full_precision(x):
        return (W @ x.flatten(2)).view_as(x) if x.ndim > 2 else x @ W.T


class ActNorm(Transform):
    """x = exp(log_scale) z + shift with one scale and shift for each channel, or coordinate.

    `ActNorm(2)` acts on (B, 2); `ActNorm(C, H, W)` shares the C pairs among the pixels, so
    log|det dx/dz| = H W sum(log_scale). Starts as the identity; `init_from(x)`, or `start` for a
    whole flow, gives z mean 0 and variance 1 in each channel. Kingma and Dhariwal (2018), 3.1.

    >>> x = 5 + 2 * torch.randn(8, 3, 4, 4)
    >>> z, _ = ActNorm(3, 4, 4).init_from(x).to_base(x)
    >>> torch.allclose(z.var((0, 2, 3)), torch.ones(3), atol=0.1)
    True
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape
        self.copies = math.prod(shape[1:])
        self.log_scale = nn.Parameter(torch.zeros(shape[0], *[1] * (len(shape) - 1)))
        self.shift = nn.Parameter(torch.zeros_like(self.log_scale))

    @torch.no_grad()
    def init_from(self, x: Tensor) -> "ActNorm":
        """Start from a batch, (B, *shape): z of mean 0 and variance 1 in each channel.

        A standard deviation below 1e-3 counts as 1e-3: data in such units are to be scaled before.
        """
        check_data(self, x)
        dims = [0, *range(2, x.ndim)]
        self.shift.copy_(x.mean(dims, keepdim=True)[0])
        std = x.std(dims, correction=0, keepdim=True)[0]
        self.log_scale.copy_(std.clamp_min(1e-3).log())
        return self

    def to_base(self, x, context=None):
        self.check(x, context)
        z = (x - self.shift) * (-self.log_scale).exp()
        return z, -self.copies * self.log_scale.sum().repeat(len(x))

    def from_base(self, z, context=None):
        self.check(z, context)
        x = z * self.log_scale.exp() + self.shift
        return x, self.copies * self.log_scale.sum().repeat(len(z))


@torch.no_grad()
def start(transform: Transform, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Data-driven start of a whole flow: every part with `init_from` starts from what reaches it.

    `x` is a batch of data, (B, ...), and the result its image in the base. Call it once, before
    training; nothing changes unseen while a model runs. Parts are those of `Compose` and
    `MultiScale`: an `Inverse` stays as it is. Networks run in the mode they are in, dropout included.

    >>> start(Compose(ActNorm(2)), torch.tensor([[1.0, 5.0], [3.0, 9.0]]))
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """
    if isinstance(transform, Compose):
        for t in transform.transforms:
            x = start(t, x, context if t.takes_context else None)
        return x
    if hasattr(transform, "start_parts"):
        return transform.start_parts(x, context)
    if hasattr(transform, "init_from"):
        transform.init_from(x)
    return transform.to_base(x, context)[0]
