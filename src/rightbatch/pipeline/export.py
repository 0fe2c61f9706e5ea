"""`export`: a study as a table, one row a run or one row a point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rightbatch import curves, tables
from rightbatch.batch_schedule import schedule_of
from rightbatch.evidence import Evidence
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.show import evidence_of
from rightbatch.records import Point, Run
from rightbatch.store import Study

RUN_COLUMNS = (
    "workload",
    "batch_size",
    "learning_rate",
    "seed",
    "settings",
    "planned_examples",
    "outcome",
    "message",
    "steps",
    "examples",
    "seconds",
    "wall_seconds",
    "best_valid_metric",
    "steps_to_target",
    "examples_to_target",
    "seconds_to_target",
)


def export(path: str | Path, to: str | Path, *, whole_curves: bool = False, **asked: Any) -> int:
    """Write the runs of a study (or every point of them) to a CSV, CSV.gz or Parquet file; the number of rows.

    `seconds` are training seconds: steps times the median step time of the run's settings where the size was profiled.
    Curves are those of the settings that are asked for, one of each trial; their metric is higher-is-better (negated
    where the workload's is not), and the point before training is left out: such a table can be run again with
    `rightbatch find TABLE`.
    """
    with Study.open(path) as study:
        evidence = evidence_of(study, Ask(**asked))
    rows = list(_points(evidence) if whole_curves else _runs(evidence))
    tables.write_rows(Path(to), tables.COLUMNS if whole_curves else RUN_COLUMNS, rows)
    return len(rows)


def _points(evidence: Evidence) -> Iterator[dict[str, Any]]:
    sign = 1 if evidence.facts.direction == "max" else -1
    for run in evidence.relevant:
        for point in run.points:
            if point.step == 0:
                continue
            yield {
                "workload": evidence.facts.name,
                "batch_size": point.batch_size,
                "learning_rate": run.trial.learning_rate,
                "seed": run.trial.seed,
                "step": point.step,
                "examples": point.examples,
                "seconds": _seconds(evidence, run, point),
                "train_loss": point.train_loss,
                "valid_loss": point.valid_loss,
                "valid_metric": None if point.valid_metric is None else sign * point.valid_metric,
                "outcome": run.stop.reason.name.lower() if run.stop else "interrupted",
            }


def _runs(evidence: Evidence) -> Iterator[dict[str, Any]]:
    for run in evidence.runs:
        last = run.points[-1] if run.points else None
        # What a length-bound run crosses on its way says nothing: its end does, in the columns of steps and metric.
        found = None if evidence.facts.length_bound else evidence.crossing(run)
        yield {
            "workload": evidence.facts.name,
            "batch_size": run.trial.batch_size,
            "learning_rate": run.trial.learning_rate,
            "seed": run.trial.seed,
            "settings": ";".join(f"{name}={value}" for name, value in run.trial.settings.items()),
            "planned_examples": run.trial.planned_examples,
            "outcome": run.stop.reason.name.lower() if run.stop else "interrupted",
            "message": run.stop.message if run.stop else "",
            "steps": last.step if last else 0,
            "examples": last.examples if last else 0,
            "seconds": _seconds(evidence, run, last) if last else 0.0,
            "wall_seconds": run.wall_seconds,
            "best_valid_metric": curves.best_value(run.points, "valid_metric", evidence.facts.direction),
            "steps_to_target": found.steps if found else None,
            "examples_to_target": found.examples if found else None,
            "seconds_to_target": _of_run(evidence, run, found.steps, found.examples) if found else None,
        }


def _seconds(evidence: Evidence, run: Run, point: Point) -> float:
    seconds = _of_run(evidence, run, point.step, point.examples)
    return point.seconds if seconds is None else seconds


def _of_run(evidence: Evidence, run: Run, steps: float, examples: float) -> float | None:
    """By the step times of its own settings, of every batch size that it had."""
    own = evidence.with_settings(run.trial.settings)
    return own.seconds.of_run(schedule_of(run.trial), steps, examples)
