"""Regret and all that is said of it: against a slow twin that reads the raw rows, and on plays made up by hand."""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_tables import TARGET, write_table

from rightbatch.records import Interval
from rightbatch.replay.bars import Bars, Pair, TableBar, banded, bars, geometric_mean, saving
from rightbatch.replay.judge import (
    Final,
    Play,
    coverage,
    final,
    floor_regret,
    judge,
    lasting,
    outcome_of,
    regret_of,
    regrets,
    size_range,
)
from rightbatch.replay.scale import Scale, scale
from rightbatch.replay.strategies import SEARCHES
from rightbatch.replay.table import read_table
from rightbatch.replay.world import make_world

NAN = math.nan
SCALE = Scale(0.0, 1.0, 2.0, 4.0, (64, 0.1))


def play(*moments: tuple[float, float], missing: float = 0.0, reached: bool = True, floor: float = 1.0) -> Play:
    """A play of (spend, regret) pairs, with no intervals."""
    spent, regret = np.array(moments, dtype=float).T
    same = np.ones(len(spent))
    gaps = np.full(len(spent), NAN)
    return Play(spent, regret, missing * same, 3 * same, gaps, gaps, gaps, reached * same, floor)


# ----------------------------------------------------------------------------------------------- the slow twin


def seconds_by_hand(rows: list[dict[str, str]], target: float) -> dict[tuple[int, float, int], float]:
    """Seconds to the target of every run, from the text of the table alone."""
    runs: dict[tuple[int, float, int], list[tuple[int, float, float]]] = defaultdict(list)
    for row in rows:
        key = (int(row["batch_size"]), float(row["learning_rate"]), int(row["seed"]))
        runs[key].append((int(row["step"]), float(row["valid_metric"]), float(row["seconds"])))
    each: dict[int, list[float]] = defaultdict(list)
    for (size, _, _), points in runs.items():
        step, _, seconds = max(points)
        each[size].append(seconds / step)
    found = {}
    for key, points in runs.items():
        points.sort()
        steps = math.inf
        for k in range(len(points) - 1):
            if points[k][1] >= target and points[k + 1][1] >= target:
                steps = points[k][0]
                if k and math.isfinite(points[k - 1][1]):
                    (s0, v0, _), (s1, v1, _) = points[k - 1], points[k]
                    part = (target - v0) / (v1 - v0)
                    steps = math.exp(math.log(s0) + part * (math.log(s1) - math.log(s0)))
                break
        found[key] = steps * statistics.median(each[key[0]])
    return found


@pytest.mark.parametrize("name", ["random", "rightbatch"])
@pytest.mark.parametrize("cap_seconds", [3.0, 0.5])
def test_regret_is_what_the_raw_rows_say(tmp_path: Path, name: str, cap_seconds: float) -> None:
    path = write_table(
        tmp_path / "t.csv",
        seeds=lambda size, rate: 4,
        noise=0.5,
        broken=lambda size, rate: rate == 0.3,
        cap_seconds=cap_seconds,
    )
    with path.open() as lines:
        seconds = seconds_by_hand(list(csv.DictReader(lines)), TARGET)
    table = read_table(path)
    found = scale(table, TARGET)
    assert found is not None
    regrets_seen = set()
    for repeat in range(2):
        world = make_world(table, found, repeat)
        moments = world.play(SEARCHES[name](world.told), 3 * found.unit_seconds)
        judged = judge(world, moments)
        for moment in moments:
            cell = (moment.guess.batch_size, moment.guess.learning_rate)
            own = {run.trial.seed for run in world.seen[cell]}
            others = sorted(seconds[(*cell, seed)] for seed in range(4) if seed not in own)
            assert len(others) == 2
            misses = sum(math.isinf(value) for value in others)
            slow = math.inf if misses >= 1 else sum(others) / 2 / found.reference_seconds
            k = judged.at(moment.spent_seconds / found.unit_seconds)
            assert judged.regret[k] == pytest.approx(slow, rel=1e-4)
            assert judged.missing[k] == misses / 2
            if moment.guess.seconds is not None:
                low, high = moment.guess.seconds.low, moment.guess.seconds.high
                assert low is not None
                assert high is not None
                assert judged.covered[k] == sum(low <= value <= high and math.isfinite(value) for value in others)
            regrets_seen.add(slow)
        known = {cell: seconds[(*cell, runs[0].trial.seed)] for cell, runs in world.seen.items()}
        best = min(known, key=lambda cell: known[cell])
        others = [seconds[(*best, s)] for s in range(4) if s not in {run.trial.seed for run in world.seen[best]}]
        assert floor_regret(world) == pytest.approx(sum(others) / 2 / found.reference_seconds, rel=1e-4)
    assert len(regrets_seen) > 1


