"""What the runs of a search have shown so far: who has got to the target, and after how many training seconds."""

from __future__ import annotations

import math
import statistics

from rightbatch.evidence import Evidence
from rightbatch.records import Run, Trial
from rightbatch.replay.table import Cell
from rightbatch.replay.world import Told


def seconds_of(evidence: Evidence, run: Run) -> float | None:
    """Training seconds to the target; infinite for a run that ended short of it, None for one that may get there."""
    found = evidence.crossing(run)
    if found is not None:
        last = run.points[-1]
        return found.steps * last.seconds / last.step
    return math.inf if run.stop is not None else None


def fastest(evidence: Evidence) -> Cell | None:
    """The cell with the lowest median seconds over its runs that are over; None before any has reached the target."""
    seconds: dict[Cell, list[float]] = {}
    for run in evidence.runs:
        found = seconds_of(evidence, run)
        if found is not None:
            seconds.setdefault((run.trial.batch_size, run.trial.learning_rate), []).append(found)
    typical = {cell: statistics.median(values) for cell, values in seconds.items()}
    best = min(typical, key=lambda cell: typical[cell], default=None)
    return best if best is not None and math.isfinite(typical[best]) else None


def offered_rates(told: Told) -> dict[int, tuple[float, ...]]:
    """The rates that can be run at each size; a size without any is left out."""
    found = {size: tuple(rate for rate in told.rates if told.offers(Trial(size, rate, 0))) for size in told.sizes}
    return {size: rates for size, rates in found.items() if rates}


def cells_of(told: Told) -> list[Cell]:
    """Every cell that can be run, by size and rate."""
    return [(size, rate) for size, rates in offered_rates(told).items() for rate in rates]
