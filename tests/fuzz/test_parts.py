"""Networks, solvers, distances, helpers: what everything else stands on."""

import json
import math
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib import attention, metrics, nets, ode, paths, quality, recipe, unet, utils, weights
from lib.flows import continuous, divergence, energy
from lib.flows.builders import planar_flow
from lib.flows.flow import Flow
from lib.ode import adjoint, bridge, checks, solvers
from lib.results import protocol, store, table
from lib.results.nets import VectorNet
from lib.results.training import Calls, average, counted, in_parts
from tests.fuzz.kit import (
    F32,
    F64,
    HUGE,
    MODEST,
    WIDE,
    apart,
    batches,
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

seeds = st.integers(0, 10_000)

# ---------------------------------------------------------------------------- lib.utils


@covers(
    utils.sum_dims, utils.expand_as_batch, utils.std_normal_log_prob, utils.bounded,
    utils.check_batch, utils.check_finite, utils.check_count,
)  # fmt: skip
@given(batches(HUGE), st.lists(st.integers(0, 3), max_size=2), st.sampled_from([3.0, 1e-6, 1e6]))
def test_utils(batch, shape, limit):
    x = batch.draw(*shape)
    apart(utils.sum_dims, x)
    apart(utils.std_normal_log_prob, x, low=True)
    got = apart(lambda x: utils.bounded(x, limit), x)
    assert (got.abs() <= limit * (1 + 1e-6)).all()
    assert utils.expand_as_batch(0.3, x).ndim == 0
    rows = utils.expand_as_batch(batch.like(scale=1.0).draw(), x)
    assert (rows * x).shape == x.shape
    refused(lambda: utils.expand_as_batch(torch.ones(batch.rows + 2), x), ValueError)
    refused(lambda: utils.expand_as_batch(torch.ones(1, 1), x), ValueError)
    assert utils.check_batch(x) is x and utils.check_finite(x) is x
    assert utils.check_batch(x, context=x[:]) is x
    refused(lambda: utils.check_batch(x, 7), ValueError)
    refused(lambda: utils.check_batch(x, context=torch.ones(batch.rows + 1)), ValueError)
    refused(lambda: utils.check_batch(x, context=[1]), TypeError)
    refused(lambda: utils.check_batch(torch.tensor(1.0)), ValueError)
    for bad in (math.nan, math.inf):
        refused(lambda bad=bad: utils.check_finite(torch.tensor([bad])), ValueError)
    wrong_kind(utils.check_batch, x)
    for bad in (0, -1):
        refused(lambda bad=bad: utils.check_count(bad), ValueError)
    for bad in (1.0, True, "3"):
        refused(lambda bad=bad: utils.check_count(bad), TypeError)


# ------------------------------------------------------------------- networks, attention


@covers(utils.log_normal_interval)
@given(batches((*HUGE, 30.0, 1e4)), st.sampled_from([1.0, 1e-3, 1e-9, 40.0]))
def test_normal_interval(batch, half):
    """Against float64 and, far out, against the density; never NaN."""
    centre = batch.draw()
    interval = lambda c: utils.log_normal_interval(c - half, c + half, 2 * half)
    log, wide = apart(interval, centre, low=True), interval(centre.double())
    same(interval(-centre), log)
    torch.testing.assert_close(log[wide > -1e30].double(), wide[wide > -1e30], rtol=1e-3, atol=1e-2)
    assert (log <= 1e-6).all()
    if half <= 1e-3:
        flat = centre.double().abs() * half < 1e-3  # the density does not change over it
        want = -0.5 * centre.double() ** 2 - 0.5 * math.log(2 * math.pi) + math.log(2 * half)
        torch.testing.assert_close(wide[flat], want[flat], rtol=1e-4, atol=1e-4)


@covers(utils.check_indices)
@given(batches(MODEST), st.integers(1, 5), st.integers(-2, 5))
def test_indices(batch, count, low):
    k = batch.integers(low + 3, 2, low=low)
    within = all(0 <= i < count for i in k.flatten().tolist())
    got = outcome(lambda: utils.check_indices(k, count, "labels"))
    assert (got is k) if within else (got is None)


@covers(utils.seeded, utils.measuring, utils.evaluating)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_seeded(seed, training):
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1)).train(training)
    model[1].eval()
    before, drawn = torch.get_rng_state(), []
    with utils.evaluating(model):
        assert not model.training and not model[0].training
    for kind in (lambda: utils.seeded(seed), lambda: utils.measuring(model, seed)):
        with kind():
            drawn.append(torch.rand(3))
            inside = model.training
    assert (drawn[0] == drawn[1]).all() and (torch.get_rng_state() == before).all()
    assert not inside and [m.training for m in model.modules()] == [training, training, False]


