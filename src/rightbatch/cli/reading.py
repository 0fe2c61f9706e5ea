"""The verbs that read: workloads, show, report, export; and reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from rightbatch.bundled import WORKLOADS
from rightbatch.cli.app import app, err, interruptible, out, print_answer, print_json
from rightbatch.cli.arguments import asked
from rightbatch.cli.live import follow as follow_study
from rightbatch.cli.options import (
    AtExamples,
    AtSeconds,
    FirstTouch,
    Json,
    Present,
    SettingOption,
    StudyPath,
    TargetOn,
    TargetOption,
)
from rightbatch.pipeline import export as exporting
from rightbatch.pipeline import reproduce as reproducing
from rightbatch.pipeline import show as showing
from rightbatch.report import units
from rightbatch.reproduction import SIZES


@app.command()
def workloads(as_json: Json = False) -> None:
    """List the bundled workloads."""
    if as_json:
        print_json([{"name": n, "description": b.description, "data": b.data} for n, b in WORKLOADS.items()])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("name", "what", "data"):
        table.add_column(column)
    for name, bundled in WORKLOADS.items():
        table.add_row(name, bundled.description, bundled.data)
    out.print(table)


@app.command("show")
def show_command(
    study: StudyPath,
    objective: Annotated[str | None, typer.Option(help="time, examples, steps, or metric.")] = None,
    target: TargetOption = None,
    target_on: TargetOn = None,
    first_touch: FirstTouch = None,
    at_seconds: AtSeconds = None,
    at_examples: AtExamples = None,
    present: Present = None,
    settings: SettingOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show it as another process goes on with it.")] = False,
    as_json: Json = False,
) -> None:
    """Show the answer of a study as it stands, for this or another question. Trains nothing."""
    ask = asked(
        objective=objective,
        target=target,
        target_on=target_on,
        first_touch=first_touch,
        at_seconds=at_seconds,
        at_examples=at_examples,
        present=present,
        settings=settings,
    )
    if follow:
        with interruptible():
            follow_study(study, out, **ask)
    answer, _ = showing.show(study, **ask)
    print_answer(answer, as_json, study)


@app.command()
def report(
    study: StudyPath,
    to: Annotated[Path | None, typer.Option("--out", help="The page to write (STUDY.html).")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Also write each figure as PNG, SVG and PDF to this folder.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write a summary in Markdown to this file.")] = None,
    objective: Annotated[str | None, typer.Option(help="time, examples, steps, or metric.")] = None,
    target: TargetOption = None,
    target_on: TargetOn = None,
    first_touch: FirstTouch = None,
    at_seconds: AtSeconds = None,
    at_examples: AtExamples = None,
    present: Present = None,
    settings: SettingOption = None,
    as_json: Json = False,
) -> None:
    """Write the page of a study: the answer and its figures in one file that opens offline. Trains nothing."""
    from rightbatch.pipeline.sheets import sheet_of
    from rightbatch.report.markdown import markdown as in_markdown
    from rightbatch.report.page import write, write_figures, write_page  # charts take half a second to import

    ask = asked(
        objective=objective,
        target=target,
        target_on=target_on,
        first_touch=first_touch,
        at_seconds=at_seconds,
        at_examples=at_examples,
        present=present,
        settings=settings,
    )
    sheet = sheet_of(study, **ask)
    written = [write_page(sheet, to or Path(str(study).removesuffix(".study.db") + ".html"))]
    if figures is not None:
        written += write_figures(sheet, figures)
    if markdown is not None:
        write(markdown, in_markdown(sheet).encode())
        written.append(markdown)
    page = written[0]
    if as_json:
        print_json({"page": str(page), "files": [str(path) for path in written]})
    else:
        for path in written:
            out.print(str(path), soft_wrap=True)


@app.command("export")
def export_command(
    study: StudyPath,
    to: Annotated[Path, typer.Argument(help="FILE.csv, FILE.csv.gz or FILE.parquet.")],
    whole_curves: Annotated[bool, typer.Option("--curves", help="One row a point instead of one row a run.")] = False,
    target: TargetOption = None,
    settings: SettingOption = None,
    as_json: Json = False,
) -> None:
    """Write the runs of a study, or all their curves, as a table."""
    rows = exporting.export(study, to, whole_curves=whole_curves, **asked(target=target, settings=settings))
    if as_json:
        print_json({"file": str(to), "rows": rows})
    else:
        out.print(f"{to}: {rows:,} rows", soft_wrap=True)


@app.command("reproduce")
def reproduce_command(
    name: Annotated[str | None, typer.Argument(help="A file of the folder, without .py.")] = None,
    size: Annotated[
        str, typer.Option(help="smoke (seconds), small (minutes to hours), or paper (all of it).")
    ] = "small",
    list_all: Annotated[bool, typer.Option("--list", help="List what there is and what was recorded.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where reproductions lie (reproductions).")] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Where record and page are written (FOLDER/results).")
    ] = None,
    again: Annotated[bool, typer.Option(help="Begin anew what was interrupted or done before.")] = False,
    retell: Annotated[
        bool, typer.Option(help="Measure nothing: hold what was recorded to today's claims, and tell it anew.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Reproduce a paper: claim beside measurement, a record and a page. Exit code 3 where a claim does not hold."""
    if list_all:
        _print_reproductions(folder, as_json)
        return
    if name is None:
        raise typer.BadParameter("say which one, or --list", param_hint="NAME")
    if retell and again:
        raise typer.BadParameter("what is measured again cannot be what was recorded", param_hint="--retell --again")
    where: dict[str, Any] = {"size": size, "folder": folder, "out": to}
    with interruptible(), err.status("measuring") as status:
        result = (
            reproducing.retell(name, **where)
            if retell
            else reproducing.reproduce(
                name, again=again, watch=lambda unit, seconds, kept: status.update(unit), **where
            )
        )
    if as_json:
        print_json(result)
    else:
        for claim, done in zip(result.claims, result.comparisons, strict=True):
            line = f"{done.verdict:11} {claim.sentence}: {units.interval(done.interval)} of {done.published:.6g}"
            out.print(line, markup=False, soft_wrap=True)
        out.print(result.summary, markup=False)
    if not result.holds:
        raise typer.Exit(3)


def _print_reproductions(folder: Path | None, as_json: bool) -> None:
    rows: list[dict[str, Any]] = []
    for found in reproducing.reproductions(folder):
        kept = {size: reproducing.recorded(found.name, size, folder) for size in SIZES}
        sizes_of = {
            size: {"budget_seconds": found.budget_seconds[size], "recorded": done.summary if done else None}
            for size, done in kept.items()
        }
        about = {"name": found.name, "source": found.source, "smallest_effect": found.smallest_effect}
        rows.append({**about, "sizes": sizes_of})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        out.print(f"{row['name']}: {row['source']}", markup=False, soft_wrap=True)
        for size, said in row["sizes"].items():
            budget = units.seconds(said["budget_seconds"])
            recorded = said["recorded"] or "not recorded"
            out.print(f"    {size:6} at most {budget:12} {recorded}", markup=False, soft_wrap=True)
