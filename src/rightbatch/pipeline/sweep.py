"""`sweep`: every batch size with its rate tuned and every seed, into the study."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rightbatch import curves
from rightbatch.answer import Recommendation
from rightbatch.errors import InputError
from rightbatch.evidence import Evidence
from rightbatch.lattice import snap
from rightbatch.pipeline import outlook
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.desk import OUT_OF_BUDGET, Watch, unwatched
from rightbatch.pipeline.first_choice import first_choice
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.models import models_folder
from rightbatch.pipeline.other_settings import beside_other_settings
from rightbatch.pipeline.profile import measure_step_times
from rightbatch.pipeline.runners import KeepModels, StartFrom, as_runner, crew_of, recorded_rates
from rightbatch.pipeline.searching import forecast_of
from rightbatch.pipeline.setting_up import ChangedCode, ask_of, check_sizes, open_study, pose, timed_sizes
from rightbatch.recommend import recommend
from rightbatch.records import Settings
from rightbatch.search.strategy import by_length
from rightbatch.search.sweep import Sweep
from rightbatch.wording import counted


def sweep(
    workload: Any,
    batch_sizes: Sequence[int],
    *,
    study: str | Path | None = None,
    seeds: int | Sequence[int] = 3,
    rates: Sequence[float] | None = None,
    until: str = "horizon",
    patience: float = 10,
    patience_unit: str = "evaluations",
    run_seconds: float | None = None,
    contender_seeds: int | None = None,
    contender_factor: float = 2.0,
    budget_seconds: float | None = None,
    device: str | None = None,
    threads: int | None = None,
    workers: int = 1,
    keep_models: KeepModels = "none",
    start_from: StartFrom | None = None,
    changed_code: ChangedCode = "refuse",
    watch: Watch = unwatched,
    foresee: outlook.Foresee = outlook.unforeseen,
    **asked: Any,
) -> Recommendation:
    """Train at every size, tuning the rate on the lattice (or at the given `rates`), with every seed; then recommend.

    `until`: runs go to their planned length ("horizon"), stop at the target ("target"), or when the judged value has
    not improved for `patience` evaluations, steps, examples or epochs ("patience"). With `run_seconds`, each stops at
    the latest at the first evaluation at or beyond so many training seconds (steps x measured seconds per step of its
    size). It then counts as having had its full chance: a longer limit later does not make it longer.

    `seeds`: how many, counted from 0, or which: runs with seeds of their own judge a choice that others made.

    Given `rates` all run with every seed; of tuned ones, those that the first seed brought to the target. Where the
    mean cost is within `contender_factor` of the best, there are `contender_seeds` seeds in all.

    `keep_models`: which weights of every run stay in a folder beside the study: none, those of the best evaluation, or
    the last. `start_from`: a file with the weights (a state dict) that every run of a `Workload` starts from.

    `watch` is told of every new point; `foresee`, before the first run, how many there are and how long they take.

    `asked` is the question, where it differs from the workload's: the fields of `Ask`. Continues a study that exists.

    Raises
    ------
    InputError: For a size larger than the data, an unknown `until`, a limit or seeds that make no sense,
        or runs that would stop before their planned length where only the ends of runs count.
    InsufficientEvidence: When nothing reached the target; all runs are kept.
    """
    seeds = _seeds_of(seeds)
    _check_limits(len(seeds), run_seconds, contender_seeds, contender_factor)
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    ask = Ask(**asked)
    how: dict[str, Any] = {
        "ask": ask,
        "device": device,
        "threads": threads,
        "keep_models": keep_models,
        "start_from": start_from,
    }
    runner = as_runner(workload, **how)
    check_sizes(runner.facts, batch_sizes)
    if runner.facts.length_bound:
        _check_runs_whole(runner.facts.name, until, run_seconds)
    with open_study(study, runner.facts, changed_code, given=workload) as kept:
        ask_of(kept, runner, ask)
        measure_step_times(kept, runner, timed_sizes(batch_sizes, ask))
        evidence = pose(kept, runner, ask, watch, seeds)
        size, rate = first_choice(evidence.facts)
        strategy = Sweep(
            batch_sizes=batch_sizes,
            seeds=seeds,
            first_size=size,
            first_rate=rate,
            offers=runner.offers,
            rates=[snap(r) for r in rates] if rates else recorded_rates(runner),
            until=_until(until, evidence, patience, patience_unit),
            planned_examples=evidence.facts.planned_examples,
            settings=Settings(ask.settings),
            run_seconds=run_seconds,
            contender_seeds=_with_further(seeds, contender_seeds or 0),
            contender_factor=contender_factor,
        )
        if recorded_rates(runner) is None:
            foresee(outlook.of_sweep(strategy, evidence))
        chosen = by_length(strategy) if evidence.facts.length_bound else strategy
        with crew_of(workload, runner, workers, **how) as crew:
            models = models_folder(kept.path) if keep_models != "none" else None
            evidence, why = drive(
                kept, runner, chosen, evidence, crew=crew, deadline=deadline, models=models, watch=watch
            )
        tuned = "at given rates" if rates else "on the lattice 10^(k/4), tuned at every batch size"
        protocol = f"every batch size with {counted(len(seeds), 'seed')}, rates {tuned}; runs went to: {until}"
        if run_seconds is not None:
            protocol += f", or {run_seconds:g} training seconds"
        if contender_seeds is not None:
            protocol += f"; {counted(contender_seeds, 'seed')} in all within {contender_factor:g} times the best cost"
        answer = recommend(
            evidence,
            protocol=protocol,
            spent_seconds=kept.costs(),
            in_budget=why != OUT_OF_BUDGET,
            forecast=forecast_of(evidence),
        )
        answer = beside_other_settings(answer, evidence)
        kept.add_answer(answer)
        return answer


def _seeds_of(seeds: int | Sequence[int]) -> Sequence[int]:
    found = range(seeds) if isinstance(seeds, int) else tuple(seeds)
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise InputError(f"A sweep needs at least one seed, none negative and none twice, got seeds={seeds!r}.")
    return found


def _with_further(seeds: Sequence[int], count: int) -> Sequence[int]:
    """So many seeds in all: these, then those that follow the largest."""
    return (*seeds, *range(max(seeds) + 1, max(seeds) + 1 + count - len(seeds))) if count else ()


def _check_limits(seeds: int, run_seconds: float | None, contender_seeds: int | None, contender_factor: float) -> None:
    if run_seconds is not None and not run_seconds > 0:
        raise InputError(f"A run needs a positive number of training seconds, got run_seconds={run_seconds:g}.")
    if contender_seeds is not None and contender_seeds < seeds:
        raise InputError(
            f"contender_seeds={contender_seeds} is fewer than the {counted(seeds, 'seed')} that every size gets. It "
            f"counts the seeds in all: give at least {seeds}."
        )
    if not contender_factor >= 1:
        raise InputError(
            f"Contenders cost at most a factor times the best, got contender_factor={contender_factor:g}. Give at "
            f"least 1."
        )


def _check_runs_whole(name: str, until: str, run_seconds: float | None) -> None:
    stops = f"--until {until}" if until != "horizon" else f"--run-seconds {run_seconds:g}" if run_seconds else ""
    if stops:
        raise InputError(
            f"The rate of {name!r} changes along a run, so only the ends of runs count: {stops} would stop them "
            f"before. Let runs go to the horizon, and plan them shorter with --planned-examples."
        )


def _until(until: str, evidence: Evidence, patience: float, unit: str) -> curves.StopRule:
    target = evidence.question.target
    if until == "horizon":
        return curves.until_horizon
    if until == "target":
        return curves.until_target(target)
    if until == "patience":
        if unit not in ("evaluations", "steps", "examples", "epochs"):
            raise InputError(f"Patience is counted in evaluations, steps, examples or epochs, got {unit!r}.")
        if unit == "epochs":
            of_epoch = evidence.facts.train_examples
            if not of_epoch:
                raise InputError(
                    f"How many examples an epoch of {evidence.facts.name!r} has is not known. Say it with "
                    f"--train-examples, or count patience in evaluations, steps or examples."
                )
            patience, unit = patience * of_epoch, "examples"
        return curves.until_patience(target.quantity, target.direction, patience, unit)  # type: ignore[arg-type]
    raise InputError(f"Runs go on until horizon, target or patience, got {until!r}.")
