"""The verb that looks at gradients: noise."""

from __future__ import annotations

from typing import Annotated

import typer

from rightbatch.cli.app import app, err, interruptible, out, print_json
from rightbatch.cli.arguments import asked, given
from rightbatch.cli.options import Device, Json, Present, SettingOption, StudyOption, Threads, Words
from rightbatch.pipeline import noise as measuring
from rightbatch.report.noise import print_noise


@app.command("noise")
def noise_command(
    words: Words,
    study: StudyOption = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Default: what is trained with now.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: what is trained with now.")] = None,
    steps: Annotated[int | None, typer.Option(help="Default: to the target, where it is known, else 300.")] = None,
    curvature: Annotated[bool, typer.Option(help="Weigh the noise by the Hessian too: dear.")] = False,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    present: Present = None,
    settings: SettingOption = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure the gradient noise scale along a short training."""
    ask = asked(present=present, settings=settings)
    with interruptible(), err.status("sampling gradients") as status:
        report = measuring.noise(
            given(words, ask),
            study=study,
            batch_size=batch_size,
            learning_rate=learning_rate,
            steps=steps,
            curvature=curvature,
            seed=seed,
            device=device,
            threads=threads,
            watch=lambda sample, planned: status.update(f"sampling gradients: step {sample.step + 1:,} of {planned:,}"),
            **ask,
        )
    if as_json:
        print_json(report)
        return
    print_noise(
        out,
        report.workload,
        report.whole,
        report.along,
        at_target=report.at_target,
        preconditioned=report.preconditioned,
        curvature=report.curvature,
        critical_prior=report.critical_prior,
        critical_batch_size=report.critical_batch_size,
    )
