"""The distinct curves of the reference convergence points: what returns in later rounds is counted once."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rightbatch.errors import DataError

FAR_OFF = 3.0
"""A run that took so many times the median of its batch size, or the median so many times it, is left out."""


@dataclass(frozen=True)
class Curve:
    """What a benchmark took to converge, `runs` by batch size in increasing order; in epochs or examples."""

    benchmark: str
    round: str
    runs: Mapping[int, tuple[float, ...]]

    @property
    def sizes(self) -> list[int]:
        """In increasing order."""
        return list(self.runs)

    @property
    def means(self) -> list[float]:
        """Over the runs of each size, those far off left out."""
        return [statistics.fmean(near(runs)) for runs in self.runs.values()]

    @property
    def left_out(self) -> int:
        """How many runs are far off."""
        return sum(len(runs) - len(near(runs)) for runs in self.runs.values())


def near(runs: Sequence[float]) -> list[float]:
    """Those that are not far off their median."""
    median = statistics.median(runs)
    return [run for run in runs if median / FAR_OFF < run < median * FAR_OFF]


def read(paths: Iterable[Path]) -> list[Curve]:
    """All curves of these files. Several records of one batch size are one point.

    Raises `DataError` for a file that is not what these files are.
    """
    curves = []
    for path in paths:
        found: dict[str, dict[int, list[float]]] = {}
        try:
            for record in json.loads(path.read_text(encoding="utf-8")).values():
                runs = next(value for key, value in record.items() if key.lower().endswith("to converge"))
                found.setdefault(record["Benchmark"], {}).setdefault(int(record["BS"]), []).extend(map(float, runs))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            raise DataError(
                f"{path} is not a file of reference convergence points ({type(error).__name__}: {error}). "
                "Each of its records has Benchmark, BS and what the runs took to converge."
            ) from error
        for name, by_size in found.items():
            runs = {size: tuple(sorted(by_size[size])) for size in sorted(by_size) if by_size[size]}
            curves.append(Curve(name, path.parent.name, runs))
    return curves


def distinct(curves: Sequence[Curve]) -> list[Curve]:
    """One of each: none whose points are all in another, and of those with the same last point the latest."""
    kept = [
        curve
        for i, curve in enumerate(curves)
        if not any(
            within(curve, other) and (j > i or not within(other, curve)) for j, other in enumerate(curves) if j != i
        )
    ]
    return [curve for i, curve in enumerate(kept) if not any(ends_alike(curve, later) for later in kept[i + 1 :])]


def families(curves: Sequence[Curve]) -> list[int]:
    """Of each curve the number of its benchmark: those of one name are one, and those that share a point."""
    number = list(range(len(curves)))
    for i, curve in enumerate(curves):
        for j, other in enumerate(curves[:i]):
            if curve.benchmark == other.benchmark or any(unit(curve, other, size) is not None for size in curve.sizes):
                old, new = number[i], number[j]
                number = [new if n == old else n for n in number]
    return number


def within(curve: Curve, other: Curve) -> bool:
    """Whether every point of one is a point of the other, all in the same other units, if any."""
    found = [unit(curve, other, size) for size in curve.sizes]
    return alike([ratio for ratio in found if ratio is not None]) and None not in found


def ends_alike(curve: Curve, other: Curve) -> bool:
    """Whether the largest batch size and its runs are the same."""
    return curve.sizes[-1] == other.sizes[-1] and unit(curve, other, curve.sizes[-1]) is not None


def unit(curve: Curve, other: Curve, size: int) -> float | None:
    """How many times the other's each run is, where both have the same runs at a size, be it in other units.

    Runs that are all alike say little: they are the same in one benchmark only.
    """
    if size not in curve.runs or size not in other.runs or len(curve.runs[size]) != len(other.runs[size]):
        return None
    if curve.benchmark != other.benchmark and len(set(curve.runs[size])) == 1:
        return None
    ratios = [a / b for a, b in zip(curve.runs[size], other.runs[size], strict=True)]
    return ratios[0] if alike(ratios) else None


def alike(ratios: Sequence[float]) -> bool:
    """Whether they are one and the same, but for rounding."""
    return all(math.isclose(ratio, ratios[0], rel_tol=1e-3) for ratio in ratios)
