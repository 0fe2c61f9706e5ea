"""Checks through the seam, for any runner: a loop or a command is started a few times and stopped. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from rightbatch import curves
from rightbatch.checks import aims
from rightbatch.checks.attempts import PLANNED_STEPS, RUN_SECONDS, Attempt, Attempts
from rightbatch.checks.looking import Cannot, Checks, Raised, look, seconds_text
from rightbatch.errors import WorkloadError
from rightbatch.findings import Fault, Finding, NotLookedAt
from rightbatch.records import Point, Target, Trial
from rightbatch.runner import Runner

ROUNDING = 1e-4
"""Values that differ by less (relatively) differ by rounding: a GPU adds in an order of its own."""

LEAST_SECONDS = 0.5
"""Evaluations of a run that take less in all are not worth a word: asking for points takes time as well."""

VALUES = ("train_loss", "valid_loss", "valid_metric")
LOSSES = ("train_loss", "valid_loss")


def points_come(context: Attempts) -> Iterator[Finding]:
    """A run gives a point after training has begun, and raises nothing."""
    run = context.present
    if run.error is not None:
        yield Finding(Fault.NO_POINT, run.error, "Correct this, then check again.")
    elif not run.trained:
        why = run.ended or f"none after step 0 came within {context.run_seconds:g} s"
        yield Finding(
            Fault.NO_POINT,
            f"A run at {_choice(run.trial)} gave {len(run.points)} points: {why}.",
            "Evaluate early: in a loop whenever trial.due(step), in a program every few steps.",
        )


def values_finite(context: Attempts) -> Iterator[Finding]:
    """All values of the first points are finite."""
    run = _usable(context.present)
    for point in run.points:
        bad = [(name, v) for name in VALUES if (v := getattr(point, name)) is not None and not math.isfinite(v)]
        if bad:
            yield Finding(
                Fault.NOT_FINITE,
                f"{' and '.join(f'{name} is {value:g}' for name, value in bad)} at step {point.step}, at "
                f"{_choice(run.trial)}.",
                f"Lower the present rate, for instance to {run.trial.learning_rate / 10:g}; if it is so at once, look "
                f"for a logarithm of 0, a division by 0, or NaN in the data.",
            )
            return


def runs_repeat(context: Attempts) -> Iterator[Finding]:
    """Two starts of one trial give the same points."""
    if not context.seeded:
        raise Cannot("the command is given no seed")
    pairs = _pairs(context.present, _other(context, lambda made: made.again))
    if not pairs:
        raise Cannot("two runs had no point after the same number of steps")
    for one, other in pairs:
        name = next((n for n in VALUES if _differ(getattr(one, n), getattr(other, n))), None)
        if name is None:
            continue
        yield Finding(
            Fault.NOT_REPEATABLE,
            f"Two runs at {_choice(context.trial)} with seed {context.trial.seed} have {name} "
            f"{_number(getattr(one, name))} and {_number(getattr(other, name))} at step {one.step}.",
            "Seed all that is drawn with the trial's seed, and make model, optimizer and data anew in each run.",
        )
        return


def rate_matters(context: Attempts) -> Iterator[Finding]:
    """Another rate gives other values."""
    _require_repeatable(context)
    one, other = context.present, _other(context, lambda made: made.other_rate)
    if _no_difference(one, other):
        yield Finding(
            Fault.RATE_IGNORED,
            f"Runs at the rates {one.trial.learning_rate:g} and {other.trial.learning_rate:g} have the same values to "
            f"the last digit: {_values(one)}.",
            "Give the optimizer the rate of the trial (trial.learning_rate, {learning_rate}).",
        )


def size_matters(context: Attempts) -> Iterator[Finding]:
    """Another batch size gives other values after the same number of steps."""
    _require_repeatable(context)
    one, other = context.present, _other(context, lambda made: made.other_size)
    if _no_difference(one, other):
        yield Finding(
            Fault.BATCH_SIZE_IGNORED,
            f"Runs at the batch sizes {one.trial.batch_size} and {other.trial.batch_size} have the same values to the "
            f"last digit after the same steps: {_values(one)}.",
            "Make the batches of the size of the trial (trial.batch_size, {batch_size}).",
        )


def seed_given(context: Attempts) -> Iterator[Finding]:
    """A command takes a seed; without one, runs that are alike to the last digit are copies and no seeds."""
    if context.seeded:
        return
    pairs = _pairs(_usable(context.present), _other(context, lambda made: made.again))
    copies = bool(pairs) and all(getattr(a, name) == getattr(b, name) for a, b in pairs for name in VALUES)
    yield Finding(
        Fault.NO_SEED,
        "The command line has no {seed}, and two runs "
        + ("are the same to the last digit." if copies else "differ by chance."),
        "Give the program a seed, as --seed {seed}" + (", or search with --seeds 1." if copies else "."),
        note=not copies,
    )


def direction(context: Attempts) -> Iterator[Finding]:
    """See `aims.direction`; only a run with a metric of its own is made longer for it."""
    points, declared = _usable(context.present).points, context.facts.direction
    if declared == "max" or any(point.valid_metric != point.valid_loss for point in points):
        yield from aims.direction(context.longer.points, declared)


def target(context: Attempts) -> Iterator[Finding]:
    """See `aims.target`."""
    if context.target is not None:
        yield from aims.target(_usable(context.present).points, context.target)


def planned_length(context: Attempts) -> Iterator[Finding]:
    """See `aims.planned_length`; where none is known, a run can do without."""
    if context.planned_known:
        yield from aims.planned_length(context.trial, context.facts.train_examples)
    elif context.present.trained and context.unplanned.error is not None:
        yield Finding(Fault.RAISED, context.unplanned.error, "Say how long a run is: --planned-examples, or --epochs.")


def evaluation_cost(context: Attempts) -> Iterator[Finding]:
    """Wall time that is not training, against training, over a run."""
    if not context.own_clock:
        raise Cannot("the seconds of a command may include its evaluation")
    run = _usable(context.present)
    points, walls = run.points, run.wall_seconds
    if len(points) < 2 or points[-1].seconds <= points[0].seconds:
        raise Cannot("it takes two points with seconds between them")
    intervals = list(zip(points, points[1:], walls, walls[1:], strict=False))
    judging = median((w2 - w1) - (p2.seconds - p1.seconds) for p1, p2, w1, w2 in intervals)
    step_seconds = (points[-1].seconds - points[0].seconds) / (points[-1].step - points[0].step)
    steps = run.trial.planned_steps or PLANNED_STEPS
    rungs = curves.rungs_in_steps(run.trial.planned_examples or 1, run.trial.batch_size)
    if {point.step for point in run.trained} <= set(rungs):
        if not context.planned_known:
            raise Cannot("how long a run is planned is not known (planned_examples)")
        evaluations = len(rungs)
    else:  # it evaluates when it likes: as often as here
        evaluations = max(1, round(steps * len(intervals) / (points[-1].step - points[0].step)))
    if judging * evaluations > max(step_seconds * steps, LEAST_SECONDS):
        yield Finding(
            Fault.EVALUATION,
            f"One evaluation takes {seconds_text(judging)}, {evaluations} of them "
            f"{seconds_text(judging * evaluations)}; {steps:,} steps of {seconds_text(step_seconds)} at batch size "
            f"{run.trial.batch_size} take {seconds_text(step_seconds * steps)}.",
            "Evaluate on fewer examples, in larger batches and without gradients, or plan longer runs.",
        )


CHECKS: Checks[Attempts] = {
    "evaluations": points_come,
    "finite values": values_finite,
    "the seed": seed_given,
    "repeatability": runs_repeat,
    "the learning rate": rate_matters,
    "the batch size": size_matters,
    "the direction of the metric": direction,
    "the target": target,
    "the planned length": planned_length,
    "the cost of evaluation": evaluation_cost,
}


def look_at(
    runner: Runner,
    trial: Trial,
    *,
    target: Target | None = None,
    seeded: bool = True,
    own_clock: bool = True,
    run_seconds: float = RUN_SECONDS,
) -> tuple[list[Finding], list[str], list[NotLookedAt]]:
    """Look for all faults that runs show: what was found, what was looked at, what was not and why."""
    made = Attempts(runner, trial, target=target, seeded=seeded, own_clock=own_clock, run_seconds=run_seconds)
    return look(made, CHECKS)


# ------------------------------------------------------------------------------------------------------ comparing


def _usable(run: Attempt) -> Attempt:
    if run.error is not None or not run.trained:
        raise Cannot(f"a run at {_choice(run.trial)} gave no point after step 0")
    return run


def _other(context: Attempts, make: Callable[[Attempts], Attempt]) -> Attempt:
    """Another run than the present one. What it raises is a finding, where the present one raises nothing."""
    _usable(context.present)
    run = make(context)
    if run.error is not None:
        raise Raised(f"a run at {_choice(run.trial)}", WorkloadError(run.error))
    return _usable(run)


def _pairs(one: Attempt, other: Attempt) -> list[tuple[Point, Point]]:
    """The points of two runs after the same numbers of steps."""
    at_step = {point.step: point for point in other.points}
    return [(point, at_step[point.step]) for point in one.points if point.step in at_step]


def _require_repeatable(context: Attempts) -> None:
    pairs = _pairs(_usable(context.present), _usable(context.again))
    if any(_differ(getattr(a, name), getattr(b, name)) for a, b in pairs for name in VALUES):
        raise Cannot("runs differ by chance already")


def _no_difference(one: Attempt, other: Attempt) -> bool:
    """Whether two runs are the same in all that they have in common. Raises `Cannot` where that says nothing."""
    pairs = [(a, b) for a, b in _pairs(one, other) if a.step > 0]
    if not pairs:
        raise Cannot("two runs had no point after the same number of steps")
    if any(getattr(a, name) != getattr(b, name) for a, b in pairs for name in VALUES):
        return False
    # A share of right answers may stand still for a while at any choice; a loss that is the same does not by chance.
    names = [name for name in LOSSES if getattr(pairs[0][0], name) is not None] or ["valid_metric"]
    if names == ["valid_metric"] and not _moves([point for point, _ in pairs]):
        raise Cannot("the metric does not move in the first points: yield a loss as well")
    return True


def _moves(points: Sequence[Point]) -> bool:
    return len({point.valid_metric for point in points}) > 1


def _differ(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is not b
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.isfinite(a) != math.isfinite(b)
    return abs(a - b) > ROUNDING * max(abs(a), abs(b))


def _choice(trial: Trial) -> str:
    return f"batch size {trial.batch_size} and rate {trial.learning_rate:g}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _values(run: Attempt) -> str:
    point = run.trained[0]
    known: list[tuple[str, float]] = [(n, v) for n in VALUES if (v := getattr(point, n)) is not None]
    return f"at step {point.step}, " + ", ".join(f"{name} {value:.6g}" for name, value in known)
