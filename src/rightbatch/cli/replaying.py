"""The verb that judges searches: replay."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from rightbatch.cli.app import app, err, interruptible, out, print_json
from rightbatch.cli.options import Json, Workers
from rightbatch.pipeline import replay as replaying
from rightbatch.report import units

SHOWN_AFTER = (0.5, 1.0, 3.0)
"""Spends, in units, that are printed, and the last one: a line fits into 80 characters. JSON has more."""


@app.command("replay")
def replay_command(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Tables of curves, two seeds or more.")],
    targets: Annotated[
        list[float] | None, typer.Option("--target", help="Value to reach, may be repeated; else five are chosen.")
    ] = None,
    strategies: Annotated[
        list[str] | None, typer.Option("--strategy", help="A strategy to play, may be repeated; else all.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often seeds are split anew.")] = replaying.REPEATS,
    first_repeat: Annotated[int, typer.Option(min=0, help="Number, and seed, of the first repeat.")] = 0,
    until: Annotated[float, typer.Option("--units", help="Spend at which searches are stopped.")] = replaying.UNITS,
    optimizer: Annotated[str, typer.Option(help="What searches are told: SGD, SGD momentum, Adam.")] = "",
    train_examples: Annotated[int, typer.Option(min=0, help="How many training examples searches are told of.")] = 0,
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Play searches on recorded tables: each sees half of the seeds, its advice is judged on the others."""
    reports = []
    with interruptible():
        for path in tables:
            with err.status(f"playing {path.name}") as status:
                reports.append(
                    replaying.replay(
                        path,
                        targets or (),
                        strategies=strategies or None,
                        repeats=repeats,
                        first_repeat=first_repeat,
                        until_units=until,
                        optimizer=optimizer,
                        train_examples=train_examples,
                        workers=workers,
                        watch=lambda done, of, path=path, status=status: status.update(  # type: ignore[misc]
                            f"playing {path.name}: {done:,} of {of:,}"
                        ),
                    )
                )
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            _print(report)


def _print(report: replaying.ReplayReport) -> None:
    for target in report.targets:
        scale = target.scale
        title = (
            f"\n{report.table}: target {scale.target:.6g} takes {units.seconds(scale.reference_seconds)} "
            f"at the best ({scale.best[0]} at {units.rate(scale.best[1])}), "
            f"{units.times(target.small_ratio)} that at batch size 32; a unit is {units.seconds(scale.unit_seconds)}"
        )
        out.print(title, markup=False, soft_wrap=True)
        out.print(_rows(target))
        floor = target.floor
        out.print(
            f"floor {_regret(floor.median)}/{_regret(floor.ninetieth)}, misses {100 * floor.missing:.0f} %: "
            f"an oracle that knows one seed of every batch size and rate",
            soft_wrap=True,
        )
    out.print(
        f"\nregret: judged time of the advice over the best, median/90th percentile of {report.repeats} repeats; "
        "misses: the last advice misses the target with half of the judging seeds or more; "
        "to 1.25: the spend from which on the median stays there; "
        "covered: judging seeds in the stated 90 % interval",
        style="dim",
        soft_wrap=True,
    )


def _rows(target: replaying.TargetReport) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("after", no_wrap=True)
    all_spends = [after.spend_units for after in next(iter(target.outcomes.values())).after]
    shown = [k for k, spend in enumerate(all_spends) if spend in SHOWN_AFTER or spend == all_spends[-1]]
    for k in shown:
        table.add_column(f"{all_spends[k]:g} units", justify="right", no_wrap=True)
    for column in ("to 1.25", "misses", "covered"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, outcome in target.outcomes.items():
        cells = [f"{_regret(a.regret.median)}/{_regret(a.regret.ninetieth)}" for a in (outcome.after[k] for k in shown)]
        lasting = f"{outcome.lasting_units:.2f}" if math.isfinite(outcome.lasting_units) else "never"
        covered = "-" if outcome.covered is None else f"{100 * outcome.covered:.0f} %"
        table.add_row(name, *cells, lasting, f"{100 * outcome.final.missing:.0f} %", covered)
    return table


def _regret(value: float) -> str:
    return "miss" if math.isinf(value) else f"{value:.2f}" if value < 9.995 else f"{value:.3g}"
