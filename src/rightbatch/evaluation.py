"""Mean loss and metric over a fixed subset of the data, in evaluation mode and without gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rightbatch.batches import Source, TensorSource
from rightbatch.errors import WorkloadError
from rightbatch.losses import examples_in, is_scalar, totals
from rightbatch.update import under_autocast
from rightbatch.workload import Workload


class Evaluator:
    """Loss and metric of a model on one source of data."""

    def __init__(self, workload: Workload, source: Source) -> None:
        self._workload, self._source = workload, source
        self._kept: list[Any] | None = None

    def batches(self) -> Iterable[Any]:
        """The batches that are judged, the same ones each time."""
        workload = self._workload
        if not isinstance(self._source, TensorSource):  # a dataset may be larger than memory: read it each time
            return self._source.fixed(workload.evaluation_examples, workload.evaluation_batch_size)
        if self._kept is None:
            self._kept = list(self._source.fixed(workload.evaluation_examples, workload.evaluation_batch_size))
        return self._kept

    def __call__(self, model: torch.nn.Module) -> tuple[float, float]:
        """The mean loss and the metric. Raises `WorkloadError` for what is not a value per example, total or mean."""
        with evaluating(model):
            return self._over_set(model) if self._workload.metric_on == "set" else self._over_batches(model)

    def _over_batches(self, model: torch.nn.Module) -> tuple[float, float]:
        workload, loss, metric = self._workload, _Mean("loss"), _Mean("metric")
        own_metric = under_autocast(workload.metric, workload) if workload.metric else None
        own_loss = under_autocast(workload.loss, workload)
        for batch in self.batches():
            examples = examples_in(batch) or 1
            judged = own_metric(model, batch) if own_metric else None
            if isinstance(judged, tuple):  # of a metric a pair is (loss, value), also where both are scalars
                if len(judged) != 2:
                    raise WorkloadError(f"metric(model, batch) returned {len(judged)} values. Return (loss, value).")
                losses, values = judged
            else:
                losses = own_loss(model, batch)
                values = judged if own_metric else losses
            loss.add(losses, examples)
            metric.add(values, examples)
            _check_alike(losses, values)
        return loss.value, metric.value

    def _over_set(self, model: torch.nn.Module) -> tuple[float, float]:
        workload = self._workload
        assert workload.metric is not None  # the workload sees to it
        judged = under_autocast(workload.metric, workload)(model, self.batches())
        parts = judged if isinstance(judged, tuple) else (judged,)
        if len(parts) > 2 or not all(is_scalar(part) for part in parts):
            found = f"{len(parts)} values" if len(parts) > 2 else " and ".join(_kind(part) for part in parts)
            raise WorkloadError(f"metric(model, batches) returned {found}. Return a number, or a pair (loss, value).")
        if len(parts) == 2:
            return float(parts[0]), float(parts[1])
        mean, own_loss = _Mean("loss"), under_autocast(workload.loss, workload)
        for batch in self.batches():
            mean.add(own_loss(model, batch), examples_in(batch) or 1)
        return mean.value, float(judged)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """In the block the model is in evaluation mode and nothing has a gradient; afterwards it is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:  # not model.train(): parts that the person froze in evaluation mode stay so
            module.training = True


class _Mean:
    """A mean over batches: of totals and their weights."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._totals: list[torch.Tensor] = []
        self._weight = 0.0

    def add(self, value: Any, examples: int) -> None:
        total, weight = totals(value, examples, self._name)
        self._totals.append(total)
        self._weight += weight

    @property
    def value(self) -> float:
        # Stacked first: one wait for the device instead of one a batch.
        return float(torch.stack(self._totals).sum()) / self._weight if self._weight else float("nan")


def _kind(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def _check_alike(losses: Any, values: Any) -> None:
    per_example = [value for value in (losses, values) if isinstance(value, torch.Tensor) and value.ndim == 1]
    if len(per_example) == 2 and len(losses) != len(values):
        raise WorkloadError(
            f"metric(model, batch) returned {tuple(values.shape)} in evaluation where the loss has {len(losses)} "
            f"examples. It must return one value per example, shape [batch_size]."
        )
