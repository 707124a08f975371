"""Diffusion models: read `schedule.py`, `denoiser.py`, then `samplers.py`; `score.py` for where the
score comes from, `guidance.py` for conditions."""

from lib.diffusion.denoiser import (
    BaseDenoiser,
    Clipped,
    Denoiser,
    Diffusion,
    ExactDenoiser,
    denoising_loss,
)
from lib.diffusion.exponential import dpm_solver, dpm_solver_multi, heun
from lib.diffusion.guidance import ClassifierGuided, Guided, LinearInverse
from lib.diffusion.samplers import ancestral, corrected, euler_maruyama, ode_field, simulate
from lib.diffusion.schedule import VE, VP, Chain, Cosine, Schedule, SubVP

__all__ = [
    "VE",
    "VP",
    "BaseDenoiser",
    "Chain",
    "ClassifierGuided",
    "Clipped",
    "Cosine",
    "Denoiser",
    "Diffusion",
    "ExactDenoiser",
    "Guided",
    "LinearInverse",
    "Schedule",
    "SubVP",
    "ancestral",
    "corrected",
    "denoising_loss",
    "dpm_solver",
    "dpm_solver_multi",
    "euler_maruyama",
    "heun",
    "ode_field",
    "simulate",
]
