"""Ladders, crossings and stopping rules: exact on made-up curves, and against slow twins on random ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rightbatch import curves
from rightbatch.errors import InputError
from rightbatch.records import Point, Target

checked = settings(derandomize=True, deadline=None, max_examples=60)

UP = Target(0.5, "valid_metric", "max")
VALUES = st.lists(st.one_of(st.none(), st.just(math.nan), st.floats(0, 1)), min_size=1, max_size=12)
FINITE = st.lists(st.integers(0, 100).map(lambda v: v / 100), min_size=2, max_size=12)


def point(step: int, value: float | None, *, examples: int | None = None, loss: float | None = None) -> Point:
    return Point(step, step * 10 if examples is None else examples, float(step), None, loss, value, 10, 0.1)


def curve(values: Sequence[float | None], *, start: float | None = 0.0) -> list[Point]:
    """A point at step 0, then rungs at steps 1, 2, 4, 8 ..."""
    return [point(0, start), *(point(2**k, v) for k, v in enumerate(values))]


def losses(*values: float | None) -> list[Point]:
    return [point(k, None, loss=v) for k, v in enumerate(values)]


# ------------------------------------------------------------------------------------------------------ the ladder


@checked
@given(st.integers(1, 10**9), st.floats(0.001, 0.5), st.floats(1.01, 2.0))
def test_the_ladder_is_geometric_and_no_coarser_than_asked(planned: int, first: float, ratio: float) -> None:
    rungs = curves.ladder(planned, first=first, ratio=ratio)
    assert rungs[0] == pytest.approx(planned * first)
    assert rungs[-1] == planned
    steps = [high / low for low, high in itertools.pairwise(rungs)]
    assert max(steps) <= ratio * (1 + 1e-9)
    assert max(steps) == pytest.approx(min(steps), rel=1e-9)


def test_the_usual_ladder_starts_at_one_percent_with_rungs_eight_percent_apart() -> None:
    rungs = curves.ladder(100_000)
    assert rungs[0] == pytest.approx(1000)
    assert 1.07 < rungs[1] / rungs[0] <= 1.08


def test_a_ladder_of_no_examples_is_refused() -> None:
    with pytest.raises(InputError, match="at least one example, got 0"):
        curves.ladder(0)


@checked
@given(st.integers(1, 10**7), st.integers(1, 10**4))
def test_rungs_in_steps_increase_to_the_planned_length(planned: int, size: int) -> None:
    rungs = curves.rungs_in_steps(planned, size)
    assert list(rungs) == sorted(set(rungs))
    assert rungs[0] >= 1
    assert rungs[-1] == max(1, round(planned / size))
    for examples in curves.ladder(planned):
        nearest = min(abs(step * size - examples) for step in rungs)
        assert nearest <= max(size / 2, size - examples) + 1e-6


# ---------------------------------------------------------------------------------------------------- the crossing


@checked
@given(st.integers(1, 300), st.floats(3, 200))
def test_a_curve_that_is_a_line_in_log_examples_is_crossed_exactly(size: int, true_step: float) -> None:
    run = [
        Point(step, step * size, 0.0, None, None, math.log(step / true_step), size, 0.1)
        for step in (1, 2, 4, 9, 20, 50, 120, 300, 700)
    ]
    found = curves.crossing(run, Target(0.0, "valid_metric", "max"))
    assert found is not None
    assert found.examples == pytest.approx(true_step * size)
    assert found.steps == pytest.approx(true_step)


@checked
@given(VALUES, st.floats(0, 1), st.sampled_from(["confirmed", "first_touch"]))
def test_the_crossing_is_at_the_rung_that_a_plain_scan_finds(
    values: list[float | None], target: float, rule: Any
) -> None:
    run, goal = curve(values), Target(target, "valid_metric", "max")
    beyond = [v is not None and v >= target for v in values]
    needed = 2 if rule == "confirmed" else 1
    starts = [k for k in range(len(values) - needed + 1) if all(beyond[k : k + needed])]
    found = curves.crossing(run, replace(goal, rule=rule))
    if not starts:
        assert found is None
        return
    assert found is not None
    assert found.high_examples == 10 * 2 ** starts[0]
    assert found.low_examples == (10 * 2 ** (starts[0] - 1) if starts[0] else 0)
    assert found.low_examples <= found.examples <= found.high_examples * (1 + 1e-12)
    assert found.steps == pytest.approx(found.examples / 10)


@checked
@given(FINITE, st.floats(0, 1), st.floats(0, 1))
def test_a_harder_target_is_never_crossed_earlier(values: list[float], one: float, other: float) -> None:
    easy, hard = (
        curves.crossing(curve(values), Target(t, "valid_metric", "max")) for t in (min(one, other), max(one, other))
    )
    if hard is not None:
        assert easy is not None
        assert easy.examples <= hard.examples * (1 + 1e-12)


@checked
@given(FINITE, st.floats(0, 1))
def test_a_value_to_minimise_crosses_where_its_negative_crosses_upwards(values: list[float], target: float) -> None:
    up = curves.crossing(curve(values), Target(target, "valid_metric", "max"))
    down = curves.crossing(curve([-v for v in values]), Target(-target, "valid_metric", "min"))
    assert up == down


@checked
@given(FINITE, st.integers(2, 50))
def test_counting_examples_in_another_unit_scales_the_crossing(values: list[float], factor: int) -> None:
    run = curve(values)
    scaled = [point(p.step, p.valid_metric, examples=p.examples * factor) for p in run]
    found, again = curves.crossing(run, UP), curves.crossing(scaled, UP)
    assert (found is None) == (again is None)
    if found is not None and again is not None:
        assert again.examples == pytest.approx(found.examples * factor)
        assert again.steps == pytest.approx(found.steps)


def test_one_lucky_evaluation_is_a_first_touch_but_no_crossing() -> None:
    run = curve([0.1, 0.6, 0.2, 0.7, 0.8])
    confirmed = curves.crossing(run, UP)
    touched = curves.crossing(run, replace(UP, rule="first_touch"))
    assert confirmed is not None
    assert touched is not None
    assert (touched.high_examples, confirmed.high_examples) == (20.0, 80.0)


def test_a_target_touched_at_the_last_rung_only_is_not_confirmed() -> None:
    assert curves.crossing(curve([0.1, 0.2, 0.9]), UP) is None


def test_a_start_beyond_the_target_does_not_count_as_a_rung() -> None:
    assert curves.crossing(curve([0.6, 0.1, 0.1], start=0.9), UP) is None


def test_a_target_reached_by_the_first_rung_is_only_bounded_from_above() -> None:
    found = curves.crossing(curve([0.6, 0.7]), UP)
    assert found == curves.Crossing(10, 0.0, 10, 1.0)


@pytest.mark.parametrize("before", [None, math.nan, -math.inf])
def test_without_a_value_before_it_the_crossing_is_the_rung_itself(before: float | None) -> None:
    found = curves.crossing(curve([0.1, before, 0.6, 0.7]), UP)
    assert found is not None
    assert found.examples == pytest.approx(40)
    assert found.low_examples == 20


def test_steps_are_counted_as_they_were_where_the_batch_size_grew_within_the_run() -> None:
    # 100 steps of 10 examples, then 10 of 100: 2000 examples are 110 steps.
    run = [point(100, 0.0, examples=1000), point(110, 1.0, examples=2000), point(120, 1.0, examples=3000)]
    found = curves.crossing(run, Target(0.5, "valid_metric", "max"))
    assert found is not None
    assert found.examples == pytest.approx(1000 * math.sqrt(2))
    assert found.steps == pytest.approx(100 + 10 * (math.sqrt(2) - 1))


# ------------------------------------------------------------------------------------------------- values of a curve


@checked
@given(st.lists(st.one_of(st.none(), st.floats()), max_size=10))
def test_the_best_value_is_the_extreme_of_the_finite_ones(values: list[float | None]) -> None:
    finite = sorted(v for v in values if v is not None and math.isfinite(v))
    run = [point(k, v) for k, v in enumerate(values)]
    assert curves.best_value(run, "valid_metric", "max") == (finite[-1] if finite else None)
    assert curves.best_value(run, "valid_metric", "min") == (finite[0] if finite else None)


@checked
@given(FINITE, st.floats(10, 10 * 2**11))
def test_a_value_between_two_rungs_lies_between_theirs_on_a_line_in_log_examples(
    values: list[float], examples: float
) -> None:
    found = curves.value_at(curve(values), "valid_metric", examples=examples)
    position = math.log2(examples / 10)
    if position > len(values) - 1:
        assert found is None
        return
    below = min(int(position), len(values) - 2)
    expected = values[below] + (position - below) * (values[below + 1] - values[below])
    assert found == pytest.approx(expected, abs=1e-9)


@checked
@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=10), st.floats(0.01, 0.99))
def test_the_value_where_a_rising_curve_crosses_is_the_target(rises: list[float], share: float) -> None:
    values = list(itertools.accumulate(rises))
    target = Target(values[0] + share * (values[-2] - values[0]), "valid_metric", "max")
    found = curves.crossing(curve(values), target)
    assert found is not None
    assert curves.value_at(curve(values), "valid_metric", examples=found.examples) == pytest.approx(target.value)


def test_a_curve_has_no_value_before_its_first_rung_nor_after_its_last() -> None:
    run = curve([0.1, 0.2, 0.4])
    assert curves.value_at(run, "valid_metric", examples=9.9) is None
    assert curves.value_at(run, "valid_metric", examples=40.1) is None
    assert curves.value_at(run, "valid_metric", examples=10) == 0.1
    assert curves.value_at(run, "valid_metric", examples=40) == pytest.approx(0.4)
    assert curves.value_at(curve([0.3]), "valid_metric", examples=10) == 0.3


@pytest.mark.parametrize("last", [None, math.nan, math.inf])
def test_a_curve_that_ends_in_no_number_has_no_value_there(last: float | None) -> None:
    # A run that diverges ends so; comparing it at equal cost must not spread the NaN to all other runs.
    assert curves.value_at(curve([0.1, 0.2, last]), "valid_metric", examples=30) is None


# ------------------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("last", [math.nan, math.inf, 10.01])
def test_a_loss_that_is_not_finite_or_grew_tenfold_is_divergence(last: float) -> None:
    assert curves.diverged(losses(1.0, 0.5, last))


def test_a_train_loss_that_is_not_finite_is_divergence() -> None:
    assert curves.diverged([Point(1, 10, 0.0, math.nan, 0.5, None, 10, 0.1)])


@pytest.mark.parametrize("run", [[], losses(5.0), losses(1.0, 10.0), losses(None, 50.0), losses(1.0, None)])
def test_growth_below_tenfold_or_without_a_start_to_compare_with_is_no_divergence(run: list[Point]) -> None:
    assert not curves.diverged(run)


@checked
@given(st.floats(1e-3, 1e3), st.floats(0.01, 100))
def test_divergence_does_not_depend_on_the_scale_of_the_loss(scale: float, growth: float) -> None:
    assume(abs(growth - 10) > 1e-6)
    assert curves.diverged(losses(scale, scale * growth)) == (growth > 10)


# --------------------------------------------------------------------------------------------------- stopping rules


@checked
@given(VALUES, st.floats(0, 1))
def test_a_run_stops_at_its_target_as_soon_as_its_curve_has_a_crossing(
    values: list[float | None], target: float
) -> None:
    goal, run = Target(target, "valid_metric", "max"), curve(values, start=1.0)
    rule = curves.until_target(goal)
    says = [rule(run[:k]) is not None for k in range(1, len(run) + 1)]
    crossed = [curves.crossing(run[:k], goal) is not None for k in range(1, len(run) + 1)]
    assert says.index(True) == crossed.index(True) if any(says) else not any(crossed)


def test_a_run_to_its_horizon_is_never_stopped() -> None:
    assert curves.until_horizon(curve([1.0, 1.0, 1.0])) is None


@pytest.mark.parametrize(("unit", "patience"), [("evaluations", 3), ("steps", 6), ("examples", 60)])
@pytest.mark.parametrize("direction", ["min", "max"])
def test_patience_ends_when_the_best_value_is_that_old(unit: Any, patience: float, direction: Any) -> None:
    sign = 1 if direction == "max" else -1
    values = [0.1, 0.5, 0.4, 0.5, 0.3, 0.9]
    run = [point(2 * k, sign * v) for k, v in enumerate(values, start=1)]
    rule = curves.until_patience("valid_metric", direction, patience, unit)
    # The best, 0.5, is the second rung; its equal two rungs later is no improvement.
    said = [rule(run[:k]) for k in range(len(run) + 1)]
    assert [s is not None for s in said] == [False] * 5 + [True, False]
    assert said[5] == f"no better valid_metric for {patience} {unit}"


def test_patience_counts_no_number_as_no_improvement() -> None:
    rule = curves.until_patience("valid_metric", "min", 2, "evaluations")
    run = [point(k, v) for k, v in enumerate([0.5, math.nan, None], start=1)]
    assert [rule(run[:k]) is not None for k in (1, 2, 3)] == [False, False, True]


def test_patience_does_not_count_the_point_before_training() -> None:
    rule = curves.until_patience("valid_metric", "max", 1, "evaluations")
    assert rule([point(0, 0.9)]) is None
    assert rule([point(0, 0.9), point(1, 0.1)]) is None
    assert rule([point(0, 0.9), point(1, 0.1), point(2, 0.1)]) is not None


@pytest.mark.parametrize("patience", [0, -1])
def test_patience_that_is_not_positive_is_refused(patience: float) -> None:
    with pytest.raises(InputError, match=f"positive number of steps, got {patience}"):
        curves.until_patience("valid_metric", "max", patience, "steps")


def test_of_several_rules_the_first_that_speaks_is_heard() -> None:
    rule = curves.any_rule(lambda c: None, lambda c: "one" if len(c) > 1 else None, lambda c: "two")
    assert rule(curve([])) == "two"
    assert rule(curve([0.1])) == "one"
    assert curves.any_rule(curves.until_horizon)(curve([0.1])) is None


def test_until_target_stops_where_the_crossing_counts_by_the_targets_own_rule() -> None:
    run = curve([0.1, 0.9, 0.2, 0.8, 0.85, 0.9])
    goal = Target(0.75, "valid_metric", "max")
    for rule, points in (("confirmed", 6), ("first_touch", 3)):  # the point at step 0 included
        stop = curves.until_target(replace(goal, rule=rule))
        ended = next(k for k in range(1, len(run) + 1) if stop(run[:k]) is not None)
        assert ended == points
        assert curves.crossing(run[:ended], replace(goal, rule=rule)) is not None
        assert curves.crossing(run[: ended - 1], replace(goal, rule=rule)) is None


def test_quality_is_the_test_metric_where_validation_is_best() -> None:
    rungs = curve([0.5, 0.9, 0.7])[1:]
    tested = [replace(p, test_metric=t) for p, t in zip(rungs, [0.99, 0.6, 0.7], strict=True)]
    assert curves.quality(tested, "max") == 0.6
    assert curves.quality(tested, "min") == 0.99
    assert curves.quality(curve([0.5, 0.9, 0.7]), "max") == 0.9
    assert curves.quality([], "max") is None
