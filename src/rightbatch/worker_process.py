"""One worker process as its owner sees it, and the runs that it holds."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rightbatch import errors
from rightbatch.errors import WorkloadError
from rightbatch.machine import memory_kills, thread_variables
from rightbatch.records import Point, Stop, StopReason, Trial
from rightbatch.worker import Failure, Setup

PROGRAM = "import sys; from rightbatch.worker import main; main(int(sys.argv[1]), int(sys.argv[2]))"
"""What a worker runs: not the person's script, which would have to guard itself against being run again."""


KILLED = "its worker process was killed"


class RemoteRun:
    """A run in progress in a worker. Whoever advances it and the worker take turns."""

    def __init__(self, worker: WorkerProcess, trial: Trial, state: bytes | None) -> None:
        self._worker, self._number = worker, next(worker.numbers)
        worker.run = self
        worker.runs.add(self)
        self._kills = memory_kills()
        self._closed = self._asked = False
        self.lost = False  # its worker died while the run was paused, and other runs may have the same one
        self._starting = True
        self._refused: Exception | None = None
        self._send("start", trial, state)

    @property
    def connection(self) -> Connection:
        return self._worker.connection

    def take_up(self) -> bool:
        """See `Crew`. One whose worker has died may be advanced: that tells so."""
        worker = self._worker
        self.lost = not worker.alive
        if self.lost:
            return True
        if worker.run not in (None, self) or worker.owes:
            return False
        worker.run = self
        self._kills = memory_kills()  # what killed the worker meanwhile was no fault of this run
        return True

    def ask(self) -> None:
        """Have the worker begin the next stretch, if it has not; `advance` then waits for what comes of it."""
        if not self._asked:
            self._asked = True
            self._send("advance")

    def has_outcome(self) -> bool:
        """Whether what can be read now is an outcome, and not yet the reply to the start."""
        if not self._starting:
            return True
        self._starting = False
        try:
            self._reply()
        except (EOFError, OSError):  # the latter also where it died amid a reply
            return True  # `advance` finds the same
        except Exception as error:
            self._refused = error
        return self._refused is not None

    def advance(self) -> Point | Stop:
        if self.lost:
            return Stop(StopReason.INTERRUPTED, KILLED)
        self.ask()
        if self._starting:
            self.has_outcome()
        if self._refused is not None:
            raise self._refused
        try:
            self._asked = False
            return self._reply()  # type: ignore[no-any-return]
        except (EOFError, OSError):
            return self._death()

    def save(self) -> bytes | None:
        """The state after the last point; None where such a run has none, or its worker is gone or busy."""
        return self._request("save")  # type: ignore[no-any-return]

    def write_weights(self, path: Path) -> bool:
        """See `rightbatch.runner.KeepsWeights`."""
        return bool(self._request("write_weights", path))

    def pause(self) -> None:
        """See `rightbatch.runner.Pausable`. The run stays in its worker, and its place is free."""
        self._request("pause")
        self._worker.run = None

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        worker = self._worker
        worker.runs.discard(self)
        if self.lost:
            return
        if worker.run not in (None, self):  # closed when the worker comes to it: nobody waits
            self._send("drop")
            return
        if self._refused is not None and worker.runs:  # it has others: it is well, and refused at once what came next
            with contextlib.suppress(EOFError, OSError):
                while worker.owes:
                    with contextlib.suppress(errors.RightbatchError):
                        self._reply()
        # In the middle of a stretch that nobody wants a new worker is quicker; one that refused its only run may be
        # ending anyway.
        elif worker.owes or self._refused is not None:
            worker.end()
        else:
            self._request("close")
        worker.run = None

    def _request(self, name: str, *arguments: Any) -> Any:
        # A worker that still owes a reply would give that one.
        if self.lost or self._refused is not None or self._worker.owes:
            return None
        try:
            self._send(name, *arguments)
            return self._reply()
        except (EOFError, OSError):
            return None

    def _send(self, name: str, *arguments: Any) -> None:
        self._worker.owes += name != "drop"
        with contextlib.suppress(OSError):  # a dead worker is noticed when its reply is read
            self.connection.send((name, self._number, *arguments))

    def _reply(self) -> Any:
        reply = self.connection.recv()
        self._worker.owes -= 1
        return unpacked(reply)

    def _death(self) -> Stop:
        self._asked = False
        self._worker.end()  # it may have hung up before it has ended
        kills = memory_kills()
        if kills is not None and self._kills is not None and kills > self._kills:
            return Stop(StopReason.OUT_OF_MEMORY, "the system ran out of memory and killed the worker process")
        return Stop(StopReason.INTERRUPTED, KILLED)


def unpacked(reply: Any) -> Any:
    """What a worker replied; an error that it met is raised here."""
    if not isinstance(reply, Failure):
        return reply
    kind = getattr(errors, reply.kind, None) or WorkloadError
    failed = kind.__new__(kind)  # some take other arguments than their message
    Exception.__init__(failed, reply.message)
    failed.add_note(f"In the worker process:\n{reply.trace}")
    raise failed


class WorkerProcess:
    """One process, the socket to it, and the pipe by which it notices that we are gone.

    `run` is the one that it makes now, `runs` are all that it holds, and it `owes` so many replies.
    """

    def __init__(self, setup: Setup) -> None:
        self.run: RemoteRun | None = None
        self.runs: set[RemoteRun] = set()
        self.numbers = itertools.count()
        self.owes = 0
        ours, theirs = socket.socketpair()
        watched, self._life_line = os.pipe()
        variables = {**os.environ, **thread_variables(setup.threads)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(theirs.fileno()), str(watched)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what the person's code prints must not mix with an answer
                process_group=0,  # Ctrl-C in the terminal is for the parent, which then decides
                pass_fds=(theirs.fileno(), watched),
                env={**variables, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        os.close(watched)
        self.connection = Connection(ours.detach())
        self.connection.send(setup)

    @property
    def number(self) -> int:
        """By which the system knows it."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None and not self.connection.closed

    def exit_status(self) -> int:
        """Of a process that has hung up: what it returned, or the signal that ended it, negative."""
        return self._process.wait()

    def end(self) -> None:
        """End the process at once: there is nothing in it that anybody still wants."""
        if self._life_line >= 0:
            os.close(self._life_line)
            self._life_line = -1
        self.connection.close()
        self._process.kill()
        self._process.wait()