# --------------------------------------------------------------------------------------------- over many plays


def test_quantiles_do_not_mix_with_infinity() -> None:
    found = regret_of(np.array([1.0] * 8 + [2.0, math.inf]))
    assert (found.median, found.ninetieth, found.missing) == (1.0, 2.0, 0.1)
    assert regret_of(np.array([1.0] * 8 + [math.inf] * 2)).ninetieth == math.inf


def test_what_holds_after_a_spend_is_the_last_advice_before_it() -> None:
    one = play((0, 4.0), (0.5, 2.0), (0.5, 1.5), (2, 1.0))
    assert [one.regret[one.at(units)] for units in (0, 0.49, 0.5, 1.99, 2, 99)] == [4.0, 4.0, 1.5, 1.5, 1.0, 1.0]
    assert regrets([one, play((0, 3.0))], 1.0).tolist() == [1.5, 3.0]


made_up = st.lists(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from([1.0, 1.25, 1.3, 9.0, math.inf])), max_size=6),
    min_size=1,
    max_size=7,
)


@settings(derandomize=True, deadline=None, max_examples=120)
@given(made_up, st.sampled_from([1.0, math.inf]), st.integers(1, 13))
def test_lasting_is_what_a_walk_over_all_spends_finds(
    changes: list[list[tuple[int, float]]], first: float, until: int
) -> None:
    plays = [play((0, first), *sorted(of, key=lambda change: change[0])) for of in changes]
    found = math.inf
    for spend in reversed(range(until + 1)):
        good = sum(bool(regret <= 1.25) for regret in regrets(plays, spend))
        if not good > len(plays) / 2:
            break
        found = spend
    assert lasting(plays, until) == found


def test_coverage_counts_seeds_over_plays_and_spends() -> None:
    none = play((0, 1.0))
    judged, covered = np.array([3.0, 1.0]), np.array([3.0, 0.0])
    gaps, ones = np.full(2, NAN), np.ones(2)
    stated = Play(np.array([0.0, 1.0]), ones, 0 * ones, judged, covered, gaps, gaps, ones, 1.0)
    assert coverage([none], [0.5]) is None
    assert coverage([none, stated], [0.5]) == 1.0
    assert coverage([none, stated], [0.5, 3.0]) == 3 / 4


def test_the_end_is_told_with_both_kinds_of_misses() -> None:
    plays = [play((0, 1.0), missing=1 / 3), play((0, math.inf), missing=1.0, reached=False), play((0, 1.1))]
    plays.append(play((0, 1.0), (5, math.inf)))  # beyond the end
    assert final(plays, 3.0) == Final(reached=0.75, missing=0.25, missing_any=0.5)


def test_the_range_of_sizes_is_held_against_the_best() -> None:
    def stated(prior: tuple[int, int], later: tuple[int, int]) -> Play:
        zeros, (smallest, largest) = np.zeros(2), np.array([prior, later], dtype=float).T
        return Play(np.array([0, 0.2]), zeros, zeros, zeros, zeros, smallest, largest, zeros, 1.0)

    found = size_range([(stated((4, 1024), (32, 128)), 64), (stated((4, 1024), (8, 32)), 64), (play((0, 1.0)), 64)])
    assert found is not None
    assert (found.holds_best, found.width_doublings, found.prior_width_doublings) == (0.5, 2.0, 8.0)
    assert size_range([(play((0, 1.0)), 64)]) is None


