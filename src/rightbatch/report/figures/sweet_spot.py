"""The sweet spot: cost against batch size, and the two curves whose product it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from rightbatch.answer import Recommendation
from rightbatch.question import EQUIVALENT_FACTOR, Objective
from rightbatch.report import units
from rightbatch.report.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Align,
    Row,
    dots_and_law,
    layered,
    log_axis,
    mark,
    points,
    size_axis,
    upright,
    values,
)
from rightbatch.report.sheet import Sheet

AXIS = {
    Objective.TIME: "training seconds to the target",
    Objective.EXAMPLES: "examples to the target",
    Objective.STEPS: "optimizer steps to the target",
    Objective.METRIC: "shortfall (1.1: 2 % of the gain)",
}

NEAR_EDGE = 0.12
"""A word in the middle of this share of the width, at either end, would be cut off."""

ROOM = 34
"""Pixels above and below, for words under the lowest point."""


# ------------------------------------------------------------------------------------------------ the sweet spot


def sweet_spot_data(sheet: Sheet) -> list[Row]:
    """A row a batch size: its cost with interval, whether measured, its zone. Sizes that never reach are left out."""
    return [
        {
            "batch_size": row.batch_size,
            "cost": row.cost.estimate,
            "low": row.cost.low if row.cost.low is not None else row.cost.estimate,
            "high": row.cost.high if row.cost.high is not None else row.cost.estimate,
            "measured": row.seeds > 0,
            "zone": zone_of(sheet.answer, row.batch_size),
        }
        for row in sheet.answer.sizes
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


def zone_of(answer: Recommendation, size: int) -> str:
    """Very small, normal or huge."""
    low, high = answer.zones.very_small_below.batch_size, answer.zones.huge_above.batch_size
    if low is not None and size < low:
        return "very small"
    return "huge" if high is not None and size > high else "normal"


def has_law(sheet: Sheet, rows: Sequence[Row]) -> bool:
    """Whether a law of the cost is drawn."""
    return bool(law_data(sheet.answer))


def has_zones(sheet: Sheet, rows: Sequence[Row]) -> bool:
    """Whether a zone is shaded."""
    return bool(_zone_layers(sheet.answer, rows))


def draw_sweet_spot(sheet: Sheet, rows: Sequence[Row]) -> alt.LayerChart:
    """Cost against batch size with its intervals, the zones shaded, the choice and the present choice marked."""
    answer = sheet.answer
    x, y = size_axis(), log_axis("cost", AXIS[answer.objective], ROOM)
    base = alt.Chart(values(rows))
    layers = [
        *_zone_layers(answer, rows),
        alt.Chart(values(law_data(answer))).mark_line(strokeDash=[5, 4], color=GREY, clip=True).encode(x=x, y=y),
        base.mark_line(color=BLUE, strokeWidth=2).encode(x=x, y=y),
        base.mark_rule(color=BLUE, strokeWidth=2).encode(x=x, y=log_axis("low", None, ROOM), y2="high:Q"),
        *points(rows, x, y, size=60),
        mark(
            answer.batch_size,
            answer.cost.estimate,
            "cost",
            "train with this",
            GREEN,
            x,
            y,
            _edge(answer, answer.batch_size),
        ),
    ]
    present = answer.present
    if present is not None and present.times_the_best is not None and present.batch_size != answer.batch_size:
        cost = present.times_the_best * answer.cost.estimate
        edge = _edge(answer, present.batch_size)
        layers.append(mark(present.batch_size, cost, "cost", "you now", ORANGE, x, y, edge, above=True))
    elif present is not None and present.times_the_best is None:
        layers += upright(present.batch_size, "you now (missed)", ORANGE)
    if sheet.fits is not None and sheet.does_not_fit is not None and sheet.fits <= rows[-1]["batch_size"]:
        layers += upright(sheet.fits, "fits in one pass", ORANGE)
    limit = alt.Chart(values([{"cost": EQUIVALENT_FACTOR * answer.cost.estimate}]))
    layers.append(limit.mark_rule(strokeDash=[2, 3], color=GREEN).encode(y=y))
    return layered(layers)


def tell_sweet_spot(sheet: Sheet, rows: Sequence[Row]) -> str:
    """The best size, what is as good, where the zones begin."""
    answer = sheet.answer
    cheap, dear = min(rows, key=lambda row: row["cost"]), max(rows, key=lambda row: row["cost"])
    said = [
        f"Only batch size {answer.batch_size} tells of it: {units.cost(answer.cost.estimate, answer.objective)}."
        if len(rows) == 1
        else f"Of {len(rows)} batch sizes from {rows[0]['batch_size']} to {rows[-1]['batch_size']}, "
        f"{answer.batch_size} is chosen: {units.cost(answer.cost.estimate, answer.objective)}. "
        f"The dearest is {dear['batch_size']}, at {units.times(dear['cost'] / cheap['cost'])} the cheapest."
    ]
    zones = answer.zones
    if zones.very_small_below.batch_size is not None:
        said.append(f"Below {zones.very_small_below.batch_size:.0f} a size is very small: it costs twice the best.")
    if zones.huge_above.batch_size is not None:
        said.append(f"Above {zones.huge_above.batch_size:.0f} it is huge: again twice the best.")
    if sheet.fits is not None and sheet.does_not_fit is not None:
        said.append(f"{sheet.fits:,} examples fit in one pass; larger batches are accumulated.")
    return " ".join(said)


def _edge(answer: Recommendation, size: int) -> Align:
    """To which side a word at a size has room."""
    sizes = [row.batch_size for row in answer.sizes]
    if len(sizes) == 1:
        return "center"
    at = math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])
    return "left" if at < NEAR_EDGE else "right" if at > 1 - NEAR_EDGE else "center"


def _zone_layers(answer: Recommendation, rows: Sequence[Row]) -> list[Any]:
    """Shades over very small and huge, from the edge of the zone to the edge of the data, each with its name."""
    sizes = [row.batch_size for row in answer.sizes]
    top = max(row["high"] for row in rows)
    zones = answer.zones
    bands = [
        ("very small", min(sizes), zones.very_small_below.batch_size, "left", min(sizes)),
        ("huge", zones.huge_above.batch_size, max(sizes), "right", max(sizes)),
    ]
    layers: list[Any] = []
    for name, low, high, align, at in bands:
        if low is None or high is None or not low < high:
            continue
        edge = f"< {high:.0f}" if align == "left" else f"> {low:.0f}"
        band = alt.Chart(values([{"from": low, "to": high, "name": f"{name} ({edge})", "at": at, "top": top}]))
        layers.append(band.mark_rect(color=ORANGE, opacity=0.10).encode(x=size_axis("from"), x2="to:Q"))
        text = band.mark_text(
            align=align,  # type: ignore[arg-type]
            dx=5 if align == "left" else -5,
            dy=8,
            color=GREY,
            fontSize=13,
        )
        layers.append(text.encode(x=size_axis("at"), y=log_axis("top", None, ROOM), text="name:N"))
    return layers


# ------------------------------------------------------------------- the two curves whose product the cost is


def steps_data(sheet: Sheet) -> list[Row]:
    """Steps to the target by batch size, and whether they were trained to it."""
    return [
        {"batch_size": r.batch_size, "value": r.steps, "measured": r.seeds > 0}
        for r in sheet.answer.sizes
        if r.steps is not None
    ]


def draw_steps(sheet: Sheet, rows: list[Row]) -> alt.LayerChart:
    """Steps to the target against batch size, and the law S_min (1 + B_crit / B)."""
    law = sheet.answer.tradeoff
    return dots_and_law(
        rows, "steps to the target", law.steps if law else None, sheet.answer.batch_size, connected=True
    )


def tell_steps(sheet: Sheet, rows: Sequence[Row]) -> str:
    """How far larger batches saved steps."""
    first, last = rows[0], rows[-1]
    if first is last:
        return f"Only batch size {first['batch_size']} tells of it: {units.significant(first['value'])} steps."
    said = (
        f"From batch size {first['batch_size']} to {last['batch_size']} the steps go from "
        f"{units.significant(first['value'])} to {units.significant(last['value'])}."
    )
    law = sheet.answer.tradeoff
    if law is not None:
        said += f" The critical batch size is {units.interval(law.critical_batch_size)} examples."
    return said


def step_time_data(sheet: Sheet) -> list[Row]:
    """Every repeat of every step time, in milliseconds."""
    return [
        {"batch_size": record.batch_size, "value": 1000 * seconds}
        for record in sheet.evidence.step_times
        for seconds in record.seconds
    ]


def draw_step_time(sheet: Sheet, rows: list[Row]) -> alt.LayerChart:
    """Milliseconds per step against batch size, every repeat a dot, and the law max(floor, alpha + beta B)."""
    law = sheet.answer.step_time
    predict = (lambda size: 1000 * law.predict(size)) if law else None
    return dots_and_law(rows, "milliseconds per step", predict, sheet.answer.batch_size)


def tell_step_time(sheet: Sheet, rows: Sequence[Row]) -> str:
    """What a step takes at both ends."""
    sizes = sorted({row["batch_size"] for row in rows})
    if len(sizes) == 1:
        middle = float(np.median([row["value"] for row in rows]))
        return f"A step takes {units.seconds(middle / 1000)} at batch size {sizes[0]}, the only one that was timed."
    first, last = (float(np.median([r["value"] for r in rows if r["batch_size"] == s])) for s in (sizes[0], sizes[-1]))
    return (
        f"A step takes {units.seconds(first / 1000)} at batch size {sizes[0]} and {units.seconds(last / 1000)} at "
        f"{sizes[-1]}: {units.times(last / first)} as long for {units.times(sizes[-1] / sizes[0])} the examples."
    )
