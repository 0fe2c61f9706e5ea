"""Every kind of run, paused and continued by the loop: to the bit what it is undisturbed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from test_pausing import NEEDLESS, InTurns, driven, finished, states, stored

from rightbatch.bundled.digits import digits
from rightbatch.bundled.quadratic import quadratic
from rightbatch.commands import Command, CommandRunner
from rightbatch.engine import WorkloadRunner
from rightbatch.evidence import Evidence
from rightbatch.loops import Loop, LoopRunner, LoopTrial
from rightbatch.pipeline.beginnings import HELD
from rightbatch.records import Point, Run, Trial
from rightbatch.runner import Runner
from rightbatch.search.strategy import Action, fixed
from rightbatch.tables import COLUMNS, TableRunner
from rightbatch.workers import Workers

PLANNED = 320


def trials(count: int) -> list[Trial]:
    return [Trial(4 << k % 2, 0.1, k // 2, PLANNED) for k in range(count)]


def descent(trial: LoopTrial) -> Iterator[Point]:
    """A loop that draws from the global generator, which others draw from too while it is paused."""
    weight, step = 1.0, 0
    yield Point(0, valid_loss=weight)
    while True:
        weight *= 1 - trial.learning_rate * np.random.random() / trial.batch_size  # noqa: NPY002
        step += 1
        if trial.due(step):
            yield Point(step, valid_loss=weight)


PROGRAM = """\
import json, random, sys, time
size, rate, draw, loss = int(sys.argv[1]), float(sys.argv[2]), random.Random(int(sys.argv[3])), 1.0
for step in range(200):
    if step % 5 == 0:
        print(json.dumps({"step": step, "valid_loss": loss}), flush=True)
        time.sleep(0.001)
    loss *= 1 - rate * draw.random() / size
"""


def command_runner(folder: Path, program: str = PROGRAM) -> CommandRunner:
    script = folder / "train.py"
    script.write_text(program)
    argv = (sys.executable, "-I", "-S", str(script), "{batch_size}", "{learning_rate}", "{seed}")
    return CommandRunner(Command(argv=argv, train_examples=1000, planned_examples=PLANNED))


def table_runner(folder: Path) -> TableRunner:
    rows = [
        f"t,{trial.batch_size},{trial.learning_rate},{trial.seed},{step},{step * trial.batch_size},{step / 10},"
        f"1.0,{1 / (1 + step + trial.seed)},0.5,finished"
        for trial in trials(4)
        for step in range(25)
    ]
    (folder / "t.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return TableRunner(folder / "t.csv")


KINDS: dict[str, Callable[[Path], Runner]] = {
    "quadratic": lambda _: WorkloadRunner(quadratic()),
    "digits": lambda _: WorkloadRunner(replace(digits(), target=None)),
    "loop": lambda _: LoopRunner(Loop(descent, train_examples=1000)),
    "command": command_runner,
    "table": table_runner,
}


@pytest.mark.parametrize("kind", KINDS)
def test_paused_and_continued_a_run_is_to_the_bit_what_it_is_undisturbed(tmp_path: Path, kind: str) -> None:
    runner = KINDS[kind](tmp_path)
    three = trials(3)
    driven(tmp_path / "whole.study.db", runner, fixed(three, "test"))
    whole = finished(tmp_path / "whole.study.db")
    assert len(whole) == 3
    assert min(map(len, whole.values())) > 20
    turns = InTurns(three)
    driven(tmp_path / "turns.study.db", runner, turns)
    assert finished(tmp_path / "turns.study.db") == whole
    assert len(stored(tmp_path / "turns.study.db")) == 3  # each was made once
    paused = [sum(run.stop is None for run in evidence.runs) for evidence in turns.asked]
    assert max(paused) == 3
    assert states(tmp_path / "turns.study.db") == 0


def test_the_seconds_of_a_point_are_those_of_its_training_and_not_of_pauses(tmp_path: Path) -> None:
    def slow(evidence: Evidence) -> Action:
        time.sleep(0.05)
        return turns(evidence)

    for kind in ("loop", "command"):  # a workload counts its steps alone
        turns = InTurns(trials(2), slice_points=10)
        path = tmp_path / f"{kind}.study.db"
        started = time.monotonic()
        evidence, _ = driven(path, KINDS[kind](tmp_path), slow)
        elapsed = time.monotonic() - started
        thought = 0.05 * len(turns.asked)
        assert thought > 0.2
        for run in evidence.runs:
            assert all(a.seconds <= b.seconds for a, b in zip(run.points, run.points[1:], strict=False))
            assert run.points[-1].seconds <= run.wall_seconds + 1e-3, kind
        # Each second was one run's or the strategy's.
        assert sum(run.wall_seconds for run in evidence.runs) <= elapsed - thought + 1e-3


BUSY = """\
import json, os, pathlib, sys
pathlib.Path(__file__).with_name("pid-" + sys.argv[1]).write_text(str(os.getpid()))
step = 0
while True:
    print(json.dumps({"step": step, "valid_loss": 1.0}), flush=True)
    step += 1
    sum(range(100_000))
"""


def test_a_paused_program_does_not_run_on_and_ends_with_the_search(tmp_path: Path) -> None:
    runner = command_runner(tmp_path, BUSY)
    told: list[tuple[str, str]] = []

    def state_of(size: int) -> str:
        process = (tmp_path / f"pid-{size}").read_text()
        deadline = time.monotonic() + 10
        while True:  # a signal that was sent is not yet one that has arrived
            shown = subprocess.run(["ps", "-o", "stat=", "-p", process], capture_output=True, text=True, check=False)
            state = shown.stdout.strip()[:1]
            if state in {"T", "", "Z"} or time.monotonic() > deadline:
                return state
            time.sleep(0.01)

    def watch(run: Run, why: str, evidence: Evidence) -> None:
        if why == HELD and len(evidence.runs) > 1 and run.trial.batch_size == 8:
            told.append((state_of(4), state_of(8)))

    _, why = driven(tmp_path / "a.study.db", runner, InTurns(trials(2), enough=20), watch=watch)
    assert why == "all have run"
    assert len(told) >= 2
    assert set(told) == {("T", "T")}  # stopped
    assert {state_of(size) for size in (4, 8)} <= {"", "Z"}
    assert {run.stop for run in stored(tmp_path / "a.study.db")} == {NEEDLESS}
    assert [len(run.points) for run in stored(tmp_path / "a.study.db")] == [20, 20]


def test_a_program_that_is_paused_in_a_worker_goes_on_there(tmp_path: Path) -> None:
    runner = command_runner(tmp_path)
    three = trials(3)
    driven(tmp_path / "whole.study.db", runner, fixed(three, "test"))
    with Workers(lambda: runner, 1, threads=1) as crew:
        driven(tmp_path / "a.study.db", runner, InTurns(three), crew=crew)
    assert finished(tmp_path / "a.study.db") == finished(tmp_path / "whole.study.db")
    assert len(stored(tmp_path / "a.study.db")) == 3
