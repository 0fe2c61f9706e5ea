"""The noise scale: unbiased terms, intervals that cover, the correction for drawing without replacement, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.fit.noise import critical_prior, noise_scale, terms
from rightbatch.fit.tradeoff import fit_tradeoff
from rightbatch.records import GradientSample

REPEATS = 50  # of 500: `python benchmarks/noise_coverage.py` makes them all


def sample(contributions: np.ndarray, shares: np.ndarray, batch_size: int, step: int = 0) -> GradientSample:
    """From the contributions of the parts of one batch, shape `[parts, dimensions]`."""
    batch, parts = (contributions.sum(axis=0) ** 2).sum(), (contributions**2).sum()
    return GradientSample(step, batch_size, 0.1, float(batch), float(parts), float((shares**2).sum()))


@dataclass(frozen=True)
class Case:
    """Gaussian gradients of a known noise scale, in batches of equal parts."""

    dimensions: int
    gradient: float
    batch_size: int
    parts: int
    steps: int
    correlation: float = 0.0
    trace: float = 4.0

    @property
    def truth(self) -> float:
        return self.trace / self.gradient**2 if self.gradient else math.inf

    def samples(self, seed: int) -> list[GradientSample]:
        generator = np.random.default_rng([seed, self.dimensions, self.parts])
        noise = generator.standard_normal((self.steps, self.parts, self.dimensions))
        noise *= math.sqrt(self.trace / self.dimensions * self.parts / self.batch_size)
        # The gradient itself wanders along the run.
        length = np.ones(self.steps)
        if self.correlation:
            for t in range(1, self.steps):
                fresh = generator.standard_normal() * math.sqrt(1 - self.correlation**2)
                length[t] = self.correlation * length[t - 1] + fresh
            length /= np.sqrt((length**2).mean())  # what is estimated is the mean over this very run
        true = np.zeros((self.steps, 1, self.dimensions))
        true[:, 0, 0] = self.gradient * length
        shares = np.full(self.parts, 1 / self.parts)
        return [sample(c / self.parts, shares, self.batch_size, t) for t, c in enumerate(true + noise)]


CASES = {
    "examples": Case(50, 1.0, 32, 32, 100),
    "two micro-batches": Case(50, 1.0, 32, 2, 100),
    "a small gradient": Case(100, 0.3, 64, 64, 100),
    "few directions": Case(3, 0.3, 16, 16, 100),
    "hardly any gradient": Case(20, 0.02, 16, 16, 100),
    "no gradient": Case(20, 0.0, 16, 16, 100),
    "few steps": Case(50, 1.0, 32, 32, 10),
    "a wandering gradient": Case(50, 0.1, 32, 32, 400, correlation=0.99),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_terms_are_unbiased(case: Case) -> None:
    means = np.array([[values.mean() for values in terms(case.samples(seed))] for seed in range(REPEATS)])
    errors = means.std(axis=0, ddof=1) / math.sqrt(REPEATS)
    assert (np.abs(means.mean(axis=0) - (case.gradient**2, case.trace)) < 4 * errors).all()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_interval_covers(case: Case) -> None:
    scales = [noise_scale(case.samples(seed)).scale for seed in range(REPEATS)]
    assert all(scale.low is not None and 0 <= scale.low <= scale.estimate for scale in scales)
    assert sum(case.truth in scale for scale in scales) >= 0.86 * REPEATS  # of 95 %: 3 deviations of the count


def test_where_the_gradient_cannot_be_told_from_zero_there_is_no_upper_bound() -> None:
    found = [noise_scale(CASES["no gradient"].samples(seed)).scale for seed in range(REPEATS)]
    assert sum(math.isinf(scale.high or 0) for scale in found) >= 0.9 * REPEATS
    assert all(scale.low is not None and scale.low > 1 for scale in found)  # "at least": the noise is there
    assert any(math.isinf(scale.estimate) for scale in found)


def test_the_ratio_of_averages_is_not_the_average_of_ratios() -> None:
    samples = CASES["few directions"].samples(0)
    gradient, trace = terms(samples)
    found = noise_scale(samples)
    assert found.scale.estimate == pytest.approx(trace.mean() / gradient.mean())
    assert found.scale.estimate != pytest.approx(np.mean(trace / gradient), rel=0.05)


def test_terms_by_the_formulas_of_the_appendix() -> None:
    generator = np.random.default_rng(0)
    parts = generator.standard_normal((4, 7)) + 0.5  # micro-batches of 8
    batch, small = parts.mean(axis=0), (parts**2).sum(axis=1).mean()
    gradient, trace = terms([sample(parts / 4, np.full(4, 0.25), 32)])
    big = (batch**2).sum()
    assert gradient[0] == pytest.approx((32 * big - 8 * small) / (32 - 8))
    assert trace[0] == pytest.approx((small - big) / (1 / 8 - 1 / 32))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=9), st.integers(0, 1000))
def test_parts_of_any_shares_are_unbiased_in_the_gradient(weights: list[float], seed: int) -> None:
    # Exactly, over all signs of the noise: g_i = G + s_i e with independent signs.
    shares = np.array(weights) / sum(weights)
    generator = np.random.default_rng(seed)
    true, size = generator.standard_normal(2), generator.standard_normal((len(shares), 2))
    found = []
    for signs in np.ndindex(*(2,) * len(shares)):
        noisy = true + size * (2 * np.array(signs)[:, None] - 1)
        found.append(terms([sample(shares[:, None] * noisy, shares, 9)]))
    gradient, trace = np.mean(found, axis=0)[:, 0]
    assert gradient == pytest.approx((true**2).sum())
    # What a batch has of noise is tr(Sigma) / B.
    assert trace / 9 == pytest.approx((shares[:, None] ** 2 * size**2).sum())


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_without_replacement_the_terms_are_those_of_the_data(parts: int) -> None:
    data = np.random.default_rng(1).standard_normal((12, 3)) + 0.2
    generator = np.random.default_rng(2)
    samples = [
        sample(generator.permutation(data)[:8].reshape(parts, -1, 3).mean(axis=1) / parts, np.full(parts, 1 / parts), 8)
        for _ in range(20_000)
    ]
    found = noise_scale(samples, train_examples=12)
    exact = (data.mean(axis=0) ** 2).sum(), data.var(axis=0, ddof=1).sum()
    assert exact[0] in replace(found.gradient_squared, level=0.95)
    assert found.gradient_squared.estimate == pytest.approx(exact[0], rel=0.03)
    assert found.noise_trace.estimate == pytest.approx(exact[1], rel=0.03)
    assert noise_scale(samples).gradient_squared.estimate < 0.8 * exact[0]  # what the correction is for


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 1e6))
def test_the_scale_has_no_unit(seed: int, factor: float) -> None:
    samples = CASES["few directions"].samples(seed)
    scaled = [
        replace(s, batch_squared=s.batch_squared * factor, parts_squared=s.parts_squared * factor) for s in samples
    ]
    one, other = noise_scale(samples).scale, noise_scale(scaled).scale
    assert (other.estimate, other.low, other.high) == pytest.approx((one.estimate, one.low, one.high))


def test_it_says_where_it_was_measured() -> None:
    samples = CASES["few steps"].samples(0)
    samples[3] = replace(samples[3], batch_size=64, learning_rate=0.01)
    found = noise_scale(samples)
    assert (found.batch_sizes, found.learning_rates, found.steps) == ((32, 64), (0.01, 0.1), (0, 9))
    assert found.samples == 10


def test_the_relative_error_falls_with_the_root_of_the_steps() -> None:
    few, many = (noise_scale(replace(CASES["examples"], steps=steps).samples(0)) for steps in (100, 1600))
    assert few.relative_error / many.relative_error == pytest.approx(4, rel=0.5)
    assert math.isinf(noise_scale(CASES["no gradient"].samples(0)).relative_error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda samples: samples[:3], "at least 4 sampled steps, got 3"),
        (lambda samples: [*samples, replace(samples[0], batch_squared=math.nan)], "not finite"),
        (lambda samples: [*samples, replace(samples[0], shares_squared=1.0)], "only one part"),
    ],
)
def test_what_cannot_be_used_is_refused(
    change: Callable[[list[GradientSample]], list[GradientSample]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        noise_scale(change(CASES["few steps"].samples(0)))


# ------------------------------------------------------------------------------- as a prior for the critical batch size


def along(scale: float, steps: int = 200) -> list[GradientSample]:
    """Samples of a noise scale, with hardly any noise of their own."""
    generator = np.random.default_rng(0)
    wobble = 1 + 0.01 * generator.standard_normal((2, steps))
    # |g|^2 = 1 + scale / B and sum |c_i|^2 = 1 / B + scale / B, with |G|^2 = 1 and B = 32 examples as parts.
    return [
        GradientSample(k, 32, 0.1, float(a * (1 + scale / 32)), float(b * (1 + scale) / 32), 1 / 32)
        for k, (a, b) in enumerate(wobble.T)
    ]


def test_the_prior_is_wide_and_wider_before_the_target() -> None:
    at, before = (critical_prior(along(100.0), at_target=reached) for reached in (True, False))
    assert at is not None
    assert before is not None
    assert math.exp(at.log_mean) == pytest.approx(180, rel=0.05)
    assert before.log_deviation > at.log_deviation > 1.0
    low, high = at.interval(0.9).low, at.interval(0.9).high
    assert low is not None
    assert high is not None
    assert high / low > 25
    assert critical_prior(along(100.0)[:3], at_target=True) is None


def test_the_prior_bounds_a_law_that_the_sizes_do_not_bound_and_no_other() -> None:
    prior = critical_prior(along(100.0), at_target=True)
    sizes = [8.0, 16.0, 32.0]
    steps = [1000.0 / size * wobble for size, wobble in zip(sizes, [1.05, 0.95, 1.02], strict=True)]  # no bend in sight
    alone, helped = fit_tradeoff(sizes, steps).critical_batch_size, fit_tradeoff(sizes, steps, prior=prior)
    assert prior is not None
    assert alone.high == math.inf
    assert helped.critical_batch_size.high == prior.interval(0.95).high
    assert "the noise scale bounds it" in helped.critical_batch_size.note
    wide = [4.0 * 2**k for k in range(10)]
    exact = [50 * (1 + 3000 / size) for size in wide]
    assert fit_tradeoff(wide, exact, prior=prior) == fit_tradeoff(wide, exact)  # steps alone count


# ------------------------------------------------------------------------------------ samples that are not equally far


def falling(steps: list[int]) -> list[GradientSample]:
    """Without noise: |G|^2 falls to a fiftieth of what it was, tr(Sigma) stays 100."""
    found = []
    for step in steps:
        gradient = 0.02 + math.exp(-step / 15)
        found.append(GradientSample(step, 50, 0.1, gradient + 100 / 50, (100 + gradient) / 50, 1 / 50))
    return found


def test_a_sample_counts_by_the_steps_that_it_stands_for() -> None:
    every = noise_scale(falling(list(range(400))))
    sparse = noise_scale(falling([0, 3, 6, 10, 16, 24, 36, 54, *range(80, 400, 25)]))
    assert sparse.scale.estimate == pytest.approx(every.scale.estimate, rel=0.1)
    assert every.scale.estimate in sparse.scale
    alike = noise_scale(falling([0, 3, 6, 10, 16, 24, 36, 54]))
    assert alike.scale.estimate < every.scale.estimate / 3  # over other steps it is another ratio


def test_samples_that_are_not_of_one_training_in_order_count_alike() -> None:
    samples = falling([0, 10, 30, 100])
    again = noise_scale([*samples, *samples])
    gradient, trace = terms(samples)
    assert again.scale.estimate == pytest.approx(float(trace.mean() / gradient.mean()))