@covers(utils.known, utils.can_look)
@given(batches(MODEST))
def test_known(batch):
    x = batch.draw(2)
    assert utils.known((x.abs() >= 0).all()) and not utils.known((x.abs() < 0).any())
    looks = []
    torch.func.vmap(lambda row: looks.append(utils.known(row.sum() > -1e9)) or row)(
        torch.ones(2, 2)
    )
    assert looks == [False]
    assert utils.can_look(x) and not utils.can_look(x.to("meta"))


@covers(nets.pixel_unshuffle, nets.pixel_shuffle)
@given(batches(WIDE), st.integers(1, 3), st.integers(1, 2))
def test_pixels(batch, side, C):
    x = batch.draw(C, 2 * side, side)
    apart(lambda x: nets.pixel_unshuffle(x, side), x)
    assert torch.equal(nets.pixel_shuffle(nets.pixel_unshuffle(x, side), side), x)


@covers(nets.linear, nets.Linear)
@given(batches(MODEST), st.integers(1, 3), st.sampled_from([(), (1,), (16,), (4, 8)]))
def test_linear(batch, C, places):
    """As a convolution where there are 16 rows, as a product for each alone."""
    layer = loud(nets.Linear(3, C), batch.seed, batch.dtype, 1.0)
    with torch.no_grad(), patch.multiple(nets, ONEDNN=True, PAYS=0):
        apart(layer, batch.draw(*places, 3), slack=10)


@covers(nets.mlp, nets.conv_net, nets.Residual, VectorNet)
@given(batches((1.0, 0.0, 1e-30, 1e6, 1e25)), st.integers(1, 3), st.integers(0, 2))
def test_networks(batch, D, depth):
    torch.manual_seed(batch.seed)
    ready = lambda net: loud(net, batch.seed, batch.dtype, 0.1).eval()
    image = batch.draw(D, 3, 2)
    with torch.no_grad():
        apart(ready(nets.mlp(D, 2, 4, depth, dropout=0.3)), batch.draw(D), slack=10)
        apart(ready(nets.Residual(D)), image, slack=10)
        apart(ready(nets.conv_net(D, 2, 4, depth)), image, slack=10)
        t = batch.uniform()
        apart(ready(VectorNet(D, 4, 1, embedding=4)), batch.draw(D), t, slack=100)


@covers(attention.Attention, attention.CrossAttention, attention.attend, attention.zeroed)
@given(
    batches((1.0, 0.0, 1e-30, 30.0)), st.sampled_from([(2, 1), (4, 2), (3, 3)]), st.integers(1, 4)
)
def test_attention(batch, sizes, L):
    channels, heads = sizes
    torch.manual_seed(batch.seed)
    x, words = batch.draw(channels, 2, 3), batch.draw(L, 5, salt=1)
    own = loud(attention.Attention(channels, heads), batch.seed, batch.dtype)
    cross = loud(attention.CrossAttention(channels, heads, 5), batch.seed, batch.dtype)
    with torch.no_grad():
        apart(own, x, slack=100)
        apart(cross, x, words, slack=100)
        share = apart(cross.weights, x, words, slack=100)
        torch.testing.assert_close(share.sum(-1), torch.ones_like(share[..., 0]))
    q, k, v = batch.draw(3, 2), batch.draw(L, 2, salt=1), batch.draw(L, 4, salt=2)
    got = apart(attention.attend, q, k, v, slack=100)
    want = (q @ k.mT / 2**0.5).softmax(-1) @ v
    same(got, want, 100)
    assert all((p == 0).all() for p in attention.zeroed(nn.Linear(2, 2)).parameters())
    for bad in (lambda: attention.Attention(4, 3), lambda: attention.CrossAttention(4, 3, 2)):
        refused(bad, ValueError)
    for bad in (0, -1):
        refused(lambda bad=bad: attention.Attention(4, bad), ValueError)
    refused(lambda: own(x[:, 1:]), ValueError)
    refused(lambda: own(x[:, 0]), ValueError)
    refused(lambda: cross(x, words[:, :, 1:]), ValueError)
    refused(lambda: cross(x, words[:, 0]), ValueError)


