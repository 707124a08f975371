"""Flows against zuko, nflows and normflows: equal architecture, batch 1024, one thread, one run.

usage: python -m tests.benchmarks.flows [name] [rounds]      (pip install zuko nflows normflows)

Wall time, in rounds (`rounds.py`). A training step is log_prob, backward and Adam (fused, the same
for all). A library whose count of parameters differs is doing other work. Nothing here is an
assertion.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .rounds import Row, measure, row, show

BATCH = 1024


class Peer(NamedTuple):
    """One library's model: its parameters, its log-density of (B, D), n of its samples."""

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]


class Case(NamedTuple):
    """A flow in several libraries: name -> D -> Peer. "ours" is what the others are compared to."""

    name: str
    peers: dict[str, Callable[[int], Peer]]
    dims: tuple[int, ...] = (2, 16, 64)
    tasks: tuple[str, ...] = ("log_prob", "train", "sample")


# Each library's RealNVP: 8 couplings, 2 hidden layers of 128.


def ours(build: Callable) -> Callable[[int], Peer]:
    """`build(D)` is a transform of this book."""

    def make(D):
        from lib.flows import Flow

        flow = Flow(build(D), D)
        return Peer(flow, flow.log_prob, flow.sample)

    return make


def our_realnvp(**options):
    def build(D):
        from lib.flows.builders import realnvp

        return realnvp(D, 8, 128, 2, **options)

    return ours(build)


def zuko_flow(build: Callable) -> Callable[[int], Peer]:
    """`build(D)` is a zuko flow."""

    def make(D):
        flow = build(D)
        return Peer(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))

    return make


def zuko_realnvp(D):
    import zuko

    return zuko.flows.RealNVP(D, transforms=8, hidden_features=(128, 128))


def nflows_flow(transforms: list[nn.Module], D: int) -> Peer:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform

    flow = Flow(CompositeTransform(transforms), StandardNormal([D]))
    return Peer(flow, flow.log_prob, flow.sample)


def nflows_realnvp(D):
    from nflows.nn.nets import MLP
    from nflows.transforms import AffineCouplingTransform

    class Net(MLP):
        def forward(self, x, context=None):
            return super().forward(x)

    net = lambda a, b: Net([a], [b], [128, 128], activation=torch.relu)
    masks = [(torch.arange(D) + k) % 2 for k in range(8)]
    return nflows_flow([AffineCouplingTransform(mask, net) for mask in masks], D)


def normflows_flow(flows: list[nn.Module], D: int) -> Peer:
    import normflows as nf

    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(D, trainable=False), flows)
    return Peer(model, model.log_prob, lambda n: model.sample(n)[0])


