"""Seconds per step at each batch size, into the study."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rightbatch.pipeline.setting_up import first_choice
from rightbatch.records import StepTime
from rightbatch.runner import Runner
from rightbatch.store import Study
from rightbatch.tables import TableRunner

ROUNDS = 9
LARGEST = 8192
NEIGHBOURED = (32, 128, 512)
"""Powers of two that are measured together with their two neighbours, to see whether powers of two matter here."""


def profile(
    study: Study, runner: Runner, batch_sizes: Sequence[int], *, rounds: int = ROUNDS, again: bool = False
) -> tuple[StepTime, ...]:
    """Measure the sizes that this study has no step times of in this environment (`again`: all of them).

    Returns all step times of the environment.
    """
    known = set() if again else {record.batch_size for record in study.step_times(runner.environment)}
    wanted = set(batch_sizes)
    for size in NEIGHBOURED:
        if min(wanted) < size < max(wanted):
            wanted |= {size - 1, size, size + 1}
    missing = sorted(wanted - known)
    if missing:
        started = time.monotonic()
        for record in runner.step_times(missing, rounds=rounds):
            study.add_step_time(record, runner.environment)
        study.add_cost("profile", time.monotonic() - started)
    return study.step_times(runner.environment)


def default_sizes(train_examples: int, present: int | None = None) -> tuple[int, ...]:
    """Powers of two from 2 to 8192 or the size of the data, and what the person trains with now."""
    powers = {2**k for k in range(1, LARGEST.bit_length()) if 2**k <= train_examples}
    return tuple(sorted(powers | ({present} if present and present <= train_examples else set())))


def sizes_to_try(runner: Runner, present: tuple[int, float] | None = None) -> tuple[int, ...]:
    """The sizes to choose from where nobody names any: those of a recorded table, else `default_sizes`."""
    if isinstance(runner, TableRunner):
        return runner.batch_sizes
    size, _ = present or first_choice(runner.facts)
    return default_sizes(runner.facts.train_examples, size)
