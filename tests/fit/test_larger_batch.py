"""A larger batch predicted from smaller ones: exact lines, a twin, invariances, and intervals on simulated curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rightbatch.errors import InputError
from rightbatch.fit.larger_batch import Misfit, errors_ahead, fit_line, pool, predict_larger

SIZES = [32.0, 64.0, 128.0, 256.0, 512.0]


def law(size: float, least: float = 1e5, critical: float = 200.0) -> float:
    return least * (1 + size / critical)


def test_a_line_is_found_exactly():
    line = fit_line(SIZES, [law(size) for size in SIZES])
    assert line.minimum_examples == pytest.approx(1e5)
    assert line.minimum_steps == pytest.approx(500)
    assert line.examples(4096) == pytest.approx(law(4096))
    assert errors_ahead(SIZES, [law(size) for size in SIZES]) == pytest.approx([0, 0, 0], abs=1e-9)


def test_what_falls_with_the_size_is_taken_to_be_constant():
    line = fit_line([32, 64, 128], [120.0, 110.0, 100.0])
    assert line.minimum_steps == 0
    assert 100 < line.minimum_examples < 120


def test_the_leverage_is_that_of_a_weighted_regression():
    """The covariance of the estimates, by inverting the normal equations of the relative design."""
    draw = np.random.default_rng(0)
    values = [law(size) * math.exp(0.05 * draw.normal()) for size in SIZES]
    line = fit_line(SIZES, values)
    fitted = np.array([line.examples(size) for size in SIZES])
    weights = np.diag(1 / fitted**2)
    design = np.stack([np.ones(5), np.array(SIZES)], axis=1)
    covariance = np.linalg.inv(design.T @ weights @ design)
    at = np.array([1, 2048.0])
    assert line.leverage(2048) == pytest.approx(at @ covariance @ at / line.examples(2048) ** 2)


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-3, 1e3), st.floats(1e-2, 1e2), st.integers(0, 1000))
def test_units_do_not_matter(of_examples, of_sizes, seed):
    draw = np.random.default_rng(seed)
    values = [law(size) * math.exp(0.1 * draw.normal()) for size in SIZES]
    misfit = Misfit(0.05, 3.0)
    found = predict_larger(SIZES, values, 2048, misfit)
    other = predict_larger([of_sizes * s for s in SIZES], [of_examples * v for v in values], of_sizes * 2048, misfit)
    assert other.estimate == pytest.approx(of_examples * found.estimate, rel=1e-6)
    assert other.low == pytest.approx(of_examples * found.low, rel=1e-5)


def curve(draw: np.random.Generator, deviation: float, sizes: int = 6) -> tuple[list[float], list[float]]:
    at = [32.0 * 2**k for k in range(sizes)]
    critical = float(np.exp(draw.uniform(3, 8)))
    return at, [law(size, critical=critical) * math.exp(deviation * draw.normal()) for size in at]


def test_intervals_hold_as_often_as_they_say():
    """400 curves, each with a misfit of its own, the others as what is known."""
    draw = np.random.default_rng(1)
    deviations = 0.05 * np.sqrt(4 / draw.chisquare(4, 400))
    curves = [curve(draw, float(d), int(draw.integers(3, 8))) for d in deviations]
    misfit = pool([errors_ahead(*one) for one in curves[:200]])
    held, widths = 0, []
    for sizes, values in curves[200:]:
        found = predict_larger(sizes[:-1], values[:-1], sizes[-1], misfit)
        held += found.low <= values[-1] <= found.high
        widths.append(math.log(found.high / found.low))
    assert stats.binomtest(held, 200, 0.9).pvalue > 0.01
    assert np.median(widths) < 0.6


def test_the_misfit_of_many_curves_is_recovered():
    draw = np.random.default_rng(2)
    deviations = 0.08 * np.sqrt(5 / draw.chisquare(5, 600))
    found = pool([d * draw.normal(size=4) for d in deviations])
    assert found.deviation == pytest.approx(0.08, rel=0.12)
    assert 3 < found.freedom < 9


def test_what_is_known_of_a_curve_counts_beside_the_others():
    others = Misfit(0.1, 4.0)
    assert others.after([]) == others
    calm = others.after([0.0] * 12)
    assert calm.freedom == 16
    assert calm.deviation == pytest.approx(0.05)
    values = [law(size) for size in SIZES]
    quiet = predict_larger(SIZES, values, 1024, others)
    loud = predict_larger(SIZES[:2], values[:2], 1024, others)
    assert math.log(loud.high / loud.low) > 2 * math.log(quiet.high / quiet.low)


@pytest.mark.parametrize(
    ("sizes", "values", "message"),
    [
        ([32], [1.0], "2 different batch sizes or more, got \\[32\\]"),
        ([32, 32], [1.0, 2.0], "2 different batch sizes"),
        ([32, 64], [1.0, -2.0], "positive and finite"),
        ([32, 64], [1.0, math.nan], "positive and finite"),
    ],
)
def test_what_is_no_curve_is_told(sizes, values, message):
    with pytest.raises(InputError, match=message):
        fit_line(sizes, values)


def test_only_larger_sizes_and_enough_curves():
    with pytest.raises(InputError, match="64 is not larger than the sizes that are known, up to 128"):
        predict_larger([32, 128], [1.0, 2.0], 64, Misfit(0.1, 4))
    with pytest.raises(InputError, match="Fewer than three errors"):
        pool([[0.1], [], [0.2]])
