"""Pooled seed noise: a plain twin, recovery, and the coverage of its t interval."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rightbatch.fit.seed_noise import SeedNoise, pool_seed_noise

checked = settings(derandomize=True, deadline=None, max_examples=60)
CELLS = st.lists(st.lists(st.floats(0.01, 1000), min_size=1, max_size=5), max_size=6)


@checked
@given(CELLS)
def test_the_pooled_variance_is_the_mean_of_the_cells_own_weighted_by_their_freedom(cells: list[list[float]]) -> None:
    noise = pool_seed_noise(cells)
    repeated = [[math.log(c) for c in cell] for cell in cells if len(cell) > 1]
    freedom = sum(len(logs) - 1 for logs in repeated)
    assert noise.freedom == freedom
    if not freedom:
        assert noise.deviation is None
        return
    variance = sum((len(logs) - 1) * statistics.variance(logs) for logs in repeated) / freedom
    assert noise.deviation == pytest.approx(math.sqrt(variance), abs=1e-9)


@checked
@given(CELLS, st.floats(1e-3, 1e3))
def test_the_noise_does_not_depend_on_the_unit_of_cost(cells: list[list[float]], unit: float) -> None:
    noise, other = pool_seed_noise(cells), pool_seed_noise([[c * unit for c in cell] for cell in cells])
    assert other.freedom == noise.freedom
    assert (other.deviation or 0) == pytest.approx(noise.deviation or 0, abs=1e-9)


def test_differences_between_cells_are_not_noise() -> None:
    assert pool_seed_noise([[1.0, 1.0], [100.0, 100.0, 100.0]]) == SeedNoise(0.0, 3)


def test_one_seed_everywhere_gives_no_noise_and_no_interval() -> None:
    noise = pool_seed_noise([[1.0], [2.0], []])
    assert noise == SeedNoise(None, 0)
    interval = noise.interval(4.0, 1.0)
    assert interval.estimate == 4
    assert not interval.known
    assert interval.note == "no interval: one seed"


@pytest.mark.parametrize("deviation", [0.05, 0.2])
def test_the_noise_that_was_put_in_comes_out(deviation: float) -> None:
    generator = np.random.default_rng(0)
    cells = [np.exp(generator.normal(3) + deviation * generator.standard_normal(k)) for k in (1, 2, 3, 6) * 100]
    noise = pool_seed_noise(cells)
    assert noise.freedom == 800
    assert noise.deviation == pytest.approx(deviation, rel=0.1)


def test_the_interval_of_a_cost_is_a_t_interval_in_logs() -> None:
    interval = SeedNoise(0.1, 7).interval(4.0, 1 / math.sqrt(2), level=0.9)
    half = stats.t.ppf(0.95, 7) * 0.1 / math.sqrt(2)
    assert interval.estimate == 4
    assert interval.low == pytest.approx(4 * math.exp(-half))
    assert interval.high == pytest.approx(4 * math.exp(half))
    assert interval.level == 0.9


@pytest.mark.parametrize("seeds", [2, 5])
def test_the_interval_of_a_geometric_mean_covers_at_its_nominal_level(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    covered = []
    for draw in np.exp(math.log(50) + 0.2 * generator.standard_normal((600, 3, seeds))):
        mean = statistics.geometric_mean(draw[0])
        covered.append(50 in pool_seed_noise(draw).interval(mean, 1 / math.sqrt(seeds)))
    assert 0.92 <= np.mean(covered) <= 0.98


@checked
@given(st.floats(0.01, 100), st.floats(0.001, 1), st.integers(1, 50), st.floats(0.01, 1), st.floats(1.01, 5))
def test_more_leverage_or_noise_widens_the_interval_and_the_unit_scales_it(
    estimate: float, deviation: float, freedom: int, leverage: float, factor: float
) -> None:
    interval = SeedNoise(deviation, freedom).interval(estimate, leverage)
    wider = SeedNoise(deviation, freedom).interval(estimate, leverage * factor)
    assert interval.estimate in interval
    noisier = SeedNoise(deviation * factor, freedom).interval(estimate, leverage)
    assert (wider.low, wider.high) == pytest.approx((noisier.low, noisier.high))
    assert wider.low < interval.low  # type: ignore[operator]
    assert wider.high > interval.high  # type: ignore[operator]
    scaled = SeedNoise(deviation, freedom).interval(estimate * factor, leverage)
    assert scaled.high == pytest.approx(interval.high * factor)  # type: ignore[operator]
