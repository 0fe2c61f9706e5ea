"""How much memory there is: what is free, what a control group allows, what a process and its children hold."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from rightbatch.errors import InputError, MissingExtra

try:
    import psutil  # type: ignore[import-untyped]
except ModuleNotFoundError:  # comes with the extra `torch`: without it nothing is trained
    psutil = None

HEADROOM = 0.05
"""This share of the memory stays free, unless somebody says otherwise: another process may want a little more."""

UNLIMITED = 2**60
"""Control groups without a limit say a number beyond this, or "max"."""

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str) -> int:
    """A number of bytes as people write it: 8GB, 1.5 GiB, 500M, 2e9. Raises `InputError` for what is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d+)?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    if found is None or found[2].lower() not in UNITS or float(found[1]) <= 0:
        raise InputError(f"An amount of memory is a number with a unit (8GB, 500MB, 2GiB), got {text!r}.")
    return round(float(found[1]) * UNITS[found[2].lower()])


def free_bytes() -> int:
    """What a new process can take without anything being swapped out or killed: free, and allowed by control groups."""
    _need_psutil()
    free = int(psutil.virtual_memory().available)
    return min([free, *_allowed_by_groups()])


def held_bytes() -> int:
    """What this process holds in memory."""
    _need_psutil()
    return int(psutil.Process().memory_info().rss)


def holding(process: int) -> tuple[int, int]:
    """What a process and its children hold in memory, pages that they share counted once, and how many they are.

    Nothing where it has ended.
    """
    _need_psutil()
    try:
        owner = psutil.Process(process)
        children = owner.children(recursive=True)
        if not children:
            return int(owner.memory_info().rss), 1
    except psutil.Error:
        return 0, 0
    held = 0
    for one in (owner, *children):
        with contextlib.suppress(psutil.Error):  # it may end while it is asked
            held += _proportional(one)
    return held, 1 + len(children)


def peak_bytes() -> int:
    """The most that this process has held since `forget_peak`, or since it began where the system cannot forget."""
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_peak() -> None:
    """Begin anew to note the most that this process holds, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextlib.contextmanager
def data_limit(room_bytes: int) -> Iterator[None]:
    """In the block an allocation fails that would have this process hold so much more than now (Linux only)."""
    data = _status_bytes("VmData")  # private pages that can be written: what counts against the limit
    if data is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = data + room_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _status_bytes(name: str) -> int | None:
    """An amount of memory that Linux tells of this process; None elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _proportional(process: psutil.Process) -> int:
    """Shared pages divided among those who share them; all of them where the system does not tell."""
    try:
        return int(process.memory_full_info().pss)
    except (AttributeError, psutil.AccessDenied):
        return int(process.memory_info().rss)


def _allowed_by_groups() -> Iterator[int]:
    """What each control group that this process is in still allows, by version 1 or 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            root, limit, usage, idle = (
                Path("/sys/fs/cgroup/memory"),
                "limit_in_bytes",
                "usage_in_bytes",
                "total_inactive_file",
            )
        elif controllers == "":
            root, limit, usage, idle = Path("/sys/fs/cgroup"), "max", "current", "inactive_file"
        else:
            continue
        # In a container its own group may be mounted as the root, whatever it is called outside.
        own = root / path.strip("/")
        folders = [own, *own.parents] if own.is_dir() else [root]
        for folder in folders:
            if folder != root and root not in folder.parents:
                continue
            allowed = _allowed(folder, limit, usage, idle)
            if allowed is not None:
                yield allowed


def _allowed(folder: Path, limit: str, usage: str, idle: str) -> int | None:
    """Limit less use, file pages that can be dropped not counted; None where there is no limit."""
    try:
        most = (folder / f"memory.{limit}").read_text(encoding="ascii").strip()
        if most == "max" or int(most) >= UNLIMITED:
            return None
        used = int((folder / f"memory.{usage}").read_text(encoding="ascii"))
        stat = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    droppable = sum(int(line.split()[1]) for line in stat if line.split()[0] == idle)
    return max(0, int(most) - used + droppable)


def _need_psutil() -> None:
    if psutil is None:
        raise MissingExtra("psutil, which tells how much memory there is,", "torch")
