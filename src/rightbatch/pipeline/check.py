"""Find all faults of a workload, a loop or a command, before any long work."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rightbatch.commands import CommandRunner
from rightbatch.errors import InputError, WorkloadError
from rightbatch.findings import CheckReport, Fault, Finding, NotLookedAt
from rightbatch.pipeline.asking import Ask
from rightbatch.pipeline.first_choice import first_trial
from rightbatch.pipeline.runners import as_runner, from_name
from rightbatch.pipeline.setting_up import asked_target, facts_as_asked
from rightbatch.records import Target, Trial, WorkloadFacts
from rightbatch.runner import Runner
from rightbatch.tables import is_table

SEED = 0

Found = tuple[list[Finding], list[str], list[NotLookedAt]]


def check(workload: Any, *, device: str | None = None, threads: int | None = None, **asked: Any) -> CheckReport:
    """Look for all faults of `workload` at once, at what is trained with now; it takes seconds.

    `workload` is what `find` takes, but for tables; `asked` are fields of `rightbatch.Ask` (`present`, `settings`,
    `planned_examples`, `target`; `direction` and `train_examples` of a loop).

    Raises
    ------
    InputError: For what is no workload at all (no such file, an option that does not go with it), and for a table.
    """
    started = time.perf_counter()
    ask = Ask(**asked)
    if isinstance(workload, str) and is_table(workload):
        raise InputError(
            f"{workload} is a table of runs that were made: there is nothing to try out. Check its workload."
        )
    beforehand: list[Finding] = []
    made = workload
    try:
        made = from_name(workload) if isinstance(workload, str) else workload
        made = _repaired(made, beforehand)
        runner = as_runner(made, ask=ask, device=device, threads=threads)
    except WorkloadError as error:
        unusable = Finding(Fault.CONSTRUCTION, str(error), "Correct this, then check again: no more can be looked at.")
        findings = (*beforehand, unusable)
        return CheckReport(_name(made, workload), findings, (), time.perf_counter() - started)
    facts = facts_as_asked(runner.facts, ask)
    trial = first_trial(facts, ask, SEED)
    if facts.present is None and facts.train_examples:
        trial = replace(trial, batch_size=min(trial.batch_size, facts.train_examples))
    findings_of, looked_at, not_looked_at = _look(runner, facts, trial, asked_target(facts, ask))
    return CheckReport(
        workload=facts.name,
        findings=(*beforehand, *findings_of),
        looked_at=tuple(looked_at),
        seconds=time.perf_counter() - started,
        not_looked_at=tuple(not_looked_at),
    )


def _look(runner: Runner, facts: WorkloadFacts, trial: Trial, target: Target | None) -> Found:
    """The checks that suit the kind of runner."""
    own: Any = getattr(runner, "workload", None)
    if _is_workload(own):
        from rightbatch.checks.workload import look_at

        return look_at(own, facts, trial, target)
    from rightbatch.checks import attempts, runs

    if not isinstance(runner, CommandRunner):
        return runs.look_at(runner, trial, target=target)
    command = runner.command
    # A program that says nothing cannot be asked to stop: its own time limit ends it.
    limit = min(command.timeout_seconds or attempts.RUN_SECONDS, attempts.RUN_SECONDS)
    limited = CommandRunner(replace(command, timeout_seconds=limit))
    return runs.look_at(limited, trial, target=target, seeded=command.takes_seed, own_clock=False)


def _is_workload(made: Any) -> bool:
    module = sys.modules.get("rightbatch.workload")  # there is no `Workload` where nobody has imported its file
    return module is not None and isinstance(made, module.Workload)


def _name(made: Any, given: Any) -> str:
    name = getattr(made, "name", None) or getattr(made, "__name__", None)
    return str(name or (given if isinstance(given, str) else type(made).__name__))


# ---------------------------------------------------------------------------------------------- data with NaN in it


def _repaired(made: Any, findings: list[Finding]) -> Any:
    """A workload without the examples that have values that are not finite, so that the rest can be looked at.

    What was left out is added to `findings`. Raises `WorkloadError` where no example is left.
    """
    if not _is_workload(made):
        return made
    workload = made
    from rightbatch.batches import check_finite

    for what in ("data", "valid", "test"):
        data = getattr(workload, what)
        if data is None:
            continue
        try:
            check_finite(data, what)
        except WorkloadError as error:
            findings.append(
                Finding(Fault.DATA_NOT_FINITE, str(error), "All else was looked at on the examples without them.")
            )
            workload = replace(workload, **{what: _finite_rows(data)})
    return workload


def _finite_rows(data: Any) -> Any:
    """Tensors without the examples in which one of them is not finite."""
    parts = list(data.values()) if isinstance(data, Mapping) else data if isinstance(data, list | tuple) else [data]
    keep = parts[0].new_ones(len(parts[0])).bool()
    for part in parts:
        if part.is_floating_point():
            keep &= part.isfinite().reshape(len(part), -1).all(dim=1).to(keep.device)
    if isinstance(data, Mapping):
        return {key: part[keep] for key, part in data.items()}
    return tuple(part[keep] for part in parts) if isinstance(data, list | tuple) else data[keep]
