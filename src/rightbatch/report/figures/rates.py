"""Learning rate against batch size: the map of what was tried, the ridge of best rates, the scaling rules over it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from rightbatch import curves
from rightbatch.cells import Cell
from rightbatch.report import units
from rightbatch.report.figures.drawing import (
    EMPTY,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SHADES,
    Row,
    layered,
    log_axis,
    size_axis,
    values,
)
from rightbatch.report.sheet import Sheet

COST, QUALITY = "cost", "quality"
"""What the map is coloured by."""

BANDS = ("best of its size", "within 1.25x", "within 2x", "worse", "missed", "diverged", "left off")
"""What `rates_data` says of a rate at a batch size."""

RULES = ((1.0, [6, 3]), (0.5, [2, 3]))
"""The linear rule dashed, the square-root rule dotted."""


def rates_data(sheet: Sheet) -> list[Row]:
    """Every rate that was tried at every size, judged by its cost and by the quality of its runs.

    By cost: `factor` is over that of the size's best rate. By quality: `value` is the median of the best metric.
    """
    return [*_by_cost(sheet), *_by_quality(sheet)]


def _by_cost(sheet: Sheet) -> list[Row]:
    rows = []
    for size in sheet.evidence.sizes:
        for cell in size.cells:
            factor = cell.mean / size.cost.estimate if size.cost else math.inf
            outcome = "diverged" if cell.diverged else "missed" if cell.misses else _band(factor)
            best = size.best is not None and cell.learning_rate == size.best.learning_rate
            rows.append(
                _row(COST, cell, BANDS[0] if best else outcome, None if math.isinf(factor) else factor, len(cell.costs))
            )
    # A search of few runs leaves off most of them, on the way, as soon as others promise more.
    known = {(cell.batch_size, cell.learning_rate) for cell in sheet.evidence.cells}
    others = Counter((run.trial.batch_size, run.trial.learning_rate) for run in sheet.evidence.relevant)
    for (batch_size, rate), runs in sorted(others.items()):
        if (batch_size, rate) not in known:
            rows.append(_row(COST, Cell(batch_size, rate, (), 0, 0, math.inf), BANDS[6], None, runs))
    return rows


def _by_quality(sheet: Sheet) -> list[Row]:
    direction = sheet.evidence.facts.direction
    found: list[tuple[Cell, float]] = []
    for cell in sheet.evidence.cells:
        cell_runs = sheet.evidence.runs_at(cell.batch_size, cell.learning_rate)
        runs = [run for run in cell_runs if sheet.evidence.conclusive(run)]
        reached = [value for run in runs if (value := curves.quality(run.points, direction)) is not None]
        if reached and not cell.diverged:
            found.append((cell, float(np.median(reached))))
    if not found:
        return []
    sign = 1 if direction == "max" else -1
    ordered = sorted((sign * value for _, value in found), reverse=True)
    edges = [ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.3, 0.6)]
    names = ("best tenth", "best third", "next third", "worse")
    rows = []
    for cell, value in found:
        band = next((name for name, edge in zip(names, edges, strict=False) if sign * value >= edge), names[-1])
        rows.append(_row(QUALITY, cell, band, value, len(cell.costs) + cell.misses))
    return rows


def _row(judged_by: str, cell: Cell, outcome: str, value: float | None, runs: int) -> Row:
    return {
        "judged_by": judged_by,
        "batch_size": cell.batch_size,
        "learning_rate": cell.learning_rate,
        "outcome": outcome,
        "value": value,
        "runs": runs,
    }


def _band(factor: float) -> str:
    return BANDS[1] if factor <= 1.25 else BANDS[2] if factor <= 2 else BANDS[3]


def ridge_data(sheet: Sheet) -> list[Row]:
    """The best rate of every size with its interval."""
    return [
        {
            "batch_size": row.batch_size,
            "learning_rate": row.best_rate.estimate,
            "low": row.best_rate.low if row.best_rate.low is not None else row.best_rate.estimate,
            "high": row.best_rate.high if row.best_rate.high is not None else row.best_rate.estimate,
        }
        for row in sheet.answer.sizes
        if row.best_rate is not None
    ]


def draw_rates(sheet: Sheet, rows: Sequence[Row]) -> alt.LayerChart:
    """The map: a mark for every rate and size, darker the better; the ridge; rules through the choice."""
    x, y = size_axis(), log_axis("learning_rate", "learning rate")
    by_cost = rows[0]["judged_by"] == COST
    domain = BANDS if by_cost else ("best tenth", "best third", "next third", "worse")
    colours = [*SHADES[4:0:-1], "#8a8a8a", ORANGE, EMPTY] if by_cost else list(SHADES[4:0:-1])
    shapes = ["diamond", "square", "square", "square", "cross", "triangle-up", "circle"] if by_cost else ["square"] * 4
    title = "cost over the best of its size" if by_cost else f"{sheet.evidence.metric}, of all rates and sizes"
    dots = alt.Chart(values(rows)).mark_point(filled=True, size=110, opacity=1, stroke=GREY, strokeWidth=0.5)
    encoded = dots.encode(
        x=x,
        y=y,
        color=alt.Color("outcome:N", title=title, scale=alt.Scale(domain=list(domain), range=colours)),
        shape=alt.Shape("outcome:N", title=title, scale=alt.Scale(domain=list(domain), range=shapes)),
    )
    rates = [row["learning_rate"] for row in (*rows, *ridge_data(sheet))]
    layers: list[Any] = [encoded]
    ridge = alt.Chart(values(ridge_data(sheet)))
    layers.append(ridge.mark_line(color=INK, strokeWidth=1.5).encode(x=x, y=y))
    layers.append(ridge.mark_rule(color=INK, strokeWidth=1.5).encode(x=x, y=log_axis("low", None), y2="high:Q"))
    for power, dash in RULES:
        line = rule_line(sheet, power, min(rates), max(rates))
        if not line:  # it leaves the map at once
            continue
        drawn = alt.Chart(values(line)).mark_line(strokeDash=dash, color=GREEN, clip=True)
        layers.append(drawn.encode(x=x, y=y))
    return layered(layers)


def rule_line(sheet: Sheet, power: float, low: float, high: float) -> list[Row]:
    """rate proportional to batch_size^power through the choice, within the rates and sizes tried."""
    answer = sheet.answer
    sizes = np.geomspace(answer.sizes[0].batch_size, answer.sizes[-1].batch_size, 60)
    rates = answer.learning_rate * (sizes / answer.batch_size) ** power
    inside = (rates >= low) & (rates <= high)
    return [
        {"batch_size": float(size), "learning_rate": float(rate)}
        for size, rate in zip(sizes[inside], rates[inside], strict=True)
    ]


def tell_rates(sheet: Sheet, rows: Sequence[Row]) -> str:
    """How the best rate goes with batch size, and what a rate that is off costs."""
    answer = sheet.answer
    ridge = ridge_data(sheet)
    goes = f"goes from {units.rate(ridge[0]['learning_rate'])} at batch size {ridge[0]['batch_size']} to"
    ends = f"{units.rate(ridge[-1]['learning_rate'])} at {ridge[-1]['batch_size']}"
    said = [f"{len(rows)} pairs of rate and size. The best rate {goes if len(ridge) > 1 else 'is'} {ends}."]
    if answer.rate_law is not None:
        said.append(
            f"That is as the size to the power {units.interval(answer.rate_law.exponent, lambda v: f'{v:.2f}')}; the "
            f"linear rule says 1, the square-root rule 0.5."
        )
    return " ".join(said)
