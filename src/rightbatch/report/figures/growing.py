"""Batches that grow while training, over the costs of the fixed sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from rightbatch.batch_schedule import parsed
from rightbatch.growth import plan_text
from rightbatch.question import Objective
from rightbatch.report.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    Row,
    layered,
    log_axis,
    mark,
    points,
    size_axis,
    values,
)
from rightbatch.report.figures.sweet_spot import AXIS, ROOM, sweet_spot_data
from rightbatch.report.growth import growth_text
from rightbatch.report.sheet import Sheet

GIVEN_UP, REACHED, FRESH = "given up: more than this", "to the target", "to the target, fresh seeds"
LOOKS: dict[str, dict[str, Any]] = {
    GIVEN_UP: {"color": GREY, "strokeWidth": 1.5, "strokeDash": [3, 3]},
    REACHED: {"color": GREY, "strokeWidth": 1.5},
    FRESH: {"color": GREEN, "strokeWidth": 4},
}
"""How a plan is known, and its line."""


def can_grow(sheet: Sheet) -> bool:
    """Whether a growing batch can be searched: runs to a target, of a workload whose batches are drawn here."""
    facts = sheet.evidence.facts
    return sheet.answer.objective is not Objective.METRIC and not facts.length_bound and not facts.lacks


def growing_data(sheet: Sheet) -> list[Row]:
    """A row a plan: from which size to which, and its cost, at least where it was given up; the best by fresh seeds."""
    growth = sheet.answer.growth
    if growth is None:
        return []
    fixed = sheet.answer.cost.estimate
    best = growth.batch_size, growth.learning_rate, growth.schedule
    rows = [
        {"plan": plan_text(*plan), "times the fixed": times, "seeds": row.seeds, "how": how}
        | _ends(*plan)
        | {"cost": fixed * times}
        for row in growth.tried
        if (plan := (row.batch_size, row.learning_rate, row.schedule)) != best
        for times, how in ((row.times_the_fixed, REACHED), (row.more_than, GIVEN_UP))
        if times is not None
    ]
    times = growth.times_the_fixed.estimate
    row = next((one for one in growth.tried if (one.batch_size, one.learning_rate, one.schedule) == best), None)
    how = FRESH if growth.seeds else GIVEN_UP if row is not None and row.times_the_fixed is None else REACHED
    seeds = growth.seeds or (row.seeds if row is not None else 0)
    chosen = {"plan": plan_text(*best), "times the fixed": times, "seeds": seeds, "how": how}
    return [*rows, chosen | _ends(*best) | {"cost": fixed * times}]


def _ends(batch_size: int, learning_rate: float, schedule: str) -> Row:
    return {"from": batch_size, "to": parsed(batch_size, schedule).phases[-1].batch_size}


def draw_growing(sheet: Sheet, rows: Sequence[Row]) -> alt.LayerChart:
    """Each plan a line from its first to its last batch size, at its cost; the fixed sizes behind."""
    fixed = sweet_spot_data(sheet)
    x, y = size_axis(), log_axis("cost", AXIS[sheet.answer.objective], ROOM)
    base = alt.Chart(values(fixed))
    layers = [
        base.mark_line(color=BLUE, strokeWidth=2, opacity=0.6).encode(x=x, y=y),
        *points(fixed, x, y, size=40),
    ]
    for how, look in LOOKS.items():
        plans = alt.Chart(values([row for row in rows if row["how"] == how]))
        layers.append(plans.mark_rule(**look).encode(x=size_axis("from"), x2="to:Q", y=log_axis("cost", None, ROOM)))
    best = rows[-1]
    if best["how"] == FRESH:
        layers.append(mark(best["to"], best["cost"], "cost", "grown", GREEN, x, y))
    return layered(layers)


def tell_growing(sheet: Sheet, rows: Sequence[Row]) -> str:
    """What the best plan costs beside the fixed size, and what each change of it did."""
    growth = sheet.answer.growth
    assert growth is not None  # there are rows
    return f"{growth_text(growth)} {len(growth.tried)} plans were tried, for {growth.spent:.2g} runs of the fixed size."
