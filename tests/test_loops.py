"""Loops of one's own: what is yielded is completed, clocked, ended and timed. Against a clock that only they move."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch import curves
from rightbatch.batch_schedule import parsed
from rightbatch.errors import InputError, WorkloadError
from rightbatch.loops import Loop, LoopRunner, LoopTrial
from rightbatch.loops.clock import synchronize
from rightbatch.loops.loop import LACKS
from rightbatch.loops.step_times import MOST_STEPS, REPEAT_SECONDS
from rightbatch.records import Point, Settings, Stop, StopReason, Trial
from rightbatch.runner import Saveable

checked = settings(derandomize=True, deadline=None, max_examples=60)

TRIAL = Trial(4, 0.1, 0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("rightbatch.loops.clock.time", clock)
    return clock


def start(train: Callable[..., Any], trial: Trial = TRIAL, **fields: Any):
    return LoopRunner(Loop(train, **{"direction": "min", **fields})).start(trial)


def outcomes_of(run) -> list[Point | Stop]:
    outcomes: list[Point | Stop] = []
    while not outcomes or isinstance(outcomes[-1], Point):
        outcomes.append(run.advance())
        assert len(outcomes) < 1000
    run.close()
    return outcomes


def yielding(*points: Any) -> Callable[[Any], Iterator[Any]]:
    """A loop that only yields what it is given."""

    def train(trial):
        yield from points

    return train


def scored(step: int, **fields: Any) -> Point:
    return Point(step, valid_metric=0.5, **fields)


# ------------------------------------------------------------------------------------------------------ the ladder


def open_rungs(first: int, size: int) -> Iterator[int]:
    return parsed(size, "").rungs(curves.open_ladder(first))


@checked
@given(st.integers(1, 10**6), st.integers(1, 5000))
def test_open_rungs_are_a_geometric_ladder_in_increasing_steps(first: int, size: int) -> None:
    rungs = list(itertools.islice(open_rungs(first, size), 60))
    twin: list[int] = []
    examples = float(first)
    while len(twin) < 60:
        step = max(1, math.floor(examples / size + 0.5))
        if not twin or step > twin[-1]:
            twin.append(step)
        examples *= 1.08
    assert rungs[0] >= 1
    assert all(low < high for low, high in itertools.pairwise(rungs))
    # The twin multiplies and rounds halves up: it may differ by one step, and never by more.
    assert max(abs(ours - theirs) for ours, theirs in zip(rungs, twin, strict=True)) <= 1


@checked
@given(st.integers(1, 64), st.integers(1, 64))
def test_open_rungs_are_at_the_same_examples_for_every_batch_size(one: int, other: int) -> None:
    first = 10**6  # so far that rounding to whole steps is small
    ours = [step * one for step in itertools.islice(open_rungs(first, one), 40)]
    theirs = [step * other for step in itertools.islice(open_rungs(first, other), 40)]
    assert ours[0] == pytest.approx(first, abs=one)
    assert ours == pytest.approx(theirs, abs=one + other)
    assert max(high / low for low, high in itertools.pairwise(ours)) < 1.0802


def test_open_rungs_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="first_examples=0"):
        curves.open_ladder(0)


def due_steps(trial: LoopTrial, steps: range) -> list[int]:
    return [step for step in steps if trial.due(step)]


@checked
@given(st.integers(1, 5000), st.integers(1, 64))
def test_with_a_planned_length_due_is_true_at_the_rungs_of_the_ladder(planned: int, size: int) -> None:
    trial = LoopTrial(Trial(size, 0.1, 0, planned))
    rungs = curves.rungs_in_steps(planned, size)
    assert due_steps(trial, range(1, rungs[-1] + 50)) == list(rungs)


def test_without_a_planned_length_due_goes_on_from_ten_present_batches() -> None:
    def first_due(trial: Trial, **fields: Any) -> list[int]:
        return [point.step for point in outcomes_of(start(to_step(3000), trial, **fields))[:-1]]

    assert first_due(Trial(4, 0.1, 0)) == list(itertools.takewhile(lambda s: s <= 3000, open_rungs(320, 4)))
    assert first_due(Trial(4, 0.1, 0), present=(50, 0.1))[0] == 125
    assert first_due(Trial(4, 0.1, 0, 0), present=(8, 0.1))[0] == 20  # a planned length of 0 is none


def to_step(last: int) -> Callable[[LoopTrial], Iterator[Point]]:
    def train(trial):
        for step in range(1, last + 1):
            if trial.due(step):
                yield scored(step)

    return train


@checked
@given(st.integers(1, 5000), st.integers(1, 32), st.integers(1, 40))
def test_asked_every_few_steps_due_is_true_once_for_the_rungs_between(planned: int, size: int, every: int) -> None:
    asked = range(every, 6000, every)
    rungs = curves.rungs_in_steps(planned, size)
    expected = [
        step for before, step in itertools.pairwise((0, *asked)) if any(before < rung <= step for rung in rungs)
    ]
    assert due_steps(LoopTrial(Trial(size, 0.1, 0, planned)), asked) == expected


def test_due_is_true_once_a_step() -> None:
    trial = LoopTrial(Trial(1, 0.1, 0, 10))
    assert [trial.due(1), trial.due(1), trial.due(2), trial.due(1)] == [True, False, True, False]


@pytest.mark.parametrize("step", [0, -3, 1000.5, math.nan, "7", None])
def test_due_wants_a_positive_whole_number(step: Any) -> None:
    with pytest.raises((WorkloadError, TypeError)) as caught:
        LoopTrial(TRIAL).due(step)
    if not isinstance(step, str | None):
        assert f"is {step!r}" in str(caught.value)
        assert "whole number of at least 1" in str(caught.value)

    def train(trial):
        trial.due(step)
        yield scored(1)

    with pytest.raises(WorkloadError):
        start(train).advance()


def test_due_takes_the_whole_numbers_of_numpy_and_torch() -> None:
    assert LoopTrial(TRIAL).due(np.int64(80))
    assert LoopTrial(TRIAL).due(torch.tensor(80))


def test_a_trial_made_by_hand_is_enough_to_try_a_loop() -> None:
    trial = LoopTrial(Trial(4, 0.1, 7, 40, Settings({"momentum": 0.9})))
    assert (trial.batch_size, trial.learning_rate, trial.seed) == (4, 0.1, 7)
    assert (trial.planned_examples, trial.planned_steps, trial.settings["momentum"]) == (40, 10, 0.9)
    with trial.evaluating():
        pass
    assert [point.step for point in to_step(20)(trial)] == list(curves.rungs_in_steps(40, 4))
    for endless in (LoopTrial(Trial(4, 0.1, 7)), LoopTrial(Trial(4, 0.1, 7, 0))):
        assert (endless.planned_examples, endless.planned_steps) == (None, None)
        assert [point.step for point in to_step(90)(endless)] == [80, 86]


# ------------------------------------------------------------------------------------------------------- the clock


def test_seconds_leave_out_evaluation_and_pauses_and_count_from_the_first_advance(clock: Clock) -> None:
    def train(trial):
        clock.now += 5.0  # making the model
        for step in range(1, 4):
            clock.now += 1.0
            if trial.due(step):
                clock.now += 10.0
                yield scored(step)

    clock.now += 1000.0
    run = start(train, Trial(4, 0.1, 0, 12))
    seconds = []
    for _ in range(3):
        seconds.append(run.advance().seconds)
        clock.now += 100.0
    assert seconds == [6.0, 7.0, 8.0]


def test_a_point_at_step_0_starts_the_clock(clock: Clock) -> None:
    def train(trial):
        clock.now += 5.0
        yield scored(0)
        clock.now += 1.0
        yield scored(1)

    assert [o.seconds for o in outcomes_of(start(train))[:2]] == [0.0, 1.0]


def test_evaluating_is_left_out_once_however_it_is_nested(clock: Clock) -> None:
    def train(trial):
        with trial.evaluating():
            clock.now += 3.0
        clock.now += 1.0
        with trial.evaluating():
            clock.now += 10.0
            with trial.evaluating():
                clock.now += 10.0
            clock.now += 10.0
        clock.now += 1.0
        assert trial.due(1)
        with trial.evaluating():
            clock.now += 10.0
        clock.now += 10.0
        yield scored(1)
        clock.now += 1.0
        with trial.evaluating():
            assert trial.due(2)
            clock.now += 10.0
        clock.now += 10.0
        yield scored(2)
        with trial.evaluating():
            clock.now += 10.0
            yield scored(3)
            clock.now += 10.0
        clock.now += 1.0
        yield scored(4)

    points = outcomes_of(start(train, Trial(4, 0.1, 0, 16)))[:4]
    assert [point.seconds for point in points] == [2.0, 3.0, 3.0, 4.0]


def test_evaluating_ends_when_its_block_raises(clock: Clock) -> None:
    def train(trial):
        try:
            with trial.evaluating():
                clock.now += 10.0
                raise OSError
        except OSError:
            clock.now += 1.0
        yield scored(1)

    assert start(train).advance().seconds == 1.0


def test_seconds_that_the_loop_gives_are_kept(clock: Clock) -> None:
    def train(trial):
        clock.now += 1.0
        yield scored(1, seconds=0.25)
        clock.now += 1.0
        yield scored(2)

    assert [o.seconds for o in outcomes_of(start(train))[:2]] == [0.25, 2.0]


def test_a_gpu_is_waited_for_only_where_there_is_one(monkeypatch) -> None:
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append("cuda"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    synchronize()
    assert waited == []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    synchronize()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    synchronize()
    assert waited == ["cuda", "mps"]


# ------------------------------------------------------------------------------------------------------ the points


def test_what_a_point_leaves_out_is_filled_in(clock: Clock) -> None:
    point = start(yielding(Point(3, valid_loss=0.7))).advance()
    assert point == Point(3, 12, 0.0, None, 0.7, 0.7, 4, 0.1, None)


def test_what_a_point_gives_is_kept() -> None:
    given = Point(3, 11, 2.5, 0.9, 0.7, 0.8, 5, 0.05, 0.6)
    assert start(yielding(given)).advance() == given


def test_tensors_and_numpy_scalars_become_plain_numbers() -> None:
    loss = torch.tensor(2.0, requires_grad=True) * 1.5
    point = start(
        yielding(
            Point(
                np.int64(3),
                torch.tensor(12),
                train_loss=loss,
                valid_loss=np.float32(0.5),
                valid_metric=torch.tensor(0.25),
                learning_rate=np.float64(0.2),
                test_metric=1,
            )
        )
    ).advance()
    plain = Point(3, 12, 1.0, 3.0, 0.5, 0.25, 4, 0.2, 1.0)
    assert replace(point, seconds=1.0) == plain
    for name in ("step", "examples", "batch_size"):
        assert type(getattr(point, name)) is int
    for name in ("seconds", "train_loss", "valid_loss", "valid_metric", "learning_rate", "test_metric"):
        assert type(getattr(point, name)) is float


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (Point("one", valid_metric=0.5), "step of a point is 'one', a str"),
        (Point(2.5, valid_metric=0.5), "step of a point is 2.5, a float"),
        (Point(-1, valid_metric=0.5), "step of a point is -1"),
        (Point(math.nan, valid_metric=0.5), "step of a point is nan"),
        (scored(1, examples=-4), "examples of a point is -4"),
        (scored(1, train_loss="low"), "train_loss of a point is 'low', a str"),
        (scored(1, valid_loss=np.zeros(2)), r"valid_loss of a point is array\(\[0., 0.\]\), a ndarray"),
        (Point(1, valid_metric=torch.zeros(2)), r"valid_metric of a point is tensor\(\[0., 0.\]\), a Tensor"),
        (scored(1, test_metric=[]), "test_metric of a point is"),
        (scored(1, learning_rate={}), "learning_rate of a point is"),
        (scored(1, seconds="long"), "seconds of a point is 'long'"),
        ({"step": 1}, r"yielded a dict \(\{'step': 1\}\), expected a rightbatch.Point"),
        (None, r"yielded a NoneType \(None\)"),
        (Point(7), "yielded step 7 without a valid_metric. Give one or a valid_loss"),
    ],
)
def test_what_is_no_point_is_an_error_that_names_it(point: Any, said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        start(yielding(point)).advance()


def test_a_larger_metric_is_not_taken_from_a_loss() -> None:
    with pytest.raises(WorkloadError, match=r"step 7 without a valid_metric.*direction='max'"):
        start(yielding(Point(7, valid_loss=0.5)), direction="max").advance()


def test_a_target_on_the_loss_needs_one() -> None:
    with pytest.raises(WorkloadError, match="step 7 without a valid_loss, which the target is on"):
        start(yielding(scored(7)), target_quantity="valid_loss").advance()


@pytest.mark.parametrize(("first", "second"), [(5, 5), (5, 4), (0, 0)])
def test_steps_increase(first: int, second: int) -> None:
    run = start(yielding(scored(first), scored(second)))
    run.advance()
    with pytest.raises(WorkloadError, match=f"step {second} after step {first}"):
        run.advance()


def test_nan_is_a_value() -> None:
    point = start(yielding(Point(1, train_loss=math.nan, valid_loss=math.inf, valid_metric=math.nan))).advance()
    assert math.isnan(point.train_loss)
    assert point.valid_loss == math.inf
    assert curves.diverged([point])


# -------------------------------------------------------------------------------------------------------- the ends


def test_a_loop_that_returns_is_finished() -> None:
    assert outcomes_of(start(yielding(scored(3))))[1:] == [Stop(StopReason.FINISHED)]
    assert outcomes_of(start(yielding(scored(3)), Trial(4, 0.1, 0, 100)))[1:] == [Stop(StopReason.FINISHED)]


def test_a_plain_iterator_will_do() -> None:
    points, stop = [scored(1), scored(2)], Stop(StopReason.FINISHED)
    assert [getattr(o, "step", o) for o in outcomes_of(start(lambda trial: iter(points)))] == [1, 2, stop]


@pytest.mark.parametrize("points", [(), (scored(0),)])
def test_a_loop_that_trains_nothing_is_an_error(points: tuple[Point, ...]) -> None:
    with pytest.raises(WorkloadError, match=r"no point was yielded.*smaller than a batch of 4\?"):
        outcomes_of(start(yielding(*points)))


def test_at_its_planned_length_a_run_is_finished_without_going_on() -> None:
    ended = []

    def train(trial):
        try:
            for step in itertools.count(1):
                assert step <= trial.planned_steps
                if trial.due(step):
                    yield scored(step)
        finally:
            ended.append(True)

    run = start(train, planned_examples=40)
    *points, stop = outcomes_of(run)
    assert [point.step for point in points] == list(curves.rungs_in_steps(40, 4))
    assert stop == Stop(StopReason.FINISHED)
    assert ended == [True]


@pytest.mark.parametrize("kind", [ValueError, StopIteration, GeneratorExit, KeyError])
def test_what_the_loop_raises_is_told_with_trial_and_step(kind: type[BaseException]) -> None:
    def train(trial):
        yield scored(3)
        raise kind("bad batch")

    run = start(train, name="mine")
    run.advance()
    with pytest.raises(WorkloadError) as caught:
        run.advance()
    shown = "RuntimeError: generator raised StopIteration" if kind is StopIteration else kind.__name__
    assert f"'mine' raised {shown}" in str(caught.value)
    assert "(batch_size=4, learning_rate=0.1, seed=0, after step 3)" in str(caught.value)
    assert str(caught.value).endswith("Run with --debug for the whole traceback.")
    assert caught.value.__cause__ is not None
    run.close()


def test_an_interrupt_is_not_an_error_of_the_loop() -> None:
    def train(trial):
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        start(train).advance()


def test_our_own_errors_pass_as_they_are() -> None:
    def train(trial):
        raise InputError("no such optimizer")
        yield

    with pytest.raises(InputError, match=r"^no such optimizer$"):
        start(train).advance()


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's."""


