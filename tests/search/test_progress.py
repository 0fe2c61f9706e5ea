"""Progress read off curves made by hand: shares of the gain, when they were passed, and who will not get further."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.curves import PAUSED, REACHED, crossing
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.question import Objective, Question
from rightbatch.records import Point, Run, StepTime, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.search.progress import (
    KEPT,
    SHARES,
    STALL_SHARE,
    STALL_STEPS,
    Progress,
    level_of,
    progress_of,
    start_value,
    step_costs,
)

checked = settings(derandomize=True, deadline=None, max_examples=80)
UP = Target(1.0, "valid_metric", "max")
TOUCH = replace(UP, rule="first_touch")
FINISHED = Stop(StopReason.FINISHED)
SIZE, STEP_SECONDS = 8, 0.25


def run_of(
    values: Sequence[float | None],
    *,
    steps: Sequence[int] = (),
    size: int = SIZE,
    rate: float = 0.1,
    seed: int = 0,
    stop: Stop | None = None,
    planned_examples: int | None = None,
    start: float | None = 0.0,
) -> Run:
    """A run with these values at its rungs, which are at steps 3, 6, 12 ... unless said otherwise."""
    rungs = steps or [3 * 2**k for k in range(len(values))]
    points = [Point(0, valid_metric=start)] if start is not None else []
    points += [Point(s, s * size, s * STEP_SECONDS, valid_metric=v) for s, v in zip(rungs, values, strict=True)]
    return Run(Trial(size, rate, seed, planned_examples), tuple(points), stop, identifier=1 + seed + 1000 * size)


def evidence_of(*runs: Run, target: Target = UP, objective: Objective = Objective.STEPS, planned: int = 0) -> Evidence:
    facts = WorkloadFacts("made up", 1000, 0, planned, "metric", target.direction, "SGD")
    return Evidence(facts, runs, (), Question(objective, target), planned_examples=planned)


def read(*runs: Run, target: Target = UP, objective: Objective = Objective.STEPS, planned: int = 0) -> list[Progress]:
    evidence = evidence_of(*runs, target=target, objective=objective, planned=planned)
    return list(progress_of(evidence, step_costs(evidence, {run.trial.batch_size for run in runs})))


# -------------------------------------------------------------------------------------------- levels and crossings


def test_levels_are_the_places_of_the_shares() -> None:
    assert [level_of(float(share)) for share in SHARES] == pytest.approx(np.linspace(0, 1, len(SHARES)))
    assert level_of((0.2 + 0.35) / 2) == pytest.approx(0.5 / 12)
    assert list(SHARES) == sorted(set(SHARES))
    assert SHARES[-1] == 1


def test_a_curve_by_hand_gives_the_levels_that_it_passed_and_when() -> None:
    # Shares 0.2, 0.35 and 0.5 are passed and confirmed; the last value, 0.7, has nothing to confirm it.
    (found,) = read(run_of([0.1, 0.3, 0.52, 0.7]))
    assert found.levels == pytest.approx([0, 1 / 12, 2 / 12])
    between = [(0.2 - 0.1) / 0.2, (0.35 - 0.3) / 0.22, (0.5 - 0.3) / 0.22]
    by_hand = [math.log(rung) + part * math.log(2) for rung, part in zip((3, 6, 6), between, strict=True)]
    assert found.log_costs == pytest.approx(by_hand)
    assert found.next_level == pytest.approx(3 / 12)
    assert (found.steps, found.cost, found.cell) == (24, 24.0, (SIZE, 0.1))
    assert (found.reached, found.diverged, found.stalled, found.ended) == (False, False, False, False)


def test_the_best_value_counts_where_it_lies_well_above_the_last_share() -> None:
    (far,), (near,) = read(run_of([0.1, 0.56, 0.56])), read(run_of([0.1, 0.51, 0.51]))
    assert far.levels[-1] == pytest.approx(2.5 / 12)  # 0.56 is half-way from 0.5 to 0.62
    assert far.log_costs[-1] == pytest.approx(math.log(6))
    assert near.levels[-1] == pytest.approx(2 / 12)


def test_only_the_highest_levels_are_kept() -> None:
    (found,) = read(run_of([0.1, 0.4, 0.9, 0.995, 0.995]))
    assert found.levels[:KEPT] == pytest.approx([8 / 12, 9 / 12, 10 / 12, 11 / 12])
    assert len(found.levels) == KEPT + 1  # and the best value, 0.995


def test_what_was_passed_before_the_first_rung_is_not_known_but_for_the_target() -> None:
    (early,) = read(run_of([0.4, 0.7, 0.7]))
    assert early.levels[0] > level_of(0.4)
    (at_once,) = read(run_of([1.2, 1.3]))
    assert at_once.levels == (1.0,)
    assert at_once.log_costs == pytest.approx([math.log(3)])


rising = st.lists(st.floats(0.01, 0.4), min_size=3, max_size=12).map(lambda gains: list(np.cumsum(gains)))
anything = st.lists(st.floats(-0.5, 1.5) | st.none() | st.just(math.nan), min_size=2, max_size=12)


@checked
@given(values=rising, rule=st.sampled_from([UP, TOUCH]))
def test_rising_curves_cross_the_target_where_the_crossing_is(values: list[float], rule: Target) -> None:
    run = run_of(values)
    (found,), crossed = read(run, target=rule), crossing(run.points, rule)
    assert found.reached == (crossed is not None)
    if crossed is not None:
        assert found.levels[-1] == 1
        assert math.exp(found.log_costs[-1]) == pytest.approx(crossed.steps, rel=1e-9)


@checked
@given(values=anything, rule=st.sampled_from([UP, TOUCH]))
def test_any_curve_crosses_between_the_rungs_of_the_crossing(values: list[float | None], rule: Target) -> None:
    run = run_of(values)
    (found,), crossed = read(run, target=rule), crossing(run.points, rule)
    assert found.reached == (crossed is not None)
    assert list(found.levels) == sorted(set(found.levels))
    assert list(found.log_costs) == sorted(found.log_costs)
    assert found.next_level is None or all(level < found.next_level for level in found.levels)
    if crossed is not None:
        examples = SIZE * math.exp(found.log_costs[-1])
        assert crossed.low_examples * (1 - 1e-9) <= examples <= crossed.high_examples * (1 + 1e-9)


@checked
@given(values=anything)
def test_loss_and_metric_are_mirrored(values: list[float | None]) -> None:
    up = run_of(values)
    down = replace(up, points=tuple(_as_loss(point) for point in up.points))
    assert read(up) == read(down, target=Target(-1.0, "valid_loss", "min"))


def _as_loss(point: Point) -> Point:
    value = point.valid_metric
    return replace(point, valid_metric=None, valid_loss=None if value is None else -value)


def test_by_the_rule_of_the_target_one_touch_counts_or_two() -> None:
    lucky = run_of([0.1, 1.2, 0.4, 0.6])
    (confirmed,), (touched,) = read(lucky), read(lucky, target=TOUCH)
    assert not confirmed.reached
    assert confirmed.levels[-1] <= level_of(0.4)  # a lucky 1.2 is worth what the rungs beside it confirm
    assert touched.reached
    assert touched.log_costs[-1] == pytest.approx(math.log(3) + 0.9 / 1.1 * math.log(2))


# ------------------------------------------------------------------------------------------------------- the start


def test_the_start_is_the_value_at_the_least_rate_times_steps() -> None:
    early = run_of([0.3, 0.6], rate=0.01, start=None)
    late = run_of([0.2, 0.5], rate=0.1, start=None)
    assert start_value([late, early], UP) == 0.3
    assert start_value([late, early, run_of([0.5], start=0.05)], UP) == 0.05
    assert start_value([run_of([None, math.nan], start=None)], UP) is None


def test_the_start_ignores_runs_that_diverged_and_values_at_the_target() -> None:
    bad = run_of([-500.0, -1e9], rate=1e-6, stop=Stop(StopReason.DIVERGED), start=None)
    there = run_of([1.5, 1.6], rate=1e-5, start=None)
    good = run_of([0.25, 0.6], start=None)
    assert start_value([bad, there, good], UP) == 0.25
    assert start_value([bad], UP) is None
    found = read(bad, replace(good, identifier=7))
    assert [run.diverged for run in found] == [True, False]
    assert found[0].levels == ()  # its values are far below the start


# ------------------------------------------------------------------------------------------------------- the stall


def stalled(values: Sequence[float], steps: Sequence[int], target: Target = TOUCH) -> bool:
    (found,) = read(run_of(values, steps=steps), target=target)
    return found.stalled


def test_a_run_whose_last_doubling_brought_little_is_stalled() -> None:
    assert stalled([0.2, 0.59, 0.6, 0.61], [10, 50, 60, 100])
    # A tenth of what is left to the target is enough to go on: 0.04 of 0.4 here, and 0.05.
    assert not stalled([0.2, 0.55, 0.6, 0.6], [10, 50, 75, 100])
    assert stalled([0.2, 0.57, 0.6, 0.6], [10, 50, 75, 100])


def test_a_stall_needs_steps_a_share_and_no_target() -> None:
    flat = [0.2, 0.6, 0.6, 0.6]
    assert stalled(flat, [5, 15, 30, STALL_STEPS])
    assert not stalled(flat, [5, 15, 30, STALL_STEPS - 1])
    # Runs that have not begun to learn may still do so.
    assert not stalled([STALL_SHARE / 2] * 4, [20, 40, 80, 160])
    assert not stalled([1.0, 1.0, 1.0], [50, 100, 200])
    assert not stalled([0.6], [100])


FLAT = [0.2, 0.6, 0.6, 0.6]
AT = [5, 15, 30, STALL_STEPS]


@pytest.mark.parametrize(
    ("size", "rate", "values", "floor"),
    [
        (SIZE, 0.2, [0.2, 0.64, 0.64], False),  # twice as noisy, and no further from the target
        (SIZE, 0.2, [0.2, 0.5, 0.5], True),
        (SIZE, 0.1, [0.2, 0.9, 0.9], False),  # as noisy, and much nearer
        (SIZE, 0.1, [0.2, 0.7, 0.7], True),
        (4 * SIZE, 0.5, [0.2, 0.9, 0.9], False),  # noisier by both laws
        (4 * SIZE, 0.3, [0.2, 0.9, 0.9], True),  # by the root alone
        (SIZE // 4, 0.04, [0.2, 0.9, 0.9], True),  # by the ratio alone
        (SIZE, 0.05, FLAT, False),  # half as noisy, and rests as far from it
        (SIZE, 0.05, FLAT[:3], True),  # not yet
        (SIZE, 0.05, [0.2, 0.8, 0.8, 0.8], True),  # rests nearer
        (SIZE, 0.08, [*FLAT, 0.9, 0.9], False),  # has rested there, and went on
        (SIZE, 0.08, [0.2, 0.4, 0.4, 0.4, 0.9, 0.9], True),  # elsewhere
    ],
)
def test_a_run_rests_on_a_plateau_where_noise_would_have_another_rest_elsewhere(
    size: int, rate: float, values: list[float], floor: bool
) -> None:
    flat = run_of(FLAT, steps=AT)
    other = run_of(values, steps=[*AT, 120, 240][: len(values)], size=size, rate=rate, seed=1)
    assert read(flat, other)[0].stalled is floor
    assert read(flat, other)[1].plateau == ({0.9: values[-3]}.get(values[-1]) if len(values) > 4 else None)


# ---------------------------------------------------------------------------------------------------- ends and costs


def test_what_has_ended_and_what_can_go_on() -> None:
    short = [0.1, 0.3, 0.5]

    def ended(stop: Stop | None, values: Sequence[float] = short, planned_examples: int = 1000) -> bool:
        run = run_of(values, stop=stop, planned_examples=planned_examples)
        return read(run, run_of(short, seed=1), planned=1000)[0].ended

    assert ended(FINISHED)
    assert ended(Stop(StopReason.DIVERGED))
    assert ended(Stop(StopReason.STOPPED_BY_RULE, REACHED), [0.5, 1.1, 1.1])
    assert not ended(None)
    assert not ended(FINISHED, planned_examples=500)  # planned shorter than now asked
    assert not ended(Stop(StopReason.STOPPED_BY_RULE, PAUSED))
    assert not ended(Stop(StopReason.STOPPED_BY_RULE, REACHED))  # at an easier target
    assert not ended(Stop(StopReason.INTERRUPTED))
    assert not ended(Stop(StopReason.OUT_OF_BUDGET))


def test_fresh_seeds_count_where_they_got_there_and_runs_without_a_rung_do_not() -> None:
    seen = run_of([0.3, 0.4])
    assert [run.seed for run in read(seen, run_of([0.4], seed=FRESH_SEED), run_of([], seed=3))] == [0]
    got_there = run_of([0.4, 1.1, 1.1], seed=FRESH_SEED)
    assert [run.seed for run in read(seen, got_there)] == [0, FRESH_SEED]


@pytest.mark.parametrize(
    ("objective", "unit"), [(Objective.STEPS, 1.0), (Objective.EXAMPLES, SIZE), (Objective.TIME, STEP_SECONDS)]
)
def test_costs_are_in_the_unit_of_the_objective(objective: Objective, unit: float) -> None:
    (found,), (in_steps,) = read(run_of([0.1, 0.3, 0.3]), objective=objective), read(run_of([0.1, 0.3, 0.3]))
    assert found.cost == pytest.approx(12 * unit)
    assert np.exp(np.subtract(found.log_costs, in_steps.log_costs)) == pytest.approx(unit)
    assert found.levels == in_steps.levels


def test_seconds_of_a_step_are_as_measured_else_by_the_law_else_as_seen_in_a_run() -> None:
    evidence = evidence_of(run_of([0.3]), run_of([0.3], size=16), objective=Objective.TIME)
    measured = replace(evidence, step_times=(StepTime(16, (0.5, 0.7, 0.6), (0.0,) * 3), StepTime(64, (2.0,), (0.0,))))
    assert step_costs(evidence, [8, 16, 64]) == {8: STEP_SECONDS, 16: STEP_SECONDS}
    assert step_costs(measured, [8, 16, 64]) == {8: measured.step_seconds(8), 16: 0.6, 64: 2.0}
    one = replace(evidence, step_times=measured.step_times[:1])
    assert step_costs(one, [8, 16, 64]) == {8: STEP_SECONDS, 16: 0.6}


# --------------------------------------------------------------------------------------------------- what is not so yet


@pytest.mark.parametrize("objective", [Objective.STEPS, Objective.EXAMPLES])
def test_sizes_that_are_not_searched_have_a_step_cost_where_they_ran(objective: Objective) -> None:
    evidence = evidence_of(run_of([0.3, 0.4]), objective=objective)
    assert len(progress_of(evidence, step_costs(evidence, [64]))) == 1


def test_a_run_that_is_evaluated_at_every_doubling_is_not_stalled_while_it_learns() -> None:
    assert not stalled([0.2, 0.4, 0.6, 0.8], [40, 80, 160, 320], UP)


def test_of_several_starts_a_loss_takes_the_same_as_a_metric() -> None:
    up = [run_of([0.5], start=value, seed=seed) for seed, value in enumerate((0.0, 0.1, 0.3))]
    down = [replace(run, points=tuple(_as_loss(point) for point in run.points)) for run in up]
    start = start_value(down, Target(-1.0, "valid_loss", "min"))
    assert start is not None
    assert start_value(up, UP) == -start


def test_a_curve_that_falls_before_its_target_crosses_where_the_crossing_is() -> None:
    run = run_of([0.2, 0.6, 0.7, 0.3, 1.1, 1.2])
    (found,), crossed = read(run), crossing(run.points, UP)
    assert crossed is not None
    assert math.exp(found.log_costs[-1]) == pytest.approx(crossed.steps, rel=1e-9)


def test_a_run_before_its_first_level_is_reckoned_from_how_it_began() -> None:
    (found,) = read(run_of([0.01, 0.02, 0.04]))
    assert found.levels == ()
    assert found.log_cost_ahead is not None
    # The last value has nothing to confirm it: 0.02 of the gain in 6 steps, so that 0.2 would take ten times as many.
    assert math.exp(found.log_cost_ahead) == pytest.approx(6 * 10)
    (nothing,) = read(run_of([0.00001, 0.00002]))
    (further,) = read(run_of([0.1, 0.3, 0.5, 0.6]))
    assert nothing.log_cost_ahead is None
    assert further.log_cost_ahead is None
