"""The best learning rate: at one batch size (a parabola), and against batch size (a power, and a saturating law)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rightbatch.errors import InputError
from rightbatch.fit.hyperbola import HyperbolaFit, fit_hyperbola
from rightbatch.fit.quantiles import t_interval, t_quantile
from rightbatch.records import Interval


@dataclass(frozen=True)
class RateParabola:
    """log cost = a parabola in log rate, with its lowest point at `best_rate`.

    `leverage` gives the standard error of the log cost at a rate, in units of the deviation between seeds. `misfit` is
    a further deviation, where the parabola misses the means by more than seeds explain.
    """

    best_rate: Interval
    centre: float
    coefficients: tuple[float, float, float]
    covariance: tuple[tuple[float, ...], ...]
    misfit: float

    def cost(self, rate: float) -> float:
        """The fitted cost at a rate."""
        return math.exp(float(np.dot(self._row(rate), self.coefficients)))

    def leverage(self, rate: float) -> float:
        """Standard error of the log of `cost`, as a multiple of the deviation between seeds."""
        row = self._row(rate)
        return math.sqrt(float(row @ np.asarray(self.covariance) @ row))

    def _row(self, rate: float) -> NDArray[np.float64]:
        u = math.log(rate) - self.centre
        return np.array([1.0, u, u * u])


def fit_rate_parabola(
    rates: Sequence[float],
    costs: Sequence[float],
    seeds: Sequence[int],
    deviation: float | None,
    freedom: int,
    level: float = 0.95,
) -> RateParabola:
    """Fit a parabola of log cost in log rate by least squares, a rate weighted by its number of seeds.

    More rates than the best one take part, so the cost at the best rate is not simply the luckiest of several means.
    `deviation` is that of log cost between seeds, pooled over a study, with its degrees of `freedom`; None: no interval
    is given. Where the parabola misses the means by more than seeds explain, its errors are widened by as much.

    Raises
    ------
    InputError: With fewer than three rates, or when the costs do not bend upwards.
    """
    if len(rates) < 3:
        raise InputError(f"A parabola needs at least three rates, got {list(rates)}.")
    x = np.log(np.asarray(rates, float))
    centre = float(x.mean())
    u, y, weights = x - centre, np.log(np.asarray(costs, float)), np.asarray(seeds, float)
    design = np.column_stack([np.ones_like(u), u, u**2])
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    a, b, c = (float(v) for v in covariance @ (design.T @ (weights * y)))
    if c <= 0:
        raise InputError(f"The costs {list(costs)} do not bend upwards in the rates {list(rates)}.")
    misfit = 0.0
    if deviation is not None and len(rates) > 3:
        squares, own = float((weights * (y - design @ np.array([a, b, c])) ** 2).sum()), len(rates) - 3
        misfit = _beyond_seeds(squares / own, own, deviation, freedom, level)
    vertex = -b / (2 * c)
    low, high = float(u.min()), float(u.max())
    centre_of = min(high, max(low, vertex))
    best = math.exp(centre + centre_of)
    if deviation is None:
        interval = Interval(best, note="no interval: one seed", level=level)
    else:
        # The vertex is -b / 2c; its error by the delta method. Beyond the rates tried a parabola says nothing.
        slope = np.array([0.0, -1 / (2 * c), b / (2 * c * c)])
        error = math.hypot(deviation, misfit) * math.sqrt(float(slope @ covariance @ slope))
        half = t_quantile(0.5 + level / 2, freedom) * error
        ends = max(low, centre_of - half), min(high, centre_of + half)
        interval = Interval(best, math.exp(centre + ends[0]), math.exp(centre + ends[1]), level)
    return RateParabola(interval, centre, (a, b, c), tuple(map(tuple, covariance.tolist())), misfit)


def _beyond_seeds(variance: float, own: int, deviation: float, freedom: int, level: float) -> float:
    """The deviation beside that of seeds with which a t interval of their `freedom` is as wide as it ought to be.

    A `variance` of few residuals (`own` degrees of freedom) is itself uncertain: what it has more than seeds explain
    counts with the freedom of Satterthwaite's approximation.
    """
    excess = variance - deviation**2
    if excess <= 0:
        return 0.0
    together = variance**2 / (deviation**4 / freedom + excess**2 / own)
    wider, as_seeds = (t_quantile(0.5 + level / 2, one) for one in (together, freedom))
    return math.sqrt(max(0.0, (wider / as_seeds) ** 2 * variance - deviation**2))


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
    x, y, freedom = x - x.mean(), y - y.mean(), len(x) - 2
    slope = float(x @ y / (x @ x))
    error = math.sqrt(float(((y - slope * x) ** 2).sum() / freedom / (x @ x)))
    return RateLawFit(t_interval(slope, error, freedom, level), saturating)
