"""What is computed from a curve: ladders, crossings, stopping rules. Pure functions, nothing stored.

A curve is a sequence of points in the order of steps. Its first point may be at step 0 (before any training); such a
point tells where the run started from and never counts as a rung.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rightbatch.errors import InputError
from rightbatch.records import Direction, Point, Quantity, Target

RATIO = 1.08
"""Rungs of the ladder are at most 8 % apart in examples seen."""

RATIO_OF_ENDS = 1.5
"""So far apart are the rungs of runs of which only the end counts: enough to see one diverge, or cost too much."""

Curve = Sequence[Point]
StopRule = Callable[[Curve], str | None]
"""A stopping rule: the reason to stop now, or None to go on."""


# ---------------------------------------------------------------------------------------------------- the ladder


def ladder(planned_examples: int, *, first: float = 0.01, ratio: float = RATIO) -> tuple[float, ...]:
    """Numbers of examples seen at which every run of a workload is evaluated.

    Geometric, at most `ratio` apart, from `first` (a share of the planned length) to exactly `planned_examples`, so
    that runs of any batch size are compared after the same numbers of examples.
    """
    if planned_examples < 1:
        raise InputError(f"A run needs a planned length of at least one example, got {planned_examples}.")
    rungs = max(1, math.ceil(-math.log(first) / math.log(ratio)))
    return tuple(planned_examples * first ** (1 - k / rungs) for k in range(rungs + 1))


def rungs_in_steps(planned_examples: int, batch_size: int) -> tuple[int, ...]:
    """The ladder in whole optimizer steps of one batch size: increasing, at least one step, the last one the end."""
    return tuple(sorted({max(1, round(examples / batch_size)) for examples in ladder(planned_examples)}))


def open_ladder(first_examples: int) -> Iterator[float]:
    """The ladder of a run without a planned length, without end: `first_examples` x 1.08^k, for every batch size."""
    if first_examples < 1:
        raise InputError(f"A ladder begins after at least one example; got first_examples={first_examples}.")
    return (first_examples * RATIO**k for k in itertools.count())


# --------------------------------------------------------------------------------------------------- the crossing


@dataclass(frozen=True)
class Crossing:
    """Where a curve reaches a target. `low_examples` and `high_examples` are the rungs that enclose it."""

    examples: float
    low_examples: float
    high_examples: float
    steps: float


def values(curve: Curve, quantity: str) -> list[float | None]:
    """One quantity along a curve."""
    return [getattr(point, quantity) for point in curve]


def crossing(curve: Curve, target: Target) -> Crossing | None:
    """Where a curve reaches its target, or None: not seen to (censored).

    It is at the first rung that counts by the target's rule. Between the rung before and that rung the crossing is
    interpolated in log examples; the distance of the two is its uncertainty.
    """
    rungs = [point for point in curve if point.step > 0]
    reached = [target.reached_by(getattr(point, target.quantity)) for point in rungs]
    for k, now in enumerate(reached):
        if now and (target.rule == "first_touch" or (k + 1 < len(rungs) and reached[k + 1])):
            return _interpolate(rungs, k, target)
    return None


def _interpolate(rungs: Sequence[Point], k: int, target: Target) -> Crossing:
    here = rungs[k]
    if k == 0:  # reached before the first rung: nothing to interpolate from
        return Crossing(here.examples, 0.0, here.examples, float(here.step))
    before = rungs[k - 1]
    start, end = getattr(before, target.quantity), getattr(here, target.quantity)
    # The rung before is short of the target (else it would be the crossing), so the share lies in (0, 1].
    share = 1.0 if start is None or not math.isfinite(start) else (target.value - start) / (end - start)
    examples = math.exp((1 - share) * math.log(before.examples) + share * math.log(here.examples))
    # Steps between the two rungs, so that a batch size that changes within a run is counted as it was.
    fraction = (examples - before.examples) / (here.examples - before.examples)
    steps = before.step + fraction * (here.step - before.step)
    return Crossing(examples, float(before.examples), float(here.examples), steps)


def best_value(curve: Curve, quantity: str, direction: Direction) -> float | None:
    """The best finite value of one quantity along a curve; None if there is none."""
    finite = [v for v in values(curve, quantity) if v is not None and math.isfinite(v)]
    if not finite:
        return None
    return max(finite) if direction == "max" else min(finite)


def called(curve: Curve, quantity: Quantity) -> Quantity:
    """What the person calls a quantity: where a loss stands for a metric that is not given, the loss."""
    stands_in = quantity == "valid_metric" and curve and all(p.valid_metric == p.valid_loss is not None for p in curve)
    return "valid_loss" if stands_in else quantity


def quality(curve: Curve, direction: Direction) -> float | None:
    """How good the run became: at its best validation metric, the test metric where there is one, else that metric."""
    scored = [p for p in curve if p.valid_metric is not None and math.isfinite(p.valid_metric)]
    if not scored:
        return None
    best = (max if direction == "max" else min)(scored, key=lambda p: p.valid_metric or 0.0)
    return best.valid_metric if best.test_metric is None else best.test_metric


def value_at(curve: Curve, quantity: str, *, examples: float) -> float | None:
    """The value at a number of examples seen, interpolated in log examples; None where the curve does not get there."""
    read = [(p.examples, getattr(p, quantity)) for p in curve if p.step > 0]
    rungs = [(e, v if v is not None and math.isfinite(v) else None) for e, v in read]
    for (e0, v0), (e1, v1) in itertools.pairwise(rungs):
        if e0 <= examples <= e1 and v0 is not None and v1 is not None:
            share = 0.0 if e1 == e0 else math.log(examples / e0) / math.log(e1 / e0)
            return float((1 - share) * v0 + share * v1)
    if rungs and rungs[0][0] == examples and rungs[0][1] is not None:
        return float(rungs[0][1])
    return None


def diverged(curve: Curve) -> bool:
    """Whether the last point is beyond saving: a loss that is not finite, or ten times the loss at the start."""
    if not curve:
        return False
    last, first = curve[-1], curve[0]
    losses = [v for v in (last.train_loss, last.valid_loss) if v is not None]
    if not all(math.isfinite(v) for v in losses):
        return True
    return (
        last.valid_loss is not None
        and first.valid_loss is not None
        and len(curve) > 1
        and first.valid_loss > 0
        and last.valid_loss > 10 * first.valid_loss
    )


# ----------------------------------------------------------------------------------------------- stopping rules


REACHED = "reached its target"
"""What a run says that stopped at its target: for a harder target, such a run had no full chance."""


PAUSED = "paused, and not needed any more"
"""What a run says that was paused short of its target: it says nothing against its batch size and rate."""


def until_horizon(curve: Curve) -> None:
    """Go on to the planned length."""


def until_target(target: Target) -> StopRule:
    """Stop as soon as the target is reached by its own rule."""

    def rule(curve: Curve) -> str | None:
        needed = 1 if target.rule == "first_touch" else 2
        last = [target.reached_by(getattr(p, target.quantity)) for p in curve[-needed:] if p.step > 0]
        return REACHED if len(last) == needed and all(last) else None

    return rule


def until_patience(
    quantity: str, direction: Direction, patience: float, unit: Literal["evaluations", "steps", "examples"]
) -> StopRule:
    """Early stopping: stop when the best value is `patience` old, counted in evaluations, steps or examples."""
    if patience <= 0:
        raise InputError(f"Patience is a positive number of {unit}, got {patience}.")

    def rule(curve: Curve) -> str | None:
        rungs = [point for point in curve if point.step > 0]
        if not rungs:
            return None
        sign = 1 if direction == "max" else -1
        scores = [-math.inf if (v := getattr(p, quantity)) is None or v != v else sign * v for p in rungs]
        best = scores.index(max(scores))
        age = {
            "evaluations": len(rungs) - 1 - best,
            "steps": rungs[-1].step - rungs[best].step,
            "examples": rungs[-1].examples - rungs[best].examples,
        }[unit]
        return f"no better {quantity} for {patience:g} {unit}" if age >= patience else None

    return rule


def any_rule(*rules: StopRule) -> StopRule:
    """Stop as soon as one of several rules says so."""

    def rule(curve: Curve) -> str | None:
        return next((reason for r in rules if (reason := r(curve)) is not None), None)

    return rule
