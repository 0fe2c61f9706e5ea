"""Steps against batch size: the identities of the law, and the coverage of its intervals in simulation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.fit.tradeoff import TradeoffFit, fit_tradeoff

MINIMUM_STEPS, CRITICAL = 400.0, 256.0
DEVIATIONS, SEEDS, COUNTS, REPEATS = (0.05, 0.1, 0.2), (2, 3, 5), (6, 8, 10), 50
CELLS = [(d, s, n) for d in DEVIATIONS for s in SEEDS for n in COUNTS]


def sizes_around_the_knee(count: int) -> np.ndarray:
    return CRITICAL * 2.0 ** (np.arange(count) - (count - 1) / 2)


@cache
def simulated(deviation: float, seeds: int, count: int) -> tuple[TradeoffFit, ...]:
    """Fits to the geometric means over seeds of steps drawn from the law with lognormal noise."""
    generator = np.random.default_rng([round(100 * deviation), seeds, count])
    sizes = sizes_around_the_knee(count)
    logs = np.log(MINIMUM_STEPS * (1 + CRITICAL / sizes))
    draws = logs + deviation * generator.standard_normal((REPEATS, seeds, count)).mean(axis=1)
    return tuple(fit_tradeoff(sizes, np.exp(d)) for d in draws)


@pytest.mark.parametrize(("deviation", "seeds", "count"), CELLS)
def test_the_interval_of_the_critical_batch_size_covers_in_every_cell(deviation: float, seeds: int, count: int) -> None:
    covered = [CRITICAL in fit.critical_batch_size for fit in simulated(deviation, seeds, count)]
    assert np.mean(covered) >= 0.8


def test_the_interval_of_the_critical_batch_size_covers_at_its_nominal_level_over_all_cells() -> None:
    covered = [CRITICAL in fit.critical_batch_size for cell in CELLS for fit in simulated(*cell)]
    assert len(covered) == 27 * REPEATS
    assert 0.92 <= np.mean(covered) <= 0.98


def test_the_interval_of_the_minimum_steps_covers_at_its_nominal_level_over_all_cells() -> None:
    covered = [MINIMUM_STEPS in fit.minimum_steps for cell in CELLS for fit in simulated(*cell)]
    assert np.mean(covered) >= 0.92


def test_estimates_are_centred_on_the_truth() -> None:
    for name, truth in (("critical_batch_size", CRITICAL), ("minimum_steps", MINIMUM_STEPS)):
        logs = [np.log(getattr(fit, name).estimate / truth) for cell in CELLS for fit in simulated(*cell)]
        assert abs(np.median(logs)) < 0.03


def test_the_deviation_of_the_fit_is_the_noise_that_was_put_in() -> None:
    for deviation in DEVIATIONS:
        for seeds in SEEDS:
            # An unbiased variance, over 150 fits with 4 to 8 degrees of freedom.
            squares = [
                (f.hyperbola.deviation or 0) ** 2 * f.hyperbola.freedom
                for n in COUNTS
                for f in simulated(deviation, seeds, n)
            ]
            freedom = sum(f.hyperbola.freedom for n in COUNTS for f in simulated(deviation, seeds, n))
            assert np.sqrt(sum(squares) / freedom) == pytest.approx(deviation / np.sqrt(seeds), rel=0.12)


def test_more_noise_makes_wider_intervals() -> None:
    def width(deviation: float) -> float:
        fits = [f.critical_batch_size for s in SEEDS for n in COUNTS for f in simulated(deviation, s, n)]
        return float(np.median([np.log(i.high / i.low) for i in fits]))  # type: ignore[operator]

    assert 1.7 < width(0.1) / width(0.05) < 2.3
    assert 1.7 < width(0.2) / width(0.1) < 2.6


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.floats(10, 1e5), st.floats(20, 2000), st.floats(1, 1e5))
def test_shares_of_excess_steps_and_examples_multiply_to_one(minimum: float, critical: float, size: float) -> None:
    sizes = sizes_around_the_knee(8)
    fit = fit_tradeoff(sizes, minimum * (1 + critical / sizes))
    least_steps = fit.minimum_steps.estimate
    least_examples = least_steps * fit.critical_batch_size.estimate
    steps = fit.steps(size)
    assert (steps / least_steps - 1) * (steps * size / least_examples - 1) == pytest.approx(1, rel=1e-6)
    assert fit.steps(fit.critical_batch_size.estimate) == pytest.approx(2 * least_steps)
    assert steps == pytest.approx(minimum * (1 + critical / size), rel=1e-4)


def test_two_sizes_are_too_few() -> None:
    with pytest.raises(InputError, match="at least three different batch sizes"):
        fit_tradeoff([32, 64], [300, 200])
