"""Seconds per step against batch size: t(B) = max(floor, alpha + beta B).

`floor` is what a step costs however small (launching operations), `alpha` the fixed part beyond it, `beta` the seconds
of one more example. The throughput B / t(B) rises to 1 / beta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rightbatch.errors import InputError
from rightbatch.records import Interval, StepTime

Array = NDArray[np.float64]
RESAMPLES = 200


@dataclass(frozen=True)
class StepTimeFit:
    """The three parameters in seconds, and the deviation of log times about the law (its misfit)."""

    floor_seconds: Interval
    alpha_seconds: Interval
    beta_seconds: Interval
    deviation: float

    def predict(self, batch_size: float) -> float:
        """Seconds per step by the law."""
        linear = self.alpha_seconds.estimate + self.beta_seconds.estimate * batch_size
        return max(self.floor_seconds.estimate, linear)


@dataclass(frozen=True)
class Saturation:
    """Where throughput saturates: the smallest measured size with 90 % of the best measured examples per second."""

    batch_size: int
    examples_per_second: float
    peak_batch_size: int
    peak_examples_per_second: float
    at_edge: bool


@dataclass(frozen=True)
class PowerOfTwo:
    """Time of a power of two over the geometric mean of its neighbours' times (one less, one more), of some rounds."""

    batch_size: int
    ratio: Interval
    rounds: int

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 1 and the difference is at least 2 %."""
        return 1.0 not in self.ratio and abs(self.ratio.estimate - 1) >= 0.02


def median_seconds(record: StepTime) -> float:
    """Median seconds per step over the repeats."""
    return float(np.median(record.seconds))


def median_error(record: StepTime) -> float:
    """Standard error of the log of the median step time; 0 for one repeat, which says nothing of it.

    By the order statistics between which the median lies with 90 % or more (all of them, where they are few): that
    assumes nothing of the noise, bears a repeat that stands out, and sees it where half of them were taken on a busy
    machine.
    """
    logs, count = sorted(map(math.log, record.seconds)), len(record.seconds)
    if count < 2:
        return 0.0
    outside = [2 * sum(math.comb(count, k) for k in range(left_out + 1)) / 2**count for left_out in range(count // 2)]
    left_out = max((k for k, share in enumerate(outside) if share <= 0.1), default=0)
    width = NormalDist().inv_cdf(1 - outside[left_out] / 2)
    return (logs[-1 - left_out] - logs[left_out]) / (2 * width)


def fit_step_time(records: Sequence[StepTime], level: float = 0.95) -> StepTimeFit:
    """Fit the law to the median step time of each size, least squares in relative error.

    Intervals are from resampling the repeats (round by round). Raises `InputError` with fewer than two sizes.
    """
    if len(records) < 2:
        raise InputError(f"A fit of step time needs at least two batch sizes, got {len(records)}.")
    records = sorted(records, key=lambda r: r.batch_size)
    sizes = np.array([r.batch_size for r in records], float)
    times = np.array([median_seconds(r) for r in records])
    estimate = _fit(sizes, times)
    rounds = min(len(r.seconds) for r in records)
    table = np.array([r.seconds[:rounds] for r in records])
    generator = np.random.default_rng(0)
    draws = [
        _fit(sizes, np.median(table[:, generator.integers(rounds, size=rounds)], axis=1)) for _ in range(RESAMPLES)
    ]
    tails = [50 * (1 - level), 100 - 50 * (1 - level)]
    low, high = np.percentile(np.array(draws), tails, axis=0)
    floor, alpha, beta = (
        # A resampled interval may miss the estimate of few repeats; an interval holds its estimate.
        Interval(float(e), float(min(e, lo)), float(max(e, hi)), level)
        for e, lo, hi in zip(estimate, low, high, strict=True)
    )
    predicted = np.maximum(floor.estimate, alpha.estimate + beta.estimate * sizes)
    deviation = float(np.sqrt(np.mean((np.log(times) - np.log(predicted)) ** 2)))
    return StepTimeFit(floor, alpha, beta, deviation)


def _fit(sizes: Array, times: Array) -> tuple[float, float, float]:
    """Every number of smallest sizes may lie on the floor; the best of these fits, each in closed form."""
    best: tuple[float, tuple[float, float, float]] | None = None
    for on_floor in range(len(sizes) - 1):
        alpha, beta = _line(sizes[on_floor:], times[on_floor:])
        # The floor minimises the relative error of the sizes on it: sum(1/t) / sum(1/t^2).
        flat = times[:on_floor]
        floor = float((1 / flat).sum() / (1 / flat**2).sum()) if on_floor else alpha
        predicted = np.maximum(floor, alpha + beta * sizes)
        # One more parameter must earn its place: 2 in Akaike's criterion, n log(squares) + 2 k.
        squares = float((((predicted - times) / times) ** 2).sum())
        score = len(sizes) * math.log(squares / len(sizes) + 1e-12) + (2.0 if on_floor else 0.0)
        if best is None or score < best[0]:
            best = (score, (floor, alpha, beta))
    assert best is not None  # at least two sizes
    return best[1]


def _line(sizes: Array, times: Array) -> tuple[float, float]:
    """alpha, beta >= 0 of the least relative error."""
    design = np.column_stack([1 / times, sizes / times])
    (alpha, beta), *_ = np.linalg.lstsq(design, np.ones(len(times)), rcond=None)
    if beta < 0:
        return float((1 / times).sum() / (1 / times**2).sum()), 0.0
    if alpha < 0:
        x = sizes / times
        return 0.0, float(x.sum() / (x**2).sum())
    return float(alpha), float(beta)


def saturation(records: Sequence[StepTime]) -> Saturation:
    """Where throughput saturates, among the sizes measured. `at_edge`: the largest one is still the best."""
    speeds = {r.batch_size: r.batch_size / median_seconds(r) for r in sorted(records, key=lambda r: r.batch_size)}
    peak = max(speeds, key=lambda size: speeds[size])
    enough = min(size for size in speeds if speeds[size] >= 0.9 * speeds[peak])
    return Saturation(enough, speeds[enough], peak, speeds[peak], at_edge=peak == max(speeds) and len(speeds) > 1)


def powers_of_two(records: Sequence[StepTime], level: float = 0.95) -> tuple[PowerOfTwo, ...]:
    """Whether powers of two are special here: each that was measured together with its two neighbours.

    The ratio is taken round by round (the three are measured in turn); its interval is that of the median by order
    statistics resampled, which assumes nothing of the noise.
    """
    by_size = {r.batch_size: r for r in records}
    found = []
    generator = np.random.default_rng(0)
    for size, record in sorted(by_size.items()):
        if size < 4 or size & (size - 1) or size - 1 not in by_size or size + 1 not in by_size:
            continue
        below, above = by_size[size - 1], by_size[size + 1]
        rounds = min(len(r.seconds) for r in (below, record, above))
        logs = np.log(record.seconds[:rounds]) - 0.5 * (np.log(below.seconds[:rounds]) + np.log(above.seconds[:rounds]))
        medians = np.median(logs[generator.integers(rounds, size=(2000, rounds))], axis=1)
        low, high = np.percentile(medians, [50 * (1 - level), 100 - 50 * (1 - level)])
        centre = float(np.median(logs))
        ratio = Interval(math.exp(centre), math.exp(min(low, centre)), math.exp(max(high, centre)), level)
        found.append(PowerOfTwo(size, ratio, rounds))
    return tuple(found)


def unsteady(seconds: Sequence[float]) -> tuple[int, ...]:
    """Positions of repeats that stand out: modified z-score above 3.5 (Iglewicz and Hoaglin 1993)."""
    times = np.asarray(seconds)
    deviation = np.abs(times - np.median(times))
    scale = np.median(deviation)
    if scale == 0:
        return ()
    return tuple(int(k) for k in np.flatnonzero(0.6745 * deviation / scale > 3.5))
