"""Coupling layers: the laws, who steers whom, volume, contexts, and two classic mistakes."""

import pytest
import torch

from lib.flows import AdditiveCoupling, Affine, AffineCoupling, Compose, Flow, SplineCoupling
from lib.flows.builders import nice, realnvp, spline_coupling
from lib.flows.coupling import alternating, channel_halves, checkerboard, fitted, halves
from lib.nets import conv_net, mlp
from tests.flows.laws import Case, Laws, jacobians

F64 = torch.float64


def vector(kind, mask, blocks, context=0, **kwargs):
    def build(D):
        m = mask(D)
        a, b = int(m.sum()), int((~m).sum())
        more = kwargs | ({"context": context} if context else {})
        return kind(m, mlp(a + context, blocks * b, 8, 1), **more)

    return build


def image(kind, mask, blocks, context=0, **kwargs):
    """D channels of 2 x 4 pixels."""

    def build(D):
        m = mask(D, 2, 4)
        a, b = (m.any((1, 2)).sum(), (~m).any((1, 2)).sum())
        more = kwargs | ({"context": context} if context else {})
        return kind(m, conv_net(int(a) + context, blocks * int(b), 4, 1, last=1.0), **more)

    return build


def flipped(mask):
    return lambda *shape: mask(*shape, flip=True)


IMAGE = {"loud": 0.1, "shape": lambda D: (D, 2, 4)}


def soft(D):
    """Louder networks make slopes, or stacks of layers, that float32 cannot undo."""
    return 0.45 / D**0.5


class TestCoupling(Laws):
    CASES = {
        "additive": Case(vector(AdditiveCoupling, alternating, 1)),
        "affine": Case(vector(AffineCoupling, halves, 2), 0.5),
        "affine-flip": Case(vector(AffineCoupling, flipped(halves), 2), 0.5),
        "affine-alternating": Case(vector(AffineCoupling, alternating, 2), 0.5),
        "affine-alternating-flip": Case(vector(AffineCoupling, flipped(alternating), 2), 0.5),
        "affine-context": Case(vector(AffineCoupling, halves, 2, context=3), 0.5, context=3),
        "additive-context": Case(vector(AdditiveCoupling, halves, 1, context=3), 0.5, context=3),
        "spline": Case(vector(SplineCoupling, halves, 11, bins=4), soft, second=False, mass=1e-3),
        "spline-context": Case(
            vector(SplineCoupling, alternating, 11, context=2, bins=4),
            soft,
            context=2,
            second=False,
            mass=1e-3,
        ),
        "nice": Case(lambda D: nice(D, 4, 8, 1), 0.3),
        "realnvp": Case(
            lambda D: realnvp(D, 4, 8, 1), soft, mass=1e-3
        ),  # kinks of the ReLU, on a grid
        "realnvp-context": Case(lambda D: realnvp(D, 4, 8, 1, context=2), soft, 2, mass=1e-3),
        "spline_coupling": Case(
            lambda D: spline_coupling(D, 3, 8, bins=4, depth=1), soft, second=False, mass=1e-3
        ),
        "checkerboard": Case(image(AffineCoupling, checkerboard, 2), sizes=(1, 3), **IMAGE),
        "checkerboard-additive": Case(
            image(AdditiveCoupling, flipped(checkerboard), 1), sizes=(1, 3), **IMAGE
        ),
        "checkerboard-spline": Case(
            image(SplineCoupling, checkerboard, 11, bins=4), sizes=(1, 3), second=False, **IMAGE
        ),
        "channels": Case(image(AffineCoupling, channel_halves, 2), sizes=(2, 3, 6), **IMAGE),
        "channels-flip": Case(
            image(AffineCoupling, flipped(channel_halves), 2), sizes=(2, 3, 6), **IMAGE
        ),
        "image-context": Case(  # an image of another size
            image(AffineCoupling, checkerboard, 2, context=2),
            sizes=(1, 3),
            context_shape=(2, 1, 2),
            **IMAGE,
        ),
        "image-context-large": Case(
            image(AffineCoupling, channel_halves, 2, context=1),
            sizes=(2, 3),
            context_shape=(1, 4, 8),
            **IMAGE,
        ),
        "image-label": Case(
            image(AffineCoupling, channel_halves, 2, context=3), sizes=(2, 3), context=3, **IMAGE
        ),
    }


def loud(f, size=0.5):
    with torch.no_grad():
        for p in f.parameters():
            p.add_(size * torch.randn_like(p))
    return f.double()


