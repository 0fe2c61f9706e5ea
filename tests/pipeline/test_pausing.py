"""Runs that are paused and continued: nothing of them is lost, repeated or left over, however a search ends."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rightbatch import curves
from rightbatch.curves import StopRule, until_horizon
from rightbatch.errors import StateError, WorkloadError
from rightbatch.evidence import Evidence
from rightbatch.pipeline import desk
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.beginnings import HELD
from rightbatch.pipeline.desk import MOST_PAUSED, OUT_OF_BUDGET
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.setting_up import gather, question
from rightbatch.records import Environment, Point, Run, StepTime, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.runner import RunInProgress, Runner
from rightbatch.search.strategy import Action, Advance, Done, Strategy, Wait, fixed
from rightbatch.store import RESUMABLE, Study
from rightbatch.workers import Workers

# Workers import this module: nothing here needs torch, so that they start quickly.

LONG_SECONDS = 60.0
PLANNED = 320
NEEDLESS = Stop(StopReason.STOPPED_BY_RULE, "paused, and not needed any more")


@dataclass(frozen=True)
class Chain:
    """Runs whose every point depends on all points before it. `saves`: whether they have a state."""

    saves: bool = True
    facts = WorkloadFacts("chain", 1000, 1, PLANNED, "loss", "min", "SGD", present=(8, 0.1), source="1")
    environment = Environment("none", 1, "none", "none", "-", "-", "-")

    def offers(self, trial: Trial) -> bool:
        return True

    def start(self, trial: Trial, state: bytes | None = None) -> ChainRun:
        step, link = json.loads(state) if state else (0, "")
        return (SavedChainRun if self.saves else ChainRun)(trial, step, link)

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        return iter([StepTime(size, (1e-3,), (0.0,)) for size in batch_sizes])


class ChainRun:
    def __init__(self, trial: Trial, step: int, link: str) -> None:
        self.trial, self.step, self.link = trial, step, link

    def advance(self) -> Point | Stop:
        size = self.trial.batch_size
        assert self.trial.planned_examples is not None
        if self.step * size > self.trial.planned_examples:
            return Stop(StopReason.FINISHED)
        self.link = hashlib.sha256(f"{self.link} {self.trial}".encode()).hexdigest()
        loss = 1 / (1 + 0.1 * self.step) + int(self.link[:4], 16) / 2**24
        point = Point(self.step, self.step * size, 0.0, loss, loss, loss, size, self.trial.learning_rate)
        self.step += 1
        return point

    def close(self) -> None:
        pass


class SavedChainRun(ChainRun):
    def save(self) -> bytes:
        return json.dumps([self.step, self.link]).encode()


RUNNER = Chain()


def after(points: int) -> StopRule:
    """Pause as soon as the curve has so many points."""
    return lambda curve: "a slice" if len(curve) >= points else None


@dataclass
class InTurns:
    """Advances the trial that got least far by so many points and pauses it, until all have ended.

    Gives up as soon as each has `enough` points. `asked` is what it was asked with.
    """

    trials: list[Trial]
    slice_points: int = 5
    enough: float = float("inf")
    until: StopRule = until_horizon
    asked: list[Evidence] = field(default_factory=list)

    def __call__(self, evidence: Evidence) -> Action:
        self.asked.append(evidence)
        points, ended = dict.fromkeys(map(key_of, self.trials), 0), set()
        for run in evidence.runs:
            points[key_of(run.trial)] = max(points.get(key_of(run.trial), 0), len(run.points))
            if run.stop is not None and run.stop.reason not in RESUMABLE and run.stop != NEEDLESS:
                ended.add(key_of(run.trial))
        left = [trial for trial in self.trials if key_of(trial) not in ended and points[key_of(trial)] < self.enough]
        free = [trial for trial in left if key_of(trial) not in map(key_of, evidence.pending)]
        if not free:
            return Wait() if evidence.pending else Done("all have run")
        trial = min(free, key=lambda trial: points[key_of(trial)])
        return Advance(trial, self.until, "its turn", after(points[key_of(trial)] + self.slice_points))


def key_of(trial: Trial) -> tuple[int, float, int]:
    return trial.batch_size, trial.learning_rate, trial.seed


def trials(count: int, planned: int | None = PLANNED) -> list[Trial]:
    return [Trial(8 << k % 2, 0.1, k // 2, planned) for k in range(count)]


def opened(path: Path, runner: Runner) -> tuple[Study, Evidence]:
    study = Study.open_or_create(path, replace(runner.facts, planned_examples=PLANNED))
    never = Target(-1.0, "valid_loss", "min")
    return study, gather(study, study.facts, question(Ask(objective="steps"), never), runner=runner)


def driven(path: Path, runner: Runner, strategy: Strategy, **how: Any) -> tuple[Evidence, str]:
    study, evidence = opened(path, runner)
    with study:
        found = drive(study, runner, strategy, evidence, **how)
        # What is told to the strategy is what the study has, but for the order.
        assert {run.identifier: run for run in found[0].runs} == {run.identifier: run for run in study.runs()}
    return found


def stored(path: Path) -> tuple[Run, ...]:
    with Study.open(path) as study:
        return study.runs()


def finished(path: Path) -> dict[Trial, list[Point]]:
    """The curves of runs that came to their end, without their seconds, which no two runs share."""
    whole = [run for run in stored(path) if run.stop and run.stop.reason is StopReason.FINISHED]
    assert len({run.trial for run in whole}) == len(whole)
    return {run.trial: [replace(point, seconds=0.0) for point in run.points] for run in whole}


def states(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM states").fetchall()
    connection.close()
    return int(count)


def test_the_wall_seconds_of_slices_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    class Ticking:
        """One second a point, ten for what the strategy thinks."""

        def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
            run = RUNNER.start(trial, state)
            advance = run.advance

            def ticking() -> Point | Stop:
                nonlocal now
                now += 1.0
                return advance()

            run.advance = ticking  # type: ignore[method-assign]
            return run

        def __getattr__(self, name: str) -> Any:
            return getattr(RUNNER, name)

    def slow(evidence: Evidence) -> Action:
        nonlocal now
        now += 10.0
        return turns(evidence)

    monkeypatch.setattr(desk.time, "monotonic", lambda: now)
    turns = InTurns(trials(3))
    evidence, _ = driven(tmp_path / "a.study.db", Ticking(), slow)  # type: ignore[arg-type]
    for run in evidence.runs:
        assert run.wall_seconds == pytest.approx(len(run.points) + 1)  # and one to hear that it is finished
    seen = {id(run): run for asked in turns.asked for run in asked.runs if run.stop is None}
    assert len(seen) > 9
    for run in seen.values():  # while it was paused, too
        assert run.wall_seconds == pytest.approx(len(run.points))


def test_a_rule_that_ends_a_run_comes_before_one_that_pauses_it(tmp_path: Path) -> None:
    def rule(curve: curves.Curve) -> str | None:
        return "enough" if len(curve) == 10 else None

    evidence, why = driven(tmp_path / "a.study.db", RUNNER, InTurns(trials(2), slice_points=5, until=rule))
    assert why == "all have run"
    assert [run.stop for run in evidence.runs] == [Stop(StopReason.STOPPED_BY_RULE, "enough")] * 2
    assert [len(run.points) for run in evidence.runs] == [10, 10]


def test_a_pause_is_watched_once_and_the_points_of_a_run_too(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str, bool]] = []

    def watch(run: Run, why: str, evidence: Evidence) -> None:
        seen.append((run.identifier, len(run.points), why, run.stop is None))

    evidence, _ = driven(tmp_path / "a.study.db", RUNNER, InTurns(trials(2), slice_points=10), watch=watch)
    for run in evidence.runs:
        length = len(run.points)
        points = [points for number, points, why, _ in seen if number == run.identifier and why == "its turn"]
        assert points == [*range(1, length + 1), length]
        pauses = [points for number, points, why, open_ in seen if number == run.identifier and why == HELD and open_]
        assert pauses == [*range(10, length + 1, 10)]


# ------------------------------------------------------------------------------------------------- more than are held


class Counting:
    """A runner that knows which of its runs are open, and from what they were started."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.open: set[Any] = set()
        self.most = self.anew = self.from_state = 0

    def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
        run = self.runner.start(trial, state)
        close = run.close

        def closing() -> None:
            self.open.discard(id(run))
            close()

        run.close = closing  # type: ignore[method-assign]
        self.open.add(id(run))
        self.most = max(self.most, len(self.open))
        self.anew += state is None
        self.from_state += state is not None
        return run

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)


