"""What the checks through the seam look at: the first points of runs at the present choice and near it. No torch."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from rightbatch.checks.looking import stage
from rightbatch.errors import InputError
from rightbatch.records import Point, Stop, Target, Trial
from rightbatch.runner import Runner

RUN_SECONDS = 20.0
"""A run is asked for no further point after this time."""

POINTS = 4
"""Points of a run that are looked at, one at step 0 included."""

MORE_POINTS, MORE_SECONDS = 50, 5.0
"""Where learning is to be seen, so many points are asked for within so long; with 8 % between them, half of a run."""

PLANNED_STEPS = 1000
"""The planned length of a run where none is known: evaluations then begin after a hundredth of it."""

OTHER_RATE, OTHER_SIZE = 0.01, 2
"""A rate and a size that must make a difference, as multiples of the present ones. A smaller rate does not diverge."""


@dataclass(frozen=True)
class Attempt:
    """The first points of a run, the wall seconds at which each one came, and why there are no more (None: closed)."""

    trial: Trial
    points: tuple[Point, ...]
    wall_seconds: tuple[float, ...]
    ended: str | None
    error: str | None

    @property
    def trained(self) -> tuple[Point, ...]:
        """The points after step 0."""
        return tuple(point for point in self.points if point.step > 0)


class Attempts:
    """Runs at the present choice and near it, made on demand.

    `seeded` says whether a seed fixes a run (a command without {seed} has none), `own_clock` whether its seconds leave
    evaluation out. `target` is what runs are to reach, where that is known.
    """

    def __init__(
        self,
        runner: Runner,
        trial: Trial,
        *,
        target: Target | None,
        seeded: bool,
        own_clock: bool,
        run_seconds: float = RUN_SECONDS,
    ) -> None:
        self.target, self.seeded, self.own_clock = target, seeded, own_clock
        self.facts = runner.facts
        self.planned_known = bool(trial.planned_examples)
        self.trial = replace(trial, planned_examples=trial.planned_examples or PLANNED_STEPS * trial.batch_size)
        self.run_seconds, self._runner = run_seconds, runner

    @stage("a run")
    def present(self) -> Attempt:
        return self._attempt(self.trial)

    @stage("a second run")
    def again(self) -> Attempt:
        return self._attempt(self.trial)

    @stage("a run at another rate")
    def other_rate(self) -> Attempt:
        return self._attempt(replace(self.trial, learning_rate=OTHER_RATE * self.trial.learning_rate))

    @stage("a run at another batch size")
    def other_size(self) -> Attempt:
        """Planned so that it is evaluated after the same numbers of steps."""
        trial = self._resized(OTHER_SIZE)
        return self._attempt(trial if self._runner.offers(trial) else self._resized(1 / OTHER_SIZE))

    @stage("a run of no planned length")
    def unplanned(self) -> Attempt:
        """As it is begun where nobody says how long it is: it may take its length from the trial."""
        return self._attempt(replace(self.trial, planned_examples=None), 1)

    @stage("a longer run")
    def longer(self) -> Attempt:
        return self._attempt(self.trial, MORE_POINTS, min(self.run_seconds, MORE_SECONDS))

    def _resized(self, factor: float) -> Trial:
        size = max(1, round(factor * self.trial.batch_size))
        planned = (self.trial.planned_steps or PLANNED_STEPS) * size
        return replace(self.trial, batch_size=size, planned_examples=planned)

    def _attempt(self, trial: Trial, most: int = POINTS, seconds: float | None = None) -> Attempt:
        until = time.perf_counter() + (self.run_seconds if seconds is None else seconds)
        points: list[Point] = []
        walls: list[float] = []
        ended = error = None
        started = time.perf_counter()
        try:
            run = self._runner.start(trial)
            try:
                while len(points) < most and time.perf_counter() < until:
                    outcome = run.advance()
                    if isinstance(outcome, Stop):
                        ended = f"{outcome.reason.value}{': ' if outcome.message else ''}{outcome.message}"
                        break
                    points.append(outcome)
                    walls.append(time.perf_counter() - started)
            finally:
                run.close()
        except InputError as raised:
            error = str(raised)
        return Attempt(trial, tuple(points), tuple(walls), ended, error)
