"""What is said of every batch size: predicted where nothing was trained to the target, measured where it was."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agreement import check_agreement
from rightbatch.answer import Caution
from rightbatch.errors import InsufficientEvidence
from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.question import EQUIVALENT_FACTOR, Objective, Question
from rightbatch.recommend import recommend
from rightbatch.records import Point, Run, StepTime, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.report.terminal import as_good_text
from rightbatch.search.few_runs import FewRuns
from rightbatch.search.forecast import Forecast, forecast

TARGET = Target(1.0, "valid_metric", "max")
SIZES, RATES = (16, 64, 256, 1024), (0.01, 0.03162, 0.1, 0.3162, 1.0)
TOLD: dict[str, Any] = {"protocol": "made up", "spent_seconds": {}}
Cell = tuple[int, float]


def step_seconds(size: int) -> float:
    return 1e-3 * (1 + size / 400)


def needed(size: int, rate: float, seed: int = 0) -> float:
    """Steps to the target, by the laws; the second seed takes a tenth more."""
    off = math.log(rate / (0.3 / (1 + 250 / size)))
    return 150 * (1 + 250 / size) * math.exp(math.hypot(off, 0.5) - 0.5) * (1 + 0.1 * seed)


def run(cell: Cell, share: float = 1.3, *, seed: int = 0, stop: Stop | None = None) -> Run:
    """A run up to a share of the steps to the target. Its metric is 1 + log(steps / steps needed) / 3, at least 0."""
    whole = needed(*cell, seed)
    steps = sorted({s for k in range(200) if (s := round(4 * 1.08**k)) < share * whole})
    points = [
        Point(s, s * cell[0], s * step_seconds(cell[0]), valid_metric=max(0.0, 1 + math.log(s / whole) / 3))
        for s in steps
    ]
    start = Point(0, valid_metric=0.0)
    return Run(Trial(*cell, seed), (start, *points), stop, identifier=cell[0] + round(1e6 * cell[1]) + 10**7 * seed)


REACHED = (run((256, 0.1)), run((256, 0.1), seed=1), run((64, 0.1)))
PAUSED = (run((256, 0.03162), 0.3), run((256, 0.3162), 0.3), run((1024, 0.3162), 0.2), run((16, 0.03162), 0.3))


def evidence_of(*runs: Run, present: tuple[int, float] | None = None) -> Evidence:
    facts = WorkloadFacts("made up", 5000, 0, 0, "metric", "max", "SGD momentum", present=present)
    times = tuple(StepTime(size, (step_seconds(size),), (0.0,)) for size in SIZES)
    return Evidence(facts, runs, times, Question(Objective.TIME, TARGET))


def search() -> FewRuns:
    return FewRuns(SIZES, lambda evidence: RATES, lambda trial: True)


def of(*runs: Run, present: tuple[int, float] | None = None) -> tuple[Evidence, Forecast]:
    evidence = evidence_of(*runs, present=present)
    return evidence, forecast(search(), evidence)


def test_a_size_that_was_not_trained_to_the_target_is_predicted_and_has_no_seeds() -> None:
    evidence, found = of(*REACHED, *PAUSED)
    assert [size.batch_size for size in found.sizes] == list(SIZES)
    answer = recommend(evidence, forecast=found, **TOLD)
    seeds = {row.batch_size: row.seeds for row in answer.sizes}
    assert seeds == {16: 0, 64: 1, 256: 2, 1024: 0}
    for row in answer.sizes:
        assert row.cost is not None
        assert row.cost.low is not None
        assert 0 < row.cost.low < row.cost.estimate < (row.cost.high or 0)
    widths = {row.batch_size: math.log((row.cost.high or 0) / (row.cost.low or 1)) for row in answer.sizes if row.cost}
    assert max(widths[64], widths[256]) < min(widths[16], widths[1024])


def test_costs_are_those_of_the_belief() -> None:
    evidence, found = of(*REACHED, *PAUSED)
    belief = search().outlook(evidence).belief
    for row, cell in enumerate(belief.cells):
        deviation = math.sqrt(belief.covariance[row, row])
        by_hand = np.exp(belief.mean[row] + deviation * np.array([0, -1.96, 1.96]))
        interval = found.costs[cell]
        assert [interval.estimate, interval.low, interval.high] == pytest.approx(by_hand)
    two = [needed(256, 0.1, seed) * step_seconds(256) for seed in (0, 1)]
    assert 0.95 * two[0] < found.costs[256, 0.1].estimate < 1.05 * two[1]
    assert found.seed_deviation == belief.seed_deviation


def test_seconds_of_a_step_that_are_not_well_known_are_in_the_intervals_and_in_what_is_as_good() -> None:
    evidence, sure = of(*REACHED, *PAUSED)
    spread = tuple(
        StepTime(size, tuple(step_seconds(size) * f for f in ((1, 1, 1) if size == 256 else (0.5, 1, 2))), (0.0,) * 3)
        for size in SIZES
    )
    unsure_evidence = replace(evidence, step_times=spread, memory={})
    unsure = forecast(search(), unsure_evidence)
    error = unsure_evidence.seconds_error(64)
    assert error == pytest.approx(math.log(4) / (2 * 1.15035), rel=1e-4)
    for cell, interval in sure.costs.items():
        known, wider = (math.log((one.high or 0) / one.estimate) for one in (interval, unsure.costs[cell]))
        assert wider == pytest.approx(math.hypot(known, 1.96 * error if cell[0] != 256 else 0))
    before, after = ({one.batch_size: one.as_good for one in found.likelihoods} for found in (sure, unsure))
    assert after[256] < before[256] - 0.05  # another size may be cheaper after all
    in_steps = replace(evidence, step_times=spread, question=Question(Objective.STEPS, TARGET))
    assert {in_steps.seconds_error(size) for size in SIZES} == {0.0}


def test_the_best_is_the_cheapest_that_reached_the_target() -> None:
    evidence, found = of(*REACHED, *PAUSED)
    reached = {(64, 0.1), (256, 0.1)}
    assert found.best is not None
    assert found.best.best is not None
    assert (found.best.batch_size, found.best.best.learning_rate) == min(reached, key=lambda c: found.costs[c].estimate)
    assert found.best.best.costs
    answer = recommend(evidence, forecast=found, **TOLD)
    assert (answer.batch_size, answer.learning_rate) == (found.best.batch_size, found.best.best.learning_rate)
    assert answer.cost == found.best.cost
    assert answer.batch_size in answer.as_good


def test_a_cell_that_is_expected_to_be_cheaper_is_a_caution_until_it_is_there() -> None:
    slow, better = (16, 0.03162), (256, 0.1)
    evidence, found = of(run(slow), run(better, 0.5))
    assert found.best is not None
    assert found.best.batch_size == 16
    guess = found.guess
    assert guess.batch_size > 16
    cost = found.costs[guess.batch_size, guess.learning_rate].estimate
    assert found.best.cost is not None
    assert cost < found.best.cost.estimate / EQUIVALENT_FACTOR
    answer = recommend(evidence, forecast=found, **TOLD)
    share = 100 * (1 - cost / found.best.cost.estimate)
    assert Caution.NOT_REACHED_YET.value.format(guess.batch_size, f"{guess.learning_rate:g}", f"{share:.0f}") in (
        answer.cautions
    )
    assert found.gain > 0.1  # it is worth going on
    assert found.gain_cost > 0
    there = of(run(slow), run(better))[1].best
    assert there is not None
    assert there.batch_size == 256


SETS: dict[str, tuple[Run, ...]] = {
    "some": (*REACHED, *PAUSED),
    "one": (run((64, 0.1)), run((256, 0.1), 0.4)),
    "a slow one": (run((16, 0.03162)), run((256, 0.1), 0.5)),
    "a small one": (run((16, 0.03162)), run((64, 0.1), 0.9), run((1024, 0.3162), 0.9)),
    "a large one": (run((1024, 0.3162)), run((64, 0.1), 0.9), run((16, 0.03162), 0.9)),
}


@pytest.mark.parametrize("objective", [Objective.TIME, Objective.STEPS, Objective.EXAMPLES])
@pytest.mark.parametrize("runs", SETS.values(), ids=SETS)
def test_no_part_of_an_answer_contradicts_another(runs: tuple[Run, ...], objective: Objective) -> None:
    evidence = replace(evidence_of(*runs), question=Question(objective, TARGET))
    check_agreement(recommend(evidence, forecast=forecast(search(), evidence), **TOLD))


def test_what_is_believed_to_be_cheaper_than_the_choice_is_as_good_and_not_yet_trained() -> None:
    # In steps the largest batch is best, whatever was trained for time.
    evidence = replace(
        evidence_of(run((64, 0.1)), run((1024, 0.3162), 0.9)), question=Question(Objective.STEPS, TARGET)
    )
    answer = recommend(evidence, forecast=forecast(search(), evidence), **TOLD)
    assert (answer.batch_size, answer.as_good) == (64, (64, 256, 1024))
    assert "64 to 1024 (256, 1024 believed to be, not trained to the target)" in as_good_text(answer)


def test_the_fresh_run_counts_in_what_the_choice_is_said_to_cost() -> None:
    alone = (run((256, 0.1)), *PAUSED)
    fresh = replace(run((256, 0.1), seed=5), identifier=10**9, trial=Trial(256, 0.1, FRESH_SEED))  # half as long again
    (before, first), (after, second) = of(*alone), of(*alone, fresh)
    answers = [recommend(evidence, forecast=f, **TOLD) for evidence, f in ((before, first), (after, second))]
    took = needed(256, 0.1, 5) * step_seconds(256)
    assert [answer.batch_size for answer in answers] == [256, 256]
    assert answers[1].fresh_costs == pytest.approx((took,), rel=0.01)
    assert answers[0].cost.estimate * 1.1 < answers[1].cost.estimate < took
    assert took / 1.5 in answers[1].cost
    assert took in answers[1].cost
    assert next(row.seeds for row in answers[1].sizes if row.batch_size == 256) == 2
    assert Caution.FRESH_SLOW.value.format("1.50") in answers[1].cautions
    assert not any("assumption" in caution for caution in answers[1].cautions)


def test_that_seeds_differ_is_an_assumption_until_two_were_trained() -> None:
    begins = Caution.SEEDS_ASSUMED.value.split("{}")[0]
    for runs, assumed in (((REACHED[0], *PAUSED), True), ((*REACHED, *PAUSED), False)):
        evidence, found = of(*runs)
        answer = recommend(evidence, forecast=found, **TOLD)
        assert any(said.startswith(begins) for said in answer.cautions) == assumed


def test_a_size_whose_rates_are_all_closed_has_no_cost() -> None:
    gone = run((16, 0.01), 0.05, stop=Stop(StopReason.DIVERGED))
    evidence, found = of(*REACHED, *PAUSED[:-1], gone)
    closed = found.sizes[0]
    assert (closed.batch_size, closed.best, closed.cost) == (16, None, None)
    assert not any(size == 16 for size, _ in found.costs)
    answer = recommend(evidence, forecast=found, **TOLD)
    assert answer.sizes[0].learning_rate is None
    assert Caution.MISSES.value.format(16) in answer.cautions
    assert found.likelihoods[0].as_good == 0


def test_the_shares_of_sizes_that_may_be_as_good_follow_their_costs() -> None:
    _, found = of(*REACHED, *PAUSED)
    shares = {likely.batch_size: likely.as_good for likely in found.likelihoods}
    assert list(shares) == list(SIZES)
    assert sum(shares.values()) >= 1  # in every draw at least the cheapest one is as good as the cheapest
    assert found.best is not None
    assert max(shares, key=lambda size: shares[size]) == found.best.batch_size
    assert found.guess.sizes is not None
    assert found.guess.sizes[0] <= found.best.batch_size <= found.guess.sizes[1]


def test_the_present_choice_is_compared_as_predicted_where_it_was_not_trained() -> None:
    evidence, found = of(*REACHED, *PAUSED, present=(16, 0.03))
    present = recommend(evidence, forecast=found, **TOLD).present
    assert present is not None
    assert present.predicted
    assert present.cost is None
    best = found.best.cost if found.best else None
    assert best is not None
    assert present.times_the_best == pytest.approx(found.costs[16, 0.03162].estimate / best.estimate)
    evidence, found = of(*REACHED, *PAUSED, present=(64, 0.1))
    present = recommend(evidence, forecast=found, **TOLD).present
    assert present is not None
    assert not present.predicted
    assert present.cost == pytest.approx(needed(64, 0.1) * step_seconds(64), rel=0.01)


# ---------------------------------------------------------------------------------------------- nothing reached it


def test_where_nothing_reached_the_target_it_says_what_is_believed_and_what_more_would_buy() -> None:
    evidence, found = of(run((256, 0.1), 0.3), run((64, 0.1), 0.3), run((64, 0.01), 0.02))
    assert found.best is None
    with pytest.raises(InsufficientEvidence) as raised:
        recommend(evidence, forecast=found, **TOLD)
    assert raised.value.exit_code == 3
    text, guess = str(raised.value), found.guess
    cost = found.costs[guess.batch_size, guess.learning_rate]
    assert guess.sizes is not None
    assert f"lies from {guess.sizes[0]} to {guess.sizes[1]} (90 % sure)" in text
    assert f"most likely {guess.batch_size} at rate {guess.learning_rate:g}" in text
    assert f"{cost.estimate:.3g} s [{cost.low:.3g} s, {cost.high:.3g} s]" in text
    assert found.gain > 0
    assert f"The next {found.gain_cost:.3g} s are expected to make the answer {100 * found.gain:.0f} %" in text
    # The table at equal cost: the median of what the runs have cost, which two of the three have come to.
    lines = text.splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("Best valid_metric at equal cost"))
    middle = sorted(one.points[-1].seconds for one in evidence.runs)[1]
    assert f"after {middle:.3g} s" in lines[at]
    rows = []
    for size, one in ((64, evidence.runs[1]), (256, evidence.runs[0])):
        last = max(point.step for point in one.points if point.seconds <= middle * (1 + 1e-9))
        if one.points[-1].seconds >= middle:
            rows.append(f"  batch size {size:>6}: {1 + math.log(last / needed(size, 0.1)) / 3:.4g} at rate 0.1")
    assert lines[at + 1 :] == rows
    assert rows


def test_before_any_run_the_prior_speaks_and_nothing_is_best() -> None:
    _, found = of()
    assert found.best is None
    assert all(size.cost is not None and size.best is not None and not size.best.costs for size in found.sizes)
    assert sum(likely.as_good for likely in found.likelihoods) >= 1


def test_sizes_are_given_at_the_rate_that_was_measured_where_that_one_is_the_best() -> None:
    _, found = of(*REACHED, *PAUSED)
    for size in found.sizes:
        assert size.best is not None
        assert size.best_rate is not None
        assert size.best_rate.estimate == size.best.learning_rate
        assert size.best_rate.low is not None
        assert size.best_rate.low <= size.best.learning_rate <= (size.best_rate.high or 0)
        assert size.at_edge == (size.best.learning_rate in (RATES[0], RATES[-1]))
    measured = {size.batch_size: size.best.costs for size in found.sizes if size.best}
    assert measured[256] == pytest.approx(
        tuple(needed(256, 0.1, seed) * step_seconds(256) for seed in (0, 1)), rel=0.01
    )
    assert measured[16] == ()


def test_what_would_take_longer_than_runs_are_planned_for_is_not_promised() -> None:
    """The size of 16 needs the fewest examples: at a plan that 256 just fits, 1024 is none that reaches the target."""
    evidence, free = of(*REACHED)
    size, rate = 1024, 0.3162
    planned = round(1.4 * 256 * needed(256, 0.1))
    assert needed(size, rate) * size > planned
    bound = forecast(replace(search(), planned_examples=planned), evidence)
    before, after = ({one.batch_size: one for one in found.sizes} for found in (free, bound))
    assert before[size].cost is not None
    assert after[size].cost is None
    assert after[256].cost == before[256].cost
    assert {one.batch_size: one.as_good for one in bound.likelihoods}[size] == 0
    assert not any(cell[0] == size for cell in bound.costs)
    without = [row.batch_size for row in recommend(evidence, forecast=bound, **TOLD).sizes if row.learning_rate is None]
    assert size in without
    said = Caution.NOT_EXPECTED.value.format(", ".join(map(str, without)))
    assert said in recommend(evidence, forecast=bound, **TOLD).cautions
    # Where nothing has reached the target, what is believed is all there is.
    assert forecast(replace(search(), planned_examples=16), evidence_of(PAUSED[0])).costs


def test_the_guess_is_none_that_the_plan_has_no_room_for() -> None:
    """A larger size is believed to be faster than 64, which alone reached the target, and not within such a plan."""
    evidence, free = of(run((64, 0.1)), run((64, 0.1), seed=1))
    bound = forecast(replace(search(), planned_examples=5_000), evidence)
    assert free.guess.batch_size > 64
    assert bound.guess.batch_size == 64
    assert (bound.guess.batch_size, bound.guess.learning_rate) in bound.costs
    assert recommend(evidence, forecast=bound, **TOLD).batch_size == 64
