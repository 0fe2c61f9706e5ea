"""What is said where nothing reached the target does not contradict itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rightbatch.evidence import Evidence
from rightbatch.question import Objective, Question
from rightbatch.records import Point, Run, StepTime, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.shortfall import nothing_reached

FACTS = WorkloadFacts("p", 0, 0, 0, "valid_metric", "min", "unknown")
TARGET = Target(0.35, "valid_metric", "min")


def run(number: int, *losses: float, seed: int = 0, metric: float | None = None) -> Run:
    points = [
        Point(k, 64 * k, k / 10, valid_loss=loss, valid_metric=metric or loss, batch_size=64, learning_rate=0.1)
        for k, loss in enumerate(losses)
    ]
    return Run(Trial(64, 0.1, seed), tuple(points), Stop(StopReason.FINISHED), 1.0, number)


def said(*runs: Run, objective: Objective = Objective.STEPS, **at: float) -> str:
    times = (StepTime(32, (0.1,), (0.0,)),) if objective is Objective.METRIC else ()
    return nothing_reached(Evidence(FACTS, runs, times, Question(objective, TARGET, **at)), None, True).splitlines()[0]


def test_what_came_nearest_is_called_what_the_person_calls_it() -> None:
    text = said(run(1, 1.0, 0.5, 0.4))
    assert "target (valid_loss at most 0.35)" in text
    assert "The nearest came to 0.4: batch size 64, rate 0.1, 128 examples." in text
    assert "valid_metric at most" in said(run(1, 1.0, 0.5, metric=0.6))


@pytest.mark.parametrize("losses", [(1.0, 0.5, 0.3, 0.4), (1.0, 0.5, 0.3)])
def test_a_value_beyond_the_target_is_not_called_near_it(losses: tuple[float, ...]) -> None:
    text = said(run(1, *losses))
    assert "nearest" not in text
    assert "batch size 64, rate 0.1 was beyond it at one evaluation" in text


def test_a_seed_that_got_there_is_not_called_near() -> None:
    text = said(run(1, 1.0, 0.3, 0.2), run(2, 1.0, 0.9, seed=1))
    assert "But batch size 64, rate 0.1 did with 1 of 2 seeds." in text


def test_what_got_there_in_seconds_that_are_not_known_is_told() -> None:
    assert "what a step takes at that size is not known" in said(run(1, 1.0, 0.3, 0.2), objective=Objective.TIME)


def test_values_that_are_compared_at_equal_cost_have_no_target() -> None:
    text = said(run(1, 1.0, 0.5), objective=Objective.METRIC, at_examples=1e6)
    assert text.startswith("No run was trained as far as it is to be compared at.")


def test_a_training_that_ends_by_itself_is_told_of_and_not_to_be_planned_longer() -> None:
    def planned(number: int, examples: int) -> Run:
        made = run(number, 1.0, 0.5, 0.4)
        return replace(made, trial=replace(made.trial, planned_examples=examples))

    assert "ended by itself after 128 examples, and 1,000 are planned" in said(planned(1, 1000))
    assert "plan longer runs with --epochs" in said(planned(1, 128))


def test_what_the_seconds_went_into_is_told() -> None:
    evidence = Evidence(FACTS, (run(1, 1.0, 0.5),), (), Question(Objective.STEPS, TARGET))
    told = nothing_reached(evidence, None, False, {"profile": 38.2, "runs": 21.0, "memory": 0.0})
    assert "The budget went into: profile 38.2 s, runs 21 s." in told
