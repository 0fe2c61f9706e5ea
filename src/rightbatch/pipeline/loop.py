"""The only loop: a strategy proposes, a crew runs, the study keeps every point as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rightbatch import curves
from rightbatch.errors import StateError, WorkloadError
from rightbatch.evidence import Evidence
from rightbatch.records import Environment, Run, Settings, Stop, StopReason, Trial
from rightbatch.runner import KeepsWeights, RunInProgress, Runner, Saveable
from rightbatch.search.strategy import Advance, Done, Strategy
from rightbatch.store import RESUMABLE, Study
from rightbatch.workers import Alone, Crew

STATE_SECONDS = 20.0
"""A run that can be saved is saved about this often, so that a killed process repeats little."""

OUT_OF_BUDGET = "the budget ended"
"""Why `drive` ended when it was not the strategy that said done."""

KILLED_TIMES = 5
"""A trial that was killed so often without getting any further, with nobody saying so to us, is not tried again."""

Watch = Callable[[Run, str, Evidence], None]
"""Is told of every new point and every end of a run, with why the run was made and what was known before it."""


def unwatched(run: Run, why: str, evidence: Evidence) -> None:
    """Nobody looks."""


def drive(
    study: Study,
    runner: Runner,
    strategy: Strategy,
    evidence: Evidence,
    *,
    crew: Crew | None = None,
    deadline: float | None = None,
    models: Path | None = None,
    watch: Watch = unwatched,
) -> tuple[Evidence, str]:
    """Run what the strategy proposes until it says done or the clock passes `deadline` (of `time.monotonic`).

    Parameters
    ----------
    crew: Who makes the runs; None: this process, one at a time.
    models: Folder to which each run that ends writes its weights, where its runner keeps any.

    Returns the evidence with all that was learnt, and why it ended. Interrupted at any moment, the study is whole, and
    the same call goes on where this one was.

    Raises
    ------
    WorkloadError: When the person's code raised; the run is kept as failed, everything before it as it was.
    """
    desk = _Desk(study, runner.environment, crew or Alone(runner), deadline, models, watch)
    try:
        while True:
            why = desk.fill(strategy, evidence)
            if not desk.active:
                return evidence, why
            ended = desk.wait(evidence)
            if ended is not None:
                evidence = evidence.with_run(ended)
    finally:
        desk.clear()


@dataclass
class _Task:
    """One run under way. `seconds` is its share of the wall clock: time is shared out among the runs of that time."""

    run: Run
    progress: RunInProgress
    action: Advance
    saved: float
    seconds: float = 0.0


class _Desk:
    """The runs under way, between the strategy, the crew and the study."""

    def __init__(
        self,
        study: Study,
        environment: Environment,
        crew: Crew,
        deadline: float | None,
        models: Path | None,
        watch: Watch,
    ) -> None:
        self._study, self._environment, self._crew, self._watch = study, environment, crew, watch
        self._deadline, self._models = deadline, models
        self.active: list[_Task] = []
        self._killed: dict[Trial, tuple[int, int]] = {}
        self._asked: tuple[Evidence, int] | None = None
        self._charged = time.monotonic()

    @property
    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def fill(self, strategy: Strategy, evidence: Evidence) -> str:
        """Begin what the strategy proposes while there is a free place; why there is no more to begin."""
        while len(self.active) < self._crew.places:
            # Asked once for what is known: points of runs under way do not change what comes next.
            if self._asked is not None and self._asked[0] is evidence and self._asked[1] == len(self.active):
                return ""
            self._asked = (evidence, len(self.active))
            trials = (task.run.trial for task in self.active)
            pending = frozenset((trial.batch_size, trial.learning_rate, trial.seed) for trial in trials)
            action = strategy(replace(evidence, pending=pending) if pending else evidence)
            if isinstance(action, Done):
                return action.why
            if not isinstance(action, Advance):
                assert self.active, "a strategy waits although nothing is under way"
                return ""
            if self._late:
                return OUT_OF_BUDGET
            self.active.append(self._begin(action, evidence))
        return ""

    def wait(self, evidence: Evidence) -> Run | None:
        """Take the next outcome of a run under way; the run, if it has ended."""
        progress = self._crew.next([task.progress for task in self.active])
        task = next(task for task in self.active if task.progress is progress)
        try:
            outcome = task.progress.advance()
            self._charge()
            stop = outcome if isinstance(outcome, Stop) else None
            if not isinstance(outcome, Stop):
                self._study.add_point(task.run.identifier, outcome)
                task.run = replace(task.run, points=(*task.run.points, outcome))
                self._watch(task.run, task.action.why, evidence)
                stop = self._judge(task)
        except StateError as error:  # damaged, or of an earlier version: the run will be made anew
            stop = Stop(StopReason.INTERRUPTED, str(error))
            self._study.drop_state(task.run.identifier, stop)
        except WorkloadError as error:
            self._charge()
            self._end(task, Stop(StopReason.FAILED, str(error)))
            raise
        if stop is None:
            return None
        run = self._end(task, stop)
        self._count_kill(run)
        self._watch(run, task.action.why, evidence)
        self._asked = None
        return run

    def clear(self) -> None:
        """Interrupt what is still under way."""
        self._charge()
        while self.active:
            self._end(self.active[-1], Stop(StopReason.INTERRUPTED, "the process was told to end"))

    def _judge(self, task: _Task) -> Stop | None:
        """Whether a run stops at its last point; its state is saved when it is time to."""
        points = task.run.points
        if curves.diverged(points):
            return Stop(StopReason.DIVERGED)
        reason = task.action.until(points)
        if reason is not None:
            return Stop(StopReason.STOPPED_BY_RULE, reason)
        late = self._late
        if isinstance(task.progress, Saveable) and (late or time.monotonic() - task.saved > STATE_SECONDS):
            state = task.progress.save()
            if state is not None:
                self._study.save_state(task.run.identifier, points[-1].step, state)
            task.saved = time.monotonic()
        return Stop(StopReason.OUT_OF_BUDGET) if late else None

    def _charge(self) -> None:
        """Share the time since the last call among the runs under way."""
        now = time.monotonic()
        for task in self.active:
            task.seconds += (now - self._charged) / len(self.active)
        self._charged = now

    def _end(self, task: _Task, stop: Stop) -> Run:
        self.active.remove(task)
        try:
            if self._models is not None and stop.reason not in RESUMABLE and isinstance(task.progress, KeepsWeights):
                task.progress.write_weights(weights_path(self._models, task.run.identifier))
        finally:
            task.progress.close()
            self._study.stop_run(task.run.identifier, stop, task.seconds)
        return replace(task.run, stop=stop, wall_seconds=task.run.wall_seconds + task.seconds)

    def _count_kill(self, run: Run) -> None:
        """Raise `WorkloadError` for a run that was killed too often, with nobody telling us to end it."""
        trial, step = run.trial, run.points[-1].step if run.points else -1
        if run.stop is None or run.stop.reason is not StopReason.INTERRUPTED:
            return
        times, furthest = self._killed.get(trial, (0, -1))
        times = 1 if step > furthest else times + 1  # what gets further each time comes to its end
        self._killed[trial] = (times, max(step, furthest))
        if times == KILLED_TIMES:
            raise WorkloadError(
                f"The run with batch_size={trial.batch_size}, learning_rate={trial.learning_rate:g}, "
                f"seed={trial.seed} was killed {KILLED_TIMES} times: {run.stop.message}. Find out what kills it "
                f"(memory, a limit of the machine), or leave this batch size out with --batch-sizes."
            )

    def _begin(self, action: Advance, evidence: Evidence) -> _Task:
        """A run, from a saved state if there is one, else anew."""
        self._charge()
        trial = replace(
            action.trial,
            planned_examples=action.trial.planned_examples or evidence.facts.planned_examples or None,
            settings=Settings({**evidence.facts.settings, **action.trial.settings}),
        )
        now = time.monotonic()
        for run in reversed(evidence.runs):
            if run.trial == trial and run.stop is not None and run.stop.reason in RESUMABLE:
                left = self._study.resume_run(run.identifier)
                if left is not None:
                    state, points = left
                    try:
                        progress = self._crew.start(trial, state)
                    except StateError as error:
                        self._study.drop_state(run.identifier, Stop(StopReason.INTERRUPTED, str(error)))
                        break  # it is made anew
                    return _Task(replace(run, points=points, stop=None), progress, action, now)
        # Started before it is written down: a trial that cannot even begin leaves no run behind.
        progress = self._crew.start(trial)
        identifier = self._study.start_run(trial, self._environment)
        return _Task(Run(trial, (), None, 0.0, identifier), progress, action, now)


def weights_path(models: Path, run: int) -> Path:
    """Where the weights of a run are kept."""
    return models / f"run-{run}.pt"
