"""A search ends where its runs come no nearer to the target, and nowhere else."""

from __future__ import annotations

import pytest

from rightbatch.evidence import Evidence
from rightbatch.question import Objective, Question
from rightbatch.records import Point, Run, Stop, StopReason, Target, Trial, WorkloadFacts
from rightbatch.search.out_of_reach import IN_VAIN, IN_VAIN_FAR, out_of_reach, while_nearer
from rightbatch.search.strategy import Advance, Done, Wait, fixed
from rightbatch.shortfall import nothing_reached

FACTS = WorkloadFacts("p", 0, 0, 0, "valid_metric", "max", "unknown")


def evidence(values: list[float], rates: list[float], target: float = 0.99, **more: object) -> Evidence:
    runs = tuple(
        Run(
            Trial(64, rate, seed),
            tuple(Point(k, 64 * k, k / 10, valid_metric=value) for k, value in enumerate((0.1, last, last))),
            Stop(StopReason.FINISHED),
            1.0,
            seed,
        )
        for seed, (last, rate) in enumerate(zip(values, rates, strict=True))
    )
    question = Question(Objective.STEPS, Target(target, "valid_metric", "max"))
    return Evidence(FACTS, runs, (), question, **more)  # type: ignore[arg-type]


RATES = [0.1, 0.01, 1.0, *[0.1] * (IN_VAIN - 2)]
ALIKE = [0.9] + [0.88] * IN_VAIN


def test_runs_that_come_no_nearer_end_it() -> None:
    assert out_of_reach(evidence(ALIKE, RATES))
    few = IN_VAIN_FAR + 1
    assert out_of_reach(evidence(ALIKE[:few], RATES[:few], 94.0))
    assert not out_of_reach(evidence(ALIKE[:few], RATES[:few]))


@pytest.mark.parametrize(
    ("values", "rates", "target"),
    [
        (ALIKE[:-1], RATES[:-1], 0.99),
        ([0.3, *ALIKE[1:]], RATES, 0.95),
        (ALIKE, [10.0, *RATES[1:]], 0.99),
        (ALIKE[:3], RATES[:3], 94.0),
        ([0.95, *ALIKE[1:]], RATES, 0.94),
    ],
    ids=["too few", "nearer", "the nearest at an edge", "too few even of a world away", "one reached it"],
)
def test_it_goes_on(values: list[float], rates: list[float], target: float) -> None:
    assert not out_of_reach(evidence(values, rates, target))


def test_an_order_of_runs_is_not_an_order_of_numbers() -> None:
    known = evidence([*ALIKE[1:], 0.93], RATES[::-1], 0.94)
    assert not out_of_reach(known)  # the last one came nearer


def test_the_strategy_is_asked_until_then_and_what_is_under_way_ends() -> None:
    inner = fixed([Trial(128, 0.1, 0)], "more")
    searching = while_nearer(inner)
    assert isinstance(searching(evidence(ALIKE[:-1], RATES[:-1])), Advance)
    assert isinstance(searching(evidence(ALIKE, RATES)), Done)
    assert isinstance(searching(evidence(ALIKE, RATES, pending=frozenset({(64, 0.1, 9)}))), Wait)


@pytest.mark.parametrize(("target", "asked"), [(94.0, True), (0.95, False), (940.0, False)])
def test_a_target_that_may_be_in_percent_is_asked_about(target: float, asked: bool) -> None:
    said = nothing_reached(evidence(ALIKE, RATES, target), None, True)
    assert ("(0.94 for 94 %)" in said) == asked
