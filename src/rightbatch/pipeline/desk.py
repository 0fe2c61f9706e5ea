"""The runs under way and those paused: what stands between the strategy, the crew and the study."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rightbatch import curves
from rightbatch.errors import StateError, WorkloadError
from rightbatch.evidence import Evidence
from rightbatch.pipeline.beginnings import HELD, Beginnings, Task, check_start
from rightbatch.pipeline.kills import Kills
from rightbatch.records import Environment, Run, Settings, Stop, StopReason, Trial
from rightbatch.runner import KeepsWeights, Pausable
from rightbatch.search.strategy import Advance, Done, Strategy
from rightbatch.store import RESUMABLE, Study
from rightbatch.workers import Crew

STATE_SECONDS = 20.0
"""A run that can be saved is saved after about so much training, so that a killed process repeats little."""

MOST_PAUSED = 8
"""So many paused runs are held open, each with its model; beyond, those paused longest ago are saved and closed."""

OUT_OF_BUDGET = "the budget ended"
"""Why `drive` ended when it was not the strategy that said done."""

Watch = Callable[[Run, str, Evidence], None]
"""Is told of every new point, pause and end of a run, with why the run was made and what was known before it."""


def unwatched(run: Run, why: str, evidence: Evidence) -> None:
    """Nobody looks."""


class Desk:
    """The runs under way and those paused, between the strategy, the crew and the study."""

    def __init__(
        self,
        study: Study,
        environment: Environment,
        evidence: Evidence,
        crew: Crew,
        deadline: float | None,
        models: Path | None,
        watch: Watch,
    ) -> None:
        self._study, self._crew, self._watch = study, crew, watch
        self._beginnings = Beginnings(study, environment, crew)
        self._deadline, self._models = deadline, models
        self.evidence = evidence
        self.active: list[Task] = []
        self._paused: dict[Trial, Task] = {}  # the one paused longest ago comes first
        self._aside: dict[Trial, Run] = {}  # paused too, but only their states are kept
        self._wanted: dict[Trial, Advance] = {}  # to go on as soon as the worker that holds them is free
        self._kills = Kills()
        self._over: set[Trial] = set()  # at their end or at the target: nothing is to be learned from them anew
        self._asked: tuple[Evidence, int] | None = None
        self._charged = time.monotonic()

    @property
    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    # ---------------------------------------------------------------------------------------- what `drive` does

    def fill(self, strategy: Strategy) -> str:
        """Begin what the strategy proposes while there is a free place; why there is no more to begin."""
        for trial, action in tuple(self._wanted.items()):
            self._go_on(trial, action)
        while len(self.active) < self._crew.places:
            # Asked once for what is known: points of runs under way do not change what comes next.
            under_way = len(self.active) + len(self._wanted)
            if self._asked is not None and self._asked[0] is self.evidence and self._asked[1] == under_way:
                return ""
            self._asked = (self.evidence, under_way)
            pending = frozenset((*(task.run.trial for task in self.active), *self._wanted))
            action_now = strategy(replace(self.evidence, pending=pending) if pending else self.evidence)
            if isinstance(action_now, Done):
                return action_now.why
            if not isinstance(action_now, Advance):
                assert self.active, "a strategy waits although nothing is under way"
                return ""
            if self._late:
                return OUT_OF_BUDGET
            self._begin(action_now)
        return ""

    def wait(self) -> None:
        """Take the next outcome of a run under way."""
        progress = self._crew.next([task.progress for task in self.active])
        task = next(task for task in self.active if task.progress is progress)
        try:
            outcome = task.progress.advance()
            self._charge()
            stop = outcome if isinstance(outcome, Stop) else None
            if not isinstance(outcome, Stop):
                self._study.add_point(task.run.identifier, outcome)
                task.run = replace(task.run, points=(*task.run.points, outcome))
                self._watch(task.run, task.action.why, self.evidence)
                check_start(self.evidence, outcome)
                stop = self._judge(task)
                self._keep_for_others(task)
        except StateError as error:  # damaged, or of an earlier version: the run will be made anew
            stop = Stop(StopReason.INTERRUPTED, str(error))
            self._study.drop_state(task.run.identifier, stop)
            self._beginnings.trunks.drop()
        except WorkloadError as error:
            self._charge()
            self._end(task, Stop(StopReason.FAILED, str(error)))
            raise
        if stop is not None:
            run = self._end(task, stop)
            self._kills.count(run)
            if stop.reason is StopReason.FINISHED or stop.message == curves.REACHED:
                self._over.add(run.trial)
            self._tell(run, task.action.why)
        elif task.action.pause is not None and task.action.pause(task.run.points) is not None:
            self._pause(task)

    def dismiss(self, why: str) -> None:
        """End what is paused: this call asks for it no more."""
        late = why == OUT_OF_BUDGET
        stop = Stop(StopReason.OUT_OF_BUDGET) if late else Stop(StopReason.STOPPED_BY_RULE, curves.PAUSED)
        for task in tuple(self._paused.values()):
            self._tell(self._let_go(task, stop), task.action.why)
        for run in tuple(self._aside.values()):
            self._tell(self._let_lie(run, stop), HELD)

    def clear(self) -> None:
        """Interrupt what is still under way or paused."""
        self._charge()
        stop = Stop(StopReason.INTERRUPTED, "the process was told to end")
        with contextlib.ExitStack() as ends:  # every one of them, even where one cannot be ended as it should
            for task in self.active:
                ends.callback(self._end, task, stop)
            for task in self._paused.values():  # these come first: ending what is under way may end their worker
                ends.callback(self._let_go, task, stop)
            for run in self._aside.values():
                ends.callback(self._let_lie, run, stop)

    # ------------------------------------------------------------------------------------------- how a run begins

    def _begin(self, action: Advance) -> None:
        """Have a run go on that is paused or has a saved state, else make a new one."""
        self._charge()
        trial = replace(
            action.trial,
            planned_examples=action.trial.planned_examples or self.evidence.facts.planned_examples or None,
            settings=Settings({**self.evidence.facts.settings, **action.trial.settings}),
        )
        if trial in self._paused:
            self._go_on(trial, action)
        else:
            assert trial not in self._over, f"a strategy asks again for a run that is over: {trial}"
            self._aside.pop(trial, None)
            task, self.evidence = self._beginnings.begin(trial, action, self.evidence)
            self.active.append(task)

    def _go_on(self, trial: Trial, action: Advance) -> None:
        """Take up a run that is held open, or note that it is wanted while its worker makes another one."""
        task = self._paused[trial]
        if not self._crew.take_up(task.progress):
            self._wanted[trial] = action
            return
        self._charge()
        task.action = action
        self.active.append(task)
        self._forget(trial)
        self._study.reopen_run(task.run.identifier)

    # ------------------------------------------------------------------------------------- how it pauses and ends

    def _judge(self, task: Task) -> Stop | None:
        """Whether a run stops at its last point; its state is saved when it is time to."""
        points = task.run.points
        if curves.diverged(points):
            return Stop(StopReason.DIVERGED)
        reason = task.action.until(points)
        if reason is not None:
            return Stop(StopReason.STOPPED_BY_RULE, reason)
        late = self._late
        if late or task.unsaved_seconds > STATE_SECONDS:
            self._save(task)
        return Stop(StopReason.OUT_OF_BUDGET) if late else None

    def _keep_for_others(self, task: Task) -> None:
        """Keep the state of a run that others may branch from."""
        trunks = self._beginnings.trunks
        if task.action.branches and not trunks.in_vain and (state := task.state()) is not None:
            trunks.keep(task.run.trial, task.run.points, state)

    def _save(self, task: Task) -> bool:
        """Keep the state of a run after its last point; False where it has none."""
        task.unsaved_seconds = 0.0
        state = task.state()
        if state is None:
            return False
        self._study.save_state(task.run.identifier, task.run.points[-1].step, state)
        return True

    def _pause(self, task: Task) -> None:
        """Hold a run open without advancing it. In the study it is as if interrupted, should this process be killed."""
        self._charge()
        self._paused[task.run.trial] = task
        self.active.remove(task)
        if isinstance(task.progress, Pausable):
            task.progress.pause()
        self._study.stop_run(task.run.identifier, Stop(StopReason.INTERRUPTED, HELD), task.seconds)
        task.run = replace(task.run, wall_seconds=task.run.wall_seconds + task.seconds)
        task.seconds = 0.0
        self._tell(task.run, HELD)
        self._make_room()

    def _make_room(self) -> None:
        """Close those paused longest ago where there are too many: saved, or else to be made anew if wanted again."""
        for trial, task in tuple(self._paused.items()):
            if len(self._paused) <= MOST_PAUSED:
                return
            if trial in self._wanted or not self._crew.take_up(task.progress):
                continue
            if self._save(task):
                self._forget(trial)
                self._aside[trial] = task.run
                task.progress.close()
            else:
                stop = Stop(StopReason.INTERRUPTED, f"closed: {MOST_PAUSED} other runs are paused")
                self._tell(self._end(task, stop), task.action.why)

    def _let_go(self, task: Task, stop: Stop) -> Run:
        """End a paused run, with its state where it may go on."""
        try:
            if stop.reason in RESUMABLE and self._crew.take_up(task.progress):
                self._save(task)
        finally:
            run = self._end(task, stop)
        return run

    def _let_lie(self, run: Run, stop: Stop) -> Run:
        """End a run that was set aside: whether its state stays is for the study to know."""
        self._aside.pop(run.trial)
        self._study.stop_run(run.identifier, stop, 0.0)
        return replace(run, stop=stop)

    def _end(self, task: Task, stop: Stop) -> Run:
        if task in self.active:
            self.active.remove(task)
        else:
            self._forget(task.run.trial)
        try:
            if self._models is not None and stop.reason not in RESUMABLE and isinstance(task.progress, KeepsWeights):
                task.progress.write_weights(weights_path(self._models, task.run.identifier))
        finally:
            task.progress.close()
            self._study.stop_run(task.run.identifier, stop, task.seconds)
        return replace(task.run, stop=stop, wall_seconds=task.run.wall_seconds + task.seconds)

    def _forget(self, trial: Trial) -> None:
        del self._paused[trial]
        self._wanted.pop(trial, None)

    def _tell(self, run: Run, why: str) -> None:
        """Let `watch` and the strategy know of a pause or an end."""
        self._watch(run, why, self.evidence)
        self.evidence = self.evidence.with_run(run)

    def _charge(self) -> None:
        """Share the time since the last call among the runs under way."""
        now = time.monotonic()
        for task in self.active:
            task.seconds += (now - self._charged) / len(self.active)
            task.unsaved_seconds += now - self._charged
        self._charged = now


def weights_path(models: Path, run: int) -> Path:
    """Where the weights of a run are kept."""
    return models / f"run-{run}.pt"
