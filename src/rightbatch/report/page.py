"""A study's page: one HTML file that opens offline and asks the network for nothing."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from rightbatch.errors import InputError
from rightbatch.report import rules, runs, spoken, svg, terminal, units
from rightbatch.report.figures import FIGURES
from rightbatch.report.figures.figure import NO_MODEL, Figure, Variant, caption_of, measuring, position_of, variants
from rightbatch.report.figures.sweet_spot import zone_of
from rightbatch.report.growth import growth_text
from rightbatch.report.sheet import Sheet
from rightbatch.rules import Untold, Verdict

FIGURE_ROWS = 60
"""Longer tables are left to `rightbatch export`; the page stays small however large the study."""

DRAWINGS: Mapping[str, Callable[[dict[str, Any]], bytes]] = {
    "svg": lambda specification: vl_convert.vegalite_to_svg(specification).encode(),
    "png": lambda specification: vl_convert.vegalite_to_png(specification, scale=2),
    "pdf": lambda specification: vl_convert.vegalite_to_pdf(specification),
}


@dataclass(frozen=True)
class Section:
    """A part of the page: its figures by name, and the control that switches them, if any."""

    title: str
    text: str
    figures: tuple[str, ...]
    control: str | None = None


SECTIONS = (
    Section(
        "The sweet spot",
        "Cost is steps to the target times seconds per step: larger batches need fewer steps, and each takes longer. "
        "Where the product is least depends on how far one trains.",
        ("sweet-spot", "frontier", "steps", "step-time", "growing"),
        "target",
    ),
    Section(
        "Time per epoch, time to the target, quality",
        "Three questions that are often taken for one: the size of the fastest epoch is rarely that of the fastest "
        "training.",
        ("epoch", "target", "quality"),
    ),
    Section("Learning rate and batch size", "Neither can be chosen without the other.", ("rates",), "judged_by"),
    Section(
        "Early stopping",
        "From the recorded curves, without training again. A patience that is counted in epochs gives a large batch "
        "fewer steps than a small one, one that is counted in steps gives a small batch fewer examples. Evaluations "
        "lie on a ladder, each at about 1.2 times the examples of the one before.",
        ("stopping",),
        "patience_in",
    ),
    Section(
        "Generalization, sharp minima and gradient noise",
        "Whether large batches end in sharper minima, and whether these generalise worse, is looked at in the weights "
        "that runs left (--keep-models last).",
        ("gap", "sharpness", "path", "temperature", "noise"),
    ),
)

CONTROLS = {
    "target": "Target",
    "judged_by": "Judge a rate by",
    "patience_in": "Count patience in",
}


def write_page(sheet: Sheet, path: Path) -> Path:
    """Write the page; its path. Raises `InputError` if it cannot be written."""
    write(path, page(sheet).encode())
    return path


def write_figures(sheet: Sheet, folder: Path) -> list[Path]:
    """Write every figure that has data as PNG, SVG and PDF; their paths. Raises `InputError` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error}. Choose another folder.") from error
    written = []
    for figure in FIGURES:
        for variant in variants(figure, sheet):
            asked_for = figure.varies != "target" or variant.sheet is sheet
            if not asked_for:
                continue
            own = f"{figure.name}-{variant.position}" if figure.varies not in (None, "target") else figure.name
            specification = _specification(figure, variant)
            for ending, drawn in DRAWINGS.items():
                path = folder / f"{own}.{ending}"
                write(path, drawn({**specification, "background": "white"}))
                written.append(path)
    return written


