"""The law of step time: exact recovery, twins, coverage; saturation and powers of two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from rightbatch.errors import InputError
from rightbatch.fit.step_time import (
    StepTimeFit,
    fit_step_time,
    median_error,
    median_seconds,
    powers_of_two,
    saturation,
)
from rightbatch.records import Interval, StepTime

# Each fit resamples two hundred times: fewer examples keep the file quick.
checked = settings(derandomize=True, deadline=None, max_examples=8)
quick = settings(derandomize=True, deadline=None, max_examples=60)

SIZES = (8, 32, 128, 512, 2048)
FLOOR, ALPHA, BETA = 1e-3, 5e-4, 1e-5


def record(size: int, seconds: Sequence[float]) -> StepTime:
    return StepTime(size, tuple(float(s) for s in seconds), (0.0,) * len(seconds))


def law(size: float, floor: float = FLOOR, alpha: float = ALPHA, beta: float = BETA) -> float:
    return max(floor, alpha + beta * size)


def simulated(seed: int, *, rounds: int = 9, deviation: float = 0.02, sizes: Sequence[int] = SIZES) -> list[StepTime]:
    generator = np.random.default_rng(seed)
    return [record(b, law(b) * np.exp(deviation * generator.standard_normal(rounds))) for b in sizes]


def parameters(fit: StepTimeFit) -> list[float]:
    return [fit.floor_seconds.estimate, fit.alpha_seconds.estimate, fit.beta_seconds.estimate]


# -------------------------------------------------------------------------------------------------------- the law


@checked
@given(st.floats(1e-5, 1), st.floats(1e-7, 1e-3))
def test_times_on_a_line_give_its_parameters_and_no_other_floor(alpha: float, beta: float) -> None:
    fit = fit_step_time([record(b, [alpha + beta * b] * 3) for b in SIZES])
    assert fit.beta_seconds.estimate == pytest.approx(beta, rel=1e-5)
    assert fit.alpha_seconds.estimate == pytest.approx(alpha, rel=1e-5)
    assert fit.floor_seconds.estimate == pytest.approx(alpha, rel=1e-5)
    assert fit.deviation == pytest.approx(0, abs=1e-7)


@checked
@given(st.floats(1.5, 5))
def test_times_with_a_floor_give_all_three_parameters(floor_factor: float) -> None:
    # The first two sizes lie on the floor, the other three on the line.
    floor = (ALPHA + BETA * 32) * floor_factor
    sizes = (8, 32, 1024, 2048, 4096)
    fit = fit_step_time([record(b, [law(b, floor)] * 3) for b in sizes])
    assert parameters(fit) == pytest.approx([floor, ALPHA, BETA], rel=1e-5)
    assert fit.predict(16) == pytest.approx(floor)
    assert fit.predict(3000) == pytest.approx(ALPHA + BETA * 3000)


@pytest.mark.parametrize("order", [(4, 3, 2, 1, 0), (0, 2, 1, 3, 4), (3, 0, 4, 1, 2)])
def test_the_order_in_which_sizes_were_measured_does_not_matter(order: tuple[int, ...]) -> None:
    records = simulated(0)
    assert parameters(fit_step_time([records[k] for k in order])) == pytest.approx(parameters(fit_step_time(records)))


@checked
@given(st.floats(1e-3, 1e3), st.integers(0, 20))
def test_the_unit_of_time_only_scales_the_fit(unit: float, seed: int) -> None:
    records = simulated(seed)
    fit = fit_step_time(records)
    other = fit_step_time([record(r.batch_size, [unit * s for s in r.seconds]) for r in records])
    assert parameters(other) == pytest.approx([unit * p for p in parameters(fit)], rel=1e-6)
    assert other.deviation == pytest.approx(fit.deviation, rel=1e-6)


@checked
@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_line_through_two_sizes_never_has_a_negative_parameter(first: float, second: float) -> None:
    fit = fit_step_time([record(4, [first] * 3), record(16, [second] * 3)])
    design = np.array([[1, 4], [1, 16]]) / np.array([[first], [second]])
    twin, _ = optimize.nnls(design, np.ones(2))
    assert [fit.alpha_seconds.estimate, fit.beta_seconds.estimate] == pytest.approx(list(twin), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_no_other_parameters_have_smaller_relative_errors_when_the_floor_is_clear(seed: int) -> None:
    records = simulated(seed, sizes=(2, 8, 16, 512, 1024, 2048))
    fit = fit_step_time(records)
    times = np.array([median_seconds(r) for r in records])
    sizes = np.array([r.batch_size for r in records])

    def squares(logs: np.ndarray) -> float:
        floor, alpha, beta = np.exp(logs)
        return float((((np.maximum(floor, alpha + beta * sizes) - times) / times) ** 2).sum())

    start = np.log([FLOOR, ALPHA, BETA])
    twin = optimize.minimize(squares, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-16})
    assert parameters(fit) == pytest.approx(list(np.exp(twin.x)), rel=1e-3)


def test_one_slow_repeat_does_not_move_the_fit() -> None:
    records = simulated(0)
    slow = [record(r.batch_size, [*r.seconds[:-1], max(r.seconds) * 50]) for r in records]
    assert parameters(fit_step_time(slow)) == pytest.approx(parameters(fit_step_time(records)), rel=0.05)


def test_the_law_recovers_its_own_simulation_with_intervals_that_mostly_cover() -> None:
    covered = []
    for seed in range(20):
        fit = fit_step_time(simulated(seed, rounds=15))
        assert parameters(fit) == pytest.approx([FLOOR, ALPHA, BETA], rel=0.1)
        for interval, truth in zip(
            (fit.floor_seconds, fit.alpha_seconds, fit.beta_seconds), (FLOOR, ALPHA, BETA), strict=True
        ):
            assert interval.estimate in interval
            covered.append(truth in interval)
    # Resampled medians of fifteen repeats: near the nominal 95 %, not exactly there.
    assert np.mean(covered) >= 0.85


def test_the_same_measurements_give_the_same_intervals() -> None:
    assert fit_step_time(simulated(3)) == fit_step_time(simulated(3))


def test_one_size_is_too_few() -> None:
    with pytest.raises(InputError, match="at least two batch sizes, got 1"):
        fit_step_time([record(8, [1.0])])


# ------------------------------------------------------------------------------------------------- medians and errors


@quick
@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=9))
def test_the_median_is_the_middle_of_the_sorted_repeats(seconds: list[float]) -> None:
    ordered = sorted(seconds)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    assert median_seconds(record(8, seconds)) == pytest.approx(middle)


def test_the_error_of_the_median_is_what_medians_of_new_repeats_show() -> None:
    generator = np.random.default_rng(0)
    draws = np.exp(0.1 * generator.standard_normal((2000, 25)))
    claimed = np.mean([median_error(record(8, d)) for d in draws])
    assert claimed == pytest.approx(np.std(np.log(np.median(draws, axis=1))), rel=0.1)


@pytest.mark.parametrize(("count", "rel"), [(3, 0.2), (5, 0.2), (9, 0.2), (25, 0.1)])
def test_the_error_of_the_median_of_few_repeats_is_right_on_average(count: int, rel: float) -> None:
    draws = np.exp(0.1 * np.random.default_rng(1).standard_normal((2000, count)))
    claimed = np.mean([median_error(record(8, d)) for d in draws])
    assert claimed == pytest.approx(np.std(np.log(np.median(draws, axis=1))), rel=rel)


def test_the_error_of_the_median_by_hand() -> None:
    # Of 3 repeats the median lies between the first and the last with a probability of 3/4, 1.1503 deviations.
    assert median_error(record(8, [1.0, 4.0, 2.0])) == pytest.approx(math.log(4) / (2 * 1.15035), rel=1e-4)
    # Of 9 it lies between the second and the eighth with 1 - 2 x 10 / 512 = 0.9609: one that stands out is borne.
    assert median_error(record(8, [9.0, 2.0, *[3.0] * 5, 4.0, 1e6])) == pytest.approx(
        math.log(9 / 3) / (2 * 2.0635), rel=1e-3
    )
    assert median_error(record(8, [1.0, *[1.1] * 7, 1e6])) == 0


def test_half_of_the_repeats_on_a_busy_machine_are_an_error_of_the_median() -> None:
    assert median_error(record(8, [1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0])) > 0.25


@pytest.mark.parametrize("seconds", [[1.0], [3.0, 3.0], [3.0, 3.0, 3.0, 3.0]])
def test_one_or_equal_repeats_have_no_error(seconds: list[float]) -> None:
    assert median_error(record(8, seconds)) == 0


# ---------------------------------------------------------------------------------------------------------- saturation


def test_throughput_saturates_at_the_first_size_with_nine_tenths_of_the_best() -> None:
    speeds = {8: 100.0, 16: 180.0, 32: 271.0, 64: 300.0, 128: 290.0}
    found = saturation([record(b, [b / speed] * 3) for b, speed in speeds.items()])
    assert (found.batch_size, found.peak_batch_size, found.at_edge) == (32, 64, False)
    assert found.examples_per_second == pytest.approx(271)
    assert found.peak_examples_per_second == pytest.approx(300)


@quick
@given(st.dictionaries(st.integers(1, 4096), st.floats(1e-4, 1), min_size=1, max_size=8), st.randoms())
def test_the_size_of_saturation_is_the_smallest_that_is_fast_enough(times: dict[int, float], random: object) -> None:
    records = [record(b, [t]) for b, t in times.items()]
    found = saturation(records)
    peak = max(b / t for b, t in times.items())
    assert found.peak_examples_per_second == pytest.approx(peak)
    assert found.batch_size == min(b for b, t in times.items() if b / t >= 0.9 * peak)
    assert saturation(records[::-1]) == found


def test_a_largest_size_that_is_still_the_fastest_is_said_to_be_at_the_edge() -> None:
    assert saturation([record(b, [law(b)]) for b in SIZES]).at_edge


# ------------------------------------------------------------------------------------------------------ powers of two


def around(size: int, factor: float, seed: int = 0, *, deviation: float = 0.01) -> list[StepTime]:
    """A size and its two neighbours in rounds that drift together, the middle one `factor` times as slow."""
    generator = np.random.default_rng(seed)
    drift = np.exp(0.2 * generator.standard_normal(15))
    return [
        record(b, drift * law(b) * (factor if b == size else 1) * np.exp(deviation * generator.standard_normal(15)))
        for b in (size - 1, size, size + 1)
    ]


def test_a_special_power_of_two_is_seen_through_drift_that_its_neighbours_share() -> None:
    (found,) = powers_of_two(around(256, 0.9))
    assert found.batch_size == 256
    assert found.ratio.estimate == pytest.approx(0.9, abs=0.01)
    assert found.differs


def test_a_power_of_two_like_its_neighbours_rarely_differs() -> None:
    found = [powers_of_two(around(256, 1.0, seed))[0] for seed in range(40)]
    assert np.mean([1.0 in f.ratio for f in found]) >= 0.85
    assert not any(f.differs for f in found)


def test_what_matters_is_both_sure_and_at_least_two_percent() -> None:
    (one,) = powers_of_two(around(64, 1.01, deviation=1e-4))
    assert 1.0 not in one.ratio
    assert not one.differs
    (two,) = powers_of_two(around(64, 1.03, deviation=1e-4))
    assert two.differs


def test_only_powers_of_two_from_four_with_both_neighbours_are_judged() -> None:
    sizes = (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 32, 33, 63, 64, 65, 99, 100, 101)
    found = powers_of_two([record(b, [law(b)] * 3) for b in reversed(sizes)])
    assert [f.batch_size for f in found] == [4, 8, 64]


@quick
@given(st.lists(st.tuples(*[st.floats(0.1, 10)] * 3), min_size=1, max_size=9))
def test_the_ratio_is_the_median_over_rounds_and_lies_in_its_interval(rounds: list[tuple[float, ...]]) -> None:
    columns = list(zip(*rounds, strict=True))
    (found,) = powers_of_two([record(b, c) for b, c in zip((7, 8, 9), columns, strict=True)])
    ratios = [math.log(m / math.sqrt(a * b)) for a, m, b in rounds]
    assert found.ratio.estimate == pytest.approx(math.exp(float(np.median(ratios))))
    assert isinstance(found.ratio, Interval)
    assert found.ratio.estimate in found.ratio