@covers(unet.UNet, unet.time_embedding, unet.Block, unet.Pointwise, unet.Down, unet.Up)
@given(
    batches((1.0, 0.0, 1e-30, 1e3), most=2),
    st.sampled_from(["none", "classes", "features", "tokens"]),
    st.integers(1, 2),
    st.booleans(),
)
def test_unet(batch, kind, patch, sines):
    torch.manual_seed(batch.seed)
    how = {kind: 3} if kind != "none" else {}
    net = unet.UNet(
        1,
        2,
        4,
        (1, 2),
        attention=(1,),
        heads=2,
        patch=patch,
        fourier=(0, 1) if sines else (),
        **how,
    )
    net = loud(net, batch.seed, batch.dtype, 0.1).eval()
    x, t = batch.draw(1, 4, 8), batch.uniform()
    c = {
        "none": None,
        "classes": batch.integers(4),
        "features": batch.like(scale=1.0).draw(3),
        "tokens": batch.like(scale=1.0).draw(2, 3),
    }[kind]
    with torch.no_grad():
        out = apart(net, x, t, c, slack=1e3)
        assert out is not None and out.shape == (batch.rows, 2, 4, 8)
        block = loud(unet.Block(2, 3, 4, 0.1, 3), batch.seed, batch.dtype, 0.1).eval()
        apart(block, batch.draw(2, 2, 2), batch.draw(4), slack=100)
        e = batch.draw(4)
        apart(unet.Down(2).to(batch.dtype), batch.draw(2, 4, 4), e)
        apart(unet.Pointwise(2, 3).to(batch.dtype), batch.draw(2, 4, 4))
        assert unet.Up(2).to(batch.dtype)(batch.draw(2, 2, 2), e).shape == (batch.rows, 2, 4, 4)
        finite(apart(lambda t: unet.time_embedding(t, 6), batch.draw()))
    refused(lambda: net(x[:, :, 1:], t, c), ValueError)
    refused(lambda: net(x, torch.ones(batch.rows + 1), c), ValueError)
    refused(lambda: net(x, t, None if c is not None else x), ValueError)
    if kind == "classes" and batch.rows:
        refused(lambda: net(x, t, c + 4), ValueError)
        refused(lambda: net(x, t, c - 4), ValueError)
        refused(lambda: net(x, t, c.double()), ValueError)
    refused(lambda: net(x.to(F64 if batch.dtype == F32 else F32), t, c), TypeError)
    wrong_kind(lambda x: net(x, t, c), x)
    refused(lambda: unet.UNet(1, width=3), ValueError)
    refused(lambda: unet.UNet(1, multipliers=()), ValueError)
    refused(lambda: unet.UNet(1, attention=(7,)), ValueError)
    refused(lambda: unet.UNet(1, classes=2, tokens=3), ValueError)
    refused(lambda: unet.time_embedding(t, 5), ValueError)
    refused(lambda: unet.time_embedding(x, 4), ValueError)


# ------------------------------------------------------------------------------ solvers

A = torch.tensor([[-0.3, 1.0], [-1.0, -0.1]], dtype=F64)
spin = lambda t, x: x @ A.to(x.dtype).T
spans = st.sampled_from(
    [
        (0.0, 1.0),
        (1.0, 0.0),
        (0.0, 1e-6),
        (0.3, 0.30001),
        (-2.0, 1.0),
        (0.0, 0.0),
        (0.0, math.inf),
        (0.0, math.nan),
    ]
)


def exactly(x, t0, t1):
    return x @ torch.linalg.matrix_exp(A.to(x.dtype) * (t1 - t0)).T


