"""The lattice of learning rates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.lattice import index_of, rate_at, snap

RATES = st.floats(1e-9, 1e3)


@pytest.mark.parametrize(
    ("index", "rate"),
    [(-12, 0.001), (-11, 0.001778), (-6, 0.03162), (-4, 0.1), (-3, 0.1778), (-2, 0.3162), (-1, 0.5623), (0, 1.0)],
)
def test_known_indices_have_their_four_digit_rates(index: int, rate: float) -> None:
    assert rate_at(index) == rate
    assert index_of(rate) == index


def test_every_index_survives_the_way_through_its_rate() -> None:
    assert [index_of(rate_at(k)) for k in range(-60, 61)] == list(range(-60, 61))


def test_rates_grow_with_their_index_and_tenfold_in_four() -> None:
    rates = [rate_at(k) for k in range(-40, 41)]
    assert rates == sorted(set(rates))
    for low, high in zip(rates, rates[4:], strict=False):
        assert high / low == pytest.approx(10, rel=1e-12)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(RATES)
def test_snapping_takes_the_nearest_of_all_lattice_rates(rate: float) -> None:
    distances = {k: abs(math.log10(rate) - k / 4) for k in range(-40, 20)}
    # Halfway between two points either one is nearest.
    assert distances[index_of(rate)] == pytest.approx(min(distances.values()), abs=1e-9)
    assert snap(rate) == rate_at(index_of(rate))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(RATES)
def test_snapping_twice_changes_nothing(rate: float) -> None:
    assert snap(snap(rate)) == snap(rate)
