"""What a table and a target are measured in: the reference time, the unit of spend, and targets to choose from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.errors import InputError
from rightbatch.records import Run
from rightbatch.replay.table import Array, Cell, Table, steps_to

SPLITS = 200
"""Random splits of the seeds over which the reference time is the median."""

LEAST_RUNGS = 20
"""A target lies at least so many rungs from the start of the best cell's runs."""

SMALL = 32
"""The batch size that people take when nobody told them another."""


@dataclass(frozen=True)
class Scale:
    """One target of a table. `reference_seconds`: median judged time of what one half of the seeds calls best.

    `small_seconds` is the time at batch size 32 (or the nearest) with its best rate, `unit_seconds` the larger of that
    and four reference times, `best` the cell that is fastest over all seeds.
    """

    target: float
    reference_seconds: float
    small_seconds: float
    unit_seconds: float
    best: Cell


def scale(table: Table, target: float) -> Scale | None:
    """The scale of a target; None where not even the best cells reach it on both halves of their seeds."""
    return _scale(table, target, table.times_to(target))


def _scale(table: Table, target: float, times: Mapping[Cell, Array]) -> Scale | None:
    typical = {cell: float(np.median(found)) for cell, found in times.items()}
    best = min(typical, key=lambda cell: typical[cell])
    # A cell that is twice as slow is not taken for the best by any half of the seeds.
    near = {cell: times[cell] for cell in times if len(times[cell]) > 1 and times[cell].min() <= 2 * typical[best]}
    if not math.isfinite(typical[best]) or not near:
        return None
    listed = {cell: found.tolist() for cell, found in near.items()}  # of two or three numbers this is many times faster
    generator = np.random.default_rng(0)
    judged = []
    for _ in range(SPLITS):
        halves = {cell: split(generator, len(found)) for cell, found in near.items()}
        chosen = min(near, key=lambda cell: statistics.median(listed[cell][k] for k in halves[cell][0]))
        judged.append(judged_seconds(near[chosen][halves[chosen][1]]))
    reference = float(np.median(judged))
    nearest = min(table.sizes, key=lambda size: abs(math.log(size / SMALL)))
    small = min((typical[cell] for cell in typical if cell[0] == nearest), default=math.inf)
    small = small if math.isfinite(small) else table.cap_seconds
    return Scale(target, reference, small, max(small, 4 * reference), best) if math.isfinite(reference) else None


def split(generator: np.random.Generator, seeds: int) -> tuple[list[int], list[int]]:
    """Positions of the seeds of a cell that are for the search and for the judge; an odd one goes to either.

    A single seed is for both: cells that a sweep gave up after one run are known to be bad, and stay in the replay.
    """
    if seeds == 1:
        return [0], [0]
    order = [int(k) for k in generator.permutation(seeds)]
    half = seeds // 2 + (int(generator.integers(2)) if seeds % 2 else 0)
    return order[:half], order[half:]


def judged_seconds(times: Array) -> float:
    """The median over judging seeds; infinite if half of them or more miss, or if there are none."""
    return float(np.median(times)) if len(times) and np.isinf(times).sum() < len(times) / 2 else math.inf


def default_targets(table: Table, count: int = 5) -> tuple[Scale, ...]:
    """Targets to judge searches at, from easy to hard.

    Each is reached by most sizes, lies at least 20 rungs from the start and below the plateau, and its unit of spend is
    at most half the longest run. Between the easiest and the hardest of these they are even in log reference time.

    Raises `InputError` where no target is like that.
    """
    curves = [_finite_values(run) for runs in table.runs.values() for run in runs]
    starts, finals = [c[0] for c in curves if c], [max(c) for c in curves if c]
    if not starts:
        raise InputError(
            f"Table {table.name} has no finite valid_metric: there is nothing to reach. Check how it was recorded."
        )
    start, plateau = float(np.median(starts)), float(np.quantile(finals, 0.9))
    # Even in the log of what is left to the plateau, down to 2 % of the gain; then finer where some are usable.
    candidates = plateau - (plateau - start) * np.geomspace(0.6, 0.02, 60)
    usable = _usable(table, candidates)
    if not usable:
        raise InputError(
            f"No target of table {table.name} is reached by most batch sizes, {LEAST_RUNGS} rungs from the start, at a "
            f"cost that leaves room for a search. Give --target VALUE."
        )
    spacing = float(np.abs(np.diff(candidates)).max())
    picked = _even(usable, count)
    if len(picked) < count:
        low, high = min(one.target for one in usable), max(one.target for one in usable)
        picked = _even(_usable(table, np.linspace(low - spacing / 2, high + spacing / 2, 80)) or usable, count)
    return picked


def _usable(table: Table, candidates: Array) -> list[Scale]:
    times = table.times(list(candidates))
    found = []
    for k, target in enumerate(candidates):
        at_target = {cell: values[:, k] for cell, values in times.items()}
        one = _scale(table, float(target), at_target)
        if one is not None and _is_usable(table, one, at_target):
            found.append(one)
    return found


def _even(usable: Sequence[Scale], count: int) -> tuple[Scale, ...]:
    """So many of them, about even in log reference time, from easy to hard."""
    logs = np.log([one.reference_seconds for one in usable])
    picked = {int(np.argmin(np.abs(logs - value))) for value in np.linspace(logs.min(), logs.max(), count)}
    return tuple(sorted((usable[k] for k in picked), key=lambda one: one.target))


def _finite_values(run: Run) -> list[float]:
    values = (point.valid_metric for point in run.points)
    return [value for value in values if value is not None and math.isfinite(value)]


def _is_usable(table: Table, found: Scale, times: Mapping[Cell, Array]) -> bool:
    sizes = {cell[0] for cell, values in times.items() if np.isfinite(values).all()}
    best = table.runs[found.best]
    rungs = [sum(p.step < steps_to(run, np.array([found.target]))[0] for p in run.points) for run in best]
    return (
        len(sizes) > len(table.sizes) / 2
        and float(np.median(rungs)) >= LEAST_RUNGS
        and found.unit_seconds <= table.cap_seconds / 2
    )


def scales(table: Table, targets: Sequence[float] = ()) -> tuple[Scale, ...]:
    """The scales of the given targets, or of the default ones. Raises `InputError` for a target out of reach."""
    if not targets:
        return default_targets(table)
    found = []
    for target in targets:
        one = scale(table, target)
        if one is None:
            raise InputError(
                f"No cell of table {table.name} reaches {target:g} with most of its seeds. Give an easier target."
            )
        found.append(one)
    return tuple(found)
