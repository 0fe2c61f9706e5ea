"""Early stopping, from the recorded curves: what a patience would have done, without training again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from rightbatch.evidence import FRESH_SEED, Evidence
from rightbatch.records import Run, Target
from rightbatch.report.figures.drawing import GREEN, SHADES, Row, layered, size_axis, values
from rightbatch.report.figures.figure import to_target
from rightbatch.report.sheet import Sheet

EVALUATIONS = (1, 2, 3, 5, 8, 13)
EPOCHS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
DECADES = (1, 3)
"""Patiences in steps and examples: these times powers of ten, as far as the runs are long."""

MOST_PATIENCES = 7

UNITS = ("evaluations", "epochs", "steps", "examples")


def can_stop_early(sheet: Sheet) -> bool:
    """Whether a target is reached along a run: not where only the ends of runs count."""
    return to_target(sheet) and not sheet.evidence.facts.length_bound


def stopping_data(sheet: Sheet) -> list[Row]:
    """A row for each unit of patience, patience and batch size.

    `stopped` is the share of the runs that reached the target which the patience would have stopped before it.
    `learning_rate` and `cost` are those of the cheapest rate of which it would have stopped no run; None where it would
    have stopped some of each. `chosen`: whether that size would be the cheapest. Only runs that were made count here,
    not what a search predicts.
    """
    evidence = sheet.evidence
    winners = {run.identifier: _ages(run, evidence) for run in evidence.relevant if _won(run, evidence)}
    rows: list[Row] = []
    for unit, patiences in _patiences(evidence, winners).items():
        for patience in patiences:
            stops = {identifier: _stops(ages[unit], patience) for identifier, ages in winners.items()}
            rows += _of_patience(evidence, unit, patience, stops)
    return rows


def _won(run: Run, evidence: Evidence) -> bool:
    return run.trial.seed < FRESH_SEED and evidence.cost(run) is not None


def _patiences(evidence: Evidence, winners: dict[int, dict[str, npt.NDArray[np.float64]]]) -> dict[str, list[float]]:
    """The patiences that are looked at, by unit: those that make a difference, none longer than every run."""
    found: dict[str, list[float]] = {}
    for unit in UNITS:
        oldest = [float(ages[unit].max()) for ages in winners.values() if len(ages[unit])]
        if not oldest:
            continue
        longest = max(oldest)
        if unit in ("evaluations", "epochs"):
            candidates: list[float] = list(EVALUATIONS if unit == "evaluations" else EPOCHS)
        else:
            shortest = min((float(age) for ages in winners.values() for age in ages[unit] if age > 0), default=1.0)
            top = math.ceil(math.log10(max(1.0, longest)))
            candidates = [factor * 10.0**power for power in range(top + 1) for factor in DECADES]
            candidates = [one for one in candidates if one >= shortest]  # a shorter one is as good as that
        beyond = next((k for k, patience in enumerate(candidates) if patience > longest), len(candidates) - 1)
        found[unit] = candidates[max(0, beyond + 1 - MOST_PATIENCES) : beyond + 1]
    return found


def _ages(run: Run, evidence: Evidence) -> dict[str, npt.NDArray[np.float64]]:
    """How old the best value is at every evaluation before the one that confirms the target, in every unit."""
    target = evidence.question.target
    rungs = [point for point in run.points if point.step > 0]
    found = evidence.crossing(run)
    assert found is not None
    before = [point for point in rungs if point.examples < found.high_examples]
    scores = np.array([_score(getattr(point, target.quantity), target) for point in before])
    best = np.zeros(len(before), dtype=int)
    for k in range(1, len(before)):
        best[k] = k if scores[k] > scores[best[k - 1]] else best[k - 1]
    examples = np.array([point.examples for point in before], dtype=float)
    steps = np.array([point.step for point in before], dtype=float)
    ages = {
        "evaluations": np.arange(len(before), dtype=float) - best,
        "steps": steps - steps[best],
        "examples": examples - examples[best],
    }
    if evidence.facts.train_examples:
        ages["epochs"] = ages["examples"] / evidence.facts.train_examples
    else:
        ages["epochs"] = np.zeros(0)
    return ages


def _score(value: float | None, target: Target) -> float:
    if value is None or math.isnan(value):
        return -math.inf
    return value if target.direction == "max" else -value


def _stops(ages: npt.NDArray[np.float64], patience: float) -> bool:
    return bool(np.any(ages >= patience))


def _of_patience(evidence: Evidence, unit: str, patience: float, stops: dict[int, bool]) -> list[Row]:
    """What one patience does at every size."""
    rows: list[Row] = []
    for size in evidence.sizes:
        stopped = [
            stops[run.identifier]
            for cell in size.cells
            for run in evidence.runs_at(cell.batch_size, cell.learning_rate)
            if run.identifier in stops
        ]
        if not stopped:
            continue
        survivors = [
            cell
            for cell in size.cells
            if cell.reaches
            and not any(
                stops.get(run.identifier, False) for run in evidence.runs_at(cell.batch_size, cell.learning_rate)
            )
        ]
        best = min(survivors, key=lambda cell: cell.mean, default=None)
        rows.append(
            {
                "patience_in": unit,
                "patience": patience,
                "batch_size": size.batch_size,
                "stopped": sum(stopped) / len(stopped),
                "runs": len(stopped),
                "learning_rate": best.learning_rate if best else None,
                "cost": best.mean if best else None,
                "chosen": False,
            }
        )
    known = [row for row in rows if row["cost"] is not None]
    if known:
        min(known, key=lambda row: row["cost"])["chosen"] = True
    return rows


def draw_stopping(sheet: Sheet, rows: Sequence[Row]) -> alt.LayerChart:
    """A square for every patience and size, darker the more of its winners would have been stopped; a ring: chosen."""
    unit = rows[0]["patience_in"]
    patiences = [_number(value) for value in sorted({row["patience"] for row in rows}, reverse=True)]
    shown = [{**row, "patience": _number(row["patience"]), "percent": f"{100 * row['stopped']:.0f}"} for row in rows]
    x = size_axis()
    y = alt.Y("patience:O", title=f"patience in {unit}", sort=patiences)
    colour = alt.Color(
        "stopped:Q",
        title="winners it would have stopped",
        scale=alt.Scale(domain=[0, 1], range=list(SHADES)),
        legend=alt.Legend(format="%", gradientLength=160),
    )
    base = alt.Chart(values(shown))
    layers: list[Any] = [
        base.mark_square(size=420, opacity=1).encode(x=x, y=y, color=colour),
        base.mark_text(fontSize=10).encode(
            x=x,
            y=y,
            text="percent:N",
            color=alt.condition("datum.stopped > 0.6", alt.value("#fefefe"), alt.value("#1b1b1c")),
        ),
    ]
    chosen = alt.Chart(values([row for row in shown if row["chosen"]]))
    layers.append(chosen.mark_point(shape="square", size=560, color=GREEN, strokeWidth=3).encode(x=x, y=y))
    return layered(layers)


def tell_stopping(sheet: Sheet, rows: Sequence[Row]) -> str:
    """From which patience on no winner is stopped, and how the choice moves below."""
    unit = rows[0]["patience_in"]
    patiences = sorted({row["patience"] for row in rows})
    shortest, longest = patiences[0], patiences[-1]
    lost = {p: _share([row for row in rows if row["patience"] == p]) for p in patiences}
    harmless = next((p for p in patiences if not any(lost[q] for q in patiences if q >= p)), None)
    said = [
        f"A patience of {_counted(shortest, unit)} would have stopped {100 * lost[shortest]:.0f} % of the runs that "
        f"reached the target before they did.",
        f"From {_counted(harmless, unit)} on it would have stopped none."
        if harmless is not None
        else f"Even {_counted(longest, unit)} would have stopped {100 * lost[longest]:.0f} %.",
    ]
    cheapest = sheet.evidence.best_cell
    if cheapest is None:
        return " ".join(said)
    moved = [
        f"{row['batch_size']} at {_number(row['patience'])}"
        for row in rows
        if row["chosen"] and row["batch_size"] != cheapest.batch_size
    ]
    told = f"The size with the cheapest runs, {cheapest.batch_size}, would have been "
    said.append(told + (f"another one: {', '.join(moved)}." if moved else "the same wherever any was left."))
    return " ".join(said)


def _counted(patience: float, unit: str) -> str:
    return f"{_number(patience)} {unit[:-1] if patience == 1 else unit}"


def _number(patience: float) -> str:
    return f"{patience:,.0f}" if patience >= 100 else f"{patience:g}"


def _share(rows: Sequence[Row]) -> float:
    runs = sum(row["runs"] for row in rows)
    return float(sum(row["stopped"] * row["runs"] for row in rows) / runs) if runs else 0.0
