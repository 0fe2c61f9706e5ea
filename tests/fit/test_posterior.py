"""Constant SGD on quadratics of known Hessian and noise: the formulas against simulations, limits and each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from diffusion import diffusion_covariance
from rightbatch.errors import InputError
from rightbatch.fit.averaging import averaged_covariance, averaging_regime
from rightbatch.fit.posterior import (
    ConstantSGD,
    Optimum,
    diagonal_preconditioner,
    full_preconditioner,
    kl_divergence,
    langevin_covariance,
    optimal_batch_size,
    optimal_learning_rate,
    posterior_covariance,
    stationary_covariance,
    temperature,
)

Array = NDArray[np.float64]
CHAINS, STEPS = 4000, 400


def positive(draw: np.random.Generator, size: int, spread: float = 1.0) -> Array:
    """A random positive definite matrix, eigenvalues log-uniform over so many powers of e."""
    turned = np.linalg.qr(draw.normal(size=(size, size)))[0]
    return np.asarray(turned * np.exp(draw.uniform(-spread, spread, size)) @ turned.T)


def optimum(seed: int, size: int = 4, examples: int = 1000) -> Optimum:
    draw = np.random.default_rng(seed)
    return Optimum(positive(draw, size), positive(draw, size), examples)


def simulated(known: Optimum, sgd: ConstantSGD, *, window: int = 1, seed: int = 0, steps: int = STEPS) -> Array:
    """The covariance over chains of the mean of the last iterates, step by step: slow, and nothing to get wrong."""
    draw, d = np.random.default_rng(seed), known.size
    root = np.linalg.cholesky(known.noise / sgd.batch_size)
    step = sgd.step(d)
    theta, velocity, last = np.zeros((CHAINS, d)), np.zeros((CHAINS, d)), np.zeros((CHAINS, d))
    for number in range(steps + window):
        gradient = theta @ known.hessian + draw.normal(size=(CHAINS, d)) @ root.T
        velocity = sgd.momentum * velocity + gradient
        theta = theta - velocity @ step.T
        if number >= steps:
            last += theta / window
    return np.asarray(last.T @ last / CHAINS)


def off(found: Array, truth: Array) -> float:
    """Relative Frobenius error."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