def page(sheet: Sheet) -> str:
    """The whole page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((files("rightbatch.report") / "page.html").read_text(encoding="utf-8"))
    answer, facts = sheet.answer, sheet.evidence.facts
    figures = {figure.name: figure for figure in FIGURES}
    return template.render(
        answer=answer,
        facts=facts,
        target=terminal.describe_target(answer),
        as_good=terminal.as_good_text(answer),
        cost_text=terminal.cost_text(answer),
        present=terminal.present_text(answer),
        fresh=terminal.fresh_text(answer) if answer.fresh_costs else "",
        growing=growth_text(answer.growth) if answer.growth else "",
        change=spoken.change_text(answer),
        sure=spoken.sure_text(answer),
        factor_of_two=spoken.factor_of_two_text(answer),
        sections=[section for one in SECTIONS if (section := _section(one, figures, sheet))["figures"]],
        easier=[(position_of(one), one) for one in (*sheet.easier, sheet)],
        shown=position_of(sheet),
        outcomes=runs.outcomes(sheet),
        cells=_table(runs.cells(sheet), runs.MOST_CELLS),
        trials=_table(runs.trials(sheet), runs.MOST_RUNS),
        machines=runs.machines(sheet),
        study=shlex.quote(sheet.file),
        command=sheet.command,
        no_model=NO_MODEL,
        memory=sheet,
        verdicts=_verdicts(sheet),
        units=units,
        zone=lambda size: zone_of(answer, size),
        cost=lambda value: units.interval(value, lambda v: units.cost(v, answer.objective)),
    )


def _verdicts(sheet: Sheet) -> dict[str, Any] | None:
    """The rule book as the page shows it: what was told, the readings by protocol, what is open."""
    if sheet.verdicts is None:
        return None
    judged, read = sheet.verdicts.judgements, sheet.verdicts.readings
    return {
        "told": [one for one in judged if one.verdict in (Verdict.FAILS, Verdict.HOLDS)],
        "open": [one for one in judged if one.verdict is Verdict.CANNOT_TELL],
        "readings": () if isinstance(read, Untold) else read,
        "effect": rules.effect_value,
        "words": rules.IS_WORSE,
    }


def _section(section: Section, figures: Mapping[str, Figure], sheet: Sheet) -> dict[str, Any]:
    shown = [_shown(figures[name], sheet) for name in section.figures if figures[name].applies(sheet)]
    positions: dict[str, bool] = {}
    if section.control is not None:
        for figure in shown:
            if figure["varies"] == section.control:
                positions |= {drawn["position"]: drawn["first"] for drawn in figure["drawings"]}
    return {
        "title": section.title,
        "text": section.text,
        "figures": shown,
        "control": section.control if len(positions) > 1 else None,
        "legend": CONTROLS.get(section.control or "", ""),
        "positions": list(positions.items()),
        "said": {position_of(one): _share_text(one) for one in (*sheet.easier, sheet)},
    }


def _share_text(sheet: Sheet) -> str:
    return "asked for" if sheet.share == 1 else f"{100 * sheet.share:.0f} % of the gain"


def _shown(figure: Figure, sheet: Sheet) -> dict[str, Any]:
    found = variants(figure, sheet)
    first = len(found) - 1 if figure.varies == "target" else 0
    return {
        "name": figure.name,
        "title": figure.title,
        "varies": figure.varies,
        "drawings": [_drawn(figure, variant, k, k == first) for k, variant in enumerate(found)],
        "measure": measuring(figure, sheet),
    }


def _drawn(figure: Figure, variant: Variant, number: int, first: bool) -> dict[str, Any]:
    """One position of a figure: its picture, its words, its table."""
    drawing = vl_convert.vegalite_to_svg(_specification(figure, variant))
    rows = [{key: value for key, value in row.items() if key != figure.varies} for row in variant.rows]
    return {
        "position": variant.position,
        "first": first,
        "svg": svg.for_page(drawing, f"{figure.name}-{number}", figure.title),
        "caption": caption_of(figure, variant),
        "tells": figure.tell(variant.sheet, variant.rows),
        "table": _table([{column.replace("_", " "): value for column, value in row.items()} for row in rows]),
    }


def _specification(figure: Figure, variant: Variant) -> dict[str, Any]:
    # What is drawn is ours and tested; to check it against the schema of the grammar takes most of the time.
    drawn: dict[str, Any] = figure.draw(variant.sheet, variant.rows).to_dict(validate=False)
    return drawn


def _table(rows: Sequence[Mapping[str, Any]], most: int = FIGURE_ROWS) -> dict[str, Any]:
    columns = list(rows[0]) if rows else []
    cells = [[_cell(row[column]) for column in columns] for row in rows[:most]]
    return {"columns": columns, "rows": cells, "left_out": max(0, len(rows) - most)}


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return units.significant(value, 4) if isinstance(value, float) else str(value)


def write(path: Path, content: bytes) -> None:
    """Write a file. Raises `InputError` if it cannot be written."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Choose another path with --out.") from error
