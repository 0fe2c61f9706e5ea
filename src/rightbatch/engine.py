"""Runs of a `Workload`: they advance from rung to rung, pause, save and continue to the bit."""

from __future__ import annotations

import io
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from rightbatch import curves
from rightbatch.batches import Source, TensorSource
from rightbatch.errors import InputError, RightbatchError, WorkloadError
from rightbatch.measure.step_time import measure_step_times
from rightbatch.records import Environment, Point, StepTime, Stop, StopReason, Trial, WorkloadFacts
from rightbatch.stepping import Stepper, is_memory_error
from rightbatch.streams import RandomStreams
from rightbatch.workload import Workload


class WorkloadRunner:
    """Starts runs of a `Workload` in this process."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._facts = workload.facts()
        # Read once and shared by all runs: on a device, the data is moved there once.
        self._data = workload.source("data")
        self._valid = Evaluator(workload, workload.source("valid"))
        self._test = Evaluator(workload, workload.source("test")) if workload.test is not None else None

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
            precision=str(torch.get_default_dtype()).removeprefix("torch."),
            processor=_processor(),
            python=platform.python_version(),
            torch=torch.__version__,
            rightbatch=version("rightbatch"),
        )

    def offers(self, trial: Trial) -> bool:
        return trial.batch_size <= self._facts.train_examples and set(trial.settings) <= set(self.workload.settings)

    def start(self, trial: Trial, state: bytes | None = None) -> TrainingRun:
        """Begin a run, or go on from the state that a run of the same trial saved."""
        run = TrainingRun(self.workload, self.workload.complete(trial), self._data, self._valid, self._test)
        if state is not None:
            run.load(state)
        return run

    def step_times(self, batch_sizes: Sequence[int], *, rounds: int) -> Iterator[StepTime]:
        with _explained("while measuring step times"):
            yield from measure_step_times(self.workload, batch_sizes, rounds=rounds)


class TrainingRun:
    """One run in progress. See `rightbatch.runner.RunInProgress` for the contract."""

    def __init__(
        self, workload: Workload, trial: Trial, data: Source, valid: Evaluator, test: Evaluator | None
    ) -> None:
        self.trial = trial
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
                    valid_loss, valid_metric = self._valid(stepper.model)
                    test_metric = self._test(stepper.model)[1] if self._test else None
        except MemoryExhausted as error:
            return Stop(StopReason.OUT_OF_MEMORY, str(error))
        self._next += 1
        return Point(
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
        }
        torch.save(state, buffer)
        return buffer.getvalue()

    def load(self, saved: bytes) -> None:
        """Take over what `save` gave. Only plain values and tensors are read: a state never runs code."""
        assert self._stepper is not None, "load() after close()"
        state: dict[str, Any] = torch.load(io.BytesIO(saved), weights_only=True)
        self._stepper.load(state["stepper"])
        self._random.load(state["random"])
        self._next, self._seconds = state["next"], state["seconds"]

    @property
    def model(self) -> torch.nn.Module:
        """The model as trained so far."""
        assert self._stepper is not None, "model after close()"
        return self._stepper.model

    def close(self) -> None:
        self._stepper = None


def _where(trial: Trial, step: int) -> str:
    return f"batch_size={trial.batch_size}, learning_rate={trial.learning_rate:g}, seed={trial.seed}, after step {step}"


class Evaluator:
    """Mean loss and metric over a fixed subset of a source, in evaluation mode and without gradients."""

    def __init__(self, workload: Workload, source: Source) -> None:
        self._workload, self._source = workload, source
        if len(source) > workload.evaluation_examples:
            generator = torch.Generator().manual_seed(0)
            self._order = torch.randperm(len(source), generator=generator)[: workload.evaluation_examples]
        else:
            self._order = torch.arange(len(source))
        self._kept: list[Any] | None = None

    def _batches(self) -> Iterable[Any]:
        if not isinstance(self._source, TensorSource):  # a dataset may be larger than memory: read it each time
            return self._source.all_batches(self._order, self._workload.evaluation_batch_size)
        if self._kept is None:
            self._kept = list(self._source.all_batches(self._order, self._workload.evaluation_batch_size))
        return self._kept

    def __call__(self, model: torch.nn.Module) -> tuple[float, float]:
        losses, metrics = [], []
        training = [module for module in model.modules() if module.training]
        model.eval()
        with torch.no_grad():
            for batch in self._batches():
                loss, metric = self._judge(model, batch)
                losses.append(loss)
                metrics.append(metric)
        for module in training:  # not model.train(): parts that the person froze in evaluation mode stay so
            module.training = True
        return _mean(losses), _mean(metrics)

    def _judge(self, model: torch.nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        metric = self._workload.metric
        judged = metric(model, batch) if metric is not None else self._workload.loss(model, batch)
        if isinstance(judged, tuple):
            loss, values = judged
        else:
            values = judged
            loss = judged if metric is None else self._workload.loss(model, batch)
        for name, tensor in (("loss", loss), ("metric", values)):
            if not isinstance(tensor, torch.Tensor) or tensor.ndim != 1:
                shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
                raise WorkloadError(
                    f"{name}(model, batch) returned {shape} in evaluation. It must return one value per example, "
                    f"shape [batch_size]."
                )
        if len(loss) != len(values):
            raise WorkloadError(
                f"metric(model, batch) returned {tuple(values.shape)} in evaluation where the loss has {len(loss)} "
                f"examples. It must return one value per example, shape [batch_size]."
            )
        return loss, values


def _mean(parts: list[torch.Tensor]) -> float:
    return float(torch.cat(parts).double().mean() if parts[0].device.type != "mps" else torch.cat(parts).mean())


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


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def use_device(workload: Workload, device: str) -> Workload:
    """The same workload on another device. Raises `InputError` if this machine does not have it."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return replace(workload, device=device)
