"""Worker processes: a run there is the run here, and nothing that happens to one is lost, repeated or left behind."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rightbatch.errors import InputError, StateError, WorkloadError
from rightbatch.evidence import Evidence
from rightbatch.machine import memory_kills
from rightbatch.pipeline import desk, kills
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.runners import crew_of
from rightbatch.question import Objective, Question
from rightbatch.records import (
    Environment,
    Point,
    Run,
    Settings,
    StepTime,
    Stop,
    StopReason,
    Target,
    Trial,
    WorkloadFacts,
)
from rightbatch.runner import RunInProgress
from rightbatch.search.strategy import fixed
from rightbatch.store import Study
from rightbatch.tables import COLUMNS, TableRunner
from rightbatch.worker_process import RemoteRun
from rightbatch.workers import Alone, NotPicklable, Workers

# Workers import this module: torch is imported where it is needed only, so that they start quickly.

LONG_SECONDS = 60.0
"""A deadline, never a wait: what is expected comes in a fraction of it."""

POINTS = 6


@dataclass(frozen=True)
class Toy:
    """Runs that compute nothing. The setting `act` says what happens on the way to its third point, `file` where."""

    facts = WorkloadFacts("toy", 1000, 1, 60, "loss", "min", "SGD", settings=Settings({"act": "", "file": ""}))
    environment = Environment("none", 1, "none", "none", "-", "-", "-")

    def offers(self, trial: Trial) -> bool:
        return True

    def start(self, trial: Trial, state: bytes | None = None) -> ToyRun:
        if trial.settings.get("act") == "refuse":
            raise InputError("no such trial here")
        if state == b"damaged":
            raise StateError("The saved state of a run cannot be read.")
        return ToyRun(trial, 0 if state is None else int(state))

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        return iter([StepTime(size, (1.0,), (0.0,)) for size in batch_sizes])


class ToyRun:
    def __init__(self, trial: Trial, position: int) -> None:
        self._trial, self._position = trial, position

    def advance(self) -> Point | Stop:
        if self._position == POINTS:
            return Stop(StopReason.FINISHED)
        act, file = self._trial.settings.get("act"), Path(str(self._trial.settings.get("file")))
        if self._position == 2 and act:
            ACTS[str(act)](file)
        size, rate = self._trial.batch_size, self._trial.learning_rate
        step = self._position
        self._position += 1
        return Point(step, step * size, 0.0, None, 1 / (1 + rate * step), 1 / (1 + rate * step), size, rate)

    def save(self) -> bytes:
        return b"%d" % self._position

    def write_weights(self, path: Path) -> bool:
        path.write_bytes(self.save())
        return True

    def close(self) -> None:
        pass


def die(file: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(file: Path) -> None:
    if not file.exists():
        file.touch()
        die(file)


def die_amid_a_reply(file: Path) -> None:
    # A worker is told the number of its socket first: half a message, and no more.
    os.write(int(sys.argv[1]), struct.pack("!i", 1000) + b"half")
    die(file)


def hang_up(file: Path) -> None:
    os.close(int(sys.argv[1]))
    compute(file)


def fail(file: Path) -> None:
    raise ValueError("the third point is bad luck")


def compute(file: Path) -> None:
    """Without end, after it has said so."""
    if file.name:
        file.write_text(str(os.getpid()))
    while True:
        sum(range(1000))


def work(file: Path) -> None:
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass


ACTS: dict[str, Callable[[Path], None]] = {
    "die": die,
    "die once": die_once,
    "die amid a reply": die_amid_a_reply,
    "hang up": hang_up,
    "fail": fail,
    "compute": compute,
    "work": work,
}


def toy() -> Toy:
    return Toy()


def trial(act: str = "", file: Path | str = "", *, seed: int = 0) -> Trial:
    return Trial(10, 0.1, seed, 60, Settings({"act": act, "file": str(file)}))


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {LONG_SECONDS:g} s: {what}"
        time.sleep(0.01)


def alive(process: int) -> bool:
    """Whether a process runs, and is not only waited for."""
    if sys.platform == "linux":
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state not in "ZX"
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout.strip()
    return bool(shown) and not shown.startswith("Z")


def processes_of(crew: Workers) -> list[int]:
    return [worker._process.pid for worker in crew._workers]


def outcomes_of(run: RunInProgress) -> list[Point | Stop]:
    """All that a run has to say, without the seconds, which a workload measures."""
    outcomes: list[Point | Stop] = []
    while not outcomes or isinstance(outcomes[-1], Point):
        outcome = run.advance()
        outcomes.append(replace(outcome, seconds=0.0) if isinstance(outcome, Point) else outcome)
    run.close()
    return outcomes


WHOLE = outcomes_of(Toy().start(trial()))


@pytest.fixture(scope="module")
def shared() -> Iterator[Workers]:
    with Workers(toy, 2) as crew:
        yield crew


@pytest.fixture
def crew(shared: Workers) -> Iterator[Workers]:
    """Two workers with free places. They are shared, since one takes seconds to start."""
    yield shared
    for worker in shared._workers:
        if worker.run is not None:
            worker.run.close()


def opened(folder: Path) -> tuple[Study, Evidence]:
    study = Study.open_or_create(folder / "toy.study.db", Toy.facts)
    question = Question(Objective.STEPS, Target(-1.0, "valid_loss", "min"))
    evidence = Evidence(study.facts, study.runs(), (), question, planned_examples=60)
    return study, evidence


def driven(folder: Path, crew: Workers, *trials: Trial, **how: Any) -> tuple[Evidence, str]:
    """These trials, run in workers. Every trial is asked for whatever its settings."""
    study, evidence = opened(folder)
    evidence = replace(evidence, settings=trials[0].settings)
    with study:
        return drive(study, Toy(), fixed(trials, "test"), evidence, crew=crew, **how)


# ------------------------------------------------------------------------------------------- the same runs


@pytest.fixture(scope="module")
def digits() -> Iterator[tuple[Any, Workers]]:
    """A runner of a workload made of lambdas, here and in one worker that has it pickled."""
    torch = pytest.importorskip("torch")
    from rightbatch.bundled.digits import digits
    from rightbatch.engine import WorkloadRunner

    own = digits()

    def loss(model: Any, batch: Any) -> Any:
        if len(batch[0]) == 7:
            raise ValueError("no batches of 7, please")
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    made = replace(own, loss=loss, model=lambda: torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Linear(16, 10)))
    runner = WorkloadRunner(made, "best")
    with Workers(lambda: runner, 1, threads=1) as crew:
        yield runner, crew


def test_a_run_in_a_worker_is_to_the_bit_the_run_here(digits: tuple[Any, Workers]) -> None:
    runner, crew = digits
    for asked in (Trial(64, 0.1, 3, 3000), Trial(32, 0.03, 1, 3000, Settings({"momentum": 0.5}))):
        here = outcomes_of(runner.start(asked))
        assert len(here) > 20
        assert outcomes_of(crew.start(asked)) == here


def test_a_run_goes_on_in_a_worker_from_a_state_saved_here_and_here_from_one_saved_there(
    digits: tuple[Any, Workers],
) -> None:
    runner, crew = digits
    asked = Trial(64, 0.1, 3, 3000)
    whole = outcomes_of(runner.start(asked))
    for first, second in ((runner, crew), (crew, runner)):
        run = first.start(asked)
        for _ in range(7):
            run.advance()
        state = run.save()
        run.advance()  # what comes after the save is not in it
        run.close()
        assert isinstance(state, bytes)
        assert outcomes_of(second.start(asked, state)) == whole[7:]


def test_an_error_of_the_workload_arrives_with_its_own_words_and_the_traceback_of_the_worker(
    digits: tuple[Any, Workers],
) -> None:
    runner, crew = digits
    bad = Trial(7, 0.1, 0, 3000)
    here = runner.start(bad)
    assert isinstance(here.advance(), Point)
    with pytest.raises(WorkloadError) as said_here:
        here.advance()
    run = crew.start(bad)
    assert isinstance(run.advance(), Point)
    with pytest.raises(WorkloadError) as said_there:
        run.advance()
    run.close()
    assert str(said_there.value) == str(said_here.value)
    assert type(said_there.value) is WorkloadError
    (note,) = said_there.value.__notes__
    assert note.startswith("In the worker process:\nTraceback")
    assert "ValueError: no batches of 7, please" in note
    assert 'in loss\n    raise ValueError("no batches of 7, please")' in note


def test_a_damaged_state_is_refused_by_the_worker_as_it_is_here(digits: tuple[Any, Workers]) -> None:
    runner, crew = digits
    asked = Trial(64, 0.1, 3, 3000)
    with pytest.raises(StateError, match="cannot be read"):
        runner.start(asked, b"not a state")
    run = crew.start(asked, b"not a state")
    with pytest.raises(StateError, match="cannot be read"):
        run.advance()
    run.close()


def test_a_table_runs_in_workers_too(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [
        f"t,8,0.1,{seed},{k},{8 * k},{k / 10},1.0,{1 / (1 + k + seed)},0.5,finished"
        for seed in (0, 1)
        for k in range(9)
    ]
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    runner = TableRunner(path)
    with Workers(partial(TableRunner, path), 1) as crew:
        for seed in (0, 1):
            asked = Trial(8, 0.1, seed)
            assert outcomes_of(crew.start(asked)) == outcomes_of(runner.start(asked))


def test_two_runs_at_a_time_are_what_they_are_alone(crew: Workers) -> None:
    runs = [crew.start(trial(seed=seed)) for seed in (0, 1)]
    found: dict[int, list[Point | Stop]] = {0: [], 1: []}
    active = list(runs)
    while active:
        run = crew.next(active)
        found[runs.index(run)].append(run.advance())
        if isinstance(found[runs.index(run)][-1], Stop):
            run.close()
            active.remove(run)
    assert found == {0: WHOLE, 1: WHOLE}


def test_a_paused_run_frees_its_place_and_goes_on_in_its_worker_when_that_is_free() -> None:
    with Workers(toy, 1) as own:
        first = own.start(trial(seed=0))
        assert isinstance(first, RemoteRun)
        found = [first.advance() for _ in range(3)]
        first.pause()
        second = own.start(trial(seed=1))  # in the only worker there is
        assert isinstance(second, RemoteRun)
        assert second.advance() == WHOLE[0]
        assert not own.take_up(first)
        second.ask()  # computes
        assert first.save() is None
        assert second.advance() == WHOLE[1]
        second.pause()
        assert own.take_up(first)
        assert first.save() == b"3"
        assert found + outcomes_of(first) == WHOLE
        assert own.take_up(second)
        assert WHOLE[:2] + outcomes_of(second) == WHOLE
        assert len(processes_of(own)) == 1


def test_a_run_that_is_closed_while_its_worker_makes_another_one_disturbs_nothing() -> None:
    with Workers(toy, 1) as own:
        first, second = own.start(trial(seed=0)), None
        first.advance()
        assert isinstance(first, RemoteRun)
        first.pause()
        second = own.start(trial(seed=1))
        assert isinstance(second, RemoteRun)
        second.ask()
        first.close()
        first.close()
        assert outcomes_of(second) == WHOLE
        assert outcomes_of(own.start(trial(seed=2))) == WHOLE
        assert not own._workers[0].runs


def test_a_refused_state_leaves_the_paused_runs_of_its_worker_alone() -> None:
    with Workers(toy, 1) as own:
        first = own.start(trial(seed=0))
        first.advance()
        assert isinstance(first, RemoteRun)
        first.pause()
        refused = own.start(trial(seed=1), b"damaged")
        with pytest.raises(StateError):
            refused.advance()
        refused.close()
        assert own.take_up(first)
        assert WHOLE[:1] + outcomes_of(first) == WHOLE


def test_a_paused_run_whose_worker_is_killed_was_interrupted_whatever_it_was_killed_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kills = 5
    monkeypatch.setattr("rightbatch.worker_process.memory_kills", lambda: kills)
    with Workers(toy, 1) as own:
        first = own.start(trial(seed=0))
        first.advance()
        assert isinstance(first, RemoteRun)
        first.pause()
        greedy = own.start(trial("die"))
        for _ in range(2):
            greedy.advance()
        kills += 1
        stop = greedy.advance()
        assert isinstance(stop, Stop)
        assert stop.reason is StopReason.OUT_OF_MEMORY
        greedy.close()
        assert own.take_up(first)
        assert own.next([first]) is first
        assert first.advance() == Stop(StopReason.INTERRUPTED, "its worker process was killed")
        first.close()
        assert outcomes_of(own.start(trial())) == WHOLE


def test_of_a_worker_that_died_idle_every_paused_run_says_so_and_new_runs_have_another() -> None:
    with Workers(toy, 2) as own:
        runs = []
        for seed in (0, 1):
            run = own.start(trial(seed=seed))
            assert isinstance(run, RemoteRun)
            run.advance()
            runs.append(run)
            own._workers[1].run = run  # type: ignore[assignment]  # so that both are in the first one
            run.pause()
        own._workers[1].run = None
        dead = own._workers[0]
        dead._process.kill()
        dead._process.wait(LONG_SECONDS)
        assert all(own.take_up(run) for run in runs)
        for run in runs:
            assert own.next(runs[runs.index(run) :]) is run
            assert run.save() is None
            assert run.advance() == Stop(StopReason.INTERRUPTED, "its worker process was killed")
            run.close()
        both = [own.start(trial(seed=seed)) for seed in (0, 1)]
        assert [outcomes_of(run) for run in both] == [WHOLE, WHOLE]


def test_a_new_run_goes_where_few_are_paused() -> None:
    with Workers(toy, 2) as own:
        runs = [own.start(trial(seed=seed)) for seed in (0, 1)]
        for run in runs:
            run.advance()
            assert isinstance(run, RemoteRun)
        runs[0].pause()  # type: ignore[attr-defined]
        runs[1].close()
        other = own.start(trial(seed=2))
        assert other._worker is not runs[0]._worker  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------------------------- who can


def test_without_several_workers_or_with_what_cannot_be_sent_runs_are_made_here(crew: Workers) -> None:
    @dataclass(frozen=True)
    class Held(Toy):
        lock: Any = None

    runner = Held(threading.Lock())
    with crew_of(runner, runner, 1) as alone:
        assert isinstance(alone, Alone)
    with pytest.raises(NotPicklable, match=r"cannot be sent to worker processes .*lock.*my\.py:make_workload"):
        Workers(lambda: runner, 2)
    with pytest.warns(UserWarning, match="cannot be sent to worker processes") as said:  # noqa: SIM117
        with crew_of(runner, runner, 2) as alone:
            assert outcomes_of(alone.start(trial())) == WHOLE
    assert len(said) == 1
    assert "one at a time, in this process" in str(said[0].message)


SCRIPT = """\
import rightbatch