@covers(
    solvers.solve, solvers.grid, solvers.euler_step, solvers.midpoint_step, solvers.heun_step,
    solvers.rk4_step, solvers.with_float_time, checks.check_start, checks.check_state,
    checks.SolverError,
)  # fmt: skip
@given(batches(HUGE), spans, st.sampled_from(sorted(ode.STEPS)), st.integers(1, 5))
def test_fixed_steps(batch, span, method, steps):
    x, (t0, t1) = batch.draw(2), span
    run = lambda x, **how: ode.solve(spin, x, t0, t1, steps, method, **how)
    for name, one in ode.STEPS.items():
        same(
            one(solvers.with_float_time(spin), 0.0, x, 0.1),
            ode.solve(spin, x, 0.0, 0.1, 1, name),
            10,
        )
    if t0 == t1 or not math.isfinite(t1):
        return refused(lambda: run(x), ValueError)
    got = apart(run, x, slack=10)
    path = run(x, path=True)
    assert path.shape == (steps + 1, *x.shape)
    same(path[-1], got) if batch.rows else None
    fine = ode.solve(spin, x.double(), t0, t1, 40, "rk4")
    size = x.double().abs().max() if x.numel() else 0.0
    torch.testing.assert_close(
        fine, exactly(x.double(), t0, t1), rtol=0, atol=1e-4 * float(size) + 1e-30
    )
    assert solvers.grid(t0, t1, steps)[-1] == t1
    refused(lambda: run(x.long()), TypeError)
    refused(lambda: ode.solve(spin, x, t0, t1, 0, method), ValueError)
    refused(lambda: ode.solve(spin, x, t0, t1, steps, "magic"), ValueError)
    if batch.rows:
        refused(lambda: ode.solve(lambda t, x: x / 0, x, t0, t1, steps), ode.SolverError)
        refused(lambda: checks.check_state(x / 0, 0.5), ode.SolverError)
    checks.check_start(x, t0, t1)


@covers(
    solvers.solve_adaptive, solvers.Solution, solvers.dopri5_step, solvers.combine,
    checks.check_tolerance, solvers.error_ratio, solvers.step_factor, solvers.initial_step, bridge.odeint, bridge.Counted,
)  # fmt: skip
@given(batches((1.0, 0.0, 1e-30, 1e3, 1e6), most=3), spans, st.sampled_from([1e-3, 1e-6]))
def test_adaptive_steps(batch, span, tol):
    x, (t0, t1) = batch.draw(2), span
    runs = (
        lambda x: ode.solve_adaptive(spin, x, t0, t1, tol, tol).x,
        lambda x: ode.odeint(ode.Counted(spin), x, t0, t1, rtol=tol, atol=tol),
    )
    for run in runs:
        if t0 == t1 or not math.isfinite(t1):
            refused(lambda run=run: run(x), ValueError)
            continue
        got = run(x)
        assert got.shape == x.shape and got.dtype == x.dtype
        finite(got)
        size = x.double().abs().max().item() if x.numel() else 0.0
        slack = 30 * tol * (1 + size) + tolerance(batch.dtype) * size
        torch.testing.assert_close(got.double(), exactly(x.double(), t0, t1), rtol=0, atol=slack)
        refused(lambda run=run: run(x.long()), TypeError)
    if batch.rows and t0 != t1 and math.isfinite(t1):
        for run in (ode.solve_adaptive, ode.odeint):
            refused(lambda run=run: run(lambda t, x: x * math.nan, x, t0, t1), ode.SolverError)
    for bad in (0.0, -1.0, math.nan):
        for run in (ode.solve_adaptive, ode.odeint):
            refused(lambda run=run, bad=bad: run(spin, x, 0.0, 1.0, rtol=bad, atol=bad), ValueError)


