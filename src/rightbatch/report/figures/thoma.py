"""Thoma's three: time per epoch, time to convergence, quality, each against batch size. And how much was overfitted."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np

from rightbatch import curves
from rightbatch.fit.step_time import median_seconds
from rightbatch.records import Run
from rightbatch.report import units
from rightbatch.report.figures.drawing import BLUE, GREEN, Row, dots_and_law, layered, size_axis, values
from rightbatch.report.sheet import Sheet

DOTS = 40
"""Runs of one batch size beyond so many are not drawn each, but as so many quantiles of them."""


def epoch_data(sheet: Sheet) -> list[Row]:
    """Seconds of training for one pass over the data, by batch size; nothing where its examples are not known."""
    examples = sheet.evidence.facts.train_examples
    if not examples:
        return []
    return [
        {"batch_size": r.batch_size, "value": median_seconds(r) * examples / r.batch_size, "measured": True}
        for r in sheet.evidence.step_times
    ]


def draw_epoch(sheet: Sheet, rows: list[Row]) -> alt.LayerChart:
    """Seconds per epoch against batch size."""
    return dots_and_law(rows, "seconds per epoch", None, sheet.answer.batch_size, connected=True)


def tell_epoch(sheet: Sheet, rows: Sequence[Row]) -> str:
    """The fastest size, and the slowest."""
    fast, slow = min(rows, key=lambda r: r["value"]), max(rows, key=lambda r: r["value"])
    if len(rows) == 1:
        return f"An epoch takes {units.seconds(fast['value'])} at batch size {fast['batch_size']}, the only one timed."
    return (
        f"An epoch is fastest at batch size {fast['batch_size']} ({units.seconds(fast['value'])}) and slowest at "
        f"{slow['batch_size']} ({units.seconds(slow['value'])})."
    )


def target_data(sheet: Sheet) -> list[Row]:
    """Training seconds to the target of every run at its size's best rate; nothing for runs that missed it."""
    rows = []
    for run in best_rate_runs(sheet):
        found = sheet.evidence.crossing(run)
        seconds = sheet.evidence.step_seconds(run.trial.batch_size)
        if found is not None and seconds is not None:
            rows.append({"batch_size": run.trial.batch_size, "value": found.steps * seconds, "seed": run.trial.seed})
    return thinned(rows)


def draw_target(sheet: Sheet, rows: list[Row]) -> alt.LayerChart:
    """Seconds to the target against batch size, each run a dot."""
    return dots_and_law(rows, "training seconds to the target", None, sheet.answer.batch_size)


def tell_target(sheet: Sheet, rows: Sequence[Row]) -> str:
    """The quickest of the sizes by their median run."""
    middle = medians(rows)
    quick = min(middle, key=lambda size: middle[size])
    slow = max(middle, key=lambda size: middle[size])
    if quick == slow:
        return f"{len(rows)} runs, all of batch size {quick}: {units.seconds(middle[quick])} by the median."
    return (
        f"{len(rows)} runs. By the median run, batch size {quick} is the quickest ({units.seconds(middle[quick])}) and "
        f"{slow} the slowest ({units.seconds(middle[slow])})."
    )


def quality_data(sheet: Sheet) -> list[Row]:
    """How good every run at its size's best rate became."""
    rows = []
    for run in best_rate_runs(sheet, whole=True):
        best = curves.quality(run.points, sheet.evidence.facts.direction)
        if best is not None:
            rows.append({"batch_size": run.trial.batch_size, "value": best, "seed": run.trial.seed})
    return thinned(rows)


def draw_quality(sheet: Sheet, rows: list[Row]) -> alt.LayerChart:
    """Best validation metric against batch size, each run a dot."""
    return _dots(sheet, rows, f"best {sheet.evidence.metric}")


