"""Training seconds: of a step, by what was measured or by the law of it, and of a run, whose batch size may change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from rightbatch.batch_schedule import BatchSchedule
from rightbatch.fit.step_time import StepTimeFit, fit_step_time, median_error, median_seconds
from rightbatch.records import StepTime


@dataclass(frozen=True)
class Seconds:
    """From the step times of one machine."""

    step_times: tuple[StepTime, ...]

    @cached_property
    def law(self) -> StepTimeFit | None:
        """The law of step time; None with fewer than two sizes measured."""
        return fit_step_time(self.step_times) if len(self.step_times) > 1 else None

    @cached_property
    def _measured(self) -> dict[int, float]:
        return {record.batch_size: median_seconds(record) for record in self.step_times}

    def of_step(self, batch_size: int) -> float | None:
        """Median seconds per step as measured; by the law where this size was not; None where neither is."""
        if batch_size in self._measured:
            return self._measured[batch_size]
        return self.law.predict(batch_size) if self.law else None

    def error_of_step(self, batch_size: int) -> float:
        """Standard error of the log of `of_step`: of the median, or of the law where it was not measured.

        That of fewer than three repeats says little: it is at least what is typical of the sizes measured, or what the
        law misses them by where none has two.
        """
        for record in self.step_times:
            if record.batch_size == batch_size:
                error = median_error(record)
                return error if len(record.seconds) > 2 else max(error, self._typical_error)
        return self.law.deviation if self.law else 0.0

    @cached_property
    def _typical_error(self) -> float:
        known = [median_error(record) for record in self.step_times if len(record.seconds) > 1]
        return median(known) if known else self.law.deviation if self.law else 0.0

    def of_run(self, schedule: BatchSchedule, steps: float, examples: float) -> float | None:
        """Seconds of a run until it has seen so many examples, in so many steps; None where those are not known."""
        if schedule.fixed:
            seconds = self.of_step(schedule.phases[0].batch_size)
            return steps * seconds if seconds is not None else None
        total = 0.0
        for phase, within in schedule.spans(examples):
            seconds = self.of_step(phase.batch_size)
            if seconds is None:
                return None
            total += within / phase.batch_size * seconds
        return total

    def examples_at(self, schedule: BatchSchedule, training_seconds: float) -> float | None:
        """How many examples a run has seen after so many training seconds; None where those are not known."""
        seen, left = 0.0, training_seconds
        for phase, within in schedule.spans(math.inf):
            seconds = self.of_step(phase.batch_size)
            if not seconds:
                return None
            lasts = within / phase.batch_size * seconds
            if left <= lasts:
                return seen + left / seconds * phase.batch_size
            seen, left = seen + within, left - lasts
        return seen
