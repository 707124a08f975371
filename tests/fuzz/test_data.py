"""Densities, generated images and their words, grey levels: at any point, of any size."""

import math

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lib.data import attributes as at
from lib.data import captions as words
from lib.data import densities, images, rings, shapes, toys
from lib.data.base import Density, Draw, Grid, segment_logsumexp
from lib.data.mixture import GaussianMixture, Posterior
from lib.data.pinwheel import Pinwheel, pinwheel
from lib.data.reader import matches, read_attributes
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
    outcome,
    refused,
    same,
    wrong_kind,
)

DENSITIES = {
    make.__name__: make()
    for make in (
        densities.two_gaussians,
        densities.eight_gaussians,
        densities.grid_gaussians,
        densities.anisotropic_gaussians,
        toys.moons,
        toys.swissroll,
        toys.spirals,
        toys.checkerboard,
        rings.circles,
        rings.rings,
        pinwheel,
    )
}
SMOOTH = [name for name in DENSITIES if name != "checkerboard"]
seeds = st.integers(0, 10_000)


def mixture(seed, K=3, D=2, spread=1.0):
    """A random mixture with full covariances."""
    g = torch.Generator().manual_seed(seed)
    raw = torch.randn(K, D, D, generator=g, dtype=F64)
    weights = torch.rand(K, generator=g, dtype=F64) + 0.1
    covs = raw @ raw.mT + 0.1 * torch.eye(D, dtype=F64)
    return GaussianMixture(
        weights / weights.sum(), spread * torch.randn(K, D, generator=g, dtype=F64), covs
    )


@covers(Density, GaussianMixture, toys.Smeared, rings.Rings, Pinwheel, Draw, segment_logsumexp)
@few
@given(batches(HUGE), st.sampled_from(list(DENSITIES)))
def test_log_prob(batch, name):
    """A number or -inf at every finite point, NaN nowhere; NaN stays NaN; draws have a density."""
    for each in dict.fromkeys((name, *(() if batch.seed else DENSITIES))):
        p = DENSITIES[each]
        x = batch.draw(2)
        log = apart(p.log_prob, x, low=True, slack=10)
        wide = p.log_prob(x.double())
        near = wide > -50
        torch.testing.assert_close(log[near].double(), wide[near], rtol=1e-3, atol=2e-3)
        if batch.rows:
            nan = x.clone()
            nan[0, 0] = math.nan
            assert p.log_prob(nan)[0].isnan()
        drawn = p.sample(3, torch.Generator().manual_seed(batch.seed), dtype=batch.dtype)
        assert p.log_prob(drawn).isfinite().all()
        wrong_kind(p.log_prob, batch.like(scale=1.0).draw(2))
        refused(lambda p=p: p.log_prob(batch.draw(3)), ValueError)
        refused(lambda p=p: p.sample(0), ValueError)


@covers(Density.score, GaussianMixture.score)
@given(batches(HUGE), st.sampled_from(SMOOTH))
def test_score(batch, name):
    """Finite wherever the density is, and for mixtures everywhere: there it is a closed form."""
    p, x = DENSITIES[name], batch.draw(2)
    exact = isinstance(p, GaussianMixture)
    keep = torch.ones(batch.rows, dtype=torch.bool) if exact else p.log_prob(x) > -1e4
    score = p.score(x)
    assert score.shape == x.shape
    finite(score[keep])
    if exact:
        apart(p.score, x, slack=10)
        wide = p.score(x.double())
        tol = 5e-3 if batch.dtype == F32 else 1e-9  # between components their pulls cancel
        torch.testing.assert_close(score.double(), wide, rtol=tol, atol=1e-2 * tol / p.width)
    if name == "pinwheel" and batch.scale > 9:
        return  # beyond |x| = 9 its roots are not all found, as it says