MANY = MOST_PAUSED + 4


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[Trial, list[Point]]:
    path = tmp_path_factory.mktemp("many") / "a.study.db"
    driven(path, RUNNER, fixed(trials(MANY), "test"))
    return finished(path)


def test_beyond_the_most_paused_runs_those_paused_longest_ago_are_kept_as_states(
    tmp_path: Path, many: dict[Trial, list[Point]]
) -> None:
    runner, turns = Counting(RUNNER), InTurns(trials(MANY), slice_points=15)
    driven(tmp_path / "a.study.db", runner, turns)
    assert finished(tmp_path / "a.study.db") == many
    assert len(stored(tmp_path / "a.study.db")) == runner.anew == MANY  # none was begun twice
    assert runner.from_state >= MANY - MOST_PAUSED
    assert (runner.most, runner.open) == (MOST_PAUSED + 1, set())
    assert max(sum(run.stop is None for run in asked.runs) for asked in turns.asked) == MANY  # paused, however kept


def test_a_run_that_cannot_be_saved_is_closed_for_others_and_made_anew(tmp_path: Path) -> None:
    runner = Counting(Chain(saves=False))
    some = trials(MOST_PAUSED + 1)
    driven(tmp_path / "whole.study.db", runner, fixed(some, "test"))
    whole = finished(tmp_path / "whole.study.db")
    # Each is paused once, the last one goes on to its end, and only then the first one is wanted again.
    order = [*some, *reversed(some)]

    def once(evidence: Evidence) -> Action:
        if not order:
            return Done("all have run")
        trial, first = order.pop(0), len(order) >= len(some)
        return Advance(trial, until_horizon, "test", after(10) if first else None)

    runner.anew = 0
    evidence, _ = driven(tmp_path / "a.study.db", runner, once)
    assert runner.anew == len(some) + 1
    assert finished(tmp_path / "a.study.db") == whole
    cut = [run for run in evidence.runs if run.stop and run.stop.reason is StopReason.INTERRUPTED]
    assert [(run.trial, len(run.points)) for run in cut] == [(some[0], 10)]
    assert cut[0].stop == Stop(StopReason.INTERRUPTED, "closed: 8 other runs are paused")
    assert {run.trial: len(run.points) for run in evidence.relevant} == {t: len(points) for t, points in whole.items()}
    assert runner.open == set()


