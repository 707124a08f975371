"""Training reaches the entropy of what made the data, and samples agree with the density."""

import math

import pytest
import torch

from lib.flows import Affine, Compose, Flow, LULinear, Monotone, Rotation, StandardNormal, Uniform
from lib.flows.integrator import ode_log_prob

MIXTURE = torch.distributions.MixtureSameFamily(
    torch.distributions.Categorical(torch.tensor([0.4, 0.6])),
    torch.distributions.Normal(torch.tensor([-2.0, 1.5]), torch.tensor([0.3, 0.5])),
)


def train(flow, x, steps, lr):
    opt = torch.optim.Adam(flow.parameters(), lr)
    for step in range(steps):
        opt.param_groups[0]["lr"] = lr * (1 - step / steps)
        opt.zero_grad()
        flow(x).mean().backward()
        opt.step()
    return flow(x).mean().item()


def test_a_linear_flow_reaches_the_gaussian_maximum_likelihood(device):
    """The fitted Gaussian's entropy, (D log(2 pi e) + log det cov) / 2, on the sample itself."""
    x = torch.randn(400, 3, device=device) @ torch.tensor(
        [[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-1.0, 2.0, 0.3]], device=device
    )
    want = 0.5 * (3 * math.log(2 * math.pi * math.e) + torch.cov(x.T, correction=0).logdet())
    flow = Flow(Compose(Affine(3).to(device).init_from(x), LULinear(3)), 3).to(device)
    assert train(flow, x, 400, 0.05) == pytest.approx(want.item(), abs=1e-4)
    started = Flow(LULinear(3).to(device).init_from(x), 3)
    assert started(x).mean().item() == pytest.approx(want.item(), abs=1e-4)


def test_a_monotone_flow_reaches_the_entropy_of_a_mixture(device):
    x = MIXTURE.sample((4000, 1)).to(device)
    flow = Flow(Monotone(1).to(device).init_from(x), 1)
    train(flow, x, 250, 0.03)
    fresh = MIXTURE.sample((100_000, 1)).to(device)
    with torch.no_grad():
        gap = MIXTURE.log_prob(fresh[:, 0].cpu()) - flow.log_prob(fresh).cpu()  # its mean is a KL
    assert -4 * gap.std() / len(gap) ** 0.5 < gap.mean() < 0.02
    samples, error = flow.sample(20_000), fresh.std() / len(x) ** 0.5  # of what it has learnt from
    assert abs(samples.mean() - fresh.mean()) < 4 * error
    assert abs(samples.std() - fresh.std()) < 4 * error


def test_rotations_and_monotone_maps_beat_the_best_gaussian_in_two_dimensions(device):
    angle = math.pi * torch.rand(2000, device=device)
    x = 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.2 * torch.randn(2000, 2, device=device)
    gaussian = Flow(LULinear(2).to(device).init_from(x), 2)(x).mean().item()
    parts = [p for _ in range(4) for p in (Rotation(2), Monotone(2, units=4))]
    flow = Flow(Compose(Affine(2).to(device).init_from(x), *parts), 2).to(device)
    assert train(flow, x, 150, 0.02) < gaussian - 0.4


def test_log_prob_of_samples_is_their_log_prob(device):
    flow = Flow(Compose(Rotation(2), Monotone(2), LULinear(2)), 2).to(device, torch.float64)
    x, log_prob = flow.sample_with_log_prob(50)
    torch.testing.assert_close(flow.log_prob(x), log_prob)
    (x.sum() + log_prob.sum()).backward()  # reparameterised: a reverse KL can be trained
    assert all(p.grad is not None for p in flow.parameters())
    assert not flow.sample(3).requires_grad


def test_reverse_kl_of_the_right_flow_is_zero(device):
    """log q - log p is zero for every sample where q = p: a wrong sign shows at once."""
    flow = Flow(Affine(2), 2).to(device, torch.float64)
    with torch.no_grad():
        flow.transform.log_scale.copy_(torch.tensor([0.4, -0.7]))
        flow.transform.shift.copy_(torch.tensor([1.0, 2.0]))
    x, log_q = flow.sample_with_log_prob(100)
    target = torch.distributions.Normal(
        flow.transform.shift.detach(), flow.transform.log_scale.detach().exp()
    )
    torch.testing.assert_close(log_q, target.log_prob(x).sum(1))


def test_sampling_is_reproducible_and_takes_noise(device):
    flow = Flow(LULinear(2), 2).to(device)
    one, two = (flow.sample(5, generator=torch.Generator(device).manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    noise = torch.randn(5, 2, device=device)
    torch.testing.assert_close(
        flow.sample(5, noise=noise), flow.transform.from_base(noise)[0].detach()
    )
    assert torch.is_grad_enabled()


def test_uniform_base(device):
    """x = 2 z + 1 of a uniform z has density 1/2 on (1, 3) and 0 elsewhere."""
    flow = Flow(Affine(1), 1, base=Uniform()).to(device)
    with torch.no_grad():
        flow.transform.log_scale.fill_(math.log(2))
        flow.transform.shift.fill_(1.0)
    x = torch.tensor([[0.9], [1.1], [2.9], [3.1]], device=device)
    want = torch.tensor([0.0, 0.5, 0.5, 0.0], device=device)
    torch.testing.assert_close(flow.log_prob(x).exp(), want)
    samples = flow.sample(1000)
    assert samples.min() >= 1 and samples.max() <= 3


def test_a_base_that_does_not_sum_is_refused(device):
    """(3, 1) and a determinant for each of the three would make nine numbers."""

    class Each(StandardNormal):
        def log_prob(self, z):
            return -0.5 * z.square()

    flow = Flow(Affine(1), 1, base=Each()).to(device)
    x = torch.zeros(3, 1, device=device)
    for run in (lambda: flow.log_prob(x), lambda: flow.sample_with_log_prob(3, noise=x)):
        with pytest.raises(ValueError, match=r"Each.*shape \(3,\).*got \(3, 1\)"):
            run()
    with pytest.raises(ValueError, match=r"base_log_prob.*shape \(3,\).*got \(3, 1\)"):
        ode_log_prob(lambda t, x: -x, x, flow.base.log_prob)


def test_mistakes(device):
    flow = Flow(Affine(2), 2).to(device)
    x = torch.zeros(4, 2, device=device)
    x[1, 1] = math.nan
    for run, error, says in [
        (lambda: flow.log_prob(x), ValueError, "1 of 8 values that are NaN or infinite"),
        (lambda: flow(x[:, :1]), ValueError, r"Flow expected shape \(B, 2\), got \(4, 1\)"),
        (lambda: flow.log_prob(x.long()), TypeError, "must be floating point"),
        (lambda: flow.log_prob(x.double()), TypeError, "input is torch.float64"),
        (lambda: flow.log_prob(x.to("meta")), ValueError, "its input on meta"),
        (lambda: flow.sample(2, x[:2]), ValueError, "takes no context"),
        (lambda: flow.sample(2, noise=x), ValueError, "asked for 2 samples"),
        (lambda: flow.sample(0), ValueError, "n must be at least 1"),
    ]:
        with pytest.raises(error, match=says):
            run()
