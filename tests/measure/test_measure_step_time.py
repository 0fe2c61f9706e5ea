"""Seconds per step, measured against a clock that only the workload moves: the exact answer is known."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset

from rightbatch.errors import WorkloadError
from rightbatch.measure import step_time
from rightbatch.measure.step_time import REPEAT_SECONDS, unsteady
from rightbatch.records import StepTime
from rightbatch.workload import Workload


def measure_step_times(*given: Any, **how: Any) -> list[StepTime]:
    """Those that are finished."""
    return [record for record in step_time.measure_step_times(*given, **how) if not record.unfinished]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("rightbatch.measure.step_time.time", clock)
    return clock


def forward(model, batch):
    return model(batch)[:, 0]


def workload(loss, **changes: Any) -> Workload:
    parts = {
        "name": "timed",
        "model": lambda: nn.Linear(1, 1),
        "data": torch.zeros(100, 1),
        "valid": torch.zeros(1, 1),
        "optimizer": lambda parameters, trial: torch.optim.SGD(parameters, lr=trial.learning_rate),
    }
    return Workload(loss=loss, **{**parts, **changes})


def takes(clock: Clock, floor: float, slope: float):
    def loss(model, batch):
        clock.now += floor + slope * len(batch)
        return forward(model, batch)

    return loss


def test_the_seconds_of_a_step_are_what_the_step_took(clock):
    sizes = [64, 1, 8]
    found = {s.batch_size: s for s in measure_step_times(workload(takes(clock, 0.01, 0.001)), sizes, rounds=3)}
    assert sorted(found) == [1, 8, 64]
    for size, times in found.items():
        assert times.seconds == pytest.approx([0.01 + 0.001 * size] * 3, rel=1e-9)
        assert times.wait_seconds == (0.0, 0.0, 0.0)
        assert times.unsteady == ()


class Slow(Dataset):
    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def __len__(self):
        return 100

    def __getitem__(self, index):
        self.clock.now += self.seconds
        return torch.zeros(1)


@pytest.mark.parametrize("size", [1, 8, 64, 100])
def test_waiting_for_data_is_part_of_a_step_and_told_apart(clock, size):
    work = workload(takes(clock, 0.01, 0.0), data=Slow(clock, 0.002))
    (times,) = measure_step_times(work, [size], rounds=2)
    assert times.wait_seconds == pytest.approx([0.002 * size] * 2, rel=1e-9)
    assert times.seconds == pytest.approx([0.01 + 0.002 * size] * 2, rel=1e-9)


def test_evaluation_and_the_first_steps_are_not_counted(clock):
    calls: dict[int, int] = {}

    def loss(model, batch):
        calls[len(batch)] = calls.get(len(batch), 0) + 1
        clock.now += 50.0 if calls[len(batch)] == 1 else 0.001
        return forward(model, batch)

    def metric(model, batch):
        raise AssertionError("step times need no evaluation")

    for times in measure_step_times(workload(loss, metric=metric), [2, 4], rounds=3):
        assert times.seconds == pytest.approx([0.001] * 3, rel=1e-9)
    # Nor do they make a step look long, and a repeat too short for a real clock.
    assert all(count * 0.001 >= 3 * REPEAT_SECONDS for count in calls.values())


def test_sizes_take_turns_so_that_a_slower_machine_touches_all_alike(clock):
    turns: list[int] = []

    def loss(model, batch):
        if not turns or turns[-1] != len(batch):
            turns.append(len(batch))
        clock.now += 0.01
        return forward(model, batch)

    measure_step_times(workload(loss), [4, 2, 8], rounds=3)
    assert turns[-9:] == [2, 4, 8] * 3


def test_after_each_round_there_are_the_repeats_so_far(clock):
    records = list(step_time.measure_step_times(workload(takes(clock, 0.01, 0.001)), [4, 2], rounds=3))
    assert [(r.batch_size, len(r.seconds), r.unfinished) for r in records] == [
        (2, 1, True), (4, 1, True), (2, 2, True), (4, 2, True), (2, 3, False), (4, 3, False),
    ]  # fmt: skip


def test_a_repeat_during_which_the_machine_was_busy_is_kept_and_flagged(clock):
    jitter = np.random.default_rng(0).uniform(0.0100, 0.0101, 10_000)
    turns = {"now": 0, "steps": 0, "size": 0}

    def loss(model, batch):
        if len(batch) != turns["size"]:
            turns["now"] += 1
            turns["size"] = len(batch)
        turns["steps"] += 1
        clock.now += jitter[turns["steps"]] * (3 if turns["now"] == 6 else 1)  # 2, 4, then 2, 4, and again 2, *4*
        return forward(model, batch)

    two, four = measure_step_times(workload(loss), [2, 4], rounds=7)
    assert two.unsteady == ()
    assert four.unsteady == (1,)
    assert four.seconds[1] > 0.03 > 0.011 > max(two.seconds)


def test_a_size_that_does_not_fit_and_all_larger_ones_get_no_record(clock):
    def loss(model, batch):
        clock.now += 0.01
        if len(batch) >= 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(model, batch)

    found = [times.batch_size for times in measure_step_times(workload(loss), [2, 16, 4, 8], rounds=1)]
    assert found == [2, 4]


def test_a_model_that_does_not_fit_gets_no_record_at_any_size(clock):
    def model():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert list(measure_step_times(workload(forward, model=model), [2, 4], rounds=1)) == []


def test_another_error_is_not_taken_for_a_lack_of_memory(clock):
    def loss(model, batch):
        raise ValueError("seventeen")

    with pytest.raises(WorkloadError, match="seventeen"):
        list(measure_step_times(workload(loss), [2], rounds=1))


def test_a_size_at_which_the_workload_raises_is_told_and_the_others_are_measured(clock):
    def loss(model, batch):
        if len(batch) in (1, 3):
            raise ValueError("not so many")
        return model(batch).sum(1)

    with pytest.warns(UserWarning, match=r"No step could be timed at batch size (1|3): .*not so many") as told:
        found = list(measure_step_times(workload(loss), [1, 2, 3, 4], rounds=1))
    assert len(told) == 2
    assert [record.batch_size for record in found] == [2, 4]


def test_measuring_leaves_the_random_stream_of_the_process_alone(clock):
    work = workload(takes(clock, 0.01, 0.0), model=lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1)))
    before = torch.get_rng_state()
    assert len(list(measure_step_times(work, [2, 4], rounds=2))) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_the_real_clock_sees_a_real_pause():
    def loss(model, batch):
        time.sleep(0.004)
        return forward(model, batch)

    (times,) = measure_step_times(workload(loss), [2], rounds=3)
    assert all(0.004 <= seconds < 0.4 for seconds in times.seconds)
    assert all(0 < waits < 0.004 for waits in times.wait_seconds)


def test_what_stands_out_is_known_by_hand():
    # Deviations from the median 3 are 2 1 0 1 2 97, their median 1.5; 0.6745 x 97 / 1.5 = 44, the others stay below 1.
    assert unsteady([1, 2, 3, 4, 5]) == ()
    assert unsteady([1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 100.0]) == (6,)
    assert unsteady([100.0, 2.0, 3.0, 3.0, 4.0, 5.0, -100.0]) == (0, 6)
    # The border is 3.5: with a median of 0 and a median deviation of 1, that is a value of 3.5 / 0.6745 = 5.189.
    assert unsteady([-1, -1, 0, 1, 1, 5.18]) == ()
    assert unsteady([-1, -1, 0, 1, 5.19, -5.19, 1]) == (4, 5)
    assert unsteady([2.0, 2.0, 2.0]) == ()


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    times=st.lists(st.integers(1, 1000), min_size=1, max_size=12),
    scale=st.sampled_from([0.25, 2.0, 1024.0]),
    seed=st.integers(0, 99),
)
def test_what_stands_out_does_not_depend_on_the_unit_or_the_order(times, scale, seed):
    values = np.array(times, float)
    flagged = unsteady(values)
    assert unsteady(values * scale) == flagged
    order = np.random.default_rng(seed).permutation(len(values))
    assert sorted(order[list(unsteady(values[order]))]) == list(flagged)
    assert len(flagged) <= len(values) / 2


def test_no_sizes_give_no_records():
    assert list(measure_step_times(workload(forward), [], rounds=3)) == []


def test_a_schedule_does_not_move_the_rate_while_steps_are_timed(clock):
    rates = []

    def optimizer(parameters, trial):
        made = torch.optim.SGD(parameters, lr=trial.learning_rate)
        rates.append(SimpleNamespace(made=made, first=trial.learning_rate))
        return made

    work = workload(
        takes(clock, 0.01, 0.0),
        optimizer=optimizer,
        schedule=lambda made, trial: torch.optim.lr_scheduler.StepLR(made, 1, gamma=10.0),
    )
    assert len(list(measure_step_times(work, [2, 4], rounds=2))) == 2
    assert all(rate.made.param_groups[0]["lr"] == rate.first for rate in rates)
