"""Units of work, each kept as soon as it is done, so that what was interrupted goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from rightbatch.errors import InputError

Watch = Callable[[str, float, bool], None]
"""Is told of every unit: its name, the seconds that it took, and whether it was kept from before."""


def unwatched(unit: str, seconds: float, kept: bool) -> None:
    """Nobody looks."""


class Store:
    """Units of work in one file of JSON lines: the first says whose they are, each other is a unit that is done.

    Use as a context. A line is written and flushed as soon as its unit is done; the half-written last line of a killed
    process is dropped. One process writes at a time. `again` forgets what was kept.

    Raises
    ------
    InputError: When another process writes it, it belongs to other code, or it is damaged or cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, str], *, again: bool = False, watch: Watch = unwatched) -> None:
        self._path, self._header, self._again, self._watch = path, dict(header), again, watch
        self._kept: dict[str, dict[str, Any]] = {}
        self._used: set[str] = set()
        self._lock = FileLock(f"{path}.lock")

    def __enter__(self) -> Store:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"Another process is writing {self._path}. Wait until it ends, or choose another folder with --out."
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def folder(self) -> Path:
        """A folder for what is too large for a unit: studies, weights. It goes when the reproduction begins anew."""
        folder = self._path.with_name(self._path.name.removesuffix(".units.jsonl") + ".work")
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def seconds(self) -> float:
        """What the units of this run took, whenever they were done."""
        return float(sum(self._kept[name]["seconds"] for name in self._used))

    def unit(self, name: str, work: Callable[[], Any]) -> Any:
        """The value of a unit: as kept, or `work()`, which is then kept. Values are plain JSON, finite numbers.

        What is given back is always what was read from JSON, so that it is the same before and after an interruption.

        Raises `InputError` for a value that JSON cannot hold, or a name used twice in one run.
        """
        if name in self._used:
            raise InputError(f"There are two units {name!r} in {self._path}. Give each a name of its own.")
        kept = name in self._kept
        if not kept:
            started = time.monotonic()
            value = work()
            self._append({"unit": name, "seconds": time.monotonic() - started, "value": value})
        self._used.add(name)
        entry = self._kept[name]
        self._watch(name, entry["seconds"], kept)
        return entry["value"]

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            line = json.dumps(entry, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The unit {entry['unit']!r} gave a value that JSON cannot hold: {error}. Give lists, dictionaries, "
                f"strings and finite numbers."
            ) from error
        self._write(line)
        self._kept[entry["unit"]] = json.loads(line)

    def _write(self, line: str) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def _read(self) -> None:
        try:
            if self._again:
                self._path.unlink(missing_ok=True)
                shutil.rmtree(self.folder)
            content = self._path.read_bytes() if self._path.exists() else b""
            whole = content.rfind(b"\n") + 1
            if whole < len(content):  # killed while it wrote this line: the unit is done again
                os.truncate(self._path, whole)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            lines = [json.loads(line) for line in content[:whole].splitlines()]
            self._kept = {line["unit"]: {"seconds": line["seconds"], "value": line["value"]} for line in lines[1:]}
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self._path} is damaged ({error}). Begin anew with --again.") from error
        if not lines:
            self._write(json.dumps(self._header))
        elif lines[0] != self._header:
            raise InputError(
                f"{self._path} holds units of other code: {lines[0]}, now {self._header}. Both would be mixed: begin "
                f"anew with --again, or choose another folder with --out."
            )

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"{self._path} cannot be written: {error}. Choose another folder with --out.")
