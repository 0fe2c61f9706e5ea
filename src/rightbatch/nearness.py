"""Batch sizes and rates that are near one another: by their ratio."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def apart(one: float, other: float) -> float:
    """How far two positive numbers are from one another: the log of their ratio, without its sign."""
    return abs(math.log(one / other))


def nearest(values: Iterable[Number], wanted: float) -> Number:
    """The value nearest in ratio; of two that are as near, the first."""
    return min(values, key=lambda value: apart(value, wanted))
