"""Quality over rates and batch sizes: how it drifts along a constant ratio of the two, and where it is best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Cells = Mapping[tuple[int, float], list[float]]

LEAST_QUALITY = 0.9
"""Cells below this share of the gain are left out: what spoils them is not noise."""


@dataclass(frozen=True)
class Drift:
    """By how much quality changes from the smallest to the largest size at a constant ratio of rate and size."""

    value: float
    error: float
    freedom: int
    smallest: int
    largest: int


@dataclass(frozen=True)
class Peak:
    """The size of the best quality as a power of the rate: the exponent, and its standard error."""

    exponent: float
    error: float
    freedom: int


def drift(cells: Cells) -> Drift | None:
    """Least squares: quality = a cubic in log(rate / size) + slope x log size, over the cells that are near the best.

    The error is that of the residuals, which hold the noise of seeds and the misfit alike. None with fewer than eight
    cells, two sizes, or where the two directions cannot be told apart.
    """
    near = {cell: float(np.mean(v)) for cell, v in cells.items() if float(np.mean(v)) >= LEAST_QUALITY}
    sizes = sorted({size for size, _ in near})
    if len(near) < 8 or len(sizes) < 2:
        return None
    log_size = np.log([size for size, _ in near])
    ratio = np.log([rate for _, rate in near]) - log_size
    u, v = (ratio - ratio.mean()) / (ratio.std() or 1.0), log_size - log_size.mean()
    design = np.column_stack([np.ones_like(u), u, u**2, u**3, v])
    found = _least_squares(design, np.array(list(near.values())))
    if found is None:
        return None
    solution, covariance, freedom = found
    span = math.log(sizes[-1] / sizes[0])
    return Drift(float(solution[4]) * span, math.sqrt(covariance[4, 4]) * span, freedom, sizes[0], sizes[-1])


def peak(cells: Cells) -> Peak | None:
    """Where quality is best: a quadratic in log size whose top moves with log rate, over the cells near the best.

    quality = c0 + c1 r + c2 r^2 + c3 s + c4 s^2 + c5 r s in r = log rate, s = log size has its top in s at
    -(c3 + c5 r) / (2 c4), so that the exponent is -c5 / (2 c4). None where quality has no top in the size, or with
    fewer than nine cells.
    """
    near = {cell: float(np.mean(v)) for cell, v in cells.items() if float(np.mean(v)) >= LEAST_QUALITY}
    if len(near) < 9 or len({size for size, _ in near}) < 3 or len({rate for _, rate in near}) < 2:
        return None
    s, r = np.log([size for size, _ in near]), np.log([rate for _, rate in near])
    s, r = s - s.mean(), r - r.mean()
    design = np.column_stack([np.ones_like(s), r, r**2, s, s**2, r * s])
    found = _least_squares(design, np.array(list(near.values())))
    if found is None:
        return None
    solution, covariance, freedom = found
    bend, twist = float(solution[4]), float(solution[5])
    if bend >= 0 or bend + 2 * math.sqrt(covariance[4, 4]) >= 0:
        return None
    exponent = -twist / (2 * bend)
    slope = np.array([twist / (2 * bend**2), -1 / (2 * bend)])
    error = math.sqrt(float(slope @ covariance[4:, 4:] @ slope))
    return Peak(exponent, error, freedom)


def _least_squares(design: Array, values: Array) -> tuple[Array, Array, int] | None:
    freedom = len(values) - design.shape[1]
    if freedom < 2 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    solution = np.asarray(np.linalg.lstsq(design, values, rcond=None)[0], float)
    variance = float(((values - design @ solution) ** 2).sum()) / freedom
    return solution, np.asarray(variance * np.linalg.inv(design.T @ design), float), freedom
