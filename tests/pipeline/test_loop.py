"""The loop: every point is kept as it comes, and whatever ends it, the same call goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from rightbatch import curves
from rightbatch.bundled.quadratic import quadratic
from rightbatch.engine import WorkloadRunner
from rightbatch.errors import WorkloadError
from rightbatch.evidence import Evidence
from rightbatch.pipeline import loop
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.setting_up import Ask, gather, question
from rightbatch.records import Point, Run, StopReason, Target, Trial
from rightbatch.search.strategy import fixed
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
    monkeypatch.setattr(loop, "STATE_SECONDS", state_seconds)
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
    for _ in range(500):  # each call has time for one evaluation only
        study, evidence = opened(path)
        with study:
            _, why = drive(study, RUNNER, STRATEGY, evidence, deadline=time.monotonic() + 0.002)
        if why != loop.OUT_OF_BUDGET:
            break
    assert why == "all trials have run"
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
