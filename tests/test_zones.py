"""Zones on cost curves whose edges are known, and likelihoods against a t distribution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rightbatch.cells import Cell, SizeEvidence
from rightbatch.evidence import Evidence
from rightbatch.fit.step_time import fit_step_time
from rightbatch.question import EQUIVALENT_FACTOR, Objective, Question
from rightbatch.records import Interval, Point, Run, StepTime, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.seconds import Seconds
from rightbatch.zones import DRAWS, ZoneEdge, Zones, find_zones, likelihoods

checked = settings(derandomize=True, deadline=None, max_examples=60)
TARGET = Target(0.0, "valid_metric", "max")


def size(batch_size: int, cost: float) -> SizeEvidence:
    """One size with its tuned cost; infinite: no rate reached the target."""
    if math.isinf(cost):
        return SizeEvidence(batch_size, (Cell(batch_size, 0.1, (), 1, 0, 1.0),), None)
    cell = Cell(batch_size, 0.1, (cost,), 0, 0, 0.0)
    return SizeEvidence(batch_size, (cell,), None, best=cell, cost=Interval(cost), leverage=1.0)


def zones(costs: Mapping[int, float], *, speeds: Mapping[int, float] | None = None, **known: object) -> Zones:
    sizes = [size(b, cost) for b, cost in sorted(costs.items())]
    best = min(sizes, key=lambda s: s.cost.estimate if s.cost else math.inf)
    filled = {"step_time": None, "critical_batch_size": None, **known}
    return find_zones(sizes, best, speeds=speeds or {}, **filled)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- zones


@checked
@given(st.floats(0.3, 3), st.floats(0.3, 3), st.integers(4, 10))
def test_the_edges_of_a_cost_of_two_powers_are_found_exactly(below: float, above: float, best: int) -> None:
    # log cost is a straight line on each side of the best: it doubles after 1 / slope octaves.
    costs = {2**k: math.exp2(below * max(0, best - k) + above * max(0, k - best)) for k in range(15)}
    found = zones(costs)
    low, high = best - 1 / below, best + 1 / above
    assert found.very_small_below.batch_size == pytest.approx(2**low)
    assert found.huge_above.batch_size == pytest.approx(2**high)


@checked
@given(st.lists(st.floats(1, 10), min_size=1, max_size=10), st.floats(1e-3, 1e3))
def test_an_edge_lies_between_its_sizes_and_does_not_depend_on_the_unit_of_cost(
    costs: list[float], unit: float
) -> None:
    table = {2**k: cost for k, cost in enumerate(costs)}
    found = zones(table)
    best, limit = min(table, key=lambda b: table[b]), 2 * min(costs)
    upper, lower = found.huge_above.batch_size, found.very_small_below.batch_size
    beyond = [b for b in table if b > best and table[b] >= limit]
    before = [b for b in table if b < best and table[b] >= limit]
    assert (upper is None) == (not beyond)
    assert (lower is None) == (not before)
    scaled = zones({b: unit * cost for b, cost in table.items()})
    if upper is not None:
        assert scaled.huge_above.batch_size == pytest.approx(upper, rel=1e-6)
        assert beyond[0] / 2 <= upper <= beyond[0] * (1 + 1e-9)
    if lower is not None:
        assert scaled.very_small_below.batch_size == pytest.approx(lower, rel=1e-6)
        assert before[-1] * (1 - 1e-9) <= lower <= before[-1] * 2


def test_edges_that_no_size_shows_are_not_seen() -> None:
    assert zones({16: 1.9, 32: 1.0, 64: 1.9}) == Zones(ZoneEdge(None), ZoneEdge(None))
    assert zones({32: 1.0}) == Zones(ZoneEdge(None), ZoneEdge(None))


def test_a_size_that_never_reaches_the_target_bounds_a_zone_halfway_in_logs() -> None:
    found = zones({4: math.inf, 16: 1.5, 64: 1.0, 256: math.inf, 1024: 1.1})
    assert found.very_small_below.batch_size == pytest.approx(8)
    assert found.huge_above.batch_size == pytest.approx(128)


def test_beside_each_edge_stand_its_share_of_throughput_and_of_the_critical_size() -> None:
    records = [StepTime(b, (1e-3 + 1e-5 * b,) * 3, (0.0,) * 3) for b in (8, 64, 512, 4096)]
    speeds = {r.batch_size: r.batch_size / r.seconds[0] for r in records}
    found = zones(
        {8: 4.0, 64: 1.0, 512: 1.2, 4096: 4.8},
        speeds=speeds,
        step_time=fit_step_time(records),
        critical_batch_size=Interval(100.0),
    )
    for edge in (found.very_small_below, found.huge_above):
        assert edge.batch_size is not None
        own = edge.batch_size / (1e-3 + 1e-5 * edge.batch_size)
        assert edge.throughput_share == pytest.approx(own / speeds[4096], rel=1e-3)
        assert edge.critical_ratio == pytest.approx(edge.batch_size / 100)


def test_no_share_of_throughput_is_above_one() -> None:
    records = [StepTime(b, (1e-3 + 1e-5 * b,) * 3, (0.0,) * 3) for b in (8, 4096)]
    found = zones({8: 1.0, 4096: 4.0}, speeds={8: 100.0}, step_time=fit_step_time(records))
    assert found.huge_above.throughput_share == 1.0


# ----------------------------------------------------------------------------------------------------- likelihoods


def evidence(
    logs: Mapping[int, Sequence[float]], objective: Objective = Objective.STEPS, times: Sequence[StepTime] = ()
) -> Evidence:
    """Runs with these log steps to the target, one rate a size: the metric is a line in log examples.

    Evaluated at every step around the crossing, so that the distance of rungs adds next to nothing.
    """
    runs: list[Run] = []
    for batch_size, own in logs.items():
        for seed, log_steps in enumerate(own):
            near = min(math.floor(math.exp(log_steps)), 100_000)  # no run is longer: beyond, the target is missed
            points = [
                Point(s, s * batch_size, 0.0, None, 1.0, math.log(s) - log_steps, batch_size, 0.1)
                for s in (near, near + 1, near + 2)
            ]
            trial = Trial(batch_size, 0.1, seed, 1)
            runs.append(Run(trial, tuple(points), Stop(StopReason.FINISHED), 0.0, len(runs) + 1))
    facts = WorkloadFacts("made up", 1000, 0, 1, "progress", "max", "SGD")
    return Evidence(facts, tuple(runs), tuple(times), Question(objective, TARGET))


def shares(found: Evidence) -> dict[int, float]:
    sure = likelihoods(found)
    assert sure is not None
    return {one.batch_size: one.as_good for one in sure}


def spread(centre: float, deviation: float, seeds: int) -> list[float]:
    """Log steps with exactly this mean and standard deviation."""
    offsets = np.arange(seeds) - (seeds - 1) / 2
    return list(centre + deviation * offsets / np.std(offsets, ddof=1))


@pytest.mark.parametrize("seeds", [2, 3, 6])
@pytest.mark.parametrize("difference", [0.0, 0.05, 0.15, 0.4])
def test_of_two_sizes_the_likelihood_is_that_of_a_t_distribution(seeds: int, difference: float) -> None:
    deviation = 0.1
    found = shares(evidence({32: spread(5, deviation, seeds), 64: spread(5 + difference, deviation, seeds)}))
    error, freedom = deviation * math.sqrt(2 / seeds), 2 * (seeds - 1)
    for batch_size, away in ((32, -difference), (64, difference)):
        exact = stats.t.cdf((math.log(EQUIVALENT_FACTOR) - away) / error, freedom)
        assert found[batch_size] == pytest.approx(exact, abs=4 * math.sqrt(0.25 / DRAWS))


def test_the_noise_of_step_times_counts_in_seconds_and_not_in_steps() -> None:
    logs = {32: spread(5, 0.01, 3), 64: spread(5, 0.01, 3)}
    seconds = tuple(1e-3 * math.exp(x) for x in (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3))
    times = [StepTime(b, seconds, (0.0,) * 7) for b in logs]
    steady = [StepTime(b, (1e-3,) * 7, (0.0,) * 7) for b in logs]
    assert min(shares(evidence(logs, Objective.STEPS, times)).values()) > 0.999
    assert min(shares(evidence(logs, Objective.TIME, steady)).values()) > 0.999
    assert max(shares(evidence(logs, Objective.TIME, times)).values()) < 0.95


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.lists(st.floats(3, 6), min_size=1, max_size=6), st.floats(0.01, 0.5), st.integers(2, 4))
def test_likelihoods_are_probabilities_that_fall_with_cost(centres: list[float], deviation: float, seeds: int) -> None:
    found = shares(evidence({2**k: spread(c, deviation, seeds) for k, c in enumerate(centres)}))
    assert list(found) == [2**k for k in range(len(centres))]
    assert all(0 <= share <= 1 for share in found.values())
    # In every draw the cheapest one is within the factor.
    assert sum(found.values()) >= 1 - 1e-9
    ordered = [found[2**k] for k in np.argsort(centres, kind="stable")]
    for cheaper, dearer in itertools.pairwise(ordered):
        assert cheaper >= dearer - 4 * math.sqrt(0.5 / DRAWS)


def test_a_size_far_ahead_is_the_only_good_one() -> None:
    found = shares(evidence({32: spread(5, 0.05, 3), 64: spread(4, 0.05, 3), 128: spread(5, 0.05, 3)}))
    assert found[64] > 0.999
    assert max(found[32], found[128]) < 0.001


def test_the_same_evidence_gives_the_same_likelihoods() -> None:
    logs = {32: spread(5, 0.1, 3), 64: spread(5.1, 0.1, 3)}
    assert likelihoods(evidence(logs)) == likelihoods(evidence(logs))


def test_with_one_seed_everywhere_or_nothing_reached_nothing_is_likely() -> None:
    assert likelihoods(evidence({32: [5.0], 64: [5.1]})) is None
    assert likelihoods(evidence({32: [20.0, 20.1]})) is None
    assert likelihoods(evidence({})) is None


def test_sizes_that_miss_the_target_have_no_likelihood() -> None:
    assert set(shares(evidence({32: spread(5, 0.1, 3), 64: [20.0, 20.0, 20.0]}))) == {32}


def test_the_error_of_a_step_time_is_in_the_interval_of_a_cost_in_seconds_and_in_no_other() -> None:
    logs = {32: [5.0, 5.2, 5.4]}
    times = [StepTime(32, (0.001, 0.002, 0.004), (0.0,) * 3)]
    half = {}
    for objective in (Objective.STEPS, Objective.TIME):
        of = evidence(logs, objective, times)
        cost = of.sizes[0].cost
        assert cost is not None
        half[objective] = math.log(cost.high / cost.estimate) / stats.t.ppf(0.975, of.seed_noise.freedom)
    error = evidence(logs, Objective.TIME, times).seconds_error(32)
    assert error == pytest.approx(math.log(4) / (2 * stats.norm.ppf(0.875)))
    assert half[Objective.TIME] == pytest.approx(math.hypot(half[Objective.STEPS], error))


def test_the_error_of_few_repeats_is_at_least_what_is_typical() -> None:
    times = [StepTime(size, (1.0, 1.1, 1.1**2), (0.0,) * 3) for size in (8, 16)]
    times += [StepTime(32, (1.0,), (0.0,)), StepTime(64, (1.0, 4.0), (0.0,) * 2), StepTime(128, (1.0,) * 3, (0.0,) * 3)]
    seconds = Seconds(tuple(times))
    typical = 2 * math.log(1.1) / (2 * stats.norm.ppf(0.875))
    assert seconds.error_of_step(8) == seconds.error_of_step(32) == pytest.approx(typical)
    assert seconds.error_of_step(64) > typical > seconds.error_of_step(128) == 0
    assert Seconds((times[2],)).error_of_step(32) == 0
