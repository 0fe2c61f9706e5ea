"""Seconds per step at each batch size, into the study."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rightbatch.commands import CommandRunner
from rightbatch.pipeline.setting_up import first_choice
from rightbatch.records import StepTime
from rightbatch.runner import Runner
from rightbatch.store import Study
from rightbatch.tables import TableRunner

ROUNDS = 9
LARGEST = 8192
NEAR_FACTOR = 16
"""Commands, and loops over nobody knows how many examples, are tried at sizes within this factor of the present one."""

NEIGHBOURED = (32, 128, 512)
"""Powers of two that are measured together with their two neighbours, to see whether powers of two matter here."""


def profile(
    study: Study,
    runner: Runner,
    batch_sizes: Sequence[int],
    *,
    rounds: int = ROUNDS,
    again: bool = False,
    budget_seconds: float | None = None,
) -> tuple[StepTime, ...]:
    """Measure the sizes that this study has no step times of in this environment (`again`: all of them).

    Nearest to the present size first; where a size is measured by itself (a command), none is begun once
    `budget_seconds` are spent. Returns all step times of the environment.
    """
    known = set() if again else {record.batch_size for record in study.step_times(runner.environment)}
    wanted = set(batch_sizes)
    # Only where a size costs little to measure, not where it means starting a person's loop or program.
    for size in () if runner.facts.lacks else NEIGHBOURED:
        if min(wanted) < size < max(wanted):
            wanted |= {size - 1, size, size + 1}
    present, _ = first_choice(runner.facts)
    missing = sorted(wanted - known, key=lambda size: max(size / present, present / size))
    if missing:
        started = time.monotonic()
        for record in runner.step_times(missing, rounds=rounds):
            study.add_step_time(record, runner.environment)
            if budget_seconds is not None and time.monotonic() - started > budget_seconds:
                break
        study.add_cost("profile", time.monotonic() - started)
    return study.step_times(runner.environment)


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
