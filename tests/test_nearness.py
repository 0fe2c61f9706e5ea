"""What is near by its ratio."""

from __future__ import annotations

import math

import pytest

from rightbatch.nearness import apart, nearest


def test_nearness_is_that_of_ratios() -> None:
    assert apart(8, 32) == apart(32, 8) == pytest.approx(math.log(4))
    assert apart(5, 5) == 0
    assert nearest([10, 100], 31) == 10  # a factor 3.1 and one of 3.2
    assert nearest([10, 100], 40) == 100  # a factor 4 and one of 2.5, though 10 is nearer by difference
    assert nearest([0.1, 0.01], 0.02) == 0.01


@pytest.mark.parametrize("values", [[16, 64], [64, 16]])
def test_of_two_as_near_the_first_is_taken(values: list[int]) -> None:
    assert nearest(values, 32) == values[0]
