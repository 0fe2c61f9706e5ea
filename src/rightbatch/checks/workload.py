"""The table of checks of a `Workload`. A new check is a function of a `Rehearsal` and one row here."""

from __future__ import annotations

from rightbatch.batches import is_loader
from rightbatch.checks import data, judging, repeating, training
from rightbatch.checks.looking import Checks, look
from rightbatch.checks.rehearsal import Rehearsal
from rightbatch.findings import Finding, NotLookedAt
from rightbatch.records import Target, Trial, WorkloadFacts
from rightbatch.workload import Workload

CHECKS: Checks[Rehearsal] = {
    "what loss and metric return": training.shapes,
    "gradients": training.gradients,
    "what the loss depends on": training.batch_matters,
    "the learning rate": training.rate,
    "a new model for each run": repeating.model_kept,  # before anything else trains
    "repeatability": repeating.repeatable,
    "finite losses": training.finite,
    "learning": training.learning,
    "the direction of the metric": judging.direction,
    "the target": judging.target,
    "the planned length": judging.planned_length,
    "examples judged together and alone": judging.batch_dependent,
    "batch normalisation": judging.batch_norm,
    "the number of validation examples": judging.few_examples,
    "the cost of evaluation": judging.evaluation_cost,
    "the schedule": judging.length_bound,
    "the end of the schedule": judging.schedule_length,
    "train and validation apart": data.overlap,
    "waiting for data": data.waiting,
}
LOADER_CHECKS: Checks[Rehearsal] = {
    "the sizes of batches": data.loader_size,
    "the order of batches": data.loader_order,
}
"""For training data that is a function `(batch_size, seed) -> loader`."""


def look_at(
    workload: Workload, facts: WorkloadFacts, trial: Trial, target: Target | None = None
) -> tuple[list[Finding], list[str], list[NotLookedAt]]:
    """Look for all faults of a workload at one choice: what was found, what was looked at, what was not and why."""
    checks = {**CHECKS, **LOADER_CHECKS} if is_loader(workload.data) else CHECKS
    return look(Rehearsal(workload, facts, trial, target), checks)