@covers(
    adjoint.odeint_adjoint,
    adjoint.odeint_checkpointed,
    adjoint.How,
    adjoint.vector_jacobian,
    adjoint.check_captured,
    adjoint.check_forgotten,
)
@given(batches((1.0, 0.0, 1e-3, 30.0), most=3, dtypes=(F64,)), st.booleans())
def test_adjoints(batch, fixed):
    """Gradients of the state and of a parameter, against the matrix exponential; from no rows too."""
    a = A.clone().requires_grad_()
    x = batch.draw(2).detach().requires_grad_()
    field = lambda t, x: x @ a.T
    how = dict(steps=30) if fixed else dict(rtol=1e-8, atol=1e-8)
    want = torch.autograd.grad((x @ torch.linalg.matrix_exp(a).T).square().sum(), (x, a))
    for run in (ode.odeint_adjoint, ode.odeint_checkpointed):
        y = run(field, x, 0.0, 1.0, [a], **how)
        got = torch.autograd.grad(y.square().sum(), (x, a))
        for g, w in zip(got, want, strict=True):
            size = w.abs().max().item() if w.numel() else 0.0
            torch.testing.assert_close(g, w, rtol=0, atol=2e-5 * (1 + size))
        if batch.rows:
            refused(lambda run=run: run(field, x, 0.0, 1.0, [], **how).sum().backward(), ValueError)
        refused(lambda run=run: run(field, x, 0.0, 1.0, **how), ValueError)
        if batch.rows:
            refused(lambda run=run: run(field, x.detach(), 0.0, 1.0, [], **how), ValueError)
    adjoint.check_forgotten(field, x.detach(), 0.0, [a])
    parts = adjoint.vector_jacobian(field, torch.zeros(()), x, torch.ones_like(x), [a])
    same(parts[1], torch.ones_like(x) @ a.detach())


@covers(
    divergence.rows, divergence.directions, divergence.exact_divergence, divergence.hutchinson,
    divergence.pull_one_by_one, divergence.draw_probes, continuous.ode_log_prob,
)  # fmt: skip
@given(
    batches((1.0, 0.0, 1e-30, 1e6)), st.sampled_from(["rademacher", "gaussian"]), st.integers(1, 2)
)
def test_divergence(batch, kind, P):
    x, t = batch.draw(2), torch.zeros((), dtype=batch.dtype)
    v, div = apart(lambda x: divergence.exact_divergence(spin, t, x), x)
    assert batch.rows == 0 or (div - A.trace()).abs().max() < 1e-3
    e = divergence.draw_probes(x, kind, P)
    assert e.shape == (P, *x.shape)
    same(divergence.hutchinson(spin, t, x, e)[0], v)
    assert divergence.hutchinson(spin, t, x, e)[1].shape == (batch.rows,)
    for pull in (divergence.rows, divergence.pull_one_by_one):
        same(pull(spin, t, x, e)[1], e @ A.to(e.dtype))
    if batch.rows:
        assert divergence.directions(x).shape == (2, *x.shape)
    how = dict(solver="rk4", steps=8)
    log_p, z = apart(
        lambda x: continuous.ode_log_prob(spin, x, utils.std_normal_log_prob, **how), x, low=True
    )
    refused(lambda: divergence.draw_probes(x, "odd"), ValueError)
    refused(lambda: divergence.draw_probes(x, kind, 0), ValueError)
    refused(
        lambda: continuous.ode_log_prob(spin, x, utils.std_normal_log_prob, trace="odd"), ValueError
    )
    refused(
        lambda: continuous.ode_log_prob(spin, x, utils.std_normal_log_prob, adjoint=True),
        ValueError,
    )


@covers(
    energy.U1, energy.U2, energy.U3, energy.U4, energy.boxed, energy.grid, energy.log_z,
    energy.ReverseKL, energy.forward_kl,
)  # fmt: skip
@given(batches((1.0, 0.0, 1e-30, 30.0, 1e6)), st.sampled_from(sorted(energy.ENERGIES)))
def test_energies(batch, name):
    z = batch.draw(2)
    for U in energy.ENERGIES.values():
        apart(U, z, slack=10)
    U = energy.ENERGIES[name]
    walled = apart(energy.boxed(U), z, slack=10)
    assert (walled >= U(z) - 1e-3 * (1 + U(z).abs())).all()
    assert math.isfinite(energy.log_z(U, n=30)) and energy.grid(n=5).shape == (25, 2)
    torch.manual_seed(batch.seed)
    flow = loud(Flow(planar_flow(2, 2), 2), batch.seed, batch.dtype)
    model = energy.ReverseKL(flow, energy.boxed(U))
    with torch.no_grad():
        if batch.rows:
            finite(model(batch.like(scale=1.0).draw(2)))
        assert math.isfinite(energy.forward_kl(flow, U, n=20))
        noise = torch.randn(4, 2).to(batch.dtype)
        assert all(map(math.isfinite, model.kl(noise, 1.0)))
        refused(lambda: model.kl(noise[:1], 1.0), ValueError)
    for bad in (0, -2):
        refused(lambda bad=bad: energy.grid(n=bad), ValueError)
        refused(lambda bad=bad: energy.log_z(U, n=bad), ValueError)
        refused(lambda bad=bad: energy.grid(half=float(bad)), ValueError)
    refused(lambda: U(batch.draw(3)), ValueError)
    wrong_kind(U, z)


