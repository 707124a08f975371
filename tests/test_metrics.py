"""Sample distances against SciPy, closed forms, and their own spread over repeated samples."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from lib.metrics import mmd, sliced_wasserstein

F64 = torch.float64


@pytest.mark.parametrize("n, m", [(50, 50), (50, 73), (73, 50), (1, 40), (60, 20), (7, 1)])
def test_one_dimension_is_exact(n, m, device):
    x = torch.randn(n, 1, dtype=F64, device=device)
    y = 2 * torch.rand(m, 1, dtype=F64, device=device) - 0.3
    want = wasserstein_distance(x[:, 0].cpu(), y[:, 0].cpu())
    for a, b in ((x, y), (y, x), (x.flip(0), y)):
        got = sliced_wasserstein(a, b, 3, p=1)
        assert got.item() == pytest.approx(want, rel=1e-12)
    # any order, by brute force: repeat both to the same length
    a, b = (v[:, 0].repeat_interleave(k).sort().values for v, k in ((x, m), (y, n)))
    for p in (2, 3):
        want = (a - b).abs().pow(p).mean().item() ** (1 / p)
        assert sliced_wasserstein(x, y, 2, p=p).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("D", [2, 5])
def test_a_shift_has_a_closed_form(D, device):
    """Moved by v, every projection moves by v.u: SW_2 = |v| / sqrt(D), exactly in expectation."""
    x, v = torch.randn(100, D, dtype=F64, device=device), torch.arange(1.0, D + 1).to(device, F64)
    got = sliced_wasserstein(x, x + v, 40_000).item()
    assert got == pytest.approx(v.norm().item() / D**0.5, rel=0.02)
    assert sliced_wasserstein(x, x[torch.randperm(100)]).item() == pytest.approx(0, abs=1e-12)


def test_gaussians_of_different_scale(device):
    """W_2 between N(0, 1) and N(0, s^2) is |s - 1| in every direction."""
    x, y = torch.randn(20_000, 3, device=device), 1.7 * torch.randn(30_000, 3, device=device)
    assert sliced_wasserstein(x, y, 32).item() == pytest.approx(0.7, abs=0.02)


def test_directions_are_reproducible_and_images_are_flattened(device):
    x, y = torch.randn(2, 30, 3, 4, 4, device=device)
    one, two = (
        sliced_wasserstein(x, y, generator=torch.Generator(device).manual_seed(1)) for _ in "ab"
    )
    assert one == two > 0 and one.shape == ()
    flat = sliced_wasserstein(
        x.flatten(1), y.flatten(1), generator=torch.Generator(device).manual_seed(1)
    )
    assert one == flat and mmd(x, y).value == mmd(x.flatten(1), y.flatten(1)).value


def test_mmd_is_the_u_statistic(device):
    """By two loops, with i != j left out."""
    x, y = torch.randn(6, 2, dtype=F64, device=device), torch.randn(9, 2, dtype=F64, device=device)
    k = lambda a, b: (
        sum(math.exp(-((a - b).square().sum().item()) / (2 * h * h)) for h in (0.5, 2.0)) / 2
    )
    xx = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / 30
    yy = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / 72
    xy = sum(k(a, b) for a in x for b in y) / 54
    assert mmd(x, y, (0.5, 2.0)).value.item() == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


def test_mmd_of_gaussians_in_closed_form(device):
    """E k(x, y) for x - y ~ N(d, s^2) is (1 + s^2/h^2)^(-1/2) exp(-d^2 / (2 (h^2 + s^2)))."""
    h, shift, scale = 0.8, 0.6, 1.5

    def mean(d, var):
        return (1 + var / h**2) ** -0.5 * math.exp(-(d**2) / (2 * (h**2 + var)))

    want = mean(0, 2) + mean(0, 2 * scale**2) - 2 * mean(shift, 1 + scale**2)
    x = torch.randn(2500, 1, dtype=F64, device=device)
    y = shift + scale * torch.randn(2000, 1, dtype=F64, device=device)
    got = mmd(x, y, (h,))
    assert abs(got.value.item() - want) < 4 * got.stderr.item() < want / 2


@pytest.mark.parametrize(
    "n, m, shift", [(40, 40, 0.0), (30, 60, 0.0), (40, 40, 0.7), (60, 30, 2.0)]
)
def test_mmd_is_unbiased_and_knows_its_error(n, m, shift, device):
    """Over repeated samples: the mean at equal distributions is 0, the spread is the stated one."""
    got = [
        mmd(torch.randn(n, 2, device=device), torch.randn(m, 2, device=device) + shift, (1.0, 2.0))
        for _ in range(400)
    ]
    values = torch.stack([g.value for g in got])
    stderr = torch.stack([g.stderr for g in got]).square().mean().sqrt()
    if shift == 0:
        assert abs(values.mean()) < 4 * values.std() / 20 and (values < 0).float().mean() > 0.3
    assert 0.85 < stderr / values.std() < (1.4 if shift == 0 else 1.15)


def test_mmd_default_bandwidths_see_any_scale(device):
    x = torch.randn(300, 2, device=device)
    y = x + torch.tensor([1.2, 0.0], device=device)
    a, b = mmd(x, y), mmd(1e4 * x, 1e4 * y)
    torch.testing.assert_close(a.value, b.value, rtol=1e-2, atol=0)
    assert a.value > 5 * a.stderr
    same = mmd(x, torch.randn(200, 2, device=device))
    assert abs(same.value) < 4 * same.stderr


def test_mistakes(device):
    x = torch.randn(5, 2, device=device)
    for call, error, says in [
        (lambda: mmd(x, x[:, :1]), ValueError, r"got \(5, 2\) and \(5, 1\)"),
        (lambda: mmd(x, x[:3]), ValueError, "at least 4 samples on either side, got 5 and 3"),
        (lambda: mmd(x, x.double()), ValueError, "torch.float32 on .* and torch.float64"),
        (lambda: mmd(x * 0, x * 0), ValueError, "coincide"),
        (lambda: sliced_wasserstein(x, x[:0]), ValueError, r"and \(0, 2\)"),
        (lambda: sliced_wasserstein(x, x.long()), TypeError, "y must be floating point"),
        (lambda: sliced_wasserstein(x, x / 0), ValueError, "NaN or infinite"),
        (lambda: sliced_wasserstein(x, x, 0), ValueError, "projections must be at least 1"),
        (lambda: sliced_wasserstein(x, x, p=0.5), ValueError, "order p"),
        (lambda: sliced_wasserstein(x[:, 0], x[:, 0]), ValueError, "of one shape"),
    ]:
        with pytest.raises(error, match=says):
            call()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4])
def test_mmd_far_from_the_origin_in_float32(offset, device):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(300, 2, generator=generator) for _ in range(2))
    x, y = (x + offset).to(device), (1.1 * y + offset).to(device)
    want = mmd(x.double() - offset, y.double() - offset)
    torch.testing.assert_close(mmd(x, y).value.double(), want.value, rtol=0.02, atol=1e-6)


def test_mmd_of_fine_structure_with_points_far_away_in_float32(device):
    """A fifth of the points 1e5 times as far away as the others are wide."""
    x, y = (1e-3 * torch.randn(100, 2) for _ in range(2))
    for points in (x, y):
        points[:20] = 1e3 * points[:20] + 100
    x, y = x.to(device), (y + torch.tensor([3e-3, 0.0])).to(device)
    want = mmd(x.double(), y.double())
    assert want.value > 5 * want.stderr
    torch.testing.assert_close(mmd(x, y).value.double(), want.value, rtol=1e-3, atol=0)


@pytest.mark.filterwarnings("error")
def test_the_slope_of_mmd_by_differences(device):
    x, y = torch.randn(6, 2, dtype=F64, device=device), torch.randn(9, 2, dtype=F64, device=device)
    value = lambda x: mmd(x, y, (0.5, 2.0)).value
    assert torch.autograd.gradcheck(value, x.requires_grad_())
    slope = torch.autograd.grad(mmd(x, y).value, x)[0]  # the median stands still
    assert slope.isfinite().all() and slope.abs().max() > 0


@pytest.mark.parametrize("shift", [3.0, 300.0])
def test_a_large_order_is_the_largest_gap(shift, device):
    x = torch.tensor([[0.0], [1.0]], device=device)
    assert sliced_wasserstein(x, x + shift, p=2000.0).item() == pytest.approx(shift, rel=1e-5)
    more = torch.cat([x, x + 0.5])
    assert sliced_wasserstein(x, more + shift, p=2000.0).item() == pytest.approx(
        shift + 0.5, rel=0.01
    )
    with pytest.raises(ValueError, match="at least 1 and finite, got inf"):
        sliced_wasserstein(x, x + shift, p=math.inf)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_samples_in_half_precision_are_compared_in_float32(dtype, device):
    """In bfloat16 a third of pairs of one law were four standard errors apart."""
    x, y = (
        torch.randn(300, 2, device=device).to(dtype),
        torch.randn(200, 2, device=device).to(dtype),
    )
    torch.testing.assert_close(mmd(x, y), mmd(x.float(), y.float()), rtol=0, atol=0)
    one, two = (
        sliced_wasserstein(a, b, generator=torch.Generator(device).manual_seed(1))
        for a, b in ((x, y), (x.float(), y.float()))
    )
    assert one == two and one.dtype == torch.float32


@pytest.mark.parametrize("m", [300, 200])
def test_distances_are_the_same_under_autocast(m, device):
    """Of two sets this near, bfloat16's projections see their own rounding."""
    x, y = torch.randn(300, 2, device=device), torch.randn(m, 2, device=device)
    x, y = 100 + x, 100.1 + y
    of = lambda: (
        sliced_wasserstein(x, y, generator=torch.Generator(device).manual_seed(1)),
        *mmd(x, y),
    )
    want = of()
    with torch.autocast(device.type, torch.bfloat16):
        got = of()
    assert got == want
