"""Latent variable models: read `elbo.py` (the bound), then `linear.py` (where it is exact)."""

from lib.vae.elbo import (
    Elbo,
    draw,
    effective_sample_size,
    elbo_normal,
    importance_bound,
    importance_stderr,
    kl_full,
    kl_normal,
    log_weights,
    normal_log_prob,
)
from lib.vae.linear import LinearGaussian

__all__ = [
    "Elbo",
    "LinearGaussian",
    "draw",
    "effective_sample_size",
    "elbo_normal",
    "importance_bound",
    "importance_stderr",
    "kl_full",
    "kl_normal",
    "log_weights",
    "normal_log_prob",
]
