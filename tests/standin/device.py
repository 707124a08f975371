"""The tensors of the stand-in, and its rules.

A tensor says `device="card:0"`, so torch's own Python (modules, optimisers, checkpoints) treats it as
one on a card. It holds a tensor of the processor, and `__torch_dispatch__` sends every operation
there, below autograd. `torch.zeros(3, device="card")` has no such tensor to go by: these factories
are registered for torch's spare backend, PrivateUse1.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch.utils import backend_registration

NAME = "card"
OFFSET = "BOOK_STANDIN_SEED"  # environment variable: another number gives other random numbers
aten = torch.ops.aten
stream = torch.Generator()  # the card's own random numbers
OnProcessor = torch.Generator
MARK = 2**48  # the seeds of the card's own generators are larger: C++ hands on nothing else of them
libraries: list[torch.library.Library] = []  # a registration lives as long as its library


class OwnGenerator(OnProcessor):
    """What `torch.Generator("card")` gives."""

    device = property(lambda self: torch.device(NAME, 0))

    def __init__(self):
        self.manual_seed(0)

    def manual_seed(self, seed: int) -> OwnGenerator:
        super().manual_seed(MARK + shifted(seed))
        return self


class _Generators(type):
    def __call__(cls, device="cpu"):
        here = torch.device(device).type == NAME
        return OwnGenerator() if here else OnProcessor(device)

    def __instancecheck__(cls, other) -> bool:
        return isinstance(other, OnProcessor)


class Generator(metaclass=_Generators):
    """Stands in for `torch.Generator`: torch asks C++ for a generator of the spare backend, and gets none."""


class OnCard(torch.Tensor):
    """A tensor of the stand-in; `raw` is where its numbers are."""

    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> OnCard:
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        self.raw = raw
        return self

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return run(op, args, kwargs or {})

    @property
    def data(self) -> torch.Tensor:
        return OnCard(self.raw)  # unlike `detach`, changes of it are hidden from autograd

    @data.setter
    def data(self, new: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, new)  # sizes and dtype; it refuses another device
        self.raw = new.raw

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        if id(self) not in memo:
            new = self.detach().clone().requires_grad_(self.requires_grad)
            new._is_param = getattr(self, "_is_param", False)
            memo[id(self)] = new
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int):
        raise TypeError("the stand-in's tensors cannot be pickled: bring them to the CPU first")

    def __format__(self, spec: str) -> str:  # torch's own refuses every subclass
        return format(self.detach().cpu(), spec)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False):
        if not force:
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. "
                "Use Tensor.cpu() to copy the tensor to host memory first."
            )
        return self.detach().cpu().numpy()

    def __repr__(self) -> str:
        return f"{self.detach().cpu()!r} on the stand-in"


def names(*names: str) -> frozenset:
    """The operations of these names, whatever their arguments."""
    return frozenset(getattr(aten, name) for name in names)


COPIES = names("_to_copy", "copy_", "copy")
INDEXED = names("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
FILLS = names("masked_fill", "masked_fill_", "fill_", "fill", "where", "index_fill", "index_fill_")
READS = names("_local_scalar_dense", "equal", "is_same_size", "is_set_to")
SEEDED = names("randperm", "normal", "multinomial", "bernoulli", "bernoulli_", "native_dropout")
MATHS = 0  # the only way of attention that every device has, among torch's _fused_sdp_choice


class Traits(NamedTuple):
    """What has to be known of an operation, looked up once."""

    copies: bool
    indexed: bool
    number_allowed: bool  # may a 0-dim tensor of the processor stand for a number?
    changes: bool  # its first argument
    seeded: bool
    reads: bool


@lru_cache(None)
def traits(op) -> Traits:
    group = op.overloadpacket
    return Traits(
        copies=group in COPIES,
        indexed=group in INDEXED,
        number_allowed=group in FILLS | INDEXED or torch.Tag.pointwise in op.tags,
        changes=op._schema.is_mutable,
        seeded=group in SEEDED or torch.Tag.nondeterministic_seeded in op.tags,
        reads=group in READS,
    )


def refuse_mixes(op, args: tuple, kwargs: dict, others: list[torch.Tensor]) -> None:
    """What CUDA refuses: others' tensors, but for numbers (0-dim) and indices into a card's tensor."""
    of = traits(op)
    if of.copies:
        return
    if of.indexed:
        if not isinstance(args[0], OnCard):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        others = [t for t in others if len(args) > 2 and t is args[2]]
    for t in others:
        into = of.changes and t is args[0] or t is kwargs.get("out")
        if t.dim() or into or not of.number_allowed:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{NAME}:0 and cpu! ({op.name()})"
            )


def call(op, args: tuple, kwargs: dict) -> Any:
    """The operation on the processor; random numbers come from the card's stream."""
    if not traits(op).seeded:
        return op(*args, **kwargs)
    if given := [g for g in (*args, *kwargs.values()) if isinstance(g, OnProcessor)]:
        if given[0].initial_seed() < MARK:
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
        return op(*args, **kwargs)
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(stream.get_state())
    try:
        return op(*args, **kwargs)
    finally:
        stream.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(before)


