"""The rules of shape on published curves; `python benchmarks/shallue.py` makes the record."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "shallue.py"
DATA = os.environ.get("RIGHTBATCH_DATA")


@pytest.mark.skipif(not DATA, reason="wants the published curves: RIGHTBATCH_DATA")
def test_half_of_the_sizes_predicts_the_others() -> None:
    found = runpy.run_path(str(BENCHMARK))["record"](Path(str(DATA)) / "measurements" / "shallue2018")
    assert found["curves"] >= 40
    assert found["median_error_percent"] <= 12
    assert 80 <= found["interval_of_a_half_holds_the_other_percent"] <= 100
    momentum = found["momentum_extends_perfect_scaling"]
    assert momentum["interval"][0] > 1
    assert momentum["interval"][0] < momentum["ratio"] < momentum["interval"][1]
    for told in found["regime_edges_by_two_methods"].values():
        assert 0.5 <= told["median_ratio_of_slopes_to_law"] <= 2
