"""Every bijection, held to the same laws at random shapes, sizes, layouts and precisions."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lib.flows import builders, coupling, linear, planar, sylvester
from lib.flows.autoregressive import Autoregressive, MaskedAutoregressive, SplineAutoregressive
from lib.flows.continuous import Continuous, RegularisedFlow, set_solver
from lib.flows.coupling import AdditiveCoupling, AffineCoupling, Coupling, SplineCoupling
from lib.flows.elementwise import Affine, Logit, Monotone, check_data
from lib.flows.field import ConvField, FieldNet, slope
from lib.flows.flow import Flow, StandardNormal, Uniform
from lib.flows.integrator import Integrator, Moved
from lib.flows.made import MADE
from lib.flows.moons import Near, Partly, first_layers, layers_from_base, moons_flow
from lib.flows.multiscale import MultiScale, Squeeze, squeeze, unsqueeze
from lib.flows.planar import Planar, PlanarFlow
from lib.flows.radial import Radial
from lib.flows.recipes import chessboard
from lib.flows.spline import knots, rational_quadratic
from lib.flows.sylvester import Sylvester
from lib.flows.transform import (
    Compose,
    Inverse,
    Transform,
    check_context,
    check_input,
)
from lib.nets import mlp
from lib.utils import full_precision
from tests.flows.laws import jacobians
from tests.fuzz.kit import (
    F32,
    F64,
    MODEST,
    WIDE,
    apart,
    batches,
    by_case,
    covers,
    few,
    finite,
    loud,
    outcome,
    refused,
    same,
    tolerance,
    wrong_kind,
)

torch.manual_seed(0)


@dataclass(frozen=True)
class Case:
    build: Callable  # of D, an example's size
    covers: tuple = ()
    context: int = 0
    shape: Callable[[int], tuple[int, ...]] = lambda D: (D,)
    sizes: tuple[int, int] = (1, 5)
    by: float = 0.25  # how far from its start
    unit: bool = False  # its data lie in (0, 1)
    invertible: bool = True
    slack: float = 1.0

    def __repr__(self):
        return "case"


def coupled(kind, outputs, **how):
    def build(D):
        mask = coupling.halves(D) if D % 2 else coupling.alternating(D)
        a, b = int(mask.sum()), int((~mask).sum())
        return kind(mask, mlp(a, outputs * b, 8, 1), **how)

    return build


image = lambda D: (D, 4, 4)
solver = dict(solver="rk4", steps=6)
CASES = {
    "affine": Case(lambda D: Affine(D), (Affine,)),
    "monotone": Case(lambda D: Monotone(D, units=3), (Monotone,)),
    "logit": Case(lambda D: Logit(0.05), (Logit,), unit=True),
    "lu": Case(linear.LULinear, (linear.LULinear,)),
    "qr": Case(linear.QRLinear, (linear.QRLinear,)),
    "rotation": Case(linear.Rotation, (linear.Rotation,)),
    "permutation": Case(
        lambda D: linear.Permutation(list(range(D))[::-1]), (linear.Permutation, linear.Channels)
    ),
    "conv1x1": Case(linear.Conv1x1, (linear.Conv1x1,), shape=image, sizes=(1, 3), by=0.1),
    "actnorm": Case(lambda D: linear.ActNorm(D, 4, 4), (linear.ActNorm,), shape=image),
    "additive": Case(coupled(AdditiveCoupling, 1), (AdditiveCoupling, Coupling), sizes=(2, 5)),
    "affine-coupling": Case(coupled(AffineCoupling, 2, limit=1.5), (AffineCoupling,), sizes=(2, 5)),
    "spline-coupling": Case(
        coupled(SplineCoupling, 8, bins=3),
        (SplineCoupling, knots, rational_quadratic),
        sizes=(2, 5),
    ),
    "maf-layer": Case(
        lambda D: MaskedAutoregressive(D, 8, 1, limit=1.5, context=2),
        (MaskedAutoregressive, Autoregressive, MADE),
        context=2,
    ),
    "spline-layer": Case(lambda D: SplineAutoregressive(D, 8, 1, bins=3), (SplineAutoregressive,)),
    "planar": Case(lambda D: Planar(D, context=2), (Planar, planar.amortised), context=2),
    "planar-alone": Case(lambda D: Planar(D), (planar.constrained, planar.solve)),
    "planar-flow": Case(lambda D: PlanarFlow(D, 3), (PlanarFlow, planar.log_slope)),
    "planar-flow-context": Case(lambda D: PlanarFlow(D, 2, 3), context=3),
    "radial": Case(lambda D: Radial(D), (Radial, planar.above_minus_one)),
    "radial-context": Case(lambda D: Radial(D, 2), context=2),
    "sylvester": Case(
        lambda D: Sylvester(D, 2),
        (
            Sylvester,
            *(getattr(sylvester, n) for n in ("orthonormal", "upper", "diagonal", "apply")),
        ),
        sizes=(2, 5),
    ),
    "sylvester-context": Case(lambda D: Sylvester(D, 1, 2), context=2),
    "squeeze": Case(
        lambda D: Squeeze(),
        (Squeeze, squeeze, unsqueeze),
        shape=lambda D: (4 * D, 2, 2),
        sizes=(1, 3),
    ),
    "inverse": Case(lambda D: Inverse(Monotone(D, units=2)), (Inverse,)),
    "compose": Case(
        lambda D: Compose(Affine(D), linear.Rotation(D), Planar(D, context=2)),
        (Compose,),
        context=2,
    ),
    "multiscale": Case(
        lambda D: builders.glow((D, 4, 4), 2, 1, 4, context_channels=2),
        (builders.glow, MultiScale, coupling.channel_halves, coupling.fitted),
        context=2,
        shape=image,
        sizes=(1, 2),
        by=0.05,
        slack=10,
    ),
    "realnvp-images": Case(
        lambda D: builders.realnvp_images((D, 4, 4), 2, 4, 1),
        (builders.realnvp_images, coupling.checkerboard),
        shape=image,
        sizes=(1, 2),
        by=0.03,
        slack=10,
    ),
    "nice": Case(
        lambda D: builders.nice(D, 2, 8, 1), (builders.nice, coupling.alternating), sizes=(2, 5)
    ),
    "realnvp": Case(
        lambda D: builders.realnvp(D, 2, 8, 1, 2, limit=1.0, mask=coupling.halves),
        (builders.realnvp, builders.relu, coupling.halves),
        context=2,
        sizes=(2, 5),
    ),
    "splines": Case(
        lambda D: builders.spline_coupling(D, 2, 8, 3, 1), (builders.spline_coupling,), sizes=(2, 5)
    ),
    "planars": Case(lambda D: builders.planar_flow(D, 2), (builders.planar_flow,)),
    "radials": Case(lambda D: builders.radial_flow(D, 2), (builders.radial_flow,)),
    "sylvesters": Case(lambda D: builders.sylvester_flow(D, 2, 1), (builders.sylvester_flow,)),
    "maf": Case(lambda D: builders.maf(D, 2, 8, 1, limit=1.0), (builders.maf,)),
    "iaf": Case(lambda D: builders.iaf(D, 2, 8, 1, 2, limit=1.0), (builders.iaf,), context=2),
    "spline-maf": Case(lambda D: builders.spline_maf(D, 2, 8, 3, 1), (builders.spline_maf,)),
    # equal steps: adaptive ones are chosen for the whole batch
    "continuous": Case(
        lambda D: Continuous(FieldNet(D, 8, 2, context=2), **solver),
        (Continuous, FieldNet, Integrator, Moved, slope),
        context=2,
        slack=20,
    ),
    "continuous-images": Case(
        lambda D: Continuous(ConvField(D, 3, 1), solver="rk4", steps=3),
        (ConvField,),
        shape=lambda D: (D, 4, 2),  # an exact divergence takes a pass for each number
        sizes=(1, 1),
        slack=500,
    ),
    "partly": Case(
        lambda D: Partly(moons_flow().transform.transforms[0], 0.3),
        (Partly, moons_flow),
        sizes=(2, 2),
    ),
    "first-layers": Case(
        lambda D: first_layers(moons_flow(), 1.6), (first_layers, layers_from_base), sizes=(2, 2)
    ),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
sizes = st.integers(0, 10)


def make(case, batch, D):
    """A loud transform, points z of the base, and the context that it takes."""
    D = case.sizes[0] + D % (case.sizes[1] - case.sizes[0] + 1)
    torch.manual_seed(batch.seed)
    f = loud(case.build(D), batch.seed, batch.dtype, case.by / D**0.5)
    z = batch.draw(*case.shape(D))
    c = batch.like(scale=1.0).draw(case.context, salt=1) if case.context else None
    return f, z, c


@every
@by_case
@given(batches(WIDE), sizes)
def test_examples_stand_alone(case, batch, D):
    """In both directions: shapes, layouts, no rows, finite numbers from finite ones or a refusal."""
    f, z, c = make(case, batch, D)
    with torch.no_grad():
        out = apart(f.from_base, z, c, slack=case.slack)
        if case.invertible:
            shape = z.shape[1:] if out is None else out[0].shape[1:]
            x = batch.draw(*shape) if not case.unit else batch.uniform(*shape) * 0.98 + 0.01
            back = apart(f.to_base, x, c, slack=case.slack)
            for got in filter(None, (out, back)):
                assert got[1].shape == (len(z),) and got[0][0:1].numel() == z[0:1].numel()


@every
@given(batches((1.0, 100.0, 1e-3, 3.0)), sizes)
def test_there_and_back(case, batch, D):
    f, z, c = make(case, batch, D)
    if case.unit:
        z = 3 * z.tanh()  # beyond, float32 cannot hold the distance from 0 and 1
    with torch.no_grad():
        x, logabsdet = f.from_base(z, c)
        back, minus = f.to_base(x, c)
    tol = 20 * case.slack * tolerance(batch.dtype)
    size = 1 + max((v.abs().max().item() for v in (x, z) if v.numel()), default=0.0)
    torch.testing.assert_close(back, z, rtol=0, atol=tol * size)
    if batch.scale < 10:  # far out, rounding moves x across a bend
        torch.testing.assert_close(minus, -logabsdet, rtol=tol, atol=tol * size)


@every
@few
@given(batches((1.0, 1e-3), most=2, least=1, dtypes=(F64,)), sizes)
def test_logabsdet_is_that_of_the_jacobian(case, batch, D):
    f, z, c = make(case, batch, D)
    assume(z[0].numel() <= 16)
    for run, x in ((f.from_base, z), (f.to_base, f.from_base(z, c)[0].detach())):
        want = torch.linalg.slogdet(jacobians(run, x, c)).logabsdet
        torch.testing.assert_close(run(x, c)[1], want, rtol=1e-5, atol=1e-5)


@every
@given(batches((1.0,), least=1), sizes)
def test_mistakes_are_explained(case, batch, D):
    f, z, c = make(case, batch, D)
    for run in (f.to_base, f.from_base):
        wrong_kind(lambda x, run=run: run(x, c), z)
        refused(lambda run=run: run(z[:, 0] if z.ndim == 2 else z[0, 0], c), ValueError)
        if f.takes_context:
            refused(lambda run=run: run(z), ValueError)
            refused(lambda run=run: run(z, c[1:]), ValueError)
        else:
            refused(lambda run=run: run(z, z), ValueError)
        if next(f.parameters(), None) is not None:
            other = F32 if batch.dtype == F64 else F64
            refused(lambda run=run, other=other: run(z.to(other), c), TypeError)
            refused(lambda run=run: run(z.half(), c), TypeError)


@covers(Flow, StandardNormal, Near)
@given(batches(WIDE), st.integers(1, 4))
def test_flow(batch, D):
    f = loud(builders.realnvp(max(D, 2), 2, 8, 1), batch.seed, batch.dtype)
    flow = Flow(f, max(D, 2))
    x = batch.draw(max(D, 2))
    with torch.no_grad():
        apart(flow.log_prob, x, low=True)
        same(flow(x), -flow.log_prob(x))
        apart(Near(Flow(f, max(D, 2))), x, low=False) if batch.scale < 1e6 else None
        if batch.rows:
            drawn, log_p = flow.sample_with_log_prob(batch.rows)
            if batch.dtype == F64:
                same(flow.log_prob(drawn), log_p, 1e3)
            assert flow.sample(batch.rows).shape == drawn.shape
    refused(lambda: flow.sample(0), ValueError)
    refused(lambda: Flow(f), ValueError)
    if batch.rows:
        refused(lambda: flow.log_prob(x * float("inf")), ValueError)
    wrong_kind(flow.log_prob, x)


@covers(Uniform)
@given(batches(WIDE), st.sampled_from([(0.0, 1.0), (-3.0, 1e6), (-1e-20, 1e-20)]))
def test_uniform(batch, ends):
    base, (low, high) = Uniform(*ends), ends
    apart(base.log_prob, batch.draw(3), low=True)
    u = base.draw(batch.rows, 3, dtype=batch.dtype)
    assert ((u >= low) & (u <= high)).all() and base.log_prob(u).isfinite().all()
    refused(lambda: Uniform(high, low), ValueError)


@covers(linear.start, check_data)
@given(batches((0.0, 1e-30, 1e-3, 1.0, 1e3, 1e12), most=6))
def test_starts_from_any_data(batch):
    """Constant, tiny or huge columns: what reaches the base is finite, of variance 1 or less."""
    x = batch.draw(3)
    for f in (Affine(3), Monotone(3, units=3), linear.LULinear(3), linear.ActNorm(3)):
        f = f.to(batch.dtype)
        z = outcome(lambda f=f: linear.start(Compose(f), x))
        assert (z is None) == (batch.rows < 2)
        if z is not None:
            finite([z, *f.parameters(), *f.to_base(x), *f.from_base(z)])


@covers(
    coupling.halves,
    coupling.alternating,
    coupling.checkerboard,
    coupling.channel_halves,
    chessboard,
)
@given(st.integers(-1, 6), st.integers(1, 4), st.booleans())
def test_masks(D, side, flip):
    for mask in (coupling.halves, coupling.alternating):
        if D < 1:
            refused(lambda mask=mask: mask(D, flip), ValueError)
        else:
            assert (mask(D) ^ mask(D, True)).all() and abs(2 * int(mask(D, flip).sum()) - D) <= 1
    for mask in (coupling.checkerboard, coupling.channel_halves):
        if D > 0:
            m = mask(D, side, side, flip)
            assert m.shape == (D, side, side) and (m ^ mask(D, side, side, not flip)).all()
    assert chessboard(8 * side, flip).shape == (8 * side,)
    refused(lambda: chessboard(8 * side + 1), ValueError)


@covers(squeeze, unsqueeze)
@given(batches(), st.integers(1, 3), st.integers(1, 3))
def test_squeeze(batch, H, W):
    x = batch.draw(2, 2 * H, 2 * W)
    assert torch.equal(unsqueeze(squeeze(x)), x)
    apart(squeeze, x)
    if batch.rows:
        refused(lambda: Squeeze().to_base(x[:, :, 1:]), ValueError)


@covers(knots, rational_quadratic)
@given(
    batches((0.0, 1e-30, 1.0, 30.0, 1e3, 1e12)),
    st.integers(1, 6),
    st.sampled_from([1e-3, 3.0, 1e4]),
)
def test_spline(batch, K, bound):
    """Rising, onto the interval, the identity outside; finite for any parameters."""
    raw = [batch.draw(K, salt=1), batch.draw(K, salt=2), batch.draw(K - 1, salt=3)]
    xs, ys, ds = knots(*raw, bound)
    assert (xs.diff(dim=-1) > 0).all() and (ys.diff(dim=-1) > 0).all() and (ds > 0).all()
    finite([xs, ys, ds])
    x = bound * batch.like(scale=1.0).draw(salt=4)
    for inverse in (False, True):
        got = apart(
            lambda x, *raw, inverse=inverse: rational_quadratic(x, *raw, inverse, bound),
            x,
            *raw,
            slack=50,
        )
        assert got is not None
        outside = x.abs() > bound
        edge = bound * (1 + 4 * torch.finfo(x.dtype).eps)  # where x is at it, y rounds either way
        assert torch.equal(got[0][outside], x[outside]) and (got[0].abs() <= edge)[~outside].all()
    refused(lambda: knots(*raw, 0.0), ValueError)
    refused(lambda: knots(raw[0], raw[1], raw[0], bound), ValueError)


@covers(planar.solve, planar.above_minus_one, planar.constrained, planar.log_slope)
@given(batches(WIDE), st.sampled_from([1e-3, 1.0, 30.0]))
def test_planar_parts(batch, wide):
    c, raw = batch.draw(), wide * batch.like(scale=1.0).draw(salt=1)
    m = planar.above_minus_one(raw)
    assert (m > -1).all()
    s = apart(planar.solve, c, m)
    tol = 20 * tolerance(batch.dtype)
    torch.testing.assert_close(s + m * s.tanh(), c, rtol=tol, atol=tol * (1 + wide))
    w, u = batch.draw(3, salt=2), batch.like(scale=wide).draw(3, salt=3)
    if batch.scale <= 1e6:
        u_hat, wu = apart(planar.constrained, w, u)
        assert (wu > -1).all()
        finite(planar.log_slope(s.tanh(), wu))


@covers(planar.amortised)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_amortised(context, layers, dim):
    assert planar.amortised(context, layers, dim).weight.shape == (layers * (2 * dim + 1), context)


@covers(*(getattr(sylvester, n) for n in ("orthonormal", "upper", "diagonal", "apply")))
@given(batches((0.0, 1e-30, 1e-3, 1.0, 1e3, 1e6)), st.integers(1, 4), st.integers(0, 3))
def test_sylvester_parts(batch, M, more):
    Q = apart(sylvester.orthonormal, batch.draw(M + more, M))
    eye = torch.eye(M, dtype=batch.dtype).expand(batch.rows, M, M)
    torch.testing.assert_close(Q.mT @ Q, eye, atol=20 * tolerance(batch.dtype), rtol=0)
    R, R2 = apart(sylvester.upper, batch.draw(M, M)), sylvester.upper(batch.draw(M, M, salt=1))
    assert (apart(sylvester.diagonal, R, R2) > -1).all() and (R.tril(-1) == 0).all()
    apart(sylvester.apply, R, batch.like(scale=1.0).draw(M))


@covers(MADE)
@given(batches(MODEST), st.integers(1, 5), st.integers(0, 2), st.integers(1, 3))
def test_made_sees_only_what_came_before(batch, D, C, outputs):
    order = torch.randperm(D, generator=torch.Generator().manual_seed(batch.seed)).tolist()
    net = loud(MADE(D, outputs, 9, 1, C, order), batch.seed, F64)
    x = batch.like(dtype=F64).draw(D)
    c = batch.like(dtype=F64).draw(C, salt=1) if C else None
    apart(net, x, c)
    if batch.rows:
        jac = torch.autograd.functional.jacobian(lambda x: net(x, c).view(-1, outputs, D)[0], x)
        place = torch.tensor(order).argsort()
        later = place[:, None] <= place  # output i must not see input j
        assert (jac[:, :, 0, :].abs().amax(0)[later] == 0).all()
    refused(lambda: MADE(D, order=[0] * (D + 1)), ValueError)


@covers(set_solver, RegularisedFlow)
@given(batches((0.0, 1e-3, 1.0, 3.0)))
def test_regularised_flow(batch):
    flow = RegularisedFlow(Continuous(FieldNet(2, 8, 2), **solver), 2)
    flow = loud(flow, batch.seed, batch.dtype)
    x = batch.draw(2)
    with torch.no_grad():
        plain = apart(flow.eval(), x, slack=20)
        costly = flow.train()(x)
    assert costly.shape == plain.shape == (batch.rows,) and (costly >= plain - 1e-3).all()
    assert all(v == v for v in flow.costs), flow.costs
    assert set_solver(flow, steps=3).transform.how.steps == 3
    refused(lambda: set_solver(Affine(2)), ValueError)
    refused(lambda: set_solver(flow, solver="magic"), ValueError)
    refused(lambda: RegularisedFlow(Affine(2), 2), ValueError)


@covers(Transform, check_input, check_context, full_precision)
@given(batches(MODEST, least=1))
def test_the_contract_itself(batch):
    x, f = batch.draw(3), Transform()
    for run in (f.to_base, f.from_base):
        refused(lambda run=run: run(x), NotImplementedError)
    refused(lambda: f(x), TypeError)
    check_input(f, x)
    check_context(f, x, None)
    with torch.autocast(x.device.type, torch.bfloat16), full_precision(x):
        assert (x.T @ x).dtype == x.dtype
    refused(lambda: Compose(torch.nn.Linear(2, 2)), TypeError)
    refused(lambda: check_context(f, x, x), ValueError)
    wrong_kind(lambda x: check_input(f, x), x)