@covers(GaussianMixture, Posterior)
@given(
    batches(HUGE),
    seeds,
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([(0.6, 0.8), (1.0, 50.0), (1e-4, 1.0), (1.0, 1e-3)]),
)
def test_mixtures(batch, seed, K, D, level):
    p, x = mixture(seed, K, D), batch.draw(D)
    alpha, sigma = level
    r = apart(p.responsibilities, x, slack=100)
    finite(r)
    torch.testing.assert_close(r.sum(1), torch.ones_like(r[:, 0]))
    post = p.posterior(x, alpha, sigma)
    finite([post.means, post.variances, post.covs, post.cov(), post.mean(), post.weights])
    apart(lambda x: p.denoise(x, alpha, sigma), x, slack=100)
    rows = torch.full((batch.rows,), alpha), torch.full((batch.rows,), sigma)
    same(p.posterior(x, *rows).means, post.means, 100)
    if batch.rows:
        drawn = post.sample(torch.Generator().manual_seed(seed))
        assert drawn.shape == x.shape
        finite(drawn)
        finite(post.log_prob(drawn), low=True)
    noised = p.noised(alpha, sigma)
    apart(noised.log_prob, x, low=True, slack=10)
    finite([*noised.moments(), *p.moments()])
    assert len(p.component(K - 1).weights) == 1
    assert p.sample_labelled(2)[0].shape == (2, D)
    refused(lambda: p.component(K), ValueError)
    refused(lambda: p.posterior(x, torch.ones(batch.rows + 2), sigma), ValueError)
    refused(lambda: p.noised(torch.ones(2), 1.0), ValueError)
    refused(lambda: GaussianMixture([0.5, 0.4], torch.zeros(2, 1), torch.eye(1)), ValueError)
    refused(lambda: GaussianMixture([1.0], torch.zeros(1, D), -torch.eye(D)), ValueError)
    refused(
        lambda: GaussianMixture([1.0], torch.zeros(1, D), torch.full((D, D), math.nan)), ValueError
    )


@covers(
    densities.two_gaussians, densities.eight_gaussians, densities.grid_gaussians,
    densities.anisotropic_gaussians, toys.moons, toys.swissroll, toys.spirals, toys.checkerboard,
    rings.circles, rings.rings, pinwheel, Grid,
)  # fmt: skip
@given(
    st.sampled_from([0.1, 0.0, -1.0, 1e-3, 10.0, math.nan]),
    st.sampled_from([2, 0, 1, 3]),
    batches(MODEST),
)
def test_makers(size, k, batch):
    """Sizes of any sign: a density that integrates its own draws, or a refusal."""
    makers = [
        lambda: densities.two_gaussians(3.0, size),
        lambda: densities.eight_gaussians(2.0, size, k),
        lambda: densities.grid_gaussians(k, 1.0, size),
        lambda: toys.moons(size),
        lambda: toys.moons(),
        lambda: toys.swissroll(10 * size),
        lambda: toys.spirals(size),
        lambda: rings.Rings([1.0] * max(k, 1), [1 / max(k, 1)] * max(k, 1), size),
        lambda: rings.Rings([1.0, -2.0], [0.5, 0.5 + size], 1.0) if size else rings.rings(),
        lambda: densities.two_gaussians(3.0, 1.0, size),
        densities.anisotropic_gaussians, toys.checkerboard, rings.circles, rings.rings, pinwheel,
    ]  # fmt: skip
    for make in makers:
        p = outcome(make)
        if p is None:
            continue
        assert p.width >= 0 and len(repr(p)) > 5
        drawn = p.sample(4, dtype=F64)
        finite([drawn, p.log_prob(drawn), *p.box()])
        grid = p.grid(5)
        assert isinstance(grid, Grid) and grid.points.shape == (25, 2) and grid.cell > 0


@covers(toys.Checkerboard, toys.Smeared.noised, rings.Rings.noised, toys.Checkerboard.noised)
@given(
    batches(WIDE),
    st.sampled_from(["moons", "spirals", "rings", "checkerboard"]),
    st.sampled_from([0.3, 1.0, 1e-3]),
    st.sampled_from([0.5, 1.0, 1e-6, 100.0]),
)
def test_noised(batch, name, alpha, sigma):
    p = DENSITIES[name].noised(alpha, sigma)
    apart(p.log_prob, batch.draw(2), low=True, slack=10)
    drawn = p.sample(3, dtype=F64)
    finite(p.log_prob(drawn))
    for name in ("moons", "spirals", "rings", "checkerboard"):
        assert DENSITIES[name].noised(alpha, sigma).log_prob(torch.zeros(1, 2)).shape == (1,)


@covers(segment_logsumexp)
@given(batches(WIDE, most=8), st.integers(1, 3))
def test_segment_logsumexp(batch, n):
    log, row = batch.draw(), batch.integers(n)
    got = segment_logsumexp(log, row, n)
    for k in range(n):
        same(
            got[k],
            log[row == k].logsumexp(0) if (row == k).any() else log.new_tensor(-math.inf),
            10,
        )


@covers(Draw)
@given(st.sampled_from([F32, F64, torch.float16, torch.int64]), seeds)
def test_draw(dtype, seed):
    if not dtype.is_floating_point:
        return refused(lambda: Draw(dtype=dtype), TypeError)
    draw = Draw(torch.Generator().manual_seed(seed), dtype=dtype)
    assert draw.normal(0, 2).shape == (0, 2) and draw.uniform(3).dtype == dtype
    k = draw.choice(torch.tensor([0.0, 1.0]), 5)
    assert (k == 1).all() and (draw.take(torch.tensor([1.0, 2.0], dtype=F64), k) == 2).all()


# ------------------------------------------------------------------------- grey levels