VECTOR_MASKS = [halves, flipped(halves), alternating, flipped(alternating)]


@pytest.mark.parametrize("mask", VECTOR_MASKS)
@pytest.mark.parametrize("D", [2, 3, 6, 7])
def test_the_jacobian_is_triangular_with_the_steering_half_first(mask, D, device):
    m = mask(D)
    f = loud(vector(AffineCoupling, mask, 2)(D)).to(device)
    x = torch.randn(3, D, dtype=F64, device=device)
    order = torch.cat([m.nonzero(), (~m).nonzero()])[:, 0].to(device)
    for run in (f.to_base, f.from_base):
        J = jacobians(run, x)[:, order][:, :, order]
        a = int(m.sum())
        assert torch.equal(J[:, :a, :a], torch.eye(a).to(J).expand(3, a, a))
        assert (J[:, :a, a:] == 0).all()
        assert (J[:, a:, a:] == torch.diag_embed(J[:, a:, a:].diagonal(dim1=1, dim2=2))).all()
        assert (J[:, a:, :a] != 0).all()


@pytest.mark.parametrize("mask", VECTOR_MASKS)
@pytest.mark.parametrize("D", [3, 6])
def test_each_number_stays_in_its_place(mask, D, device):
    """The formula written with the mask itself: halves joined in another order would differ."""
    m = mask(D).to(device)
    f = loud(vector(AffineCoupling, mask, 2)(D)).to(device)
    z = torch.randn(5, D, dtype=F64, device=device)
    raw, shift = f.net(z[:, m]).chunk(2, 1)
    want = z.clone()
    want[:, ~m] = z[:, ~m] * (3 * torch.tanh(raw / 3)).exp() + shift
    torch.testing.assert_close(f.from_base(z)[0], want)


@pytest.mark.parametrize("D", [2, 3, 6])
def test_halves_joined_in_the_wrong_order_are_caught(D):
    """Beyond the plane. The log-determinant cannot see it, in any dimension; the round trip can."""

    class Misjoined(AffineCoupling):
        def join(self, a, b):
            return torch.cat([a, b], 1)

    f = loud(vector(Misjoined, alternating, 2)(D))
    z = torch.randn(5, D, dtype=F64)
    x, logabsdet = f.from_base(z)
    want = torch.linalg.slogdet(jacobians(f.from_base, z)).logabsdet
    torch.testing.assert_close(logabsdet, want)
    assert torch.allclose(f.to_base(x)[0], z) == (D == 2)


@pytest.mark.parametrize("D", [2, 3, 7])
def test_nice_preserves_volume_up_to_its_scaling(D, device):
    f = loud(nice(D, 4, 16)).to(device)
    z = torch.randn(5, D, dtype=F64, device=device)
    *couplings, scaling = f.transforms
    assert all(isinstance(t, AdditiveCoupling) for t in couplings) and isinstance(scaling, Affine)
    for run in ("to_base", "from_base"):
        assert (getattr(Compose(*couplings), run)(z)[1] == 0).all()
        sign = -1 if run == "to_base" else 1
        want = (sign * scaling.log_scale.sum()).expand(5)
        torch.testing.assert_close(getattr(f, run)(z)[1], want)


def test_the_log_scale_is_bounded(device):
    f = loud(realnvp(6, 1, 16), 100.0).transforms[0].to(device)
    x = 100 * torch.randn(50, 6, dtype=F64, device=device)
    log_scale, _ = f.scale_and_shift(f.split(x)[0], None)
    assert 2.9 < log_scale.abs().max() <= 3.0
    assert (f.to_base(x)[1].abs() <= 9.0).all()


def test_masks():
    assert halves(5).tolist() == [True, True, True, False, False]
    assert alternating(4, flip=True).tolist() == [False, True, False, True]
    board = checkerboard(2, 3, 3)
    assert board.shape == (2, 3, 3) and board[0, 0, 0] and not board[1, 0, 1] and board[1, 1, 1]
    assert (board ^ checkerboard(2, 3, 3, flip=True)).all()
    assert channel_halves(3, 2, 2)[:, 0, 0].tolist() == [True, True, False]
    assert channel_halves(4, 2, 2, flip=True)[:, 1, 1].tolist() == [False, False, True, True]


def test_builders_start_near_the_identity_and_change_roles(device):
    x = torch.randn(5, 6, device=device)
    for f in (nice(6), realnvp(6)):
        z, logabsdet = f.to(device).to_base(x)
        torch.testing.assert_close(z, x, atol=0.1, rtol=0)
        assert not torch.equal(z, x) and logabsdet.abs().max() < 0.1
    shapes = [t.layout for t in realnvp(6, 4).transforms]
    assert shapes == ["a, b", "b, a", "a, b", "b, a"]


