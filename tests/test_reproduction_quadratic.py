"""The recursions of the noisy quadratic against simulation, against walking them step by step, and each other."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PATH = Path(__file__).parents[1] / "reproductions" / "quadratic.py"


def load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("reproduction_quadratic", PATH)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look for their module there
    specification.loader.exec_module(module)
    return module


q = load()
FEW = q.exact(12)


def heavy_ball_moments(rate: float, momentum: float, batch_size: int, steps: int) -> np.ndarray:
    """(E[x^2], E[v^2], E[x v]) by the matrices, one step after the other, shape `[12, 3]`."""
    steady = q.heavy_ball_steady(FEW.eigenvalues, rate, momentum, batch_size)
    rest = np.array([1.0, 0.0, 0.0]) - steady
    matrix = q.heavy_ball_matrix(FEW.eigenvalues, rate, momentum)
    for _ in range(steps):
        rest = (matrix @ rest[..., None])[..., 0]
    return np.asarray(rest + steady)


@pytest.mark.parametrize(("rate", "momentum", "gamma"), [(0.5, 0.0, 0.0), (0.4, 0.0, 0.5), (0.3, 0.8, 0.0)])
def test_the_second_moments_are_those_of_a_simulation(rate: float, momentum: float, gamma: float) -> None:
    draws, batch_size, steps = 20_000, 4, 15
    generator = np.random.default_rng(0)
    h = FEW.eigenvalues
    x = generator.standard_normal((draws, len(h)))
    v = np.zeros_like(x)
    for _ in range(steps):
        noise = generator.standard_normal(x.shape) * np.sqrt(h / batch_size)
        v = momentum * v - rate * h**-gamma * (h * x + noise)
        x = x + v
    if momentum:
        found, exact = (x * x, v * v, x * v), heavy_ball_moments(rate, momentum, batch_size, steps).T
    else:
        found, exact = (x * x,), [q.sgd_moments(h, steps, rate=rate, batch_size=batch_size, gamma=gamma)]
    for drawn, expected in zip(found, exact, strict=True):
        error = drawn.std(axis=0) / math.sqrt(draws)
        assert np.all(np.abs(drawn.mean(axis=0) - expected) < 5 * error)


@given(
    rate=st.floats(0.01, 1.9),
    batch_size=st.integers(1, 10**6),
    gamma=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    steps=st.integers(0, 60),
)
@settings(max_examples=50, deadline=None)
def test_the_closed_form_is_the_recursion(rate: float, batch_size: int, gamma: float, steps: int) -> None:
    h = FEW.eigenvalues
    s = np.ones_like(h)
    for _ in range(steps):
        s = (1 - rate * h ** (1 - gamma)) ** 2 * s + rate**2 * h ** (1 - 2 * gamma) / batch_size
    closed = q.sgd_moments(h, steps, rate=rate, batch_size=batch_size, gamma=gamma)
    np.testing.assert_allclose(closed, s, rtol=1e-9)


@given(rate=st.floats(0.01, 1.9), momentum=st.floats(0.0, 0.99), batch_size=st.integers(1, 10**6))
@settings(max_examples=50, deadline=None)
def test_the_matrices_of_heavy_ball_are_its_recursion(rate: float, momentum: float, batch_size: int) -> None:
    losses = q.heavy_ball_losses(FEW, rate=rate, momentum=momentum, batch_size=batch_size, steps=30)
    by_matrix = FEW.loss(heavy_ball_moments(rate, momentum, batch_size, 30)[:, 0])
    assert by_matrix == pytest.approx(losses[-1], rel=1e-7)


@given(rate=st.floats(0.01, 1.9), batch_size=st.integers(1, 10**6), steps=st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_heavy_ball_without_momentum_is_sgd(rate: float, batch_size: int, steps: int) -> None:
    moments = q.sgd_moments(FEW.eigenvalues, steps, rate=rate, batch_size=batch_size)
    losses = q.heavy_ball_losses(FEW, rate=rate, momentum=0.0, batch_size=batch_size, steps=steps)
    assert losses[-1] == pytest.approx(FEW.loss(moments), rel=1e-9)


def test_the_steady_state_stays() -> None:
    h = FEW.eigenvalues
    for rate, momentum in ((0.1, 0.0), (1.0, 0.5), (0.01, 0.99)):
        x2, v2, xv = q.heavy_ball_steady(h, rate, momentum, 8).T
        noise = (rate**2 * h / 8)[:, None] * np.ones(3)
        matrix = q.heavy_ball_matrix(h, rate, momentum)
        after = (matrix @ np.stack([x2, v2, xv], axis=-1)[..., None])[..., 0] + noise
        np.testing.assert_allclose(after, np.stack([x2, v2, xv], axis=-1), rtol=1e-9)


def test_unstable_and_too_noisy_rates_never_get_there() -> None:
    assert q.sgd_steps(FEW, rate=2.01, batch_size=2**20) == math.inf
    assert q.sgd_steps(FEW, rate=1.0, batch_size=1) == math.inf
    assert q.heavy_ball_steps(FEW, rate=3.1, momentum=0.5, batch_sizes=[2**20]) == [math.inf]
    assert q.heavy_ball_steps(FEW, rate=1.0, momentum=0.5, batch_sizes=[1, 2**20])[0] == math.inf
    assert q.heavy_ball_steps(FEW, rate=2.9, momentum=0.5, batch_sizes=[2**20])[0] < math.inf
    assert q.heavy_ball_steps(FEW, rate=1e-9, momentum=0.0, batch_sizes=[2**20]) == [math.inf]


def test_bisection_finds_the_first_step_that_walking_finds() -> None:
    for rate, batch_size in ((0.05, 64), (0.5, 1024), (1.9, 2**20)):
        found = q.sgd_steps(FEW, rate=rate, batch_size=batch_size)
        moments = [q.sgd_moments(FEW.eigenvalues, k, rate=rate, batch_size=batch_size) for k in range(int(found) + 1)]
        losses = [FEW.loss(s) for s in moments]
        assert min(losses[:-1]) >= q.TARGET > losses[-1]


def test_the_fewest_steps_of_heavy_ball_are_those_of_walking_every_rate_and_momentum() -> None:
    """At this size the loss of the best run crosses the target several times: the first crossing is what counts."""
    spectrum, size, limit = q.binned(), 2**14, 400
    h = spectrum.eigenvalues
    rate, momentum = (grid.ravel() for grid in np.meshgrid(q.HEAVY_BALL_RATES, q.MOMENTA))
    stable = rate < 2 * (1 + momentum)
    rate, momentum = rate[stable][:, None], momentum[stable][:, None]
    u, w, c = np.ones((len(rate), len(h))), np.zeros((len(rate), len(h))), np.zeros((len(rate), len(h)))
    steps = 0
    while (0.5 * (u @ (spectrum.counts * h))).min() >= q.TARGET and steps < limit:
        moved = momentum * c - rate * h * u
        w = momentum**2 * w + (rate * h) ** 2 * u - 2 * momentum * rate * h * c + rate**2 * h / size
        u, c = u + 2 * moved + w, moved + w
        steps += 1
    best = [q.best_rates(spectrum, m, [size])[0] for m in q.MOMENTA]
    assert steps < limit
    assert min(point["steps"] for point in best if point is not None) == steps


def test_the_bins_hold_every_eigenvalue_and_are_none_too_large() -> None:
    bins, each = q.binned(), q.exact()
    assert bins.counts.sum() == q.DIMENSIONS
    assert (bins.eigenvalues[0], bins.eigenvalues[-1]) == pytest.approx((1.0, 1 / q.DIMENSIONS))
    rounded = np.repeat(bins.eigenvalues, bins.counts.astype(int))
    assert np.all(rounded <= each.eigenvalues * (1 + 1e-12))
    assert np.all(rounded > each.eigenvalues * q.DIMENSIONS ** (-1 / 99) * (1 - 1e-12))


@pytest.mark.parametrize(("batch_size", "exactly"), [(4, 1_507_367), (16, 379_858), (64, 95_759), (256, 25_880)])
def test_with_the_guard_of_the_authors_the_published_steps_are_exact(batch_size: int, exactly: int) -> None:
    """They add 1e-8 to the divisor of the steady state, and give the last step that is not below the target."""
    spectrum, fewest = q.binned(), math.inf
    h = spectrum.eigenvalues
    for rate in q.RATES[q.RATES < 2]:
        decay = (1 - rate * h) ** 2
        steady = rate**2 * h / batch_size / (1 - decay + 1e-8)
        low, high = 0, 10**9
        while high - low > 1:
            middle = (low + high) // 2
            reached = spectrum.loss(steady + decay**middle * (1 - steady)) < q.TARGET
            low, high = (low, middle) if reached else (middle, high)
        fewest = min(fewest, low)
    assert fewest == exactly


def test_no_point_of_the_record_is_below_what_bayes_allows() -> None:
    """From N examples and the prior N(0, 1) no estimate has an expected loss below 1/2 sum_i h_i / (1 + N h_i)."""
    h = q.exact().eigenvalues
    for method, row in q.REFERENCE.items():
        for batch_size, steps in row.items():
            examples = batch_size * (steps + 1)
            assert 0.5 * np.sum(h / (1 + examples * h)) < q.TARGET, (method, batch_size)
