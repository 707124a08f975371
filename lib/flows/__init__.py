"""Normalizing flows: read `transform.py` (the contract), the maps, then `flow.py` (a model)."""

from lib.flows.autoregressive import MaskedAutoregressive, SplineAutoregressive
from lib.flows.coupling import AdditiveCoupling, AffineCoupling, SplineCoupling
from lib.flows.elementwise import Affine, Logit, Monotone
from lib.flows.flow import Flow, StandardNormal, Uniform
from lib.flows.linear import ActNorm, Conv1x1, LULinear, Permutation, QRLinear, Rotation
from lib.flows.multiscale import MultiScale, Squeeze
from lib.flows.planar import Planar
from lib.flows.radial import Radial
from lib.flows.sylvester import Sylvester
from lib.flows.transform import Compose, Inverse, Transform

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "Affine",
    "AffineCoupling",
    "Compose",
    "Conv1x1",
    "Flow",
    "Inverse",
    "LULinear",
    "Logit",
    "MaskedAutoregressive",
    "Monotone",
    "MultiScale",
    "Permutation",
    "Planar",
    "QRLinear",
    "Radial",
    "Rotation",
    "SplineAutoregressive",
    "SplineCoupling",
    "Squeeze",
    "StandardNormal",
    "Sylvester",
    "Transform",
    "Uniform",
]
