"""Data that is drawn at each step, so that a checkpoint can hold where the drawing stands."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Drawn = Tensor | tuple[Tensor, Tensor]


class Draws:
    """A data function with a generator of its own, which checkpoints hold: `draws(n)`.

    `sample(n, generator)` gives x, or (x, context). What it draws depends on `seed` alone, whatever
    else draws from torch's global generator. (But one seed is one stream: after
    `torch.manual_seed(seed)` a model's noise may be the data once more. Give them two.)

    >>> data = Draws(lambda n, generator: torch.randn(n, 2, generator=generator), seed=1)
    >>> data(3).shape
    torch.Size([3, 2])
    """

    def __init__(self, sample: Callable[[int, torch.Generator], Drawn], seed: int = 0):
        self.sample, self.generator = sample, torch.Generator().manual_seed(seed)

    def __call__(self, n: int) -> Drawn:
        return self.sample(n, self.generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Where the generator stands."""
        return {"rng": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["rng"].cpu())


def random_state(data: Any, device: torch.device) -> dict[str, Any]:
    """All that the next draws depend on: torch's global generators, and the data's own.

    >>> sorted(random_state(torch.rand, torch.device("cpu")))
    ['data', 'rng', 'rng_cuda']
    """
    return {
        "rng": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "data": data.state_dict() if hasattr(data, "state_dict") else None,
    }


def set_random_state(state: dict[str, Any], data: Any, device: torch.device) -> None:
    """Put back what `random_state` returned.

    >>> cpu = torch.device("cpu")
    >>> before, x = random_state(None, cpu), torch.rand(3)
    >>> set_random_state(before, None, cpu)
    >>> bool((torch.rand(3) == x).all())
    True
    """
    torch.set_rng_state(state["rng"].cpu())
    if state["rng_cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["rng_cuda"].cpu(), device)
    if state.get("data") is not None and hasattr(data, "load_state_dict"):
        data.load_state_dict(state["data"])


def check_repeats(data: Callable[[int], Drawn], n: int, device: torch.device) -> None:
    """Draw twice from the same state: a function that keeps more than a checkpoint holds is refused.

    Raises:
        ValueError: the draws differ. A resumed run, or another process, would train on other data.

    >>> check_repeats(torch.rand, 3, torch.device("cpu"))  # draws from torch's generator: repeats
    """
    state = random_state(data, device)
    drawn = []
    for _ in range(2):
        batch = data(n)
        drawn.append(batch if isinstance(batch, tuple) else (batch,))
        set_random_state(state, data, device)
    pairs = zip(*drawn, strict=True)
    pairs = [(a, b) for a, b in pairs if a is not None or b is not None]  # no context, twice
    if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
        raise ValueError(
            "the data function gave other examples from the same state of torch's generators, so it "
            "has a state that no checkpoint holds, and a resumed run would not repeat: draw from "
            "torch's global generator, or wrap it as lib.train.Draws(sample, seed) with "
            "sample(n, generator), or give it state_dict and load_state_dict"
        )
