"""The tensors of the stand-in, and its rules.

A tensor says `device="card:0"`, so torch's own Python (modules, optimisers, checkpoints) treats it as
one on a card. It holds a tensor of the processor, and `__torch_dispatch__` sends every operation
there, below autograd. `torch.zeros(3, device="card")` has no such tensor to go by: these factories
are registered for torch's spare backend, PrivateUse1.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "card"
OFFSET = "BOOK_STANDIN_SEED"  # environment variable: another number gives other random numbers
aten = torch.ops.aten
stream = torch.Generator()  # the card's own random numbers
libraries: list[torch.library.Library] = []  # a registration lives as long as its library


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
        return self.detach()

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


def mixed(name: str) -> RuntimeError:
    return RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, "
        f"{NAME}:0 and cpu! ({name})"
    )


def refuse_mixes(op, args: tuple, kwargs: dict) -> None:
    """What CUDA refuses: tensors of the processor, but for numbers (0-dim) and indices into a card's tensor."""
    group = op.overloadpacket
    if group in COPIES:
        return
    leaves = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    others = [t for t in leaves if not isinstance(t, OnCard)]
    if group in INDEXED:
        if not isinstance(args[0], OnCard):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        others = [t for t in args[2:3] if isinstance(t, torch.Tensor) and not isinstance(t, OnCard)]
    number_allowed = group in FILLS | INDEXED or torch.Tag.pointwise in op.tags
    for t in others:
        into = op._schema.is_mutable and t is args[0] or t is kwargs.get("out")
        if t.dim() or into or not number_allowed:
            raise mixed(op.name())


def generator_of_the_processor(args: tuple, kwargs: dict) -> bool:
    return any(isinstance(g, torch.Generator) for g in (*args, *kwargs.values()))


def call(op, args: tuple, kwargs: dict) -> Any:
    """The operation on the processor; random numbers come from the card's stream."""
    if generator_of_the_processor(args, kwargs):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    if torch.Tag.nondeterministic_seeded not in op.tags and op.overloadpacket not in SEEDED:
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
    group = op.overloadpacket
    refuse_mixes(op, args, kwargs)
    if group is aten._fused_sdp_choice:
        return MATHS
    owners = {id(t.raw): t for t in tree_leaves((args, kwargs)) if isinstance(t, OnCard)}
    plain, named = tree_map(lambda t: t.raw if isinstance(t, OnCard) else t, (args, kwargs))
    to_card = True
    if named.get("device") is not None:
        to_card, named["device"] = named["device"].type == NAME, torch.device("cpu")
        if group is aten._to_copy and not to_card:
            named["non_blocking"] = False
    if group is aten.copy_:
        to_card = isinstance(args[0], OnCard)
    out = call(op, plain, named)
    if not to_card or group in READS:
        return out if group is not aten.copy_ else args[0]

    def wrapped(t):
        if not isinstance(t, torch.Tensor):
            return t
        if (owner := owners.get(id(t))) is None:
            return OnCard(t)
        if owner.shape != t.shape or owner.stride() != t.stride():  # squeeze_, out=...
            torch.Tensor.data.__set__(owner, OnCard(t))
        return owner

    return tree_map(wrapped, out)


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
        stream.manual_seed((seed + 7_919 * (1 + int(os.environ.get(OFFSET, "0")))) % 2**63)

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
        Module.manual_seed_all(torch.initial_seed())
    return torch.device(NAME)
