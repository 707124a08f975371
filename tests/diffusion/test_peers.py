"""diffusers' schedulers as oracles: the same network and noise give the same state at every step.

Their timestep i is our t = (i + 1) / T, and the one before their first is the data, t = 0.
"""

import pytest
import torch

from lib.diffusion import (
    Chain,
    Denoiser,
    ancestral,
    dpm_solver_multi,
    heun,
    simulate,
)

diffusers = pytest.importorskip("diffusers")

T, STEPS = 1000, 20
SHAPES = [(16, 2), (2, 3, 8, 8)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=["plane", "images"])
every_prediction = pytest.mark.parametrize("predict", ["eps", "v"])
THEIRS = {"eps": "epsilon", "v": "v_prediction"}


def net(x, t, context=None):
    """Any smooth function of the state and the time will do as a network."""
    t = t.view(-1, *[1] * (x.ndim - 1))
    return torch.tanh(0.9 * x - 0.4 * t) + 0.2 * torch.sin(x.flip(1) + 2 * t)


def peer(name, predict, **config):
    """A scheduler of theirs, with alpha-bar in double precision: ten digits in place of six."""
    betas = dict(num_train_timesteps=T, beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    scheduler = getattr(diffusers, name)(**betas, prediction_type=THEIRS[predict], **config)
    scheduler.alphas_cumprod = (1 - scheduler.betas.double()).cumprod(0)
    return scheduler


def ours(scheduler, predict):
    return Denoiser(net, Chain(scheduler.betas.double().tolist()), predict)


def time(i):
    return (int(i) + 1) / T


def outputs(i, x):
    return net(x, torch.full((len(x),), time(i), dtype=x.dtype))


def walk(scheduler, x, **more):
    """Their state after each timestep."""
    states = []
    for i in scheduler.timesteps:
        x = scheduler.step(outputs(i, x), i, x, **more).prev_sample
        states.append(x)
    return states


def compare(step, x, ts, states, tol=1e-5):
    mine = list(simulate(step, x, ts))
    for k, (a, b) in enumerate(zip(mine, states, strict=True)):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol, msg=lambda m, k=k: f"step {k}: {m}")
    assert (mine[-1] - x).abs().mean() > 0.1


def same_noise(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


@every_shape
@every_prediction
@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("steps", [STEPS, T])
def test_ddpm(kind, predict, shape, steps):
    if steps == T and shape != SHAPES[0]:
        pytest.skip("the long way once")
    scheduler = peer("DDPMScheduler", predict, variance_type=kind, clip_sample=False)
    scheduler.set_timesteps(steps)
    denoiser = ours(scheduler, predict)
    step = ancestral(denoiser, large=kind == "fixed_large", noise=same_noise(7))
    x = torch.randn(shape, dtype=torch.float64)
    states = walk(scheduler, x, generator=torch.Generator().manual_seed(7))
    compare(step, x, [*map(time, scheduler.timesteps), 0.0], states, 1e-6)


@every_shape
@every_prediction
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta, predict, shape):
    scheduler = peer("DDIMScheduler", predict, clip_sample=False)
    scheduler.set_timesteps(STEPS)
    denoiser, x = ours(scheduler, predict), torch.randn(shape, dtype=torch.float64)
    states = walk(scheduler, x, eta=eta, generator=torch.Generator().manual_seed(7))
    step = ancestral(denoiser, eta=eta, noise=same_noise(7))
    compare(step, x, [*map(time, scheduler.timesteps), 0.0], states, 1e-6)


@every_shape
@every_prediction
def test_multistep(predict, shape):
    scheduler = peer(
        "DPMSolverMultistepScheduler",
        predict,
        algorithm_type="dpmsolver++",
        solver_order=2,
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    scheduler.set_timesteps(STEPS)
    denoiser, x = ours(scheduler, predict), torch.randn(shape, dtype=torch.float64)
    ts = [*map(time, scheduler.timesteps), 1 / T]  # their last sigma is that of timestep 0
    compare(dpm_solver_multi(denoiser), x, ts, walk(scheduler, x))


@every_shape
@every_prediction
def test_heun(predict, shape):
    """Their state is x / alpha, and each of their steps but the last comes in two halves."""
    scheduler = peer("HeunDiscreteScheduler", predict)
    scheduler.set_timesteps(28)  # 999 is 27 times 37: their timesteps are whole numbers
    denoiser, x = ours(scheduler, predict), torch.randn(shape, dtype=torch.float64)
    alpha = denoiser.schedule.alpha
    theirs, states = x / alpha(time(999)), []
    for k, i in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(theirs, i)
        torch.testing.assert_close(seen, theirs * alpha(time(i)), rtol=1e-5, atol=1e-6)
        theirs = scheduler.step(outputs(i, seen), i, theirs).prev_sample
        if k % 2 or k == len(scheduler.timesteps) - 1:
            states.append(theirs)
    whole = scheduler.timesteps[::2].tolist()
    ts = [*map(time, whole), 0.0]
    for k, mine in enumerate(simulate(heun(denoiser), x, ts)):
        torch.testing.assert_close(mine / alpha(ts[k + 1]), states[k], rtol=1e-5, atol=1e-5)
    assert k == len(states) - 1
