"""The belief: against Gaussian conditioning written out with loops, against truncated normals, and on its own draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.fit.noise import CriticalPrior
from rightbatch.records import Interval
from rightbatch.search.belief import FEWEST_VERSIONS, NOISE, SEED_FREEDOM, Noise, believe, spread
from rightbatch.search.laws import Laws, draw_laws, rate_prior
from rightbatch.search.progress import SHARES, Progress

Array = npt.NDArray[np.float64]
Row = tuple[int, float, float, int]
"""Batch size, rate, level, and the number of the run (-1: the mean over seeds)."""

ALL = draw_laws(*rate_prior("SGD momentum"), 1e-3, 1.0)
LEVELS: tuple[float, ...] = tuple(np.linspace(0, 1, len(SHARES)).tolist())
SIZES, RATES = (16, 64, 256, 1024), (0.01, 0.0316, 0.1, 0.316)
CELLS = [(size, rate) for size in SIZES for rate in RATES]
COSTS = {size: 1e-3 * (1 + size / 200) for size in SIZES}


def version(k: int) -> Laws:
    """One version of the laws alone."""
    return Laws(**{field.name: getattr(ALL, field.name)[k : k + 1] for field in fields(Laws)})


def run_at(
    size: int,
    rate: float,
    levels: Sequence[float] = (),
    log_costs: Sequence[float] = (),
    *,
    seed: int = 0,
    **how: object,
) -> Progress:
    """A run that passed these levels; it is at the target where the last one is 1."""
    reached = bool(levels) and levels[-1] == 1
    later = [level for level in LEVELS if not levels or level > levels[-1]]
    run = Progress(
        batch_size=size,
        learning_rate=rate,
        seed=seed,
        levels=tuple(levels),
        log_costs=tuple(log_costs),
        steps=100,
        cost=math.exp(log_costs[-1]) if log_costs else 0.1,
        share=levels[-1] if levels else 0.0,
        next_level=None if reached else later[0],
        diverged=False,
        stalled=False,
        ended=reached,
    )
    return replace(run, **how)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- the slow twin


def law_of(laws: Laws, row: Row) -> float:
    """The law of a single version at a known step cost, as its module says it in words."""
    size, rate, level, _ = row
    one = {field.name: float(getattr(laws, field.name)[0]) for field in fields(Laws)}
    critical = math.exp(one["log_critical"] - one["critical_growth"] * (1 - level))
    knee = math.exp(one["log_rate_knee"])
    best = math.exp(one["log_rate"]) / (1 + knee / size) ** one["rate_exponent"]
    best *= math.exp(one["rate_fall"] * (1 - level))
    off = math.log(rate / best)
    slope = one["slope_below"] if off < 0 else one["slope_above"]
    penalty = slope * (math.sqrt(off**2 + one["width"] ** 2) - one["width"])
    return math.log(COSTS[size]) + math.log(1 + critical / size) + penalty


def covariance_of(a: Row, b: Row, noise: Noise) -> float:
    """The kernel between two places."""
    gap = abs(a[2] - b[2])
    sizes = math.log(a[0] / b[0]) / noise.size_length
    rates = math.log(a[1] / b[1]) / noise.rate_length
    total = noise.offset**2 + noise.slope**2 * (1 - a[2]) * (1 - b[2])
    total += noise.bend**2 * math.sqrt(1 - a[2]) * math.sqrt(1 - b[2])
    total += noise.curve**2 * math.exp(-(gap**2) / (2 * noise.curve_length**2))
    total += noise.misfit**2 * math.exp(-(sizes**2 + rates**2) / 2 - gap / noise.level_length)
    if a[:2] == b[:2]:
        total += noise.own**2
    if a[3] == b[3] >= 0:
        total += noise.seed**2 * math.exp(-gap / noise.seed_length)
    return total


def kernel(a: Sequence[Row], b: Sequence[Row], noise: Noise) -> Array:
    return np.array([[covariance_of(one, other, noise) for other in b] for one in a])


def expected(laws: Laws, rows: Sequence[Row], noise: Noise) -> Array:
    return np.array([law_of(laws, row) - noise.mean_slope * (1 - row[2]) for row in rows])


def conditioned(laws: Laws, known: dict[Row, float], wanted: Sequence[Row], noise: Noise) -> tuple[Array, Array]:
    """Mean and covariance of what is wanted, one observation after the other: no linear system is solved."""
    rows = [*known, *wanted]
    mean, covariance = expected(laws, rows, noise), kernel(rows, rows, noise)
    for k, value in enumerate(known.values()):
        gain = covariance[:, k] / (covariance[k, k] + noise.level**2)
        mean = mean + gain * (value - mean[k])
        covariance = covariance - np.outer(gain, covariance[k, :])
    return mean[len(known) :], covariance[len(known) :, len(known) :]


def observed(runs: Sequence[Progress]) -> dict[Row, float]:
    """What the runs passed, and its log cost."""
    return {
        (*run.cell, level, k): value
        for k, run in enumerate(runs)
        for level, value in zip(run.levels, run.log_costs, strict=True)
    }


RUNS = (
    run_at(64, 0.1, LEVELS[-3:], (1.0, 1.3, 1.7)),
    run_at(64, 0.1, LEVELS[-2:], (1.1, 1.5), seed=1),
    run_at(256, 0.1, LEVELS[-4:], (0.4, 0.9, 1.2, 1.9)),
    # Of a stalled run only what it passed counts.
    run_at(16, 0.316, LEVELS[2:6], (-0.2, 0.2, 0.6, 1.1), stalled=True),
    run_at(1024, 0.316, (), (), diverged=True, ended=True),
)


@pytest.mark.parametrize("k", [0, 5, 511])
def test_with_one_version_and_no_bounds_it_is_plain_gaussian_conditioning(k: int) -> None:
    laws = version(k)
    found = believe(CELLS, laws, RUNS, COSTS)
    costs = np.array([1.7, 1.5])
    noise = replace(NOISE, seed=math.sqrt((SEED_FREEDOM * NOISE.seed**2 + 2 * costs.var()) / (SEED_FREEDOM + 1)))
    known = observed(RUNS)
    assert found.paused == (RUNS[3],)
    mean, covariance = conditioned(laws, known, [*((*cell, 1.0, -1) for cell in CELLS), (16, 0.316, 1.0, 3)], noise)
    assert found.mean == pytest.approx(mean, abs=1e-6)
    assert found.covariance == pytest.approx(covariance, abs=1e-6)
    assert found.critical_batch_size.estimate == pytest.approx(float(np.exp(laws.log_critical[0])))


def test_versions_are_weighed_by_how_well_they_explain() -> None:
    laws = Laws(**{field.name: getattr(ALL, field.name)[[11, 81]] for field in fields(Laws)})
    runs = RUNS[:3]
    noise = replace(NOISE, seed=believe(CELLS, laws, runs, {}).seed_deviation)
    known = observed(runs)
    rows = list(known)
    alone, logs = [], []
    for k in (11, 81):
        whole = kernel(rows, rows, noise) + noise.level**2 * np.eye(len(rows))
        misfit = np.array(list(known.values())) - expected(version(k), rows, noise)
        logs.append(-0.5 * misfit @ np.linalg.solve(whole, misfit))
        alone.append(conditioned(version(k), known, [(*cell, 1.0, -1) for cell in CELLS], noise))
    share = 1 / (1 + math.exp(logs[1] - logs[0]))
    assert 0.1 < share < 0.9
    mean = share * alone[0][0] + (1 - share) * alone[1][0]
    between = share * (1 - share) * np.outer(alone[0][0] - alone[1][0], alone[0][0] - alone[1][0])
    found = believe(CELLS, laws, runs, COSTS)
    assert found.mean == pytest.approx(mean, abs=1e-6)
    assert found.covariance == pytest.approx(alone[0][1] + between, abs=1e-6)


# -------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("standard", [-1.5, -0.5, 0.0, 0.7, 1.5, 2.5])
def test_a_bound_leaves_the_moments_of_a_truncated_normal(standard: float) -> None:
    # Without the noise of a crossing and what a run may be late for, the run itself lies above its bound.
    noise = replace(NOISE, level=1e-6, bound=0.0)
    cell = (64, 0.1)
    prior = believe([cell], version(7), (), COSTS, noise=noise)
    centre, deviation = float(prior.mean[0]), math.sqrt(prior.covariance[0, 0] + noise.seed**2)
    late = run_at(*cell, (), (), next_level=1.0, cost=math.exp(centre + standard * deviation))
    found = believe([cell], version(7), (late,), COSTS, noise=noise)
    assert found.paused == (late,)
    mean, variance = scipy.stats.truncnorm.stats(standard, math.inf, loc=centre, scale=deviation)
    assert found.mean[1] == pytest.approx(float(mean), rel=1e-6)
    assert found.covariance[1, 1] == pytest.approx(float(variance), rel=1e-4)
    # The cell is moved by its share of the variance of the run.
    assert found.mean[0] - centre == pytest.approx((mean - centre) * (1 - (noise.seed / deviation) ** 2), rel=1e-4)


def test_a_bound_far_below_what_is_expected_says_nothing() -> None:
    late = run_at(64, 0.1, (), (), next_level=1.0, cost=1e-9)
    with_it, without = believe(CELLS, ALL, (late,), COSTS), believe(CELLS, ALL, (), COSTS)
    assert np.array_equal(with_it.mean[: len(CELLS)], without.mean)
    assert with_it.covariance[: len(CELLS), : len(CELLS)] == pytest.approx(without.covariance, abs=1e-9)


def test_a_run_that_is_late_makes_its_cell_dearer_and_one_that_diverged_says_nothing() -> None:
    row = CELLS.index((64, 0.1))
    before = believe(CELLS, ALL, RUNS[:1], COSTS)
    cost = 3 * math.exp(before.mean[row])
    late = believe(CELLS, ALL, (RUNS[0], run_at(64, 0.1, seed=1, next_level=1.0, cost=cost)), COSTS)
    assert late.mean[row] > before.mean[row] + 0.02
    gone = run_at(64, 0.1, seed=1, diverged=True, ended=True, next_level=0.5, cost=cost)
    assert np.array_equal(believe(CELLS, ALL, (RUNS[0], gone), COSTS).mean, before.mean)


# ---------------------------------------------------------------------------------------------------- invariants


@st.composite
def progress_sets(draw: st.DrawFn) -> list[Progress]:
    cells = draw(st.lists(st.sampled_from(CELLS), min_size=1, max_size=4))
    runs = []
    for seed, cell in enumerate(cells):
        last = draw(st.integers(0, len(LEVELS)))
        levels = LEVELS[max(0, last - 4) : last]
        gains = draw(st.lists(st.floats(0.01, 2), min_size=len(levels), max_size=len(levels)))
        log_costs = [float(value) for value in np.cumsum(gains) - 2]
        how = {"stalled": draw(st.booleans())} if last < len(LEVELS) else {}
        runs.append(run_at(*cell, levels, log_costs, seed=seed, **how))
    return runs


@settings(derandomize=True, deadline=None, max_examples=25)
@given(runs=progress_sets())
def test_covariances_are_symmetric_and_positive(runs: list[Progress]) -> None:
    found = believe(CELLS, ALL, runs, COSTS)
    covariance = found.covariance
    assert covariance.shape == (len(CELLS) + len(found.paused),) * 2
    assert covariance == pytest.approx(covariance.T, abs=1e-9)
    assert np.linalg.eigvalsh((covariance + covariance.T) / 2).min() > -1e-8
    assert np.diag(covariance).min() > 0
    assert np.isfinite(found.mean).all()


def test_more_evidence_at_a_cell_lowers_its_variance() -> None:
    row, laws = CELLS.index((64, 0.1)), version(3)
    runs = [run_at(64, 0.1, LEVELS[-1 - k :], np.linspace(1 - 0.3 * k, 1, 1 + k).tolist(), seed=k) for k in range(3)]
    variances = [believe(CELLS, laws, runs[:k], COSTS).covariance[row, row] for k in range(4)]
    assert (np.diff(variances) < 0).all()
    half_way = run_at(64, 0.1, LEVELS[5:8], (0.0, 0.3, 0.5), stalled=True)
    assert variances[1] < believe(CELLS, laws, [half_way], COSTS).covariance[row, row] < variances[0]


def test_the_deviation_of_seeds_is_pooled_with_its_prior() -> None:
    costs = {(64, 0.1): (1.0, 1.2, 1.4), (256, 0.1): (0.5, 0.9), (16, 0.1): (3.0,)}
    runs = [
        run_at(*cell, (1.0,), (value,), seed=seed)
        for cell, values in costs.items()
        for seed, value in enumerate(values)
    ]
    by_hand = (0.2**2 + 0.0**2 + 0.2**2) + (0.2**2 + 0.2**2)
    wanted = math.sqrt((SEED_FREEDOM * NOISE.seed**2 + by_hand) / (SEED_FREEDOM + 3))
    assert believe(CELLS, ALL, runs, COSTS).seed_deviation == pytest.approx(wanted)
    # Runs that are not at the target differ for other reasons.
    short = run_at(16, 0.1, (0.5,), (9.0,), seed=1)
    assert believe(CELLS, ALL, [*runs, short], COSTS).seed_deviation == pytest.approx(wanted)
    assert believe(CELLS, ALL, (), COSTS).seed_deviation == NOISE.seed


# ----------------------------------------------------------------------------------- it recovers its own simulation


EVERY_OTHER = Laws(**{field.name: getattr(ALL, field.name)[::2] for field in fields(Laws)})
"""The versions that are believed where the truth is one of the rest, and thus none of them."""


def simulated(seed: int) -> tuple[list[Progress], dict[tuple[int, float], float], float]:
    """Six runs, as far as they got for a given cost, and what the other cells truly cost: a draw of the prior.

    And its critical size.
    """
    generator = np.random.default_rng(seed)
    order = [CELLS[k] for k in generator.permutation(len(CELLS))]
    tried, others = order[:5], order[5:9]
    runs = [*enumerate(tried), (5, tried[0])]
    rows: list[Row] = [(*cell, level, k) for k, cell in runs for level in LEVELS]
    rows += [(*cell, 1.0, -1) for cell in others]
    root = np.linalg.cholesky(kernel(rows, rows, NOISE) + 1e-9 * np.eye(len(rows)))
    laws = version(1 + 2 * int(generator.integers(len(ALL.log_knee) // 2)))
    truth = expected(laws, rows, NOISE) + root @ generator.standard_normal(len(rows))
    found = []
    for k, cell in runs:
        seen = truth[k * len(LEVELS) : (k + 1) * len(LEVELS)] + NOISE.level * generator.standard_normal(len(LEVELS))
        # The first two go to the target, the others up to a cost that does not depend on what they show.
        allowed = math.inf if k < 2 else float(np.median(truth)) + 0.5 * k - 1.0
        passed = int(np.argmax(seen > allowed)) if (seen > allowed).any() else len(LEVELS)
        kept = slice(max(0, passed - 4), passed)
        cost = math.exp(min(allowed, seen[-1]))
        found.append(run_at(*cell, LEVELS[kept], seen[kept].tolist(), seed=k, cost=cost))
    costs = dict(zip(others, truth[-len(others) :].tolist(), strict=True))
    return found, costs, math.exp(laws.log_critical[0])


def test_intervals_cover_what_was_drawn_from_the_prior() -> None:
    covered, cells, squares, critical_held = 0, 0, 0.0, 0
    for seed in range(60):
        runs, truth, critical = simulated(seed)
        found = believe(list(truth), EVERY_OTHER, runs, COSTS)
        critical_held += critical in found.critical_batch_size
        deviations = np.sqrt(np.diag(found.covariance)[: len(truth)])
        off = (np.array(list(truth.values())) - found.mean[: len(truth)]) / deviations
        covered += int((np.abs(off) < 1.645).sum())
        squares += float((off**2).sum())
        cells += len(truth)
    assert cells >= 150
    assert 0.80 <= covered / cells <= 0.97
    assert 0.5 <= squares / cells <= 1.6  # neither far too wide nor too narrow
    assert 0.8 <= critical_held / 60 <= 0.98


@pytest.mark.parametrize("exponent", [0, 1])
def test_what_a_step_costs_says_nothing_of_how_many_are_needed(exponent: int) -> None:
    # In steps and in examples a step's cost is exact, and no knee of step times explains it.
    runs, truth, _ = simulated(3)
    shift = {size: math.log(size**exponent / COSTS[size]) for size in SIZES}
    moved = [
        replace(
            run,
            log_costs=tuple(value + shift[run.batch_size] for value in run.log_costs),
            cost=run.cost * math.exp(shift[run.batch_size]),
        )
        for run in runs
    ]
    in_seconds = believe(list(truth), ALL, runs, COSTS)
    in_others = believe(list(truth), ALL, moved, {size: float(size**exponent) for size in SIZES})
    back = [shift[cell[0]] for cell in (*truth, *(run.cell for run in in_seconds.paused))]
    assert in_others.mean - back == pytest.approx(in_seconds.mean, abs=1e-8)
    assert in_others.covariance == pytest.approx(in_seconds.covariance, abs=1e-8)
    critical = in_others.critical_batch_size
    assert critical.estimate == pytest.approx(in_seconds.critical_batch_size.estimate)
    assert (critical.low, critical.high) == pytest.approx(
        (in_seconds.critical_batch_size.low, in_seconds.critical_batch_size.high)
    )


def test_an_interval_rests_on_several_versions_even_where_one_explains_best() -> None:
    weights = np.exp(-np.arange(500.0))  # by themselves 1.7 versions
    shared = spread(weights / weights.sum())
    assert 1 / (shared**2).sum() == pytest.approx(FEWEST_VERSIONS, rel=1e-3)
    assert (np.diff(shared) < 0).all()
    even = np.linspace(1, 2, 500)
    assert spread(even / even.sum()) == pytest.approx(even / even.sum())


def test_what_gradients_say_of_the_critical_size_counts_with_its_width() -> None:
    def critical(prior: CriticalPrior | None, runs: tuple[Progress, ...] = ()) -> Interval:
        return believe(CELLS, ALL, runs, COSTS, critical=prior).critical_batch_size

    alone, sharp = critical(None), critical(CriticalPrior(math.log(2000.0), 0.05))
    assert sharp.estimate == pytest.approx(2000, rel=0.1)
    wide = critical(CriticalPrior(math.log(2000.0), 1.2))
    # Two of the same width: in the middle, and narrower than each by a factor of sqrt(2).
    assert math.log(wide.estimate) == pytest.approx((math.log(2000) + math.log(250)) / 2, abs=0.15)
    assert wide.high is not None
    assert wide.low is not None
    assert alone.high is not None
    assert alone.low is not None
    ratio = math.log(wide.high / wide.low) / math.log(alone.high / alone.low)
    assert ratio == pytest.approx(2**-0.5, abs=0.05)


@pytest.mark.parametrize("better", ["larger", "smaller"])
def test_how_runs_began_says_which_rates_are_better(better: str) -> None:
    """None of them has passed a level: all that is seen is that one would get to the first one ten times as late."""
    late, soon = (0.01, 0.0316) if better == "larger" else (0.0316, 0.01)
    runs = [run_at(64, rate, log_cost_ahead=math.log(cost)) for rate, cost in ((late, 10.0), (soon, 1.0))]
    expected = means_of(runs)
    gap = expected[64, late] - expected[64, soon]
    without = [replace(run, log_cost_ahead=None) for run in runs]
    unseen = means_of(without)
    assert gap > unseen[64, late] - unseen[64, soon] + 0.5


def means_of(runs: Sequence[Progress]) -> dict[tuple[int, float], float]:
    """The expected log cost of every cell."""
    return dict(zip(CELLS, believe(CELLS, ALL, runs, COSTS).mean[: len(CELLS)].tolist(), strict=True))