WAYS = {
    "plain": lambda known: ConstantSGD(0.1, 8),
    "a large rate": lambda known: ConstantSGD(1.2 / float(np.linalg.eigvalsh(known.hessian)[-1]), 8),
    "momentum": lambda known: ConstantSGD(0.05, 8, momentum=0.8),
    "diagonal": lambda known: ConstantSGD(0.05, 8, preconditioner=np.array([1.0, 2.0, 0.5, 3.0])),
    "full, momentum": lambda known: ConstantSGD(0.05, 8, 0.5, positive(np.random.default_rng(9), 4)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_the_iterates_have_the_predicted_covariance(way):
    known = optimum(1)
    assert off(stationary_covariance(known, way(known)), simulated(known, way(known))) < 0.05


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_means_of_iterates_have_the_predicted_covariance(way):
    known = optimum(2)
    found = simulated(known, way(known), window=30)
    assert off(averaged_covariance(known, way(known), 30), found) < 0.05


@given(seed=st.integers(0, 1000), window=st.integers(1, 12), momentum=st.sampled_from([0.0, 0.6]))
@settings(max_examples=30, deadline=None)
def test_the_sum_over_a_window_is_that_of_all_pairs(seed, window, momentum):
    known, sgd = optimum(seed, 3), ConstantSGD(0.1, 4, momentum)
    d, step = 3, 0.1
    transition = np.block(
        [[np.eye(d) - step * known.hessian, -momentum * step * np.eye(d)], [known.hessian, momentum * np.eye(d)]]
    )
    covariance = np.zeros((2 * d, 2 * d))
    into = np.vstack([-step * np.eye(d), np.eye(d)]) @ np.linalg.cholesky(known.noise / 4)
    for _ in range(5000):
        covariance = transition @ covariance @ transition.T + into @ into.T
    pairs = [
        np.linalg.matrix_power(transition, i - j) @ covariance
        if i >= j
        else covariance @ np.linalg.matrix_power(transition.T, j - i)
        for i in range(window)
        for j in range(window)
    ]
    slow = np.mean(pairs, axis=0)[:d, :d]
    np.testing.assert_allclose(averaged_covariance(known, sgd, window), slow, rtol=1e-6, atol=1e-9)
    if window == 1:
        np.testing.assert_allclose(stationary_covariance(known, sgd), slow, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_at_small_rates_the_steps_are_a_diffusion(momentum):
    known = optimum(3)
    errors = [
        off(stationary_covariance(known, sgd), diffusion_covariance(known, sgd))
        for sgd in (ConstantSGD(rate, 16, momentum) for rate in (1e-2, 1e-3))
    ]
    assert errors[1] < errors[0] / 5
    assert errors[1] < 0.01


def test_with_momentum_only_rate_over_one_less_momentum_times_size_matters():
    known = optimum(4)
    one = diffusion_covariance(known, ConstantSGD(0.001, 16))
    for rate, size, momentum in ((0.0001, 16, 0.9), (0.0005, 16, 0.5), (0.001, 160, 0.9), (0.002, 32, 0.0)):
        same = ConstantSGD(rate, size, momentum)
        np.testing.assert_allclose(diffusion_covariance(known, same), one, rtol=1e-9)
        assert off(stationary_covariance(known, same), one) < 0.01  # of the steps themselves, which are no diffusion


def test_means_over_a_pass_forget_rate_and_preconditioner():
    known = optimum(5, examples=20_000)
    limit = np.linalg.solve(known.hessian, np.linalg.solve(known.hessian, known.noise).T) / known.examples
    ways = [
        ConstantSGD(0.3, 10),
        ConstantSGD(0.1, 10),
        ConstantSGD(0.03, 10, 0.9),
        ConstantSGD(0.1, 10, preconditioner=np.array([1.0, 3.0, 0.5, 2.0])),
        ConstantSGD(0.1, 40),
    ]
    for sgd in ways:
        assert off(averaged_covariance(known, sgd, round(known.examples / sgd.batch_size)), limit) < 0.05


def test_means_in_the_case_of_the_paper_follow_its_equation_33():
    """Where noise and Hessian are the same: (1 / ST) A^-1 + (1 / eps S T^2) A^-2 (exp(-eps T A) - 1)."""
    hessian = positive(np.random.default_rng(6), 5, 0.5)
    known, rate, size, window = Optimum(hessian, hessian, 1000), 1e-3, 2, 5000
    values, turned = np.linalg.eigh(hessian)
    of_each = 1 / (size * window * values) + (np.exp(-rate * window * values) - 1) / (
        rate * size * window**2 * values**2
    )
    found = averaged_covariance(known, ConstantSGD(rate, size), window)
    assert off(found, turned * of_each @ turned.T) < 0.002


def test_the_regime_of_averaging_ends_where_means_grow_narrow_or_steps_do_not_contract():
    known = Optimum(np.diag([4.0, 0.1]), np.diag([4.0, 0.1]), 1000)
    assert not averaging_regime(known, ConstantSGD(0.4, 10), 100).failures
    (narrow,) = averaging_regime(known, ConstantSGD(0.1, 10), 100).failures
    assert "only 1 times within a window" in narrow
    ratio = averaged_covariance(known, ConstantSGD(0.1, 10), 100) / posterior_covariance(known).clip(1e-300)
    assert ratio[0, 0] == pytest.approx(1, abs=0.05)
    assert ratio[1, 1] < 0.4
    (fast,) = averaging_regime(known, ConstantSGD(0.6, 10), 100).failures
    assert "1.2 times the largest that is stable" in fast
    assert averaging_regime(known, ConstantSGD(0.6, 10, 0.5), 100).overshoot == pytest.approx(0.8)
    fixed = averaging_regime(known, ConstantSGD(0.4, 10, preconditioner=np.array([0.25, 10.0])), 100)
    assert (fixed.overshoot, fixed.forgets) == pytest.approx((0.2, 40))


def test_the_synthetic_experiment_of_the_paper_in_closed_form():
    """N = 10,000, d = 10, unit covariance, rate 0.005, S = 1: iterates 25 times as wide, means over a pass as wide."""
    known, sgd = Optimum(np.eye(10), np.eye(10), 10_000), ConstantSGD(0.005, 1)
    wide = np.trace(stationary_covariance(known, sgd)) / np.trace(posterior_covariance(known))
    assert wide == pytest.approx(25, rel=0.01)
    mean = np.trace(averaged_covariance(known, sgd, 10_000)) / np.trace(posterior_covariance(known))
    assert mean == pytest.approx(0.98, abs=0.005)


@given(seed=st.integers(0, 1000), momentum=st.sampled_from([0.0, 0.9]), diagonal=st.booleans())
@settings(max_examples=20, deadline=None)
def test_no_rate_is_nearer_to_the_posterior_than_the_optimal_one(seed, momentum, diagonal):
    known = optimum(seed)
    by = np.random.default_rng(seed).uniform(0.3, 3, 4) if diagonal else None
    best = optimal_learning_rate(known, 8, momentum=momentum, preconditioner=by)

    def distance(log_rate: float) -> float:
        return kl_divergence(known, diffusion_covariance(known, ConstantSGD(np.exp(log_rate), 8, momentum, by)))

    found = minimize_scalar(distance, bounds=(np.log(best) - 5, np.log(best) + 5), method="bounded")
    assert np.exp(found.x) == pytest.approx(best, rel=1e-3)
    assert temperature(known, ConstantSGD(best, 8, momentum, by)) == pytest.approx(1)
    assert optimal_batch_size(known, best, momentum=momentum, preconditioner=by) == pytest.approx(8)


@given(seed=st.integers(0, 1000), momentum=st.sampled_from([0.0, 0.5]))
@settings(max_examples=20, deadline=None)
def test_the_temperature_is_the_energy_of_the_iterates_over_the_posteriors(seed, momentum):
    known, sgd = optimum(seed), ConstantSGD(0.03, 8, momentum)
    energy = known.examples * np.trace(known.hessian @ diffusion_covariance(known, sgd)) / known.size
    assert temperature(known, sgd) == pytest.approx(energy)


def test_preconditioners_come_nearer_and_the_full_one_arrives():
    known = optimum(7, size=6, examples=100_000)
    plain = ConstantSGD(optimal_learning_rate(known, 4), 4)
    roots = 1 / np.sqrt(np.diag(known.noise))  # that of AdaGrad and its like, equation 47
    ways = {
        "plain": plain,
        "root": ConstantSGD(optimal_learning_rate(known, 4, preconditioner=roots), 4, preconditioner=roots),
        "diagonal": ConstantSGD(1, 4, preconditioner=diagonal_preconditioner(known, 4)),
        "full": ConstantSGD(1, 4, preconditioner=full_preconditioner(known, 4)),
    }
    distance = {name: kl_divergence(known, diffusion_covariance(known, sgd)) for name, sgd in ways.items()}
    assert distance["full"] == pytest.approx(0, abs=1e-9)
    assert distance["full"] < min(distance["diagonal"], distance["root"]) <= distance["plain"]
    exact = kl_divergence(known, stationary_covariance(known, ways["full"]))
    assert exact < 1e-3  # its steps are short: 2 S / N


def test_langevin_dynamics_at_a_constant_step_are_too_wide_by_what_was_derived():
    """In one dimension N a s = 1 + step N^2 c / (4 S) for small steps; the paper prints another correction."""
    known, step, size = Optimum(np.array([[2.0]]), np.array([[3.0]]), 500), 1e-6, 10
    found = langevin_covariance(known, step, size)
    wider = 1 + step * 500**2 * 3.0 / (4 * size)
    assert 500 * 2.0 * found[0, 0] == pytest.approx(wider, rel=1e-3)
    printed = 1 + step * 500 * 3.0 / (2 * size)
    assert 500 * 2.0 * found[0, 0] != pytest.approx(printed, rel=1e-3)


def test_the_divergence_is_that_of_gaussians():
    known = optimum(8)
    truth = posterior_covariance(known)
    assert kl_divergence(known, truth) == pytest.approx(0, abs=1e-12)
    assert kl_divergence(known, 2 * truth) == pytest.approx(0.5 * (4 * 2 - 4 - 4 * np.log(2)))
    away = np.full(4, 0.01)
    assert kl_divergence(known, truth, away) == pytest.approx(0.5 * 1000 * away @ known.hessian @ away)


def test_what_cannot_be_is_told():
    one = np.eye(2)
    with pytest.raises(InputError, match=r"square matrix \[d, d\], got shape \(2, 3\)"):
        Optimum(np.zeros((2, 3)), one, 10)
    with pytest.raises(InputError, match="symmetric and finite"):
        Optimum(np.array([[1.0, 2.0], [0.0, 1.0]]), one, 10)
    with pytest.raises(InputError, match=r"got \(2, 2\) and \(3, 3\)"):
        Optimum(one, np.eye(3), 10)
    with pytest.raises(InputError, match="at least 1 example, got 0"):
        Optimum(one, one, 0)
    with pytest.raises(InputError, match="learning_rate is a positive number, got -1"):
        ConstantSGD(-1, 8)
    with pytest.raises(InputError, match="below 1, got 1"):
        ConstantSGD(1, 8, 1.0)
    with pytest.raises(InputError, match=r"\[2, 2\], got \(3, 3\)"):
        stationary_covariance(Optimum(one, one, 10), ConstantSGD(0.1, 8, preconditioner=np.ones(3)))
    known = Optimum(one, one, 10)
    with pytest.raises(InputError, match="no stationary distribution"):
        stationary_covariance(known, ConstantSGD(2.1, 8))
    stationary_covariance(known, ConstantSGD(2.1, 8, 0.5))  # momentum bears larger rates
    flat = Optimum(np.diag([1.0, 0.0]), np.diag([1.0, 0.0]), 10)
    for found in (posterior_covariance, lambda o: stationary_covariance(o, ConstantSGD(0.1, 8))):
        with pytest.raises(InputError, match=r"eigenvalue of 0|directions without curvature"):
            found(flat)
    with pytest.raises(InputError, match="no full rank"):
        full_preconditioner(flat, 8)
    with pytest.raises(InputError, match="1 parameters have no gradient noise"):
        diagonal_preconditioner(flat, 8)
    with pytest.raises(InputError, match="Take more samples than parameters"):
        kl_divergence(known, np.diag([1.0, 0.0]))
    with pytest.raises(InputError, match="at least 1 iterate, got 0"):
        averaged_covariance(known, ConstantSGD(0.1, 8), 0)
