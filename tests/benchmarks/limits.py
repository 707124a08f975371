"""How near to a card's limits the U-Net, the flows and the CNF come, and what speeds them up.

usage: python -m tests.benchmarks.limits [name ...]      (on a GPU; writes book/results/limits.json)

First the card's own limits, measured: large copies (bytes read and written) and products of matrices.
Then for each piece of work the median time, the operations of its products and convolutions
(`torch.utils.flop_counter`), and the bytes that its calls read and write, counted call by call as the
eager code makes them: a compiled one moves fewer. A share is the rate over the measured limit of the
same precision. A run of some works keeps the rows of the others, under `earlier`. Nothing here is an
assertion.
"""

from __future__ import annotations

import datetime
import json
import statistics
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lib.paths import commit
from lib.recipe import Recipe

from .__main__ import RESULTS
from .diffusion import task as unet_task
from .flows import Peer
from .flows import task as flow_task
from .rounds import finished, machine

TASKS = ("forward", "train")


class Counter(TorchDispatchMode):
    """Adds up the operations of products and convolutions, and what every call reads and writes.

    `torch.utils.flop_counter`'s own mode also follows modules, which fails where a field takes
    `autograd.grad` inside; its formulas are used here. Views move nothing.
    """

    def __init__(self):
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.operations += formula(*args, **kwargs, out_val=out)
        if not any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns):
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def seconds(run: Callable, budget: float = 1.0) -> float:
    """The median time of a call, over repeats that take about `budget` seconds."""
    run(), run()
    start = finished()
    run()
    once = finished() - start
    inner = max(1, round(0.02 / once))
    times = []
    while len(times) < 5 or sum(times) * inner < budget and len(times) < 50:
        start = finished()
        for _ in range(inner):
            run()
        times.append((finished() - start) / inner)
    return statistics.median(times)


