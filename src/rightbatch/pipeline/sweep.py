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
from rightbatch.pipeline.loop import OUT_OF_BUDGET, Watch, drive, unwatched
from rightbatch.pipeline.profile import profile
from rightbatch.pipeline.runners import as_runner, crew_of, recorded_rates
from rightbatch.pipeline.setting_up import Ask, ChangedCode, first_choice, open_study, pose
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
    seeds: int = 3,
    rates: Sequence[float] | None = None,
    until: str = "horizon",
    patience: float = 10,
    patience_unit: str = "evaluations",
    budget_seconds: float | None = None,
    device: str | None = None,
    threads: int | None = None,
    workers: int = 1,
    changed_code: ChangedCode = "refuse",
    watch: Watch = unwatched,
    **asked: Any,
) -> Recommendation:
    """Train at every size, tuning the rate on the lattice (or at the given `rates`), with every seed; then recommend.

    `until`: runs go to their planned length ("horizon"), stop at the target ("target"), or when the judged value has
    not improved for `patience` evaluations, steps or examples ("patience"). `asked` is the question, where it differs
    from the workload's: the fields of `Ask`. Continues a study that exists.

    Raises
    ------
    InputError: For a size larger than the data, or an unknown `until`.
    InsufficientEvidence: When nothing reached the target; all runs are kept.
    """
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    ask = Ask(**asked)
    how: dict[str, Any] = {"ask": ask, "device": device, "threads": threads}
    runner = as_runner(workload, **how)
    too_large = [size for size in batch_sizes if size > (runner.facts.train_examples or size)]
    if too_large:
        raise InputError(
            f"Batch size {too_large[0]} is larger than the data: {runner.facts.train_examples} training examples."
        )
    with open_study(study, runner.facts, changed_code) as kept:
        profile(kept, runner, batch_sizes)
        evidence = pose(kept, runner, ask, watch, range(seeds))
        size, rate = ask.present or first_choice(kept.facts)
        strategy = Sweep(
            batch_sizes=batch_sizes,
            seeds=range(seeds),
            first_size=size,
            first_rate=rate,
            offers=runner.offers,
            rates=[snap(r) for r in rates] if rates else recorded_rates(runner),
            until=_until(until, evidence, patience, patience_unit),
            planned_examples=evidence.facts.planned_examples,
            settings=Settings(ask.settings),
        )
        if evidence.facts.length_bound and until != "horizon":
            raise InputError(
                f"The rate of {evidence.facts.name!r} changes along a run, so only the ends of runs count: "
                f"--until {until} would stop them before. Leave it at horizon."
            )
        chosen = by_length(strategy) if evidence.facts.length_bound else strategy
        with crew_of(workload, runner, workers, **how) as crew:
            evidence, why = drive(kept, runner, chosen, evidence, crew=crew, deadline=deadline, watch=watch)
        tuned = "at given rates" if rates else "on the lattice 10^(k/4), tuned at every batch size"
        protocol = f"every batch size with {counted(seeds, 'seed')}, rates {tuned}; runs went to: {until}"
        answer = recommend(evidence, protocol=protocol, spent_seconds=kept.costs(), in_budget=why != OUT_OF_BUDGET)
        kept.add_answer(answer)
        return answer


def _until(until: str, evidence: Evidence, patience: float, unit: str) -> curves.StopRule:
    target = evidence.question.target
    if until == "horizon":
        return curves.until_horizon
    if until == "target":
        return curves.until_target(target)
    if until == "patience":
        if unit not in ("evaluations", "steps", "examples"):
            raise InputError(f"Patience is counted in evaluations, steps or examples, got {unit!r}.")
        return curves.until_patience(target.quantity, target.direction, patience, unit)  # type: ignore[arg-type]
    raise InputError(f"Runs go on until horizon, target or patience, got {until!r}.")
