"""The numbers of the figures: plain rows, which is also what a reader gets as a table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rightbatch import curves
from rightbatch.answer import Recommendation
from rightbatch.evidence import Evidence, Objective
from rightbatch.fit.step_time import median_seconds
from rightbatch.records import Run

Row = dict[str, Any]

OUTCOMES = ("best", "within 1.25x", "within 2x", "worse", "missed", "diverged")
"""What `rates_data` says of a rate at a batch size."""


def sweet_spot_data(answer: Recommendation, evidence: Evidence) -> list[Row]:
    """A row a batch size: its cost with interval, whether measured, its zone. Sizes that never reach are left out."""
    return [
        {
            "batch_size": row.batch_size,
            "cost": row.cost.estimate,
            "low": row.cost.low if row.cost.low is not None else row.cost.estimate,
            "high": row.cost.high if row.cost.high is not None else row.cost.estimate,
            "measured": row.seeds > 0,
            "zone": _zone(answer, row.batch_size),
        }
        for row in answer.sizes
        if row.cost is not None
    ]


def law_data(answer: Recommendation) -> list[Row]:
    """The cost that the fitted laws give, along the sizes tried; nothing where there is no fit of both."""
    if answer.tradeoff is None or answer.objective is Objective.METRIC:
        return []
    sizes = np.geomspace(answer.sizes[0].batch_size, answer.sizes[-1].batch_size, 60)
    rows = []
    for size in sizes:
        steps = answer.tradeoff.steps(float(size))
        if answer.objective is Objective.TIME:
            if answer.step_time is None:
                return []
            cost = steps * answer.step_time.predict(float(size))
        else:
            cost = steps * (size if answer.objective is Objective.EXAMPLES else 1)
        rows.append({"batch_size": float(size), "cost": float(cost)})
    return rows


def _zone(answer: Recommendation, size: int) -> str:
    low, high = answer.zones.very_small_below.batch_size, answer.zones.huge_above.batch_size
    if low is not None and size < low:
        return "very small"
    return "huge" if high is not None and size > high else "normal"


def steps_data(answer: Recommendation, evidence: Evidence) -> list[Row]:
    """Steps to the target by batch size, and whether they were trained to it."""
    return [
        {"batch_size": r.batch_size, "value": r.steps, "measured": r.seeds > 0}
        for r in answer.sizes
        if r.steps is not None
    ]


def step_time_data(answer: Recommendation, evidence: Evidence) -> list[Row]:
    """Every repeat of every step time, in milliseconds."""
    return [
        {"batch_size": record.batch_size, "value": 1000 * seconds}
        for record in evidence.step_times
        for seconds in record.seconds
    ]


def epoch_data(answer: Recommendation, evidence: Evidence) -> list[Row]:
    """Seconds of training for one pass over the data, by batch size; nothing where its examples are not known."""
    examples = evidence.facts.train_examples
    if not examples:
        return []
    return [
        {"batch_size": r.batch_size, "value": median_seconds(r) * examples / r.batch_size, "measured": True}
        for r in evidence.step_times
    ]


def target_data(answer: Recommendation, evidence: Evidence) -> list[Row]:
    """Training seconds to the target of every run at its size's best rate; nothing for runs that missed it."""
    rows = []
    for run in _best_rate_runs(answer, evidence):
        found = evidence.crossing(run)
        seconds = evidence.step_seconds(run.trial.batch_size)
        if found is not None and seconds is not None:
            rows.append({"batch_size": run.trial.batch_size, "value": found.steps * seconds, "seed": run.trial.seed})
    return rows


def quality_data(answer: Recommendation, evidence: Evidence) -> list[Row]:
    """How good every run at its size's best rate became."""
    rows = []
    for run in _best_rate_runs(answer, evidence):
        best = curves.quality(run.points, evidence.facts.direction)
        if best is not None:
            rows.append({"batch_size": run.trial.batch_size, "value": best, "seed": run.trial.seed})
    return rows


def rates_data(answer: Recommendation, evidence: Evidence) -> list[Row]:
    """Every rate that was tried at every size: its cost over that of the size's best rate, or why there is none."""
    rows = []
    for size in evidence.sizes:
        for cell in size.cells:
            factor = cell.mean / size.cost.estimate if size.cost else math.inf
            outcome = "diverged" if cell.diverged else "missed" if cell.misses else _band(factor)
            best = size.best is not None and cell.learning_rate == size.best.learning_rate
            rows.append(
                {
                    "batch_size": size.batch_size,
                    "learning_rate": cell.learning_rate,
                    "factor": None if math.isinf(factor) else factor,
                    "outcome": "best" if best else outcome,
                }
            )
    return rows


def _band(factor: float) -> str:
    return "within 1.25x" if factor <= 1.25 else "within 2x" if factor <= 2 else "worse"


def _best_rate_runs(answer: Recommendation, evidence: Evidence) -> list[Run]:
    best = [(row.batch_size, row.learning_rate) for row in answer.sizes if row.learning_rate is not None]
    return [run for size, rate in best for run in evidence.runs_at(size, rate)]
