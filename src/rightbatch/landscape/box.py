"""The largest loss in a box about the weights: the sharpness of Keskar et al., exactly as they define it.

N. S. Keskar, D. Mudigere, J. Nocedal, M. Smelyanskiy, P. T. P. Tang, "On Large-Batch Training for Deep Learning"
(ICLR 2017, arXiv 1609.04836), Metric 2.1:

    100 (max f(x + A y) - f(x)) / (1 + f(x))  over  |y_i| <= epsilon (|(A^+ x)_i| + 1)

The maximum is sought by ten iterations of L-BFGS-B, so that what is measured is what these find, no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import NDArray

from rightbatch.landscape.subspace import RandomMatrix
from rightbatch.landscape.surface import Surface
from rightbatch.minima import Choices

Array = NDArray[np.float64]
Function = Callable[[Array], tuple[float, Array]]
"""Value and gradient at a point."""

MOST_EVALUATIONS = 3
"""Of the loss, an iteration of L-BFGS-B in the mean; it needs one and a bit."""

SIGNED_STEP = 0.25
"""A step of signed ascent, as a share of half the side of the box."""


@dataclass(frozen=True)
class Maximum:
    """The largest value that was seen in a box. `start` is that at its centre, `values` those of each restart."""

    start: float
    values: tuple[float, ...]

    @property
    def rise(self) -> float:
        """By how much the loss rises, in its own unit."""
        return max(self.values) - self.start

    def sharpness(self, value: float | None = None) -> float:
        """Metric 2.1, in percent; of a restart's value instead of the largest."""
        found = max(self.values) if value is None else value
        return 100 * (found - self.start) / (1 + self.start)


def in_box(surface: Surface, choices: Choices) -> Maximum:
    """The maximum over all weights, A = I."""
    x = surface.start
    return maximum(lambda y: surface.value_and_gradient(x + y), choices.epsilon * (np.abs(x) + 1), choices)


def in_subspace(surface: Surface, choices: Choices) -> Maximum:
    """The maximum along the columns of a random matrix."""
    x = surface.start
    matrix = RandomMatrix(surface.size, choices.dimensions, choices.law, choices.seed)

    def along(y: Array) -> tuple[float, Array]:
        value, gradient = surface.value_and_gradient(x + matrix.times(y))
        return value, matrix.transposed_times(gradient)

    return maximum(along, choices.epsilon * (np.abs(matrix.pseudo_inverse_times(x)) + 1), choices)


def in_adaptive_box(surface: Surface, choices: Choices) -> Maximum:
    """The maximum where every weight moves in proportion to its size.

    It does not change where weights are rescaled so that the function is the same (Dinh et al. 2017): the box moves
    with them, and so do steps along signs. L-BFGS-B hardly gets away from the centre here.
    """
    x = surface.start
    half = choices.adaptive_epsilon * np.abs(x)
    return maximum(lambda y: surface.value_and_gradient(x + y), half, replace(choices, solver="signed-ascent"))


def one_step(surface: Surface, choices: Choices) -> Maximum:
    """The rise one step of length `radius` along the gradient: what SAM minimises (Foret et al. 2021, equation 2)."""
    value, gradient = surface.value_and_gradient(surface.start)
    norm = float(np.linalg.norm(gradient))
    beyond = surface.value(surface.start + choices.radius / norm * gradient) if norm else value
    return Maximum(value, (beyond,))


def maximum(function: Function, half: Array, choices: Choices) -> Maximum:
    """Seek the maximum over |y_i| <= half_i, from one start or several."""
    draw = np.random.default_rng([choices.seed, 1])
    seen = _Watched(function)
    start, _ = function(np.zeros_like(half))
    values = []
    for restart in range(choices.restarts):
        seen.best = -math.inf
        at_centre = restart == 0 and choices.start == "centre"
        begin = np.zeros_like(half) if at_centre else draw.uniform(-half, half)
        if choices.solver == "l-bfgs-b":
            _l_bfgs_b(seen, begin, half, choices.iterations)
        else:
            _signed_ascent(seen, begin, half, choices.iterations)
        values.append(max(seen.best, start))
    return Maximum(start, tuple(values))


class _Watched:
    """A function that remembers the largest value it gave: every point it is asked for lies in the box."""

    def __init__(self, function: Function) -> None:
        self._function, self.best = function, -math.inf

    def __call__(self, y: Array) -> tuple[float, Array]:
        value, gradient = self._function(y)
        self.best = max(self.best, value)
        return value, gradient


def _l_bfgs_b(function: Function, begin: Array, half: Array, iterations: int) -> None:
    def falling(y: Array) -> tuple[float, Array]:
        value, gradient = function(y)
        return -value, -gradient

    scipy.optimize.minimize(
        falling,
        begin,
        jac=True,
        method="L-BFGS-B",
        bounds=scipy.optimize.Bounds(-half, half),
        # No tolerances: at a minimum the gradient is so small that the solver would not begin. Where the loss is flat
        # to its last digits a line search finds nothing and does not give up: hence the limit.
        options={"maxiter": iterations, "maxfun": MOST_EVALUATIONS * iterations, "ftol": 0.0, "gtol": 0.0},
    )


def _signed_ascent(function: Function, begin: Array, half: Array, iterations: int) -> None:
    y = begin
    for _ in range(iterations):
        _, gradient = function(y)
        y = np.clip(y + SIGNED_STEP * half * np.sign(gradient), -half, half)
    function(y)