class DeviceMemoryError(OutOfMemoryError):
    """A kind of it."""


MEMORY_ERRORS = [
    (MemoryError(), "MemoryError"),
    (OutOfMemoryError("17 GiB\nof 16"), "17 GiB"),
    (DeviceMemoryError("17 GiB"), "17 GiB"),
    (torch.OutOfMemoryError("CUDA"), "CUDA"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "DefaultCPUAllocator"),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of Memory while trying to allocate"), "RESOURCE_EXHAUSTED"),
]


@pytest.mark.parametrize(("error", "message"), MEMORY_ERRORS)
def test_out_of_memory_is_a_stop(error: Exception, message: str) -> None:
    def train(trial):
        yield scored(1)
        raise error

    def at_once(trial):
        raise error

    run = start(train)
    run.advance()
    for stop in (run.advance(), start(at_once).advance()):
        assert stop.reason is StopReason.OUT_OF_MEMORY
        assert stop.message.startswith(message)
        assert "\n" not in stop.message


@pytest.mark.parametrize("advances", [0, 1])
def test_closing_runs_the_finally_of_a_loop_that_began(advances: int) -> None:
    ended = []

    def train(trial):
        try:
            yield scored(1)
        finally:
            ended.append(np.random.random())  # noqa: NPY002

    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    run = start(train)
    for _ in range(advances):
        run.advance()
    run.close()
    run.close()
    assert len(ended) == advances
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_a_loop_that_will_not_be_closed_breaks_nothing() -> None:
    def yields_again(trial):
        try:
            yield scored(1)
        finally:
            yield scored(2)

    def raises(trial):
        try:
            yield scored(1)
        finally:
            raise ValueError("too late")

    for train in (yields_again, raises, lambda trial: iter([scored(1)])):
        run = start(train)
        run.advance()
        run.close()
        run.close()