@covers(images.dequantise, images.quantise, images.to_unit)
@given(batches((1.0,)), st.sampled_from([2, 17, 256, 1000, 65536]), st.integers(0, 3))
def test_levels(batch, n, side):
    """Every level comes back, whatever the noise; a level that cannot be is refused."""
    k = batch.integers(n, side, side)
    x = images.dequantise(k, n, torch.Generator().manual_seed(batch.seed), batch.dtype)
    assert (x < 1).all() and (x >= 0).all()
    back = images.quantise(x, n)
    assert torch.equal(back.long(), k)
    unit = images.to_unit(k.to(batch.dtype), n)
    assert (unit.abs() <= 1 + 1e-6).all()
    refused(lambda: images.dequantise(x, n), TypeError)
    refused(lambda: images.dequantise(torch.tensor([n]), n), ValueError)
    refused(lambda: images.quantise(torch.tensor([math.nan]), n), ValueError)
    for levels in (0, 1, -3):
        refused(lambda levels=levels: images.to_unit(k, levels), ValueError)
        refused(lambda levels=levels: images.quantise(x, levels), ValueError)
        refused(lambda levels=levels: images.dequantise(k, levels), ValueError)
        refused(lambda levels=levels: images.bits_per_dim(1.0, 3, min(levels, 0)), ValueError)


@covers(images.quantise)
@given(batches(HUGE), st.sampled_from([2, 17, 256, 1000]))
def test_quantise_anything(batch, n):
    x = batch.draw(3)
    k = images.quantise(x, n).long()
    assert (k >= 0).all() and (k < n).all()
    assert (k[x >= 1] == n - 1).all() and (k[x < 0] == 0).all()


