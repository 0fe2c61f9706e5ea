"""One shape with two parameters that several laws share: log y = log a + s * log(1 + c / B), s = 1 or -1.

Given c, the best a is in closed form, so the fit is a search along one line, and the interval of c comes from its
profile: all c whose sum of squares stays below an F quantile. That interval may be unbounded, and says so by 0 or
infinity, where the sizes tried do not show the bend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are loaded when they are first used: who fits nothing does not wait for them
from numpy.typing import NDArray

from rightbatch.errors import InputError
from rightbatch.fit.quantiles import f_quantile
from rightbatch.records import Interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HyperbolaFit:
    """`scale` is a, `knee` is c in log y = log a + sign * log(1 + c / B); `deviation` is that of the log residuals."""

    scale: Interval
    knee: Interval
    deviation: float | None
    freedom: int
    sign: int

    def predict(self, batch_size: float) -> float:
        """The fitted y at a batch size."""
        return float(self.scale.estimate * (1 + self.knee.estimate / batch_size) ** self.sign)


def fit_hyperbola(
    batch_sizes: Sequence[float], values: Sequence[float], *, sign: int, level: float = 0.95
) -> HyperbolaFit:
    """Least squares in log values, every batch size counted once.

    `values` has one value (a geometric mean over seeds) a batch size, shape `[sizes]`. The noise about the law is
    judged by the residuals of the sizes, `sizes - 2` degrees of freedom: it holds the noise of seeds and the misfit of
    the law alike, so the interval stays honest where the law is only roughly true.

    Raises
    ------
    InputError: With fewer than three sizes, or values that are not positive.
    """
    sizes, y = np.asarray(batch_sizes, float), np.asarray(values, float)
    if len(sizes) < 3 or len(np.unique(sizes)) != len(sizes):
        raise InputError(
            f"A fit of two parameters needs at least three different batch sizes, got {list(batch_sizes)}."
        )
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise InputError(f"Values must be positive and finite, got {list(values)}.")
    line = _Line(sizes, np.log(y), sign)
    low_end, high_end = math.log(sizes.min()) - 9, math.log(sizes.max()) + 9
    grid = np.linspace(low_end, high_end, 145)
    squares = line.squares(grid)
    best = int(np.argmin(squares))
    bracket = (grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)])
    found = scipy.optimize.minimize_scalar(
        lambda u: float(line.squares(np.array([u]))[0]), bounds=bracket, method="bounded", options={"xatol": 1e-9}
    )
    knee_log = float(found.x)
    least = float(found.fun)
    freedom = len(sizes) - 2
    # Relative to the noise of a double, so that noiseless data get a narrow interval and not a division by zero.
    floor = 1e-24 * len(sizes)
    limit = (least + floor) * (1 + f_quantile(level, freedom) / freedom)
    low = _edge(line, knee_log, low_end, limit)
    high = _edge(line, knee_log, high_end, limit)
    knee = Interval(
        math.exp(knee_log),
        0.0 if low is None else math.exp(low),
        math.inf if high is None else math.exp(high),
        level,
        note=_note(low, high, sizes),
    )
    ends = low_end if low is None else low, high_end if high is None else high
    scale = _scale_interval(line, knee_log, *ends, limit=limit, level=level)
    if low is None or high is None:
        scale = Interval(scale.estimate, 0.0, math.inf, level)
    return HyperbolaFit(scale, knee, math.sqrt(least / freedom), freedom, sign)


@dataclass(frozen=True)
class _Line:
    """Sums of squares along log c, with log a at its best for each."""

    sizes: Array
    logs: Array
    sign: int

    def shapes(self, knee_logs: Array) -> Array:
        # log(1 + c / B) without overflow for a large c.
        return np.asarray(self.sign * np.logaddexp(0.0, knee_logs[:, None] - np.log(self.sizes)[None, :]))

    def residuals(self, knee_logs: Array) -> Array:
        rest = self.logs[None, :] - self.shapes(knee_logs)
        return np.asarray(rest - rest.mean(axis=1, keepdims=True))

    def squares(self, knee_logs: Array) -> Array:
        return np.asarray((self.residuals(knee_logs) ** 2).sum(axis=1))

    def intercepts(self, knee_logs: Array) -> Array:
        return np.asarray((self.logs[None, :] - self.shapes(knee_logs)).mean(axis=1))


def _edge(line: _Line, centre: float, end: float, limit: float) -> float | None:
    """Where the profile rises through its limit between the centre and an end; None if it never does."""

    def above(u: float) -> float:
        return float(line.squares(np.array([u]))[0]) - limit

    # The first crossing seen from the centre: the profile is flat far out, and may have dips there.
    steps = np.linspace(centre, end, 200)
    over = np.flatnonzero(line.squares(steps) > limit)
    if not len(over):
        return None
    k = int(over[0])
    return float(scipy.optimize.brentq(above, steps[k - 1], steps[k])) if k > 0 else float(steps[0])


def _scale_interval(line: _Line, centre: float, low: float, high: float, *, limit: float, level: float) -> Interval:
    """The profile interval of the scale: for each knee inside its own interval, all scales below the same limit.

    Off its best, a log scale adds `sizes` times its squared distance to the sum of squares.
    """
    knees = np.concatenate([np.linspace(low, high, 401), [centre]])
    slack = np.sqrt(np.maximum(0.0, limit - line.squares(knees)) / len(line.sizes))
    best = line.intercepts(knees)
    middle = float(best[-1])
    ends = float((best - slack).min()), float((best + slack).max())
    return Interval(math.exp(middle), math.exp(ends[0]), math.exp(ends[1]), level)


def _note(low: float | None, high: float | None, sizes: Array) -> str:
    if low is None and high is None:
        return f"not bounded by sizes {sizes.min():g} to {sizes.max():g}"
    if high is None:
        return f"not bounded above by sizes up to {sizes.max():g}"
    return f"not bounded below by sizes from {sizes.min():g}" if low is None else ""
