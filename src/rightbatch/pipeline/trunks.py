"""States along runs, from which runs go on whose batch grows otherwise: what they have in common is made once."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from rightbatch.batch_schedule import SETTING, schedule_of
from rightbatch.records import Point, Settings, Trial

MOST_BYTES = 2**28
"""So much of memory is for states; beyond, those that were kept first are dropped."""

Kept = tuple[Trial, tuple[Point, ...], bytes]


class Trunks:
    """Keeps the states of runs, each with the points up to it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._kept: deque[Kept] = deque()
        self.in_vain = False
        """Whether a single state is too large to be kept."""

    def keep(self, trial: Trial, points: tuple[Point, ...], state: bytes) -> None:
        """Take in the state of a run after its last point."""
        self.in_vain = len(state) > self._most
        self._kept.append((trial, points, state))
        self._bytes += len(state)
        while self._bytes > self._most:
            self._bytes -= len(self._kept.popleft()[2])

    def drop(self) -> None:
        """Forget all of them: one could not be read."""
        self._kept.clear()
        self._bytes = 0

    def nearest(self, trial: Trial) -> tuple[tuple[Point, ...], bytes] | None:
        """The points and the state of the longest training that a run of this trial would begin with; None if none."""
        schedule, wanted = schedule_of(trial), _without_schedule(trial)
        alike = [
            (points, state)
            for other, points, state in self._kept
            if _without_schedule(other) == wanted and points[-1].examples <= schedule.alike_until(schedule_of(other))
        ]
        return max(alike, key=lambda one: one[0][-1].examples, default=None)


def _without_schedule(trial: Trial) -> Trial:
    return replace(trial, settings=Settings({k: v for k, v in trial.settings.items() if k != SETTING}))
