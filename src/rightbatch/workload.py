"""What a person brings: a model, data, a per-example loss, an optimizer, and what they train with today."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from rightbatch.batches import Source, as_source, check_data, check_finite
from rightbatch.errors import WorkloadError
from rightbatch.records import Direction, Settings, Trial, WorkloadFacts

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
        `DataLoader` with `collate`.
    loss: `loss(model, batch)` returns the losses of the examples, shape `[batch_size]`. Training minimises their mean.
    optimizer: `optimizer(parameters, trial)` returns an optimizer at rate `trial.learning_rate`.
    metric: `metric(model, batch)` returns a value per example, shape `[batch_size]`, averaged over `valid`; or a pair
        `(losses, values)`, so that one forward pass serves both. None: the metric is the validation loss.
    direction: Whether a better metric is larger ("max") or smaller ("min").
    schedule: `schedule(optimizer, trial)` returns a learning-rate scheduler, stepped after every optimizer step.
    target: The value to be reached, of `target_quantity`; None: 2 % of the gain short of what `present` reaches.
    present: The batch size and learning rate that the person trains with now.
    planned_examples: Planned length of a run in examples seen; None: 20 passes over the data.
    settings: Named numbers or strings that a trial may change, with their defaults (`momentum`, `width` ...).
    test: Optional data that nothing is chosen by; quality is then reported on it.
    device: Where to train ("cpu", "cuda", "mps").

    Raises
    ------
    WorkloadError: When the data is empty, ragged or has values that are not finite.
    """

    name: str
    model: Callable[[], torch.nn.Module]
    data: Any
    valid: Any
    loss: Callable[[torch.nn.Module, Batch], torch.Tensor]
    optimizer: Callable[[Iterable[torch.nn.Parameter], Trial], torch.optim.Optimizer]
    metric: Callable[[torch.nn.Module, Batch], Any] | None = None
    direction: Direction = "min"
    schedule: Callable[[torch.optim.Optimizer, Trial], Any] | None = None
    target: float | None = None
    target_quantity: Literal["valid_metric", "valid_loss"] = "valid_metric"
    present: tuple[int, float] | None = None
    planned_examples: int | None = None
    settings: Mapping[str, float | int | str] = field(default_factory=dict)
    test: Any = None
    collate: Callable[[list[Any]], Batch] | None = None
    evaluation_examples: int = EVALUATION_EXAMPLES
    evaluation_batch_size: int = 1000
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise WorkloadError(f"direction is 'min' or 'max', got {self.direction!r}.")
        if self.metric is None and self.direction == "max":
            raise WorkloadError(
                "direction='max' without a metric: the validation loss is what is judged, and a loss goes down. "
                "Give a metric, or leave direction at 'min'."
            )
        for what in ("data", "valid", "test"):
            if getattr(self, what) is not None:
                check_data(getattr(self, what), what)
                check_finite(getattr(self, what), what)

    def source(self, what: Literal["data", "valid", "test"]) -> Source:
        """The training, validation or test data, ready to be read in batches on the device."""
        return as_source(getattr(self, what), device=torch.device(self.device), collate=self.collate, name=what)

    def complete(self, trial: Trial) -> Trial:
        """A trial with every declared setting and a planned length. Raises `WorkloadError` for an unknown setting."""
        unknown = sorted(set(trial.settings) - set(self.settings))
        if unknown:
            raise WorkloadError(
                f"The workload {self.name!r} declares no setting {unknown[0]!r}; "
                f"it has {', '.join(sorted(self.settings)) or 'none'}."
            )
        planned = trial.planned_examples or self.planned_examples or 20 * check_data(self.data, "data")
        settings = Settings({**self.settings, **trial.settings})
        return Trial(trial.batch_size, trial.learning_rate, trial.seed, planned, settings)

    def facts(self) -> WorkloadFacts:
        """What is known of the workload without training it."""
        examples = check_data(self.data, "data")
        return WorkloadFacts(
            name=self.name,
            train_examples=examples,
            valid_examples=min(check_data(self.valid, "valid"), self.evaluation_examples),
            planned_examples=self.planned_examples or 20 * examples,
            metric=getattr(self.metric, "__name__", "metric") if self.metric else "validation loss",
            direction=self.direction,
            optimizer=self._optimizer_name(),
            target=self.target,
            target_quantity=self.target_quantity,
            present=self.present,
            settings=Settings(self.settings),
            source=self._source_hash(),
        )

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
        """A hash of the code of the callables, so that a study notices when the training code has changed."""
        digest = hashlib.sha256()
        for function in (self.model, self.loss, self.optimizer, self.metric, self.schedule, self.collate):
            try:
                digest.update(inspect.getsource(function).encode() if function else b"-")
            except (OSError, TypeError):  # no source: defined at a prompt, or a callable object
                digest.update(b"?")
        return digest.hexdigest()[:16]
