"""One contract for every runner: what `rightbatch.runner` says, tried on each."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rightbatch.commands import Command, CommandRunner
from rightbatch.engine import WorkloadRunner
from rightbatch.errors import InputError
from rightbatch.loops import Loop, LoopRunner, LoopTrial
from rightbatch.records import Environment, Point, Settings, Stop, StopReason, Trial
from rightbatch.runner import Pausable, Runner, Saveable
from rightbatch.tables import COLUMNS, TableRunner
from rightbatch.workload import Workload

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).float()


@dataclass(frozen=True)
class Kind:
    """A runner to be made, two trials that it offers, some that it does not, and whether its runs can be saved."""

    make: Callable[[Path], Runner]
    trials: tuple[Trial, Trial]
    refused: tuple[Trial, ...]
    saveable: bool = True


def losses(model: nn.Module, batch: Any) -> torch.Tensor:
    x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch
    return nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y, reduction="none")


def workload_runner(data: Any, valid: Any) -> WorkloadRunner:
    return WorkloadRunner(
        Workload(
            name="tiny",
            model=lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1)),
            data=data,
            valid=valid,
            loss=losses,
            optimizer=lambda parameters, trial: torch.optim.SGD(
                parameters, lr=trial.learning_rate, momentum=float(trial.settings["momentum"])
            ),
            settings={"momentum": 0.9},
        )
    )


TABLE = """\
tiny,4,0.1,0,0,0,0,,1.0,0.1,finished
tiny,4,0.1,0,5,20,0.5,0.8,0.9,0.5,finished
tiny,4,0.1,0,9,36,0.9,0.7,0.7,0.8,finished
tiny,8,0.3162,1,3,24,0.3,0.9,0.8,0.3,diverged
tiny,8,0.3162,1,2,16,0.2,1.0,0.9,0.2,diverged
"""


def table_runner(folder: Path) -> TableRunner:
    path = folder / "table.csv"
    path.write_text(",".join(COLUMNS) + "\n" + TABLE)
    return TableRunner(path)


def logistic_regression(trial: LoopTrial) -> Iterator[Point]:
    """A loop in NumPy alone, its order and its dropout drawn from the global generator that nobody seeds."""
    x, y = X.double().numpy(), Y.double().numpy()

    def loss(rows: Any, kept: Any = 1.0) -> tuple[float, Any]:
        logits = (x[rows] * kept) @ weights
        gradient = (x[rows] * kept).T @ (1 / (1 + np.exp(-logits)) - y[rows]) / len(logits)
        return float(np.mean(np.logaddexp(0, logits) - y[rows] * logits)), gradient

    weights, change, step = np.zeros(3), np.zeros(3), 0
    yield Point(0, valid_loss=loss(slice(9))[0])
    while True:
        order = np.random.permutation(len(x))  # noqa: NPY002
        for rows in np.split(order, range(trial.batch_size, len(x), trial.batch_size))[: len(x) // trial.batch_size]:
            kept = np.random.random((len(rows), 3)) < 0.8  # noqa: NPY002
            train_loss, gradient = loss(rows, kept)
            change = float(trial.settings["momentum"]) * change - trial.learning_rate * gradient
            weights, step = weights + change, step + 1
            if trial.due(step):
                yield Point(step, train_loss=train_loss, valid_loss=loss(slice(9))[0])


PROGRAM = """\
import json, random, sys
size, rate, seed, steps = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
draw, loss = random.Random(seed), 1.0
for step in range(steps + 1):
    if step % 5 == 0 or step == steps:
        print(json.dumps({"step": step, "valid_loss": loss, "seconds": step / 64}), flush=True)
    loss *= 1 - rate * draw.random() / size
