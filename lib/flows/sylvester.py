"""Sylvester flows: planar maps with M directions at once instead of one."""

import torch
from torch import Tensor, nn

from lib.flows.planar import MARGIN, log_slope, solve
from lib.flows.transform import Transform
from lib.utils import check_count, full_precision


class Sylvester(Transform):
    """x = z + Q R tanh(R~ Q^T z + b): Q (D, M) orthonormal columns, R and R~ upper triangular.

        log|det dx/dz| = sum_i log(1 + r_ii r~_ii (1 - tanh^2(s_i))),  s = R~ Q^T z + b    in O(M)

    by Sylvester's identity det(I_D + A B) = det(I_M + B A), whose right side is triangular here. A
    bijection where r_ii r~_ii > -1; both diagonals lie in (-1, 1). van den Berg et al. (2018),
    section 3, with M Householder reflections for Q (their H-SNF).

    `to_base`: what is orthogonal to Q's columns does not move, and y = Q^T z -> y + R tanh(R~ y + b)
    is triangular: M root findings, each of one number, from the last coordinate to the first. With
    `context` = C > 0 a linear layer of the context, (B, C), gives each example its own Q, R, R~, b.

    >>> layer = Sylvester(4, columns=2)
    >>> z = torch.randn(3, 4)
    >>> torch.allclose(layer.to_base(layer.from_base(z)[0])[0], z, atol=1e-4)
    True
    """

    def __init__(self, dim: int, columns: int, context: int = 0):
        super().__init__()
        M, D = check_count(columns, "columns"), check_count(dim, "dim")
        if M > D:
            raise ValueError(f"{D} dimensions have at most {D} orthonormal columns, got {M}")
        self.shape, self.columns, self.takes_context = (D,), M, context > 0
        if context:
            self.net = nn.Linear(context, D * M + 2 * M * M + M)
        else:
            self.reflect = nn.Parameter(torch.randn(D, M))
            self.r = nn.Parameter(0.1 * torch.randn(M, M))  # upper triangles are read
            self.r2 = nn.Parameter(torch.randn(M, M) / M**0.5)
            self.b = nn.Parameter(torch.zeros(M))

    def layer(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q (D, M), R and R~ (M, M), b (M,); with a context (B, ...) each."""
        D, M = self.shape[0], self.columns
        if context is None:
            reflect, r, r2, b = self.reflect, self.r, self.r2, self.b
        else:
            h = self.net(context).to(self.net.weight.dtype)
            reflect, r, r2, b = h.split([D * M, M * M, M * M, M], 1)
            reflect, r, r2 = reflect.view(-1, D, M), r.view(-1, M, M), r2.view(-1, M, M)
        return orthonormal(reflect), upper(r), upper(r2), b

    def from_base(self, z, context=None):
        self.check(z, context)
        Q, R, R2, b = self.layer(context)
        t = torch.tanh(apply(R2, apply(Q.mT, z)) + b)
        return z + apply(Q, apply(R, t)), log_slope(t, diagonal(R, R2)).sum(1)

    def to_base(self, x, context=None):
        self.check(x, context)
        Q, R, R2, b = self.layer(context)
        target, m = apply(Q.mT, x), diagonal(R, R2)
        y, t = [], []  # from coordinate i on
        for i in reversed(range(self.columns)):
            c, rest = target[:, i], b[..., i]
            if t:
                c = c - (R[..., i, i + 1 :] * torch.stack(t, 1)).sum(1)
                rest = rest + (R2[..., i, i + 1 :] * torch.stack(y, 1)).sum(1)
            t_i = torch.tanh(solve(R2[..., i, i] * c + rest, m[..., i]))
            y, t = [c - R[..., i, i] * t_i, *y], [t_i, *t]
        t = torch.stack(t, 1)
        return x - apply(Q, apply(R, t)), -log_slope(t, m).sum(1)


def orthonormal(reflect: Tensor) -> Tensor:
    """(..., D, M) -> the first M columns of H_1 ... H_M, H_i = I - 2 v v^T / |v|^2, v_i = 1.

    The v are the columns below the diagonal: they cannot vanish, so nothing divides by zero.

    >>> Q = orthonormal(torch.randn(4, 2))
    >>> torch.allclose(Q.T @ Q, torch.eye(2), atol=1e-5)
    True
    """
    tau = 2 / (1 + reflect.tril(-1).square().sum(-2))
    return torch.linalg.householder_product(reflect, tau)


def upper(raw: Tensor) -> Tensor:
    """An upper triangle whose diagonal lies in (-1, 1), so that a product of two is above -1.

    >>> upper(torch.full((2, 2), 100.0))
    tensor([[  0.9990, 100.0000],
            [  0.0000,   0.9990]])
    """
    diag = (1 - MARGIN) * torch.tanh(raw.diagonal(dim1=-2, dim2=-1))
    return raw.triu(1) + torch.diag_embed(diag)


def diagonal(R: Tensor, R2: Tensor) -> Tensor:
    """r_ii r~_ii, (..., M): the numbers that must stay above -1.

    >>> diagonal(torch.eye(2), 3 * torch.eye(2))
    tensor([3., 3.])
    """
    return R.diagonal(dim1=-2, dim2=-1) * R2.diagonal(dim1=-2, dim2=-1)


def apply(matrix: Tensor, z: Tensor) -> Tensor:
    """The matrix, or each example's own, times each row: (..., N, M), (B, M) -> (B, N).

    >>> apply(2 * torch.eye(2), torch.tensor([[1.0, 3.0]]))
    tensor([[2., 6.]])
    """
    with full_precision(z):
        return (matrix @ z[..., None])[..., 0] if matrix.ndim == 3 else z @ matrix.mT
