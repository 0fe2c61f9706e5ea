"""The frontier: fewer steps against fewer examples, with the critical batch size as its knee."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from rightbatch.report import units
from rightbatch.report.figures.drawing import BLUE, EMPTY, GREEN, GREY, ORANGE, Row, layered, log_axis, values
from rightbatch.report.sheet import Sheet


def frontier_data(sheet: Sheet) -> list[Row]:
    """A row a batch size: examples and steps to the target, and seconds where they are known."""
    return [
        {
            "batch_size": r.batch_size,
            "examples": r.examples,
            "steps": r.steps,
            "seconds": r.seconds,
            "measured": r.seeds > 0,
        }
        for r in sheet.answer.sizes
        if r.steps is not None and r.examples is not None
    ]


def has_law(sheet: Sheet, rows: Sequence[Row]) -> bool:
    """Whether there is a law of steps to be drawn."""
    return sheet.answer.tradeoff is not None


def has_knee(sheet: Sheet, rows: Sequence[Row]) -> bool:
    """Whether the critical batch size lies among the sizes that are drawn."""
    law = sheet.answer.tradeoff
    return law is not None and rows[0]["batch_size"] <= law.critical_batch_size.estimate <= rows[-1]["batch_size"]


def draw_frontier(sheet: Sheet, rows: Sequence[Row]) -> alt.LayerChart:
    """Steps against examples, each size a point; the hyperbola of the law; its knee at twice the least of both."""
    scale = alt.Scale(type="log", nice=False, padding=16)
    x = alt.X(
        "examples:Q",
        title="examples to the target",
        scale=scale,
        axis=alt.Axis(format=".3~s", labelOverlap=True, tickCount=5),
    )
    y = log_axis("steps", "steps to the target")
    base = alt.Chart(values(rows))
    layers: list[Any] = []
    law = sheet.answer.tradeoff
    if law is not None:
        sizes = np.geomspace(rows[0]["batch_size"], rows[-1]["batch_size"], 60)
        line = [{"examples": float(size * law.steps(float(size))), "steps": law.steps(float(size))} for size in sizes]
        drawn = alt.Chart(values(line)).mark_line(strokeDash=[5, 4], color=GREY)
        layers.append(drawn.encode(x=x, y=y, order="steps:Q"))
        knee = law.critical_batch_size.estimate
        if has_knee(sheet, rows):
            at = [
                {
                    "examples": knee * law.steps(knee),
                    "steps": law.steps(knee),
                    "label": f"B_crit {units.significant(knee)}",
                }
            ]
            chart = alt.Chart(values(at))
            layers.append(chart.mark_point(shape="diamond", size=180, color=ORANGE, strokeWidth=3).encode(x=x, y=y))
            text = chart.mark_text(dx=12, align="left", color=ORANGE, fontWeight="bold", fontSize=13)
            layers.append(text.encode(x=x, y=y, text="label:N"))
    for measured in (False, True):
        some = alt.Chart(values([row for row in rows if row["measured"] is measured]))
        point = some.mark_point(filled=True, size=60, stroke=BLUE, fill=BLUE if measured else EMPTY, opacity=1)
        layers.append(point.encode(x=x, y=y))
    label = base.mark_text(align="right", dx=-8, dy=4, color=BLUE, fontSize=12)
    layers.append(label.encode(x=x, y=y, text="batch_size:Q"))
    chosen = [row for row in rows if row["batch_size"] == sheet.answer.batch_size]
    ring = alt.Chart(values(chosen)).mark_point(size=260, color=GREEN, strokeWidth=3)
    return layered([*layers, ring.encode(x=x, y=y)])


def tell_frontier(sheet: Sheet, rows: Sequence[Row]) -> str:
    """What the choice pays in examples, and what it saves in steps."""
    fewest_examples = min(row["examples"] for row in rows)
    fewest_steps = min(row["steps"] for row in rows)
    chosen = next((row for row in rows if row["batch_size"] == sheet.answer.batch_size), None)
    if chosen is None:
        return "The chosen size has no steps to the target."
    if len(rows) == 1:
        return f"Only batch size {chosen['batch_size']} tells of it."
    said = (
        f"Batch size {chosen['batch_size']} takes {units.times(chosen['examples'] / fewest_examples)} the fewest "
        f"examples and {units.times(chosen['steps'] / fewest_steps)} the fewest steps of the sizes tried."
    )
    law = sheet.answer.tradeoff
    if law is not None:
        said += f" The law has its knee, twice the least of both, at {units.interval(law.critical_batch_size)}."
    return said
