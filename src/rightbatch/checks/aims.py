"""Checks of what is asked for, by the points of a little training: direction, target, planned length. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rightbatch.checks.looking import Cannot
from rightbatch.directions import has_learned, judged, looks_wrong, of_another_unit, other
from rightbatch.findings import Fault, Finding
from rightbatch.records import Direction, Point, Target, Trial
from rightbatch.wording import of_percent

FEWEST_STEPS = 20
"""Fewer steps are no training: a rate cannot be told from another, nor a size."""


def direction(points: Sequence[Point], declared: Direction) -> Iterator[Finding]:
    """A metric of its own gets better, in the direction that was declared, where the loss gets better."""
    if not has_learned(points):
        raise Cannot("the loss did not clearly fall in the first points, or there is none")
    losses, values = zip(*judged(points), strict=True)
    if values[-1] == 0:
        raise Cannot("the metric is 0 at the end")
    if looks_wrong(points, declared):
        yield Finding(
            Fault.WRONG_DIRECTION,
            f"The direction is {declared!r}, and in {points[-1].step:,} steps of training the loss fell from "
            f"{losses[0]:.4g} to {losses[-1]:.4g} while the metric went from {values[0]:.4g} to {values[-1]:.4g}.",
            f"Say direction {other(declared)!r} (of a loop or a command: --direction {other(declared)}), or correct "
            f"the metric.",
        )


def target(points: Sequence[Point], wanted: Target | None, *, share: bool = False) -> Iterator[Finding]:
    """The target is not reached before training, and of the size of what is judged. `share`: of right answers."""
    known = [
        (point.step, value) for point in points if wanted and (value := getattr(point, wanted.quantity)) is not None
    ]
    if wanted is None or not known:
        return
    what = wanted.quantity.replace("valid_", "validation ")
    step, first = known[0]
    # Where more is better, the largest: an R^2 may begin far below 0, and comes to no more than 1.
    largest = max(value if wanted.direction == "max" else abs(value) for _, value in known)
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
    elif largest != 0 and of_another_unit(wanted.value, [largest]):  # a share may begin near 0: 0.01 of 100 classes
        yield _out_of_reach(wanted, f"was never larger than {largest:.4g} in the first steps", note=True)


def _out_of_reach(wanted: Target, seen: str, *, note: bool = False) -> Finding:
    return Finding(
        Fault.TARGET_OUT_OF_REACH,
        f"The target is {wanted.value:g}, and the {wanted.quantity.replace('valid_', 'validation ')} {seen}.",
        f"Give the target in the unit of what is judged{of_percent(wanted.value)}.",
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
