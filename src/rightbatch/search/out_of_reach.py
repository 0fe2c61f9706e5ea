"""When a search ends although nothing reached the target: its runs have stopped coming nearer to it."""

from __future__ import annotations

from rightbatch import curves
from rightbatch.evidence import Evidence
from rightbatch.question import Objective
from rightbatch.records import Run, StopReason
from rightbatch.search.strategy import Action, Advance, Done, Strategy, Wait

IN_VAIN, IN_VAIN_FAR = 8, 3
"""So many whole runs in a row that come no nearer are enough; so many where they end a world away."""

FAR = 20.0
"""A target so many times as large as what the runs came to may be of another unit, as 94 (%) for 0.94."""

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
    left: list[tuple[float, float, Run]] = []
    for run in sorted(evidence.relevant, key=lambda run: run.identifier):
        if evidence.crossing(run) is not None:
            return False
        best = curves.best_value(run.points, target.quantity, target.direction)
        if run.stop and run.stop.reason is StopReason.FINISHED and best is not None:
            left.append((abs(target.value - best), abs(best), run))
    far = abs(target.value) > max([1.0, *(FAR * best for _, best, _ in left)])
    in_vain = IN_VAIN_FAR if far else IN_VAIN
    if len(left) <= in_vain:
        return False
    nearest, _, run = min(left, key=lambda one: one[0])
    ended = (StopReason.FINISHED, StopReason.DIVERGED)
    rates = [one.trial.learning_rate for one in evidence.relevant if one.stop and one.stop.reason in ended]
    return min(rates) < run.trial.learning_rate < max(rates) and nearest > (1 - NEARER) * min(
        way for way, _, _ in left[:-in_vain]
    )
