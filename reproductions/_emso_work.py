"""The units of `emso.py`: what is tuned on seeds of its own and then measured on others. Needs torch, and so does not
come with the claims.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import _emso_problems
import numpy as np
import torch
from _emso_chains import KEPT, METHODS, Course, Way, closure, run
from _emso_problems import Logistic
from _emso_slopes import of_emso, of_sgd

from rightbatch.fit.proximal import published

__all__ = ["gradient_seconds", "measured", "of_emso", "of_sgd", "solved", "tuned"]

TUNING = range(1000, 1004)
"""Seeds that nothing is told of."""

BOLDNESS = tuple(2.0**k for k in range(-3, 7))
"""Of the published schedule, at the batch size that its constant is tuned at."""


@cache
def problem(data: str) -> Logistic:
    """A data set, read once."""
    made: Logistic = getattr(_emso_problems, data)()
    return made


def steps_for(examples: float, batch_size: int, workers: int) -> int:
    """How many steps look at so many examples."""
    return max(1, int(examples // (batch_size * workers)))


def _course(data: str, method: str, batch_size: int, way: Way, seeds: Sequence[int], looks: Sequence[float]) -> Course:
    """A course that is looked at after these numbers of examples and at steps a factor sqrt(2) apart."""
    how, one = METHODS[method], problem(data)
    given = {steps_for(examples, batch_size, how.workers) for examples in looks}
    geometric = {round(2 ** (k / 2)) for k in range(60) if 2 ** (k / 2) <= max(given)}
    return run(
        one,
        batch_size=batch_size,
        steps=max(given),
        seeds=seeds,
        at=sorted(given | geometric),
        workers=how.workers,
        **how.options(one, batch_size, way),
    )


def _scores(
    course: Course, kept: str, looks: Mapping[str, int], target: float | None
) -> Iterator[tuple[str, list[float]]]:
    """By objective a number for each seed: above the least loss at the end, or steps to the target."""
    above = np.nan_to_num(np.array(course.above[kept]), nan=np.inf)
    for name, steps in looks.items():
        yield name, above[course.steps.index(steps)].tolist()
    if target is not None:
        yield "target", [_crossing(course.steps, above[:, seed], target) for seed in range(above.shape[1])]


def _crossing(steps: Sequence[int], above: Any, target: float) -> float:
    """The first step at or below the target, between two looks by their logarithms; infinite where there is none."""
    reached = np.flatnonzero(above <= target)
    if not len(reached):
        return math.inf
    k = int(reached[0])
    if k == 0 or not math.isfinite(above[k - 1]):
        return float(steps[k])
    share = (math.log(above[k - 1]) - math.log(target)) / (math.log(above[k - 1]) - math.log(max(above[k], 1e-12)))
    between = math.log(steps[k - 1]) + share * (math.log(steps[k]) - math.log(steps[k - 1]))
    return float(math.ceil(math.exp(between) - 1e-9))


def tuned(
    data: str, method: str, batch_size: int, looks: Mapping[str, float], target: float | None
) -> dict[str, dict[str, Any]]:
    """By objective the way and the kept weights that do best on average; none where every way diverged or missed."""
    at = {name: steps_for(examples, batch_size, METHODS[method].workers) for name, examples in looks.items()}
    best: dict[str, dict[str, Any]] = {}
    ways = METHODS[method].ways()
    for way in ways:
        course = _course(data, method, batch_size, way, TUNING, list(looks.values()))
        for kept in KEPT:
            for objective, values in _scores(course, kept, at, target):
                score = float(np.mean(values))
                if math.isfinite(score) and score < best.get(objective, {"score": math.inf})["score"]:
                    best[objective] = {
                        "score": score,
                        "boldness": way.boldness,
                        "rate": way.rate,
                        "kept": kept,
                        "at_edge": METHODS[method].at_edge(way),
                    }
    return best


def measured(
    data: str,
    method: str,
    batch_size: int,
    chosen: Mapping[str, Mapping[str, Any]],
    looks: Mapping[str, float],
    target: float | None,
    seeds: int,
) -> dict[str, list[float | None]]:
    """By objective a number for each of other seeds, with what was tuned for it; None: it diverged or missed."""
    at = {name: steps_for(examples, batch_size, METHODS[method].workers) for name, examples in looks.items()}
    found: dict[str, list[float | None]] = {}
    for boldness, rate in {(best["boldness"], best["rate"]) for best in chosen.values()}:
        course = _course(data, method, batch_size, Way(boldness, rate), range(seeds), list(looks.values()))
        for kept in KEPT:
            for objective, values in _scores(course, kept, at, target):
                mine = chosen.get(objective)
                if mine and (mine["boldness"], mine["rate"], mine["kept"]) == (boldness, rate, kept):
                    found[objective] = [value if math.isfinite(value) else None for value in values]
    return found


def solved(data: str, tuned_at: int, sizes: Sequence[int], examples: int, seeds: int) -> dict[str, Any]:
    """EMSO with every subproblem solved, gamma = scale sqrt(T / b) with one scale, tuned at one size."""
    one = problem(data)
    scales = [
        one.smoothness(tuned_at) / boldness / published(1.0, examples // tuned_at, tuned_at) for boldness in BOLDNESS
    ]

    def course(scale: float, batch_size: int, seeds: Sequence[int]) -> Course:
        steps = examples // batch_size
        return run(
            one,
            batch_size=batch_size,
            steps=steps,
            seeds=seeds,
            at=[steps],
            dtype=torch.float64,
            lr=1.0,
            inner="l-bfgs",
            inner_steps=60,
            tolerance=1e-5,
            gamma=published(scale, steps, batch_size),
        )

    tried = {
        (scale, kept): float(np.mean(above[kept]))
        for scale in scales
        for above in [course(scale, tuned_at, TUNING).above]
        for kept in KEPT
    }
    scale, kept = min(tried, key=lambda one: tried[one])
    return {
        "scale": scale,
        "kept": kept,
        "at_edge": scale in (scales[0], scales[-1]),
        "above": {str(size): course(scale, size, range(seeds)).above[kept][0] for size in sizes},
    }


def gradient_seconds(data: str) -> float:
    """What the gradient of one example takes in batches of 4096: the fastest of twenty, without what a batch costs."""
    one, weights = problem(data), torch.nn.Parameter(torch.zeros(1, problem(data).size))
    gradients = closure(one, weights, [torch.Generator().manual_seed(0)], 4096, False)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        gradients()
        seconds.append(time.perf_counter() - started)
    return min(seconds) / 4096