def tell_quality(sheet: Sheet, rows: Sequence[Row]) -> str:
    """The range of the medians."""
    middle = medians(rows)
    if len(middle) == 1:
        ((size, value),) = middle.items()
        return f"Only runs of batch size {size} tell of it: {units.significant(value, 4)} by the median."
    worst, best = sorted((min(middle, key=lambda s: middle[s]), max(middle, key=lambda s: middle[s])))
    return (
        f"By the median run, {sheet.evidence.metric} is {units.significant(middle[worst], 4)} at batch size "
        f"{worst} and {units.significant(middle[best], 4)} at {best}, the two ends. A run that stopped at the target "
        f"could have gone further."
    )


def gap_data(sheet: Sheet) -> list[Row]:
    """Validation loss less training loss of every run at its size's best rate, where its validation loss was best."""
    rows = []
    for run in best_rate_runs(sheet, whole=True):
        known = [p for p in run.points if p.step and p.train_loss is not None and p.valid_loss is not None]
        best = min(known, key=lambda p: _loss(p.valid_loss), default=None)
        if best is None or best.train_loss is None or best.valid_loss is None:
            continue
        gap = best.valid_loss - best.train_loss
        if np.isfinite(gap):
            rows.append({"batch_size": run.trial.batch_size, "value": gap, "seed": run.trial.seed})
    return thinned(rows)


def draw_gap(sheet: Sheet, rows: list[Row]) -> alt.LayerChart:
    """The generalization gap against batch size, each run a dot."""
    return _dots(sheet, rows, "validation loss less training loss")


def tell_gap(sheet: Sheet, rows: Sequence[Row]) -> str:
    """The medians at both ends."""
    middle = medians(rows)
    first, last = min(middle), max(middle)
    if first == last:
        return f"Only runs of batch size {first:,} tell of it: {units.significant(middle[first])} by the median."
    return (
        f"By the median run the gap is {units.significant(middle[first])} at batch size {first:,} and "
        f"{units.significant(middle[last])} at {last:,}. The training loss is a mean over the steps before an "
        f"evaluation, of weights that were still a little worse."
    )


def best_rate_runs(sheet: Sheet, *, whole: bool = False) -> list[Run]:
    """The runs of every batch size at its best rate, fresh seeds included; `whole`: none that was left on its way."""
    best = [(row.batch_size, row.learning_rate) for row in sheet.answer.sizes if row.learning_rate is not None]
    runs = [run for size, rate in best for run in sheet.evidence.runs_at(size, rate)]
    return [run for run in runs if sheet.evidence.conclusive(run)] if whole else runs


def thinned(rows: list[Row]) -> list[Row]:
    """Rows of at most so many values a batch size: quantiles where there are more, with no seed of their own."""
    kept = []
    for size in dict.fromkeys(row["batch_size"] for row in rows):
        some = [row for row in rows if row["batch_size"] == size]
        if len(some) > DOTS:
            middles = np.quantile([row["value"] for row in some], (np.arange(DOTS) + 0.5) / DOTS)
            some = [{"batch_size": size, "value": float(value), "seed": None} for value in middles]
        kept += some
    return kept


def _dots(sheet: Sheet, rows: Sequence[Row], title: str) -> alt.LayerChart:
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(format="~g"))
    dots = alt.Chart(values(rows)).mark_point(size=40, color=BLUE, opacity=0.8).encode(x=size_axis(), y=y)
    rule = alt.Chart(values([{"batch_size": sheet.answer.batch_size}]))
    return layered([dots, rule.mark_rule(color=GREEN, strokeDash=[2, 3]).encode(x=size_axis())])


def medians(rows: Sequence[Row]) -> dict[int, float]:
    """The median value of each batch size."""
    sizes = dict.fromkeys(row["batch_size"] for row in rows)
    return {size: float(np.median([r["value"] for r in rows if r["batch_size"] == size])) for size in sizes}


def _loss(value: float | None) -> float:
    return float("inf") if value is None or value != value else value