@covers(
    images.to_logit,
    images.from_logit,
    images.logit_bits_per_dim,
    images.logit_constant,
    images.bits_per_dim,
)
@given(batches((1.0, 1e-3, 30.0, 1e3)), st.sampled_from([0.05, 1e-6, 0.0, 0.49]))
def test_logit(batch, margin):
    x = 0.01 + 0.98 * batch.uniform(2, 3)
    y, logabsdet = apart(lambda x: images.to_logit(x, margin), x)
    back, minus = apart(lambda y: images.from_logit(y, margin), y)
    torch.testing.assert_close(back, x, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(minus, -logabsdet, rtol=1e-3, atol=1e-3)
    apart(lambda y: images.from_logit(y, margin), batch.draw(2, 3))
    if batch.rows:
        nll = batch.draw()
        finite(apart(lambda nll, x: images.logit_bits_per_dim(nll, x, 256, margin), nll, x))
        assert math.isfinite(images.logit_constant(x, 256, margin))
        finite(images.bits_per_dim(nll, 6, 256))
    for bad in (0.5, -0.1, math.nan):
        refused(lambda bad=bad: images.to_logit(x, bad), ValueError)
        refused(lambda bad=bad: images.from_logit(y, bad), ValueError)
    if batch.rows:
        refused(lambda: images.to_logit(x + 100, margin), ValueError)
    refused(lambda: images.bits_per_dim(1.0, 0, 256), ValueError)
    wrong_kind(lambda x: images.to_logit(x, margin), x)
    wrong_kind(lambda x: images.from_logit(x, margin), x)


# ----------------------------------------------------------------------- shapes and words


@covers(
    at.Attributes, at.labels, at.one_hot, at.from_labels, at.sample_attributes, at.canonical,
    words.caption, words.parse_captions, words.encode_captions, words.decode_captions,
    shapes.render, shapes.sample, shapes.downsample, read_attributes, matches,
)  # fmt: skip
@given(seeds, st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([16, 32, 33]))
def test_shapes(seed, n, second, size):
    """Attributes -> labels -> words -> labels -> attributes -> image -> attributes: all agree."""
    g = torch.Generator().manual_seed(seed)
    x, shown = shapes.sample(n, size, g, second=second)
    said = at.labels(shown)
    assert torch.equal(at.canonical(said), said) and x.shape == (n, 3, size, size)
    assert (x >= 0).all() and (x <= 1).all()
    assert at.one_hot(said).sum() == (said >= 0).sum()
    lines = words.caption(shown)
    assert torch.equal(words.parse_captions(lines), said)
    assert words.decode_captions(words.encode_captions(lines)) == lines
    assert torch.equal(at.labels(at.from_labels(said, g)), said)
    assert torch.equal(at.labels(shown[:0]), said[:0]) and len(shown.to(F64)) == n
    assert shapes.render(shown[:0], size).shape == (0, 3, size, size)
    found = matches(read_attributes(x), shown)
    assert all(v.shape == (n,) for v in found.values())
    if size == 32:
        right = torch.stack([*found.values()])
        assert right[:4].mean() > 0.9
        assert shapes.downsample(x).shape == (n, 3, 16, 16)
        same(shapes.downsample(x, 4), shapes.downsample(shapes.downsample(x)))
    else:
        refused(lambda: shapes.downsample(x, 5), ValueError)


@covers(at.check_labels, at.one_hot, at.from_labels, at.canonical, words.caption)
@given(batches(MODEST), st.sampled_from([5, 9]), st.integers(-2, 3))
def test_labels_of_any_value(batch, columns, high):
    said = batch.integers(max(high, -1) + 1, columns, low=-2 if high < -1 else -1)
    hot = outcome(lambda: at.one_hot(said))
    if hot is not None:
        assert hot.shape == (batch.rows, 34 if columns == 9 else 18)
    shown = outcome(lambda: at.from_labels(said))
    if shown is not None:
        want = at.canonical(said) if columns == 9 else said
        got = at.labels(shown)[:, :columns]
        assert torch.equal(got[want >= 0], want[want >= 0])
        outcome(lambda: words.caption(said))
    refused(lambda: at.one_hot(said.float()), TypeError)
    refused(lambda: at.from_labels(said[:, :4]), ValueError)
    refused(lambda: at.canonical(said[:, :4]), ValueError)
    assert at.one_hot(said[:0]).shape[0] == 0 and len(at.from_labels(said[:0])) == 0


@covers(words.parse_captions, words.encode_captions, words.decode_captions, words.caption)
@example([])
@example(["a red circle", "a small red circle at the left and a blue square"])
@given(
    st.lists(
        st.lists(st.sampled_from((*words.VOCABULARY[1:], "purple", "")), max_size=6).map(" ".join),
        max_size=3,
    )
)
def test_words_in_any_order(lines):
    """A caption, or a refusal that names the words."""
    parsed = outcome(lambda: words.parse_captions(lines))
    tokens = outcome(lambda: words.encode_captions(lines))
    if tokens is not None:
        assert tokens.shape == (len(lines), words.LENGTH)
        assert words.decode_captions(tokens) == [" ".join(line.split()) for line in lines]
    if parsed is not None:
        assert parsed.shape == (len(lines), 9)
        if (parsed[:, 1] >= 0).all():
            assert torch.equal(words.parse_captions(words.caption(parsed)), parsed)
    refused(lambda: words.parse_captions("a red circle"), TypeError)
    refused(lambda: words.encode_captions([3]), TypeError)
    refused(lambda: words.encode_captions(["a red circle"], 2), ValueError)
    refused(lambda: words.decode_captions(torch.tensor([[999]])), ValueError)
    refused(lambda: words.decode_captions(torch.tensor([[-1]])), ValueError)
    refused(lambda: words.decode_captions(torch.zeros(1, 3)), TypeError)
    refused(lambda: words.caption(torch.full((1, 9), 99)), ValueError)


@covers(read_attributes)
@given(batches((1.0, 1e-30, 0.0, 1e6, 1e25)), st.sampled_from([16, 17, 32]))
def test_reader_reads_anything(batch, size):
    """Noise, flat images, numbers out of range: an answer or "unknown", and always a confidence."""
    read = read_attributes(batch.draw(3, size, size))
    assert len(read) == batch.rows
    finite(read.confidence)
    assert (read.confidence >= 0).all() and (read.confidence <= 1).all()
    unknown = read.shape < 0
    for part in (read.size, read.x, read.y, read.rotation):
        assert part[unknown].isnan().all()
        finite(part[~unknown])
    refused(lambda: read_attributes(batch.draw(3, size, size + 1)), ValueError)
    refused(lambda: read_attributes(batch.draw(3, 8, 8)), ValueError)
    wrong_kind(read_attributes, batch.like(scale=1.0).draw(3, size, size))


@covers(shapes.render, at.sample_attributes, at.Attributes)
@given(seeds, st.sampled_from([1e-6, 0.3, 5.0, 1e6]), st.sampled_from([-1e3, 0.5, 2.0]))
def test_shapes_of_any_size(seed, size, place):
    """Far outside or larger than the image: still colours in [0, 1]."""
    shown = at.sample_attributes(3, torch.Generator().manual_seed(seed))
    x = shapes.render(shown.replace(size=size, x=place), 16)
    finite(x)
    assert (x >= 0).all() and (x <= 1).all()
    refused(lambda: shapes.render(shown.replace(shape=-1)), ValueError)
    refused(lambda: shapes.render(shown, 0), ValueError)
    refused(lambda: at.sample_attributes(0), ValueError)
    refused(lambda: at.sample_attributes(1, colour="mauve"), ValueError)
    refused(lambda: at.sample_attributes(1, mood="calm"), TypeError)
    refused(lambda: at.sample_attributes(1, second=1.5), ValueError)
