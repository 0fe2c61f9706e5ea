"""Weights of the proximal term of mini-batch prox and EMSO, by step, and how iterates are averaged.

M. Li, T. Zhang, Y. Chen and A. J. Smola, "Efficient Mini-batch Training for Stochastic Optimization" (KDD 2014), and
J. Wang, W. Wang and N. Srebro, "Memory and Communication Efficient Distributed Stochastic Optimization with Minibatch
Prox" (COLT 2017, arXiv 1702.06269), who restate it and correct its theory: exact solutions of

    w_t = argmin phi_t(w) + gamma_t / 2 |w - w_{t-1}|^2,    phi_t the mean loss of the t-th batch of b examples,

keep the rate of single examples, 1 / sqrt(b T) or 1 / (b T), for any batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rightbatch.errors import InputError

Schedule = Callable[[int], float]
"""gamma_t for the step t = 1, 2 ..."""


def published(scale: float, steps: int, batch_size: int) -> float:
    """gamma = scale sqrt(T / b), the order that Li et al. ask for; `steps` is T."""
    _check_positive(scale=scale, steps=steps, batch_size=batch_size)
    return scale * math.sqrt(steps / batch_size)


def lipschitz(lipschitz: float, distance: float, steps: int, batch_size: int) -> float:
    """gamma = sqrt(8 T / b) L / |w_0 - w*|: Wang et al., theorem 4, for losses that are convex and L-Lipschitz.

    The mean of the iterates is then off by at most `lipschitz_bound`.
    """
    _check_positive(lipschitz=lipschitz, distance=distance, steps=steps, batch_size=batch_size)
    return math.sqrt(8 * steps / batch_size) * lipschitz / distance


def strongly_convex(convexity: float) -> Schedule:
    """gamma_t = lambda (t - 1) / 2: Wang et al., theorem 5, for lambda-strongly convex losses.

    The mean of the iterates weighted by t is then off by at most `strongly_convex_bound`.
    """
    _check_positive(convexity=convexity)
    return lambda step: convexity * (step - 1) / 2


def lipschitz_bound(lipschitz: float, distance: float, steps: int, batch_size: int) -> float:
    """sqrt(8) L |w_0 - w*| / sqrt(b T): on the expected loss above the least one."""
    return math.sqrt(8) * lipschitz * distance / math.sqrt(batch_size * steps)


def strongly_convex_bound(lipschitz: float, convexity: float, steps: int, batch_size: int) -> float:
    """16 L^2 / (lambda b (T + 1)): on the expected loss above the least one."""
    return 16 * lipschitz**2 / (convexity * batch_size * (steps + 1))


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not (math.isfinite(number) and number > 0):
            raise InputError(f"{name} is a positive number, got {number:g}.")
