"""Runs made one by one, for a search or a measurement of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rightbatch.errors import InputError
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.runners import StartFrom, as_runner, crew_of
from rightbatch.records import Trial, WorkloadFacts
from rightbatch.runner import RunInProgress, Runner
from rightbatch.workers import Crew


class Runs:
    """What `runs` gives. `places`: so many runs may be under way at once; `facts`: what is known of the workload."""

    def __init__(self, runner: Runner, crew: Crew) -> None:
        self._runner, self._crew = runner, crew
        self.facts: WorkloadFacts = runner.facts
        self.places = crew.places

    def start(self, trial: Trial) -> RunInProgress:
        """Begin a run. Close it when it is no longer wanted: as long as it is open it takes one of the places.

        Raises `InputError` for a trial that the workload cannot run: a batch larger than the data, an unknown setting.
        """
        if not self._runner.offers(trial):
            has = ", ".join(self.facts.settings) or "none"
            raise InputError(
                f"{self.facts.name!r} cannot run {trial}. Choose a batch size of at most its examples "
                f"({self.facts.train_examples:,}), and settings that it has ({has})."
            )
        return self._crew.start(trial)

    def next(self, runs: Sequence[RunInProgress]) -> RunInProgress:
        """Of these runs the one whose `advance` is done first: ask for it, then call `advance` on it."""
        return self._crew.next(runs)


@contextmanager
def runs(
    workload: Any,
    *,
    workers: int = 1,
    threads: int | None = None,
    device: str | None = None,
    start_from: StartFrom | None = None,
    **asked: Any,
) -> Iterator[Runs]:
    """Make runs one by one, without a study and without a search: for one of your own.

        with rightbatch.runs("digits") as runs:
            run = runs.start(rightbatch.Trial(batch_size=32, learning_rate=0.1, seed=0))
            while isinstance(point := run.advance(), rightbatch.Point):
                print(point.examples, point.valid_loss)
            run.close()

    With several workers each run is made in a process of its own, one a worker, and `runs.next` says whose turn it is.

    Parameters
    ----------
    workload: As for `find`: a `Workload` or its name, a generator, a `Command`, a table.
    workers: Worker processes; 1: in this process.
    threads, device, start_from: As for `find`.
    asked: What a loop or a command does not say itself; see `Ask`.

    Raises
    ------
    InputError, WorkloadError, MissingExtra: As `find`, when it is begun.
    """
    how: dict[str, Any] = {"ask": Ask(**asked), "device": device, "threads": threads, "start_from": start_from}
    runner = as_runner(workload, **how)
    with crew_of(workload, runner, workers, **how) as crew:
        yield Runs(runner, crew)
