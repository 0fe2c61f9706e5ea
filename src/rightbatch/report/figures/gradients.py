"""The gradient noise scale along a training, with its band."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from rightbatch.fit.noise import noise_scale
from rightbatch.report import units
from rightbatch.report.figures.drawing import BLUE, Row, layered, log_axis, values
from rightbatch.report.sheet import Sheet

STRETCHES = 8
"""A training is looked at in at most so many parts, each of at least so many samples:"""

SAMPLES = 10


def noise_data(sheet: Sheet) -> list[Row]:
    """The noise scale over each part of the training that was sampled longest, with its 95 % interval.

    `high` is None where nothing bounds it above.
    """
    longest = sheet.evidence.longest_samples
    parts = max(1, min(STRETCHES, len(longest) // SAMPLES))
    edges = [len(longest) * k // parts for k in range(parts + 1)]
    rows: list[Row] = []
    for low, high in itertools.pairwise(edges):
        if high - low < 4:
            continue
        part = noise_scale(longest[low:high])
        bound = part.scale.high if part.scale.high is not None and math.isfinite(part.scale.high) else None
        known = math.isfinite(part.scale.estimate) and part.scale.estimate > 0
        rows.append(
            {
                "steps": (part.steps[0] + part.steps[1]) / 2 + 1,
                "noise_scale": part.scale.estimate if known else None,
                "low": part.scale.low,
                "high": bound,
            }
        )
    return rows


def draw_noise(sheet: Sheet, rows: Sequence[Row]) -> alt.LayerChart:
    """The noise scale against steps with its intervals; a triangle where nothing bounds it above."""
    x = alt.X("steps:Q", title="steps of the training", axis=alt.Axis(format="~s"), scale=alt.Scale(zero=False))
    y = log_axis("noise_scale", "noise scale (examples)")
    known = [row for row in rows if row["noise_scale"] is not None]
    # A logarithmic axis has no zero: an interval that goes down to it is drawn to a tenth of the estimate.
    drawn = [{**row, "low": max(row["low"] or 0.0, row["noise_scale"] / 10)} for row in known]
    bounded = [row for row in drawn if row["high"] is not None]
    unbounded = [{**row, "high": row["noise_scale"]} for row in drawn if row["high"] is None]
    layers: list[Any] = [alt.Chart(values(drawn)).mark_line(color=BLUE, strokeWidth=1).encode(x=x, y=y)]
    for some, shape in ((bounded, "circle"), (unbounded, "triangle-up")):
        chart = alt.Chart(values(some))
        layers.append(chart.mark_rule(color=BLUE, strokeWidth=2).encode(x=x, y=log_axis("low", None), y2="high:Q"))
        layers.append(chart.mark_point(filled=True, color=BLUE, size=60, opacity=1, shape=shape).encode(x=x, y=y))
    return layered(layers)


def tell_noise(sheet: Sheet, rows: Sequence[Row]) -> str:
    """How it goes from the first part to the last."""
    first, last = rows[0], rows[-1]
    said = f"From {_scale(first)} in the first part of the training that was sampled to {_scale(last)} in the last."
    law = sheet.answer.tradeoff
    if law is not None:
        said += f" By steps to the target the critical batch size is {units.interval(law.critical_batch_size)}."
    return said


def _scale(row: Row) -> str:
    if row["noise_scale"] is None:
        return f"at least {units.significant(row['low'])}"
    return f"{units.significant(row['noise_scale'])} examples"
