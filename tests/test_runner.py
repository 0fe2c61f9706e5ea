"""What runners have in common: which trials suit them, and how a trial is completed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import WorkloadError
from rightbatch.records import Setting, Settings, Trial
from rightbatch.runner import check_settings, completed, suits

checked = settings(derandomize=True, deadline=None, max_examples=100)
DECLARED: dict[str, Setting] = {"momentum": 0.9, "width": 3, "kind": "a"}
VALUES = st.one_of(st.floats(0, 1), st.integers(0, 9), st.sampled_from("abc"))
GIVEN = st.dictionaries(st.sampled_from([*DECLARED, "depth"]), VALUES)
LENGTHS = st.one_of(st.none(), st.integers(1, 1000))


def trial(given: dict[str, Setting] | None = None, planned: int | None = None, size: int = 8) -> Trial:
    return Trial(size, 0.1, 5, planned, Settings(given))


@checked
@given(GIVEN.filter(lambda given: "depth" not in given), LENGTHS, st.integers(0, 1000))
def test_what_a_trial_says_itself_stays_and_the_rest_is_filled_in(
    given: dict[str, Setting], planned: int | None, usual: int
) -> None:
    asked = trial(given, planned)
    done = completed(asked, DECLARED, usual, "loop 'x'")
    for name, default in DECLARED.items():
        assert done.settings[name] == given.get(name, default)
    assert len(done.settings) == len(DECLARED)
    assert done.planned_examples == (planned if planned is not None else usual or None)
    assert replace(done, settings=asked.settings, planned_examples=planned) == asked
    assert completed(done, DECLARED, usual, "loop 'x'") == done


@checked
@given(GIVEN, st.integers(1, 50), st.integers(0, 50))
def test_a_trial_suits_where_its_batch_is_in_the_data_and_its_settings_are_declared(
    given: dict[str, Setting], size: int, train_examples: int
) -> None:
    asked = trial(given, size=size)
    fits = train_examples == 0 or size <= train_examples
    assert suits(asked, train_examples, DECLARED) == (fits and "depth" not in given)
    if "depth" in given:
        with pytest.raises(WorkloadError, match="declares no setting 'depth'"):
            completed(asked, DECLARED, 0, "loop 'x'")


def test_an_unknown_setting_is_named_with_whose_it_is_and_what_there_is() -> None:
    with pytest.raises(WorkloadError, match=r"^The loop 'x' declares no setting 'a'; it has kind, momentum, width\.$"):
        check_settings({"width": 1, "b": 1, "a": 2}, DECLARED, "loop 'x'")
    with pytest.raises(WorkloadError, match=r"^The command declares no setting 'width'; it has none\.$"):
        check_settings(["width"], {}, "command")
    check_settings((), {}, "command")
