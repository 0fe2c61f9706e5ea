"""Which rate next: against an exhaustive look at the whole lattice, and rule by rule."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.cells import Cell
from rightbatch.lattice import index_of, rate_at
from rightbatch.search.rates import SPAN, WIDENINGS, next_index

checked = settings(derandomize=True, deadline=None, max_examples=60)
REACH = max(SPAN) + 2 * WIDENINGS


def cell(index: int, cost: float, *, shortfall: float = 1.0, diverged: bool = False) -> Cell:
    if math.isinf(cost):
        return Cell(32, rate_at(index), (), 1, int(diverged), math.inf if diverged else shortfall)
    return Cell(32, rate_at(index), (cost,), 0, 0, 0.0)


def explore(
    start: int,
    make: Callable[[int], Cell],
    offered: Callable[[int], bool] = lambda k: True,
    known: tuple[Cell, ...] = (),
    span: tuple[int, ...] = SPAN,
) -> list[Cell]:
    """All cells until nothing more is asked for, in the order asked; `known` first."""
    cells = list(known)
    for _ in range(100):
        index = next_index(sorted(cells, key=lambda c: c.learning_rate), start, offered, span=span)
        if index is None:
            return cells
        assert offered(index)
        assert index not in {index_of(c.learning_rate) for c in cells}
        cells.append(make(index))
    raise AssertionError("still asking after a hundred rates")


def tried(cells: list[Cell]) -> list[int]:
    return [index_of(c.learning_rate) for c in cells]


def bowl(best: float, curvature: float = 0.3) -> Callable[[int], Cell]:
    return lambda k: cell(k, math.exp(curvature * (k - best) ** 2))


def test_the_span_comes_first_from_the_middle_outwards() -> None:
    assert tried(explore(-4, bowl(-4.1)))[:5] == [-4, -2, -6, 0, -8]
    assert tried(explore(-4, bowl(-4.1), span=(0, 2, -2)))[:3] == [-4, -2, -6]


@checked
@given(st.integers(-12, 4), st.integers(-REACH + 1, REACH - 1), st.floats(0.02, 0.98), st.floats(0.05, 2))
def test_the_best_of_the_whole_lattice_is_found_within_reach_of_the_start(
    start: int, offset: int, fraction: float, curvature: float
) -> None:
    best = start + math.copysign(1, offset) * max(0, abs(offset) - fraction)
    cells = explore(start, bowl(best, curvature))
    found = min(cells, key=lambda c: c.mean)
    exhaustive = min(range(start - 30, start + 31), key=lambda k: (k - best) ** 2)
    assert (index_of(found.learning_rate) - best) ** 2 == pytest.approx((exhaustive - best) ** 2)
    # And it is seen to be the best: both neighbours have been tried.
    assert {index_of(found.learning_rate) - 1, index_of(found.learning_rate) + 1} <= set(tried(cells))


@checked
@given(st.integers(-12, 4), st.integers(-8, 8), st.floats(-3, 3), st.floats(1e-3, 1e3))
def test_neither_where_the_lattice_begins_nor_the_unit_of_cost_matters(
    start: int, shift: int, best: float, unit: float
) -> None:
    def in_other_unit(k: int) -> Cell:
        return cell(k, unit * math.exp(0.3 * (k - start - shift - best) ** 2))

    order = tried(explore(start, bowl(start + best)))
    assert tried(explore(start + shift, in_other_unit)) == [k + shift for k in order]


@checked
@given(
    st.sets(st.integers(-16, 8)),
    st.lists(st.sampled_from([math.inf, 1.0, 2.0, 3.0]), min_size=60, max_size=60),
    st.lists(st.booleans(), min_size=60, max_size=60),
    st.integers(-8, 0),
)
def test_whatever_the_costs_the_asking_ends_and_only_asks_for_what_is_offered(
    offered: set[int], costs: list[float], diverged: list[bool], start: int
) -> None:
    # `explore` asserts both; a rate outside the offer is never even the last resort.
    cells = explore(start, lambda k: cell(k, costs[k % 60], diverged=diverged[k % 60]), offered.__contains__)
    assert set(tried(cells)) <= offered
    assert len(cells) <= len(SPAN) + WIDENINGS + 4 + sum(abs(k - start) <= REACH for k in offered) / 2


def test_a_best_rate_at_the_edge_is_followed_six_times_and_no_further() -> None:
    rising, falling = explore(0, lambda k: cell(k, math.exp(k))), explore(0, lambda k: cell(k, math.exp(-k)))
    assert min(tried(rising)) == -REACH
    assert max(tried(falling)) == REACH


@pytest.mark.parametrize("side", [1, -1])
def test_a_diverged_neighbour_closes_the_edge(side: int) -> None:
    def make(k: int) -> Cell:
        return cell(k, math.inf, diverged=True) if side * k > 3 else cell(k, math.exp(-0.3 * side * k))

    cells = explore(0, make)
    assert max(side * k for k in tried(cells)) == 4
    best = min(cells, key=lambda c: c.mean)
    assert index_of(best.learning_rate) == side * 3
    # The best has a neighbour on both sides, so it is not at the edge of what was tried.
    assert {2, 3, 4} <= {side * k for k in tried(cells)}


def test_a_neighbour_that_never_reached_the_target_closes_the_edge() -> None:
    cells = explore(0, lambda k: cell(k, math.inf if k > 1 else math.exp(-k)))
    assert max(tried(cells)) == 4


def test_where_all_rates_diverge_lower_ones_are_tried() -> None:
    def make(k: int) -> Cell:
        return cell(k, math.inf, diverged=True) if k > -8 else cell(k, math.exp(0.3 * (k + 9) ** 2))

    cells = explore(0, make)
    assert max(tried(cells)) == 4
    assert index_of(min(cells, key=lambda c: c.mean).learning_rate) == -9


def test_where_all_rates_learn_too_slowly_the_nearest_to_the_target_shows_the_way() -> None:
    def make(k: int) -> Cell:
        return cell(k, math.inf, shortfall=-0.1 * k) if k < -2 else cell(k, math.exp(0.3 * (k + 1) ** 2))

    cells = explore(-12, make)
    assert min(tried(cells)) == -16
    assert index_of(min(cells, key=lambda c: c.mean).learning_rate) == -1


def test_where_no_rate_learns_at_all_and_none_diverges_higher_ones_are_tried() -> None:
    # Far too low a rate leaves the metric at exactly that of chance: all shortfalls are equal.
    def make(k: int) -> Cell:
        return cell(k, math.inf, shortfall=0.4) if k < -6 else cell(k, math.exp(0.3 * (k + 5) ** 2))

    cells = explore(-12, make)
    assert index_of(min(cells, key=lambda c: c.mean).learning_rate) == -5


def test_where_slow_rates_and_diverging_ones_meet_nothing_beyond_them_is_tried() -> None:
    def make(k: int) -> Cell:
        return cell(k, math.inf, diverged=True) if k > 0 else cell(k, math.inf, shortfall=1 - 0.1 * k)

    # Between two misses may lie a hit: the points beside the nearest are tried, those beyond the five are not.
    assert sorted(tried(explore(0, make))) == [-4, -2, -1, 0, 1, 2, 4]


def test_what_other_sweeps_left_beside_the_best_is_used() -> None:
    known = tuple(bowl(0.2)(k) for k in (-1, 0, 1))
    assert sorted(tried(explore(0, bowl(0.2), known=known))) == [-4, -2, -1, 0, 1, 2, 4]


def test_nothing_offered_is_nothing_asked() -> None:
    assert next_index([], 0, lambda k: False) is None
