"""rightbatch: which mini-batch size should I train with, at which learning rate? Measured, not guessed.

    import rightbatch
    answer = rightbatch.find(workload)           # or a generator, a Command, "digits", "my.py:train", "curves.csv.gz"
    print(answer.batch_size, answer.learning_rate)

Everything here works without torch but `Workload` itself, which is imported when it is first asked for.
"""

from __future__ import annotations

from typing import Any

from rightbatch.answer import Recommendation
from rightbatch.commands import Command
from rightbatch.errors import (
    DataError,
    InputError,
    InsufficientEvidence,
    MissingExtra,
    RightbatchError,
    StudyError,
    WorkloadError,
)
from rightbatch.evidence import Evidence, Objective
from rightbatch.findings import CheckReport
from rightbatch.loops import Loop, LoopTrial
from rightbatch.pipeline.check import check
from rightbatch.pipeline.export import export
from rightbatch.pipeline.find import find
from rightbatch.pipeline.setting_up import Ask
from rightbatch.pipeline.show import show
from rightbatch.pipeline.sweep import sweep
from rightbatch.records import Interval, Point, Run, Settings, Stop, StopReason, Target, Trial
from rightbatch.store import Study

__version__ = "0.1.0"

__all__ = [
    "Ask",
    "CheckReport",
    "Command",
    "DataError",
    "Evidence",
    "InputError",
    "InsufficientEvidence",
    "Interval",
    "Loop",
    "LoopTrial",
    "MissingExtra",
    "Objective",
    "Point",
    "Recommendation",
    "RightbatchError",
    "Run",
    "Settings",
    "Stop",
    "StopReason",
    "Study",
    "StudyError",
    "Target",
    "Trial",
    "Workload",
    "WorkloadError",
    "check",
    "export",
    "find",
    "show",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name != "Workload":
        raise AttributeError(f"module 'rightbatch' has no attribute {name!r}")
    try:
        from rightbatch.workload import Workload
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("PyTorch, which a Workload needs,", "torch") from error
    return Workload
