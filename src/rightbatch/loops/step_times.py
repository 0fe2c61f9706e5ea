"""Seconds per step of a loop, taken between its calls of `due`."""

from __future__ import annotations

from rightbatch.loops.code import Code, Enough
from rightbatch.loops.loop import Loop, LoopTrial
from rightbatch.loops.points import whole
from rightbatch.records import Trial

REPEAT_SECONDS = 0.04
"""A repeat of step times is as many steps as fill about this time, so that the clock does not decide it."""

WARM_UP_STEPS, PROBE_STEPS = 2, 3
"""Steps before anything is timed, and steps that tell how many fill a repeat."""

FEWEST_STEPS, MOST_STEPS = 2, 2000
"""Bounds of the steps of a repeat."""


class TimingTrial(LoopTrial):
    """Never due: times the steps between calls of `due` and leaves the loop when it has its repeats.

    `length_steps` is how long the loop is, where that is known: the repeats then fit into it.
    """

    def __init__(self, trial: Trial, repeats: int, length_steps: int | None) -> None:
        super().__init__(trial)
        self.asked_step = 0
        self.seconds: list[float] = []
        self._repeats, self._length_steps = repeats, length_steps
        self._mark: tuple[int, float] | None = None
        self._steps_a_repeat = 0
        self._next = WARM_UP_STEPS

    def due(self, step: int) -> bool:
        self.asked_step = step
        if not 0 < step < self._next:
            self._reach(whole(step, "step that trial.due() was asked about", least=1))
        return False

    def _reach(self, step: int) -> None:
        """The end of the warm-up, then of the probe, then of every repeat."""
        if self._mark is None:
            steps = PROBE_STEPS
        elif not self._steps_a_repeat:
            steps = self._steps_a_repeat = self._steps_that_fill(self._step_seconds(step), step)
        else:
            steps = self._steps_a_repeat
            self.take(step)
        self._next = step + steps
        self._mark = step, self.clock.seconds()

    def take(self, step: int) -> None:
        """One repeat, from the mark to this step, the next mark. Raises `Enough` after the last."""
        if self._mark is not None:
            self.seconds.append(self._step_seconds(step))
            if len(self.seconds) >= self._repeats:
                raise Enough
        self._mark = step, self.clock.seconds()

    def _step_seconds(self, step: int) -> float:
        assert self._mark is not None  # both callers see to it
        return (self.clock.seconds() - self._mark[1]) / (step - self._mark[0])

    def _steps_that_fill(self, step_seconds: float, step: int) -> int:
        steps = min(MOST_STEPS, int(REPEAT_SECONDS / max(step_seconds, 1e-9)))
        if self._length_steps is not None:
            steps = min(steps, (self._length_steps - step) // self._repeats)
        return max(FEWEST_STEPS, steps)


def time_steps(loop: Loop, trial: Trial, repeats: int, length_steps: int | None) -> tuple[list[float], int | None]:
    """Up to so many repeats of one run, and how many steps the run has where its end was seen."""
    given = TimingTrial(trial, repeats, length_steps)
    code = Code(loop, given)
    try:
        while (point := code.advance()) is not None:
            if not given.asked_step and point.step >= WARM_UP_STEPS:
                given.take(point.step)
    except Enough:
        return given.seconds, length_steps
    finally:
        code.close()
    return given.seconds, given.asked_step or code.step
