"""What was measured, as the log of it with a standard error: what effects are computed with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rightbatch.fit.quantiles import t_interval, t_quantile
from rightbatch.means import out_of_logs
from rightbatch.records import Interval


@dataclass(frozen=True)
class Known:
    """The log of something measured, and its standard error."""

    log: float
    error: float

    def interval(self, freedom: int, level: float = 0.95) -> Interval:
        """Its t interval, in its own unit."""
        return out_of_logs(t_interval(self.log, self.error, freedom, level))


def from_interval(interval: Interval, freedom: int) -> Known | None:
    """A log with its error, from an interval; None where that is not bounded."""
    low, high = interval.low or 0.0, interval.high or math.inf
    if low <= 0 or not math.isfinite(high):
        return None
    wider = max(math.log(interval.estimate / low), math.log(high / interval.estimate))
    return Known(math.log(interval.estimate), wider / t_quantile(0.5 + interval.level / 2, freedom))


def rate_known(best: Interval, freedom: int) -> Known | None:
    """The log of a best rate, from its interval.

    Known only to lie between the rates tried beside it, it is within half a step of the best one of them (so it is for
    any parabola), and may be anywhere there (uniform).
    """
    if not best.low or not best.high:
        return None
    if best.note:
        return Known(math.log(best.estimate), math.log(best.high / best.low) / 2 / math.sqrt(12))
    return from_interval(best, freedom)
