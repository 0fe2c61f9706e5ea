"""`profile`, called: what it measures, keeps, and does not measure again."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import rightbatch
from rightbatch.bundled.quadratic import quadratic


def test_it_measures_what_the_study_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "a.study.db"
    first = rightbatch.profile(quadratic(), [16, 20], study=path, rounds=3)
    assert [(one.batch_size, len(one.seconds)) for one in first] == [(16, 3), (20, 3)]
    assert all(second > 0 for one in first for second in one.seconds)
    further = rightbatch.profile(quadratic(), [16, 24], study=path, rounds=3)
    assert further[:2] == first
    assert [one.batch_size for one in further] == [16, 20, 24]


def test_a_size_larger_than_the_data_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    workload = quadratic()
    examples = workload.facts().train_examples
    with pytest.raises(rightbatch.InputError, match="larger than the data"):
        rightbatch.profile(workload, [2 * examples], study=tmp_path / "a.study.db", rounds=3)
    assert not (tmp_path / "a.study.db").exists()
