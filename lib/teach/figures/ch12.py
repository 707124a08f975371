"""Explorable figures of chapter 12, and the numbers behind its plots.

The pictures of `captions`, `guidance` and `walk` were drawn by the stored models beforehand, by
`python -m lib.teach.figures.ch12_pictures`, and lie beside this file.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent


@cache
def scalar_quantisers(counts: tuple[int, ...] = (2, 3, 4, 8, 16)) -> np.ndarray:
    """log2 K, entropy of the index and distortion of Lloyd's quantisers of N(0, 1): (n, 3).

    By his two conditions in closed form: cells between midpoints, codes at the means of the cells.
    """
    rows, edge = [], torch.tensor([math.inf], dtype=torch.float64)
    density = lambda b: torch.exp(-0.5 * b * b) / math.sqrt(2 * math.pi)  # noqa: E731
    for count in counts:
        codes = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
        for _ in range(500):
            cuts = torch.cat([-edge, (codes[1:] + codes[:-1]) / 2, edge])
            share = torch.special.ndtr(cuts[1:]) - torch.special.ndtr(cuts[:-1])
            codes = (density(cuts[:-1]) - density(cuts[1:])) / share
        entropy = -(share * share.log2()).sum()
        rows.append([math.log2(count), entropy, 1 - (share * codes**2).sum()])
    return np.array(rows, float)


def linear_curve(spectrum: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Bits and distortion of reverse water-filling at levels from high to low."""
    level = torch.logspace(math.log10(0.09), math.log10(float(spectrum.max())), 80)[:, None]
    rate = (0.5 * (spectrum / level).log2()).clamp(min=0).sum(1)
    return rate.numpy(), spectrum.minimum(level).sum(1).numpy()
