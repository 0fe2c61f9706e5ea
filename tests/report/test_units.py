"""Numbers with units: a table of examples, and what every number must satisfy."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.question import Objective
from rightbatch.records import Interval
from rightbatch.report import units

checked = settings(derandomize=True, deadline=None, max_examples=60)
# Log-uniform, with many nines so that rounding up to the next power of ten is tried.
NUMBERS = st.one_of(
    st.floats(-3.9, 8.9).map(lambda x: 10**x),
    st.builds(lambda k, tail: 10.0**k * (1 - tail), st.integers(-3, 8), st.sampled_from([1e-2, 1e-3, 4e-4, 1e-5])),
)
UNIT_SECONDS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def number(text: str) -> float:
    return float(text.replace(",", ""))


def in_seconds(text: str) -> float:
    return sum(number(n) * UNIT_SECONDS[unit] for n, unit in re.findall(r"([\d.,e+-]+) (µs|ms|s|min|h)", text))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (12.3e-6, "12.3 µs"),
        (0.0123, "12.3 ms"),
        (0.25, "250 ms"),
        (0.9999, "1.00 s"),
        (1.07, "1.07 s"),
        (59.99, "60.0 s"),
        (99.94, "99.9 s"),
        (100, "1 min 40 s"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
        (0, "0 s"),
        (math.inf, "never"),
        (math.nan, "-"),
        (None, "-"),
    ],
)
def test_times_are_said_in_the_unit_that_fits(value: float | None, said: str) -> None:
    assert units.seconds(value) == said


@pytest.mark.parametrize("value", [119.6, 179.7, 3599.4, 3599.5, 3599.9, 7199.9])
def test_times_just_below_a_whole_unit_never_show_sixty_of_the_smaller_one(value: float) -> None:
    assert not re.search(r"\b60 (min|s)", units.seconds(value))


@checked
@given(st.floats(1e-6, 1e6))
def test_a_time_is_said_to_within_half_a_percent(value: float) -> None:
    # Three digits below a hundred seconds, whole seconds up to an hour, whole minutes beyond.
    assert in_seconds(units.seconds(value)) == pytest.approx(value, rel=0.0085)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (1.234, "1.23"),
        (12.345, "12.3"),
        (1234.5, "1,230"),
        (-0.01235, "-0.0123"),
        (0.00050, "0.000500"),
        (123_456_789, "123,000,000"),
        (1e9, "1.00e+09"),
        (1.5e-7, "1.50e-07"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (math.nan, "-"),
        (None, "-"),
    ],
)
def test_numbers_are_said_at_three_digits(value: float | None, said: str) -> None:
    assert units.significant(value) == said


@checked
@given(NUMBERS, st.integers(1, 5), st.sampled_from([1, -1]))
def test_a_number_keeps_its_digits_and_its_sign(value: float, digits: int, sign: int) -> None:
    said = units.significant(sign * value, digits)
    assert number(said) == pytest.approx(sign * value, rel=0.51 * 10 ** (1 - digits))
    assert "e" not in said or value > 1e9 * (1 - 10**-digits)


@checked
@given(NUMBERS.filter(lambda v: v < 100))
def test_three_digits_are_three_digits_and_never_four(value: float) -> None:
    digits = re.sub(r"\D", "", units.significant(value)).lstrip("0")
    assert len(digits) == 3


@checked
@given(NUMBERS, NUMBERS)
def test_a_larger_number_is_never_said_to_be_smaller(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert number(units.significant(low)) <= number(units.significant(high))
    assert in_seconds(units.seconds(low)) <= in_seconds(units.seconds(high)) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("value", "said"), [(0.1, "0.1"), (0.03162, "0.03162"), (0.0316228, "0.03162"), (1.0, "1"), (None, "-")]
)
def test_a_rate_is_said_as_short_as_it_can_be(value: float | None, said: str) -> None:
    assert units.rate(value) == said


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (Objective.TIME, "20.5 s"),
        (Objective.EXAMPLES, "20.5 examples"),
        (Objective.STEPS, "20.5 steps"),
        (Objective.METRIC, "63 %"),
    ],
)
def test_a_cost_has_the_unit_of_its_objective(objective: Objective, said: str) -> None:
    assert units.cost(20.5, objective) == said
    assert units.cost(math.inf, objective) == "never"


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("value", [None, math.nan])
def test_a_cost_that_is_not_known_has_no_unit(objective: Objective, value: float | None) -> None:
    assert units.cost(value, objective) == "-"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Interval(2.0, 1.0, 4.0), "2.00 [1.00, 4.00]"),
        (Interval(2.0, 0.0, math.inf), "2.00 [0, ∞]"),
        (Interval(2.0, note="no interval: one seed"), "2.00 (no interval: one seed)"),
        (Interval(2.0), "2.00"),
        (None, "-"),
    ],
)
def test_an_interval_is_said_or_why_there_is_none(value: Interval | None, said: str) -> None:
    assert units.interval(value) == said


def test_an_interval_takes_the_form_it_is_given() -> None:
    assert units.interval(Interval(0.002, 0.001, 0.004), units.seconds) == "2.00 ms [1.00 ms, 4.00 ms]"


@pytest.mark.parametrize(
    ("ends", "form", "said"),
    [
        ((0.0361, 0.0488), units.seconds, "36.1 to 48.8 ms"),
        ((0.5, 1.5), units.seconds, "500 ms to 1.50 s"),
        ((50.0, 200.0), units.seconds, "50.0 s to 3 min 20 s"),
        ((1.0, 2.0), units.significant, "1.00 to 2.00"),
    ],
)
def test_a_span_says_a_common_unit_once(ends: tuple[float, float], form: Any, said: str) -> None:
    assert units.span(*ends, form) == said


def test_a_span_of_minutes_keeps_every_part_of_its_ends() -> None:
    assert units.span(130.0, 200.0, units.seconds) == "2 min 10 s to 3 min 20 s"
    assert units.span(3900.0, 7500.0, units.seconds) == "1 h 05 min to 2 h 05 min"


def test_sizes_are_said_as_one_or_as_a_range() -> None:
    assert units.sizes((64,)) == "64"
    assert units.sizes((64, 128, 256)) == "64 to 256"


def test_a_factor_ends_in_x() -> None:
    assert units.times(1.3149) == "1.31x"


def test_times_that_need_minutes_are_said_in_one_unit() -> None:
    assert [units.short_seconds(value) for value in (41.7, 238.0, 963.0)] == ["41.7 s", "238 s", "16.1 min"]
    assert units.span_seconds(0.5, 1.5) == "500 ms to 1.50 s"
    assert units.span_seconds(32.8, 198.0) == "32.8 to 198 s"
    assert units.span_seconds(720.0, 2604.0) == "12.0 to 43.4 min"
    assert units.span_seconds(32.8, math.inf) == "32.8 s to never"
