"""How sharp the minima are that runs ended in, and the loss along the lines between two of them."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from rightbatch.generalization import ends_of, main_records, paths_of
from rightbatch.report import units
from rightbatch.report.figures.drawing import BLUE, GREY, ORANGE, Row, layered, log_axis, size_axis, values
from rightbatch.report.figures.thoma import best_rate_runs, medians, thinned
from rightbatch.report.sheet import Sheet

LEAST_LOSS = 1e-6
"""A logarithmic axis has no zero: smaller losses are drawn here."""


def sharpness_data(sheet: Sheet) -> list[Row]:
    """Keskar et al.'s sharpness of every run that was measured, at the best rate of its size or at another one."""
    evidence = sheet.evidence
    best = {run.identifier for run in best_rate_runs(sheet)}
    rows = [
        {
            "batch_size": end.trial.batch_size,
            "value": end.values["box"],
            "seed": end.trial.seed,
            "learning_rate": end.trial.learning_rate,
            "best_rate": end.run in best,
        }
        for end in ends_of(evidence.runs, main_records(evidence.weights, "box"), evidence.facts.direction)
    ]
    return [row for at_best in (True, False) for row in thinned([row for row in rows if row["best_rate"] is at_best])]


def draw_sharpness(sheet: Sheet, rows: Sequence[Row]) -> alt.LayerChart:
    """Sharpness against batch size; runs at other rates than the best are grey."""
    drawn = [row for row in rows if row["value"] > 0]
    y = log_axis("value", "sharpness, %")
    return layered(
        [
            alt.Chart(values([row for row in drawn if row.get("best_rate", True) is best]))
            .mark_point(size=40, color=BLUE if best else GREY, opacity=0.8 if best else 0.5)
            .encode(x=size_axis(), y=y)
            for best in (False, True)
        ]
    )


def tell_sharpness(sheet: Sheet, rows: Sequence[Row]) -> str:
    """The medians at both ends."""
    middle = medians([row for row in rows if row.get("best_rate", True)] or rows)
    first, last = min(middle), max(middle)
    if first == last:
        return f"Only runs of batch size {first:,} were measured: {units.significant(middle[first])} by the median."
    return (
        f"By the median run sharpness is {units.significant(middle[first])} at batch size {first:,} and "
        f"{units.significant(middle[last])} at {last:,}. Runs that were trained less far differ for that reason too."
    )


def path_data(sheet: Sheet) -> list[Row]:
    """Losses along the lines between the last two runs that were looked at."""
    found = list(paths_of(sheet.evidence.weights).values())
    return [
        {"at": point.at, "line": f"{point.kind}, {data}", "loss": loss, "metric": metric}
        for point in (found[-1] if found else ())
        for data, loss, metric in (
            ("training", point.train_loss, point.train_metric),
            ("validation", point.valid_loss, point.valid_metric),
        )
    ]


def draw_path(sheet: Sheet, rows: Sequence[Row]) -> alt.LayerChart:
    """Training and validation loss, straight lines full and curved ones dashed."""
    lines = []
    for data, colour in (("training", BLUE), ("validation", ORANGE)):
        for kind, dash in (("straight", [1, 0]), ("curved", [5, 4])):
            some = [
                {**row, "loss": max(row["loss"], LEAST_LOSS), "data": data}
                for row in rows
                if row["line"] == f"{kind}, {data}"
            ]
            lines.append(
                alt.Chart(values(some))
                .mark_line(color=colour, strokeDash=dash)
                .encode(
                    x=alt.X("at:Q", title="from one run's weights (0) to the other's (1)"), y=log_axis("loss", "loss")
                )
            )
    return layered(lines)


def tell_path(sheet: Sheet, rows: Sequence[Row]) -> str:
    """The loss at both minima and the highest between them, on the straight line."""
    straight = {row["at"]: row["loss"] for row in rows if row["line"] == "straight, training"}
    between = max(loss for at, loss in straight.items() if 0 <= at <= 1)
    return (
        f"Training loss is {units.significant(straight[0.0])} at the one and {units.significant(straight[1.0])} at the "
        f"other; on the straight line between them it rises to {units.significant(between)}. Blue: training, orange: "
        f"validation; dashed: the curved line."
    )