# ---------------------------------------------------------------------------- distances


@covers(metrics.sliced_wasserstein, metrics.mmd, metrics.Mmd)
@given(batches((*HUGE, 1e-40, 1e38), most=8, least=1), st.integers(1, 3), st.integers(0, 4))
def test_distances(batch, D, more):
    """Of a set and itself, in any order, 0; shifted, the shift; at any scale the same, scaled."""
    x = batch.draw(D)
    y = batch.draw(D, salt=1, rows=batch.rows + more)
    g = lambda: torch.Generator().manual_seed(batch.seed)
    w = outcome(lambda: metrics.sliced_wasserstein(x, y, 20, generator=g()))
    if w is not None:
        finite(w)
        assert w >= 0
        unit = max(x.abs().max().item(), y.abs().max().item()) or 1.0
        want = metrics.sliced_wasserstein(x.double() / unit, y.double() / unit, 20, generator=g())
        if batch.dtype == F64 and unit > 1e-290:
            torch.testing.assert_close(w / unit, want, rtol=1e-6, atol=1e-12)
        assert metrics.sliced_wasserstein(x, x.flip(0), 20) <= 1e-5 * unit
    more = torch.arange(8.0, dtype=F64).view(4, 2) * (batch.scale or 1.0)
    apart_ = metrics.mmd(more, more + 9 * (batch.scale or 1.0))
    assert apart_.value > 0.1 and apart_.stderr.isfinite()
    if batch.rows >= 4:
        d = outcome(lambda: metrics.mmd(x, y))
        if d is not None:
            finite([*d])
            assert abs(d.value) <= 2 and d.stderr >= 0
    else:
        refused(lambda: metrics.mmd(x, y), ValueError)
    refused(lambda: metrics.sliced_wasserstein(x, y[:0]), ValueError)
    refused(lambda: metrics.sliced_wasserstein(x, torch.cat([y, y], 1)), ValueError)
    refused(lambda: metrics.sliced_wasserstein(x, y, 0), ValueError)
    for p in (0.5, 0.0, math.nan):
        refused(lambda p=p: metrics.sliced_wasserstein(x, y, p=p), ValueError)
    for h in ((), (0.0,), (-1.0,), (math.nan,)):
        refused(lambda h=h: metrics.mmd(torch.randn(5, D), torch.randn(5, D), h), ValueError)
    refused(lambda: metrics.mmd(x * math.nan, y), ValueError)
    wrong_kind(lambda x: metrics.sliced_wasserstein(x, y), x.clamp(-9, 9))


