"""When a search ends although nothing reached the target: its runs have stopped coming nearer to it."""

from __future__ import annotations

from rightbatch import curves
from rightbatch.evidence import Evidence
from rightbatch.question import Objective
from rightbatch.records import Run, StopReason
from rightbatch.search.strategy import Action, Advance, Done, Strategy, Wait

IN_VAIN = 8
"""So many whole runs in a row that come no nearer are enough."""

NEARER = 0.1
"""To come nearer is to make the way that is left shorter by this share."""


def while_nearer(strategy: Strategy) -> Strategy:
    """The strategy, ended where whole runs do not come nearer to the target any more, and none has reached it."""

    def asked(evidence: Evidence) -> Action:
        action = strategy(evidence)
        if not isinstance(action, Advance) or not out_of_reach(evidence):
            return action
        return Wait() if evidence.pending else Done("the target is out of reach")

    return asked


def out_of_reach(evidence: Evidence) -> bool:
    """Whether the last whole runs came no nearer to the target, at rates on both sides of the nearest one's."""
    target = evidence.question.target
    if evidence.question.objective is Objective.METRIC:
        return False
    left: list[tuple[float, Run]] = []
    for run in sorted(evidence.relevant, key=lambda run: run.identifier):
        if evidence.crossing(run) is not None:
            return False
        best = curves.best_value(run.points, target.quantity, target.direction)
        if run.stop and run.stop.reason is StopReason.FINISHED and best is not None:
            left.append((abs(target.value - best), run))
    if len(left) <= IN_VAIN:
        return False
    nearest, run = min(left, key=lambda pair: pair[0])
    ended = (StopReason.FINISHED, StopReason.DIVERGED)
    rates = [one.trial.learning_rate for one in evidence.relevant if one.stop and one.stop.reason in ended]
    return min(rates) < run.trial.learning_rate < max(rates) and nearest > (1 - NEARER) * min(
        way for way, _ in left[:-IN_VAIN]
    )
