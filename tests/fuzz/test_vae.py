"""Bounds, likelihoods, encoders and quantisers: for any latents, levels and log-scales."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.diffusion.denoiser import Denoiser, Diffusion
from lib.diffusion.schedule import Cosine
from lib.flows.builders import iaf, planar_flow
from lib.nets import mlp
from lib.results.nets import VectorNet
from lib.results.prior import DiffusionPrior, LatentBound
from lib.utils import std_normal_log_prob
from lib.vae import autoencoder as ae
from lib.vae import elbo, hierarchical, likelihoods, nets, vae, vq
from lib.vae.compress import levels as grey_levels
from lib.vae.linear import LinearGaussian
from tests.fuzz.kit import (
    F32,
    F64,
    HUGE,
    WIDE,
    apart,
    batches,
    covers,
    finite,
    loud,
    outcome,
    refused,
    same,
    tolerance,
    wrong_kind,
)

seeds = st.integers(0, 10_000)
spreads = st.sampled_from([0.0, 1.0, -6.0, 6.0, -30.0, 30.0])  # log standard deviations


# ------------------------------------------------------------------------------ the bound


@covers(elbo.normal_log_prob, elbo.kl_normal, elbo.draw)
@given(batches(WIDE), spreads, spreads)
def test_normals(batch, log_std, log_std2):
    x, mean = batch.draw(3), batch.draw(3, salt=1)
    s = torch.full_like(x, log_std)
    wide = torch.float32 if batch.dtype == F32 else F64
    top = torch.finfo(wide).max
    log = apart(lambda x, m, s: elbo.normal_log_prob(x, m, s), x, mean, s, low=True)
    ref = elbo.normal_log_prob(x.double(), mean.double(), log_std)
    assert ((log > -math.inf) | (ref < -0.1 * top)).all()  # -inf only beyond what the dtype holds
    same(elbo.normal_log_prob(x, mean, log_std), log)
    kl = elbo.kl_normal(mean, s, 0.5, log_std2)
    ref = elbo.kl_normal(mean.double(), s.double(), 0.5, log_std2)
    fits = ref < 0.1 * top
    finite(kl[fits])
    torch.testing.assert_close(kl[fits].double(), ref[fits], rtol=1e-3, atol=1e-3)
    assert (kl >= -1e-4).all() and kl.shape == (batch.rows,)
    apart(lambda m, s: elbo.kl_normal(m, s), mean, s.clamp(-6, 6))
    z, log_q = elbo.draw(mean, s.clamp(-6, 6), 2)
    assert z.shape == (2, batch.rows, 3) and log_q.shape == (2, batch.rows)
    finite([z, log_q])
    refused(lambda: elbo.normal_log_prob(x, mean[:, :2], 0.0), ValueError)
    refused(lambda: elbo.kl_normal(mean, s[:, :2]), ValueError)
    refused(lambda: elbo.draw(mean, s, 2, noise=x), ValueError)
    refused(lambda: elbo.draw(mean, s, 0), ValueError)
    refused(lambda: elbo.draw(mean, s[:, :2]), ValueError)


@covers(elbo.kl_full)
@given(
    seeds,
    st.integers(1, 4),
    st.sampled_from([1.0, 1e-6, 1e6, 1e-30, 1e30]),
    st.sampled_from([F64, F32]),
)
def test_kl_full(seed, D, scale, dtype):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=F64)
    make = lambda: (lambda a: a @ a.mT + 0.5 * torch.eye(D, dtype=F64))(draw(2, D, D))
    C1, C2, m1, m2 = make(), make(), draw(2, D), draw(2, D)
    want = elbo.kl_full(m1, C1, m2, C2)
    root = scale**0.5
    args = [
        (root * m1).to(dtype),
        (scale * C1).to(dtype),
        (root * m2).to(dtype),
        (scale * C2).to(dtype),
    ]
    got = outcome(lambda: elbo.kl_full(*args))
    if got is not None:
        torch.testing.assert_close(got.double(), want, rtol=5e-3, atol=5e-3)
    diagonal = elbo.kl_full(m1, torch.eye(D, dtype=F64), 0 * m1, torch.eye(D, dtype=F64))
    same(diagonal, elbo.kl_normal(m1, torch.zeros_like(m1)))
    refused(lambda: elbo.kl_full(m1, -C1, m2, C2), ValueError)
    refused(lambda: elbo.kl_full(m1, C1 * math.nan, m2, C2), ValueError)
    refused(lambda: elbo.kl_full(m1, C1[..., :1], m2, C2), ValueError) if D > 1 else None
    assert elbo.kl_full(m1[:0], C1[:0], m2[:0], C2[:0]).shape == (0,)


@covers(elbo.importance_bound, elbo.importance_stderr, elbo.effective_sample_size)
@given(batches(HUGE, most=5, least=1), st.integers(0, 3))
def test_weights(batch, B):
    """Log-weights of any size: the bound within their range, the effective number in 1 .. n."""
    log_w, n = batch.draw(B), batch.rows
    bound = elbo.importance_bound(log_w)
    assert bound.shape == (B,)
    tol = tolerance(batch.dtype) * (1 + log_w.abs().amax(0))
    assert (bound <= log_w.amax(0) + tol).all() and (
        bound >= log_w.amax(0) - math.log(n) - tol
    ).all()
    ess = elbo.effective_sample_size(log_w)
    finite(ess)
    level = elbo.effective_sample_size(log_w[:1].expand(n, B))  # equal weights: all count
    torch.testing.assert_close(level, torch.full_like(level, n))
    assert (ess >= 1 - 1e-3).all() and (ess <= n * (1 + 1e-3)).all(), ess
    if n > 1:
        finite(elbo.importance_stderr(log_w))
    else:
        refused(lambda: elbo.importance_stderr(log_w), ValueError)
    for f in (elbo.importance_bound, elbo.effective_sample_size, elbo.importance_stderr):
        refused(lambda f=f: f(log_w[:0]), ValueError)


@covers(elbo.elbo_normal, elbo.log_weights, elbo.Elbo)
@given(
    batches((1.0, 0.0, 1e-30, 1e3)), st.integers(1, 3), st.sampled_from(["kl", "entropy", "joint"])
)
def test_elbo_of_normals(batch, n, form):
    x, mean, log_std = batch.draw(3), batch.draw(2, salt=1), batch.like(scale=1.0).draw(2, salt=2)
    like = lambda x, z: elbo.normal_log_prob(x, z.sum(1, keepdim=True), 0.1)
    bound = elbo.elbo_normal(x, like, mean, log_std, n, form=form)
    assert bound.total.shape == (batch.rows,)
    finite([*bound, bound.total])
    joint = lambda x, z: like(x, z) + std_normal_log_prob(z)
    w = elbo.log_weights(x, joint, mean, log_std, n)
    assert w.shape == (n, batch.rows)
    finite(w)
    refused(lambda: elbo.elbo_normal(x, like, mean, log_std, form="x"), ValueError)
    if batch.rows:
        refused(lambda: elbo.log_weights(x, lambda x, z: z, mean, log_std, n), ValueError)
    refused(lambda: elbo.log_weights(x, joint, mean, log_std, 0), ValueError)


# ---------------------------------------------------------------------------- likelihoods

KINDS = {
    "bernoulli": (lambda n: likelihoods.Bernoulli(), 2),
    "gaussian": (lambda n: likelihoods.Gaussian("pixel"), 0),
    "shared": (lambda n: likelihoods.Gaussian(), 0),
    "fixed": (lambda n: likelihoods.Gaussian(0.3), 0),
    "bare": (lambda n: likelihoods.Gaussian("pixel", 0.0), 0),
    "logistic": (likelihoods.DiscretisedLogistic, 1),
    "mixture": (lambda n: likelihoods.DiscretisedLogistic(n, 2), 1),
    "categorical": (likelihoods.Categorical, 1),
}


@covers(
    likelihoods.Likelihood, likelihoods.Bernoulli, likelihoods.Gaussian,
    likelihoods.DiscretisedLogistic, likelihoods.Categorical,
)  # fmt: skip
@given(
    batches((1.0, 0.0, 1e-30, 30.0, 1e3, 1e6)), st.sampled_from([2, 5, 17, 256]), st.integers(1, 3)
)
def test_likelihoods(batch, n, C):
    for name, (make, kind) in KINDS.items():
        p = make(n).to(batch.dtype)
        params = batch.draw(p.channels * C, 2)
        x = (
            batch.integers(2 if kind == 2 else n, C, 2).to(batch.dtype)
            if kind
            else batch.like(scale=1.0).draw(C, 2)
        )
        with torch.no_grad():
            log = apart(p.log_prob, x, params, slack=10, low=name == "bare")
            if kind:
                assert (log <= 1e-3).all()
            mean, drawn = (
                apart(p.mean, params, slack=10),
                p.sample(params, torch.Generator().manual_seed(batch.seed)),
            )
            assert mean.shape == drawn.shape == x.shape
            finite(drawn)
            finite(p.log_prob(drawn, params), low=True)
            p.check(x), p.check(drawn), finite(p.centre(x))
            if kind and batch.rows:
                levels = torch.arange(2 if kind == 2 else n, dtype=batch.dtype)
                one = params[:1].expand(len(levels), *params.shape[1:])
                total = p.log_prob(levels[:, None, None].expand(-1, C, 2), one)
                assert (total <= 1e-3).all()
                single = params[:1, ::C, :1].expand(len(levels), -1, -1)
                mass = p.log_prob(levels[:, None, None], single).exp().sum()
                assert abs(mass - 1) < 2e-3, (name, mass)
        refused(lambda p=p, x=x, q=params: p.log_prob(x[:, :, :1], q), ValueError)
        if kind and batch.rows:
            for bad in (x + 0.5, x - 300, x * math.nan):
                refused(lambda p=p, bad=bad: p.check(bad), ValueError)
    refused(lambda: likelihoods.Gaussian(0.0), ValueError)
    refused(lambda: likelihoods.Gaussian("wide"), ValueError)
    refused(lambda: likelihoods.Categorical(1), ValueError)
    refused(lambda: likelihoods.DiscretisedLogistic(1), ValueError)


# --------------------------------------------------------------------------------- models


def small(batch, flow=None, **how):
    torch.manual_seed(batch.seed)
    likelihood = likelihoods.Bernoulli()
    features = 4 + (3 if flow is not None and flow.takes_context else 0)
    model = vae.VAE(
        nets.mlp_encoder((1, 2, 3), features, 8, 1),
        nets.mlp_decoder(2, (1, 2, 3), 1, 8, 1),
        likelihood,
        2,
        flow,
        **how,
    )
    return loud(model, batch.seed, batch.dtype, 0.2)


@covers(vae.VAE, vae.LatentModel, vae.Estimate, nets.mlp_encoder, nets.mlp_decoder, vae.bounded)
@given(batches((1.0, 30.0, 1e12)), st.integers(1, 3))
def test_vae(batch, n):
    x = batch.integers(2, 1, 2, 3).to(batch.dtype)
    for flow in (None, planar_flow(2, 2), iaf(2, 1, 8, 1, 3)):
        model = small(batch, flow)
        with torch.no_grad():
            apart(model.encode, x)
            apart(model.decode, batch.draw(2))
            bound = model.elbo(x, n=n)
            assert bound.total.shape == model(x).shape == (batch.rows,)
            finite([*bound, model(x), apart(model.reconstruct, x)])
            got = model.estimate(x, n, chunk=2)
            assert all(v.shape == (batch.rows,) for v in got)
            finite([got.log_prob, got.ess, model.log_prob(x, 2)])
            assert model.log_weights(x, n).shape == (n, batch.rows)
            assert model.sample(n).shape == (n, 1, 2, 3) == model.sample(n, mean=True).shape
            assert model.posterior(x, n)[0].shape == (n, batch.rows, 2)
            if flow is None:
                assert apart(model.kl_dims, x).shape == (batch.rows, 2)
            else:
                refused(lambda m=model: m.kl_dims(x), ValueError)
        for bad in (x + 0.5, x[:, :, 1:], x.to(F64 if batch.dtype == F32 else F32)):
            if batch.rows:
                refused(lambda m=model, bad=bad: m(bad), ValueError, TypeError)
        refused(lambda m=model: m.sample(0), ValueError)
        refused(lambda m=model: m.decode(batch.draw(3)), ValueError)
        wrong_kind(model.elbo, x)
    for how in (dict(free_bits=0.5), dict(samples=3), dict(kl_weight=0.0)):
        loss = small(batch, **how)(x)
        assert loss.shape == (batch.rows,)
        finite(loss)
    refused(lambda: small(batch, free_bits=0.5, samples=2), ValueError)
    refused(lambda: small(batch, kl_weight=-1.0), ValueError)
    finite(apart(vae.bounded, batch.draw(3)))


@covers(hierarchical.HierarchicalVAE, hierarchical.Level, hierarchical.mlp_levels)
@given(batches((1.0,)), st.integers(1, 3))
def test_hierarchical(batch, L):
    torch.manual_seed(batch.seed)
    up, levels = hierarchical.mlp_levels(4, tuple(range(1, L + 1)), 6)
    make = lambda **how: loud(
        hierarchical.HierarchicalVAE(up, levels, mlp(6, 4, 6, 1), likelihoods.Bernoulli(), (6,), **how),
        batch.seed, batch.dtype, 0.2,
    )  # fmt: skip
    x = batch.integers(2, 4).to(batch.dtype)
    for how in ({}, {"free_bits": 0.5}, {"samples": 2}):
        model = make(**how)
        with torch.no_grad():
            bound = model.elbo(x)
            finite([*bound, model(x), apart(model.reconstruct, x), model.log_weights(x, 2)])
            assert model(x).shape == (batch.rows,) and model.kl_levels(x).shape == (batch.rows, L)
            assert model.sample(3).shape == (3, 4)
            finite(model.estimate(x, 3).log_prob)
        refused(lambda m=model: m.sample(2, zs=[x] * (L + 1)), ValueError)
        if batch.rows:
            refused(lambda m=model: m(x + 0.5), ValueError)
    refused(
        lambda: hierarchical.HierarchicalVAE(
            up, levels[1:], mlp(6, 4), likelihoods.Bernoulli(), (6,)
        ),
        ValueError,
    )


@covers(hierarchical.diffusion_bound)
@given(batches((1.0, 0.0, 1e-30, 1e3)), st.integers(1, 4))
def test_diffusion_bound(batch, T):
    s = Cosine()
    alpha, sigma = [[f(k / T * 0.98 + 0.01) for k in range(1, T + 1)] for f in (s.alpha, s.sigma)]
    recon, kls = hierarchical.diffusion_bound(batch.draw(3), lambda z, t: 0.5 * z, alpha, sigma)
    assert len(kls) == T and all(v.shape == (batch.rows,) for v in (recon, *kls))
    finite([recon, *kls])
    for bad in (
        ([], []),
        (alpha, sigma[1:]),
        (alpha, [-v for v in sigma]),
        (alpha, [math.nan] * T),
    ):
        refused(
            lambda bad=bad: hierarchical.diffusion_bound(batch.draw(3), lambda z, t: z, *bad),
            ValueError,
        )


@covers(LinearGaussian)
@given(batches((1.0, 0.0, 1e-30, 30.0, 1e6), most=6), st.booleans())
def test_linear(batch, full):
    torch.manual_seed(batch.seed)
    model = loud(LinearGaussian(4, 2, full), batch.seed, batch.dtype, 0.2)
    x = batch.draw(4)
    with torch.no_grad():
        log = apart(model.log_prob, x, slack=10)
        bound = model.elbo(x)
        assert (bound.total <= log + 1e-3 * (1 + log.abs())).all()
        finite([*bound, apart(model, x), model.log_weights(x, 2), *model.q(x), *model.posterior(x)])
        assert model.sample(3).shape == (3, 4)
        finite(apart(lambda x, z: model.log_joint(x, z), x, batch.draw(2)))
        fitted = outcome(lambda: model.fit_closed_form(x))
        if fitted is not None:
            finite(list(model.parameters()))
            finite(model.log_prob(x))
    if full:
        model.set_posterior()
    refused(lambda: LinearGaussian(2, 2), ValueError)
    refused(lambda: model.sample(0), ValueError)
    if batch.rows:
        refused(lambda: model.log_prob(x * math.inf), ValueError)
    refused(lambda: model.log_weights(x, 0), ValueError)
    wrong_kind(model.log_prob, x)


# ---------------------------------------------------------------- networks and quantisers


@covers(
    nets.conv_encoder, nets.conv_decoder, nets.mlp_encoder, nets.mlp_decoder,
    ae.spatial_encoder, ae.spatial_decoder,
)  # fmt: skip
@given(batches((1.0, 0.0, 1e-30, 1e6), most=3), st.integers(0, 1), st.integers(1, 2))
def test_encoders_and_decoders(batch, halvings, side):
    torch.manual_seed(batch.seed)
    shape = (1, side << halvings, side << halvings)
    ready = lambda net: loud(net, batch.seed, batch.dtype, 0.1)
    x, z, big = batch.draw(*shape), batch.draw(3), batch.draw(2, 4 * side, 4)
    with torch.no_grad():
        apart(ready(nets.conv_encoder(shape, 5, 3, halvings)), x, slack=10)
        apart(ready(nets.conv_decoder(3, shape, 2, 2, halvings)), z, slack=10)
        apart(ready(nets.mlp_encoder(shape, 5, 4)), x, slack=10)
        apart(ready(nets.mlp_decoder(3, shape, 2, 4)), z, slack=10)
        code = apart(ready(ae.spatial_encoder(2, 3, 4)), big, slack=10)
        assert apart(ready(ae.spatial_decoder(3, 2, 4)), code, slack=10).shape == big.shape
    refused(lambda: nets.conv_encoder((1, 3, 3), 5, halvings=1), ValueError)
    refused(lambda: nets.conv_decoder(3, (1, 6, 6), halvings=2), ValueError)


@covers(ae.Autoencoder, ae.KLAutoencoder, vq.VQAutoencoder, vq.VectorQuantizer)
@given(batches((1.0, 0.0, 1e-30, 1e3), most=3))
def test_autoencoders(batch):
    torch.manual_seed(batch.seed)
    x = batch.draw(1, 8, 4)
    for model in (ae.KLAutoencoder(1, 2, 4), vq.VQAutoencoder(1, 2, 4, 5)):
        model = loud(model, batch.seed, batch.dtype, 0.1).eval()
        with torch.no_grad():
            z = apart(model.latents, x, slack=100)
            assert z.shape == (batch.rows, 2, 2, 1)
            apart(model.decode, z, slack=100)
            assert model.reconstruct(x).shape == x.shape and model(x).shape == (batch.rows,)
            finite(model(x))
        refused(lambda m=model: m.latents(x[:, :, 1:]), ValueError)
        refused(lambda m=model: m.decode(x), ValueError)
        wrong_kind(model.latents, x)
    refused(lambda: ae.KLAutoencoder(noise=0.0), ValueError)
    refused(lambda: ae.Autoencoder(1, 2, 4).latents(x), NotImplementedError)


@covers(vq.VectorQuantizer, vq.Quantised, vq.Usage)
@given(
    batches(WIDE),
    st.integers(1, 4),
    st.sampled_from([None, 0.0, 0.99]),
    st.sampled_from([0.0, 0.5]),
    st.booleans(),
)
def test_quantiser(batch, K, decay, reseed, warm):
    """The nearest code, in training and after, from no latents or from huge ones."""
    if decay is None and reseed:
        return refused(lambda: vq.VectorQuantizer(K, 2, decay=decay, reseed=reseed), ValueError)
    torch.manual_seed(batch.seed)
    q = vq.VectorQuantizer(K, 2, decay=decay, reseed=reseed, warm=warm).to(batch.dtype)
    z = batch.draw(2, 3)
    out = outcome(lambda: q(z))
    if out is not None:
        assert out.z.shape == z.shape and out.indices.shape == (batch.rows, 3)
        assert out.loss.shape == (batch.rows,)
        finite([out.z, out.loss, q.codebook])
        for p in q.state_dict().values():
            assert p.isfinite().all()
    q.eval()
    code = apart(lambda z: q.indices(z), z)
    if batch.rows:
        flat = z.movedim(1, -1).reshape(-1, 2).double()
        away = (flat[:, None] - q.codebook.double()).norm(dim=-1)
        floor = 1e-18 if batch.dtype == F32 else 1e-150  # below, squares are 0
        near = away.gather(1, code.reshape(-1, 1))[:, 0]
        assert (near <= away.amin(1) * (1 + 1e-3) + 1e-3 * flat.abs().amax(1) + floor).all()
    usage = q.usage(code)
    assert 0 <= usage.used <= 1 and 0 <= usage.entropy <= math.log2(K) + 1e-9
    assert q.rate(3) == 3 * math.log2(K) and q.rate(3, usage) <= q.rate(3) + 1e-9
    assert q.lookup(code).shape == z.shape
    refused(lambda: q.lookup(z), TypeError)
    refused(lambda: q.lookup(torch.tensor([K])), ValueError)
    refused(lambda: q.lookup(torch.tensor([-1])), ValueError)
    refused(lambda: q.indices(batch.draw(3)), ValueError)
    wrong_kind(q.indices, batch.like(scale=1.0).draw(2, 3))


@covers(DiffusionPrior, LatentBound)
@given(batches((1.0,)))
def test_diffusion_prior(batch):
    model = DiffusionPrior(
        small(batch), Diffusion(Denoiser(VectorNet(2, 8, 1), Cosine(), "v"), 2)
    ).to(batch.dtype)
    x, ts = batch.integers(2, 1, 2, 3).to(batch.dtype), [1.0, 0.5, 0.1]
    if batch.rows > 1:
        assert model.fit_scale(x) is model
    else:
        refused(lambda: model.fit_scale(x), ValueError)
    for bound in (model.bound(x, ts), model.standard_bound(x)):
        assert bound.total.shape == (batch.rows,)
        finite([*bound, bound.total])
    assert model(x).shape == (batch.rows,) and model.sample(2, ts).shape == (2, 1, 2, 3)
    refused(lambda: model.sample(0, ts), ValueError)


@covers(grey_levels)
@given(batches(HUGE))
def test_grey_levels(batch):
    k = grey_levels(batch.draw(3))
    assert k.dtype == torch.uint8 and k.shape == (batch.rows, 3)
