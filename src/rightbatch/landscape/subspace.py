"""A random matrix with many rows and few columns that is never held: its blocks of rows are drawn anew when needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rightbatch.minima import Law

Array = NDArray[np.float64]

BLOCK_ROWS = 1 << 14
"""Rows drawn at a time: a block of a hundred columns takes 6 MB."""


class RandomMatrix:
    """A of shape `[rows, columns]`, drawn from a seed. Memory stays that of a vector of `rows` and a block."""

    def __init__(self, rows: int, columns: int, law: Law, seed: int) -> None:
        self.rows, self.columns, self._law, self._seed = rows, columns, law, seed
        self._scale = np.ones(columns)
        gram = np.zeros((columns, columns))
        for _, block in self._blocks():
            gram += block.T @ block
        if law.startswith("unit-"):
            self._scale = 1 / np.sqrt(np.diag(gram))
        self._gram = gram * np.outer(self._scale, self._scale)

    def times(self, y: Array) -> Array:
        """A y, shape `[rows]`."""
        found, scaled = np.empty(self.rows), (self._scale * y).astype(np.float32)
        for rows, block in self._blocks():
            found[rows] = block @ scaled
        return found

    def transposed_times(self, x: Array) -> Array:
        """A^T x, shape `[columns]`."""
        found = np.zeros(self.columns)
        for rows, block in self._blocks():
            found += x[rows].astype(np.float32) @ block
        return self._scale * found

    def pseudo_inverse_times(self, x: Array) -> Array:
        """A^+ x = (A^T A)^-1 A^T x, shape `[columns]`: least squares where there are fewer rows than columns."""
        return np.asarray(np.linalg.lstsq(self._gram, self.transposed_times(x), rcond=None)[0], np.float64)

    def _blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        for number, begin in enumerate(range(0, self.rows, BLOCK_ROWS)):
            rows = slice(begin, min(begin + BLOCK_ROWS, self.rows))
            draw = np.random.default_rng([self._seed, 2, number])
            shape = (rows.stop - rows.start, self.columns)
            normal = self._law.endswith("normal")
            yield rows, (draw.standard_normal if normal else draw.random)(shape, dtype=np.float32)
