"""The published laws as a prior: many versions of them, drawn once, of which the evidence says which hold here.

One version says, for a batch size B, a rate and a level of progress (0 to 1, see `progress`):

    log cost = log step_cost(B) + log(1 + B_crit / B) + penalty(log(rate / best_rate(B))) + a constant

* steps are S_min (1 + B_crit / B), McCandlish et al. 2018 (arXiv 1812.06162), eq. 2.11. The critical size grows with
  the level, as the noise scale does along a training: small batches lead early and must not be trusted for it;
* best_rate(B) = r / (1 + B_n / B)^p with p between a half and one: the square-root and the linear rule for small
  batches, a constant for large ones. It falls with the level: what is fast early on stalls at its noise floor later;
* penalty: straight lines in log rate on both sides, rounded off between; the steps of small rates grow as 1 / rate;
* step_cost(B) = constant x (1 + B / B_knee) where that of a size is not known, from the nearest one that is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy  # its parts are loaded when they are first used

from rightbatch.fit.noise import CriticalPrior
from rightbatch.nearness import nearest

Array = npt.NDArray[np.float64]

VERSIONS = 1024

LARGE_BATCH_RATES = {"SGD": (0.5, 1.5), "SGD momentum": (0.15, 1.3), "Adam": (0.006, 1.2)}
"""Best rate of large batches by optimizer: its median, and the standard deviation of its log."""

STEP_COST_DEVIATION = 0.15
"""By how much the log of step costs strays from their law."""

PRESENT_DEVIATION = 1.5
"""By how much the log of a rate that people train with strays from the best one."""


@dataclass(frozen=True)
class Laws:
    """The versions: every field of shape `[versions]`."""

    log_critical: Array
    critical_growth: Array
    log_rate: Array
    log_rate_knee: Array
    rate_exponent: Array
    rate_fall: Array
    slope_below: Array
    slope_above: Array
    width: Array
    log_knee: Array

    def log_cost(self, sizes: Array, log_rates: Array, levels: Array, log_step_costs: Array) -> Array:
        """The law of every version, less its constant, shape `[versions, points]`.

        `sizes`, `log_rates` and `levels` have shape `[points]`, `log_step_costs` `[versions, points]`.
        """
        short = levels - 1
        critical = _column(self.log_critical) + _column(self.critical_growth) * short
        best = self.log_best_rate(sizes) - _column(self.rate_fall) * short
        off, width = log_rates - best, _column(self.width)
        slope = np.where(off < 0, _column(self.slope_below), _column(self.slope_above))
        penalty = slope * (np.hypot(off, width) - width)
        return log_step_costs + np.logaddexp(0, critical - np.log(sizes)) + penalty

    def log_best_rate(self, sizes: Array) -> Array:
        """Log of the best rate at the target, shape `[versions, sizes]`."""
        return _column(self.log_rate) - _column(self.rate_exponent) * np.logaddexp(
            0, _column(self.log_rate_knee) - np.log(sizes)
        )

    def log_step_costs(self, sizes: Sequence[int], known: Mapping[int, float]) -> Array:
        """Log of the cost of a step, shape `[versions, sizes]`: as known, else by the law from the nearest known size.

        Where nothing is known, a step of a small batch costs one.
        """
        shape = self._log_shape(np.asarray(sizes, dtype=float))
        for k, size in enumerate(sizes):
            if size in known:
                shape[:, k] = math.log(known[size])
            elif known:
                near = nearest(known, size)
                shape[:, k] += math.log(known[near]) - self._log_shape(np.array([float(near)]))[:, 0]
        return shape

    def knowing(self, step_costs: Mapping[int, float]) -> Laws:
        """The versions with their knees drawn anew by what is known of step costs, each at its own rank.

        A knee has nothing to do with the other constants before any run. Weighing whole versions by it would leave few
        of them, and with them few critical sizes and rates: of costs that no knee explains a single one.
        """
        if len(step_costs) < 2:
            return self
        sizes = np.array(sorted(step_costs), dtype=float)
        misfit = np.log([step_costs[int(size)] for size in sizes]) - self._log_shape(sizes)
        misfit -= misfit.mean(axis=1, keepdims=True)
        log_weights = -0.5 * (misfit**2).sum(axis=1) / STEP_COST_DEVIATION**2
        weights = np.exp(log_weights - log_weights.max())
        order = np.argsort(self.log_knee)
        below = np.cumsum(weights[order]) - 0.5 * weights[order]
        ranks = (np.arange(len(order)) + 0.5) / len(order)
        log_knee = np.empty_like(self.log_knee)
        log_knee[order] = np.interp(ranks, below / weights.sum(), self.log_knee[order])
        return replace(self, log_knee=log_knee)

    def log_likelihood(self, present: tuple[int, float] | None = None, critical: CriticalPrior | None = None) -> Array:
        """How well every version agrees with what the person trains with, and with gradients, shape `[versions]`."""
        total = np.zeros(len(self.log_knee))
        if present is not None:
            off = math.log(present[1]) - self.log_best_rate(np.array([float(present[0])]))[:, 0]
            total -= 0.5 * (off / PRESENT_DEVIATION) ** 2
        if critical is not None:
            total -= 0.5 * ((self.log_critical - critical.log_mean) / critical.log_deviation) ** 2
        return total

    def _log_shape(self, sizes: Array) -> Array:
        return np.logaddexp(0, np.log(sizes) - _column(self.log_knee))


def _column(values: Array) -> Array:
    return values[:, None]


def rate_prior(optimizer: str, present_rate: float | None = None) -> tuple[float, float]:
    """The log of the best rate of large batches as far as the optimizer tells, and its standard deviation.

    Of one that is not known, the best rate is about that which the person trains with; else it is that of any.
    """
    known = [LARGE_BATCH_RATES[name] for name in LARGE_BATCH_RATES if optimizer.startswith(name)]
    if known:
        return math.log(known[-1][0]), known[-1][1]
    if present_rate is not None:
        return math.log(present_rate), PRESENT_DEVIATION
    logs, own = zip(*((math.log(rate), spread) for rate, spread in LARGE_BATCH_RATES.values()), strict=True)
    return float(np.mean(logs)), float(np.hypot(np.std(logs), np.mean(own)))


@lru_cache(maxsize=256)
def draw_laws(centre: float, spread: float, lowest_rate: float, highest_rate: float) -> Laws:
    """The prior: versions spread evenly over it (a Sobol sequence), with the best rate about within the rates given.

    `centre`, `spread`: as of `rate_prior`.
    """
    uniform = scipy.stats.qmc.Sobol(10, scramble=True, rng=0).random(VERSIONS)
    normal = scipy.special.ndtri(np.clip(uniform, 1e-6, 1 - 1e-6))
    low, high = math.log(lowest_rate), math.log(highest_rate)
    log_critical = math.log(250.0) + 1.2 * normal[:, 0]
    return Laws(
        log_critical=log_critical,
        critical_growth=2.5 * uniform[:, 1],
        log_rate=np.clip(centre + spread * normal[:, 2], low - 0.5, high + 1.5),
        log_rate_knee=log_critical + normal[:, 3],
        rate_exponent=0.5 + 0.5 * uniform[:, 4],
        rate_fall=0.6 * np.abs(normal[:, 5]),
        slope_below=0.5 + 0.5 * uniform[:, 6],
        slope_above=0.8 + 2.2 * uniform[:, 7],
        width=0.4 + 0.8 * uniform[:, 8],
        log_knee=math.log(150.0) + 1.2 * normal[:, 9],
    )
