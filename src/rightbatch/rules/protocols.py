"""How good runs became, under a protocol: what was given to all sizes alike, and how the rate was chosen.

Papers that disagree on whether large batches are worse have mostly given sizes different things. The same curves can be
read under each protocol, without training again.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch import curves
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.nearness import nearest
from rightbatch.records import Direction, Point, Run, StopReason
from rightbatch.rules.effects import Untold

WHOLE = 0.9
"""A run counts as whole that has at least this share of the examples of the longest."""


Cells = dict[tuple[int, float], list[float]]
"""The qualities of the runs of each batch size and rate."""

LAST_RUNG = 0.85
"""The last evaluation within a budget lies at least at this share of it (rungs are 8 % apart)."""


class Budget(enum.Enum):
    """What all sizes are given alike. The value is what people read."""

    EPOCHS = "equal epochs"
    STEPS = "equal steps"
    SECONDS = "equal seconds"


class Tuning(enum.Enum):
    """How the rate of a size was chosen."""

    ONE_RATE = "one rate"
    TUNED = "rate tuned"


@dataclass(frozen=True)
class Protocol:
    """A budget and a tuning."""

    budget: Budget
    tuning: Tuning

    def __str__(self) -> str:
        return f"{self.budget.value}, {self.tuning.value}"


@dataclass(frozen=True)
class SizeQuality:
    """How good the runs of a size became: mean over seeds as a share of the gain, and its standard error."""

    batch_size: int
    learning_rate: float
    value: float
    error: float
    seeds: int


@dataclass(frozen=True)
class Qualities:
    """The sizes of a study under one protocol. Values grow as runs get better; 1 is the whole gain of the best.

    `deviation` is that of one run about the mean of its cell, `freedom` its degrees of freedom.
    """

    protocol: Protocol
    sizes: tuple[SizeQuality, ...]
    deviation: float
    freedom: int

    @property
    def given(self) -> str:
        """The protocol in words, with the rate where it is one for all."""
        one = f" ({self.sizes[0].learning_rate:g})" if self.protocol.tuning is Tuning.ONE_RATE else ""
        return f"{self.protocol}{one}"

    def mean(self, sizes: Sequence[SizeQuality]) -> tuple[float, float]:
        """Mean over several sizes, and its standard error."""
        return (
            float(np.mean([one.value for one in sizes])),
            math.sqrt(sum(one.error**2 for one in sizes)) / len(sizes),
        )


def whole_runs(evidence: Evidence) -> tuple[Run, ...]:
    """Runs that went to their planned length, or diverged on the way to it; fresh seeds left out."""
    runs = [run for run in evidence.relevant if run.trial.seed < FRESH_SEED and run.points and run.stop]
    finished = [run for run in runs if run.stop and run.stop.reason is StopReason.FINISHED]
    if not finished:
        return ()
    longest = max(run.points[-1].examples for run in finished)
    diverged = [run for run in runs if run.stop and run.stop.reason is StopReason.DIVERGED]
    return tuple(run for run in finished if run.points[-1].examples >= WHOLE * longest) + tuple(diverged)


def cell_qualities(evidence: Evidence, budget: Budget) -> Cells | None:
    """The quality of every run by cell, in shares of the gain, within a budget that all sizes have; None without any.

    A run that diverged counts with the best that it had been. Runs that were not evaluated near the end of the budget
    are left out: the ladder is one of examples, and a small size passes a few steps before its first rung.
    """
    # No target enters, and several rules ask: kept beside the runs that it was read from, for every question.
    key = ("qualities", budget, id(evidence.runs), evidence.settings)
    if key not in evidence.memory:
        evidence.memory[key] = (evidence.runs, _read(evidence, budget))
    found: Cells | None = evidence.memory[key][1]
    return found


def _read(evidence: Evidence, budget: Budget) -> Cells | None:
    runs = whole_runs(evidence)
    sizes = sorted({run.trial.batch_size for run in runs})
    limits = _limits(evidence, runs, sizes, budget)
    if limits is None:
        return None
    direction = evidence.facts.direction
    cells: Cells = {}
    for run in runs:
        limit = limits[run.trial.batch_size]
        within = [point for point in run.points if point.step <= limit * (1 + 1e-9)]
        seen = within[-1].step >= LAST_RUNG * limit if within else False
        diverged = run.stop is not None and run.stop.reason is StopReason.DIVERGED
        value = curves.quality(within, direction) if seen or diverged else None
        if value is not None:
            cells.setdefault((run.trial.batch_size, run.trial.learning_rate), []).append(value)
    starts = [value for run in runs if (value := curves.quality(run.points[:1], direction)) is not None]
    if not cells or not starts:
        return None
    start = float(np.median(starts))
    means = [float(np.mean(values)) for values in cells.values()]
    best = max(means) if direction == "max" else min(means)
    if best == start:
        return None
    return {cell: [(value - start) / (best - start) for value in values] for cell, values in cells.items()}


def _limits(evidence: Evidence, runs: Sequence[Run], sizes: Sequence[int], budget: Budget) -> dict[int, float] | None:
    """The last step that counts, by size: that of the sizes of which a run came to its end."""
    ends: dict[int, int] = {}
    for run in runs:
        if run.stop is not None and run.stop.reason is StopReason.FINISHED:
            ends[run.trial.batch_size] = max(run.points[-1].step, ends.get(run.trial.batch_size, 0))
    if not ends:
        return None
    if budget is Budget.EPOCHS:
        examples = min(size * step for size, step in ends.items())
        return {size: max(examples / size, 1) for size in sizes}
    if budget is Budget.STEPS:
        return dict.fromkeys(sizes, float(min(ends.values())))
    seconds = {size: evidence.step_seconds(size) for size in sizes}
    if any(value is None for value in seconds.values()):
        return None
    known = {size: value for size, value in seconds.items() if value is not None}
    shared = min(step * known[size] for size, step in ends.items())
    return {size: shared / known[size] for size in sizes}


def qualities(evidence: Evidence, protocol: Protocol) -> Qualities | Untold:
    """How good each size became under a protocol, or why that is not known."""
    cells = cell_qualities(evidence, protocol.budget)
    if not cells or len({size for size, _ in cells}) < 2:
        return Untold("no two batch sizes were trained to the same planned length")
    # Of rates that diverge, what a run had reached before is a matter of luck: only cells near the best tell of seeds.
    near = [v for v in cells.values() if len(v) > 1 and float(np.mean(v)) > 0.9]
    squares = sum(float(((np.array(v) - np.mean(v)) ** 2).sum()) for v in near)
    freedom = sum(len(v) - 1 for v in near)
    if freedom < 1:
        return Untold("one seed everywhere: differences of quality may be luck")
    deviation = math.sqrt(squares / freedom)
    rate = _one_rate(evidence, cells) if protocol.tuning is Tuning.ONE_RATE else None
    found = []
    for size in sorted({size for size, _ in cells}):
        own = {r: v for (s, r), v in cells.items() if s == size and (rate is None or r == rate)}
        best = _best_rate(own, deviation) if rate is None else rate if own else None
        if best is not None:
            values = own[best]
            found.append(
                SizeQuality(size, best, float(np.mean(values)), deviation / math.sqrt(len(values)), len(values))
            )
    if len(found) < 2:
        if rate is None:
            return Untold("at most one batch size has its best rate between others that were tried")
        return Untold("no rate was tried at two batch sizes")
    return Qualities(protocol, tuple(found), deviation, freedom)


def _best_rate(qualities_of: Mapping[float, Sequence[float]], deviation: float) -> float | None:
    """The rate of the best mean; None where that is the first or the last one tried and beyond luck the best.

    There a better one may not have been tried. Where one between others is as good within two standard errors, that.
    """

    def mean(rate: float) -> float:
        return float(np.mean(qualities_of[rate]))

    between = [rate for rate in qualities_of if min(qualities_of) < rate < max(qualities_of)]
    best, inner = max(qualities_of, key=mean), max(between, key=mean, default=None)
    if inner is None:
        return None
    counts = len(qualities_of[best]), len(qualities_of[inner])
    return inner if mean(best) - mean(inner) <= 2 * deviation * math.sqrt(sum(1 / n for n in counts)) else None


def _one_rate(evidence: Evidence, cells: Cells) -> float:
    """The rate that was tried at most sizes; of several, the one nearest to the present or the best one."""
    counts: dict[float, int] = {}
    for _, rate in cells:
        counts[rate] = counts.get(rate, 0) + 1
    most = max(counts.values())
    present = evidence.facts.present
    wanted = present[1] if present else max(cells, key=lambda cell: float(np.mean(cells[cell])))[1]
    return nearest((rate for rate, n in counts.items() if n == most), wanted)


def still_improving(evidence: Evidence, found: Qualities, tolerance: float) -> list[int]:
    """Sizes whose runs were still getting better at their end: by more than the tolerance over the last third."""
    direction = evidence.facts.direction
    runs = whole_runs(evidence)
    gain = _gain(runs, direction)
    improving = []
    for one in found.sizes:
        own = [
            run
            for run in runs
            if (run.trial.batch_size, run.trial.learning_rate) == (one.batch_size, one.learning_rate)
        ]
        last = [
            abs(whole - before) / gain
            for run in own
            if (whole := curves.quality(run.points, direction)) is not None
            and (before := curves.quality(_first_part(run, 2 / 3), direction)) is not None
        ]
        if last and float(np.mean(last)) > tolerance:
            improving.append(one.batch_size)
    return improving


def _first_part(run: Run, share: float) -> list[Point]:
    end = run.points[-1].examples * share
    return [point for point in run.points if point.examples <= end]


def _gain(runs: Sequence[Run], direction: Direction) -> float:
    """From where runs start to the best that any got to."""
    values = [value for run in runs if (value := curves.quality(run.points, direction)) is not None]
    starts = [value for run in runs if (value := curves.quality(run.points[:1], direction)) is not None]
    best = max(values) if direction == "max" else min(values)
    return abs(best - float(np.median(starts))) or 1.0