def test_checkerboard_networks_see_no_steered_pixel(device):
    f = loud(image(AffineCoupling, checkerboard, 2)(2), 0.1).to(device)
    x = torch.randn(3, 2, 2, 4, dtype=F64, device=device)
    hidden = (~checkerboard(2, 2, 4)).to(device)
    y = torch.where(hidden, 5.0, x)
    assert torch.equal(f.to_base(x)[1], f.to_base(y)[1])
    assert torch.equal(f.from_base(x)[0][:, ~hidden], x[:, ~hidden])


def test_samples_of_a_conditional_flow_belong_to_their_rows(device):
    flow = Flow(loud(realnvp(2, 4, 8, context=3), 0.3), 2).to(device)
    noise = torch.randn(6, 2, dtype=F64, device=device)
    c = torch.eye(3, dtype=F64, device=device).repeat(2, 1)
    x, log_prob = flow.sample_with_log_prob(6, c, noise=noise)
    torch.testing.assert_close(flow.log_prob(x, c), log_prob)
    for i in range(6):
        torch.testing.assert_close(flow.sample(1, c[[i]], noise=noise[[i]]), x[[i]])


def test_mistakes():
    for build, error, says in [
        (lambda: AffineCoupling(torch.ones(3), mlp(1, 2)), TypeError, "bool tensor"),
        (lambda: AffineCoupling(torch.ones(3).bool(), mlp(1, 2)), ValueError, "needs both"),
        (lambda: AffineCoupling(torch.zeros(3).bool(), mlp(1, 2)), ValueError, "needs both"),
        (lambda: SplineCoupling(halves(2), mlp(1, 2), bins=0), ValueError, "bins"),
        (lambda: spline_coupling(2, bins=0), ValueError, "bins must be at least 1"),
        (lambda: AffineCoupling(halves(2), mlp(1, 2), limit=0), ValueError, "limit must be finite"),
        (lambda: realnvp(2, limit=-3.0), ValueError, "limit must be finite and above 0"),
        (lambda: realnvp(1), ValueError, "at least 2 dimensions"),
        (lambda: nice(4, layers=0), ValueError, "layers"),
    ]:
        with pytest.raises(error, match=says):
            build()
    with pytest.raises(ValueError, match=r"the network returned \(4, 5\), expected \(4, 4\)"):
        AffineCoupling(halves(4), mlp(2, 5)).to_base(torch.randn(4, 4))


def test_a_share_of_an_image_coupling_has_one_number_an_example(device):
    from lib.flows.coupling import channel_halves
    from lib.flows.moons import Partly

    coupling = AffineCoupling(channel_halves(2, 4, 4), torch.nn.Conv2d(1, 2, 1)).to(device)
    x = torch.randn(3, 2, 4, 4, device=device)
    z, logabsdet = Partly(coupling, 1.0).to_base(x)
    want, whole = coupling.to_base(x)
    assert logabsdet.shape == (3,)
    torch.testing.assert_close((z, logabsdet), (want, whole))


@pytest.mark.parametrize("build", [realnvp, spline_coupling])
def test_a_coupling_keeps_its_precision_under_autocast(build, device):
    flow = build(8, 3, 16).to(device)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x = torch.randn(64, 8, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        z, logabsdet = flow.to_base(x)
        back, minus = flow.from_base(z)
    assert logabsdet.dtype == torch.float32
    assert (logabsdet + minus).abs().max() < 1e-3 and (back - x).abs().max() < 1e-3


@pytest.mark.parametrize("size", [(4, 2), (2, 4), (2, 2)])
def test_a_context_that_shrinks_in_any_direction_keeps_its_mean(size):
    context = torch.rand(3, 5, 4, 4)
    small = fitted(context, torch.zeros(3, 1, *size))
    torch.testing.assert_close(small.mean((2, 3)), context.mean((2, 3)))


@pytest.mark.parametrize("size", [(3, 2), (2, 3)])
def test_a_context_that_grows_in_one_direction_is_its_nearest_pixel(size):
    """Where 3 pixels are made of 2, a mean would blur the one in the middle."""
    context = torch.rand(3, 5, 2, 2)
    rows, columns = (torch.arange(n) * 2 // n for n in size)
    large = fitted(context, torch.zeros(3, 1, *size))
    assert torch.equal(large, context[:, :, rows][..., columns])