def test_a_state_of_a_paused_run_that_cannot_be_read_is_forgotten_and_the_run_made_anew(
    tmp_path: Path, many: dict[Trial, list[Point]]
) -> None:
    class Refusing(Counting):
        def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
            if state is not None:
                raise StateError("damaged")
            return super().start(trial)

    runner = Refusing(RUNNER)
    driven(tmp_path / "a.study.db", runner, InTurns(trials(MANY), slice_points=10))
    assert finished(tmp_path / "a.study.db") == many
    lost = [run for run in stored(tmp_path / "a.study.db") if run.stop == Stop(StopReason.INTERRUPTED, "damaged")]
    assert len(lost) >= MANY - MOST_PAUSED
    assert (states(tmp_path / "a.study.db"), runner.open) == (0, set())


# ---------------------------------------------------------------------------------------------------------- the ends


@pytest.mark.parametrize("count", [2, MANY], ids=["held", "more than are held"])
def test_what_is_paused_when_the_search_is_done_is_ended_without_its_state(
    tmp_path: Path, many: dict[Trial, list[Point]], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(desk, "STATE_SECONDS", 0.0)  # all have one while they run
    path, some = tmp_path / "a.study.db", trials(count)
    evidence, why = driven(path, RUNNER, InTurns(some, enough=10))
    assert why == "all have run"
    assert [run.stop for run in stored(path)] == [NEEDLESS] * count
    assert [len(run.points) for run in evidence.runs] == [10] * count
    assert states(path) == 0
    assert not any(evidence.conclusive(run) for run in evidence.relevant)  # nothing is held against these cells
    assert evidence.cells == ()
    # A later call that wants them makes them anew.
    driven(path, RUNNER, fixed(some, "test"))
    assert finished(path) == {trial: many[trial] for trial in some}
    assert len(stored(path)) == 2 * count


@pytest.mark.parametrize("count", [2, MANY], ids=["held", "more than are held"])
def test_out_of_budget_what_is_paused_is_saved_and_goes_on(
    tmp_path: Path, many: dict[Trial, list[Point]], count: int
) -> None:
    path, some = tmp_path / "a.study.db", trials(count)

    class Ending:
        """Has passed when each has ten points and one was just paused."""

        def __le__(self, now: float) -> bool:
            return all_have

    all_have = False

    def watch(run: Run, why: str, evidence: Evidence) -> None:
        nonlocal all_have
        lengths = [len(run.points) for run in evidence.runs]
        all_have = why == HELD and len(lengths) == count and min(lengths) >= 10

    _, why = driven(path, RUNNER, InTurns(some), deadline=Ending(), watch=watch)
    assert why == OUT_OF_BUDGET
    assert {run.stop for run in stored(path)} == {Stop(StopReason.OUT_OF_BUDGET)}
    assert states(path) == count
    runner = Counting(RUNNER)
    driven(path, runner, InTurns(some))
    assert runner.anew == 0
    assert finished(path) == {trial: many[trial] for trial in some}
    assert len(stored(path)) == count


@pytest.mark.parametrize("count", [3, MANY], ids=["held", "more than are held"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, WorkloadError])
def test_interrupted_what_is_paused_is_saved_and_goes_on(
    tmp_path: Path, many: dict[Trial, list[Point]], count: int, error: type[BaseException]
) -> None:
    path, some = tmp_path / "a.study.db", trials(count)

    def interrupt(run: Run, why: str, evidence: Evidence) -> None:
        if len(evidence.runs) == count and len(run.points) == 12:
            raise error("now")

    runner = Counting(RUNNER)
    with pytest.raises(error, match="now"):
        driven(path, runner, InTurns(some), watch=interrupt)
    assert runner.open == set()
    stops = {run.trial: run.stop.reason for run in stored(path) if run.stop}
    failed = {trial for trial, reason in stops.items() if reason is StopReason.FAILED}
    assert len(failed) == (error is WorkloadError)
    assert set(stops.values()) - {StopReason.FAILED} == {StopReason.INTERRUPTED}
    # All but the one that was under way, which has one from when it was set aside, if it was.
    known = states(path)
    assert known == count - (count == 3 or error is WorkloadError)
    runner = Counting(RUNNER)
    left = [trial for trial in some if trial not in failed]
    driven(path, runner, InTurns(left))
    assert runner.anew == len(left) - known
    assert finished(path) == {trial: many[trial] for trial in left}


def test_a_full_disk_leaves_no_run_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space")

    def interrupt(run: Run, why: str, evidence: Evidence) -> None:
        if len(evidence.runs) == 3 and len(run.points) == 7:
            monkeypatch.setattr(Study, "save_state", full)
            raise KeyboardInterrupt

    runner = Counting(RUNNER)
    with pytest.raises(OSError, match="no space"):
        driven(tmp_path / "a.study.db", runner, InTurns(trials(3)), watch=interrupt)
    assert runner.open == set()
    assert all(run.stop is not None for run in stored(tmp_path / "a.study.db"))


@pytest.mark.parametrize("unsaved", ["little", "much"])
def test_a_paused_run_is_saved_if_much_of_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsaved: str
) -> None:
    # Slices of 5 points; saved after about 12 points of training, pauses not counted.
    now, saved = 0.0, []
    monkeypatch.setattr(desk.time, "monotonic", lambda: now)
    monkeypatch.setattr(desk, "STATE_SECONDS", 11.5 if unsaved == "much" else 1e9)
    save = Study.save_state

    def saving(study: Study, run: int, step: int, state: bytes) -> None:
        saved.append(run)
        save(study, run, step, state)

    def tick(run: Run, why: str, evidence: Evidence) -> None:
        nonlocal now
        now += 1.0 if why != HELD else 1000.0

    monkeypatch.setattr(Study, "save_state", saving)
    evidence, _ = driven(tmp_path / "a.study.db", RUNNER, InTurns(trials(2)), watch=tick)
    for run in evidence.runs:
        expected = len(run.points) // 13 if unsaved == "much" else 0
        assert abs(saved.count(run.identifier) - expected) <= (1 if expected else 0)


