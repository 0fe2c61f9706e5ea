"""Checks of what is asked for, by the points of a little training: direction, target, planned length. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from rightbatch.checks.looking import Cannot
from rightbatch.findings import Fault, Finding
from rightbatch.fit.rank_correlation import FEWEST_PAIRS, rank_correlation
from rightbatch.records import Direction, Point, Target, Trial

CLEAR = 0.1
"""A loss that has fallen, or a metric that has moved, by less than this share may have done so by chance."""

AGAINST = 0.8
"""A rank correlation of loss and goodness above this is that of a metric whose direction is the other one."""

FAR = 20.0
"""A target so many times as large as all values that were seen may be of another unit, as 82 (%) for 0.82."""

FEWEST_STEPS = 20
"""Fewer steps are no training: a rate cannot be told from another, nor a size."""


def has_learned(points: Sequence[Point]) -> bool:
    """Whether the loss has clearly fallen over three points or more."""
    losses = [loss for loss, _ in _judged(points)]
    return len(losses) >= 3 and losses[0] - losses[-1] > CLEAR * abs(losses[0])


def direction(points: Sequence[Point], declared: Direction) -> Iterator[Finding]:
    """A metric of its own gets better, in the direction that was declared, where the loss gets better."""
    if not has_learned(points):
        raise Cannot("the loss did not clearly fall in the first points, or there is none")
    losses, values = zip(*_judged(points), strict=True)
    if values[-1] == 0:
        raise Cannot("the metric is 0 at the end")  # one class alone is guessed: F1 may begin so
    moved = abs(values[-1] - values[0]) > CLEAR * max(abs(values[0]), abs(values[-1]))
    if moved and _gets_worse(losses, values, declared):
        other: Direction = "min" if declared == "max" else "max"
        yield Finding(
            Fault.WRONG_DIRECTION,
            f"The direction is {declared!r}, and in {points[-1].step:,} steps of training the loss fell from "
            f"{losses[0]:.4g} to {losses[-1]:.4g} while the metric went from {values[0]:.4g} to {values[-1]:.4g}.",
            f"Say direction {other!r} (of a loop or a command: --direction {other}), or correct the metric.",
        )


def _gets_worse(losses: Sequence[float], values: Sequence[float], declared: Direction) -> bool:
    """Whether a metric gets worse, as declared, the lower the loss is: at every point of few, in rank of many."""
    goodness = values if declared == "max" else [-value for value in values]
    if len(values) < FEWEST_PAIRS:
        return all(after <= before for before, after in itertools.pairwise(goodness))
    found = rank_correlation(losses, goodness)
    return found is not None and goodness[-1] < goodness[0] and found.correlation > AGAINST


def _judged(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Loss and metric of the points that have both: the validation loss, or where there is none that of training."""
    name = "valid_loss" if any(point.valid_loss is not None for point in points) else "train_loss"
    pairs = [(getattr(point, name), point.valid_metric) for point in points]
    return [(loss, value) for loss, value in pairs if loss is not None and value is not None]


def target(points: Sequence[Point], wanted: Target | None, *, share: bool = False) -> Iterator[Finding]:
    """The target is not reached before training, and of the size of what is judged. `share`: of right answers."""
    known = [
        (point.step, value) for point in points if wanted and (value := getattr(point, wanted.quantity)) is not None
    ]
    if wanted is None or not known:
        return
    what = wanted.quantity.replace("valid_", "validation ")
    step, first = known[0]
    largest = max(abs(value) for _, value in known)
    if wanted.reached_by(first):
        when = "before any training" if step == 0 else f"at the first evaluation, at step {step:,}"
        yield Finding(
            Fault.TARGET_REACHED,
            f"The target is {wanted.value:g} or {'more' if wanted.direction == 'max' else 'less'}, and the {what} is "
            f"{first:.4g} {when}.",
            "Give a harder target, in the unit of what is judged"
            + ("; see that the direction is right." if step == 0 else ", or evaluate earlier."),
            note=step > 0,
        )
    elif share and not 0 <= wanted.value <= 1:
        yield _out_of_reach(wanted, f"is a share of right answers, from 0 to 1: {first:.4g} at the start")
    elif abs(wanted.value) > max(1.0, FAR * largest) and largest > 0:  # a share may begin near 0: 0.01 of 100 classes
        yield _out_of_reach(wanted, f"was never larger than {largest:.4g} in the first steps", note=True)


def _out_of_reach(wanted: Target, seen: str, *, note: bool = False) -> Finding:
    percent = f" ({wanted.value / 100:g} for {wanted.value:g} %)" if 1 < wanted.value <= 100 else ""
    return Finding(
        Fault.TARGET_OUT_OF_REACH,
        f"The target is {wanted.value:g}, and the {wanted.quantity.replace('valid_', 'validation ')} {seen}.",
        f"Give the target in the unit of what is judged{percent}.",
        note=note,
    )


def planned_length(trial: Trial, train_examples: int) -> Iterator[Finding]:
    """A run has more than a few steps; where it is less than a pass, up to which size that is so."""
    planned, steps = trial.planned_examples, trial.planned_steps
    if planned is None or steps is None:
        return
    do = "Plan longer runs: planned_examples counts examples seen, not batches and not passes (--planned-examples)."
    seen = f"A run is planned for {planned:,} examples: {steps:,} steps at batch size {trial.batch_size}"
    if steps < FEWEST_STEPS:
        yield Finding(Fault.FEW_STEPS, f"{seen}.", do)
    elif planned < train_examples:
        yield Finding(
            Fault.FEW_STEPS,
            f"{seen}, and less than one pass over the {train_examples:,} training examples. Sizes above "
            f"{planned // FEWEST_STEPS:,} have fewer than {FEWEST_STEPS} steps.",
            f"Nothing, if that is wanted. {do}",
            note=True,
        )
