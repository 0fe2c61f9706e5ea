"""The gradient noise of a workload along a short training: every batch is taken in parts, at fixed weights."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from rightbatch.errors import WorkloadError
from rightbatch.gradients.exact import mapped
from rightbatch.gradients.passes import Passes
from rightbatch.losses import check_loss, examples_in, is_total
from rightbatch.records import GradientSample, Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.update import under_autocast
from rightbatch.workload import Workload

PARTS = 4
"""Micro-batches of a batch. Two would do; four leave a third of the excess variance of two, eight hardly less."""


def gradient_samples(workload: Workload, trial: Trial, steps: int, *, parts: int = PARTS) -> Iterator[GradientSample]:
    """Train for so many steps and sample the gradient of every one.

    Each batch is split into `parts` micro-batches of nearly equal size, whose gradients are accumulated: the step is
    the one of the whole batch, but for rounding. Works for every layer; with BatchNorm each micro-batch is normalised
    by itself, which is another training than that of the whole batch.

    Raises `WorkloadError` for a batch that cannot be split, or has only one example.
    """
    trial, random = workload.complete(trial), RandomStreams(trial.seed)
    with random.active():
        stepper = Stepper(workload, trial)
    for _ in range(steps):
        with random.active():  # of each step alone: between two of them the caller goes on
            sample = _step(stepper, parts)
        yield sample


def _step(stepper: Stepper, parts: int) -> GradientSample:
    loss, scale = under_autocast(stepper.workload.loss, stepper.workload), stepper.update.scale
    parameters = [p for group in stepper.optimizer.param_groups for p in group["params"] if p.requires_grad]
    batch = next(stepper.batches())
    stepper.optimizer.zero_grad()
    passes, weights = Passes(parameters), []
    try:
        for part in split(batch, parts):
            passes.begin()
            summed, weight = _summed(loss(stepper.model, part), examples_in(part))
            (summed if scale is None else scale(summed)).backward()  # type: ignore[no-untyped-call]
            weights.append(weight)
    finally:
        passes.close()
    whole = sum(weights)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.div_(whole)
    unscaled = (whole * stepper.update.current_scale) ** 2
    sample = GradientSample(
        step=stepper.step,
        batch_size=examples_in(batch) or stepper.trial.batch_size,
        learning_rate=float(stepper.optimizer.param_groups[0]["lr"]),
        batch_squared=float(passes.batch_squared(parameters)) / unscaled,
        parts_squared=float(passes.parts_squared(parameters)) / unscaled,
        shares_squared=sum((weight / whole) ** 2 for weight in weights),
    )
    stepper.finish_step()
    return sample


def split(batch: Any, parts: int) -> list[Any]:
    """A batch (tensors, alone or in a tuple, a list or a dict) as micro-batches of nearly equal size, in order.

    Raises `WorkloadError` for a batch of one example, or one whose tensors have no common first dimension.
    """
    examples = examples_in(batch)
    if examples is None or not _same_length(batch, examples):
        raise WorkloadError(
            f"A batch of type {type(batch).__name__} cannot be split into micro-batches: its tensors do not all have "
            f"the examples along their first dimension. Give tensors, or a tuple or dict of them, of equal lengths."
        )
    if examples < 2:
        raise WorkloadError(
            "A batch of one example has no parts whose gradients could be compared. Measure the noise at a batch size "
            "of at least 2: the noise scale hardly depends on it."
        )
    edges = [examples * k // min(parts, examples) for k in range(min(parts, examples) + 1)]
    return [mapped(batch, operator.itemgetter(slice(low, high))) for low, high in itertools.pairwise(edges)]


def _summed(loss: Any, examples: int | None) -> tuple[torch.Tensor, float]:
    """The sum of a loss over a batch, and what it is a sum over: examples, or tokens."""
    check_loss(loss, examples)
    if is_total(loss):
        return loss[0], float(loss[1])
    return (loss.sum(), float(len(loss))) if loss.ndim else (loss * (examples or 1), float(examples or 1))


def _same_length(batch: Any, examples: int) -> bool:
    if isinstance(batch, torch.Tensor):
        return batch.ndim > 0 and len(batch) == examples
    values = list(batch.values()) if isinstance(batch, Mapping) else batch
    return isinstance(values, list | tuple) and all(_same_length(value, examples) for value in values)
