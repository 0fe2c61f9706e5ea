"""Effects against tolerances: tests by hand and by invariants, Holm against a slow twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rightbatch.rules import Effect, Finding, Untold, Verdict
from rightbatch.rules.effects import holm, verdict_of

numbers = st.floats(-3, 3)
errors = st.floats(0.01, 2)


def effect(value: float, error: float = 0.1, low: float = -1.0, high: float = 1.0, freedom: int = 20) -> Effect:
    return Effect("made", value, error, freedom, low, high)


@given(numbers, errors, st.integers(1, 200))
def test_one_sided_tests_are_those_of_t(value: float, error: float, freedom: int) -> None:
    found = effect(value, error, freedom=freedom)
    above, below = stats.t.sf((value + 1) / error, freedom), stats.t.cdf((value - 1) / error, freedom)
    assert found.against_outside() == pytest.approx(max(above, below), abs=1e-9)
    assert found.against_inside() == pytest.approx(min(1 - above, 1 - below), abs=1e-9)


@given(numbers, errors)
def test_at_most_one_verdict_is_near(value: float, error: float) -> None:
    found = effect(value, error)
    assert found.against_outside() + found.against_inside() >= 0.5
    if found.against_outside() < 0.5:
        assert found.within
    if found.against_inside() < 0.5:
        assert not found.within


@given(numbers)
def test_without_error_the_estimate_decides(value: float) -> None:
    found = Finding((effect(value, 0.0),))
    expected = Verdict.HOLDS if -1 < value < 1 else Verdict.CANNOT_TELL if abs(value) == 1 else Verdict.FAILS
    assert verdict_of(found, 0.05) is expected


def test_an_infinite_end_is_none() -> None:
    assert effect(5, high=math.inf).against_outside() < 1e-9
    assert effect(-5, low=-math.inf).against_outside() < 1e-9
    assert effect(5, high=math.inf).against_inside() > 1 - 1e-9


def test_the_best_of_several_findings_has_to_be_better_than_one_that_was_named_before() -> None:
    one = Finding((effect(0.5), effect(-0.2)))
    best = Finding(one.effects, best_of=5)
    assert best.holds_p == pytest.approx(min(1.0, 5 * one.holds_p))
    assert best.fails_p == one.fails_p


def test_all_must_hold_or_one_is_enough() -> None:
    good, bad = effect(0.0), effect(3.0)
    assert verdict_of(Finding((good, bad)), 0.05) is Verdict.FAILS
    assert verdict_of(Finding((good, bad), one_is_enough=True), 0.05) is Verdict.HOLDS
    assert verdict_of(Finding((bad, bad), one_is_enough=True), 0.05) is Verdict.FAILS
    beyond = Untold("larger sizes were not tried", "rightbatch sweep ...")
    assert verdict_of(Finding((bad,), only_holds=beyond), 0.05) is Verdict.CANNOT_TELL


def slow_holm(values: list[float], level: float) -> list[bool]:
    """Which of the p-values are rejected, one at a time by the definition."""
    rejected = [False] * len(values)
    while not all(rejected):
        left = [k for k, done in enumerate(rejected) if not done]
        least = min(left, key=lambda k: values[k])
        if values[least] > level / len(left):
            break
        rejected[least] = True
    return rejected


@settings(max_examples=50)
@given(st.lists(numbers, min_size=1, max_size=12))
def test_holm_agrees_with_a_slow_twin(values: list[float]) -> None:
    findings = [Finding((effect(value, 0.3),)) for value in values]
    least = [min(one.holds_p, one.fails_p) for one in findings]
    told = [verdict is not Verdict.CANNOT_TELL for verdict in holm(findings)]
    assert told == slow_holm(least, 0.05)


def test_no_rule_of_a_table_is_wrong_more_often_than_stated() -> None:
    """Twenty rules, each exactly at the end of its tolerance: any verdict is as wrong as can be."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        findings = [Finding((effect(1.0 + 0.1 * z),)) for z in generator.standard_normal(20)]
        wrong += any(verdict is Verdict.HOLDS for verdict in holm(findings))
    assert wrong / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
