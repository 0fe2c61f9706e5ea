"""The only loop: a strategy proposes, a runner runs, the study keeps every point as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from rightbatch import curves
from rightbatch.errors import WorkloadError
from rightbatch.evidence import Evidence
from rightbatch.records import Run, Settings, Stop, StopReason, Trial
from rightbatch.runner import RunInProgress, Runner, Saveable
from rightbatch.search.strategy import Advance, Done, Strategy
from rightbatch.store import RESUMABLE, Study

STATE_SECONDS = 20.0
"""A run that can be saved is saved about this often, so that a killed process repeats little."""

OUT_OF_BUDGET = "the budget ended"
"""Why `drive` ended when it was not the strategy that said done."""

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
    deadline: float | None = None,
    watch: Watch = unwatched,
) -> tuple[Evidence, str]:
    """Run what the strategy proposes until it says done or the clock passes `deadline` (of `time.monotonic`).

    Returns the evidence with all that was learnt, and why it ended. Interrupted at any moment, the study is whole, and
    the same call goes on where this one was.

    Raises
    ------
    WorkloadError: When the person's code raised; the run is kept as failed, everything before it as it was.
    """
    while True:
        action = strategy(evidence)
        if isinstance(action, Done):
            return evidence, action.why
        if deadline is not None and time.monotonic() >= deadline:
            return evidence, OUT_OF_BUDGET
        run = _advance(study, runner, action, evidence, deadline, watch)
        evidence = evidence.with_run(run)


def _advance(
    study: Study, runner: Runner, action: Advance, evidence: Evidence, deadline: float | None, watch: Watch
) -> Run:
    """One run, from its start or where it was left, to its stop."""
    started = saved = time.monotonic()
    run, progress = _begin(study, runner, action.trial, evidence)
    stop = Stop(StopReason.INTERRUPTED, "the process was told to end")
    try:
        while True:
            outcome = progress.advance()
            if isinstance(outcome, Stop):
                stop = outcome
                break
            study.add_point(run.identifier, outcome)
            run = replace(run, points=(*run.points, outcome))
            watch(run, action.why, evidence)
            if curves.diverged(run.points):
                stop = Stop(StopReason.DIVERGED)
                break
            reason = action.until(run.points)
            if reason is not None:
                stop = Stop(StopReason.STOPPED_BY_RULE, reason)
                break
            late = deadline is not None and time.monotonic() >= deadline
            if isinstance(progress, Saveable) and (late or time.monotonic() - saved > STATE_SECONDS):
                study.save_state(run.identifier, outcome.step, progress.save())
                saved = time.monotonic()
            if late:
                stop = Stop(StopReason.OUT_OF_BUDGET)
                break
    except WorkloadError as error:
        stop = Stop(StopReason.FAILED, str(error))
        raise
    finally:
        progress.close()
        spent = time.monotonic() - started
        study.stop_run(run.identifier, stop, spent)
    run = replace(run, stop=stop, wall_seconds=run.wall_seconds + spent)
    watch(run, action.why, evidence)
    return run


def _begin(study: Study, runner: Runner, trial: Trial, evidence: Evidence) -> tuple[Run, RunInProgress]:
    """The run as the study knows it and the run in progress: from a saved state if there is one, else anew."""
    complete = replace(
        trial,
        planned_examples=trial.planned_examples or evidence.facts.planned_examples,
        settings=Settings({**evidence.facts.settings, **trial.settings}),
    )
    for run in reversed(evidence.runs):
        if run.trial == complete and run.stop is not None and run.stop.reason in RESUMABLE:
            left = study.resume_run(run.identifier)
            if left is not None:
                state, points = left
                return replace(run, points=points, stop=None), runner.start(run.trial, state)
    # Started before it is written down: a trial that cannot even begin leaves no run behind.
    progress = runner.start(complete)
    identifier = study.start_run(complete, runner.environment)
    return Run(complete, (), None, 0.0, identifier), progress
