"""Lines between two minima, beyond both of their ends."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kind = Literal["straight", "curved"]

POSITIONS: tuple[float, ...] = tuple(float(at) for at in np.linspace(-1, 2, 25))
"""Where a line is looked at: 0 is the one minimum, 1 the other (Keskar et al. 2017, figure 3, and their code)."""


def point_on(kind: Kind, at: float, one: Array, other: Array) -> Array:
    """The weights at a position: a x_1 + (1 - a) x_0, or sin(a pi / 2) x_1 + cos(a pi / 2) x_0."""
    if kind == "straight":
        return at * other + (1 - at) * one
    return math.sin(at * math.pi / 2) * other + math.cos(at * math.pi / 2) * one
