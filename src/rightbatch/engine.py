"""Runs of a `Workload`: they advance from rung to rung, pause, save and continue to the bit."""

from __future__ import annotations

import bisect
import functools
import hashlib
import io
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rightbatch import curves
from rightbatch.batch_schedule import SETTING, schedule_of
from rightbatch.batches import Source
from rightbatch.branching import Trunk
from rightbatch.checkpoint import Checkpoint, starting_from
from rightbatch.errors import InputError, StateError
from rightbatch.evaluation import Evaluator
from rightbatch.gradients.training import gradient_samples
from rightbatch.landscape.measuring import Minimum
from rightbatch.machine import processor
from rightbatch.measure.memory import measure_memory
from rightbatch.measure.step_time import measure_step_times
from rightbatch.raised import MemoryExhausted, explained
from rightbatch.records import (
    Environment,
    GradientSample,
    MemoryProbe,
    Point,
    Setting,
    Settings,
    StepTime,
    Stop,
    StopReason,
    Trial,
    WorkloadFacts,
)
from rightbatch.runner import suits
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.weights import Keep, KeptWeights
from rightbatch.workload import Workload


class WorkloadRunner:
    """Starts runs of a `Workload` in this process.

    `keep_models` says which weights a run can write, `start_from` which weights every run starts from (None: those that
    the model is made with). Batches of more than `micro_batch_size` examples are accumulated from parts of at most so
    many. Seconds and memory are measured with the `settings` that are asked for. Raises `InputError` where
    these do not fit the model.

    `too_large` is the smallest size that did not fit into memory when step times were measured; None where all did.
    """

    def __init__(
        self,
        workload: Workload,
        keep_models: Keep = "none",
        start_from: Checkpoint | None = None,
        micro_batch_size: int | None = None,
        settings: Mapping[str, Setting] | None = None,
    ) -> None:
        self.given, self.start_from, self._keep = workload, start_from, keep_models
        self.micro_batch_size = micro_batch_size
        self._settings = Settings(settings).other_than(workload.settings)
        self.too_large: int | None = None
        workload.check_finite()
        self._facts = workload.facts()
        if start_from is not None:
            workload = starting_from(workload, start_from)
            source = f"{self._facts.source} {start_from.digest}"
            self._facts = replace(self._facts, source=hashlib.sha256(source.encode()).hexdigest()[:16])
        self.workload = workload

    # Read once and shared by all runs: on a device, the data is moved there once, and not by who only asks for facts.

    @functools.cached_property
    def _data(self) -> Source:
        return self.workload.source("data")

    @functools.cached_property
    def _valid(self) -> Evaluator:
        return Evaluator(self.workload, self.workload.source("valid"))

    @functools.cached_property
    def _test(self) -> Evaluator | None:
        return Evaluator(self.workload, self.workload.source("test")) if self.workload.test is not None else None

    @property
    def _as_asked(self) -> Workload:
        """Whose settings are by default those that were asked for."""
        return replace(self.workload, settings={**self.workload.settings, **self._settings})

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkloadRunner, (self.given, self._keep, self.start_from, self.micro_batch_size, self._settings)

    @property
    def facts(self) -> WorkloadFacts:
        return self._facts

    @property
    def environment(self) -> Environment:
        device = torch.device(self.workload.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return Environment(
            device=name,
            threads=torch.get_num_threads(),
            precision=_precision(self.workload),
            processor=processor(),
            python=platform.python_version(),
            torch=torch.__version__,
            rightbatch=version("rightbatch"),
            micro_batch_size=self.micro_batch_size,
            settings=self._settings,
        )

    changes_batch_size = True
    """See `rightbatch.runner.ChangesBatchSize`."""

    def offers(self, trial: Trial) -> bool:
        return suits(trial, self._facts.train_examples, {*self.workload.settings, SETTING})

    def start(self, trial: Trial, state: bytes | None = None) -> TrainingRun:
        """Begin a run, or go on from the state that a run of the same trial saved."""
        kept = KeptWeights(self._keep, self._facts)
        run = TrainingRun(
            self.workload,
            self.workload.complete(trial),
            self._data,
            self._valid,
            self._test,
            kept,
            self.micro_batch_size,
            curves.RATIO_OF_ENDS if self._facts.length_bound else curves.RATIO,
        )
        if state is not None:
            run.load(state)
        return run

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        with explained("while measuring step times"):
            too_large = yield from measure_step_times(
                self._as_asked, batch_sizes, rounds=rounds, micro_batch_size=self.micro_batch_size
            )
        self.too_large = too_large or self.too_large

    def gradient_samples(self, trial: Trial, steps: int, *, curvature_steps: int = 0) -> Iterator[GradientSample]:
        """See `rightbatch.runner.MeasuresNoise`."""
        with explained("while sampling gradients"):
            yield from gradient_samples(self.workload, trial, steps, curvature_steps=curvature_steps)

    def memory_probe(self, batch_size: int, micro_batch_size: int, **how: Any) -> MemoryProbe:
        """See `rightbatch.runner.MeasuresMemory`."""
        return measure_memory(self._as_asked, self._data, batch_size, micro_batch_size, **how)

    def minimum(self, weights: Path, trial: Trial) -> Minimum:
        """See `rightbatch.runner.MeasuresWeights`."""
        return Minimum(self.workload, weights, self.workload.complete(trial))

    def trunk(self, trial: Trial, widest: int) -> Trunk:
        """See `rightbatch.runner.BranchesOff`."""
        return Trunk(self.workload, trial, self._data, self._valid, widest)


class TrainingRun:
    """One run in progress. See `rightbatch.runner.RunInProgress` for the contract."""

    def __init__(
        self,
        workload: Workload,
        trial: Trial,
        data: Source,
        valid: Evaluator,
        test: Evaluator | None,
        kept: KeptWeights,
        micro_batch_size: int | None = None,
        ratio: float = curves.RATIO,
    ) -> None:
        self.trial, self._kept = trial, kept
        self._random = RandomStreams(trial.seed)
        self._valid, self._test = valid, test
        assert trial.planned_examples is not None  # `Workload.complete` sees to it
        self._schedule = schedule_of(trial)
        self._rungs = (0, *self._schedule.steps_near(curves.ladder(trial.planned_examples, ratio=ratio)))
        self._next = 0
        self._seconds = 0.0
        self._synchronize = _synchronizer(workload.device)
        self._stepper: Stepper | None = None
        self._too_large: Stop | None = None
        try:
            with self._random.active(), explained(_where(trial, 0)):
                self._stepper = Stepper(workload, trial, data, micro_batch_size)
        except MemoryExhausted as error:  # the model alone does not fit: the first `advance` says so
            self._too_large = Stop(StopReason.OUT_OF_MEMORY, str(error))

    def advance(self) -> Point | Stop:
        """Train to the next rung and evaluate. Out of memory is a stop; an error of the workload is raised."""
        if self._too_large is not None:
            return self._too_large
        assert self._stepper is not None, "advance() after close()"
        if self._next == len(self._rungs):
            return Stop(StopReason.FINISHED)
        stepper, rung = self._stepper, self._rungs[self._next]
        try:
            with explained(_where(self.trial, stepper.step)):
                train_loss = self._train(rung - stepper.step)
                # Streams of its own, the same at every rung: a metric that draws is repeatable and disturbs nothing.
                with RandomStreams(0).active():
                    valid_loss, valid_metric = self._valid(stepper.judged)
                    test_metric = self._test(stepper.judged)[1] if self._test else None
        except MemoryExhausted as error:
            return Stop(StopReason.OUT_OF_MEMORY, str(error))
        self._next += 1
        point = Point(
            step=stepper.step,
            examples=stepper.examples,
            seconds=self._seconds,
            train_loss=train_loss,
            valid_loss=valid_loss,
            valid_metric=valid_metric,
            batch_size=stepper.batch_size,
            learning_rate=float(stepper.optimizer.param_groups[0]["lr"]),
            test_metric=test_metric,
        )
        self._kept.see(point, stepper.judged)
        return point

    def _train(self, steps: int) -> float | None:
        if steps == 0 or self._stepper is None:
            return None
        with self._random.active():
            started = time.perf_counter()
            train_loss = self._run(self._stepper, steps)
            self._synchronize()
            self._seconds += time.perf_counter() - started
        return train_loss

    def _run(self, stepper: Stepper, steps: int) -> float:
        """The mean loss of so many steps, each of the batch size and rate that are planned for it."""
        total, left = 0.0, steps
        while left:
            phase, within = self._schedule.at(stepper.examples), self._schedule.steps_in(stepper.examples, left)
            stepper.resize(phase.batch_size, phase.rate_factor)
            mean = stepper.run(within)
            if within == steps:
                return mean
            total, left = total + within * mean, left - within
        return total / steps

    def save(self) -> bytes:
        """Model, optimizer, schedule, random streams and position in the data, after the last point."""
        assert self._stepper is not None, "save() after close()"
        buffer = io.BytesIO()
        state = {
            "stepper": self._stepper.state(),
            "random": self._random.state(),
            "begun": self._next > 0,
            "seconds": self._seconds,
            "kept": self._kept.state(),
        }
        torch.save(state, buffer)
        return buffer.getvalue()

    def load(self, saved: bytes) -> None:
        """Take over what `save` gave. Only plain values and tensors are read: a state never runs code.

        Raises `StateError` for what is not such a state, or is one of another model.
        """
        assert self._stepper is not None, "load() after close()"
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(saved), weights_only=True)
            self._stepper.load(state["stepper"])
            self._random.load(state["random"])
            self._kept.load(state["kept"])
            # By the steps made: where rungs lie has changed since states were first kept. Old states say no "begun".
            self._next = bisect.bisect(self._rungs, self._stepper.step) if state.get("begun", True) else 0
            self._seconds = state["seconds"]
        except Exception as error:  # torch has no type for a damaged file or a model of another shape
            raise StateError(f"The saved state of a run cannot be read ({type(error).__name__}: {error}).") from error

    def write_weights(self, path: Path) -> bool:
        """See `rightbatch.runner.KeepsWeights`."""
        return self._stepper is not None and self._kept.write(path, self._stepper.judged)

    @property
    def model(self) -> torch.nn.Module:
        """The model as it is judged: as trained so far, or with averaged weights."""
        assert self._stepper is not None, "model after close()"
        return self._stepper.judged

    def close(self) -> None:
        self._stepper = None


def _where(trial: Trial, step: int) -> str:
    return f"batch_size={trial.batch_size}, learning_rate={trial.learning_rate:g}, seed={trial.seed}, after step {step}"


def _synchronizer(device: str) -> Any:
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.synchronize
    return torch.mps.synchronize if kind == "mps" else lambda: None


def _precision(workload: Workload) -> str:
    name = str(torch.get_default_dtype()).removeprefix("torch.")
    return f"{name}, autocast {workload.autocast}" if workload.autocast else name


def use_device(workload: Workload, device: str) -> Workload:
    """The same workload on another device. Raises `InputError` if this machine does not have it."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return replace(workload, device=device)
