"""A Boltzmann machine small enough to sum over all of its states: the cost of a partition function."""

import torch
from torch import Tensor, nn

from lib.utils import check_batch, check_count

MOST_SPINS = 20  # a million states


class BoltzmannMachine(nn.Module):
    """p(y) = exp(-E(y)) / Z for D spins y_i = +-1, with E(y) = -1/2 y'Wy - b'y.

    W is symmetric with a zero diagonal; its D (D - 1) / 2 free entries are the parameter `upper`.
    Ackley, Hinton and Sejnowski (1985), with spins of +-1.

    >>> model = BoltzmannMachine(3, scale=1.0)
    >>> model.log_prob(model.states()).exp().sum().detach().round(decimals=5)
    tensor(1.)
    """

    def __init__(self, D: int, scale: float = 0.0, generator: torch.Generator | None = None):
        super().__init__()
        if check_count(D, "D") > MOST_SPINS:
            raise ValueError(
                f"{D} spins have 2^{D} states: at most {MOST_SPINS} can be summed here"
            )
        self.D = D
        draw = torch.randn(D * (D - 1) // 2 + D, generator=generator) * scale
        self.upper, self.b = nn.Parameter(draw[D:].clone()), nn.Parameter(draw[:D].clone())

    @property
    def W(self) -> Tensor:
        """(D, D)"""
        half = self.upper.new_zeros(self.D, self.D)
        i, j = torch.triu_indices(self.D, self.D, 1, device=half.device)
        half = half.index_put((i, j), self.upper)
        return half + half.T

    def energy(self, y: Tensor) -> Tensor:
        """(B, D) -> (B,)"""
        check_batch(y, self.D, "y", finite=False)
        return -0.5 * ((y @ self.W) * y).sum(1) - y @ self.b

    def states(self) -> Tensor:
        """All 2^D of them: (2^D, D)."""
        bits = torch.arange(2**self.D, device=self.b.device)[:, None]
        return ((bits >> torch.arange(self.D, device=self.b.device)) & 1).to(self.b) * 2 - 1

    def log_partition(self) -> Tensor:
        """log Z, by summing over 2^D states: ()."""
        return (-self.energy(self.states())).logsumexp(0)

    def log_prob(self, y: Tensor) -> Tensor:
        """(B, D) -> (B,), in nats."""
        return -self.energy(y) - self.log_partition()

    def forward(self, y: Tensor, context: None = None) -> Tensor:
        """The loss -log p(y), in nats: (B, D) -> (B,)."""
        return -self.log_prob(y)

    def moments(self) -> tuple[Tensor, Tensor]:
        """E[y_i y_j] (D, D) and E[y_i] (D,) under the model, by summing over all states."""
        y = self.states()
        p = (-self.energy(y)).softmax(0)
        return (p[:, None] * y).T @ y, p @ y

    def log_prob_grad(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the mean log p(y) with respect to W_ij (both W_ij and W_ji moved) and b_i.

        E_data[y_i y_j] - E_model[y_i y_j] off the diagonal, and E_data[y_i] - E_model[y_i].
        """
        check_batch(y, self.D, "y", finite=False)
        check_count(len(y), "the number of examples")
        pair, mean = self.moments()
        return y.T @ y / len(y) - pair, y.mean(0) - mean

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n exact draws, (n, D)."""
        check_count(n)
        p = (-self.energy(self.states())).softmax(0)
        return self.states()[p.multinomial(n, replacement=True, generator=generator)]
