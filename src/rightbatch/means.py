"""Means of few values, their differences and ratios, with t intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

import numpy as np

from rightbatch.fit.quantiles import t_interval
from rightbatch.records import Interval


def mean_of(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """The mean with its t interval; None of nothing."""
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, note="one seed")
    return t_interval(mean, float(np.std(values, ddof=1)) / math.sqrt(len(values)), len(values) - 1, level)


def difference_of_means(left: Sequence[float], right: Sequence[float], level: float = 0.95) -> Interval:
    """By how much the mean of one group is above that of another: a t interval (Welch)."""
    groups = [np.asarray(values, float) for values in (left, right)]
    difference = float(groups[0].mean() - groups[1].mean())
    if min(len(values) for values in groups) < 2:
        return Interval(difference, note="one seed")
    parts = [float(values.var(ddof=1)) / len(values) for values in groups]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Interval(difference, difference, difference, level)
    freedom = error**4 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, groups, strict=True))
    return t_interval(difference, error, freedom, level)


def ratio_of_means(upper: Sequence[float], lower: Sequence[float], level: float = 0.95) -> Interval:
    """How many times the mean of one group is that of another, as means of logs: a t interval (Welch) of the factor.

    Of positive values; geometric means, since sharpness varies by factors.
    """
    return out_of_logs(difference_of_means(np.log(upper).tolist(), np.log(lower).tolist(), level))


@overload
def out_of_logs(logs: Interval) -> Interval: ...
@overload
def out_of_logs(logs: None) -> None: ...
def out_of_logs(logs: Interval | None) -> Interval | None:
    """The interval of a factor, from that of its logarithm; None of None."""
    if logs is None:
        return None
    if logs.low is None or logs.high is None:
        return Interval(math.exp(logs.estimate), note=logs.note)
    return Interval(math.exp(logs.estimate), math.exp(logs.low), math.exp(logs.high), logs.level)
