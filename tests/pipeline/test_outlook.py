"""What is said before a search or a sweep of how long it will take, against what it then takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rightbatch.curves import until_target
from rightbatch.evidence import Evidence
from rightbatch.pipeline import outlook
from rightbatch.question import Objective, Question
from rightbatch.records import Point, Run, StepTime, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.search.sweep import Sweep

TARGET = Target(0.5, "valid_metric", "max")
FACTS = WorkloadFacts("w", 1000, 0, 6400, "m", "max", "SGD", present=(16, 0.1))
STEP_SECONDS = {16: 0.5, 64: 1.0}
"""A run takes 400 steps of 0.5 s at 16, and 100 of 1 s at 64."""


def evidence(*runs: Run, **changes: Any) -> Evidence:
    times = tuple(StepTime(size, (seconds,), (0.0,)) for size, seconds in STEP_SECONDS.items())
    return Evidence(replace(FACTS, **changes), runs, times, Question(Objective.TIME, TARGET), planned_examples=6400)


def sweep(**changes: Any) -> Sweep:
    return replace(Sweep((16, 64), (0, 1), 16, 0.1, lambda trial: True, rates=(0.1, 1.0)), **changes)


def done(size: int, rate: float, seed: int) -> Run:
    steps = 6400 // size
    points = (Point(steps, 6400, valid_metric=0.1, batch_size=size),)
    return Run(Trial(size, rate, seed, 6400), points, Stop(StopReason.FINISHED), 1.0, 1 + seed)


def test_the_plan_of_a_sweep_at_given_rates_is_exact() -> None:
    assert outlook.of_sweep(sweep(), evidence()) == outlook.Outlook(8, 4 * 200.0 + 4 * 100.0, 1200.0, exact=True)
    half = outlook.of_sweep(sweep(run_seconds=150.0), evidence())
    assert half == outlook.Outlook(8, 4 * 150.0 + 4 * 100.0, 1000.0, exact=True)
    assert outlook.of_sweep(sweep(), evidence(done(16, 0.1, 0))) == outlook.Outlook(7, 1000.0, 1000.0, exact=True)


@pytest.mark.parametrize(
    ("made", "changes"),
    [
        (sweep(rates=None), {}),
        (sweep(until=until_target(TARGET)), {}),
        (sweep(contender_seeds=(0, 1, 2)), {}),
        (sweep(), {"length_bound": True}),
    ],
    ids=["tuned", "until the target", "contenders", "a schedule"],
)
def test_any_other_plan_is_rough_and_says_so(made: Sweep, changes: dict[str, Any]) -> None:
    found = outlook.of_sweep(made, evidence(**changes))
    assert not found.exact
    assert found.runs is not None
    assert found.runs >= 8
    assert 0 < (found.low_seconds or 0) < (found.high_seconds or 0)


def test_a_search_is_expected_by_its_runs_or_by_one_of_the_present_choice() -> None:
    few = outlook.of_few_runs(evidence())
    assert (few.runs, few.low_seconds, few.high_seconds) == (None, 200.0, 1000.0)
    wide, narrow = (outlook.of_adaptive((16, 64), seeds, evidence()).runs or 0 for seeds in (5, 1))
    assert wide > narrow > 1
    bound = outlook.of_adaptive((16, 64), 1, evidence(length_bound=True))
    assert (bound.runs or 0) > narrow  # each at several lengths


def test_what_cannot_be_known_is_left_open() -> None:
    for found in (
        outlook.of_few_runs(evidence(planned_examples=0)),
        outlook.of_sweep(sweep(), replace(evidence(), step_times=())),
        outlook.of_adaptive((16, 64), 5, evidence(planned_examples=0)),
    ):
        assert (found.low_seconds, found.high_seconds, found.exact) == (None, None, False)


def test_a_search_goes_by_the_timed_size_nearest_to_what_is_trained_with_now() -> None:
    assert outlook.of_few_runs(evidence()) == outlook.Outlook(None, 200.0, 1000.0)
    assert outlook.of_few_runs(evidence(present=(48, 0.1))) == outlook.Outlook(None, 100.0, 500.0)
    assert outlook.of_few_runs(replace(evidence(), step_times=())) == outlook.Outlook(None, None, None)
