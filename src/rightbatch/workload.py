"""What a person brings: a model, data, a per-example loss, an optimizer, and what they train with today."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from rightbatch.batch_schedule import SETTING
from rightbatch.batches import Source, as_source, check_data, check_finite, is_loader
from rightbatch.errors import WorkloadError
from rightbatch.records import Direction, Settings, Trial, WorkloadFacts
from rightbatch.runner import completed
from rightbatch.schedules import changes_after_warm_up

Batch = Any
"""What the person's own callables receive: a tensor, a tuple or a dict of tensors, or what `collate` returns."""

EVALUATION_EXAMPLES = 10_000
"""Evaluation uses at most this many examples by default: a fixed subset, the same for every run."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A training problem, complete but for batch size, learning rate and seed.

    Parameters
    ----------
    name: How studies and pages call it.
    model: Returns a new model. Called once a run, after the random generators were seeded.
    data, valid: Training and validation data: a tensor, a tuple or dict of tensors with the examples along the first
        dimension, or a map-style `torch.utils.data.Dataset`. Tensors are indexed directly; datasets go through a
        `DataLoader` with `collate`. Or a function `(batch_size, seed) -> loader`, called once a pass: anything that
        gives batches, for streams, buckets of like length, batches with a budget of tokens, text cut into parallel
        streams. What its `batch_size` counts is its own business; examples seen are steps times batch size. Draw
        the order from `seed`, so that a run that goes on in the middle of a pass meets the same batches.
    loss: `loss(model, batch)` returns the losses of the examples, shape `[batch_size]`; or `(total, weight)`, their sum
        and what it is a sum over (examples, or tokens that are not masked); or their mean, a scalar: then nothing is
        known of single examples. Training minimises the mean.
    optimizer: `optimizer(parameters, trial)` returns an optimizer at rate `trial.learning_rate`.
    metric: `metric(model, batch)` returns a value per example or their mean, averaged over `valid`; or a pair
        `(loss, value)`, so that one forward pass serves both. Each part of the pair may be what `loss` may return, a
        `(total, weight)` too. None: the metric is the validation loss.
    metric_on: "set": `metric(model, batches)` is given all batches at once and returns a number (or `(loss, value)`):
        for what is not a mean over examples (AUC, a state that is carried from batch to batch, and then is its own:
        evaluation must leave the model as it was).
    direction: Whether a better metric is larger ("max") or smaller ("min").
    schedule: `schedule(optimizer, trial)` returns a learning-rate scheduler, stepped after every optimizer step;
        `trial.planned_steps` tells how long the run is. Give warm-up and milestones in examples.
    length_bound: Whether the rate changes after warm-up, so that only the ends of runs count. None: found out from the
        schedule.
    max_gradient_norm: Gradients are clipped to this norm.
    autocast: "bfloat16" or "float16": mixed precision, the latter with a gradient scaler.
    averaging_examples: Evaluate an exponential average of the weights with this horizon in examples.
    target: The value to be reached, of `target_quantity`; None: 2 % of the gain short of what `present` reaches.
    present: The batch size and learning rate that the person trains with now.
    train_examples: How many examples a pass of a loader gives, where `data` is a function.
    planned_examples: Planned length of a run in examples seen; None: 20 passes over the data.
    settings: Named numbers or strings that a trial may change, with their defaults (`momentum`, `weight_decay` ...).
    test: Optional data that nothing is chosen by; quality is then reported on it.
    device: Where to train ("cpu", "cuda", "mps").

    Raises
    ------
    WorkloadError: When the data is empty or ragged, or a field has a value that it cannot have.
    """

    name: str
    model: Callable[[], torch.nn.Module]
    data: Any
    valid: Any
    loss: Callable[[torch.nn.Module, Batch], Any]
    optimizer: Callable[[Iterable[torch.nn.Parameter], Trial], torch.optim.Optimizer]
    metric: Callable[[torch.nn.Module, Any], Any] | None = None
    metric_on: Literal["batch", "set"] = "batch"
    direction: Direction = "min"
    schedule: Callable[[torch.optim.Optimizer, Trial], Any] | None = None
    length_bound: bool | None = None
    max_gradient_norm: float | None = None
    autocast: Literal["bfloat16", "float16"] | None = None
    averaging_examples: float | None = None
    target: float | None = None
    target_quantity: Literal["valid_metric", "valid_loss"] = "valid_metric"
    present: tuple[int, float] | None = None
    train_examples: int | None = None
    planned_examples: int | None = None
    settings: Mapping[str, float | int | str] = field(default_factory=dict)
    test: Any = None
    collate: Callable[[list[Any]], Batch] | None = None
    evaluation_examples: int = EVALUATION_EXAMPLES
    evaluation_batch_size: int = 1000
    device: str = "cpu"

    def __post_init__(self) -> None:
        self._check_makers()
        for name, allowed in (
            ("direction", ("min", "max")),
            ("metric_on", ("batch", "set")),
            ("autocast", (None, "bfloat16", "float16")),
        ):
            if getattr(self, name) not in allowed:
                choices = " or ".join(repr(value) for value in allowed)
                raise WorkloadError(f"{name} is {choices}, got {getattr(self, name)!r}.")
        if self.metric is None and self.direction == "max":
            raise WorkloadError(
                "direction='max' without a metric: the validation loss is what is judged, and a loss goes down. "
                "Give a metric, or leave direction at 'min'."
            )
        for name in (
            "max_gradient_norm",
            "averaging_examples",
            "train_examples",
            "planned_examples",
            "evaluation_examples",
            "evaluation_batch_size",
        ):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise WorkloadError(f"{name} is a positive number, got {value}. Leave it out where there is none.")
        for what in ("data", "valid", "test"):
            if getattr(self, what) is not None and not is_loader(getattr(self, what)):
                check_data(getattr(self, what), what)
        if self.metric_on == "set" and self.metric is None:
            raise WorkloadError('metric_on="set" without a metric: give metric(model, batches).')
        if is_loader(self.data) and self.train_examples is None:
            raise WorkloadError(
                "data is a function, so how many examples a pass has is not known. Say train_examples=."
            )

    def _check_makers(self) -> None:
        """Raise `WorkloadError` for a model or an optimizer that is made already, and for what cannot be called."""
        optimizer = "lambda parameters, trial: torch.optim.SGD(parameters, trial.learning_rate)"
        for name, made, call in (
            ("model", torch.nn.Module, "lambda: net()"),
            ("optimizer", torch.optim.Optimizer, optimizer),
            ("loss", (), "lambda model, batch: criterion(model(batch[0]), batch[1])"),
        ):
            value = getattr(self, name)
            if isinstance(value, made) or not callable(value):
                raise WorkloadError(
                    f"{name} is a {type(value).__name__}, expected a function: every run starts anew. Say "
                    f"{name}={call}."
                )

    def check_finite(self) -> None:
        """Raise `WorkloadError` for data with values that are not finite, where they can be seen beforehand."""
        for what in ("data", "valid", "test"):
            if getattr(self, what) is not None:
                check_finite(getattr(self, what), what)

    def source(self, what: Literal["data", "valid", "test"]) -> Source:
        """The training, validation or test data, ready to be read in batches on the device."""
        return as_source(
            getattr(self, what),
            device=torch.device(self.device),
            collate=self.collate,
            name=what,
            examples=(self.train_examples or 0) if what == "data" else 0,
        )

    def complete(self, trial: Trial) -> Trial:
        """A trial with every declared setting and a planned length. Raises `WorkloadError` for an unknown setting."""
        # Not from `facts`: those ask for the schedule, which is probed with a complete trial.
        return completed(trial, self.settings, self._planned_examples(), f"workload {self.name!r}", also=(SETTING,))

    def facts(self) -> WorkloadFacts:
        """What is known of the workload without training it."""
        valid = self.evaluation_examples if is_loader(self.valid) else check_data(self.valid, "valid")
        return WorkloadFacts(
            name=self.name,
            train_examples=self._train_examples(),
            valid_examples=min(valid, self.evaluation_examples),
            planned_examples=self._planned_examples(),
            metric=_name_of(self.metric) if self.metric else "validation loss",
            direction=self.direction,
            optimizer=self._optimizer_name(),
            target=self.target,
            # Without a metric of its own they are the same number, and one of the names says what it is.
            target_quantity="valid_loss" if self.metric is None else self.target_quantity,
            present=self.present,
            settings=Settings(self.settings),
            source=self._source_hash(),
            length_bound=changes_after_warm_up(self) if self.length_bound is None else self.length_bound,
        )

    def _train_examples(self) -> int:
        return (self.train_examples or 0) if is_loader(self.data) else check_data(self.data, "data")

    def _planned_examples(self) -> int:
        return self.planned_examples or 20 * self._train_examples()

    def _optimizer_name(self) -> str:
        """Class of the optimizer, as "SGD", "SGD momentum 0.9", "Adam"; made on a throw-away parameter."""
        trial = Trial(1, 0.1, 0, 1, Settings(self.settings))
        try:  # a matrix: some optimizers (Muon) refuse vectors
            optimizer = self.optimizer([torch.nn.Parameter(torch.zeros(1, 1))], trial)
        except Exception as error:
            raise WorkloadError(f"optimizer(parameters, trial) raised {type(error).__name__}: {error}.") from error
        momentum = optimizer.param_groups[0].get("momentum", 0)
        return type(optimizer).__name__ + (f" momentum {momentum:g}" if momentum else "")

    def _source_hash(self) -> str:
        """A hash of the training code and of how it trains, so that a study notices when either has changed."""
        digest = hashlib.sha256()
        callables = (self.model, self.loss, self.optimizer, self.metric, self.schedule, self.collate)
        for function in (*callables, *(data for data in (self.data, self.valid) if is_loader(data))):
            try:
                digest.update(inspect.getsource(function).encode() if function else b"-")
            except (OSError, TypeError):  # no source: defined at a prompt, or a callable object
                digest.update(b"?")
        # Only where they are asked for, so that studies of before keep their hash.
        for name in ("max_gradient_norm", "autocast", "averaging_examples"):
            if (value := getattr(self, name)) is not None:
                digest.update(f"{name}={value!r}".encode())
        return digest.hexdigest()[:16]


def _name_of(function: Any) -> str:
    """What a person calls it; a lambda has no name."""
    name = getattr(function, "__name__", "metric")
    return "metric" if name == "<lambda>" else name
