"""Cells (a batch size and a rate, with the costs of its runs), and a batch size with its rate tuned over its cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rightbatch.errors import InputError
from rightbatch.fit.learning_rate import RateParabola, fit_rate_parabola
from rightbatch.fit.seed_noise import SeedNoise
from rightbatch.records import Interval

PARABOLA_FACTOR = 2.0
"""Rates that cost up to this factor of the best take part in the parabola; further out, cost is not one."""


@dataclass(frozen=True)
class Cell:
    """All conclusive runs at one batch size and rate.

    `costs` has those of the runs that reached the target, one a seed. `shortfall` is how far from the target the best
    run stayed (0: it got there; infinite: it has no finite value). `rung_error` is the standard error of the mean log
    cost that comes from evaluating at rungs only.
    """

    batch_size: int
    learning_rate: float
    costs: tuple[float, ...]
    misses: int
    diverged: int
    shortfall: float
    rung_error: float = 0.0

    @property
    def reaches(self) -> bool:
        """Whether every run of the cell reached the target."""
        return bool(self.costs) and not self.misses

    @property
    def mean(self) -> float:
        """Geometric mean of the costs; infinite if any run missed."""
        return math.exp(float(np.mean(np.log(self.costs)))) if self.reaches else math.inf


def cheapest(cells: Iterable[Cell]) -> Cell | None:
    """The cell of the lowest cost among those that reach the target; None if none does."""
    return min((cell for cell in cells if cell.reaches), key=lambda cell: cell.mean, default=None)


@dataclass(frozen=True)
class SizeEvidence:
    """One batch size with its rate tuned. `best` is None where no rate reached the target.

    `cost` is that of the best cell, smoothed over the rates beside it where there are enough. The standard error of its
    log has three parts: `leverage` times the deviation between seeds, `other_error` (of the rungs of its ladder, and of
    what a parabola misses), and that of the seconds of a step.
    `at_edge`: the best rate is the first or the last one tried.
    """

    batch_size: int
    cells: tuple[Cell, ...]
    step_seconds: float | None
    best: Cell | None = None
    cost: Interval | None = None
    leverage: float = math.inf
    other_error: float = 0.0
    best_rate: Interval | None = None
    at_edge: bool = False


def tune(
    batch_size: int, cells: Sequence[Cell], noise: SeedNoise, step_seconds: float | None, seconds_error: float = 0.0
) -> SizeEvidence:
    """A batch size at its best rate: of its cells (by rate), what the best one costs and how sure that is.

    `seconds_error`: the standard error of the log of what all its costs were multiplied with, the seconds of a step.

    Where enough neighbouring rates reach the target at not much more than the best cost, that is read off a parabola
    through them: the cheapest of several noisy means is cheap partly by luck.
    """
    raw = SizeEvidence(batch_size, tuple(cells), step_seconds)
    best = cheapest(cells)
    if best is None:
        return raw
    near = _beside(cells, best)
    parabola = _parabola(near, best, noise)
    if parabola is not None:
        # The cell nearest to the vertex, of those that were run: a rate is recommended only if it was.
        wanted = math.log(parabola.best_rate.estimate)
        best = min(near, key=lambda cell: abs(math.log(cell.learning_rate) - wanted))
        leverage, estimate = parabola.leverage(best.learning_rate), parabola.cost(best.learning_rate)
        best_rate, misfit = parabola.best_rate, parabola.misfit
    else:
        leverage, estimate = 1 / math.sqrt(len(best.costs)), best.mean
        best_rate, misfit = _bracket(cells, best), 0.0
    other_error = math.hypot(best.rung_error, misfit * leverage)
    at_edge = best in (cells[0], cells[-1])
    return replace(
        raw,
        best=best,
        cost=noise.interval(estimate, leverage, math.hypot(other_error, seconds_error)),
        leverage=leverage,
        other_error=other_error,
        best_rate=Interval(best_rate.estimate, note="at the edge of the rates tried") if at_edge else best_rate,
        at_edge=at_edge,
    )


def _beside(cells: Sequence[Cell], best: Cell) -> Sequence[Cell]:
    """The cells around the best that reach the target at not much more than its cost, without a gap."""
    low = high = cells.index(best)
    while low > 0 and cells[low - 1].mean <= PARABOLA_FACTOR * best.mean:
        low -= 1
    while high + 1 < len(cells) and cells[high + 1].mean <= PARABOLA_FACTOR * best.mean:
        high += 1
    return cells[low : high + 1]


def _parabola(near: Sequence[Cell], best: Cell, noise: SeedNoise) -> RateParabola | None:
    if len(near) < 3 or best in (near[0], near[-1]):
        return None
    rates, costs = [cell.learning_rate for cell in near], [cell.mean for cell in near]
    try:
        return fit_rate_parabola(rates, costs, [len(cell.costs) for cell in near], noise.deviation, noise.freedom)
    except InputError:  # costs that do not bend upwards: luck decides between rates that are alike
        return None


def _bracket(cells: Sequence[Cell], best: Cell) -> Interval:
    k = cells.index(best)
    if k in (0, len(cells) - 1):
        return Interval(best.learning_rate)
    note = "between the rates tried beside it"
    return Interval(best.learning_rate, cells[k - 1].learning_rate, cells[k + 1].learning_rate, note=note)
