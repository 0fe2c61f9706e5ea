"""Memory is measured in a process of its own: it may die of it, this one never does."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from rightbatch.errors import InputError
from rightbatch.machine import memory_kills
from rightbatch.memory_room import free_bytes, holding
from rightbatch.records import MemoryProbe
from rightbatch.wording import bytes_text
from rightbatch.worker import Setup
from rightbatch.worker_process import WorkerProcess, unpacked

LOOK_SECONDS = 0.01
"""So often it is seen what the process holds. It can take some ten million bytes between two looks."""

RESERVE_BYTES = 200 * 2**20
"""Should the whole system have less left than this, the process is ended, whoever took the rest."""

KILLS = 3
"""A size whose process was killed so often, and not for want of memory, counts as one that does not fit."""

GONE = object()
"""In place of a reply: the process was ended, or died."""


@dataclass(frozen=True)
class Allowance:
    """What a training may hold.

    setup: How a process makes its runner.
    host_bytes: Of main memory, with its children (loader workers): on a CPU, the limit.
    limit_bytes, headroom: Of the memory of another device, what was asked for, and the share of it that stays free.
    on_cpu: Whether it is trained on the CPU.
    """

    setup: Setup
    host_bytes: int
    limit_bytes: int | None
    headroom: float
    on_cpu: bool


class Prober:
    """Has sizes tried, one after the other. Close it, or use `with`: a process that is still there is ended."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._watched: _Watched | None = None
        self._before = 0

    def probe(self, batch_size: int, micro_batch_size: int, *, fresh: bool, look: bool = False) -> MemoryProbe:
        """What `measure.memory.measure_memory` finds, in a process that is ended when it holds more than it may.

        `fresh`: in a new process, as the training itself would be. A size that is far from filling the memory may
        follow another one in the same process, which need not be started again.

        Raises
        ------
        InputError: When the process holds more than it may before a model is made.
        WorkloadError: When the person's code raised.
        """
        started = time.monotonic()
        if fresh:
            self.close()
        allowance = self._allowance
        how = {"limit_bytes": allowance.limit_bytes, "headroom": allowance.headroom, "look": look}
        sizes = {"batch_size": batch_size, "micro_batch_size": micro_batch_size, "host_bytes": allowance.host_bytes}
        for _ in range(KILLS):
            watched = self._watched or self._start()
            reply = watched.reply("call", 0, "memory_probe", {**sizes, **how})
            if not watched.killed:
                break
            self.close()  # by somebody, and not for want of memory: that says nothing of the size
        seconds = time.monotonic() - started
        if reply is GONE:
            self.close()
            before, allowed = self._before, allowance.host_bytes
            return MemoryProbe(micro_batch_size, batch_size, allowed, before, None, None, seconds, watched.why)
        found: MemoryProbe = unpacked(reply)
        if allowance.on_cpu:
            most = watched.most_with_children
            if found.peak_bytes is not None and most > found.peak_bytes:
                found = replace(found, peak_bytes=most, training_bytes=most)
            found = replace(found, before_bytes=self._before)
        if not found.fits:
            self.close()  # what it left behind would be counted
        return replace(found, seconds=seconds)

    def _start(self) -> _Watched:
        watched = _Watched(WorkerProcess(self._allowance.setup), self._allowance.host_bytes)
        self._watched = watched
        ready = watched.reply("ready", 0)  # it is when the runner has been made
        if ready is GONE:
            raise InputError(
                f"The program, its libraries and its data, without any model, did not fit: {watched.why}. "
                f"Allow more with --limit, or bring less data at a time."
            )
        unpacked(ready)
        self._before = watched.held
        return watched

    def close(self) -> None:
        """End the process, if there is one. Allowed more than once."""
        if self._watched is not None:
            self._watched.end()
            self._watched = None

    def __enter__(self) -> Prober:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Watched:
    """A worker process that is ended as soon as it holds too much; `why` then says so."""

    def __init__(self, worker: WorkerProcess, host_bytes: int) -> None:
        self._worker, self._allowed = worker, host_bytes
        self.most_with_children = 0
        self.why = ""
        self.held = 0
        self.killed = False
        self._kills = memory_kills()

    def reply(self, *request: Any) -> Any:
        """Ask, and wait for the reply; `GONE` if it was ended or died meanwhile."""
        self.most_with_children = 0
        try:
            self._worker.connection.send(request)
            while not self._worker.connection.poll(LOOK_SECONDS):
                self._look()
                if self.why:
                    self.end()
                    return GONE
            self._look()
            self.why = ""
            return self._worker.connection.recv()
        except (EOFError, OSError):
            status = self._worker.exit_status()
            self.killed = status == -signal.SIGKILL and memory_kills() == self._kills
            how = "was killed" if status == -signal.SIGKILL else f"died (exit status {status})"
            self.why = f"its process {how} when it held {bytes_text(self.held)}"
            return GONE

    def _look(self) -> None:
        self.held, processes = holding(self._worker.number)
        if processes > 1:
            self.most_with_children = max(self.most_with_children, self.held)
        if self.held > self._allowed:
            self.why = f"it held {bytes_text(self.held)} of the {bytes_text(self._allowed)} that it may, and was ended"
        elif free_bytes() < RESERVE_BYTES:
            self.why = f"it held {bytes_text(self.held)} when the system had next to nothing left, and was ended"

    def end(self) -> None:
        self._worker.end()