def normflows_realnvp(D):
    import normflows as nf

    flows = []
    for _ in range(8):
        net = nf.nets.MLP([D // 2, 128, 128, D], init_zeros=True)
        flows += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(D, mode="swap")]
    return normflows_flow(flows, D)


# Each library's MAF: 5 MADE of 2 hidden layers of 128, in alternating orders; IAF is its inverse.


def our_maf(inverse: bool = False):
    def build(D):
        from lib.flows.builders import iaf, maf

        return (iaf if inverse else maf)(D, 5, 128, 2)

    return ours(build)


def zuko_maf(D):
    import zuko

    return zuko.flows.MAF(D, transforms=5, hidden_features=(128, 128))


def zuko_iaf(D):
    import zuko
    from zuko.lazy import LazyInverse

    flow = zuko_maf(D)
    return zuko.flows.Flow([LazyInverse(t) for t in flow.transform.transforms], flow.base)


def nflows_maf(inverse: bool = False):
    def build(D):
        from nflows.transforms import (
            InverseTransform,
            MaskedAffineAutoregressiveTransform,
            ReversePermutation,
        )

        transforms = []
        for _ in range(5):
            made = MaskedAffineAutoregressiveTransform(
                D, 128, num_blocks=1, use_residual_blocks=False
            )
            transforms += [InverseTransform(made) if inverse else made, ReversePermutation(D)]
        return nflows_flow(transforms, D)

    return build


def normflows_maf(inverse: bool = False):
    def build(D):
        import normflows as nf

        flows = []
        for _ in range(5):  # its one pass is the map from the base: that is an IAF
            made = nf.flows.MaskedAffineAutoregressive(
                D, 128, num_blocks=1, use_residual_blocks=False
            )
            flows += [made if inverse else nf.flows.Reverse(made), nf.flows.Permute(D, "swap")]
        return normflows_flow(flows, D)

    return build


def energy(x: Tensor) -> Tensor:
    return 0.5 * x.square().sum(1)


def our_planar(D):
    """16 planar maps fitted to an energy, (B, D) of base noise: "log_prob" is minus the loss."""
    from lib.flows import Flow
    from lib.flows.builders import planar_flow
    from lib.flows.energy import ReverseKL

    model = ReverseKL(Flow(planar_flow(D, 16), D), energy)
    return Peer(model, lambda z: -model(z), model.flow.sample)


def normflows_planar(D):
    import normflows as nf

    flows = nn.ModuleList(nf.flows.Planar((D,)) for _ in range(16))
    base = nf.distributions.DiagGaussian(D, trainable=False)

    def minus_loss(z):
        log_q = base.log_prob(z)
        for flow in flows:
            z, logabsdet = flow(z)
            log_q = log_q - logabsdet
        return -(log_q + energy(z))

    return Peer(flows, minus_loss, lambda n: minus_loss(base.sample(n)))


CASES = [
    Case(
        "RealNVP",
        {
            "ours": our_realnvp(),
            "zuko": zuko_flow(zuko_realnvp),
            "nflows": nflows_realnvp,
            "normflows": normflows_realnvp,
        },
    ),
    Case(
        "RealNVP, our SiLU in place of ReLU",
        {"ours": our_realnvp(activation=nn.SiLU), "zuko": zuko_flow(zuko_realnvp)},
    ),
    Case(
        "MAF",
        {
            "ours": our_maf(),
            "zuko": zuko_flow(zuko_maf),
            "nflows": nflows_maf(),
            "normflows": normflows_maf(),
        },
    ),
    Case(
        "IAF",
        {
            "ours": our_maf(inverse=True),
            "zuko": zuko_flow(zuko_iaf),
            "nflows": nflows_maf(inverse=True),
            "normflows": normflows_maf(inverse=True),
        },
    ),
    Case(
        "planar, reverse KL",
        {"ours": our_planar, "normflows": normflows_planar},
        dims=(2, 16),
        tasks=("train",),
    ),
]


def task(peer: Peer, name: str, x: Tensor) -> Callable[[], None]:
    """What is timed: a function of nothing."""
    if name == "train":
        opt = torch.optim.Adam(peer.module.parameters(), lr=1e-5, fused=True)

        def step():
            opt.zero_grad()
            (-peer.log_prob(x).mean()).backward()
            opt.step()

        return step

    @torch.no_grad()
    def run():
        peer.log_prob(x) if name == "log_prob" else peer.sample(len(x))

    return run


def rows(only: str = "", rounds: int = 15) -> Iterator[Row]:
    """Every comparison whose case's name contains `only`."""
    for case in CASES:
        if only.lower() not in case.name.lower():
            continue
        for D in case.dims:
            torch.manual_seed(0)
            x = torch.randn(BATCH, D)
            peers = {name: build(D) for name, build in case.peers.items()}
            sizes = {
                n: sum(p.numel() for p in peer.module.parameters()) for n, peer in peers.items()
            }
            for name in case.tasks:
                runs = {n: task(p, name, x) for n, p in peers.items()}
                times = measure(runs, rounds, at_least=0.02)
                about = ("flows", f"{case.name}, D = {D}", name)
                for peer in list(peers)[1:]:
                    note = f"parameters {sizes['ours']}, theirs {sizes[peer]}"
                    yield row(about, peer, times["ours"], times[peer], "wall", note)


def main(only: str = "", rounds: int = 15) -> None:
    torch.set_num_threads(1)
    show(rows(only, rounds))


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
