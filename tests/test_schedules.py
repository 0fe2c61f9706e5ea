"""The probe of schedules: the rates that it finds are those of training, and it knows when they move after warm-up."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from rightbatch.engine import WorkloadRunner
from rightbatch.errors import WorkloadError
from rightbatch.records import Stop, Trial
from rightbatch.schedules import PROBED_STEPS, changes_after_warm_up, probe_rates
from rightbatch.workload import Workload

X = torch.linspace(-1, 1, 80).reshape(40, 2)


def squared(model, batch):
    return model(batch)[:, 0] ** 2


def workload(schedule: Any, **changes: Any) -> Workload:
    parts = {
        "name": "scheduled",
        "model": lambda: nn.Linear(2, 1),
        "data": X,
        "valid": X[:5],
        "loss": squared,
        "optimizer": lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate),
        "present": (4, 0.1),
        "planned_examples": 400,
    }
    return Workload(schedule=schedule, **{**parts, **changes})


WARM_UP_EXAMPLES = 80


def warm_up_steps(trial) -> int:
    return WARM_UP_EXAMPLES // trial.batch_size


def warm_up_then(later):
    """A linear warm-up over 80 examples, then another schedule."""

    def schedule(optimizer, trial):
        steps = warm_up_steps(trial)
        warm_up = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=steps)
        return lr_scheduler.SequentialLR(optimizer, [warm_up, later(optimizer, trial, steps)], [steps])

    return schedule


def rate_of(factor):
    """A schedule from a factor as a function of examples seen and of the planned length in examples."""

    def schedule(optimizer, trial):
        planned = trial.planned_examples
        return lr_scheduler.LambdaLR(optimizer, lambda step: factor(step * trial.batch_size, planned))

    return schedule


SCHEDULES = {
    "constant": (lambda o, t: lr_scheduler.ConstantLR(o, 1.0), lambda k: 0.1, False),
    "linear warm-up": (
        lambda o, t: lr_scheduler.LinearLR(o, 0.1, total_iters=20),
        lambda k: 0.1 * min(1, 0.1 + 0.9 * k / 20),
        False,
    ),
    "linear warm-up, then constant": (
        warm_up_then(lambda o, t, steps: lr_scheduler.ConstantLR(o, 1.0)),
        lambda k: 0.1 * min(1, 0.1 + 0.9 * k / 20),
        False,
    ),
    "linear warm-up, then a drop": (
        warm_up_then(lambda o, t, steps: lr_scheduler.StepLR(o, 70, 0.5)),
        lambda k: 0.1 * (0.5 if k >= 90 else min(1, 0.1 + 0.9 * k / 20)),
        True,
    ),
    "cosine": (
        lambda o, t: lr_scheduler.CosineAnnealingLR(o, t.planned_steps),
        lambda k: 0.05 * (1 + math.cos(math.pi * k / 100)),
        True,
    ),
    "steps": (lambda o, t: lr_scheduler.StepLR(o, 30, 0.5), lambda k: 0.1 * 0.5 ** (k // 30), True),
    "steps beyond the end": (lambda o, t: lr_scheduler.StepLR(o, 100, 0.5), lambda k: 0.1, False),
    "a step at the last step": (lambda o, t: lr_scheduler.StepLR(o, 99, 0.5), lambda k: 0.1 if k < 99 else 0.05, True),
    "milestones in examples": (
        rate_of(lambda seen, planned: 0.1 if seen >= 200 else 1),
        lambda k: 0.1 if k < 50 else 0.01,
        True,
    ),
    "milestones beyond the end": (rate_of(lambda seen, planned: 0.1 if seen >= 4000 else 1), lambda k: 0.1, False),
    "warm-up by a factor": (rate_of(lambda seen, planned: min(1, seen / 80)), lambda k: 0.1 * min(1, k / 20), False),
    "linear to zero": (rate_of(lambda seen, planned: 1 - seen / planned), lambda k: 0.1 * (1 - k / 100), True),
    "up and down and up again": (
        rate_of(lambda seen, planned: 0.5 if 100 <= seen < 200 else 1),
        lambda k: 0.05 if 25 <= k < 50 else 0.1,
        True,
    ),
}


@pytest.mark.parametrize(("schedule", "rate", "bound"), SCHEDULES.values(), ids=SCHEDULES.keys())
def test_the_probe_finds_the_rates_in_closed_form_and_whether_they_move_after_warm_up(schedule, rate, bound):
    work = workload(schedule)
    assert probe_rates(work) == pytest.approx([rate(k) for k in range(100)], rel=1e-9, abs=1e-12)
    assert changes_after_warm_up(work) is bound
    assert work.facts().length_bound is bound


def test_one_cycle_is_bound_to_its_length():
    work = workload(lambda o, t: lr_scheduler.OneCycleLR(o, t.learning_rate, total_steps=t.planned_steps))
    rates = probe_rates(work)
    assert len(rates) == 100
    assert max(rates) == pytest.approx(0.1)
    assert rates[0] < 0.01 > rates[-1]
    assert changes_after_warm_up(work)


def test_what_is_probed_is_what_a_run_trains_with():
    work = workload(warm_up_then(lambda o, t, steps: lr_scheduler.CosineAnnealingLR(o, t.planned_steps - steps)))
    rates = probe_rates(work)
    run = WorkloadRunner(work).start(Trial(4, 0.1, 0))
    points = []
    while not isinstance(outcome := run.advance(), Stop):
        points.append(outcome)
    # The rate of a point is the one of the step to come, the last point has none.
    assert [p.learning_rate for p in points[:-1]] == pytest.approx([rates[p.step] for p in points[:-1]], rel=1e-12)


def test_without_a_schedule_nothing_is_bound_and_what_the_person_says_goes_first():
    cosine = SCHEDULES["cosine"][0]
    assert not workload(None).facts().length_bound
    assert not workload(cosine, length_bound=False).facts().length_bound
    assert workload(None, length_bound=True).facts().length_bound


@pytest.mark.parametrize("planned", [PROBED_STEPS * 4, PROBED_STEPS * 4 + 1, 10_000_000])
def test_a_long_run_is_probed_in_few_steps_over_the_same_examples(planned):
    work = workload(rate_of(lambda seen, planned: 0.1 if seen >= 0.6 * planned else 1), planned_examples=planned)
    rates = probe_rates(work)
    assert len(rates) <= PROBED_STEPS + 1
    dropped = sum(rate < 0.05 for rate in rates)
    assert dropped / len(rates) == pytest.approx(0.4, abs=0.002)


def test_probing_draws_nothing_and_trains_nothing():
    model = nn.Linear(2, 1)
    before = torch.get_rng_state()
    weights = model.weight.detach().clone()
    assert changes_after_warm_up(workload(SCHEDULES["cosine"][0], model=lambda: model))
    assert torch.equal(model.weight, weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_schedule_knows_the_settings_of_its_workload():
    work = workload(
        lambda o, t: lr_scheduler.StepLR(o, int(t.settings["period_steps"]), 0.5), settings={"period_steps": 40}
    )
    assert probe_rates(work)[40] == pytest.approx(0.05)


def test_a_schedule_that_asks_for_a_value_is_refused_by_name_with_what_to_do():
    with pytest.raises(WorkloadError, match=r"ReduceLROnPlateau\.step\(\) asks for a value .*use a schedule of steps"):
        workload(lambda o, t: lr_scheduler.ReduceLROnPlateau(o)).facts()


def test_a_schedule_that_raises_when_it_is_made_is_the_workloads_error():
    def schedule(optimizer, trial):
        raise ValueError("no such schedule")

    with pytest.raises(WorkloadError, match=r"schedule\(optimizer, trial\) raised ValueError: no such schedule"):
        workload(schedule).facts()


def stepped_too_often(optimizer, trial):
    return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=60)


def raises_later(optimizer, trial):
    def factor(step):
        if step == 60:
            raise TypeError("no factor")
        return 1.0

    return lr_scheduler.LambdaLR(optimizer, factor)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [(stepped_too_often, "raised ValueError: Tried to step 61 times"), (raises_later, "raised TypeError: no factor")],
)
def test_a_schedule_that_raises_later_is_the_workloads_error_with_the_step(schedule, message):
    with pytest.raises(WorkloadError, match=rf"{message}.*step (60|61) of 100, batch_size=4\)"):
        workload(schedule).facts()
