"""The tests on iterates: silent where the assumptions hold, and heard where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.fit.iterates import LEVEL, iterate_tests


def gaussian(seed: int, samples: int = 60, size: int = 5) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(samples, size)) @ draw.normal(size=(size, size)) + draw.normal(size=size)


@pytest.mark.parametrize(("samples", "size"), [(60, 5), (30, 200)])
def test_false_alarms_are_as_rare_as_their_level(samples, size):
    found = [iterate_tests(gaussian(seed, samples, size)) for seed in range(200)]
    for name in ("trend_p_value", "normal_p_value"):
        assert sum(getattr(one, name) < LEVEL for one in found) <= 2  # 0.2 are expected of 200
        assert sum(getattr(one, name) < 0.05 for one in found) <= 20  # and 10
        assert sum(getattr(one, name) < 0.5 for one in found) > 20  # and it does not just say 1
    assert sum(one.autocorrelation_p_value < LEVEL for one in found) == 0


def chain(seed: int, memory: float, samples: int = 60, size: int = 5) -> np.ndarray:
    draw = np.random.default_rng(seed)
    found = draw.normal(size=(samples, size))
    for number in range(1, samples):
        found[number] = memory * found[number - 1] + (1 - memory**2) ** 0.5 * found[number]
    return found


def test_what_a_pass_leaves_is_tolerated_and_more_is_not():
    tolerated = [iterate_tests(chain(seed, 0.14)).failures for seed in range(100)]
    assert sum(bool(failures) for failures in tolerated) <= 2
    slow = [" ".join(iterate_tests(chain(seed, 0.8)).failures) for seed in range(100)]
    assert sum("Not independent" in failures for failures in slow) > 80
    assert sum("Not stationary" in failures for failures in slow) < 20  # wandering about is no trend


def said(samples: np.ndarray) -> str:
    return " ".join(iterate_tests(samples).failures)


def test_each_assumption_that_fails_is_heard():
    plain = gaussian(0)
    time = np.arange(60)
    assert said(plain) == ""
    assert "Not stationary" in said(plain + np.outer(time, [0.2, 0, 0, 0, 0]))
    waves = gaussian(1, size=3)
    waves[:, 0] += 20 * np.sin(time / 3)
    assert "Not independent: neighbouring samples correlate by 0.8" in said(waves)
    assert "Not Gaussian" in said(np.where(np.random.default_rng(1).random((60, 1)) < 0.1, 30.0, 1.0) * plain)
    still = plain.copy()
    still[:, 2] = 1.0
    assert "1 of 5 parameters never moved" in said(still)
    assert said(np.ones((60, 5))).startswith("5 of 5 parameters never moved")
    assert "Rank-deficient: 20 samples of 30 parameters" in said(gaussian(2, 20, 30))


def test_what_cannot_be_is_told():
    with pytest.raises(InputError, match=r"at least 8 samples \[k, d\], got shape \(7, 2\)"):
        iterate_tests(np.zeros((7, 2)))
    with pytest.raises(InputError, match="diverged"):
        iterate_tests(np.full((9, 2), np.inf))
