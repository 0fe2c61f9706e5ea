"""The verbs that train: check, profile, sweep, find."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rightbatch.answer import Recommendation
from rightbatch.cli.app import app, asking, err, interruptible, out, print_answer, print_json
from rightbatch.cli.arguments import asked, given, numbers, sizes
from rightbatch.cli.live import Live
from rightbatch.cli.options import (
    AtExamples,
    AtSeconds,
    Budget,
    BudgetText,
    ChangedCode,
    Device,
    Direction,
    Epochs,
    FirstTouch,
    Json,
    KeepModels,
    LengthBound,
    Limit,
    Metrics,
    ObjectiveOption,
    Pattern,
    PlannedExamples,
    Present,
    ScheduleOption,
    Seeds,
    SettingOption,
    Sizes,
    StartFrom,
    StudyOption,
    TargetOn,
    TargetOption,
    Threads,
    Timeout,
    TrainExamples,
    Words,
    Workers,
)
from rightbatch.commands import Command
from rightbatch.pipeline import check as checking
from rightbatch.pipeline import find as finding
from rightbatch.pipeline import sweep as sweeping
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.budget import parse_budget
from rightbatch.pipeline.profile import ROUNDS, measured_before, profile, sizes_to_try, with_neighbours
from rightbatch.pipeline.runners import as_runner
from rightbatch.pipeline.setting_up import default_study
from rightbatch.report import terminal
from rightbatch.report.check import print_check


@app.command("check")
def check_command(
    words: Words,
    target: TargetOption = None,
    target_on: TargetOn = None,
    present: Present = None,
    settings: SettingOption = None,
    direction: Direction = None,
    train_examples: TrainExamples = None,
    length_bound: LengthBound = None,
    epochs: Epochs = None,
    planned_examples: PlannedExamples = None,
    metrics: Metrics = None,
    pattern: Pattern = None,
    timeout: Timeout = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Find all faults of a workload, a loop or a command, in seconds. Exit code 1 if there is one."""
    ask = asked(
        target=target,
        target_on=target_on,
        present=present,
        settings=settings,
        direction=direction,
        train_examples=train_examples,
        length_bound=length_bound,
        epochs=epochs,
        planned_examples=planned_examples,
    )
    workload = given(words, ask, metrics=metrics, pattern=pattern, timeout_seconds=timeout)
    with err.status("looking for faults"):
        found = checking.check(workload, device=device, threads=threads, **ask)
    if as_json:
        print_json(found)
    else:
        print_check(found, out)
    if not found.clean:
        raise typer.Exit(1)


