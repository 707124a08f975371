"""Schedules, denoisers, samplers, bounds and scores: for any times, sizes and batches."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import diffusion
from lib.data.densities import anisotropic_gaussians
from lib.diffusion import denoiser as den
from lib.diffusion import digits as dig
from lib.diffusion import elbo, exponential, guidance, latent, likelihood, samplers, score
from lib.diffusion.boltzmann import BoltzmannMachine
from lib.diffusion.schedule import VE, VP, Chain, Cosine, Schedule, SubVP
from lib.results.nets import VectorNet
from lib.unet import UNet
from lib.vae.autoencoder import KLAutoencoder
from tests.fuzz.kit import (
    F32,
    F64,
    HUGE,
    MODEST,
    Batch,
    apart,
    batches,
    covers,
    few,
    finite,
    loud,
    outcome,
    refused,
    same,
    wrong_kind,
)

SCHEDULES = {
    "vp": VP(),
    "subvp": SubVP(),
    "ve": VE(),
    "cosine": Cosine(),
    "chain": Chain.linear(50, 1e-3, 0.2),
}
schedules = st.sampled_from(list(SCHEDULES))
times = st.sampled_from([0.5, 1.0, 1e-3, 0.999, 1e-6, 0.02])
seeds = st.integers(0, 10_000)
MIXTURE = anisotropic_gaussians()


def exact(name="vp"):
    return den.ExactDenoiser(MIXTURE, SCHEDULES[name])


def network(seed, dtype, predict="v", name="vp", D=2):
    torch.manual_seed(seed)
    return loud(den.Denoiser(VectorNet(D, 8, 1), SCHEDULES[name], predict), seed, dtype, 0.1)


# -------------------------------------------------------------------------- schedules


@covers(Schedule, VP, SubVP, VE, Cosine, Chain)
@few
@given(st.lists(times, max_size=4), st.sampled_from([F64, F32]))
def test_schedules(ts, dtype):
    """Floats and tensors agree; finite and falling in (0, 1]; no times give no values."""
    for s in SCHEDULES.values():
        t = torch.tensor(ts, dtype=dtype)
        _agree(s, ts, t)


def _agree(s, ts, t):
    dtype = t.dtype
    for f in (
        s.alpha,
        s.sigma,
        s.log_snr,
        s.log_snr_rate,
        lambda t: s.sde(t)[0],
        lambda t: s.sde(t)[1],
    ):
        got = f(t)
        assert got.shape == t.shape and got.dtype == dtype
        finite(got)
        want = torch.tensor([f(float(a)) for a in t], dtype=F64)
        torch.testing.assert_close(
            got.double(),
            want,
            rtol=2e-2 if dtype == F32 else 1e-9,
            atol=1e-5 if dtype == F32 else 1e-9,
        )
    order = sorted(set(ts))
    assert all(s.log_snr(a) > s.log_snr(b) for a, b in zip(order, order[1:], strict=False))
    for a in ts:
        assert abs(s.time_of(s.log_snr(a)) - a) < 1e-6


@covers(Schedule.times, Schedule.log_snr_times)
@given(schedules, st.integers(-1, 5), times, times)
def test_walks(name, steps, low, high):
    s = SCHEDULES[name]
    for walk in (s.times, s.log_snr_times):
        if steps < 1 or low >= high:
            refused(lambda walk=walk: walk(steps, low, high), ValueError)
            continue
        ts = walk(steps, low, high)
        assert len(ts) == steps + 1 and ts[0] == high and ts[-1] == low
        assert all(b < a for a, b in zip(ts, ts[1:], strict=False))


@covers(VP, VE, Cosine, Chain, SubVP)
@given(
    st.sampled_from([0.0, -1.0, math.nan, math.inf, 1e-3, 0.5, 30.0, 1e3]),
    st.sampled_from([0.1, 20.0, 1e4, math.inf]),
)
def test_schedules_are_made_of_numbers_that_make_one(a, b):
    makers = [
        lambda: VP(a, b),
        lambda: SubVP(a, b),
        lambda: VE(a, b),
        lambda: Cosine(a),
        lambda: Chain([a]),
        lambda: Chain([]),
    ]
    for make in makers:
        s = outcome(make)
        if s is None:
            continue
        for t in (1e-3, 0.5, 1.0):
            values = [s.alpha(t), s.sigma(t), *s.sde(t)]
            assert all(math.isfinite(v) for v in values), (s, t, values)
    for s in SCHEDULES.values():
        outcome(lambda s=s: Chain.of(s, 4))


# -------------------------------------------------------------------------- denoisers


@covers(den.BaseDenoiser, den.Denoiser, den.ExactDenoiser, den.Clipped, den.weights, den.times)
@given(batches(HUGE), schedules, times, st.sampled_from(["eps", "x", "v"]))
def test_denoisers(batch, name, t, predict):
    """x_t = alpha x_hat + sigma eps_hat; a number t and a tensor of it agree; rows stand alone."""
    x, s = batch.draw(2), SCHEDULES[name]
    for d in (
        network(batch.seed, batch.dtype, predict, name),
        exact(name),
        den.Clipped(exact(name)),
    ):
        with torch.no_grad():
            split = apart(lambda x, d=d: d.split(x, t), x, slack=100)
            a, b = d.split(x, torch.full((batch.rows,), t, dtype=F64))
            same([a, b], split, 100)
            tol = 1e-4 if batch.dtype == F32 else 1e-10
            size = max((v.abs().max().item() for v in (x, a, b) if v.numel()), default=0.0)
            back = s.alpha(t) * a + s.sigma(t) * b
            torch.testing.assert_close(back, x, rtol=0, atol=tol * size * max(1, s.sigma(t)))
            apart(lambda x, d=d: d.mix(x, t, 0.3, 0.7), x, slack=100)
            same(d.mix(x, t, 0.3, 0.7), 0.3 * a + 0.7 * b, 1e4)
            finite([d(x, t), d.eps(x, t)])
            if batch.scale < 1e20 or s.sigma(t) > 1e-3:
                finite(d.score(x, t))
        refused(lambda d=d: d(x, torch.ones(batch.rows + 2)), ValueError)
        refused(lambda d=d: d(x, torch.ones(1, 1)), ValueError)
    assert den.times(t, x).shape == (batch.rows,)
    assert len(den.weights(s, predict, t, 0.3, 0.7)) == 3
    refused(lambda: den.Denoiser(None, s, "noise"), ValueError)
    refused(lambda: den.BaseDenoiser()(x, t), NotImplementedError)


@covers(den.Diffusion, den.denoising_loss, den.draw_times)
@given(batches((1.0, 1e-30, 0.0, 1e3, 1e6)), schedules, st.sampled_from(["eps", "x", "v", "elbo"]))
def test_losses(batch, name, weight):
    model = den.Diffusion(network(batch.seed, batch.dtype, "eps", name), 2, weight=weight)
    x = batch.draw(2)
    loss = model(x)
    assert loss.shape == (batch.rows,) and loss.dtype == batch.dtype
    finite(loss)
    assert (loss >= 0).all()
    n = batch.rows
    t = den.draw_times(n, 1e-3, x)
    assert t.shape == (n,) and (t > 0.0009).all() and (t <= 1).all()
    assert sorted((t * n * 0.999).floor().long().clamp_max(max(n - 1, 0)).tolist()) is not None
    if n:
        drawn = model.sample(n, steps=3)
        assert drawn.shape == (n, 2)
        finite(drawn)
    refused(lambda: model(batch.draw(3)), ValueError)
    refused(lambda: den.denoising_loss(model.denoiser, x, weight="none"), ValueError)
    refused(lambda: den.Diffusion(model.denoiser, 2, drop=0.5), ValueError)
    wrong_kind(model, batch.like(scale=1.0).draw(2))


@covers(
    guidance.Guided, guidance.ClassifierGuided, guidance.LinearInverse, guidance.linear_likelihood
)
@given(
    batches((1.0, 0.0, 1e-6, 30.0, 1e3)),
    times,
    st.sampled_from([0.0, 1.0, 2.5, -1.0]),
    st.sampled_from([0.3, 1e-3, 10.0]),
)
def test_guidance(batch, t, w, std):
    x, k = batch.draw(2), batch.integers(3)
    A, y = torch.tensor([[0.8, -0.6]], dtype=F64), torch.tensor([0.7], dtype=F64)
    d = exact()
    with torch.no_grad():
        apart(lambda x, k: guidance.Guided(d, w)(x, t, k), x, k, slack=100)
        log_prob = guidance.linear_likelihood(MIXTURE, d.schedule, A, y, std)
        apart(lambda x: log_prob(x, t), x, slack=100)
        apart(lambda x: guidance.ClassifierGuided(d, log_prob, w)(x, t), x, slack=1000)
        apart(lambda x: guidance.LinearInverse(d, A, y, std)(x, t), x, slack=1000)
    refused(lambda: guidance.Guided(d, w)(x, t), ValueError)
    refused(lambda: guidance.LinearInverse(d, A, y[:0], std), ValueError)
    refused(lambda: guidance.LinearInverse(d, A, y, 0.0), ValueError)
    refused(lambda: guidance.LinearInverse(d, A, y, std, -1.0), ValueError)


@covers(guidance.linear_posterior)
@given(seeds, st.sampled_from([0.3, 1e-3, 1e3, 0.0, -1.0]), st.sampled_from([1.0, 0.0, 1e-6, 1e3]))
def test_linear_posterior(seed, std, scale):
    g = torch.Generator().manual_seed(seed)
    A, y = scale * torch.randn(1, 2, generator=g), torch.randn(1, generator=g)
    if std <= 0:
        return refused(lambda: guidance.linear_posterior(MIXTURE, A, y, std), ValueError)
    post = guidance.linear_posterior(MIXTURE, A, y, std)
    finite([post.weights, post.means, post.covs])
    x = torch.randn(5, 2, generator=g, dtype=F64)
    joint = MIXTURE.log_prob(x) - 0.5 * ((y.double() - x @ A.double().T) / std).square().sum(1)
    gap = joint - post.log_prob(x)  # the evidence, whatever x is
    if scale <= 1:
        torch.testing.assert_close(gap, gap[:1].expand(5), rtol=1e-4, atol=1e-3)


@covers(latent.CaptionEncoder, latent.ReadingLayer, latent.Captioned, latent.LatentDiffusion)
@given(batches((1.0, 0.0, 1e-30, 1e3), most=2), st.integers(1, 5))
def test_latent(batch, L):
    torch.manual_seed(batch.seed)
    encoder = loud(latent.CaptionEncoder(7, 5, 8), batch.seed, batch.dtype).eval()
    tokens = batch.integers(7, L)
    with torch.no_grad():
        apart(encoder, tokens, slack=20)
        apart(encoder.layers[0], batch.draw(L, 8), slack=20)
        net = UNet(2, width=8, multipliers=(1,), tokens=8, heads=4)
        net = loud(latent.Captioned(net, encoder), batch.seed, batch.dtype, 0.1)
        model = latent.LatentDiffusion(
            KLAutoencoder(1, 2, 4).to(batch.dtype), den.Denoiser(net, VP(), "v"), 2, 2, 2
        ).to(batch.dtype)
        x = batch.draw(1, 8, 8)
        if batch.rows:
            apart(
                lambda x, c: net(x, torch.full((len(x),), 0.3).to(x), c),
                batch.draw(2, 2, 2),
                tokens,
                slack=100,
            )
            finite(model(x, tokens))
            finite(model.sample(batch.rows, tokens, 2))
        apart(model.encode, x, slack=100)
        apart(model.decode, batch.draw(2, 2, 2), slack=100)
        outcome(lambda: model.fit_scale(x))
        finite([model.shift, model.scale])
        assert model.scale > 0
    refused(lambda: encoder(tokens.double()), ValueError)
    refused(lambda: encoder(torch.zeros(1, 6, dtype=torch.int64)), ValueError)
    refused(lambda: encoder(torch.full((1, L), 7)), ValueError)
    refused(lambda: encoder(torch.full((1, L), -1)), ValueError)
    refused(lambda: latent.ReadingLayer(6, 4), ValueError)


# --------------------------------------------------------------------------- samplers

STEPS = {
    "ancestral": samplers.ancestral,
    "large": lambda d: samplers.ancestral(d, large=True),
    "ddim": lambda d: samplers.ancestral(d, eta=0.0),
    "sde": samplers.euler_maruyama,
    "euler": lambda d: samplers.euler_maruyama(d, churn=0.0),
    "heun": exponential.heun,
    "dpm": exponential.dpm_solver,
    "multi": exponential.dpm_solver_multi,
    "corrected": lambda d: samplers.corrected(samplers.ancestral(d), d),
}


@covers(
    samplers.simulate, samplers.ancestral, samplers.euler_maruyama, samplers.corrected,
    exponential.heun, exponential.dpm_solver, exponential.dpm_solver_multi, exponential.log_rho,
    samplers.check_falls, samplers.check_noise, samplers.check_share,
)  # fmt: skip
@given(batches((1.0, 0.0, 1e-30, 1e3, 1e12), most=3), schedules, st.integers(1, 4))
def test_samplers(batch, name, n):
    d, x = exact(name), batch.draw(2)
    ts = SCHEDULES[name].log_snr_times(n, 1e-3)
    for kind, make in STEPS.items():
        states = outcome(lambda make=make: list(samplers.simulate(make(d), x, ts)))
        if states is None:
            continue
        assert len(states) == n and all(s.shape == x.shape for s in states)
        finite(states)
        if kind in ("ddim", "euler", "heun", "dpm", "multi") and batch.scale < 1e6:
            apart(lambda x, make=make: list(samplers.simulate(make(d), x, ts)), x, slack=1e4)
        step = make(d)
        if kind in ("ancestral", "large", "sde"):
            refused(lambda step=step: step(x, 0.2, 0.3), ValueError)
    for bad in ([], [1.0], [0.5, 0.5], [0.2, 0.8, 0.5], [1.0, math.nan]):
        refused(lambda bad=bad: list(samplers.simulate(samplers.ancestral(d), x, bad)), ValueError)
    refused(lambda: samplers.check_falls(0.1, 0.2), ValueError)
    samplers.check_share(1.0, 0.2, 0.1)
    refused(lambda: samplers.check_share(1.1, 0.2, 0.1), ValueError)
    refused(lambda: samplers.check_noise(0.0, 0.0), ValueError)
    refused(lambda: samplers.euler_maruyama(d, churn=-1.0), ValueError)
    refused(lambda: exponential.log_rho(den.ExactDenoiser(MIXTURE, VP()), 0.0), ValueError)
    if batch.rows:
        nan = lambda x, t, s: x * math.nan
        refused(lambda: list(samplers.simulate(nan, x, ts)), FloatingPointError)


@covers(
    samplers.ode_field, likelihood.flow_log_prob, likelihood.base_log_prob, likelihood.flow_bits
)
@few
@given(batches((1.0, 0.0, 3.0), most=2), st.sampled_from(["vp", "ve", "cosine"]))
def test_probability_flow(batch, name):
    d, x, how = exact(name), batch.draw(2), dict(solver="rk4", steps=8, t0=1e-2)
    apart(lambda x: samplers.ode_field(d)(torch.tensor(0.3, dtype=x.dtype), x), x, slack=100)
    apart(likelihood.base_log_prob(d.schedule), x, slack=10)
    apart(lambda x: likelihood.flow_log_prob(d, x, **how), x, slack=1e3)
    levels = 2 * batch.integers(5, 2).to(batch.dtype) / 4 - 1
    for at in (None, 0.05):
        more = how if at is None else {k: v for k, v in how.items() if k != "t0"}
        bits = likelihood.flow_bits(d, levels, 5, decode_at=at, **more)
        assert bits.shape == (batch.rows,)
        finite(bits)
    refused(lambda: likelihood.flow_bits(d, levels, 5, draws=0, **how), ValueError)
    refused(lambda: likelihood.flow_bits(d, levels, 1, **how), ValueError)


# ----------------------------------------------------------------------------- bounds


@covers(elbo.transition, elbo.posterior)
@given(batches(HUGE), schedules, times, times)
def test_posterior_of_the_chain(batch, name, t, s):
    schedule, x_t, x_0 = SCHEDULES[name], batch.draw(2), batch.draw(2, salt=1)
    if s >= t:
        return refused(lambda: elbo.posterior(schedule, x_t, x_0, t, s), ValueError)
    a, v = elbo.transition(schedule, t, s)
    assert a > 0 and v > 0
    mean, var = elbo.posterior(schedule, x_t, x_0, t, s)
    finite(mean)
    assert 0 < var <= schedule.sigma(s) ** 2 * (1 + 1e-9)
    rows = [torch.full((batch.rows,), u, dtype=F64) for u in (t, s)]
    same(elbo.posterior(schedule, x_t, x_0, *rows)[0], mean, 10)
    apart(lambda a, b: elbo.posterior(schedule, a, b, t, s)[0], x_t, x_0)


@covers(
    elbo.chain_elbo, elbo.Bound, elbo.chain_times, elbo.continuous_steps, elbo.continuous_elbo,
    elbo.path_log_weight,
)  # fmt: skip
@given(
    batches((1.0, 0.0, 1e-30, 30.0, 1e3), most=3),
    schedules,
    st.integers(-1, 4),
    st.sampled_from(["posterior", "forward"]),
)
def test_bounds(batch, name, T, variance):
    d, x = exact(name), batch.draw(2)
    if T < 1:
        refused(lambda: elbo.chain_times(T), ValueError)
        return refused(lambda: elbo.chain_elbo(d, x, T), ValueError)
    assert elbo.chain_times(T) == elbo.chain_times([k / T for k in range(T, 0, -1)])
    for draws in (None, 2):
        bound = elbo.chain_elbo(d, x, T, variance=variance, draws=draws)
        assert all(part.shape == (batch.rows,) for part in bound)
        finite([*bound, bound.total, *bound.bits(2)])
        assert (bound.prior >= 0).all() and (bound.steps >= 0).all()
    bound = elbo.continuous_elbo(d, x, 1e-2, draws=2)
    finite(bound)
    assert (bound.prior >= 0).all() and (bound.steps >= 0).all()
    steps = elbo.continuous_steps(d, x, 1e-2, draws=2)
    for value in (*bound, steps, elbo.path_log_weight(d, x, T)):
        assert value.shape == (batch.rows,)
        finite(value)
    for bad in ([], [0.5, 0.7], [0.5, 0.0], [0.5, math.nan]):
        refused(lambda bad=bad: elbo.chain_times(bad), ValueError)
    refused(lambda: elbo.chain_elbo(d, x, T, variance="none"), ValueError)
    refused(lambda: elbo.chain_elbo(d, x, T, draws=0), ValueError) if T > 1 else None
    refused(lambda: elbo.continuous_elbo(d, x, 1e-2, draws=0), ValueError)
    for of in (lambda x: elbo.chain_elbo(d, x, T), lambda x: elbo.continuous_elbo(d, x, 1e-2)):
        wrong_kind(of, batch.like(scale=1.0).draw(2))


@covers(elbo.last_step_log_prob, elbo.level_of)
@given(
    batches(HUGE), st.sampled_from([2, 5, 17, 256]), st.sampled_from([0.1, 1.0, 1e-3, 30.0, 1e-6])
)
def test_levels_decoded(batch, n, std):
    """Probabilities of all levels sum to one, finite logs wherever x_hat and std put them."""
    k = batch.integers(n, 3)
    x, x_hat = 2 * k.to(batch.dtype) / (n - 1) - 1, batch.draw(3, salt=1)
    assert (elbo.level_of(x, n) == k).all()
    log = apart(lambda x, m: elbo.last_step_log_prob(x, m, std, n), x, x_hat, low=True)
    # in float32 the square of 1e20 deviations is no number: there -inf is the rounded answer
    wide = elbo.last_step_log_prob(x.double(), x_hat.double(), std, n)
    top = torch.finfo(batch.dtype).max
    torch.testing.assert_close(
        log.double(),
        torch.where(wide < -top, -math.inf, wide),
        rtol=2e-2 if batch.dtype == F32 else 1e-9,
        atol=2e-2,
    )
    every = (2 * torch.arange(n, dtype=batch.dtype) / (n - 1) - 1)[:, None]
    for m in x_hat.flatten()[:2]:
        total = elbo.last_step_log_prob(every, m.expand_as(every), std, n).exp().sum()
        assert abs(total - 1) < 1e-3
    apart(lambda x, m: elbo.last_step_log_prob(x, m, std), x, x_hat, low=True)
    if batch.rows:
        refused(lambda: elbo.last_step_log_prob(x + 0.3 / (n - 1), x_hat, std, n), ValueError)
    refused(lambda: elbo.last_step_log_prob(x, x_hat, std, 1), ValueError)
    refused(lambda: elbo.last_step_log_prob(x, x_hat, 0.0, n), ValueError)


# ----------------------------------------------------------------------------- scores


@covers(
    score.score_of, score.explicit_matching, score.implicit_matching, score.sliced_matching,
    score.denoising_matching,
)  # fmt: skip
@given(batches((1.0, 0.0, 1e-30, 30.0, 1e3)), st.sampled_from([0.1, 1.0, 30.0]))
def test_score_matching(batch, sigma):
    x = batch.draw(2)
    s = MIXTURE.score
    apart(score.score_of(MIXTURE.log_prob), x, slack=100)
    apart(lambda x: score.explicit_matching(s, lambda x: -x, x), x, slack=100)
    apart(lambda x: score.implicit_matching(s, x), x, slack=100)
    probes = torch.ones(1, batch.rows, 2, dtype=batch.dtype)
    got = score.sliced_matching(s, x, probes)
    assert got.shape == (batch.rows,)
    finite([got, score.sliced_matching(s, x, 2, reduced=False, kind="gaussian")])
    finite(score.denoising_matching(s, x, sigma))
    rows = torch.full((batch.rows,), sigma, dtype=batch.dtype)
    assert score.denoising_matching(s, x, rows).shape == (batch.rows,)
    for bad in (0.0, -1.0, math.nan):
        refused(lambda bad=bad: score.denoising_matching(s, x, bad), ValueError)
    refused(lambda: score.sliced_matching(s, x, probes[:, :, :1]), ValueError)
    refused(lambda: score.sliced_matching(s, x, 0), ValueError)
    for f in (score.explicit_matching, score.implicit_matching):
        wrong_kind(lambda x, f=f: f(s, x, x) if f is score.explicit_matching else f(s, x), x)


@covers(score.langevin, score.annealed_langevin)
@given(
    batches((1.0, 0.0, 1e-30, 1e3, 1e12), most=3),
    st.sampled_from([0.01, 1e-6, 100.0, 0.0]),
    st.integers(0, 3),
)
def test_langevin(batch, step, n):
    x = batch.draw(2)
    for log_prob in (None, MIXTURE.log_prob):
        run = lambda log_prob=log_prob: list(
            score.langevin(MIXTURE.score, x, step, n, log_prob=log_prob)
        )
        if step <= 0 or n < 1:
            refused(run, ValueError)
            continue
        states = outcome(run)
        if states is not None:
            assert len(states) == n and all(s.shape == x.shape for s in states)
            finite(states)
    levels = lambda x, sigma: MIXTURE.noised(1.0, sigma).score(x)
    if step > 0 and n > 0:
        states = outcome(lambda: list(score.annealed_langevin(levels, x, [2.0, 0.5], step, n)))
        assert states is None or len(states) == 2
    for bad in ([], [0.5, 1.0], [1.0, 0.0], [math.nan]):
        refused(lambda bad=bad: list(score.annealed_langevin(levels, x, bad, 0.1, 1)), ValueError)


# ------------------------------------------------------------------- what is left of it


@covers(BoltzmannMachine)
@given(st.integers(0, 5), st.sampled_from([1.0, 0.0, 30.0, 1e6]), batches(MODEST))
def test_boltzmann(D, scale, batch):
    if D == 0:
        return refused(lambda: BoltzmannMachine(0), ValueError)
    torch.manual_seed(batch.seed)
    model = BoltzmannMachine(D, scale).to(batch.dtype)
    y = 2 * batch.integers(2, D).to(batch.dtype) - 1
    with torch.no_grad():
        apart(model.log_prob, y, slack=100)
        same(model(y), -model.log_prob(y))
        if scale <= 30:
            total = model.log_prob(model.states()).exp().sum()
            assert abs(total - 1) < 1e-3
        finite(model.moments())
        grads = outcome(lambda: model.log_prob_grad(y))
        if grads is not None:
            finite(grads)
        assert model.sample(3).abs().eq(1).all()
    refused(lambda: model.sample(0), ValueError)
    refused(lambda: model.log_prob(y[:, 1:]), ValueError)
    refused(lambda: BoltzmannMachine(21), ValueError)
    wrong_kind(model.energy, y)


@covers(dig.DigitNet, dig.Block, dig.to_unit, dig.to_levels)
@given(batches((1.0, 0.0, 1e-30, 30.0, 1e12), most=2), times)
def test_digit_net(batch, t):
    torch.manual_seed(batch.seed)
    net = loud(dig.DigitNet(Cosine(), width=8, blocks=1), batch.seed, batch.dtype, 0.1).eval()
    x, k = batch.draw(1, 8, 8), batch.integers(11)
    with torch.no_grad():
        apart(lambda x, k: net(x, torch.full((len(x),), t, dtype=x.dtype), k), x, k, slack=100)
    levels = batch.integers(17, 1, 8, 8)
    assert torch.equal(dig.to_levels(dig.to_unit(levels)).long(), levels)
    assert dig.to_levels(x).max() <= 16 if batch.rows else True
    assert diffusion.VP is VP and Batch is not None
