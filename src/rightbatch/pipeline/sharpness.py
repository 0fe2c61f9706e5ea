"""`sharpness`: how sharp the minima are that the runs of a study ended in, and how well they generalise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightbatch.bundled import WORKLOADS
from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.generalization import Across, EndOfRun, PathPoint, across, ends_of, paths_of
from rightbatch.minima import Choices, WeightsRecord, known_measures
from rightbatch.pipeline.desk import weights_path
from rightbatch.pipeline.models import models_folder
from rightbatch.pipeline.runners import StartFrom, as_runner
from rightbatch.pipeline.setting_up import ChangedCode, open_study
from rightbatch.records import Run, StopReason, WorkloadFacts
from rightbatch.runner import MeasuresWeights
from rightbatch.store import Study
from rightbatch.typed import command

USUAL = ("ends", "box", "adaptive", "sam", "eigenvalue")
"""What is measured unless somebody says otherwise."""

Watch = Callable[[Run, str, int, int], None]
"""Is told of every measurement before it is made: of which run, which measure, how many are done and due."""


@dataclass(frozen=True)
class SharpnessReport:
    """What the minima of a study are like.

    ends: What was measured of each run.
    across: By batch size, at one rate and with the rate tuned.
    path: Along the lines between the two runs, where these were asked for.
    missing: How many finished runs left no weights.
    evaluations: Passes over the training data (of as many examples as were chosen) that this call made.
    """

    workload: str
    metric: str
    choices: Choices
    ends: tuple[EndOfRun, ...]
    across: tuple[Across, ...]
    path: tuple[PathPoint, ...]
    missing: int
    evaluations: float
    wall_seconds: float


def sharpness(
    study: str | Path,
    workload: Any = None,
    *,
    measures: Sequence[str] = USUAL,
    runs: Sequence[int] | None = None,
    path: tuple[int, int] | None = None,
    again: bool = False,
    start_from: StartFrom | None = None,
    changed_code: ChangedCode = "refuse",
    device: str | None = None,
    threads: int | None = None,
    watch: Watch = lambda run, measure, done, due: None,
    **choices: Any,
) -> SharpnessReport:
    """Measure the weights that the runs of a study ended with (`sweep --keep-models last`). All is kept in the study.

    Parameters
    ----------
    workload: A `Workload` or its name; None: the bundled workload that the study is of.
    measures: Names of `minima.MEASURES`; "ends" (gap, distance from the start) is always among them.
    runs: Identifiers of the runs to measure; None: all that left weights.
    path: Also loss and metric along the straight and the curved line between the weights of two runs.
    again: Measure anew what the study has by the same choices.
    start_from: The weights that all runs started from, where that was said to `sweep` or `find`.
    changed_code: What to do where the code of the workload has changed since its study began: "refuse", or "mix".
    watch: Is told of every measurement before it is made.
    choices: What the numbers depend on: the fields of `minima.Choices`.

    What the study has already by the same choices is taken from it, also where the weights are gone. Interrupted at any
    moment it keeps what was measured, and the same call goes on where it was.

    Raises
    ------
    InputError: For an unknown measure or choice, another workload than the study's, weights that do not fit it.
    InsufficientEvidence: When no run left its weights.
    """
    chosen = Choices(**choices)
    names = known_measures(("ends", *measures))
    with Study.open(study) as seen:
        facts = seen.facts
    workload = _workload(facts, workload)
    runner = as_runner(workload, device=device, threads=threads, start_from=start_from)
    if not isinstance(runner, MeasuresWeights):
        raise InputError(f"The weights of {facts.name!r} cannot be seen: only a rightbatch.Workload shows them.")
    with open_study(study, runner.facts, changed_code, given=workload) as kept:
        finished = [run for run in kept.runs() if run.stop is not None and run.stop.reason is StopReason.FINISHED]
        there = [run for run in finished if _weights(kept, run.identifier).is_file()]
        known = frozenset((r.run, r.measure, r.choices) for r in kept.weights_records())
        asked_runs = [run.identifier for run in there] if runs is None else runs
        due = [
            (number, name)
            for number in asked_runs
            for name in names
            if again or (number, name, chosen.of(name)) not in known
        ]
        if not there and not known:
            options = f"--batch-sizes ... --until horizon --keep-models last --study {kept.path}"
            raise InsufficientEvidence(
                f"No run of {kept.path} that went to its end has left its weights in {models_folder(kept.path)}. Train "
                f"to the end, and keep them: {command('sweep', kept.facts, options)}"
            )
        began = time.monotonic()
        try:
            spent = sum(r.evaluations for r in _measured(kept, runner, _chosen(there, due), chosen, watch))
            if path is not None:
                _along(kept, runner, [run for run, _ in _chosen(there, [(number, "path") for number in path])], chosen)
        finally:
            kept.add_cost("sharpness", time.monotonic() - began)
        records = kept.weights_records()
        asked = [r for r in records if r.measure in names and r.choices == chosen.of(r.measure)]
        ends = ends_of(kept.runs(), asked, facts.direction)
        return SharpnessReport(
            workload=facts.name,
            metric=facts.metric,
            choices=chosen,
            ends=ends,
            across=across(ends, facts.direction, facts.present[1] if facts.present else None),
            path=paths_of(records)[path] if path is not None else (),
            missing=len(finished) - len(there),
            evaluations=spent,
            wall_seconds=time.monotonic() - began,
        )


def _workload(facts: WorkloadFacts, given: Any) -> Any:
    if given is not None:
        return given
    if len(facts.given) == 1:
        return facts.given[0]
    name = facts.name if facts.name in WORKLOADS else facts.name.rpartition(":")[0]  # "cifar100:15k" is of "cifar100"
    if name not in WORKLOADS:
        raise InputError(
            f"The study is of {facts.name!r}, which is not bundled: name what makes it, --workload my.py:make_workload."
        )
    return name


def _chosen(there: Sequence[Run], due: Sequence[tuple[int, str]]) -> list[tuple[Run, str]]:
    """The runs for their numbers. Raises `InputError` for one without weights."""
    found = {run.identifier: run for run in there}
    for number, _ in due:
        if number not in found:
            raise InputError(
                f"Run {number} has left no weights; these have: {', '.join(map(str, sorted(found))) or 'none'}."
            )
    return [(found[number], name) for number, name in due]


def _weights(study: Study, run: int) -> Path:
    return weights_path(models_folder(study.path), run)


def _measured(
    study: Study, runner: MeasuresWeights, due: Sequence[tuple[Run, str]], choices: Choices, watch: Watch
) -> Iterator[WeightsRecord]:
    """Measure, keep each at once; gives the first record of each."""
    minimum, of = None, None
    for done, (run, name) in enumerate(due):
        watch(run, name, done, len(due))
        if minimum is None or of != run.identifier:
            minimum, of = runner.minimum(_weights(study, run.identifier), run.trial), run.identifier
        records = minimum.measure(run.identifier, name, choices)
        study.add_weights_records(records)
        yield records[0]


def _along(study: Study, runner: MeasuresWeights, ends: Sequence[Run], choices: Choices) -> None:
    one, other = ends
    minimum = runner.minimum(_weights(study, one.identifier), one.trial)
    for records in minimum.path(one.identifier, _weights(study, other.identifier), other.identifier, choices):
        study.add_weights_records(records)
