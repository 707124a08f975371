"""The same trainings in one process, in two and in four: see test_workers, which compares the losses.

Run by itself, because it forks: the processes then start in milliseconds, with what torchrun would
put into their environment, and nothing else has used autograd before.
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # noqa: F401 -- an optimiser's first step imports it, which takes a child seconds
from torch import nn

from lib.train import Draws, fit
from lib.train.workers import joined
from lib.vae.vq import VectorQuantizer


class Regression(nn.Module):
    """Squared error of a small network; with buffers of several kinds, which DDP sends around."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("scale", torch.tensor(2.0, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x, context=None):
        return self.scale.float() * (x - self.net(context)).square().sum(1)


class Noise(nn.Module):
    """A loss that is the model's own noise, to see which process drew what."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.zeros(1)), []

    def forward(self, x, context=None):
        eps = torch.randn_like(x)
        self.seen.append(eps.flatten().tolist())
        return (eps + self.weight).sum(1)


class Codes(nn.Module):
    """A codebook that learns by its gradient, and lies on the first batch at first."""

    def __init__(self):
        super().__init__()
        self.quantizer = VectorQuantizer(3, 2, decay=None)
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, x, context=None):
        return self.quantizer(x + self.shift).loss


def pairs(n, generator=None):
    c = torch.randn(n, 2, generator=generator)
    return c.prod(1, keepdim=True), c


def table(n=200):
    return pairs(n, torch.Generator().manual_seed(2))


def trained(data, **settings):
    """Loss, validation loss and gradient norm of each step, and a sum over the weights at the end."""
    torch.manual_seed(0)
    model = Regression()
    settings = dict(steps=10, batch_size=24, lr=0.01) | settings
    rows = [
        [u.loss, u.valid or 0.0, u.grad_norm] for u in fit(model, data, progress=False, **settings)
    ]
    total = sum(p.double().abs().sum().item() for p in model.parameters())
    return [*rows, [total, 0.0, 0.0]]


def curves() -> dict[str, list[list[float]]]:
    """By name, what must not depend on the number of processes."""
    x, c = table()
    held = pairs(50, torch.Generator().manual_seed(1))
    whole = dict(clip=0.5, ema=0.9, weight_decay=0.01, valid=held, valid_every=2)
    return {
        "a table": trained(x, context=c),
        "drawn from torch's generator": trained(pairs),
        "drawn from a generator of its own": trained(Draws(pairs, 5)),
        "everything": trained(x, context=c, **whole),
        "shares that are not equal": trained(x, context=c, batch_size=23),
        "fewer examples than a minibatch": trained(x[:9], context=c[:9]),
        "in parts": trained(x, context=c, parts=3),
        "stopped early": trained(x, context=c, **whole | dict(steps=40, patience=2, lr=0.2)),
    }


def noise(repeat: int) -> list[list[float]]:
    """What this process's model drew in each of four steps; torch's own seed is `repeat`."""
    torch.manual_seed(repeat)
    model = Noise()
    list(fit(model, torch.zeros(16, 2), steps=4, batch_size=8, seed=1, progress=False))
    return model.seen


def codes() -> list[list[float]]:
    """The codebook after each of three steps."""
    torch.manual_seed(0)
    model, x = Codes(), table()[1]
    steps = fit(model, x, steps=3, batch_size=24, lr=0.1, progress=False)
    return [model.quantizer.codebook.flatten().tolist() for _ in steps]


def work(path: Path) -> None:
    """One process of the job: what it saw of all trainings goes to a file of its own."""
    with joined(torch.device("cpu"), timeout=120) as workers:
        told = {"curves": curves(), "noise": noise(0), "again": noise(1), "size": workers.size}
        told["codes"] = codes()
        Path(path, f"{workers.size}-{workers.rank}.json").write_text(json.dumps(told))


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def ends(n: int, job: Callable[[int], None]) -> list[int]:
    """`job(rank)` in n processes of one training, to the end of all: their exit statuses."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(n)}
    children = []
    for rank in range(n):
        os.environ["RANK"] = str(rank)
        child = os.fork()
        if not child:
            try:
                job(rank)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main(folder: str) -> None:
    torch.set_num_threads(1)
    for n in (1, 2, 4):
        found = ends(n, lambda rank: work(Path(folder)))
        assert found == [0] * n, found


if __name__ == "__main__":
    main(sys.argv[1])
