"""From what a program prints to the points of its curve."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections import deque
from pathlib import Path
from typing import Any

from rightbatch.errors import InputError, WorkloadError
from rightbatch.records import Direction, Point, Trial
from rightbatch.wording import DIRECTION_UNKNOWN

FIELDS = (
    "step",
    "examples",
    "seconds",
    "train_loss",
    "valid_loss",
    "valid_metric",
    "test_metric",
    "batch_size",
    "learning_rate",
)
"""What a line may hold, by the names of `rightbatch.records.Point`."""

WHOLE = frozenset({"step", "examples", "batch_size"})
JUDGEMENTS = ("valid_loss", "valid_metric", "test_metric")

LEARNT = ("train_loss", *JUDGEMENTS)
"""What a line tells of how far the training is."""

KEPT_LINES = 50
LONGEST_LINE_BYTES = 1 << 20
LONGEST_SHOWN = 300
"""What is kept of a program's output for a message: so many lines at either end, so many characters of each."""


NO_DIRECTION = f"prints valid_metric, {DIRECTION_UNKNOWN}"


def check_pattern(pattern: str, direction: Direction | None) -> None:
    """Raise `InputError` for a pattern that can give no point, or whose groups are not called as `FIELDS` are.

    Also for one that finds a metric where no direction of it is known.
    """
    try:
        groups = set(re.compile(pattern).groupindex)
    except re.error as error:
        raise InputError(f"The pattern {pattern!r} is no regular expression: {error}.") from error
    metrics = ("valid_metric",) if direction == "max" else ("valid_metric", "valid_loss")
    if not ({"step"} <= groups <= set(FIELDS) and groups & set(metrics)):
        raise InputError(
            f"The pattern {pattern!r} has the named groups {', '.join(sorted(groups)) or 'none'}. It needs "
            f"(?P<step>...) and {' or '.join(f'(?P<{name}>...)' for name in metrics)}, and may have: "
            f"{', '.join(FIELDS)}."
        )
    if "valid_metric" in groups and direction is None:
        raise InputError(f"A program that is read by the pattern {pattern!r} {NO_DIRECTION}")


class Lines:
    """Whole lines out of the pieces in which bytes arrive. Keeps the `first` and the `last` of them to be shown.

    A carriage return ends a line too: progress bars write no other end. What is beyond a mebibyte of one line is
    dropped, and so are empty lines.
    """

    def __init__(self) -> None:
        self.first: list[str] = []
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = b""

    def add(self, piece: bytes) -> list[str]:
        """The lines that are complete now."""
        lines = (self._rest + piece).splitlines(keepends=True)
        unfinished = bool(lines) and not lines[-1].endswith((b"\n", b"\r"))
        self._rest = lines.pop()[:LONGEST_LINE_BYTES] if unfinished else b""
        return self._kept(lines)

    def end(self) -> list[str]:
        """The last line, where it came without its end."""
        rest, self._rest = self._rest, b""
        return self._kept([rest])

    def _kept(self, lines: list[bytes]) -> list[str]:
        texts = [text for line in lines if (text := line.decode(errors="replace").strip())]
        shown = [text[:LONGEST_SHOWN] for text in texts[-KEPT_LINES:]]
        if len(self.first) < KEPT_LINES:
            self.first += [text[:LONGEST_SHOWN] for text in texts[: KEPT_LINES - len(self.first)]]
        self.last += shown
        return texts