def test_an_outcome_tells_usual_spends_up_to_its_end() -> None:
    found = outcome_of("x", SCALE, [play((0, 9.0), (0.7, 1.2))], 3.0)
    assert [one.spend_units for one in found.after] == [0.0, 0.25, 0.5, 1.0, 2.0, 3.0]
    assert [one.regret.median for one in found.after] == [9.0, 9.0, 9.0, 1.2, 1.2, 1.2]
    assert (found.lasting_units, found.covered, found.sizes) == (0.7, None, None)


# ------------------------------------------------------------------------------------------------------ the bars


def test_bars_pool_plays_and_take_tables_apart() -> None:
    pairs = [
        Pair("a", SCALE, "x", (play((0, 8.0), (2, 1.0), floor=1.0), play((0, 8.0), (2, 1.0), floor=1.0))),
        Pair("a", SCALE, "x", (play((0, 8.0), (2, 1.0), floor=1.0),)),
        Pair(
            "b", SCALE, "x", (play((0, 8.0), (1, 4.0), floor=2.0), play((0, 1.0), floor=2.0), play((0, 4.0), floor=2.0))
        ),
    ]
    found = bars(pairs, 10.0)
    assert (found.tables, found.pairs, found.plays, found.worst) == (2, 3, 6, "b")
    assert [bar.median.estimate for bar in found.regret] == [8.0, 6.0, 1.0]
    assert found.typical.estimate == pytest.approx(2.0)  # of 1 and 4
    assert (found.floor_median, found.floor_ninetieth) == (1.5, 2.0)
    assert found.ninetieth_over_floor.estimate == 2.0
    assert {name: bar.lasting_units for name, bar in found.by_table.items()} == {"a": 2.0, "b": math.inf}
    assert found.lasting_units.estimate == 2.0  # four of six
    assert found.lasting_units.high == math.inf  # where b is drawn twice
    assert found.typical.low == 1.0
    assert found.typical.high == 4.0


def of(name: str, until: float, **lasting_units: float) -> Bars:
    tables = {table: TableBar(1.0, units) for table, units in lasting_units.items()}
    nothing = Interval(1.0)
    ends = Final(1.0, 0.0, 0.0)
    return Bars(name, 3, 3, 3, until, (), nothing, "", 1.0, 1.0, nothing, nothing, tables, None, ends, None)


def test_savings_say_what_they_are_bounds_of() -> None:
    found = saving(of("ours", 30, a=1.0, b=0.5, c=0.0), of("other", 30, a=4.0, b=math.inf, c=1.0))
    assert {name: (ratio.times, ratio.bound) for name, ratio in found.by_table.items()} == {
        "a": (4.0, ""),
        "b": (60.0, "at least"),
        "c": (100.0, ""),
    }
    assert found.overall.estimate == pytest.approx((4 * 60 * 100) ** (1 / 3))
    assert found.bound == "at least"
    worse = saving(of("ours", 30, a=math.inf, b=math.inf), of("other", 30, a=3.0, b=math.inf))
    assert [(ratio.times, ratio.bound) for ratio in worse.by_table.values()] == [(0.1, "at most"), (1.0, "unknown")]
    assert worse.bound == "unknown"


def test_a_band_needs_two_tables_and_holds_its_estimate() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    found = banded(4, lambda chosen: geometric_mean([values[k] for k in chosen]))
    assert found.estimate == pytest.approx(math.sqrt(8))
    assert found.estimate in found
    assert found.low is not None
    assert 1 <= found.low < 2
    assert not banded(1, lambda chosen: 3.0).known
    assert geometric_mean([1.0, math.inf]) == math.inf
