"""Quantiles that intervals are made with.

From scipy.special, which computes what scipy.stats gives: importing the latter takes longer than importing all the
rest of this package.
"""

from __future__ import annotations

import scipy  # its parts are loaded when they are first used


def t_quantile(probability: float, freedom: float) -> float:
    """The value that a t variable of so many degrees of freedom stays below with this probability."""
    return float(scipy.special.stdtrit(freedom, probability))


def f_quantile(probability: float, freedom: int) -> float:
    """The value that an F variable of 1 and so many degrees of freedom stays below with this probability."""
    return float(scipy.special.fdtri(1, freedom, probability))


def t_probability(value: float, freedom: int) -> float:
    """The probability that a t variable of so many degrees of freedom stays below a value."""
    return float(scipy.special.stdtr(freedom, value))
