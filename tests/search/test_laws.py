"""The laws: their limits, which are known exactly, and what the evidence says for one version or another."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.search.laws import PRESENT_DEVIATION, STEP_COST_DEVIATION, VERSIONS, Laws, draw_laws, rate_prior

Array = npt.NDArray[np.float64]
LAWS = draw_laws(*rate_prior("SGD momentum"), 1e-3, 1.0)
SOME = slice(0, VERSIONS, 37)


def some_laws(laws: Laws = LAWS) -> Laws:
    """Every 37th version."""
    return Laws(**{field.name: getattr(laws, field.name)[SOME] for field in fields(laws)})


def log_steps(laws: Laws, size: float, level: float = 1.0) -> Array:
    """Log of the relative steps of every version at its own best rate for a level, shape `[versions]`."""
    versions = len(laws.log_critical)
    best = laws.log_best_rate(np.array([size]))[:, 0] + laws.rate_fall * (1 - level)
    return np.array([cost(laws, k, size, best[k], level) for k in range(versions)])


def cost(laws: Laws, version: int, size: float, log_rate: float, level: float = 1.0) -> float:
    """The law of one version at one place, where a step costs one."""
    flat = np.zeros((len(laws.log_critical), 1))
    return float(laws.log_cost(np.array([size]), np.array([log_rate]), np.array([level]), flat)[version, 0])


def test_steps_fall_as_one_over_the_batch_size_and_then_no_more() -> None:
    laws = some_laws()
    critical = np.exp(laws.log_critical)
    for factor, slope in ((1e-6, -1.0), (1e6, 0.0)):
        here = np.diag(np.array([log_steps(laws, factor * b) for b in critical]))
        twice = np.diag(np.array([log_steps(laws, 2 * factor * b) for b in critical]))
        assert (twice - here) / math.log(2) == pytest.approx(np.full(len(here), slope), abs=1e-5)
    at_critical = np.diag(np.array([log_steps(laws, b) for b in critical]))
    assert np.exp(at_critical) == pytest.approx(np.full(len(critical), 2.0))


def test_the_critical_size_grows_and_the_best_rate_falls_with_the_level() -> None:
    laws = replace(some_laws(), rate_fall=np.full(len(some_laws().rate_fall), 0.5))
    # Of a very small batch, log steps are log B_crit: they rise by the growth over all levels.
    rise = log_steps(laws, 1e-6, 1.0) - log_steps(laws, 1e-6, 0.0)
    assert rise == pytest.approx(laws.critical_growth)
    best = laws.log_best_rate(np.array([64.0]))[:, 0]
    late = np.array([cost(laws, k, 64.0, best[k] + 0.5, 1.0) for k in range(len(best))])
    early = np.array([cost(laws, k, 64.0, best[k] + 0.5, 0.0) for k in range(len(best))])
    alone = np.logaddexp(0, laws.log_critical - math.log(64)) - np.logaddexp(
        0, laws.log_critical - laws.critical_growth - math.log(64)
    )
    assert (late - early > alone + 1e-3).all()  # a rate too high for the target is the best one at the start


def test_the_best_rate_follows_its_power_and_then_no_more() -> None:
    knee = np.exp(LAWS.log_rate_knee)
    small, large = np.array([1e-7 * knee.min(), 2e-7 * knee.min()]), np.array([1e7 * knee.max(), 2e7 * knee.max()])
    for sizes, slope in ((small, LAWS.rate_exponent), (large, np.zeros(VERSIONS))):
        log_best = LAWS.log_best_rate(sizes)
        assert np.diff(log_best, axis=1)[:, 0] / math.log(2) == pytest.approx(slope, abs=1e-5)
    assert LAWS.log_best_rate(large)[:, 0] == pytest.approx(LAWS.log_rate, abs=1e-5)
    assert ((LAWS.rate_exponent >= 0.5) & (LAWS.rate_exponent <= 1)).all()  # between the square root and linear


@settings(derandomize=True, deadline=None, max_examples=40)
@given(version=st.integers(0, VERSIONS - 1), size=st.floats(1, 1e5), far=st.floats(0.01, 10), level=st.floats(0, 1))
def test_the_penalty_is_nothing_at_the_best_rate_and_grows(version: int, size: float, far: float, level: float) -> None:
    fall = LAWS.rate_fall[version] * (1 - level)
    best = LAWS.log_best_rate(np.array([size]))[version, 0] + fall
    critical = LAWS.log_critical[version] - LAWS.critical_growth[version] * (1 - level)
    assert cost(LAWS, version, size, best, level) == pytest.approx(np.logaddexp(0, critical - math.log(size)))
    for sign, slope in ((-1, LAWS.slope_below[version]), (1, LAWS.slope_above[version])):
        near, further = (cost(LAWS, version, size, best + sign * off, level) for off in (far, 1.1 * far))
        assert cost(LAWS, version, size, best, level) < near < further
        # Far away a straight line; nowhere steeper.
        assert further - near <= slope * 0.1 * far * (1 + 1e-6)
        line = cost(LAWS, version, size, best + sign * 1001.0) - cost(LAWS, version, size, best + sign * 1000.0)
        assert line == pytest.approx(slope, rel=1e-4)


def test_known_step_costs_stay_known_and_others_follow_the_nearest() -> None:
    known = {16: 2e-3, 256: 3e-3}
    found = LAWS.log_step_costs([4, 16, 64, 128, 256, 4096], known)
    assert np.exp(found[:, 1]) == pytest.approx(np.full(VERSIONS, 2e-3))
    assert np.exp(found[:, 4]) == pytest.approx(np.full(VERSIONS, 3e-3))
    knee = np.exp(LAWS.log_knee)
    for column, size, near in ((0, 4, 16), (3, 128, 256), (5, 4096, 256)):
        by_law = known[near] * (1 + size / knee) / (1 + near / knee)
        assert np.exp(found[:, column]) == pytest.approx(by_law)
    assert np.exp(LAWS.log_step_costs([1, 1000], {})) == pytest.approx(np.column_stack([1 + 1 / knee, 1 + 1000 / knee]))


@pytest.mark.parametrize("knee", [20.0, 150.0, 1200.0])
def test_knees_lie_about_the_one_that_made_the_step_times(knee: float) -> None:
    generator = np.random.default_rng(0)
    sizes = [8, 32, 128, 512, 2048]
    noise = np.exp(0.03 * generator.standard_normal(len(sizes)))
    known = {size: 4e-4 * (1 + size / knee) * float(factor) for size, factor in zip(sizes, noise, strict=True)}
    found = LAWS.knowing(known)
    assert float(found.log_knee.mean()) == pytest.approx(math.log(knee), abs=0.35)
    assert float(found.log_knee.std()) < 0.5


def test_knees_are_drawn_anew_by_their_weights_and_nothing_else_changes() -> None:
    known = {10: 1.0, 100: 4.0}
    found = LAWS.knowing(known)
    misfit = np.log([1.0, 4.0]) - np.log1p(np.array([10.0, 100.0]) / np.exp(LAWS.log_knee)[:, None])
    squares = ((misfit - misfit.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    weights = np.exp(-0.5 * squares / STEP_COST_DEVIATION**2)
    weights /= weights.sum()
    mean = float(weights @ LAWS.log_knee)
    assert float(found.log_knee.mean()) == pytest.approx(mean, abs=0.01)
    deviation = math.sqrt(float(weights @ (LAWS.log_knee - mean) ** 2))
    assert float(found.log_knee.std()) == pytest.approx(deviation, rel=0.03)
    assert np.array_equal(np.argsort(found.log_knee), np.argsort(LAWS.log_knee))
    others = [field.name for field in fields(Laws) if field.name != "log_knee"]
    assert all(np.array_equal(getattr(found, name), getattr(LAWS, name)) for name in others)
    # A factor in all costs, or one cost alone, says nothing of the knee.
    assert LAWS.knowing({10: 7.0, 100: 28.0}).log_knee == pytest.approx(found.log_knee)
    assert LAWS.knowing({10: 7.0}) is LAWS


def test_the_likelihood_by_hand() -> None:
    off = math.log(0.03) - LAWS.log_best_rate(np.array([32.0]))[5, 0]
    assert LAWS.log_likelihood((32, 0.03))[5] == pytest.approx(-0.5 * (off / PRESENT_DEVIATION) ** 2)
    assert not LAWS.log_likelihood().any()


def test_versions_are_the_same_whenever_they_are_drawn() -> None:
    draw_laws.cache_clear()
    again = draw_laws(*rate_prior("SGD momentum"), 1e-3, 1.0)
    assert again is not LAWS
    for field in fields(Laws):
        found = getattr(again, field.name)
        assert found.shape == (VERSIONS,)
        assert np.array_equal(found, getattr(LAWS, field.name))


def test_the_optimizer_and_the_rates_say_where_the_best_rate_may_lie() -> None:
    plain, momentum, adam = (draw_laws(*rate_prior(name), 1e-5, 10.0) for name in ("SGD", "SGD momentum", "AdamW"))
    typical = [float(np.exp(np.median(laws.log_rate))) for laws in (plain, momentum, adam)]
    assert typical == pytest.approx([0.5, 0.15, 0.006], rel=0.1)
    mine = draw_laws(*rate_prior("mine", 1e-3), 1e-5, 10.0)
    assert float(np.exp(np.median(mine.log_rate))) == pytest.approx(1e-3, rel=0.1)
    unknown = draw_laws(*rate_prior("mine"), 1e-5, 10.0)  # any of them
    assert all(abs(np.log(rate) - np.mean(unknown.log_rate)) < 1.3 * np.std(unknown.log_rate) for rate in typical)
    narrow = draw_laws(*rate_prior("SGD"), 1e-4, 1e-3)
    assert narrow.log_rate.max() <= math.log(1e-3) + 1.5 + 1e-9
    assert narrow.log_rate.min() >= math.log(1e-4) - 0.5 - 1e-9
