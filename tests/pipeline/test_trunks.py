"""Runs whose batch grows otherwise go on from where they begin to differ: to the bit as if they were made alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from rightbatch.batch_schedule import SETTING, parsed
from rightbatch.bundled.digits import digits
from rightbatch.curves import until_horizon
from rightbatch.engine import TrainingRun, WorkloadRunner
from rightbatch.errors import StateError
from rightbatch.evidence import Evidence
from rightbatch.pipeline import trunks
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.setting_up import gather, question
from rightbatch.records import Point, Settings, Stop, Target, Trial
from rightbatch.search.strategy import Action, Advance, Done
from rightbatch.store import Study

PLANNED = 3000
PLANS = ("", "128@1000", "256@1000", "128@1500*2", "128@1500, 256@2200")


def trial(plan: str, seed: int = 0, **changes: Any) -> Trial:
    return Trial(32, 0.1, seed, PLANNED, Settings({SETTING: plan} if plan else {}), **changes)


def in_turn(evidence: Evidence) -> Action:
    """The plans one after the other, each from what the others have in common with it."""
    done = {str(run.trial.settings.get(SETTING, "")) for run in evidence.runs if run.stop}
    missing = next((plan for plan in PLANS if plan not in done), None)
    return Done("all") if missing is None else Advance(trial(missing), until_horizon, "test", branches=True)


def driven(path: Path, runner: WorkloadRunner) -> Evidence:
    facts = replace(runner.facts, planned_examples=PLANNED)
    with Study.open_or_create(path, facts) as study:
        evidence = gather(
            study, facts, question(Ask(objective="steps"), Target(-1.0, "valid_loss", "min")), runner=runner
        )
        drive(study, runner, in_turn, evidence)
    with Study.open(path) as study:
        return replace(evidence, runs=study.runs())


def timeless(points: tuple[Point, ...]) -> dict[int, Point]:
    return {point.step: replace(point, seconds=0.0, train_loss=None) for point in points}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """So many steps each part of a run was long."""
    counted: list[int] = []
    run = TrainingRun._run

    def counting(self: TrainingRun, stepper: Any, steps: int) -> float:
        counted.append(steps)
        return run(self, stepper, steps)

    monkeypatch.setattr(TrainingRun, "_run", counting)
    return counted


def test_what_runs_have_in_common_is_trained_once_and_is_to_the_bit(tmp_path: Path, trained: list[int]) -> None:
    evidence = driven(tmp_path / "a.study.db", WorkloadRunner(digits()))
    made = sum(trained)
    trained.clear()
    for run in evidence.runs:
        alone = WorkloadRunner(digits()).start(run.trial)
        points = []
        while not isinstance(point := alone.advance(), Stop):
            points.append(point)
        expected = timeless(tuple(points))
        found = timeless(run.points)
        # Where they begin to differ, the run that was first is evaluated at a step of its own.
        assert len(found.keys() - expected.keys()) <= 1
        assert {step: point for step, point in found.items() if step in expected} == {
            step: point for step, point in expected.items() if step in found
        }
        assert run.points[-1].step == points[-1].step
    alone_too = sum(trained)
    assert [str(run.trial.settings.get(SETTING, "")) for run in evidence.runs] == list(PLANS)
    assert made < 0.6 * alone_too


def test_states_beyond_the_limit_are_dropped_and_other_runs_are_none_of_theirs() -> None:
    kept = trunks.Trunks(most_bytes=25)
    points = tuple(Point(step, 32 * step, valid_loss=1.0) for step in range(1, 5))
    for k in range(1, 5):
        kept.keep(trial("128@2000"), points[:k], bytes([k]) * 10)
    assert kept.nearest(trial("256@2000")) == (points, b"\x04" * 10)
    assert kept.nearest(trial("256@100")) == (points[:3], b"\x03" * 10)
    assert kept.nearest(trial("256@50")) is None  # those that were kept first are gone
    assert kept.nearest(trial("256@2000", seed=1)) is None
    assert kept.nearest(replace(trial("256@2000"), learning_rate=0.2)) is None
    assert not kept.in_vain
    kept.keep(trial("128@2000"), points, b"\x05" * 30)
    assert kept.in_vain  # no state of such a model fits: none is made any more
    kept.drop()
    assert kept.nearest(trial("256@2000")) is None


def test_a_state_that_cannot_be_read_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(self: TrainingRun, saved: bytes) -> None:
        raise StateError("damaged")

    monkeypatch.setattr(TrainingRun, "load", unreadable)
    evidence = driven(tmp_path / "a.study.db", WorkloadRunner(digits()))
    assert len(evidence.runs) == len(PLANS)
    assert all(run.points[0].step == 0 and run.points[-1].examples >= PLANNED - 256 for run in evidence.runs)


def test_plans_are_alike_until_the_first_phase_that_differs() -> None:
    a = parsed(32, "64@100, 128@200")
    assert a.alike_until(parsed(32, "64@100, 128@200")) == float("inf")
    assert a.alike_until(parsed(32, "64@100")) == 200
    assert a.alike_until(parsed(32, "64@80, 128@200")) == 80
    assert a.alike_until(parsed(32, "64@100, 128@150")) == 150
    assert a.alike_until(parsed(32, "64@100*2, 128@200")) == 100
    assert a.alike_until(parsed(16, "64@100, 128@200")) == 0
