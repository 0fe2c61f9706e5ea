"""Whether a metric has the direction that was said (it gets better where the loss does), and a target its unit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from rightbatch.fit.rank_correlation import FEWEST_PAIRS, rank_correlation
from rightbatch.records import Direction, Point

CLEAR = 0.1
"""A loss that has fallen, or a metric that has moved, by less than this share may have done so by chance."""

AGAINST = 0.8
"""A rank correlation of loss and goodness above this is that of a metric whose direction is the other one."""


FAR = 20.0
"""A target so many times as large as all values that were seen may be of another unit, as 94 (%) for 0.94."""


def of_another_unit(target: float, values: Iterable[float]) -> bool:
    """Whether a target is far above all values that were seen, and above what a share can be."""
    return abs(target) > max([1.0, *(FAR * abs(value) for value in values)])


def has_learned(points: Sequence[Point]) -> bool:
    """Whether the loss has clearly fallen over three points or more."""
    losses = [loss for loss, _ in judged(points)]
    return len(losses) >= 3 and losses[0] - losses[-1] > CLEAR * abs(losses[0])


def judged(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Loss and metric of the points that have both: the validation loss, or where there is none that of training."""
    name = "valid_loss" if any(point.valid_loss is not None for point in points) else "train_loss"
    pairs = [(getattr(point, name), point.valid_metric) for point in points]
    return [(loss, value) for loss, value in pairs if loss is not None and value is not None]


def looks_wrong(points: Sequence[Point], declared: Direction) -> bool:
    """Whether the metric of a run that has learned clearly got worse, as declared, the lower its loss became.

    At every point of few, in rank of many. False where nothing can be told: a metric that is 0 at the end may be that
    of a model which guesses one class alone, as F1 may begin.
    """
    if not has_learned(points):
        return False
    losses, values = zip(*judged(points), strict=True)
    moved = abs(values[-1] - values[0]) > CLEAR * max(abs(values[0]), abs(values[-1]))
    if values[-1] == 0 or not moved:
        return False
    goodness = values if declared == "max" else [-value for value in values]
    if len(values) < FEWEST_PAIRS:
        return all(after <= before for before, after in itertools.pairwise(goodness))
    found = rank_correlation(losses, goodness)
    return found is not None and goodness[-1] < goodness[0] and found.correlation > AGAINST


def other(direction: Direction) -> Direction:
    """The other one."""
    return "min" if direction == "max" else "max"
