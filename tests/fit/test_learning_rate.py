"""The best rate at one size and against size: exact on the laws, twins, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rightbatch.errors import InputError
from rightbatch.fit.learning_rate import fit_rate_law, fit_rate_parabola
from rightbatch.fit.seed_noise import SeedNoise
from rightbatch.records import Interval

checked = settings(derandomize=True, deadline=None, max_examples=60)
RATES = np.array([0.02, 0.05, 0.1, 0.3, 0.6])
SEEDS = (2, 3, 1, 2, 1)
SIZES = np.array([16.0, 32, 64, 128, 256, 512, 1024])


def width(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low


def parabola(rates: np.ndarray, best: float, curvature: float = 0.5, least: float = 7.0) -> np.ndarray:
    return np.asarray(least * np.exp(curvature * np.log(rates / best) ** 2))


# ------------------------------------------------------------------------------------------------ at one batch size


@checked
@given(st.integers(3, 7), st.floats(-1, 1), st.floats(0.05, 5), st.floats(1e-3, 1e3), st.floats(1e-5, 10))
def test_costs_on_a_parabola_give_its_lowest_point(
    count: int, offset: float, curvature: float, least: float, middle: float
) -> None:
    rates = middle * 10.0 ** (np.arange(count) / 2 - (count - 1) / 4)
    best = middle * 10 ** (offset * (count - 1) / 4)
    found = fit_rate_parabola(rates, parabola(rates, best, curvature, least), [1] * count, None, 0)
    assert found.best_rate.estimate == pytest.approx(best, rel=1e-6)
    assert found.cost(best) == pytest.approx(least, rel=1e-6)
    assert found.cost(3 * best) == pytest.approx(least * math.exp(curvature * math.log(3) ** 2), rel=1e-6)
    assert not found.best_rate.known
    assert found.best_rate.note == "no interval: one seed"


def test_rates_that_are_unevenly_spaced_give_the_lowest_point_too() -> None:
    rates = np.array([0.01, 0.03, 0.1, 0.1778, 1.0])
    assert fit_rate_parabola(rates, parabola(rates, 0.12), [1] * 5, None, 0).best_rate.estimate == pytest.approx(0.12)


@pytest.mark.parametrize("seed", range(4))
def test_estimate_and_leverage_are_those_of_one_row_a_seed(seed: int) -> None:
    generator = np.random.default_rng(seed)
    seeds = [3, 1, 5, 2, 1]
    draws = [parabola(RATES[k], 0.12) * np.exp(0.1 * generator.standard_normal(n)) for k, n in enumerate(seeds)]
    means = [float(np.exp(np.log(d).mean())) for d in draws]
    found = fit_rate_parabola(RATES, means, seeds, None, 0)
    # The twin knows every run, not only the means.
    u = np.log(np.repeat(RATES, seeds))
    curvature, slope, level = np.polyfit(u, np.log(np.concatenate(draws)), 2)
    assert found.best_rate.estimate == pytest.approx(math.exp(-slope / (2 * curvature)), rel=1e-6)
    design = np.vander(u, 3)
    inverse = np.linalg.inv(design.T @ design)
    for rate in (0.05, 0.1, 0.2):
        row = np.array([math.log(rate) ** 2, math.log(rate), 1])
        assert found.cost(rate) == pytest.approx(math.exp(row @ [curvature, slope, level]), rel=1e-6)
        assert found.leverage(rate) == pytest.approx(math.sqrt(row @ inverse @ row), rel=1e-6)


def test_through_three_rates_each_cost_rests_on_its_own_seeds_alone() -> None:
    rates, costs, seeds = [0.03, 0.1, 0.3], [2.0, 1.0, 3.0], [2, 5, 3]
    found = fit_rate_parabola(rates, costs, seeds, 0.1, 7)
    for rate, cost, n in zip(rates, costs, seeds, strict=True):
        assert found.cost(rate) == pytest.approx(cost)
        assert found.leverage(rate) == pytest.approx(1 / math.sqrt(n))


@checked
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 50))
def test_units_of_rates_and_costs_only_scale_the_parabola(rate_unit: float, cost_unit: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    costs = parabola(RATES, 0.12) * np.exp(0.05 * generator.standard_normal(5))
    one = fit_rate_parabola(RATES, costs, SEEDS, 0.05, 9)
    other = fit_rate_parabola(RATES * rate_unit, costs * cost_unit, SEEDS, 0.05, 9)
    bounds = [one.best_rate.estimate, one.best_rate.low, one.best_rate.high]
    scaled = [other.best_rate.estimate, other.best_rate.low, other.best_rate.high]
    assert np.array(scaled, float) == pytest.approx(np.array(bounds, float) * rate_unit, rel=1e-6)
    assert other.cost(0.1 * rate_unit) == pytest.approx(one.cost(0.1) * cost_unit, rel=1e-6)
    assert other.leverage(0.1 * rate_unit) == pytest.approx(one.leverage(0.1), rel=1e-6)


@checked
@given(st.lists(st.floats(-1, 1), min_size=5, max_size=5), st.floats(0.001, 3), st.integers(1, 20))
def test_the_best_rate_stays_among_those_tried_and_in_its_interval(
    logs: list[float], deviation: float, freedom: int
) -> None:
    costs = parabola(RATES, 0.12) * np.exp(0.2 * np.array(logs))
    best = fit_rate_parabola(RATES, costs, SEEDS, deviation, freedom).best_rate
    tolerance = 1e-9
    assert best.low is not None
    assert best.high is not None
    assert RATES[0] * (1 - tolerance) <= best.low <= best.estimate * (1 + tolerance)
    assert best.estimate * (1 - tolerance) <= best.high <= RATES[-1] * (1 + tolerance)


@pytest.mark.parametrize("count", [3, 5])
def test_intervals_of_rate_and_cost_cover_where_costs_are_a_parabola(count: int) -> None:
    generator = np.random.default_rng(0)
    rates, deviation = RATES[:3] if count == 3 else RATES, 0.06
    seeds = [2, 3, 2, 1, 2][:count]
    rate_covered, cost_covered = [], []
    for best in np.repeat([0.06, 0.08, 0.1], 200):
        noise = deviation / np.sqrt(seeds) * generator.standard_normal(count)
        # The deviation is itself estimated, from ten degrees of freedom of the study.
        pooled = SeedNoise(deviation * math.sqrt(generator.chisquare(10) / 10), 10)
        found = fit_rate_parabola(
            rates, parabola(rates, best, 1.0) * np.exp(noise), seeds, pooled.deviation, pooled.freedom
        )
        rate_covered.append(best in found.best_rate)
        leverage = found.leverage(best)
        cost_covered.append(7.0 in pooled.interval(found.cost(best), leverage, found.misfit * leverage))
    # Four rates and more are widened by what misfit they show, never narrowed: at least the nominal level.
    assert 0.92 <= np.mean(rate_covered) <= (0.98 if count == 3 else 1.0)
    assert 0.92 <= np.mean(cost_covered) <= (0.98 if count == 3 else 1.0)


def test_costs_that_are_no_parabola_widen_its_errors_by_their_misfit() -> None:
    straight = np.array([2.0, 1.4, 1.0, 1.4, 2.0])
    rough = straight * np.exp([0.3, -0.3, 0.3, -0.3, 0.3])
    smooth = parabola(RATES, 0.1)
    exact, missed = (fit_rate_parabola(RATES, costs, [1] * 5, 0.01, 9) for costs in (smooth, rough))
    quiet = fit_rate_parabola(RATES, rough, [1] * 5, 10.0, 9)
    assert exact.misfit == quiet.misfit == 0
    assert missed.misfit > 0.1
    assert missed.leverage(0.1) == pytest.approx(exact.leverage(0.1))
    assert width(missed.best_rate) > 10 * width(exact.best_rate)


def test_seeds_that_do_not_matter_leave_what_the_parabola_misses() -> None:
    rough = np.array([2.0, 1.4, 1.0, 1.4, 2.0]) * np.exp([0.1, -0.1, 0.1, -0.1, 0.1])
    without, hardly = (fit_rate_parabola(RATES, rough, [1] * 5, deviation, 9) for deviation in (0.0, 1e-6))
    assert without.misfit == pytest.approx(hardly.misfit)
    assert without.best_rate.low == pytest.approx(hardly.best_rate.low)
    assert width(without.best_rate) > 0.03


@pytest.mark.parametrize("count", [4, 5, 6])
def test_intervals_cover_costs_that_are_no_parabola(count: int) -> None:
    """Departures of a tenth, twice what seeds differ by: of few residuals they are known badly themselves."""
    generator, rates, deviation, freedom = np.random.default_rng(1), 10 ** (np.arange(count) / 4), 0.05, 20
    rate, covered = rates[count // 2], []
    for _ in range(1000):
        shape = parabola(rates, float(rates.mean()), 0.4)
        costs = shape * np.exp(generator.normal(0, 0.1, count) + generator.normal(0, deviation / math.sqrt(3), count))
        noise = SeedNoise(deviation * math.sqrt(generator.chisquare(freedom) / freedom), freedom)
        try:
            found = fit_rate_parabola(rates, costs, [3] * count, noise.deviation, freedom)
        except InputError:  # they bend downwards
            continue
        leverage = found.leverage(rate)
        covered.append(shape[count // 2] in noise.interval(found.cost(rate), leverage, found.misfit * leverage))
    assert len(covered) > 700
    assert np.mean(covered) > {4: 0.82, 5: 0.88, 6: 0.9}[count]


def test_fewer_than_three_rates_are_refused() -> None:
    with pytest.raises(InputError, match="at least three rates"):
        fit_rate_parabola([0.1, 0.2], [1.0, 2.0], [1, 1], None, 0)


@pytest.mark.parametrize("costs", [[1.0, 2.0, 1.0], [1.0, 3.0, 4.0]])
def test_costs_that_do_not_bend_upwards_are_refused(costs: list[float]) -> None:
    with pytest.raises(InputError, match="do not bend upwards"):
        fit_rate_parabola([0.01, 0.1, 1.0], costs, [1, 1, 1], 0.1, 3)


# -------------------------------------------------------------------------------------------------- against the size


@checked
@given(st.floats(0.1, 1.5), st.floats(1e-5, 1))
def test_rates_on_a_power_of_the_size_give_its_exponent(exponent: float, scale: float) -> None:
    found = fit_rate_law(SIZES, scale * SIZES**exponent).exponent
    assert found.estimate == pytest.approx(exponent)
    assert found.low == pytest.approx(exponent, abs=1e-6)
    assert found.high == pytest.approx(exponent, abs=1e-6)


@checked
@given(st.floats(10, 2000), st.floats(1e-4, 10))
def test_rates_that_saturate_give_their_maximum_and_knee(knee: float, maximum: float) -> None:
    saturating = fit_rate_law(SIZES, maximum / (1 + knee / SIZES)).saturating
    assert saturating.scale.estimate == pytest.approx(maximum, rel=1e-5)
    assert saturating.knee.estimate == pytest.approx(knee, rel=1e-5)
    assert saturating.predict(64) == pytest.approx(maximum / (1 + knee / 64), rel=1e-5)


def test_the_exponent_and_its_interval_are_those_of_the_normal_equations() -> None:
    rates = 0.01 * SIZES**0.5 * np.exp(0.2 * np.random.default_rng(0).standard_normal(len(SIZES)))
    found = fit_rate_law(SIZES, rates, level=0.9).exponent
    design = np.column_stack([np.ones(len(SIZES)), np.log(SIZES)])
    solution, squares, *_ = np.linalg.lstsq(design, np.log(rates), rcond=None)
    error = math.sqrt(squares[0] / 5 * np.linalg.inv(design.T @ design)[1, 1])
    half = stats.t.ppf(0.95, 5) * error
    expected = [solution[1], solution[1] - half, solution[1] + half]
    assert [found.estimate, found.low, found.high] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_exponent_and_its_interval_are_those_of_scipy_stats(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = SIZES[: 3 + seed]
    rates = 0.01 * sizes**0.5 * np.exp(0.2 * generator.standard_normal(len(sizes)))
    found = fit_rate_law(sizes, rates).exponent
    line = stats.linregress(np.log(sizes), np.log(rates))
    half = stats.t.ppf(0.975, len(sizes) - 2) * line.stderr
    expected = [line.slope, line.slope - half, line.slope + half]
    assert [found.estimate, found.low, found.high] == pytest.approx(expected, rel=1e-10)


def test_the_interval_of_the_exponent_covers_at_its_nominal_level() -> None:
    generator = np.random.default_rng(0)
    rates = 0.01 * SIZES**0.7 * np.exp(0.3 * generator.standard_normal((400, len(SIZES))))
    covered = [0.7 in fit_rate_law(SIZES, r).exponent for r in rates]
    assert 0.92 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize("rates", [[0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.1]])
def test_rates_that_do_not_grow_have_an_exponent_near_zero(rates: list[float]) -> None:
    assert 0.0 in fit_rate_law([16, 32, 64, 128], rates).exponent


def test_two_sizes_are_too_few_for_a_law() -> None:
    with pytest.raises(InputError, match="at least three different batch sizes"):
        fit_rate_law([16, 32], [0.1, 0.2])
