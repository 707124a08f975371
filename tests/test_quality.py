"""Frechet distance against closed forms; precision and recall where their values are known."""

import itertools
import math

import pytest
import torch

from lib import quality
from lib.data import images
from lib.quality import (
    Classifier,
    classifier,
    frechet_distance,
    frechet_gaussians,
    precision_recall,
    scaled,
)

F64 = torch.float64


def covariance(d: int) -> torch.Tensor:
    a = torch.randn(d, d, dtype=F64)
    return a @ a.mT / d + 0.1 * torch.eye(d, dtype=F64)


def test_commuting_covariances_have_a_closed_form():
    """In a common basis: |m - n|^2 + sum (sqrt a_i - sqrt b_i)^2, singular ones included."""
    basis = torch.linalg.qr(torch.randn(6, 6, dtype=F64)).Q
    a, b = torch.rand(2, 6, dtype=F64) * 5
    a[0] = b[0] = b[1] = 0
    m, n = torch.randn(2, 6, dtype=F64)
    got = frechet_gaussians(m, basis * a @ basis.mT, n, basis * b @ basis.mT)
    want = (m - n).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert got == pytest.approx(want.item(), rel=1e-7)


def test_any_covariances_against_the_eigenvalues_of_the_product():
    """tr (A B)^(1/2) is the sum of the roots of the eigenvalues of A B, which are positive."""
    A, B, zero = covariance(7), covariance(7), torch.zeros(7, dtype=F64)
    roots = torch.linalg.eigvals(A @ B).real.sqrt().sum()
    want = (A.trace() + B.trace() - 2 * roots).item()
    assert frechet_gaussians(zero, A, zero, B) == pytest.approx(want, rel=1e-10)
    assert frechet_gaussians(zero, B, zero, A) == pytest.approx(want, rel=1e-10)
    assert frechet_gaussians(zero, A, zero, A) == pytest.approx(0, abs=1e-12)


