"""The gradient noise of a workload along a short training: every batch is taken in parts, at fixed weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rightbatch.errors import WorkloadError
from rightbatch.gradients.curvature import Curvature, trained_by
from rightbatch.gradients.metrics import metric_of
from rightbatch.gradients.passes import Passes
from rightbatch.losses import examples_in, summed_loss
from rightbatch.parts import split
from rightbatch.records import GradientSample, Trial
from rightbatch.stepping import Stepper
from rightbatch.streams import RandomStreams
from rightbatch.update import under_autocast
from rightbatch.workload import Workload

METRICS = ("plain", "preconditioned")
PARTS = 4
"""Micro-batches of a batch. Two would do; four leave a third of the excess variance of two, eight hardly less."""


def gradient_samples(
    workload: Workload, trial: Trial, steps: int, *, parts: int = PARTS, curvature_steps: int = 0
) -> Iterator[GradientSample]:
    """Train for so many steps and sample the gradient of every one.

    Each batch is split into `parts` micro-batches of nearly equal size, whose gradients are accumulated: the step is
    the one of the whole batch, but for rounding. Works for every layer; with BatchNorm each micro-batch is normalised
    by itself, which is another training than that of the whole batch.

    A step gives its "plain" sample, for optimizers of `gradients.metrics` from the second step on a "preconditioned"
    one too, and at `curvature_steps` of the steps, spread evenly, one by "curvature" (`gradients.curvature`).

    Raises `WorkloadError` for a batch that cannot be split, or has only one example.
    """
    trial, random = workload.complete(trial), RandomStreams(trial.seed)
    with random.active():
        stepper = Stepper(workload, trial)
    curved = {round((k + 0.5) * steps / curvature_steps - 0.5) for k in range(curvature_steps)}
    curvature = Curvature(stepper)
    for step in range(steps):
        with random.active():  # of each step alone: between two of them the caller goes on
            batch = next(stepper.batches())
            micro_batches = split(batch, parts)
            _check_parts(micro_batches)
            samples = [curvature.sample(batch, micro_batches)] if step in curved else []
            samples = [*_step(stepper, batch, micro_batches), *samples]
        yield from samples


def _check_parts(micro_batches: Sequence[Any]) -> None:
    if len(micro_batches) < 2:
        raise WorkloadError(
            "A batch of one example has no parts whose gradients could be compared. Measure the noise at a batch size "
            "of at least 2: the noise scale hardly depends on it."
        )


def _step(stepper: Stepper, batch: Any, micro_batches: Sequence[Any]) -> list[GradientSample]:
    loss, scale = under_autocast(stepper.workload.loss, stepper.workload), stepper.update.scale
    parameters = trained_by(stepper.optimizer)
    stepper.optimizer.zero_grad()
    passes, weights = Passes(parameters, metric_of(stepper.optimizer)), []
    try:
        for part in micro_batches:
            passes.begin()
            summed, weight = summed_loss(loss(stepper.model, part), examples_in(part))
            (summed if scale is None else scale(summed)).backward()  # type: ignore[no-untyped-call]
            weights.append(weight)
    finally:
        passes.close()
    whole = sum(weights)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.div_(whole)
    unscaled = (whole * stepper.update.current_scale) ** 2
    squares = [
        torch.stack([squared, passes.parts_squared(parameter)])
        for parameter in parameters
        if (squared := passes.batch_squared(parameter)) is not None
    ]
    batch_squared, parts_squared = torch.stack(squares).double().sum(0).tolist() if squares else ([0.0], [0.0])
    samples = [
        GradientSample(
            step=stepper.step,
            batch_size=examples_in(batch) or stepper.trial.batch_size,
            learning_rate=float(stepper.optimizer.param_groups[0]["lr"]),
            batch_squared=of_batch / unscaled,
            parts_squared=of_parts / unscaled,
            shares_squared=sum((weight / whole) ** 2 for weight in weights),
            metric=metric,
        )
        for metric, of_batch, of_parts in zip(METRICS, batch_squared, parts_squared, strict=False)
    ]
    stepper.finish_step(batch)
    return samples
