"""Records: what they refuse, how they compare, how they are written as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.records import (
    Interval,
    Point,
    Run,
    Settings,
    Stop,
    StopReason,
    Target,
    Trial,
    WorkloadFacts,
    check_present,
    to_json,
)

NAMES = st.text(min_size=1, max_size=5)
VALUES = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=5))
ITEMS = st.dictionaries(NAMES, VALUES, max_size=5)


# ------------------------------------------------------------------------------------------------------- settings


@settings(derandomize=True, deadline=None, max_examples=60)
@given(ITEMS, st.randoms(use_true_random=False))
def test_settings_are_equal_and_hash_alike_in_whatever_order_they_were_given(
    items: dict[str, Any], random: Any
) -> None:
    pairs = list(items.items())
    random.shuffle(pairs)
    assert Settings(items) == Settings(dict(pairs)) == items
    assert hash(Settings(items)) == hash(Settings(dict(pairs)))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(ITEMS)
def test_settings_come_out_ordered_by_name(items: dict[str, Any]) -> None:
    assert list(Settings(items)) == sorted(items)
    assert len(Settings(items)) == len(items)


def test_settings_with_another_value_are_another_key() -> None:
    assert Settings({"momentum": 0.9}) != Settings({"momentum": 0.8})
    assert len({Settings({"momentum": 0.9}), Settings({"momentum": 0.8}), Settings({"momentum": 0.9})}) == 2


def test_settings_cannot_be_changed_nor_follow_the_dictionary_they_came_from() -> None:
    given_items: dict[str, Any] = {"momentum": 0.9}
    kept = Settings(given_items)
    given_items["momentum"] = 0.0
    assert kept["momentum"] == 0.9
    with pytest.raises(TypeError, match="does not support item assignment"):
        kept["momentum"] = 0.5  # type: ignore[index]


# --------------------------------------------------------------------------------------------------------- trials


def test_trials_made_alike_are_one_key() -> None:
    one = Trial(32, 0.1, 0, 1000, Settings({"momentum": 0.9}))
    other = Trial(32, 0.1, 0, 1000, {"momentum": 0.9})  # type: ignore[arg-type]
    assert isinstance(other.settings, Settings)
    assert {one: "seen"}[other] == "seen"


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"batch size is at least 1, got {size}"):
        Trial(size, 0.1, 0)


@pytest.mark.parametrize("rate", [0.0, -0.1, math.nan, math.inf])
def test_a_learning_rate_that_is_not_positive_and_finite_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=f"learning rate is a positive number, got {rate}"):
        Trial(32, rate, 0)


def test_a_trial_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="batch_size"):
        Trial(32, 0.1, 0).batch_size = 64  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize(("low", "high"), [(1.0, None), (None, 1.0)])
def test_an_interval_with_one_bound_is_refused(low: float | None, high: float | None) -> None:
    with pytest.raises(InputError, match="both bounds or none"):
        Interval(1.0, low, high)


def test_an_interval_without_bounds_is_unknown_and_holds_nothing() -> None:
    interval = Interval(1.0, note="no interval: one seed")
    assert not interval.known
    assert 1.0 not in interval


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(-20, 20))
def test_an_interval_holds_what_lies_between_its_bounds_ends_included(a: float, b: float, value: float) -> None:
    low, high = min(a, b), max(a, b)
    interval = Interval((low + high) / 2, low, high)
    assert interval.known
    assert low in interval
    assert high in interval
    assert (value in interval) == (max(low, min(high, value)) == value)


def test_an_infinite_bound_leaves_a_side_open() -> None:
    assert 1e300 in Interval(5.0, 1.0, math.inf)
    assert 0.5 not in Interval(5.0, 1.0, math.inf)


# -------------------------------------------------------------------------------------------------------- targets


def test_a_target_is_reached_at_its_value_and_beyond_in_its_direction() -> None:
    up, down = Target(0.5, "valid_metric", "max"), Target(0.5, "valid_loss", "min")
    assert [up.reached_by(v) for v in (0.4, 0.5, 0.6)] == [False, True, True]
    assert [down.reached_by(v) for v in (0.4, 0.5, 0.6)] == [True, True, False]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["min", "max"])
def test_a_target_is_never_reached_by_what_is_not_a_finite_number(value: float | None, direction: Any) -> None:
    assert not Target(0.5, "valid_loss", direction).reached_by(value)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_target_to_maximise_mirrors_one_to_minimise(target: float, value: float) -> None:
    up, down = Target(target, "valid_metric", "max"), Target(-target, "valid_metric", "min")
    assert up.reached_by(value) == down.reached_by(-value)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_losses_go_down_and_the_metric_goes_where_the_workload_says(direction: Any) -> None:
    facts = WorkloadFacts("w", 10, 10, 100, "accuracy", direction, "SGD")
    assert facts.quantity_direction("valid_metric") == direction
    assert facts.quantity_direction("valid_loss") == "min"


# ----------------------------------------------------------------------------------------------------------- JSON


def test_a_run_becomes_plain_values() -> None:
    points = (Point(1, 32, 0.5, math.nan, 2.0, None, 32, 0.1),)
    run = Run(Trial(32, 0.1, 0, 64, Settings({"momentum": 0.9})), points, Stop(StopReason.DIVERGED), 1.5, 7)
    assert to_json(run) == {
        "trial": {
            "batch_size": 32,
            "learning_rate": 0.1,
            "seed": 0,
            "planned_examples": 64,
            "settings": {"momentum": 0.9},
        },
        "points": [
            {
                "step": 1,
                "examples": 32,
                "seconds": 0.5,
                "train_loss": None,
                "valid_loss": 2.0,
                "valid_metric": None,
                "batch_size": 32,
                "learning_rate": 0.1,
                "test_metric": None,
            }
        ],
        "stop": {"reason": "diverged", "message": ""},
        "wall_seconds": 1.5,
        "identifier": 7,
    }


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(JSON_VALUES)
def test_whatever_is_written_is_strict_json_and_reads_back_the_same(value: Any) -> None:
    plain = to_json({"value": value, "interval": Interval(1.0, 0.5, math.inf)})
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["interval"]["high"] is None


def test_reasons_to_stop_are_different_sentences() -> None:
    assert len({reason.value for reason in StopReason}) == len(StopReason) == 7


@pytest.mark.parametrize("present", [(0, 0.1), (-8, 0.1), (1.5, 0.1), (32, 0.0), (32, math.nan), (32,), 32, ("a", "b")])
def test_a_present_choice_that_is_none_is_refused(present: Any) -> None:
    with pytest.raises(InputError, match=r"at least 1 and a positive learning rate"):
        check_present(present)