def test_the_run_is_not_saveable_and_takes_no_state() -> None:
    runner = LoopRunner(Loop(yielding(scored(1)), name="mine", direction="min"))
    assert not isinstance(runner.start(TRIAL), Saveable)
    with pytest.raises(InputError, match="'mine' was given a saved state of 3 bytes"):
        runner.start(TRIAL, b"abc")


# --------------------------------------------------------------------------------------------------- random streams


def test_a_loop_that_forgets_to_seed_is_repeatable_and_disturbs_nobody() -> None:
    def train(trial):
        for step in range(1, 4):
            drawn = np.random.random() + float(torch.rand(()))  # noqa: NPY002
            yield Point(step, valid_loss=drawn)

    runner = LoopRunner(Loop(train))

    def losses(seed: int) -> list[float]:
        return [p.valid_loss for p in outcomes_of(runner.start(replace(TRIAL, seed=seed)))[:-1]]

    alone = [losses(0), losses(1)]
    assert alone == [losses(0), losses(1)]
    assert alone[0] != alone[1]
    runs = [runner.start(replace(TRIAL, seed=seed)) for seed in (0, 1)]
    turns = [[run.advance().valid_loss for run in runs] for _ in range(3)]
    assert [list(column) for column in zip(*turns, strict=True)] == alone


