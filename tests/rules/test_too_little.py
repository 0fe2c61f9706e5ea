"""What tells nothing of a rule is said, and stops no other rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import TIMED, WORLDS, Powers, case, schedules

from rightbatch.curves import quality
from rightbatch.records import Stop, StopReason
from rightbatch.rules import RULES, Case, Untold, judge_all
from rightbatch.rules.protocols import Budget, cell_qualities


@pytest.mark.parametrize("name", ["powers-of-two", "eight-costs-five-times"])
def test_few_repeats_of_a_step_time_tell_nothing_of_it(name: str) -> None:
    known = case(Powers(), timed_sizes=TIMED).evidence
    few = tuple(
        replace(one, seconds=one.seconds[:3], wait_seconds=one.wait_seconds[:3], unsteady=())
        for one in known.step_times
    )
    found = RULES[name].judge(Case(replace(known, step_times=few)))
    assert isinstance(found, Untold)
    assert "timed 6 times" in found.why
    assert found.command.startswith("rightbatch profile")


def test_runs_that_never_got_better_than_they_began_tell_nothing_of_growing_batches() -> None:
    known = schedules(0.0).evidence
    worse = tuple(
        replace(run, points=tuple(replace(point, valid_metric=1.0 + 0.1 * (point.step > 0)) for point in run.points))
        for run in known.runs
    )
    assert quality(worse[0].points, known.facts.direction) == 1.0
    judged = judge_all(Case(replace(known, runs=worse)), RULES.values())
    (grow,) = (one for one in judged if one.rule.name == "grow-the-batch")
    assert "better than it began" in str(grow)
    assert len(judged) == len(WORLDS)


def test_seeds_of_few_sizes_are_few_models_for_a_rank_correlation() -> None:
    holds, _ = WORLDS["sharpness-predicts"]
    known = holds()
    few = {
        key: value for key, value in known.sharpness.items() if key[0] in sorted({k[0] for k in known.sharpness})[:2]
    }
    assert len(few) >= 6
    found = RULES["sharpness-predicts"].judge(replace(known, sharpness=few))
    assert isinstance(found, Untold)
    assert "fewer than six batch sizes" in found.why


def test_a_size_that_only_diverged_does_not_shorten_what_the_others_are_compared_by() -> None:
    holds, _ = WORLDS["no-effect-once-tuned"]
    known = holds().evidence
    first = known.runs[0]
    early = replace(
        first, trial=replace(first.trial, batch_size=1), points=first.points[:3], stop=Stop(StopReason.DIVERGED)
    )
    with_it = replace(known, runs=(*known.runs, replace(early, identifier=10**6)))
    cells = [cell_qualities(one, Budget.EPOCHS) for one in (known, with_it)]
    assert cells[0]
    assert cells[1]
    assert {cell: values for cell, values in cells[1].items() if cell[0] > 1} == cells[0]
