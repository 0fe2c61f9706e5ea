"""One run of a program: a thread follows what it prints, so that nothing it does ever waits for us."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue

from rightbatch.commands.lines import CurveReader, GrowingFile, Lines
from rightbatch.commands.supervise import Supervised
from rightbatch.errors import InputError, WorkloadError
from rightbatch.machine import memory_kills
from rightbatch.raised import NO_MEMORY
from rightbatch.records import Point, Stop, StopReason

POLL_SECONDS = 0.02
"""How often a metrics file is looked at; seconds of its lines are as exact as this."""

PIECE_BYTES = 1 << 16
PIECES_LEFT = 64
"""Read at most so much of what an ended program left in a pipe: more than fits into one."""

SHOWN_LINES = 8

KILLED_IN_A_SHELL = 128 + signal.SIGKILL

CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
"""Signals that a program brings on itself: an error of its own, which would come again."""


class Stopwatch:
    """Seconds since it was made, without those while it was held. May be read while another thread holds it."""

    def __init__(self) -> None:
        # Without the lock a reading could be later than the moment at which it is then held: seconds would go back.
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self._held_at: float | None = None

    @property
    def held(self) -> bool:
        return self._held_at is not None

    def seconds(self) -> float:
        with self._lock:
            return (time.perf_counter() if self._held_at is None else self._held_at) - self._started

    def hold(self) -> None:
        with self._lock:
            self._held_at = time.perf_counter()

    def go_on(self) -> None:
        with self._lock:
            if self._held_at is not None:
                self._started += time.perf_counter() - self._held_at
            self._held_at = None


class Program(Supervised):
    """A supervised program that can be held up."""

    def hold(self) -> None:
        """Stop the program and all that it started, until SIGCONT."""
        with self._lock:
            if self._code is None:
                self._signal(signal.SIGSTOP)
                # Not the supervisor, which leads the group: it has to notice when we are gone, and to kill the rest.
                os.kill(self._process.pid, signal.SIGCONT)


class CommandRun:
    """A run in progress. See `rightbatch.runner.RunInProgress` for the contract.

    The program is not held up between calls of `advance` unless the run is paused: it trains on, and its points wait
    to be asked for. Neither its seconds nor its time limit count pauses. Its
    standard output is that of a Python without buffers (PYTHONUNBUFFERED, unless that is set), so that its lines come
    when they are printed.

    Raises
    ------
    WorkloadError: When no process can be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        reader: CurveReader,
        *,
        pattern: str | None,
        metrics: Path | None,
        variables: Mapping[str, str],
        timeout_seconds: float | None,
        grace_seconds: float,
    ) -> None:
        self._argv, self._reader, self._pattern, self._metrics = argv, reader, pattern, metrics
        self._timeout_seconds, self._grace_seconds = timeout_seconds, grace_seconds
        self._file = GrowingFile(metrics) if metrics is not None else None
        self._output, self._errors, self._recorded = Lines(), Lines(), Lines()
        self._outcomes: SimpleQueue[Point | Stop | Exception] = SimpleQueue()
        self._verdict: Stop | InputError | None = None  # once there is one, further lines count for nothing
        self._kills = memory_kills()
        self._stopwatch = Stopwatch()
        try:
            self._program = Program(argv, {"PYTHONUNBUFFERED": "1", **os.environ, **variables})
        except OSError as error:
            raise WorkloadError(f"{shlex.join(argv)} cannot be started: {error}.") from error
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()
        self._timer = self._start_timer()

    @property
    def prints_seconds(self) -> bool:
        """Whether the seconds of the points are the program's own, not those at which its lines came."""
        return bool(self._reader.prints_seconds)

    def advance(self) -> Point | Stop:
        """Wait for the next point of the program, or for its end. A failure without a known cause is raised."""
        if self._stopwatch.held:
            self._stopwatch.go_on()
            self._program.signal(signal.SIGCONT)
            self._timer = self._start_timer()
        outcome = self._outcomes.get()
        if isinstance(outcome, Point):
            return outcome
        self._outcomes.put(outcome)  # asked again, the end is the same
        if isinstance(outcome, Stop):
            return outcome
        raise outcome

    def pause(self) -> None:
        """See `rightbatch.runner.Pausable`: the program and all that it started stop until the next `advance`."""
        if self._stopwatch.held or not self._follower.is_alive():
            return
        self._timer.cancel()
        self._program.hold()
        self._stopwatch.hold()

    def close(self) -> None:
        """End the program and all that it started: SIGTERM, and after the time of grace SIGKILL."""
        self._end(Stop(StopReason.INTERRUPTED, "closed"))

    # ------------------------------------------------------------------------------------------------- the thread

    def _follow(self) -> None:
        try:
            self._watch()
            self._program.signal(signal.SIGKILL)  # what the program left behind must not write while we read the rest
            self._read_rest()
            code = self._program.finish()
            self._outcomes.put(self._verdict or self._judge(code))
        except Exception as error:
            self._outcomes.put(error)
        finally:
            self._program.finish()

    def _watch(self) -> None:
        """Read all that comes, until the program has ended."""
        program, life_line = self._program, self._program.life_line.fileno()
        streams = {program.output.fileno(): self._output, program.errors.fileno(): self._errors}
        with selectors.DefaultSelector() as selector:
            for descriptor in (*streams, life_line):
                selector.register(descriptor, selectors.EVENT_READ)
            alive = True
            while alive:
                for key, _ in selector.select(POLL_SECONDS if self._file is not None else None):
                    if key.fd == life_line:
                        alive = False
                    elif self._read(key.fd, streams[key.fd]) == b"":
                        selector.unregister(key.fd)  # closed by the program, which goes on
                self._read_file()

    def _read(self, descriptor: int, lines: Lines) -> bytes | None:
        """Take what a stream holds now: nothing (b"") at its end, None where there may come more."""
        try:
            piece = os.read(descriptor, PIECE_BYTES)
        except BlockingIOError:
            return None
        self._take(lines, lines.add(piece))
        return piece

    def _read_file(self) -> bytes:
        piece = self._file.read() if self._file is not None else b""
        self._take(self._recorded, self._recorded.add(piece))
        return piece

    def _read_rest(self) -> None:
        for descriptor, lines in (
            (self._program.output.fileno(), self._output),
            (self._program.errors.fileno(), self._errors),
        ):
            for _ in range(PIECES_LEFT):
                if not self._read(descriptor, lines):
                    break
        while self._read_file():
            pass
        for lines in (self._output, self._errors, self._recorded):
            self._take(lines, lines.end())

    def _take(self, source: Lines, lines: Sequence[str]) -> None:
        """Make points of lines that came together, at this instant, where they are of the source that has them."""
        came = self._stopwatch.seconds()
        if source is not (self._output if self._file is None else self._recorded):
            return
        for line in lines:
            if self._verdict is not None:
                return
            try:
                point = self._reader.read(line, came)
            except InputError as error:
                self._verdict = error
                self._outcomes.put(error)  # now, not when the program has ended
                return
            if point is not None:
                self._outcomes.put(point)

    # --------------------------------------------------------------------------------------------------- the end

    def _start_timer(self) -> threading.Timer:
        """Ends the run when its time is over; never started where it may take any time."""
        left = 0.0 if self._timeout_seconds is None else self._timeout_seconds - self._stopwatch.seconds()
        timer = threading.Timer(max(0.0, left), self._time_out)
        timer.daemon = True
        if self._timeout_seconds is not None:
            timer.start()
        return timer

    def _time_out(self) -> None:
        self._end(Stop(StopReason.STOPPED_BY_RULE, f"took longer than {self._timeout_seconds:g} seconds"))

    def _end(self, verdict: Stop) -> None:
        self._timer.cancel()
        if self._follower.is_alive():
            self._verdict = self._verdict or verdict
            self._program.signal(signal.SIGTERM)
            if self._stopwatch.held:
                self._program.signal(signal.SIGCONT)  # else it could not take notice
            self._follower.join(self._grace_seconds)
            self._program.signal(signal.SIGKILL)
        self._follower.join()

    def _judge(self, code: int) -> Stop:
        """Why the program ended. Raises `WorkloadError` where that is its own failure."""
        if code == 0:
            self._reader.end()
            if self._reader.points == 0:
                raise WorkloadError(self._pointless())
            return Stop(StopReason.FINISHED)
        last_words = [*reversed(self._errors.last), *reversed(self._output.last)]
        memory = next((line for line in last_words if NO_MEMORY.search(line)), None)
        if memory is not None:
            return Stop(StopReason.OUT_OF_MEMORY, memory)
        if code in (-signal.SIGKILL, KILLED_IN_A_SHELL) and (memory_kills() or 0) > (self._kills or 0):
            return Stop(StopReason.OUT_OF_MEMORY, "the system ran out of memory and killed the program")
        if code < 0 and -code not in CRASHES:
            return Stop(StopReason.INTERRUPTED, f"killed by {_signal_name(-code)}")
        said = list(self._errors.last or self._output.last)[-SHOWN_LINES:]
        how = f"with exit code {code}" if code > 0 else f"by {_signal_name(-code)}"
        raise WorkloadError(
            f"The program ended {how}. It was run as\n    {shlex.join(self._argv)}\n"
            f"{_shown('and its last lines were', said)}"
        )

    def _pointless(self) -> str:
        if self._pattern is not None and self._reader.lines == 0:
            began = self._output.first[:SHOWN_LINES]
            return (
                f"The pattern {self._pattern!r} matched no line of the program's output, which must have one for every "
                f"evaluation.\n{_shown('The output began with', began)}"
            )
        where = "on standard output" if self._file is None else f"in {self._metrics}"
        source = self._output if self._file is None else self._recorded
        unknown = ", ".join(self._reader.unknown)
        passed_over = f"Lines held {unknown}, which are no names known here. " if unknown else ""
        expected = '{"step": 100, "valid_loss": 0.5, "valid_metric": 0.9}'
        return (
            f"The program ended well but gave no evaluation {where}. {passed_over}Print a line such as {expected} at "
            f"each, or say by --pattern how its lines read.\n"
            f"{_shown('The last lines there were', list(source.last)[-SHOWN_LINES:])}"
        )


def _shown(introduction: str, lines: Sequence[str]) -> str:
    return "\n    ".join([f"{introduction}:", *lines]) if lines else f"{introduction}: none."


def _signal_name(number: int) -> str:
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")
