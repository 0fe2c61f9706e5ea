"""What all figures are drawn with: colours, axes, marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import altair as alt
import numpy as np

Row = dict[str, Any]
"""One row of the numbers of a figure, which is also what a reader gets as a table."""

BLUE, ORANGE, GREEN, SKY = "#0072b2", "#d55e00", "#008060", "#56b4e9"
"""From the palette of Okabe and Ito, which colour-blind readers tell apart; the green a little darker, to be read."""

INK, GREY, GRID = "#1b1b1b", "#5f5f5f", "#e4e4e4"
SHADES = ("#f0f4f8", "#b9d4e6", "#6ba6cd", "#2673a8", "#0b3c5d")
"""From little to much, the lighter the less: told apart in black and white too."""

WIDTH, HEIGHT = 400, 250
"""Small enough for a telephone: what is drawn at this size is still read at 330 pixels."""

EMPTY = "#ffffff"
"""The inside of a hollow point."""


def values(rows: Sequence[Row]) -> alt.Data:
    """Rows as the data of a chart."""
    return alt.Data(values=list(rows))  # type: ignore[no-untyped-call]


def layered(layers: Sequence[Any]) -> alt.LayerChart:
    """One figure of several layers."""
    chart = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, background="transparent")
    configured: alt.LayerChart = (
        chart.configure(font="system-ui, sans-serif")
        .configure_axis(
            labelFontSize=13,
            titlePadding=14,
            titleFontSize=13,
            labelColor=INK,
            titleColor=INK,
            gridColor=GRID,
            domainColor=GREY,
            tickColor=GREY,
        )
        .configure_view(stroke=GRID)
        .configure_legend(
            labelColor=INK,
            titleColor=INK,
            labelFontSize=12,
            titleFontSize=12,
            orient="bottom",
            columns=3,
            columnPadding=16,
        )
    )
    return configured


TICKS = 4
"""As few as give powers of two alone: between two of them, and every other one where there are many."""


def size_axis(field: str = "batch_size") -> alt.X:
    """Batch size, logarithmic, with ticks at powers of two."""
    axis = alt.Axis(format="~d", labelOverlap=True, tickCount=TICKS)
    scale = alt.Scale(type="log", base=2, nice=False, padding=10)
    return alt.X(f"{field}:Q", title="batch size", scale=scale, axis=axis)


def log_axis(field: str, title: str | None, padding: float = 12) -> alt.Y:
    """A logarithmic axis upwards; without a title, another field on the same axis."""
    scale = alt.Scale(type="log", nice=False, padding=padding)
    axis = alt.Axis(format=".6~g", labelOverlap=True, tickCount=7)
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=axis) if title else alt.Y(f"{field}:Q", scale=scale)


def points(rows: Sequence[Row], x: alt.X, y: alt.Y, *, size: int) -> list[Any]:
    """Filled points of what was measured, hollow ones of what is predicted."""
    return [
        alt.Chart(values([row for row in rows if row["measured"] is measured]))
        .mark_point(filled=True, size=size, stroke=BLUE, fill=BLUE if measured else EMPTY, opacity=1)
        .encode(x=x, y=y)
        for measured in (False, True)
    ]


Align = Literal["left", "center", "right"]


def mark(
    size: float,
    height: float,
    field: str,
    label: str,
    colour: str,
    x: alt.X,
    y: alt.Y,
    align: Align = "center",
    *,
    above: bool = False,
) -> Any:
    """A ring with a word below or above it."""
    chart = alt.Chart(values([{"batch_size": size, field: height, "label": label}]))
    ring = chart.mark_point(size=260, color=colour, strokeWidth=3).encode(x=x, y=y)
    text = chart.mark_text(dy=-24 if above else 24, color=colour, fontWeight="bold", fontSize=14, align=align)
    return ring + text.encode(x=x, y=y, text="label:N")


def upright(size: float, label: str, colour: str) -> list[Any]:
    """A line upright at a batch size, with a word at its top."""
    chart = alt.Chart(values([{"batch_size": size, "label": label}]))
    x = size_axis()
    return [
        chart.mark_rule(color=colour, strokeDash=[6, 3]).encode(x=x),
        chart.mark_text(align="right", dx=-4, dy=10, y=0, color=colour, fontSize=12).encode(x=x, text="label:N"),
    ]


def dots_and_law(
    rows: list[Row],
    title: str,
    law: Callable[[float], float] | None,
    chosen: int,
    *,
    connected: bool = False,
) -> alt.LayerChart:
    """Values against batch size, a fitted law dashed, the chosen size marked by a line."""
    x, y = size_axis(), log_axis("value", title)
    base = alt.Chart(values(rows))
    layers: list[Any] = []
    if law is not None and rows:
        sizes = [row["batch_size"] for row in rows]
        line = [
            {"batch_size": float(size), "value": law(float(size))} for size in np.geomspace(min(sizes), max(sizes), 60)
        ]
        layers.append(alt.Chart(values(line)).mark_line(strokeDash=[5, 4], color=GREY).encode(x=x, y=y))
    if connected:
        layers += [base.mark_line(color=BLUE).encode(x=x, y=y), *points(rows, x, y, size=40)]
    else:
        layers.append(base.mark_point(size=40, color=BLUE, opacity=0.8).encode(x=x, y=y))
    rule = alt.Chart(values([{"batch_size": chosen}]))
    layers.append(rule.mark_rule(color=GREEN, strokeDash=[2, 3]).encode(x=x))
    return layered(layers)
