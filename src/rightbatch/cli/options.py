"""The options of the command line that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WORKLOAD_HELP = (
    "A bundled workload, my.py:make_workload, my.py:train (a generator), a table (curves.csv.gz); or, after --, a "
    "command with {batch_size} and {learning_rate} in it."
)
Words = Annotated[list[str], typer.Argument(metavar="WORKLOAD | -- COMMAND...", help=WORKLOAD_HELP)]
StudyPath = Annotated[Path, typer.Argument(help="A study.")]
StudyOption = Annotated[Path | None, typer.Option("--study", help="The study to keep (NAME.study.db).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, nothing else.")]
ObjectiveOption = Annotated[str | None, typer.Option(help="time (the usual one), examples, steps, or metric.")]
TargetOption = Annotated[float | None, typer.Option(help="Value to reach; else the workload's, or from --present.")]
TargetOn = Annotated[str | None, typer.Option(help="What the target is a value of: loss or metric.")]
FirstTouch = Annotated[
    bool | None, typer.Option(help="Reached at the first evaluation beyond the target, not two in a row.")
]
AtSeconds = Annotated[float | None, typer.Option(help="With --objective metric: compare at these training seconds.")]
AtExamples = Annotated[float | None, typer.Option(help="With --objective metric: compare at so many examples.")]
Present = Annotated[str | None, typer.Option(help="What you train with now, as BATCH_SIZE,RATE.")]
Epochs = Annotated[float | None, typer.Option(help="Planned length of a run, in passes over the data.")]
Seeds = Annotated[int, typer.Option(min=1, help="Number of seeds.")]
Sizes = Annotated[str | None, typer.Option(help="Batch sizes: 16,32,64, or 4..4096 (powers of two between).")]
SettingOption = Annotated[list[str] | None, typer.Option("--set", help="A setting of the workload, as NAME=VALUE.")]
Budget = Annotated[str | None, typer.Option(help="No more is trained after so long: 90, 10m, 2h.")]
BudgetText = Annotated[
    str | None, typer.Option("--budget", help="No more is trained after 90, 10m, 2h, or 3x (three training runs).")
]
StartFrom = Annotated[
    Path | None, typer.Option("--from", help="A checkpoint (a state dict) that every run of a workload starts from.")
]
KeepModels = Annotated[str, typer.Option(help="Weights to keep beside the study: none, best, last.")]
LossExamples = Annotated[
    int | None, typer.Option("--examples", help="The loss of so many training examples; else of all.")
]
Limit = Annotated[
    str | None, typer.Option(help="What training may hold of memory, as 8GB; larger batches are accumulated.")
]
ScheduleOption = Annotated[
    bool,
    typer.Option("--schedule", help="Also search a batch that grows while training, and judge it with fresh seeds."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch; measure with those you train with.")]
Workers = Annotated[int, typer.Option(min=1, help="Runs made at a time, each in a process of its own.")]
ChangedCode = Annotated[str, typer.Option(help="If the workload's code has changed since: refuse, or mix the runs.")]
Direction = Annotated[str | None, typer.Option(help="Of a loop's or command's metric: max (higher is better) or min.")]
TrainExamples = Annotated[int | None, typer.Option(min=1, help="Of a loop or command: how many examples it has.")]
LengthBound = Annotated[
    bool | None,
    typer.Option(
        "--length-bound", help="Of a loop or command: its rate follows a schedule to the planned end; ends alone count."
    ),
]
PlannedExamples = Annotated[int | None, typer.Option(min=1, help="Planned length of a run, in examples seen.")]
Metrics = Annotated[str | None, typer.Option(help="Of a command: the file to which it appends JSON lines.")]
Pattern = Annotated[str | None, typer.Option(help="Of a command: regular expression for its lines, (?P<step>...).")]
Timeout = Annotated[float | None, typer.Option(help="Of a command: seconds after which a run is ended.")]
