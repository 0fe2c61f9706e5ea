"""The largest eigenvalue and the trace of known Hessians, and how often their intervals have them."""

from __future__ import annotations

import numpy as np
import pytest
from quadratics import quadratic, random_hessian
from scipy.stats import binomtest

from rightbatch.landscape.spectrum import DENSE, largest_eigenvalue, trace

TIMES = 60
"""benchmarks/sharpness_intervals.py asks a thousand times."""


def known(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    # A few large ones and many near zero on both sides: what Hessians of networks look like.
    eigenvalues = np.concatenate([draw.exponential(3, 5), draw.normal(0, 0.2, size - 5)])
    return eigenvalues, random_hessian(eigenvalues, draw)


def test_intervals_have_the_truth_as_often_as_they_say() -> None:
    zeros, inside, traces = np.zeros(120), 0, 0
    for seed in range(TIMES):
        eigenvalues, hessian = known(120, seed)
        surface = quadratic(hessian, zeros, zeros)
        found = largest_eigenvalue(surface, seed=seed)
        assert found.low is not None
        assert found.high is not None
        inside += found.low * (1 - 1e-9) <= eigenvalues.max() <= found.high
        assert found.estimate == pytest.approx(eigenvalues.max(), rel=0.01)
        traces += eigenvalues.sum() in trace(surface, probes=32, seed=seed)
    assert inside >= 0.95 * TIMES
    assert binomtest(traces, TIMES, 0.95).pvalue > 0.01


def test_of_a_few_weights_the_hessian_is_made_whole() -> None:
    eigenvalues, hessian = known(DENSE, 0)
    found = largest_eigenvalue(quadratic(hessian, np.zeros(DENSE), np.zeros(DENSE)))
    assert found.low == found.high == pytest.approx(eigenvalues.max(), rel=1e-9)
    found = trace(quadratic(hessian, np.zeros(DENSE), np.zeros(DENSE)), probes=2)
    assert found.low == found.high == pytest.approx(eigenvalues.sum(), rel=1e-9)


def test_the_trace_is_exact_where_a_third_of_the_products_finds_all_there_is() -> None:
    draw = np.random.default_rng(2)
    eigenvalues = np.concatenate([[40.0, -3.0, 2.0, 0.5], np.zeros(116)])
    found = trace(quadratic(random_hessian(eigenvalues, draw), np.zeros(120), np.zeros(120)), probes=14)
    assert (found.estimate, found.low, found.high) == pytest.approx((39.5, 39.5, 39.5), abs=1e-8)


def test_the_trace_by_few_products_is_the_mean_over_random_signs() -> None:
    found = trace(quadratic(np.diag(np.arange(80.0)), np.zeros(80), np.zeros(80)), probes=2)
    assert (found.estimate, found.low, found.high) == pytest.approx((3160, 3160, 3160))  # exact for a diagonal


def test_the_same_seed_gives_the_same_numbers() -> None:
    surface = quadratic(known(100, 1)[1], np.zeros(100), np.zeros(100))
    assert largest_eigenvalue(surface, seed=4) == largest_eigenvalue(surface, seed=4)
    assert trace(surface, probes=4, seed=4) == trace(surface, probes=4, seed=4) != trace(surface, probes=4, seed=5)
