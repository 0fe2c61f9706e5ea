"""How fast exact proximal steps and tuned SGD learn on a synthetic problem, at every batch size: slopes in examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from _emso_chains import KEPT, run
from _emso_problems import Logistic, synthetic

from rightbatch.fit.proximal import Schedule, lipschitz, strongly_convex

RIDGES: Mapping[str, float] = {"strongly convex": 0.003, "Lipschitz": 1e-6}
"""The second is so weakly convex that its ridge does nothing here; rows of length 1, so that losses are 1-Lipschitz."""

RATES = tuple(2.0**k for k in range(-7, 4))
"""Of SGD, in units of 1 / smoothness."""


def of_emso(kind: str, batch_size: int, examples: Sequence[int], seeds: int) -> list[list[float]]:
    """Above the least loss by number of examples and seed: each subproblem solved, gamma as Wang et al. have it."""
    problem = synthetic(RIDGES[kind])
    steps = [number // batch_size for number in examples]
    if kind == "strongly convex":  # one run is optimal at all times
        return _solved(problem, strongly_convex(problem.ridge), batch_size, steps, seeds, "linear")
    return [
        _solved(problem, lipschitz(1.0, problem.distance, number, batch_size), batch_size, [number], seeds, "uniform")[
            0
        ]
        for number in steps
    ]


def _solved(
    problem: Logistic, gamma: float | Schedule, batch_size: int, at: Sequence[int], seeds: int, average: Any
) -> list[list[float]]:
    smoothness = problem.smoothness(batch_size)

    def rate_of(step: int) -> float:
        return 1 / (smoothness + (gamma(step) if callable(gamma) else gamma))

    course = run(
        problem,
        batch_size=batch_size,
        steps=max(at),
        seeds=range(seeds),
        at=at,
        rate_of=rate_of,
        average=average,
        dtype=torch.float64,
        lr=1.0,
        gamma=gamma,
        inner_steps=1000,
        tolerance=1e-7,
    )
    return list(course.above["mean"])


def of_sgd(kind: str, batch_size: int, examples: Sequence[int], seeds: int) -> list[list[float]]:
    """The same for SGD, with the rate and the kept weights that do best over all seeds at that many examples."""
    problem, found = synthetic(RIDGES[kind]), []
    for number in examples:
        steps, tried = number // batch_size, []
        for rate in RATES:
            course = run(
                problem,
                batch_size=batch_size,
                steps=steps,
                seeds=range(seeds),
                at=[steps],
                dtype=torch.float64,
                lr=rate / problem.smoothness(batch_size),
                inner_steps=1,
            )
            tried += [course.above[kept][0] for kept in KEPT]
        found.append(min(tried, key=lambda above: float(np.mean(above))))
    return found
