"""Runs whose rate changes along the way: only their ends count, over a ladder of planned lengths.

What such a run has reached half-way depends on how long it was planned to be (with a cosine, the rate is still high
there), so a crossing on its curve is no answer to "how long must I train?". The shortest planned length whose end
reaches the target is. It is found to a factor of sqrt(2) and interpolated in log examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from rightbatch.curves import PAUSED
from rightbatch.records import Point, Run, Stop, StopReason, Target

SHORTEST_SHARE = 1 / 64
"""Lengths below this share of the longest one are not tried."""

FIRST_SHARE = 1 / 8
BRACKET_FACTOR = 1.5
"""The shortest length that reaches and the longest that does not are at most this factor apart when the search ends."""


def run_of_ends(runs: Sequence[Run], target: Target, longest_examples: int) -> Run:
    """The runs of one batch size, rate and seed at several planned lengths, as one: its curve are their ends.

    Its first point is at step 0 where the runs have one. It has no stop while another length must be run to know the
    shortest that reaches the target, see `next_length`.
    """
    ended = sorted((run for run in runs if _says_something(run)), key=lambda run: run.trial.planned_examples or 0)
    if not ended:
        return replace(runs[-1], points=())
    starts = tuple(run.points[0] for run in ended[:1] if run.points and run.points[0].step == 0)
    ends = tuple(run.points[-1] if _is_end(run) else _broken_off(run) for run in ended)
    reaching = [run for run in ended if _is_end(run) and _reaches(run.points[-1], target)]
    stop: Stop | None = ended[-1].stop
    if (reaching or _is_end(ended[-1])) and next_length(ends, target, longest_examples) is not None:
        stop = None
    shown = reaching[0] if reaching else ended[-1]
    return Run(ended[-1].trial, (*starts, *ends), stop, sum(run.wall_seconds for run in runs), shown.identifier)


Bracket = tuple[int, int]
"""The longest planned length that misses the target and the shortest one that reaches it, in examples."""


def bracket(ends: Sequence[Point], target: Target) -> Bracket | None:
    """That of a run of ends; None where no end reaches the target, or none misses it below one that does."""
    lengths = {point.examples: _reaches(point, target) for point in ends if point.step > 0}
    shortest = min((length for length, yes in lengths.items() if yes), default=0)
    missed = [length for length in lengths if length < shortest]
    return (max(missed), shortest) if missed else None


def next_length(
    ends: Sequence[Point], target: Target, longest_examples: int, likely: Bracket | None = None
) -> int | None:
    """The planned length to run next, in examples; None when the shortest one that reaches the target is known.

    From an eighth of the longest upwards in factors of two until one reaches the target (or downwards, if that one
    does), then once between. Where a bracket is `likely`, that of another seed, its lengths come first, and from there
    on factors of sqrt(2), which need nothing between.
    """
    lengths = {point.examples: _reaches(point, target) for point in ends if point.step > 0}
    reached = [length for length, yes in lengths.items() if yes]
    factor = math.sqrt(2) if likely else 2
    if not lengths:
        return likely[1] if likely else max(1, round(longest_examples * FIRST_SHARE))
    if not reached:
        longest = max(lengths)
        # A run ends at a whole number of steps: lengths are compared with that much room.
        return (
            None if longest > 0.9 * longest_examples else _unknown(min(longest_examples, round(factor * longest)), ends)
        )
    shortest = min(reached)
    missed = [length for length in lengths if length < shortest]
    if not missed:
        return None if shortest < 2 * SHORTEST_SHARE * longest_examples else _unknown(int(shortest / factor), ends)
    below = max(missed)
    return _unknown(round(math.sqrt(below * shortest)), ends) if shortest > BRACKET_FACTOR * below else None


def _unknown(length: int, ends: Sequence[Point]) -> int | None:
    """A length in examples; None where it is as many whole steps as one that was run."""
    known = {point.step: point.examples for point in ends if point.step > 0}
    batch_size = next(examples / step for step, examples in known.items())
    return None if max(1, round(length / batch_size)) in known else max(1, length)


def _says_something(run: Run) -> bool:
    told = (StopReason.FINISHED, StopReason.STOPPED_BY_RULE, StopReason.DIVERGED, StopReason.OUT_OF_MEMORY)
    return run.stop is not None and run.stop.reason in told and run.stop.message != PAUSED


def _is_end(run: Run) -> bool:
    finished = run.stop is not None and run.stop.reason is StopReason.FINISHED
    return finished and bool(run.points) and run.points[-1].step > 0


def _broken_off(run: Run) -> Point:
    """The end of a run that diverged, was given up or did not fit: at its planned length, with nothing reached."""
    trial = run.trial
    steps = trial.planned_steps or 1
    return Point(steps, steps * trial.batch_size, batch_size=trial.batch_size, learning_rate=trial.learning_rate)


def _reaches(point: Point, target: Target) -> bool:
    return target.reached_by(getattr(point, target.quantity))
