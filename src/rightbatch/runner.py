"""The seam: a runner starts runs from trials, a run in progress advances from evaluation to evaluation.

Whoever drives runs (the loop in `pipeline`) knows nothing else of them, and whoever makes runs knows nothing of
studies or strategies. `tests/contracts/test_runners.py` holds every runner to what is written here. At the end stands
what runners of declared settings and known data have in common.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from rightbatch.batch_schedule import schedule_of
from rightbatch.errors import WorkloadError
from rightbatch.minima import Choices, WeightsRecord
from rightbatch.records import (
    Environment,
    GradientSample,
    MemoryProbe,
    Point,
    Setting,
    Settings,
    StepTime,
    Stop,
    Trial,
    WorkloadFacts,
)


class RunInProgress(Protocol):
    """One training run that is under way.

    Several runs may be under way in one process: advancing one never changes what another one computes. A run that is
    not advanced is paused; nothing else is needed to pause it, unless it is `Pausable`.
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
class Pausable(Protocol):
    """A run in progress of which something would go on between two calls of `advance`: a program, say."""

    def pause(self) -> None:
        """Hold it up until `advance` is called again. Allowed more than once, and after its end."""


@runtime_checkable
class KeepsWeights(Protocol):
    """A run in progress that can write the weights of its model to a file."""

    def write_weights(self, path: Path) -> bool:
        """Write them as `torch.save` does a state dict, whole or not at all; False where there are none to keep."""


@runtime_checkable
class ChangesBatchSize(Protocol):
    """A runner that tells whether its trials may have the setting `batch_schedule.SETTING`."""

    @property
    def changes_batch_size(self) -> bool:
        """Whether batches change as that says; it need not be declared."""


@runtime_checkable
class MeasuresNoise(Protocol):
    """A runner that can look at the gradients of its workload."""

    def gradient_samples(self, trial: Trial, steps: int, *, curvature_steps: int = 0) -> Iterator[GradientSample]:
        """Train for so many steps, and sample the squared norms of the gradient at each of them.

        In the plain metric, in that of the optimizer where it has another one, and by curvature at `curvature_steps`.
        """


@runtime_checkable
class MeasuresMemory(Protocol):
    """A runner that can train for a few steps to see what memory they take."""

    def memory_probe(
        self,
        batch_size: int,
        micro_batch_size: int,
        *,
        limit_bytes: int | None,
        headroom: float,
        host_bytes: int,
        look: bool,
    ) -> MemoryProbe:
        """See `measure.memory`. To be called once in the life of a process, which may not survive it."""


@runtime_checkable
class MeasuresWeights(Protocol):
    """A runner that can look at the weights that its runs wrote."""

    def minimum(self, weights: Path, trial: Trial) -> Minimum:
        """The weights of a run, to be measured. Raises `InputError` where they are not of its model."""


class Minimum(Protocol):
    """The weights that a run ended with."""

    def measure(self, run: int, name: str, choices: Choices) -> tuple[WeightsRecord, ...]:
        """What a measure of `minima.MEASURES` gives; the record of its own name first."""

    def path(self, run: int, weights: Path, to: int, choices: Choices) -> Iterator[tuple[WeightsRecord, ...]]:
        """Loss and metric along lines to the weights of run `to`, a position at a time."""


class Trunk(Protocol):
    """One training from which short branches are trained, at its batch size and rate or at multiples of them."""

    @property
    def learning_rate(self) -> float:
        """The rate in force now."""

    @property
    def cautions(self) -> tuple[str, ...]:
        """What makes its branches less comparable than they should be, in sentences."""

    def advance(self, step: int) -> float:
        """Train to a step, at least the present one; the loss on the validation set there."""

    def branch(self, factor: int, rate_factor: float, seed: int | None, examples: int) -> float:
        """Train a branch from here, at `factor` times the batch size and `rate_factor` times the rate in force.

        Branches of one seed see the same examples in the same order. Returns the loss on the validation set after so
        many examples, infinite where the branch diverged; the trunk stays where it is. Raises
        `raised.MemoryExhausted` for a batch that does not fit.
        """


@runtime_checkable
class BranchesOff(Protocol):
    """A runner whose trainings can be branched."""

    def trunk(self, trial: Trial, widest: int) -> Trunk:
        """Begin a training whose branches have at most `widest` times its batch size, a multiple of all factors."""


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
        """Measure seconds per step at each batch size, sizes in turn.

        The records of a size come as its repeats do, each with all of them so far: the last one is not `unfinished`.
        A size that does not fit into memory gets none; nor does one at which the person's code fails, with a warning.
        Raises `WorkloadError` where it fails at every size.
        """


def changes_batch_size(runner: Runner) -> bool:
    """Whether batches may grow along a run of it."""
    return isinstance(runner, ChangesBatchSize) and runner.changes_batch_size


def suits(trial: Trial, train_examples: int, settings: Collection[str]) -> bool:
    """Whether no batch is larger than the data (0 examples: not known) and all settings are among those declared."""
    largest = max(phase.batch_size for phase in schedule_of(trial).phases)
    return (not train_examples or largest <= train_examples) and set(trial.settings) <= set(settings)


def completed(
    trial: Trial, settings: Mapping[str, Setting], planned_examples: int, owner: str, also: Collection[str] = ()
) -> Trial:
    """A trial with every declared setting, and with this planned length (0: none) where it has none of its own.

    `settings` are those declared, with their defaults, `also` those that need not be. Raises `WorkloadError` for a
    setting that is not among them.
    """
    check_settings(set(trial.settings) - set(also), settings, owner)
    planned = trial.planned_examples or planned_examples or None
    return replace(trial, planned_examples=planned, settings=Settings({**settings, **trial.settings}))


def check_settings(given: Collection[str], declared: Collection[str], owner: str) -> None:
    """Raise `WorkloadError` for a setting that its `owner` (as "workload 'digits'") does not declare."""
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise WorkloadError(
            f"The {owner} declares no setting {unknown[0]!r}; it has {', '.join(sorted(declared)) or 'none'}."
        )
