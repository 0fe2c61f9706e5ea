"""Recorded tables: curves of runs made before, here or elsewhere, run again without training.

Columns: workload, batch_size, learning_rate, seed, step, examples, seconds, train_loss, valid_loss, valid_metric
(higher is better), outcome. CSV, CSV.gz, or Parquet with the extra; what `rightbatch export --curves` writes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rightbatch.errors import InputError, MissingExtra
from rightbatch.evidence import INCONCLUSIVE
from rightbatch.records import Environment, Point, Run, StepTime, Stop, StopReason, Trial, WorkloadFacts

COLUMNS = (
    "workload",
    "batch_size",
    "learning_rate",
    "seed",
    "step",
    "examples",
    "seconds",
    "train_loss",
    "valid_loss",
    "valid_metric",
    "outcome",
)

Row = Mapping[str, Any]


def is_table(name: str) -> bool:
    """Whether a name is that of a table file."""
    return name.endswith((".csv", ".csv.gz", ".parquet"))


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows as CSV, CSV.gz or Parquet, by the ending of the path.

    Raises `InputError` for another ending or an unwritable path, `MissingExtra` for Parquet without pyarrow.
    """
    try:
        if path.name.endswith(".parquet"):
            pyarrow, parquet = _pyarrow()
            table = list(rows)
            parquet.write_table(pyarrow.table({name: [row[name] for row in table] for name in columns}), path)
        elif path.name.endswith((".csv", ".csv.gz")):
            # mtime=0: the same rows give the same bytes.
            with path.open("wb") as raw:
                packed = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if path.name.endswith(".gz") else raw
                lines = [",".join(columns), *(",".join(_text(row[name]) for name in columns) for row in rows)]
                packed.write(("\n".join(lines) + "\n").encode())
                if packed is not raw:
                    packed.close()
        else:
            raise InputError(f"{path} has an unknown ending. Use .csv, .csv.gz or .parquet.")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Choose another path.") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table of curves. Raises `InputError` for a missing file or column."""
    if not path.is_file():
        raise InputError(f"There is no table at {path}.")
    if path.name.endswith(".parquet"):
        _, parquet = _pyarrow()
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    else:
        try:
            content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
            rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
            raise InputError(f"{path} is not a table of curves: {error}.") from error
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise InputError(f"{path} lacks the column {missing[0]!r}; a table of curves has: {', '.join(COLUMNS)}.")
    return rows


class TableRunner:
    """Runs of a recorded table. The metric is higher-is-better; seconds per step are those of the table."""

    def __init__(self, path: str | Path, *, train_examples: int = 0, optimizer: str = "unknown") -> None:
        self._runs = {_key(run.trial): run for run in read_runs(read_rows(Path(path)))}
        runs = list(self._runs.values())
        self._name = f"table {Path(path).name}"
        self._facts = WorkloadFacts(
            name=self._name,
            train_examples=train_examples or max(run.trial.batch_size for run in runs),
            valid_examples=0,
            planned_examples=max(run.points[-1].examples for run in runs),
            metric="valid_metric",
            direction="max",
            optimizer=optimizer,
            source=hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16],
        )

    @property
    def facts(self) -> WorkloadFacts:
        return self._facts

    @property
    def environment(self) -> Environment:
        return Environment("recorded", 0, "recorded", "recorded", "recorded", "recorded", self._facts.source)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Every batch size of the table."""
        return tuple(sorted({run.trial.batch_size for run in self._runs.values()}))

    @property
    def rates(self) -> tuple[float, ...]:
        """Every learning rate of the table."""
        return tuple(sorted({run.trial.learning_rate for run in self._runs.values()}))

    def offers(self, trial: Trial) -> bool:
        # A recorded run that was cut short would be cut short again, however often it is asked for.
        run = self._runs.get(_key(trial))
        return run is not None and run.stop is not None and run.stop.reason not in INCONCLUSIVE and not trial.settings

    def start(self, trial: Trial, state: bytes | None = None) -> _TableRun:
        if not self.offers(trial):
            raise InputError(
                f"{self._name} has no run with batch_size={trial.batch_size}, "
                f"learning_rate={trial.learning_rate:g}, seed={trial.seed}."
            )
        return _TableRun(self._runs[_key(trial)], int.from_bytes(state or b"\0", "big"))

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        for size in batch_sizes:
            rates = [
                run.points[-1].seconds / run.points[-1].step
                for run in self._runs.values()
                if run.trial.batch_size == size and run.points[-1].step
            ]
            if rates:
                yield StepTime(size, (float(np.median(rates)),), (0.0,))


class _TableRun:
    def __init__(self, run: Run, position: int) -> None:
        self._run, self._position = run, position

    def advance(self) -> Point | Stop:
        if self._position == len(self._run.points):
            return self._run.stop or Stop(StopReason.FINISHED)
        self._position += 1
        return self._run.points[self._position - 1]

    def save(self) -> bytes:
        return self._position.to_bytes(4, "big")

    def close(self) -> None:
        pass


def read_runs(rows: Iterable[Row]) -> tuple[Run, ...]:
    """The runs of a table's rows, in the order of their first row. Raises `InputError` for an unreadable value."""
    grouped: dict[tuple[int, float, int], list[tuple[Point, str]]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            key = (int(row["batch_size"]), float(row["learning_rate"]), int(row["seed"]))
            point = Point(
                step=int(row["step"]),
                examples=int(row["examples"]),
                seconds=float(row["seconds"]),
                train_loss=_number(row["train_loss"]),
                valid_loss=_number(row["valid_loss"]),
                valid_metric=_number(row["valid_metric"]),
                batch_size=key[0],
                learning_rate=key[1],
            )
        except (ValueError, TypeError) as error:
            raise InputError(f"Line {line} of the table cannot be read: {error}.") from error
        grouped.setdefault(key, []).append((point, row["outcome"]))
    runs = []
    for (size, rate, seed), group in grouped.items():
        group.sort(key=lambda pair: pair[0].step)
        points = tuple(point for point, _ in group)
        if len({point.step for point in points}) < len(points):
            raise InputError(
                f"The table has two rows for one step of the run with batch_size={size}, learning_rate={rate:g}, "
                f"seed={seed}. A table holds one workload, and each of its runs once."
            )
        runs.append(Run(Trial(size, rate, seed, points[-1].examples), points, _stop(group[-1][1])))
    return tuple(runs)


def _stop(outcome: str) -> Stop:
    try:
        return Stop(StopReason[str(outcome).upper()])
    except KeyError:
        names = ", ".join(reason.name.lower() for reason in StopReason)
        raise InputError(f"Unknown outcome {outcome!r} in the table; known are: {names}.") from None


def _key(trial: Trial) -> tuple[int, int, int]:
    # Tables round their rates; a thousandth of a decade tells any two apart.
    return trial.batch_size, round(1000 * math.log10(trial.learning_rate)), trial.seed


def _number(value: object) -> float | None:
    return None if value in (None, "") else float(str(value))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.8g}"
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet") from error
    return pyarrow, parquet
