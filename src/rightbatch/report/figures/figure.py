"""A figure is its numbers, its drawing, and what it says in words: a reader may have any of the three."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import altair as alt

from rightbatch.question import Objective
from rightbatch.report.figures.drawing import Row
from rightbatch.report.sheet import Sheet
from rightbatch.typed import possible

NO_MODEL = "Only a rightbatch.Workload shows its model: a loop, a program and a table do not."

Condition = Callable[[Sheet, list[Row]], bool]
Caption = tuple[str | tuple[str, Condition], ...]


@dataclass(frozen=True)
class Figure:
    """One figure of the page.

    caption: What its marks mean; a sentence with a condition is said where what it speaks of is drawn.
    data: Its numbers; none where nothing of the kind was measured.
    draw: The drawing of such numbers.
    tell: What they say, in a sentence or two.
    varies: What a control of the page switches: "target", for the sheets of easier targets; else a column of the
        numbers, each value of which is drawn by itself.
    measure: The command that would measure what is missing: a verb on the workload, with options, or one that takes
        the {study} and a {pair} of its runs.
    applies: Whether the question has such a figure at all.
    """

    name: str
    title: str
    caption: str | Caption
    data: Callable[[Sheet], list[Row]]
    draw: Callable[[Sheet, list[Row]], alt.LayerChart]
    tell: Callable[[Sheet, list[Row]], str]
    varies: Literal["target", "patience_in", "judged_by"] | None = None
    measure: str = "find"
    applies: Callable[[Sheet], bool] = lambda sheet: True


def caption_of(figure: Figure, variant: Variant) -> str:
    """The caption of a drawing, without what is not drawn."""
    if isinstance(figure.caption, str):
        return figure.caption
    said = []
    for part in figure.caption:
        sentence, drawn = (part, None) if isinstance(part, str) else part
        if drawn is None or drawn(variant.sheet, variant.rows):
            said.append(sentence)
    return " ".join(said)


def predicted(sheet: Sheet, rows: list[Row]) -> bool:
    """Whether some of the points are predicted, and so hollow."""
    return any(not row["measured"] for row in rows)


def measuring(figure: Figure, sheet: Sheet) -> str:
    """The command that would measure what a figure lacks; empty where nothing can."""
    verb, _, rest = figure.measure.partition(" ")
    if "{" in rest and possible(verb, sheet.evidence.facts):
        return "rightbatch " + figure.measure.format(study=shlex.quote(sheet.file), pair=_pair(sheet))
    return sheet.command(verb, *rest.split())


def _pair(sheet: Sheet) -> str:
    """Two runs that have left their weights, by the numbers of the first and the last that were looked at."""
    runs = sorted({record.run for record in sheet.evidence.weights})
    return f"{runs[0]},{runs[-1]}" if len(runs) > 1 else "RUN,RUN"


def to_target(sheet: Sheet) -> bool:
    """Whether runs were trained to a target: with the objective METRIC they are compared at equal cost."""
    return sheet.answer.objective is not Objective.METRIC


@dataclass(frozen=True)
class Variant:
    """A figure at one position of its control; `position` is empty where there is none."""

    position: str
    sheet: Sheet
    rows: list[Row]


def variants(figure: Figure, sheet: Sheet) -> list[Variant]:
    """A figure at every position of its control that has numbers, the one that is shown first at the end."""
    if not figure.applies(sheet):
        return []
    if figure.varies == "target":
        sheets = (*sheet.easier, sheet)
        return [Variant(position_of(one), one, rows) for one in sheets if (rows := figure.data(one))]
    rows = figure.data(sheet)
    if not rows:
        return []
    if figure.varies is None:
        return [Variant("", sheet, rows)]
    column = figure.varies
    found = list(dict.fromkeys(row[column] for row in rows))
    return [Variant(value, sheet, [row for row in rows if row[column] == value]) for value in found]


def position_of(sheet: Sheet) -> str:
    """What the control of the target calls a sheet."""
    return f"{sheet.answer.target.value:.4g}"
