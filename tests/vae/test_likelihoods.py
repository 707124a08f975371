"""The families p(x | z) against sums over all levels, quadrature, torch.distributions, samples."""

import itertools
import math

import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Normal

from lib.vae.likelihoods import Bernoulli, Categorical, DiscretisedLogistic, Gaussian

F64 = torch.float64
DISCRETE = {
    "bernoulli": (Bernoulli(), 2),
    "categorical": (Categorical(17), 17),
    "logistic": (DiscretisedLogistic(17), 17),
    "logistic 2": (DiscretisedLogistic(2), 2),
    "mixture": (DiscretisedLogistic(17, 3), 17),
    "logistic 256": (DiscretisedLogistic(256), 256),
}


def loud(likelihood, *shape, dtype=F64, device="cpu", scale=3.0):
    """Parameters of examples (B, C, ...), large enough that every part of the formula matters."""
    B, C, *rest = shape
    return scale * torch.randn(B, likelihood.channels * C, *rest, dtype=dtype, device=device)


@pytest.mark.parametrize("name", DISCRETE)
def test_probabilities_of_all_levels_sum_to_one(name, device):
    likelihood, n = DISCRETE[name]
    params = loud(likelihood, 9, 1, device=device)
    x = torch.arange(n, dtype=F64, device=device)
    log_p = torch.stack([likelihood.log_prob(k.expand(9, 1), params) for k in x])
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones_like(log_p[0]), rtol=1e-12, atol=0)
    mean = (log_p.exp() * x[:, None]).sum(0)
    torch.testing.assert_close(likelihood.mean(params)[:, 0], mean)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", DISCRETE)
def test_probabilities_sum_to_one_where_a_decoder_gave_half_precision(name, dtype, device):
    """As autocast does: the parameters are coarse, and what is computed from them need not be."""
    likelihood, n = DISCRETE[name]
    params = loud(likelihood, 9, 1, device=device).to(dtype)
    x = torch.arange(n, dtype=torch.float32, device=device)
    log_p = torch.stack([likelihood.log_prob(k.expand(9, 1), params) for k in x])
    assert log_p.dtype == torch.float32
    want = torch.stack([likelihood.log_prob(k.expand(9, 1), params.double()) for k in x.double()])
    torch.testing.assert_close(log_p.double(), want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones_like(log_p[0]), rtol=1e-4, atol=0)


def test_joint_over_pixels_sums_to_one_in_the_right_layout(device):
    """Two channels and two pixels: all 3^4 images; each pixel must read its own parameters."""
    for likelihood in (Categorical(3), DiscretisedLogistic(3), DiscretisedLogistic(3, 2)):
        params = loud(likelihood, 1, 2, 1, 2, device=device)
        images = torch.tensor(list(itertools.product(range(3), repeat=4)), dtype=F64, device=device)
        log_p = likelihood.log_prob(images.view(-1, 2, 1, 2), params.expand(81, *params.shape[1:]))
        assert log_p.exp().sum().item() == pytest.approx(1, rel=1e-12)
        split = params.view(likelihood.channels, 4)  # channels of one pixel, pixels in order
        x = images[50].view(1, 2, 1, 2)
        one_by_one = [
            likelihood.log_prob(x.reshape(1, 4)[:, i : i + 1], split[None, :, i]) for i in range(4)
        ]
        torch.testing.assert_close(sum(one_by_one), log_p[50:51])


def test_bernoulli_and_categorical_against_torch(device):
    params = loud(Bernoulli(), 5, 3, 4, device=device)
    x = torch.randint(2, (5, 3, 4), dtype=F64, device=device)
    want = TorchBernoulli(logits=params).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(Bernoulli().log_prob(x, params), want)
    sure = torch.tensor([[800.0, -800.0]])
    assert Bernoulli().log_prob(torch.tensor([[1.0, 0.0]]), sure).item() == 0
    assert Bernoulli().log_prob(torch.tensor([[0.0, 0.0]]), sure).item() == -800
    params = loud(Categorical(17), 5, 2, device=device)
    x = torch.randint(17, (5, 2), dtype=F64, device=device)
    table = params.view(5, 17, 2).log_softmax(1)
    want = sum(table[range(5), x[:, i].long(), i] for i in range(2))
    torch.testing.assert_close(Categorical(17).log_prob(x, params), want)


