"""The verb that looks at the weights that runs ended with: sharpness."""

from __future__ import annotations

from typing import Annotated

import typer

from rightbatch.cli.app import app, err, interruptible, out, print_json
from rightbatch.cli.options import ChangedCode, Device, Json, LossExamples, StartFrom, StudyPath, Threads
from rightbatch.errors import InputError
from rightbatch.generalization import SHARPNESS
from rightbatch.minima import Choices
from rightbatch.pipeline import sharpness as measuring
from rightbatch.report.sharpness import print_sharpness

USUAL = Choices()


@app.command("sharpness")
def sharpness_command(
    study: StudyPath,
    workload: Annotated[
        str | None, typer.Option(help="What the study is of, where it is not bundled: my.py:make_workload.")
    ] = None,
    measures: Annotated[str, typer.Option(help=f"Of: ends, {', '.join(SHARPNESS)}.")] = ",".join(measuring.USUAL),
    runs: Annotated[str | None, typer.Option(help="Numbers of the runs to measure, as 1,4; else all.")] = None,
    path: Annotated[str | None, typer.Option(help="Two runs, as 1,4: also the loss along lines between them.")] = None,
    epsilon: Annotated[float, typer.Option(help="Half the side of the box.")] = USUAL.epsilon,
    dimensions: Annotated[int, typer.Option(help="Of the random subspace.")] = USUAL.dimensions,
    law: Annotated[str, typer.Option(help="Of its directions: normal, uniform, unit-normal, unit-uniform.")] = "normal",
    iterations: Annotated[int, typer.Option(help="Of the solver.")] = USUAL.iterations,
    solver: Annotated[str, typer.Option(help="l-bfgs-b or signed-ascent.")] = USUAL.solver,
    start: Annotated[str, typer.Option(help="Of the solver: centre or random.")] = USUAL.start,
    restarts: Annotated[int, typer.Option(help="The largest maximum of so many counts.")] = USUAL.restarts,
    statistics: Annotated[
        str, typer.Option(help="Of batch normalisation: running, batch, recomputed.")
    ] = USUAL.statistics,
    examples: LossExamples = None,
    curvature_examples: Annotated[
        int | None, typer.Option(help="The Hessian of so many training examples.")
    ] = USUAL.curvature_examples,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = USUAL.seed,
    again: Annotated[bool, typer.Option(help="Measure anew what the study has already.")] = False,
    start_from: StartFrom = None,
    changed_code: ChangedCode = "refuse",
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure how sharp the minima are that kept runs ended in, and how well they generalise, by batch size."""
    with interruptible(), err.status("loading weights") as status:
        report = measuring.sharpness(
            study,
            workload,
            measures=[name for name in measures.split(",") if name],
            runs=_runs(runs, "--runs"),
            path=_pair(path),
            epsilon=epsilon,
            dimensions=dimensions,
            law=law,
            iterations=iterations,
            solver=solver,
            start=start,
            restarts=restarts,
            statistics=statistics,
            examples=examples,
            curvature_examples=curvature_examples,
            seed=seed,
            again=again,
            start_from=start_from,
            changed_code=changed_code,  # type: ignore[arg-type]  # checked there
            device=device,
            threads=threads,
            watch=lambda run, name, done, due: status.update(
                f"{name} of run {run.identifier} (batch size {run.trial.batch_size}): {done} of {due} measured"
            ),
        )
    if as_json:
        print_json(report)
    else:
        print_sharpness(out, report.workload, report.metric, report.ends, report.across, report.missing)


def _runs(text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} is numbers of runs with commas between, got {text!r}.") from None


def _pair(text: str | None) -> tuple[int, int] | None:
    found = _runs(text, "--path")
    if found is None:
        return None
    if len(found) != 2 or found[0] == found[1]:
        raise InputError(f"--path is two different runs, as 1,4; got {text!r}.")
    return found[0], found[1]
