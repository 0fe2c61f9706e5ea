"""A study's page: one HTML file that opens offline and asks the network for nothing."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from rightbatch.answer import Recommendation
from rightbatch.errors import InputError
from rightbatch.evidence import Evidence
from rightbatch.report import terminal, units
from rightbatch.report.plots import FIGURES, Figure

FIGURE_ROWS = 60
"""Longer tables are left to `rightbatch export`; the page stays small however large the study."""


def write_page(answer: Recommendation, evidence: Evidence, path: Path) -> Path:
    """Write the page; its path. Raises `InputError` if it cannot be written."""
    _write(path, page(answer, evidence).encode())
    return path


def write_figures(answer: Recommendation, evidence: Evidence, folder: Path) -> list[Path]:
    """Write every figure that has data as PNG and SVG; their paths. Raises `InputError` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error}. Choose another folder.") from error
    written = []
    for figure in FIGURES:
        if not figure.data(answer, evidence):
            continue
        specification = figure.draw(answer, evidence).to_dict()
        for ending, content in (
            ("svg", vl_convert.vegalite_to_svg(specification).encode()),
            ("png", vl_convert.vegalite_to_png(specification, scale=2)),
        ):
            path = folder / f"{figure.name}.{ending}"
            _write(path, content)
            written.append(path)
    return written


def page(answer: Recommendation, evidence: Evidence) -> str:
    """The whole page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((files("rightbatch.report") / "page.html").read_text(encoding="utf-8"))
    return template.render(
        answer=answer,
        facts=evidence.facts,
        target=terminal.describe_target(answer),
        as_good=terminal.as_good_text(answer),
        cost_text=terminal.cost_text(answer),
        present=terminal.present_text(answer),
        fresh=[terminal.fresh_text(answer, cost) for cost in answer.fresh_costs],
        figures=[_shown(figure, answer, evidence) for figure in FIGURES],
        runs=_outcomes(evidence),
        units=units,
        cost=lambda value: units.interval(value, lambda v: units.cost(v, answer.objective)),
    )


def _shown(figure: Figure, answer: Recommendation, evidence: Evidence) -> dict[str, Any]:
    rows = figure.data(answer, evidence)
    svg = vl_convert.vegalite_to_svg(figure.draw(answer, evidence).to_dict()) if rows else ""
    columns = list(rows[0]) if rows else []
    cells = [[_cell(row[column]) for column in columns] for row in rows[:FIGURE_ROWS]]
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "svg": Markup(svg),  # our own drawing: it holds numbers and our labels, nothing that a person named
        "columns": [column.replace("_", " ") for column in columns],
        "rows": cells,
        "left_out": max(0, len(rows) - FIGURE_ROWS),
    }


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return units.significant(value, 4) if isinstance(value, float) else str(value)


def _outcomes(evidence: Evidence) -> list[tuple[str, int]]:
    """How many runs ended for which reason, in words."""
    counts: dict[str, int] = {}
    for run in evidence.runs:
        said = "still running" if run.stop is None else run.stop.message or run.stop.reason.value
        counts[said.splitlines()[0]] = counts.get(said.splitlines()[0], 0) + 1
    return sorted(counts.items(), key=lambda pair: -pair[1])


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Choose another path with --out.") from error
