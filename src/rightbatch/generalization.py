"""The generalization gap and the sharpness of minima across batch sizes, before and after the rate was tuned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.fit.rank_correlation import FEWEST_PAIRS, RankCorrelation, rank_correlation
from rightbatch.means import mean_of
from rightbatch.minima import MEASURES, WeightsRecord
from rightbatch.records import Direction, Interval, Run, Settings, Trial

SHARPNESS = tuple(name for name, measure in MEASURES.items() if measure.sharpness)

ONE_RATE, TUNED = "one rate", "rate tuned"


@dataclass(frozen=True)
class EndOfRun:
    """What was measured of the weights of one run: by quantity, for a measure its own name.

    `gap`: By how much its metric is better on the training data than on the validation data. `evaluations`: passes over
    the data that each measure took.
    """

    run: int
    trial: Trial
    values: Mapping[str, float]
    gap: float | None
    evaluations: Mapping[str, float]


@dataclass(frozen=True)
class SizeEnd:
    """The runs of a batch size at one rate: means over seeds with t intervals (no ends where there is one seed).

    `train_loss` is that of the weights at the end, `quality` the validation metric.
    """

    batch_size: int
    learning_rate: float
    seeds: int
    train_loss: Interval | None
    quality: Interval | None
    gap: Interval | None
    sharpness: Mapping[str, Interval]


@dataclass(frozen=True)
class Across:
    """All sizes under one protocol: at one rate, or each at the rate that gave it the best metric.

    `with_gap`, `with_quality`: Spearman's correlation over the runs, by measure, of sharpness with the gap and with the
    validation metric (positive: sharper is better); left out where there are fewer than six runs.
    """

    protocol: str
    sizes: tuple[SizeEnd, ...]
    with_gap: Mapping[str, RankCorrelation]
    with_quality: Mapping[str, RankCorrelation]


def main_records(records: Sequence[WeightsRecord], measure: str) -> tuple[WeightsRecord, ...]:
    """What a measure gave by the choices that most runs were measured by: values by others are another number."""
    by_choices: dict[Settings, list[WeightsRecord]] = {}
    for record in records:
        if record.measure == measure:
            by_choices.setdefault(record.choices, []).append(record)
    if not by_choices:
        return ()
    most = max(by_choices, key=lambda choices: len(by_choices[choices]))
    return tuple(by_choices[most])


def ends_of(runs: Sequence[Run], records: Sequence[WeightsRecord], direction: Direction) -> tuple[EndOfRun, ...]:
    """A record for each run of which something was measured; of a measure taken by several choices the last."""
    values: dict[int, dict[str, float]] = {}
    evaluations: dict[int, dict[str, float]] = {}
    for record in records:
        if record.measure == "ends" or record.quantity == record.measure:
            values.setdefault(record.run, {})[record.quantity] = record.value
        if record.quantity == record.measure:
            evaluations.setdefault(record.run, {})[record.measure] = record.evaluations
    return tuple(
        EndOfRun(run.identifier, run.trial, own, _gap(own, direction), evaluations.get(run.identifier, {}))
        for run in runs
        if (own := values.get(run.identifier)) is not None
    )


@dataclass(frozen=True)
class PathPoint:
    """Mean loss and metric at one position between the weights of two runs (0: the one, 1: the other)."""

    kind: str
    at: float
    train_loss: float
    train_metric: float
    valid_loss: float
    valid_metric: float


def paths_of(records: Sequence[WeightsRecord]) -> dict[tuple[int, int], tuple[PathPoint, ...]]:
    """The lines that were looked at, by the runs at their ends; straight and curved, each by position."""
    found: dict[tuple[int, int], dict[tuple[str, float], dict[str, float]]] = {}
    for record in (record for record in records if record.measure == "path"):
        ends = (record.run, int(record.choices["to"]))
        place = (str(record.choices["kind"]), float(record.choices["at"]))
        found.setdefault(ends, {}).setdefault(place, {})[record.quantity] = record.value
    return {
        ends: tuple(PathPoint(kind, at, **values) for (kind, at), values in sorted(places.items()))
        for ends, places in found.items()
    }


def across(ends: Sequence[EndOfRun], direction: Direction, one_rate: float | None) -> tuple[Across, ...]:
    """The sizes at one rate, and with the rate tuned where a size was measured at several.

    Runs count that were planned for as many examples as the longest. `one_rate`: What the person trains with; where
    that was not measured at two sizes, the rate measured at most sizes.
    """
    cells: dict[tuple[int, float], list[EndOfRun]] = {}
    longest = max((end.trial.planned_examples or 0 for end in ends), default=0)
    for end in (end for end in ends if (end.trial.planned_examples or 0) == longest):
        cells.setdefault((end.trial.batch_size, end.trial.learning_rate), []).append(end)
    sizes = sorted({size for size, _ in cells})
    rates = sorted({rate for _, rate in cells}, reverse=True)
    if not sizes:
        return ()
    common = max(rates, key=lambda r: (sum((s, r) in cells for s in sizes), r == one_rate))
    if one_rate in rates and sum((size, one_rate) in cells for size in sizes) > 1:
        common = one_rate
    at_one = [cells[size, common] for size in sizes if (size, common) in cells]
    found = [_across(ONE_RATE, at_one, direction)]
    if any(sum(size == s for s, _ in cells) > 1 for size in sizes):
        best = [
            max((cell for (s, _), cell in cells.items() if s == size), key=lambda cell: _mean_quality(cell, direction))
            for size in sizes
        ]
        found.append(_across(TUNED, best, direction))
    return tuple(found)


def _across(protocol: str, cells: Sequence[Sequence[EndOfRun]], direction: Direction) -> Across:
    ends = [end for cell in cells for end in cell]
    return Across(
        protocol,
        tuple(_size(cell) for cell in cells),
        _correlations(ends, [end.gap for end in ends]),
        _correlations(ends, [_quality(end, direction) for end in ends]),
    )


def _correlations(ends: Sequence[EndOfRun], beside: Sequence[float | None]) -> dict[str, RankCorrelation]:
    found = {}
    for name in SHARPNESS:
        pairs = [
            (end.values[name], other, (end.trial.batch_size, end.trial.learning_rate))
            for end, other in zip(ends, beside, strict=True)
            if name in end.values and other is not None
        ]
        if len(pairs) < FEWEST_PAIRS:
            continue
        sharp, others, cells = zip(*pairs, strict=True)
        if (correlation := rank_correlation(sharp, others, len(set(cells)))) is not None:
            found[name] = correlation
    return found


def _quality(end: EndOfRun, direction: Direction) -> float | None:
    """The validation metric, more being better."""
    value = end.values.get("valid_metric")
    return value if value is None or direction == "max" else -value


def _mean_quality(cell: Sequence[EndOfRun], direction: Direction) -> float:
    found = [value for end in cell if (value := _quality(end, direction)) is not None]
    return float(np.mean(found)) if found else -math.inf


def _gap(values: Mapping[str, float], direction: Direction) -> float | None:
    if "train_metric" not in values:
        return None
    gap = values["train_metric"] - values["valid_metric"]
    return gap if direction == "max" else -gap


def _size(cell: Sequence[EndOfRun]) -> SizeEnd:
    def mean(name: str) -> Interval | None:
        return mean_of([end.values[name] for end in cell if name in end.values])

    return SizeEnd(
        cell[0].trial.batch_size,
        cell[0].trial.learning_rate,
        len(cell),
        mean("train_loss"),
        mean("valid_metric"),
        mean_of([end.gap for end in cell if end.gap is not None]),
        {name: found for name in SHARPNESS if (found := mean(name)) is not None},
    )
