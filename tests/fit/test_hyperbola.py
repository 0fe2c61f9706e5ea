"""The two-parameter hyperbola: exact recovery, a slow twin of estimate and interval, and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from rightbatch.errors import InputError
from rightbatch.fit.hyperbola import HyperbolaFit, fit_hyperbola

checked = settings(derandomize=True, deadline=None, max_examples=30)

SIZES = np.array([8.0, 16, 32, 64, 128, 256, 512, 1024])
SIGNS = st.sampled_from([1, -1])


def law(sizes: np.ndarray, scale: float, knee: float, sign: int) -> np.ndarray:
    return scale * (1 + knee / sizes) ** sign


def noisy(knee: float, sign: int, seed: int, deviation: float = 0.1) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(len(SIZES))
    return law(SIZES, 500.0, knee, sign) * np.exp(deviation * noise)


def numbers(fit: HyperbolaFit) -> np.ndarray:
    found = [fit.scale.estimate, fit.scale.low, fit.scale.high, fit.knee.estimate, fit.knee.low, fit.knee.high]
    return np.array(found, float)


@checked
@given(st.floats(1e-3, 1e6), st.floats(4, 4096), SIGNS)
def test_values_on_the_law_give_its_parameters_back(scale: float, knee: float, sign: int) -> None:
    fit = fit_hyperbola(SIZES, law(SIZES, scale, knee, sign), sign=sign)
    assert fit.scale.estimate == pytest.approx(scale, rel=1e-5)
    assert fit.knee.estimate == pytest.approx(knee, rel=1e-5)
    assert fit.deviation == pytest.approx(0, abs=1e-6)
    assert fit.freedom == len(SIZES) - 2
    assert fit.predict(100.0) == pytest.approx(scale * (1 + knee / 100) ** sign, rel=1e-5)
    # Without noise there is little to be unsure about.
    assert fit.knee.low == pytest.approx(knee, rel=1e-3)
    assert fit.knee.high == pytest.approx(knee, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("knee", [30.0, 200.0])
def test_the_estimate_is_that_of_a_general_optimiser(seed: int, sign: int, knee: float) -> None:
    y = noisy(knee, sign, seed)
    fit = fit_hyperbola(SIZES, y, sign=sign)

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.log(law(SIZES, math.exp(p[0]), math.exp(p[1]), sign)) - np.log(y)

    twin = optimize.least_squares(residuals, [math.log(500), math.log(knee)], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    assert fit.scale.estimate == pytest.approx(math.exp(twin.x[0]), rel=1e-4)
    assert fit.knee.estimate == pytest.approx(math.exp(twin.x[1]), rel=1e-4)
    assert fit.deviation == pytest.approx(math.sqrt(2 * twin.cost / 6), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_of_the_knee_ends_where_an_f_test_begins_to_reject(seed: int, sign: int) -> None:
    y = noisy(150.0, sign, seed)
    fit = fit_hyperbola(SIZES, y, sign=sign, level=0.9)

    def squares(knee: float) -> float:
        shape = sign * np.log(1 + knee / SIZES)
        return float(np.var(np.log(y) - shape) * len(SIZES))

    def p_value(knee: float) -> float:
        least = squares(fit.knee.estimate)
        return float(stats.f.sf((squares(knee) - least) / (least / 6), 1, 6))

    assert fit.knee.low is not None
    assert fit.knee.high is not None
    assert p_value(fit.knee.low) == pytest.approx(0.1, abs=1e-4)
    assert p_value(fit.knee.high) == pytest.approx(0.1, abs=1e-4)
    inside = np.geomspace(fit.knee.low, fit.knee.high, 50)[1:-1]
    assert min(p_value(knee) for knee in inside) > 0.1


@checked
@given(st.floats(1e-3, 1e3), st.floats(0.01, 100), SIGNS, st.integers(0, 20))
def test_units_of_values_and_sizes_only_scale_the_fit(
    value_unit: float, size_unit: float, sign: int, seed: int
) -> None:
    y = noisy(100.0, sign, seed)
    fit = fit_hyperbola(SIZES, y, sign=sign)
    other = fit_hyperbola(SIZES * size_unit, y * value_unit, sign=sign)
    units = np.array([value_unit] * 3 + [size_unit] * 3)
    assert numbers(other) == pytest.approx(numbers(fit) * units, rel=1e-4)
    assert other.deviation == pytest.approx(fit.deviation, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_falling_law_is_the_mirror_image_of_a_rising_one(seed: int) -> None:
    y = noisy(100.0, 1, seed)
    rising, falling = fit_hyperbola(SIZES, y, sign=1), fit_hyperbola(SIZES, 1 / y, sign=-1)
    assert falling.knee.estimate == pytest.approx(rising.knee.estimate, rel=1e-6)
    assert (falling.knee.low, falling.knee.high) == pytest.approx((rising.knee.low, rising.knee.high), rel=1e-6)
    assert falling.scale.estimate == pytest.approx(1 / rising.scale.estimate, rel=1e-6)
    assert falling.scale.low == pytest.approx(1 / rising.scale.high, rel=1e-6)  # type: ignore[operator]
    assert falling.scale.high == pytest.approx(1 / rising.scale.low, rel=1e-6)  # type: ignore[operator]


@checked
@given(st.permutations(range(len(SIZES))), SIGNS)
def test_the_order_of_the_sizes_does_not_matter(order: list[int], sign: int) -> None:
    y = noisy(100.0, sign, 0)
    fit = fit_hyperbola(SIZES[order], y[order], sign=sign)
    assert numbers(fit) == pytest.approx(numbers(fit_hyperbola(SIZES, y, sign=sign)), rel=1e-5)


@checked
@given(st.integers(0, 1000), SIGNS, st.floats(10, 1000), st.floats(0.01, 0.5))
def test_an_interval_holds_its_estimate_and_grows_with_its_level(
    seed: int, sign: int, knee: float, deviation: float
) -> None:
    y = noisy(knee, sign, seed, deviation)
    narrow, wide = (fit_hyperbola(SIZES, y, sign=sign, level=level) for level in (0.8, 0.99))
    for inner, outer in ((narrow.knee, wide.knee), (narrow.scale, wide.scale)):
        assert inner.estimate in inner
        assert outer.low <= inner.low  # type: ignore[operator]
        assert outer.high >= inner.high  # type: ignore[operator]


def test_values_that_do_not_bend_leave_the_knee_open_below() -> None:
    y = 500 * np.exp(0.05 * np.random.default_rng(0).standard_normal(len(SIZES)))
    fit = fit_hyperbola(SIZES, y, sign=1)
    assert fit.knee.low == 0
    assert fit.knee.high < 16  # type: ignore[operator]
    assert fit.knee.note == "not bounded below by sizes from 8"


def test_values_that_only_fall_leave_the_knee_open_above() -> None:
    y = 1e6 / SIZES * np.exp(0.05 * np.random.default_rng(0).standard_normal(len(SIZES)))
    fit = fit_hyperbola(SIZES, y, sign=1)
    assert fit.knee.high == math.inf
    assert fit.knee.low > 512  # type: ignore[operator]
    assert fit.knee.note == "not bounded above by sizes up to 1024"
    assert (fit.scale.low, fit.scale.high) == (0.0, math.inf)


def test_three_sizes_in_heavy_noise_bound_nothing() -> None:
    fit = fit_hyperbola([32, 64, 128], [300.0, 100.0, 280.0], sign=1)
    assert (fit.knee.low, fit.knee.high) == (0.0, math.inf)
    assert fit.knee.note == "not bounded by sizes 32 to 128"


@pytest.mark.parametrize("sizes", [[], [8, 16], [8, 8, 16], [8, 16, 16, 32]])
def test_fewer_than_three_different_sizes_are_refused(sizes: list[int]) -> None:
    with pytest.raises(InputError, match="at least three different batch sizes"):
        fit_hyperbola(sizes, [1.0] * len(sizes), sign=1)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_values_without_a_logarithm_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="positive and finite"):
        fit_hyperbola([8, 16, 32], [3.0, bad, 1.0], sign=1)
