"""What is said before an answer is trusted, on evidence that gives reason to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import rightbatch
from rightbatch.answer import Caution
from rightbatch.curves import REACHED
from rightbatch.errors import InsufficientEvidence
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.question import Objective, Question
from rightbatch.recommend import recommend
from rightbatch.records import (
    Direction,
    Environment,
    Point,
    Run,
    StepTime,
    Stop,
    StopReason,
    Target,
    Trial,
    WorkloadFacts,
)
from rightbatch.store import Study

ENVIRONMENT = Environment("cpu", 1, "float32", "a processor", "3.11", "2.13", "0.1")
TARGET = Target(0.5, "valid_loss", "min")


def run(number: int, size: int, rate: float, losses: list[float], metrics: list[float] | None = None) -> Run:
    points = tuple(
        Point(10 * k, 10 * k * size, k / 10, valid_loss=loss, valid_metric=metrics[k] if metrics else None)
        for k, loss in enumerate(losses)
    )
    return Run(Trial(size, rate, number), points, Stop(StopReason.FINISHED), 1.0, number)


def cautions(runs: list[Run], direction: Direction = "max") -> tuple[str, ...]:
    facts = WorkloadFacts("p", 1000, 0, 0, "valid_loss", direction, "unknown")
    evidence = Evidence(facts, tuple(runs), (), Question(Objective.STEPS, TARGET))
    return recommend(evidence, protocol="", spent_seconds={}, advised=False).cautions


def begins(caution: Caution) -> str:
    return caution.value.split("{")[0]


FALLING = [2.0, 1.5, 1.0, 0.7, 0.45, 0.4, 0.35]
RISING = [0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8]


@pytest.mark.parametrize(("direction", "said"), [("max", False), ("min", True)])
def test_a_metric_that_gets_worse_as_the_loss_falls_is_told(direction: Direction, said: bool) -> None:
    found = cautions([run(1, 32, 0.1, FALLING, RISING), run(2, 64, 0.1, FALLING, RISING)], direction)
    told = [one for one in found if one.startswith(begins(Caution.DIRECTION))]
    assert bool(told) == said
    if said:
        assert "'min', and got worse by it in 2 of 2 runs" in told[0]
        assert "'max'" in told[0]


def test_one_run_of_several_that_overfits_is_no_wrong_direction() -> None:
    runs = [run(k, 32, 0.1, FALLING, RISING if k else RISING[::-1]) for k in range(3)]
    assert not [one for one in cautions(runs) if one.startswith(begins(Caution.DIRECTION))]


MISSED = [2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.7]
SLOW = [2.0, 1.8, 1.5, 1.2, 0.9, 0.45, 0.4]


@pytest.mark.parametrize("cut_short", [True, False])
def test_a_size_of_which_the_best_rate_was_cut_short_is_told(cut_short: bool) -> None:
    better = [run(1, 64, 0.1, [2.0, 0.45, 0.4, 0.3, 0.3, 0.3, 0.3]), run(2, 64, 0.1, MISSED if cut_short else FALLING)]
    found = cautions([*better, run(1, 64, 0.01, SLOW), run(2, 64, 0.01, SLOW)])
    told = [one for one in found if one.startswith(begins(Caution.CUT_SHORT))]
    assert bool(told) == cut_short
    if cut_short:
        assert "at rate 0.1, 1 of 2 seeds" in told[0]


def test_rates_or_seeds_that_change_nothing_are_told() -> None:
    other = [2.0, 1.4, 1.1, 0.8, 0.45, 0.4, 0.36]
    by_rate = [run(0, 32, 0.1, FALLING), run(0, 32, 0.2, FALLING), run(1, 32, 0.1, other), run(1, 32, 0.2, other)]
    assert Caution.RATE_IGNORED.value in cautions(by_rate)
    assert Caution.SEED_IGNORED.value not in cautions(by_rate)
    by_seed = [run(0, 32, 0.1, FALLING), run(1, 32, 0.1, FALLING), run(0, 32, 0.2, other), run(1, 32, 0.2, other[:5])]
    assert Caution.SEED_IGNORED.value in cautions(by_seed)
    assert Caution.RATE_IGNORED.value not in cautions(by_seed)
    flat = [1.0, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]  # too few different points to be told from luck
    assert not {Caution.SEED_IGNORED.value, Caution.RATE_IGNORED.value} & {
        *cautions([run(0, 32, 0.1, flat), run(1, 32, 0.1, flat), run(0, 32, 0.2, flat)])
    }


def test_runs_that_ended_at_a_target_are_missed_where_metrics_are_compared_later(tmp_path: Path) -> None:
    """A search for time, asked for the metric: its best runs are short."""
    path = tmp_path / "a.study.db"
    short = run(1, 128, 0.1, FALLING[:5], RISING[:5])
    runs = [replace(short, stop=Stop(StopReason.STOPPED_BY_RULE, REACHED)), run(1, 256, 0.1, FALLING, RISING)]
    facts = WorkloadFacts("p", 1000, 0, 0, "valid_metric", "max", "unknown", target=0.7, target_quantity="valid_metric")
    with Study.create(path, facts) as study:
        for one in runs:
            number = study.start_run(one.trial, ENVIRONMENT)
            study.add_points(number, one.points)
            assert one.stop is not None
            study.stop_run(number, one.stop, 1.0)
    assert rightbatch.show(path, objective="metric", at_examples=5000)[0].batch_size == 128
    with pytest.raises(InsufficientEvidence, match=r"All runs at batch size 128 ended when .* before 10,000 examples"):
        rightbatch.show(path, objective="metric", at_examples=10_000)


def test_a_fresh_run_that_missed_says_how_many_did() -> None:
    short = [2.0, 1.5, 1.0, 0.9, 0.8, 0.8, 0.8]
    found = cautions([run(0, 32, 0.1, FALLING), run(1, 32, 0.1, FALLING), run(FRESH_SEED, 32, 0.1, short)])
    assert Caution.FRESH_MISSED.value.format(1, 3) in found


def test_a_choice_that_was_not_made_once_more_though_another_was_is_told() -> None:
    slow = [2.0, 1.9, 1.5, 1.0, 0.7, 0.45, 0.4]
    known = [run(0, 32, 0.1, FALLING), run(1, 32, 0.1, FALLING), run(0, 16, 0.1, slow), run(1, 16, 0.1, slow)]
    assert Caution.NOT_CHECKED.value in cautions([*known, run(FRESH_SEED, 16, 0.1, slow)])
    assert Caution.NOT_CHECKED.value not in cautions([*known, run(FRESH_SEED, 32, 0.1, FALLING)])
    assert Caution.NOT_CHECKED.value not in cautions(known)


def test_a_size_that_some_of_its_seeds_brought_to_the_target_is_not_said_to_have_missed_it() -> None:
    good = [run(0, 32, 0.1, FALLING), run(1, 32, 0.1, FALLING)]
    short = [loss + 0.3 for loss in FALLING]
    found = cautions([*good, run(0, 64, 0.1, FALLING), run(1, 64, 0.1, short), run(2, 64, 0.1, FALLING)])
    assert Caution.PARTLY.value.format(64, "0.1", 2, 3) in found
    assert Caution.MISSES.value.format(64) not in found


def test_step_times_that_were_unsteady_are_one_line() -> None:
    facts = WorkloadFacts("p", 1000, 0, 0, "valid_loss", "max", "unknown")
    times = tuple(
        StepTime(size, (0.1, 0.1, 0.5, 0.1), (0.0,) * 4, unsteady=(2, 3) if size != 32 else ()) for size in (16, 32, 64)
    )
    evidence = Evidence(facts, (run(0, 32, 0.1, FALLING),), times, Question(Objective.STEPS, TARGET))
    found = recommend(evidence, protocol="", spent_seconds={}, advised=False).cautions
    assert Caution.UNSTEADY.value.format("16, 64") in found
