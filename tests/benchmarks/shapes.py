"""Images per second of the generated shapes, on this machine: python -m tests.benchmarks.shapes

Prints one JSON object: the machine, and for every case the best and the median of its runs, both by
the clock and, on a CPU, by the processor time of all threads (which a busy machine changes less).
"""

import argparse
import json
import os
import statistics
import time

import torch

from lib.data.reader import read_attributes
from lib.data.shapes import sample

from .rounds import processor


def rates(run, n: int, repeats: int, device: torch.device) -> dict[str, int]:
    """Images per second of `run`, which makes n of them."""
    wall, busy = [], []
    for _ in range(repeats + 1):
        start, worked = time.perf_counter(), time.process_time()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        wall.append(time.perf_counter() - start)
        busy.append(time.process_time() - worked)
    wall, busy = wall[1:], busy[1:]  # the first run warms up
    out = {"best": round(n / min(wall)), "median": round(n / statistics.median(wall))}
    if device.type == "cpu":
        out["per_cpu_second"] = round(n / statistics.median(busy))
    return out


def machine(device: torch.device) -> dict:
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load_1_minute": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--repeats", type=int, default=7)
    ask.add_argument("--device", default="cpu")
    ask = ask.parse_args()
    torch.set_num_threads(ask.threads)
    device = torch.device(ask.device)
    cases = {}
    for size, n, second in ((32, 8192, 0.0), (32, 8192, 0.5), (64, 2048, 0.0)):
        generator = torch.Generator(device).manual_seed(0)
        draw = lambda n=n, size=size, g=generator, s=second: sample(n, size, g, second=s)
        cases[f"sample {size}x{size}, second {second}"] = rates(draw, n, ask.repeats, device)
    images, _ = sample(1024, 32, generator)
    cases["read 32x32"] = rates(lambda: read_attributes(images), 1024, 2, device)
    print(json.dumps({"machine": machine(device), "images_per_second": cases}, indent=1))


if __name__ == "__main__":
    main()