# -------------------------------------------------------------------------------------------------------------- kill -9

KILLED = """\
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_pausing as t
from rightbatch.pipeline import desk

desk.STATE_SECONDS = float(sys.argv[3])

def watch(run, why, evidence):
    if len(evidence.runs) == t.MANY - 1 and len(run.points) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

t.driven(Path(sys.argv[1]), t.RUNNER, t.InTurns(t.trials(t.MANY)), watch=watch)
"""


@pytest.mark.parametrize("state_seconds", [0.0, 1e9], ids=["saved", "not saved"])
def test_killed_among_paused_runs_the_study_is_whole_and_goes_on(
    tmp_path: Path, many: dict[Trial, list[Point]], state_seconds: float
) -> None:
    path = tmp_path / "a.study.db"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent), str(state_seconds)],
        capture_output=True, text=True, timeout=LONG_SECONDS, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    study, _ = opened(path, RUNNER)
    with study:
        left = study.runs()
    assert len(left) == MANY
    assert all(run.stop is not None and run.stop.reason is StopReason.INTERRUPTED for run in left)
    assert all(run.wall_seconds > 0 for run in left[:-1])  # of the slices before
    # Those set aside have their state in any case, those held open where it was time to save them.
    kept = states(path)
    assert kept == (MANY if state_seconds == 0.0 else MANY - MOST_PAUSED - 1)
    runner = Counting(RUNNER)
    driven(path, runner, InTurns(trials(MANY)))
    assert runner.anew == MANY - kept
    assert finished(path) == many


