"""Rules for changing the batch size along a training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from rightbatch import curves
from rightbatch.records import Point, Run
from rightbatch.rules.case import Case
from rightbatch.rules.effects import Effect, Finding, Unit, Untold
from rightbatch.rules.quality import SAME_QUALITY
from rightbatch.rules.rule import Rule, no_prediction
from rightbatch.rules.sources import SMITH_GROW

SAME_RATIO = 1.1
"""Rate over size, first and last, within this factor in both plans: else they are not the same temperature."""


def _changes(points: Sequence[Point]) -> bool:
    """Whether rate or size are others at the end; most runs are told apart by this alone."""
    first, last = points[1], points[-1]
    changed = (first.learning_rate, first.batch_size) != (last.learning_rate, last.batch_size)
    return changed and all(point.batch_size for point in points[1:])


def _decays(points: Sequence[Point]) -> bool:
    """The rate falls, the batch size stays."""
    rates = [point.learning_rate for point in points]
    return (
        len({point.batch_size for point in points}) == 1
        and all(b <= a for a, b in pairwise(rates))
        and rates[-1] < rates[0]
    )


def _grows(points: Sequence[Point]) -> bool:
    """The batch size grows, the rate stays."""
    sizes = [point.batch_size for point in points]
    return (
        len({point.learning_rate for point in points}) == 1
        and all(b >= a for a, b in pairwise(sizes))
        and sizes[-1] > sizes[0]
    )


def _cooling(run: Run) -> tuple[float, float]:
    """Rate over size at the first and the last point of training, in logs."""
    ends = run.points[1], run.points[-1]
    first, last = (math.log(point.learning_rate / point.batch_size) for point in ends)
    return first, last


def _judge_grow(case: Case) -> Finding | Untold:
    """Quality of the runs whose batch grows less that of those whose rate decays as much."""
    runs = [run for run in case.evidence.runs if len(run.points) > 2 and _changes(run.points)]
    decays = [run for run in runs if _decays(run.points[1:])]
    grows = [run for run in runs if _grows(run.points[1:])]
    limit = math.log(SAME_RATIO)
    pairs = [
        (a, b)
        for a in decays
        for b in grows
        if all(abs(x - y) <= limit for x, y in zip(_cooling(a), _cooling(b), strict=True))
    ]
    decays, grows = _unique(a for a, _ in pairs), _unique(b for _, b in pairs)
    if len(decays) < 2 or len(grows) < 2:
        return Untold(
            "no two seeds each of runs whose batch grows and of runs whose rate falls as much; a loop of one's own "
            "says so in its points (`batch_size`, `learning_rate`)"
        )
    direction = case.evidence.facts.direction
    examples = min(run.points[-1].examples for run in (*decays, *grows))
    first = [curves.quality(run.points[:1], direction) for run in (*decays, *grows)]
    groups = []
    for group in (grows, decays):
        within = [[point for point in run.points if point.examples <= examples * 1.001] for run in group]
        groups.append([value for points in within if (value := curves.quality(points, direction)) is not None])
    starts = [value for value in first if value is not None]
    if not starts or any(len(group) < 2 for group in groups):
        return Untold("the runs have no quality to compare")
    means = [float(np.mean(group)) for group in groups]
    best = max(means) if direction == "max" else min(means)
    gain = best - float(np.median(starts))
    if gain == 0:
        return Untold("no run of them got better than it began")
    freedom = len(groups[0]) + len(groups[1]) - 2
    variance = sum(float(((np.array(g) - np.mean(g)) ** 2).sum()) for g in groups) / freedom
    error = math.sqrt(variance * (1 / len(groups[0]) + 1 / len(groups[1]))) / abs(gain)
    value = (means[0] - means[1]) / gain
    name = "quality of a growing batch over that of a decaying rate"
    effect = Effect(name, value, error, freedom, -SAME_QUALITY, SAME_QUALITY, Unit.SHARE)
    steps = [float(np.median([run.points[-1].step for run in group])) for group in (grows, decays)]
    return Finding((effect,), f"{100 * value:+.1f} % of the gain, with {steps[0] / steps[1]:.2f} times the steps")


def _unique(runs: Iterable[Run]) -> list[Run]:
    return list({run.identifier: run for run in runs}.values())


RULES = (
    Rule(
        name="grow-the-batch",
        family="schedule",
        statement="Instead of decaying the rate, grow the batch by the same factor: as good, in fewer steps.",
        sources=(SMITH_GROW,),
        scope="SGD, momentum and Adam, up to a batch of a tenth of the data",
        tolerance="after as many examples, at the same rate / size, quality differs by at most 1 % of the gain",
        predict=no_prediction,
        judge=_judge_grow,
    ),
)
