"""Loops of one's own whose batches grow as planned: what they are told, what they tell, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rightbatch
from rightbatch import curves
from rightbatch.batch_schedule import SETTING, parsed
from rightbatch.errors import InputError, WorkloadError
from rightbatch.loops import Loop, LoopRunner, LoopTrial
from rightbatch.records import Point, Settings, Stop, StopReason, Trial

PLAN = "32@320, 128@960*0.5"
CURVATURES = np.array([1.0, 0.1])


def descent(trial: LoopTrial) -> Iterator[Point]:
    """A noisy quadratic: the loss falls until the noise of a batch holds it up."""
    noise, weights, step, examples = np.random.default_rng(trial.seed), np.array([1.0, 3.0]), 0, 0
    while True:
        size, rate = trial.at(examples)
        weights = weights - rate * (CURVATURES * weights + noise.normal(size=2) / np.sqrt(size))
        step, examples = step + 1, examples + size
        if trial.due(step):
            yield Point(step, examples=examples, valid_loss=float(CURVATURES @ weights**2 / 2))


def at_its_own_size(trial: LoopTrial) -> Iterator[Point]:
    """As `descent`, but of one size: it has never heard of a plan."""
    noise, weights, step = np.random.default_rng(trial.seed), np.array([1.0, 3.0]), 0
    while True:
        gradient = CURVATURES * weights + noise.normal(size=2) / np.sqrt(trial.batch_size)
        weights, step = weights - trial.learning_rate * gradient, step + 1
        if trial.due(step):
            yield Point(step, valid_loss=float(CURVATURES @ weights**2 / 2))


def run(train, plan: str = "", size: int = 8, planned: int | None = 4000) -> list[Point]:  # type: ignore[no-untyped-def]
    trial = Trial(size, 0.1, 0, planned, Settings({SETTING: plan}))
    going = LoopRunner(Loop(train, settings={SETTING: ""})).start(trial)
    points: list[Point] = []
    while not isinstance(outcome := going.advance(), Stop):
        points.append(outcome)
        if planned is None and len(points) == 30:
            going.close()
            return points
    assert outcome.reason is StopReason.FINISHED
    return points


def numbers(points: list[Point]) -> list[tuple[int, float, float | None]]:
    return [(point.step, point.examples, point.valid_loss) for point in points]


def test_a_plan_that_holds_the_size_is_the_fixed_run() -> None:
    assert numbers(run(descent)) == numbers(run(at_its_own_size))
    # From where the plan differs on, so do they; before, they are the same to the bit.
    grown, fixed = run(descent, PLAN), run(descent)
    before = [point for point in fixed if point.examples <= 320]
    assert numbers(grown)[: len(before)] == numbers(before)
    assert before
    assert numbers(grown) != numbers(fixed)


@pytest.mark.parametrize("planned", [4000, None])
def test_points_are_of_the_plan(planned: int | None) -> None:
    schedule = parsed(8, PLAN)
    points = run(descent, PLAN, planned=planned)
    for point in points:
        assert point.examples == schedule.examples_after(point.step)
        phase = schedule.at(point.examples)
        assert (point.batch_size, point.learning_rate) == (phase.batch_size, 0.1 * phase.rate_factor)
    if planned:
        assert [point.step for point in points] == list(schedule.steps_near(curves.ladder(planned)))
        assert points[-1].examples == pytest.approx(planned, abs=64)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 64), st.integers(1, 4), st.integers(1, 3000), st.integers(1, 6000))
def test_a_planned_run_ends_after_its_planned_steps(size: int, factor: int, begins: int, planned: int) -> None:
    given_trial = LoopTrial(Trial(size, 0.1, 0, planned, Settings({SETTING: f"{size * factor}@{begins}"})))
    steps = given_trial.planned_steps
    assert steps is not None
    due = [step for step in range(1, steps + 50) if given_trial.due(step)]
    assert due[-1] == steps
    assert abs(given_trial.batch_schedule.examples_after(steps) - planned) <= size * factor


def test_a_loop_whose_batches_do_not_grow_is_told_so() -> None:
    with pytest.raises(WorkloadError, match=r"without its examples.*trial\.at\(examples\)"):
        run(at_its_own_size, PLAN)

    def told(trial: LoopTrial) -> Iterator[Point]:
        for point in at_its_own_size(trial):
            yield Point(point.step, examples=point.step * trial.batch_size, valid_loss=point.valid_loss)

    with pytest.raises(WorkloadError, match=r"examples after step \d+, where by its batch schedule"):
        run(told, PLAN)


@pytest.mark.parametrize("objective", ["examples", "time"])
def test_a_schedule_is_searched_for_a_loop_that_follows_one(objective: str, tmp_path: Path) -> None:
    loop = Loop(descent, train_examples=100_000, planned_examples=100_000, target=0.004, settings={SETTING: ""})
    how = {"batch_sizes": [8, 32], "seeds": 1, "objective": objective, "schedule": True}
    answer = rightbatch.find(loop, study=tmp_path / "loop.study.db", **how)
    growth = answer.growth
    assert growth is not None
    assert growth.tried
    with pytest.raises(InputError, match=r"trial\.at\(examples\), and say so"):
        rightbatch.find(Loop(at_its_own_size, target=0.01), study=tmp_path / "other.study.db", schedule=True)