# -------------------------------------------------------------------------------------------------- worker processes


class Homes:
    """What worker processes are, in this one: a paused run can go on only at its home, when no other run has it."""

    places = 2

    def __init__(self, seed: int) -> None:
        self._generator = random.Random(seed)
        self.at_home: dict[int, AtHome] = {}
        self.refused = 0

    def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
        home = next(home for home in range(self.places) if home not in self.at_home)
        self.at_home[home] = run = AtHome(self, home, trial, state)
        return run

    def take_up(self, run: RunInProgress) -> bool:
        assert isinstance(run, AtHome)
        free = self.at_home.setdefault(run.home, run) is run
        self.refused += not free
        return free

    def next(self, runs: Sequence[RunInProgress]) -> RunInProgress:
        assert set(runs) == set(self.at_home.values())
        return self._generator.choice(runs)


class AtHome(SavedChainRun):
    def __init__(self, homes: Homes, home: int, trial: Trial, state: bytes | None) -> None:
        super().__init__(trial, *(json.loads(state) if state else (0, "")))
        self.homes, self.home = homes, home

    def pause(self) -> None:
        assert self.homes.at_home.pop(self.home) is self

    def close(self) -> None:
        if self.homes.at_home.get(self.home) is self:
            self.pause()


@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_is_wanted_while_another_has_its_home_goes_on_afterwards(
    tmp_path: Path, many: dict[Trial, list[Point]], seed: int
) -> None:
    crew, turns = Homes(seed), InTurns(trials(MANY))
    driven(tmp_path / "a.study.db", RUNNER, turns, crew=crew)
    assert crew.refused > 0
    assert crew.at_home == {}
    assert finished(tmp_path / "a.study.db") == many
    assert len(stored(tmp_path / "a.study.db")) == MANY
    assert max(len(asked.pending) for asked in turns.asked) >= crew.places  # the wanted one counts as under way


