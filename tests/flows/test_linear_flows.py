"""QR, the 1 x 1 convolution, permutations and actnorm: the laws, and the matrices themselves."""

import pytest
import torch

from lib.flows import ActNorm, Compose, Conv1x1, LULinear, Permutation, QRLinear
from lib.flows.builders import glow, realnvp
from lib.flows.linear import Rotation, start
from tests.flows.laws import Case, Laws, jacobians

F64 = torch.float64


def reverse(D):
    return Permutation(torch.arange(D).flip(0))


IMAGE = {"shape": lambda D: (D, 2, 3), "sizes": (1, 2, 3, 6)}


class TestLinear(Laws):
    CASES = {
        # the inverse of a product of triangular matrices loses digits as fast as their entries grow
        "qr": Case(QRLinear, lambda D: 0.8 / D**0.5),
        "permutation": Case(reverse),
        "permutation-images": Case(reverse, fixed=True, **IMAGE),
        "conv1x1": Case(Conv1x1, lambda D: 0.5 / D**0.5, **IMAGE),
        "conv1x1-vectors": Case(Conv1x1, lambda D: 0.3 / D**0.5),
        "actnorm": Case(ActNorm),
        "actnorm-images": Case(lambda D: ActNorm(D, 2, 3), **IMAGE),
        "stack": Case(
            lambda D: Compose(ActNorm(D, 2, 3), Conv1x1(D), reverse(D)),
            lambda D: 0.3 / D**0.5,
            **IMAGE,
        ),
    }


def loud(f, size=0.4):
    with torch.no_grad():
        for p in f.parameters():
            p.add_(size * torch.randn_like(p))
    return f.double()


@pytest.mark.parametrize("D", [1, 2, 3, 6, 33])
def test_q_is_the_product_of_mirrors(D, device):
    f = loud(QRLinear(D)).to(device)
    Q, R = f.factors()
    eye = torch.eye(D, dtype=F64, device=device)
    torch.testing.assert_close(Q.T @ Q, eye, atol=1e-12, rtol=0)
    product = eye
    for v in f.mirrors:
        product = product @ (eye - 2 * torch.outer(v, v) / (v @ v))
    torch.testing.assert_close(Q, product, atol=1e-10, rtol=0)
    assert torch.equal(R, R.triu()) and (R.diagonal() > 0).all()
    assert torch.linalg.det(Q).item() == pytest.approx((-1) ** D)


@pytest.mark.parametrize("C", [1, 2, 3, 12])
def test_conv1x1_is_one_dense_matrix_at_every_pixel(C, device):
    torch.manual_seed(C)
    f = loud(Conv1x1(C), 0.1).to(device)
    P, L, U = f.factors()
    W = P @ L @ U
    z = torch.randn(5, C, 2, 3, dtype=F64, device=device)
    x, logabsdet = f.from_base(z)
    torch.testing.assert_close(x, torch.einsum("ij,bjhw->bihw", W, z))
    want = 6 * torch.linalg.slogdet(W).logabsdet
    torch.testing.assert_close(logabsdet, want.expand(5))
    back = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(W), x)
    torch.testing.assert_close(f.to_base(x)[0], back)
    fresh = Conv1x1(C).double()
    W = torch.linalg.multi_dot([*fresh.factors(), torch.eye(C, dtype=F64)])
    torch.testing.assert_close(W.T @ W, torch.eye(C, dtype=F64), atol=1e-5, rtol=0)


def test_linear_maps_are_affine_and_their_matrix_is_the_product(device):
    for f in (QRLinear(4), LULinear(4)):
        loud(f).to(device)
        first, second = f.factors()
        z = torch.randn(3, 4, dtype=F64, device=device)
        want = (first @ second).expand(3, 4, 4)
        torch.testing.assert_close(jacobians(f.from_base, z), want)


