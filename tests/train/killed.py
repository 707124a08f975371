"""Trains in a child that is killed at random moments, until one gets to the end: see test_survive.

Run by itself, because it forks: children then start in milliseconds, and nothing else has used
autograd in this process.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch._dynamo  # noqa: F401 -- an optimiser's first step imports it, which takes a child seconds
from torch import nn

from lib.train import Draws, fit

STEPS = 300


class Noisy(nn.Module):
    """A small regression with noise of its own and dropout, so that randomness must be resumed."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, 1))

    def forward(self, x, context):
        return (x + 0.1 * torch.randn_like(x) - self.net(context)).square().sum(1)


def pairs(n, generator=None):
    c = torch.randn(n, 2, generator=generator)
    return c.prod(1, keepdim=True), c


def train(path: Path, kind: str) -> Noisy:
    torch.manual_seed(0)
    model = Noisy()
    held = pairs(40, torch.Generator().manual_seed(1))
    settings = dict(steps=STEPS, batch_size=16, lr=0.01, ema=0.95, valid=held, valid_every=20)
    if kind == "table":
        data, settings["context"] = pairs(200, torch.Generator().manual_seed(2))
    else:
        data = {"global": pairs, "own": Draws(pairs, 3)}[kind]
    for _ in fit(model, data, checkpoint=path, checkpoint_every=7, progress=False, **settings):
        pass
    return model


def in_child(path: Path, kind: str, life: float | None) -> int:
    """The child's exit status: 0 at the end of training, or minus the signal."""
    child = os.fork()
    if not child:
        try:
            train(path, kind)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if life is not None:
        time.sleep(life)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: str) -> None:
    torch.set_num_threads(1)
    rng, told = random.Random(), {}
    for kind in ("table", "global", "own"):
        whole, parts = Path(folder, f"{kind}-whole.pt"), Path(folder, f"{kind}-parts.pt")
        begun = time.perf_counter()
        assert in_child(whole, kind, None) == 0
        lasts, steps = time.perf_counter() - begun, []
        for _ in range(4):
            if in_child(parts, kind, rng.uniform(0.05, 0.4) * lasts) == -signal.SIGKILL:
                steps.append(torch.load(parts)["step"] if parts.exists() else 0)
        assert in_child(parts, kind, None) == 0
        a, b = (torch.load(path) for path in (whole, parts))
        same = {
            name: all(torch.equal(v, b[name][key]) for key, v in a[name].items())
            for name in ("model", "ema", "best")
        }
        told[kind] = {"killed after": steps, "end": b["step"], "same": same}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
