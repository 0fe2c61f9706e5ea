"""rightbatch: which mini-batch size should I train with, at which learning rate? Measured, not guessed.

    import rightbatch
    answer = rightbatch.find(workload)           # or a generator, a Command, "digits", "my.py:train", "curves.csv.gz"
    print(answer.batch_size, answer.learning_rate)

What a name needs is imported when it is first asked for, so that a worker process, say, starts at once. Only
`Workload`, `NoiseScale`, the optimizers, `attempts` and `within_memory` need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rightbatch.errors import (
    DataError,
    InputError,
    InsufficientEvidence,
    MissingExtra,
    RightbatchError,
    StudyError,
    WorkloadError,
)
from rightbatch.findings import CheckReport
from rightbatch.records import Interval, Point, Run, Settings, Stop, StopReason, Target, Trial

if TYPE_CHECKING:  # the same names as in `_FOUND_IN`, for type checkers and editors
    from rightbatch.adaptive_accumulation import AdaptiveAccumulation
    from rightbatch.adaptive_sampler import AdaptiveBatchSampler
    from rightbatch.answer import Recommendation
    from rightbatch.commands import Command
    from rightbatch.evidence import Evidence
    from rightbatch.gradients.monitor import NoiseScale
    from rightbatch.loops import Loop, LoopTrial
    from rightbatch.memory_answer import MemoryReport
    from rightbatch.optim.constant_sgd import ConstantSGDSampler
    from rightbatch.optim.emso import EMSO
    from rightbatch.optim.iterate_average import IterateAverage
    from rightbatch.optim.linear import LinearBatch
    from rightbatch.pipeline.asking import Ask
    from rightbatch.pipeline.branches import branches
    from rightbatch.pipeline.check import check
    from rightbatch.pipeline.export import export
    from rightbatch.pipeline.find import find
    from rightbatch.pipeline.judge import judge
    from rightbatch.pipeline.memory import largest_batch, memory
    from rightbatch.pipeline.noise import noise
    from rightbatch.pipeline.posterior import posterior
    from rightbatch.pipeline.profile import profile
    from rightbatch.pipeline.runs import Runs, runs
    from rightbatch.pipeline.sharpness import sharpness
    from rightbatch.pipeline.show import show
    from rightbatch.pipeline.sweep import sweep
    from rightbatch.pipeline.train import Trained, train
    from rightbatch.question import Objective
    from rightbatch.retrying import Attempt, attempts, within_memory
    from rightbatch.runner import RunInProgress
    from rightbatch.store import Study
    from rightbatch.workload import Workload

__version__ = "0.1.0"

__all__ = [
    "EMSO",
    "AdaptiveAccumulation",
    "AdaptiveBatchSampler",
    "Ask",
    "Attempt",
    "CheckReport",
    "Command",
    "ConstantSGDSampler",
    "DataError",
    "Evidence",
    "InputError",
    "InsufficientEvidence",
    "Interval",
    "IterateAverage",
    "LinearBatch",
    "Loop",
    "LoopTrial",
    "MemoryReport",
    "MissingExtra",
    "NoiseScale",
    "Objective",
    "Point",
    "Recommendation",
    "RightbatchError",
    "Run",
    "RunInProgress",
    "Runs",
    "Settings",
    "Stop",
    "StopReason",
    "Study",
    "StudyError",
    "Target",
    "Trained",
    "Trial",
    "Workload",
    "WorkloadError",
    "attempts",
    "branches",
    "check",
    "controllers",
    "export",
    "find",
    "judge",
    "largest_batch",
    "memory",
    "noise",
    "plots",
    "posterior",
    "profile",
    "rules",
    "runs",
    "sharpness",
    "show",
    "sweep",
    "train",
    "within_memory",
]

_FOUND_IN = {
    "AdaptiveAccumulation": "adaptive_accumulation",
    "AdaptiveBatchSampler": "adaptive_sampler",
    "Ask": "pipeline.asking",
    "Attempt": "retrying",
    "Command": "commands",
    "ConstantSGDSampler": "optim.constant_sgd",
    "EMSO": "optim.emso",
    "Evidence": "evidence",
    "IterateAverage": "optim.iterate_average",
    "LinearBatch": "optim.linear",
    "Loop": "loops",
    "LoopTrial": "loops",
    "MemoryReport": "memory_answer",
    "NoiseScale": "gradients.monitor",
    "Objective": "question",
    "Recommendation": "answer",
    "RunInProgress": "runner",
    "Runs": "pipeline.runs",
    "Study": "store",
    "Trained": "pipeline.train",
    "Workload": "workload",
    "attempts": "retrying",
    "branches": "pipeline.branches",
    "check": "pipeline.check",
    "export": "pipeline.export",
    "find": "pipeline.find",
    "judge": "pipeline.judge",
    "largest_batch": "pipeline.memory",
    "memory": "pipeline.memory",
    "noise": "pipeline.noise",
    "posterior": "pipeline.posterior",
    "profile": "pipeline.profile",
    "runs": "pipeline.runs",
    "sharpness": "pipeline.sharpness",
    "show": "pipeline.show",
    "sweep": "pipeline.sweep",
    "train": "pipeline.train",
    "within_memory": "retrying",
}


def __getattr__(name: str) -> Any:
    if name in ("controllers", "plots", "rules"):  # modules of their own
        return import_module(f"rightbatch.{name}")
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'rightbatch' has no attribute {name!r}")
    try:
        return getattr(import_module(f"rightbatch.{_FOUND_IN[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra(f"PyTorch, which rightbatch.{name} needs,", "torch") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
