"""zuko, nflows and normflows as oracles: the same weights give the same log-density.

Their networks get our weights, unit by unit and without our masks, so theirs must agree with ours;
their maps get the numbers that mean the same scale in their parametrisation.
"""

import math

import pytest
import torch
from torch import nn

from lib.flows import Compose, Flow
from lib.flows.autoregressive import MaskedAutoregressive, SplineAutoregressive
from lib.flows.coupling import AffineCoupling, alternating, halves
from lib.flows.planar import Planar
from lib.flows.spline import UNIT, knots, rational_quadratic
from lib.nets import mlp
from lib.utils import bounded

zuko = pytest.importorskip("zuko")
nflows_transforms = pytest.importorskip("nflows.transforms")
normflows = pytest.importorskip("normflows")

both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
every_size = pytest.mark.parametrize("D", [2, 3, 6, 33])


def close(got, want):
    tol = 1e-10 if want.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(got, want, rtol=tol, atol=tol * 10)


def loud(f, dtype, std=0.3):
    with torch.no_grad():
        for p in f.parameters():
            p.add_(std * torch.randn_like(p) / max(1, p.shape[-1] if p.ndim else 1) ** 0.5)
    return f.to(dtype)


def layers_of(D, **kwargs):
    """Three layers of MAF, in orders that differ. As many units for each degree as the peers have."""
    orders = [list(range(D)), list(range(D))[::-1], torch.randperm(D).tolist()]
    return [MaskedAutoregressive(D, 2 * (D - 1), order=o, **kwargs) for o in orders]


@torch.no_grad()
def copy_weights(made, linears, rows):
    """Our weights into a peer's masked layers, whose units have the same degrees in another order.

    Args:
        linears: the peer's layers, with a `mask` each.
        rows: (outputs, D), where in its last layer the peer keeps our output k of coordinate i.
    """
    degree = linears[0].mask.sum(1)  # of a hidden unit: the number of inputs that it sees
    unit = torch.argsort(degree, stable=True)  # ours are in the order of their degrees
    places = [torch.arange(linears[0].weight.shape[1]), *[unit] * (len(linears) - 1)]
    places.append(rows.flatten())
    for ours, theirs, a, b in zip(made.layers, linears, places, places[1:], strict=False):
        theirs.weight[b[:, None], a] = ours.weight
        theirs.bias[b] = ours.bias


class NflowsMAF(nflows_transforms.MaskedAffineAutoregressiveTransform):
    """nflows' layer with our scale: it computes z = scale x + shift from x_<i."""

    def _unconstrained_scale_and_shift(self, params):
        raw, shift = params.view(-1, self.features, 2).unbind(-1)
        scale = torch.exp(-bounded(raw, 3.0))
        return torch.log(torch.expm1(scale - self._epsilon)), -shift * scale


def nflows_maf(f, dtype):
    D = f.shape[0]
    peer = NflowsMAF(D, f.net.layers[0].out_features, num_blocks=1, use_residual_blocks=False)
    net = peer.to(dtype).autoregressive_net
    linears = [net.initial_layer, net.blocks[0].linear, net.final_layer]
    copy_weights(f.net, linears, torch.arange(2 * D).view(D, 2).T)
    return peer


def zuko_maf(f, dtype):
    D = f.shape[0]

    def univariate(raw, shift):
        log_scale = -bounded(raw, 3.0)
        free = log_scale / (1 - (log_scale / math.log(1e-3)).abs())  # zuko bounds it by a fraction
        return zuko.transforms.MonotonicAffineTransform(-shift * log_scale.exp(), free)

    peer = zuko.flows.MaskedAutoregressiveTransform(
        D,
        order=torch.argsort(torch.tensor(f.net.order)),
        univariate=univariate,
        hidden_features=[f.net.layers[0].out_features] * 2,
    )
    linears = [m for m in peer.to(dtype).hyper if isinstance(m, nn.Linear)]
    copy_weights(f.net, linears, torch.arange(2 * D).view(D, 2).T)
    return peer


@both_precisions
@every_size
def test_maf_of_zuko(D, dtype):
    layers = [loud(f, dtype) for f in layers_of(D)]
    x = torch.randn(7, D, dtype=dtype)
    base = torch.distributions.Independent(
        torch.distributions.Normal(torch.zeros(D, dtype=dtype), torch.ones(D, dtype=dtype)), 1
    )
    peers = [zuko_maf(f, dtype)() for f in layers]
    peer = zuko.distributions.NormalizingFlow(zuko.transforms.ComposedTransform(*peers), base)
    close(Flow(Compose(*layers), D).log_prob(x), peer.log_prob(x))
    z = peers[2](x)
    close(layers[2].to_base(x)[0], z)
    close(layers[2].from_base(z)[0], peers[2].inv(z))