def limits() -> dict[str, float]:
    """Bytes a second of a large copy; operations a second of products, by precision."""
    a = torch.empty(2**30 // 4).normal_()
    b = torch.empty_like(a)
    out = {"bytes": 2 * 2**30 / seconds(lambda: b.copy_(a))}
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        m, k = torch.randn(8192, 8192).to(dtype), torch.randn(8192, 8192).to(dtype)
        out[name] = 2 * 8192**3 / seconds(lambda m=m, k=k: m @ k)
    torch.set_float32_matmul_precision("highest")
    return out


def unet(batch: int) -> Iterator[tuple[str, str, Callable]]:
    """The CIFAR-10 recipe's network: the plain loop, and each thing that makes it faster."""
    from lib.diffusion.recipes import cifar10_model

    x, t, labels = torch.randn(batch, 3, 32, 32), torch.rand(batch), torch.randint(10, (batch,))
    fast = cifar10_model().denoiser.net.cuda()
    plain = cifar10_model().denoiser.net.cuda().to(memory_format=torch.contiguous_format)
    compiled = torch.compile(fast)
    call, call_compiled = lambda net: net(x, t, labels), lambda _: compiled(x, t, labels)
    for name in TASKS:
        for tf32 in (False, True):
            word = "tf32" if tf32 else "float32"
            how = precisely(unet_task(name, plain, call, x), tf32)
            yield f"{name}, {word}, contiguous", word, how
        how = precisely(unet_task(name, fast, call, x), True)
        yield f"{name}, tf32, channels_last", "tf32", how
        yield f"{name}, bfloat16, channels_last", "bfloat16", unet_task(name, fast, call, x, True)
        how = unet_task(name, fast, call_compiled, x, True)
        yield f"{name}, bfloat16, channels_last, compiled", "bfloat16", how


def precisely(run: Callable, tf32: bool) -> Callable:
    """`run` with TF32 allowed or not, in convolutions and products."""

    def wrapped():
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        run()
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    return wrapped


def density(flow: nn.Module, x: Tensor, both: bool = True) -> Iterator[tuple[str, str, Callable]]:
    """log p of x and a training step, with and without TF32."""
    peer = Peer(flow, flow.log_prob, None)
    for name in TASKS:
        run = flow_task(peer, "log_prob" if name == "forward" else name, x)
        for tf32 in (False, True) if both else (False,):
            word = "tf32" if tf32 else "float32"
            yield f"{name}, {word}", word, precisely(run, tf32)


def recipe_flow(build: Callable[[], Recipe], batch: int) -> Iterator[tuple[str, str, Callable]]:
    """A recipe's flow on its own images, moved to the card."""
    torch.set_default_device("cpu")  # recipes are built there
    made = build()
    torch.set_default_device("cuda")
    x = made.train(batch).cuda()
    return density(made.model.cuda(), x)


def realnvp(batch: int) -> Iterator[tuple[str, str, Callable]]:
    from .flows import our_realnvp

    return density(our_realnvp()(64).module, torch.randn(batch, 64))


def cnf(D: int, width: int, trace: str, batch: int) -> Iterator[tuple[str, str, Callable]]:
    from lib.flows import Flow
    from lib.flows.continuous import Continuous, FieldNet

    torch.manual_seed(0)
    flow = Flow(Continuous(FieldNet(D, width, 3), trace=trace, rtol=1e-5, atol=1e-5), D)
    return density(flow, torch.randn(batch, D))


def works() -> dict[str, Callable[[], Iterator[tuple[str, str, Callable]]]]:
    """Every piece of work by name; a piece is a name, the precision that limits it, what is timed."""
    from lib.flows.recipes import mnist_glow, mnist_realnvp
    from lib.flows.recipes_ode import mnist as cnf_mnist

    return {
        "RealNVP of MNIST, batch 256": lambda: recipe_flow(mnist_realnvp, 256),
        "Glow of MNIST, batch 256": lambda: recipe_flow(mnist_glow, 256),
        "CNF of MNIST, batch 200": lambda: recipe_flow(cnf_mnist, 200),
        "RealNVP, D = 64, batch 1024": lambda: realnvp(1024),
        "RealNVP, D = 64, batch 262144": lambda: realnvp(262_144),
        "CNF, D = 2, 3 x 64, exact trace, batch 512": lambda: cnf(2, 64, "exact", 512),
        "CNF, D = 64, 3 x 512, Hutchinson, batch 16384": lambda: cnf(64, 512, "hutchinson", 16_384),
        "U-Net, 35.8M parameters, batch 256": lambda: unet(256),  # last: it compiles
    }


def main(only: list[str]) -> None:
    torch.set_default_device("cuda")
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    card = limits()
    print(machine()["card"], {k: f"{v / 1e12:.3g} T/s" for k, v in card.items()}, flush=True)
    about, file, rows, earlier = machine(), RESULTS / "limits.json", [], []
    # other work on the same card stays, with the commit and limits it was held to
    if file.is_file():
        old = json.loads(file.read_text("utf8"))
        if all(old[k] == about[k] for k in ("card", "versions")):
            earlier = [old, *old.pop("earlier", [])]
    for name, pieces in works().items():
        if only and not any(word.lower() in name.lower() for word in only):
            continue
        for past in earlier:
            past["rows"] = [r for r in past["rows"] if r["work"] != name]
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        counted: dict[tuple[str, str], tuple[float, float]] = {}
        for what, precision, run in pieces():
            part = what.split(",")[0], precision
            if part not in counted:  # the first of its kind is never compiled
                run()  # Adam makes its state
                with Counter() as counter:
                    run()
                counted[part] = counter.operations, counter.bytes
            s = seconds(run)
            done, moved_bytes = counted[part]
            rows.append(
                {
                    "work": name,
                    "task": what,
                    "milliseconds": round(1e3 * s, 4),
                    "teraflops": round(done / s / 1e12, 3),
                    "of the limit": round(done / s / card[precision], 4),
                    "gigabytes a second": round(moved_bytes / s / 1e9, 1),
                    "of the copy": round(moved_bytes / s / card["bytes"], 4),
                    "peak MB": round(torch.cuda.max_memory_allocated() / 1e6),
                }
            )
            print(name, *list(rows[-1].values())[1:], sep=" | ", flush=True)
        today = {"date": datetime.date.today().isoformat(), "commit": commit()}
        found = about | today | {"limits": card, "rows": rows}
        if kept := [past for past in earlier if past["rows"]]:
            found["earlier"] = kept
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n", "utf8")


if __name__ == "__main__":
    main(sys.argv[1:])
