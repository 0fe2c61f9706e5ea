"""The command line: one verb per arrow of the house, with the names of the functions it calls.

Results go to standard output, progress to standard error. Exit codes: 0 done, 1 an error that the person can correct,
2 usage, 3 the evidence does not support an answer, 130 interrupted (the same command goes on).
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from rightbatch import __version__
from rightbatch.answer import Recommendation
from rightbatch.arguments import asked, given, numbers, sizes
from rightbatch.bundled import WORKLOADS
from rightbatch.errors import ChangedCodeError, RightbatchError
from rightbatch.live import Live
from rightbatch.live import follow as follow_study
from rightbatch.options import (
    AtExamples,
    AtSeconds,
    Budget,
    ChangedCode,
    Device,
    Direction,
    Epochs,
    FirstTouch,
    Json,
    Metrics,
    ObjectiveOption,
    Pattern,
    PlannedExamples,
    Present,
    Seeds,
    SettingOption,
    Sizes,
    StudyOption,
    StudyPath,
    TargetOn,
    TargetOption,
    Threads,
    Timeout,
    TrainExamples,
    Words,
    Workers,
)
from rightbatch.pipeline import export as exporting
from rightbatch.pipeline import find as finding
from rightbatch.pipeline import show as showing
from rightbatch.pipeline import sweep as sweeping
from rightbatch.pipeline.profile import ROUNDS, profile, sizes_to_try
from rightbatch.pipeline.runners import as_runner
from rightbatch.pipeline.setting_up import default_study, open_study
from rightbatch.records import to_json
from rightbatch.report import terminal

app = typer.Typer(
    help="Which mini-batch size should I train with, at which learning rate? Measured on your model, data, hardware.",
    epilog="Add --debug to any command for the whole traceback of an error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

# --------------------------------------------------------------------------------------------------------- verbs


@app.command()
def workloads(as_json: Json = False) -> None:
    """List the bundled workloads."""
    if as_json:
        _print_json([{"name": n, "description": b.description, "data": b.data} for n, b in WORKLOADS.items()])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("name", "what", "data"):
        table.add_column(column)
    for name, bundled in WORKLOADS.items():
        table.add_row(name, bundled.description, bundled.data)
    out.print(table)


@app.command("profile")
def profile_command(
    words: Words,
    study: StudyOption = None,
    batch_sizes: Sizes = None,
    rounds: Annotated[int, typer.Option(min=3, help="Repeats of every size.")] = ROUNDS,
    again: Annotated[bool, typer.Option(help="Measure anew what the study has already.")] = False,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure seconds per step at each batch size."""
    runner = as_runner(given(words), device=device, threads=threads)
    chosen = sizes(batch_sizes) or sizes_to_try(runner)
    with _interruptible(), open_study(study, runner.facts) as kept, err.status("measuring seconds per step"):
        records = profile(kept, runner, chosen, rounds=rounds, again=again)
    summary = terminal.profile_summary(records)
    if as_json:
        _print_json(summary)
    else:
        terminal.print_profile(summary, out)


