"""What is seen while runs are made: one line that changes, in a terminal only."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.status import Status

from rightbatch.evidence import Evidence
from rightbatch.records import Run
from rightbatch.report import units

REFRESH_SECONDS = 0.1


class Live:
    """Use as a context; `watch` is what the loop calls. Silent where the console is not a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._ended = 0
        self._best = ""
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> Live:
        if self._console.is_terminal:
            self._status = self._console.status("measuring seconds per step")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def watch(self, run: Run, why: str, evidence: Evidence) -> None:
        """Show a new point or the end of a run."""
        if self._status is None:
            return
        if run.stop is not None:
            self._ended += 1
            self._best = _best(evidence)
        elif time.monotonic() - self._shown < REFRESH_SECONDS:
            return
        self._shown = time.monotonic()
        trial, last = run.trial, run.points[-1] if run.points else None
        value = getattr(last, evidence.question.target.quantity) if last else None
        progress = f"{last.examples:,} examples, {units.significant(value)}" if last else "starting"
        self._status.update(
            f"{units.seconds(self._shown - self._started)}, {self._ended} runs | {why} | batch {trial.batch_size}, "
            f"rate {units.rate(trial.learning_rate)}, seed {trial.seed}: {progress}{self._best}"
        )


def _best(evidence: Evidence) -> str:
    cell = evidence.best_cell
    if cell is None:
        return ""
    cost = units.cost(cell.mean, evidence.question.objective)
    return f" | best so far: batch {cell.batch_size}, rate {units.rate(cell.learning_rate)}, {cost}"
