"""Peak memory against batch size: the increase over the process before the model is fixed + example x B.

`fixed` is what every size takes (model, gradients, optimizer state, workspace), `example` what one more example takes
(activations, and its share of the data). The line goes through the largest size that ran, where what is left is told
best, and is the less certain the farther it is drawn beyond it: memory comes in blocks, and libraries choose other
algorithms for other sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rightbatch.errors import InputError
from rightbatch.records import Interval

RESOLUTION_BYTES = 4 * 2**20
"""Allocators take memory in blocks: what a size takes is known to about so much."""

REPEATABILITY = 0.005
"""And to this share of it."""

CURVATURE = 0.05
"""How far a slope is off where the line is drawn to sizes that were not tried, at the least."""

CURVATURE_OF_HEAPS = 0.4
"""On a CPU: the heap of the C library keeps freed blocks, a third of all at some sizes and next to nothing at others
(`benchmarks/memory_curves.py`)."""

LEVEL, QUANTILE = 0.9, 1.645


@dataclass(frozen=True)
class MemoryFit:
    """Bytes over those of the process before the model; `slope_error` is relative, `spread_bytes` of one measurement.

    `anchor` is the largest size that ran, with its increase. With one size tried nothing tells the parts apart: all is
    then charged to the examples (`slope_known` is False), which leaves too little room rather than too much.
    `curvature` is how far the slope may be off, relatively, beyond the sizes that were tried.
    """

    anchor: tuple[int, float]
    example_bytes: Interval
    fixed_bytes: Interval
    slope_error: float
    spread_bytes: float
    slope_known: bool
    curvature: float = CURVATURE

    def predict(self, batch_size: float) -> Interval:
        """The increase in bytes at a size, with its 90 % interval."""
        size, increase = self.anchor
        away = self.example_bytes.estimate * (batch_size - size)
        error = QUANTILE * math.hypot(self.spread_bytes, away * max(self.slope_error, self.curvature))
        return Interval(increase + away, max(0.0, increase + away - error), increase + away + error, LEVEL)

    def largest(self, room_bytes: float, errors: float = 0.0) -> float:
        """The size at which the increase reaches the room, with so many standard errors of the slope to spare.

        And with half as many of the spread of one measurement.
        """
        size, increase = self.anchor
        left = room_bytes - increase - 0.5 * errors * self.spread_bytes
        return size + left / (self.example_bytes.estimate * (1 + errors * self.slope_error))


def fit_memory(increases: Mapping[int, float], curvature: float = CURVATURE) -> MemoryFit:
    """Fit the line to the increase in bytes at each size that ran. Raises `InputError` where none ran."""
    if not increases:
        raise InputError("A fit of memory needs at least one batch size that ran.")
    size = max(increases)
    increase = max(increases[size], float(RESOLUTION_BYTES))
    spread = _spread(increase)
    # Two sizes that are near one another tell nothing of the slope.
    below = [other for other in increases if other <= size / 2] or [other for other in increases if other < size]
    if not below:
        each = increase / size
        example, fixed = Interval(each, 0.0, each, LEVEL), Interval(0.0, 0.0, increase, LEVEL)
        return MemoryFit((size, increase), example, fixed, 1.0, spread, False, curvature)
    other = max(below)
    error = math.hypot(spread, _spread(increases[other]))
    rise = max(increase - increases[other], error)
    slope_error = math.hypot(CURVATURE, error / rise)
    each = rise / (size - other)
    example = Interval(each, each * max(0.0, 1 - QUANTILE * slope_error), each * (1 + QUANTILE * slope_error), LEVEL)
    assert example.low is not None
    assert example.high is not None
    fixed = Interval(
        max(0.0, increase - each * size),
        max(0.0, increase - example.high * size),
        max(0.0, increase - example.low * size),
        LEVEL,
    )
    return MemoryFit((size, increase), example, fixed, slope_error, spread, True, curvature)


def _spread(increase: float) -> float:
    return math.hypot(RESOLUTION_BYTES, REPEATABILITY * increase)
