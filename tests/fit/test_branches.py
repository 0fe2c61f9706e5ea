"""The local critical size: by hand, against an independent t interval, and on branches whose expected loss is exact."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from rightbatch.errors import InputError
from rightbatch.fit.branches import (
    BEST,
    LEVEL,
    OWN_RATE,
    RULES,
    Fork,
    base_rate,
    best_of,
    difference,
    fork_of,
    local_critical_size,
    surely_fails,
    tolerance_of,
)
from rightbatch.records import Interval

# ------------------------------------------------------------------------------------------------- differences


def test_a_difference_is_the_paired_t_interval() -> None:
    draw = np.random.default_rng(0)
    base, losses = draw.normal(1.0, 0.5, 6), draw.normal(1.1, 0.5, 6)
    found = difference(base, losses)
    paired = stats.ttest_rel(losses, base).confidence_interval(LEVEL)
    assert (found.low, found.high) == pytest.approx((paired.low, paired.high))
    assert found.estimate == pytest.approx(np.mean(losses) - np.mean(base))
    assert found.level == LEVEL


def test_what_all_branches_share_is_no_noise() -> None:
    """The orders of the data differ by much more than the sizes do: pairs see the difference nevertheless."""
    shared = np.array([1.0, 2.0, 3.0])
    found = difference(shared, shared + np.array([0.10, 0.11, 0.12]))
    assert found.low is not None
    assert 0.09 < found.low < found.estimate == pytest.approx(0.11)


def test_a_branch_that_diverged_surely_fails() -> None:
    assert surely_fails([1.0, 1.0, 1.0], [1.0, math.inf, 1.0], 100.0)
    assert difference([1.0, 1.0], [math.nan, 1.0]).estimate == math.inf
    assert not surely_fails([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], 0.01)


@pytest.mark.parametrize(("base", "losses"), [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([], [])])
def test_pairs_are_asked_for(base: list[float], losses: list[float]) -> None:
    with pytest.raises(InputError, match="at least 2 seeds"):
        difference(base, losses)


# -------------------------------------------------------------------------------------------------- local sizes


def sure(value: float) -> Interval:
    return Interval(value, value, value, LEVEL)


@pytest.mark.parametrize(
    ("differences", "estimate", "low", "high"),
    [
        ({2: sure(0.0), 4: sure(0.5), 8: sure(1.5)}, 4 * math.sqrt(2), 4, 8),
        ({2: sure(2.0)}, math.sqrt(2), 1, 2),
        ({2: sure(-1.0), 4: sure(1.0)}, math.inf, 4, math.inf),  # at most the tolerance keeps up
        ({2: sure(0.0), 4: sure(math.inf)}, 2, 2, 4),  # diverged: nothing to interpolate with
        ({2: sure(0.0), 4: sure(3.0), 8: sure(0.0)}, 2 * 2 ** (1 / 3), 2, 4),  # keeps up, but 4 did not
        ({2: Interval(0.5, 0.0, 1.1), 4: Interval(1.5, 0.9, 2.0), 8: sure(9.0)}, 2 * math.sqrt(2), 1, 8),
        ({8: sure(2.0), 2: sure(0.0)}, 2 * 2**1.0, 2, 8),  # in any order
        ({}, math.inf, 1, math.inf),
    ],
)
def test_local_sizes_by_hand(differences: dict[int, Interval], estimate: float, low: float, high: float) -> None:
    found = local_critical_size("sqrt", 10, differences, 1.0, 5.0)
    assert found.size.estimate == pytest.approx(10 * estimate)
    assert (found.size.low, found.size.high) == (10 * low, 10 * high)
    assert (found.rule, found.largest_tried, found.telling) == ("sqrt", 10 * max(differences, default=1), True)
    assert not local_critical_size("sqrt", 10, differences, 1.0, 1.0).telling


INTERVALS = st.tuples(st.floats(-3, 3), st.floats(0, 2)).map(
    lambda pair: Interval(pair[0], pair[0] - pair[1], pair[0] + pair[1], LEVEL)
)


@given(st.dictionaries(st.sampled_from([2, 4, 8, 16]), INTERVALS), st.floats(0.01, 1), st.floats(1, 2))
def test_the_interval_holds_the_estimate_and_a_larger_tolerance_lets_no_size_fall(
    differences: dict[int, Interval], tolerance: float, more: float
) -> None:
    strict = local_critical_size("linear", 8, differences, tolerance, 1.0).size
    lax = local_critical_size("linear", 8, differences, tolerance * more, 1.0).size
    for size in (strict, lax):
        assert size.low is not None
        assert size.high is not None
        assert 8 <= size.low <= size.estimate * (1 + 1e-12)
        assert size.estimate <= size.high * (1 + 1e-12)
    assert strict.estimate <= lax.estimate * (1 + 1e-12)
    assert (strict.low, strict.high) <= (lax.low, lax.high)


# ------------------------------------------------------------------------------------------- the best of rules


def test_the_best_of_equal_rates_is_no_better_than_one_of_them() -> None:
    """The lowest mean of three would be: by 0.85 standard errors."""
    draw = np.random.default_rng(1)
    naive, fair = [], []
    for _ in range(4000):
        cells = draw.normal(0.0, 1.0, (3, 3))
        naive.append(cells.mean(axis=1).min())
        fair.append(np.mean(best_of(cells)))
    error = float(np.std(fair)) / math.sqrt(len(fair))
    assert abs(np.mean(fair)) < 3 * error
    assert np.mean(naive) < -20 * error


def test_the_best_is_the_one_that_is_clearly_best_and_never_one_that_diverged() -> None:
    assert best_of([[2.0, 2.1, 2.2], [1.0, 1.1, 0.9], [math.inf, 0.0, 0.0]]) == (1.0, 1.1, 0.9)
    assert best_of([[2.0, 2.1], [1.0, 1.1]]) == (1.0, 1.1)
    assert best_of([[math.inf, 1.0], [math.inf, math.inf]])[0] == math.inf


def test_rates_of_the_base_weigh_an_example_as_the_rules_do() -> None:
    assert [base_rate("linear", k) for k in (2, 4, 16)] == [1.0, 1.0, 1.0] == 3 * [OWN_RATE]
    assert [base_rate("sqrt", k) for k in (4, 16)] == [0.5, 0.25]
    assert base_rate("constant", 2) == base_rate("sqrt", 4)
    for name, rule in RULES.items():
        assert rule(1) == 1, name


def made_fork(base: dict[float, float], losses: dict[str, dict[int, float]]) -> Fork:
    """With three seeds that differ alike everywhere."""
    spread = np.array([-0.1, 0.0, 0.1])

    def cell(value: float) -> tuple[float, ...]:
        return tuple((value + spread).tolist())

    return fork_of(
        step=0,
        learning_rate=0.1,
        loss=2.0,
        batch_size=32,
        base={rate: cell(value) for rate, value in base.items()},
        losses={rule: {k: cell(value) for k, value in of_rule.items()} for rule, of_rule in losses.items()},
        tolerance=0.05,
    )


def test_where_a_lower_rate_wins_anyway_only_the_best_is_not_fooled() -> None:
    """A trunk with too high a rate: less rate for an example helps, at its own batch size as well."""
    fork = made_fork({1.0: 1.0, 0.5: 0.5}, {"linear": {2: 1.2}, "constant": {2: 0.9}})
    linear, constant, best = fork.sizes
    assert (linear.rule, constant.rule, best.rule) == ("linear", "constant", BEST)
    assert fork.rate_too_high
    assert linear.size.high == 64
    assert (constant.size.low, constant.size.high) == (64, math.inf)
    assert (best.size.low, best.size.high) == (32, 64)
    assert (constant.gain, best.gain) == pytest.approx((1.0, 1.5))
    assert fork.best is best
    assert not made_fork({1.0: 0.5, 0.5: 1.0}, {"constant": {2: 1.0}}).rate_too_high


def test_a_size_is_not_bad_by_a_bad_rate() -> None:
    base = {1.0: 1.0, base_rate("sqrt", 2): 1.2, 0.5: 1.3}
    fork = made_fork(base, {"linear": {2: 1.0, 4: 9.0}, "sqrt": {2: 1.02, 4: 1.01}})
    assert [found.size.low for found in fork.sizes] == [64, 128, 128]
    assert [found.size.high for found in fork.sizes] == [128, math.inf, math.inf]


@pytest.mark.parametrize(
    ("base", "given", "said"),
    [([2.0, 4.0], None, None), ([-1.0, -1.0], None, "1 % of the mean loss -1"), ([1.0], 0.0, "positive difference")],
)
def test_tolerances(base: list[float], given: float | None, said: str | None) -> None:
    if said is None:
        assert tolerance_of(base, given) == pytest.approx(0.03)
        return
    with pytest.raises(InputError, match=said):
        tolerance_of(base, given)


# ------------------------------------------------------------------ coverage, on a model that is known exactly

HESSIAN = 1.0 / np.arange(1, 33)


def moments(start: np.ndarray, steps: float, rate: float, size: float) -> np.ndarray:
    """E[theta^2] of the noisy quadratic after plain SGD, from given second moments."""
    decay = (1 - rate * HESSIAN) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        summed = np.where(np.abs(1 - decay) < 1e-12, steps, (1 - decay**steps) / (1 - decay))
    return decay**steps * start + rate**2 * HESSIAN / size * summed


def trained(draw: np.random.Generator, theta: np.ndarray, steps: int, rate: float, size: int) -> np.ndarray:
    """One such SGD, step by step."""
    for _ in range(steps):
        noise = draw.normal(size=len(theta)) * np.sqrt(HESSIAN / size)
        theta = theta - rate * (HESSIAN * theta + noise)
    return theta


def loss_of(squares: np.ndarray) -> float:
    return float(0.5 * np.sum(HESSIAN * squares))


def exact_size(loss: Callable[[float], float], factors: tuple[int, ...], tolerance: float) -> float:
    """The factor at which the exact difference first crosses the tolerance, infinite if it does not."""
    before = 1
    for factor in factors:
        if loss(factor) - loss(1) > tolerance:
            return float(brentq(lambda k: loss(k) - loss(1) - tolerance, before, factor))
        before = factor
    return math.inf


def test_intervals_hold_the_exact_local_size() -> None:
    """Each bound is wrong in at most 5 %, and a size between two of those tried is hardly missed at all."""
    rate, size, factors, examples = 0.5, 4, (2, 4, 8), 128
    draw, held, told = np.random.default_rng(2), 0, 0
    repeats = 150
    for _ in range(repeats):
        theta = trained(draw, np.ones(len(HESSIAN)), 16, rate, size)

        def exact(k: float, start: np.ndarray = theta) -> float:
            return loss_of(moments(start**2, examples / (k * size), rate * math.sqrt(k), k * size))

        tolerance = 0.4 * exact(1)
        true = size * exact_size(exact, factors, tolerance)

        def branch(k: int, seeds: int = 4, start: np.ndarray = theta) -> tuple[float, ...]:
            ends = (trained(draw, start, examples // (k * size), rate * math.sqrt(k), k * size) for _ in range(seeds))
            return tuple(loss_of(end**2) for end in ends)

        base = branch(1)
        found = local_critical_size(
            "sqrt", size, {k: difference(base, branch(k)) for k in factors}, tolerance, math.inf
        ).size
        assert found.low is not None
        assert found.high is not None
        held += found.low <= true <= found.high
        told += math.isfinite(found.high) or found.low > size
    assert held >= 0.93 * repeats
    assert told >= 0.5 * repeats  # else the interval would hold everything by saying nothing
