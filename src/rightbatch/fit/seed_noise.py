"""How much the log of a cost varies from seed to seed, pooled over a study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.fit.quantiles import t_interval_of_factor
from rightbatch.records import Interval


@dataclass(frozen=True)
class SeedNoise:
    """Standard deviation of log cost between seeds of one cell, pooled; `freedom` are its degrees of freedom.

    With no cell of two seeds, `deviation` is None: nothing is known of the noise, and no interval is given.
    """

    deviation: float | None
    freedom: int

    def interval(self, estimate: float, leverage: float, other_error: float = 0.0, level: float = 0.95) -> Interval:
        """The t interval of a cost whose log has a standard error of `leverage` deviations, and another beside it.

        The leverage of a geometric mean over n seeds is 1 / sqrt(n).
        """
        if self.deviation is None:
            return Interval(estimate, note="no interval: one seed", level=level)
        error = math.hypot(self.deviation * leverage, other_error)
        return t_interval_of_factor(estimate, error, self.freedom, level)


def pool_seed_noise(cells: Iterable[Sequence[float]]) -> SeedNoise:
    """Fit log cost = cell + residual, with one variance for the whole study.

    `cells` are the costs of the runs of each cell (a batch size and rate), one number a seed.
    """
    squares, freedom = 0.0, 0
    for costs in cells:
        if len(costs) > 1:
            logs = np.log(costs)
            squares += float(((logs - logs.mean()) ** 2).sum())
            freedom += len(costs) - 1
    return SeedNoise(math.sqrt(squares / freedom), freedom) if freedom else SeedNoise(None, 0)
