"""Continuous flows against torchdiffeq used as FFJORD does, and zuko: equal network and tolerance.

usage: python -m tests.benchmarks.ode [name] [rounds]        (pip install zuko)

3 x 64 tanh, batch 512, dopri5 at 1e-5, one thread; processor time, in rounds (`rounds.py`). A
training step is log_prob, backward and Adam (fused, the same for all). "ffjord" is torchdiffeq as
its authors use it, with our weights; zuko's network is its own, of the same size. Ratios to
other ways of ours ("ours, any field") say what these cost. Nothing here is an assertion.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torchdiffeq
from torch import Tensor, nn

from lib.flows import Flow
from lib.flows.continuous import Continuous, FieldNet
from lib.utils import std_normal_log_prob

from .rounds import Row, measure, row, show

BATCH, WIDTH, TOLERANCE, LOUD = 512, 64, 1e-5, 1.5


def our_field(D: int) -> FieldNet:
    torch.manual_seed(0)
    field = FieldNet(D, WIDTH, 3)
    with torch.no_grad():
        for layer in field.layers:
            layer.weight *= LOUD
    return field


class Plain(nn.Module):
    """Our network without its own derivatives: what any reader's field costs."""

    def __init__(self, net: FieldNet):
        super().__init__()
        self.net, self.shape = net, net.shape

    def forward(self, t, x):
        return self.net(t, x)


def ours(D: int, trace: str, plain: bool = False, **how) -> tuple[nn.Module, Callable]:
    field = Plain(our_field(D)) if plain else our_field(D)
    flow = Flow(Continuous(field, trace=trace, rtol=TOLERANCE, atol=TOLERANCE, **how), D)
    return flow, flow.log_prob, lambda: flow.transform.evaluations


class ConcatLinear(nn.Module):
    """github.com/rtqichen/ffjord, lib/layers/diffeq_layers/basic.py."""

    def __init__(self, layer: nn.Linear, speed: Tensor):
        super().__init__()
        self._layer = nn.Linear(layer.in_features + 1, layer.out_features)
        with torch.no_grad():
            self._layer.weight.copy_(torch.cat([speed[:, None], layer.weight], 1))
            self._layer.bias.copy_(layer.bias)

    def forward(self, t, x):
        tt = torch.ones_like(x[:, :1]) * t
        return self._layer(torch.cat([tt, x], 1))


class ODENet(nn.Module):
    def __init__(self, ours: FieldNet):
        super().__init__()
        some = zip(ours.layers, ours.speeds, strict=True)
        self.layers = nn.ModuleList(ConcatLinear(a, b) for a, b in some)

    def forward(self, t, y):
        for i, layer in enumerate(self.layers):
            y = layer(t, y)
            if i < len(self.layers) - 1:
                y = torch.tanh(y)
        return y


def divergence_bf(dx, y):
    """lib/layers/odefunc.py"""
    sum_diag = 0.0
    for i in range(y.shape[1]):
        (g,) = torch.autograd.grad(dx[:, i].sum(), y, create_graph=True)
        sum_diag += g.contiguous()[:, i].contiguous()
    return sum_diag.contiguous()


def divergence_approx(f, y, e):
    e_dzdx = torch.autograd.grad(f, y, e, create_graph=True)[0]
    return (e_dzdx * e).view(y.shape[0], -1).sum(dim=1)


class ODEfunc(nn.Module):
    def __init__(self, diffeq, exact):
        super().__init__()
        self.diffeq, self.exact, self._e, self.evaluations = diffeq, exact, None, 0

    def forward(self, t, states):
        y = states[0]
        self.evaluations += 1
        if self._e is None:
            self._e = torch.randint(2, y.shape, device=y.device).to(y) * 2 - 1
        with torch.set_grad_enabled(True):
            y.requires_grad_(True)
            t.requires_grad_(True)
            dy = self.diffeq(t, y)
            exact = self.exact
            divergence = divergence_bf(dy, y) if exact else divergence_approx(dy, y, self._e)
        return dy, -divergence.view(-1, 1)


def ffjord(D: int, trace: str, adjoint: bool = False) -> tuple[nn.Module, Callable]:
    """The original: torchdiffeq on the pair (y, log p), a graph in every evaluation."""
    func = ODEfunc(ODENet(our_field(D)), trace == "exact")
    run = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
    times = torch.tensor([0.0, 1.0])

    def log_prob(x):
        func._e, func.evaluations = None, 0
        states = (x, torch.zeros(len(x), 1))
        z, delta = run(func, states, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")
        return std_normal_log_prob(z[-1]) - delta[-1, :, 0]

    return func, log_prob, lambda: func.evaluations


def zuko_cnf(D: int, trace: str) -> tuple[nn.Module, Callable]:
    import zuko

    torch.manual_seed(0)
    how = dict(atol=TOLERANCE, rtol=TOLERANCE, exact=trace == "exact", activation=nn.Tanh)
    flow = zuko.flows.CNF(D, hidden_features=(WIDTH,) * 3, **how)
    with torch.no_grad():
        for layer in flow.transform.ode:
            if isinstance(layer, nn.Linear):
                layer.weight *= LOUD
    calls = [0]
    flow.transform.ode.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))

    def log_prob(x):
        calls[0] = 0
        return flow().log_prob(x)

    return flow, log_prob, lambda: calls[0]


PEERS = {
    "ours": ours,
    "ours, any field": partial(ours, plain=True),
    "ours, adjoint": partial(ours, adjoint=True),
    "ours by torchdiffeq": partial(ours, solver="torchdiffeq"),
    "ffjord": ffjord,
    "ffjord, adjoint": partial(ffjord, adjoint=True),
    "zuko": zuko_cnf,
}
CASES = [("exact", 2), ("hutchinson", 2), ("exact", 16), ("hutchinson", 64)]


def task(name: str, module: nn.Module, log_prob: Callable, x: Tensor) -> Callable:
    if name == "train":
        opt = torch.optim.Adam(module.parameters(), lr=1e-6, fused=True)

        def step():
            opt.zero_grad()
            (-log_prob(x).mean()).backward()
            opt.step()

        return step

    @torch.no_grad()
    def run():
        log_prob(x.detach())

    return run


def rows(only: str = "", rounds: int = 15) -> Iterator[Row]:
    """Every comparison whose trace and dimension ("exact 2") contain `only`."""
    for trace, D in CASES:
        if only.lower() not in f"{trace} {D}":
            continue
        torch.manual_seed(1)
        x = torch.randn(BATCH, D)
        peers = {name: build(D, trace) for name, build in PEERS.items()}
        for name in ("log_prob", "train"):
            some = {n: p for n, p in peers.items() if name == "train" or "adjoint" not in n}
            runs = {n: task(name, p[0], p[1], x) for n, p in some.items()}
            times = measure(runs, rounds, "processor")
            about = ("continuous flows", f"{trace} trace, D = {D}", name)
            for peer, (_, log_prob, evaluations) in some.items():
                with torch.no_grad():
                    value = -log_prob(x).mean().item()
                note = f"{evaluations()} evaluations, {value:.5f} nats"
                if peer != "ours":
                    yield row(about, peer, times["ours"], times[peer], "processor", note)


def main(only: str = "", rounds: int = 15) -> None:
    torch.set_num_threads(1)
    show(rows(only, rounds))


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
