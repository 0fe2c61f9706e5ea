"""Spearman's rank correlation with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are loaded when they are first used

from rightbatch.errors import InputError
from rightbatch.fit.quantiles import t_quantile
from rightbatch.records import Interval

FEWEST_PAIRS = 6


@dataclass(frozen=True)
class RankCorrelation:
    """On Fisher's scale, atanh of the correlation: about normal there, with the standard error `error`.

    The error is that of D. G. Bonett and T. A. Wright, "Sample size requirements for estimating Pearson, Kendall and
    Spearman correlations" (Psychometrika 65, 2000): sqrt((1 + r^2 / 2) / (n - 3)), for n groups of pairs that are alike
    within. Infinite for fewer than four.
    """

    value: float
    error: float
    pairs: int
    groups: int

    @property
    def correlation(self) -> float:
        """Between -1 and 1."""
        return math.tanh(self.value)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the error."""
        return self.groups - 3

    def interval(self, level: float = 0.95) -> Interval:
        """Of the correlation; without ends for fewer than four groups."""
        if self.freedom < 1:
            return Interval(self.correlation, note="no interval: fewer than four groups", level=level)
        half = t_quantile(0.5 + level / 2, self.freedom) * self.error
        return Interval(self.correlation, math.tanh(self.value - half), math.tanh(self.value + half), level)


def rank_correlation(
    left: Sequence[float], right: Sequence[float], groups: int | None = None
) -> RankCorrelation | None:
    """Of pairs; None where all of one side are equal.

    `groups`: So many of which each gave some of the pairs, as the batch sizes of runs with several seeds; None: every
    pair is one by itself. Pairs of one group tell little more than one of them.

    Raises `InputError` for fewer than six pairs: no interval of so few says anything.
    """
    if len(left) != len(right) or len(left) < FEWEST_PAIRS:
        raise InputError(
            f"A rank correlation needs at least {FEWEST_PAIRS} pairs, got {len(left)} and {len(right)} values."
        )
    ranks = [scipy.stats.rankdata(values) for values in (left, right)]
    if any(float(np.ptp(one)) == 0 for one in ranks):
        return None
    # Ranks in exactly the same order would have no error at all.
    correlation = float(np.clip(np.corrcoef(*ranks)[0, 1], -0.999, 0.999))
    count = len(left) if groups is None else groups
    error = math.sqrt((1 + correlation**2 / 2) / (count - 3)) if count > 3 else math.inf
    return RankCorrelation(math.atanh(correlation), error, len(left), count)
