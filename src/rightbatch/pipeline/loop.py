"""The only loop: a strategy proposes, a crew runs, the study keeps every point as it comes."""

from __future__ import annotations

from pathlib import Path

from rightbatch.evidence import Evidence
from rightbatch.pipeline.desk import Desk, Watch, unwatched
from rightbatch.runner import Runner
from rightbatch.search.strategy import Strategy
from rightbatch.store import Study
from rightbatch.workers import Alone, Crew


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

    A run that the strategy has paused is in the evidence without an end, and goes on with nothing repeated when it is
    proposed again; the rules are asked at each new point. What is still paused at the end is ended: without its state
    where the strategy is done, so that a later call that wants it makes it anew.

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
    desk = Desk(study, runner.environment, evidence, crew or Alone(runner), deadline, models, watch)
    try:
        while True:
            why = desk.fill(strategy)
            if not desk.active:
                desk.dismiss(why)
                return desk.evidence, why
            desk.wait()
    finally:
        desk.clear()
