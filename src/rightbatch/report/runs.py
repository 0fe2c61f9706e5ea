"""What was run: every rate and size, every run as far as they are few, the machines."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rightbatch.records import Run
from rightbatch.report import units
from rightbatch.report.sheet import Sheet

MOST_CELLS = 250
MOST_RUNS = 300
"""Longer lists are left to `rightbatch export`: the page stays small however large the study."""


def why_stopped(run: Run) -> str:
    """Why a run stopped, in a line."""
    if run.stop is None:
        return "still running"
    return (run.stop.message or run.stop.reason.value).splitlines()[0]


def outcomes(sheet: Sheet) -> list[tuple[str, int]]:
    """How many runs ended for which reason, the most frequent first."""
    return Counter(why_stopped(run) for run in sheet.evidence.runs).most_common()


def cells(sheet: Sheet) -> list[dict[str, Any]]:
    """A row for each batch size and rate: its runs, and why they stopped."""
    grouped: dict[tuple[int, float], list[Run]] = {}
    for run in sheet.evidence.runs:
        grouped.setdefault((run.trial.batch_size, run.trial.learning_rate), []).append(run)
    return [
        {
            "batch size": size,
            "learning rate": units.rate(rate),
            "runs": len(group),
            "seeds": len({run.trial.seed for run in group}),
            "wall time": units.seconds(sum(run.wall_seconds for run in group)),
            "why they stopped": "; ".join(f"{count}: {why}" for why, count in _reasons(group)),
        }
        for (size, rate), group in sorted(grouped.items())
    ]


def trials(sheet: Sheet) -> list[dict[str, Any]]:
    """A row a run; nothing where they are more than a page should list."""
    if len(sheet.evidence.runs) > MOST_RUNS:
        return []
    return [
        {
            "run": run.identifier,
            "batch size": run.trial.batch_size,
            "learning rate": units.rate(run.trial.learning_rate),
            "seed": run.trial.seed,
            "examples": f"{run.points[-1].examples:,}" if run.points else "-",
            "wall time": units.seconds(run.wall_seconds),
            "why it stopped": why_stopped(run),
        }
        for run in sheet.evidence.runs
    ]


def machines(sheet: Sheet) -> list[str]:
    """Each environment in a line."""
    return [
        f"{one.device} ({one.processor}), {one.threads} threads, {one.precision}, Python {one.python}, PyTorch "
        f"{one.torch}, rightbatch {one.rightbatch}"
        + (f", at most {one.micro_batch_size:,} examples a pass" if one.micro_batch_size else "")
        + "".join(f", {name}={value}" for name, value in (one.settings or {}).items())
        for one in sheet.environments
    ]


def _reasons(group: list[Run]) -> list[tuple[str, int]]:
    return Counter(why_stopped(run) for run in group).most_common()
