"""Trainings whose batch size changes as planned: a loop by hand agrees, an interrupted one goes on to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import TensorDataset

import rightbatch
from rightbatch.batch_schedule import SETTING, parsed
from rightbatch.engine import TrainingRun, WorkloadRunner
from rightbatch.errors import WorkloadError
from rightbatch.evidence import Evidence
from rightbatch.fit.step_time import median_seconds
from rightbatch.question import Objective, Question
from rightbatch.records import Point, Run, Settings, StepTime, Stop, StopReason, Target, Trial
from rightbatch.workload import Workload

X = torch.randn(50, 4, generator=torch.Generator().manual_seed(5))
Y = (X.sum(dim=1) > 0).long()

PLAN = "10@64, 20@150*2, 5@300"
"""Steps of 8 until 64 examples, of 10 to 154, of 20 at twice the rate to 314, then of 5 at the rate."""


def workload(**changes: Any) -> Workload:
    parts = {
        "name": "signs",
        "model": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)),
        "data": (X, Y),
        "valid": (X[:20], Y[:20]),
        "loss": lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none"),
        "optimizer": lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate, momentum=0.9),
        "present": (8, 0.05),
    }
    return Workload(**{**parts, **changes})


def trial(plan: str = PLAN, size: int = 8) -> Trial:
    return Trial(size, 0.05, 3, 400, Settings({SETTING: plan} if plan else {}))


def finished(run: TrainingRun) -> list[Point]:
    points = list(iter(run.advance, Stop(StopReason.FINISHED)))
    assert all(isinstance(point, Point) for point in points)
    return points


def timeless(points: list[Point]) -> list[tuple[Any, ...]]:
    return [(p.step, p.examples, p.train_loss, p.valid_loss, p.batch_size, p.learning_rate) for p in points]


def batches(plan: str, seed: int = 3) -> Iterator[tuple[Tensor, float]]:
    """Indices of every step and the factor of its rate, counted one by one: passes are cut as they come."""
    schedule, generator, seen = parsed(8, plan), torch.Generator().manual_seed(seed), 0
    while True:
        order = torch.randperm(50, generator=generator)
        while len(order) >= (phase := schedule.at(seen)).batch_size:
            chosen, order = order.split([phase.batch_size, len(order) - phase.batch_size])
            seen += phase.batch_size
            yield chosen, phase.rate_factor


@pytest.mark.parametrize("data", [(X, Y), TensorDataset(X, Y)], ids=["tensors", "dataset"])
def test_a_loop_by_hand_gives_the_same_model(data: Any) -> None:
    run = WorkloadRunner(workload(data=data)).start(trial())
    points = finished(run)

    with torch.random.fork_rng():
        torch.manual_seed(0)  # whatever it begins with: it is given the weights of the run's own beginning
        model = workload().model()
    model.load_state_dict(WorkloadRunner(workload()).start(trial()).model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _, (chosen, factor) in zip(range(points[-1].step), batches(PLAN), strict=False):
        optimizer.param_groups[0]["lr"] = 0.05 * factor
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[chosen]), Y[chosen]).backward()
        optimizer.step()
    for ours, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_points_say_what_was_in_force_and_stand_where_those_of_one_size_do() -> None:
    points = finished(WorkloadRunner(workload()).start(trial()))
    schedule = parsed(8, PLAN)
    for point in points[1:]:
        assert point.examples == schedule.examples_after(point.step)
    sizes = [point.batch_size for point in points]
    assert sorted(set(sizes), key=sizes.index) == [8, 10, 20, 5]
    assert {point.learning_rate for point in points if point.batch_size == 20} == {0.1}
    assert points[-1].learning_rate == pytest.approx(0.05)
    fixed = finished(WorkloadRunner(workload()).start(trial("")))
    assert abs(points[-1].examples - fixed[-1].examples) <= 8


def test_a_plan_that_holds_the_size_is_the_fixed_run_to_the_bit() -> None:
    fixed = finished(WorkloadRunner(workload()).start(trial("")))
    held = finished(WorkloadRunner(workload()).start(trial("8@100, 8@200")))
    same = [(p.step, p.examples, p.valid_loss) for p in held]
    assert same == [(p.step, p.examples, p.valid_loss) for p in fixed]


@pytest.mark.parametrize("after", range(0, 40, 3))
def test_an_interrupted_run_goes_on_to_the_bit(after: int) -> None:
    work = workload(averaging_examples=40.0, schedule=lambda o, t: lr_scheduler.CosineAnnealingLR(o, t.planned_steps))
    whole = finished(WorkloadRunner(work).start(trial()))
    first = WorkloadRunner(work).start(trial())
    points = [first.advance() for _ in range(min(after, len(whole)))]
    rest = finished(WorkloadRunner(work).start(trial(), first.save()))
    assert timeless([*points, *rest]) == timeless(whole)  # type: ignore[list-item]


def test_a_schedule_of_the_rate_sees_the_same_examples() -> None:
    work = workload(schedule=lambda o, t: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)))
    points = finished(WorkloadRunner(work).start(trial("16@80, 4@240")))
    for point in points:
        assert point.learning_rate == pytest.approx(0.05 / (1 + point.examples // 8))


def test_averaged_weights_forget_in_as_many_examples() -> None:
    run = WorkloadRunner(workload(averaging_examples=40.0)).start(trial("20@40"))
    finished(run)
    assert run._stepper is not None
    average = run._stepper.update._average
    assert average is not None
    old, new = [torch.zeros(1)], [torch.ones(1)]
    average.multi_avg_fn(old, new, 1)
    assert float(old[0]) == pytest.approx(1 - torch.exp(torch.tensor(-20 / 40.0)))


def test_large_batches_are_accumulated_from_parts_that_fit() -> None:
    whole = finished(WorkloadRunner(workload()).start(trial("40@80")))
    parts = finished(WorkloadRunner(workload(), micro_batch_size=8).start(trial("40@80")))
    for one, other in zip(whole, parts, strict=True):
        assert one.valid_loss == pytest.approx(other.valid_loss, rel=1e-5)


def test_what_cannot_be_trained_is_refused() -> None:
    runner = WorkloadRunner(workload())
    assert runner.offers(trial("50@80"))
    assert not runner.offers(trial("51@80"))
    with pytest.raises(rightbatch.InputError, match="written as 1024@50000"):
        runner.start(trial("many"))
    with pytest.raises(WorkloadError, match="larger than the data"):
        finished(runner.start(trial("51@80")))


# ------------------------------------------------------------------------------------------------------- seconds


def evidence(runs: list[Run], objective: Objective = Objective.TIME, **at: float) -> Evidence:
    times = tuple(StepTime(size, (0.01 + 0.001 * size,) * 5, (0.0,) * 5) for size in (8, 32))
    question = Question(objective, Target(0.5, "valid_loss", "min", rule="first_touch"), **at)
    settings = Settings({SETTING: "32@80"}) if runs[0].trial.settings else Settings()
    return Evidence(workload().facts(), tuple(runs), times, question, settings)


def a_run(plan: str) -> Run:
    """Its loss falls by 0.01 every eight examples; the target is reached at 400."""
    schedule = parsed(8, plan)
    steps = schedule.steps_near([8 * k for k in range(1, 101)])
    seen = [schedule.examples_after(step) for step in (0, *steps)]
    points = [Point(step, n, valid_loss=1 - n / 800) for step, n in zip((0, *steps), seen, strict=True)]
    return Run(Trial(8, 0.05, 0, 800, trial(plan).settings), tuple(points), Stop(StopReason.FINISHED), 1)


def test_each_phase_takes_seconds_of_its_own() -> None:
    at_8, at_32 = (median_seconds(record) for record in evidence([a_run("")]).step_times)
    assert evidence([a_run("")]).cost(a_run("")) == pytest.approx(50 * at_8)
    growing = evidence([a_run("32@80")])
    assert growing.cost(growing.runs[0]) == pytest.approx(10 * at_8 + 10 * at_32)


def test_values_at_equal_seconds_are_those_of_the_phase_they_fall_into() -> None:
    at_8, at_32 = (median_seconds(record) for record in evidence([a_run("")]).step_times)
    growing = evidence([a_run("32@80")], Objective.METRIC, at_seconds=10 * at_8 + 5 * at_32)
    assert growing.seconds.examples_at(parsed(8, "32@80"), 10 * at_8 + 5 * at_32) == pytest.approx(240)
    assert growing.seconds.examples_at(parsed(8, "32@80"), 3 * at_8) == pytest.approx(24)


def test_runs_of_another_plan_answer_another_question() -> None:
    fixed, growing = a_run(""), a_run("32@80")
    assert evidence([fixed, growing]).relevant == (fixed,)
    assert evidence([growing, fixed]).relevant == (growing,)


def test_what_was_just_read_back_can_be_saved() -> None:
    first = WorkloadRunner(workload()).start(trial())
    points = [first.advance() for _ in range(9)]
    again = WorkloadRunner(workload()).start(trial(), first.save())
    rest = finished(WorkloadRunner(workload()).start(trial(), again.save()))
    assert timeless([*points, *rest]) == timeless(finished(WorkloadRunner(workload()).start(trial())))  # type: ignore[list-item]
