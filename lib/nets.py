"""Small networks."""

from itertools import pairwise

from torch import nn


def mlp(d_in: int, d_out: int, width: int = 64, depth: int = 2) -> nn.Sequential:
    """`depth` hidden layers of `width` SiLU units: (B, d_in) -> (B, d_out).

    SiLU because flows and ODE fields are differentiated twice; it costs a sixth of tanh.
    """
    sizes = [d_in] + [width] * depth
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], d_out))
