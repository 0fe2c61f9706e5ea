"""The lattice on which all learning rates lie: 10^(k/4), so that sweeps share runs."""

from __future__ import annotations

import math


def index_of(rate: float) -> int:
    """The number k of the lattice point nearest to a rate, in log distance."""
    return round(4 * math.log10(rate))


def rate_at(index: int) -> float:
    """The rate 10^(k/4), rounded to four significant digits so that it reads and compares the same everywhere."""
    return float(f"{10 ** (index / 4):.4g}")


def snap(rate: float) -> float:
    """The lattice rate nearest to a rate."""
    return rate_at(index_of(rate))