print("the script")


def train(trial):
    print("a loop begins")
    loss = 1.0
    yield rightbatch.Point(0, valid_loss=loss)
    for step in range(1, 101):
        loss *= 1 - trial.learning_rate / (1 + 8 / trial.batch_size)
        if trial.due(step):
            yield rightbatch.Point(step, valid_loss=loss)


answer = rightbatch.sweep(
    train, [4, 8], workers=2, rates=[0.1, 0.3162], seeds=1, target=0.5, train_examples=100, planned_examples=400,
    objective="steps", study="script.study.db",
)
print("answer", answer.batch_size)
"""


def test_a_script_that_does_not_guard_itself_runs_once_and_prints_of_runs_are_no_output(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=2 * LONG_SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "the script"
    assert done.stdout.splitlines()[-1] == "answer 8"
    assert done.stdout.count("the script") == 1
    assert done.stderr.count("a loop begins") >= 4


def test_a_file_in_the_current_folder_does_not_take_the_place_of_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("raise ImportError('not this one')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert pickle.loads(pickle.dumps(1)) == 1  # here it does not
    with Workers(toy, 1) as crew:
        assert outcomes_of(crew.start(trial())) == WHOLE


# --------------------------------------------------------------------------------------- errors, deaths, ends


def test_an_error_of_any_kind_comes_as_a_workload_error_and_the_worker_stays(crew: Workers) -> None:
    before = processes_of(crew)
    run = crew.start(trial("fail"))
    run.advance()
    run.advance()
    with pytest.raises(WorkloadError, match="ValueError: the third point is bad luck") as said:
        run.advance()
    assert "in fail" in said.value.__notes__[0]
    run.close()
    assert outcomes_of(crew.start(trial())) == WHOLE
    assert processes_of(crew) == before


def test_a_refused_run_has_no_weights(crew: Workers, tmp_path: Path) -> None:
    # As where model() raises: drive keeps the run as failed, and asks every run that ends for its weights.
    run = crew.start(trial("refuse"))
    assert isinstance(run, RemoteRun)
    with pytest.raises(InputError, match="no such trial here") as said:
        run.advance()
    assert not isinstance(said.value, WorkloadError)
    assert run.write_weights(tmp_path / "weights") is False
    assert run.save() is None


def test_a_killed_worker_is_a_stop_and_is_replaced(crew: Workers) -> None:
    before = processes_of(crew)
    run = crew.start(trial("die"))
    assert isinstance(run.advance(), Point)
    assert isinstance(run.advance(), Point)
    assert run.advance() == Stop(StopReason.INTERRUPTED, "its worker process was killed")
    assert isinstance(run, RemoteRun)
    assert run.save() is None
    assert run.write_weights(Path("nowhere")) is False
    run.close()
    run._worker._process.wait(LONG_SECONDS)
    assert outcomes_of(crew.start(trial())) == WHOLE
    assert len(set(processes_of(crew)) & set(before)) == 1


def test_a_worker_that_dies_amid_its_reply_is_a_killed_one(crew: Workers) -> None:
    run = crew.start(trial("die amid a reply"))
    run.advance()
    run.advance()
    assert run.advance() == Stop(StopReason.INTERRUPTED, "its worker process was killed")
    run.close()


def test_a_run_that_ends_while_another_ones_worker_dies_leaves_that_one_to_be_told(crew: Workers) -> None:
    first, second = crew.start(trial("die")), crew.start(trial(seed=1))
    for _ in range(2):
        first.advance()
    assert isinstance(first, RemoteRun)
    first.ask()  # it dies while nobody waits for it
    first._worker._process.wait(LONG_SECONDS)
    assert outcomes_of(second) == WHOLE
    third = crew.start(trial(seed=2))
    assert crew.next([first, third]) is first
    assert first.advance() == Stop(StopReason.INTERRUPTED, "its worker process was killed")
    first.close()
    assert outcomes_of(third) == WHOLE


def test_memory_kills_are_counted_where_the_system_says_so() -> None:
    kills = memory_kills()
    assert kills is None or kills >= 0


def test_a_worker_killed_for_want_of_memory_says_so(crew: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([5, 6])
    monkeypatch.setattr("rightbatch.worker_process.memory_kills", lambda: next(counts))
    run = crew.start(trial("die"))
    run.advance()
    run.advance()
    stop = run.advance()
    run.close()
    assert isinstance(stop, Stop)
    assert stop.reason is StopReason.OUT_OF_MEMORY
    assert "ran out of memory and killed the worker" in stop.message


def test_a_worker_that_has_hung_up_is_not_given_another_run(crew: Workers) -> None:
    run = crew.start(trial("hang up"))
    run.advance()
    run.advance()
    assert run.advance() == Stop(StopReason.INTERRUPTED, "its worker process was killed")
    run.close()
    assert outcomes_of(crew.start(trial())) == WHOLE


@pytest.mark.parametrize("state_seconds", [0.0, 1e9], ids=["from its state", "from the start"])
def test_the_trial_of_a_killed_worker_goes_on_in_another(
    crew: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_seconds: float
) -> None:
    monkeypatch.setattr(desk, "STATE_SECONDS", state_seconds)
    asked = trial("die once", tmp_path / "died")
    _, why = driven(tmp_path, crew, asked)
    assert why == "all trials have run"
    whole = [outcome for outcome in WHOLE if isinstance(outcome, Point)]
    with Study.open(tmp_path / "toy.study.db") as study:
        *cut, run = study.runs()
    assert run.trial == asked
    assert list(run.points) == whole
    assert run.stop == Stop(StopReason.FINISHED)
    if state_seconds:
        assert [list(other.points) for other in cut] == [whole[:2]]
        assert [other.stop for other in cut] == [Stop(StopReason.INTERRUPTED, "its worker process was killed")]
    else:
        assert cut == []


def test_a_trial_that_is_killed_again_and_again_is_given_up_with_a_reason(crew: Workers, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"batch_size=10.*seed=0 was killed 5 times.*worker process was killed"):
        driven(tmp_path, crew, trial("die"))
    with Study.open(tmp_path / "toy.study.db") as study:
        runs = study.runs()
    killed = [run for run in runs if run.trial == trial("die")]
    assert len(killed) == kills.KILLED_TIMES
    assert all(run.stop is not None and run.stop.reason is StopReason.INTERRUPTED for run in killed)
    assert all(run.stop is not None for run in runs)


def test_two_workers_share_the_wall_clock(crew: Workers, tmp_path: Path) -> None:
    for _ in range(2):  # both places must be ready, else their start is counted
        crew.start(trial()).close()
    runs = [crew.start(trial(seed=seed)) for seed in (0, 1)]
    for run in runs:
        outcomes_of(run)
    trials = [trial("work", seed=seed) for seed in range(4)]
    study, evidence = opened(tmp_path)
    with study:
        started = time.monotonic()
        evidence, _ = drive(
            study, Toy(), fixed(trials, "test"), replace(evidence, settings=trials[0].settings), crew=crew
        )
        elapsed = time.monotonic() - started
    total = sum(run.wall_seconds for run in evidence.runs)
    assert len(evidence.runs) == 4
    assert all(run.wall_seconds > 0.1 for run in evidence.runs)
    assert 0.3 * 2 < total <= elapsed
    assert total > 0.7 * elapsed  # the rest is what the strategy takes
    with Study.open(tmp_path / "toy.study.db") as study:
        assert study.costs()["runs"] == pytest.approx(total)


def test_close_ends_a_worker_that_computes(tmp_path: Path) -> None:
    with Workers(toy, 1) as own:
        run = own.start(trial("compute", tmp_path / "computes"))
        assert isinstance(run, RemoteRun)
        for _ in range(2):
            run.advance()
        run.ask()
        until((tmp_path / "computes").exists, "the worker computes")
        processes = processes_of(own)
        assert all(alive(process) for process in processes)
        started = time.monotonic()
    assert time.monotonic() - started < LONG_SECONDS / 2
    assert not any(alive(process) for process in processes)
    own.close()  # allowed more than once


def test_a_run_that_is_closed_while_it_computes_frees_its_place(crew: Workers, tmp_path: Path) -> None:
    run = crew.start(trial("compute", tmp_path / "computes"))
    assert isinstance(run, RemoteRun)
    for _ in range(2):
        run.advance()
    run.ask()
    until((tmp_path / "computes").exists, "the worker computes")
    run.close()
    run.close()
    assert not alive(int((tmp_path / "computes").read_text()))
    assert outcomes_of(crew.start(trial())) == WHOLE


PARENT = """\
import sys
from pathlib import Path
from test_workers import processes_of, toy, trial
from rightbatch.workers import Workers

folder = Path(sys.argv[1])
crew = Workers(toy, 2)
computing, idle = crew.start(trial("compute", folder / "computes")), crew.start(trial())
for _ in range(2):
    computing.advance()
idle.advance()
(folder / "workers").write_text(" ".join(map(str, processes_of(crew))))
computing.advance()
"""


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py"), str(tmp_path)], env=environment)
    try:
        until((tmp_path / "computes").exists, "one worker computes")
        processes = [int(process) for process in (tmp_path / "workers").read_text().split()]
        assert len(processes) == 2
        assert all(alive(process) for process in processes)
    finally:
        parent.kill()
        parent.wait(LONG_SECONDS)
    until(lambda: not any(alive(process) for process in processes), "both workers are gone")


def test_a_run_is_watched_from_its_first_point_to_its_end_wherever_it_is_made(crew: Workers, tmp_path: Path) -> None:
    seen: dict[int, list[int]] = {}

    def watch(run: Run, why: str, evidence: Evidence) -> None:
        seen.setdefault(run.identifier, []).append(len(run.points))

    evidence, _ = driven(tmp_path, crew, trial(), trial(seed=1), watch=watch)
    assert seen == {run.identifier: [*range(1, POINTS + 1), POINTS] for run in evidence.runs}
