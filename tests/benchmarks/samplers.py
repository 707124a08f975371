"""What a sampler's step costs outside the network, against diffusers' schedulers.

usage: python -m tests.benchmarks.samplers [name] [rounds]        (pip install diffusers)

The network returns a tensor computed beforehand, so what is left is the arithmetic of the step;
processor time, in rounds (`rounds.py`). DDPM draws noise, which costs the same in both;
the line "noise given" replaces it in ours and theirs by a tensor. `simulate` is our loop with its
check for finite states, the same step. Nothing here is an assertion.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
)
from diffusers.schedulers import scheduling_ddpm

from lib.diffusion import Chain, Denoiser, ancestral, dpm_solver_multi, heun, simulate

from .rounds import Row, measure, row, show

SHAPES = {(1024, 2): 300, (64, 3, 32, 32): 30}


def several(run: Callable[[], object], repeats: int) -> None:
    for _ in range(repeats):
        run()


def peers(cls, steps: int, **config):
    scheduler = cls(num_train_timesteps=1000, beta_schedule="linear", **config)
    scheduler.set_timesteps(steps)
    return scheduler


def cases(x: torch.Tensor) -> dict[str, tuple[Callable, Callable]]:
    """Pairs of what we and they do for one step."""
    out, spare = torch.randn_like(x), torch.randn_like(x)
    denoiser = Denoiser(lambda x, t, c: out, Chain.linear())
    ddim, times = ancestral(denoiser, eta=0.0), denoiser.schedule.times(20)
    ddpm, quiet = ancestral(denoiser), ancestral(denoiser, noise=lambda _: spare)
    two_m, trapezoid = dpm_solver_multi(denoiser), heun(denoiser)
    their_ddim = peers(DDIMScheduler, 50, clip_sample=False)
    their_ddpm = peers(DDPMScheduler, 1000, clip_sample=False)
    their_2m = peers(DPMSolverMultistepScheduler, 50, final_sigmas_type="sigma_min")
    their_heun = peers(HeunDiscreteScheduler, 28)

    def given() -> None:
        draw, scheduling_ddpm.randn_tensor = scheduling_ddpm.randn_tensor, lambda *a, **k: spare
        their_ddpm.step(out, 500, x)
        scheduling_ddpm.randn_tensor = draw

    def multistep() -> None:
        their_2m._step_index = 20
        their_2m.step(out, their_2m.timesteps[20], x)

    def both_halves() -> None:
        their_heun._step_index, their_heun.dt = 20, None
        for k in (20, 21):
            t = their_heun.timesteps[k]
            their_heun.scale_model_input(x, t)
            their_heun.step(out, t, x)

    state, clock = [x], [0.5, 0.48]

    def our_multistep() -> None:  # there and back, so that it finds its last state and time again
        state[0] = two_m(state[0], *clock)
        clock.reverse()

    multistep(), multistep(), our_multistep()  # both know two states now
    return {
        "DDIM": (lambda: ddim(x, 0.5, 0.48), lambda: their_ddim.step(out, 500, x)),
        "DDIM, 20 of simulate": (
            lambda: list(simulate(ddim, x, times)),
            lambda: [their_ddim.step(out, 500, x) for _ in times[1:]],
        ),
        "DDPM": (lambda: ddpm(x, 0.5, 0.499), lambda: their_ddpm.step(out, 500, x)),
        "DDPM, noise given": (lambda: quiet(x, 0.5, 0.499), given),
        "DPM-Solver++(2M)": (our_multistep, multistep),
        "Heun": (lambda: trapezoid(x, 0.5, 0.48), both_halves),
    }


@torch.no_grad()
def rows(only: str = "", rounds: int = 15) -> Iterator[Row]:
    """Every comparison whose sampler's name contains `only`."""
    torch.manual_seed(0)
    for shape, repeats in SHAPES.items():
        for name, (ours, theirs) in cases(torch.randn(shape)).items():
            if only.lower() in name.lower():
                runs = {"ours": partial(several, ours, repeats)}
                runs["diffusers"] = partial(several, theirs, repeats)
                times = measure(runs, rounds, "processor")
                a, b = ([s / repeats for s in seconds] for seconds in times.values())
                about = ("samplers", " x ".join(map(str, shape)), name)
                yield row(about, "diffusers", a, b, "processor")


def main(only: str = "", rounds: int = 15) -> None:
    torch.set_num_threads(1)
    show(rows(only, rounds))


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
