"""`find --schedule`: a batch that grows while training, searched from the best fixed size and judged beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rightbatch.batch_schedule import SETTING
from rightbatch.errors import InputError
from rightbatch.evidence import Evidence
from rightbatch.growth import fixed_plan
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.desk import OUT_OF_BUDGET
from rightbatch.pipeline.loop import drive
from rightbatch.pipeline.profile import default_sizes
from rightbatch.pipeline.searching import forecast_of
from rightbatch.question import Objective
from rightbatch.recommend import parse_objective
from rightbatch.runner import Runner, changes_batch_size
from rightbatch.search.growing import Growing
from rightbatch.search.strategy import Strategy
from rightbatch.store import Study

GROWN_FACTOR = 16
"""A batch grows to at most so many times the largest that is to be chosen from."""

ROUNDS = 3
"""So often at most fixed sizes and then growing batches are searched: trying these may show a better fixed one."""

NO_FIXED = "no fixed batch size reached the target"


def check_growing(runner: Runner, ask: Ask) -> None:
    """Raise `InputError` where no schedule can be searched, before anything is measured."""
    name = runner.facts.name
    if not changes_batch_size(runner):
        raise InputError(
            f"--schedule trains with batches that grow; {name!r} draws its batches itself. In a loop take the size and "
            f"the rate of every step from trial.at(examples), and say so: rightbatch.Loop(train, settings="
            f"{{'{SETTING}': ''}}). Or leave it out."
        )
    if runner.facts.length_bound:
        raise InputError(
            f"--schedule compares runs on their way to the target, but the rate of {name!r} changes along a run. Leave "
            f"it out, or make the workload without a schedule of the rate: a growing batch stands in for its decay."
        )
    if parse_objective(ask.objective or "time") is Objective.METRIC:
        raise InputError("--schedule compares costs to a target: choose the objective time, examples or steps.")
    if SETTING in (ask.settings or {}):
        raise InputError(f"--schedule searches what --set {SETTING}=... sets. Leave one of them out.")


def grown_sizes(batch_sizes: Sequence[int], runner: Runner) -> tuple[int, ...]:
    """With those that a batch may grow to: powers of two above the smallest one."""
    low, high = min(batch_sizes), GROWN_FACTOR * max(batch_sizes)
    return tuple(sorted({*batch_sizes, *(s for s in default_sizes(runner.facts.train_examples) if low < s <= high)}))


def drive_fixed_and_growing(
    study: Study, runner: Runner, strategy: Strategy, evidence: Evidence, **how: Any
) -> tuple[Evidence, str]:
    """As `drive`: the fixed sizes by their strategy, then growing batches from the best; until neither wants more."""
    why = ""
    for _ in range(ROUNDS):
        evidence, why = drive(study, runner, strategy, evidence, **how)
        if why == OUT_OF_BUDGET:
            break
        known = len(evidence.runs)
        evidence, why = grow(study, runner, evidence, **how)
        if why == OUT_OF_BUDGET or len(evidence.runs) == known:
            break
    return evidence, why


def grow(study: Study, runner: Runner, evidence: Evidence, **how: Any) -> tuple[Evidence, str]:
    """Search schedules from the fixed choice, and judge the best beside it with fresh seeds. `how`: as for `drive`.

    The evidence with all that was learnt, and why it ended.
    """
    forecast = forecast_of(evidence)
    choice = forecast.best if forecast else evidence.choice
    if choice is None or choice.best is None or choice.cost is None:
        return evidence, NO_FIXED
    fixed = fixed_plan(choice.batch_size, choice.best.learning_rate)
    strategy = Growing(
        fixed=fixed,
        rates={size.batch_size: size.best.learning_rate for size in evidence.sizes if size.best is not None},
        largest=max(record.batch_size for record in evidence.step_times),
        offers=runner.offers,
        planned_examples=evidence.facts.planned_examples or None,
        settings=evidence.settings,
    )
    return drive(study, runner, strategy, evidence, **how)