def test_a_function_that_builds_before_it_returns_draws_from_the_same_streams() -> None:
    def train(trial):
        drawn = float(np.random.random())  # noqa: NPY002
        return iter([Point(1, valid_loss=drawn)])

    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert start(train).advance().valid_loss == np.random.RandomState(0).random_sample()
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


# ------------------------------------------------------------------------------------------------------ step times


def stepping(clock: Clock, *, every: int = 1, steps: int | None = None, evaluation: float = 0.0):
    """A loop whose steps take 1 ms and 0.1 ms an example, the first two 50 times as long; `due` asked every few."""

    def train(trial):
        clock.now += 7.0
        for step in itertools.count(1) if steps is None else range(1, steps + 1):
            clock.now += (0.001 + 0.0001 * trial.batch_size) * (50 if step < 3 else 1)
            if evaluation:
                with trial.evaluating():
                    clock.now += evaluation
            if step % every == 0 and trial.due(step):
                raise AssertionError("nothing is evaluated while steps are timed")
        clock.now += 9.0
        yield from ()

    return train


def found_by(train: Any, sizes: list[int], rounds: int, **fields: Any) -> dict[int, Any]:
    every = list(LoopRunner(Loop(train, **{"direction": "min", **fields})).step_times(sizes, rounds=rounds))
    records = [record for record in every if not record.unfinished]
    assert {record.batch_size for record in every} == {record.batch_size for record in records}
    assert len({record.batch_size for record in records}) == len(records)
    return {record.batch_size: record for record in records}


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("evaluation", [0.0, 0.5])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_the_seconds_of_a_step_are_what_the_step_took(clock: Clock, every, evaluation, rounds) -> None:
    found = found_by(stepping(clock, every=every, evaluation=evaluation), [64, 1, 8], rounds)
    assert sorted(found) == [1, 8, 64]
    for size, record in found.items():
        assert record.seconds == pytest.approx([0.001 + 0.0001 * size] * rounds, rel=1e-6)
        assert record.wait_seconds == (0.0,) * rounds
        assert record.unsteady == ()


