"""The clock of a loop: training seconds, with evaluation and pauses left out."""

from __future__ import annotations

import sys
import time

PAUSED = object()
"""What holds the clock while the loop is not advanced."""


class Clock:
    """Training seconds. They pass while nothing holds the clock, so that what overlaps is left out once."""

    def __init__(self) -> None:
        self._holds: set[object] = {PAUSED}
        self._seconds = self._since = 0.0

    def hold(self, what: object) -> None:
        self._seconds = self.seconds()
        self._holds.add(what)

    def release(self, what: object) -> None:
        self._seconds = self.seconds()
        self._holds.discard(what)
        if not self._holds:
            synchronize()
            self._since = time.perf_counter()

    def seconds(self) -> float:
        if self._holds:
            return self._seconds
        synchronize()
        return self._seconds + time.perf_counter() - self._since

    def reset(self) -> None:
        self._seconds = 0.0


def synchronize() -> None:
    """Wait for a GPU that the loop uses through torch: it computes while Python has gone on."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
