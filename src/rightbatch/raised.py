"""What a person's code raises, put in our terms: where it happened, and whether memory ran out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

from rightbatch.errors import RightbatchError, WorkloadError

NO_MEMORY = re.compile(r"out of memory|OutOfMemoryError|MemoryError|can(no|')t allocate memory", re.IGNORECASE)
"""What allocators say. The one of torch on a CPU has no exception type of its own: its message is the only sign."""


class MemoryExhausted(Exception):
    """The allocator said no; becomes a stop reason, never an error."""


def is_memory_error(error: BaseException) -> bool:
    """Whether an allocator said no: by type, by torch's name for it, or by the message of those without a type."""
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return isinstance(error, MemoryError) or named or NO_MEMORY.search(str(error)) is not None


def in_our_terms(error: BaseException, whose: str, where: str) -> MemoryExhausted | WorkloadError:
    """What to raise instead of an error of `whose` code ("The loop 'train'"), that happened `where`."""
    if is_memory_error(error):
        return MemoryExhausted(str(error).partition("\n")[0] or type(error).__name__)
    return WorkloadError(
        f"{whose} raised {type(error).__name__}: {error} ({where}). Run with --debug for the whole traceback."
    )


class explained:
    """Within it, errors of the workload's code are raised in our terms; our own errors pass."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, RightbatchError | MemoryExhausted):
            raise in_our_terms(error, "The workload", self._where) from error


def tell_left_out(failures: Mapping[int, object]) -> None:
    """Warn of the batch sizes at which a person's code failed while it was timed, once for the same failure."""
    sizes: dict[str, list[str]] = {}
    for size, failure in failures.items():
        sizes.setdefault(str(failure), []).append(str(size))
    for failure, alike in sizes.items():
        warnings.warn(f"No step could be timed at batch size {', '.join(alike)}: {failure}", stacklevel=3)