def test_sizes_take_turns_in_two_passes_at_a_small_rate(clock: Clock) -> None:
    begun = []

    def train(trial):
        begun.append((trial.batch_size, trial.learning_rate, trial.seed))
        yield from stepping(clock)(trial)

    found = found_by(train, [8, 4], 5, present=(32, 0.2))
    assert begun == [(4, pytest.approx(0.002), 0), (8, pytest.approx(0.002), 0)] * 2
    assert {size: len(record.seconds) for size, record in found.items()} == {4: 5, 8: 5}


@pytest.mark.parametrize(("step_seconds", "expected"), [(0.001, 40), (1.0, 2), (1e-7, MOST_STEPS)])
def test_a_repeat_is_as_many_steps_as_fill_its_time(clock: Clock, step_seconds: float, expected: int) -> None:
    asked = []

    def train(trial):
        for step in itertools.count(1):
            clock.now += step_seconds
            asked.append(step)
            trial.due(step)
        yield

    found_by(train, [4], 1)
    assert asked[-1] == pytest.approx(5 + expected, abs=1)
    assert REPEAT_SECONDS == 0.04


def test_a_timed_loop_is_left_even_where_it_catches_every_exception(clock: Clock) -> None:
    ended = []

    def train(trial):
        try:
            for step in itertools.count(1):
                clock.now += 0.01
                try:
                    trial.due(step)
                except Exception:
                    raise AssertionError("caught by the loop") from None
        finally:
            ended.append(True)
        yield

    found_by(train, [4], 3)
    assert ended == [True, True]


