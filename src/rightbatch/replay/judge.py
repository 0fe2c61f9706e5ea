"""What the advice of a search was worth: regret from moment to moment of one play, and over the plays of one target.

Regret is the median judged time of the recommended batch size and rate over the reference time of the target. It is
infinite where half of the judging seeds or more miss, and may be below 1: the reference is a choice too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rightbatch.replay.scale import Scale, judged_seconds
from rightbatch.replay.table import Array, Cell
from rightbatch.replay.world import Moment, World

SPENDS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0)
"""Spends, in units, at which regret is told."""

COVERED_AFTER = (0.5, 1.0, 3.0)
"""Spends, in units, at which stated intervals are held against the judging seeds; and at the end."""

RANGE_AFTER = 0.25
"""The spend, in units, after which the stated range of batch sizes is held against the best one."""

GOOD = 1.25
"""A regret that is good enough."""


@dataclass(frozen=True)
class Play:
    """One repeat: what was advised from each moment on, judged. Every array has shape `[moments]`.

    `missing` is the share of judging seeds that miss the target, `judged` their number, and `covered` how many of them
    lie in the stated interval of seconds (NaN where none was stated; a miss is not covered). `smallest` and `largest`
    are the stated range of batch sizes (NaN where there is none). `reached`: the recommended batch size and rate had
    got to the target in the search's own runs. `floor` is the regret of an oracle that knows one seed of every cell.
    """

    spent_units: Array
    regret: Array
    missing: Array
    judged: Array
    covered: Array
    smallest: Array
    largest: Array
    reached: Array
    floor: float

    def at(self, units: float) -> int:
        """The position of the moment that holds after a spend."""
        return int(np.searchsorted(self.spent_units, units, side="right")) - 1


def judge(world: World, moments: Sequence[Moment]) -> Play:
    """Hold what a search advised against the judging seeds."""
    judged: dict[Cell, tuple[float, float, float]] = {}
    rows = []
    for moment in moments:
        guess = moment.guess
        times = world.judging[guess.batch_size, guess.learning_rate]
        if (cell := (guess.batch_size, guess.learning_rate)) not in judged:
            regret = world.judge(guess) / world.scale.reference_seconds
            judged[cell] = regret, float(np.isinf(times).mean()), float(len(times))
        covered = math.nan
        if guess.seconds is not None:
            covered = float(sum(math.isfinite(seconds) and seconds in guess.seconds for seconds in times.tolist()))
        spent = moment.spent_seconds / world.scale.unit_seconds
        rows.append((spent, *judged[cell], covered, *(guess.sizes or (math.nan, math.nan)), float(moment.reached)))
    spent_units, regret, missing, seeds, covered_seeds, smallest, largest, reached = _changes(np.array(rows)).T
    floor = floor_regret(world)
    return Play(spent_units, regret, missing, seeds, covered_seeds, smallest, largest, reached, floor)


def _changes(rows: Array) -> Array:
    """Rows that say something else than the one before them; what is in the first column alone does not count."""
    same = (rows[1:, 1:] == rows[:-1, 1:]) | (np.isnan(rows[1:, 1:]) & np.isnan(rows[:-1, 1:]))
    kept: Array = rows[np.concatenate([[True], ~same.all(axis=1)])]
    return kept


def floor_regret(world: World) -> float:
    """The regret of whoever knows one seed of every cell that is offered, and takes the fastest."""
    best = min(world.times, key=lambda cell: world.times[cell][0] if len(world.times[cell]) else math.inf)
    return judged_seconds(world.judging[best]) / world.scale.reference_seconds


# ------------------------------------------------------------------------------------------------- over many plays


@dataclass(frozen=True)
class Regret:
    """Median and 90th percentile over plays, and the share that is infinite: the recommendation misses the target."""

    median: float
    ninetieth: float
    missing: float


@dataclass(frozen=True)
class AfterSpend:
    """What held after one spend, in units. `covered`: of the judging seeds where an interval was stated; else None."""

    spend_units: float
    regret: Regret
    covered: float | None


@dataclass(frozen=True)
class SizeRange:
    """The stated range of batch sizes after a quarter of a unit: how often it held the best size, and how wide it was.

    Widths are means in factors of two, `prior_width_doublings` that before any run.
    """

    holds_best: float
    width_doublings: float
    prior_width_doublings: float


@dataclass(frozen=True)
class Final:
    """Of the last recommendations: the shares that had reached the target in the search's own runs, and that miss.

    `missing`: half of the judging seeds or more; `missing_any`: at least one of them.
    """

    reached: float
    missing: float
    missing_any: float


@dataclass(frozen=True)
class Outcome:
    """One strategy on one target of one table. `lasting_units` is the spend from which on it was lastingly good.

    It is infinite where that was not so within `until_units`.
    """

    strategy: str
    repeats: int
    until_units: float
    after: tuple[AfterSpend, ...]
    lasting_units: float
    final: Final
    covered: float | None
    sizes: SizeRange | None


def outcome_of(strategy: str, scale: Scale, plays: Sequence[Play], until_units: float) -> Outcome:
    """What all plays of one strategy on one target say."""
    spends = sorted({spend for spend in SPENDS if spend < until_units} | {until_units})
    after = tuple(AfterSpend(spend, regret_of(regrets(plays, spend)), coverage(plays, [spend])) for spend in spends)
    return Outcome(
        strategy,
        len(plays),
        until_units,
        after,
        lasting(plays, until_units),
        final(plays, until_units),
        coverage(plays, covered_after(until_units)),
        size_range([(play, scale.best[0]) for play in plays]) if until_units >= RANGE_AFTER else None,
    )


def regrets(plays: Sequence[Play], units: float) -> Array:
    """The regret of every play after a spend, shape `[plays]`."""
    return np.array([play.regret[play.at(units)] for play in plays])


def regret_of(values: Array) -> Regret:
    """Median, 90th percentile (an order statistic: infinite ones are not interpolated) and share of misses."""
    ninetieth = float(np.quantile(values, 0.9, method="inverted_cdf"))
    return Regret(float(np.median(values)), ninetieth, float(np.isinf(values).mean()))


def lasting(plays: Sequence[Play], until_units: float, good: float = GOOD) -> float:
    """The spend, in units, from which on the median regret stays good; infinite if it is not so at `until_units`.

    The median is good while more than half of the plays are.
    """
    times, changes = changes_to_good(plays, good)
    return lasting_of(times, changes, len(plays), until_units)


def changes_to_good(plays: Sequence[Play], good: float = GOOD) -> tuple[Array, npt.NDArray[np.int64]]:
    """When plays become good (1) or stop to be (-1): the spends, in units, and which; shape `[changes]`, unsorted."""
    times, changes = [], []
    for play in plays:
        change = np.diff((play.regret <= good).astype(np.int64), prepend=0)
        times.append(play.spent_units[change != 0])
        changes.append(change[change != 0])
    return np.concatenate(times), np.concatenate(changes)


def lasting_of(times: Array, changes: npt.NDArray[np.int64], plays: int, until_units: float) -> float:
    """`lasting`, from the changes of so many plays."""
    within = times <= until_units
    # At one spend what becomes good counts before what stops to be, or a play that does both would end a lasting state.
    order = np.lexsort((-changes[within], times[within]))
    spends, count = times[within][order], np.cumsum(changes[within][order])
    short = np.flatnonzero(2 * count <= plays)
    first = int(short[-1]) + 1 if len(short) else 0
    return float(spends[first]) if first < len(spends) else math.inf


def coverage(plays: Sequence[Play], spends: Sequence[float]) -> float | None:
    """The share of judging seeds in the stated interval, over plays and spends; None where no interval was stated."""
    covered = judged = 0.0
    for play in plays:
        for units in spends:
            k = play.at(units)
            if not math.isnan(play.covered[k]):
                covered, judged = covered + play.covered[k], judged + play.judged[k]
    return covered / judged if judged else None


def covered_after(until_units: float) -> tuple[float, ...]:
    """The spends over which coverage is pooled, in units: the usual ones, and the end."""
    return (*(spend for spend in COVERED_AFTER if spend <= until_units), until_units)


def final(plays: Sequence[Play], until_units: float) -> Final:
    """What is said of the recommendations at the end."""
    ends = [(play, play.at(until_units)) for play in plays]

    def share(holds: Callable[[Play, int], bool]) -> float:
        return sum(holds(play, k) for play, k in ends) / len(ends)

    return Final(
        share(lambda play, k: bool(play.reached[k])),
        share(lambda play, k: math.isinf(play.regret[k])),
        share(lambda play, k: bool(play.missing[k] > 0)),
    )


def size_range(plays: Sequence[tuple[Play, int]]) -> SizeRange | None:
    """What is said of the stated ranges of batch sizes; each play with the size that is best. None without a range."""
    rows = []
    for play, best in plays:
        k = play.at(RANGE_AFTER)
        if math.isnan(play.smallest[k]) or math.isnan(play.smallest[0]):
            continue
        holds = bool(play.smallest[k] <= best <= play.largest[k])
        rows.append(
            (holds, math.log2(play.largest[k] / play.smallest[k]), math.log2(play.largest[0] / play.smallest[0]))
        )
    return SizeRange(*(float(value) for value in np.mean(np.array(rows, dtype=float), axis=0))) if rows else None
