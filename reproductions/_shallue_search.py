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

from rightbatch import Point, Settings, Stop, Target, Trial, curves
from rightbatch.runner import RunInProgress
from rightbatch.workers import Crew

Advancing = Generator[RunInProgress, Point | Stop, Any]
Start = Callable[[Trial], RunInProgress]

HALF_WIDTH = 0.9
"""Of the box in log10 of the effective rate: a factor of eight to both sides."""

MOST_MOMENTUM = 0.99
EDGE = 0.05
"""A best trial within this share of the box's width of an edge is not a best one: the box is moved."""

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
    """Where trials are drawn: log10 of the effective rate, and log10 of 1 - momentum (both 0: plain SGD)."""

    low: float
    high: float
    most_momentum: float

    def beyond(self, side: int) -> Box:
        """A box about its lower (-1) or upper (1) edge; 2: the same with ten times as strong a momentum."""
        if side == 2:
            return replace(self, most_momentum=1 - (1 - self.most_momentum) / 10)
        edge = self.low if side < 0 else self.high
        return replace(self, low=edge - HALF_WIDTH, high=edge + HALF_WIDTH)


@dataclass(frozen=True)
class Plan:
    """How many trials a search has, how many are repeated to choose one, with how many seeds; how often a box moves."""

    trials: int
    candidates: int
    choosing: int
    judging: int
    moves: int


def first_box(problem: str, optimizer: str, batch_size: int) -> Box:
    """About a rate that is in proportion to small batches and the same for large ones; the same for both optimizers."""
    middle = math.log10(ABOUT[problem] * batch_size / (1 + batch_size / BENDS_AT))
    return Box(middle - HALF_WIDTH, middle + HALF_WIDTH, MOST_MOMENTUM if optimizer == "nesterov" else 0.0)


def drawn(box: Box, count: int, keys: Sequence[int]) -> list[tuple[float, float]]:
    """Effective rates and momenta by a scrambled Sobol sequence; those in the middle of the box first.

    The order changes nothing but how soon bad trials can be stopped.
    """
    dimensions = 2 if box.most_momentum else 1
    points = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(list(keys))).random(count)
    points = points[np.argsort(((points - 0.5) ** 2).sum(axis=1), kind="stable")]
    rates = 10 ** (box.low + (box.high - box.low) * points[:, 0])
    rest = (1 - box.most_momentum) ** points[:, 1] if dimensions == 2 else np.ones(count)
    return [(float(rate), float(1 - left)) for rate, left in zip(rates, rest, strict=True)]


def side_of(box: Box, rate: float, momentum: float) -> int:
    """At which edge of the box a trial is, as `Box.beyond` takes it; 0 where at none.

    No momentum at all is the end of what there is, and no edge.
    """
    at = (math.log10(rate) - box.low) / (box.high - box.low)
    if at < EDGE or at > 1 - EDGE:
        return -1 if at < EDGE else 1
    most = math.log(1 - box.most_momentum) if box.most_momentum else -math.inf
    return 2 if math.log(1 - momentum) / most > 1 - EDGE else 0


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


def fastest(start: Start, trials: Sequence[Trial], target: Target, keep: int) -> Advancing:
    """Steps and positions of the fastest trials, at most `keep`.

    A trial is stopped once it has taken as many steps as the last one kept needed: which are kept is not changed by it.
    """
    best: list[tuple[float, int]] = []
    for position, trial in enumerate(trials):
        most = best[keep - 1][0] if len(best) >= keep else math.inf
        steps = yield from steps_to(start, trial, target, most)
        if steps is not None:
            insort(best, (steps, position))
    return best[:keep]


def searched(
    start: Start, target: Target, trial: Trial, box: Box, plan: Plan, keys: Sequence[int], seed: int
) -> Advancing:
    """One whole search at one batch size: the chosen rate and momentum, and the steps that fresh seeds need with it.

    `trial` has batch size and planned length. While the chosen one is at an edge the box is moved, at most `plan.moves`
    times; the candidates of all boxes are held against each other. All values are plain JSON; None: not reached.
    """

    def made(rate: float, momentum: float, own: int) -> Trial:
        settings = Settings({"momentum": momentum})
        return replace(trial, learning_rate=rate * (1 - momentum), seed=own, settings=settings)

    candidates: list[dict[str, Any]] = []
    side, boxes = 0, [box]
    while True:
        pairs = drawn(boxes[-1], plan.trials, (*keys, len(boxes)))
        offset = seed + plan.trials * (len(boxes) - 1)
        trials = [made(*pair, offset + k) for k, pair in enumerate(pairs)]
        for _, position in (yield from fastest(start, trials, target, plan.candidates)):
            own = yield from repeated(start, target, with_seeds(made, pairs[position]), seed + CHOSEN_BY, plan.choosing)
            candidates.append({"rate": pairs[position][0], "momentum": pairs[position][1], "choosing": own})
        if not candidates:
            return {"boxes": len(boxes), "at_edge": True, "chosen": None, "steps": []}
        chosen = min(candidates, key=lambda one: typical(one["choosing"]) or math.inf)
        side = side_of(hull(boxes), chosen["rate"], chosen["momentum"])
        if not side or len(boxes) > plan.moves:
            break
        boxes.append(hull(boxes).beyond(side))
    judged = with_seeds(made, (chosen["rate"], chosen["momentum"]))
    steps = yield from repeated(start, target, judged, seed + JUDGED_BY, plan.judging)
    return {"boxes": len(boxes), "at_edge": bool(side), "chosen": chosen, "steps": steps}


def with_seeds(made: Callable[[float, float, int], Trial], pair: tuple[float, float]) -> Callable[[int], Trial]:
    """Trials of one rate and momentum, by seed."""
    return lambda seed: made(*pair, seed)


def repeated(start: Start, target: Target, made: Callable[[int], Trial], first: int, count: int) -> Advancing:
    """Steps with each of some seeds."""
    found = []
    for seed in range(first, first + count):
        found.append((yield from steps_to(start, made(seed), target)))
    return found


def hull(boxes: Sequence[Box]) -> Box:
    """All that was searched."""
    return Box(min(box.low for box in boxes), max(box.high for box in boxes), max(box.most_momentum for box in boxes))


def typical(steps: Sequence[float | None]) -> float | None:
    """The median; None where half of the runs or more do not reach the target."""
    found = float(np.median([math.inf if one is None else one for one in steps])) if steps else math.inf
    return found if math.isfinite(found) else None


def side_by_side(crew: Crew, searches: Mapping[str, Advancing]) -> dict[str, Any]:
    """What searches come to, each having one run at a time."""
    running = {next(search): (name, search) for name, search in searches.items()}
    found: dict[str, Any] = {}
    while running:
        run = crew.next(list(running))
        name, search = running.pop(run)
        try:
            running[search.send(run.advance())] = (name, search)
        except StopIteration as ended:
            found[name] = ended.value
    return {name: found[name] for name in searches}
