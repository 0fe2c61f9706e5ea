"""Runs that were killed again and again."""

from __future__ import annotations

from rightbatch.errors import WorkloadError
from rightbatch.records import Run, StopReason, Trial

KILLED_TIMES = 5
"""A trial that was killed so often without getting any further, with nobody saying so to us, is not tried again."""


class Kills:
    """How often runs of each trial were killed without getting any further."""

    def __init__(self) -> None:
        self._of: dict[Trial, tuple[int, int]] = {}

    def count(self, run: Run) -> None:
        """Take note of a run that ended. Raises `WorkloadError` for a trial that was killed too often."""
        trial, step = run.trial, run.points[-1].step if run.points else -1
        if run.stop is None or run.stop.reason is not StopReason.INTERRUPTED:
            return
        times, furthest = self._of.get(trial, (0, -1))
        times = 1 if step > furthest else times + 1  # what gets further each time comes to its end
        self._of[trial] = (times, max(step, furthest))
        if times == KILLED_TIMES:
            raise WorkloadError(
                f"The run with batch_size={trial.batch_size}, learning_rate={trial.learning_rate:g}, "
                f"seed={trial.seed} was killed {KILLED_TIMES} times: {run.stop.message}. Find out what kills it "
                f"(memory, a limit of the machine), or leave this batch size out with --batch-sizes."
            )