def test_permutation_and_its_direction(device):
    f = Permutation([2, 0, 1]).to(device)
    x = torch.tensor([[10.0, 11.0, 12.0]], device=device)
    assert f.to_base(x)[0].tolist() == [[12.0, 10.0, 11.0]]
    assert f.from_base(f.to_base(x)[0])[0].tolist() == x.tolist()
    for bad in ([0, 0, 1], [1, 2, 3], [[0, 1]]):
        with pytest.raises(ValueError, match="a permutation of 0"):
            Permutation(bad)
    for g, x in [(f, torch.randn(2, 4)), (Conv1x1(3), torch.randn(2, 4, 2, 2))]:
        with pytest.raises(ValueError, match=r"expected shape \(B, 3, \.\.\.\), got \(2, 4"):
            g.to_base(x.to(device) if g is f else x)


def test_actnorm_starts_from_data_channel_by_channel(device):
    scale = torch.tensor([0.01, 1.0, 300.0], dtype=F64, device=device).view(3, 1, 1)
    x = torch.randn(50, 3, 4, 5, dtype=F64, device=device) * scale + 40
    f = ActNorm(3, 4, 5).to(device, F64)
    assert torch.equal(f.to_base(x)[0], x)
    z, _ = f.init_from(x).to_base(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3).to(z), atol=1e-9, rtol=0)
    torch.testing.assert_close(z.var((0, 2, 3), correction=0), torch.ones(3).to(z))
    before = [p.clone() for p in f.parameters()]
    f.train().to_base(5 * x), f.from_base(x)  # no hidden state
    assert all(torch.equal(a, b) for a, b in zip(before, f.parameters(), strict=True))
    with pytest.raises(ValueError, match="at least 2 examples"):
        f.init_from(x[:1])


def test_start_reaches_every_part(device):
    torch.manual_seed(0)
    x = 7 + 3 * torch.randn(200, 1, 8, 8, device=device)
    f = glow((1, 8, 8), levels=2, steps=2, width=8).to(device)
    z = start(f, x)
    torch.testing.assert_close(z, f.to_base(x)[0])
    norms = [m for m in f.modules() if isinstance(m, ActNorm)]
    assert len(norms) == 6 and all(n.log_scale.abs().max() > 0 for n in norms)
    assert z.mean().abs() < 0.05 and (z.std() - 1).abs() < 0.05
    g = Compose(ActNorm(2), realnvp(2, 2, 8, context=3)).to(device)
    x, c = 5 + torch.randn(100, 2, device=device), torch.randn(100, 3, device=device)
    torch.testing.assert_close(start(g, x, c), g.to_base(x, c)[0])


@pytest.mark.parametrize("make", [LULinear, Rotation, QRLinear, Conv1x1])
def test_a_linear_map_keeps_its_precision_under_autocast(make, device):
    torch.manual_seed(0)
    flow, x = make(3).to(device), torch.randn(5, 3, device=device)
    want = flow.to_base(x)[0], flow.from_base(x)[0]
    with torch.autocast(device.type, torch.bfloat16):
        got = flow.to_base(x)[0], flow.from_base(x)[0]
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b)
    if make is LULinear:
        x = torch.randn(500, 3, device=device) @ torch.randn(3, 3, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            z = flow.init_from(x).to_base(x)[0]
        cov = torch.cov(z.detach().T, correction=0)
        torch.testing.assert_close(cov, torch.eye(3).to(cov), atol=1e-4, rtol=0)


def test_collinear_data_of_many_dimensions(device):
    torch.manual_seed(0)
    x = (torch.randn(1000, 1) @ torch.randn(1, 784)).to(device)
    assert LULinear(784).to(device).init_from(x).to_base(x)[0].isfinite().all()


@pytest.mark.parametrize("kind", ["numpy", "tensor", "float"])
def test_a_permutation_keeps_its_order(kind, device):
    """Whatever happens to the caller's list afterwards."""
    order = torch.tensor([2, 0, 1], dtype=torch.float32 if kind == "float" else torch.int64)
    given = order.numpy() if kind == "numpy" else order
    layer = Permutation(given).to(device)
    given[:] = given[[1, 2, 0]]
    x = torch.tensor([[0.0, 1.0, 2.0]], device=device)
    assert layer.to_base(x)[0].tolist() == [[2.0, 0.0, 1.0]]
    assert (layer.from_base(layer.to_base(x)[0])[0] == x).all()
