"""`find`: the whole tool on one page. Everything else in the house is a room that this page walks through."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rightbatch.answer import Recommendation
from rightbatch.evidence import Evidence
from rightbatch.pipeline.loop import OUT_OF_BUDGET, Watch, drive, unwatched
from rightbatch.pipeline.models import models_folder, pruning, winner
from rightbatch.pipeline.profile import profile, sizes_to_try
from rightbatch.pipeline.runners import KeepModels, as_runner, crew_of, recorded_rates
from rightbatch.pipeline.setting_up import Ask, ChangedCode, first_choice, open_study, pose
from rightbatch.recommend import recommend
from rightbatch.records import Settings
from rightbatch.runner import Runner
from rightbatch.search.adaptive import Adaptive
from rightbatch.search.strategy import Strategy, by_length
from rightbatch.search.sweep import Sweep
from rightbatch.wording import counted

PROTOCOL = (
    "rates on the lattice 10^(k/4), tuned at every batch size with one seed; then {seeds} for every size and "
    "rate within 1.5 times the best; runs stopped at the target or at 4 times the best cost"
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
    budget_seconds: float | None = None,
    device: str | None = None,
    threads: int | None = None,
    workers: int = 1,
    keep_models: KeepModels = "none",
    changed_code: ChangedCode = "refuse",
    watch: Watch = unwatched,
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
    budget_seconds: Wall seconds after which no more is trained; the answer is then what is known.
    threads: Threads of PyTorch in this process; in each worker process, where there are several.
    workers: How many runs to make at a time, each in a process of its own. Seconds per step are measured before, alone.
    keep_models: Which weights of the runs that may win stay beside the study: none, those of the best evaluation, or
        the last. The path of the winner's is in the answer.
    changed_code: What to do where the code of the workload has changed since its study began: "refuse", or "mix".
    asked: The question, where it differs from the workload's: `objective`, `target` ..., the fields of `Ask`.

    Raises
    ------
    InsufficientEvidence: When nothing reached the target.
    InputError: For what cannot be used; what was measured before stays in the study.
    """
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    ask = Ask(**asked)
    how: dict[str, Any] = {"ask": ask, "device": device, "threads": threads, "keep_models": keep_models}
    runner = as_runner(workload, **how)
    with open_study(study, runner.facts, changed_code) as kept:
        sizes = tuple(batch_sizes or sizes_to_try(runner, ask.present))
        profile(kept, runner, sizes, budget_seconds=budget_seconds / 3 if budget_seconds else None)
        evidence = pose(kept, runner, ask, watch, range(seeds))
        strategy = _strategy(runner, evidence, ask, sizes, range(seeds))
        models = models_folder(kept.path) if keep_models != "none" else None
        with crew_of(workload, runner, workers, **how) as crew:
            evidence, why = drive(
                kept,
                runner,
                strategy,
                evidence,
                crew=crew,
                deadline=deadline,
                models=models,
                watch=pruning(models, watch) if models else watch,
            )
        protocol = (PROTOCOL_OF_ENDS if evidence.facts.length_bound else PROTOCOL).format(seeds=counted(seeds, "seed"))
        answer = recommend(evidence, protocol=protocol, spent_seconds=kept.costs(), in_budget=why != OUT_OF_BUDGET)
        if models and (path := winner(models, evidence, answer)):
            answer = replace(answer, model=str(path))
        kept.add_answer(answer)
        return answer


def _strategy(runner: Runner, evidence: Evidence, ask: Ask, sizes: Sequence[int], seeds: Sequence[int]) -> Strategy:
    """The adaptive search; of a recorded table everything, which costs nothing."""
    size, rate = ask.present or first_choice(evidence.facts)
    settings = Settings(ask.settings)
    planned = evidence.facts.planned_examples
    rates = recorded_rates(runner)
    if rates is not None:
        return Sweep(sizes, seeds, size, rate, runner.offers, rates, planned_examples=planned, settings=settings)
    measured = [s for s in sizes if evidence.step_seconds(s) is not None]
    adaptive = Adaptive(measured, seeds, size, rate, runner.offers, planned, settings)
    return by_length(adaptive) if evidence.facts.length_bound else adaptive
