"""Runs made one by one, for a search of one's own."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import rightbatch
from rightbatch import Point, RunInProgress, StopReason, Trial

TABLE = "benchmarks/tables/letter.csv.gz"


def curve(run: RunInProgress) -> tuple[list[Point], Any]:
    points = []
    while isinstance(outcome := run.advance(), Point):
        points.append(outcome)
    run.close()
    return points, outcome


def without_seconds(points: list[Point]) -> list[tuple[Any, ...]]:
    return [(point.step, point.examples, point.train_loss, point.valid_loss) for point in points]


def test_a_run_is_advanced_by_hand() -> None:
    with rightbatch.runs("digits") as runs:
        assert runs.places == 1
        assert runs.facts.train_examples == 1437
        points, stop = curve(runs.start(Trial(128, 0.1, 0, planned_examples=2000)))
    assert stop.reason is StopReason.FINISHED
    assert points[-1].valid_loss < points[0].valid_loss


def test_workers_come_to_the_same() -> None:
    trials = [Trial(128, 0.1, seed, planned_examples=1000) for seed in (0, 1)]
    with rightbatch.runs("digits", threads=1) as runs:
        alone = [without_seconds(curve(runs.start(trial))[0]) for trial in trials]
    with rightbatch.runs("digits", workers=2, threads=1) as runs:
        assert runs.places == 2
        under_way = {runs.start(trial): k for k, trial in enumerate(trials)}
        found: list[list[Point]] = [[], []]
        while under_way:
            run = runs.next(list(under_way))
            if isinstance(outcome := run.advance(), Point):
                found[under_way[run]].append(outcome)
            else:
                under_way.pop(run)
                run.close()
    assert [without_seconds(points) for points in found] == alone


@pytest.mark.parametrize(
    "trial", [Trial(5000, 0.1, 0), Trial(32, 0.1, 0, settings=rightbatch.Settings({"momentums": 0.9}))]
)
def test_a_trial_that_cannot_be_run_is_refused(trial: Trial) -> None:
    with rightbatch.runs("digits") as runs, pytest.raises(rightbatch.RightbatchError, match=r"1,437|momentums"):
        runs.start(trial)


def test_what_a_loop_does_not_say_is_asked() -> None:
    def train(trial: Any) -> Any:
        yield Point(1, valid_metric=0.5)

    with rightbatch.runs(train, direction="max", train_examples=100) as runs:
        assert (runs.facts.direction, runs.facts.train_examples) == ("max", 100)
        points, _ = curve(runs.start(Trial(10, 0.1, 0)))
    assert [point.examples for point in points] == [10]
