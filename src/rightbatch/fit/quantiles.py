"""Quantiles, and the t intervals that are made with them.

From scipy.special, which computes what scipy.stats gives: importing the latter takes longer than importing all the
rest of this package.
"""

from __future__ import annotations

import math

import scipy  # its parts are loaded when they are first used

from rightbatch.records import Interval


def t_interval(estimate: float, error: float, freedom: float, level: float = 0.95) -> Interval:
    """Of an estimate with its standard error, of so many degrees of freedom."""
    half = t_quantile(0.5 + level / 2, freedom) * error
    return Interval(estimate, estimate - half, estimate + half, level)


def t_interval_of_factor(estimate: float, log_error: float, freedom: float, level: float = 0.95) -> Interval:
    """The same of an estimate whose logarithm has this standard error."""
    half = t_quantile(0.5 + level / 2, freedom) * log_error
    return Interval(estimate, estimate * math.exp(-half), estimate * math.exp(half), level)


def t_quantile(probability: float, freedom: float) -> float:
    """The value that a t variable of so many degrees of freedom stays below with this probability."""
    return float(scipy.special.stdtrit(freedom, probability))


def f_quantile(probability: float, freedom: int) -> float:
    """The value that an F variable of 1 and so many degrees of freedom stays below with this probability."""
    return float(scipy.special.fdtri(1, freedom, probability))


def t_probability(value: float, freedom: int) -> float:
    """The probability that a t variable of so many degrees of freedom stays below a value."""
    return float(scipy.special.stdtr(freedom, value))
