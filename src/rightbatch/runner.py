"""The seam: a runner starts runs from trials, a run in progress advances from evaluation to evaluation.

Whoever drives runs (the loop in `pipeline`) knows nothing else of them, and whoever makes runs knows nothing of
studies or strategies. `tests/contracts/test_runners.py` holds every runner to what is written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from rightbatch.records import Environment, Point, StepTime, Stop, Trial, WorkloadFacts


class RunInProgress(Protocol):
    """One training run that is under way.

    Several runs may be under way in one process: advancing one never changes what another one computes. A run that is
    not advanced is paused; nothing else is needed to pause it.
    """

    def advance(self) -> Point | Stop:
        """Train to the next evaluation point and return it, or say why the run ended.

        The first point is at step 0 where the runner can evaluate before training. After a `Stop` only `close` is
        called. Out of memory and divergence are stops; an error of the person's own code is a `WorkloadError`.
        """

    def close(self) -> None:
        """Let go of everything that the run holds. Allowed at any time, more than once."""


@runtime_checkable
class Saveable(Protocol):
    """A run in progress whose exact state can be written down and read back."""

    def save(self) -> bytes:
        """The state after the last point, so that `runner.start(trial, state)` goes on to the bit."""


@runtime_checkable
class KeepsWeights(Protocol):
    """A run in progress that can write the weights of its model to a file."""

    def write_weights(self, path: Path) -> bool:
        """Write them as `torch.save` does a state dict, whole or not at all; False where there are none to keep."""


class Runner(Protocol):
    """Starts runs of one workload, and tells what is known of it without training."""

    @property
    def facts(self) -> WorkloadFacts:
        """What is known of the workload."""

    @property
    def environment(self) -> Environment:
        """Where its seconds are measured."""

    def offers(self, trial: Trial) -> bool:
        """Whether such a trial can be run: its batch is not larger than the data, a table has it."""

    def start(self, trial: Trial, state: bytes | None = None) -> RunInProgress:
        """Begin a run, or go on from a state that a run of the same trial saved.

        Raises `InputError` for a trial that cannot be run (a batch larger than the data).
        """

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        """Measure seconds per step at each batch size, round-robin; one record a size, when all rounds are done."""
