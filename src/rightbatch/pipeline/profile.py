"""`profile`: seconds per step at each batch size, into the study."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rightbatch.commands import CommandRunner
from rightbatch.errors import WorkloadError
from rightbatch.fit.step_time import unsteady
from rightbatch.nearness import apart
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.first_choice import first_choice
from rightbatch.pipeline.runners import as_runner
from rightbatch.pipeline.setting_up import check_sizes, open_study
from rightbatch.raised import tell_left_out
from rightbatch.records import StepTime
from rightbatch.runner import Runner
from rightbatch.store import Study
from rightbatch.tables import TableRunner

ROUNDS = 9
HASTY_ROUNDS = 3
"""Repeats of a size where there is no time for more."""

LARGEST = 8192
NEAR_FACTOR = 16
"""Commands, and loops over nobody knows how many examples, are tried at sizes within this factor of the present one."""

NEIGHBOURED = (32, 128, 512)
"""Powers of two that are measured together with their two neighbours, to see whether powers of two matter here."""


def profile(
    workload: Any,
    batch_sizes: Sequence[int] | None = None,
    *,
    study: str | Path | None = None,
    rounds: int = ROUNDS,
    again: bool = False,
    device: str | None = None,
    threads: int | None = None,
    given: Any = None,
    **asked: Any,
) -> tuple[StepTime, ...]:
    """Measure seconds per step, sizes in turn, every repeat kept: those that the study does not have yet.

    `batch_sizes`: None for powers of two, up to 8192 or the size of the data. `again` measures all of them. `given`:
    what a workload that is a runner by now was given as. `asked`: the fields of `Ask` that a step depends on, as
    `settings`. Returns all step times of this machine and its settings,
    in seconds, as records of which `fit.step_time` makes a law.

    Raises
    ------
    InputError: For a size larger than the data, or a workload that has no name of this kind.
    WorkloadError: When no size could be timed.
    """
    runner = as_runner(workload, ask=Ask(**asked), device=device, threads=threads)
    sizes = tuple(batch_sizes) if batch_sizes else sizes_to_try(runner)
    check_sizes(runner.facts, sizes)
    with open_study(study, runner.facts, given=given or workload) as kept:
        return measure_step_times(kept, runner, sizes, rounds=rounds, again=again)


def measure_step_times(
    study: Study,
    runner: Runner,
    batch_sizes: Sequence[int],
    *,
    rounds: int = ROUNDS,
    again: bool = False,
    budget_seconds: float | None = None,
) -> tuple[StepTime, ...]:
    """Measure the sizes that this study has no step times of in this environment (`again`: all of them).

    Repeats are kept as they come, and go on where they ended: those that a size still lacks are added. What is finished
    is only replaced by what is finished.

    With `budget_seconds` sizes are first measured in haste, one after the other, the one nearest to the present size
    first and in any case; no other is begun that would not be done in time. As soon as it is seen that there is time
    for all sizes, they take turns as without a budget. Returns all step times of the environment.
    """
    stored = study.step_times(runner.environment)
    finished = {record.batch_size for record in stored if not record.unfinished}
    known = () if again else stored
    wanted = set(with_neighbours(batch_sizes, runner))
    present, _ = first_choice(runner.facts)
    begun = {record.batch_size: record for record in known if record.unfinished}
    missing = wanted - (set() if again else finished)
    nearest = sorted(missing, key=lambda size: apart(size, present))
    if missing:
        started = time.monotonic()
        hasty = {r.batch_size for r in known if not r.unfinished and len(r.seconds) <= HASTY_ROUNDS} & wanted
        measured = (
            _in_turn(runner, nearest, begun, rounds)
            if budget_seconds is None or isinstance(runner, TableRunner)  # which measures nothing
            else _in_time(runner, nearest, hasty, rounds, lambda: started + budget_seconds - time.monotonic())
        )
        try:
            for record in measured:
                if not (record.unfinished and record.batch_size in finished):
                    study.add_step_time(_added(begun.get(record.batch_size), record), runner.environment)
                if not record.unfinished:
                    finished.add(record.batch_size)
        except WorkloadError as error:
            if not finished:
                raise
            # It failed at all that is missing: so it may have before, and others were timed then.
            tell_left_out(dict.fromkeys(sorted(missing - finished), error))
        finally:
            study.add_cost("profile", time.monotonic() - started)
    return study.step_times(runner.environment)


def _in_turn(runner: Runner, sizes: Sequence[int], begun: Mapping[int, StepTime], rounds: int) -> Iterator[StepTime]:
    """The repeats that sizes lack, in turn among those that lack as many."""
    lacks = {size: max(1, rounds - len(begun[size].seconds)) if size in begun else rounds for size in sizes}
    for lacking in sorted(set(lacks.values()), reverse=True):
        yield from runner.step_times([size for size in sizes if lacks[size] == lacking], rounds=lacking)


def _added(begun: StepTime | None, record: StepTime) -> StepTime:
    """The repeats of a record, after those that were measured before the process ended."""
    if begun is None:
        return record
    seconds = begun.seconds + record.seconds
    flagged = {*begun.unsteady, *(len(begun.seconds) + k for k in record.unsteady), *unsteady(seconds)}
    waits = begun.wait_seconds + record.wait_seconds
    return StepTime(record.batch_size, seconds, waits, tuple(sorted(flagged)), record.unfinished)


def _in_time(
    runner: Runner, sizes: Sequence[int], hasty: Collection[int], rounds: int, left: Callable[[], float]
) -> Iterator[StepTime]:
    """See `profile`. `hasty` are sizes that were measured in haste before: again, where there is time for all."""
    everything = sorted({*sizes, *hasty})
    from_outside = bool(runner.facts.lacks)  # a loop or a program: each size is a start of the person's code
    haste = min(rounds, HASTY_ROUNDS)
    took: dict[int, float] = {}
    failures: dict[int, WorkloadError] = {}
    too_large = math.inf

    def needed(size: int) -> float:
        """Seconds, rather too many: per example, a step takes hardly longer than at a smaller size."""
        return min((seconds * max(1.0, size / other) for other, seconds in took.items()), default=0.0)

    for size in sizes:
        if size >= too_large or needed(size) > left():
            continue
        before, found = left(), False
        try:
            for record in runner.step_times([size], rounds=haste):
                found = True
                yield record
        except WorkloadError as error:
            failures[size] = error
            continue
        if not found:  # it did not fit into memory, nor will larger ones
            too_large = size
            continue
        took[size] = before - left()
        if not from_outside and rounds > haste and rounds / haste * sum(map(needed, everything)) <= left():
            yield from runner.step_times(everything, rounds=rounds)
            return
    if failures and not took:  # as where all sizes are measured at once
        raise next(iter(failures.values()))
    tell_left_out(failures)


def with_neighbours(batch_sizes: Sequence[int], runner: Runner) -> tuple[int, ...]:
    """The sizes, and those beside the powers of two among them that are compared with their neighbours.

    Only where a size costs little to measure, not where it means starting a person's loop or program.
    """
    wanted = set(batch_sizes)
    for size in () if runner.facts.lacks else NEIGHBOURED:
        if min(wanted) < size < max(wanted):
            wanted |= {size - 1, size, size + 1}
    return tuple(sorted(wanted))


def measured_before(path: Path, runner: Runner) -> tuple[StepTime, ...]:
    """The step times that a study has in this environment already; none where there is no study."""
    if not path.is_file():
        return ()
    with Study.open(path) as kept:
        return kept.step_times(runner.environment)


def default_sizes(train_examples: int, present: int | None = None) -> tuple[int, ...]:
    """Powers of two from 2 to 8192 or the size of the data (0: not known), and what the person trains with now."""
    most = train_examples or max(LARGEST, present or 0)
    powers = {2**k for k in range(1, LARGEST.bit_length()) if 2**k <= most}
    return tuple(sorted(powers | ({present} if present and present <= most else set())))


def sizes_to_try(runner: Runner, present: tuple[int, float] | None = None) -> tuple[int, ...]:
    """The sizes to choose from where nobody names any: those of a recorded table, else `default_sizes`."""
    if isinstance(runner, TableRunner):
        return runner.batch_sizes
    size, _ = present or first_choice(runner.facts)
    sizes = default_sizes(runner.facts.train_examples, size)
    # A program is started for each size; and where the data may be small, a much larger batch may be all of it.
    if isinstance(runner, CommandRunner) or not runner.facts.train_examples:
        return tuple(s for s in sizes if size / NEAR_FACTOR <= s <= size * NEAR_FACTOR)
    return sizes