@covers(
    quality.frechet_distance,
    quality.frechet_gaussians,
    quality.precision_recall,
    quality.PrecisionRecall,
)
@given(batches((*HUGE, 1e-40, 1e38), most=8, least=1), st.integers(1, 3), st.integers(1, 3))
def test_quality(batch, F, k):
    a, b = batch.draw(F), batch.draw(F, salt=1, rows=batch.rows + 1)
    if batch.rows < 2:
        refused(lambda: quality.frechet_distance(a, b), ValueError)
    else:
        d = outcome(lambda: quality.frechet_distance(a, b))
        unit = max(a.double().abs().max().item(), b.double().abs().max().item()) or 1.0
        assert d is None or (math.isfinite(d) and d >= 0)
        if d is not None and unit > 1e-100:
            want = quality.frechet_distance(a.double() / unit, b.double() / unit)
            assert math.isclose(d / unit / unit, want, rel_tol=1e-4, abs_tol=1e-6)
        own = outcome(lambda: quality.frechet_distance(a, a))
        assert own is None or own <= 1e-5 * unit * unit
        finite(
            torch.tensor(
                quality.frechet_gaussians(
                    a[0].double(),
                    torch.eye(F, dtype=F64),
                    b[0].double(),
                    torch.zeros(F, F, dtype=F64),
                ),
                dtype=F64,
            )
            if batch.scale < 1e30
            else torch.zeros(1)
        )
    if batch.rows <= k:
        refused(lambda: quality.precision_recall(a, b, k), ValueError)
    else:
        got = quality.precision_recall(a, b, k)
        assert 0 <= got.precision <= 1 and 0 <= got.recall <= 1
        assert quality.precision_recall(a, a, k) == (1.0, 1.0)
    refused(lambda: quality.precision_recall(a, b, 0), ValueError)
    refused(lambda: quality.frechet_distance(a, torch.cat([b, b], 1)), ValueError)
    wrong_kind(lambda a: quality.frechet_distance(a, b), a.clamp(-9, 9))


@covers(quality.Classifier, quality.classifier, quality.scaled)
@given(batches((1.0, 0.0, 1e-30, 1e6)))
def test_classifier(batch):
    net = quality.classifier("digits").to(batch.dtype)
    x, k = batch.draw(1, 8, 8), batch.integers(10)
    with torch.no_grad():
        apart(net.logits, x, slack=10)
        apart(net, x, k, slack=10)
        assert apart(net.features, x, slack=10).shape == (batch.rows, 48)
        if batch.rows:
            assert 0 <= net.accuracy(x, k) <= 1
        else:
            refused(lambda: net.accuracy(x, k), ValueError)
    levels = batch.integers(17, 2)
    assert (quality.scaled(levels, 17).abs() <= 1 + 1 / 16).all()
    refused(lambda: quality.scaled(levels, 1), ValueError)
    refused(lambda: net.logits(x[:, :, 1:]), ValueError)
    refused(lambda: quality.classifier("cats"), ValueError)
    wrong_kind(net.logits, x.clamp(-9, 9))


# ------------------------------------------------------------------- files, results, cards


