"""What this machine tells of itself."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """The model of the processor, as the system calls it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def memory_kills() -> int | None:
    """How many processes this system has killed for want of memory since it started; None where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that tell numerical libraries how many threads to use; read when they are loaded."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
