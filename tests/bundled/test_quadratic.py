"""The noisy quadratic against its closed form: the exact ground truth of the engine."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from rightbatch import curves
from rightbatch.bundled.quadratic import DIMENSIONS, expected_loss, hessian, quadratic
from rightbatch.engine import WorkloadRunner
from rightbatch.records import Point, Stop, StopReason, Target, Trial


def points_of(runner: WorkloadRunner, trial: Trial) -> list[Point]:
    run = runner.start(trial)
    return list(iter(run.advance, Stop(StopReason.FINISHED)))


@pytest.mark.parametrize("learning_rate", [0.01, 0.1, 1.0, 1.9])
@pytest.mark.parametrize("batch_size", [1, 16, 48])
def test_without_noise_every_rung_is_the_closed_form(batch_size, learning_rate):
    runner = WorkloadRunner(quadratic(noise=0.0))
    points = points_of(runner, Trial(batch_size, learning_rate, 0, batch_size * 200))
    assert points[-1].step == 200
    for point in points:
        exact = expected_loss(point.step, learning_rate=learning_rate, batch_size=batch_size, noise=0.0)
        assert point.valid_metric == pytest.approx(exact, rel=1e-10)
        assert point.valid_loss == point.valid_metric


STEPS = (5, 15, 45)
SEEDS = 50
RATE = 0.7


@pytest.fixture(scope="module")
def noisy_losses() -> dict[int, np.ndarray]:
    """Losses at STEPS of every seed, by batch size."""
    runner = WorkloadRunner(quadratic(noise=1.0))
    losses = {}
    for batch_size in (4, 64):
        rows = []
        for seed in range(SEEDS):
            curve = {p.step: p.valid_loss for p in points_of(runner, Trial(batch_size, RATE, seed, batch_size * 45))}
            rows.append([curve[step] for step in STEPS])
        losses[batch_size] = np.array(rows)
    return losses


@pytest.mark.parametrize("batch_size", [4, 64])
def test_with_noise_the_mean_over_seeds_is_the_closed_form(noisy_losses, batch_size):
    losses = noisy_losses[batch_size]
    errors = losses.std(axis=0, ddof=1) / math.sqrt(SEEDS)
    exact = np.array([expected_loss(step, learning_rate=RATE, batch_size=batch_size) for step in STEPS])
    assert np.all(np.abs(losses.mean(axis=0) - exact) <= 3 * errors)


def test_the_seeds_are_enough_to_see_noise_that_is_a_third_too_large(noisy_losses):
    """Else the test above would pass whatever the engine did."""
    losses = noisy_losses[4]
    errors = losses.std(axis=0, ddof=1) / math.sqrt(SEEDS)
    wrong = np.array([expected_loss(step, learning_rate=RATE, batch_size=4, noise=4 / 3) for step in STEPS])
    assert np.any(np.abs(losses.mean(axis=0) - wrong) > 3 * errors)


@pytest.mark.parametrize("learning_rate", [0.03, 0.1, 0.5])
@pytest.mark.parametrize("batch_size", [1, 32, 500])
def test_the_crossing_of_the_curve_lies_within_a_rung_of_the_closed_form(batch_size, learning_rate):
    target = 1.0
    points = points_of(WorkloadRunner(quadratic(noise=0.0)), Trial(batch_size, learning_rate, 0, batch_size * 400))
    found = curves.crossing(points, Target(target, "valid_loss", "min"))
    exact = brentq(
        lambda steps: expected_loss(steps, learning_rate=learning_rate, batch_size=1, noise=0.0) - target, 0, 400
    )
    assert found is not None
    assert found.low_examples <= exact * batch_size <= found.high_examples
    assert found.steps == pytest.approx(exact, rel=0.08, abs=1)


def test_the_closed_form_is_right_where_it_can_be_written_down():
    h = 1 / np.arange(1, DIMENSIONS + 1)
    assert hessian() == pytest.approx(h)
    for noise in (0.0, 1.0):
        assert expected_loss(0, learning_rate=0.3, batch_size=8, noise=noise) == pytest.approx(h.sum() / 2, rel=1e-12)
    # One step of one dimension: theta = 1 - a h, plus noise of variance a^2 h / B.
    once = 0.5 * np.sum(h * ((1 - 0.3 * h) ** 2 + 0.3**2 * 2.0 * h / 8))
    assert expected_loss(1, learning_rate=0.3, batch_size=8, noise=2.0) == pytest.approx(once, rel=1e-12)


def test_the_closed_form_agrees_with_its_recurrence():
    h = hessian()
    second_moment = np.ones(DIMENSIONS)
    for step in range(1, 60):
        second_moment = (1 - 0.4 * h) ** 2 * second_moment + 0.4**2 * 1.5 * h / 6
        exact = expected_loss(step, learning_rate=0.4, batch_size=6, noise=1.5)
        assert exact == pytest.approx(0.5 * np.sum(h * second_moment), rel=1e-12)
