"""What is believed of every batch size and rate: versions of the laws, and a Gaussian process on what they miss.

Every run gives the log of its cost at the levels that it passed, and a lower bound for the next one. Given a version of
the laws these are Gaussian: a common curve along the levels, a smooth misfit over sizes, rates and levels, and the
noise of seeds, which lasts along a run. Versions are weighted by how well they explain the evidence.

A process over partly trained runs is due to Swersky, Snoek and Adams 2014 (Freeze-Thaw Bayesian Optimization, arXiv
1406.3896); here the levels take the place of their exponential curves, and the laws that of a constant mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy  # its parts are loaded when they are first used

from rightbatch.fit.noise import CriticalPrior
from rightbatch.records import Interval
from rightbatch.search.laws import Laws
from rightbatch.search.progress import Progress

Array = npt.NDArray[np.float64]
Cell = tuple[int, float]


@dataclass(frozen=True)
class Noise:
    """Standard deviations of log costs, and the distances (in log size, log rate, levels) over which they vary.

    `offset`, `slope` (about `mean_slope`), `bend` and `curve` make the common curve; `misfit` is what the laws miss,
    `own` what a cell has for itself, `seed` the seeds, `level` a crossing, `ahead` one that is reckoned from how a run
    began, `bound` what a run may be late for that says nothing about others.
    """

    offset: float = 2.5
    slope: float = 1.5
    mean_slope: float = 3.0
    bend: float = 0.9
    curve: float = 0.7
    curve_length: float = 0.4
    misfit: float = 0.4
    size_length: float = 2.0
    rate_length: float = 1.3
    level_length: float = 0.3
    own: float = 0.06
    seed: float = 0.16
    seed_length: float = 0.4
    level: float = 0.04
    ahead: float = 1.0
    bound: float = 0.1


NOISE = Noise()

SEED_FREEDOM = 4
"""The prior deviation of seeds weighs as much as so many differences between seeds that were seen."""

FEWEST_VERSIONS = 32
"""An interval of a constant of the laws rests on so many versions, by the effective size of a weighted sample."""


@dataclass(frozen=True)
class Belief:
    """Log costs to the target: the mean over seeds of each cell, then of each paused run its own.

    `mean` and `covariance` are those of the whole mixture, shapes `[cells + paused]` and the square of it;
    `seed_deviation` is that of one more seed about its cell. `critical_batch_size` is at the target, 90 %;
    `log_rate` the log of the best rate of large batches, in the mean over the versions.
    """

    cells: tuple[Cell, ...]
    paused: tuple[Progress, ...]
    mean: Array
    covariance: Array
    seed_deviation: float
    log_step_costs: Mapping[int, float]
    critical_batch_size: Interval
    log_rate: float


@dataclass(frozen=True)
class _Points:
    """Places at which log costs are known or wanted; every field has shape `[points]`. `runs` is -1 for no seed."""

    sizes: Array
    log_rates: Array
    levels: Array
    runs: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Known:
    """Observed log costs with their variances, at points."""

    rows: list[tuple[int, float, float, int]]
    values: Array
    variances: Array


def believe(
    cells: Sequence[Cell],
    laws: Laws,
    progress: Sequence[Progress],
    step_costs: Mapping[int, float],
    *,
    present: tuple[int, float] | None = None,
    critical: CriticalPrior | None = None,
    noise: Noise = NOISE,
) -> Belief:
    """The belief about cells after the runs made so far.

    `present` is what the person trains with, `critical` what gradients say of the critical size, where these are known.

    A run that diverged says nothing here, one that stalled only what it passed: the search closes their cells.
    """
    noise = replace(noise, seed=_seed_deviation(progress, noise.seed))
    sizes = sorted({size for size, _ in cells} | {run.batch_size for run in progress})
    laws = laws.knowing(step_costs)
    mixture = _Mixture(
        laws, sizes, laws.log_step_costs(sizes, step_costs), laws.log_likelihood(present, critical), noise
    )
    seen = [(run, k) for k, run in enumerate(progress) if not run.diverged]
    known = _known(seen, noise)
    late = [(run, k) for run, k in seen if not run.stalled and run.next_level is not None]
    if late:
        known = _with_bounds(mixture, known, late)
    paused = [(run, k) for run, k in seen if not run.reached and not run.ended]
    wanted = [(*cell, 1.0, -1) for cell in cells] + [(*run.cell, 1.0, k) for run, k in paused]
    mean, covariance, weights = mixture.posterior(known, wanted)
    expected = weights @ mixture.log_step_costs
    return Belief(
        cells=tuple(cells),
        paused=tuple(run for run, _ in paused),
        mean=mean,
        covariance=covariance,
        seed_deviation=noise.seed,
        log_step_costs=dict(zip(sizes, expected.tolist(), strict=True)),
        critical_batch_size=_weighted_interval(np.exp(laws.log_critical), spread(weights)),
        log_rate=float(weights @ laws.log_rate),
    )


def _known(seen: Sequence[tuple[Progress, int]], noise: Noise) -> _Known:
    """The levels that runs have passed; of those that have passed none, roughly when they would pass the first.

    Without these a rate that is far too small would only say "not yet", as one that is far too large does.
    """
    passed = [(*run.cell, level, k) for run, k in seen for level in run.levels]
    begun = [(run, k) for run, k in seen if run.log_cost_ahead is not None]
    values = [value for run, _ in seen for value in run.log_costs] + [run.log_cost_ahead for run, _ in begun]
    variances = [noise.level**2] * len(passed) + [noise.ahead**2] * len(begun)
    return _Known(passed + [(*run.cell, 0.0, k) for run, k in begun], np.array(values, float), np.array(variances))


def _with_bounds(mixture: _Mixture, known: _Known, late: Sequence[tuple[Progress, int]]) -> _Known:
    """What is known, and that each of these runs has not passed its next level at its cost."""
    rows = [(*run.cell, float(run.next_level or 1.0), k) for run, k in late]
    mean, covariance, _ = mixture.posterior(known, rows)
    bounds = np.log([run.cost for run, _ in late])
    values, variances = _truncated(mean, np.diag(covariance) + mixture.noise.level**2, bounds)
    tells = variances > 0
    return _Known(
        known.rows + [row for row, keep in zip(rows, tells, strict=True) if keep],
        np.concatenate([known.values, values[tells]]),
        np.concatenate([known.variances, variances[tells] + mixture.noise.bound**2]),
    )


@dataclass(frozen=True)
class _Mixture:
    """All versions of the laws with the process on their misfit. `log_step_costs` has shape `[versions, sizes]`."""

    laws: Laws
    sizes: Sequence[int]
    log_step_costs: Array
    log_weights: Array
    noise: Noise

    def posterior(self, known: _Known, wanted: Sequence[tuple[int, float, float, int]]) -> tuple[Array, Array, Array]:
        """Mean and covariance of what is wanted, over versions and process, and the weights of the versions."""
        at = _points(wanted)
        covariance, expected, log_weights = self._kernel(at, at), self._law(at), self.log_weights
        if known.rows:
            there = _points(known.rows)
            residuals = (known.values - self._law(there)).T
            factor = scipy.linalg.cho_factor(self._kernel(there, there) + np.diag(known.variances), lower=True)
            cross = self._kernel(at, there)
            solved = scipy.linalg.cho_solve(factor, residuals)
            log_weights = log_weights - 0.5 * (residuals * solved).sum(axis=0)
            expected = expected + (cross @ solved).T
            covariance = covariance - cross @ scipy.linalg.cho_solve(factor, cross.T)
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        mean = weights @ expected
        apart = expected - mean
        return mean, covariance + (apart * weights[:, None]).T @ apart, weights

    def _law(self, points: _Points) -> Array:
        place = {size: k for k, size in enumerate(self.sizes)}
        columns = self.log_step_costs[:, [place[int(size)] for size in points.sizes]]
        law = self.laws.log_cost(points.sizes, points.log_rates, points.levels, columns)
        return law + self.noise.mean_slope * (points.levels - 1)

    def _kernel(self, a: _Points, b: _Points) -> Array:
        noise = self.noise
        sizes = np.subtract.outer(np.log(a.sizes), np.log(b.sizes)) / noise.size_length
        rates = np.subtract.outer(a.log_rates, b.log_rates) / noise.rate_length
        gap = np.abs(np.subtract.outer(a.levels, b.levels))
        same_cell = (np.abs(sizes) < 1e-9) & (np.abs(rates) < 1e-9)
        same_run = np.equal.outer(a.runs, b.runs) & (a.runs >= 0)[:, None]
        smooth = np.exp(-0.5 * (sizes**2 + rates**2) - gap / noise.level_length)
        return np.asarray(
            noise.offset**2
            + noise.slope**2 * np.multiply.outer(a.levels - 1, b.levels - 1)
            + noise.bend**2 * np.multiply.outer(np.sqrt(1 - a.levels), np.sqrt(1 - b.levels))
            + noise.curve**2 * np.exp(-0.5 * (gap / noise.curve_length) ** 2)
            + noise.misfit**2 * smooth
            + noise.own**2 * same_cell
            + noise.seed**2 * same_run * np.exp(-gap / noise.seed_length)
        )


def _truncated(mean: Array, variance: Array, bounds: Array) -> tuple[Array, Array]:
    """Gaussian observations that stand for "above the bound": with them, the moments are those of the truncation.

    Returns values and variances; variance 0 where the bound says nothing, as it lies far below what is expected.
    """
    deviation = np.sqrt(variance)
    standard = (bounds - mean) / deviation
    hazard = np.exp(-0.5 * standard**2 - 0.5 * math.log(2 * math.pi) - scipy.special.log_ndtr(-standard))
    taken = np.clip(hazard * (hazard - standard), 0.0, 0.999)  # the share of the variance that the bound takes away
    tells = taken > 0.02
    taken = np.where(tells, taken, 0.5)
    return mean + deviation * hazard / taken, np.where(tells, variance * (1 - taken) / taken, 0.0)


def _seed_deviation(progress: Sequence[Progress], prior: float) -> float:
    """The deviation of seeds about their cell, pooled over cells with several runs at the target, with its prior."""
    costs: dict[Cell, list[float]] = {}
    for run in progress:
        if run.reached and run.log_costs:
            costs.setdefault(run.cell, []).append(run.log_costs[-1])
    squares = sum(len(found) * float(np.var(found)) for found in costs.values())
    freedom = sum(len(found) - 1 for found in costs.values())
    return math.sqrt((SEED_FREEDOM * prior**2 + squares) / (SEED_FREEDOM + freedom))


def spread(weights: Array) -> Array:
    """Weights that at least `FEWEST_VERSIONS` share: raised to the largest power up to one at which they do.

    The versions are few for what many runs say together: one would be left, and an interval of no width. With a power
    below one the evidence counts for less, and the interval is too wide rather than too narrow.
    """
    log_weights = np.log(np.maximum(weights / weights.max(), 1e-300))
    low, high = 0.0, 2.0  # of the power; at one, where that is enough
    for _ in range(30):
        power = min(1.0, (low + high) / 2)
        raised = np.exp(power * log_weights)
        enough = raised.sum() ** 2 >= FEWEST_VERSIONS * (raised**2).sum()
        low, high = (power, high) if enough else (low, power)
    return np.asarray(raised / raised.sum())


def _weighted_interval(values: Array, weights: Array) -> Interval:
    order = np.argsort(values)
    low, middle, high = np.interp([0.05, 0.5, 0.95], np.cumsum(weights[order]), values[order])
    return Interval(float(middle), float(low), float(high), 0.9)


def _points(rows: Sequence[tuple[int, float, float, int]]) -> _Points:
    sizes, rates, levels, runs = zip(*rows, strict=True)
    return _Points(np.array(sizes, dtype=float), np.log(rates), np.array(levels), np.array(runs, dtype=np.int64))
