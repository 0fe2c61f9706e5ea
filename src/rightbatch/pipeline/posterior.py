"""`posterior`: what a batch size and a rate mean as a temperature, and how far from the optimal noise they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rightbatch.errors import InsufficientEvidence
from rightbatch.minima import Choices
from rightbatch.pipeline.desk import Watch, unwatched, weights_path
from rightbatch.pipeline.first_choice import first_choice
from rightbatch.pipeline.models import models_folder
from rightbatch.pipeline.profile import measure_step_times
from rightbatch.pipeline.runners import StartFrom, as_runner
from rightbatch.pipeline.setting_up import ChangedCode, check_sizes, open_study, train_once
from rightbatch.pipeline.sharpness import sharpness
from rightbatch.records import StopReason, Trial
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
    chosen = Choices(**choices).of("temperature")  # what cannot be is said before anything is trained
    how: dict[str, Any] = {"device": device, "threads": threads, "start_from": start_from}
    runner = as_runner(workload, keep_models="last", **how)
    facts = runner.facts
    usual = first_choice(facts)
    size, rate = usual[0] if batch_size is None else batch_size, usual[1] if learning_rate is None else learning_rate
    check_sizes(facts, [size])
    trial = Trial(size, rate, 0, facts.planned_examples)
    with open_study(study, facts, changed_code, given=workload) as kept:
        path, models = kept.path, models_folder(kept.path)
        measure_step_times(kept, runner, [size])  # the page of the study tells of seconds
        run = train_once(kept, runner, facts, trial, "its weights are wanted", models=models, watch=watch)
    finished = run.stop is not None and run.stop.reason is StopReason.FINISHED
    if not finished or not weights_path(models, run.identifier).is_file():
        raise InsufficientEvidence(
            f"The run of batch size {size} at rate {rate:g} has left no weights: it "
            f"{run.stop.reason.value if run.stop else 'did not end'}. Take another rate, or, where it was made without "
            f"--keep-models, another --study."
        )
    measuring()
    how["changed_code"] = changed_code
    sharpness(path, workload, measures=("temperature",), runs=(run.identifier,), **how, **choices)
    with Study.open(path) as seen:
        records = [r for r in seen.weights_records() if r.run == run.identifier and r.choices == chosen]
        (found,) = temperatures_of([run], records)
    return found
