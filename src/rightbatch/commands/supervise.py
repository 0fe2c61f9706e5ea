"""A program that never outlives us: the supervisor that starts it, and our hold on both.

    this process  <--- socket --->  supervisor (leads a new process group)  --->  program  --->  what it starts

Each end of the socket sees the other one die. When we are gone, even by kill -9, the supervisor kills its whole group.
When the supervisor is gone, we do. A process that leaves the group on purpose (setsid) is not followed.

Run as a program, `python -I -S supervise.py FD PROGRAM ARGUMENTS...`, this file is the supervisor; it therefore imports
nothing but the standard library. It ends as the program did: with the same exit code, or by the same signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

NOT_RUN = 127
"""Exit code where the program could not be executed, as shells have it."""

# --------------------------------------------------------------------------------------------------- the supervisor


def main(life_line: int, argv: Sequence[str]) -> None:
    """Run a program to its end and end alike; kill the group when `life_line`, a socket, closes at its other end."""
    # A SIGTERM to the group is meant for the program, and we pass on how that took it. A handler, unlike SIG_IGN, is
    # not inherited by the program.
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=_end_with_parent, args=(life_line,), daemon=True).start()
    try:
        code = subprocess.Popen(argv).wait()  # closes all descriptors but the standard streams: ours stays ours
    except OSError as error:
        print(f"{argv[0]} cannot be run: {error.strerror}", file=sys.stderr, flush=True)
        code = NOT_RUN
    if code < 0:
        _die_by(-code)
    os._exit(code)


def _end_with_parent(life_line: int) -> None:
    os.read(life_line, 1)  # returns when the other end closes, however the parent ended
    os.killpg(0, signal.SIGKILL)


def _die_by(number: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left its core dump; ours would say nothing
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


# -------------------------------------------------------------------------------------------------------- our hold


class Supervised:
    """A program that runs under a supervisor, without standard input.

    Parameters
    ----------
    argv: The program and its arguments.
    environment: Its environment variables.

    Attributes
    ----------
    output, errors: Its standard output and standard error, to be read; they never block.
    life_line: Can be read (it is at its end) as soon as the supervisor is gone, and so the program has ended.

    Raises
    ------
    OSError: When no process can be started.
    """

    output: IO[bytes]
    errors: IO[bytes]

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.life_line, theirs = socket.socketpair()
        self._lock = threading.Lock()
        self._code: int | None = None
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__, str(theirs.fileno()), *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env=dict(environment),
                    bufsize=0,
                )
        except BaseException:
            self.life_line.close()
            raise
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.output, self.errors = self._process.stdout, self._process.stderr
        for stream in (self.output, self.errors):
            os.set_blocking(stream.fileno(), False)

    def signal(self, number: int) -> None:
        """Send a signal to the program and all that it started; nothing after `finish`."""
        with self._lock:
            if self._code is None:
                self._signal(number)

    def finish(self) -> int:
        """Kill what is left, let go of everything, and return the exit code: minus the signal where one killed it.

        Allowed more than once.
        """
        with self._lock:
            if self._code is None:
                # Only then waited for: until it is, no new process can get the number of the group.
                self._signal(signal.SIGKILL)
                self._code = self._process.wait()
                for stream in (self.output, self.errors, self.life_line):
                    stream.close()
            return self._code

    def _signal(self, number: int) -> None:
        # Nobody is left to be told: macOS says "not permitted" where only the ended supervisor is left of the group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
