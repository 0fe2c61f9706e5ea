"""`posterior`: what a batch size and a rate mean as a temperature, and how far from the optimal noise they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rightbatch.errors import InputError, InsufficientEvidence
from rightbatch.minima import Choices
from rightbatch.pipeline.desk import Watch, unwatched, weights_path
from rightbatch.pipeline.models import models_folder
from rightbatch.pipeline.runners import StartFrom, as_runner
from rightbatch.pipeline.setting_up import ChangedCode, default_study, first_choice
from rightbatch.pipeline.sharpness import sharpness
from rightbatch.pipeline.sweep import sweep
from rightbatch.records import Run, StopReason
from rightbatch.runner import MeasuresWeights
from rightbatch.store import Study
from rightbatch.temperatures import Temperature, temperatures_of


def posterior(
    workload: Any,
    *,
    study: str | Path | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    start_from: StartFrom | None = None,
    changed_code: ChangedCode = "refuse",
    device: str | None = None,
    threads: int | None = None,
    watch: Watch = unwatched,
    measuring: Callable[[], None] = lambda: None,
    **choices: Any,
) -> Temperature:
    """Train to the end, go on at a constant rate, and tell the temperature of the iterates (Mandt et al. 2017).

    Parameters
    ----------
    batch_size, learning_rate: None: what the workload says is trained with now.
    start_from: A file with the weights (a state dict) that the training starts from.
    measuring: Is called when the training is done and the measurement begins.
    choices: `passes` to go on for, `noise_examples`, `examples` of the loss: see `minima.Choices`.

    A run of the study that has left its weights is not made again. All is kept in the study; the same call goes on
    where it was interrupted.

    Raises
    ------
    InputError: For a size that the data does not have, an optimizer whose steps are not known, a model without
        gradients of single examples, or what is no `Workload`.
    InsufficientEvidence: When the training diverged.
    """
    how: dict[str, Any] = {"device": device, "threads": threads, "start_from": start_from}
    chosen = Choices(**choices).of("temperature")  # what cannot be is said before anything is trained
    runner = as_runner(workload, **how)
    facts = runner.facts
    if not isinstance(runner, MeasuresWeights):
        raise InputError(f"The weights of {facts.name!r} cannot be seen: only a rightbatch.Workload shows them.")
    usual = first_choice(facts)
    size, rate = batch_size or usual[0], learning_rate or usual[1]
    path = Path(study or default_study(facts.name))
    how["changed_code"] = changed_code
    with contextlib.suppress(InsufficientEvidence):  # the weights are wanted here, not a target
        sweep(workload, [size], rates=[rate], seeds=1, study=path, keep_models="last", watch=watch, **how)
    run = _run(path, size, rate)
    measuring()
    sharpness(path, workload, measures=("temperature",), runs=(run.identifier,), **how, **choices)
    with Study.open(path) as seen:
        records = [r for r in seen.weights_records() if r.run == run.identifier and r.choices == chosen]
        (found,) = temperatures_of([run], records)
    return found


def _run(path: Path, batch_size: int, learning_rate: float) -> Run:
    """The first finished run of a size and rate that left its weights."""
    with Study.open(path) as seen:
        runs = [r for r in seen.runs() if (r.trial.batch_size, r.trial.learning_rate) == (batch_size, learning_rate)]
    for run in runs:
        finished = run.stop is not None and run.stop.reason is StopReason.FINISHED
        if finished and weights_path(models_folder(path), run.identifier).is_file():
            return run
    said = "; ".join(run.stop.reason.value for run in runs if run.stop is not None) or "none was made"
    raise InsufficientEvidence(
        f"No run of batch size {batch_size} at rate {learning_rate:g} has left its weights: {said}. Take another "
        f"rate, or, where runs were made without --keep-models, another --study."
    )
