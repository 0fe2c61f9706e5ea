"""An answer beside those for other values of a setting: simulated studies whose useful sizes are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rightbatch.evidence import Evidence
from rightbatch.pipeline.other_settings import beside_other_settings
from rightbatch.question import Objective, Question
from rightbatch.recommend import recommend
from rightbatch.records import Point, Run, Settings, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.testing import Truth, simulate

FEW, MANY = Settings({"inner_steps": 1}), Settings({"inner_steps": 5})


def evidence(few: Truth, many: Truth, timed: bool = True) -> Evidence:
    """Asked for five inner steps; each number of steps takes seconds of its own."""
    one, other = (
        simulate(truth, settings=dict(settings), seeds=4, rates_around=2, planned_examples=3_000_000, random_seed=k)
        for k, (truth, settings) in enumerate(((few, FEW), (many, MANY)))
    )
    runs = tuple(replace(run, identifier=k) for k, run in enumerate((*one.runs, *other.runs)))
    return replace(
        other.evidence,
        facts=replace(other.facts, settings=MANY),
        runs=runs,
        step_times=other.step_times,
        step_times_by_settings={Settings(): other.step_times} | ({FEW: one.step_times} if timed else {}),
    )


def reasons(found: Evidence) -> tuple[str, ...]:
    answer = recommend(found, protocol="", spent_seconds={}, advised=False)
    return beside_other_settings(answer, found).reasons[len(answer.reasons) :]


def test_a_useful_size_that_moves_is_told():
    """Sixteen times the critical size and five times the cost of an example and of a step: the best size moves."""
    few = Truth(critical_batch_size=100.0, noise=0.02, time_noise=0.01)
    many = replace(few, critical_batch_size=6400.0, minimum_steps=few.minimum_steps / 64)
    (said,) = reasons(evidence(few, many))
    assert said.startswith("with inner_steps 1 instead of 5 it is batch size ")
    assert said.endswith("the useful batch size is larger with inner_steps 5")


def test_sizes_that_are_alike_cannot_be_told_apart():
    truth = Truth(noise=0.05)
    (said,) = reasons(evidence(truth, truth))
    assert said.endswith("the useful batch sizes cannot be told apart")
    assert "at 0.9" in said or "at 1.0" in said or "at 1x" in said


def test_each_value_has_its_own_seconds():
    """The same steps, in half of the time."""
    slow = Truth(noise=0.02, time_noise=0.01)
    fast = replace(slow, alpha_seconds=slow.alpha_seconds / 2, beta_seconds=slow.beta_seconds / 2)
    (said,) = reasons(evidence(fast, slow))
    factor = float(said.split(" at ")[1].split("x")[0])
    assert factor == pytest.approx(0.5, abs=0.06)


def test_a_metric_has_one_scale_for_all_settings():
    """The same curves, but for a metric that is worse by 4 % of the gain: that is two factors of 1.1."""
    gain = 2.3 - 0.1

    def runs(setting, worse):
        return tuple(
            Run(
                Trial(size, 0.1, seed, 1000, Settings({"beta2": setting})),
                (Point(0, 0, valid_metric=2.3), *(Point(k * 500 // size, k * 500, valid_metric=end) for k in (1, 2))),
                Stop(StopReason.FINISHED),
                identifier=round(1000 * setting) + 10 * size + seed,
            )
            for size, own in ((50, 0.0), (100, 0.02))
            for seed in (0, 1)
            for end in (0.1 + gain * (worse + own) + 0.001 * seed,)
        )

    facts = WorkloadFacts(
        name="made up", train_examples=1000, valid_examples=100, planned_examples=1000, metric="loss", direction="min",
        optimizer="Adam", settings=Settings({"beta2": 0.9}),
    )  # fmt: skip
    question = Question(Objective.METRIC, Target(0.5, "valid_metric", "min"), at_examples=1000)
    both = Evidence(facts, (*runs(0.9, 0.0), *runs(0.99, 0.04)), (), question)
    costs = {
        setting: [both.with_setting("beta2", setting).cost(run) for run in runs(setting, worse)[:1]]
        for setting, worse in ((0.9, 0.0), (0.99, 0.04))
    }
    assert costs[0.9] == [pytest.approx(1.0)]
    assert costs[0.99] == [pytest.approx(1.1**2, rel=1e-3)]


def test_without_its_seconds_nothing_is_said():
    assert reasons(evidence(Truth(), Truth(), timed=False)) == ()
    assert reasons(simulate(Truth(), seeds=2).evidence) == ()
