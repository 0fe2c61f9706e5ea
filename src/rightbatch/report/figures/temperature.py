"""Batch size and rate of runs as a temperature of the posterior."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from rightbatch.report import units
from rightbatch.report.figures.drawing import BLUE, GREY, Row, layered, log_axis, size_axis, values
from rightbatch.report.figures.thoma import thinned
from rightbatch.report.sheet import Sheet
from rightbatch.temperatures import temperatures_of


def temperature_data(sheet: Sheet) -> list[Row]:
    """The temperature of every run that it was measured of, with its 95 % interval, and the one that was seen."""
    found = temperatures_of(sheet.evidence.runs, sheet.evidence.weights)
    return thinned(
        [
            {
                "batch_size": one.trial.batch_size,
                "learning_rate": one.trial.learning_rate,
                "temperature": one.temperature.estimate,
                "low": one.temperature.low,
                "high": one.temperature.high,
                "seen": one.seen,
                "seed": one.trial.seed,
            }
            for one in found
        ]
    )


def draw_temperature(sheet: Sheet, rows: Sequence[Row]) -> alt.LayerChart:
    """Temperature against batch size; grey: as seen in the loss."""
    y = log_axis("temperature", "temperature (posterior: 1)")
    drawn = [{**row, "low": max(row["low"] or 0.0, row["temperature"] / 10)} for row in rows if row["temperature"] > 0]
    seen = [{**row, "temperature": row["seen"]} for row in rows if row["seen"] > 0]
    base = alt.Chart(values(drawn)).encode(x=size_axis())
    return layered(
        [
            alt.Chart(values(seen)).mark_point(size=40, color=GREY).encode(x=size_axis(), y=y),
            base.mark_rule(color=BLUE).encode(y=alt.Y("low:Q", scale=alt.Scale(type="log")), y2="high:Q"),
            base.mark_point(size=40, color=BLUE, filled=True).encode(y=y),
        ]
    )


def tell_temperature(sheet: Sheet, rows: Sequence[Row]) -> str:
    """What the last one means."""
    row = rows[-1]
    warmer = "noisier" if row["temperature"] > 1 else "colder"
    return (
        f"At batch size {row['batch_size']:,} and rate {units.rate(row['learning_rate'])} the iterates have "
        f"{units.significant(row['temperature'])} times the energy of the posterior by their noise, "
        f"{units.significant(row['seen'])} times by the training loss: {warmer} than Bayes. Far apart, these two say "
        f"that the loss is not the quadratic of the theory."
    )