@both_precisions
@every_size
def test_maf_of_nflows(D, dtype):
    """Their order is always 0, 1, ..., which is that of our first layer."""
    f = loud(layers_of(D)[0], dtype)
    peer = nflows_maf(f, dtype)
    x = torch.randn(7, D, dtype=dtype)
    for got, want in zip(f.to_base(x), peer(x), strict=True):
        close(got, want)
    for got, want in zip(f.from_base(x), peer.inverse(x), strict=True):
        close(got, want)


@both_precisions
@pytest.mark.parametrize("mask", [halves, alternating])
@every_size
def test_realnvp_of_nflows(D, mask, dtype):
    class Peer(nflows_transforms.AffineCouplingTransform):
        def _scale_and_shift(self, params):
            raw, shift = params.chunk(2, 1)
            scale = torch.exp(-bounded(raw, 3.0))
            return scale, -shift * scale

    class Net(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x, context=None):
            return self.net(x)

    ours, theirs, z = [], [], torch.randn(7, D, dtype=dtype)
    for flip in (False, True):
        m = mask(D, flip)
        f = loud(AffineCoupling(m, mlp(int(m.sum()), 2 * int((~m).sum()), 16)), dtype)
        ours.append(f)
        theirs.append(Peer((~m).int(), lambda a, b, net=f.net: Net(net)))
    peer = nflows_transforms.CompositeTransform(theirs)
    flow = Compose(*ours)
    x = flow.from_base(z)[0]
    close(x, peer.inverse(z)[0])
    for got, want in zip(flow.to_base(x), peer(x), strict=True):
        close(got, want)


def spline_parameters(dtype, bins=7, n=500):
    w, h, d = (2 * torch.randn(n, k, dtype=dtype) for k in (bins, bins, bins - 1))
    return 4 * torch.randn(n, dtype=dtype), w, h, d


@both_precisions
@pytest.mark.parametrize("inverse", [False, True])
def test_spline_of_nflows(inverse, dtype):
    from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

    x, w, h, d = spline_parameters(torch.float64)  # drawn once, rounded for float32
    x, w, h, d = (v.to(dtype) for v in (x, w, h, d))
    want = unconstrained_rational_quadratic_spline(x, w, h, d + UNIT, inverse, tail_bound=3.0)
    got = rational_quadratic(x, w, h, d, inverse)
    if dtype == torch.float64:
        close(got[0], want[0])
        close(got[1], want[1])
    else:  # the steepest bins multiply a rounding error by a thousand
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
        assert (got[0] - want[0]).abs().median() < 1e-6


def test_spline_of_zuko():
    """From the same knots: their parametrisation has no smallest bin."""
    x, w, h, d = spline_parameters(torch.float64)
    peer = zuko.transforms.MonotonicRQSTransform(w, h, d, bound=3.0)
    peer.horizontal, peer.vertical, peer.derivatives = knots(w, h, d, 3.0)
    y, log_slope = peer.call_and_ladj(x)
    got = rational_quadratic(x, w, h, d)
    close(got[0], y)
    close(got[1], log_slope)
    close(rational_quadratic(y, w, h, d, inverse=True)[0], peer.inv(y))


@every_size
def test_autoregressive_spline_of_nflows(D):
    """Our network's outputs through their spline: the log-density of a whole layer."""
    from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

    f = loud(SplineAutoregressive(D, 24, bins=6), torch.float64)
    x = 2 * torch.randn(7, D, dtype=torch.float64)
    w, h, d = torch.stack(f.params(x, None), -1).split([6, 6, 5], -1)
    z, log_slope = unconstrained_rational_quadratic_spline(x, w, h, d + UNIT, tail_bound=3.0)
    normal = torch.distributions.Normal(0.0, 1.0)
    close(Flow(f, D).log_prob(x), (normal.log_prob(z) + log_slope).sum(1))


@both_precisions
@every_size
def test_planar_of_normflows(D, dtype):
    """Their u is the one whose constrained u_hat is ours: the two constraints differ by a shift."""
    f = loud(Planar(D), dtype, std=1.0)
    w, u, b, wu = (v.detach() for v in f.layer())
    a = torch.log(torch.expm1(1 + wu))  # their m(a) = softplus(a) - 1
    theirs = u + (a - wu) * w / w.square().sum()
    peer = normflows.flows.Planar((D,), u=theirs[None], w=w[None], b=b[None])
    z = torch.randn(7, D, dtype=dtype)
    for got, want in zip(f.from_base(z), peer(z), strict=True):
        close(got, want)