"""


def command_runner(folder: Path) -> CommandRunner:
    script = folder / "train.py"
    script.write_text(PROGRAM)
    places = ("{batch_size}", "{learning_rate}", "{seed}", "{planned_steps}", "--momentum={momentum}")
    argv = (sys.executable, "-I", "-S", str(script), *places)
    return CommandRunner(Command(argv=argv, train_examples=30, planned_examples=200, settings={"momentum": 0.9}))


OF_WORKLOADS = (Trial(4, 0.1, 0, 200), Trial(8, 0.3162, 1, 200, Settings({"momentum": 0.5})))
NOT_OF_WORKLOADS = (Trial(31, 0.1, 0), Trial(4, 0.1, 0, None, Settings({"width": 3})))
KINDS = {
    "workload of tensors": Kind(lambda _: workload_runner((X, Y), (X[:9], Y[:9])), OF_WORKLOADS, NOT_OF_WORKLOADS),
    "workload of a dict": Kind(
        lambda _: workload_runner({"x": X, "y": Y}, {"x": X[:9], "y": Y[:9]}), OF_WORKLOADS, NOT_OF_WORKLOADS
    ),
    "workload of a dataset": Kind(
        lambda _: workload_runner(TensorDataset(X, Y), TensorDataset(X[:9], Y[:9])), OF_WORKLOADS, NOT_OF_WORKLOADS
    ),
    "loop": Kind(
        lambda _: LoopRunner(
            Loop(logistic_regression, train_examples=30, planned_examples=600, settings={"momentum": 0.9})
        ),
        OF_WORKLOADS,
        NOT_OF_WORKLOADS,
        saveable=False,
    ),
    "command": Kind(command_runner, OF_WORKLOADS, NOT_OF_WORKLOADS, saveable=False),
    "table": Kind(
        table_runner,
        (Trial(4, 0.1, 0), Trial(8, 0.3162, 1)),
        (Trial(4, 0.1, 1), Trial(4, 0.3162, 0), Trial(16, 0.1, 0), Trial(4, 0.1, 0, None, Settings({"momentum": 0.5}))),
    ),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request) -> Kind:
    return request.param


@pytest.fixture
def runner(kind, tmp_path) -> Runner:
    return kind.make(tmp_path)


@pytest.fixture
def saveable(runner, kind) -> None:
    """For tests of what is saved: passed over where a kind of run says it cannot be."""
    run = runner.start(kind.trials[0])
    run.close()
    assert isinstance(run, Saveable) == kind.saveable
    if not kind.saveable:
        pytest.skip("its runs cannot be saved: a killed one is repeated")


def timeless(outcome: Point | Stop) -> Point | Stop:
    """Without the seconds, which a workload measures."""
    return replace(outcome, seconds=0.0) if isinstance(outcome, Point) else outcome


def outcomes_of(run) -> list[Point | Stop]:
    """All that a run has to say, its stop last."""
    outcomes = []
    while not outcomes or isinstance(outcomes[-1], Point):
        outcomes.append(timeless(run.advance()))
        assert len(outcomes) < 1000
    run.close()
    return outcomes


def alone(runner: Runner, trial: Trial) -> list[Point | Stop]:
    return outcomes_of(runner.start(trial))


def test_points_go_on_in_increasing_steps_until_a_stop(runner, kind):
    for trial in kind.trials:
        run = runner.start(trial)
        points: list[Point] = []
        while isinstance(outcome := run.advance(), Point):
            points.append(outcome)
        assert isinstance(outcome, Stop)
        assert outcome.reason in (StopReason.FINISHED, StopReason.DIVERGED)
        assert len(points) >= 2
        for before, after in itertools.pairwise(points):
            assert before.step < after.step
            assert before.examples < after.examples
            assert before.seconds < after.seconds
        for point in points:
            assert (point.batch_size, point.examples) == (trial.batch_size, point.step * trial.batch_size)
            assert point.learning_rate == pytest.approx(trial.learning_rate)
        assert points[-1].examples <= (trial.planned_examples or runner.facts.planned_examples) + trial.batch_size / 2


def test_two_starts_of_a_trial_are_the_same_run(runner, kind):
    for trial in kind.trials:
        torch.manual_seed(1)
        first = alone(runner, trial)
        torch.manual_seed(2)
        assert alone(runner, trial) == first
    assert alone(runner, kind.trials[1]) != alone(runner, kind.trials[0])


@pytest.mark.parametrize("same", [False, True], ids=["two trials", "one trial twice"])
def test_two_runs_that_take_turns_are_what_they_are_alone(runner, kind, same):
    trials = (kind.trials[0],) * 2 if same else kind.trials
    runs = [runner.start(trial) for trial in trials]
    outcomes: list[list[Point | Stop]] = [[], []]
    while not all(found and isinstance(found[-1], Stop) for found in outcomes):
        for run, found in zip(runs, outcomes, strict=True):
            if not found or isinstance(found[-1], Point):
                found.append(timeless(run.advance()))
    assert outcomes == [alone(runner, trial) for trial in trials]


def test_a_run_that_is_paused_at_every_point_is_what_it_is_undisturbed(runner, kind):
    for trial in kind.trials:
        run, outcomes = runner.start(trial), []
        while not outcomes or isinstance(outcomes[-1], Point):
            for _ in range(2):
                if isinstance(run, Pausable):
                    run.pause()
            outcomes.append(timeless(run.advance()))
        if isinstance(run, Pausable):
            run.pause()  # after its end
        run.close()
        assert outcomes == alone(runner, trial)


@pytest.mark.usefixtures("saveable")
@pytest.mark.parametrize("points_before", [0, 1, 2])
def test_a_saved_run_goes_on_with_the_same_points(runner, kind, tmp_path, points_before):
    for trial in kind.trials:
        whole = alone(runner, trial)
        run = runner.start(trial)
        for _ in range(points_before):
            run.advance()
        state = run.save()
        assert isinstance(state, bytes)
        run.advance()  # what comes after the save is not in it
        run.close()
        for other in (runner, kind.make(tmp_path)):
            assert outcomes_of(other.start(trial, state)) == whole[points_before:]


@pytest.mark.usefixtures("saveable")
def test_a_run_saved_after_its_last_point_only_stops(runner, kind):
    for trial in kind.trials:
        *points, stop = alone(runner, trial)
        run = runner.start(trial)
        for _ in points:
            run.advance()
        assert outcomes_of(runner.start(trial, run.save())) == [stop]


@pytest.mark.usefixtures("saveable")
def test_saving_changes_nothing(runner, kind):
    trial = kind.trials[0]
    run = runner.start(trial)
    outcomes = []
    while not outcomes or isinstance(outcomes[-1], Point):
        run.save()
        outcomes.append(timeless(run.advance()))
    assert outcomes == alone(runner, trial)


def test_closing_is_allowed_at_any_time_and_twice(runner, kind):
    trial = kind.trials[0]
    for advances in (0, 1):
        run = runner.start(trial)
        for _ in range(advances):
            run.advance()
        run.close()
        run.close()
    run = runner.start(trial)
    other = runner.start(trial)
    run.close()
    assert outcomes_of(other) == alone(runner, trial)
    run.close()


def test_what_is_offered_can_be_started_and_what_start_refuses_is_not_offered(runner, kind):
    for trial in kind.trials:
        assert runner.offers(trial)
    for trial in kind.refused:
        with pytest.raises(InputError):
            runner.start(trial)
        assert not runner.offers(trial)


def test_facts_and_environment_stay_the_same(runner, kind, tmp_path):
    assert runner.facts == runner.facts == kind.make(tmp_path).facts
    assert runner.facts.train_examples >= max(trial.batch_size for trial in kind.trials)
    assert isinstance(runner.environment, Environment)
    assert runner.environment == kind.make(tmp_path).environment


def test_step_times_give_one_record_a_size(runner, kind):
    sizes = [trial.batch_size for trial in kind.trials]
    every = list(runner.step_times(sizes, rounds=2))
    records = [record for record in every if not record.unfinished]
    assert {record.batch_size: record for record in every} == {record.batch_size: record for record in records}
    assert sorted(record.batch_size for record in records) == sorted(sizes)
    for record in records:
        assert len(record.seconds) == len(record.wait_seconds) >= 1
        assert all(seconds > 0 for seconds in record.seconds)
