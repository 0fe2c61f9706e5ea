"""Runs of a `Workload`: they advance from rung to rung, pause, save and continue to the bit."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rightbatch import curves
from rightbatch.batches import Source
from rightbatch.errors import InputError, RightbatchError, StateError, WorkloadError
from rightbatch.evaluation import Evaluator
from rightbatch.machine import processor
from rightbatch.measure.step_time import measure_step_times
from rightbatch.records import Environment, Point, StepTime, Stop, StopReason, Trial, WorkloadFacts
from rightbatch.runner import suits
from rightbatch.stepping import Stepper, is_memory_error
from rightbatch.streams import RandomStreams
from rightbatch.weights import Keep, KeptWeights
from rightbatch.workload import Workload


@dataclass(frozen=True)
class Checkpoint:
    """Weights that runs start from: a file, and the SHA-256 that it had when it was first read."""

    path: Path
    digest: str

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """The checkpoint in a file; one that was read before as it is. Raises `InputError` where it cannot be read."""
        if isinstance(path, Checkpoint):
            return path
        return cls(Path(path).absolute(), hashlib.sha256(_bytes_of(Path(path))).hexdigest())

    def __fspath__(self) -> str:
        return str(self.path)

    def weights(self) -> dict[str, Any]:
        """The state dict in the file, or the one it has under "model" or "state_dict". A file never runs code.

        Raises `InputError` where there is none, or the file has changed since it was first read.
        """
        content = _bytes_of(self.path)
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise InputError(
                f"The checkpoint {self.path} has changed since this search began, and its runs must all start from "
                f"the same weights. Give a copy that nobody writes."
            )
        try:
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # torch has no type for a damaged file, nor for one that would run code
            raise InputError(
                f"The checkpoint {self.path} cannot be read as weights alone ({type(error).__name__}). Save the state "
                f"dict: torch.save(model.state_dict(), PATH)."
            ) from error
        for name in ("model", "state_dict"):
            if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
                return loaded[name]  # type: ignore[no-any-return]
        if not isinstance(loaded, dict):
            raise InputError(
                f"The checkpoint {self.path} holds a {type(loaded).__name__}, expected a state dict, or a dict with "
                f"one under 'model' or 'state_dict'. Save one: torch.save(model.state_dict(), PATH)."
            )
        return loaded


class WorkloadRunner:
    """Starts runs of a `Workload` in this process.

    `keep_models` says which weights a run can write, `start_from` which weights every run starts from (None: those that
    the model is made with). Raises `InputError` where these do not fit the model.
    """

    def __init__(self, workload: Workload, keep_models: Keep = "none", start_from: Checkpoint | None = None) -> None:
        self.given, self.start_from, self._keep = workload, start_from, keep_models
        workload.check_finite()
        self._facts = workload.facts()
        if start_from is not None:
            workload = starting_from(workload, start_from)
            source = f"{self._facts.source} {start_from.digest}"
            self._facts = replace(self._facts, source=hashlib.sha256(source.encode()).hexdigest()[:16])
        self.workload = workload
        # Read once and shared by all runs: on a device, the data is moved there once.
        self._data = workload.source("data")
        self._valid = Evaluator(workload, workload.source("valid"))
        self._test = Evaluator(workload, workload.source("test")) if workload.test is not None else None

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkloadRunner, (self.given, self._keep, self.start_from)

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
        )

    def offers(self, trial: Trial) -> bool:
        return suits(trial, self._facts.train_examples, self.workload.settings)

    def start(self, trial: Trial, state: bytes | None = None) -> TrainingRun:
        """Begin a run, or go on from the state that a run of the same trial saved."""
        kept = KeptWeights(self._keep, self._facts)
        run = TrainingRun(self.workload, self.workload.complete(trial), self._data, self._valid, self._test, kept)
        if state is not None:
            run.load(state)
        return run

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        with _explained("while measuring step times"):
            yield from measure_step_times(self.workload, batch_sizes, rounds=rounds)


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
    ) -> None:
        self.trial, self._kept = trial, kept
        self._random = RandomStreams(trial.seed)
        self._valid, self._test = valid, test
        assert trial.planned_examples is not None  # `Workload.complete` sees to it
        self._rungs = (0, *curves.rungs_in_steps(trial.planned_examples, trial.batch_size))
        self._next = 0
        self._seconds = 0.0
        self._synchronize = _synchronizer(workload.device)
        self._stepper: Stepper | None = None
        self._too_large: Stop | None = None
        try:
            with self._random.active(), _explained(_where(trial, 0)):
                self._stepper = Stepper(workload, trial, data)
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
            with _explained(_where(self.trial, stepper.step)):
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
            examples=stepper.step * self.trial.batch_size,
            seconds=self._seconds,
            train_loss=train_loss,
            valid_loss=valid_loss,
            valid_metric=valid_metric,
            batch_size=self.trial.batch_size,
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
            train_loss = self._stepper.run(steps)
            self._synchronize()
            self._seconds += time.perf_counter() - started
        return train_loss

    def save(self) -> bytes:
        """Model, optimizer, schedule, random streams and position in the data, after the last point."""
        assert self._stepper is not None, "save() after close()"
        buffer = io.BytesIO()
        state = {
            "stepper": self._stepper.state(),
            "random": self._random.state(),
            "next": self._next,
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
            self._next, self._seconds = state["next"], state["seconds"]
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


class MemoryExhausted(Exception):
    """The allocator said no; becomes a stop reason, never an error."""


class _explained:
    """Turns what the person's code raises into a `WorkloadError` that says where, and memory errors into their own."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, RightbatchError):
            return
        if is_memory_error(error):
            raise MemoryExhausted(str(error).partition("\n")[0] or type(error).__name__) from error
        raise WorkloadError(
            f"The workload raised {type(error).__name__}: {error} ({self._where}). "
            f"Run with --debug for the whole traceback."
        ) from error


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


def starting_from(workload: Workload, checkpoint: Checkpoint) -> Workload:
    """The same workload, its model made with the weights of a checkpoint.

    Raises `InputError` where they do not fit the model: it is tried at once.
    """
    weights, make = checkpoint.weights(), workload.model

    @functools.wraps(make)
    def model() -> torch.nn.Module:
        made = make()
        _load_weights(made, weights, checkpoint.path)
        return made

    # A model that does not fit into memory: the first run says so.
    with (
        contextlib.suppress(MemoryExhausted),
        RandomStreams(0).active(),
        _explained("while the model was made to be given the weights of a checkpoint"),
    ):
        model()
    return replace(workload, model=model)


def _load_weights(model: torch.nn.Module, weights: dict[str, Any], path: Path) -> None:
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # of shapes that differ, each named
        raise InputError(
            f"The checkpoint {path} does not fit the model: {error}. Give weights of this model."
        ) from error
    if missing or unexpected:
        said = [
            f"{what} {_named(names)}"
            for what, names in (("it lacks", missing), ("the model has no", unexpected))
            if names
        ]
        raise InputError(
            f"The checkpoint {path} does not fit the model: {'; '.join(said)}. Give weights of this model."
        )


def _named(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The checkpoint {path} cannot be read: {error.strerror}. Give the path of a file.") from error