def test_gaussians_in_float32_are_compared_in_float64():
    """The distance is a small difference of large traces."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(400, 12, generator=rng) * torch.logspace(-2, 2, 12)
    y = x + 0.01 * torch.randn(x.shape, generator=rng)
    given = x.mean(0), x.mT.cov(), y.mean(0), y.mT.cov()
    want = frechet_gaussians(*(v.double() for v in given))
    assert want > 0 and frechet_gaussians(*given) == pytest.approx(want, rel=1e-6)


def test_the_distance_of_samples_is_that_of_their_gaussians(device):
    x = torch.randn(50_000, 3, dtype=F64, device=device)
    y = 2 * torch.randn(60_000, 3, dtype=F64, device=device) + 1
    assert frechet_distance(x, y) == pytest.approx(3 + 3, rel=0.02)
    # moved and turned together nothing changes; a set against itself moved by v is |v|^2
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=F64, device=device)).Q
    moved = frechet_distance(x @ turn + 5, y @ turn + 5)
    assert moved == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert frechet_distance(x, x + 2) == pytest.approx(12, rel=1e-9)


def test_the_bias_falls_as_one_over_n():
    """Two sets from one law: about F (F + 7) / (4 N), far above the error of either mean.

    |mean_a - mean_b|^2 gives 2 F / N. With A = I + X the rest is |X - Y|^2 / 4 to second order,
    and E |X - Y|^2 = 2 F (F + 1) / N: in all (2 F + F (F + 1) / 2) / N.
    """
    F = 12
    for N in (500, 2_000):
        found = torch.tensor(
            [
                frechet_distance(*torch.randn(2, N, F, dtype=F64, generator=rng))
                for rng in (torch.Generator().manual_seed(i) for i in range(40))
            ]
        )
        want, error = (2 * F + F * (F + 1) / 2) / N, found.std().item() / 40**0.5
        assert error < 0.05 * want
        # one order more in 1 / sqrt(N) than the formula has
        assert abs(found.mean().item() - want) < 4 * error + 5 * want / N**0.5 / F**0.5


def blobs(centres, n: int, spread: float = 0.1) -> torch.Tensor:
    centres = torch.tensor([[float(c), 0.0] for c in centres], dtype=F64)
    return centres[torch.arange(n) % len(centres)] + spread * torch.randn(n, 2, dtype=F64)


def test_precision_sees_invented_modes_and_recall_dropped_ones():
    real = blobs((0, 10, 20, 30), 2_000)
    same = precision_recall(real, blobs((0, 10, 20, 30), 2_000))
    assert min(same) > 0.9
    dropped = precision_recall(real, blobs((0, 10, 20), 2_000))
    assert dropped.precision > 0.9
    assert dropped.recall == pytest.approx(same.recall * 0.75, abs=0.03)
    invented = precision_recall(real, blobs((0, 10, 20, 30, 90), 2_000))
    assert invented.precision == pytest.approx(same.precision * 0.8, abs=0.03)
    assert invented.recall > 0.9
    away = precision_recall(real, blobs((0, 10, 20, 30), 2_000) + 50)
    assert away == (0.0, 0.0)


def test_precision_and_recall_trade_places_with_the_sets():
    a, b = torch.randn(300, 2, dtype=F64), 1.5 * torch.randn(400, 2, dtype=F64)
    one, other = precision_recall(a, b), precision_recall(b, a)
    assert one == (other.recall, other.precision)
    assert one.precision < one.recall  # b is wider: some of it is outside a


def test_neighbours_by_hand():
    """k = 1 on a line: the balls around 0, 1, 4 reach 1, 1, 3; around 2.5, 7.5 they reach 5."""
    real = torch.tensor([[0.0], [1.0], [4.0]])
    fake = torch.tensor([[2.5], [7.5]])
    assert precision_recall(real, fake, k=1) == (0.5, 1.0)


def test_mistakes_get_a_sentence():
    x = torch.randn(10, 3)
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(10, 2\)"):
        frechet_distance(x, x[:, :2])
    with pytest.raises(ValueError, match="more than 10 samples"):
        precision_recall(x, x, k=10)
    with pytest.raises(ValueError, match="at least 2 samples, b has 1"):
        frechet_distance(x, x[:1])
    with pytest.raises(ValueError, match="mnist, fashion_mnist, digits; got 'cifar10'"):
        classifier("cifar10")
    with pytest.raises(ValueError, match=r"\(B, 1, 28, 28\), got shape \(2, 1, 8, 8\)"):
        Classifier().logits(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(x, x.new_full((4, 3), math.nan))


def test_the_networks_are_as_large_as_the_page_says():
    count = lambda size: sum(p.numel() for p in Classifier(size).parameters())
    found = {count(size) for size in quality.SIZES.values()}
    assert {f"{n:,}" for n in found} == {"80,602", "11,482"}
    assert all(f"{n:,}" in quality.__doc__ for n in found)


def test_to_load_it_draws_no_random_numbers():
    before = torch.get_rng_state()
    classifier("digits")
    assert torch.equal(torch.get_rng_state(), before)


def test_features_of_digits_see_corruption():
    """Real against real is near; noise moves away step by step, half of the classes at once."""
    net = classifier("digits")
    levels, labels = images.digits("train")
    test, test_labels = images.digits("test")
    assert net.accuracy(scaled(test, 17), test_labels) > 0.98
    x = scaled(levels, 17, torch.Generator().manual_seed(0))
    halves = net.features(x[::2]), net.features(x[1::2])
    own = frechet_distance(*halves)
    noise = torch.randn(x[1::2].shape, generator=torch.Generator().manual_seed(1))
    worse = [
        frechet_distance(halves[0], net.features(x[1::2] + s * noise)) for s in (0.2, 0.4, 0.8)
    ]
    assert own < worse[0]
    assert all(4 * (a - own) < b - own for a, b in itertools.pairwise(worse))
    few = x[1::2][labels[1::2] < 5]
    got = precision_recall(halves[0], net.features(few))
    assert got.precision > 0.8 and got.recall < 0.6
    assert frechet_distance(halves[0], net.features(few)) > 5 * own
