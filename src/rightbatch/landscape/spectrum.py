"""The largest eigenvalue and the trace of the Hessian, from its products with vectors, with intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rightbatch.fit.quantiles import t_interval
from rightbatch.landscape.surface import Surface
from rightbatch.records import Interval

Array = NDArray[np.float64]

KRYLOV = 32
"""Lanczos vectors at the least: the interval of the largest eigenvalue rests on so many."""

DENSE = 2 * KRYLOV
"""Up to so many weights the Hessian is made whole."""

LEVEL = 0.95


def largest_eigenvalue(surface: Surface, *, seed: int = 0, relative_error: float = 0.01) -> Interval:
    """The largest eigenvalue of the Hessian at the weights as they are.

    What Lanczos finds is never above it (up to rounding). How far it may be above what was found is bounded for a
    random first vector by J. Kuczynski and H. Wozniakowski, "Estimating the largest eigenvalue by the power and Lanczos
    algorithms with a random start" (SIAM J. Matrix Anal. Appl. 13, 1992, theorem 4.2), applied to H less its smallest
    eigenvalue: with n weights and k vectors, the share missed of the whole range exceeds d with a probability of at
    most 1.648 sqrt(n) exp(-sqrt(d) (2k - 1)). The bound is wide: the estimate itself is mostly much better.
    """
    import scipy.sparse.linalg  # takes half a second, and few ask

    n = surface.size
    if n <= DENSE:
        value = float(np.linalg.eigvalsh(_dense(surface))[-1])
        return Interval(value, value, value, LEVEL)
    operator = scipy.sparse.linalg.LinearOperator(
        (n, n), matvec=lambda v: _product(surface, np.reshape(v, n)), dtype=np.float64
    )
    first = np.random.default_rng([seed, 3]).standard_normal(n)
    ends = scipy.sparse.linalg.eigsh(
        operator, k=2, which="BE", v0=first, ncv=KRYLOV, tol=relative_error, return_eigenvectors=False
    )
    low, value = float(ends.min()), float(ends.max())
    missed = (math.log(1.648 * math.sqrt(n) / (1 - LEVEL)) / (2 * KRYLOV - 1)) ** 2
    return Interval(value, value, value + missed / (1 - missed) * (value - low), LEVEL)


def trace(surface: Surface, *, probes: int, seed: int = 0) -> Interval:
    """The trace of the Hessian from so many products with vectors, with a t interval.

    A few large eigenvalues among many small ones would make the mean of v^T H v over vectors of random signs
    (Hutchinson 1990) uneven and its interval too narrow. A third of the products finds their directions, a third takes
    the trace there exactly, the others estimate what is left: R. A. Meyer, C. Musco, C. Musco and D. Woodruff,
    "Hutch++: Optimal Stochastic Trace Estimation" (SOSA 2021, algorithm 1).
    """
    n = surface.size
    if n <= DENSE:
        value = float(np.trace(_dense(surface)))
        return Interval(value, value, value, LEVEL)
    draw, directions = np.random.default_rng([seed, 4]), probes // 3
    found = [_product(surface, draw.choice([-1.0, 1.0], n)) for _ in range(directions)]
    largest = np.linalg.qr(np.reshape(found, (directions, n)).T)[0].T
    exact = sum(float(q @ _product(surface, q)) for q in largest)
    left = []
    for _ in range(probes - 2 * directions):
        signs = draw.choice([-1.0, 1.0], n)
        signs -= largest.T @ (largest @ signs)
        left.append(float(signs @ _product(surface, signs)))
    mean, error = exact + float(np.mean(left)), float(np.std(left, ddof=1)) / math.sqrt(len(left))
    return t_interval(mean, error, len(left) - 1, LEVEL)


def _product(surface: Surface, vector: Array) -> Array:
    product: Array = surface.hessian_products(vector[None])[0]
    return product


def _dense(surface: Surface) -> Array:
    rows = surface.hessian_products(np.eye(surface.size))
    return (rows + rows.T) / 2
