"""What is held of the memory that a device trains in, and how it is kept below a limit: one gauge a kind of device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from rightbatch.memory_room import data_limit, forget_peak, held_bytes, peak_bytes

SLACK_BYTES = 256 * 2**20
"""Beyond the limit by so much an allocation fails at once; below it, what was really held decides."""


class Gauge(Protocol):
    """Memory of one device, as seen from the process that trains on it."""

    before_bytes: int
    """What was held when the gauge was made."""

    limit_bytes: int
    """What may be held."""

    def peak(self) -> int:
        """The most that was held since the gauge was made."""


class Resident:
    """CPU: the pages that the process holds. An allocation far beyond the limit fails, whoever asks for it."""

    def __init__(self, device: torch.device, limit_bytes: int | None, headroom: float, host_bytes: int) -> None:
        self.limit_bytes = host_bytes  # the parent has looked: what is free, and what was asked for
        self.before_bytes = held_bytes()
        self._guard = data_limit(max(0, self.limit_bytes - self.before_bytes) + SLACK_BYTES)
        self._guard.__enter__()  # until this gauge is let go of
        with contextlib.suppress(OSError):  # should the system run out of memory, then it ends this process first
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        forget_peak()

    def peak(self) -> int:
        return peak_bytes()


class Cuda:
    """CUDA: what the caching allocator has reserved, so that what is lost between its blocks counts.

    What other processes hold, and the context of this one, is no longer free and so is not there to be taken.
    """

    def __init__(self, device: torch.device, limit_bytes: int | None, headroom: float, host_bytes: int) -> None:
        self._device = device
        torch.zeros(1, device=device)  # the context is there
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        self.before_bytes = torch.cuda.memory_reserved(device)
        available = free + self.before_bytes
        self.limit_bytes = int((1 - headroom) * min(available, limit_bytes or available))
        torch.cuda.set_per_process_memory_fraction(min(1.0, self.limit_bytes / total), device)
        torch.cuda.reset_peak_memory_stats(device)

    def peak(self) -> int:
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_reserved(self._device)


class Metal:
    """MPS: what the driver has given. It has no counter of its peak; its pool does not shrink by itself."""

    def __init__(self, device: torch.device, limit_bytes: int | None, headroom: float, host_bytes: int) -> None:
        torch.mps.empty_cache()
        self.before_bytes = torch.mps.driver_allocated_memory()
        available = torch.mps.recommended_max_memory()
        self.limit_bytes = int((1 - headroom) * min(available, host_bytes, limit_bytes or available))
        torch.mps.set_per_process_memory_fraction(min(1.0, self.limit_bytes / available))

    def peak(self) -> int:
        torch.mps.synchronize()
        return torch.mps.driver_allocated_memory()


GAUGES: dict[str, Callable[[torch.device, int | None, float, int], Gauge]] = {
    "cpu": Resident,
    "cuda": Cuda,
    "mps": Metal,
}
"""By kind of device: made from the device, the limit that was asked for, the share to leave free, and what the parent
allows of main memory."""
