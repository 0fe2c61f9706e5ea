"""Every figure is two functions: one gives the numbers (tested), one draws them.

The numbers are in `numbers.py`; `FIGURES` below joins each to its drawing, in the order of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from rightbatch.answer import Recommendation
from rightbatch.evidence import EQUIVALENT_FACTOR, Evidence, Objective
from rightbatch.report.numbers import (
    OUTCOMES,
    Row,
    epoch_data,
    law_data,
    quality_data,
    rates_data,
    step_time_data,
    steps_data,
    sweet_spot_data,
    target_data,
)

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#6b6b6b"
"""From the palette of Okabe and Ito, which colour-blind readers tell apart."""

WIDTH, HEIGHT = 620, 300


# ------------------------------------------------------------------------------------------------ the sweet spot


def draw_sweet_spot(answer: Recommendation, evidence: Evidence) -> alt.LayerChart:
    """Cost against batch size with its intervals, the zones shaded, the choice and the present choice marked.

    Points of sizes that were not trained to the target, but predicted by the search, are hollow.
    """
    rows = sweet_spot_data(answer, evidence)
    x, y = _size_axis(), _log_axis("cost", answer.objective.value + _unit(answer.objective))
    base = alt.Chart(_values(rows))
    layers = [
        *_zone_layers(answer, rows),
        alt.Chart(_values(law_data(answer))).mark_line(strokeDash=[5, 4], color=GREY, clip=True).encode(x=x, y=y),
        base.mark_line(color=BLUE, strokeWidth=2).encode(x=x, y=y),
        base.mark_rule(color=BLUE, strokeWidth=2).encode(x=x, y=_log_axis("low", None), y2="high:Q"),
        *_points(rows, x, y, size=60),
        _mark(answer.batch_size, answer.cost.estimate, "train with this", GREEN, x, y),
    ]
    present = answer.present
    if present is not None and present.times_the_best is not None and present.batch_size != answer.batch_size:
        cost = present.times_the_best * answer.cost.estimate
        layers.append(_mark(present.batch_size, cost, "you now", ORANGE, x, y))
    limit = alt.Chart(_values([{"cost": EQUIVALENT_FACTOR * answer.cost.estimate}]))
    layers.append(limit.mark_rule(strokeDash=[2, 3], color=GREEN).encode(y=y))
    return _layered(layers)


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
        band = alt.Chart(_values([{"from": low, "to": high, "name": name, "at": at, "top": top}]))
        layers.append(band.mark_rect(color=ORANGE, opacity=0.10).encode(x=_size_axis("from"), x2="to:Q"))
        text = band.mark_text(
            align=align,  # type: ignore[arg-type]
            dx=5 if align == "left" else -5,
            dy=8,
            color=GREY,
            fontSize=12,
        )
        layers.append(text.encode(x=_size_axis("at"), y=_log_axis("top", None), text="name:N"))
    return layers


def _mark(size: int, cost: float, label: str, colour: str, x: alt.X, y: alt.Y) -> Any:
    chart = alt.Chart(_values([{"batch_size": size, "cost": cost, "label": label}]))
    ring = chart.mark_point(size=260, color=colour, strokeWidth=3).encode(x=x, y=y)
    return ring + chart.mark_text(dy=24, color=colour, fontWeight="bold", fontSize=13).encode(x=x, y=y, text="label:N")


# ------------------------------------------------------------------- the two curves whose product the cost is


def draw_steps(answer: Recommendation, evidence: Evidence) -> alt.LayerChart:
    """Steps to the target against batch size, and the law S_min (1 + B_crit / B)."""
    law = answer.tradeoff
    return _dots_and_law(
        steps_data(answer, evidence), "steps to the target", law.steps if law else None, answer, connected=True
    )


def draw_step_time(answer: Recommendation, evidence: Evidence) -> alt.LayerChart:
    """Milliseconds per step against batch size, every repeat a dot, and the law max(floor, alpha + beta B)."""
    law = answer.step_time
    predict = (lambda size: 1000 * law.predict(size)) if law else None
    return _dots_and_law(step_time_data(answer, evidence), "milliseconds per step", predict, answer)


# --------------------------------------------------------------------------------- epoch, target, quality, rates


def draw_epoch(answer: Recommendation, evidence: Evidence) -> alt.LayerChart:
    """Seconds per epoch against batch size."""
    return _dots_and_law(epoch_data(answer, evidence), "seconds per epoch", None, answer, connected=True)


def draw_target(answer: Recommendation, evidence: Evidence) -> alt.LayerChart:
    """Seconds to the target against batch size, each run a dot."""
    return _dots_and_law(target_data(answer, evidence), "training seconds to the target", None, answer)


def draw_quality(answer: Recommendation, evidence: Evidence) -> alt.LayerChart:
    """Best validation metric against batch size, each run a dot."""
    rows = quality_data(answer, evidence)
    y = alt.Y("value:Q", title=f"best {evidence.facts.metric}", scale=alt.Scale(zero=False))
    chart = alt.Chart(_values(rows)).mark_point(size=40, color=BLUE, opacity=0.8).encode(x=_size_axis(), y=y)
    return _layered([chart])


def draw_rates(answer: Recommendation, evidence: Evidence) -> alt.LayerChart:
    """The rates tried at each size, by how they did, and the linear and square-root rules through the choice."""
    rows = rates_data(answer, evidence)
    x, y = _size_axis(), _log_axis("learning_rate", "learning rate")
    dots = (
        alt.Chart(_values(rows))
        .mark_point(filled=True, size=90, opacity=1)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "outcome:N",
                title="cost over the size's best",
                scale=alt.Scale(domain=list(OUTCOMES), range=[GREEN, BLUE, "#56b4e9", "#c9c9c9", "#999999", ORANGE]),
            ),
            shape=alt.Shape(
                "outcome:N",
                title="cost over the size's best",
                scale=alt.Scale(
                    domain=list(OUTCOMES), range=["diamond", "circle", "circle", "circle", "square", "triangle-up"]
                ),
            ),
        )
    )
    rates = [row["learning_rate"] for row in rows]
    layers: list[Any] = []
    for name, power, dash in (("linear rule", 1.0, [6, 3]), ("square-root rule", 0.5, [2, 3])):
        line = _rule_line(answer, power, min(rates), max(rates))
        mark = alt.Chart(_values(line)).mark_line(strokeDash=dash, color=GREY, clip=True)
        layers.append(mark.encode(x=x, y=y))
        label = alt.Chart(_values([{**line[-1], "label": name}])).mark_text(align="right", dx=-6, dy=-8, color=GREY)
        layers.append(label.encode(x=x, y=y, text="label:N"))
    return _layered([*layers, dots])


def _rule_line(answer: Recommendation, power: float, low: float, high: float) -> list[Row]:
    """rate proportional to batch_size^power through the choice, within the rates and sizes tried."""
    sizes = np.geomspace(answer.sizes[0].batch_size, answer.sizes[-1].batch_size, 200)
    rates = answer.learning_rate * (sizes / answer.batch_size) ** power
    inside = (rates >= low) & (rates <= high)
    return [
        {"batch_size": float(size), "learning_rate": float(rate)}
        for size, rate in zip(sizes[inside], rates[inside], strict=True)
    ]


# ---------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Figure:
    """One figure of the page: its numbers, its drawing, and what it shows in a sentence."""

    name: str
    title: str
    caption: str
    data: Callable[[Recommendation, Evidence], list[Row]]
    draw: Callable[[Recommendation, Evidence], alt.LayerChart]


FIGURES: tuple[Figure, ...] = (
    Figure(
        "sweet-spot",
        "The sweet spot",
        "Cost of the best rate at each batch size, with 95 % intervals. Dashed: what the fitted laws give. Shaded: "
        "sizes that cost more than twice the best. Dotted: 10 % above the best. Hollow: predicted by the search, not "
        "trained to the target.",
        sweet_spot_data,
        draw_sweet_spot,
    ),
    Figure(
        "steps",
        "Steps to the target",
        "Larger batches need fewer steps, up to a point. Dashed: S_min (1 + B_crit / B). Hollow: predicted.",
        steps_data,
        draw_steps,
    ),
    Figure(
        "step-time",
        "Seconds per step",
        "Each repeat a dot. Dashed: max(floor, alpha + beta B). Steps times this is the cost above.",
        step_time_data,
        draw_step_time,
    ),
    Figure(
        "epoch",
        "Time per epoch",
        "Training seconds for one pass over the data, without evaluation.",
        epoch_data,
        draw_epoch,
    ),
    Figure(
        "target",
        "Time to the target",
        "Each run at the best rate of its size is a dot.",
        target_data,
        draw_target,
    ),
    Figure(
        "quality",
        "Quality",
        "Each run at the best rate of its size, at its best validation metric. Runs that stopped at the target could "
        "have gone further.",
        quality_data,
        draw_quality,
    ),
    Figure(
        "rates",
        "Learning rate against batch size",
        "Every rate that was tried. Lines: the linear and the square-root rule through the choice.",
        rates_data,
        draw_rates,
    ),
)


# ------------------------------------------------------------------------------------------------------- private


def _dots_and_law(
    rows: list[Row],
    title: str,
    law: Callable[[float], float] | None,
    answer: Recommendation,
    *,
    connected: bool = False,
) -> alt.LayerChart:
    x, y = _size_axis(), _log_axis("value", title)
    base = alt.Chart(_values(rows))
    layers: list[Any] = []
    if law is not None and rows:
        sizes = [row["batch_size"] for row in rows]
        line = [
            {"batch_size": float(size), "value": law(float(size))} for size in np.geomspace(min(sizes), max(sizes), 60)
        ]
        layers.append(alt.Chart(_values(line)).mark_line(strokeDash=[5, 4], color=GREY).encode(x=x, y=y))
    if connected:
        layers += [base.mark_line(color=BLUE).encode(x=x, y=y), *_points(rows, x, y, size=40)]
    else:
        layers.append(base.mark_point(size=40, color=BLUE, opacity=0.8).encode(x=x, y=y))
    rule = alt.Chart(_values([{"batch_size": answer.batch_size}]))
    layers.append(rule.mark_rule(color=GREEN, strokeDash=[2, 3]).encode(x=x))
    return _layered(layers)


def _points(rows: Sequence[Row], x: alt.X, y: alt.Y, *, size: int) -> list[Any]:
    """Filled points of what was measured, hollow ones of what is predicted."""
    return [
        alt.Chart(_values([row for row in rows if row["measured"] is measured]))
        .mark_point(filled=True, size=size, stroke=BLUE, fill=BLUE if measured else "white", opacity=1)
        .encode(x=x, y=y)
        for measured in (False, True)
    ]


def _layered(layers: Sequence[Any]) -> alt.LayerChart:
    chart = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
    return chart.configure(font="system-ui, sans-serif").configure_axis(  # type: ignore[no-any-return]
        labelFontSize=12, titleFontSize=13, gridColor="#e6e6e6"
    )


def _size_axis(field: str = "batch_size") -> alt.X:
    axis = alt.Axis(format="~d", labelOverlap=True)
    return alt.X(
        f"{field}:Q", title="batch size", scale=alt.Scale(type="log", base=2, nice=False, padding=10), axis=axis
    )


def _log_axis(field: str, title: str | None) -> alt.Y:
    scale = alt.Scale(type="log", nice=False, padding=12)
    axis = alt.Axis(format="~g", labelOverlap=True)
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=axis) if title else alt.Y(f"{field}:Q", scale=scale)


def _values(rows: Sequence[Row]) -> alt.Data:
    return alt.Data(values=list(rows))  # type: ignore[no-untyped-call]


def _unit(objective: Objective) -> str:
    return {Objective.TIME: " (s)", Objective.METRIC: " (1.1: 2 % of the gain)"}.get(objective, "")
