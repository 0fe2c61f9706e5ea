"""The random matrix that is never held, against the same matrix held."""

from __future__ import annotations

import numpy as np
import pytest

from rightbatch.landscape import subspace
from rightbatch.landscape.subspace import RandomMatrix

LAWS = ["normal", "uniform", "unit-normal", "unit-uniform"]


def held(matrix: RandomMatrix) -> np.ndarray:
    return np.stack([matrix.times(column) for column in np.eye(matrix.columns)], axis=1)


@pytest.mark.parametrize("law", LAWS)
def test_its_products_are_those_of_the_matrix_held(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subspace, "BLOCK_ROWS", 64)
    matrix = RandomMatrix(500, 9, law, seed=3)  # several blocks, the last one shorter
    a, draw = held(matrix), np.random.default_rng(0)
    x, y = draw.standard_normal(500), draw.standard_normal(9)
    assert matrix.times(y) == pytest.approx(a @ y, rel=1e-5, abs=1e-5)
    assert matrix.transposed_times(x) == pytest.approx(a.T @ x, rel=1e-4, abs=1e-4)
    assert matrix.pseudo_inverse_times(x) == pytest.approx(np.linalg.pinv(a) @ x, rel=1e-3, abs=1e-5)
    if law.startswith("unit"):
        assert np.linalg.norm(a, axis=0) == pytest.approx(np.ones(9), rel=1e-5)


@pytest.mark.parametrize(("law", "mean", "deviation"), [("normal", 0, 1), ("uniform", 0.5, 12**-0.5)])
def test_its_entries_have_the_law(law: str, mean: float, deviation: float) -> None:
    entries = held(RandomMatrix(40_000, 5, law, seed=1))
    assert entries.mean() == pytest.approx(mean, abs=4 * deviation / np.sqrt(entries.size))
    assert entries.std() == pytest.approx(deviation, rel=0.01)
    correlations = np.corrcoef(entries.T) - np.eye(5)
    assert np.abs(correlations).max() < 4 / np.sqrt(40_000)


def test_a_seed_is_a_matrix_and_fewer_rows_than_columns_are_no_fault() -> None:
    y = np.arange(4.0)
    assert (RandomMatrix(50, 4, "normal", 1).times(y) == RandomMatrix(50, 4, "normal", 1).times(y)).all()
    assert (RandomMatrix(50, 4, "normal", 1).times(y) != RandomMatrix(50, 4, "normal", 2).times(y)).all()
    small = RandomMatrix(3, 10, "normal", 0)
    x = np.array([1.0, -2.0, 3.0])
    assert small.times(small.pseudo_inverse_times(x)) == pytest.approx(x, rel=1e-3)
