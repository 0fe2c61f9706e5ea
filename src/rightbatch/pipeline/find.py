"""`find`: the whole tool on one page. Everything else in the house is a room that this page walks through."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rightbatch.answer import Recommendation
from rightbatch.evidence import Evidence
from rightbatch.pipeline.loop import OUT_OF_BUDGET, Watch, drive, unwatched
from rightbatch.pipeline.profile import profile, sizes_to_try
from rightbatch.pipeline.setting_up import Ask, as_runner, first_choice, open_study, pose, recorded_rates
from rightbatch.recommend import recommend
from rightbatch.records import Settings
from rightbatch.runner import Runner
from rightbatch.search.adaptive import Adaptive
from rightbatch.search.strategy import Strategy
from rightbatch.search.sweep import Sweep

PROTOCOL = (
    "rates on the lattice 10^(k/4), tuned at every batch size with one seed; then {seeds} seeds for every size and "
    "rate within 1.5 times the best; runs stopped at the target or at 4 times the best cost"
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
    watch: Watch = unwatched,
    **asked: Any,
) -> Recommendation:
    """Which batch size to train with, at which rate: measure, search, recommend. Continues a study that exists.

    Parameters
    ----------
    workload: A `Workload`, or the name of a bundled one, of a table of curves, or `my.py:make_workload`.
    study: Path of the study; None: the workload's name in the current folder.
    seeds: How many seeds the contenders get.
    batch_sizes: The sizes to choose from; None: powers of two up to 8192 or the data.
    budget_seconds: Wall seconds after which no more is trained; the answer is then what is known.
    asked: The question, where it differs from the workload's: `objective`, `target` ..., the fields of `Ask`.

    Raises
    ------
    InsufficientEvidence: When nothing reached the target.
    InputError: For what cannot be used; what was measured before stays in the study.
    """
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    ask = Ask(**asked)
    runner = as_runner(workload, device=device, threads=threads)
    with open_study(study, runner.facts) as kept:
        sizes = tuple(batch_sizes or sizes_to_try(runner, ask.present))
        profile(kept, runner, sizes)
        evidence = pose(kept, runner, ask, watch, range(seeds))
        strategy = _strategy(runner, evidence, ask, sizes, range(seeds))
        evidence, why = drive(kept, runner, strategy, evidence, deadline=deadline, watch=watch)
        answer = recommend(
            evidence, protocol=PROTOCOL.format(seeds=seeds), spent_seconds=kept.costs(), in_budget=why != OUT_OF_BUDGET
        )
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
    return Adaptive(measured, seeds, size, rate, runner.offers, planned, settings)
