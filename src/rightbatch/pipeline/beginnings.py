"""How a run begins: from a state that it left, from that of a run that began alike, or anew; and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rightbatch import curves
from rightbatch.errors import InputError, StateError
from rightbatch.evidence import Evidence
from rightbatch.pipeline.trunks import Trunks
from rightbatch.question import Objective
from rightbatch.records import Environment, Point, Run, Stop, StopReason, Trial
from rightbatch.runner import RunInProgress, Saveable
from rightbatch.search.strategy import Advance
from rightbatch.store import RESUMABLE, Study
from rightbatch.workers import Crew

HELD = "paused"
"""What the study says of a paused run, and what `watch` is told instead of why the run was made."""


@dataclass(eq=False)
class Task:
    """One run under way, or paused.

    `seconds` is its share of the wall clock, where time is shared out among the runs of that time: what the study does
    not have yet. `unsaved_seconds` is the time since it was saved, all of it, without pauses.
    """

    run: Run
    progress: RunInProgress
    action: Advance
    seconds: float = 0.0
    unsaved_seconds: float = 0.0

    def state(self) -> bytes | None:
        """That after its last point; None where it has none."""
        return self.progress.save() if isinstance(self.progress, Saveable) else None


class Beginnings:
    """Begins the runs of a study."""

    def __init__(self, study: Study, environment: Environment, crew: Crew) -> None:
        self._study, self._environment, self._crew = study, environment, crew
        self.trunks = Trunks()

    def begin(self, trial: Trial, action: Advance, evidence: Evidence) -> tuple[Task, Evidence]:
        """A task for it; and the evidence, in which runs whose states are lost have ended."""
        task, evidence = self._from_state(trial, action, evidence)
        return task or self._branched(trial, action) or self._anew(trial, action), evidence

    def _from_state(self, trial: Trial, action: Advance, evidence: Evidence) -> tuple[Task | None, Evidence]:
        """A run of this trial that was left with a state; None if there is none that can be read."""
        for run in reversed(evidence.runs):
            if run.trial != trial or not (run.stop is None or run.stop.reason in RESUMABLE):
                continue
            left = self._study.resume_run(run.identifier)
            if left is not None:
                state, points = left
                try:
                    progress = self._crew.start(trial, state)
                except StateError as error:
                    stop = Stop(StopReason.INTERRUPTED, str(error))
                    self._study.drop_state(run.identifier, stop)
                    return None, evidence.with_run(replace(run, stop=stop))  # it is made anew
                return Task(replace(run, points=points, stop=None), progress, action), evidence
            if run.stop is None:  # it was set aside, but a disk that lies has lost its state
                evidence = evidence.with_run(replace(run, stop=Stop(StopReason.INTERRUPTED, HELD)))
        return None, evidence

    def _branched(self, trial: Trial, action: Advance) -> Task | None:
        """A run that goes on from where another one, which began alike, is to differ; None if there is none."""
        found = self.trunks.nearest(trial) if action.branches else None
        if found is None:
            return None
        points, state = found
        try:
            progress = self._crew.start(trial, state)
        except StateError:
            self.trunks.drop()
            return None
        return Task(self._written_down(trial, points), progress, action)

    def _anew(self, trial: Trial, action: Advance) -> Task:
        # Started before it is written down: a trial that cannot even begin leaves no run behind.
        progress = self._crew.start(trial)
        return Task(self._written_down(trial, ()), progress, action)

    def _written_down(self, trial: Trial, points: tuple[Point, ...]) -> Run:
        identifier = self._study.start_run(trial, self._environment)
        if points:
            self._study.add_points(identifier, points)
        return Run(trial, points, None, 0.0, identifier)


def check_start(evidence: Evidence, point: Point) -> None:
    """Refuse a target that the weights reach as they are before any step: nothing could be told by it."""
    target = evidence.question.target
    if point.step or evidence.question.objective is Objective.METRIC:
        return
    value = getattr(point, target.quantity)
    if target.reached_by(value):
        raise InputError(
            f"The target {target.value:g} is reached before any training: the "
            f"{curves.called([point], target.quantity)} of {evidence.facts.name!r} is {value:.6g} at the start. Give a "
            f"harder --target."
        )
