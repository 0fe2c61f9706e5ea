"""How much the log of a cost varies from seed to seed, pooled over a study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rightbatch.records import Interval


@dataclass(frozen=True)
class SeedNoise:
    """Standard deviation of log cost between seeds of one cell, pooled; `freedom` are its degrees of freedom.

    With no cell of two seeds, `deviation` is None: nothing is known of the noise, and no interval is given.
    """

    deviation: float | None
    freedom: int

    def mean_interval(self, costs: Sequence[float], level: float = 0.95) -> Interval:
        """The geometric mean of one cell's costs with its t interval."""
        logs = np.log(costs)
        centre = float(logs.mean())
        if self.deviation is None:
            return Interval(math.exp(centre), note="no interval: one seed", level=level)
        quantile = stats.t.ppf(0.5 + level / 2, self.freedom)
        half = float(quantile * self.deviation / math.sqrt(len(logs)))
        return Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half), level)


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
