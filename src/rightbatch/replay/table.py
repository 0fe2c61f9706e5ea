"""A recorded table as replay sees it: cells (a batch size and a rate), their runs, and times to a target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rightbatch.errors import InputError
from rightbatch.evidence import INCONCLUSIVE
from rightbatch.records import Run
from rightbatch.tables import read_rows, read_runs

Cell = tuple[int, float]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """The conclusive runs of a table, by cell, each cell's in the order of their seeds."""

    name: str
    runs: Mapping[Cell, tuple[Run, ...]]
    _known: dict[float, Mapping[Cell, Array]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, by size and rate."""
        return tuple(sorted(self.runs))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Every batch size."""
        return tuple(sorted({size for size, _ in self.runs}))

    @cached_property
    def rates(self) -> tuple[float, ...]:
        """Every learning rate."""
        return tuple(sorted({rate for _, rate in self.runs}))

    @cached_property
    def step_seconds(self) -> Mapping[int, float]:
        """Seconds per step of each size: the median over its runs."""
        ends = [(run.trial.batch_size, run.points[-1]) for cell in self.cells for run in self.runs[cell]]
        return {
            size: float(np.median([end.seconds / end.step for of, end in ends if of == size])) for size in self.sizes
        }

    @cached_property
    def cap_seconds(self) -> float:
        """Training seconds of the longest run."""
        return max(self.seconds_of(run) for cell in self.cells for run in self.runs[cell])

    def seconds_of(self, run: Run) -> float:
        """Training seconds of a whole run."""
        return run.points[-1].step * self.step_seconds[run.trial.batch_size]

    def times_to(self, target: float) -> Mapping[Cell, Array]:
        """Training seconds to one target, shape `[runs of the cell]`; read off the curves once."""
        if target not in self._known:
            self._known[target] = {cell: found[:, 0] for cell, found in self.times([target]).items()}
        return self._known[target]

    def at_best_rates(self, target: float) -> Mapping[int, tuple[float, Array]]:
        """Of each size its best rate, and training seconds to the target of the runs there, shape `[runs]`.

        The best has the least geometric mean, among the rates at which every run got there; a size without is left out.
        """
        found: dict[int, tuple[float, Array]] = {}
        for (size, rate), seconds in self.times_to(target).items():
            if len(seconds) and np.isfinite(seconds).all():
                known = found.get(size)
                if known is None or np.log(seconds).mean() < np.log(known[1]).mean():
                    found[size] = (rate, seconds)
        return found

    def times(self, targets: Sequence[float]) -> Mapping[Cell, Array]:
        """Training seconds to each target, shape `[runs of the cell, targets]`; infinite where it is not reached.

        A target is reached at the first of two consecutive rungs at or beyond it, interpolated in log steps.
        """
        wanted = np.asarray(targets, dtype=float)
        return {
            cell: np.array([self.step_seconds[cell[0]] * steps_to(run, wanted) for run in self.runs[cell]])
            for cell in self.cells
        }


def read_table(path: str | Path) -> Table:
    """A table from a file of curves.

    Raises `InputError` for a file that is not such a table, or that has fewer than two seeds in every cell: one half
    of them is for the search, the other for the judge.
    """
    grouped: dict[Cell, list[Run]] = {}
    for run in read_runs(read_rows(Path(path))):
        if run.stop is not None and run.stop.reason not in INCONCLUSIVE and run.points[-1].step > 0:
            grouped.setdefault((run.trial.batch_size, run.trial.learning_rate), []).append(run)
    seeds = [len(runs) for runs in grouped.values()]
    if max(seeds, default=0) < 2:
        raise InputError(
            f"{path} has {max(seeds, default=0)} seeds in its cells. Replay needs at least two: one for the search, "
            f"one for the judge. Make such a table with `rightbatch sweep --seeds 2` and `rightbatch export --curves`."
        )
    runs = {cell: tuple(sorted(found, key=lambda run: run.trial.seed)) for cell, found in grouped.items()}
    return Table(Path(path).name.split(".")[0], runs)


def steps_to(run: Run, targets: Array) -> Array:
    """Steps to each target (higher is better), infinite where a run does not get there."""
    rungs = [point for point in run.points if point.step > 0]
    steps = np.array([point.step for point in rungs], dtype=float)
    values = np.array([_finite(point.valid_metric) for point in rungs])
    if len(rungs) < 2:
        return np.full(len(targets), math.inf)
    # Two consecutive rungs confirm what the lower of them reaches.
    confirmed = np.maximum.accumulate(np.minimum(values[:-1], values[1:]))
    at = np.searchsorted(confirmed, targets, side="left")
    found = np.full(len(targets), math.inf)
    for k, (index, target) in enumerate(zip(at, targets, strict=True)):
        if index == len(confirmed):
            continue
        if index == 0 or not math.isfinite(values[index - 1]):
            found[k] = steps[index]
            continue
        share = (target - values[index - 1]) / (values[index] - values[index - 1])
        found[k] = steps[index - 1] * (steps[index] / steps[index - 1]) ** share
    return found


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else -math.inf
