"""The product of `linear` by a convolution, which only processors of AMD take and only large products."""

import io

import pytest
import torch
import torch.nn.functional as F

from lib import nets


@pytest.fixture
def everywhere(monkeypatch):
    """The convolution on any processor, from the first number on."""
    monkeypatch.setattr(nets, "ONEDNN", True)
    monkeypatch.setattr(nets, "PAYS", 0)


@pytest.mark.parametrize("shape", [(16,), (2, 3, 8), (5, 3), (0, 16)])
def test_linear_with_its_derivatives(everywhere, shape, device):
    """As a convolution (16 rows, 48) and as a product (15, none)."""
    x = torch.randn(*shape, 6, device=device, requires_grad=True)
    weight, bias = (torch.randn(*s, device=device, requires_grad=True) for s in ((4, 6), (4,)))
    found = []
    for call in (nets.linear, F.linear):
        out = call(x, weight, bias)
        first = torch.autograd.grad(out.square().sum(), (x, weight, bias), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), (x, weight, bias))
        found.append((out, *first, *second))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_linear_under_transforms(everywhere):
    """Forward mode and vmap, as exact divergences use them."""
    x, v, weight = torch.randn(32, 6), torch.randn(3, 32, 6), torch.randn(4, 6)
    push = lambda call: torch.func.vmap(
        lambda v: torch.func.jvp(lambda x: call(x, weight).tanh(), (x,), (v,))[1]
    )(v)
    torch.testing.assert_close(push(nets.linear), push(F.linear), rtol=1e-4, atol=1e-4)


def test_only_large_products_in_float32_become_convolutions(monkeypatch):
    monkeypatch.setattr(nets, "ONEDNN", True)
    seen, conv2d = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, *rest: seen.append(x.shape) or conv2d(x, *rest))
    weight = torch.randn(512, 512)
    for rows in (16, 17, 32):  # 16 times 512 times 512 is PAYS, 17 rows are not 16 images
        nets.linear(torch.randn(rows, 512), weight)
    nets.linear(torch.randn(32, 512).double(), weight.double())
    assert seen == [(16, 512, 1, 2)]


@pytest.mark.parametrize(
    ("said", "has", "taken"),
    [("AuthenticAMD", True, True), ("GenuineIntel", True, False), ("AuthenticAMD", False, False)],
)
def test_who_takes_it(monkeypatch, said, has, taken):
    cores = f"processor : 0\nvendor_id : {said}\n\nprocessor : 1\n"
    monkeypatch.setattr("builtins.open", lambda name, errors: io.StringIO(cores))
    monkeypatch.setattr(nets.platform, "processor", lambda: "")
    monkeypatch.setattr(nets.mkldnn, "is_available", lambda: has)
    assert nets._onednn() is taken
