"""Several processes that train one model: what each does, what they add up, what only the first does.

    torchrun --nproc-per-node=2 -m lib.train mnist-realnvp

Each process has the whole model and takes its rows of every minibatch; DistributedDataParallel
averages the gradients, so all make the same step. Without torch.distributed there is one process.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lib.utils import seeded


class Workers:
    """The processes of this job: `size` of them, this one is number `rank`.

    >>> Workers().size, Workers().rows(5)
    (1, slice(0, 5, None))
    """

    def __init__(self):
        together = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size() if together else 1
        self.rank = dist.get_rank() if together else 0

    @property
    def first(self) -> bool:
        """The one that writes and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """What is called in training: its backward averages the gradients over all."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def rows(self, n: int) -> slice:
        """This process's share of n examples; equal ones where `size` divides n.

        Raises:
            ValueError: there are fewer examples than processes.
        """
        if n < self.size:
            raise ValueError(f"a minibatch of {n} is too small for {self.size} processes")
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place: the same bits everywhere."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def of_first(self, content: bytes | None, device: torch.device) -> bytes:
        """What the first process has, in all."""
        box = [content]
        dist.broadcast_object_list(box, device=device if device.type == "cuda" else None)
        return box[0]

    @contextmanager
    def noise(self, seed: int, step: int, device: torch.device) -> Iterator[None]:
        """The model's own noise, of several: each process's depends on seed, step and rank.

        The global generators, from which a data function draws, are left as they were, the same
        in all processes; so the examples are those of a single process.
        """
        if self.size == 1:
            yield
            return
        # torch's generator on the CPU takes 32 bits of a seed: mixed, or ranks would share them
        mixed = hashlib.blake2b(f"{seed} {step} {self.rank}".encode(), digest_size=4).digest()
        with seeded(int.from_bytes(mixed), device):
            yield

    def apart(self, net: nn.Module, more: bool):
        """While `more` parts of the minibatch follow, gradients add up here and are not sent."""
        return net.no_sync() if more and self.size > 1 else nullcontext()


def lost(error: BaseException) -> bool:
    """Whether it comes from a process that could not reach another.

    >>> lost(RuntimeError("[gloo] Connection closed by peer")), lost(RuntimeError("shapes differ"))
    (True, False)
    """
    known = (getattr(dist, name, ()) for name in ("DistBackendError", "DistNetworkError"))
    words = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out")
    return isinstance(error, tuple(k for k in known if k)) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def device_here(name: str | None = None) -> torch.device:
    """The device asked for, else BOOK_DEVICE, else this process's GPU, else the CPU.

    >>> device_here("cpu")
    device(type='cpu')
    """
    name = name or os.environ.get("BOOK_DEVICE")
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16: NVIDIA from Ampere on, CPUs with AMX or AVX512-BF16.

    >>> has_bfloat16(torch.device("cpu")) in (True, False)
    True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, n, lambda: False)() for n in names)


@contextmanager
def joined(device: torch.device, timeout: float = 600.0) -> Iterator[Workers]:
    """Inside torchrun: meet the other processes, and part at the end. Elsewhere: one process.

    NCCL on a GPU, gloo on a CPU. `timeout` in seconds: a process that waits longer for another
    gives up.

    >>> with joined(device_here("cpu")) as workers:
    ...     workers.first
    True
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield Workers()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    yield Workers()
    dist.destroy_process_group()  # not after an error: it could wait for a process that is gone
