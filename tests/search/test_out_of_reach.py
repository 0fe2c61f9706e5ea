"""A search ends where its runs come no nearer to the target, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rightbatch.curves import PAUSED
from rightbatch.evidence import Evidence
from rightbatch.lattice import snap
from rightbatch.question import Objective, Question
from rightbatch.records import Point, Run, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.search.out_of_reach import IN_VAIN, IN_VAIN_FAR, out_of_reach, while_nearer
from rightbatch.search.strategy import Advance, Done, Wait, fixed
from rightbatch.shortfall import nothing_reached

FACTS = WorkloadFacts("p", 0, 0, 0, "valid_metric", "max", "unknown")


def evidence(values: list[float], rates: list[float], target: float = 0.99, **more: object) -> Evidence:
    runs = tuple(
        Run(
            Trial(64, rate, seed),
            tuple(Point(k, 64 * k, k / 10, valid_metric=value) for k, value in enumerate((0.1, last, last))),
            Stop(StopReason.FINISHED),
            1.0,
            seed,
        )
        for seed, (last, rate) in enumerate(zip(values, rates, strict=True))
    )
    question = Question(Objective.STEPS, Target(target, "valid_metric", "max"))
    return Evidence(FACTS, runs, (), question, **more)  # type: ignore[arg-type]


RATES = [0.1, 0.01, 1.0, *[0.1] * (IN_VAIN - 2)]
ALIKE = [0.9] + [0.88] * IN_VAIN


def test_runs_that_come_no_nearer_end_it() -> None:
    assert out_of_reach(evidence(ALIKE, RATES))
    few = IN_VAIN_FAR + 1
    assert out_of_reach(evidence(ALIKE[:few], RATES[:few], 94.0))
    assert not out_of_reach(evidence(ALIKE[:few], RATES[:few]))


@pytest.mark.parametrize(
    ("values", "rates", "target"),
    [
        (ALIKE[:-1], RATES[:-1], 0.99),
        ([0.3, *ALIKE[1:]], RATES, 0.95),
        (ALIKE, [10.0, *RATES[1:]], 0.99),
        (ALIKE[:3], RATES[:3], 94.0),
        ([0.95, *ALIKE[1:]], RATES, 0.94),
    ],
    ids=["too few", "nearer", "the nearest at an edge", "too few even of a world away", "one reached it"],
)
def test_it_goes_on(values: list[float], rates: list[float], target: float) -> None:
    assert not out_of_reach(evidence(values, rates, target))


def test_an_order_of_runs_is_not_an_order_of_numbers() -> None:
    known = evidence([*ALIKE[1:], 0.93], RATES[::-1], 0.94)
    assert not out_of_reach(known)  # the last one came nearer


def test_the_strategy_is_asked_until_then_and_what_is_under_way_ends() -> None:
    inner = fixed([Trial(128, 0.1, 0)], "more")
    searching = while_nearer(inner, [64, 128])
    assert isinstance(searching(evidence(ALIKE[:-1], RATES[:-1])), Advance)
    assert isinstance(searching(evidence(ALIKE, RATES)), Done)
    assert isinstance(searching(evidence(ALIKE, RATES, pending=frozenset({Trial(64, 0.1, 9)}))), Wait)


def test_what_is_trained_with_now_is_trained_to_its_planned_length_before_it_ends() -> None:
    searching = while_nearer(fixed([Trial(128, 0.1, 0, 256)], "more"), [16, 128])
    known = evidence(ALIKE, RATES)
    planned = tuple(replace(run, trial=replace(run.trial, planned_examples=256)) for run in known.runs)
    known = replace(known, facts=replace(FACTS, present=(16, 0.03)), runs=planned, planned_examples=256)
    action = searching(known)
    assert isinstance(action, Advance)
    assert action.trial == Trial(16, snap(0.03), 0, 256)
    # A size that was not asked for is none to train with.
    assert isinstance(while_nearer(fixed([Trial(128, 0.1, 0, 256)], "more"), [64, 128])(known), Done)
    for reason in (StopReason.FINISHED, StopReason.OUT_OF_MEMORY):
        done = Run(
            action.trial, (Point(0, 0, valid_metric=0.1), Point(16, 256, valid_metric=0.5)), Stop(reason), 1.0, 99
        )
        assert isinstance(searching(replace(known, runs=(*planned, done))), Done)


def test_runs_of_a_shorter_plan_than_is_asked_for_are_not_over() -> None:
    known = evidence(ALIKE, RATES)
    planned = tuple(replace(run, trial=replace(run.trial, planned_examples=256)) for run in known.runs)
    assert out_of_reach(replace(known, runs=planned, planned_examples=256))
    assert not out_of_reach(replace(known, runs=planned, planned_examples=512))


@pytest.mark.parametrize(("target", "asked"), [(94.0, True), (0.95, False), (940.0, False)])
def test_a_target_that_may_be_in_percent_is_asked_about(target: float, asked: bool) -> None:
    said = nothing_reached(evidence(ALIKE, RATES, target), None, True)
    assert ("(0.94 for 94 %)" in said) == asked


# -------------------------------------------------------------------------------- runs without a planned length


def endless(*runs: tuple[float, float, int]) -> Evidence:
    """Runs that go on for ever, by rate, the value at which they rest, and steps: there after 10 of them."""
    made = tuple(
        Run(
            Trial(64, rate, seed),
            tuple(
                Point(k, 64 * k, k / 10, valid_metric=rest - (rest - 0.1) * max(0, 10 - k) / 10)
                for k in range(0, steps + 1, 5)
            ),
            Stop(StopReason.INTERRUPTED),
            1.0,
            seed,
        )
        for seed, (rate, rest, steps) in enumerate(runs)
    )
    return Evidence(FACTS, made, (), Question(Objective.STEPS, Target(0.99, "valid_metric", "max")))


AT_REST = [(0.1 * 10 ** (-k / 4), 0.9, 100 if k else 1000) for k in range(IN_VAIN + 1)]
"""They have rested since 10 steps; the first has made more than all others."""


def test_runs_without_an_end_end_where_they_rest_at_any_rate() -> None:
    assert out_of_reach(endless(*AT_REST))
    assert isinstance(while_nearer(fixed([Trial(128, 0.1, 0)], "more"), [64, 128])(endless(*AT_REST)), Done)
    said = nothing_reached(endless(*AT_REST), None, True)
    assert "have come to rest short of this one" in said
    assert "--epochs" not in said


@pytest.mark.parametrize(
    ("runs", "nearest"),
    [
        ([(rate, value, 60) for rate, value, _ in AT_REST], 0),
        ([(rate, value, 100) for rate, value, _ in AT_REST], 0),
        ([*AT_REST, (0.001, 0.95, 20)], -1),
    ],
    ids=["rests since a short while", "no longer than others", "moves"],
)
def test_what_came_nearest_goes_on_first(runs: list[tuple[float, float, int]], nearest: int) -> None:
    known = endless(*runs)
    run = known.runs[nearest]
    asked = while_nearer(fixed([Trial(128, 0.1, 0)], "more"), [64, 128])(known)
    assert not out_of_reach(known)
    assert isinstance(asked, Advance)
    assert asked.trial == run.trial
    assert asked.pause is not None
    assert asked.pause(endless((0.1, 0.9, 2 * run.points[-1].step)).runs[0].points)
    assert not asked.pause(run.points)


@pytest.mark.parametrize(
    "runs",
    [
        AT_REST[:-1],
        [(rate, 0.99 - 10 * rate / 9, 100) for rate, _, _ in AT_REST],
        [(rate, value, 50) for rate, value, _ in AT_REST],
        [(rate, 0.3, 100) for rate, _, _ in AT_REST],
    ],
    ids=["too few", "nearer at lower rates", "too short to tell", "hardly begun"],
)
def test_runs_without_an_end_go_on(runs: list[tuple[float, float, int]]) -> None:
    assert not out_of_reach(endless(*runs))


def test_without_a_planned_length_what_is_trained_with_now_comes_half_as_far_as_the_nearest_before_it_ends() -> None:
    searching = while_nearer(fixed([Trial(128, 0.1, 0)], "more"), [16, 64, 128])
    known = replace(evidence(ALIKE, RATES), facts=replace(FACTS, present=(16, 0.03)))
    assert not any(run.trial.planned_examples for run in known.runs)
    action = searching(known)
    assert isinstance(action, Advance)
    assert (action.trial.batch_size, action.trial.learning_rate) == (16, snap(0.03))
    assert action.pause is not None
    half = known.runs[0].points[-1].step / 2

    def come(last: float) -> tuple[Point, ...]:
        return tuple(Point(k * int(last), 16 * k * int(last), valid_metric=0.5) for k in range(2))

    short, far = come(half / 2), come(half)
    assert action.pause(short) is None
    assert action.pause(far) is not None
    paused = Stop(StopReason.STOPPED_BY_RULE, PAUSED)
    for points, ended in ((short, False), (far, True)):
        run = Run(action.trial, points, paused, 1.0, 99)
        assert isinstance(searching(replace(known, runs=(*known.runs, run))), Done) == ended