class GrowingFile:
    """What is written to a file from now on. The file may come later, or anew; what it holds already is skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._position = self._state() or ((0, 0), 0)

    def read(self) -> bytes:
        """What has come since the last call; nothing while there is no such file."""
        state = self._state()
        if state is None:
            return b""
        file, size = state
        if file != self._file or size < self._position:  # another file of that name, or emptied: all of it is new
            self._file, self._position = file, 0
        if size == self._position:
            return b""
        try:
            with self._path.open("rb") as content:
                content.seek(self._position)
                piece = content.read(LONGEST_LINE_BYTES)
        except OSError:  # gone again, or not to be read: a run without a point says so at its end
            return b""
        self._position += len(piece)
        return piece

    def _state(self) -> tuple[tuple[int, int], int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return (status.st_dev, status.st_ino), status.st_size


class CurveReader:
    """Makes points of the lines of one run.

    A line is a JSON object with `step` and any other of `FIELDS`, or one that `pattern` finds them in by the names of
    its groups; all other lines are passed over. A step is evaluated where a line of it has `valid_metric`, or
    `valid_loss` where `direction` is not "max", which then is the metric as well. Several lines of one step are taken
    together until then. With `direction` None there may be no metric but the loss. `train_loss` of lines that evaluate
    nothing is averaged until the next point.

    Attributes
    ----------
    lines: How many lines with a step there were.
    points: How many points were made of them.
    prints_seconds: Whether evaluations have seconds of their own; None before the first one after step 0.
    unknown: Names in lines with a step that are none of `FIELDS`, passed over.
    """

    def __init__(self, trial: Trial, direction: Direction | None, pattern: re.Pattern[str] | None = None) -> None:
        self.lines = self.points = 0
        self.unknown: tuple[str, ...] = ()
        self._trial, self._direction, self._pattern = trial, direction, pattern
        self._step = -1
        self._values: dict[str, Any] = {}  # those of the present step
        self._evaluated = False
        self._train_total, self._train_lines = 0.0, 0
        self._origin_seconds = 0.0
        self.prints_seconds: bool | None = None
        self._before = Point(step=0)

    def read(self, line: str, seconds: float) -> Point | None:
        """The point that a line completes, if it does. `seconds` is when it came, counted from the program's start.

        Raises
        ------
        WorkloadError: For a value that is no number, steps, examples or seconds that go back, an evaluation without
            the metric or in two parts.
        InputError: For a metric of which no direction is known.
        """
        values = self._parse(line)
        if values is None:
            return None
        if "valid_metric" in values and self._direction is None:
            raise InputError(f"The program {NO_DIRECTION} Its line: {line[:LONGEST_SHOWN]}")
        self.lines += 1
        self._turn_to(values["step"])
        if self._step == 0:
            self._origin_seconds = seconds
        if "train_loss" in values and not ("valid_loss" in values or "valid_metric" in values):
            self._train_total += values.pop("train_loss")
            self._train_lines += 1
        if self._evaluated:
            self._refuse_late(values)
            return None
        self._values |= values
        if "valid_metric" not in self._values and not (self._direction != "max" and "valid_loss" in self._values):
            return None
        self._evaluated = True
        self._before = self._point(seconds)
        self.points += 1
        self._train_total, self._train_lines = 0.0, 0
        return self._before

    def end(self) -> None:
        """No line of this step will follow. Raises `WorkloadError` where its evaluation lacks the metric."""
        if "valid_loss" in self._values and not self._evaluated:
            raise WorkloadError(
                f"The program gave valid_loss but no valid_metric at step {self._step}, and the direction is 'max', "
                f"where a loss cannot stand for the metric. Print valid_metric, or choose the direction 'min'."
            )

    def _turn_to(self, step: int) -> None:
        if step < self._step:
            raise WorkloadError(
                f"The program's steps go back from {self._step} to {step}. Print the number of optimizer steps made "
                f"since the start of the run, the same in lines about training and about validation."
            )
        if step > self._step:
            self.end()
            self._step, self._values, self._evaluated = step, {}, False

    def _refuse_late(self, values: dict[str, Any]) -> None:
        late = [name for name in JUDGEMENTS if name in values and name not in self._values]
        if late:
            raise WorkloadError(
                f"The program gave {late[0]} of step {self._step} after the line that had evaluated the step. "
                f"Print all values of an evaluation on one line."
            )

    def _point(self, seconds: float) -> Point:
        values, before = self._values, self._before
        size = values.get("batch_size", self._trial.batch_size)
        train_loss = self._train_total / self._train_lines if self._train_lines else None
        valid_loss = values.get("valid_loss")
        point = Point(
            step=self._step,
            # Added up, so that a batch size that changes within a run is counted as it was.
            examples=values.get("examples", before.examples + (self._step - before.step) * size),
            seconds=self._seconds(seconds),
            train_loss=values.get("train_loss", train_loss),
            valid_loss=valid_loss,
            valid_metric=values.get("valid_metric", valid_loss),
            batch_size=size,
            learning_rate=values.get("learning_rate", self._trial.learning_rate),
            test_metric=values.get("test_metric"),
        )
        if point.step > before.step and point.examples <= before.examples:
            raise WorkloadError(
                f"The program's examples do not grow: {before.examples} at step {before.step}, {point.examples} at "
                f"step {point.step}. Print those seen since the start of the run, or leave them out."
            )
        if not point.seconds >= before.seconds:
            raise WorkloadError(
                f"The program's seconds go from {before.seconds:g} at step {before.step} to {point.seconds:g} at step "
                f"{point.step}. Print the seconds of training since the start of the run, or leave them out."
            )
        return point

    def _seconds(self, seconds: float) -> float:
        printed = "seconds" in self._values
        if self._step > 0:
            if self.prints_seconds not in (None, printed):
                raise WorkloadError(
                    f"The program prints seconds with some evaluations and leaves them out with others: step "
                    f"{self._step} differs from those before it. Print them with every evaluation, or with none."
                )
            self.prints_seconds = printed
        return float(self._values["seconds"]) if printed else seconds - self._origin_seconds

    def _parse(self, line: str) -> dict[str, Any] | None:
        """The numbers of a line by their names; None for a line without a step."""
        found = self._match(line) if self._pattern is not None else _json_object(line)
        values = {name: _number(name, found[name], line) for name in FIELDS if found.get(name) is not None}
        if "step" in values and not values.keys() & set(LEARNT):
            self._pass_over(tuple(name for name in found if name not in FIELDS))
        return values if "step" in values else None

    def _pass_over(self, unknown: tuple[str, ...]) -> None:
        if unknown and not self.unknown:
            warnings.warn(
                f"A line of the program holds {', '.join(unknown)[:LONGEST_SHOWN]}, and none of {', '.join(LEARNT)}: "
                f"it is passed over.",
                stacklevel=2,
            )
        self.unknown = self.unknown or unknown

    def _match(self, line: str) -> dict[str, Any]:
        match = self._pattern.search(line) if self._pattern is not None else None
        return match.groupdict() if match else {}


def _json_object(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        found: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found


def _number(name: str, value: object, line: str) -> float | int:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        number = None
    if number is not None and name not in WHOLE:
        return number
    if number is not None and number.is_integer() and number >= 0:
        return int(number)
    kind = "a whole number, 0 or more" if name in WHOLE else "a number"
    raise WorkloadError(f"{name} is {value!r} in the line {line[:LONGEST_SHOWN]!r} of the program; expected {kind}.")