def test_a_loop_that_never_asks_is_timed_between_its_points(clock: Clock) -> None:
    ended = []

    def train(trial):
        clock.now += 7.0
        yield scored(0)
        try:
            for step in itertools.count(1):
                clock.now += 0.5 if step < 3 else 0.01
                if step == 2 or step % 5 == 0:
                    with trial.evaluating():
                        clock.now += 1.0
                    yield scored(step)
        finally:
            ended.append(np.random.random())  # noqa: NPY002

    outside = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert found_by(train, [4], 3)[4].seconds == pytest.approx([0.01] * 3)
    assert len(ended) == 2
    assert np.random.get_state()[1].tolist() == outside  # noqa: NPY002


def test_points_that_were_not_asked_for_are_no_repeats_where_due_is_called(clock: Clock) -> None:
    def train(trial):
        for step in itertools.count(1):
            clock.now += 0.01
            trial.due(step)
            if step % 2 == 0:
                clock.now += 0.03
                yield scored(step)

    # A repeat is two steps here, with one evaluation that was not said to be one.
    assert found_by(train, [4], 4)[4].seconds == pytest.approx([0.025] * 4)


def test_repeats_fit_into_a_planned_length(clock: Clock) -> None:
    def train(trial):
        for step in range(1, trial.planned_steps + 1):
            clock.now += 1e-5
            trial.due(step)
        yield from ()

    found = found_by(train, [4, 8], 6, planned_examples=200)
    assert {size: len(record.seconds) for size, record in found.items()} == {4: 6, 8: 6}
    assert found[4].seconds == pytest.approx([1e-5] * 6, rel=1e-6)


def test_a_loop_that_ends_early_gives_what_it_has(clock: Clock) -> None:
    # 30 steps: too few for one repeat of 40 ms. The second pass knows, and makes its repeats shorter.
    found = found_by(stepping(clock, steps=30), [4], 6)
    assert found[4].seconds == pytest.approx([0.0014] * 3, rel=1e-6)


