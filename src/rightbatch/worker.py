"""One worker process: makes its runner once, then starts and advances runs as it is told.

The parent and this process take turns: each request but "drop" has one reply, so that a run in a worker is exactly what
it is in the parent. A worker advances one run at a time and holds those that are paused. Errors of the person's code
cross as text.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rightbatch.errors import RightbatchError
from rightbatch.runner import KeepsWeights, Pausable, RunInProgress, Runner, Saveable


@dataclass(frozen=True)
class Setup:
    """What a worker is told first. `make` is a pickled function without arguments that returns its runner."""

    make: bytes
    path: tuple[str, ...]
    threads: int
    processors: tuple[int, ...] = ()

    @classmethod
    def of(cls, make: bytes, threads: int) -> Setup:
        """A worker that finds the same modules as this process, on any processor."""
        return cls(make, tuple(sys.path), threads)


@dataclass(frozen=True)
class Failure:
    """An error of the person's code, as a reply."""

    kind: str
    message: str
    trace: str


def main(requests: int, life_line: int) -> None:
    """Serve requests from a socket until it closes. `life_line` is a pipe that closes when the parent is gone."""
    threading.Thread(target=_end_with_parent, args=(life_line,), daemon=True).start()
    connection = Connection(requests)
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            runner = _set_up(connection.recv())
        except Exception as error:
            connection.recv()  # the first request; its reply is the error
            connection.send(_failure(error))
            return
        serve(connection, runner)


def serve(connection: Connection, runner: Runner) -> None:
    """Answer requests for runs, each with the number that the parent gave it."""
    runs: dict[int, RunInProgress] = {}
    while True:
        name, number, *arguments = connection.recv()
        try:
            reply: Any = None
            if name == "ready":  # it is, now that it replies
                pass
            elif name == "call":
                method, keywords = arguments
                reply = getattr(runner, method)(**keywords)
            elif name == "start":
                runs[number] = runner.start(*arguments)
            elif name in ("close", "drop"):
                runs.pop(number).close()
            else:
                reply = _REQUESTS[name](runs[number], *arguments)
        except Exception as error:
            reply = _failure(error)
        if name != "drop":  # sent while this process was busy with another run: nobody waits
            connection.send(reply)


def _pause(run: RunInProgress) -> None:
    if isinstance(run, Pausable):
        run.pause()


def _save(run: RunInProgress) -> bytes | None:
    return run.save() if isinstance(run, Saveable) else None


def _write_weights(run: RunInProgress, path: Path) -> bool:
    return isinstance(run, KeepsWeights) and run.write_weights(path)


_REQUESTS: dict[str, Any] = {
    "advance": lambda run: run.advance(),
    "save": _save,
    "write_weights": _write_weights,
    "pause": _pause,
}


def _set_up(setup: Setup) -> Runner:
    sys.path[:] = setup.path
    if setup.processors and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, setup.processors)
    runner: Runner = pickle.loads(setup.make)()
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(setup.threads)
    return runner


def _failure(error: Exception) -> Failure:
    kind = type(error).__name__ if isinstance(error, RightbatchError) else ""
    message = str(error) if kind else f"{type(error).__name__}: {error}"
    return Failure(kind, message, "".join(traceback.format_exception(error)))


def _end_with_parent(life_line: int) -> None:
    os.read(life_line, 1)  # returns when the other end closes, however the parent ended
    os.kill(os.getpid(), signal.SIGKILL)