@pytest.mark.parametrize("std", [0.3, "shared", "pixel"])
def test_gaussian_integrates_to_one(std, device):
    likelihood = Gaussian(std, floor=0.05).to(device, F64)
    if std == "shared":
        likelihood.raw.data.fill_(-0.7)
    params = loud(likelihood, 4, 1, device=device, scale=1.0)
    x = torch.linspace(-60, 60, 240_001, dtype=F64, device=device)
    for row in params:
        p = likelihood.log_prob(x[:, None], row.expand(len(x), -1)).exp()
        assert torch.trapezoid(p, x).item() == pytest.approx(1, abs=1e-8)
        assert torch.trapezoid(p * x, x).item() == pytest.approx(row[0].item(), abs=1e-7)
        var = torch.trapezoid(p * (x - row[0]) ** 2, x).item()
        want = likelihood.log_std(likelihood.split(row[None])).exp().square().item()
        assert var == pytest.approx(want, abs=1e-6)
    x = torch.randn(4, 1, dtype=F64, device=device)
    log_std = likelihood.log_std(likelihood.split(params)).expand_as(x)
    want = Normal(params[:, :1], log_std.exp()).log_prob(x)[:, 0]
    torch.testing.assert_close(likelihood.log_prob(x, params), want)


def test_the_always_black_pixel():
    """Without a floor its log-density has no bound; with one it is at most -log(floor) - 0.92."""
    x = torch.zeros(1, 1)
    raws = [2.0, -1.0, -5.0, -20.5, -80.0]  # e^-80: near the end of float32
    log_p = [Gaussian("pixel", floor=0).log_prob(x, torch.tensor([[0.0, r]])).item() for r in raws]
    assert log_p[-1] == pytest.approx(80 - 0.919, abs=0.01) and log_p == sorted(log_p)
    assert log_p[0] == pytest.approx(-math.log(math.log1p(math.exp(2))) - 0.919, abs=1e-3)
    bound = -math.log(0.1) - 0.5 * math.log(2 * math.pi)
    floored = Gaussian("pixel", floor=0.1).log_prob(x, torch.tensor([[0.0, -5000.0]]))
    assert floored.item() == pytest.approx(bound, abs=1e-5)
    params = torch.tensor([[0.0, -50.0]], requires_grad=True)
    Gaussian("pixel", floor=0).log_prob(x, params).sum().backward()
    torch.testing.assert_close(params.grad, torch.tensor([[0.0, -1.0]]))


def test_logistic_is_exact_far_out_where_a_difference_of_sigmoids_is_zero():
    """k = 200 with the mean at 0: the plain difference is 0 - 0; the tail is exp(-distance/scale)."""
    likelihood, n = DiscretisedLogistic(256), 256
    params = torch.tensor([[-1.0, 0.0]])  # mean: level 0, scale n / 8 = 32
    x = torch.tensor([[200.0]])
    a, b = torch.tensor([199.5, 200.5], dtype=F64) / 32
    want = (torch.sigmoid(b) - torch.sigmoid(a)).log().item()
    assert likelihood.log_prob(x, params).item() == pytest.approx(want, rel=1e-5)
    sharp = torch.tensor([[-1.0, -40.0]], requires_grad=True)  # scale 0.03
    log_p = likelihood.log_prob(x, sharp)
    scale = n / 8 * math.exp(-7)
    assert log_p.item() == pytest.approx(-199.5 / scale, rel=1e-3)  # exp of it is 0
    log_p.sum().backward()
    assert sharp.grad.isfinite().all() and sharp.grad[0, 0] > 0