@app.command("sweep")
def sweep_command(
    words: Words,
    batch_sizes: Annotated[str, typer.Option(help="16,32,64, or 4..4096 (powers of two between).")],
    study: StudyOption = None,
    seeds: Seeds = 3,
    rates: Annotated[str | None, typer.Option(help="Rates, as 0.01,0.1; else tuned on the lattice.")] = None,
    until: Annotated[str, typer.Option(help="When a run ends: horizon, target, or patience.")] = "horizon",
    patience: Annotated[float, typer.Option(help="With --until patience: how long without improvement.")] = 10,
    patience_unit: Annotated[str, typer.Option(help="evaluations, steps, or examples.")] = "evaluations",
    objective: ObjectiveOption = "time",
    target: TargetOption = None,
    target_on: TargetOn = None,
    first_touch: FirstTouch = False,
    at_seconds: AtSeconds = None,
    at_examples: AtExamples = None,
    present: Present = None,
    epochs: Epochs = None,
    planned_examples: PlannedExamples = None,
    settings: SettingOption = None,
    direction: Direction = None,
    train_examples: TrainExamples = None,
    metrics: Metrics = None,
    pattern: Pattern = None,
    timeout: Timeout = None,
    budget: Budget = None,
    device: Device = None,
    threads: Threads = None,
    workers: Workers = 1,
    changed_code: ChangedCode = "refuse",
    as_json: Json = False,
) -> None:
    """Train at every batch size, the rate tuned at each, with every seed."""
    ask = asked(
        objective=objective,
        target=target,
        target_on=target_on,
        first_touch=first_touch,
        at_seconds=at_seconds,
        at_examples=at_examples,
        present=present,
        epochs=epochs,
        planned_examples=planned_examples,
        settings=settings,
        direction=direction,
        train_examples=train_examples,
    )
    workload = given(words, ask, metrics=metrics, pattern=pattern, timeout_seconds=timeout)
    chosen = sizes(batch_sizes)
    assert chosen is not None  # the option is required

    def make(code: str) -> Recommendation:
        with Live(err, budget_seconds=budget) as live:
            return sweeping.sweep(
                workload,
                chosen,
                study=study,
                seeds=seeds,
                rates=numbers(rates, "rates") if rates else None,
                until=until,
                patience=patience,
                patience_unit=patience_unit,
                budget_seconds=budget,
                device=device,
                threads=threads,
                workers=workers,
                changed_code=code,  # type: ignore[arg-type]
                watch=live.watch,
                **ask,
            )

    answer = _asking(make, changed_code)
    _print_answer(answer, as_json, study or default_study(answer.workload))


@app.command("find")
def find_command(
    words: Words,
    study: StudyOption = None,
    seeds: Seeds = 5,
    batch_sizes: Sizes = None,
    objective: ObjectiveOption = "time",
    target: TargetOption = None,
    target_on: TargetOn = None,
    first_touch: FirstTouch = False,
    at_seconds: AtSeconds = None,
    at_examples: AtExamples = None,
    present: Present = None,
    epochs: Epochs = None,
    planned_examples: PlannedExamples = None,
    settings: SettingOption = None,
    direction: Direction = None,
    train_examples: TrainExamples = None,
    metrics: Metrics = None,
    pattern: Pattern = None,
    timeout: Timeout = None,
    budget: Budget = None,
    device: Device = None,
    threads: Threads = None,
    workers: Workers = 1,
    keep_models: Annotated[str, typer.Option(help="Weights to keep of runs that may win: none, best, last.")] = "none",
    changed_code: ChangedCode = "refuse",
    as_json: Json = False,
) -> None:
    """Find the batch size and learning rate to train with. The same command continues where it was stopped."""
    ask = asked(
        objective=objective,
        target=target,
        target_on=target_on,
        first_touch=first_touch,
        at_seconds=at_seconds,
        at_examples=at_examples,
        present=present,
        epochs=epochs,
        planned_examples=planned_examples,
        settings=settings,
        direction=direction,
        train_examples=train_examples,
    )
    workload = given(words, ask, metrics=metrics, pattern=pattern, timeout_seconds=timeout)

    def make(code: str) -> Recommendation:
        with Live(err, budget_seconds=budget) as live:
            return finding.find(
                workload,
                study=study,
                seeds=seeds,
                batch_sizes=sizes(batch_sizes),
                budget_seconds=budget,
                device=device,
                threads=threads,
                workers=workers,
                keep_models=keep_models,  # type: ignore[arg-type]
                changed_code=code,  # type: ignore[arg-type]
                watch=live.watch,
                **ask,
            )

    answer = _asking(make, changed_code)
    _print_answer(answer, as_json, study or default_study(answer.workload))


