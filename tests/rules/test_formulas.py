"""The formulas of the book as plain functions: limits, published numbers, numerical twins."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.fit.hyperbola import fit_hyperbola
from rightbatch.rules import learning_rate, shape, size_laws
from rightbatch.rules.surface import drift, peak

sizes = st.floats(1, 1e6)


def test_rates_at_another_size() -> None:
    assert learning_rate.linear(0.1, 8) == pytest.approx(0.8)
    assert learning_rate.square_root(0.1, 4) == pytest.approx(0.2)


@given(sizes, sizes)
def test_the_saturating_rate_is_half_its_maximum_at_the_noise_scale(noise: float, size: float) -> None:
    assert learning_rate.saturating(1.0, noise, noise) == pytest.approx(0.5)
    assert learning_rate.saturating(1.0, noise, size) < 1
    assert learning_rate.saturating(1.0, noise, 2 * size) > learning_rate.saturating(1.0, noise, size)


@given(sizes, st.floats(1.01, 100))
def test_the_surge_peaks_at_the_noise_scale_and_is_even_around_it(noise: float, factor: float) -> None:
    assert learning_rate.surge(1.0, noise, noise) == pytest.approx(1.0)
    above, below = (learning_rate.surge(1.0, noise, size) for size in (noise * factor, noise / factor))
    assert above == pytest.approx(below)
    assert above < 1


def test_adam_moves_all_four_numbers() -> None:
    rate, beta1, beta2, epsilon = learning_rate.adam(1e-3, 0.9, 0.999, 1e-8, 4)
    assert (rate, beta1, beta2, epsilon) == pytest.approx((2e-3, 0.6, 0.996, 0.5e-8))
    with pytest.raises(InputError, match="does not reach so far"):
        learning_rate.adam(1e-3, 0.9, 0.999, 1e-8, 16)


@given(st.floats(0.5, 0.9999), st.floats(0.1, 10), sizes)
def test_beta2_forgets_after_as_many_examples(beta2: float, factor: float, size: float) -> None:
    def half_life_examples(beta: float, batch_size: float) -> float:
        return batch_size * math.log(2) / math.log(1 / beta)

    moved = learning_rate.half_life(beta2, factor)
    assert half_life_examples(moved, factor * size) == pytest.approx(half_life_examples(beta2, size))


def test_the_full_batch_has_no_temperature() -> None:
    assert learning_rate.temperature(0.1, 1000, 1000) == 0
    assert learning_rate.temperature(0.1, 10, 1000, momentum=0.9) == pytest.approx(99)


@given(st.floats(1e-5, 1e-1), st.floats(1e-7, 1e-3), st.floats(1, 1e5))
def test_the_goodput_optimum_is_where_progress_per_second_is_most(alpha: float, beta: float, noise: float) -> None:
    best = size_laws.goodput(alpha, beta, noise)

    def progress(size: float) -> float:
        return size / (alpha + beta * size) / (noise + size)

    assert progress(best) >= max(progress(best * 1.01), progress(best / 1.01))


def test_the_formula_of_deepseek_grows_as_published() -> None:
    assert size_laws.deepseek_tokens(2e20) / size_laws.deepseek_tokens(2e18) == pytest.approx(100**0.3271)


@given(st.floats(4, 1000), st.floats(10, 1e5))
def test_regimes_of_points_on_the_law_are_those_of_the_law(knee: float, fewest: float) -> None:
    batch_sizes = [2.0**k for k in range(-2, 18)]
    steps = [fewest * (1 + knee / size) for size in batch_sizes]
    by_law = shape.regimes_of_law(fit_hyperbola(batch_sizes, steps, sign=1))
    found = shape.regimes(batch_sizes, steps)
    assert by_law.perfect_until == pytest.approx(knee / 4, rel=1e-3)
    assert by_law.no_help_from == pytest.approx(4 * knee, rel=1e-3)
    if found.perfect_until is not None:
        assert found.perfect_until == pytest.approx(knee / 4, rel=0.25)
    assert found.no_help_from == pytest.approx(4 * knee, rel=0.25)


def cells(quality: object) -> dict[tuple[int, float], list[float]]:
    return {(s, r): [quality(s, r)] for s in (8, 32, 128, 512) for r in (0.1, 0.2, 0.4, 0.8)}  # type: ignore[operator]


def test_drift_along_a_constant_ratio_is_recovered() -> None:
    found = drift(cells(lambda s, r: 0.97 - 0.001 * math.log(r / s) ** 2 - 0.003 * math.log(s)))
    assert found is not None
    assert found.value == pytest.approx(-0.003 * math.log(64), abs=1e-9)
    assert found.error < 1e-9


def test_the_exponent_of_the_best_size_is_recovered() -> None:
    found = peak(cells(lambda s, r: 0.99 - 0.002 * (math.log(s / 64) - 0.7 * math.log(r)) ** 2))
    assert found is not None
    assert found.exponent == pytest.approx(0.7, abs=1e-6)
    assert peak(cells(lambda s, r: 0.95 + 0.001 * math.log(s) ** 2)) is None  # no best size: it bends the other way


def test_noise_widens_the_error_of_an_exponent_as_it_should() -> None:
    generator = np.random.default_rng(0)
    found = [
        peak(
            cells(lambda s, r: 0.99 - 0.002 * (math.log(s / 64) - 0.7 * math.log(r)) ** 2 + 0.001 * generator.normal())
        )
        for _ in range(200)
    ]
    known = [one for one in found if one is not None]
    assert len(known) > 150
    covered = [abs(one.exponent - 0.7) <= 2.23 * one.error for one in known]  # t of ten degrees of freedom
    assert np.mean(covered) > 0.88


def test_the_book_needs_no_torch() -> None:
    code = (
        "import sys; from rightbatch.rules import learning_rate; assert learning_rate.square_root(0.1, 4) == 0.2; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