def wait_for(crew: Workers) -> None:
    """Until both workers are there: else one has done all before the other has begun."""
    for run in [crew.start(trial) for trial in trials(2)]:
        run.advance()
        run.close()


def test_in_workers_a_paused_run_takes_no_place_and_goes_on_where_it_is(tmp_path: Path) -> None:
    runner = Chain(saves=False)
    five = trials(5)
    driven(tmp_path / "whole.study.db", runner, fixed(five, "test"))
    turns = InTurns(five)
    with Workers(partial(Chain, False), 2, threads=1) as crew:
        wait_for(crew)
        driven(tmp_path / "a.study.db", runner, turns, crew=crew)
        assert not any(worker.runs for worker in crew._workers)
    assert finished(tmp_path / "a.study.db") == finished(tmp_path / "whole.study.db")
    assert len(stored(tmp_path / "a.study.db")) == 5
    assert max(sum(run.stop is None for run in asked.runs) for asked in turns.asked) == 5


def test_in_workers_too_runs_are_saved_when_more_are_paused_or_the_search_is_interrupted(
    tmp_path: Path, many: dict[Trial, list[Point]]
) -> None:
    path = tmp_path / "a.study.db"

    def interrupt(run: Run, why: str, evidence: Evidence) -> None:
        if len(evidence.runs) == MANY and min(len(run.points) for run in evidence.runs) >= 10:
            raise KeyboardInterrupt

    with Workers(Chain, 2, threads=1) as crew:
        wait_for(crew)
        with pytest.raises(KeyboardInterrupt):
            driven(path, RUNNER, InTurns(trials(MANY)), crew=crew, watch=interrupt)
        ends = [run.stop.reason for run in stored(path) if run.stop]
        assert len(ends) == MANY
        assert set(ends) <= {StopReason.INTERRUPTED, StopReason.FINISHED}  # the latter where one worker is slow
        # Of those held open, the ones whose worker was not busy with another run; all that were set aside.
        assert 0 < states(path) <= ends.count(StopReason.INTERRUPTED)
        driven(path, RUNNER, InTurns(trials(MANY)), crew=crew)
    assert finished(path) == many


def test_a_killed_worker_takes_its_paused_runs_with_it_and_they_are_made_anew(
    tmp_path: Path, many: dict[Trial, list[Point]]
) -> None:
    path, some = tmp_path / "a.study.db", trials(4)
    killed = False

    with Workers(Chain, 2, threads=1) as crew:

        def kill(run: Run, why: str, evidence: Evidence) -> None:
            nonlocal killed
            if not killed and len(evidence.runs) == 4 and min(len(run.points) for run in evidence.runs) >= 10:
                killed = True
                worker = next(worker for worker in crew._workers if worker.runs)
                worker._process.kill()
                worker._process.wait()

        wait_for(crew)
        driven(path, RUNNER, InTurns(some), crew=crew, watch=kill)
    assert killed
    assert finished(path) == {trial: many[trial] for trial in some}
    lost = [run for run in stored(path) if run.stop and run.stop.reason is StopReason.INTERRUPTED]
    assert len(lost) >= 1
    assert {run.stop.message for run in lost if run.stop} == {"its worker process was killed"}
