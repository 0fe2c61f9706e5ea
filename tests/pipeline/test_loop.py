"""The loop: every point is kept as it comes, and whatever ends it, the same call goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from rightbatch import curves
from rightbatch.bundled.quadratic import quadratic
from rightbatch.engine import WorkloadRunner
from rightbatch.errors import InputError, StateError, WorkloadError
from rightbatch.evidence import Evidence
from rightbatch.pipeline import desk, kills
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.setting_up import gather, question
from rightbatch.records import Point, Run, Stop, StopReason, Target, Trial
from rightbatch.runner import RunInProgress
from rightbatch.search.strategy import Done, fixed
from rightbatch.store import Study

PLANNED = 4000
TRIALS = [Trial(16, 0.1, 0, PLANNED), Trial(32, 0.1, 1, PLANNED)]
RUNNER = WorkloadRunner(quadratic())
STRATEGY = fixed(TRIALS, "test")


def opened(path: Path) -> tuple[Study, Evidence]:
    facts = replace(RUNNER.facts, planned_examples=PLANNED)
    study = Study.open_or_create(path, facts)
    never = Target(-1.0, "valid_loss", "min")
    return study, gather(study, facts, question(Ask(objective="steps"), never), runner=RUNNER)


def learnt(path: Path) -> dict[Trial, list[Point]]:
    """The curve of every run that ended well, without its seconds, which no two runs share."""
    with Study.open(path) as study:
        return {
            run.trial: [replace(point, seconds=0.0) for point in run.points]
            for run in study.runs()
            if run.stop and run.stop.reason is StopReason.FINISHED
        }


class LateAfter(float):
    """A deadline that has passed once so many points have come: what a clock would make of it depends on the machine.

    Hand its `watch` to the same call.
    """

    def __init__(self, points: int) -> None:
        self._points = points

    def __le__(self, now: float) -> bool:
        return self._points <= 0

    def watch(self, run: Run, why: str, evidence: Evidence) -> None:
        """Every point counts, and so does an end."""
        self._points -= 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[Trial, list[Point]]:
    path = tmp_path_factory.mktemp("undisturbed") / "a.study.db"
    study, evidence = opened(path)
    with study:
        evidence, why = drive(study, RUNNER, STRATEGY, evidence)
    assert why == "all trials have run"
    assert len(evidence.runs) == 2
    return learnt(path)


def test_all_points_of_the_ladder_are_kept(undisturbed: dict[Trial, list[Point]]) -> None:
    assert set(undisturbed) == set(TRIALS)
    for trial, points in undisturbed.items():
        assert [p.step for p in points] == [0, *curves.rungs_in_steps(PLANNED, trial.batch_size)]


def test_a_target_that_untrained_weights_reach_is_refused(tmp_path: Path) -> None:
    study, evidence = opened(tmp_path / "a.study.db")
    easy = replace(evidence, question=question(Ask(objective="steps"), Target(1e9, "valid_loss", "min")))
    with study:
        with pytest.raises(InputError, match=r"The target 1e\+09 is reached before any training: the valid_loss of"):
            drive(study, RUNNER, STRATEGY, easy)
        (run,) = study.runs()
    assert run.stop == Stop(StopReason.INTERRUPTED, "the process was told to end")  # and another target may use it


def test_nothing_is_run_again_when_all_has_run(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    for _ in range(2):
        study, evidence = opened(path)
        with study:
            drive(study, RUNNER, STRATEGY, evidence)
    with Study.open(path) as study:
        assert len(study.runs()) == 2


@pytest.mark.parametrize("state_seconds", [0.0, 1e9], ids=["from a saved state", "from the start"])
def test_interrupted_in_the_middle_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[Trial, list[Point]], state_seconds: float
) -> None:
    monkeypatch.setattr(desk, "STATE_SECONDS", state_seconds)
    path = tmp_path / "a.study.db"

    def interrupt(run: Run, why: str, evidence: Evidence) -> None:
        if run.trial == TRIALS[1] and len(run.points) == 7:
            raise KeyboardInterrupt

    study, evidence = opened(path)
    with study, pytest.raises(KeyboardInterrupt):
        drive(study, RUNNER, STRATEGY, evidence, watch=interrupt)
    with Study.open(path) as study:
        first, second = study.runs()
        assert first.stop is not None
        assert first.stop.reason is StopReason.FINISHED
        assert second.stop is not None
        assert second.stop.reason is StopReason.INTERRUPTED
        assert len(second.points) == 7
    study, evidence = opened(path)
    with study:
        drive(study, RUNNER, STRATEGY, evidence)
        assert len(study.runs()) == (2 if state_seconds == 0.0 else 3)  # from its state it is the same run
    assert learnt(path) == undisturbed


def test_out_of_budget_the_run_is_saved_and_goes_on(tmp_path: Path, undisturbed: dict[Trial, list[Point]]) -> None:
    path = tmp_path / "a.study.db"
    calls, why = 0, desk.OUT_OF_BUDGET
    while why == desk.OUT_OF_BUDGET:
        study, evidence = opened(path)
        with study:
            late = LateAfter(2)
            _, why = drive(study, RUNNER, STRATEGY, evidence, deadline=late, watch=late.watch)
        calls += 1
    assert why == "all trials have run"
    assert calls > 10
    with Study.open(path) as study:
        assert len(study.runs()) == 2
    assert learnt(path) == undisturbed


def test_a_rule_stops_a_run_and_says_which(tmp_path: Path) -> None:
    def rule(curve: curves.Curve) -> str | None:
        return "five points are enough" if len(curve) == 5 else None

    study, evidence = opened(tmp_path / "a.study.db")
    with study:
        drive(study, RUNNER, fixed(TRIALS, "test", rule), evidence)
        for run in study.runs():
            assert run.stop is not None
            assert (run.stop.reason, run.stop.message) == (StopReason.STOPPED_BY_RULE, "five points are enough")
            assert len(run.points) == 5


def test_a_diverging_run_is_a_record_not_an_error(tmp_path: Path) -> None:
    study, evidence = opened(tmp_path / "a.study.db")
    with study:
        drive(study, RUNNER, fixed([Trial(16, 10.0, 0, PLANNED)], "test"), evidence)
        (run,) = study.runs()
        assert run.stop is not None
        assert run.stop.reason is StopReason.DIVERGED


def test_code_that_raises_is_kept_as_failed_and_everything_before_it_stays(tmp_path: Path) -> None:
    def loss(model: object, batch: object) -> object:
        if len(batch) == 32:  # type: ignore[arg-type]
            raise ValueError("no batches of 32, please")
        return model(batch)  # type: ignore[operator]

    broken = WorkloadRunner(replace(quadratic(), loss=loss))  # type: ignore[arg-type]
    study, evidence = opened(tmp_path / "a.study.db")
    with study:
        with pytest.raises(WorkloadError, match=r"ValueError: no batches of 32.*batch_size=32"):
            drive(study, broken, STRATEGY, evidence)
        first, second = study.runs()
        assert first.stop is not None
        assert first.stop.reason is StopReason.FINISHED
        assert second.stop is not None
        assert second.stop.reason is StopReason.FAILED
        assert "no batches of 32" in second.stop.message


def test_a_trial_that_cannot_begin_leaves_no_run_behind(tmp_path: Path) -> None:
    study, evidence = opened(tmp_path / "a.study.db")
    with study:
        with pytest.raises(WorkloadError, match="batch_size=1000000 is larger than the data: 65536"):
            drive(study, RUNNER, fixed([Trial(10**6, 0.1, 0, PLANNED)], "test"), evidence)
        assert study.runs() == ()


# ------------------------------------------------------------------------------------------- several at a time

SEVERAL = [Trial(size, 0.1, seed, PLANNED) for size in (32, 64) for seed in range(3)]


class Places:
    """A crew of this process: so many runs at a time, whose outcomes come in an order that is drawn.

    The first runs of `killed` are killed at their third point, as a worker would be.
    """

    def __init__(self, places: int, seed: int, killed: int = 0) -> None:
        self.places = places
        self.most = self.started = 0
        self._killed, self._generator = killed, np.random.default_rng(seed)
        self._open: set[_Kept] = set()

    def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
        assert len(self._open) < self.places, "no free place"
        self._killed -= 1
        run = _Kept(RUNNER.start(trial, state), self._open, 2 if self._killed >= 0 else None)
        self._open.add(run)
        self.started += 1
        self.most = max(self.most, len(self._open))
        return run

    def next(self, runs: Sequence[RunInProgress]) -> RunInProgress:
        assert set(runs) == self._open
        return runs[self._generator.integers(len(runs))]


class _Kept:
    def __init__(self, run: RunInProgress, among: set[_Kept], lives: int | None) -> None:
        self._run, self._among, self._lives = run, among, lives

    def advance(self) -> Point | Stop:
        if self._lives == 0:
            return Stop(StopReason.INTERRUPTED, "its worker process was killed")
        if self._lives is not None:
            self._lives -= 1
        return self._run.advance()

    def close(self) -> None:
        self._among.discard(self)
        self._run.close()


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[Trial, list[Point]]:
    path = tmp_path_factory.mktemp("one_by_one") / "a.study.db"
    study, evidence = opened(path)
    with study:
        drive(study, RUNNER, fixed(SEVERAL, "test"), evidence)
    return learnt(path)


@pytest.mark.parametrize("places", [2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_several_at_a_time_give_the_same_runs_in_whatever_order_their_points_come(
    tmp_path: Path, one_by_one: dict[Trial, list[Point]], places: int, seed: int
) -> None:
    crew = Places(places, seed)
    study, evidence = opened(tmp_path / "a.study.db")
    started = time.monotonic()
    with study:
        evidence, why = drive(study, RUNNER, fixed(SEVERAL, "test"), evidence, crew=crew)
        spent = time.monotonic() - started
        runs = study.runs()
    assert why == "all trials have run"
    assert learnt(tmp_path / "a.study.db") == one_by_one
    assert (crew.most, crew.started) == (places, len(SEVERAL))
    assert sorted(run.identifier for run in evidence.runs) == [run.identifier for run in runs]
    assert {run.identifier: run for run in evidence.runs} == {run.identifier: run for run in runs}
    assert 0.7 * spent < sum(run.wall_seconds for run in runs) <= spent  # each second is shared out, and once


def test_a_killed_run_goes_on_and_the_others_never_notice(tmp_path: Path, one_by_one: dict[Trial, list[Point]]) -> None:
    study, evidence = opened(tmp_path / "a.study.db")
    with study:
        drive(study, RUNNER, fixed(SEVERAL, "test"), evidence, crew=Places(2, 0, killed=2))
        runs = study.runs()
    assert learnt(tmp_path / "a.study.db") == one_by_one
    cut = [run for run in runs if run.stop and run.stop.reason is StopReason.INTERRUPTED]
    assert len(cut) == 2
    for run in cut:  # what is known of it stays: the points before
        assert [replace(point, seconds=0.0) for point in run.points] == one_by_one[run.trial][:2]


def test_what_is_killed_every_time_ends_the_search_with_a_reason_and_a_whole_study(tmp_path: Path) -> None:
    study, evidence = opened(tmp_path / "a.study.db")
    with study:
        with pytest.raises(WorkloadError, match=r"batch_size=32, learning_rate=0.1, seed=0 was killed 5 times"):
            drive(study, RUNNER, fixed(SEVERAL[:1], "test"), evidence, crew=Places(1, 0, killed=9))
        assert [run.stop.reason for run in study.runs() if run.stop] == [StopReason.INTERRUPTED] * kills.KILLED_TIMES


def test_ctrl_c_is_no_kill(tmp_path: Path) -> None:
    # Killed twice, then interrupted by the person: that is Ctrl-C, and not "was killed 5 times".
    def interrupt(run: Run, why: str, evidence: Evidence) -> None:
        if run.identifier == 3 and len(run.points) == 1:
            raise KeyboardInterrupt

    study, evidence = opened(tmp_path / "a.study.db")
    with study:
        with pytest.raises(KeyboardInterrupt):
            drive(study, RUNNER, fixed(SEVERAL[:1], "test"), evidence, crew=Places(1, 0, killed=2), watch=interrupt)
        assert [run.stop is not None for run in study.runs()] == [True] * 3


def test_an_error_in_one_run_interrupts_the_others_and_says_so_in_the_study(tmp_path: Path) -> None:
    class Failing(Places):
        def next(self, runs: Sequence[RunInProgress]) -> RunInProgress:
            if self.started == 3:
                raise WorkloadError("bad luck")
            return super().next(runs)

    study, evidence = opened(tmp_path / "a.study.db")
    crew = Failing(2, 0)
    with study:
        with pytest.raises(WorkloadError, match="bad luck"):
            drive(study, RUNNER, fixed(SEVERAL, "test"), evidence, crew=crew)
        reasons = [run.stop.reason if run.stop else None for run in study.runs()]
    assert sorted(reason.name for reason in reasons if reason) == ["FINISHED", "INTERRUPTED", "INTERRUPTED"]
    assert crew._open == set()


def test_a_run_that_fails_has_taken_the_time_until_then(tmp_path: Path) -> None:
    def loss(model: object, batch: object) -> object:
        if len(batch) == 32:  # type: ignore[arg-type]
            time.sleep(0.05)
            raise ValueError("at once")
        return model(batch)  # type: ignore[operator]

    broken = WorkloadRunner(replace(quadratic(), loss=loss))  # type: ignore[arg-type]
    study, evidence = opened(tmp_path / "a.study.db")
    with study:
        with pytest.raises(WorkloadError):
            drive(study, broken, fixed([TRIALS[1]], "test"), evidence)
        (run,) = study.runs()
    assert run.wall_seconds >= 0.05


def test_a_search_that_is_done_is_done_however_late_it_is(tmp_path: Path) -> None:
    study, evidence = opened(tmp_path / "a.study.db")
    with study:
        late = time.monotonic() - 1.0
        assert drive(study, RUNNER, lambda _: Done("nothing to do"), evidence, deadline=late)[1] == "nothing to do"


@pytest.mark.parametrize("places", [1, 3])
def test_out_of_budget_several_runs_are_saved_and_go_on(
    tmp_path: Path, one_by_one: dict[Trial, list[Point]], places: int
) -> None:
    path = tmp_path / "a.study.db"
    deadlines = [*map(LateAfter, (5, 9, 2, 30)), LateAfter(10**9)]

    class Saving(Places):
        """The runs of a workload can be saved: so are those that are passed on as they are."""

        def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
            return RUNNER.start(trial, state)

        def next(self, runs: Sequence[RunInProgress]) -> RunInProgress:
            return runs[self._generator.integers(len(runs))]

    for late in deadlines:
        study, evidence = opened(path)
        with study:
            strategy = fixed(SEVERAL, "test")
            drive(study, RUNNER, strategy, evidence, crew=Saving(places, 0), deadline=late, watch=late.watch)
    with Study.open(path) as study:
        assert len(study.runs()) == len(SEVERAL)  # none was begun twice
    assert learnt(path) == one_by_one


@pytest.mark.parametrize("when", ["at its start", "at its first advance"])
def test_a_state_that_cannot_be_read_is_forgotten_and_the_run_made_anew(
    tmp_path: Path, undisturbed: dict[Trial, list[Point]], when: str
) -> None:
    path = tmp_path / "a.study.db"

    class Refuses(Places):
        def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
            if state is not None and when == "at its start":
                raise StateError("damaged")
            return super().start(trial, None) if state is None else _Damaged()

        def next(self, runs: Sequence[RunInProgress]) -> RunInProgress:
            return runs[0]

    study, evidence = opened(path)
    with study:
        late = LateAfter(3)
        drive(study, RUNNER, STRATEGY, evidence, deadline=late, watch=late.watch)
    study, evidence = opened(path)
    with study:
        assert any(run.stop and run.stop.reason is StopReason.OUT_OF_BUDGET for run in study.runs())
        drive(study, RUNNER, STRATEGY, evidence, crew=Refuses(1, 0))
        first = study.runs()[0]
        assert first.stop == Stop(StopReason.INTERRUPTED, "damaged")
        assert study.resume_run(first.identifier) is None
    assert learnt(path) == undisturbed


class _Damaged:
    def advance(self) -> Point | Stop:
        raise StateError("damaged")

    def close(self) -> None:
        pass
