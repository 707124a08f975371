"""Linear maps whose determinant costs D operations, not D^3."""

import torch
from torch import Tensor, nn

from lib.flows.elementwise import check_data
from lib.flows.transform import Transform


class LULinear(Transform):
    """x = W z + shift, W = L U: L unit lower triangular, U upper with a positive diagonal.

    det L = 1 and det U is the product of its diagonal, so log|det dx/dz| = sum(log_diag), in O(D).
    Solving the two triangular systems inverts the map in O(D^2) for each example. Starts as the
    identity.

    Not every matrix is such a product (its leading minors must be positive): put a `Rotation` or a
    permutation before it where that matters. Glow, Kingma and Dhariwal (2018), section 3.2.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.shape = (dim,)
        self.lower_upper = nn.Parameter(torch.zeros(dim, dim))  # L below its diagonal, U above it
        self.log_diag = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def init_from(self, x: Tensor) -> "LULinear":
        """Start where z has mean 0 and covariance I: W is a Cholesky factor of the data's."""
        check_data(self, x)
        centred = x - x.mean(0)
        cov = centred.T @ centred / len(x)
        var = cov.diagonal()  # raised a little: constant and collinear coordinates have no factor
        factor = torch.linalg.cholesky(cov + torch.where(var > 1e-6, 1e-5 * var, 1e-6).diag())
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
        return z @ upper.T @ lower.T + self.shift, self.log_diag.sum().repeat(len(z))


class Rotation(Transform):
    """x = Q z with Q = exp(A - A^T), orthogonal with det Q = 1: log|det| = 0, the inverse is Q^T.

    The matrix exponential of a skew-symmetric matrix reaches every rotation. Starts at a random
    one, so that a stack of rotations and elementwise maps does not start symmetric. The exponential
    costs O(D^3), once for a whole batch.
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
        return x @ self.matrix(), x.new_zeros(len(x))

    def from_base(self, z, context=None):
        self.check(z, context)
        return z @ self.matrix().T, z.new_zeros(len(z))
