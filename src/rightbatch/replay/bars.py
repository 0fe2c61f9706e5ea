"""What is said of a strategy over many tables and targets, with a bootstrap band over tables.

Tables are what was chosen, so they are what is drawn again with replacement; the plays of a table stay together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.records import Interval
from rightbatch.replay.judge import (
    Final,
    Play,
    Regret,
    SizeRange,
    changes_to_good,
    coverage,
    covered_after,
    final,
    lasting,
    lasting_of,
    regret_of,
    regrets,
    size_range,
)
from rightbatch.replay.scale import Scale
from rightbatch.replay.table import Array

DRAWS = 1000
"""Bootstrap draws of the tables."""

AFTER = (0.5, 1.0, 3.0)
"""Spends, in units, after which regret is told."""

LEAST_UNITS = 0.01
"""A cost below this counts as this in ratios: a prior that is good by luck is not infinitely cheap."""


@dataclass(frozen=True)
class Pair:
    """All plays of one strategy on one target of one table."""

    table: str
    scale: Scale
    strategy: str
    plays: tuple[Play, ...]


@dataclass(frozen=True)
class RegretBar:
    """Regret over all pairs after one spend, in units, with the share of recommendations that miss the target."""

    spend_units: float
    median: Interval
    ninetieth: Interval
    missing: float


@dataclass(frozen=True)
class TableBar:
    """One table: its median regret after the last of `AFTER`, and the cost to a lasting good median, in units."""

    median: float
    lasting_units: float


@dataclass(frozen=True)
class Bars:
    """One strategy over all tables and targets. Infinite: the target is missed, or a good median never lasts.

    `typical` is the geometric mean over tables of each one's median regret after the last of `AFTER`, `worst` the
    table where that is largest, `ninetieth_over_floor` the 90th percentile then over that of the oracle.
    """

    strategy: str
    tables: int
    pairs: int
    plays: int
    until_units: float
    regret: tuple[RegretBar, ...]
    typical: Interval
    worst: str
    floor_median: float
    floor_ninetieth: float
    ninetieth_over_floor: Interval
    lasting_units: Interval
    by_table: Mapping[str, TableBar]
    sizes: SizeRange | None
    final: Final
    covered: float | None


@dataclass(frozen=True)
class Ratio:
    """How many times the spend of one strategy another one needs to a lasting good median.

    `bound` is "at least" where the other did not get there, "at most" where this one did not, "unknown" where neither
    did; the cap of both then stands for the cost.
    """

    times: float
    bound: str = ""


BOUNDS = {(False, False): "", (False, True): "at least", (True, False): "at most", (True, True): "unknown"}
"""What a ratio is, by whether this strategy and whether the other one did not get there."""


@dataclass(frozen=True)
class Saving:
    """One strategy against another: the ratio of their costs for every table, and the geometric mean of these."""

    strategy: str
    other: str
    overall: Interval
    bound: str
    by_table: Mapping[str, Ratio]


def bars(pairs: Sequence[Pair], until_units: float) -> Bars:
    """What the pairs of one strategy say, all followed to the same spend of at least the last of `AFTER`, in units."""
    tables = by_table(pairs)
    values = {spend: [regrets(plays, spend) for plays in tables.values()] for spend in AFTER}
    last = values[AFTER[-1]]
    medians = [float(np.median(found)) for found in last]
    floors = [np.array([play.floor for play in plays]) for plays in tables.values()]
    floor = regret_of(np.concatenate(floors))
    changes = [(*changes_to_good(plays), len(plays)) for plays in tables.values()]
    plays = [play for pair in pairs for play in pair.plays]
    names = list(tables)

    def lasting_over(chosen: Sequence[int]) -> float:
        times, which = (np.concatenate([changes[k][part] for k in chosen]) for part in (0, 1))
        return lasting_of(times, which.astype(np.int64), sum(changes[k][2] for k in chosen), until_units)

    def ninetieth_over_floor(chosen: Sequence[int]) -> float:
        ours, oracle = (np.concatenate([found[k] for k in chosen]) for found in (last, floors))
        return _over(regret_of(ours).ninetieth, regret_of(oracle).ninetieth)

    return Bars(
        strategy=pairs[0].strategy,
        tables=len(tables),
        pairs=len(pairs),
        plays=len(plays),
        until_units=until_units,
        regret=tuple(_regret_bar(spend, found) for spend, found in values.items()),
        typical=banded(len(tables), lambda chosen: geometric_mean([medians[k] for k in chosen])),
        worst=names[int(np.argmax(medians))],
        floor_median=floor.median,
        floor_ninetieth=floor.ninetieth,
        ninetieth_over_floor=banded(len(tables), ninetieth_over_floor),
        lasting_units=banded(len(tables), lasting_over),
        by_table={
            name: TableBar(median, lasting(tables[name], until_units))
            for name, median in zip(names, medians, strict=True)
        },
        sizes=size_range([(play, pair.scale.best[0]) for pair in pairs for play in pair.plays]),
        final=final(plays, until_units),
        covered=coverage(plays, covered_after(until_units)),
    )


def saving(ours: Bars, other: Bars) -> Saving:
    """How many times our spend another strategy needs. Both were followed to the same spend, on the same tables."""
    cap = min(ours.until_units, other.until_units)
    found = {}
    for name in ours.by_table:
        own, its = ours.by_table[name].lasting_units, other.by_table[name].lasting_units
        times = min(max(its, LEAST_UNITS), cap) / min(max(own, LEAST_UNITS), cap)
        found[name] = Ratio(times, BOUNDS[own > cap, its > cap])
    times_of = [ratio.times for ratio in found.values()]
    bounds = {ratio.bound for ratio in found.values()} - {""}
    bound = bounds.pop() if len(bounds) == 1 else "unknown" if bounds else ""
    overall = banded(len(found), lambda chosen: geometric_mean([times_of[k] for k in chosen]))
    return Saving(ours.strategy, other.strategy, overall, bound, found)


def _regret_bar(spend_units: float, regrets_of_tables: Sequence[Array]) -> RegretBar:
    def over(chosen: Sequence[int]) -> Regret:
        return regret_of(np.concatenate([regrets_of_tables[k] for k in chosen]))

    tables = len(regrets_of_tables)
    median = banded(tables, lambda chosen: over(chosen).median)
    ninetieth = banded(tables, lambda chosen: over(chosen).ninetieth)
    return RegretBar(spend_units, median, ninetieth, over(range(tables)).missing)


def by_table(pairs: Sequence[Pair]) -> dict[str, list[Play]]:
    """The plays of every table, over its targets."""
    found: dict[str, list[Play]] = {}
    for pair in pairs:
        found.setdefault(pair.table, []).extend(pair.plays)
    return found


def banded(tables: int, statistic: Callable[[Sequence[int]], float]) -> Interval:
    """A statistic of tables (given by position) with its 95 % band over tables drawn again with replacement."""
    estimate = statistic(range(tables))
    if tables < 2:
        return Interval(estimate, note="one table: no band over tables")
    drawn = np.random.default_rng(0).integers(tables, size=(DRAWS, tables))
    values = np.array([statistic(row.tolist()) for row in drawn])
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return Interval(estimate, float(low), float(high))


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean, infinite where one of them is."""
    return math.exp(sum(math.log(value) for value in values) / len(values)) if math.inf not in values else math.inf


def _over(value: float, floor: float) -> float:
    return math.inf if math.isinf(value) else value / floor
