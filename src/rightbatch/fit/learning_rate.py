"""The best learning rate: at one batch size (a parabola), and against batch size (a power, and a saturating law)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rightbatch.errors import InputError
from rightbatch.fit.hyperbola import HyperbolaFit, fit_hyperbola
from rightbatch.records import Interval


def fit_best_rate(
    rates: Sequence[float], costs: Sequence[float], deviations: Sequence[float] | None = None, level: float = 0.95
) -> Interval:
    """The vertex of a parabola of log cost in log rate, through the cheapest rate and its neighbours.

    `rates` increasing, `costs` their costs (means over seeds), `deviations` the standard errors of log cost. The
    interval propagates them to the vertex; without them there is none. Only neighbours on both sides make a vertex:
    raises `InputError` when the cheapest rate is the first or the last.
    """
    best = int(np.argmin(costs))
    if best in (0, len(rates) - 1):
        raise InputError(f"The best of the rates, {rates[best]:g}, is at the edge of what was tried.")
    x = np.log(np.asarray(rates[best - 1 : best + 2]))
    y = np.log(np.asarray(costs[best - 1 : best + 2]))
    vertex = _vertex(x, y)
    if deviations is None:
        return Interval(math.exp(vertex), note="no interval: one seed", level=level)
    # Numerical derivative of the vertex by each of the three costs (delta method), then clamped to the three rates:
    # beyond them a parabola says nothing.
    errors = np.asarray(deviations[best - 1 : best + 2])
    step = 1e-6
    slopes = np.array([(_vertex(x, y + step * np.eye(3)[k]) - vertex) / step for k in range(3)])
    half = float(stats.norm.ppf(0.5 + level / 2)) * math.sqrt(float(((slopes * errors) ** 2).sum()))
    low, high = max(float(x[0]), vertex - half), min(float(x[2]), vertex + half)
    return Interval(math.exp(vertex), math.exp(low), math.exp(high), level)


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    curvature, slope, _ = np.polyfit(x - x[1], y, 2)
    if curvature <= 1e-12:  # three equal costs: nothing to bend
        return float(x[1])
    return float(np.clip(x[1] - slope / (2 * curvature), x[0], x[2]))


@dataclass(frozen=True)
class RateLawFit:
    """The best rate against batch size.

    `exponent` is p of rate = c * B^p: 1 is the linear rule, 0.5 the square root. `saturating` is
    rate_max / (1 + B_noise / B) (McCandlish et al. 2018, section 2.2), with its scale and knee.
    """

    exponent: Interval
    saturating: HyperbolaFit


def fit_rate_law(batch_sizes: Sequence[float], rates: Sequence[float], level: float = 0.95) -> RateLawFit:
    """Fit both laws to the best rate of each size, by least squares in logs, every size counted once.

    Sizes whose best rate is at the edge of what was tried must be left out by the caller. Raises `InputError` with
    fewer than three sizes.
    """
    saturating = fit_hyperbola(batch_sizes, rates, sign=-1, level=level)
    x, y = np.log(np.asarray(batch_sizes, float)), np.log(np.asarray(rates, float))
    result = stats.linregress(x, y)
    half = float(stats.t.ppf(0.5 + level / 2, len(x) - 2) * result.stderr)
    slope = float(result.slope)
    return RateLawFit(Interval(slope, slope - half, slope + half, level), saturating)
