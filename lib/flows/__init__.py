"""Normalizing flows: read `transform.py` (the contract), the maps, then `flow.py` (a model)."""

from lib.flows.elementwise import Affine, Logit, Monotone
from lib.flows.flow import Flow, StandardNormal, Uniform
from lib.flows.linear import LULinear, Rotation
from lib.flows.transform import Compose, Inverse, Transform

__all__ = [
    "Affine",
    "Compose",
    "Flow",
    "Inverse",
    "LULinear",
    "Logit",
    "Monotone",
    "Rotation",
    "StandardNormal",
    "Transform",
    "Uniform",
]