@covers(weights.save, weights.load, weights.card, weights.round_weights, paths.write_atomic)
@given(batches((1.0, 1e-30, 1e3, 1e12)), st.sampled_from([torch.float16, torch.bfloat16, F32]))
def test_weights(batch, dtype):
    """What is stored comes back to the bit, or is refused: a weight too large for float16 is."""
    torch.manual_seed(batch.seed)
    model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.mul_(batch.scale)
    card = dict(metrics={"a": 1}, seconds=1.0, seed=1, recipe="r", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        refused(lambda: weights.save("m", model, {}, folder=folder), ValueError)
        done = outcome(
            lambda: weights.save("m", weights.round_weights(model, dtype), card, dtype, folder)
        )
        if done is not None:
            finite(list(model.parameters()))
            assert weights.load("m", other, folder)["parameters"] == 9
            same(list(other.state_dict().values()), list(model.state_dict().values()), 0)
            assert weights.card("m", folder)["recipe"] == "r"
            refused(lambda: weights.load("m", nn.Linear(3, 3), folder), ValueError)
            paths.write_atomic(done, b"x")
            refused(lambda: weights.load("m", other, folder), ValueError)
        refused(lambda: weights.card("none", folder), FileNotFoundError)
        refused(lambda: weights.load("none", other, folder), FileNotFoundError)


@covers(paths.write_atomic)
@given(st.sampled_from([b"", b"\x00\xff\r\n", "", "é\r\n\ud7ff\u2028\U0001f600"]))
def test_files(content):  # no more than these: each waits for the disk
    with tempfile.TemporaryDirectory() as folder:
        path = paths.write_atomic(Path(folder) / "a" / "b", content)
        want = content.encode() if isinstance(content, str) else content
        assert path.read_bytes() == want and len(list(path.parent.iterdir())) == 1
        refused(lambda: paths.write_atomic(path, 3), TypeError)
        assert path.read_bytes() == want


@covers(paths.root, paths.cache, paths.data_dir, paths.commit)
def test_places():
    assert paths.root() is not None and paths.cache().is_dir() and paths.data_dir()
    assert paths.commit()


@covers(
    table.paired, table.Metric, table.cell, table.Cell, table.apart, table.best, table.rows, table.table, table.kind,
    table.reference, table.show, store.read, store.seal, store.write, store.check_row,
    store.missing, store.add, store.blank, store.fingerprint,
)  # fmt: skip
@few
@given(st.lists(st.floats(-1e6, 1e6), max_size=4), st.sampled_from(protocol.DATA))
def test_tables(values, data):
    cost = table.METRICS["cost"]
    assert table.Metric(*cost) == cost and cost.better == -1
    c = outcome(lambda: table.cell(values))
    assert (c is None) == (not values)
    if c is not None:
        assert c.low - 1e-9 <= c.mean <= c.high + 1e-9 and c.std >= 0
        assert table.apart(c, c) >= 0
    results = store.read()
    cells = table.table(results, data)
    assert set(table.best(cells, "cost")) == set(cells)
    assert table.kind(results, data, next(iter(cells))) in protocol.KINDS
    assert table.reference(results, data) and table.show(results, data, ["cost"])
    there, back = table.paired(results, "vae", "realnvp"), table.paired(results, "realnvp", "vae")
    assert math.isclose(there.mean, -back.mean, abs_tol=1e-9) and there.n == 360
    assert store.seal(results) == results["sha256"] and not store.missing(results)
    assert json.dumps(store.add(results, results["rows"])["rows"]) == json.dumps(results["rows"])
    assert store.blank()["rows"] == [] and len(store.fingerprint()) == 16
    with tempfile.TemporaryDirectory() as folder:
        path = store.write(store.blank(), Path(folder) / "r.json")
        assert store.read(path)["rows"] == []
        path.write_text(path.read_text().replace("nats", "bits"))
        refused(lambda: store.read(path), ValueError)
    bad = dict(results["rows"][0], cost=math.nan)
    refused(lambda: store.check_row(bad), ValueError)
    refused(lambda: table.rows(results, data, "none"), ValueError)


@covers(
    protocol.costs, protocol.likelihood, protocol.kept, protocol.pictures, protocol.check_levels, protocol.Reading,
    protocol.test_set, protocol.real_samples, average, in_parts, Calls, counted,
)  # fmt: skip
@few
@given(batches((1.0,), least=1), seeds)
def test_protocol(batch, seed):
    levels = batch.integers(17, 1, 8, 8).to(torch.uint8)
    points = batch.draw(2)
    for data, x in (("digits", levels), ("plane", points)):
        back = protocol.pictures(data, protocol.kept(data, x))
        assert back.shape == x.shape
        drawn, labels = protocol.test_set(data, 5)
        assert len(drawn) == len(labels) == 5
        assert len(protocol.real_samples(data, seed)) == protocol.SAMPLES[data]
    assert protocol.costs("digits", torch.rand(5)).shape == (5,)
    found = protocol.likelihood("digits", torch.rand(5))
    assert all(map(math.isfinite, found.values()))
    protocol.check_levels(levels)
    refused(lambda: protocol.check_levels(levels + 17), ValueError)
    refused(lambda: protocol.check_levels(levels.float()), ValueError)
    refused(lambda: protocol.test_set("cats"), ValueError)
    net = nn.Linear(2, 2)
    reading = counted([net], lambda x: x.sum(1), lambda n: net(net(torch.zeros(n, 2))), "exact")
    assert (
        isinstance(reading, protocol.Reading)
        and reading.draw(3).shape == (3, 2)
        and reading.calls() == 2
    )
    assert isinstance(reading.draw, Calls)
    x = batch.draw(2)
    same(in_parts(reading.nats, 2)(x), average(reading.nats, 3)(x), 10)


@covers(recipe.Recipe)
@given(seeds)
def test_recipe_is_three_things(seed):
    made = recipe.Recipe(nn.Linear(1, 1), torch.zeros(1), {"seed": seed})
    assert made.fit["seed"] == seed and MODEST and F32 and WIDE
