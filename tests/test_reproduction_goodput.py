"""What the reproduction of goodput rests on: the mean of the noise scale over a training, and seconds between sizes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rightbatch.loading import as_module
from rightbatch.rules.size_laws import goodput

FOLDER = Path(__file__).parents[1] / "reproductions"
module = as_module(FOLDER / "goodput.py", "goodput_of_tests")()

ALPHA, BETA = 3e-4, 2e-6


def seconds(size: float, scales: list[float], progress: list[float]) -> float:
    """A training of these parts by the law: each takes 1 + phi / B times the steps that it would without noise."""
    return sum((ALPHA + BETA * size) * (1 + phi / size) * part for phi, part in zip(scales, progress, strict=True))


def test_the_size_of_the_mean_over_progress_is_the_fastest_for_the_whole_training() -> None:
    along = [20.0, 60.0, 200.0, 800.0]
    progress = [1 / (1 + phi / module.USUAL) for phi in along]  # of equally many steps with the usual batch
    sizes = np.geomspace(1, 4096, 4000)
    fastest = sizes[np.argmin([seconds(size, along, progress) for size in sizes])]
    scale = module.over_progress(along)
    assert scale is not None
    assert goodput(ALPHA, BETA, scale) == pytest.approx(fastest, rel=0.01)


def test_a_noise_scale_without_a_bound_is_none_over_all() -> None:
    assert module.over_progress([20.0, None, 30.0, 40.0]) is None


def test_seconds_between_sizes_are_on_a_line_in_logarithms_and_end_with_the_last() -> None:
    known = {16: 4.0, 64: 1.0, 256: 3.0}
    assert module.at(32, known) == pytest.approx(2.0)
    assert module.at(128, known) == pytest.approx(math.sqrt(3.0))
    assert (module.at(1, known), module.at(10_000, known)) == pytest.approx((4.0, 3.0))


def test_a_world_that_obeys_the_law_is_within_a_few_percent() -> None:
    phi = 100.0
    by_size = {str(b): [seconds(b, [phi], [1000.0])] * 2 for b in (8, 16, 32, 64, 128, 256, 512)}
    of = {"seconds": by_size, "alpha": ALPHA, "beta": BETA, "noise": [{"along": [phi] * 4}] * 2}
    found = module.regret(of)
    assert found is not None
    assert found.estimate == pytest.approx(1.0, abs=0.02)
    assert (found.low, found.high) == (pytest.approx(found.estimate), pytest.approx(found.estimate))
    wrong = module.regret({**of, "noise": [{"along": [100 * phi] * 4}] * 2})
    assert wrong is not None
    assert wrong.estimate > 1.5
