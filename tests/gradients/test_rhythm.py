"""The share of time that sampling takes is held, whatever a sample costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rightbatch.gradients.rhythm import FIRST_STEP, Rhythm


def sampled_steps(rhythm: Rhythm, *, steps: int, plain_seconds: float, extra_seconds: float) -> list[int]:
    """Steps that were sampled in a simulated training, whose times vary by a tenth."""
    generator = np.random.default_rng(0)
    found = []
    for step in range(steps):
        due = rhythm.due()
        seconds = plain_seconds * float(np.exp(0.1 * generator.standard_normal())) + due * extra_seconds
        rhythm.took(seconds, sampled=due)
        if due:
            found.append(step)
    return found


@pytest.mark.parametrize("overhead", [0.005, 0.02, 0.2])
@pytest.mark.parametrize("extra", [0.05, 0.5, 5.0])
def test_the_share_is_held(overhead: float, extra: float) -> None:
    rhythm = Rhythm(overhead)
    found = sampled_steps(rhythm, steps=20_000, plain_seconds=1e-3, extra_seconds=extra * 1e-3)
    share = len(found) * extra / 20_000
    assert share <= 1.25 * overhead
    assert share >= 0.7 * min(overhead, extra / 2)  # and it is used; never twice in a row
    assert rhythm.share == pytest.approx(share, rel=0.25)


def test_a_sample_costs_what_it_costs_later_too() -> None:
    rhythm = Rhythm(0.02)
    cheap = sampled_steps(rhythm, steps=5000, plain_seconds=1e-3, extra_seconds=1e-3)
    dear = sampled_steps(rhythm, steps=5000, plain_seconds=1e-3, extra_seconds=1e-2)
    assert len(dear) < len(cheap) / 4
    assert rhythm.share < 0.025


def test_nothing_is_sampled_before_it_is_known_how_long_a_step_takes() -> None:
    assert sampled_steps(Rhythm(0.5), steps=200, plain_seconds=1e-3, extra_seconds=1e-4)[0] >= FIRST_STEP


def test_an_infinite_share_is_every_step() -> None:
    assert len(sampled_steps(Rhythm(math.inf), steps=50, plain_seconds=1e-3, extra_seconds=1.0)) == 50


def test_the_first_samples_are_borrowed_and_paid_back() -> None:
    found = sampled_steps(Rhythm(0.02), steps=3000, plain_seconds=1e-3, extra_seconds=1e-3)
    assert found[:6] == [5, 9, 15, 24, 38, 59]
    assert found[6] > 250  # six samples of one step each are 2 % of 300 steps
    assert len(found) == pytest.approx(0.02 * 3000, rel=0.25)
