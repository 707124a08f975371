"""Densities known up to a constant, p(z) = exp(-U(z)) / Z, and fitting a flow to them.

The four test energies are table 1 of Rezende and Mohamed (2015); all map (B, 2) -> (B,), in nats.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lib.flows.flow import Flow
from lib.train import Update, fit
from lib.utils import check_batch, check_count

Energy = Callable[[Tensor], Tensor]


def U1(z: Tensor) -> Tensor:
    """Two arcs of a ring of radius 2.

    >>> U1(torch.tensor([[2.0, 0.0], [0.0, 0.0]])).round(decimals=3)
    tensor([-0.0000, 17.3620])
    """
    check_batch(z, 2, "z", finite=False)
    ring = 0.5 * ((torch.linalg.vector_norm(z, dim=1) - 2) / 0.4) ** 2
    return ring - _log_sum(z[:, 0] - 2, z[:, 0] + 2, 0.6, 0.6)


def U2(z: Tensor) -> Tensor:
    """A sine wave of period 4 and height 1 along z_1.

    >>> U2(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    tensor([0.0000, 3.1250])
    """
    check_batch(z, 2, "z", finite=False)
    return 0.5 * ((z[:, 1] - _w1(z)) / 0.4) ** 2


def U3(z: Tensor) -> Tensor:
    """The wave splits in two between z_1 = 0 and 2.

    >>> U3(torch.tensor([[1.0, 1.0], [1.0, -2.0]])).round(decimals=3)  # on either branch
    tensor([-0., -0.])
    """
    check_batch(z, 2, "z", finite=False)
    down = z[:, 1] - _w1(z)
    w2 = 3 * torch.exp(-0.5 * ((z[:, 0] - 1) / 0.6) ** 2)
    return -_log_sum(down, down + w2, 0.35, 0.35)


def U4(z: Tensor) -> Tensor:
    """The wave forks at z_1 = 1.

    >>> U4(torch.tensor([[-2.0, 0.0], [-2.0, 2.0]])).round(decimals=3)
    tensor([-0.6930, 12.4780])
    """
    check_batch(z, 2, "z", finite=False)
    down = z[:, 1] - _w1(z)
    w3 = 3 * torch.sigmoid((z[:, 0] - 1) / 0.3)
    return -_log_sum(down, down + w3, 0.4, 0.35)


ENERGIES: dict[str, Energy] = {"U1": U1, "U2": U2, "U3": U3, "U4": U4}


def _w1(z: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * z[:, 0] / 4)


def _log_sum(a: Tensor, b: Tensor, a_width: float, b_width: float) -> Tensor:
    """log(exp(-(a / a_width)^2 / 2) + exp(-(b / b_width)^2 / 2))."""
    return torch.logaddexp(-0.5 * (a / a_width) ** 2, -0.5 * (b / b_width) ** 2)


def boxed(energy: Energy, half: float = 4.0, wall: float = 0.2) -> Energy:
    """The energy with a soft wall: + ((|z_i| - half) / wall)^2 / 2 for each |z_i| > half.

    U2, U3 and U4 do not fall off along z_1: on the whole plane exp(-U) has no finite integral, and a
    flow fitted to it would spread for ever. Behind the wall it is a density; `log_z` of it is over a
    wider box.

    >>> boxed(U2, half=4.0)(torch.tensor([[6.0, 0.0]])) > U2(torch.tensor([[6.0, 0.0]]))
    tensor([True])
    """

    def confined(z: Tensor) -> Tensor:
        return energy(z) + 0.5 * (((z.abs() - half) / wall).relu() ** 2).sum(1)

    return confined


def grid(half: float = 4.0, n: int = 800, **kwargs) -> Tensor:
    """Centres of n x n equal cells of the square [-half, half]^2: (n n, 2), first z_1 then z_2.

    kwargs are dtype (default float64) and device.

    >>> grid(half=1.0, n=2)
    tensor([[-0.5000, -0.5000],
            [-0.5000,  0.5000],
            [ 0.5000, -0.5000],
            [ 0.5000,  0.5000]], dtype=torch.float64)
    """
    if not half > 0:
        raise ValueError(f"half a side of the square is above 0, got {half}")
    axis = (torch.arange(check_count(n), **{"dtype": torch.float64, **kwargs}) + 0.5) * (
        2 * half / n
    ) - half
    return torch.cartesian_prod(axis, axis)


@torch.no_grad()
def log_z(energy: Energy, half: float = 4.0, n: int = 800, **kwargs) -> float:
    """log of the integral of exp(-U) over the square [-half, half]^2, by the midpoint rule, in nats.

    >>> round(log_z(lambda z: 0.5 * z.square().sum(1), half=8.0), 6)  # log 2 pi
    1.837877
    """
    z = grid(half, n, **kwargs)
    return (torch.logsumexp(-energy(z), 0) + 2 * math.log(2 * half / n)).item()


class ReverseKL(nn.Module):
    """Fit a flow q to exp(-U) / Z: the loss of one base draw is log q(x) + U(x), x = from_base(z).

    Its mean is KL(q || p) - log Z >= -log Z, so the divergence is known where Z is. Needs only
    `from_base`, and no data: `fit(ReverseKL(flow, U1), lambda n: torch.randn(n, 2), steps=...)`.

    `heat` = beta_t < 1 in log q(x) + beta_t U(x) flattens the target early in training (Rezende and
    Mohamed 2015, section 6): `anneal` sets it as it goes.

    >>> from lib.flows.builders import planar_flow
    >>> ReverseKL(Flow(planar_flow(2, 4), 2), U1)(torch.randn(5, 2)).shape
    torch.Size([5])
    """

    def __init__(self, flow: Flow, energy: Energy, heat: float = 1.0):
        super().__init__()
        self.flow, self.energy, self.heat = flow, energy, heat
        self.rise = 1.0  # the share of `heat` that `anneal` trains at

    @property
    def takes_context(self) -> bool:
        return self.flow.takes_context

    def forward(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """log q(x) + heat U(x) in nats, for x made from base draws: (B, D) -> (B,).

        In training mode times `rise`; what is validated is the whole, or early steps would look best.
        """
        x, log_q = self.flow.sample_with_log_prob(len(noise), context, noise=noise)
        heat = self.heat * (self.rise if self.training else 1.0)
        return log_q + heat * self.energy(x)

    @torch.no_grad()
    def kl(self, noise: Tensor, log_z: float) -> tuple[float, float]:
        """KL(q || p) in nats and its standard error, from base draws (B, D)."""
        check_count(len(noise), "the number of draws, for a standard error,", 2)
        x, log_q = self.flow.sample_with_log_prob(len(noise), noise=noise)
        loss = (log_q + self.energy(x)).double()
        return loss.mean().item() + log_z, loss.std().item() / len(loss) ** 0.5


def anneal(
    model: ReverseKL, steps: int = 1000, start: float = 0.1, lr: float = 4e-2, **settings
) -> Iterator[Update]:
    """`fit` on draws from the base, while `heat` rises from `start` of it to all over 60% of the steps.

    start=1 leaves the energy alone: then a flow may settle on some of the modes, and the reverse
    divergence, an average over the flow's own samples, hardly sees the others. `settings` are those
    of `fit`. 32 planar layers on one of the four energies take 2 s of one core.

    >>> from lib.flows.builders import planar_flow
    >>> model = ReverseKL(Flow(planar_flow(2, 2), 2), U1)
    >>> len([*anneal(model, steps=3, batch_size=8, progress=False)])
    3
    """
    if not 0 < start <= 1:
        raise ValueError(f"start is the first heat, above 0 and at most 1; got {start}")
    try:
        noise = _Heating(model, start, 0.6 * steps)
        yield from fit(model, noise, steps=steps, lr=lr, **{"clip": 5.0, **settings})
    finally:
        model.rise = 1.0


class _Heating:
    """Base draws for each step of `anneal`, and the heat it is taken at; checkpoints hold the step."""

    def __init__(self, model: ReverseKL, start: float, steps: float):
        self.model, self.start, self.steps, self.done = model, start, steps, 0

    def __call__(self, n: int) -> Tensor:
        flow, like = self.model.flow, next(self.model.parameters(), torch.empty(0))
        self.model.rise = min(1.0, self.start + (1 - self.start) * self.done / self.steps)
        self.done += 1
        return flow.base.draw(n, *flow.shape, device=like.device, dtype=like.dtype)

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]


@torch.no_grad()
def forward_kl(flow: Flow, energy: Energy, half: float = 4.0, n: int = 200) -> float:
    """KL(p || q) in nats by quadrature over the square: large where q has missed a mode of p.

    Needs `to_base`: the density of q at given points.

    >>> from lib.flows.elementwise import Affine
    >>> normal = lambda z: 0.5 * z.square().sum(1)
    >>> abs(forward_kl(Flow(Affine(2), 2), normal, half=6.0)) < 1e-3
    True
    """
    like = next(flow.parameters(), torch.empty(0))
    x = grid(half, n, dtype=like.dtype, device=like.device)
    log_p = torch.log_softmax(-energy(x).double(), 0)  # of the cells
    log_q = flow.log_prob(x).double() + 2 * math.log(2 * half / n)
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum().item()  # 0 log 0 = 0
