"""The verb that reads batch size and rate as a temperature: posterior."""

from __future__ import annotations

from typing import Annotated

import typer

from rightbatch.cli.app import app, err, interruptible, out, print_json
from rightbatch.cli.arguments import given
from rightbatch.cli.options import ChangedCode, Device, Json, LossExamples, StartFrom, StudyOption, Threads, Words
from rightbatch.minima import Choices
from rightbatch.pipeline import posterior as measuring
from rightbatch.report.posterior import print_posterior

USUAL = Choices()


@app.command("posterior")
def posterior_command(
    words: Words,
    study: StudyOption = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Default: what is trained with.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: what is trained with.")] = None,
    passes: Annotated[
        int, typer.Option(help="To go on for at a constant rate; weights of each are kept.")
    ] = USUAL.passes,
    noise_examples: Annotated[
        int | None, typer.Option(help="The gradient noise of so many training examples.")
    ] = USUAL.noise_examples,
    examples: LossExamples = None,
    start_from: StartFrom = None,
    changed_code: ChangedCode = "refuse",
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Say what a batch size and a rate mean as a temperature: how far from the Bayes-optimal noise they are."""
    with interruptible(), err.status("training") as status:
        found = measuring.posterior(
            given(words),
            study=study,
            batch_size=batch_size,
            learning_rate=learning_rate,
            start_from=start_from,
            changed_code=changed_code,  # type: ignore[arg-type]  # checked there
            device=device,
            threads=threads,
            measuring=lambda: status.update(f"going on for {passes} passes"),
            passes=passes,
            noise_examples=noise_examples,
            examples=examples,
        )
    if as_json:
        print_json(found)
    else:
        print_posterior(out, " ".join(words), found)