@app.command("profile")
def profile_command(
    words: Words,
    study: StudyOption = None,
    batch_sizes: Sizes = None,
    rounds: Annotated[int, typer.Option(min=3, help="Repeats of every size.")] = ROUNDS,
    again: Annotated[bool, typer.Option(help="Measure anew what the study has already.")] = False,
    present: Present = None,
    epochs: Epochs = None,
    planned_examples: PlannedExamples = None,
    settings: SettingOption = None,
    direction: Direction = None,
    train_examples: TrainExamples = None,
    length_bound: LengthBound = None,
    metrics: Metrics = None,
    pattern: Pattern = None,
    timeout: Timeout = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure seconds per step at each batch size."""
    ask = asked(
        present=present,
        epochs=epochs,
        planned_examples=planned_examples,
        settings=settings,
        direction=direction,
        train_examples=train_examples,
        length_bound=length_bound,
    )
    workload = given(words, ask, metrics=metrics, pattern=pattern, timeout_seconds=timeout)
    runner = as_runner(workload, ask=Ask(**ask), device=device, threads=threads)
    chosen = sizes(batch_sizes) or sizes_to_try(runner, ask["present"])
    path = study or default_study(runner.facts.name)
    before = measured_before(path, runner)
    with interruptible(), err.status("measuring seconds per step"):
        records = profile(runner, chosen, study=path, rounds=rounds, again=again, given=workload)
    if batch_sizes:  # the study may have others
        records = tuple(r for r in records if r.batch_size in with_neighbours(chosen, runner)) or records
    summary = terminal.profile_summary(records, chosen, before)
    if as_json:
        print_json(summary)
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
    patience_unit: Annotated[str, typer.Option(help="evaluations, steps, examples, or epochs.")] = "evaluations",
    run_seconds: Annotated[float | None, typer.Option(help="Training seconds after which a run ends anyway.")] = None,
    contender_seeds: Annotated[int | None, typer.Option(help="Seeds in all where the cost is near the best.")] = None,
    contender_factor: Annotated[float, typer.Option(help="How near: at most so many times the best cost.")] = 2.0,
    objective: ObjectiveOption = None,
    target: TargetOption = None,
    target_on: TargetOn = None,
    first_touch: FirstTouch = None,
    at_seconds: AtSeconds = None,
    at_examples: AtExamples = None,
    present: Present = None,
    epochs: Epochs = None,
    planned_examples: PlannedExamples = None,
    settings: SettingOption = None,
    direction: Direction = None,
    train_examples: TrainExamples = None,
    length_bound: LengthBound = None,
    metrics: Metrics = None,
    pattern: Pattern = None,
    timeout: Timeout = None,
    budget: Budget = None,
    start_from: StartFrom = None,
    device: Device = None,
    threads: Threads = None,
    workers: Workers = 1,
    keep_models: KeepModels = "none",
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
        length_bound=length_bound,
    )
    workload = given(words, ask, metrics=metrics, pattern=pattern, timeout_seconds=timeout)
    chosen = sizes(batch_sizes)
    assert chosen is not None  # the option is required
    allowed = parse_budget(budget).seconds() if budget else None
    _ask_for_a_seed(workload, seeds)

    def make(code: str) -> Recommendation:
        with Live(err, budget_seconds=allowed) as live:
            return sweeping.sweep(
                workload,
                chosen,
                study=study,
                seeds=seeds,
                rates=numbers(rates, "rates") if rates else None,
                until=until,
                patience=patience,
                patience_unit=patience_unit,
                run_seconds=run_seconds,
                contender_seeds=contender_seeds,
                contender_factor=contender_factor,
                budget_seconds=allowed,
                start_from=start_from,
                device=device,
                threads=threads,
                workers=workers,
                keep_models=keep_models,  # type: ignore[arg-type]
                changed_code=code,  # type: ignore[arg-type]
                watch=live.watch,
                foresee=live.expect,
                **ask,
            )

    answer = asking(make, changed_code)
    print_answer(answer, as_json, study or default_study(answer.workload))


@app.command("find")
def find_command(
    words: Words,
    study: StudyOption = None,
    seeds: Seeds = 5,
    batch_sizes: Sizes = None,
    objective: ObjectiveOption = None,
    target: TargetOption = None,
    target_on: TargetOn = None,
    first_touch: FirstTouch = None,
    at_seconds: AtSeconds = None,
    at_examples: AtExamples = None,
    present: Present = None,
    epochs: Epochs = None,
    planned_examples: PlannedExamples = None,
    settings: SettingOption = None,
    direction: Direction = None,
    train_examples: TrainExamples = None,
    length_bound: LengthBound = None,
    metrics: Metrics = None,
    pattern: Pattern = None,
    timeout: Timeout = None,
    budget: BudgetText = None,
    start_from: StartFrom = None,
    limit: Limit = None,
    schedule: ScheduleOption = False,
    device: Device = None,
    threads: Threads = None,
    workers: Workers = 1,
    keep_models: KeepModels = "none",
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
        length_bound=length_bound,
    )
    workload = given(words, ask, metrics=metrics, pattern=pattern, timeout_seconds=timeout)
    _ask_for_a_seed(workload, seeds)

    def make(code: str) -> Recommendation:
        with Live(err, budget_seconds=parse_budget(budget).wall_seconds if budget else None) as live:
            return finding.find(
                workload,
                study=study,
                seeds=seeds,
                batch_sizes=sizes(batch_sizes),
                budget=budget,
                start_from=start_from,
                limit=limit,
                schedule=schedule,
                device=device,
                threads=threads,
                workers=workers,
                keep_models=keep_models,  # type: ignore[arg-type]
                changed_code=code,  # type: ignore[arg-type]
                watch=live.watch,
                foresee=live.expect,
                **ask,
            )

    answer = asking(make, changed_code)
    print_answer(answer, as_json, study or default_study(answer.workload))


def _ask_for_a_seed(workload: Any, seeds: int) -> None:
    """Say before hours of it that the runs of a command without {seed} are no seeds."""
    if isinstance(workload, Command) and not workload.takes_seed and seeds > 1:
        err.print(
            f"rightbatch: the command has no {{seed}}, so its {seeds} seeds differ by chance alone, or not at all. "
            f"Give the program one (--seed {{seed}}), or search with --seeds 1.",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