def run(op, args: tuple, kwargs: dict) -> Any:
    """One operation with at least one tensor of the stand-in among its arguments."""
    owners: dict[int, OnCard] = {}
    others: list[torch.Tensor] = []

    def plain(x):  # torch's own tree_map takes longer than most operations
        if type(x) is OnCard:
            owners[id(x.raw)] = x
            return x.raw
        if isinstance(x, list | tuple):
            return [plain(y) for y in x]
        if isinstance(x, torch.Tensor):
            others.append(x)
        return x

    def wrapped(x):
        if isinstance(x, list | tuple):
            return type(x)([wrapped(y) for y in x])
        if not isinstance(x, torch.Tensor):
            return x
        if (owner := owners.get(id(x))) is None:
            return OnCard(x)
        if owner.shape != x.shape or owner.stride() != x.stride():  # squeeze_, out=...
            torch.Tensor.data.__set__(owner, OnCard(x))
        return owner

    there, named = [plain(x) for x in args], {k: plain(x) for k, x in kwargs.items()}
    if others:
        refuse_mixes(op, args, kwargs, others)
    if op is aten._fused_sdp_choice.default:
        return MATHS
    to_card = True
    if named.get("device") is not None:
        to_card = named["device"].type == NAME
        named["device"] = torch.device("cpu") if to_card else named["device"]
    if op is aten.copy_.default and type(args[0]) is not OnCard:
        to_card = False
    out = call(op, there, named)
    return wrapped(out) if to_card and not traits(op).reads else out


def factory(op) -> Callable:
    """A tensor from sizes and numbers, made on the processor and put into a tensor of the stand-in."""

    def make(*args, **kwargs):
        kwargs["device"], kwargs["pin_memory"] = torch.device("cpu"), False
        with torch._C._AutoDispatchBelowAutograd():
            return OnCard(call(op, args, kwargs))

    return make


def copy_from(self: torch.Tensor, dst: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """A copy for which torch has switched `__torch_dispatch__` off, as `torch.tensor(..., device="card")` does."""
    raw = lambda t: t.raw if isinstance(t, OnCard) else t
    raw(dst).copy_(raw(self))
    return dst


FACTORIES = (
    "empty empty_strided zeros ones full eye arange linspace logspace scalar_tensor rand randn "
    "randint randperm tril_indices triu_indices"
).split()


def shifted(seed: int) -> int:
    """The seed of another stream than the processor's."""
    return (seed + 7_919 * (1 + int(os.environ.get(OFFSET, "0")))) % MARK


class Module:
    """What torch asks of `torch.card`."""

    _initialized = True
    is_initialized = is_available = staticmethod(lambda: True)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    _is_in_bad_fork = staticmethod(lambda: False)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])
    get_rng_state = staticmethod(lambda device=0: stream.get_state())
    synchronize = staticmethod(lambda device=0: None)

    @staticmethod
    def set_rng_state(state: torch.Tensor, device=0) -> None:
        stream.set_state(state)

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """Called by `torch.manual_seed`."""
        stream.manual_seed(shifted(seed))

    class device:  # noqa: N801 -- torch's name for it
        def __init__(self, device):
            self.idx = device

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None


def install() -> torch.device:
    """Give torch the device `card`; a second call does nothing."""
    if not libraries:
        backend_registration._setup_privateuseone_for_python_backend(NAME, Module())
        libraries.append(torch.library.Library("aten", "IMPL"))
        for name in FACTORIES:
            packet = getattr(aten, name)
            for op in (getattr(packet, overload) for overload in packet.overloads()):
                arguments = op._schema.arguments
                tensors = any("Tensor" in str(a.type) for a in arguments)
                if not tensors and any(a.name == "device" for a in arguments):
                    libraries[0].impl(op, factory(op), "PrivateUse1")
        libraries[0].impl(aten._copy_from.default, copy_from, "PrivateUse1")
        zeros = factory(aten.zeros.default)  # asked for by forward-mode derivatives
        libraries[0].impl(aten._efficientzerotensor.default, zeros, "PrivateUse1")
        torch.Generator = Generator
        Module.manual_seed_all(torch.initial_seed())
    return torch.device(NAME)
