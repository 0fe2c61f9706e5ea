"""`find`: the whole tool on one page. Everything else in the house is a room that this page walks through."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rightbatch.answer import Caution, Recommendation
from rightbatch.evidence import Evidence
from rightbatch.growth import fixed_plan, growth_of
from rightbatch.pipeline import outlook
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.budget import parse_budget, run_seconds
from rightbatch.pipeline.desk import OUT_OF_BUDGET, Watch, unwatched
from rightbatch.pipeline.first_choice import first_choice
from rightbatch.pipeline.growing import check_growing, drive_fixed_and_growing, grown_sizes
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.memory import cautions_of_fitting, fitting
from rightbatch.pipeline.models import models_folder, pruning, winner
from rightbatch.pipeline.other_settings import beside_other_settings
from rightbatch.pipeline.profile import measure_step_times, sizes_to_try
from rightbatch.pipeline.runners import KeepModels, StartFrom, as_runner, crew_of, recorded_rates
from rightbatch.pipeline.searching import few_runs, forecast_of, suits_few_runs
from rightbatch.pipeline.setting_up import (
    ChangedCode,
    ask_of,
    check_sizes,
    open_study,
    pose,
    timed_sizes,
)
from rightbatch.recommend import recommend
from rightbatch.records import Settings
from rightbatch.report import units
from rightbatch.runner import Runner
from rightbatch.search.adaptive import Adaptive
from rightbatch.search.out_of_reach import while_nearer
from rightbatch.search.strategy import Strategy, by_length
from rightbatch.search.sweep import Sweep
from rightbatch.wording import counted

PROTOCOL = (
    "rates on the lattice 10^(k/4), tuned at every batch size with one seed; then {seeds} for every size and "
    "rate within 1.5 times the best; runs stopped at the target or at 4 times the best cost"
)
PROTOCOL_OF_TABLES = "every batch size and rate of the recorded table, with at most {seeds}"
PROTOCOL_OF_FEW_RUNS = (
    "few runs at rates of the lattice 10^(k/4), at most {seeds} in a cell, paused and continued by slices where more "
    "knowledge is worth most for its cost; a run ends at the target"
)
PROTOCOL_OF_ENDS = (
    "rates on the lattice 10^(k/4), tuned at every batch size with one seed; then {seeds} for every size and rate "
    "within 1.5 times the best; each at planned lengths from an eighth of the longest until an end reached the target; "
    "runs stopped at 4 times the best cost"
)


def find(
    workload: Any,
    *,
    study: str | Path | None = None,
    seeds: int = 5,
    batch_sizes: Sequence[int] | None = None,
    budget: str | float | None = None,
    device: str | None = None,
    threads: int | None = None,
    workers: int = 1,
    keep_models: KeepModels = "none",
    start_from: StartFrom | None = None,
    limit: int | str | None = None,
    schedule: bool = False,
    changed_code: ChangedCode = "refuse",
    watch: Watch = unwatched,
    foresee: outlook.Foresee = outlook.unforeseen,
    **asked: Any,
) -> Recommendation:
    """Which batch size to train with, at which rate: measure, search, recommend. Continues a study that exists.

    Parameters
    ----------
    workload: A `Workload`, a training loop (a generator function or a `Loop`), a `Command`, or a name: of a bundled
        workload, of a function in a file (`my.py:make_workload`, `my.py:train`), of a table of curves.
    study: Path of the study; None: the workload's name in the current folder.
    seeds: How many seeds the contenders get.
    batch_sizes: The sizes to choose from; None: powers of two up to 8192 or the data.
    budget: Wall seconds after which no more is trained, or a text: 90s, 10m, 2h, or 3x and 0.02x for multiples of one
        training run of the present choice. The answer is then what is known.
    threads: Threads of PyTorch in this process; in each worker process, where there are several.
    workers: How many runs to make at a time, each in a process of its own. Seconds per step are measured before, alone.
    keep_models: Which weights of the runs that may win stay beside the study: none, those of the best evaluation, or
        the last. The path of the winner's is in the answer.
    start_from: A file with the weights (a state dict) that every run of a `Workload` starts from.
    limit: What training may hold of memory, in bytes or as a text ("8GB"): what fits in one pass is found first, and
        larger batches are accumulated. None: the same as soon as a size does not fit into what is free.
    schedule: Whether a batch that grows while training is searched too, from the best fixed size, and judged beside it
        with fresh seeds: about seven runs to search, up to twelve to judge.
    changed_code: What to do where the code of the workload has changed since its study began: "refuse", or "mix".
    watch, foresee: Are told of every new point; and before the first run, roughly how long it will take.
    asked: The question, where it differs from the workload's: `objective`, `target` ..., the fields of `Ask`.

    Raises
    ------
    InsufficientEvidence: When nothing reached the target; it says what is believed so far, and what more would buy.
    InputError: For what cannot be used; what was measured before stays in the study.
    """
    began = time.monotonic()
    ask = Ask(**asked)
    allowed = None if budget is None else parse_budget(budget)
    how: dict[str, Any] = {
        "ask": ask,
        "device": device,
        "threads": threads,
        "keep_models": keep_models,
        "start_from": start_from,
    }
    runner = as_runner(workload, **how)
    if schedule:
        check_growing(runner, ask)
    check_sizes(runner.facts, batch_sizes or ())
    with open_study(study, runner.facts, changed_code, given=workload) as kept:
        ask_of(kept, runner, ask)
        sizes = tuple(batch_sizes or sizes_to_try(runner, ask.present))
        seconds = None
        if allowed is not None:
            seconds = allowed.wall_seconds
            if seconds is None:
                seconds = allowed.seconds(run_seconds(kept, runner, ask))
                began = time.monotonic()  # to know what a run costs is not paid from it
        deadline = None if seconds is None else began + seconds
        share = None if seconds is None else seconds / 3
        if limit is not None:
            runner = fitting(kept, workload, how, limit)
        timed = timed_sizes(grown_sizes(sizes, runner) if schedule else sizes, ask)
        measure_step_times(kept, runner, timed, budget_seconds=share)
        if limit is None and getattr(runner, "too_large", None) is not None:
            ran = max((record.batch_size for record in kept.step_times(runner.environment)), default=0)
            runner = fitting(kept, workload, how, limit, ran)
            measure_step_times(kept, runner, timed, budget_seconds=share)
        evidence = pose(kept, runner, ask, watch, range(seeds))
        strategy = while_nearer(_strategy(runner, evidence, ask, sizes, range(seeds)), sizes)
        if recorded_rates(runner) is None:
            few = suits_few_runs(evidence)
            foresee(outlook.of_few_runs(evidence) if few else outlook.of_adaptive(sizes, seeds, evidence))
        models = models_folder(kept.path) if keep_models != "none" else None
        search = drive_fixed_and_growing if schedule else drive
        with crew_of(workload, runner, workers, **how) as crew:
            evidence, why = search(
                kept,
                runner,
                strategy,
                evidence,
                crew=crew,
                deadline=deadline,
                models=models,
                watch=pruning(models, watch) if models else watch,
            )
        answer = recommend(
            evidence,
            protocol=_protocol(runner, evidence).format(seeds=counted(seeds, "seed")),
            spent_seconds=kept.costs(),
            in_budget=why != OUT_OF_BUDGET,
            forecast=forecast_of(evidence),
        )
        answer = beside_other_settings(
            replace(answer, growth=growth_of(evidence, fixed_plan(answer.batch_size, answer.learning_rate))), evidence
        )
        untimed = tuple(sorted(set(sizes) - set(_timed(evidence, sizes)))) if evidence.step_times else ()
        said = [Caution.NOT_TIMED.value.format(units.sizes(untimed))] if untimed else []
        answer = replace(answer, cautions=(*answer.cautions, *said, *cautions_of_fitting(kept, runner)))
        if models and (path := winner(models, evidence, answer)):
            answer = replace(answer, model=str(path))
        kept.add_answer(answer)
        return answer


def _strategy(runner: Runner, evidence: Evidence, ask: Ask, sizes: Sequence[int], seeds: Sequence[int]) -> Strategy:
    """The search of few runs; where the ends of runs or metrics are compared, which it cannot, the adaptive one.

    Of a recorded table everything is taken, which costs nothing.
    """
    size, rate = first_choice(evidence.facts)
    settings = Settings(ask.settings)
    planned = evidence.facts.planned_examples
    rates = recorded_rates(runner)
    if rates is not None:
        return Sweep(sizes, seeds, size, rate, runner.offers, rates, planned_examples=planned, settings=settings)
    measured = _timed(evidence, sizes)
    if suits_few_runs(evidence):
        return few_runs(evidence, measured, runner.offers, seeds=len(seeds))
    adaptive = Adaptive(measured, seeds, size, rate, runner.offers, planned, settings)
    return by_length(adaptive) if evidence.facts.length_bound else adaptive


def _timed(evidence: Evidence, sizes: Sequence[int]) -> list[int]:
    """Those whose steps were timed: at another one the person's code failed, or there was no time to see whether."""
    timed = {record.batch_size for record in evidence.step_times}
    return [size for size in sizes if size in timed]


def _protocol(runner: Runner, evidence: Evidence) -> str:
    if recorded_rates(runner) is not None:
        return PROTOCOL_OF_TABLES
    if suits_few_runs(evidence):
        return PROTOCOL_OF_FEW_RUNS
    return PROTOCOL_OF_ENDS if evidence.facts.length_bound else PROTOCOL
