"""Training on the clock, and what a training hands over to be measured."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.results.protocol import Reading
from lib.train import Data, fit
from lib.vae.elbo import importance_bound


class Trained(NamedTuple):
    """A trained model: one reading or several (by the name of the table's row), and its price."""

    module: nn.Module
    readings: dict[str, Reading]
    seconds: float  # of the processor
    wall: float
    steps: int

    @property
    def parameters(self) -> int:
        """How many numbers were learnt, those of frozen parts included."""
        return sum(p.numel() for p in self.module.parameters())


class Spent(NamedTuple):
    seconds: float
    wall: float
    steps: int


class Clock:
    """Runs from where it is made."""

    def __init__(self) -> None:
        self.begun = time.process_time(), time.perf_counter()

    def spent(self, steps: int) -> Spent:
        """Since then."""
        cpu, wall = self.begun
        return Spent(time.process_time() - cpu, time.perf_counter() - wall, steps)


def train(
    model: nn.Module, data: Data, share: float = 1.0, warm_up: bool = False, **settings: Any
) -> Spent:
    """`fit` with its settings and `share` of their steps, to the end; what that took.

    warm_up: the weight of a VAE's divergence rises from 0 to 1 over the first half of the steps, so
    that the decoder learns to use z before z is taxed (chapter 3's remedy for a collapse). The
    averaged copy, which is what is validated, has the weight 1 throughout.
    """
    steps = max(2, round(share * settings["steps"]))
    clock = Clock()
    updates = fit(model, data, **settings | {"steps": steps, "progress": False})
    if warm_up:  # a tensor: fit gives the model's plain numbers to the averaged copy too
        model.kl_weight = torch.tensor(0.0)
    for update in updates:
        if warm_up:
            model.kl_weight = torch.tensor(min(1.0, 2 * update.step / steps))
    if warm_up:
        model.kl_weight = 1.0
    return clock.spent(steps)


def finish(model: nn.Module, readings: dict[str, Reading], *spent: Spent) -> Trained:
    """What is handed over, in eval mode and without gradients; the prices of all stages add up."""
    model.eval().requires_grad_(False)
    return Trained(model, readings, *(sum(column) for column in zip(*spent, strict=True)))


class Calls:
    """Counts how often networks are asked while `draw` runs: wrapped(n) draws, `.count` tells."""

    def __init__(self, networks: Sequence[nn.Module], draw: Callable[[int], Tensor]):
        self.draw, self.count = draw, 0
        for network in networks:
            network.register_forward_hook(self._one)

    def _one(self, *_: Any) -> None:
        self.count += 1

    def __call__(self, n: int) -> Tensor:
        self.count = 0
        return self.draw(n)


def counted(
    networks: Sequence[nn.Module],
    nats: Callable[[Tensor], Tensor],
    draw: Callable[[int], Tensor],
    kind: str,
    tighter: Callable[[Tensor], Tensor] | None = None,
) -> Reading:
    """A reading whose calls are those of `networks` during `draw`."""
    calls = Calls(networks, draw)
    return Reading(nats, calls, lambda: calls.count, kind, tighter)


def average(nats: Callable[[Tensor], Tensor], draws: int) -> Callable[[Tensor], Tensor]:
    """The mean of several draws of a random score, example by example."""
    return lambda x: torch.stack([nats(x) for _ in range(draws)]).mean(0)


def weighted(nats: Callable[[Tensor], Tensor], draws: int) -> Callable[[Tensor], Tensor]:
    """-log of the mean of exp(-nats) over draws: the importance-weighted bound (Burda et al. 2016).

    Below `average` for any number of draws above one, and above -log p still.
    """
    return lambda x: -importance_bound(torch.stack([-nats(x) for _ in range(draws)]))


def in_parts(nats: Callable[[Tensor], Tensor], size: int) -> Callable[[Tensor], Tensor]:
    """The same for long lists of examples, `size` at a time."""
    return lambda x: torch.cat([nats(part) for part in x.split(size)])
