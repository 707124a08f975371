"""What a second process brings: python -m tests.benchmarks.scaling [rounds]

Training steps of the same global batch in one process and in two, which share it by gloo and
DistributedDataParallel on this machine, one thread each, in turn. Printed for each model: the
medians over the rounds of seconds for a step by the clock and, of the first process, by the
processor, which a busy machine changes less. What the processor's time does not show is waiting.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch._dynamo  # noqa: F401 -- an optimiser's first step imports it
from torch import nn

from lib.diffusion.recipes import small_model
from lib.train import fit
from lib.train.workers import joined
from lib.vae.recipes import mnist_small_model
from tests.benchmarks.shapes import machine
from tests.train.together import ends

STEPS = 6
CASES = {
    # name: model, examples in a minibatch
    "VAE mnist_small, 0.74M parameters": (mnist_small_model, 200),
    "U-Net ddpm_mnist, 1.1M parameters": (small_model, 32),
}


def one(name: str, path: Path) -> None:
    """Seconds for a step of this process, by clock and processor, after a first one."""
    torch.set_num_threads(1)
    make, batch = CASES[name]
    with joined(torch.device("cpu")):
        model: nn.Module = make()
        images = (torch.rand(4 * batch, 1, 28, 28) < 0.2).float()
        labels = {"context": torch.arange(len(images)) % 10} if make is small_model else {}
        for update in fit(model, images, steps=STEPS, batch_size=batch, progress=False, **labels):
            if update.step == 1:
                wall, busy = time.perf_counter(), time.process_time()
        spent = time.perf_counter() - wall, time.process_time() - busy
    path.write_text(json.dumps([seconds / (STEPS - 1) for seconds in spent]))


def together(name: str, n: int, folder: Path) -> list[float]:
    """The first of n processes' seconds for a step."""
    found = ends(n, lambda rank: one(name, folder / str(rank)))
    if any(found):
        raise SystemExit(f"a process of {n} ended with {found}")
    return json.loads((folder / "0").read_text())


def main(rounds: int = 5) -> None:
    print(json.dumps(machine(torch.device("cpu"))))
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            seen: dict[int, list[list[float]]] = {1: [], 2: []}
            for _ in range(rounds):
                for n, found in seen.items():
                    found.append(together(name, n, Path(folder)))
            for n, found in seen.items():
                wall, busy = (statistics.median(column) for column in zip(*found, strict=True))
                print(f"{name}, {n} process(es): {wall:.4f} s a step, {busy:.4f} of the processor")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
