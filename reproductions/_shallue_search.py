"""The search of `shallue.py`: trials drawn quasi-randomly, the best kept, chosen by other seeds and judged by others.

What runs is advanced by the caller: each function is a generator that hands out the run to be advanced next and is sent
what came of it. So two searches go on side by side, each on a worker of its own, and come to the same as one by one.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import qmc

from rightbatch import Point, RunInProgress, Runs, Settings, Stop, Target, Trial, curves

Advancing = Generator[RunInProgress, Point | Stop, Any]
Start = Callable[[Trial], RunInProgress]

HALF_WIDTH = 0.9
"""Of the first box in log10 of the effective rate: a factor of eight to both sides."""

MOST_MOMENTUM = 0.99
"""Of the first box, which begins at no momentum at all: two decades of 1 - momentum."""

EDGE = 0.05
"""A best trial within this share of the width of all that was searched of an edge is not a best one."""

ABOUT: Mapping[str, float] = {"mnist": 0.02, "fashion": 0.006}
"""The middle of the box is this times the batch size while that is small, ..."""

BENDS_AT = 150
"""... and does not grow any more beyond this batch size."""

PASSES = 5
"""The longest run of a small batch; of a large one, as many times longer as its batch is larger than this one: """
LONGER_FROM = 256

CHOSEN_BY, JUDGED_BY = 500, 1000
"""Where the seeds begin that choose among the best trials, and those that judge the chosen one."""


@dataclass(frozen=True)
class Box:
    """Where trials are drawn: from where to where in log10 of the effective rate, and in log10 of 1 - momentum."""

    low: float
    high: float
    left_low: float = 0.0
    left_high: float = 0.0

    def about(self, trial: Trial) -> Box:
        """Half as wide as the first box, with a trial in its middle; it may reach further than this one."""
        rate, left = (math.log10(value) for value in (effective_rate(trial), left_of(trial)))
        narrow = Box(rate - HALF_WIDTH / 2, rate + HALF_WIDTH / 2)
        if self.left_low == self.left_high:
            return narrow
        decades = -math.log10(1 - MOST_MOMENTUM)
        return replace(narrow, left_low=left - decades / 4, left_high=min(0.0, left + decades / 4))

    def has_at_edge(self, trial: Trial) -> bool:
        """Whether a trial is near the end of what was searched. No momentum at all is the end of what there is."""
        at = (math.log10(effective_rate(trial)) - self.low) / (self.high - self.low)
        if not EDGE <= at <= 1 - EDGE:
            return True
        width = self.left_high - self.left_low
        return width > 0 and math.log10(left_of(trial)) < self.left_low + EDGE * width


@dataclass(frozen=True)
class Plan:
    """What a search consists of.

    trials: Drawn in the first box. closer: In a box about the best of them, and in further ones.
    moves: How often there is a further one, about the best trial so far, because that is at an edge.
    candidates: How many of the fastest are repeated to choose one, with `choosing` seeds; `judging` seeds judge it.
    """

    trials: int
    closer: int
    moves: int
    candidates: int
    choosing: int
    judging: int


def left_of(trial: Trial) -> float:
    """1 - momentum."""
    return 1 - float(trial.settings["momentum"])


def effective_rate(trial: Trial) -> float:
    """Rate over 1 - momentum: how far a step of constant gradient comes in the end."""
    return trial.learning_rate / left_of(trial)


def first_box(problem: str, optimizer: str, batch_size: int) -> Box:
    """About a rate that is in proportion to small batches and the same for large ones; the same for both optimizers."""
    middle = math.log10(ABOUT[problem] * batch_size / (1 + batch_size / BENDS_AT))
    least = math.log10(1 - MOST_MOMENTUM) if optimizer == "nesterov" else 0.0
    return Box(middle - HALF_WIDTH, middle + HALF_WIDTH, least)


def drawn(box: Box, trial: Trial, count: int, keys: Sequence[int], first_seed: int) -> list[Trial]:
    """Trials by a scrambled Sobol sequence, each with a seed of its own; those in the middle of the box first.

    The order changes nothing but how soon bad trials can be stopped.
    """
    dimensions = 2 if box.left_low < box.left_high else 1
    points = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(list(keys))).random(count)
    points = points[np.argsort(((points - 0.5) ** 2).sum(axis=1), kind="stable")]
    rates = 10 ** (box.low + (box.high - box.low) * points[:, 0])
    left = 10 ** (box.left_low + (box.left_high - box.left_low) * points[:, -1])
    return [
        replace(
            trial,
            learning_rate=float(rate * rest),
            seed=first_seed + k,
            settings=Settings({"momentum": float(1 - rest)}),
        )
        for k, (rate, rest) in enumerate(zip(rates, left, strict=True))
    ]


def longest(batch_size: int, train_examples: int) -> int:
    """Planned examples of a run."""
    return round(PASSES * train_examples * (1 + batch_size / LONGER_FROM))


# -------------------------------------------------------------------------------------------------------- running


def steps_to(start: Start, trial: Trial, target: Target, most_steps: float = math.inf) -> Advancing:
    """Steps to the target; None where a run ends, diverges or comes to `most_steps` before."""
    run, curve = start(trial), list[Point]()
    try:
        while not isinstance(outcome := (yield run), Stop):
            curve.append(outcome)
            if (found := curves.crossing(curve, target)) is not None:
                return found.steps
            if curves.diverged(curve) or outcome.step >= most_steps:
                return None
        return None
    finally:
        run.close()


def fastest(
    start: Start, trials: Sequence[Trial], target: Target, keep: int, known: Sequence[tuple[float, Trial]] = ()
) -> Advancing:
    """Steps of the fastest trials, those known before among them, and the trials; at most `keep`.

    A trial is stopped once it has taken as many steps as the last one kept needed: which are kept is not changed by it.
    """
    best = list(known)
    for trial in trials:
        most = best[keep - 1][0] if len(best) >= keep else math.inf
        steps = yield from steps_to(start, trial, target, most)
        if steps is not None:
            insort(best, (steps, trial), key=lambda pair: pair[0])
    return best[:keep]


def searched(
    start: Start, target: Target, trial: Trial, box: Box, plan: Plan, keys: Sequence[int], seed: int
) -> Advancing:
    """One whole search at one batch size: the chosen rate and momentum, and the steps that fresh seeds need with it.

    `trial` has batch size and planned length. All values are plain JSON; None: not reached.
    """
    boxes, best = [box], list[tuple[float, Trial]]()
    while True:
        count = plan.trials if len(boxes) == 1 else plan.closer
        trials = drawn(boxes[-1], trial, count, (*keys, len(boxes)), seed + plan.trials * (len(boxes) - 1))
        best = yield from fastest(start, trials, target, plan.candidates, best)
        if not best:
            return {"boxes": len(boxes), "at_edge": True, "chosen": None, "steps": []}
        further = len(boxes) == 1 or (len(boxes) < 2 + plan.moves and hull(boxes).has_at_edge(best[0][1]))
        if not (plan.closer and further):
            break
        boxes.append(box.about(best[0][1]))
    choosing = []
    for _, candidate in best:
        choosing.append((yield from repeated(start, target, candidate, seed + CHOSEN_BY, plan.choosing)))
    at = min(range(len(best)), key=lambda k: typical(choosing[k]) or math.inf)
    chosen = best[at][1]
    steps = yield from repeated(start, target, chosen, seed + JUDGED_BY, plan.judging)
    told = {"rate": effective_rate(chosen), "momentum": 1 - left_of(chosen), "choosing": choosing[at]}
    return {"boxes": len(boxes), "at_edge": hull(boxes).has_at_edge(chosen), "chosen": told, "steps": steps}


def repeated(start: Start, target: Target, trial: Trial, first_seed: int, count: int) -> Advancing:
    """Steps with each of some seeds."""
    found = []
    for seed in range(first_seed, first_seed + count):
        found.append((yield from steps_to(start, replace(trial, seed=seed), target)))
    return found


def hull(boxes: Sequence[Box]) -> Box:
    """All that was searched."""
    return Box(
        min(box.low for box in boxes),
        max(box.high for box in boxes),
        min(box.left_low for box in boxes),
        max(box.left_high for box in boxes),
    )


def typical(steps: Sequence[float | None]) -> float | None:
    """The median; None where half of the runs or more do not reach the target."""
    found = float(np.median([math.inf if one is None else one for one in steps])) if steps else math.inf
    return found if math.isfinite(found) else None


def side_by_side(runs: Runs, searches: Mapping[str, Advancing]) -> dict[str, Any]:
    """What searches come to, each having one run at a time."""
    running = {next(search): (name, search) for name, search in searches.items()}
    found: dict[str, Any] = {}
    while running:
        run = runs.next(list(running))
        name, search = running.pop(run)
        try:
            running[search.send(run.advance())] = (name, search)
        except StopIteration as ended:
            found[name] = ended.value
    return {name: found[name] for name in searches}
