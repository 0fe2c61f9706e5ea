"""Trainings whose batch size a controller chooses as they go."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

import rightbatch
from rightbatch.bundled.digits import digits
from rightbatch.controllers import Goodput, InnerProductTest, Limits, Planned
from rightbatch.engine import WorkloadRunner
from rightbatch.errors import InputError
from rightbatch.online import OnlineRun, points_of
from rightbatch.records import Point, StepTime, Target, Trial

TRIAL = Trial(32, 0.1, 0, 6000)
TIMES = tuple(StepTime(size, (1e-3 + 2e-6 * size,) * 3, (0.0,) * 3) for size in (8, 32, 128, 512))


def test_a_controller_that_holds_the_size_trains_as_a_run_of_that_size_to_the_bit() -> None:
    """At the steps at which both are evaluated: rungs of a run are the nearest steps, here the next ones."""
    workload = digits()
    held = OnlineRun(workload, TRIAL, Planned(""))
    ours = {point.step: point for point in points_of(held, None)}
    run = WorkloadRunner(workload).start(TRIAL)
    theirs = {}
    while isinstance(point := run.advance(), Point):
        theirs[point.step] = point
    both = sorted(ours.keys() & theirs.keys())
    assert len(both) > 20
    for step in both:
        assert ours[step].valid_loss == theirs[step].valid_loss
        assert ours[step].valid_metric == theirs[step].valid_metric
    assert [(phase.begins_examples, phase.batch_size) for phase in held.phases] == [(0, 32)]


def test_a_plan_trains_as_its_setting_does() -> None:
    workload = digits()
    plan = "128@2000*2"
    planned = OnlineRun(workload, TRIAL, Planned(plan))
    ours = {point.step: point for point in points_of(planned, None)}
    run = WorkloadRunner(workload).start(replace(TRIAL, settings={"batch_schedule": plan}))
    theirs = {}
    while isinstance(point := run.advance(), Point):
        theirs[point.step] = point
    both = sorted(ours.keys() & theirs.keys())
    assert max(both) > 2000 / 32
    assert all(ours[step].valid_loss == theirs[step].valid_loss for step in both)
    assert [phase.batch_size for phase in planned.phases] == [32, 128]
    assert planned.phases[1].begins_examples == 2016  # a step begins before 2,000 and ends there
    assert planned.phases[1].rate_factor == 2


def test_goodput_follows_the_noise_within_its_limits_and_ends_at_the_target() -> None:
    run = OnlineRun(digits(), TRIAL, Goodput(limits=Limits(8, 256)), TIMES, overhead=float("inf"))
    target = Target(0.3, "valid_loss", "min")
    points = list(points_of(run, target))
    assert points[-1].valid_loss is not None
    assert points[-1].valid_loss <= 0.3
    assert points[-1].examples < 6000
    sizes = {phase.batch_size for phase in run.phases}
    assert len(sizes) > 1
    assert min(sizes) >= 8
    assert max(sizes) <= 256
    assert sum(phase.begins_examples == 0 for phase in run.phases) == 1


def test_a_controller_of_inner_products_is_told_them() -> None:
    controller = InnerProductTest(theta=0.2, limits=Limits(32, 256), memory_examples=500)
    run = OnlineRun(digits(), TRIAL, controller, overhead=float("inf"))
    list(points_of(run, None))
    sizes = [phase.batch_size for phase in run.phases]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 32


def test_training_is_one_call() -> None:
    trained = rightbatch.train("digits", planned_examples=30_000, threads=torch.get_num_threads())
    assert trained.reached
    assert trained.points[0].step == 0
    assert trained.phases[0].begins_examples == 0
    assert trained.model(digits().data[0][:3]).shape == (3, 10)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"target": 0.3}, r"Reached the target \(valid_loss at most 0.3\) after [\d,]+ examples in"),
        ({"target": 0.001}, r"Did not reach .* the best was 0\.\d+\. Plan more with planned_examples"),
        ({"present": (32, 1e6)}, "The loss was beyond saving after"),
    ],
)
def test_a_training_says_why_it_ended(more: dict[str, Any], said: str) -> None:
    trained = rightbatch.train("digits", Planned(""), planned_examples=5_000, **more)
    assert re.match(said, trained.ended)
    assert trained.reached == said.startswith("Reached")
    assert len(repr(trained)) < 1000  # neither its points nor its weights


def test_what_cannot_be_trained_so_is_refused() -> None:
    def train(trial):
        yield Point(1, valid_loss=1.0)

    with pytest.raises(InputError, match="AdaptiveBatchSampler"):
        rightbatch.train(train)
    with pytest.raises(InputError, match="Where to begin"):
        rightbatch.train(replace(digits(), present=None))
    with pytest.raises(InputError, match="weighs seconds"):
        OnlineRun(digits(), TRIAL, Goodput())
