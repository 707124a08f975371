"""Our U-Net against diffusers' UNet2DModel: same parameters, channels and resolution, one thread.

usage: python -m tests.benchmarks.diffusion [name] [rounds]        (pip install diffusers)

Processor time, in rounds (`rounds.py`). A training step is the mean squared error of the output,
backward and Adam (fused, the same for both). "contiguous" is ours without its channels_last memory;
"bfloat16" is under autocast, on both sides of the ratio. On a GPU, where there is one, a plain float32 loop of ours against bfloat16, channels_last
and torch.compile: milliseconds for each image. Nothing here is an assertion.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.unet import UNet

from .rounds import Row, measure, row, show


class Case(NamedTuple):
    """A network in both libraries, and the batch it is timed with."""

    name: str
    channels: int
    size: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    batch: int


CASES = [
    Case("MNIST", 1, 28, 32, (1, 2, 4), 1, 32),
    Case("CIFAR-10", 3, 32, 64, (1, 2, 2), 1, 8),
    Case("digits", 1, 8, 32, (1, 2), 2, 64),
]


def ours(case: Case) -> UNet:
    options = dict(multipliers=case.multipliers, blocks=case.blocks, heads=32)
    return UNet(case.channels, width=case.width, **options)


def theirs(case: Case) -> nn.Module:
    from diffusers import UNet2DModel

    n = len(case.multipliers)
    return UNet2DModel(
        sample_size=case.size,
        in_channels=case.channels,
        out_channels=case.channels,
        layers_per_block=case.blocks,
        block_out_channels=tuple(case.width * m for m in case.multipliers),
        down_block_types=("DownBlock2D",) * n,
        up_block_types=("UpBlock2D",) * n,
        attention_head_dim=32,
    )


def task(
    name: str, net: nn.Module, call: Callable, x: Tensor, amp: bool = False
) -> Callable[[], None]:
    """What is timed: a function of nothing. `call(net)` is the output."""
    autocast = lambda: torch.autocast(x.device.type, torch.bfloat16, enabled=amp)
    if name == "train":
        opt = torch.optim.Adam(net.parameters(), lr=1e-5, fused=True)

        def step():
            opt.zero_grad()
            with autocast():
                out = call(net)
            (out.float() - x).square().mean().backward()
            opt.step()

        return step

    @torch.no_grad()
    def run():
        with autocast():
            call(net)

    return run


def rows(only: str = "", rounds: int = 9) -> Iterator[Row]:
    """Every comparison whose case's name contains `only`."""
    for case in CASES:
        if only.lower() in case.name.lower():
            yield from compare(case, rounds)


def compare(case: Case, rounds: int) -> Iterator[Row]:
    """Ours against theirs in float32, and in bfloat16; ours against ours in contiguous memory."""
    torch.manual_seed(0)
    x, t = torch.randn(case.batch, case.channels, case.size, case.size), torch.rand(case.batch)
    mine, other = ours(case), theirs(case)
    plain = ours(case).to(memory_format=torch.contiguous_format)
    count = [sum(p.numel() for p in net.parameters()) for net in (mine, other)]
    note = f"parameters {count[0]}, theirs {count[1]}"
    about = ("U-Net", f"{case.name}, {case.size} x {case.size}, batch {case.batch}")
    our_call, their_call = lambda net: net(x, t), lambda net: net(x, 1000 * t).sample
    for name in ("forward", "train"):
        runs = {
            "ours": task(name, mine, our_call, x),
            "diffusers": task(name, other, their_call, x),
            "ours, contiguous": task(name, plain, our_call, x),
            "ours, bfloat16": task(name, mine, our_call, x, True),
            "diffusers, bfloat16": task(name, other, their_call, x, True),
        }
        times = measure(runs, rounds, "processor")
        for a, b in (("ours", "diffusers"), ("ours, bfloat16", "diffusers, bfloat16")):
            label = name if a == "ours" else f"{name}, bfloat16"
            yield row((*about, label), "diffusers", times[a], times[b], "processor", note)
        mark = (*about, name)
        yield row(mark, "ours, contiguous", times["ours"], times["ours, contiguous"], "processor")


def gpu(rounds: int, batch: int = 128) -> None:
    """The CIFAR-10 recipe's network: the plain loop against all that makes it fast."""
    from lib.diffusion.recipes import cifar10_model

    torch.manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, device="cuda")
    t, labels = torch.rand(batch, device="cuda"), torch.randint(10, (batch,), device="cuda")
    plain = cifar10_model().denoiser.net.cuda().to(memory_format=torch.contiguous_format)
    fast = cifar10_model().denoiser.net.cuda()
    compiled = torch.compile(fast)
    print(torch.cuda.get_device_name(), f"batch {batch}, milliseconds for each image")
    for name in ("forward", "train"):
        runs = {
            "float32, contiguous": task(name, plain, lambda net: net(x, t, labels), x),
            "bfloat16, channels_last, compiled": task(
                name, fast, lambda _: compiled(x, t, labels), x, True
            ),
        }
        times = {key: [] for key in runs}
        for run in runs.values():
            run(), run(), run()
        for _ in range(rounds):
            for key, run in runs.items():
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(5):
                    run()
                torch.cuda.synchronize()
                times[key].append((time.perf_counter() - start) / 5 / batch * 1e3)
        medians = {key: round(statistics.median(v), 4) for key, v in times.items()}
        a, b = medians.values()
        print(f"  {name:8}", medians, f"ratio {b / a:.2f}", flush=True)


def main(only: str = "", rounds: int = 9) -> None:
    torch.set_num_threads(1)
    show(rows(only, rounds))
    if torch.cuda.is_available():
        gpu(rounds)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