@app.command("show")
def show_command(
    study: StudyPath,
    objective: Annotated[str | None, typer.Option(help="time, examples, steps, or metric.")] = None,
    target: TargetOption = None,
    target_on: TargetOn = None,
    first_touch: FirstTouch = False,
    at_seconds: AtSeconds = None,
    at_examples: AtExamples = None,
    present: Present = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show it as another process goes on with it.")] = False,
    as_json: Json = False,
) -> None:
    """Show the answer of a study as it stands, for this or another question. Trains nothing."""
    ask = asked(
        objective=objective or "time",
        target=target,
        target_on=target_on,
        first_touch=first_touch,
        at_seconds=at_seconds,
        at_examples=at_examples,
        present=present,
    )
    if follow:
        with _interruptible():
            follow_study(study, out, **ask)
    answer, _ = showing.show(study, **ask)
    _print_answer(answer, as_json, study)


@app.command()
def report(
    study: StudyPath,
    to: Annotated[Path | None, typer.Option("--out", help="The page to write (STUDY.html).")] = None,
    figures: Annotated[Path | None, typer.Option(help="Also write each figure as PNG and SVG to this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Write the page of a study: the answer and its figures in one file that opens offline."""
    from rightbatch.report.page import write_figures, write_page  # charts take half a second to import

    answer, evidence = showing.show(study)
    page = write_page(answer, evidence, to or Path(str(study).removesuffix(".study.db") + ".html"))
    written = [page, *(write_figures(answer, evidence, figures) if figures else [])]
    if as_json:
        _print_json({"page": str(page), "files": [str(path) for path in written]})
    else:
        for path in written:
            out.print(str(path), soft_wrap=True)


@app.command("export")
def export_command(
    study: StudyPath,
    to: Annotated[Path, typer.Argument(help="FILE.csv, FILE.csv.gz or FILE.parquet.")],
    whole_curves: Annotated[bool, typer.Option("--curves", help="One row a point instead of one row a run.")] = False,
    target: TargetOption = None,
    as_json: Json = False,
) -> None:
    """Write the runs of a study, or all their curves, as a table."""
    rows = exporting.export(study, to, whole_curves=whole_curves, target=target)
    if as_json:
        _print_json({"file": str(to), "rows": rows})
    else:
        out.print(f"{to}: {rows:,} rows", soft_wrap=True)


@app.callback(invoke_without_command=True)
def version_option(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        out.print(f"rightbatch {__version__}")
        raise typer.Exit


# -------------------------------------------------------------------------------------------------------- private


def _print_answer(answer: Recommendation, as_json: bool, study: Path) -> None:
    if as_json:
        _print_json(answer)
    else:
        terminal.print_answer(answer, out)
        if answer.model is not None:
            load = f"model.load_state_dict(torch.load({answer.model!r}, weights_only=True))"
            out.print(f"model     {load}", soft_wrap=True, markup=False)
        out.print(f"kept in   {study}; as a page: rightbatch report {study}", style="dim", soft_wrap=True, markup=False)


def _print_json(record: Any) -> None:
    print(json.dumps(to_json(record), indent=1, allow_nan=False))


class Interrupted(RightbatchError):
    """Ctrl-C; what was measured is kept."""

    exit_code = 130


def _asking(make: Callable[[str], Recommendation], changed_code: str) -> Recommendation:
    """Make an answer; where the code of the workload has changed, ask in a terminal whether runs of both may mix."""
    with _interruptible():
        try:
            return make(changed_code)
        except ChangedCodeError as error:
            if not (sys.stdin.isatty() and err.is_terminal):
                raise
            err.print(f"rightbatch: {error}", style="yellow", markup=False, soft_wrap=True)
            if not typer.confirm("Go on, with runs of both in this study?", err=True):
                raise
            return make("mix")


class _interruptible:
    """Ctrl-C in the block becomes a sentence that says how to go on."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            again = shlex.join(["rightbatch", *sys.argv[1:]])
            raise Interrupted(f"Interrupted. What was measured is kept; the same command goes on: {again}") from error


def main() -> NoReturn:
    """The entry point: turns errors raised on purpose into a message and an exit code."""
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]  # behind -- is a person's command
    arguments = [argument for argument in own if argument != "--debug"] + sys.argv[1 + len(own) :]
    debug = "--debug" in own
    try:
        app(args=arguments)
    except RightbatchError as error:
        if debug:
            raise
        err.print(f"rightbatch: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