@pytest.mark.parametrize("name", [*DISCRETE, "gaussian"])
def test_samples_have_the_probabilities(name, device):
    likelihood, n = DISCRETE.get(name, (Gaussian("pixel"), 0))
    N = 20_000
    params = loud(likelihood, 1, 2, device=device, scale=0.7)
    x = likelihood.sample(params.expand(N, -1), torch.Generator(device).manual_seed(3))
    assert x.shape == (N, 2) and x.dtype == F64
    likelihood.check(x)
    error = x.std(0) / N**0.5
    assert ((x.mean(0) - likelihood.mean(params)[0]).abs() < 4 * error).all()
    # E[-log p(x)] of the samples is the entropy: compare with the sum over levels
    if 0 < n <= 17:
        levels = torch.arange(n, dtype=F64, device=device)
        one = params.view(likelihood.channels, 2)[None, :, 0]
        p = likelihood.log_prob(levels[:, None], one.expand(n, -1)).exp()
        share = torch.bincount(x[:, 0].long(), minlength=n) / N
        assert ((share - p).abs() < 4.5 * (p * (1 - p) / N).sqrt() + 1e-4).all()


@pytest.mark.parametrize(
    ("likelihood", "params", "want"),
    [
        (Bernoulli(), [-7.0], 0.00091),
        (Categorical(256), [0.0] * 256, 127.5),
    ],
)
def test_draws_for_bfloat16_are_as_fine_as_those_for_float32(likelihood, params, want, device):
    """256 uniforms, all that bfloat16 knows, would favour the first level and give 0.003 for 0.001."""
    N = 100_000
    params = torch.tensor(params, dtype=torch.bfloat16, device=device).expand(N, -1)
    x = likelihood.sample(params, torch.Generator(device).manual_seed(0))
    assert x.dtype == torch.bfloat16
    error = x.double().std().item() / N**0.5
    assert abs(x.double().mean().item() - want) < 4 * error + 1e-5


@pytest.mark.parametrize("name", [*DISCRETE, "gaussian"])
@pytest.mark.parametrize("B", [0, 1])
def test_small_batches_and_float32(name, B, device):
    likelihood, n = DISCRETE.get(name, (Gaussian("pixel"), 2))
    params = loud(likelihood, B, 1, 4, 4, dtype=torch.float32, device=device)
    x = torch.randint(n, (B, 1, 4, 4), device=device).float()
    log_p = likelihood.log_prob(x, params)
    assert log_p.shape == (B,) and log_p.dtype == torch.float32 and log_p.device.type == device.type
    torch.testing.assert_close(
        log_p.double(), likelihood.log_prob(x.double(), params.double()), rtol=1e-4, atol=1e-4
    )
    assert likelihood.mean(params).shape == likelihood.sample(params).shape == x.shape


def test_errors_are_one_sentence():
    with pytest.raises(ValueError, match=r"needs 17 numbers for each value of x.*got \(2, 5\)"):
        Categorical(17).log_prob(torch.zeros(2, 1), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"parameters for x of shape \(2, 3\), and x of shape"):
        Bernoulli().log_prob(torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="whole levels from 0 to 16.*from 0 to 17"):
        Categorical(17).check(torch.tensor([[0.0, 17.0]]))
    with pytest.raises(ValueError, match="whole levels from 0 to 1"):
        Bernoulli().check(torch.tensor([[0.5]]))
    with pytest.raises(TypeError, match="floating point"):
        Bernoulli().check(torch.tensor([[1]]))
    for make in (
        lambda: Gaussian("both"),
        lambda: Gaussian(-1.0),
        lambda: Gaussian(floor=-0.1),
        lambda: DiscretisedLogistic(1),
        lambda: DiscretisedLogistic(17, 0),
        lambda: Categorical(1),
    ):
        with pytest.raises(ValueError, match="got|must"):
            make()


@pytest.mark.parametrize("make", [DiscretisedLogistic, Categorical])
def test_levels_are_centred_for_the_encoder(make):
    levels = torch.arange(17.0)
    torch.testing.assert_close(make(17).centre(levels), torch.linspace(-1, 1, 17))
