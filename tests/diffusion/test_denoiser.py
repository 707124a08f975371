"""Denoisers: one guess in four costumes, exact answers, losses whose minimum is known."""

import math

import pytest
import torch
from torch import nn

from lib.data.densities import GaussianMixture, anisotropic_gaussians
from lib.diffusion import (
    VE,
    VP,
    BaseDenoiser,
    Clipped,
    Cosine,
    Denoiser,
    Diffusion,
    ExactDenoiser,
    Guided,
    SubVP,
    ancestral,
    denoising_loss,
    dpm_solver,
    dpm_solver_multi,
    euler_maruyama,
    heun,
    simulate,
)
from lib.diffusion.denoiser import draw_times

F64 = torch.float64
SCHEDULES = [VP(), SubVP(), VE(0.05, 9.0), Cosine()]
NAMES = [type(s).__name__ for s in SCHEDULES]
MIX = anisotropic_gaussians()


def costumes(schedule, t):
    """Three networks that say the same in their own units, made from the exact answer."""
    exact = ExactDenoiser(MIX, schedule)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    norm = (alpha**2 + sigma**2) ** 0.5

    def network(output):
        def net(x, times, context):
            x_hat, eps_hat = exact.split(x * norm, t)  # the network's input is scaled
            return output(x_hat, eps_hat)

        return net

    return {
        "eps": network(lambda x, e: e),
        "x": network(lambda x, e: x),
        "v": network(lambda x, e: (alpha * e - sigma * x) / norm),
    }


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
@pytest.mark.parametrize("t", [0.06, 0.45, 0.93])
def test_one_network_in_several_costumes(schedule, t):
    x_t, exact = 1.4 * torch.randn(6, 2, dtype=F64), ExactDenoiser(MIX, schedule)
    want = exact.split(x_t, t)
    score = MIX.noised(schedule.alpha(t), schedule.sigma(t)).score(x_t)
    for predict, net in costumes(schedule, t).items():
        denoiser = Denoiser(net, schedule, predict)
        x_hat, eps_hat = denoiser.split(x_t, t)
        torch.testing.assert_close(x_hat, want[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(eps_hat, want[1], rtol=1e-9, atol=1e-9)
        together = schedule.alpha(t) * x_hat + schedule.sigma(t) * eps_hat
        torch.testing.assert_close(together, x_t, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(denoiser.score(x_t, t), score, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(denoiser(x_t, t), x_hat)
        torch.testing.assert_close(denoiser.eps(x_t, t), eps_hat)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
def test_the_exact_denoiser_is_the_posterior_mean(schedule):
    """E[x_0 | x_t] by quadrature over x_0 in 1-D."""
    mixture = GaussianMixture([0.3, 0.7], [[-1.1], [0.8]], [[[0.05]], [[0.2]]])
    t, grid = 0.31, torch.linspace(-8, 8, 40_001, dtype=F64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t = torch.tensor([-1.3, 0.2, 0.9], dtype=F64)
    log = mixture.log_prob(grid[:, None]) - (x_t[:, None] - alpha * grid) ** 2 / (2 * sigma**2)
    want = log.softmax(1) @ grid
    got = ExactDenoiser(mixture, schedule)(x_t[:, None], t)[:, 0]
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-8)


def test_exact_denoiser_of_a_class():
    x_t = torch.randn(5, 2, dtype=F64)
    k = torch.tensor([0, 2, 1, 1, 0])
    got = ExactDenoiser(MIX, VP())(x_t, 0.4, k)
    for i in range(5):
        alone = ExactDenoiser(MIX.component(int(k[i])), VP())(x_t[i : i + 1], 0.4)
        torch.testing.assert_close(got[i : i + 1], alone)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
def test_float_and_tensor_times_agree(schedule, device):
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).double().to(device)
    x_t, t = torch.randn(4, 2, dtype=F64, device=device), 0.37
    for denoiser in (
        Denoiser(lambda x, t, c: net(torch.cat([x, t[:, None]], 1)), schedule, "v"),
        ExactDenoiser(MIX, schedule),
    ):
        want = denoiser.split(x_t, t)
        for times in (torch.tensor(t, dtype=F64), torch.full((4,), t, dtype=F64)):
            got = denoiser.split(x_t, times.to(device))
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
            score = denoiser.score(x_t, times.to(device))
            torch.testing.assert_close(score, denoiser.score(x_t, t), rtol=1e-10, atol=1e-10)
        images = x_t.view(4, 1, 2, 1)
        assert denoiser.scales(images, torch.rand(4, device=device))[0].shape == (4, 1, 1, 1)


def test_clipped_keeps_both_guesses_in_agreement():
    x_t, t, schedule = 3 * torch.randn(50, 2, dtype=F64), 0.5, VP()
    inner = ExactDenoiser(MIX, schedule)
    clipped = Clipped(inner, -0.7, 0.9)
    x_hat, eps_hat = clipped.split(x_t, t)
    torch.testing.assert_close(x_hat, inner(x_t, t).clamp(-0.7, 0.9))
    torch.testing.assert_close(schedule.alpha(t) * x_hat + schedule.sigma(t) * eps_hat, x_t)
    assert ((x_hat == 0.9) | (x_hat == -0.7)).any()
    wide = Clipped(inner, -100, 100).split(x_t, t)
    torch.testing.assert_close(wide, inner.split(x_t, t))


def test_stratified_times_are_uniform():
    t = torch.cat([draw_times(64, 0.1, torch.zeros(1, dtype=F64)) for _ in range(200)])
    assert 0.1 < t.min()
    assert t.max() <= 1
    one = draw_times(64, 0.0, torch.zeros(1, dtype=F64))
    assert torch.histc(one, 64, 0, 1).max() <= 2  # one in each 64-th, up to its edges
    assert abs(t.mean() - 0.55) < 4 * (0.9**2 / 12 / len(t)) ** 0.5
    assert abs(t.var() - 0.9**2 / 12) < 0.003


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_times_in_any_precision_fill_all_parts(dtype, device):
    t = draw_times(512, 0.0, torch.zeros(1, dtype=dtype, device=device))
    hit = ((1 - t.double()) * 512).floor().unique()
    assert len(hit) >= 510  # rounding may move one over an edge


@pytest.mark.parametrize("schedule", SCHEDULES, ids=NAMES)
def test_weights_are_one_error_in_different_units(schedule):
    """eps, x, v and elbo of a wrong denoiser, by hand at the times that are drawn."""
    x = MIX.sample(16).double()
    t_min = 0.05

    def net(x, t, c):
        return 0.3 * x + t[:, None]

    denoiser = Denoiser(net, schedule, "x")
    for weight in ("eps", "x", "v", "elbo"):
        torch.manual_seed(3)
        got = denoising_loss(denoiser, x, weight=weight, t_min=t_min)
        torch.manual_seed(3)
        t = draw_times(16, t_min, x)
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        eps = torch.randn_like(x)
        x_hat = denoiser(alpha * x + sigma * eps, t)
        error = (x - x_hat).square().sum(1)
        snr = (alpha / sigma).square()[:, 0]
        want = {
            "eps": snr * error / 2,
            "x": error / 2,
            "v": (1 + snr) * error / 2,
            "elbo": -0.5 * schedule.log_snr_rate(t) * snr * error * (1 - t_min),
        }[weight]
        if weight == "v":  # the error of v is sqrt(alpha^2 + sigma^2) / sigma that of x
            want = (alpha**2 + sigma**2)[:, 0] / sigma[:, 0] ** 2 * error / 2
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_the_exact_denoiser_has_the_least_loss():
    """Any deviation adds its own square: E|x - d|^2 = E|x - x_hat|^2 + E|x_hat - d|^2."""
    x, schedule = MIX.sample(20_000).double(), VP()
    exact = ExactDenoiser(MIX, schedule)

    class Off(BaseDenoiser):
        def __init__(self):
            super().__init__()
            self.schedule = schedule

        def split(self, x_t, t, context=None):
            x_hat = exact(x_t, t) + 0.3
            alpha, sigma = self.scales(x_t, t)
            return x_hat, (x_t - alpha * x_hat) / sigma

    losses = []
    for denoiser in (exact, Off()):
        torch.manual_seed(2)
        losses.append(denoising_loss(denoiser, x, weight="x"))
    diff = losses[1] - losses[0]
    assert abs(diff.mean() - 0.09) < 4 * diff.std() / len(x) ** 0.5 < 0.02


def test_the_model_trains_drops_labels_and_samples(device):
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x, t, context):
            seen.append(context)
            return self.linear(x)

    model = Diffusion(Denoiser(Net(), VP(), "v"), 2, drop=0.5, null=7).to(device)
    x, labels = (
        torch.randn(400, 2, device=device),
        torch.zeros(400, dtype=torch.int64, device=device),
    )
    loss = model(x, labels)
    assert loss.shape == (400,)
    loss.mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    dropped = (seen[-1] == 7).float().mean().item()
    assert abs(dropped - 0.5) < 4 * 0.5 / 20
    model.eval()
    model(x, labels)
    assert (seen[-1] == 0).all()
    samples = model.sample(5, labels[:5], steps=4)
    assert samples.shape == (5, 2)
    assert samples.isfinite().all()
    assert samples.device.type == device.type
    start = torch.randn(5, 2, device=device)
    ddim = ancestral(model.denoiser, labels[:5], eta=0.0)
    twice = [model.sample(5, labels[:5], steps=4, start=start, step=ddim) for _ in range(2)]
    assert torch.equal(*twice)


def test_a_sample_is_the_guess_at_the_last_time():
    """After the last step stands the denoiser itself, at the time that the steps have reached."""
    seen = []

    class Net(nn.Linear):
        def forward(self, x, t, context):
            seen.append(t)
            return super().forward(x)

    model = Diffusion(Denoiser(Net(2, 2), VP(), "x"), 2, t_min=0.03)
    equal = model.denoiser.schedule.times(4, 0.03)
    for steps, want in ((4, equal), ([0.9, 0.5, 0.07], [0.9, 0.5, 0.07])):
        seen.clear()
        model.sample(1, steps=steps)
        times = [float(torch.as_tensor(t).flatten()[0]) for t in seen]
        assert times == pytest.approx(want)
    assert equal[-1] == 0.03


def test_a_model_without_parameters_samples():
    torch.manual_seed(0)
    x = Diffusion(ExactDenoiser(MIX, VP()), 2).sample(500, steps=20)
    assert x.dtype == torch.float32 and x.shape == (500, 2)
    mean, cov = MIX.moments()
    assert ((x.mean(0) - mean).abs() < 5 * (cov.diagonal() / 500).sqrt() + 0.1).all()


def test_samples_along_given_times():
    """A number of steps is short for its times; noise has the size of the first time given."""
    model = Diffusion(ExactDenoiser(MIX, VE(0.01, 30.0)), 2, t_min=0.02)
    start, schedule = torch.randn(6, 2, dtype=F64), model.denoiser.schedule
    torch.manual_seed(3)
    want = model.sample(6, steps=5, start=start)
    torch.manual_seed(3)
    assert torch.equal(model.sample(6, steps=schedule.times(5, 0.02), start=start), want)
    still = model.sample(6, steps=(0.7, 0.4), start=start, step=lambda x, t, s: x)
    torch.testing.assert_close(still, model.denoiser(start * schedule.sigma(0.7), 0.4))


def test_samples_of_the_exact_denoiser_have_the_data_s_moments():
    """The whole path from noise to data, with unit-variance noise scaled by the model."""
    for schedule in (VP(), VE(0.01, 30.0)):
        model = Diffusion(ExactDenoiser(MIX, schedule), 2)
        model.register_parameter("where", nn.Parameter(torch.zeros(1, dtype=F64)))
        x = model.sample(20_000, steps=200)
        mean, cov = MIX.moments()
        error = (cov.diagonal() / len(x)).sqrt()
        assert ((x.mean(0) - mean).abs() < 5 * error + 0.01).all()
        torch.testing.assert_close(x.T.cov(), cov, rtol=0.05, atol=0.05)


X = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Denoiser(nn.Identity(), VP(), "noise"), '"eps", "x" or "v"'),
        (lambda: ExactDenoiser(MIX, VP())(torch.zeros(3, 2), torch.zeros(2)), "each of the 3"),
        (
            lambda: denoising_loss(ExactDenoiser(MIX, VP()), torch.zeros(3, 2), weight="snr"),
            "weight",
        ),
        (lambda: ExactDenoiser(MIX, VP())(X, 0.5, torch.tensor([1])), "for each of 3 rows"),
        (lambda: ExactDenoiser(MIX, VP())(X, 0.5, torch.tensor([0, -1, 0])), "components go from"),
        (lambda: ExactDenoiser(MIX, VP())(X, 0.5, torch.tensor([0, 9, 0])), "components go from"),
        (lambda: Diffusion(ExactDenoiser(MIX, VP()), 2, drop=0.1), "needs `null`"),
        (lambda: Diffusion(ExactDenoiser(MIX, VP()), 2, drop=1.5, null=0), "share in"),
        (lambda: Diffusion(ExactDenoiser(MIX, VP()), 2)(torch.zeros(3, 4)), r"\(B, 2\)"),
        *[
            (
                lambda s=s: Diffusion(ExactDenoiser(MIX, VP()), 2).sample(3, start=torch.zeros(s)),
                r"start must have shape \(3, 2\)",
            )
            for s in ((5, 2), (3, 1), (1, 2), (3, 2, 1))
        ],
        *[
            (make, r"t_min is a time in \[0, 1\)")
            for t_min in (-1e-3, 1.0, 10, math.nan)
            for make in (
                lambda t_min=t_min: Diffusion(ExactDenoiser(MIX, VP()), 2, t_min=t_min),
                lambda t_min=t_min: denoising_loss(ExactDenoiser(MIX, VP()), X, t_min=t_min),
            )
        ],
        *[
            (lambda ts=ts: Diffusion(ExactDenoiser(MIX, VP()), 2).sample(3, None, ts, None, X), say)
            for ts, say in (
                ([], "fall"),
                ([0.2, 0.8], "fall"),
                ([0.5], "two times"),
                (2.5, "2.5"),
                ([1000, 750, 500, 250, 1], "k / T"),
            )
        ],
    ],
)
def test_mistakes_are_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_denoiser_must_split():
    with pytest.raises(NotImplementedError, match="BaseDenoiser must define split"):
        BaseDenoiser()(torch.zeros(1, 2), 0.5)
    with pytest.raises(TypeError, match="floating point"):
        denoising_loss(ExactDenoiser(MIX, VP()), torch.zeros(3, 2, dtype=torch.int64))
    assert math.isfinite(ExactDenoiser(MIX, VP()).score(torch.zeros(1, 2), 0.5).sum())


@pytest.mark.parametrize("predict", ["eps", "x", "v"])
def test_a_sampler_s_state_keeps_its_precision_under_autocast(predict, device):
    """Whatever stands around the network, whose answer is bfloat16."""
    denoiser = Denoiser(lambda x, t, c: x @ torch.eye(2, device=x.device), VP(), predict)
    context = torch.zeros(3, 1, device=device)
    x = torch.randn(3, 2, device=device)
    for model in (denoiser, Clipped(denoiser), Guided(denoiser, 2.0, null=0)):
        for make in (ancestral, heun, dpm_solver, dpm_solver_multi, euler_maruyama):
            with torch.autocast(device.type, torch.bfloat16):
                states = list(simulate(make(model, context), x, VP().times(3)))
            assert {s.dtype for s in states} == {torch.float32}, (make, model)