def test_a_size_with_no_repeat_has_no_record_and_none_at_all_is_an_error(clock: Clock) -> None:
    def train(trial):
        yield from stepping(clock, steps=200 // trial.batch_size)(trial)

    assert sorted(found_by(train, [4, 100], 4)) == [4]
    assert sorted(found_by(train, [4, 100], 4, train_examples=50)) == [4]
    with pytest.raises(WorkloadError, match="could not be measured at batch sizes 100, 200"):
        found_by(train, [100, 200], 4)


def test_sizes_that_do_not_fit_have_no_record(clock: Clock) -> None:
    tried = []

    def train(trial):
        tried.append(trial.batch_size)
        if trial.batch_size >= 16:
            raise MemoryError
        yield from stepping(clock)(trial)

    assert sorted(found_by(train, [32, 16, 8, 4], 4)) == [4, 8]
    assert tried == [4, 8, 16, 4, 8]


def test_an_error_while_steps_are_timed_is_told() -> None:
    def train(trial):
        yield scored(1)
        raise ValueError("bad batch")

    with pytest.raises(WorkloadError, match="raised ValueError: bad batch"):
        found_by(train, [4], 2)


# --------------------------------------------------------------------------------------------- what is known of it


@pytest.mark.parametrize("train", [None, 3, iter([scored(1)])])
def test_a_loop_is_a_function(train: Any) -> None:
    with pytest.raises(WorkloadError, match=f"train is a {type(train).__name__}, expected a generator function"):
        Loop(train)


@pytest.mark.parametrize("returned", [None, [scored(1)], 0.5])
def test_a_function_without_yield_is_told_so(returned: Any) -> None:
    with pytest.raises(WorkloadError, match=rf"\({type(returned).__name__}\), expected an iterator.*`yield`"):
        start(lambda trial: returned)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"direction": "up"}, "direction is 'min' or 'max', got 'up'"),
        ({"target_quantity": "train_loss"}, "target_quantity is .* got 'train_loss'"),
        ({"train_examples": -1}, "train_examples is a number of examples, got -1"),
        ({"planned_examples": -5}, "planned_examples is a number of examples, got -5"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        Loop(yielding(), **fields)


def test_settings_are_completed_and_unknown_ones_refused() -> None:
    seen = []

    def train(trial):
        seen.append(dict(trial.settings))
        yield scored(1)

    runner = LoopRunner(Loop(train, name="mine", direction="min", settings={"width": 3, "kind": "a"}))
    runner.start(TRIAL).advance()
    runner.start(replace(TRIAL, settings=Settings({"width": 4}))).advance()
    assert seen == [{"width": 3, "kind": "a"}, {"width": 4, "kind": "a"}]
    unknown = replace(TRIAL, settings=Settings({"depth": 4}))
    assert not runner.offers(unknown)
    with pytest.raises(WorkloadError, match="'mine' declares no setting 'depth'; it has kind, width"):
        runner.start(unknown)


def test_a_batch_larger_than_the_data_is_refused_where_the_data_is_known() -> None:
    known, unknown = LoopRunner(Loop(yielding(), train_examples=3)), LoopRunner(Loop(yielding()))
    assert unknown.offers(TRIAL)
    assert not known.offers(TRIAL)
    with pytest.raises(WorkloadError, match="batch_size=4 is larger than the data: 3 training examples"):
        known.start(TRIAL)


def test_facts_and_environment() -> None:
    runner = LoopRunner(Loop(to_step(3), target=0.8, direction="max", present=(32, 0.1), settings={"a": 1}))
    facts = runner.facts
    assert (facts.name, facts.optimizer, facts.metric, facts.valid_examples) == (
        "test_loops:train",
        "unknown",
        "valid_metric",
        0,
    )
    assert (facts.train_examples, facts.planned_examples, facts.target, facts.present) == (0, 0, 0.8, (32, 0.1))
    assert facts.lacks == LACKS
    environment = runner.environment
    assert (environment.device, environment.precision) == ("loop", "unknown")
    assert (environment.torch, environment.threads) == (torch.__version__, torch.get_num_threads())
    assert environment == LoopRunner(Loop(to_step(4))).environment


def test_an_environment_without_torch_says_so(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    environment = LoopRunner(Loop(to_step(3))).environment
    assert (environment.torch, environment.threads) == ("none", 0)


class Trainer:
    def __call__(self, trial):
        yield scored(1)

    def fit(self, trial):
        yield scored(1)


def wrapped(trial):
    yield scored(1)


@pytest.mark.parametrize(
    ("train", "name"),
    [
        (wrapped, "wrapped"),
        (functools.partial(wrapped), "wrapped"),
        (functools.wraps(wrapped)(lambda trial: wrapped(trial)), "wrapped"),
        (Trainer(), "Trainer"),
        (Trainer().fit, "fit"),
    ],
)
def test_a_loop_is_called_by_its_file_and_function(train: Any, name: str) -> None:
    assert Loop(train).called == f"test_loops:{name}"
    assert Loop(train, name="mine").called == "mine"


def test_a_decorated_loop_has_the_source_of_the_loop() -> None:
    names: dict[str, Any] = {}
    exec("def decorated(trial):\n    yield", names)  # a decorator stands in another file, here in none
    facts = Loop(functools.wraps(wrapped)(names["decorated"])).facts()
    assert (facts.name, facts.source) == ("test_loops:wrapped", Loop(wrapped).facts().source)


def test_a_function_without_a_file_is_called_by_its_name_alone_and_has_no_source() -> None:
    names: dict[str, Any] = {}
    exec("def typed_in(trial):\n    yield", names)
    facts = Loop(names["typed_in"]).facts()
    assert (facts.name, facts.source) == ("typed_in", "")
    assert Loop(iter).facts().name == "iter"


def test_the_source_is_the_whole_file(tmp_path) -> None:
    def source_of(text: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("mine", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            spec.loader.exec_module(module)
        finally:
            sys.dont_write_bytecode = before
        facts = Loop(module.train).facts()
        assert facts.name == "mine:train"
        return facts.source

    first = "def helper():\n    return 1\n\ndef train(trial):\n    yield helper()\n"
    assert source_of(first) == hashlib.sha256(first.encode()).hexdigest()[:16]
    assert source_of(first.replace("return 1", "return 2")) != source_of(first)


# ------------------------------------------------------------------------------------------------------- a real one


GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((120, 5))
Y = X @ np.arange(5.0) + 0.1 * GENERATOR.standard_normal(120)


def least_squares(trial):
    """Minibatch SGD; the order is drawn from NumPy's global generator, which nobody seeds."""
    weights = np.zeros(5)
    yield Point(0, valid_loss=np.mean((X[100:] @ weights - Y[100:]) ** 2))
    step = 0
    while True:
        order = np.random.permutation(100)  # noqa: NPY002
        for rows in order[: 100 // trial.batch_size * trial.batch_size].reshape(-1, trial.batch_size):
            residual = X[rows] @ weights - Y[rows]
            weights -= trial.learning_rate * X[rows].T @ residual / len(rows)
            step += 1
            if trial.due(step):
                yield Point(
                    step,
                    train_loss=np.mean(residual**2),
                    valid_loss=np.mean((X[100:] @ weights - Y[100:]) ** 2),
                )


def test_a_numpy_loop_trains_as_it_does_without_us() -> None:
    trial = Trial(10, 0.1, 3, 1000)
    *points, stop = outcomes_of(start(least_squares, trial, train_examples=100))
    assert stop == Stop(StopReason.FINISHED)
    assert [point.step for point in points] == [0, *curves.rungs_in_steps(1000, 10)]
    assert [point.examples for point in points] == [10 * point.step for point in points]
    assert all(low.seconds < high.seconds for low, high in itertools.pairwise(points))
    outside = np.random.get_state()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    twin = list(itertools.islice(least_squares(LoopTrial(trial)), len(points)))
    np.random.set_state(outside)  # noqa: NPY002
    assert [point.valid_loss for point in points] == [point.valid_loss for point in twin]
    assert [point.train_loss for point in points] == [point.train_loss for point in twin]
    assert points[-1].valid_metric < 0.05 < points[0].valid_metric


def test_a_numpy_loop_is_timed() -> None:
    records = [r for r in LoopRunner(Loop(least_squares)).step_times([4, 50], rounds=4) if not r.unfinished]
    assert [record.batch_size for record in records] == [4, 50]
    for record in records:
        assert len(record.seconds) == 4
        assert all(1e-7 < seconds < 0.1 for seconds in record.seconds)


def test_gradients_are_on_for_the_next_loop_where_one_yields_without_them() -> None:
    torch = pytest.importorskip("torch")

    def train(trial: LoopTrial) -> Iterator[Point]:
        weight = torch.ones(1, requires_grad=True)
        for step in range(1, 4):
            (weight**2).sum().backward()
            with torch.no_grad():
                yield Point(step, valid_loss=float(weight))
                assert not torch.is_grad_enabled()

    runs = [start(train) for _ in range(2)]
    for _ in range(3):
        for run in runs:
            assert isinstance(run.advance(), Point)
            assert torch.is_grad_enabled()
    with torch.no_grad():
        assert isinstance(runs[0].advance(), Stop)
        assert not torch.is_grad_enabled()


def test_a_metric_without_a_direction_is_asked_about() -> None:
    """Before anything is searched: less would count as better, of an accuracy too."""
    with pytest.raises(InputError, match=r"more or less of it is better\. Say direction 'max'"):
        LoopRunner(Loop(yielding(scored(1)))).start(Trial(4, 0.1, 0)).advance()
