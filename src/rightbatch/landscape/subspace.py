"""A random matrix with many rows and few columns that is never held: its blocks of rows are drawn anew when needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from rightbatch.minima import Law

Array = NDArray[np.float64]
Block = NDArray[np.float32]

BLOCK_ROWS = 1 << 14
"""Rows drawn at a time: a block of a hundred columns takes 6 MB."""


class RandomMatrix:
    """A of shape `[rows, columns]`, drawn from a seed. Memory stays that of a vector of `rows` and a block a core."""

    def __init__(self, rows: int, columns: int, law: Law, seed: int) -> None:
        self.rows, self.columns, self._law, self._seed = rows, columns, law, seed
        gram = np.sum(list(self._each(lambda rows, block: block.T @ block)), axis=0, dtype=np.float64)
        self._scale = 1 / np.sqrt(np.diag(gram)) if law.startswith("unit-") else np.ones(columns)
        self._gram = gram * np.outer(self._scale, self._scale)

    def times(self, y: Array) -> Array:
        """A y, shape `[rows]`."""
        scaled = (self._scale * y).astype(np.float32)
        return np.concatenate(list(self._each(lambda rows, block: block @ scaled))).astype(np.float64)

    def transposed_times(self, x: Array) -> Array:
        """A^T x, shape `[columns]`."""
        narrow = x.astype(np.float32)
        found = np.sum(list(self._each(lambda rows, block: narrow[rows] @ block)), axis=0, dtype=np.float64)
        return np.asarray(self._scale * found)

    def pseudo_inverse_times(self, x: Array) -> Array:
        """A^+ x = (A^T A)^-1 A^T x, shape `[columns]`: least squares where there are fewer rows than columns."""
        return np.asarray(np.linalg.lstsq(self._gram, self.transposed_times(x), rcond=None)[0], np.float64)

    def _each(self, work: Callable[[slice, Block], Block]) -> Iterator[Block]:
        """What comes of each block of rows, in their order. Drawing takes longest: one block a core at a time."""

        def one(number: int) -> Block:
            rows = slice(number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, self.rows))
            draw = np.random.Generator(np.random.SFC64([self._seed, 2, number]))
            law = draw.standard_normal if self._law.endswith("normal") else draw.random
            return work(rows, law((rows.stop - rows.start, self.columns), dtype=np.float32))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(one, range(-(-self.rows // BLOCK_ROWS)))
