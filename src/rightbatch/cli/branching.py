"""The verb that branches a training: branches."""

from __future__ import annotations

from typing import Annotated

import typer

from rightbatch.cli.app import app, err, out, print_json
from rightbatch.cli.arguments import asked, given, numbers, sizes
from rightbatch.cli.options import Budget, Device, Json, Present, SettingOption, StartFrom, StudyOption, Threads, Words
from rightbatch.errors import InputError
from rightbatch.fit.branches import RULES
from rightbatch.pipeline import branches as branching
from rightbatch.pipeline.branch_plan import BranchPlan
from rightbatch.pipeline.budget import parse_budget
from rightbatch.report import units
from rightbatch.report.branches import print_branches


@app.command("branches")
def branches_command(
    words: Words,
    study: StudyOption = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Of the trunk; default: what is trained with.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the trunk; default: what is trained with.")] = None,
    at: Annotated[str | None, typer.Option(help="Steps of the trunk to branch at, as 20,80,300.")] = None,
    factors: Annotated[str, typer.Option(help="Multiples of the batch size: 2,4,8, or 2..16.")] = "2..16",
    rules: Annotated[str, typer.Option(help="How the rate grows with the batch.")] = ",".join(RULES),
    seeds: Annotated[int, typer.Option(min=2, help="Orders of the data for every branch.")] = branching.SEEDS,
    seed: Annotated[int, typer.Option(help="Of the trunk.")] = 0,
    branch_examples: Annotated[int | None, typer.Option(min=1, help="Default: 16 steps of the largest batch.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Of the loss; default: 1 % of it.")] = None,
    budget: Budget = None,
    start_from: StartFrom = None,
    present: Present = None,
    settings: SettingOption = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure the largest batch size that keeps up, at checkpoints of one training, by short branches off it."""
    ask = asked(present=present, settings=settings)
    with err.status("training the trunk") as status:

        def watch(plan: BranchPlan, examples: int) -> None:
            if examples == 0:
                err.print(f"branches of at most {plan.most_examples:,} examples{_over_trunk(plan, plan.most_examples)}")
            status.update(f"branches: {examples:,} of at most {plan.most_examples:,} examples")

        report = branching.branches(
            given(words, ask),
            study=study,
            batch_size=batch_size,
            learning_rate=learning_rate,
            at=_steps(at),
            factors=sizes(factors) or (),
            rules=tuple(rules.split(",")),
            seeds=seeds,
            seed=seed,
            branch_examples=branch_examples,
            tolerance=tolerance,
            budget=parse_budget(budget).seconds() if budget else None,
            start_from=start_from,
            device=device,
            threads=threads,
            watch=watch,
            **ask,
        )
    if as_json:
        print_json(report)
        return
    cost = f"{report.branched_examples:,} examples in branches{_over_trunk(report.plan, report.branched_examples)}"
    print_branches(
        out,
        report.workload,
        report.forks,
        batch_size=report.batch_size,
        learning_rate=report.learning_rate,
        seeds=len(report.plan.seeds),
        branch_examples=report.plan.branch_examples,
        cost=f"{cost}, {units.seconds(report.wall_seconds)} with the trunk",
        cautions=(*((f"{report.stopped}: not all was measured",) if report.stopped else ()), *report.cautions),
    )


def _over_trunk(plan: BranchPlan, examples: int) -> str:
    return f", {units.times(examples / plan.trunk_examples)} the trunk" if plan.trunk_examples else ""


def _steps(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    listed = numbers(text, "--at: steps")
    if any(step != int(step) for step in listed):
        raise InputError(f"--at is steps of the trunk, whole numbers as 20,80,300; got {text!r}.")
    return tuple(int(step) for step in listed)
