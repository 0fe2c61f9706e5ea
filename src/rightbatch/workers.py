"""Who makes the runs: this process, or long-lived worker processes that each advance one at a time."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from types import TracebackType
from typing import Protocol

from rightbatch.errors import InputError
from rightbatch.records import Trial
from rightbatch.runner import RunInProgress, Runner
from rightbatch.worker import Setup
from rightbatch.worker_process import RemoteRun, WorkerProcess


class Crew(Protocol):
    """Starts runs, at most `places` at a time, and tells which of them to advance next."""

    places: int

    def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
        """Begin a run, or go on from a state. There must be a free place: a closed or paused run frees its own."""

    def take_up(self, run: RunInProgress) -> bool:
        """Give a paused run a place again, to be advanced or saved; False while another run has the one it needs."""

    def next(self, runs: Sequence[RunInProgress]) -> RunInProgress:
        """Of these runs that one whose `advance` has its outcome first; waits until there is one."""


class Alone:
    """One run at a time, in this process."""

    places = 1

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
        return self._runner.start(trial, state)

    def take_up(self, run: RunInProgress) -> bool:
        return True

    def next(self, runs: Sequence[RunInProgress]) -> RunInProgress:
        return runs[0]


class NotPicklable(InputError):
    """A runner cannot be sent to another process."""


class Workers:
    """Worker processes, started at once and kept until `close`; one that dies is replaced when it is next needed.

    Parameters
    ----------
    make: Returns the runner. It is pickled (by cloudpickle, where that is installed) and called once in each worker.
    count: How many workers.
    threads: Threads of each; None: this machine's cores shared out. Each is bound to cores of its own where they do.

    Raises
    ------
    NotPicklable: When `make` cannot be pickled.
    """

    def __init__(self, make: Callable[[], Runner], count: int, threads: int | None = None) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise InputError("Worker processes need Linux or macOS. Leave out --workers here.")
        self.places = count
        pickled = pickled_maker(make)
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        each = threads or max(1, len(cores) // count)
        own = count * each <= len(cores) and hasattr(os, "sched_setaffinity")
        self._setups = [
            Setup(pickled, tuple(sys.path), each, tuple(cores[k * each : (k + 1) * each]) if own else ())
            for k in range(count)
        ]
        self._workers = [WorkerProcess(setup) for setup in self._setups]

    def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
        free = [place for place, worker in enumerate(self._workers) if worker.run is None]
        assert free, "no free worker"
        # One with few paused runs: those can go on only where they are.
        place = min(free, key=lambda place: len(self._workers[place].runs))
        worker = self._workers[place]
        if not worker.alive:
            worker.end()
            worker = self._workers[place] = WorkerProcess(self._setups[place])
        return RemoteRun(worker, trial, state)

    def take_up(self, run: RunInProgress) -> bool:
        assert isinstance(run, RemoteRun)
        return run.take_up()

    def next(self, runs: Sequence[RunInProgress]) -> RunInProgress:
        remote = [run for run in runs if isinstance(run, RemoteRun)]
        for run in remote:
            if run.lost:
                return run
            run.ask()
        while True:
            ready = wait([run.connection for run in remote])
            for run in remote:
                if run.connection in ready and run.has_outcome():
                    return run

    def close(self) -> None:
        """End all workers. Allowed more than once."""
        for worker in self._workers:
            worker.end()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pickled_maker(make: Callable[[], Runner]) -> bytes:
    """What a worker is told to make its runner by. Raises `NotPicklable`."""
    try:
        try:
            import cloudpickle  # type: ignore[import-untyped]
        except ImportError:
            return pickle.dumps(make)
        return cloudpickle.dumps(make)  # type: ignore[no-any-return]
    except Exception as error:  # whatever a person's object raises when it is pickled
        raise NotPicklable(
            f"The workload cannot be sent to worker processes ({type(error).__name__}: {error}). "
            f"Give it by name (my.py:make_workload), or without what cannot be pickled."
        ) from error
